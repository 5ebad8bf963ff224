//! `agent-wormhole unlock`: lets a secret be read as a file.
//!
//! Owns who may ask for it: a person at a terminal. Who works for that person can only ask.

use std::io::{self, IsTerminal as _};

use agent_wormhole_mount::Backend;

use super::args::UnlockArgs;
use super::exit::{Exit, Failure};
use super::{output, run as taking, status};
use crate::channel::handover;
use crate::crypto::pake::Role;
use crate::event::escape::shell_word;
use crate::rundir::find::Wanted;

pub(super) fn run(args: &UnlockArgs) -> Result<Exit, Failure> {
    let name = taking::name(&args.name)?;
    // What is advised can be pasted, and repeats no word of a code.
    let run = format!(
        "agent-wormhole run {} --secret {name} -- COMMAND",
        shell_word(&Wanted::parse(&args.channel)?.to_string())
    );
    if !io::stdin().is_terminal() {
        let why = format!(
            "a secret is unlocked by a person at a terminal, and standard input is none; use it without reading it: {run}"
        );
        return Err(Failure::new(Exit::Usage, why));
    }
    let channel = super::channel(&args.channel, args.role.map(Role::from))?;
    if status::state_of(&channel).is_some_and(|state| state.backend == Backend::Dir.as_str()) {
        let why =
            format!("this channel is a real directory, where a secret is never a file; use it with: {run}");
        return Err(Failure::new(Exit::Usage, why));
    }
    handover::unlock(&channel.socket, &name)?;
    let path = channel.dir.join("inbox").join(agent_wormhole_mount::secret::SECRETS).join(name.as_str());
    output::note(&format!("{} can be read until it is used, removed, or ten minutes old", path.display()));
    Ok(Exit::Done)
}
