//! The channel's directory itself: made, measured and taken away.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::OpenError;
use super::removal;
use crate::beneath;

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
/// The inbox never grows beyond this by itself, in bytes.
const MOST_INBOX: u64 = 16 << 30;
/// The largest part of a disk that stays free, in bytes: a tenth of what is free, and not more than this.
const MOST_RESERVE: u64 = 1 << 30;

/// The open directories of a channel.
#[derive(Debug)]
pub(super) struct Layout {
    /// Absolute, without links.
    pub(super) path: PathBuf,
    /// The mode of the directory before it was taken; `None` where it was made.
    taken: Option<u32>,
    pub(super) channel: OwnedFd,
    pub(super) outbox: OwnedFd,
    pub(super) inbox: OwnedFd,
    pub(super) incoming: OwnedFd,
    pub(super) leaving: OwnedFd,
}

impl Layout {
    /// Makes the directory, or takes an empty one, and everything that is in it from the start.
    pub(super) fn create(path: &Path) -> Result<Self, OpenError> {
        let path = std::path::absolute(path).map_err(|source| OpenError::io(path, source))?;
        let fail = |source: io::Error| OpenError::io(&path, source);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        let is_new = match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(fail(error)),
        };
        if is_new {
            // Whatever the umask left of it.
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(fail)?;
        }
        let path = path.canonicalize().map_err(fail)?;
        // From here on it is this directory, whatever somebody puts in its place.
        let channel = open_empty(&path)?;
        let mode = fs::File::from(channel.try_clone().map_err(fail)?).metadata().map_err(fail)?.mode();
        let taken = (!is_new).then_some(mode & 0o7777);
        let filled = rustix::fs::fchmod(&channel, beneath::DIR_MODE)
            .map_err(io::Error::from)
            .and_then(|()| Self::fill(path.clone(), taken, channel.try_clone()?));
        filled.map_err(|error| {
            // What was made so far is ours, and nothing is in it yet.
            let _ = remove(&channel, &path, taken);
            OpenError::io(&path, error)
        })
    }

    fn fill(path: PathBuf, taken: Option<u32>, channel: OwnedFd) -> io::Result<Self> {
        let inbox = beneath::make_dir(&channel, INBOX)?;
        let layout = Self {
            outbox: beneath::make_dir(&channel, OUTBOX)?,
            incoming: beneath::make_dir(&channel, INCOMING)?,
            leaving: beneath::make_dir(&channel, LEAVING)?,
            path,
            taken,
            inbox,
            channel,
        };
        beneath::make_dir(&layout.channel, FLUSH)?;
        beneath::make_dir(&layout.inbox, MESSAGES)?;
        for (name, content) in
            [("README.md", README), (".gitignore", GITIGNORE), (CTL, ""), ("status.json", "{}\n")]
        {
            write_new(&layout.channel, name, content)?;
        }
        Ok(layout)
    }

    /// Takes everything away, and the directory itself where we made it. Who is still writing into it may delay this
    /// a little, not prevent it.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.channel, &self.path, self.taken)
    }

    /// How many files the disk can still take; 0 where it does not count them, or does not say.
    pub(super) fn free_inodes(&self) -> u64 {
        rustix::fs::fstatvfs(&self.channel).map_or(0, |disk| disk.f_favail)
    }

    /// What the inbox may grow to where nobody said: what the disk has less a reserve, at most [`MOST_INBOX`].
    pub(super) fn default_limit(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.channel)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok((free - (free / 10).min(MOST_RESERVE)).min(MOST_INBOX))
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

/// Opens a directory that is ours and empty.
fn open_empty(path: &Path) -> Result<OwnedFd, OpenError> {
    let fail = |source: io::Error| OpenError::io(path, source);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOTDIR) => return Err(OpenError::NotADirectory(path.to_owned())),
        opened => opened.map_err(|errno| fail(errno.into()))?,
    };
    if rustix::fs::fstat(&dir).map_err(|errno| fail(errno.into()))?.st_uid
        != rustix::process::geteuid().as_raw()
    {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    if beneath::names(&dir).map_err(fail)?.next().is_some() {
        return Err(OpenError::NotEmpty(path.to_owned()));
    }
    Ok(dir)
}

/// Removes a channel's directory, or where it was taken with a mode, only what is in it. Where it was moved, what is in
/// it goes all the same, and what has its place now is not ours.
fn remove(channel: &OwnedFd, path: &Path, taken: Option<u32>) -> io::Result<()> {
    let is_here = || -> io::Result<bool> {
        let ours = rustix::fs::fstat(channel)?;
        match rustix::fs::lstat(path) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    let moved = || match rustix::fs::fstat(channel) {
        // It is removed, not moved.
        Ok(ours) if ours.st_nlink == 0 => Ok(()),
        _ => Err(io::Error::other("it was moved: what was in it is removed, and what has its place is not")),
    };
    if let Some(mode) = taken {
        removal::clear(channel, || Ok(()))?;
        fs::File::from(channel.try_clone()?).set_permissions(Permissions::from_mode(mode))?;
        return if is_here()? { Ok(()) } else { moved() };
    }
    if !is_here()? {
        removal::clear(channel, || Ok(()))?;
        return moved();
    }
    // Only what is empty goes with this: who is quicker to put something else there loses nothing.
    Ok(removal::clear(channel, || rustix::fs::rmdir(path))?)
}
