//! The relay as a value that a program or a test can start.
//!
//! Owns listeners, connections and how all of it stops. What happens on a websocket is `socket`'s.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Error, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::carrier::{Carrier, Meter};
use crate::drain::Drain;
use crate::events::Events;
use crate::exchange::memory::Memory;
use crate::exchange::{Bell, Exchange};
use crate::options::{self, Options, OptionsError};
use crate::places::Places;
use crate::rules::Source;
use crate::socket;
use crate::websocket::{Websocket, configure};

/// A client has this long to send the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// Longest head of a request that is buffered, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// What expired is forgotten this often.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// After the listener fails to accept (no file descriptors left), it rests this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Stopping takes this long at most: `websocket` gives each close two seconds.
const STOPPING: Duration = Duration::from_secs(3);

/// What all sockets of one relay share.
#[derive(Debug)]
pub(crate) struct Shared<E> {
    pub options: Options,
    pub exchange: E,
    /// Places of connections that read long frames.
    pub reading: Arc<Places>,
    /// Places of connections that write long frames.
    pub writing: Arc<Places>,
    /// How the relay stops: every bell is rung once after it has begun, and once when it is over.
    pub drain: Drain,
    /// What the operator is told.
    pub events: Events,
    /// The sockets' bells.
    bells: Mutex<HashMap<u64, Arc<Bell>>>,
    /// The last number given to a bell.
    serial: AtomicU64,
}

impl<E: Exchange> Shared<E> {
    /// Whether clients should come here.
    pub fn is_ready(&self) -> bool {
        self.exchange.is_ready() && !self.drain.is_begun()
    }
}

impl<E> Shared<E> {
    /// A bell for one socket, which is also rung when the relay stops.
    pub fn register(&self) -> Registered<'_, E> {
        let (number, bell) = (self.serial.fetch_add(1, Ordering::Relaxed), Arc::<Bell>::default());
        self.bells().insert(number, bell.clone());
        if self.drain.is_begun() {
            bell.ring();
        }
        Registered { shared: self, number, bell }
    }

    fn ring_all(&self) {
        self.bells().values().for_each(|bell| bell.ring());
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<u64, Arc<Bell>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One socket's bell, known to the relay for as long as this lives.
#[derive(Debug)]
pub(crate) struct Registered<'a, E> {
    shared: &'a Shared<E>,
    number: u64,
    pub bell: Arc<Bell>,
}

impl<E> Drop for Registered<'_, E> {
    fn drop(&mut self) {
        self.shared.bells().remove(&self.number);
    }
}

/// A relay. Clones are the same relay: several listeners may serve one.
#[derive(Debug)]
pub struct Server<E = Memory> {
    pub(crate) shared: Arc<Shared<E>>,
    /// What HTTP may ask for.
    router: Router,
    /// One permit for each connection.
    room: Arc<Semaphore>,
}

impl<E> Clone for Server<E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), router: self.router.clone(), room: self.room.clone() }
    }
}

impl Server {
    /// A relay with a store of its own that serves nobody yet.
    ///
    /// # Errors
    /// [`OptionsError`] where the options contradict each other.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        let exchange = Memory::new(&options, Instant::now().into_std());
        Self::with(options, exchange)
    }
}

impl<E: Exchange> Server<E> {
    /// A relay over this store that serves nobody yet.
    ///
    /// # Errors
    /// [`OptionsError`] where the options contradict each other.
    pub fn with(options: Options, exchange: E) -> Result<Self, OptionsError> {
        options.check()?;
        let room = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared {
            reading: Arc::new(Places::new(&options)),
            writing: Arc::new(Places::new(&options)),
            options,
            exchange,
            drain: Drain::default(),
            events: Events::default(),
            bells: Mutex::default(),
            serial: AtomicU64::new(0),
        });
        Ok(Self { router: router(shared.clone()), shared, room })
    }

    /// Serves a listener until `shutdown` is ready. Then stops accepting and [drains](Self::drain). The relay cannot be
    /// started again.
    pub async fn serve<L: Listener>(&self, listener: L, shutdown: impl Future<Output = ()>) {
        self.accept_until(&listener, shutdown).await;
        drop(listener);
        self.drain().await;
    }

    /// Serves one connection that was accepted elsewhere, from its first byte; returns at once.
    ///
    /// It is dropped unanswered if the relay has all the connections that it may have.
    pub fn serve_connection<IO>(&self, io: IO, source: Source)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.room.clone().try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(connection(io, source, self.clone(), permit));
            }
            Err(_) => self.shared.events.full(source),
        }
    }

    /// Whether clients should come here: the store is there and the relay does not stop.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Tells every socket `going_away`, lets traffic go on, and closes the sockets with 1012 over the options' `drain`,
    /// those of one channel together. Returns when all connections are closed, three seconds after that at most.
    pub async fn drain(&self) {
        let window = self.drain_window();
        let first = self.shared.drain.begin(Instant::now(), window);
        if first {
            self.shared.events.draining(window, self.shared.bells().len());
        }
        self.shared.ring_all();
        let closed = self.wait_closed(window + STOPPING).await;
        // One of several listeners tells of it.
        if first {
            self.shared.events.drained(closed);
        }
    }

    /// Tells every socket `going_away` and waits until all connections are closed, three seconds at most.
    pub async fn stop(&self) {
        self.shared.drain.finish(Instant::now());
        self.shared.ring_all();
        self.wait_closed(STOPPING).await;
    }

    /// For how long sockets are let go. Without another instance to resume at, what waits in this one is lost all the
    /// same, and waiting would only keep clients from the instance that comes after it.
    fn drain_window(&self) -> Duration {
        let shared = if self.shared.exchange.is_shared() { options::DRAIN } else { Duration::ZERO };
        self.shared.options.drain.unwrap_or(shared)
    }

    /// Waits until all connections are closed; false where that took too long.
    async fn wait_closed(&self, time: Duration) -> bool {
        let all = u32::try_from(self.shared.options.max_connections).unwrap_or(u32::MAX);
        let closed = tokio::select! {
            closed = timeout(time, self.room.acquire_many(all)) => closed.is_ok(),
            never = self.sweep() => match never {},
        };
        self.room.close();
        closed
    }

    /// Forgets what expired, again and again. A store that is away may take its time: nobody else waits for that.
    async fn sweep(&self) -> Infallible {
        let mut every = interval(SWEEP_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.shared.exchange.sweep(Instant::now().into_std()).await;
        }
    }

    async fn accept_until<L: Listener>(&self, listener: &L, shutdown: impl Future<Output = ()>) {
        let mut sweep = pin!(self.sweep());
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                never = &mut sweep => match never {},
                accepted = listener.accept_source() => match accepted {
                    Ok((io, Some(source))) => self.serve_connection(io, source),
                    Ok((_, None)) => tracing::warn!("a connection of another user is refused"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// Where connections come from: a [`TcpListener`] or a [`UnixListener`].
pub trait Listener: Send + Sync {
    /// One connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and what its limits count for; `None` for one that must not be served.
    fn accept_source(&self) -> impl Future<Output = io::Result<(Self::Io, Option<Source>)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept_source(&self) -> io::Result<(TcpStream, Option<Source>)> {
        let (stream, address) = self.accept().await?;
        // A small frame must not wait for the acknowledgement of the one before it.
        stream.set_nodelay(true)?;
        Ok((stream, Some(address.ip().into())))
    }
}

/// Serves processes of this process's user only.
impl Listener for UnixListener {
    type Io = UnixStream;

    async fn accept_source(&self) -> io::Result<(UnixStream, Option<Source>)> {
        let (stream, _) = self.accept().await?;
        let ours = stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw();
        Ok((stream, ours.then_some(Source::Local)))
    }
}

/// What a request has to know of its connection.
#[derive(Debug, Clone)]
struct Connection {
    source: Source,
    meter: Arc<Meter>,
}

/// One connection, to its very end: HTTP until it is upgraded or answered, then perhaps a websocket.
async fn connection<IO, E: Exchange>(io: IO, source: Source, server: Server<E>, permit: OwnedSemaphorePermit)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _counted = server.shared.events.metrics().connected();
    let (carrier, meter, home) = Carrier::new(io);
    // Boxed: its memory is given back once the connection is a websocket.
    Box::pin(serve_http(carrier, Connection { source, meter }, &server)).await;
    home.close().await;
    drop(permit);
}

/// Ends with the answer, with the upgrade, or because the relay stops.
async fn serve_http<IO, E: Exchange>(carrier: Carrier<IO>, connection: Connection, server: &Server<E>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(server.router.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    let serving = http.serve_connection(TokioIo::new(carrier), service).with_upgrades();
    let registered = server.shared.register();
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(%error, "a connection ends before it is a websocket");
        },
        () = poll_fn(|cx| registered.bell.poll_rung(cx)) => {}
    }
}

/// The relay's three paths.
fn router<E: Exchange>(shared: Arc<Shared<E>>) -> Router {
    Router::new()
        .route("/ws", any(upgrade::<E>))
        .route("/health", get(async || plain(StatusCode::OK)))
        .route("/ready", get(ready::<E>))
        .fallback(async || plain(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || plain(StatusCode::METHOD_NOT_ALLOWED))
        .with_state(shared)
}

pub(crate) async fn ready<E: Exchange>(State(shared): State<Arc<Shared<E>>>) -> Response {
    plain(if shared.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}

/// Answers a request for a websocket, which goes on in a task of its own.
async fn upgrade<E: Exchange>(
    State(shared): State<Arc<Shared<E>>>,
    Extension(Connection { source, meter }): Extension<Connection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let max_frame = shared.options.max_frame;
    match upgrade {
        Ok(upgrade) => configure(upgrade, max_frame)
            .on_failed_upgrade(|error: Error| tracing::debug!(%error, "an upgrade failed"))
            .on_upgrade(move |ws| socket::run(Websocket::new(ws, meter, max_frame), source, shared)),
        Err(WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_)) => {
            let mut response = plain(StatusCode::BAD_REQUEST);
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        }
        Err(_) => {
            let mut response = plain(StatusCode::UPGRADE_REQUIRED);
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response
        }
    }
}

/// An answer that says its status only. The connection ends with it: nobody asks twice.
pub(crate) fn plain(status: StatusCode) -> Response {
    (status, [(header::CONNECTION, HeaderValue::from_static("close"))], format!("{status}\n")).into_response()
}
