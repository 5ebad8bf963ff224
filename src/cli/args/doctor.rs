//! What can be typed after `doctor`.
//!
//! Owns the flags and their help.

use std::time::Duration;

use super::{MountArg, RelayArgs, quantity};

/// After the flags of `doctor --help`.
pub const AFTER: &str =
    "Each line is a check: ok, warn (it works, and something should be known), fail (a channel would not
come about), or skip (nothing to check here); where it is not ok, the next line says what to do.

Exit codes:
  0  nothing failed
  1  something of this machine failed, or the canary of --loop did not come back whole
  4  the relay cannot be used
  5  --loop took longer than --timeout
  130  interrupted; nothing is left behind

Examples:
  agent-wormhole doctor
  agent-wormhole doctor --relay wss://relay.example.org --ca authority.pem
  agent-wormhole doctor --loop --json     # two ends on this machine, and a canary there and back";

/// `agent-wormhole doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Which relay.
    #[command(flatten)]
    pub relay: RelayArgs,
    /// Start two ends on this machine, send a text and a file there and back, and time each step
    #[arg(long = "loop")]
    pub round: bool,
    /// The two ends of --loop connect directly: no relay
    #[arg(long, requires = "round", conflicts_with_all = ["relay", "relay_token_file", "ca", "proxy"])]
    pub direct: bool,
    /// How the directory of a channel is to be made [env: AGENT_WORMHOLE_MOUNT] [default: auto]
    #[arg(long, value_enum)]
    pub mount: Option<MountArg>,
    /// Give up on each check after this long, and on the canary of --loop [default: 10s, and 1m for --loop]
    #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}
