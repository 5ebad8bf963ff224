//! What can be typed after `run`.
//!
//! Owns the flags and their help.

use std::ffi::OsString;

use super::RoleArg;

/// After the flags of `run --help`.
pub const AFTER: &str = "\
The secret is handed to this one command and wiped: it is used once. What the command prints is passed on, with the secret \
and its usual encodings (base64, hex, percent, JSON, each line of several) replaced by [secret NAME]; of one shorter than 8 \
bytes the exact form alone. A variable gets it without one line break at its end, a descriptor (--fd) whole.

Exits as the command does, with 128 and the signal where one ended it. 126 and 127 where it cannot be started: then the \
secret waits on. Where the secret is not here: 4.

Examples:
  agent-wormhole run 9471 --secret API_KEY -- ./deploy.sh
  agent-wormhole run --secret API_KEY=OPENAI_API_KEY -- python agent.py
  agent-wormhole run 9471 --secret id=KEY --fd -- sh -c 'ssh-add - < \"$KEY\"'";

/// `agent-wormhole run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The channel's number, code or directory [default: the only one of this machine that holds the secrets]
    #[arg(value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// A secret that arrived, and the variable that the command finds it in [default: of the same name]
    #[arg(long = "secret", value_name = "NAME[=ENV]", required = true)]
    pub secrets: Vec<String>,
    /// Through an inherited descriptor: the variable names a file, /dev/fd/N, that can be read once
    #[arg(long)]
    pub fd: bool,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
