//! The FUSE back end: a channel's directory that lives in this process and is mounted where it is to be.
//!
//! Owns the mount from its making to its end, the bell, and the threads that answer the kernel and decide about the
//! outbox. What an operation does is in [`crate::files`]; what is sent when is in [`crate::outbox`]. This process never
//! touches its own mount: what has to come through it, so that it is noticed by inotify, the bell does.

mod inbox;
mod receipts;
mod worker;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::bell::{self, Bell, BellError};
use crate::blob::{self, Content, Store};
use crate::error::FileError;
use crate::files::{Caller, Files, LOG_PATH, Limits, STATUS};
use crate::fuse;
use crate::place::{OpenError, Place};
use crate::reference::Own;
use crate::secret::{Secret, SecretName, SharedVault};
use crate::{
    Backend, EntryId, Group, Guard, Incoming, Mailbox, Outcome, Outlet, Refusal, SecretNotSent, Sink, ignore,
    mounts,
};
use inbox::Inbox;
pub(crate) use receipts::Receipts;
use worker::Worker;
pub(crate) use worker::{Ask, Order};

/// Whoever reads the log has this long to read its last line before the mount goes.
const LAST_READ: Duration = Duration::from_millis(1500);
/// Contents of at most so many bytes are dropped by whoever removed them: it takes half a millisecond.
const DROPPED_AT_ONCE: u64 = 8 << 20;
/// No `sync receipt` waits longer, where nobody said.
const RECEIPT_WAIT: Duration = Duration::from_secs(3600);
/// How long the reader of the kernel's requests gets to end after the mount is gone. It ends at once where nobody sits
/// inside, and with the process otherwise.
const READER_END: Duration = Duration::from_millis(500);

/// How a mounted mailbox is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The channel's directory: made if it is missing, with the directories above it; taken if it is ours and empty.
    pub path: PathBuf,
    /// What the mount table calls it: unique on this machine, without anything secret.
    pub source: String,
    /// Most bytes that the inbox may hold. `None`: what the disk of the spill has less a reserve (a tenth of it, at most
    /// 1 GiB), and at most 16 GiB.
    pub inbox_limit: Option<u64>,
    /// The same for the outbox.
    pub outbox_limit: Option<u64>,
    /// Most bytes in memory before chunks are sealed and spilled.
    pub memory: u64,
    /// Longest that a `sync receipt` waits.
    pub receipt_wait: Duration,
    /// What it forbids is refused at `close` (EACCES). It stays in the outbox, and is offered all the same: whoever reads
    /// the offers says why it does not leave.
    pub guard: Option<Guard>,
    /// Whether it is told that somebody has read what was received.
    pub read_receipts: bool,
    /// How the bell is started.
    pub bell: bell::Options,
    /// The secrets that were received.
    pub vault: SharedVault,
}

impl Options {
    /// A mailbox at a path, with the limits of the machine.
    #[must_use]
    pub fn new(path: PathBuf, source: String, bell: bell::Options) -> Self {
        Self {
            path,
            source,
            inbox_limit: None,
            outbox_limit: None,
            memory: blob::DEFAULT_MEMORY,
            receipt_wait: RECEIPT_WAIT,
            guard: None,
            read_receipts: true,
            bell,
            vault: SharedVault::default(),
        }
    }
}

/// The bell of a program whose first argument `bell` runs [`bell::run`].
#[must_use]
pub fn own_bell() -> bell::Options {
    // Also where the program's file was replaced meanwhile.
    let program = if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_default()
    };
    bell::Options {
        program,
        args: vec![OsString::from("bell")],
        arg0: Some(OsString::from("agent-wormhole")),
    }
}

/// Why a mailbox cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The directory cannot be had.
    #[error(transparent)]
    Place(#[from] OpenError),
    /// The kernel, the device or the helper said no.
    #[error("{reason}")]
    Unavailable {
        /// In words for a person.
        reason: String,
    },
    /// Something else that it needs could not be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl MountError {
    const fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// What the thread that drops gets.
enum Gone {
    /// To be dropped.
    Contents(Vec<Arc<Content>>),
    /// Somebody wants to know when everything before is.
    Tell(Sender<()>),
}

impl Gone {
    fn drop(self) {
        match self {
            Self::Contents(contents) => drop(contents),
            // Who asked may have given up.
            Self::Tell(told) => drop(told.send(())),
        }
    }
}

/// What the threads share.
pub(crate) struct Shared {
    files: Mutex<Files>,
    orders: Sender<Order>,
    /// An order to look at what happened is on its way.
    woken: AtomicBool,
    pub(crate) bell: Bell,
    pub(crate) receipts: Arc<Receipts>,
    /// Where what is gone is dropped.
    gone: Sender<Gone>,
    /// Told when a handle was released; closing waits for readers.
    released: Condvar,
    /// The version of FUSE that the kernel speaks, once it has said so.
    pub(crate) kernel: OnceLock<(u32, u32)>,
}

impl Shared {
    /// Does something with the files, and tells the worker where something happened that it has to know.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Files) -> R) -> R {
        let mut files = self.files();
        let result = act(&mut files);
        let happened = files.deadline().is_some();
        let gone = files.take_gone();
        drop(files);
        let (large, small): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|content| content.allocated() > DROPPED_AT_ONCE);
        drop(small);
        if !large.is_empty() {
            // Without that thread they are dropped here.
            let _ = self.gone.send(Gone::Contents(large));
        }
        if happened && !self.woken.swap(true, Ordering::AcqRel) {
            self.order(Order::Look);
        }
        result
    }

    /// Waits until what is gone takes no room any more.
    fn wait_for_room(&self) {
        let (told, dropped) = mpsc::channel();
        if self.gone.send(Gone::Tell(told)).is_ok() {
            // It ends with the mailbox.
            let _ = dropped.recv();
        }
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order to the worker. After its end there is nothing to be done any more.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// A handle was released.
    pub(crate) fn released(&self) {
        self.released.notify_all();
    }

    pub(crate) fn caller(&self, pid: u32) -> Caller {
        if pid != 0 && pid == self.bell.pid() { Caller::Bell } else { Caller::User }
    }
}

/// A channel's mailbox as a mount. Dropping it is closing it.
pub struct FuseMailbox {
    place: Place,
    source: String,
    at_rest: String,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    device: Option<(u32, u32)>,
    worker: Mutex<Option<JoinHandle<()>>>,
    /// Says when the reader of the kernel's requests has ended.
    ended: Mutex<Receiver<()>>,
}

/// Looks whether this machine has the device of FUSE and lets this user open it: without that there can be no mount.
///
/// # Errors
/// The reason why not.
pub fn device() -> Result<(), String> {
    fuse::device()
}

impl FuseMailbox {
    /// The version of FUSE that the kernel speaks with this mount, major and minor.
    #[must_use]
    pub fn kernel(&self) -> Option<(u32, u32)> {
        self.shared.kernel.get().copied()
    }

    /// Mounts the directory and begins to answer; `outlet` is called on the mailbox's own thread. No entry is offered
    /// before [`Mailbox::allow`].
    ///
    /// # Errors
    /// [`MountError`]; then nothing is left of it.
    pub fn open(options: Options, outlet: Outlet) -> Result<Self, MountError> {
        let place = Place::take(&options.path)?;
        Self::start(&place, options, outlet)
            .inspect_err(|_| {
                // It is ours and empty; a mount that is still there has its owner's next command to thank.
                let _ = place.remove();
            })
            .map(|parts| parts(place))
    }

    fn start(
        place: &Place,
        options: Options,
        outlet: Outlet,
    ) -> Result<impl FnOnce(Place) -> Self + use<>, MountError> {
        let path = place.path().to_owned();
        let blob = blob::Options { memory: options.memory, ..blob::Options::detect() };
        let store = Store::new(blob).map_err(MountError::io("no memory for files can be had"))?;
        let disk = default_limit(store.spill_dir()).map_err(MountError::io("the disk cannot be measured"));
        let limit = |asked: Option<u64>| asked.unwrap_or_else(|| disk.as_ref().copied().unwrap_or(0));
        let limits = Limits { outbox: limit(options.outbox_limit), inbox: limit(options.inbox_limit) };
        if options.inbox_limit.is_none() || options.outbox_limit.is_none() {
            disk?;
        }
        let at_rest = store.at_rest().to_owned();
        let mut files = Files::new(store, limits)
            .map_err(|error| MountError::io("the channel's own files")(io::Error::other(error)))?
            .guarded(options.guard);
        files.use_vault(options.vault.clone());
        if !options.read_receipts {
            files.ignore_readers();
        }
        // First of all: whatever becomes of us, it takes the mount away.
        let bell = Bell::start(options.bell, path.clone(), options.source.clone())
            .map_err(MountError::io("the helper process cannot be started"))?;
        let receipts =
            Receipts::start(options.receipt_wait).map_err(MountError::io("no thread can be had"))?;
        let (orders, queue) = mpsc::channel();
        let (gone, dropped) = mpsc::channel();
        thread::Builder::new()
            .name("mailbox-drop".to_owned())
            .spawn(move || dropped.iter().for_each(Gone::drop))
            .map_err(MountError::io("no thread can be had"))?;
        let shared = Arc::new(Shared {
            gone,
            files: Mutex::new(files),
            orders,
            woken: AtomicBool::new(false),
            bell,
            receipts,
            released: Condvar::new(),
            kernel: OnceLock::new(),
        });
        let mounted = fuse::mount(&path, &options.source, &shared);
        let ended = mounted.inspect_err(|_| end_bell(&shared))?;
        let device = match Self::up(&shared, &path, &options.source) {
            Ok(device) => device,
            Err(error) => {
                end_bell(&shared);
                return Err(error);
            }
        };
        let own = Own {
            path: path.clone(),
            device: device.map(|(major, minor)| rustix::fs::makedev(major, minor)),
            place: None,
            streams: Arc::default(),
        };
        let worker = Worker::new(&shared, own, outlet);
        let thread = thread::Builder::new().name("mailbox".to_owned()).spawn(move || worker.run(&queue));
        let thread =
            thread.inspect_err(|_| end_bell(&shared)).map_err(MountError::io("no thread can be had"))?;
        Ok(move |place| Self {
            inbox: Arc::new(Inbox::new(Arc::clone(&shared), path)),
            place,
            source: options.source,
            at_rest,
            shared,
            device,
            worker: Mutex::new(Some(thread)),
            ended: Mutex::new(ended),
        })
    }

    /// The mount is there: the bell is told, and its number is known.
    fn up(shared: &Shared, path: &Path, source: &str) -> Result<Option<(u32, u32)>, MountError> {
        shared.bell.mounted().map_err(|error| MountError::Unavailable {
            reason: format!("the helper process cannot enter the mount: {error}"),
        })?;
        let found = mounts::find(path, source).map_err(MountError::io("the mount table cannot be read"))?;
        Ok(found.map(|found| found.device))
    }

    /// Ends every request, so that who sits inside gets an error at once; where this cannot be had, with the end of this
    /// process. Before the mount is detached: afterwards its number may be that of another one.
    fn abort(&self) {
        let found = mounts::find(self.place.path(), &self.source).ok().flatten();
        if let Some(device) = found.map(|found| found.device).filter(|device| Some(*device) == self.device)
            && let Err(error) = mounts::abort(device)
        {
            tracing::debug!(%error, "the connection cannot be aborted");
        }
    }

    /// Waits until whoever reads the log or an answer has closed it, but not long.
    fn wait_for_readers(&self) {
        let end = Instant::now() + LAST_READ;
        let mut files = self.shared.files();
        while files.readers() > 0 {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return;
            };
            let waited = self.shared.released.wait_timeout(files, left);
            files = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the outbox or the inbox may grow to where nobody said.
fn default_limit(spill_dir: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(spill_dir)?;
    Ok(crate::inbox::default_limit(disk.f_bavail.saturating_mul(disk.f_frsize)))
}

/// Takes the mount away where its making failed half-way.
fn end_bell(shared: &Shared) {
    if let Err(error) = shared.bell.detach() {
        tracing::warn!(%error, "the mount of a mailbox that could not be made cannot be detached");
    }
}

impl fmt::Debug for FuseMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FuseMailbox").field("path", &self.place.path()).finish_non_exhaustive()
    }
}

fn io_error(error: FileError) -> io::Error {
    crate::error::errno(error).into()
}

impl Mailbox for FuseMailbox {
    fn path(&self) -> &Path {
        self.place.path()
    }

    fn backend(&self) -> Backend {
        Backend::Fuse
    }

    fn at_rest(&self) -> &str {
        &self.at_rest
    }

    fn allow(&self, offers: usize) {
        self.shared.order(Order::Allow(offers));
    }

    fn settle(&self, entry: EntryId, outcome: Outcome) {
        self.shared.order(Order::Outcome(entry, outcome));
    }

    fn shut(&self) {
        self.shared.files().close();
    }

    fn undelivered(&self, most: usize) -> (Vec<String>, usize) {
        let (reply, answer) = mpsc::channel();
        self.shared.order(Order::Undelivered(most, reply));
        answer.recv().unwrap_or_default()
    }

    fn send_secret(&self, name: SecretName, secret: Secret) -> Result<(), SecretNotSent> {
        if ignore::path(name.as_str()).is_some() {
            return Err(SecretNotSent::BadName);
        }
        let sent = self.shared.with(|files| files.send_secret(&name, secret, Instant::now()));
        sent.map_err(|error| match error {
            FileError::Invalid => SecretNotSent::Empty,
            FileError::Closed => SecretNotSent::Closing,
            _ => SecretNotSent::Full,
        })
    }

    fn finish(&self) {
        self.shared.order(Order::Finish);
    }

    fn receive(&self, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.inbox.receive(head)
    }

    fn receive_group(&self, head: &Incoming<'_>) -> Result<Box<dyn Group>, Refusal> {
        self.inbox.receive_group(head)
    }

    fn append_log(&self, line: &str) -> io::Result<u64> {
        let mut whole = String::with_capacity(line.len() + 1);
        whole.push_str(line);
        whole.push('\n');
        let mut appended = self.shared.bell.append(LOG_PATH, whole.as_bytes());
        if let Err(BellError::Errno(Errno::STALE | Errno::NOENT)) = appended {
            // Its owner removed it.
            self.shared.with(Files::renew_log);
            appended =
                self.shared.bell.mounted().and_then(|()| self.shared.bell.append(LOG_PATH, whole.as_bytes()));
        }
        match appended {
            Ok(()) => {}
            Err(BellError::Errno(errno)) => return Err(errno.into()),
            // It may have done it before it died: a line that stands there twice is better than none.
            Err(BellError::Gone(_) | BellError::Closed) => {
                self.shared.files().append_log(whole.as_bytes()).map_err(io_error)?;
            }
        }
        Ok(self.shared.files().log_len())
    }

    fn rotate_log(&self, first_line: &str) -> io::Result<()> {
        self.shared.with(Files::renew_log);
        self.shared.with(Files::keep_old_log).map_err(io_error)?;
        match self.shared.bell.truncate(LOG_PATH) {
            Ok(()) => {}
            Err(BellError::Errno(errno)) => return Err(errno.into()),
            Err(BellError::Gone(_) | BellError::Closed) => {
                self.shared.files().truncate_log().map_err(io_error)?;
            }
        }
        self.append_log(first_line).map(drop)
    }

    fn append_transcript(&self, line: &str) -> io::Result<()> {
        self.shared.files().append_transcript(format!("{line}\n").as_bytes()).map_err(io_error)
    }

    fn write_status(&self, json: &str) -> io::Result<()> {
        let end = if json.ends_with('\n') { "" } else { "\n" };
        self.shared.files().write_status(format!("{json}{end}").as_bytes()).map_err(io_error)?;
        // It has its new content already; who watches it is told, and who does not needs no bell.
        let _ = self.shared.bell.truncate(STATUS);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inbox.close();
        let Some(thread) = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        self.shared.order(Order::Stop);
        // The outlet runs on that thread and may be the one that closes.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
        self.wait_for_readers();
        self.shared.receipts.end();
        self.abort();
        let detached = self.shared.bell.detach();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // It ends by itself, now or with the process.
        let _ = ended.recv_timeout(READER_END);
        detached?;
        match mounts::find(self.place.path(), &self.source)? {
            None => self.place.remove(),
            Some(_) => Err(io::Error::other("it is still mounted")),
        }
    }
}

impl Drop for FuseMailbox {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the channel's directory cannot be unmounted");
        }
    }
}
