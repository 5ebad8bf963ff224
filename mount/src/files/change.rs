//! What happened in the outbox, in the words of the line that its order is kept in.

use std::ffi::OsString;
use std::sync::Arc;

use super::Files;
use crate::Ctl;
use crate::blob::Content;
use crate::outbox::{Identity, Node as Shape, Sign, Stat};
use crate::secret::Secret;
use crate::tree::{Body, File, Ino, Time};

/// A file's bytes at the moment it was complete.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its inode: mode and time are those of the moment of offering.
    pub ino: Ino,
    /// Its bytes.
    pub content: Arc<Content>,
    /// Its bytes instead of those, of a secret.
    pub secret: Option<Arc<Secret>>,
    /// Permission bits then.
    pub mode: u16,
    /// Last modification then.
    pub mtime: Time,
}

/// One thing in the outbox as it was then.
#[derive(Debug)]
pub struct Piece {
    /// Path relative to `outbox/`.
    pub path: String,
    /// What it is.
    pub stat: Stat,
    /// How it was met.
    pub sign: Sign,
    /// The bytes of a file.
    pub snapshot: Option<Snapshot>,
    /// Where a link leads.
    pub target: Option<OsString>,
}

/// What happened.
#[derive(Debug)]
pub enum Change {
    /// A file was complete, a directory or a link was made.
    Complete(Piece),
    /// Something was renamed within the outbox, or came into it from the inbox.
    Moved {
        /// Its old path, where that was in the outbox.
        from: Option<String>,
        /// Its new one.
        to: String,
        /// Whether it is a directory.
        is_dir: bool,
        /// It and what is complete below it, each directory before what is in it.
        pieces: Vec<Piece>,
    },
    /// Nothing is at a path any more.
    Gone(String),
    /// Mode, time or an open handle of something changed: it leaves later.
    Touched(String),
    /// `flush` made a request of this name.
    Flush(String),
    /// The request was taken back.
    Forget(String),
    /// Somebody waits at `receipt` under this number.
    Receipt(u64),
    /// An item of the peer's was read.
    Opened(u64),
    /// A word was written into `ctl`.
    Ctl(Ctl),
}

impl Files {
    /// What a node of the outbox is at this moment; `None` where it is not in the outbox.
    pub(super) fn piece(&self, ino: Ino) -> Option<Piece> {
        let path = self.outbox_path(ino)?;
        let node = self.tree.node(ino)?;
        let identity = |size, version: u64| Identity {
            inode: ino,
            size,
            mtime: (i64::try_from(version).unwrap_or(i64::MAX), 0),
        };
        let (shape, identity, snapshot, target) = match &node.body {
            Body::Dir(_) => (Shape::Dir, identity(0, 0), None, None),
            Body::Link(target) => (Shape::Link, identity(0, 0), None, Some(target.clone())),
            Body::File(file) => {
                let (content, secret) = (Arc::clone(&file.content), file.secret.clone());
                let snapshot = Snapshot { ino, content, secret, mode: node.mode, mtime: node.mtime };
                (Shape::File, identity(file.len(), file.version), Some(snapshot), None)
            }
        };
        let sign = match node.file() {
            Some(file) if file.temporary => Sign::Held,
            Some(_) => Sign::Complete,
            // A link is complete once it is renamed into place: `ln -sf` makes it under another name.
            None => Sign::Seen,
        };
        Some(Piece { path, stat: Stat { node: shape, identity }, sign, snapshot, target })
    }

    /// The pieces of a subtree that are complete.
    pub(super) fn pieces(&self, ino: Ino) -> Vec<Piece> {
        // What mkstemp made and nobody wrote is a name that is kept, wherever its directory is moved to.
        let says = |file: &File| !(file.dirty || file.temporary && file.is_empty());
        let is_complete = |ino: &Ino| self.tree.node(*ino).is_some_and(|node| node.file().is_none_or(says));
        let all = self.tree.subtree(ino);
        all.into_iter().filter(is_complete).filter_map(|ino| self.piece(ino)).collect()
    }
}
