//! `agent-wormhole send --secret`: standard input as a secret, handed to the channel's process and to nothing else.

use std::io;

use agent_wormhole_mount::secret::{MAX_SECRET, Secret};

use crate::channel::handover;
use crate::cli::exit::{Exit, Failure};
use crate::cli::run;
use crate::rundir::Channel;

/// Sends it; it is in the outbox then.
pub(super) fn send(channel: &Channel, name: &str) -> Result<(), Failure> {
    let name = run::name(name)?;
    let read = Secret::read_from(&mut unbuffered()?).map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("the secret cannot be read from standard input: {error}; nothing was sent"),
        )
    })?;
    let Some(secret) = read else {
        let why =
            format!("standard input is longer than a secret may be ({MAX_SECRET} bytes); nothing was sent");
        return Err(Failure::new(Exit::Usage, why));
    };
    if secret.is_empty() {
        let why =
            "standard input is empty; give the secret on it, for example from a file: < key.txt".to_owned();
        return Err(Failure::new(Exit::Usage, why));
    }
    Ok(handover::put(&channel.socket, &name, &secret)?)
}

/// Standard input without a buffer of the library's, which nobody would wipe.
fn unbuffered() -> Result<std::fs::File, Failure> {
    let input = rustix::io::dup(rustix::stdio::stdin()).map_err(io::Error::from);
    input.map(std::fs::File::from).map_err(|error| {
        Failure::new(Exit::Internal, format!("standard input cannot be opened: {error}; give it with < FILE"))
    })
}
