//! Into the inbox: written in staging, made visible with one rename, below directory handles that no link can bend.

mod group;
mod sink;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Timespec, Timestamps};
use rustix::io::Errno;

use super::layout::{self, Layout};
use crate::beneath::{self, DIR_MODE, FILE_MODE};
use crate::inbox::{Budget, Numbers, candidates, item_cost};
use crate::name::{Root, SafeName};
use crate::questions::Questions;
use crate::removal;
use crate::secret::EXPLANATION;
use crate::special::Special;
use crate::{Group, Incoming, Kind, Refusal, Saved, Sink};
use group::Tree;
use sink::{DirSink, FileSink, Target};

/// How often at most what the inbox holds is counted on the disk: a peer that fills it cannot make us walk it all the
/// time.
const RECOUNT: Duration = Duration::from_secs(1);
/// How many times as long as counting took the next one waits.
const RECOUNT_SHARE: u32 = 10;

/// Where everything arrives.
#[derive(Debug)]
pub(super) struct Inbox {
    layout: Arc<Layout>,
    budget: Budget,
    /// What each item costs besides its bytes.
    item_cost: u64,
    /// Before this it is not counted again.
    recount_after: Mutex<Option<Instant>>,
    numbers: Mutex<Numbers>,
    questions: Arc<Mutex<Questions>>,
    last_text: AtomicU32,
    last_staged: AtomicU64,
    closing: AtomicBool,
}

impl Inbox {
    pub(super) fn new(layout: Arc<Layout>, limit: u64, questions: Arc<Mutex<Questions>>) -> Self {
        Self {
            budget: Budget::new(limit),
            item_cost: item_cost(limit, layout.free_inodes()),
            recount_after: Mutex::new(None),
            layout,
            numbers: Mutex::default(),
            questions,
            last_text: AtomicU32::new(0),
            last_staged: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses everything from now on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn receive(self: &Arc<Self>, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.check(head)?;
        if let Some(special) = Special::for_kind(head.kind) {
            self.questions().may_arrive(special, head.name)?;
            let target = Target::Special(special, head.name.to_owned());
            return Ok(Box::new(FileSink::new(self, head, target)?));
        }
        let name = match head.kind {
            Kind::Text | Kind::Ask | Kind::Answer => None,
            // They go into the vault, and never through here.
            Kind::Secret => return Err(Refusal::BadName),
            Kind::File | Kind::Dir | Kind::Group => Some(safe(head.name, Root::Inbox)?),
        };
        Ok(match (head.kind, name) {
            (Kind::File, Some(name)) => Box::new(FileSink::new(self, head, Target::Inbox(name))?),
            (_, Some(name)) => {
                let root = Arc::new(rustix::io::dup(&self.layout.inbox).map_err(refusal)?);
                Box::new(DirSink::new(self, root, name, head.mtime))
            }
            (_, None) => Box::new(FileSink::new(self, head, Target::Text)?),
        })
    }

    pub(super) fn receive_group(self: &Arc<Self>, head: &Incoming<'_>) -> Result<Box<dyn Group>, Refusal> {
        self.check(head)?;
        Ok(Box::new(Tree::new(self, safe(head.name, Root::Inbox)?, head.mtime)?))
    }

    /// What can be said before the first byte.
    fn check(&self, head: &Incoming<'_>) -> Result<(), Refusal> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Refusal::Closing);
        }
        let limit = self.budget.limit();
        match head.size {
            Some(size) if size > limit.saturating_sub(self.item_cost) => Err(Refusal::TooLarge { limit }),
            Some(size) => self.budget.check(size, || self.recount()),
            None => Ok(()),
        }
    }

    /// What the inbox holds; `None` where it was counted only just now.
    fn recount(&self) -> Option<u64> {
        let mut after = self.recount_after.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        if after.is_some_and(|after| start < after) {
            return None;
        }
        // What cannot be read any more holds nothing.
        let all = size_below(&self.layout.inbox, self.item_cost).unwrap_or(0);
        // The directories of ours, and the explanation in the place of secrets, cost the peer nothing.
        let ours = self.item_cost.saturating_mul(Special::ALL.len() as u64 + 1);
        let size = all.saturating_sub(ours.saturating_add(EXPLANATION.len() as u64));
        let end = Instant::now();
        *after = Some(end + RECOUNT.max((end - start) * RECOUNT_SHARE));
        Some(size)
    }

    /// The directory for the last part of a name: each part on the way is made, or entered if it is a directory and
    /// no link, or stands beside what has its name under a number. Also the way's names.
    fn parents(&self, root: &OwnedFd, parts: &[String]) -> Result<(OwnedFd, String), Refusal> {
        let mut dir = rustix::io::dup(root).map_err(refusal)?;
        let mut way = String::new();
        for part in parts {
            let (next, name) = self.enter(&dir, part)?;
            way = format!("{way}{name}/");
            dir = next;
        }
        Ok((dir, way))
    }

    /// Makes or enters a directory, under a number where something else has its name.
    fn enter(&self, dir: &OwnedFd, part: &str) -> Result<(OwnedFd, String), Refusal> {
        for (_, name) in candidates(part, 2) {
            if let Some(entered) = self.enter_as(dir, &name)? {
                return Ok((entered, name));
            }
        }
        Err(Refusal::BadName)
    }

    /// The same under this name alone; `None` where something else has it.
    fn enter_as(&self, dir: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Refusal> {
        match beneath::open_dir(dir, name) {
            Ok(entered) => return Ok(Some(entered)),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(refusal(error)),
        }
        self.budget.charge(self.item_cost, || self.recount())?;
        // It counts also where it cannot be made, until it is counted again.
        self.budget.keep(self.item_cost);
        let made = match beneath::make_dir(dir, name) {
            // Somebody was quicker.
            Err(Errno::EXIST) => beneath::open_dir(dir, name),
            result => result,
        };
        made.map(Some).map_err(refusal)
    }

    /// Renames something staged into place under the first name that is free; returns that name.
    fn place(&self, staged: &str, dir: &OwnedFd, way: &str, part: &str) -> Result<String, Refusal> {
        let full = format!("{way}{part}");
        let first = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).first(&full);
        for (number, name) in candidates(part, first) {
            match beneath::rename_new(&self.layout.incoming, staged, dir, &*name) {
                Ok(()) => {
                    if number > 0 {
                        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).used(&full, number);
                    }
                    return Ok(name);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(refusal(error)),
            }
        }
        Err(Refusal::BadName)
    }

    fn saved(&self, name: String, size: u64) -> Saved {
        Saved { path: self.layout.path.join(layout::INBOX).join(&name), name, size }
    }
}

/// A name in staging. Dropping it removes what is there.
#[derive(Debug)]
struct Staged {
    inbox: Arc<Inbox>,
    name: String,
    placed: bool,
}

impl Staged {
    fn new(inbox: &Arc<Inbox>) -> Self {
        let number = inbox.last_staged.fetch_add(1, Ordering::Relaxed);
        Self { inbox: Arc::clone(inbox), name: number.to_string(), placed: false }
    }

    /// Makes it visible under the first name that is free, and returns that name.
    fn place(mut self, dir: &OwnedFd, way: &str, part: &str) -> Result<String, Refusal> {
        let name = self.inbox.place(&self.name, dir, way, part)?;
        self.placed = true;
        Ok(name)
    }
}

impl Staged {
    /// Makes it visible under this name or not at all.
    fn place_as(mut self, dir: &OwnedFd, name: &str) -> Result<(), Refusal> {
        beneath::rename_new(&self.inbox.layout.incoming, &*self.name, dir, name).map_err(refusal)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed goes with the channel.
            let _ = removal::remove(&self.inbox.layout.incoming, &self.name);
        }
    }
}

/// Bytes counted against the budget, taken back unless they are kept.
#[derive(Debug)]
struct Charge {
    inbox: Arc<Inbox>,
    bytes: u64,
}

impl Charge {
    /// Counts an item without a byte.
    fn new(inbox: &Arc<Inbox>) -> Result<Self, Refusal> {
        let mut charge = Self { inbox: Arc::clone(inbox), bytes: 0 };
        charge.add(inbox.item_cost)?;
        Ok(charge)
    }

    fn add(&mut self, bytes: u64) -> Result<(), Refusal> {
        let limit = self.inbox.budget.limit();
        if self.bytes.saturating_add(bytes) > limit {
            return Err(Refusal::TooLarge { limit });
        }
        self.inbox.budget.charge(bytes, || self.inbox.recount())?;
        self.bytes += bytes;
        Ok(())
    }

    /// The bytes of the item, without what it costs itself.
    fn size(&self) -> u64 {
        self.bytes - self.inbox.item_cost
    }

    /// What was counted is for somebody else to keep or take back.
    fn hand_over(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.inbox.budget.refund(self.bytes);
    }
}

fn safe(name: &str, root: Root) -> Result<SafeName, Refusal> {
    SafeName::parse(name, root).map_err(|_| Refusal::BadName)
}

/// Gives a complete file its mode and time.
fn finish_file(file: &File, executable: bool, mtime: Option<SystemTime>) -> Result<(), Refusal> {
    rustix::fs::fchmod(file, if executable { DIR_MODE } else { FILE_MODE }).map_err(refusal)?;
    set_time(file, mtime);
    Ok(())
}

fn set_time(file: impl AsFd, mtime: Option<SystemTime>) {
    let Some(mtime) = mtime else { return };
    let (seconds, nanos) = match mtime.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()), after.subsec_nanos()),
        Err(before) => (i64::try_from(before.duration().as_secs()).map(|seconds| -seconds), 0),
    };
    // A time beyond what the file system has is the peer's; the file is as good without it.
    if let Ok(seconds) = seconds {
        let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
        let last_access = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let _ = rustix::fs::futimens(file, &Timestamps { last_access, last_modification });
    }
}

fn refusal(error: Errno) -> Refusal {
    match error {
        Errno::NOSPC | Errno::DQUOT => Refusal::NoSpace,
        Errno::NAMETOOLONG | Errno::ILSEQ => Refusal::BadName,
        error => Refusal::Io(error.into()),
    }
}

fn io_refusal(error: io::Error) -> Refusal {
    Errno::from_io_error(&error).map_or_else(|| Refusal::Io(error), refusal)
}

/// What everything below a directory counts, one handle for each level. What is gone in the meantime holds nothing.
fn size_below(dir: &OwnedFd, item_cost: u64) -> Result<u64, Errno> {
    let (mut levels, mut all) = (vec![Dir::read_from(dir)?], 0u64);
    while let Some(level) = levels.last_mut() {
        let Some(Ok(entry)) = level.read() else {
            levels.pop();
            continue;
        };
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes()) {
            continue;
        }
        let Ok(found) = rustix::fs::statat(level.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        all = all.saturating_add(item_cost);
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let below = beneath::open_dir(level.fd()?, name).and_then(Dir::new);
            levels.extend(below);
        } else {
            all = all.saturating_add(beneath::identity(&found).size);
        }
    }
    Ok(all)
}
