//! A mounted channel as a plain object: what every file operation does and which it refuses, without the kernel's
//! types and without waiting for anybody.
//!
//! Owns the tree, the open handles, the budgets and the line of what happened in the outbox ([`Change`]). Does not
//! decide when something is offered ([`crate::outbox`]), and sends nothing to the kernel by itself.

mod arrivals;
mod bytes;
mod change;
mod leaving;
mod names;
mod opened;
mod ours;
mod secrets;
mod special;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use arrivals::Staged;
pub use bytes::{Bytes, Opened, SetAttr, Times};
pub use change::{Change, Piece, Snapshot};
pub use leaving::Way;
pub use names::DirEntry;
pub use opened::{Access, Item};
pub use ours::{FLUSH_DIR, LOG_PATH, STATUS};

use crate::Guard;
use crate::blob::{Content, Quota, Store};
use crate::error::FileError;
use crate::handle::Handles;
use crate::name;
use crate::outbox::tickets::Tickets;
use crate::questions::Questions;
use crate::secret::{SECRETS, SharedVault};
use crate::special::Special;
use crate::tree::{Body, Children, File, Ino, Node, Ours, ROOT, Time, Tree, Zone};

/// What each file, directory and link counts besides its bytes: the memory that it takes itself, rounded up.
pub const NODE_COST: u64 = 4096;
/// Most inodes at once: about 400 bytes each, so 400 MiB.
pub const MAX_NODES: usize = 1 << 20;
/// How many of them nothing that is received takes: a peer leaves its owner room to send.
const KEPT_NODES: usize = MAX_NODES / 4;
/// Longest target of a symbolic link, in bytes.
const MAX_TARGET: usize = 4096;
/// What the bell needs of a directory that it moves or empties; its owner may have made it read-only.
const OPEN_TO_OWNER: u16 = 0o700;
/// How long the kernel may keep what only changes through the mount, where it changes.
pub const SOON: Duration = Duration::from_secs(1);
/// How long it may keep what never changes.
pub const LONG: Duration = Duration::from_secs(3600);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A program of the owner's.
    User,
    /// The child that does for us what has to come through the mount.
    Bell,
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Bytes that it takes.
    pub allocated: u64,
    /// Permission bits.
    pub mode: u16,
    /// Last access.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last change.
    pub ctime: Time,
    /// Names.
    pub links: u32,
    /// How long the kernel may keep this.
    pub ttl: Duration,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file.
    File,
    /// A symbolic link.
    Link,
}

/// A name that was found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What has it.
    pub attr: Attr,
    /// How long the kernel may keep the name.
    pub ttl: Duration,
}

/// The budgets of one zone, in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All bytes.
    pub total: u64,
    /// Of them free.
    pub free: u64,
    /// All inodes.
    pub nodes: u64,
    /// Of them free.
    pub free_nodes: u64,
}

/// The limits of a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes in the outbox, what was offered and changed since included.
    pub outbox: u64,
    /// Most bytes in the inbox.
    pub inbox: u64,
}

/// Where the fixed directories and files are.
#[derive(Debug)]
struct Places {
    inbox: Ino,
    outbox: Ino,
    incoming: Ino,
    leaving: Ino,
    flush: Ino,
    log: Ino,
    status: Ino,
    transcript: Ino,
    receipt: Ino,
    /// `inbox/secrets`.
    secrets_in: Ino,
    /// `outbox/secrets`.
    secrets_out: Ino,
    /// Those of ours in the outbox.
    special: [(Special, Ino); Special::ALL.len()],
}

/// See the module.
#[derive(Debug)]
pub struct Files {
    tree: Tree,
    handles: Handles,
    line: Tickets<Change>,
    store: Arc<Store>,
    outbox_quota: Arc<Quota>,
    inbox_quota: Arc<Quota>,
    own_quota: Arc<Quota>,
    places: Places,
    /// Nothing new is taken into the outbox.
    closed: bool,
    /// What the bell is told to take out of the outbox, as the outbox knows it.
    leave: Option<leaving::Grant>,
    staged: u64,
    texts: u32,
    numbers: crate::inbox::Numbers,
    guard: Option<Guard>,
    /// The secrets that were received.
    vault: SharedVault,
    /// How often the vault had changed when `inbox/secrets` was last as it is.
    vault_seen: u64,
    questions: Questions,
    reading: opened::Reading,
}

impl Files {
    /// An empty channel.
    ///
    /// # Errors
    /// Where the memory for its own files cannot be had.
    pub fn new(store: Arc<Store>, limits: Limits) -> Result<Self, FileError> {
        let mut tree = Tree::new();
        let mut dir = |parent, name: &str, zone| {
            let ino = tree.make(zone, Body::Dir(Children::default()), 0o700);
            tree.attach(parent, name.as_ref(), ino);
            ino
        };
        let inbox = dir(ROOT, "inbox", Zone::Inbox);
        dir(inbox, "messages", Zone::Inbox);
        let outbox = dir(ROOT, "outbox", Zone::Outbox);
        let (secrets_in, secrets_out) =
            (dir(inbox, SECRETS, Zone::Inbox), dir(outbox, SECRETS, Zone::Outbox));
        let incoming = dir(ROOT, ours::INCOMING, Zone::Hidden);
        let leaving = dir(ROOT, ours::LEAVING, Zone::Hidden);
        let flush = dir(ROOT, FLUSH_DIR, Zone::Flush);
        let special = special::make(&mut tree, inbox, outbox);
        let places = Places {
            inbox,
            outbox,
            incoming,
            leaving,
            flush,
            log: 0,
            status: 0,
            transcript: 0,
            receipt: 0,
            secrets_in,
            secrets_out,
            special,
        };
        let mut files = Self {
            tree,
            handles: Handles::default(),
            line: Tickets::default(),
            store,
            outbox_quota: Quota::new(limits.outbox),
            inbox_quota: Quota::new(limits.inbox),
            own_quota: Quota::new(ours::MOST_OWN),
            places,
            closed: false,
            leave: None,
            staged: 0,
            texts: 0,
            numbers: crate::inbox::Numbers::default(),
            guard: None,
            vault: SharedVault::default(),
            vault_seen: 0,
            questions: Questions::default(),
            reading: opened::Reading::default(),
        };
        files.make_ours()?;
        Ok(files)
    }

    /// The same, with a guard at `close`.
    #[must_use]
    pub fn guarded(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// What happened next in the outbox; `None` until something does or [`Files::deadline`].
    pub fn next_change(&mut self, now: Instant) -> Option<Change> {
        self.line.next(now)
    }

    /// When [`Files::next_change`] has something to say although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.line.deadline()
    }

    /// Takes nothing new into the outbox any more.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// Counts what was closed and is held open all the same (by a child of the program that wrote it) as complete.
    pub fn complete_all(&mut self, now: Instant) {
        for ino in self.line.holders() {
            self.complete(ino, now);
        }
    }

    /// The budgets that hold for a node.
    #[must_use]
    pub fn space(&self, ino: Ino) -> Space {
        let zone = self.tree.node(ino).map_or(Zone::Root, |node| node.zone);
        let quota = if zone == Zone::Inbox { &self.inbox_quota } else { &self.outbox_quota };
        let free_nodes = most_nodes(zone).saturating_sub(self.tree.len()) as u64;
        Space {
            total: quota.limit(),
            free: quota.limit().saturating_sub(quota.used()),
            nodes: MAX_NODES as u64,
            free_nodes,
        }
    }

    /// What `stat` says of a node.
    ///
    /// # Errors
    /// [`FileError::Stale`].
    pub fn attr(&self, ino: Ino) -> Result<Attr, FileError> {
        let mut attr = attr(self.node(ino)?);
        // What is granted is moved by the bell, which the kernel lets move no directory that it may not write.
        if attr.kind == Kind::Dir && self.is_granted(ino) {
            attr.mode |= OPEN_TO_OWNER;
        }
        Ok(attr)
    }

    /// What is gone; to drop it may take long.
    pub fn take_gone(&mut self) -> Vec<Arc<Content>> {
        self.tree.take_gone()
    }

    /// The kernel forgets so many names of a node.
    pub fn forget(&mut self, ino: Ino, lookups: u64) {
        self.tree.forget(ino, lookups);
    }

    /// The target of a link.
    ///
    /// # Errors
    /// [`FileError::Invalid`] where it is none.
    pub fn readlink(&self, ino: Ino) -> Result<&OsStr, FileError> {
        match &self.node(ino)?.body {
            Body::Link(target) => Ok(target),
            Body::Dir(_) | Body::File(_) => Err(FileError::Invalid),
        }
    }

    /// Where a node of the owner's lies below `outbox/`; `None` where it does not.
    #[must_use]
    pub fn outbox_path(&self, ino: Ino) -> Option<String> {
        let node = self.tree.node(ino)?;
        let ours = ino == self.places.outbox || ino == self.places.secrets_out || self.is_special(ino);
        if node.zone != Zone::Outbox || ours {
            return None;
        }
        self.tree.path(self.places.outbox, ino)
    }

    /// Whether a file is the owner's, in the outbox, and no secret.
    #[must_use]
    pub fn is_of_the_outbox(&self, ino: Ino) -> bool {
        let node = self.tree.node(ino);
        node.is_some_and(|node| {
            node.zone == Zone::Outbox
                && node.file().is_some_and(|file| file.ours.is_none() && file.secret.is_none())
        })
    }

    /// Everything that is complete in the outbox.
    #[must_use]
    pub fn everything(&self) -> Vec<Piece> {
        self.pieces(self.places.outbox)
    }

    /// Files in the outbox that are not complete.
    #[must_use]
    pub fn incomplete(&self) -> Vec<String> {
        let all = self.tree.subtree(self.places.outbox);
        // Of what mkstemp made it is known with the first close that it is more than a name.
        let is_said = |ino: Ino, file: &File| !file.temporary || self.line.holds(ino) && !file.is_empty();
        let is_dirty = |ino: &Ino| {
            let file = self.tree.node(*ino).and_then(Node::file);
            file.is_some_and(|file| file.dirty && is_said(*ino, file))
        };
        all.into_iter().filter(is_dirty).filter_map(|ino| self.outbox_path(ino)).collect()
    }

    /// Permission bits and time of a node, at this moment.
    #[must_use]
    pub fn times(&self, ino: Ino) -> Option<(u16, Time)> {
        self.tree.node(ino).map(|node| (node.mode, node.mtime))
    }

    /// The same of a path in the outbox.
    #[must_use]
    pub fn times_of(&self, path: &str) -> Option<(u16, Time)> {
        self.times(self.find(path)?)
    }

    /// Where a link at a path in the outbox leads.
    #[must_use]
    pub fn link_target(&self, path: &str) -> Option<std::ffi::OsString> {
        match &self.tree.node(self.find(path)?)?.body {
            Body::Link(target) => Some(target.clone()),
            Body::Dir(_) | Body::File(_) => None,
        }
    }

    fn find(&self, path: &str) -> Option<Ino> {
        path.split('/').try_fold(self.places.outbox, |dir, part| self.tree.child(dir, part.as_ref()))
    }

    fn node(&self, ino: Ino) -> Result<&Node, FileError> {
        self.tree.node(ino).ok_or(FileError::Stale)
    }

    fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, FileError> {
        self.tree.node_mut(ino).ok_or(FileError::Stale)
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut File, FileError> {
        match &mut self.node_mut(ino)?.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(FileError::IsADirectory),
            Body::Link(_) => Err(FileError::Invalid),
        }
    }

    /// Makes a node that counts against a budget.
    fn make(&mut self, zone: Zone, body: Body, mode: u16) -> Result<Ino, FileError> {
        if self.tree.len() >= most_nodes(zone) {
            return Err(FileError::NoSpace);
        }
        let quota = match zone {
            Zone::Inbox | Zone::Hidden => &self.inbox_quota,
            Zone::Outbox => &self.outbox_quota,
            Zone::Root | Zone::Flush => &self.own_quota,
        };
        let charge = quota.charge(NODE_COST).map_err(|_| FileError::NoSpace)?;
        let ino = self.tree.make(zone, body, mode);
        if let Some(node) = self.tree.node_mut(ino) {
            node.charge = Some(charge);
        }
        Ok(ino)
    }

    fn empty_file(&self, quota: &Arc<Quota>, ours: Option<Ours>) -> File {
        File {
            content: Arc::new(Content::new(&self.store, quota)),
            secret: None,
            ours,
            dirty: false,
            version: 0,
            temporary: false,
            writing: 0,
        }
    }

    /// A file is complete: what it holds now is a content of its own, whatever is written into it later.
    fn complete(&mut self, ino: Ino, now: Instant) {
        let mark = |file: &mut File| {
            file.dirty = false;
            file.version += 1;
            // Born by mkstemp and never written: it is only a name that somebody keeps for himself.
            !(file.temporary && file.is_empty())
        };
        let Ok(file) = self.file_mut(ino) else { return self.line.void(ino) };
        let goes = mark(file);
        match self.piece(ino).filter(|_| goes) {
            Some(piece) => {
                self.take_name(&piece.path, ino);
                self.line.redeem(ino, Change::Complete(piece), now);
            }
            None => self.line.void(ino),
        }
    }

    fn check_part(name: &OsStr) -> Result<&str, FileError> {
        if name.len() > name::MAX_PART {
            return Err(FileError::NameTooLong);
        }
        name.to_str().filter(|part| !part.is_empty()).ok_or(FileError::Invalid)
    }

    /// Whether something may be made under a name in a directory of the outbox.
    fn check_place(&self, dir: Ino, name: &OsStr) -> Result<(), FileError> {
        let part = Self::check_part(name)?;
        if self.closed {
            return Err(FileError::Closed);
        }
        let parent = self.node(dir)?;
        if !parent.is_dir() {
            return Err(FileError::NotADirectory);
        }
        if parent.place.is_none() && dir != ROOT {
            return Err(FileError::Missing);
        }
        let above = self.tree.path(self.places.outbox, dir).ok_or(FileError::Policy)?;
        let depth = self.tree.depth(dir);
        // The outbox itself is one deep.
        if depth > name::MAX_DEPTH || above.len() + 1 + part.len() > name::MAX_PATH {
            return Err(FileError::NameTooLong);
        }
        Ok(())
    }
}

/// With how many inodes in all another one may be made.
const fn most_nodes(zone: Zone) -> usize {
    match zone {
        Zone::Inbox | Zone::Hidden => MAX_NODES - KEPT_NODES,
        Zone::Outbox | Zone::Root | Zone::Flush => MAX_NODES,
    }
}

fn attr(node: &Node) -> Attr {
    let (kind, allocated) = match &node.body {
        Body::Dir(_) => (Kind::Dir, 0),
        Body::File(file) => (Kind::File, file.content.allocated()),
        Body::Link(_) => (Kind::Link, 0),
    };
    Attr {
        ino: node.ino,
        kind,
        size: node.size(),
        allocated,
        // Only the bell sees what is hidden, and is to empty it.
        mode: if node.zone == Zone::Hidden && node.is_dir() { node.mode | OPEN_TO_OWNER } else { node.mode },
        atime: node.atime,
        mtime: node.mtime,
        ctime: node.ctime,
        links: node.links(),
        ttl: attr_ttl(node),
    }
}

/// Only what changes behind the kernel's back is asked for each time.
fn attr_ttl(node: &Node) -> Duration {
    match &node.body {
        Body::File(File { ours: Some(Ours::Fixed), .. }) => LONG,
        Body::File(File { ours: Some(_), .. }) => Duration::ZERO,
        Body::File(_) | Body::Link(_) if node.zone == Zone::Inbox => LONG,
        Body::Dir(_) | Body::File(_) | Body::Link(_) => SOON,
    }
}

fn entry(node: &Node) -> Entry {
    let ttl = match (&node.body, node.zone) {
        // The next lookup gets another.
        (Body::File(File { ours: Some(Ours::Receipt), .. }), _) => Duration::ZERO,
        // Seen by the bell, and hidden from everybody else.
        (_, Zone::Hidden) => Duration::ZERO,
        // It may be used any moment.
        (Body::File(File { ours: Some(Ours::Secret), .. }), _) => Duration::ZERO,
        (_, Zone::Inbox) if !node.is_dir() && attr_ttl(node) == LONG => LONG,
        _ => SOON,
    };
    Entry { attr: attr(node), ttl }
}
