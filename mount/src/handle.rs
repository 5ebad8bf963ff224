//! Open files and directories of a mounted channel. Owns their numbers; no types of the kernel's.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blob::Content;
use crate::tree::Ino;

/// Number of an open file or directory. Never used twice within a mailbox.
pub type Fh = u64;

/// Somebody has something open.
#[derive(Debug)]
pub struct Handle {
    /// What.
    pub ino: Ino,
    /// The bell's, who keeps the log open.
    pub bell: bool,
    /// It may write.
    pub write: bool,
    /// Every write goes to the end.
    pub append: bool,
    /// It wrote, or made or truncated the file.
    pub wrote: bool,
    /// What it reads, where that does not change while it is open.
    pub fixed: Option<Arc<Content>>,
}

/// Everything that is open.
#[derive(Debug, Default)]
pub struct Handles {
    open: HashMap<Fh, Handle>,
    last: Fh,
}

impl Handles {
    /// Adds one.
    pub fn add(&mut self, handle: Handle) -> Fh {
        self.last += 1;
        self.open.insert(self.last, handle);
        self.last
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, fh: Fh) -> Option<&Handle> {
        self.open.get(&fh)
    }

    /// One of them, to change it.
    pub fn find_mut(&mut self, fh: Fh) -> Option<&mut Handle> {
        self.open.get_mut(&fh)
    }

    /// How many of somebody other than the bell are open of a node.
    #[must_use]
    pub fn of_others(&self, ino: Ino) -> usize {
        self.open.values().filter(|handle| handle.ino == ino && !handle.bell).count()
    }

    /// How many may write a node.
    #[must_use]
    pub fn writers(&self, ino: Ino) -> usize {
        self.open.values().filter(|handle| handle.ino == ino && handle.write).count()
    }

    /// Ends one.
    pub fn remove(&mut self, fh: Fh) -> Option<Handle> {
        self.open.remove(&fh)
    }
}
