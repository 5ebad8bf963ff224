//! The command line of the relay, for its own binary and for `agent-wormhole relay`.
//!
//! Owns flags, their environment variables, how sizes and spans are written, and the life of a relay from its listeners
//! to the end of its drain. Prints nothing; the file beside the flags is `config`'s.

mod edge;
mod signals;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, pending};
use tokio::net::TcpListener;

pub use self::edge::EdgeArgs;
pub use self::signals::Signals;
use crate::edge::{Edge, EdgeError};
use crate::exchange::Exchange;
use crate::exchange::redis::{Redis, RedisError};
use crate::log::{LogFormat, LogLevel};
use crate::options::{self, Options, OptionsError};
use crate::server::Server;
use crate::systemd::{self, Handed};

/// Where the relay listens unless told otherwise: this machine only, to be put behind a proxy.
pub const LISTEN: &str = "127.0.0.1:8787";

/// `relay`: runs one, unless it is asked for something else.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct RelayCommand {
    /// How to run a relay.
    #[command(flatten)]
    pub relay: RelayArgs,
    /// What to do instead.
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What can be done beside running a relay.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Ask a running relay whether it is ready: exit code 0 if so, 1 if not
    #[command(after_help = "Example:\n  agent-wormhole relay healthcheck --url http://127.0.0.1:9464/ready")]
    Healthcheck(HealthcheckArgs),
}

/// `relay healthcheck`.
#[derive(Debug, clap::Args)]
pub struct HealthcheckArgs {
    /// Where to ask [default: /ready at the address for metrics, or else at the one for clients, of environment and file]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// What an operator may say. Sizes are bytes, with an optional KiB, MiB or GiB.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RelayArgs {
    /// Read settings from this TOML file: each long flag is a key. A flag wins over the environment, and that over the
    /// file
    #[arg(long, value_name = "FILE", env = "AGENT_WORMHOLE_RELAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the effective settings as such a file, each with where it comes from, and end
    #[arg(long)]
    pub print_config: bool,
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
    /// Frames of at most 128 bytes a minute for each end that cost no message; 0 is unlimited
    #[arg(long, value_name = "N", default_value_t = options::SMALL_PER_MINUTE,
          env = "AGENT_WORMHOLE_RELAY_SMALL_FRAMES_PER_MINUTE")]
    pub small_frames_per_minute: u64,
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
    /// Over how long a relay that is told to stop closes its sockets; 0s is at once [default: 10s with a shared store, 0s
    /// without]
    #[arg(long, value_name = "SPAN", value_parser = span, env = "AGENT_WORMHOLE_RELAY_DRAIN")]
    pub drain: Option<Duration>,
    /// Address and port for /metrics, /health and /ready, such as 127.0.0.1:9464 [default: none]
    #[arg(long, value_name = "ADDR", env = "AGENT_WORMHOLE_RELAY_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// How lines of the log look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Human,
          env = "AGENT_WORMHOLE_RELAY_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Lines of the log that are written, on standard error; RUST_LOG wins
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info,
          env = "AGENT_WORMHOLE_RELAY_LOG_LEVEL")]
    pub log_level: LogLevel,
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
    #[error("cannot listen on {address}: {source}; choose another with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What chooses it.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What the service manager handed over cannot be listened on.
    #[error("cannot use a socket that was handed over: {0}; look at the socket unit, or unset LISTEN_FDS")]
    Handed(io::Error),
}

impl RelayArgs {
    /// The limits that these arguments ask for.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            messages_per_minute: self.messages_per_minute,
            bytes_per_minute: self.bytes_per_minute as u64,
            small_per_minute: self.small_frames_per_minute,
            idle: self.idle,
            channels_per_source: self.channels_per_source,
            failed_joins_per_minute: self.failed_joins_per_minute,
            max_connections: self.max_connections,
            connections_per_source: self.connections_per_source,
            drain: self.drain,
            legacy_clients: !self.no_legacy_clients,
            ..Options::default()
        }
        .with_memory(self.memory, self.max_frame)
    }
}

impl HealthcheckArgs {
    /// Where to ask a relay that runs with these settings.
    #[must_use]
    pub fn url(&self, relay: &RelayArgs) -> String {
        let default = || {
            let mut address = relay.metrics_listen.unwrap_or(relay.listen);
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            format!("http://{address}/ready")
        };
        self.url.clone().unwrap_or_else(default)
    }
}

/// Runs a relay until `shutdown` is ready and it has drained; `listening` is called once with the address it listens on,
/// unless it serves handed-over Unix sockets only.
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
        None => serve(&Server::new(options)?.behind(edge), &args, listening, shutdown).await,
        Some(url) => {
            let store = Redis::open(url, &args.redis_prefix, &options).await?;
            serve(&Server::with(options, store)?.behind(edge), &args, listening, shutdown).await
        }
    }
}

/// The life of a relay over any store: listeners, then traffic, then the drain. The operator's listener outlives it.
async fn serve<E: Exchange>(
    server: &Server<E>,
    args: &RelayArgs,
    listening: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let monitor = match args.metrics_listen {
        Some(address) => {
            let listener = bind(address, "--metrics-listen").await?;
            let address = listener.local_addr().map_err(RunError::Handed)?;
            tracing::info!(%address, "listening for the operator: /metrics, /health, /ready");
            Some(listener)
        }
        None => None,
    };
    let handed = systemd::listeners().map_err(RunError::Handed)?;
    let doors =
        if handed.is_empty() { vec![Handed::Tcp(bind(args.listen, "--listen").await?)] } else { handed };
    let mut told = Some(listening);
    for door in &doors {
        match door {
            Handed::Tcp(listener) => {
                let address = listener.local_addr().map_err(RunError::Handed)?;
                tracing::info!(%address, "listening");
                if let Some(tell) = told.take() {
                    tell(address);
                }
            }
            Handed::Unix(listener) => tracing::info!(path = %listener.path().display(), "listening"),
        }
    }
    let asked = async {
        shutdown.await;
        systemd::stopping();
    };
    let asked = asked.shared();
    let serving = join_all(doors.into_iter().map(|door| {
        let asked = asked.clone();
        async move {
            match door {
                Handed::Tcp(listener) => server.serve(listener, asked).await,
                Handed::Unix(listener) => server.serve(listener, asked).await,
            }
        }
    }));
    let monitoring = async {
        match monitor {
            Some(listener) => server.monitor(listener).await,
            None => pending().await,
        }
    };
    tokio::select! {
        _ = serving => {}
        // None of these ends.
        _ = async { tokio::join!(monitoring, server.watch_store(), systemd::attend(|| server.is_ready())) } => {}
    }
    Ok(())
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, flag, source })
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
