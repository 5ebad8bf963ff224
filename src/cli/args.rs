//! What can be typed.
//!
//! Owns the commands, their flags and their help. Reads no environment and checks nothing that needs more than the
//! text itself.

/// `agent-wormhole completions`.
mod completions;
/// `--detach`.
mod detach;
/// `agent-wormhole doctor`.
mod doctor;
/// `agent-wormhole man`.
mod man;
/// What whoever uses a relay types.
mod relay;
/// `agent-wormhole run`.
mod run;
/// `agent-wormhole send`.
mod send;
/// `agent-wormhole setup`.
mod setup;
/// `agent-wormhole unlock`.
mod unlock;
/// `agent-wormhole wait`.
mod wait;
/// `agent-wormhole watch`.
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use agent_wormhole_relay::cli::RelayCommand;
use clap::{Parser, Subcommand, ValueEnum};

pub use self::completions::CompletionsArgs;
pub use self::detach::DetachArgs;
pub use self::doctor::DoctorArgs;
pub use self::man::ManArgs;
pub use self::relay::RelayArgs;
pub use self::run::RunArgs;
pub use self::send::SendArgs;
pub use self::setup::{SetupArgs, SetupTarget};
pub use self::unlock::UnlockArgs;
pub use self::wait::WaitArgs;
pub use self::watch::WatchArgs;
use super::quantity;
use crate::crypto::pake::Role;

/// Where else a setting of a channel may stand.
const SETTINGS: &str = "A flag wins over its variable [env: …], and that over ~/.config/agent-wormhole/config.toml, where the\n\
                        flag without its dashes is the key: timeout = \"10m\"";

/// A directory on each of two machines: what is written into `outbox/` here appears in `inbox/` there, end to end
/// encrypted.
#[derive(Debug, Parser)]
#[command(
    name = "agent-wormhole",
    version,
    after_help = "Example:\n  agent-wormhole host                             # prints a code\n  \
                  agent-wormhole connect 9471-cross-clock-marble  # on the other machine\n  \
                  echo hello > \"$DIRECTORY/outbox/message\"\n\n\
                  Exit codes: 0 done, 1 internal, 2 usage, 3 handshake failed, 4 unreachable, 5 timeout,\n\
                  6 something was not delivered, 7 protocol error or tampering, 130 interrupted"
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a channel, print its code, and keep it open
    #[command(after_help = format!("{SETTINGS}\n\nExamples:\n  agent-wormhole host --timeout 10m\n  \
                            agent-wormhole host --detach               # returns with the code\n  \
                            agent-wormhole host --relay wss://relay.example.org --ca authority.pem"))]
    Host(HostArgs),
    /// Enter a channel with its code, and keep it open
    #[command(after_help = format!("{SETTINGS}\n\nExamples:\n  agent-wormhole connect 9471-cross-clock-marble\n  \
                            agent-wormhole connect 40123-cross-clock-marble@laptop.local\n  \
                            agent-wormhole connect - < code.txt        # keeps the code out of `ps`"))]
    Connect(ConnectArgs),
    /// Send a text, files and directories by reference, or standard input as a file
    #[command(after_help = send::EXAMPLES)]
    Send(SendArgs),
    /// Wait until the peer has stored everything that was sent
    #[command(after_help = "Example:\n  agent-wormhole flush 9471 --timeout 10m")]
    Flush(FlushArgs),
    /// Print the events of a channel: those of the past, and each as it comes
    #[command(after_help = watch::AFTER)]
    Watch(WatchArgs),
    /// Wait for a text, a file or the peer, print its event, and return
    #[command(after_help = wait::AFTER)]
    Wait(WaitArgs),
    /// Give a secret that arrived to one command, and hide it in what that prints
    #[command(after_help = run::AFTER)]
    Run(RunArgs),
    /// Let a secret that arrived be read as a file (for a person at a terminal)
    #[command(after_help = unlock::AFTER)]
    Unlock(UnlockArgs),
    /// Show the channels of this machine
    #[command(after_help = "Example:\n  agent-wormhole status --json")]
    Status(StatusArgs),
    /// Close a channel after everything in its outbox was delivered
    #[command(after_help = "Example:\n  agent-wormhole close 9471")]
    Close(CloseArgs),
    /// Run a relay: it pairs two ends by their number and cannot read what it forwards
    #[command(after_help = "Example:\n  agent-wormhole relay --listen 0.0.0.0:8787\n  \
                            agent-wormhole host --relay ws://relay.example.org:8787   # elsewhere")]
    Relay(Box<RelayCommand>),
    /// Install the skill that teaches an agent this program, or print it
    #[command(after_help = setup::AFTER)]
    Setup(SetupArgs),
    /// Check what a channel needs on this machine, and say what to do where something is missing
    #[command(after_help = doctor::AFTER)]
    Doctor(DoctorArgs),
    /// Print what a shell needs to complete these commands
    #[command(after_help = completions::AFTER)]
    Completions(CompletionsArgs),
    /// Print a page of the manual, or write all of them
    #[command(after_help = man::AFTER)]
    Man(ManArgs),
}

impl Command {
    /// Arguments that may hold the words of a code, or a password.
    pub(super) fn secrets(&self) -> Vec<String> {
        let given: Vec<&String> = match self {
            Self::Host(_) | Self::Relay(_) | Self::Doctor(_) => Vec::new(),
            Self::Setup(_) | Self::Completions(_) | Self::Man(_) => Vec::new(),
            Self::Connect(args) => args.code.iter().collect(),
            Self::Send(args) => vec![&args.channel],
            Self::Flush(args) => vec![&args.channel],
            Self::Watch(args) => vec![&args.channel],
            Self::Wait(args) => vec![&args.channel],
            Self::Run(args) => args.channel.iter().collect(),
            Self::Unlock(args) => vec![&args.channel],
            Self::Status(args) => args.channel.iter().collect(),
            Self::Close(args) => vec![&args.channel],
        };
        // A number or a path holds no words.
        let holds_words =
            |text: &&String| !text.contains('/') && text.bytes().any(|b| b.is_ascii_alphabetic());
        let words = given.into_iter().filter(holds_words).cloned();
        match self {
            Self::Host(HostArgs { relay, .. })
            | Self::Connect(ConnectArgs { relay, .. })
            | Self::Doctor(DoctorArgs { relay, .. }) => words.chain(relay.secrets()).collect(),
            _ => words.collect(),
        }
    }
}

/// What `host` and `connect` have in common.
#[derive(Debug, clap::Args)]
pub struct ChannelArgs {
    /// The channel's directory: made where it is missing, refused where it is not empty [default: a private one]
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,
    /// How the directory is made [env: AGENT_WORMHOLE_MOUNT] [default: auto]
    #[arg(long, value_enum)]
    pub mount: Option<MountArg>,
    /// Give up when the other end has not connected after this long, such as 90s, 10m, 1h30m
    /// [env: AGENT_WORMHOLE_TIMEOUT] [default: 1h for a host, 2m to connect]
    #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// What the inbox may hold, such as 500MB [env: AGENT_WORMHOLE_INBOX_LIMIT] [default: what the disk has, less a reserve,
    /// at most 16GiB]
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    pub inbox_limit: Option<u64>,
    /// The same for the outbox, where the directory is a mount [env: AGENT_WORMHOLE_OUTBOX_LIMIT] [default: as for the inbox]
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    pub outbox_limit: Option<u64>,
    /// What a mount keeps in memory, such as 2GiB; what is beyond it is sealed and put on the disk
    /// [env: AGENT_WORMHOLE_MEMORY] [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    pub memory: Option<u64>,
    /// Do not send texts and small files that look like a credential (a mount refuses them: EACCES)
    #[arg(long)]
    pub block_secrets: bool,
    /// Who reads secrets that arrive: the one command of `agent-wormhole run`, or, in a mount, whoever opens
    /// inbox/secrets/NAME
    #[arg(long, value_enum, default_value = "run")]
    pub secrets: SecretsArg,
    /// Do not tell the other end what was read here
    #[arg(long)]
    pub no_read_receipts: bool,
    /// Print events only, no hints for people
    #[arg(long)]
    pub json: bool,
    /// In the background.
    #[command(flatten)]
    pub background: DetachArgs,
}

/// `agent-wormhole host`.
#[derive(Debug, clap::Args)]
pub struct HostArgs {
    /// Which relay.
    #[command(flatten)]
    pub relay: RelayArgs,
    /// Wait for a direct TCP connection instead of using a relay
    #[arg(long, conflicts_with_all = ["relay", "relay_token_file", "ca", "proxy"])]
    pub direct: bool,
    /// Make a code without a number, for agent-wormhole 0.1 at the other end: the relay can then read everything
    #[arg(long, conflicts_with = "direct")]
    pub legacy: bool,
    /// The port of a direct connection [default: a free one]
    #[arg(long, value_name = "N", requires = "direct", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// What every channel has.
    #[command(flatten)]
    pub channel: ChannelArgs,
}

/// `agent-wormhole connect`.
#[derive(Debug, clap::Args)]
pub struct ConnectArgs {
    /// The code, with @HOST for a direct connection; `-` reads it from standard input
    #[arg(value_name = "CODE[@HOST]", required = true, num_args = 1..)]
    pub code: Vec<String>,
    /// Which relay.
    #[command(flatten)]
    pub relay: RelayArgs,
    /// Take words of any list, as the codes of agent-wormhole 0.1 have them
    #[arg(long)]
    pub any_words: bool,
    /// Enter with a code without a number, of agent-wormhole 0.1: the relay can then read everything
    #[arg(long, conflicts_with = "any_words")]
    pub legacy: bool,
    /// What every channel has.
    #[command(flatten)]
    pub channel: ChannelArgs,
}

/// `agent-wormhole flush`.
#[derive(Debug, clap::Args)]
pub struct FlushArgs {
    /// The channel's number, code or directory
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// Give up after this long, such as 90s, 10m, 1h30m [default: when the channel ends]
    #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}

/// `agent-wormhole status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The channel's number, code or directory [default: all of this machine]
    #[arg(value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}

/// `agent-wormhole close`.
#[derive(Debug, clap::Args)]
pub struct CloseArgs {
    /// The channel's number, code or directory
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// Without waiting for what is still in the outbox
    #[arg(long)]
    pub now: bool,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}

/// `--mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MountArg {
    /// A mount where this machine has FUSE, else a real directory
    Auto,
    /// A mount, or an error
    Fuse,
    /// A real directory
    Dir,
}

/// `--secrets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SecretsArg {
    /// A command, unless a person unlocks them
    Run,
    /// Whoever opens the file
    Readable,
}

/// `--role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// The end that printed the code
    Host,
    /// The end that was given it
    Peer,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Host => Self::Host,
            RoleArg::Peer => Self::Peer,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::Key;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Args::try_parse_from(line.split(' ')).map(|args| args.command)
    }

    #[test]
    fn the_definitions_are_sound_and_every_help_ends_with_an_example() {
        Args::command().debug_assert();
        for command in Args::command().get_subcommands_mut() {
            let help = command.render_help().to_string();
            let example = help.rsplit("\n\n").next().unwrap();
            assert!(example.starts_with("Example"), "{help}");
        }
    }

    #[test]
    fn every_setting_is_in_the_readme_as_it_is_in_the_help() {
        let readme = include_str!("../../README.md");
        let section = readme.split("\n## Settings\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), Key::ALL.len(), "{rows:#?}");
        for command in ["host", "connect"] {
            let args = Args::command();
            let command = args.find_subcommand(command).unwrap();
            for (key, row) in Key::ALL.into_iter().zip(&rows) {
                let arg = command.get_arguments().find(|arg| arg.get_long() == Some(key.name())).unwrap();
                let help = arg.get_help().unwrap().to_string();
                let in_brackets = |what: &str| {
                    let found = help.split_once(what).and_then(|(_, rest)| rest.split_once(']'));
                    found.unwrap_or_else(|| panic!("{what} is not in {help}")).0.to_owned()
                };
                let (name, variable) = (key.name(), key.variable());
                assert_eq!(in_brackets("[env: "), variable);
                let default = in_brackets("[default: ");
                let expected = format!("| `{name}` | `--{name}` | `{variable}` | {default} |");
                assert_eq!(*row, expected);
            }
        }
    }

    #[test]
    fn what_cannot_be_together_is_a_usage_error() {
        for line in [
            "agent-wormhole",
            "agent-wormhole dance",
            "agent-wormhole host --relay wss://x --direct",
            "agent-wormhole host --relay-token-file x --direct",
            "agent-wormhole host --ca x --direct",
            "agent-wormhole host --proxy none --direct",
            "agent-wormhole host --legacy --direct",
            "agent-wormhole connect a-b-c --legacy --any-words",
            "agent-wormhole host --port 9",
            "agent-wormhole host --direct --port 0",
            "agent-wormhole host --timeout soon",
            "agent-wormhole host --mount nfs",
            "agent-wormhole connect",
            "agent-wormhole send 1",
            "agent-wormhole send 1 hi --file x",
            "agent-wormhole send 1 hi --timeout 5s",
            "agent-wormhole send 1 hi --role guest",
            "agent-wormhole send 1 hi --name x",
            "agent-wormhole send 1 hi --secret X",
            "agent-wormhole send 1 --file x --secret X",
            "agent-wormhole run 1 --secret X",
            "agent-wormhole run 1 -- env",
            "agent-wormhole unlock 1",
            "agent-wormhole flush",
            "agent-wormhole close",
            "agent-wormhole watch",
            "agent-wormhole watch 1 --since x",
            "agent-wormhole wait 1 --timeout 0s",
            "agent-wormhole doctor --direct",
            "agent-wormhole doctor --loop --direct --relay wss://x",
            "agent-wormhole doctor --timeout soon",
            "agent-wormhole completions tcsh",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn what_can_be_typed() {
        let Command::Host(host) =
            parse("agent-wormhole host --direct --port 9 --timeout 1h30m --inbox-limit 1k").unwrap()
        else {
            panic!()
        };
        assert_eq!((host.port, host.channel.timeout), (Some(9), Some(Duration::from_secs(5400))));
        assert_eq!((host.channel.inbox_limit, host.channel.mount), (Some(1024), None));
        let Command::Send(send) = parse("agent-wormhole send 1 --file a b --wait --role peer").unwrap()
        else {
            panic!()
        };
        assert_eq!(send.files, [PathBuf::from("a"), PathBuf::from("b")]);
        assert!(send.wait && send.role == Some(RoleArg::Peer));
        let Command::Connect(connect) = parse("agent-wormhole connect 9471 Cross clock marble").unwrap()
        else {
            panic!()
        };
        assert_eq!(connect.code.join(" "), "9471 Cross clock marble");
    }

    #[test]
    fn arguments_with_words_of_a_code_are_known() {
        let secrets = |line| parse(line).unwrap().secrets();
        assert_eq!(secrets("agent-wormhole connect 9471-cross-clock-marble"), ["9471-cross-clock-marble"]);
        assert_eq!(secrets("agent-wormhole connect 9471 cross clock"), ["cross", "clock"]);
        assert_eq!(secrets("agent-wormhole close 9471-cross-clock-marble"), ["9471-cross-clock-marble"]);
        assert_eq!(secrets("agent-wormhole connect acorn-amber-anvil --legacy"), ["acorn-amber-anvil"]);
        assert_eq!(secrets("agent-wormhole close acorn-amber-anvil"), ["acorn-amber-anvil"]);
        assert_eq!(secrets("agent-wormhole status acorn-amber-anvil"), ["acorn-amber-anvil"]);
        let hidden = secrets("agent-wormhole host --relay wss://r --proxy http://u:p@h");
        assert_eq!(hidden, ["http://u:p@h", "--proxy=http://u:p@h"]);
        let hidden = secrets("agent-wormhole doctor --relay wss://r --proxy http://u:p@h");
        assert_eq!(hidden, ["http://u:p@h", "--proxy=http://u:p@h"]);
        assert!(secrets("agent-wormhole host --relay wss://r --proxy http://h").is_empty());
        assert_eq!(secrets("agent-wormhole watch 9471-cross-clock"), ["9471-cross-clock"]);
        assert_eq!(secrets("agent-wormhole wait 9471-cross-clock --for x"), ["9471-cross-clock"]);
        assert!(secrets("agent-wormhole flush 9471").is_empty());
        assert!(secrets("agent-wormhole status ./x").is_empty());
        assert!(secrets("agent-wormhole connect -").is_empty());
    }
}
