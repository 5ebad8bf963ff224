//! What can be typed after `unlock`.
//!
//! Owns the flags and their help.

use super::RoleArg;

/// After the flags of `unlock --help`.
pub const AFTER: &str = "\
For a person at a terminal. A secret is meant for `agent-wormhole run`, which shows it to nobody but one command; unlocked, \
it can be read as inbox/secrets/NAME until it is used, removed, or ten minutes old. A real directory (--mount dir) has no \
such file.

Example:
  agent-wormhole unlock 9471 API_KEY && cat \"$DIRECTORY/inbox/secrets/API_KEY\"";

/// `agent-wormhole unlock`.
#[derive(Debug, clap::Args)]
pub struct UnlockArgs {
    /// The channel's number, code or directory
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// The secret
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}
