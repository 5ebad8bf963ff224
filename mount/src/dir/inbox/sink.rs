//! One file, text or directory on its way into the inbox.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use rustix::io::Errno;

use super::{Charge, Inbox, Staged, beneath, finish_file, io_refusal, refusal, set_time};
use crate::dir::layout::MESSAGES;
use crate::name::SafeName;
use crate::special::Special;
use crate::{Incoming, Refusal, Saved, Sink};

/// Where a file goes when it is complete.
#[derive(Debug)]
pub(super) enum Target {
    /// To the messages, under the next number.
    Text,
    /// Under its own name.
    Inbox(SafeName),
    /// To the questions or answers, under exactly its name.
    Special(Special, String),
}

/// A file or text.
pub(super) struct FileSink {
    file: File,
    staged: Staged,
    target: Target,
    charge: Charge,
    executable: bool,
    mtime: Option<SystemTime>,
}

impl FileSink {
    pub(super) fn new(inbox: &Arc<Inbox>, head: &Incoming<'_>, target: Target) -> Result<Self, Refusal> {
        let charge = Charge::new(inbox)?;
        let staged = Staged::new(inbox);
        let file = beneath::create_file(&inbox.layout.incoming, &staged.name).map_err(refusal)?;
        Ok(Self { file: file.into(), staged, target, charge, executable: head.executable, mtime: head.mtime })
    }
}

impl Sink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.charge.add(bytes.len() as u64)?;
        self.file.write_all(bytes).map_err(io_refusal)
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        let Self { file, staged, target, charge, executable, mtime } = *self;
        let inbox = Arc::clone(&staged.inbox);
        let name = match target {
            Target::Text => {
                finish_file(&file, false, None)?;
                let number = inbox.last_text.fetch_add(1, Ordering::Relaxed) + 1;
                // Its owner may have removed it or put something else there.
                let (dir, way) = inbox.parents(&inbox.layout.inbox, &[MESSAGES.to_owned()])?;
                let last = staged.place(&dir, &way, &format!("{number:04}.txt"))?;
                way + &last
            }
            Target::Special(special, name) => {
                finish_file(&file, false, None)?;
                let entered = inbox.enter_as(&inbox.layout.inbox, special.as_str())?;
                let dir = entered.ok_or_else(|| refusal(Errno::NOTDIR))?;
                inbox.questions().arrive(special, &name)?;
                staged
                    .place_as(&dir, &name)
                    .inspect_err(|_| inbox.questions().not_arrived(special, &name))?;
                format!("{}/{name}", special.as_str())
            }
            Target::Inbox(name) => {
                finish_file(&file, executable, mtime)?;
                let (dir, way) = inbox.parents(&inbox.layout.inbox, name.parents())?;
                let last = staged.place(&dir, &way, name.last())?;
                way + &last
            }
        };
        let size = charge.size();
        inbox.budget.keep(charge.hand_over());
        Ok(inbox.saved(name, size))
    }
}

/// A directory without its content, in the inbox or in a group.
pub(super) struct DirSink {
    inbox: Arc<Inbox>,
    root: Arc<OwnedFd>,
    name: SafeName,
    mtime: Option<SystemTime>,
}

impl DirSink {
    pub(super) fn new(
        inbox: &Arc<Inbox>,
        root: Arc<OwnedFd>,
        name: SafeName,
        mtime: Option<SystemTime>,
    ) -> Self {
        Self { inbox: Arc::clone(inbox), root, name, mtime }
    }
}

impl Sink for DirSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.is_empty() { Ok(()) } else { Err(Refusal::Io(std::io::ErrorKind::IsADirectory.into())) }
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        let (dir, way) = self.inbox.parents(&self.root, self.name.parts())?;
        set_time(dir, self.mtime);
        Ok(self.inbox.saved(way.trim_end_matches('/').to_owned(), 0))
    }
}
