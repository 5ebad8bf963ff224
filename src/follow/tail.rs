//! The files themselves: read when something happens to them, and from time to time to see whether anybody still writes.
//!
//! Owns the watch on the inbox and the end. Who writes is told by the caller, who knows the list of channels.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;

use super::Line;
use super::reader::{Place, Reader, Step, Which};

/// How often it is asked whether the owner of the channel lives, while nothing happens. Where no watch can be had, the
/// log is looked at as often.
const LIFE: Duration = Duration::from_millis(500);
/// The log, in `inbox/`.
const LOG: &str = "log.jsonl";

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// An event.
    Event(Box<Line>),
    /// Somebody wrote something into the log that is no event.
    Foreign,
    /// Events with these numbers are in no file any more, if there were any.
    Missing(RangeInclusive<u64>),
    /// All that is there was read. Comes again after each change and whenever nothing has happened for a while, and at the
    /// time that was given.
    Quiet,
    /// The end, without a last line: nobody writes any more, or nothing can be read any more.
    Gone,
}

/// The events of a channel, one after the other.
pub struct Tail<'a> {
    reader: Option<Reader<Disk>>,
    steps: VecDeque<Step>,
    changes: Receiver<()>,
    nudge: SyncSender<()>,
    _watcher: Option<RecommendedWatcher>,
    alive: &'a dyn Fn() -> bool,
    /// The owner is gone: what is there is all.
    dead: bool,
    /// It was told that all was read.
    quiet: bool,
}

impl<'a> Tail<'a> {
    /// Follows the channel in this directory, from the event after number `since` on. `alive` says whether its owner
    /// lives.
    #[must_use]
    pub fn open(channel: &Path, since: u64, alive: &'a dyn Fn() -> bool) -> Self {
        let disk = Disk { channel: channel.to_owned() };
        // One place: a change that is not looked at yet stands for all of them.
        let (nudge, changes) = sync_channel(1);
        // Before anything is read: no change is missed.
        let watcher = watch(&disk.inbox(), nudge.clone());
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the inbox cannot be watched: events come up to half a second late");
        }
        Self {
            reader: Some(Reader::new(disk, since)),
            steps: VecDeque::new(),
            changes,
            nudge,
            _watcher: watcher.ok(),
            alive,
            dead: false,
            quiet: false,
        }
    }

    /// Wakes [`Tail::next`] where it waits.
    #[must_use]
    pub fn nudge(&self) -> SyncSender<()> {
        self.nudge.clone()
    }

    /// Reads once more without waiting, and tells that all was read where that yields nothing.
    pub const fn look_again(&mut self) {
        self.quiet = false;
    }

    /// Waits for what happens next, at most until this time.
    ///
    /// # Errors
    /// Where the log cannot be read although it is there.
    pub fn next(&mut self, until: Option<Instant>) -> io::Result<Next> {
        loop {
            match self.steps.pop_front() {
                Some(Step::Event(line)) => {
                    if line.is_last() {
                        // Who has the log open holds up its owner's end.
                        self.reader = None;
                    }
                    self.quiet = false;
                    return Ok(Next::Event(line));
                }
                Some(Step::Foreign) => return Ok(Next::Foreign),
                Some(Step::Missing(numbers)) => return Ok(Next::Missing(numbers)),
                None => {}
            }
            let Some(reader) = &mut self.reader else { return Ok(Next::Gone) };
            match reader.step(&mut self.steps) {
                Ok(true) => continue,
                Ok(false) if self.dead => self.reader = None,
                Ok(false) if !self.quiet => {
                    self.quiet = true;
                    return Ok(Next::Quiet);
                }
                Ok(false) => self.wait(until),
                Err(error) if is_gone(&error) => self.reader = None,
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self, until: Option<Instant>) {
        let left = until.map_or(LIFE, |until| until.saturating_duration_since(Instant::now()));
        let woken = self.changes.recv_timeout(left.min(LIFE));
        self.quiet = false;
        if woken.is_err() {
            // What it wrote last is read once more after that.
            self.dead = !(self.alive)();
        }
    }
}

/// Tells of what happens to the log.
fn watch(inbox: &Path, nudge: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        let ours = event.as_ref().is_ok_and(|event| {
            // A failure, or too much at once: then anything may have happened.
            event.need_rescan()
                || !event.kind.is_access() && event.paths.iter().any(|path| path.ends_with(LOG))
        });
        if ours || event.is_err() {
            // One that waits to be looked at is as good.
            let _ = nudge.try_send(());
        }
    };
    let mut watcher = RecommendedWatcher::new(tell, notify::Config::default())?;
    watcher.watch(inbox, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Whether nobody answers for a mount any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTCONN | Errno::CONNABORTED | Errno::IO))
}

/// A channel's directory.
struct Disk {
    channel: PathBuf,
}

impl Disk {
    fn inbox(&self) -> PathBuf {
        self.channel.join("inbox")
    }

    fn path(&self, which: Which) -> PathBuf {
        match which {
            Which::Log => self.inbox().join(LOG),
            Which::Old => self.inbox().join("log.1.jsonl"),
            Which::Transcript => self.channel.join("transcript.jsonl"),
        }
    }
}

impl Place for Disk {
    type File = File;

    fn open(&mut self, which: Which) -> io::Result<Option<File>> {
        match File::open(self.path(which)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, file: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match file.read_at(buffer, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn is_replaced(&mut self, log: &File) -> bool {
        match (log.metadata(), fs::metadata(self.path(Which::Log))) {
            (Ok(ours), Ok(found)) => (ours.dev(), ours.ino()) != (found.dev(), found.ino()),
            // It is being taken away, or made anew.
            _ => false,
        }
    }
}
