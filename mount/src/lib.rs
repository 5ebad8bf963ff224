//! The mailbox of a channel: one directory, and what each file operation in it means.
//!
//! Owns the outbox (what is complete, what is left out, when an entry leaves), the inbox (safe names, atomic
//! appearance) and the two back ends. Knows no crypto of the wire and no network: a channel reads [`OutboxEvent`]s,
//! answers each offer with one [`Outcome`], and writes what the peer sent through [`Mailbox::receive`].
//! The meaning of every operation is `mount/SEMANTICS.md`.
//!
//! [`name`], [`ignore`], [`outbox`], [`inbox`] and [`files`] decide and do no I/O but for the bytes of files ([`blob`]). Two
//! back ends act: [`mounted`] through FUSE, [`dir`] in a real directory. [`bell`] is the child that acts through the mount,
//! [`client`] what other processes do with a mailbox by files alone. `beneath`, `source`, `linked`, `reference`, `stream`
//! and `prepare` are what both share: from a path or a link to bytes.

pub mod bell;
pub(crate) mod beneath;
pub mod blob;
pub mod client;
pub mod dir;
pub mod error;
pub mod files;
mod fuse;
pub mod handle;
pub mod ignore;
pub mod inbox;
pub(crate) mod linked;
pub mod mounted;
pub mod mounts;
pub mod name;
pub mod outbox;
mod place;
pub(crate) mod prepare;
pub mod questions;
pub mod readers;
mod reference;
mod removal;
pub mod secret;
pub(crate) mod source;
pub mod special;
pub(crate) mod stream;
pub mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use secret::{Secret, SecretName};

/// Longest text (`message`, `*.msg`) in bytes; a longer file of that name is sent as a file.
pub const MAX_TEXT: u64 = 1024 * 1024;
/// Content up to this many bytes is offered whole ([`Content::Whole`]); texts always are.
pub const MAX_WHOLE: u64 = 16 * 1024;

/// One thing in the outbox from the moment it is offered. Never reused within a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u64);

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A message for a reader: UTF-8, at most [`MAX_TEXT`].
    Text,
    /// A file.
    File,
    /// A directory without its content.
    Dir,
    /// The root of a directory that appears at the other end whole, with one receipt.
    Group,
    /// Bytes that rest in no file.
    Secret,
    /// A question: UTF-8, at most [`MAX_TEXT`], under a name that is used once ([`questions`]).
    Ask,
    /// The answer to the question of its name.
    Answer,
}

/// What the outbox decided.
#[derive(Debug)]
pub enum OutboxEvent {
    /// Send this. Counts against the credit of [`Mailbox::allow`].
    Offer(Offer),
    /// An offered entry was removed or written again: cancel it where it is undelivered. Still needs its [`Outcome`].
    Withdraw {
        /// The entry.
        entry: EntryId,
    },
    /// Something in the outbox is not sent, and why.
    LeftOut(LeftOut),
    /// The same of what somebody may be waiting for: he is to be told at once.
    Denied(LeftOut),
    /// What was told with [`OutboxEvent::LeftOut`] is over: it was renamed, removed or written again.
    Resolved {
        /// Its name there.
        name: String,
    },
    /// Somebody on this machine has read all of an item of the peer's ([`Incoming::item`]), or of one file in it; told once,
    /// and only where it can be seen.
    Opened {
        /// Its number.
        item: u64,
    },
    /// A word was written into `ctl`.
    Ctl(Ctl),
    /// Answer to [`Mailbox::finish`]: everything complete has been offered.
    Idle,
    /// The outbox cannot be watched any more; what was offered stays valid.
    Failed(io::Error),
}

/// A word for `ctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ctl {
    /// Drain, then close.
    Close,
    /// Close without draining.
    CloseNow,
}

/// Something that is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Name relative to `outbox/`, escaped where it is not UTF-8.
    pub name: String,
    /// Why, in words for a person.
    pub reason: String,
}

/// An entry that is complete.
pub struct Offer {
    /// Its id.
    pub entry: EntryId,
    /// What it is.
    pub kind: Kind,
    /// Name relative to `outbox/`, with `/` between components; of a question or an answer, the question's.
    pub name: String,
    /// Bytes, where known.
    pub size: Option<u64>,
    /// Whether the owner may execute it.
    pub executable: bool,
    /// Last modification.
    pub mtime: Option<SystemTime>,
    /// Its bytes.
    pub content: Content,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("entry", &self.entry).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The bytes of an offer.
pub enum Content {
    /// None: a directory.
    None,
    /// A snapshot in memory: texts, and files of at most [`MAX_WHOLE`].
    Whole(Bytes),
    /// Read from front to back.
    Stream(Box<dyn Source>),
    /// The members of a [`Kind::Group`].
    Tree(Box<dyn Tree>),
    /// The bytes of a [`Kind::Secret`].
    Secret(Arc<Secret>),
}

/// A file that is read from front to back, once. Calls may block; they are made on a thread that may.
pub trait Source: Send {
    /// Fills `buf` from the next byte on; 0 is the end, and only after it was checked that the file did not change
    /// (size, mtime, inode) while it was read.
    ///
    /// # Errors
    /// [`SourceError::Changed`] where it did, [`SourceError::Io`] where it cannot be read.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, SourceError>;

    /// For a source whose reads wait for a process that may write when it likes: what ends such a read from another
    /// thread. `None` for a file, whose reads wait for a disk alone.
    fn hangup(&self) -> Option<Hangup> {
        None
    }
}

/// See [`Source::hangup`].
pub type Hangup = Box<dyn FnOnce() + Send>;

/// The members of a group in the order they are sent: a directory before what is in it.
pub trait Tree: Send {
    /// The next member; `None` is the end.
    ///
    /// # Errors
    /// [`SourceError`] where the directory cannot be read: the whole group is then cancelled.
    fn next(&mut self) -> Result<Option<Member>, SourceError>;
    /// What was met on the way and is not sent (links, devices, names of the table), since the last call.
    fn left_out(&mut self) -> Vec<LeftOut>;
}

/// One file or directory of a group.
pub struct Member {
    /// [`Kind::File`] or [`Kind::Dir`].
    pub kind: Kind,
    /// Name relative to the group, with `/` between components.
    pub name: String,
    /// Bytes, where known.
    pub size: Option<u64>,
    /// Whether the owner may execute it.
    pub executable: bool,
    /// Last modification.
    pub mtime: Option<SystemTime>,
    /// Never [`Content::Tree`].
    pub content: Content,
}

/// Why a source ended early.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It was written, replaced or removed while it was read.
    #[error("it changed while it was read")]
    Changed,
    /// Whoever wrote it as a stream ended without saying that it was whole.
    #[error("its writer broke off before the end")]
    BrokenOff,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// How an offered entry ended. Each offer gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has stored it, verified and visible: it may leave the outbox.
    Delivered,
    /// Handed to the socket of a 0.1 peer, which gives no receipts: it may leave the outbox.
    Sent,
    /// The peer or this side refused it; it stays, and writing it again tries again.
    Refused(String),
    /// Cancelled after a [`OutboxEvent::Withdraw`].
    Cancelled,
    /// It changed while it was read: offer it again once it has settled.
    Changed,
    /// The writer of a stream broke off: it leaves the outbox, as there is nothing to offer again.
    BrokenOff,
}

impl Outcome {
    /// Whether the peer has it, as far as its version tells.
    #[must_use]
    pub const fn is_delivered(&self) -> bool {
        match self {
            Self::Delivered | Self::Sent => true,
            Self::Refused(_) | Self::Cancelled | Self::Changed | Self::BrokenOff => false,
        }
    }
}

/// What the peer sends, before its bytes. Everything in it is untrusted.
#[derive(Debug, Clone)]
pub struct Incoming<'a> {
    /// Any but [`Kind::Group`].
    pub kind: Kind,
    /// Its number among what the peer sent; of a member of a group its own, which is not looked at.
    pub item: u64,
    /// The peer's name for it; ignored for a text.
    pub name: &'a str,
    /// Bytes, where the peer said.
    pub size: Option<u64>,
    /// Whether its owner could execute it.
    pub executable: bool,
    /// Last modification.
    pub mtime: Option<SystemTime>,
}

/// An item on its way into the inbox. Dropping it removes what was written.
pub trait Sink: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`Refusal`]; the sink is to be dropped then.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal>;
    /// Makes it visible, whole, under a name that was free.
    ///
    /// # Errors
    /// [`Refusal`], and nothing is visible.
    fn commit(self: Box<Self>) -> Result<Saved, Refusal>;
}

/// An atomic directory on its way into the inbox. Dropping it removes what was written.
pub trait Group: Send {
    /// A member; its commit makes it part of the group, visible to nobody yet.
    ///
    /// # Errors
    /// [`Refusal`]; the group is to be dropped then.
    fn member(&mut self, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal>;
    /// Makes the whole directory visible with one rename.
    ///
    /// # Errors
    /// [`Refusal`], and nothing is visible.
    fn commit(self: Box<Self>) -> Result<Saved, Refusal>;
}

/// Why a secret does not go into the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretNotSent {
    /// It has no byte.
    #[error("the secret is empty; give it on standard input")]
    Empty,
    /// Such a name says that something is not complete.
    #[error(
        "a secret of this name is not sent, as temporary files are called like that; choose another name"
    )]
    BadName,
    /// Too much is in the outbox.
    #[error("the outbox is full; wait until something in it was delivered")]
    Full,
    /// The channel ends.
    #[error("the channel is closing; open a new one")]
    Closing,
}

/// Where an item was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Absolute path.
    pub path: PathBuf,
    /// Name relative to `inbox/`, safe to print.
    pub name: String,
    /// Bytes written.
    pub size: u64,
}

/// Why something is not taken into the inbox.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Over the inbox's limit.
    #[error("it is larger than the inbox may grow ({limit} bytes)")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk is full, or the budget is.
    #[error("no space is left for it")]
    NoSpace,
    /// A question or an answer under a name that was used before.
    #[error("its name was used before")]
    NameUsed,
    /// An answer to what was not asked.
    #[error("no question of its name was asked")]
    NotAsked,
    /// Not a name that can be made safe, or too many of them.
    #[error("its name cannot be used")]
    BadName,
    /// The mailbox is closing.
    #[error("the channel is closing")]
    Closing,
    /// The file system said no.
    #[error("it cannot be written: {0}")]
    Io(io::Error),
}

/// Says of bytes whether they must not leave: a text, or a file of at most [`MAX_WHOLE`].
#[derive(Clone)]
pub struct Guard(Arc<Forbids>);

type Forbids = dyn Fn(&[u8]) -> bool + Send + Sync;

impl Guard {
    /// A guard that asks this. Called while nobody else is answered: it must be quick, and must not ask the mailbox.
    pub fn new(forbids: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(forbids))
    }

    pub(crate) fn forbids(&self, bytes: &[u8]) -> bool {
        (self.0)(bytes)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// Which back end a mailbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A mount.
    Fuse,
    /// A real directory.
    Dir,
}

impl Backend {
    /// Its word in `--mount` and `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Dir => "dir",
        }
    }
}

/// Takes the outbox's decisions; called from the mailbox's own thread, must not block, and must not ask
/// [`Mailbox::undelivered`], which that thread answers. `false` means nobody listens.
pub type Outlet = Box<dyn FnMut(OutboxEvent) -> bool + Send>;

/// One end of a channel as a directory. Calls may block on the file system, never on the network.
pub trait Mailbox: Send + Sync {
    /// The channel's directory, absolute.
    fn path(&self) -> &Path;
    /// Which back end this is.
    fn backend(&self) -> Backend;
    /// Where bytes rest, in words for `status`, for example `plaintext on disk`.
    fn at_rest(&self) -> &str;
    /// Lets the outbox offer this many more entries than before. It starts with none.
    fn allow(&self, offers: usize);
    /// How an offered entry ended.
    fn settle(&self, entry: EntryId, outcome: Outcome);
    /// Takes nothing new into the outbox any more, where that can be refused: what is there now is all there is to name.
    fn shut(&self);
    /// Names that are in the outbox, complete or not, and were not delivered: at most `most`, and how many in all.
    fn undelivered(&self, most: usize) -> (Vec<String>, usize);
    /// Sends a secret, as writing it into `outbox/secrets/` does. One of its name that was not delivered is taken back.
    ///
    /// # Errors
    /// [`SecretNotSent`]; it is wiped then.
    fn send_secret(&self, name: SecretName, secret: Secret) -> Result<(), SecretNotSent>;
    /// Ends settling: what is complete is offered at once, then [`OutboxEvent::Idle`] is sent. Used to drain.
    fn finish(&self);
    /// Opens a place for what the peer sends.
    ///
    /// # Errors
    /// [`Refusal`].
    fn receive(&self, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal>;
    /// Opens a place for an atomic directory.
    ///
    /// # Errors
    /// [`Refusal`].
    fn receive_group(&self, head: &Incoming<'_>) -> Result<Box<dyn Group>, Refusal>;
    /// Appends one line (without its newline) to `inbox/log.jsonl` and returns the log's size in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn append_log(&self, line: &str) -> io::Result<u64>;
    /// Copies `log.jsonl` to `log.1.jsonl`, truncates it and writes `first_line`.
    ///
    /// # Errors
    /// What the file system says.
    fn rotate_log(&self, first_line: &str) -> io::Result<()>;
    /// Appends one line (without its newline) to `transcript.jsonl`.
    ///
    /// # Errors
    /// What the file system says.
    fn append_transcript(&self, line: &str) -> io::Result<()>;
    /// Replaces `status.json`.
    ///
    /// # Errors
    /// What the file system says.
    fn write_status(&self, json: &str) -> io::Result<()>;
    /// Takes the directory away and everything in it.
    ///
    /// # Errors
    /// What the file system says.
    fn close(&self) -> io::Result<()>;
}
