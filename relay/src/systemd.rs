//! What systemd gives and is told: sockets, readiness, the end, and that the process is alive.
//!
//! Owns the inherited file descriptors and the messages. Without systemd, all of this does nothing.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::interval;

use crate::edge::Origin;
use crate::rules::Source;
use crate::server::Listener;

/// The descriptors were taken: each has one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// How often it is looked whether there is something to be told.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A socket that was handed over.
#[derive(Debug)]
pub(crate) enum Handed {
    /// Of the network.
    Tcp(TcpListener),
    /// Of this machine.
    Unix(HandedUnix),
}

/// A Unix socket whose unit says who may connect: unlike the local relay's own, it serves other users.
#[derive(Debug)]
pub(crate) struct HandedUnix(UnixListener);

impl Listener for HandedUnix {
    type Io = UnixStream;

    async fn accept_origin(&self) -> io::Result<(UnixStream, Option<Origin>)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Some(Origin::Settled(Source::Local))))
    }
}

impl HandedUnix {
    /// Where it is, for the log.
    pub fn path(&self) -> PathBuf {
        let address = self.0.local_addr().ok();
        address.and_then(|address| address.as_pathname().map(PathBuf::from)).unwrap_or_default()
    }
}

/// The listeners that this process was started with; none the second time.
///
/// # Errors
/// What was handed over is not a listening socket.
pub(crate) fn listeners() -> io::Result<Vec<Handed>> {
    let descriptors = sd_notify::listen_fds()?;
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    descriptors.map(take).collect()
}

#[expect(unsafe_code, reason = "a number from the environment becomes an owned descriptor")]
fn take(number: RawFd) -> io::Result<Handed> {
    // SAFETY: `listen_fds` found the descriptor open and named for this very process, which got it from whoever started
    // it. `TAKEN` lets each be taken once, and nothing else in this process knows the number.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    if !socket_acceptconn(&socket)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
    }
    match socket_domain(&socket)? {
        AddressFamily::UNIX => {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(Handed::Unix(HandedUnix(UnixListener::from_std(listener)?)))
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(Handed::Tcp(TcpListener::from_std(listener)?))
        }
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither TCP nor a Unix socket")),
    }
}

/// Says READY=1 as soon as `is_ready`, then WATCHDOG=1 as often as systemd wants, for as long as it is polled.
pub(crate) async fn attend(is_ready: impl Fn() -> bool) {
    let mut look = interval(LOOK_EVERY);
    while !is_ready() {
        look.tick().await;
    }
    tell(NotifyState::Ready);
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    // Twice as often as it has to be, as systemd advises.
    let mut alive = interval(limit / 2);
    loop {
        alive.tick().await;
        tell(NotifyState::Watchdog);
    }
}

/// Says STOPPING=1.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
