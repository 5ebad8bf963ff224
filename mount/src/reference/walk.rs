//! The way to a link's target, one component at a time: what is met is looked at before it is walked through.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{FLAGS, Own, Target, TargetError};
use crate::beneath::{device, place};
use crate::dir::layout::{INBOX, OUTBOX};
use crate::stream::Socket;

/// Most links on the way, as the kernel has it.
const MAX_LINKS: usize = 40;
/// Refers to something without opening it: no file system is asked anything.
const REFER: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const STICKY_AND_OPEN: u32 = 0o1002;

/// Opens a target; see [`super::open`].
pub(super) fn open(target: &Path, own: &Own) -> Result<Target, TargetError> {
    let rest = outside(target, &own.path)?;
    let at = rustix::fs::openat(CWD, "/", REFER | OFlags::DIRECTORY, Mode::empty())?;
    let mut walk = Walk { own, at, rest, links: 0 };
    walk.check(&walk.at)?;
    while let Some(part) = walk.rest.pop_front() {
        walk.step(&part)?;
    }
    reopen(&walk.at)
}

/// The components of a path. What ends with a slash must be a directory.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = OsString> {
    let all = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let end = path.ends_with(b"/").then_some(&b"."[..]);
    all.chain(end).map(|part| OsStr::from_bytes(part).to_owned())
}

/// The components of a target from `/` on. The text alone says how it leaves the channel's own directory, in which it
/// begins or which it names: by `..` from there, from the outbox or from the inbox, the only directories in it that are
/// known to be no links.
fn outside(target: &Path, own: &Path) -> Result<VecDeque<OsString>, TargetError> {
    let target = target.as_os_str().as_bytes();
    if target.is_empty() {
        return Err(TargetError::Missing);
    }
    let own: Vec<_> = parts(own.as_os_str().as_bytes()).filter(|part| part != ".").collect();
    let mut rest: VecDeque<_> = parts(target).collect();
    let mut below = 0;
    if target.starts_with(b"/") {
        let mut named = rest.clone();
        for part in &own {
            while named.front().is_some_and(|part| part == ".") {
                named.pop_front();
            }
            if named.pop_front().as_ref() != Some(part) {
                return Ok(rest);
            }
        }
        rest = named;
    } else {
        below = 1;
    }
    while let Some(part) = rest.pop_front() {
        match part.to_str() {
            Some(".") => {}
            Some("..") if below > 0 => below -= 1,
            Some("..") => {
                let parent = own.len().saturating_sub(1);
                return Ok(own.into_iter().take(parent).chain(rest).collect());
            }
            Some(OUTBOX | INBOX) if below == 0 => below += 1,
            _ => return Err(TargetError::Own),
        }
    }
    Err(TargetError::Own)
}

/// Where a walk is: the last component that was met, and those that follow.
struct Walk<'a> {
    own: &'a Own,
    at: OwnedFd,
    rest: VecDeque<OsString>,
    links: usize,
}

impl Walk<'_> {
    /// Goes to one component; a link's text is put before what follows.
    fn step(&mut self, part: &OsStr) -> Result<(), TargetError> {
        let next = refer(&self.at, part)?;
        let stat = self.check(&next)?;
        if !is_link(&stat) {
            self.at = next;
            return Ok(());
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(TargetError::Loop);
        }
        self.may_follow(&stat)?;
        if is_of_proc(&next)? {
            return self.jump(part);
        }
        let text = rustix::fs::readlinkat(&next, "", Vec::new())?;
        let text = text.as_bytes();
        if text.is_empty() {
            return Err(TargetError::Missing);
        }
        if text.starts_with(b"/") {
            self.at = refer(CWD, OsStr::new("/"))?;
            self.check(&self.at)?;
        }
        for part in parts(text).rev() {
            self.rest.push_front(part);
        }
        Ok(())
    }

    /// Follows a link of /proc. Its text may be no path: the kernel goes to what it means at once, and asks nobody there.
    fn jump(&mut self, part: &OsStr) -> Result<(), TargetError> {
        let next = rustix::fs::openat(&self.at, part, REFER, Mode::empty())?;
        if is_link(&self.check(&next)?) {
            // Somebody refers to a link itself. Where it lies is not known.
            return Err(TargetError::Loop);
        }
        self.at = next;
        Ok(())
    }

    /// What something is; an error where it is the channel's own.
    fn check(&self, found: &OwnedFd) -> Result<Stat, TargetError> {
        if self.own.device.is_some() && Some(device(found, "")?) == self.own.device {
            return Err(TargetError::Own);
        }
        let stat = rustix::fs::fstat(found)?;
        if Some(place(&stat)) == self.own.place { Err(TargetError::Own) } else { Ok(stat) }
    }

    /// In a directory where everybody may make links, only our own and those of its owner are followed: as the kernel
    /// does with `fs.protected_symlinks`.
    fn may_follow(&self, link: &Stat) -> Result<(), TargetError> {
        let dir = rustix::fs::fstat(&self.at)?;
        let everybody = dir.st_mode & STICKY_AND_OPEN == STICKY_AND_OPEN;
        if everybody && link.st_uid != rustix::process::geteuid().as_raw() && link.st_uid != dir.st_uid {
            return Err(Errno::ACCESS.into());
        }
        Ok(())
    }
}

/// Refers to what has a name in a directory, a link itself included.
fn refer(dir: impl AsFd, part: &OsStr) -> Result<OwnedFd, Errno> {
    // A directory that is mounted when it is walked through is mounted only for who says so.
    let flags = REFER | OFlags::NOFOLLOW;
    match rustix::fs::openat(&dir, part, flags | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => rustix::fs::openat(dir, part, flags, Mode::empty()),
        result => result,
    }
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn is_of_proc(link: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(link)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// Opens for reading what is referred to, itself and not what may have its name by now.
fn reopen(found: &OwnedFd) -> Result<Target, TargetError> {
    let stat = rustix::fs::fstat(found)?;
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FLAGS,
        FileType::Directory => FLAGS | OFlags::DIRECTORY,
        FileType::Socket => {
            let found = found.try_clone().map_err(TargetError::Io)?;
            return Socket::new(found).map(Target::Stream).ok_or(TargetError::Kind);
        }
        // Opening a device may do something.
        _ => return Err(TargetError::Kind),
    };
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => TargetError::Io(io::Error::other("/proc is not mounted")),
        errno => errno.into(),
    })?;
    Target::new(opened)
}
