//! What can be typed after `agent-wormhole send`.

use std::path::PathBuf;
use std::time::Duration;

use super::RoleArg;
use crate::cli::quantity;

/// The end of its help.
pub(super) const EXAMPLES: &str = "\
Standard input as a file (--file - --name NAME) goes as it comes and is stored nowhere on this side. The command ends \
when the channel has all of it, with --wait when the peer does. Ctrl-C or a kill before that takes it back, and both \
ends are told. An end of input counts as whole, also where the program before the pipe failed: use `set -o pipefail` \
and look at its exit code, too.

Examples:
  agent-wormhole send 9471 \"the build is green\"
  agent-wormhole send 9471 --file model.bin src/ --wait
  agent-wormhole send 9471 - < secret.txt    # keeps the text out of `ps`
  agent-wormhole send 9471 --secret API_KEY --wait < key.txt
  tar c src | agent-wormhole send 9471 --file - --name src.tar --wait";

/// `agent-wormhole send`.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// The channel's number, code or directory
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// The text, at most 1 MiB; `-` reads it from standard input
    #[arg(value_name = "TEXT", required_unless_present_any = ["files", "secret"], conflicts_with = "files")]
    pub text: Option<String>,
    /// Files and directories to send by reference, without a copy; `-` is standard input, of any length
    #[arg(long = "file", value_name = "PATH", num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Send standard input, at most 16 KiB, as a secret of this name: it is in no file, log or transcript at either end, and
    /// one command there gets it (`agent-wormhole run`)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["text", "files"])]
    pub secret: Option<String>,
    /// The name that the other end sees [default: the last part of PATH]
    #[arg(long, requires = "files", conflicts_with = "text")]
    pub name: Option<String>,
    /// Return when the peer has stored everything that is in the outbox; of standard input, when it has stored that
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up after this long, such as 90s, 10m, 1h30m. What the channel has by then is still sent; of
    /// standard input, whose time counts from the start, what is not whole is taken back
    #[arg(long, value_name = "DUR", requires = "wait", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}
