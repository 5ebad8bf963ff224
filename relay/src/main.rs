//! The relay as a program of its own: flags in, a listening relay out.

use std::process::ExitCode;

use agent_wormhole_relay::cli::{self, RelayArgs};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// A blind relay for agent-wormhole: pairs two ends by a nameplate and moves opaque frames between them.
///
/// It never learns the words of a code and cannot read what it moves. It speaks TLS with --tls-cert and --tls-key; or put
/// a proxy in front of it that passes websockets on at /ws, and name it with --trusted-proxy.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  agent-wormhole-relay --listen 0.0.0.0:8787 --idle 30m\n\n\
    Clients then use --relay ws://HOST:8787 (or wss://, with TLS).\n\
    RUST_LOG=info or debug shows more; no log line carries a nameplate or an address."
)]
struct Program {
    #[command(flatten)]
    relay: RelayArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let program = Program::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let listening = |address| say(&format!("listening on {address}"));
    match cli::run(program.relay, listening, interrupted()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Ready at Ctrl-C, or when the service manager asks to stop.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// One line to the operator.
#[expect(clippy::print_stderr, reason = "the program's own two lines: where it listens, and why it does not")]
fn say(line: &str) {
    eprintln!("agent-wormhole-relay: {line}");
}
