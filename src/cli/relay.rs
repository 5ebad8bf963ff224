//! `agent-wormhole relay`: the relay in the foreground, and the question whether one is ready.
//!
//! Owns the start and the end of the process. The relay itself, and its flags, are a crate of their own.

use agent_wormhole_relay::cli::{self, Action, RelayArgs, RelayCommand, RunError, Signals};
use agent_wormhole_relay::config::Settings;
use agent_wormhole_relay::healthcheck;
use agent_wormhole_relay::log::LogFormat;
use anyhow::Context as _;

use super::exit::{Exit, Failure};
use super::output;

pub(super) fn run(command: RelayCommand, settings: Option<Settings>) -> Result<Exit, Failure> {
    let RelayCommand { relay, action } = command;
    if let Some(settings) = settings.filter(|_| relay.print_config) {
        output::data(&settings.to_string()).map_err(output::failed)?;
        return Ok(Exit::Done);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no thread can be started; raise the limit of processes")?;
    match action {
        Some(Action::Healthcheck(args)) => match runtime.block_on(healthcheck::ask(&args.url(&relay))) {
            Ok(status) => {
                output::data(&status).map_err(output::failed)?;
                Ok(Exit::Done)
            }
            Err(error) => Err(Failure { exit: Exit::Internal, why: error.into() }),
        },
        None => runtime.block_on(serve(relay)),
    }
}

async fn serve(relay: RelayArgs) -> Result<Exit, Failure> {
    output::start_relay_log(&relay);
    let human = relay.log_format == LogFormat::Human;
    let listening = |address| {
        if human {
            output::note(&format!("agent-wormhole relay: listening on {address}"));
        }
    };
    let signals = Signals::listen();
    let ran = tokio::select! {
        ran = cli::run(relay, listening, signals.reach(1)) => ran,
        () = signals.reach(2) => {
            tracing::warn!("ended at once by a second signal");
            return Ok(Exit::Interrupted);
        }
    };
    match ran {
        Ok(()) => Ok(Exit::Done),
        Err(error @ (RunError::Edge(_) | RunError::Options(_) | RunError::Redis(_))) => {
            Err(Failure::usage(error))
        }
        Err(error @ (RunError::Listen { .. } | RunError::Handed(_))) => {
            Err(Failure { exit: Exit::Internal, why: error.into() })
        }
    }
}
