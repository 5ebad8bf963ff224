//! Whether what was received was read: each file of a mounted inbox has its item until somebody has read all of it.
//!
//! Who opens a small one gets every byte from here until then, past the kernel's cache, which reads ahead: so it is seen
//! what was asked for. A large one is cached as ever, and what the kernel fetched of it is what was read.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::{Change, Files, Staged};
use crate::handle::Fh;
use crate::readers::{Coverage, READ_AHEAD};
use crate::tree::{Ino, Zone};

/// The item that a file came with.
#[derive(Debug)]
pub struct Item {
    /// Its number among what the peer sent.
    number: u64,
    /// It is one file of a directory that came whole.
    is_member: bool,
    /// What the kernel fetched of it.
    fetched: Coverage,
}

/// A handle through which a small file is read.
#[derive(Debug)]
struct Reader {
    ino: Ino,
    /// What was asked for; `None` where that counts for all handles together.
    read: Option<Coverage>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Nobody is to be told.
    is_off: bool,
    /// Handles that are open.
    readers: HashMap<Fh, Reader>,
    /// Directories that came whole of which a file was read: a number for each.
    told: HashSet<u64>,
}

/// How a file is to be opened for its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Through the kernel's cache.
    Cached,
    /// Past it.
    Direct,
}

impl Files {
    /// Tells of no reader.
    pub const fn ignore_readers(&mut self) {
        self.reading.is_off = true;
    }

    /// What was staged is an item, or one file of it: it is told when it was read.
    pub fn expect_reader(&mut self, staged: &Staged, number: u64, is_member: bool) {
        let is_off = self.reading.is_off || self.reading.told.contains(&number);
        if let Some(node) = self.tree.node_mut(staged.ino()).filter(|_| !is_off) {
            node.item = Some(Box::new(Item { number, is_member, fetched: Coverage::default() }));
        }
    }

    /// Whether a file was received and not read yet.
    #[must_use]
    pub fn is_unread(&self, ino: Ino) -> bool {
        let node = self.tree.node(ino).filter(|node| node.zone == Zone::Inbox);
        node.and_then(|node| node.item.as_ref()).is_some_and(|item| !self.reading.told.contains(&item.number))
    }

    /// An unread file was opened: by a reader who counts or one who does not. `direct`: the kernel can map what it does not
    /// cache.
    pub fn read_by(&mut self, fh: Fh, counts: bool, direct: bool) -> Access {
        let Some(ino) = self.handles.find(fh).map(|handle| handle.ino) else { return Access::Cached };
        let size = self.tree.node(ino).map_or(0, |node| node.size());
        match (counts, size <= READ_AHEAD, direct) {
            // It leaves nothing in the cache, where the next reader would find it without being seen.
            (false, _, true) => Access::Direct,
            (true, true, true) => {
                self.reading.readers.insert(fh, Reader { ino, read: Some(Coverage::default()) });
                Access::Direct
            }
            (true, false, _) => {
                self.reading.readers.insert(fh, Reader { ino, read: None });
                Access::Cached
            }
            // The kernel would read ahead to its end whoever reads its first byte: it cannot be seen.
            (true, true, false) | (false, _, false) => Access::Cached,
        }
    }

    /// Whether what is read through a handle counts.
    #[must_use]
    pub fn is_reading(&self, fh: Fh) -> bool {
        self.reading.readers.contains_key(&fh)
    }

    /// So many bytes are read through such a handle.
    pub fn has_read(&mut self, fh: Fh, offset: u64, len: u64, now: Instant) {
        let Some(reader) = self.reading.readers.get_mut(&fh) else { return };
        let ino = reader.ino;
        let Some(node) = self.tree.node_mut(ino) else { return };
        let size = node.size();
        let Some(item) = node.item.as_mut().filter(|_| offset <= size) else { return };
        let read = reader.read.as_mut().unwrap_or(&mut item.fetched);
        read.add(offset, offset.saturating_add(len).min(size));
        if !read.is_whole(size) {
            return;
        }
        let (number, is_member) = (item.number, item.is_member);
        node.item = None;
        self.reading.readers.remove(&fh);
        if !is_member || self.reading.told.insert(number) {
            self.line.push(Change::Opened(number), now);
        }
    }

    /// A handle ends.
    pub(super) fn reads_no_more(&mut self, fh: Fh) {
        self.reading.readers.remove(&fh);
    }
}
