//! `agent-wormhole completions`: what a shell completes.
//!
//! Owns nothing but the call: the commands and flags are those of [`Args`].

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::{Args, CompletionsArgs};
use super::exit::{Exit, Failure};
use super::output;

pub(super) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    output::data(&script(args.shell)).map_err(output::failed)?;
    Ok(Exit::Done)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "agent-wormhole", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Args::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(script.contains("--since") || script.contains("since"), "{shell}");
        }
    }
}
