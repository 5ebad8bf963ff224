//! What can be typed after `watch`.
//!
//! Owns the flags and their help.

use super::RoleArg;

/// After the flags of `watch --help`.
pub const AFTER: &str = "Ends with the channel and as it does: with the `exit` of the event `closed`. Ends with 4 where \
there is no such event: its process was killed. One that is started again goes on after --since, where nothing is \
missed or repeated. Numbers have gaps, because what this end sends takes some.

Examples:
  agent-wormhole watch 9471              # all from the first event on, then each as it comes
  agent-wormhole watch 9471 --since 12   # what came after \"seq\":12, then each as it comes";

/// `agent-wormhole watch`.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// The channel's number, code or directory
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// Only what comes after the event with this number [default: all since the channel was made]
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    pub since: u64,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}
