//! Items on their way into a mounted inbox: their bytes go into memory, and the bell makes them visible.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::io::Errno;

use super::Shared;
use crate::bell::BellError;
use crate::blob;
use crate::error::FileError;
use crate::files::{NODE_COST, Staged};
use crate::name::{Root, SafeName};
use crate::special::Special;
use crate::tree::Time;
use crate::{Group, Incoming, Kind, Refusal, Saved, Sink};

/// The directory of the texts.
const MESSAGES: &str = "messages";
/// How often a place is chosen again that somebody took, removed or moved away meanwhile.
const TRIES: u32 = 8;

/// Where everything arrives.
pub(super) struct Inbox {
    shared: Arc<Shared>,
    channel: PathBuf,
    closing: AtomicBool,
    /// Held from the choice of a name until something has it.
    placing: Mutex<()>,
}

impl Inbox {
    pub(super) fn new(shared: Arc<Shared>, channel: PathBuf) -> Self {
        Self { shared, channel, closing: AtomicBool::new(false), placing: Mutex::new(()) }
    }

    /// Refuses everything from now on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn receive(self: &Arc<Self>, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.check(head)?;
        let mtime = head.mtime.map(Time::from);
        Ok(match head.kind {
            Kind::Text => Box::new(FileSink::new(self, Target::Text, false, None, head.item)),
            Kind::Ask | Kind::Answer => self.question(head)?,
            Kind::File => Box::new(FileSink::new(
                self,
                Target::Inbox(safe(head.name, Root::Inbox)?),
                head.executable,
                mtime,
                head.item,
            )),
            // They go into the vault, and never through here.
            Kind::Secret => return Err(Refusal::BadName),
            Kind::Dir | Kind::Group => {
                let name = safe(head.name, Root::Inbox)?;
                Box::new(DirSink { inbox: Arc::clone(self), name, group: None, mtime })
            }
        })
    }

    fn question(self: &Arc<Self>, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        let special = Special::for_kind(head.kind).ok_or(Refusal::BadName)?;
        self.shared.files().questions().may_arrive(special, head.name)?;
        let target = Target::Special(special, head.name.to_owned());
        Ok(Box::new(FileSink::new(self, target, false, None, head.item)))
    }

    pub(super) fn receive_group(self: &Arc<Self>, head: &Incoming<'_>) -> Result<Box<dyn Group>, Refusal> {
        self.check(head)?;
        let mtime = head.mtime.map(Time::from);
        let name = safe(head.name, Root::Inbox)?;
        let staged = self.shared.files().stage_dir(mtime).map_err(|error| self.refusal(error))?;
        let root = Arc::new(Unstage { inbox: Arc::clone(self), staged: Some(staged) });
        Ok(Box::new(Tree {
            inbox: Arc::clone(self),
            name,
            root,
            mtime,
            size: Arc::default(),
            item: head.item,
        }))
    }

    /// What can be said before the first byte.
    fn check(&self, head: &Incoming<'_>) -> Result<(), Refusal> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Refusal::Closing);
        }
        let Some(size) = head.size else { return Ok(()) };
        let limit = self.shared.files().inbox_limit();
        if size > limit.saturating_sub(NODE_COST) {
            return Err(Refusal::TooLarge { limit });
        }
        if self.shared.files().inbox_takes(size) {
            return Ok(());
        }
        self.shared.wait_for_room();
        if self.shared.files().inbox_takes(size) { Ok(()) } else { Err(Refusal::NoSpace) }
    }

    fn refusal(&self, error: FileError) -> Refusal {
        match error {
            FileError::NoSpace => Refusal::NoSpace,
            FileError::TooLarge => Refusal::TooLarge { limit: self.shared.files().inbox_limit() },
            FileError::NameTooLong | FileError::Invalid => Refusal::BadName,
            FileError::Closed => Refusal::Closing,
            other => Refusal::Io(crate::error::errno(other).into()),
        }
    }

    /// Gives something staged the first of its names that is free.
    fn place(&self, staged: &Staged, parts: &[String]) -> Result<String, Refusal> {
        let _alone = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES {
            let chosen = self.shared.files().choose(parts, false);
            let (way, name) = chosen.map_err(|error| self.refusal(error))?;
            match self.shared.bell.place(&staged.name, &way, &name) {
                Ok(()) => {}
                Err(BellError::Errno(errno)) if errno == Errno::EXIST || is_of_the_way(errno) => continue,
                Err(BellError::Errno(errno)) => return Err(refusal_of(errno)),
                Err(BellError::Gone(_) | BellError::Closed) => {
                    let mut files = self.shared.files();
                    if !files.is_placed(staged) {
                        let placed = files.place_without_bell(staged, &way, &name);
                        drop(files);
                        placed.map_err(|error| self.refusal(error))?;
                    }
                }
            }
            return Ok(way.into_iter().chain([name]).collect::<Vec<_>>().join("/"));
        }
        // Somebody is quicker each time: it has no event, but it is there.
        let mut files = self.shared.files();
        let placed = files.choose(parts, false).and_then(|(way, name)| {
            files.place_without_bell(staged, &way, &name)?;
            Ok(way.into_iter().chain([name]).collect::<Vec<_>>().join("/"))
        });
        drop(files);
        placed.map_err(|error| self.refusal(error))
    }

    /// Makes or enters a directory and those on the way.
    fn make_dirs(&self, parts: &[String], mtime: Option<Time>) -> Result<String, Refusal> {
        let _alone = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES {
            let chosen = self.shared.files().choose(parts, true);
            let (mut way, name) = chosen.map_err(|error| self.refusal(error))?;
            way.push(name);
            match self.shared.bell.make_dirs(&way) {
                Ok(()) => {}
                Err(BellError::Errno(errno)) if is_of_the_way(errno) => continue,
                Err(BellError::Errno(errno)) => return Err(refusal_of(errno)),
                Err(BellError::Gone(_) | BellError::Closed) => {
                    let made = self.shared.files().make_dirs_without_bell(&way);
                    made.map_err(|error| self.refusal(error))?;
                }
            }
            if let Some(mtime) = mtime {
                self.shared.files().stamp_inbox(&way, mtime);
            }
            return Ok(way.join("/"));
        }
        let mut files = self.shared.files();
        let made = files.choose(parts, true).and_then(|(mut way, name)| {
            way.push(name);
            files.make_dirs_without_bell(&way)?;
            Ok(way.join("/"))
        });
        drop(files);
        made.map_err(|error| self.refusal(error))
    }

    fn saved(&self, name: String, size: u64) -> Saved {
        Saved { path: self.channel.join("inbox").join(&name), name, size }
    }
}

/// Whether this can come of a directory on the way that its owner removed, moved into the outbox or put a file in the
/// place of, while the bell was on it.
const fn is_of_the_way(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::ACCESS | Errno::NOTDIR | Errno::STALE)
}

fn refusal_of(errno: Errno) -> Refusal {
    match errno {
        Errno::NOSPC | Errno::DQUOT => Refusal::NoSpace,
        Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL => Refusal::BadName,
        errno => Refusal::Io(errno.into()),
    }
}

fn safe(name: &str, root: Root) -> Result<SafeName, Refusal> {
    SafeName::parse(name, root).map_err(|_| Refusal::BadName)
}

/// Something staged that goes unless it is placed.
struct Unstage {
    inbox: Arc<Inbox>,
    staged: Option<Staged>,
}

impl Drop for Unstage {
    fn drop(&mut self) {
        if let Some(staged) = &self.staged {
            self.inbox.shared.with(|files| {
                if !files.is_placed(staged) {
                    files.unstage(staged);
                }
            });
        }
    }
}

/// Where a file goes when it is complete.
enum Target {
    /// To the messages, under the next number.
    Text,
    /// Under its own name.
    Inbox(SafeName),
    /// To the questions or answers, under exactly its name.
    Special(Special, String),
    /// Into a group, whose bytes it adds to.
    Group(SafeName, Arc<Unstage>, Arc<Mutex<u64>>),
}

/// A file or text.
struct FileSink {
    inbox: Arc<Inbox>,
    content: blob::Content,
    target: Target,
    executable: bool,
    mtime: Option<Time>,
    item: u64,
}

impl FileSink {
    fn new(inbox: &Arc<Inbox>, target: Target, executable: bool, mtime: Option<Time>, item: u64) -> Self {
        let content = inbox.shared.files().incoming();
        Self { inbox: Arc::clone(inbox), content, target, executable, mtime, item }
    }
}

impl Sink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let limit = self.inbox.shared.files().inbox_limit();
        let size = self.content.len().saturating_add(bytes.len() as u64);
        if size > limit.saturating_sub(NODE_COST) {
            return Err(Refusal::TooLarge { limit });
        }
        let before = self.content.len();
        let written = self.content.write_at(before, bytes).or_else(|error| match error {
            blob::BlobError::Full => {
                self.inbox.shared.wait_for_room();
                self.content.write_at(before, bytes)
            }
            error => Err(error),
        });
        written.map_err(|error| self.inbox.refusal(error.into()))
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        let Self { inbox, content, target, executable, mtime, item } = *self;
        let size = content.len();
        let staged = inbox.shared.files().stage_file(content, executable, mtime);
        let mut staged = staged.map_err(|error| inbox.refusal(error))?;
        let is_member = matches!(target, Target::Group(..));
        inbox.shared.files().expect_reader(&staged, item, is_member);
        let name = match target {
            Target::Group(name, root, sum) => {
                let group = root.staged.as_ref().ok_or(Refusal::Closing)?;
                let joined = inbox.shared.files().join(group, staged, name.parts());
                *sum.lock().unwrap_or_else(PoisonError::into_inner) += size;
                joined.map_err(|error| inbox.refusal(error))?
            }
            Target::Text => {
                let number = inbox.shared.files().next_text();
                let unstage = Unstage { inbox: Arc::clone(&inbox), staged: None };
                let parts = [MESSAGES.to_owned(), format!("{number:04}.txt")];
                place(unstage, &mut staged, &parts)?
            }
            Target::Special(special, name) => {
                let arrived = inbox.shared.files().questions().arrive(special, &name);
                let unstage = Unstage { inbox: Arc::clone(&inbox), staged: None };
                let parts = [special.as_str().to_owned(), name];
                let placed = arrived.map_err(Refusal::from).and_then(|()| {
                    let placed = place(unstage, &mut staged, &parts);
                    placed.inspect_err(|_| inbox.shared.files().questions().not_arrived(special, &parts[1]))
                });
                placed.inspect_err(|_| inbox.shared.with(|files| files.unstage(&staged)))?
            }
            Target::Inbox(name) => {
                let unstage = Unstage { inbox: Arc::clone(&inbox), staged: None };
                place(unstage, &mut staged, name.parts())?
            }
        };
        Ok(inbox.saved(name, size))
    }
}

/// Places something, or takes it away.
fn place(unstage: Unstage, staged: &mut Staged, parts: &[String]) -> Result<String, Refusal> {
    let placed = unstage.inbox.place(staged, parts);
    if placed.is_err() {
        unstage.inbox.shared.with(|files| files.unstage(staged));
    }
    placed
}

/// A directory without its content, in the inbox or in a group.
struct DirSink {
    inbox: Arc<Inbox>,
    name: SafeName,
    group: Option<Arc<Unstage>>,
    mtime: Option<Time>,
}

impl Sink for DirSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.is_empty() { Ok(()) } else { Err(Refusal::Io(std::io::ErrorKind::IsADirectory.into())) }
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        let Self { inbox, name, group, mtime } = *self;
        let name = match group.as_ref().and_then(|group| group.staged.as_ref()) {
            Some(group) => {
                let joined = inbox.shared.files().join_dir(group, name.parts(), mtime);
                joined.map_err(|error| inbox.refusal(error))?
            }
            None => inbox.make_dirs(name.parts(), mtime)?,
        };
        Ok(inbox.saved(name, 0))
    }
}

/// A directory that becomes visible whole.
struct Tree {
    inbox: Arc<Inbox>,
    name: SafeName,
    root: Arc<Unstage>,
    mtime: Option<Time>,
    size: Arc<Mutex<u64>>,
    item: u64,
}

impl Group for Tree {
    fn member(&mut self, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.inbox.check(head)?;
        let name = safe(head.name, Root::Group)?;
        let mtime: Option<SystemTime> = head.mtime;
        let (mtime, root) = (mtime.map(Time::from), Arc::clone(&self.root));
        Ok(match head.kind {
            Kind::Dir => Box::new(DirSink { inbox: Arc::clone(&self.inbox), name, group: Some(root), mtime }),
            Kind::Secret => return Err(Refusal::BadName),
            Kind::Text | Kind::File | Kind::Group | Kind::Ask | Kind::Answer => {
                let target = Target::Group(name, root, Arc::clone(&self.size));
                Box::new(FileSink::new(&self.inbox, target, head.executable, mtime, self.item))
            }
        })
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        let Self { inbox, name, root, mtime, size, item: _ } = *self;
        if Arc::strong_count(&root) > 1 {
            return Err(Refusal::Io(std::io::Error::other("a member of the directory is not complete")));
        }
        let staged = root.staged.as_ref().ok_or(Refusal::Closing)?;
        inbox.shared.files().stamp(staged, mtime);
        let placed = inbox.place(staged, name.parts())?;
        let size = *size.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(inbox.saved(placed, size))
    }
}
