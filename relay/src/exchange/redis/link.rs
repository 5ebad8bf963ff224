//! The connections to Redis: three, whatever the number of channels.
//!
//! Owns connecting, asking a script, and noticing that Redis is away, was started again or has forgotten. One connection
//! is for scripts, one for frames longer than those should wait behind, one waits for wake-ups. Any fault closes all
//! three; whoever asked asks again on the next ones. Knows no step of the contract.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::OsRng;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    Script, ServerErrorKind, Value,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::hold::Bells;
use super::reply::Reply;
use super::script;
use crate::rules::{Source, fresh_id};
use crate::wire::Id;

/// A connection is there within this time, or Redis is away.
const CONNECT: Duration = Duration::from_secs(3);
/// A script that moves a small frame is answered within this time, or Redis is away.
const PROMPT_REPLY: Duration = Duration::from_secs(5);
/// A script that moves a long frame is answered within this time: 10 MiB and what is before it, at 1 MiB/s.
const BULK_REPLY: Duration = Duration::from_secs(30);
/// The connection for wake-ups asks again after this time.
const LISTEN: Duration = Duration::from_secs(5);
/// Wake-ups that are read at once.
const WAKES_AT_ONCE: usize = 1024;
/// An instance that says nothing for this long is dead: its sockets are gone. It speaks every ten seconds.
const WORD: Duration = Duration::from_secs(35);
/// Pauses between attempts to connect: from this ...
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// ... to this, doubling.
const MOST_PAUSE: Duration = Duration::from_secs(2);
/// A cluster may send us on from one node to another this often before we begin again.
const MOVES: usize = 4;
/// The clocks may differ by this many microseconds before ours is set: more than a question takes, so that it does not
/// jump to and fro.
const DRIFT: u64 = 20_000;
/// What rounds up.
const ALMOST_A_MICROSECOND: Duration = Duration::from_nanos(999);
/// Bytes of a source's hash in the name of a key.
const SOURCE_HASH: usize = 16;
/// The first version of Redis whose scripts have flags.
const LEAST_VERSION: u64 = 7;

/// Why a Redis cannot be used; waiting would not help.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// Not the URL of a Redis.
    #[error(
        "--redis does not name a Redis: {0}; write it as redis://:PASSWORD@HOST:6379 (rediss:// with TLS)"
    )]
    Url(String),
    /// Redis does not let us in.
    #[error("Redis refuses: {0}; check the user, the password and the database in --redis")]
    Refused(String),
    /// Its scripts have no flags.
    #[error("Redis {0} is too old; 7.0 (Valkey 7.2) or later is needed")]
    TooOld(String),
}

/// What an attempt to connect came to.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Fatal(RedisError),
    #[error("{0}")]
    Passing(String),
}

/// A question to a script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub script: &'a Script,
    /// By which whoever asks was seated.
    pub boot: &'a Id,
    pub now: Instant,
    /// From the fourth on.
    pub args: &'a [Bytes],
    /// It carries a long frame, or may be answered by one.
    pub bulk: bool,
}

/// An answer to a script.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Reply),
    /// Redis has no memory for more.
    NoMemory,
    /// There is none, or the boot is another: ask again on the next connections, if that makes sense.
    Again,
}

/// Connections that work, until they do not.
#[derive(Debug)]
pub(super) struct Live {
    prompt: MultiplexedConnection,
    bulk: MultiplexedConnection,
    /// The store's memory.
    pub boot: Id,
    /// What sources are hashed with.
    salt: Vec<u8>,
    /// Which of this instance's connections these are: what comes late by earlier ones is refused.
    number: u64,
    /// They are of no use any more.
    given_up: AtomicBool,
    /// Tells the keeper so.
    broken: Notify,
}

/// The way to Redis.
#[derive(Debug)]
pub(super) struct Link {
    way: Arc<Way>,
    live: watch::Receiver<Option<Arc<Live>>>,
    keeper: JoinHandle<()>,
}

/// What the keeper of the connections and those who ask share.
#[derive(Debug)]
struct Way {
    url: ConnectionInfo,
    /// The key that scripts are asked with: `{prefix}:boot`.
    boot_key: String,
    /// The stream of this instance's wake-ups.
    wakes: String,
    /// This instance.
    instance: String,
    /// How long keys are kept, in milliseconds.
    keep: u128,
    enter: Script,
    bells: Arc<Bells>,
    /// The number of the latest connections.
    serial: AtomicU64,
    /// Microseconds of Redis at a moment of ours.
    clock: Mutex<(Instant, u64)>,
    /// The store's memory as it was known last.
    boot: Mutex<Id>,
}

impl Link {
    pub async fn open(
        url: &str,
        prefix: &str,
        keep: Duration,
        bells: Arc<Bells>,
    ) -> Result<Self, RedisError> {
        let info = url.into_connection_info().map_err(|error| RedisError::Url(error.to_string()))?;
        let instance = fresh_id(&mut OsRng).to_string();
        let way = Arc::new(Way {
            url: info,
            boot_key: format!("{{{prefix}}}:boot"),
            wakes: format!("{{{prefix}}}:wake:{instance}"),
            instance,
            keep: keep.as_millis(),
            enter: script::enter(),
            bells,
            serial: AtomicU64::new(0),
            clock: Mutex::new((Instant::now(), 0)),
            boot: Mutex::new(fresh_id(&mut OsRng)),
        });
        let first = match way.connect().await {
            Ok(first) => Some(first),
            Err(Fault::Fatal(error)) => return Err(error),
            Err(Fault::Passing(why)) => {
                tracing::warn!(why, "Redis is away; waiting for it");
                None
            }
        };
        let (tell, live) = watch::channel(first.as_ref().map(|(live, _)| live.clone()));
        let keeper = tokio::spawn(way.clone().keep(first, tell));
        Ok(Self { way, live, keeper })
    }

    /// The key that says that this instance lives.
    #[cfg(test)]
    pub fn instance_key(&self) -> String {
        self.way.boot_key.replace(":boot", &format!(":instance:{}", self.way.instance))
    }

    /// Whether Redis can be asked.
    pub fn is_up(&self) -> bool {
        self.live_now().is_some()
    }

    /// The store's memory as it was known last.
    pub fn boot(&self) -> Id {
        *self.way.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections, once there are any.
    pub async fn live(&self) -> Arc<Live> {
        let mut live = self.live.clone();
        match live
            .wait_for(|live| live.as_ref().is_some_and(|live| live.is_good()))
            .await
            .map(|live| live.clone())
        {
            Ok(Some(live)) => live,
            // The keeper ends with the link only.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The connections, if there are any.
    pub fn live_now(&self) -> Option<Arc<Live>> {
        self.live.borrow().clone().filter(|live| live.is_good())
    }

    /// Asks a script, once.
    pub async fn ask(&self, live: &Arc<Live>, ask: Ask<'_>) -> Answer {
        let mut asking = ask.script.prepare_invoke();
        asking.key(self.way.boot_key.as_str());
        asking.arg(ask.boot.to_string()).arg(self.micros(ask.now));
        asking.arg(format!("{}:{}", self.way.instance, live.number));
        for arg in ask.args {
            asking.arg(arg.as_ref());
        }
        let mut connection = if ask.bulk { live.bulk.clone() } else { live.prompt.clone() };
        let answer: Result<Value, _> = asking.invoke_async(&mut connection).await;
        match answer {
            Ok(value) => {
                let reply = Reply::new(value);
                if reply.is_stale() {
                    return Answer::Again;
                }
                if !reply.is_forgotten() {
                    return Answer::Reply(reply);
                }
                if *ask.boot == live.boot {
                    live.give_up("it has forgotten");
                }
                Answer::Again
            }
            Err(error) if error.code() == Some("OOM") => Answer::NoMemory,
            Err(error) => {
                live.give_up(&error.to_string());
                Answer::Again
            }
        }
    }

    /// Says that this instance lives, and sets the clock.
    pub async fn beat(&self) {
        let Some(live) = self.live_now() else { return };
        match self.way.enter(&mut live.prompt.clone(), live.number).await {
            Ok((boot, _)) if boot == live.boot => {}
            Ok(_) => live.give_up("it has forgotten"),
            Err(Fault::Fatal(error)) => live.give_up(&error.to_string()),
            Err(Fault::Passing(why)) => live.give_up(&why),
        }
    }

    /// The moment that Redis calls this many microseconds, told from `now`.
    pub fn instant(&self, micros: u64, now: Instant) -> Instant {
        now + Duration::from_micros(micros.saturating_sub(self.micros(now)))
    }

    /// Microseconds of Redis.
    pub fn micros(&self, now: Instant) -> u64 {
        self.way.micros(now)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Live {
    /// These connections are of no use; the keeper makes others, and who asks waits for those.
    pub fn give_up(&self, why: &str) {
        if !self.given_up.swap(true, Ordering::AcqRel) {
            tracing::debug!(why, "the connections to Redis are given up");
            self.broken.notify_one();
        }
    }

    fn is_good(&self) -> bool {
        !self.given_up.load(Ordering::Acquire)
    }

    /// A source in the name of a key: nobody reads an address from it.
    pub fn hashed(&self, source: Source) -> String {
        source.pseudonym(&self.salt, SOURCE_HASH)
    }
}

type Connected = (Arc<Live>, MultiplexedConnection);

impl Way {
    /// Keeps connections for as long as somebody may ask.
    async fn keep(self: Arc<Self>, mut next: Option<Connected>, tell: watch::Sender<Option<Arc<Live>>>) {
        let mut pause = LEAST_PAUSE;
        loop {
            let why = match next.take() {
                Some((live, listening)) => {
                    tell.send_replace(Some(live.clone()));
                    // Whatever they missed: they look, and who was seated by another memory is told so.
                    self.bells.ring_all();
                    let since = Instant::now();
                    let why = tokio::select! {
                        why = self.listen(listening) => why,
                        () = live.broken.notified() => "it does not answer as it should".to_owned(),
                    };
                    tell.send_replace(None);
                    tracing::warn!(why, "Redis is away; channels wait for it");
                    if since.elapsed() > MOST_PAUSE {
                        pause = LEAST_PAUSE;
                    } else {
                        // It lets us in and then does not do what it is asked: not as fast as it can refuse.
                        sleep(pause).await;
                        pause = (2 * pause).min(MOST_PAUSE);
                    }
                    why
                }
                None => String::new(),
            };
            match self.connect().await {
                Ok(connected) => {
                    tracing::info!(why, "Redis is there");
                    next = Some(connected);
                }
                Err(error) => {
                    tracing::debug!(%error, "Redis is still away");
                    sleep(pause).await;
                    pause = (2 * pause).min(MOST_PAUSE);
                }
            }
        }
    }

    /// Three connections to one node that takes part.
    async fn connect(&self) -> Result<Connected, Fault> {
        let mut node = self.url.clone();
        let number = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        for _ in 0..MOVES {
            let client = Client::open(node.clone()).map_err(|error| fault(&error))?;
            let mut prompt = connection(&client, Some(PROMPT_REPLY)).await?;
            match self.first(&mut prompt, number).await {
                Ok((boot, salt)) => {
                    let bulk = connection(&client, Some(BULK_REPLY)).await?;
                    let listening = connection(&client, None).await?;
                    *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = boot;
                    let (given_up, broken) = (AtomicBool::new(false), Notify::new());
                    let live = Live { prompt, bulk, boot, salt, number, given_up, broken };
                    return Ok((Arc::new(live), listening));
                }
                Err(error) => node = moved(&error, node).ok_or_else(|| fault(&error))?,
            }
        }
        Err(Fault::Passing("its cluster sends us from node to node".to_owned()))
    }

    /// The first questions on a new connection.
    async fn first(
        &self,
        connection: &mut MultiplexedConnection,
        number: u64,
    ) -> Result<(Id, Vec<u8>), redis::RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let version = line("redis_version:").unwrap_or("of an unknown version");
        let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
        if major.is_none_or(|major| major < LEAST_VERSION) {
            return Err((ErrorKind::InvalidClientConfig, "too old", version.to_owned()).into());
        }
        let run = line("run_id:").unwrap_or_default().to_owned();
        self.enter_run(connection, &run, number).await
    }

    /// Says that this instance lives.
    async fn enter(
        &self,
        connection: &mut MultiplexedConnection,
        number: u64,
    ) -> Result<(Id, Vec<u8>), Fault> {
        self.first(connection, number).await.map_err(|error| fault(&error))
    }

    async fn enter_run(
        &self,
        connection: &mut MultiplexedConnection,
        run: &str,
        number: u64,
    ) -> Result<(Id, Vec<u8>), redis::RedisError> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
        let at = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let here = Instant::now();
        if self.micros(here).abs_diff(at) > DRIFT {
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = (here, at);
        }
        let (boot, salt): (String, String) = self
            .enter
            .key(self.boot_key.as_str())
            .arg(fresh_id(&mut OsRng).to_string())
            .arg(fresh_id(&mut OsRng).to_string())
            .arg(run)
            .arg(at)
            .arg(self.instance.as_str())
            .arg(WORD.as_millis().to_string())
            .arg(self.keep.to_string())
            .arg(number)
            .invoke_async(connection)
            .await?;
        let boot = boot.parse().map_err(|_| (ErrorKind::UnexpectedReturnType, "the boot is no id"))?;
        Ok((boot, salt.into_bytes()))
    }

    /// Rings bells as the stream of wake-ups says, until the connection breaks.
    async fn listen(&self, mut connection: MultiplexedConnection) -> String {
        let mut last = "0-0".to_owned();
        loop {
            let mut asking = redis::cmd("XREAD");
            asking.arg("COUNT").arg(WAKES_AT_ONCE).arg("BLOCK").arg(LISTEN.as_millis().to_string());
            asking.arg("STREAMS").arg(&self.wakes).arg(&last);
            let read = asking.query_async::<redis::streams::StreamReadReply>(&mut connection);
            let reply = match timeout(2 * LISTEN, read).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedReturnType => continue,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "it does not answer".to_owned(),
            };
            for entry in reply.keys.iter().flat_map(|stream| &stream.ids) {
                last.clone_from(&entry.id);
                self.bells.ring(&entry.get::<u64>("n").into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// Rounded down, on either side of the moment that is known.
    fn micros(&self, now: Instant) -> u64 {
        let (at, micros) = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        match now.checked_duration_since(at) {
            Some(later) => micros.saturating_add(of(later)),
            None => micros.saturating_sub(of(at - now + ALMOST_A_MICROSECOND)),
        }
    }
}

/// One connection.
async fn connection(client: &Client, reply: Option<Duration>) -> Result<MultiplexedConnection, Fault> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(reply);
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| fault(&error))
}

/// Where a cluster keeps our keys, if it says so.
fn moved(error: &redis::RedisError, from: ConnectionInfo) -> Option<ConnectionInfo> {
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    let (host, port) = (host.to_owned(), port.parse().ok()?);
    let addr = match from.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    Some(from.set_addr(addr))
}

/// Whose fault it is, and whether it passes.
fn fault(error: &redis::RedisError) -> Fault {
    match error.kind() {
        ErrorKind::InvalidClientConfig => match error.detail() {
            Some(version) => Fault::Fatal(RedisError::TooOld(version.to_owned())),
            None => Fault::Fatal(RedisError::Url(error.to_string())),
        },
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Fault::Fatal(RedisError::Refused(error.to_string()))
        }
        _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => {
            Fault::Fatal(RedisError::Refused(error.to_string()))
        }
        _ => Fault::Passing(error.to_string()),
    }
}
