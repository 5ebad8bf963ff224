//! The relay under load, in a process of its own.
//!
//! Owns its start, its end, and what `/proc` tells of it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_wormhole_relay::exchange::Exchange;
use agent_wormhole_relay::exchange::redis::Redis;
use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::server::Server;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// Clock ticks of `/proc/PID/stat` a second, on every Linux.
const TICKS: f64 = 100.0;

/// A relay process; one that was started here is gone when dropped.
#[derive(Debug)]
pub struct Relay {
    child: Option<Child>,
    /// The process, if its number is known.
    pid: Option<u32>,
    pub url: String,
}

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident bytes.
    pub resident: u64,
    /// Processor time since its start.
    pub cpu: Duration,
}

impl Relay {
    pub fn start(redis: Option<&str>) -> Result<Self, String> {
        let me = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(me);
        // It ends when its standard input does: with this process, whatever happens to that.
        command.args(["--kind", "idle", "--serve"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(redis) = redis {
            command.args(["--redis", redis]);
        }
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no output")?;
        let mut url = String::new();
        BufReader::new(out).read_line(&mut url).map_err(|error| error.to_string())?;
        if url.is_empty() {
            return Err("the relay does not start".to_owned());
        }
        let pid = Some(child.id());
        Ok(Self { child: Some(child), pid, url: url.trim().to_owned() })
    }

    /// One that runs already, on this machine only.
    pub fn running(url: &str, pid: Option<u32>) -> Result<Self, String> {
        let local = ["ws://127.", "ws://localhost:", "ws://[::1]:"].iter().any(|here| url.starts_with(here));
        if !local || !url.ends_with("/ws") {
            return Err("load is for this machine: write --url as ws://127.0.0.1:8787/ws".to_owned());
        }
        Ok(Self { child: None, pid, url: url.to_owned() })
    }

    pub fn usage(&self) -> Usage {
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid.unwrap_or_default()));
        let status = read("status").unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
            })
            .unwrap_or_default();
        let stat = read("stat").unwrap_or_default();
        // Behind the name, which may hold anything: user and system time are the 12th and 13th field.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        let cpu = Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS);
        Usage { resident: resident * 1024, cpu }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Is the relay until standard input ends.
pub async fn run(redis: Option<&str>) -> Result<(), String> {
    raise_descriptors();
    let options =
        Options { max_connections: 50_000, memory_per_source: Options::default().memory, ..Options::local() };
    match redis {
        None => serve(Server::new(options).map_err(|error| error.to_string())?).await,
        Some(url) => {
            let store = Redis::open(url, "relay-load", &options).await.map_err(|error| error.to_string())?;
            serve(Server::with(options, store).map_err(|error| error.to_string())?).await
        }
    }
}

async fn serve<E: Exchange>(server: Server<E>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    super::say(&format!("ws://{address}/ws"));
    server
        .serve(listener, async {
            // Whatever comes, the end is what is waited for.
            let _ = tokio::io::stdin().read(&mut [0]).await;
        })
        .await;
    Ok(())
}

/// Two descriptors a channel, in each process.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the load ends with an error that says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What a relay used between two moments.
#[derive(Debug)]
pub struct Meter<'a> {
    relays: &'a [Relay],
    cpu: Duration,
    at: Instant,
}

impl<'a> Meter<'a> {
    pub fn start(relays: &'a [Relay]) -> Self {
        Self { relays, cpu: cpu(relays), at: Instant::now() }
    }

    /// Time that passed, and processor time of all relays in it.
    pub fn stop(&self) -> (Duration, Duration) {
        (self.at.elapsed(), cpu(self.relays).saturating_sub(self.cpu))
    }
}

fn cpu(relays: &[Relay]) -> Duration {
    relays.iter().map(|relay| relay.usage().cpu).sum()
}
