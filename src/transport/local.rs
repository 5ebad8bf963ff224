//! The relay that the sessions of one machine share.
//!
//! Owns who serves it: whoever holds an exclusive lock on `relay.lock` binds `relay.sock` and serves it for as long as
//! it lives; when it ends, or is killed, the next client that tries to connect takes over. The relay runs in a thread of
//! its own, so that forwarding never waits for the driver of this process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::server::Server;
use rustix::fs::{FlockOperation, flock};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The file whose lock makes its holder the server. It is never removed: a new file would be another lock.
const LOCK: &str = "relay.lock";
/// The socket.
const SOCKET: &str = "relay.sock";
/// Sockets are for this user alone.
const MODE: u32 = 0o600;
/// Telling the others and closing takes this long at most; the relay itself allows three seconds for it.
const RETIRE_TIME: Duration = Duration::from_secs(4);

/// This process's part in the machine's own relay: a client of it, and perhaps its server.
#[derive(Debug)]
pub struct Local {
    dir: PathBuf,
    serving: Mutex<Option<Serving>>,
}

/// The relay that this process serves.
#[derive(Debug)]
struct Serving {
    /// Dropped, it stops.
    stop: oneshot::Sender<()>,
    /// Ends with the relay.
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Local {
    /// The relay in `dir`, a directory of this user alone that exists. Nothing happens before the first connection.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), serving: Mutex::new(None) }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process that serves it now, as the kernel has it.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        let socket = StdUnixStream::connect(self.dir.join(SOCKET)).ok()?;
        let owner = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        u32::try_from(owner.pid.as_raw_nonzero().get()).ok()
    }

    /// Connects once, as the relay's server if it has none.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        self.take_over()?;
        UnixStream::connect(self.dir.join(SOCKET)).await
    }

    /// Stops serving, if this process does: the others are told, and then another can take over.
    pub(super) async fn retire(&self) {
        let serving = self.serving().take();
        if let Some(Serving { stop, ended, .. }) = serving {
            drop(stop);
            let _ = timeout(RETIRE_TIME, ended).await;
        }
    }

    fn take_over(&self) -> io::Result<()> {
        let mut serving = self.serving();
        if serving.as_ref().is_some_and(|serving| !serving.thread.is_finished()) {
            return Ok(());
        }
        *serving = match lock(&self.dir.join(LOCK))? {
            Some(lock) => Some(serve(lock, &self.dir.join(SOCKET))?),
            None => None,
        };
        Ok(())
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock, unless somebody else has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(MODE)
        .custom_flags(flags.cast_signed())
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(e) if e == rustix::io::Errno::WOULDBLOCK => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Binds the socket and serves it in a thread that holds the lock to its end.
fn serve(lock: File, path: &Path) -> io::Result<Serving> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = StdUnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let (ending, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("local-relay".into()).spawn(move || {
        // In this order: the relay ends, then the lock is given up, then whoever waits is told.
        let _ending: oneshot::Sender<()> = ending;
        let _lock = lock;
        run(&runtime, listener, stopped);
    })?;
    tracing::info!("this process serves the machine's own relay");
    Ok(Serving { stop, ended, thread })
}

fn run(runtime: &Runtime, listener: StdUnixListener, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        match (UnixListener::from_std(listener), Server::new(Options::local())) {
            (Ok(listener), Ok(server)) => {
                let stopped = async {
                    let _ = stopped.await;
                };
                server.serve(listener, stopped).await;
            }
            (listener, server) => {
                tracing::warn!(listener = ?listener.err(), server = ?server.err(), "no relay of this machine's own");
            }
        }
    });
}
