//! The bell's hands: what it does below the root of the mount. No link leads it elsewhere.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::protocol::components;

/// Directories that are made: owner only.
pub(super) const DIR_MODE: Mode = Mode::from_raw_mode(0o700);
/// How a directory on the way is opened: as a place, which asks its server nothing and needs no right to read it.
const PLACE: OFlags = {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let place = OFlags::PATH;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let place = OFlags::RDONLY;
    place.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC)
};
/// How a file is opened for writing: never made, never followed, never waited for.
const WRITE: OFlags = OFlags::WRONLY
    .union(OFlags::APPEND)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// The mount's root, and the file that was last appended to.
pub(super) struct Root {
    dir: OwnedFd,
    log: Option<(String, OwnedFd)>,
}

impl Root {
    /// Opens the root itself. The way to it may have links: it is the owner's.
    pub(super) fn open(path: impl Arg) -> Result<Self, Errno> {
        Ok(Self { dir: rustix::fs::open(path, PLACE, Mode::empty())?, log: None })
    }

    pub(super) fn make_dirs(&self, path: &str) -> Result<(), Errno> {
        self.made(path).map(drop)
    }

    /// Makes the directories above `to`, and renames.
    pub(super) fn place(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        if let Some((parents, _)) = to.rsplit_once('/') {
            self.make_dirs(parents)?;
        }
        self.rename(from, to)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let (old_dir, old) = self.parent(from)?;
        let (new_dir, new) = self.parent(to)?;
        rustix::fs::renameat_with(old_dir, old, new_dir, new, RenameFlags::NOREPLACE)?;
        self.forget(from);
        Ok(())
    }

    /// Writes it all with one call, unless the file system takes less: then the rest follows.
    pub(super) fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), Errno> {
        let file = self.log(path)?;
        let mut rest = bytes;
        let written = loop {
            match rustix::io::write(file, rest) {
                Ok(written) if written >= rest.len() => break Ok(()),
                Ok(0) => break Err(Errno::IO),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => break Err(error),
            }
        };
        if written.is_err() {
            self.log = None;
        }
        written
    }

    pub(super) fn truncate(&mut self, path: &str) -> Result<(), Errno> {
        let file = self.log(path)?;
        rustix::fs::ftruncate(file, 0)
    }

    pub(super) fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        self.remove(path, AtFlags::empty())
    }

    pub(super) fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        self.remove(path, AtFlags::REMOVEDIR)
    }

    fn remove(&mut self, path: &str, flags: AtFlags) -> Result<(), Errno> {
        let (dir, name) = self.parent(path)?;
        rustix::fs::unlinkat(dir, name, flags)?;
        self.forget(path);
        Ok(())
    }

    /// The directory that a path's last component is in, and that component. What a removal of a tree starts from.
    pub(super) fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
        let mut parts = components(path).ok_or(Errno::INVAL)?;
        let name = parts.next_back().ok_or(Errno::INVAL)?;
        let top = open_dir(&self.dir, ".")?;
        Ok((parts.try_fold(top, open_dir)?, name))
    }

    /// Closes the file that was last appended to, where it is this or below it.
    pub(super) fn forget(&mut self, path: &str) {
        let is_below =
            |log: &str| log.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.log.take_if(|(log, _)| is_below(log));
    }

    fn made(&self, path: &str) -> Result<OwnedFd, Errno> {
        let top = open_dir(&self.dir, ".")?;
        components(path).ok_or(Errno::INVAL)?.try_fold(top, |dir, part| match open_dir(&dir, part) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&dir, part, DIR_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                open_dir(dir, part)
            }
            opened => opened,
        })
    }

    fn log(&mut self, path: &str) -> Result<&OwnedFd, Errno> {
        let kept = match self.log.take() {
            Some((name, file)) if name == path => (name, file),
            other => {
                drop(other);
                let (dir, name) = self.parent(path)?;
                (path.to_owned(), rustix::fs::openat(dir, name, WRITE, Mode::empty())?)
            }
        };
        Ok(&self.log.insert(kept).1)
    }
}

/// Opens one directory in another as a place; a link is ENOTDIR or ELOOP.
pub(super) fn open_dir(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, PLACE, Mode::empty())
}
