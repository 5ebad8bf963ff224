//! The files of the channel that we write ourselves: the log, the transcript, the status.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::layout::{self, Layout};
use crate::beneath;

/// The log, in `inbox/`.
const LOG: &str = "log.jsonl";
/// What the log was before it was rotated.
const OLD_LOG: &str = "log.1.jsonl";
/// Both directions.
const TRANSCRIPT: &str = "transcript.jsonl";
/// The state.
const STATUS: &str = "status.json";
/// The name under which a file is written before it takes the place of another.
const FRESH: &str = "fresh";

/// The open files.
#[derive(Debug)]
pub(super) struct Journal {
    log: Lines,
    transcript: Lines,
    channel: OwnedFd,
    inbox: OwnedFd,
    staging: OwnedFd,
}

/// A file of lines that only grows.
#[derive(Debug)]
struct Lines {
    dir: OwnedFd,
    name: &'static str,
    file: File,
}

impl Journal {
    pub(super) fn new(layout: &Layout) -> io::Result<Self> {
        Ok(Self {
            log: Lines::new(layout.inbox.try_clone()?, LOG)?,
            transcript: Lines::new(layout.channel.try_clone()?, TRANSCRIPT)?,
            channel: layout.channel.try_clone()?,
            inbox: layout.inbox.try_clone()?,
            staging: layout.incoming.try_clone()?,
        })
    }

    pub(super) fn append_log(&mut self, line: &str) -> io::Result<u64> {
        self.log.append(line)
    }

    pub(super) fn append_transcript(&mut self, line: &str) -> io::Result<()> {
        self.transcript.append(line).map(drop)
    }

    /// Copies the log and truncates it: it keeps its inode, so that `tail -f` follows.
    pub(super) fn rotate_log(&mut self, first_line: &str) -> io::Result<()> {
        let fresh = self.fresh()?;
        self.log.renew()?;
        let log = beneath::open_file(&self.inbox, LOG)?;
        io::copy(&mut File::from(log), &mut File::from(fresh))?;
        rustix::fs::renameat(&self.staging, FRESH, &self.inbox, OLD_LOG)?;
        self.log.file.set_len(0)?;
        self.log.append(first_line).map(drop)
    }

    pub(super) fn write_status(&mut self, json: &str) -> io::Result<()> {
        let mut file = File::from(self.fresh()?);
        file.write_all(json.as_bytes())?;
        if !json.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(rustix::fs::renameat(&self.staging, FRESH, &self.channel, STATUS)?)
    }

    /// An empty file in the staging directory, in place of one that an error left there.
    fn fresh(&self) -> io::Result<OwnedFd> {
        match rustix::fs::unlinkat(&self.staging, FRESH, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let file = beneath::create_file(self.staging.as_fd(), FRESH)?;
        rustix::fs::fchmod(&file, beneath::FILE_MODE)?;
        Ok(file)
    }
}

impl Lines {
    fn new(dir: OwnedFd, name: &'static str) -> io::Result<Self> {
        layout::write_new(&dir, name, "")?;
        let file = open(&dir, name)?;
        Ok(Self { dir, name, file })
    }

    /// Appends a line with one write and returns the file's size.
    fn append(&mut self, line: &str) -> io::Result<u64> {
        self.renew()?;
        let mut whole = String::with_capacity(line.len() + 1);
        whole.push_str(line);
        whole.push('\n');
        self.file.write_all(whole.as_bytes())?;
        Ok(self.file.metadata()?.size())
    }

    /// Opens what has the name now, where somebody removed, moved or replaced the file; makes it anew where nothing
    /// has it.
    fn renew(&mut self) -> io::Result<()> {
        let ours = rustix::fs::fstat(&self.file)?;
        match rustix::fs::statat(&self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) => return Ok(()),
            Ok(_) => {}
            Err(Errno::NOENT) => layout::write_new(&self.dir, self.name, "")?,
            Err(error) => return Err(error.into()),
        }
        self.file = open(&self.dir, self.name)?;
        Ok(())
    }
}

fn open(dir: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}
