//! The relay as a program of its own: flags in, a listening relay out.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use agent_wormhole_relay::cli::{self, Action, RelayArgs, RelayCommand, Signals};
use agent_wormhole_relay::config::{self, Parsed};
use agent_wormhole_relay::healthcheck;
use agent_wormhole_relay::log::{self, LogFormat};
use clap::Parser;

/// What asks for another log than `--log-level`.
const LOG_VARIABLE: &str = "RUST_LOG";

/// A blind relay for agent-wormhole: pairs two ends by a nameplate and moves opaque frames between them.
///
/// It never learns the words of a code and cannot read what it moves. It speaks TLS with --tls-cert and --tls-key; or put
/// a proxy in front of it that passes websockets on at /ws, and name it with --trusted-proxy.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  agent-wormhole-relay --listen 0.0.0.0:8787 --idle 30m\n\n\
    Clients then use --relay ws://HOST:8787 (or wss://, with TLS).\n\
    No line of the log carries a nameplate or a client's address."
)]
struct Program {
    #[command(flatten)]
    command: RelayCommand,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Parsed { program, settings } = match config::parse::<Program>(std::env::args_os(), None) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let RelayCommand { relay, action } = program.command;
    match action {
        Some(Action::Healthcheck(args)) => match healthcheck::ask(&args.url(&relay)).await {
            Ok(status) => done(&status),
            Err(error) => failed(&error),
        },
        None if relay.print_config => {
            settings.map_or(ExitCode::FAILURE, |settings| done(&settings.to_string().trim_end()))
        }
        None => run(relay).await,
    }
}

async fn run(relay: RelayArgs) -> ExitCode {
    let asked = std::env::var(LOG_VARIABLE).ok();
    let colour = std::io::stderr().is_terminal();
    log::start(relay.log_format, relay.log_level, asked.as_deref(), colour, std::io::stderr);
    let signals = Signals::listen();
    let human = relay.log_format == LogFormat::Human;
    let listening = |address| {
        if human {
            say(&format!("listening on {address}"));
        }
    };
    tokio::select! {
        ran = cli::run(relay, listening, signals.reach(1)) => match ran {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        () = signals.reach(2) => {
            tracing::warn!("ended at once by a second signal");
            ExitCode::FAILURE
        }
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    say(&error.to_string());
    ExitCode::FAILURE
}

/// What was asked for, on standard output.
fn done(text: &dyn std::fmt::Display) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// One line to the operator.
#[expect(clippy::print_stderr, reason = "the program's own lines: where it listens, and why it does not")]
fn say(line: &str) {
    eprintln!("agent-wormhole-relay: {line}");
}
