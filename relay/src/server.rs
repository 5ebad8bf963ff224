//! The relay as a value that a program or a test can start.
//!
//! Owns listeners, connections and how all of it stops. What happens on a websocket is `socket`'s.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::exchange::memory::Memory;
use crate::exchange::{Bell, Exchange};
use crate::options::{Options, OptionsError};
use crate::rules::Source;
use crate::{socket, upgrade};

/// A client has this long to send the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// Longest head of a request that is buffered, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// What expired is forgotten this often.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// After the listener fails to accept (no file descriptors left), it rests this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Stopping takes this long at most: `socket` gives each close two seconds.
const STOPPING: Duration = Duration::from_secs(3);

/// What all sockets of one relay share.
#[derive(Debug)]
pub(crate) struct Shared<E> {
    pub options: Options,
    pub exchange: E,
    /// The relay stops: every bell is rung once after this is set.
    pub stopping: AtomicBool,
    /// The sockets' bells.
    bells: Mutex<HashMap<u64, Arc<Bell>>>,
    /// The last number given to a bell.
    serial: AtomicU64,
}

impl<E> Shared<E> {
    /// A bell for one socket, which is also rung when the relay stops.
    pub fn register(&self) -> Registered<'_, E> {
        let (number, bell) = (self.serial.fetch_add(1, Ordering::Relaxed), Arc::<Bell>::default());
        self.bells().insert(number, bell.clone());
        if self.stopping.load(Ordering::Acquire) {
            bell.ring();
        }
        Registered { shared: self, number, bell }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
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
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared<Memory>>,
    /// One permit for each connection.
    room: Arc<Semaphore>,
}

impl Server {
    /// A relay that serves nobody yet.
    ///
    /// # Errors
    /// [`OptionsError`] where the options contradict each other.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        options.check()?;
        let room = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let exchange = Memory::new(&options, Instant::now().into_std());
        let shared = Shared {
            options,
            exchange,
            stopping: AtomicBool::new(false),
            bells: Mutex::default(),
            serial: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), room })
    }

    /// Serves a listener until `shutdown` is ready. Then stops accepting, tells every socket `going_away`, closes it
    /// with 1012 and waits for that, three seconds at most. The relay cannot be started again.
    pub async fn serve<L: Listener>(&self, listener: L, shutdown: impl Future<Output = ()>) {
        self.accept_until(&listener, shutdown).await;
        drop(listener);
        self.stop().await;
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
                tokio::spawn(connection(io, source, self.shared.clone(), permit));
            }
            Err(_) => tracing::warn!("a connection is refused: the relay has all that it may have"),
        }
    }

    /// Tells every socket `going_away` and waits until all connections are closed, three seconds at most.
    pub async fn stop(&self) {
        self.shared.stop();
        let all = u32::try_from(self.shared.options.max_connections).unwrap_or(u32::MAX);
        if timeout(STOPPING, self.room.acquire_many(all)).await.is_err() {
            tracing::debug!("stopped with connections open");
        }
        self.room.close();
    }

    async fn accept_until<L: Listener>(&self, listener: &L, shutdown: impl Future<Output = ()>) {
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = sweep.tick() => self.shared.exchange.sweep(Instant::now().into_std()).await,
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

/// One connection: HTTP until it is upgraded or answered.
async fn connection<IO, E>(io: IO, source: Source, shared: Arc<Shared<E>>, permit: OwnedSemaphorePermit)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Exchange,
{
    // The permit lives as long as the longest of: this connection, the websocket that it becomes.
    let permit = Arc::new(permit);
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request, source, &shared, &permit);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    if let Err(error) = http.serve_connection(TokioIo::new(io), service).with_upgrades().await {
        tracing::debug!(%error, "a connection ends before it is a websocket");
    }
}

/// Answers one request. A websocket goes on in a task of its own.
fn respond<E: Exchange>(
    mut request: Request<Incoming>,
    source: Source,
    shared: &Arc<Shared<E>>,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Response<String> {
    match (request.method(), request.uri().path()) {
        (_, "/ws") => {
            let response = upgrade::answer(&request);
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                let (shared, permit) = (shared.clone(), permit.clone());
                let upgraded = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let _permit = permit;
                    match upgraded.await {
                        Ok(io) => socket::run(TokioIo::new(io), source, shared).await,
                        Err(error) => tracing::debug!(%error, "an upgrade failed"),
                    }
                });
            }
            response
        }
        (&Method::GET, "/health") => Response::new("ok\n".to_owned()),
        (&Method::GET, "/ready") if !shared.stopping.load(Ordering::Acquire) => {
            Response::new("ready\n".to_owned())
        }
        (&Method::GET, "/ready") => plain(StatusCode::SERVICE_UNAVAILABLE),
        _ => plain(StatusCode::NOT_FOUND),
    }
}

/// An answer without a body.
fn plain(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}
