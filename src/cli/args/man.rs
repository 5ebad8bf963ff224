//! What can be typed after `man`.
//!
//! Owns the flags and the help.

use std::path::PathBuf;

/// After the flags of `man --help`.
pub const AFTER: &str = "Examples:
  agent-wormhole man wait | man -l -
  agent-wormhole man relay healthcheck | man -l -
  agent-wormhole man --dir ~/.local/share/man/man1     # then: man agent-wormhole-wait";

/// `agent-wormhole man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Whose page is printed, such as wait [default: that of the whole program]
    #[arg(value_name = "COMMAND", num_args = 0..)]
    pub command: Vec<String>,
    /// Write all pages into this directory instead, which is made where it is missing
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub dir: Option<PathBuf>,
}
