//! What can be typed after `watch`.
//!
//! Owns the flags and their help.

use super::RoleArg;

/// After the flags of `watch --help`.
pub const AFTER: &str = "Ends with the channel, and with its exit code: the `exit` of the event `closed`. Ends with 4 \
where nothing\nmore can be read: its process was killed. Numbers have gaps: what this end sends takes some.\n\n\
Example:\n  agent-wormhole watch 9471              # all from the first event on, then each as it comes\n  \
agent-wormhole watch 9471 --since 12   # again, after the event with \"seq\":12 was the last one seen";

/// `agent-wormhole watch`.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// The channel's number, code or directory
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// Only what comes after the event with this number
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    pub since: u64,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}
