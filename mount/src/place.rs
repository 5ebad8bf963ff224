//! The place of a channel's directory: an empty directory of ours, made or taken, and given back.
//!
//! Owns that directory and not what is in it. Both back ends begin and end with it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::{beneath, removal};

/// Why a mailbox cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something is in the directory already.
    #[error("{} is not empty; choose another directory, or remove what is in it", .0.display())]
    NotEmpty(PathBuf),
    /// There is something else.
    #[error("{} is not a directory; choose another path", .0.display())]
    NotADirectory(PathBuf),
    /// The directory belongs to another user.
    #[error("{} belongs to another user; choose a directory of your own", .0.display())]
    NotOurs(PathBuf),
    /// The file system said no.
    #[error("{} cannot be made a mailbox: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// An empty directory of ours, mode 0700.
#[derive(Debug)]
pub(crate) struct Place {
    /// Absolute, without links.
    path: PathBuf,
    /// The mode of the directory before it was taken; `None` where it was made.
    taken: Option<u32>,
    dir: OwnedFd,
}

impl Place {
    /// Makes the directory, or takes an empty one.
    ///
    /// # Errors
    /// [`OpenError`]; then it is as it was.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
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
        let place = Self { path, taken: (!is_new).then_some(mode & 0o7777), dir: channel };
        if let Err(errno) = rustix::fs::fchmod(&place.dir, beneath::DIR_MODE) {
            // What was made so far is ours, and nothing is in it yet.
            let _ = place.remove();
            return Err(OpenError::io(&place.path, errno.into()));
        }
        Ok(place)
    }

    /// Absolute, without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself, whatever has its path now.
    pub(crate) const fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Takes everything away, and the directory itself where we made it. Who is still writing into it may delay this
    /// a little, not prevent it. Must not be called while something is mounted on it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(&self.dir, &self.path, self.taken)
    }
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
