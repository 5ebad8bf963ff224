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
use axum::http::{HeaderMap, Request, StatusCode};
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
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::carrier::{Carrier, Meter};
use crate::drain::Drain;
use crate::edge::{ARRIVAL, Denied, Edge, Guest, Origin, Tls, Visits};
use crate::events::Events;
use crate::exchange::memory::Memory;
use crate::exchange::{Bell, Exchange};
use crate::options::{self, Options, OptionsError};
use crate::places::Places;
use crate::rules::{Guesses, Source};
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
    /// Nameplates at which joins fail. Of this process only, also where many share a store: it is a brake, not a count
    /// that anything depends on.
    guesses: Mutex<Guesses>,
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

    /// Joins at nameplates that fail.
    pub fn guesses(&self) -> MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Who gets in.
    edge: Arc<Edge>,
    /// The connections of each source.
    visits: Arc<Visits>,
}

impl<E> Clone for Server<E> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            router: self.router.clone(),
            room: self.room.clone(),
            edge: self.edge.clone(),
            visits: self.visits.clone(),
        }
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
        let visits = Arc::new(Visits::new(options.connections_per_source));
        let shared = Arc::new(Shared {
            reading: Arc::new(Places::new(&options)),
            writing: Arc::new(Places::new(&options)),
            options,
            exchange,
            guesses: Mutex::default(),
            drain: Drain::default(),
            events: Events::default(),
            bells: Mutex::default(),
            serial: AtomicU64::new(0),
        });
        Ok(Self { router: router(shared.clone()), shared, room, edge: Arc::default(), visits })
    }

    /// The same relay with this edge. Without one it speaks plain TCP, trusts no proxy and serves everybody.
    #[must_use]
    pub fn behind(self, edge: Edge) -> Self {
        Self { edge: Arc::new(edge), ..self }
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
    /// It is dropped unanswered if the relay has all the connections that it may have, or if it comes from a network that
    /// is not served.
    pub fn serve_connection<IO>(&self, io: IO, origin: impl Into<Origin>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let origin = origin.into();
        if !self.edge.may_knock(origin) {
            self.shared.events.denied(Denied::Address, origin.source());
            return;
        }
        match self.room.clone().try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(connection(io, origin, self.clone(), permit));
            }
            Err(_) => self.shared.events.full(origin.source()),
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

    /// Forgets what expired and looks at files that may have changed, again and again. A store that is away may take its
    /// time: nobody else waits for that.
    async fn sweep(&self) -> Infallible {
        let mut every = interval(SWEEP_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let now = Instant::now().into_std();
            if self.edge.is_watching() {
                let edge = self.edge.clone();
                // Nobody waits for it: a disk may take its time.
                drop(spawn_blocking(move || edge.refresh()));
            }
            self.shared.guesses().sweep(now);
            self.shared.exchange.sweep(now).await;
        }
    }

    async fn accept_until<L: Listener>(&self, listener: &L, shutdown: impl Future<Output = ()>) {
        let mut sweep = pin!(self.sweep());
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                never = &mut sweep => match never {},
                accepted = accept(listener) => if let Some((io, origin)) = accepted {
                    self.serve_connection(io, origin);
                },
            }
        }
    }
}

/// The next connection that may be served, if this is one. A listener that fails rests here, where the relay can still be
/// told to stop.
async fn accept<L: Listener>(listener: &L) -> Option<(L::Io, Origin)> {
    match listener.accept_origin().await {
        Ok((io, Some(origin))) => Some((io, origin)),
        Ok((_, None)) => {
            tracing::warn!("a connection of another user is refused");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Where connections come from: a [`TcpListener`] or a [`UnixListener`].
pub trait Listener: Send + Sync {
    /// One connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and where it comes from; `None` for one that must not be served.
    fn accept_origin(&self) -> impl Future<Output = io::Result<(Self::Io, Option<Origin>)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept_origin(&self) -> io::Result<(TcpStream, Option<Origin>)> {
        let (stream, address) = self.accept().await?;
        // A small frame must not wait for the acknowledgement of the one before it.
        stream.set_nodelay(true)?;
        Ok((stream, Some(address.ip().into())))
    }
}

/// Serves processes of this process's user only.
impl Listener for UnixListener {
    type Io = UnixStream;

    async fn accept_origin(&self) -> io::Result<(UnixStream, Option<Origin>)> {
        let (stream, _) = self.accept().await?;
        let ours = stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw();
        Ok((stream, ours.then_some(Source::Local.into())))
    }
}

/// What a request has to know of its connection.
#[derive(Debug, Clone)]
struct Connection {
    guest: Arc<Guest>,
    meter: Arc<Meter>,
}

/// One connection, to its very end: what the edge wants, HTTP until it is upgraded or answered, then perhaps a websocket.
async fn connection<IO, E: Exchange>(
    mut io: IO,
    origin: Origin,
    server: Server<E>,
    permit: OwnedSemaphorePermit,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let by = Instant::now() + ARRIVAL;
    let arriving = async {
        let origin = server.edge.origin(&mut io, origin).await?;
        Guest::new(server.edge.clone(), server.visits.clone(), origin).map_err(io::Error::other)
    };
    let Some(guest) = in_time(&server.shared, by, arriving).await.map(Arc::new) else { return };
    match server.edge.tls() {
        None => talk(io, &guest, &server).await,
        // Boxed: one that is not encrypted does not pay for it.
        Some(tls) => Box::pin(encrypted(io, tls, by, &guest, &server)).await,
    }
    drop((guest, permit));
}

/// One connection from the handshake of TLS on.
async fn encrypted<IO, E: Exchange>(io: IO, tls: &Tls, by: Instant, guest: &Arc<Guest>, server: &Server<E>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Some(io) = in_time(&server.shared, by, tls.accept(io)).await {
        talk(io, guest, server).await;
    }
}

/// What comes before a request, if it comes before `by` and the relay goes on.
async fn in_time<T, E>(
    shared: &Shared<E>,
    by: Instant,
    step: impl Future<Output = io::Result<T>>,
) -> Option<T> {
    let registered = shared.register();
    let done = tokio::select! {
        done = timeout_at(by, step) => done.unwrap_or_else(|late| Err(late.into())),
        () = poll_fn(|cx| registered.bell.poll_rung(cx)) => return None,
    };
    done.inspect_err(|error| tracing::debug!(%error, "a connection ends before its request")).ok()
}

/// One connection from its request on.
async fn talk<IO, E: Exchange>(io: IO, guest: &Arc<Guest>, server: &Server<E>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _counted = server.shared.events.metrics().connected();
    let (carrier, meter, home) = Carrier::new(io);
    // Boxed: its memory is given back once the connection is a websocket.
    Box::pin(serve_http(carrier, Connection { guest: guest.clone(), meter }, server)).await;
    home.close().await;
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
    Extension(Connection { guest, meter }): Extension<Connection>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let source = match guest.admit(&headers) {
        Ok(source) => source,
        Err(denied) => {
            shared.events.denied(denied, guest.source());
            return refused(denied);
        }
    };
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

/// The answer to a request that the edge does not let in.
fn refused(denied: Denied) -> Response {
    match denied {
        Denied::Address => plain(StatusCode::FORBIDDEN),
        Denied::Crowded => plain(StatusCode::TOO_MANY_REQUESTS),
        Denied::Token => {
            let mut response = plain(StatusCode::UNAUTHORIZED);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// An answer that says its status only. The connection ends with it: nobody asks twice.
pub(crate) fn plain(status: StatusCode) -> Response {
    (status, [(header::CONNECTION, HeaderValue::from_static("close"))], format!("{status}\n")).into_response()
}
