//! Load for a relay, on this machine only: idle channels, small frames, long frames, storms of connections.
//!
//! Starts a relay of its own in another process (this program again), so that its memory and processor time can be told
//! from those of the clients. Bounded in time and in count. See `--help`.

mod client;
mod figures;
mod kinds;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Puts a load on a relay of its own and prints what that costs.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    relay-load --kind idle --channels 5000\n  \
    relay-load --kind ping --channels 1 --seconds 5\n  \
    relay-load --kind flow --channels 200 --rate 20 --size 300 --redis redis://127.0.0.1:6379\n  \
    relay-load --kind bulk --channels 1 --size 262144\n  \
    relay-load --kind storm --rate 1000")]
struct Args {
    /// What the clients do
    #[arg(long, value_enum)]
    kind: Kind,
    /// Channels at a time, two sockets each; at most 20000
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    channels: u32,
    /// Bytes of a frame, at least 16
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(16..=10_485_760))]
    size: u32,
    /// Frames a second for each channel (flow), or connections a second (storm)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds of load; at most 600
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Keep channels in this Redis instead of the relay's memory
    #[arg(long)]
    redis: Option<String>,
    /// Relays that share the Redis, which channels are spread over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    relays: u8,
    /// A relay that runs already on this machine, such as ws://127.0.0.1:8787/ws; its limits hold
    #[arg(long, conflicts_with_all = ["redis", "relays"])]
    url: Option<String>,
    /// The process of that relay, to tell its memory and processor time
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Join by a whole code, as clients of 0.1.5 do
    #[arg(long)]
    legacy: bool,
    /// Be the relay (used by this program itself)
    #[arg(long, hide = true)]
    serve: bool,
}

/// `--kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Channels that say nothing: memory
    Idle,
    /// One frame at a time to and fro on each channel: latency
    Ping,
    /// Frames at a rate from each host to its peer: latency and processor time
    Flow,
    /// As many frames as fit from each host to its peer: throughput
    Bulk,
    /// New channels that are paired and left at once
    Storm,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.serve { server::run(args.redis.as_deref()).await } else { load(&args).await };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("relay-load: {why}"));
            ExitCode::FAILURE
        }
    }
}

async fn load(args: &Args) -> Result<(), String> {
    server::raise_descriptors();
    if args.relays > 1 && args.redis.is_none() {
        return Err("several relays need a Redis to share; give --redis".to_owned());
    }
    let mut relays = Vec::new();
    match &args.url {
        Some(url) => relays.push(server::Relay::running(url, args.pid)?),
        None => {
            for _ in 0..args.relays {
                relays.push(server::Relay::start(args.redis.as_deref())?);
            }
        }
    }
    let load = kinds::Load { relays: &relays, channels: args.channels, size: args.size, legacy: args.legacy };
    let seconds = Duration::from_secs(args.seconds);
    let report = match args.kind {
        Kind::Idle => load.idle().await,
        Kind::Ping => load.ping(seconds).await,
        Kind::Flow => load.flow(args.rate, seconds).await,
        Kind::Bulk => load.bulk(seconds).await,
        Kind::Storm => load.storm(args.rate, seconds).await,
    }?;
    let store = match (&args.url, &args.redis) {
        (Some(_), _) => "a relay that ran already",
        (None, Some(_)) => "Redis",
        (None, None) => "memory",
    };
    say(&format!(
        "{:?}, {} channel(s), {} relay(s), {store}\n{report}",
        args.kind,
        args.channels,
        relays.len()
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what this program is for")]
fn say(text: &str) {
    println!("{text}");
}
