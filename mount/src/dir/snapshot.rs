//! From something that is due to an offer: opens it, makes sure that nobody writes it, and takes or holds its bytes.

use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::layout::Layout;
use super::lease;
use crate::beneath::{self, place};
use crate::outbox::{Identity, Node, Prepared, Ticket};
use crate::prepare::{Taken, file_offer, unreadable, unstable};
use crate::reference::{self, Own, Target, TargetError};
use crate::source::{OpenFile, time};
use crate::stream::{Socket, Streams};
use crate::{Content, Kind, MAX_TEXT, MAX_WHOLE, Offer};

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
    outbox_place: (u64, u64),
    own: Own,
    /// Whether the file system may share blocks between files; asked once.
    clones: AtomicBool,
}

impl Snapshots {
    pub(super) fn new(layout: &Layout) -> io::Result<Self> {
        let place_of = |dir| rustix::fs::fstat(dir).map(|stat| place(&stat));
        Ok(Self {
            outbox: layout.outbox.try_clone()?,
            staging: layout.incoming.try_clone()?,
            outbox_place: place_of(&layout.outbox)?,
            own: Own {
                path: layout.path.clone(),
                device: None,
                place: Some(place_of(&layout.channel)?),
                streams: Arc::default(),
            },
            clones: AtomicBool::new(true),
        })
    }

    /// What becomes of a ticket.
    pub(super) fn take(&self, ticket: &Ticket) -> Taken {
        match ticket.node {
            Node::File => self.file(ticket),
            Node::Dir => self.directory(ticket),
            Node::Link => self.link(ticket),
        }
    }

    /// The streams that links in the outbox lead to.
    pub(super) fn streams(&self) -> &Streams {
        &self.own.streams
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
        let mut offer = file_offer(ticket, &open);
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
        if target.as_ref().is_err_and(|errno| matches!(*errno, Errno::NXIO | Errno::OPNOTSUPP)) {
            let socket = self.socket(&ticket.path).ok_or(TargetError::Kind)?;
            return reference::opened(ticket, Target::Stream(socket), identity, &self.own);
        }
        let target = target.map_err(|errno| match errno {
            Errno::NOENT => TargetError::Missing.into(),
            Errno::LOOP => TargetError::Loop.into(),
            errno => unopened(errno, "the link's target"),
        })?;
        let target = Target::new(target)?;
        if let Target::Dir(dir) = &target
            && rustix::fs::fstat(dir).map(|stat| place(&stat)) == Ok(self.outbox_place)
        {
            return Err(TargetError::Own.into());
        }
        reference::opened(ticket, target, identity, &self.own)
    }

    /// The socket that a link leads to, where it is one of a stream.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn socket(&self, path: &str) -> Option<Socket> {
        let found = rustix::fs::openat(&self.outbox, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Socket::new(found.ok()?)
    }

    /// The socket that a link leads to, where it is one of a stream.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn socket(&self, path: &str) -> Option<Socket> {
        Socket::at(&self.own.path.join(super::layout::OUTBOX).join(path))
    }
}

fn unopened(errno: Errno, what: &str) -> Prepared {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Prepared::Gone,
        errno => Prepared::LeftOut(format!("{what} cannot be read: {}", io::Error::from(errno))),
    }
}
