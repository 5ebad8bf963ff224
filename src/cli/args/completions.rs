//! What can be typed after `completions`.
//!
//! Owns the list of shells and the help.

use clap_complete::Shell;

/// After the flags of `completions --help`.
pub const AFTER: &str = "Examples:
  agent-wormhole completions bash > ~/.local/share/bash-completion/completions/agent-wormhole
  agent-wormhole completions zsh > ~/.zfunc/_agent-wormhole     # a directory of $fpath
  agent-wormhole completions fish > ~/.config/fish/completions/agent-wormhole.fish";

/// `agent-wormhole completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}
