//! `agent-wormhole relay`: the relay in the foreground.
//!
//! Owns the start and the end of the process. The relay itself, and its flags, are a crate of their own.

use agent_wormhole_relay::cli::{self, RelayArgs, RunError};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Exit, Failure};
use super::output;

pub(super) fn run(args: RelayArgs) -> Result<Exit, Failure> {
    output::start_log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no thread can be started; raise the limit of processes")?;
    let listening = |address| output::note(&format!("agent-wormhole relay: listening on {address}"));
    match runtime.block_on(async { cli::run(args, listening, asked_to_stop()).await }) {
        Ok(()) => Ok(Exit::Done),
        Err(error @ (RunError::Options(_) | RunError::Edge(_) | RunError::Redis(_))) => {
            Err(Failure::usage(error))
        }
        Err(error @ RunError::Listen { .. }) => Err(Failure { exit: Exit::Internal, why: error.into() }),
    }
}

/// Ready at Ctrl-C, or when a service manager asks to stop.
async fn asked_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return drop(tokio::signal::ctrl_c().await);
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
