//! A symbolic link in the outbox: from its target's text to an opened target, and from that to an offer.
//!
//! Owns what a link may lead to. The owner of a channel never touches its own FUSE mount: a walk into it asks the
//! process that walks, which, killed meanwhile, would never end.

#[cfg(test)]
mod tests;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod walk;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::beneath::{identity, place};
use crate::linked::Linked;
use crate::outbox::{Identity, Prepared, Ticket};
use crate::prepare::{Taken, file_offer, unreadable, unstable};
use crate::source::{OpenFile, time};
use crate::stream::{Socket, Streams};
use crate::{Content, Kind, Offer};

/// How a target is opened: never waits for the other end of a FIFO, never becomes our terminal.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Why a link inside a directory of the outbox is not sent.
pub(crate) const INSIDE: &str =
    "a link inside a directory is not followed; link the file or directory itself into outbox/";

/// The channel's own directory, in which no target may lie.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Absolute, without links, `.` and `..`.
    pub(crate) path: PathBuf,
    /// The device of the mount; `None` where it is no mount of its own.
    pub(crate) device: Option<u64>,
    /// Device and inode of a real directory.
    pub(crate) place: Option<(u64, u64)>,
    /// The streams that links in its outbox lead to.
    pub(crate) streams: Arc<Streams>,
}

/// What a link leads to.
pub(crate) enum Target {
    /// A regular file.
    File(OpenFile),
    /// A directory, open for reading.
    Dir(OwnedFd),
    /// Where somebody writes a stream.
    Stream(Socket),
}

impl Target {
    /// Takes what was opened for reading.
    pub(crate) fn new(opened: OwnedFd) -> Result<Self, TargetError> {
        let stat = rustix::fs::fstat(&opened)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Self::Dir(opened));
        }
        OpenFile::new(opened).map_err(TargetError::Io)?.map(Self::File).ok_or(TargetError::Kind)
    }
}

/// Why a link's target is not sent.
#[derive(Debug)]
pub(crate) enum TargetError {
    /// It is not there.
    Missing,
    /// Too many links on the way.
    Loop,
    /// It is in the channel's own directory, or the way there leads through it.
    Own,
    /// It is neither a file nor a directory.
    Kind,
    /// It cannot be reached or opened.
    Io(io::Error),
}

impl From<Errno> for TargetError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            Errno::LOOP => Self::Loop,
            errno => Self::Io(errno.into()),
        }
    }
}

impl From<TargetError> for Prepared {
    fn from(error: TargetError) -> Self {
        Self::LeftOut(match error {
            TargetError::Missing => "the link's target does not exist".to_owned(),
            TargetError::Loop => "the link leads in a circle".to_owned(),
            TargetError::Own => "the link leads to this channel's own directory".to_owned(),
            TargetError::Kind => "the link's target is neither a file nor a directory".to_owned(),
            TargetError::Io(error) => format!("the link's target cannot be read: {error}"),
        })
    }
}

/// Opens the target of a link at the top of the outbox, without touching the channel's own mount. May block as long as
/// another file system does.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn open(target: &Path, own: &Own) -> Result<Target, TargetError> {
    walk::open(target, own)
}

/// Opens the target of a link at the top of the outbox. There is no mount of ours on this platform.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn open(target: &Path, own: &Own) -> Result<Target, TargetError> {
    let path = own.path.join(crate::dir::layout::OUTBOX).join(target);
    if let Some(socket) = Socket::at(&path) {
        return Ok(Target::Stream(socket));
    }
    let opened = rustix::fs::open(path, FLAGS, rustix::fs::Mode::empty())?;
    if own.device == Some(place(&rustix::fs::fstat(&opened)?).0) {
        return Err(TargetError::Own);
    }
    Target::new(opened)
}

/// The offer of a link that is not in a directory of ours but known by its target's text. `identity` is the link's. May
/// block as [`open`] may.
pub(crate) fn offer(ticket: &Ticket, target: &Path, identity: Identity, own: &Own) -> Taken {
    opened(ticket, open(target, own)?, identity, own)
}

/// The offer of a link whose target is open. `identity` is the link's.
pub(crate) fn opened(ticket: &Ticket, target: Target, identity: Identity, own: &Own) -> Taken {
    let offer = match target {
        Target::Dir(dir) => group(ticket, dir, own)?,
        Target::File(open) => {
            let mut offer = file_offer(ticket, &open);
            // Changing while it was read: it is looked at again, at longer and longer intervals.
            offer.content = open.content().map_err(|error| unstable(identity, error))?;
            offer
        }
        Target::Stream(socket) => return own.streams.offer(ticket, &socket, identity),
    };
    Ok((offer, identity))
}

fn group(ticket: &Ticket, dir: OwnedFd, own: &Own) -> Result<Offer, Prepared> {
    let unreadable = |errno: Errno| unreadable(&errno.into());
    let stat = rustix::fs::fstat(&dir).map_err(unreadable)?;
    if Some(place(&stat)) == own.place {
        return Err(TargetError::Own.into());
    }
    let tree = Linked::new(dir, own).map_err(unreadable)?;
    Ok(Offer {
        entry: ticket.entry,
        kind: Kind::Group,
        name: ticket.path.to_string(),
        size: None,
        executable: false,
        mtime: time(identity(&stat).mtime),
        content: Content::Tree(Box::new(tree)),
    })
}
