//! A directory that becomes visible whole: its members are written in staging, one rename shows them all.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::sink::DirSink;
use super::{Charge, Inbox, Staged, beneath, finish_file, io_refusal, refusal, safe, set_time};
use crate::inbox::candidates;
use crate::name::{Root, SafeName};
use crate::{Group, Incoming, Kind, Refusal, Saved, Sink};

/// The directory in staging.
pub(super) struct Tree {
    staged: Staged,
    /// Shared with every member on its way.
    root: Arc<OwnedFd>,
    name: SafeName,
    mtime: Option<SystemTime>,
    kept: Kept,
}

/// What complete members count, taken back with the group, and their bytes alone.
#[derive(Debug, Clone)]
struct Kept(Arc<(Arc<Inbox>, AtomicU64, AtomicU64)>);

impl Tree {
    pub(super) fn new(
        inbox: &Arc<Inbox>,
        name: SafeName,
        mtime: Option<SystemTime>,
    ) -> Result<Self, Refusal> {
        let staged = Staged::new(inbox);
        let root = Arc::new(beneath::make_dir(&inbox.layout.incoming, &staged.name).map_err(refusal)?);
        let kept = Kept(Arc::new((Arc::clone(inbox), AtomicU64::new(0), AtomicU64::new(0))));
        Ok(Self { staged, root, name, mtime, kept })
    }
}

impl Group for Tree {
    fn member(&mut self, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        let inbox = &self.staged.inbox;
        inbox.check(head)?;
        let name = safe(head.name, Root::Group)?;
        match head.kind {
            Kind::Secret => Err(Refusal::BadName),
            Kind::Dir | Kind::Group => {
                Ok(Box::new(DirSink::new(inbox, Arc::clone(&self.root), name, head.mtime)))
            }
            Kind::File | Kind::Text | Kind::Ask | Kind::Answer => {
                let charge = Charge::new(inbox)?;
                let (dir, way) = inbox.parents(&self.root, name.parents())?;
                let (file, last) = create(&dir, name.last())?;
                Ok(Box::new(Member {
                    charge,
                    file: file.into(),
                    place: Place { dir, last, complete: false },
                    way,
                    kept: self.kept.clone(),
                    _root: Arc::clone(&self.root),
                    executable: head.executable,
                    mtime: head.mtime,
                }))
            }
        }
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        let Self { staged, root, name, mtime, kept } = *self;
        if Arc::strong_count(&root) > 1 {
            return Err(Refusal::Io(std::io::Error::other("a member of the directory is not complete")));
        }
        let inbox = Arc::clone(&staged.inbox);
        set_time(&*root, mtime);
        let (dir, way) = inbox.parents(&inbox.layout.inbox, name.parents())?;
        let last = staged.place(&dir, &way, name.last())?;
        inbox.budget.keep(kept.0.1.swap(0, Ordering::Relaxed));
        Ok(inbox.saved(way + &last, kept.0.2.load(Ordering::Relaxed)))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            self.0.0.budget.refund(self.0.1.swap(0, Ordering::Relaxed));
        }
    }
}

/// A file of a group.
struct Member {
    charge: Charge,
    file: File,
    place: Place,
    way: String,
    kept: Kept,
    /// Holds the group back until this is dropped or complete.
    _root: Arc<OwnedFd>,
    executable: bool,
    mtime: Option<SystemTime>,
}

/// Where a member is written. Dropping it before it is complete removes it.
struct Place {
    dir: OwnedFd,
    last: String,
    complete: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.complete {
            // What cannot be removed goes with the group.
            let _ = rustix::fs::unlinkat(&self.dir, &*self.last, AtFlags::empty());
        }
    }
}

impl Sink for Member {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.charge.add(bytes.len() as u64)?;
        self.file.write_all(bytes).map_err(io_refusal)
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        let Self { charge, file, mut place, way, kept, _root, executable, mtime } = *self;
        finish_file(&file, executable, mtime)?;
        place.complete = true;
        let (inbox, size) = (Arc::clone(&charge.inbox), charge.size());
        kept.0.1.fetch_add(charge.hand_over(), Ordering::Relaxed);
        kept.0.2.fetch_add(size, Ordering::Relaxed);
        Ok(inbox.saved(format!("{way}{}", place.last), size))
    }
}

/// Creates a file under the first name that is free.
fn create(dir: &OwnedFd, part: &str) -> Result<(OwnedFd, String), Refusal> {
    for (_, name) in candidates(part, 2) {
        match beneath::create_file(dir, &name) {
            Ok(file) => return Ok((file, name)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(refusal(error)),
        }
    }
    Err(Refusal::BadName)
}
