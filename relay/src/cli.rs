//! The command line of the relay, for its own binary and for `agent-wormhole relay`.
//!
//! Owns flags, their environment variables and how sizes and spans are written. Prints nothing.

mod edge;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

pub use self::edge::EdgeArgs;
use crate::edge::{Edge, EdgeError};
use crate::exchange::Exchange;
use crate::exchange::redis::{Redis, RedisError};
use crate::options::{self, Options, OptionsError};
use crate::server::Server;

/// Where the relay listens unless told otherwise: this machine only, to be put behind a proxy.
pub const LISTEN: &str = "127.0.0.1:8787";

/// What an operator may say. Sizes are bytes, with an optional KiB, MiB or GiB.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RelayArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = LISTEN, env = "AGENT_WORMHOLE_RELAY_LISTEN")]
    pub listen: SocketAddr,
    /// Messages a minute for each channel; 0 is unlimited
    #[arg(long, value_name = "N", default_value_t = options::MESSAGES_PER_MINUTE,
          env = "AGENT_WORMHOLE_RELAY_MESSAGES_PER_MINUTE")]
    pub messages_per_minute: u64,
    /// Bytes a minute for each channel; 0 is unlimited
    #[arg(long, value_name = "SIZE", default_value = "50MiB", value_parser = size,
          env = "AGENT_WORMHOLE_RELAY_BYTES_PER_MINUTE")]
    pub bytes_per_minute: usize,
    /// Longest frame
    #[arg(long, value_name = "SIZE", default_value = "10MiB", value_parser = size,
          env = "AGENT_WORMHOLE_RELAY_MAX_FRAME")]
    pub max_frame: usize,
    /// How long a channel may be without a frame (90, 90s, 15m or 1h)
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span,
          env = "AGENT_WORMHOLE_RELAY_IDLE")]
    pub idle: Duration,
    /// Channels for each source (an IPv4 address or an IPv6 /64); 0 is unlimited
    #[arg(long, value_name = "N", default_value_t = options::CHANNELS_PER_SOURCE,
          env = "AGENT_WORMHOLE_RELAY_CHANNELS_PER_SOURCE")]
    pub channels_per_source: usize,
    /// Failed joins a minute for each source; 0 is unlimited
    #[arg(long, value_name = "N", default_value_t = options::FAILED_JOINS_PER_MINUTE,
          env = "AGENT_WORMHOLE_RELAY_FAILED_JOINS_PER_MINUTE")]
    pub failed_joins_per_minute: u64,
    /// Memory for all frames that wait; one source may hold an eighth of it
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = size,
          env = "AGENT_WORMHOLE_RELAY_MEMORY")]
    pub memory: usize,
    /// Share the channels with other relays in this Redis, such as redis://:PASSWORD@HOST:6379 (rediss:// with TLS)
    #[arg(long, value_name = "URL", env = "AGENT_WORMHOLE_RELAY_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// What the names of all keys in Redis begin with; relays with the same one are one relay
    #[arg(
        long,
        value_name = "NAME",
        default_value = "agent-wormhole",
        env = "AGENT_WORMHOLE_RELAY_REDIS_PREFIX"
    )]
    pub redis_prefix: String,
    /// Refuse clients that tell the relay their whole code, as agent-wormhole 0.1.5 does
    #[arg(long, value_parser = clap::builder::FalseyValueParser::new(),
          env = "AGENT_WORMHOLE_RELAY_NO_LEGACY_CLIENTS")]
    pub no_legacy_clients: bool,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = options::MAX_CONNECTIONS,
          env = "AGENT_WORMHOLE_RELAY_MAX_CONNECTIONS")]
    pub max_connections: usize,
    /// Connections of one source at a time; 0 is unlimited
    #[arg(long, value_name = "N", default_value_t = options::CONNECTIONS_PER_SOURCE,
          env = "AGENT_WORMHOLE_RELAY_CONNECTIONS_PER_SOURCE")]
    pub connections_per_source: usize,
    /// Who gets in
    #[command(flatten)]
    pub edge: EdgeArgs,
}

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The flags contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// What the edge needs is not there, or cannot be used.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl RelayArgs {
    /// The limits that these arguments ask for.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            messages_per_minute: self.messages_per_minute,
            bytes_per_minute: self.bytes_per_minute as u64,
            idle: self.idle,
            channels_per_source: self.channels_per_source,
            failed_joins_per_minute: self.failed_joins_per_minute,
            max_connections: self.max_connections,
            connections_per_source: self.connections_per_source,
            legacy_clients: !self.no_legacy_clients,
            ..Options::default()
        }
        .with_memory(self.memory, self.max_frame)
    }
}

/// Runs a relay until `shutdown` is ready; `listening` is called once with the address it listens on.
///
/// # Errors
/// [`RunError`] where it cannot start.
pub async fn run(
    args: RelayArgs,
    listening: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let options = args.options();
    let edge = Edge::new(args.edge.options())?;
    match &args.redis {
        None => serve(Server::new(options)?.behind(edge), &args, listening, shutdown).await,
        Some(url) => {
            let store = Redis::open(url, &args.redis_prefix, &options).await?;
            serve(Server::with(options, store)?.behind(edge), &args, listening, shutdown).await
        }
    }
}

async fn serve<E: Exchange>(
    server: Server<E>,
    args: &RelayArgs,
    listening: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let cannot = |source| RunError::Listen { address: args.listen, source };
    let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
    listening(listener.local_addr().map_err(cannot)?);
    server.serve(listener, shutdown).await;
    Ok(())
}

/// Reads bytes: a number, with an optional KiB, MiB or GiB.
fn size(text: &str) -> Result<usize, String> {
    scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)])
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| "a number of bytes, such as 65536 or 10MiB".to_owned())
}

/// Reads a span: seconds, or a number with s, m or h.
fn span(text: &str) -> Result<Duration, String> {
    scaled(text, &[("s", 1), ("m", 60), ("h", 3600)])
        .filter(|seconds| *seconds <= u64::from(u32::MAX))
        .map(Duration::from_secs)
        .ok_or_else(|| "a span, such as 90, 90s, 15m or 1h".to_owned())
}

/// A whole number, times the factor of its unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = |(unit, factor): &(&str, u64)| Some((text.strip_suffix(unit)?, *factor));
    let (number, factor) = units.iter().find_map(split).unwrap_or((text, 1));
    number.trim_end().parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        relay: RelayArgs,
    }

    #[test]
    fn without_flags_the_limits_are_the_defaults() {
        let args = Program::parse_from(["relay"]).relay;
        assert_eq!(args.options(), Options::default());
        assert_eq!(args.options().check(), Ok(()));
    }

    #[test]
    fn sizes_and_spans_have_units() {
        assert_eq!(size("65536"), Ok(65_536));
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(span("90"), span("90s"));
        assert_eq!(span("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "MiB", "-1", "10MB", "1.5MiB", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(span("1d").is_err() && span("99999999999h").is_err());
    }

    #[test]
    fn flags_change_the_limits() {
        let args = Program::parse_from(["relay", "--messages-per-minute", "0", "--bytes-per-minute", "0"]);
        let options = args.relay.options();
        assert_eq!((options.messages_per_minute, options.bytes_per_minute), (0, 0));
        assert!(options.legacy_clients);
        assert!(!Program::parse_from(["relay", "--no-legacy-clients"]).relay.options().legacy_clients);
    }
}
