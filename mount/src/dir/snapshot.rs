//! From something that is due to an offer: opens it, makes sure that nobody writes it, and takes or holds its bytes.

use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::lease;
use crate::beneath;
use crate::linked::{Linked, place_of};
use crate::outbox::{Identity, Node, Prepared, Ticket};
use crate::prepare::Taken;
use crate::source::{OpenFile, time};
use crate::{Content, Kind, MAX_TEXT, MAX_WHOLE, Offer, SourceError};

/// The longest tick of a file system's clock. What was written less than this ago may be written again within the same
/// tick, with the same size: its identity would not tell.
const TICK: Duration = Duration::from_millis(20);

/// Whether a content was written so lately that its identity may hide the next one.
pub(super) fn is_fresh(identity: Identity) -> bool {
    let age = time(identity.mtime).map(|at| at.elapsed());
    // A time in the future is no better.
    !matches!(age, Some(Ok(age)) if age > TICK)
}

/// Tells contents apart that their owner wrote; nobody gains from two that are alike.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Takes snapshots of one outbox.
pub(super) struct Snapshots {
    outbox: OwnedFd,
    /// Where clones are made.
    staging: OwnedFd,
    /// The channel's own directory: device and inode.
    own: (u64, u64),
    /// Whether the file system may share blocks between files; asked once.
    clones: AtomicBool,
}

impl Snapshots {
    pub(super) fn new(channel: &OwnedFd, outbox: OwnedFd, staging: OwnedFd) -> Result<Self, Errno> {
        Ok(Self { outbox, staging, own: place_of(channel)?, clones: AtomicBool::new(true) })
    }

    /// What becomes of a ticket.
    pub(super) fn take(&self, ticket: &Ticket) -> Taken {
        match ticket.node {
            Node::File => self.file(ticket),
            Node::Dir => self.directory(ticket),
            Node::Link => self.link(ticket),
        }
    }

    /// The fingerprint of a short file, or of a text.
    pub(super) fn fingerprint(&self, path: &str) -> Option<u64> {
        let file = beneath::open_file(&self.outbox, path).ok()?;
        let mut open = OpenFile::new(file).ok()??;
        open.whole(MAX_TEXT).ok().map(|bytes| fingerprint(&bytes))
    }

    /// Whether somebody is writing a path, as far as can be said.
    pub(super) fn is_open(&self, path: &str) -> bool {
        beneath::open_file(&self.outbox, path).is_ok_and(|file| lease::nobody_writes(file) == Some(false))
    }

    fn file(&self, ticket: &Ticket) -> Taken {
        let file = beneath::open_file(&self.outbox, &ticket.path).map_err(|errno| unopened(errno, "it"))?;
        let Some(mut open) = OpenFile::new(file).map_err(|error| unreadable(&error))? else {
            return Err(Prepared::Gone);
        };
        match lease::nobody_writes(open.file()) {
            Some(true) => {}
            Some(false) => return Err(Prepared::Open),
            None if open.identity == ticket.identity => {}
            None => return Err(Prepared::Changed(open.identity)),
        }
        let identity = open.identity;
        let mut offer = offer(ticket, Kind::File, &open);
        if ticket.text {
            if identity.size > MAX_TEXT {
                return Err(Prepared::NotText);
            }
            let bytes = open.whole(MAX_TEXT).map_err(|error| unstable(identity, error))?;
            if std::str::from_utf8(&bytes).is_err() {
                return Err(Prepared::NotText);
            }
            (offer.kind, offer.content) = (Kind::Text, Content::Whole(bytes));
        } else if identity.size <= MAX_WHOLE {
            offer.content = Content::Whole(open.whole(MAX_WHOLE).map_err(|error| unstable(identity, error))?);
        } else {
            let open = self.cloned(open);
            offer.content = open.content().map_err(|error| unstable(identity, error))?;
        }
        Ok((offer, identity))
    }

    /// A clone where the file system can make one, so that a change after the offer does not matter.
    fn cloned(&self, open: OpenFile) -> OpenFile {
        if !self.clones.load(Ordering::Relaxed) {
            return open;
        }
        open.cloned(&self.staging).unwrap_or_else(|open| {
            self.clones.store(false, Ordering::Relaxed);
            open
        })
    }

    fn directory(&self, ticket: &Ticket) -> Taken {
        let (kind, identity) =
            beneath::look(&self.outbox, &ticket.path).map_err(|errno| unopened(errno, "it"))?;
        if kind != FileType::Directory {
            return Err(Prepared::Gone);
        }
        let offer = Offer {
            entry: ticket.entry,
            kind: Kind::Dir,
            name: ticket.path.to_string(),
            size: None,
            executable: false,
            mtime: time(identity.mtime),
            content: Content::None,
        };
        Ok((offer, identity))
    }

    fn link(&self, ticket: &Ticket) -> Taken {
        let (kind, identity) =
            beneath::look(&self.outbox, &ticket.path).map_err(|errno| unopened(errno, "it"))?;
        if kind != FileType::Symlink {
            return Err(Prepared::Gone);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // The one place that follows a link: its owner put it into the outbox for that.
        let target = rustix::fs::openat(&self.outbox, &*ticket.path, flags, Mode::empty());
        let target = target.map_err(|errno| match errno {
            Errno::NOENT => Prepared::LeftOut("the link's target does not exist".to_owned()),
            Errno::LOOP => Prepared::LeftOut("the link leads in a circle".to_owned()),
            errno => unopened(errno, "the link's target"),
        })?;
        let stat = rustix::fs::fstat(&target).map_err(|errno| unreadable(&errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.group(ticket, target, &stat).map(|offer| (offer, identity));
        }
        let Some(open) = OpenFile::new(target).map_err(|error| unreadable(&error))? else {
            return Err(Prepared::LeftOut("the link's target is neither a file nor a directory".to_owned()));
        };
        let mut offer = offer(ticket, Kind::File, &open);
        // Changing while it was read: it is looked at again, at longer and longer intervals.
        offer.content = open.content().map_err(|error| unstable(identity, error))?;
        Ok((offer, identity))
    }

    fn group(&self, ticket: &Ticket, dir: OwnedFd, stat: &rustix::fs::Stat) -> Result<Offer, Prepared> {
        let place = place_of(&dir).map_err(|errno| unreadable(&errno.into()))?;
        if place == self.own || Ok(place) == place_of(&self.outbox) {
            return Err(Prepared::LeftOut("the link leads to this channel's own directory".to_owned()));
        }
        let tree = Linked::new(dir, self.own).map_err(|errno| unreadable(&errno.into()))?;
        Ok(Offer {
            entry: ticket.entry,
            kind: Kind::Group,
            name: ticket.path.to_string(),
            size: None,
            executable: false,
            mtime: time(beneath::identity(stat).mtime),
            content: Content::Tree(Box::new(tree)),
        })
    }
}

fn offer(ticket: &Ticket, kind: Kind, open: &OpenFile) -> Offer {
    Offer {
        entry: ticket.entry,
        kind,
        name: ticket.path.to_string(),
        size: Some(open.identity.size),
        executable: open.executable,
        mtime: open.mtime(),
        content: Content::None,
    }
}

fn unopened(errno: Errno, what: &str) -> Prepared {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Prepared::Gone,
        errno => Prepared::LeftOut(format!("{what} cannot be read: {}", io::Error::from(errno))),
    }
}

fn unreadable(error: &io::Error) -> Prepared {
    Prepared::LeftOut(format!("it cannot be read: {error}"))
}

fn unstable(identity: Identity, error: SourceError) -> Prepared {
    match error {
        SourceError::Changed => Prepared::Changed(identity),
        SourceError::Io(error) => unreadable(&error),
    }
}
