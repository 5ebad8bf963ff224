//! The channel's directory itself: made, measured and taken away.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::OpenError;
use crate::beneath;
use crate::place::Place;
use crate::secret::{EXPLANATION, SECRETS};
use crate::special::Special;

/// What an agent reads that lands in the directory without context.
const README: &str = include_str!("../channel-readme.md");
/// Keeps a channel inside a work tree out of the repository and out of searches.
const GITIGNORE: &str = "*\n";
/// Where incoming items are written, beside the inbox on the same file system.
pub(super) const INCOMING: &str = ".incoming";
/// Where delivered entries are moved to before they are removed.
pub(super) const LEAVING: &str = ".leaving";
/// Where `flush` puts its requests.
pub(crate) const FLUSH: &str = ".flush";
/// The file that takes words.
pub(crate) const CTL: &str = "ctl";
/// What is put here is sent.
pub(crate) const OUTBOX: &str = "outbox";
/// What was received.
pub(crate) const INBOX: &str = "inbox";
/// The texts in the inbox.
pub(super) const MESSAGES: &str = "messages";

/// The open directories of a channel.
#[derive(Debug)]
pub(super) struct Layout {
    /// Absolute, without links.
    pub(super) path: PathBuf,
    place: Place,
    pub(super) channel: OwnedFd,
    pub(super) outbox: OwnedFd,
    pub(super) inbox: OwnedFd,
    pub(super) incoming: OwnedFd,
    pub(super) leaving: OwnedFd,
}

impl Layout {
    /// Makes the directory, or takes an empty one, and everything that is in it from the start.
    pub(super) fn create(path: &Path) -> Result<Self, OpenError> {
        let place = Place::take(path)?;
        let filled =
            place.dir().try_clone().and_then(|channel| Self::parts(&channel).map(|parts| (channel, parts)));
        match filled {
            Ok((channel, [outbox, incoming, leaving, inbox])) => {
                Ok(Self { path: place.path().to_owned(), place, channel, outbox, inbox, incoming, leaving })
            }
            Err(error) => {
                // What was made so far is ours, and nothing is in it yet.
                let _ = place.remove();
                Err(OpenError::io(place.path(), error))
            }
        }
    }

    fn parts(channel: &OwnedFd) -> io::Result<[OwnedFd; 4]> {
        let inbox = beneath::make_dir(channel, INBOX)?;
        let [outbox, incoming, leaving] =
            [OUTBOX, INCOMING, LEAVING].map(|name| beneath::make_dir(channel, name));
        beneath::make_dir(channel, FLUSH)?;
        beneath::make_dir(&inbox, MESSAGES)?;
        let outbox = outbox?;
        for special in Special::ALL {
            beneath::make_dir(&inbox, special.as_str())?;
            beneath::make_dir(&outbox, special.as_str())?;
        }
        for (name, content) in
            [("README.md", README), (".gitignore", GITIGNORE), (CTL, ""), ("status.json", "{}\n")]
        {
            write_new(channel, name, content)?;
        }
        // `> outbox/secrets/KEY` fails before a byte of it is on a disk.
        for dir in [&outbox, &inbox] {
            write_new(dir, SECRETS, EXPLANATION)?;
            let file = beneath::open_file(dir, SECRETS)?;
            rustix::fs::fchmod(file, Mode::RUSR)?;
        }
        Ok([outbox, incoming?, leaving?, inbox])
    }

    /// Takes everything away, and the directory itself where we made it. Who is still writing into it may delay this
    /// a little, not prevent it.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.place.remove()
    }

    /// How many files the disk can still take; 0 where it does not count them, or does not say.
    pub(super) fn free_inodes(&self) -> u64 {
        rustix::fs::fstatvfs(&self.channel).map_or(0, |disk| disk.f_favail)
    }

    /// What the inbox may grow to where nobody said: what the disk has less a reserve, at most 16 GiB.
    pub(super) fn default_limit(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.channel)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(crate::inbox::default_limit(free))
    }
}

/// Creates a file of ours with its first content, whatever the umask is.
pub(super) fn write_new(dir: impl AsFd, name: &str, content: &str) -> io::Result<()> {
    use std::io::Write as _;
    let file = beneath::create_file(dir, name)?;
    rustix::fs::fchmod(&file, beneath::FILE_MODE)?;
    fs::File::from(file).write_all(content.as_bytes())
}

/// Takes a file's content away. A link is not followed, and the other end of a FIFO is not waited for.
pub(super) fn empty(dir: impl AsFd, name: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?).set_len(0)
}

/// Where the bytes of files in a directory rest, in words for `status`: `in memory (tmpfs)` or `plaintext on disk`.
///
/// # Errors
/// What the file system says.
pub fn at_rest(path: &Path) -> io::Result<&'static str> {
    let dir = fs::File::open(path)?;
    Ok(if is_memory(&dir)? { "in memory (tmpfs)" } else { "plaintext on disk" })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_memory(dir: impl AsFd) -> Result<bool, Errno> {
    // The numbers of linux/magic.h.
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    let kind = rustix::fs::fstatfs(dir)?.f_type;
    // Its type differs between architectures; the number has 32 bits.
    Ok([TMPFS, RAMFS].contains(&(kind as u32)))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_memory(_dir: impl AsFd) -> Result<bool, Errno> {
    Ok(false)
}
