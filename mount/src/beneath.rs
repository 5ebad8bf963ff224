//! Access below a directory handle that no symbolic link can lead away from. Owns nothing but the way there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::outbox::Identity;

/// Files of ours: owner only.
pub(crate) const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
/// Directories of ours, and files that may be run.
pub(crate) const DIR_MODE: Mode = Mode::from_raw_mode(0o700);
/// How a directory is opened.
const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How a file is opened: never follows, never waits for the other end of a FIFO, never becomes our terminal.
const READ_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens one directory in another; a link is ENOTDIR or ELOOP.
pub(crate) fn open_dir(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, DIR_FLAGS, Mode::empty())
}

/// Makes a directory in another, whatever the umask is. An existing one is EEXIST.
pub(crate) fn make_dir(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(&dir, name, DIR_MODE)?;
    rustix::fs::chmodat(&dir, name, DIR_MODE, AtFlags::empty())?;
    open_dir(dir, name)
}

/// Opens a file for reading by its path below `root`, following no link on the way.
pub(crate) fn open_file(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let (parent, name) = split(root.as_fd(), path)?;
    rustix::fs::openat(parent.as_fd(root.as_fd()), name, READ_FLAGS, Mode::empty())
}

/// Opens a directory by its path below `root`, following no link on the way. `None` is `root` itself.
pub(crate) fn open_dir_at(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let (parent, name) = split(root.as_fd(), path)?;
    open_dir(parent.as_fd(root.as_fd()), name)
}

/// Creates a file that was not there, for writing.
pub(crate) fn create_file(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, FILE_MODE)
}

/// What is at a path below `root`, the last link not followed.
pub(crate) fn look(root: impl AsFd, path: &str) -> Result<(FileType, Identity), Errno> {
    let stat = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((FileType::from_raw_mode(stat.st_mode), identity(&stat)))
}

/// The identity in a stat.
pub(crate) fn identity(stat: &rustix::fs::Stat) -> Identity {
    Identity {
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

/// The device and inode in a stat.
pub(crate) fn place(stat: &rustix::fs::Stat) -> (u64, u64) {
    #[allow(clippy::useless_conversion, reason = "the type of a device number differs between platforms")]
    (u64::from(stat.st_dev), stat.st_ino)
}

/// The device that a name in a directory is on, a mount's own where one is there; the directory's for an empty name.
/// Neither follows nor mounts anything, and asks no file system: no server of a FUSE mount gets a request.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn device(dir: impl AsFd, name: impl Arg) -> Result<u64, Errno> {
    use rustix::fs::StatxFlags;

    let flags =
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(dir, name, flags, StatxFlags::empty())?;
    Ok(rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor))
}

/// The device that a name in a directory is on. There is no mount of ours on this platform.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn device(dir: impl AsFd, name: impl Arg) -> Result<u64, Errno> {
    Ok(place(&rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?).0)
}

/// Renames and never replaces: EEXIST where the new name is taken.
pub(crate) fn rename_new<P: Arg + Copy>(from: impl AsFd, old: P, to: impl AsFd, new: P) -> Result<(), Errno> {
    match rustix::fs::renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE) {
        // File systems without the flag: a link is as exclusive, but for files only.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        result => return result,
    }
    let stat = rustix::fs::statat(&from, old, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return match rustix::fs::statat(&to, new, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => rustix::fs::renameat(from, old, to, new),
            Err(error) => Err(error),
            Ok(_) => Err(Errno::EXIST),
        };
    }
    rustix::fs::linkat(&from, old, &to, new, AtFlags::empty())?;
    rustix::fs::unlinkat(from, old, AtFlags::empty())
}

/// The names in a directory, with their types where the file system tells them. Not `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> io::Result<impl Iterator<Item = io::Result<std::ffi::CString>>> {
    let entries = rustix::fs::Dir::read_from(dir)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_owned()));
    Ok(names.filter(|name: &io::Result<std::ffi::CString>| {
        !matches!(name.as_deref().map(std::ffi::CStr::to_bytes), Ok(b"." | b".."))
    }))
}

/// A directory on the way: the root itself, or one below it.
enum Parent {
    Root,
    Below(OwnedFd),
}

impl Parent {
    fn as_fd<'a>(&'a self, root: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self {
            Self::Root => root,
            Self::Below(dir) => dir.as_fd(),
        }
    }
}

fn split<'a>(root: BorrowedFd<'_>, path: &'a str) -> Result<(Parent, &'a str), Errno> {
    let Some((parents, name)) = path.rsplit_once('/') else { return Ok((Parent::Root, path)) };
    let mut parent = Parent::Root;
    for part in parents.split('/') {
        parent = Parent::Below(open_dir(parent.as_fd(root), part)?);
    }
    Ok((parent, name))
}
