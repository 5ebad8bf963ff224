//! The bell as a program of its own, for the tests of this crate: `agent-wormhole` has it as a hidden command.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_wormhole_mount::bell::run()
}
