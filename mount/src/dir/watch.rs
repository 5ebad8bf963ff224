//! From `notify` to signs: which events matter, in the order of the kernel, with a bound on how many may wait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::worker::Order;

/// Most signs that wait for the mailbox's thread, about 150 bytes each. Beyond it they are dropped and the outbox is
/// scanned, once, when those that wait are done; as when the kernel's own queue overflows.
const MAX_WAITING: usize = 1 << 16;
/// Whether the platform tells when a file is closed. Where it does not, every sign only says "look at it".
const CLOSES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What happened to a path, as a hint: whoever gets it looks at the path itself.
#[derive(Debug)]
pub(super) enum Sign {
    /// Something is there, perhaps half written.
    Seen(PathBuf),
    /// A writer closed it.
    Closed(PathBuf),
    /// It was renamed away, under a number that its new name has, too.
    MovedOut(PathBuf, Option<usize>),
    /// It was renamed into place.
    MovedIn(PathBuf, Option<usize>),
    /// It was removed.
    Gone(PathBuf),
    /// Events were lost.
    Overflow,
    /// Watching failed.
    Failed(io::Error),
}

/// A watch on directories, and the way of its signs to the mailbox's thread.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    backlog: Arc<Backlog>,
}

/// How many signs wait.
#[derive(Debug, Default)]
struct Backlog {
    waiting: AtomicUsize,
    /// Whether an overflow waits that stands for what is dropped.
    lost: AtomicBool,
}

impl Watch {
    /// Starts a watch on nothing.
    pub(super) fn new(orders: Sender<Order>) -> io::Result<Self> {
        let backlog = Arc::new(Backlog::default());
        let arrived = Arc::clone(&backlog);
        let handler = move |event: notify::Result<Event>| {
            for sign in signs(event).into_iter().filter_map(|sign| arrived.admit(sign)) {
                // Nobody listens any more: the watch ends soon.
                let _ = orders.send(Order::Sign(sign));
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(handler, config).map_err(|error| match into_io(error) {
            error if error.raw_os_error() == Some(libc::EMFILE) => io::Error::other(
                "too many watchers or files are open; raise fs.inotify.max_user_instances or ulimit -n",
            ),
            error => error,
        })?;
        Ok(Self { watcher, backlog })
    }

    /// Watches a directory or a file. When this returns, nothing that happens in it is missed; what is in a directory
    /// already is for a scan to find. Again is no error.
    pub(super) fn add(&mut self, path: &Path) -> io::Result<()> {
        self.watcher.watch(path, RecursiveMode::NonRecursive).map_err(into_io)
    }

    /// A sign was taken, and is heeded next.
    pub(super) fn took(&self, sign: &Sign) {
        self.backlog.took(sign);
    }
}

impl Backlog {
    /// What goes on of a sign: itself, or where too many wait, one overflow behind them for all that are dropped
    /// until it is taken.
    fn admit(&self, sign: Sign) -> Option<Sign> {
        let sign = if self.waiting.load(Ordering::Relaxed) < MAX_WAITING {
            sign
        } else if self.lost.swap(true, Ordering::AcqRel) {
            return None;
        } else {
            Sign::Overflow
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Some(sign)
    }

    fn took(&self, sign: &Sign) {
        let less = |waiting: usize| Some(waiting.saturating_sub(1));
        // It always answers.
        let _ = self.waiting.try_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if matches!(sign, Sign::Overflow) {
            // Before the scan: what is dropped from now on may have come too late for it.
            self.lost.store(false, Ordering::Release);
        }
    }
}

fn into_io(error: notify::Error) -> io::Error {
    match error.kind {
        notify::ErrorKind::Io(error) => error,
        notify::ErrorKind::PathNotFound => io::ErrorKind::NotFound.into(),
        notify::ErrorKind::MaxFilesWatch => {
            io::Error::other("too many watches are in use; raise fs.inotify.max_user_watches")
        }
        _ => io::Error::other(error),
    }
}

fn signs(event: notify::Result<Event>) -> Vec<Sign> {
    let event = match event {
        Ok(event) => event,
        Err(error) => return vec![Sign::Failed(into_io(error))],
    };
    if event.need_rescan() {
        return vec![Sign::Overflow];
    }
    if !CLOSES {
        let matters = !matches!(event.kind, EventKind::Access(_));
        return if matters { event.paths.into_iter().map(Sign::Seen).collect() } else { Vec::new() };
    }
    let cookie = event.tracker();
    let Some(path) = event.paths.into_iter().next() else { return Vec::new() };
    let sign = match event.kind {
        EventKind::Create(CreateKind::File | CreateKind::Folder | CreateKind::Any) => Sign::Seen(path),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Sign::Closed(path),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Sign::MovedOut(path, cookie),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Sign::MovedIn(path, cookie),
        EventKind::Remove(_) => Sign::Gone(path),
        _ => return Vec::new(),
    };
    vec![sign]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_ends_in_one_overflow_behind_all_that_waits() {
        let backlog = Backlog::default();
        let seen = || Sign::Seen(PathBuf::new());
        for _ in 0..MAX_WAITING {
            assert!(matches!(backlog.admit(seen()), Some(Sign::Seen(_))));
        }
        assert!(matches!(backlog.admit(seen()), Some(Sign::Overflow)));
        assert!(backlog.admit(seen()).is_none());
        // There is room again, but what was dropped is still to be looked for.
        for _ in 0..2 {
            backlog.took(&seen());
        }
        assert!(matches!(backlog.admit(seen()), Some(Sign::Seen(_))));
        assert!(backlog.admit(seen()).is_none());
        backlog.took(&Sign::Overflow);
        assert!(matches!(backlog.admit(seen()), Some(Sign::Seen(_))));
        assert!(matches!(backlog.admit(seen()), Some(Sign::Overflow)));
        assert!(backlog.admit(seen()).is_none());
    }
}
