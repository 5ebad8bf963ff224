//! Removing a tree in parts: through the mount every name is a question to the owner, and a large tree takes longer
//! than anybody waits for a reply.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::root::{DIR_MODE, open_dir};

/// Levels whose directory is kept open; below them it is found again by its names from the last of these.
const MAX_HANDLES: usize = 64;
/// Names that are read at once; a directory that holds more is read again.
const MAX_NAMES: usize = 4096;

/// Removes what has this name and everything below it, until `until` at the latest: then EAGAIN says that something was
/// removed and there is more. What cannot be removed is passed over, and the first error is returned at the end.
pub(super) fn remove(parent: OwnedFd, name: &str, until: Instant) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match remove_one(&parent, &name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        result => return result,
    }
    let top = Level::open(&parent, name)?;
    Removal { parent, levels: vec![top], error: None, removed: false, until }.run()
}

/// Removes a file or an empty directory. One that is gone is removed.
fn remove_one(dir: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let unlinked = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
    let done = match unlinked {
        // A directory: one of the two, as the platform likes.
        Err(Errno::ISDIR | Errno::PERM) => match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTDIR) => unlinked,
            removed => removed,
        },
        done => done,
    };
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// A directory on the way down.
struct Level {
    name: CString,
    /// Closed below the kept levels while something deeper is worked on.
    dir: Option<OwnedFd>,
    /// What is still to be removed of what was read.
    names: Vec<CString>,
    /// Whether anything was removed since it was read.
    progress: bool,
}

impl Level {
    /// Opens a directory, also one that its owner closed, and reads its names.
    fn open(parent: impl AsFd, name: CString) -> Result<Self, Errno> {
        let dir = open_dir(parent, &name)?;
        if Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode) & DIR_MODE != DIR_MODE {
            open_up(&dir)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = Dir::new(rustix::fs::openat(&dir, c".", flags, Mode::empty())?)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_owned()));
        let names = names.filter(|name: &Result<CString, Errno>| {
            !matches!(name.as_deref().map(CStr::to_bytes), Ok(b"." | b".."))
        });
        // All of them first: a directory that shrinks while it is read may hide some.
        let names = names.take(MAX_NAMES).collect::<Result<_, _>>()?;
        Ok(Self { name, dir: Some(dir), names, progress: false })
    }
}

/// Lets the owner of a directory work in it.
fn open_up(dir: &OwnedFd) -> Result<(), Errno> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::fd::AsRawFd as _;

        // A place takes no chmod; its entry in /proc leads to it and to nothing else.
        rustix::fs::chmod(format!("/proc/self/fd/{}", dir.as_raw_fd()), DIR_MODE)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        rustix::fs::fchmod(dir, DIR_MODE)
    }
}

struct Removal {
    /// What the first level is in.
    parent: OwnedFd,
    levels: Vec<Level>,
    /// The first one.
    error: Option<Errno>,
    removed: bool,
    until: Instant,
}

impl Removal {
    fn run(mut self) -> Result<(), Errno> {
        while let Some(level) = self.levels.last_mut() {
            // Each part removes something: the parts come to an end.
            if self.removed && Instant::now() >= self.until {
                return Err(Errno::AGAIN);
            }
            let Some(name) = level.names.pop() else {
                self.leave()?;
                continue;
            };
            let Some(dir) = &level.dir else { return Err(Errno::BADF) };
            match remove_one(dir, &name) {
                Ok(()) => {
                    level.progress = true;
                    self.removed = true;
                }
                Err(Errno::NOTEMPTY | Errno::EXIST) => match Level::open(dir, name) {
                    Ok(below) => self.enter(below),
                    Err(error) => self.keep(error),
                },
                Err(error) => self.keep(error),
            }
        }
        self.error.map_or(Ok(()), Err)
    }

    fn keep(&mut self, error: Errno) {
        self.error.get_or_insert(error);
    }

    fn enter(&mut self, below: Level) {
        if self.levels.len() > MAX_HANDLES
            && let Some(above) = self.levels.last_mut()
        {
            above.dir = None;
        }
        self.levels.push(below);
    }

    /// Removes the directory whose names are done.
    fn leave(&mut self) -> Result<(), Errno> {
        let Some(done) = self.levels.pop() else { return Ok(()) };
        drop(done.dir);
        self.reopen()?;
        let above = self.levels.last_mut();
        let dir = above.as_ref().and_then(|above| above.dir.as_ref()).unwrap_or(&self.parent);
        match rustix::fs::unlinkat(dir, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {
                if let Some(above) = above {
                    above.progress = true;
                }
                self.removed = true;
            }
            // Somebody writes into it, or it holds more names than are read at once.
            Err(Errno::NOTEMPTY | Errno::EXIST) if done.progress => match Level::open(dir, done.name) {
                Ok(again) => self.enter(again),
                Err(error) => self.keep(error),
            },
            Err(error) => self.keep(error),
        }
        Ok(())
    }

    /// Opens the last level where it was closed, from the last that is open. Never by `..`: a directory that is moved
    /// meanwhile would lead out of the tree.
    fn reopen(&mut self) -> Result<(), Errno> {
        if self.levels.last().is_none_or(|level| level.dir.is_some()) {
            return Ok(());
        }
        let open = self.levels.iter().rposition(|level| level.dir.is_some());
        let (from, below) = match open.and_then(|at| Some((self.levels[at].dir.as_ref()?, at + 1))) {
            Some((dir, below)) => (open_dir(dir, c".")?, below),
            None => (open_dir(&self.parent, c".")?, 0),
        };
        let dir = self.levels[below..].iter().try_fold(from, |dir, level| open_dir(dir, &level.name))?;
        if let Some(level) = self.levels.last_mut() {
            level.dir = Some(dir);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::Duration;

    fn parent(path: &std::path::Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn everything_below_goes_and_nothing_beside() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("t/a/b/c")).unwrap();
        fs::create_dir_all(home.path().join("other")).unwrap();
        fs::write(home.path().join("other/kept"), "1").unwrap();
        symlink("../other", home.path().join("t/link")).unwrap();
        symlink("../../other/kept", home.path().join("t/a/link")).unwrap();
        fs::set_permissions(home.path().join("t/a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        for n in 0..MAX_NAMES + 10 {
            fs::write(home.path().join(format!("t/{n}")), "").unwrap();
        }
        remove(parent(home.path()), "t", later()).unwrap();
        assert!(!home.path().join("t").exists());
        assert!(home.path().join("other/kept").exists());
        remove(parent(home.path()), "t", later()).unwrap();
        symlink("other", home.path().join("t")).unwrap();
        remove(parent(home.path()), "t", later()).unwrap();
        assert!(home.path().join("other/kept").exists());
    }

    #[test]
    fn a_deep_tree_holds_few_handles() {
        let home = tempfile::tempdir().unwrap();
        let mut dir = parent(home.path());
        for _ in 0..3 * MAX_HANDLES {
            rustix::fs::mkdirat(&dir, c"deep", DIR_MODE).unwrap();
            rustix::fs::mkdirat(&dir, c"side", DIR_MODE).unwrap();
            dir = open_dir(&dir, c"deep").unwrap();
        }
        drop(dir);
        remove(parent(home.path()), "deep", later()).unwrap();
        assert!(!home.path().join("deep").exists());
    }

    #[test]
    fn a_part_removes_something_and_says_that_there_is_more() {
        let home = tempfile::tempdir().unwrap();
        for n in 0..3 {
            fs::create_dir_all(home.path().join(format!("t/{n}/x"))).unwrap();
        }
        let mut parts = 0;
        while let Err(error) = remove(parent(home.path()), "t", Instant::now()) {
            assert_eq!(error, Errno::AGAIN);
            parts += 1;
            assert!(parts < 10);
        }
        assert!(parts > 1 && !home.path().join("t").exists());
    }
}
