//! A file that is read from front to back while its owner may still change it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::FileType;

use crate::beneath::identity;
use crate::outbox::Identity;
use crate::{Content, MAX_WHOLE, Source, SourceError};

/// An open file and what it was when it was opened.
pub(crate) struct OpenFile {
    file: File,
    pub(crate) identity: Identity,
    pub(crate) executable: bool,
}

impl OpenFile {
    /// Takes an opened file; `None` where it is no regular file.
    pub(crate) fn new(file: OwnedFd) -> io::Result<Option<Self>> {
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let executable = stat.st_mode & 0o100 != 0;
        Ok(Some(Self { file: file.into(), identity: identity(&stat), executable }))
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn mtime(&self) -> Option<SystemTime> {
        time(self.identity.mtime)
    }

    /// All bytes, of a file of at most `most`.
    pub(crate) fn whole(&mut self, most: u64) -> Result<Bytes, SourceError> {
        if self.identity.size > most {
            return Err(SourceError::Changed);
        }
        // One byte more than there should be: so the end is met without a second growth.
        let mut bytes = Vec::with_capacity(usize::try_from(self.identity.size).unwrap_or(0) + 1);
        (&self.file).take(self.identity.size + 1).read_to_end(&mut bytes)?;
        self.check()?;
        if bytes.len() as u64 != self.identity.size {
            // As in /proc and /sys.
            return Err(
                io::Error::other("its file system does not tell its size; copy it into a file").into()
            );
        }
        Ok(bytes.into())
    }

    /// The bytes in memory where they are few, else the file itself.
    pub(crate) fn content(mut self) -> Result<Content, SourceError> {
        if self.identity.size <= MAX_WHOLE {
            return Ok(Content::Whole(self.whole(MAX_WHOLE)?));
        }
        Ok(Content::Stream(Box::new(Reading { open: self, done: 0 })))
    }

    /// A file with the same bytes that nobody else can change, sharing its blocks, where the file system can do
    /// that; it lives in `place` without a name.
    pub(crate) fn cloned(self, place: &OwnedFd) -> Result<Self, Self> {
        let Ok(copy) = clone_file(&self.file, place) else { return Err(self) };
        if self.check().is_err() {
            return Err(self);
        }
        let Ok(stat) = rustix::fs::fstat(&copy) else { return Err(self) };
        Ok(Self { file: copy.into(), identity: identity(&stat), executable: self.executable })
    }

    fn check(&self) -> Result<(), SourceError> {
        let now = rustix::fs::fstat(&self.file).map_err(io::Error::from)?;
        if identity(&now) == self.identity { Ok(()) } else { Err(SourceError::Changed) }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn clone_file(file: &File, place: &OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fs::OFlags;

    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(place, ".", flags, crate::beneath::FILE_MODE)?;
    rustix::fs::ioctl_ficlone(&copy, file)?;
    Ok(copy)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn clone_file(_file: &File, _place: &OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    Err(rustix::io::Errno::NOTSUP)
}

/// Seconds and nanoseconds since 1970.
pub(crate) fn time((seconds, nanos): (i64, u32)) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)?
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)?
    };
    at.checked_add(Duration::from_nanos(u64::from(nanos)))
}

/// A stream over an open file.
struct Reading {
    open: OpenFile,
    done: u64,
}

impl Source for Reading {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
        let left = self.open.identity.size - self.done;
        if left == 0 {
            self.open.check()?;
            return Ok(0);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        loop {
            match self.open.file.read(&mut buf[..most]) {
                Ok(0) if most > 0 => return Err(SourceError::Changed),
                Ok(count) => {
                    self.done += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open(path: &std::path::Path) -> OpenFile {
        OpenFile::new(File::open(path).unwrap().into()).unwrap().unwrap()
    }

    fn drain(source: &mut dyn Source) -> Result<u64, SourceError> {
        let (mut buf, mut all) = ([0; 4096], 0);
        loop {
            match source.read(&mut buf)? {
                0 => return Ok(all),
                count => all += count as u64,
            }
        }
    }

    #[test]
    fn a_change_while_it_is_read_is_told_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for change in ["none", "grow", "shrink", "touch", "replace"] {
            fs::write(&path, vec![1; 40_000]).unwrap();
            let mut source = Reading { open: open(&path), done: 0 };
            assert_eq!(source.read(&mut [0; 100]).unwrap(), 100);
            match change {
                "grow" => fs::write(&path, vec![1; 50_000]).unwrap(),
                "shrink" => fs::write(&path, vec![1; 30_000]).unwrap(),
                "touch" => fs::File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_modified(SystemTime::UNIX_EPOCH)
                    .unwrap(),
                // What was opened is whole, whatever has its name now.
                "replace" => {
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, "other").unwrap();
                }
                _ => {}
            }
            let result = drain(&mut source);
            match change {
                "none" | "replace" => assert_eq!(result.unwrap(), 39_900),
                _ => assert!(matches!(result, Err(SourceError::Changed)), "{change}"),
            }
        }
    }

    #[test]
    fn few_bytes_are_read_at_once_and_many_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (size, whole) in [(0, true), (MAX_WHOLE, true), (MAX_WHOLE + 1, false)] {
            fs::write(&path, vec![1; usize::try_from(size).unwrap()]).unwrap();
            assert_eq!(matches!(open(&path).content().unwrap(), Content::Whole(_)), whole, "{size}");
        }
    }

    #[test]
    fn times_before_1970_and_beyond_reason_are_no_panic() {
        assert_eq!(time((0, 5)), SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(5)));
        assert_eq!(time((-1, 0)), SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(1)));
        assert_eq!(
            time((i64::MAX, 0)).is_some(),
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX as u64)).is_some()
        );
    }
}
