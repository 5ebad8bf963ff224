//! A linked directory, walked as it is sent: a directory before what is in it, one handle for each level.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use crate::beneath::{self, identity, place};
use crate::name::{MAX_DEPTH, MAX_PATH};
use crate::reference::Own;
use crate::source::{OpenFile, time};
use crate::{Content, Kind, LeftOut, Member, SourceError, Tree, ignore, name};

/// Most names of a group that are reported as left out between two calls; how many more there are is told.
const MAX_LEFT_OUT: usize = 1000;
const OWN: &str = "it is this channel's own directory";

/// The walk: its open directories, outermost first, and the directory it must not enter.
pub(crate) struct Linked {
    levels: Vec<Level>,
    /// The channel's own mount.
    device: Option<u64>,
    /// The channel's own directory: device and inode.
    place: Option<(u64, u64)>,
    left_out: Vec<LeftOut>,
    more_left_out: usize,
}

/// One open directory and its name relative to the group, with a `/` at its end; empty for the group itself.
struct Level {
    dir: Dir,
    prefix: String,
}

impl Linked {
    /// Begins at an open directory.
    pub(crate) fn new(dir: OwnedFd, own: &Own) -> Result<Self, Errno> {
        let levels = vec![Level { dir: Dir::new(dir)?, prefix: String::new() }];
        Ok(Self { levels, device: own.device, place: own.place, left_out: Vec::new(), more_left_out: 0 })
    }

    fn leave_out(&mut self, name: String, reason: impl Into<String>) {
        if self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(LeftOut { name, reason: reason.into() });
        } else {
            self.more_left_out += 1;
        }
    }

    /// The member at a name in the innermost directory; `None` where it is not sent.
    fn member(&mut self, part: &str) -> Result<Option<Member>, SourceError> {
        let Some(level) = self.levels.last() else { return Ok(None) };
        let name = format!("{}{part}", level.prefix);
        if let Some(reason) = ignore::part(part, false) {
            self.leave_out(name, reason);
            return Ok(None);
        }
        if name.len() > MAX_PATH || self.levels.len() > MAX_DEPTH {
            self.leave_out(name, "its path is too long or too deep; pack it with tar");
            return Ok(None);
        }
        let dir = level.dir.fd().map_err(std::io::Error::from)?;
        // Before anything else: a look at our own mount is a request to ourselves.
        if self.device.is_some() {
            match beneath::device(dir, part) {
                Ok(device) if Some(device) == self.device => {
                    self.leave_out(name, OWN);
                    return Ok(None);
                }
                Ok(_) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
        let kind = match beneath::look(dir, part) {
            Ok((kind, _)) => kind,
            // It was removed since it was listed.
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(std::io::Error::from(error).into()),
        };
        let opened = match kind {
            FileType::RegularFile => beneath::open_file(dir, part),
            FileType::Directory => beneath::open_dir(dir, part),
            FileType::Symlink => {
                self.leave_out(name, "a link inside a directory is not followed");
                return Ok(None);
            }
            _ => {
                self.leave_out(name, "devices, FIFOs and sockets cannot be sent");
                return Ok(None);
            }
        };
        match opened {
            Ok(file) if kind == FileType::Directory => self.enter(name, file),
            Ok(file) => file_member(name, file).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::ACCESS | Errno::PERM) => {
                self.leave_out(name, "it cannot be read");
                Ok(None)
            }
            // It became something else since it was looked at.
            Err(Errno::LOOP | Errno::NOTDIR) => Err(SourceError::Changed),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }

    fn enter(&mut self, name: String, dir: OwnedFd) -> Result<Option<Member>, SourceError> {
        let stat = rustix::fs::fstat(&dir).map_err(std::io::Error::from)?;
        if Some(place(&stat)) == self.place {
            self.leave_out(name, OWN);
            return Ok(None);
        }
        let dir = Dir::new(dir).map_err(std::io::Error::from)?;
        self.levels.push(Level { dir, prefix: format!("{name}/") });
        Ok(Some(Member {
            kind: Kind::Dir,
            name,
            size: None,
            executable: false,
            mtime: time(identity(&stat).mtime),
            content: Content::None,
        }))
    }
}

fn file_member(name: String, file: OwnedFd) -> Result<Member, SourceError> {
    let Some(open) = OpenFile::new(file)? else { return Err(SourceError::Changed) };
    let (size, executable, mtime) = (Some(open.identity.size), open.executable, open.mtime());
    Ok(Member { kind: Kind::File, name, size, executable, mtime, content: open.content()? })
}

impl Tree for Linked {
    fn next(&mut self) -> Result<Option<Member>, SourceError> {
        while let Some(level) = self.levels.last_mut() {
            let Some(entry) = level.dir.read() else {
                self.levels.pop();
                continue;
            };
            let entry = entry.map_err(std::io::Error::from)?;
            let member = match entry.file_name().to_str() {
                Ok("." | "..") => None,
                Ok(part) => self.member(part)?,
                Err(_) => {
                    use std::os::unix::ffi::OsStrExt as _;
                    let part = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
                    let escaped = format!("{}{}", level.prefix, name::escape(part.as_ref()));
                    self.leave_out(escaped, "its name is not UTF-8; rename it");
                    None
                }
            };
            if member.is_some() {
                return Ok(member);
            }
        }
        Ok(None)
    }

    fn left_out(&mut self) -> Vec<LeftOut> {
        let mut left_out = std::mem::take(&mut self.left_out);
        let more = std::mem::take(&mut self.more_left_out);
        if more > 0 {
            left_out
                .push(LeftOut { name: "…".to_owned(), reason: format!("{more} more names were left out") });
        }
        left_out
    }
}
