//! What is known of one thing in the outbox. Owns the states and the identity of a content; no clock, no I/O.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::EntryId;
use crate::special::Special;

/// What something in the outbox is, as far as it can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link at the top: its target is sent by reference.
    Link,
}

/// What tells one content from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last modification: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
}

/// What the file system says about a path, links not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub node: Node,
    /// Its content.
    pub identity: Identity,
}

/// How a path was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It is there: created, found by a scan, modified. It may be half written.
    Seen,
    /// Its last writer closed it, or it was renamed into place.
    Complete,
    /// The same, but it was born as `mkstemp` makes a file and has that name still: its owner is about to rename it.
    Held,
}

impl Sign {
    /// Whether the last writer has closed it.
    pub(super) const fn is_complete(self) -> bool {
        matches!(self, Self::Complete | Self::Held)
    }
}

/// The waiting times of a back end.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// From the last close of a file to its offer. A text waits for nothing.
    pub settle: Duration,
    /// The same for an empty file, an empty directory and what was born as `mkstemp` does it; a name that is not sent is
    /// reported after as long.
    pub empty: Duration,
    /// From the making of a link to its offer: `ln -sf` makes it under another name and renames it. One that was
    /// renamed into place waits for nothing.
    pub link: Duration,
    /// How long a delivered text stays after its last close: longer than the clock of the file system takes to tick,
    /// so that a text written over it is seen as another.
    pub text_stays: Duration,
    /// How long a delivered file stays after its last close.
    pub file_stays: Duration,
    /// How long a delivered directory stays after the last change in it.
    pub dir_stays: Duration,
    /// How long a delivered directory stays that was always empty.
    pub empty_dir_stays: Duration,
}

impl Rules {
    /// The times of the dir back end.
    pub const DIR: Self = Self {
        settle: Duration::from_millis(500),
        empty: Duration::from_secs(2),
        link: Duration::from_millis(20),
        text_stays: Duration::from_millis(20),
        file_stays: Duration::from_secs(2),
        dir_stays: Duration::from_secs(10),
        empty_dir_stays: Duration::from_secs(60),
    };

    /// The times of the FUSE back end, which sees every close.
    pub const FUSE: Self =
        Self { settle: Duration::from_millis(200), text_stays: Duration::ZERO, ..Self::DIR };
}

/// A timer's place: when, and a number that makes it unique and keeps the order of equal times.
pub(super) type Due = (Instant, u64);

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Until its time has come. `open` where somebody was last found to be writing it.
    Waiting { due: Due, open: bool },
    /// Due; waits for credit in one of the two lanes, under its order.
    Ready { bulk: bool, order: u64 },
    /// Handed out to be read, under the id that the offer would have; takes one of the offers that are allowed.
    Preparing(EntryId),
    /// Handed out.
    Offered(EntryId),
    /// The peer has it.
    Delivered,
    /// Not taken; stays until it is written again.
    Refused(String),
    /// Not sent. `due` until it has been reported.
    LeftOut { due: Option<Due>, reason: Cow<'static, str> },
    /// A directory that needs no offer of its own: what is in it carries its name.
    Made,
}

/// How a state counts for the directory at the top that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Holds it until the peer has it.
    Pending,
    /// Holds it for good: it would be lost.
    LeftOut,
    /// Does not hold it.
    Done,
}

impl State {
    pub(super) const fn weight(&self) -> Weight {
        match self {
            Self::Waiting { .. }
            | Self::Ready { .. }
            | Self::Preparing(_)
            | Self::Offered(_)
            | Self::Refused(_) => Weight::Pending,
            Self::LeftOut { .. } => Weight::LeftOut,
            Self::Delivered | Self::Made => Weight::Done,
        }
    }

    /// Whether it is complete, as far as is known, and was not offered yet.
    pub(super) const fn is_unoffered(&self) -> bool {
        matches!(self, Self::Waiting { open: false, .. } | Self::Ready { .. } | Self::Preparing(_))
    }
}

/// One file, directory or link in the outbox.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) node: Node,
    /// Whether it goes as a text, as far as its name and size say.
    pub(super) text: bool,
    /// The content that was last seen; once offered, the one that was offered.
    pub(super) identity: Identity,
    pub(super) state: State,
    /// Whether its last sign was [`Sign::Complete`] or [`Sign::Held`].
    pub(super) complete: bool,
    /// Whether its last sign was [`Sign::Held`].
    pub(super) held: bool,
    /// Place of its last close among all closes.
    pub(super) order: u64,
    /// Its last close or change.
    pub(super) touched: Instant,
    /// How often it was found changing or open in a row: it is looked at less and less often.
    pub(super) tries: u32,
    /// A directory of which something was offered: it is known at the other end even when it is empty later.
    pub(super) carried: bool,
    /// Its offer, or the last one that it had.
    pub(super) last_offer: Option<EntryId>,
    /// The fingerprint of the bytes that were offered, where the identity may hide a change.
    pub(super) mark: Option<u64>,
}

impl Entry {
    /// Whether this goes after everything small: a file over [`crate::MAX_WHOLE`].
    pub(super) fn is_bulk(&self) -> bool {
        !self.text && self.node == Node::File && self.identity.size > crate::MAX_WHOLE
    }
}

/// Whether a path relative to `outbox/` has the name of a text; questions and answers are texts, too.
pub(crate) fn is_text_name(path: &str) -> bool {
    path == "message" || (path.ends_with(".msg") && !path.contains('/')) || Special::of(path).is_some()
}
