//! Where channels live on this machine, and which of them are alive.
//!
//! Owns the runtime directory, the default place of a channel's directory, and the list of channels that lets
//! `send 9471` find a directory anywhere. Does not look into a mailbox beyond recognising a dead one, and never holds
//! a secret word: what is stored here names the nameplate only.
//!
//! A channel is one file `channels/<nameplate>-<role>.json`. Its owner holds an exclusive `flock` on it for as long as
//! it lives, so alive means locked: a killed process leaves no lock, and a reused process id fools nobody. Of an end that
//! has ended a note stays for as long as another one of its number lives.

/// Ends that have ended while another one of their number lives.
mod ended;
/// Finding the one channel that is meant.
pub mod find;
mod leftover;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use agent_wormhole_mount::mounts;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::crypto::pake::Role;
use crate::event::TransportKind;
use crate::event::escape::shell_word;

/// Longest file of the list that is read, in bytes: two paths of at most 4 KiB, escaped, and a few words.
const MAX_ENTRY: u64 = 64 * 1024;
/// Random characters of the hidden name that an entry is written under.
const HIDDEN_NAME: usize = 16;
/// Channels with the same nameplate and role on one machine; beyond it a name is not looked for.
const MAX_SAME_NAME: u32 = 1000;

/// Why the runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RundirError {
    /// Nowhere to put it.
    #[error(
        "no directory for running channels can be made: {0}; set XDG_RUNTIME_DIR to a directory of your own"
    )]
    NoPlace(String),
    /// It is there, and somebody else could write into it.
    #[error("{} is not a directory that only you can enter; remove it, or run: chmod 700 {}", path.display(), shell_word(&path.to_string_lossy()))]
    Unsafe {
        /// Which.
        path: PathBuf,
    },
    /// The directory that was asked for holds something.
    #[error("{} is not empty; name a directory that is empty or does not exist", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// The directory that was asked for is a file or a link.
    #[error("{} is not a directory; name one that is empty or does not exist", path.display())]
    NotADirectory {
        /// Which.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("{} cannot be used: {source}; check who owns it, or set XDG_RUNTIME_DIR to a private directory", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl RundirError {
    /// Whether the caller asked for something that cannot be.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::NotEmpty { .. } | Self::NotADirectory { .. } => true,
            Self::NoPlace(_) | Self::Unsafe { .. } | Self::Io { .. } => false,
        }
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> RundirError {
    let path = path.to_owned();
    move |source| RundirError::Io { path, source }
}

/// The runtime directory: mode 0700, ours.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// The one of this user: `$XDG_RUNTIME_DIR/agent-wormhole`, else `agent-wormhole-<uid>` in `/dev/shm` or the
    /// directory for temporary files. Made where it is missing.
    ///
    /// # Errors
    /// [`RundirError`].
    pub fn open() -> Result<Self, RundirError> {
        Self::open_with(std::env::var_os("XDG_RUNTIME_DIR"), &[Path::new("/dev/shm"), &std::env::temp_dir()])
    }

    /// As [`open`](Self::open), with what it reads from the environment as arguments.
    fn open_with(xdg: Option<OsString>, others: &[&Path]) -> Result<Self, RundirError> {
        if let Some(xdg) = xdg.map(PathBuf::from).filter(|xdg| is_own_directory(xdg)) {
            return Self::at(&xdg.join("agent-wormhole"));
        }
        let name = format!("agent-wormhole-{}", rustix::process::geteuid().as_raw());
        let mut why = String::from("there is none");
        for base in others.iter().filter(|base| base.is_dir()) {
            match Self::at(&base.join(&name)) {
                Ok(found) => return Ok(found),
                Err(error) => why = error.to_string(),
            }
        }
        Err(RundirError::NoPlace(why))
    }

    /// The one at this path, made where it is missing.
    ///
    /// # Errors
    /// [`RundirError::Unsafe`] where it is a link, not ours, or open to others.
    pub fn at(path: &Path) -> Result<Self, RundirError> {
        make_private(path)?;
        // What is mounted in it stands in the mount table without links.
        let found = Self { path: path.canonicalize().map_err(io_at(path))? };
        make_private(&found.channels())?;
        Ok(found)
    }

    /// Its path. The local relay's socket and lock live here, too.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn channels(&self) -> PathBuf {
        self.path.join("channels")
    }

    /// Takes a name for a new channel, makes its directory (empty, mode 0700) and lists it until the
    /// [`Registration`] is dropped.
    ///
    /// # Errors
    /// [`RundirError`]; nothing is left behind then.
    pub fn register(&self, new: &NewChannel<'_>) -> Result<Registration, RundirError> {
        let role = new.role.as_str();
        for n in 1..=MAX_SAME_NAME {
            let id = if n == 1 {
                format!("{}-{role}", new.nameplate)
            } else {
                format!("{}-{role}.{n}", new.nameplate)
            };
            if let Some(registration) = self.register_as(&id, new)? {
                return Ok(registration);
            }
        }
        Err(RundirError::NoPlace(format!("{MAX_SAME_NAME} channels have the number {}", new.nameplate)))
    }

    /// `None` where the name is taken.
    fn register_as(&self, id: &str, new: &NewChannel<'_>) -> Result<Option<Registration>, RundirError> {
        let entry = self.channels().join(format!("{id}.json"));
        if entry.symlink_metadata().is_ok() {
            return Ok(None);
        }
        let (dir, mode_before) = match new.dir {
            Some(dir) => prepare_asked(dir)?,
            None => match make_new(&self.path.join(id)) {
                Ok(()) => (self.path.join(id), None),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                Err(error) => return Err(io_at(&self.path)(error)),
            },
        };
        // From here on what was made is taken away again unless the channel gets listed.
        let undo = Undo { dir: Some(dir.as_path()), mode_before };
        let record = Record {
            nameplate: new.nameplate.to_owned(),
            role: new.role.as_str().to_owned(),
            inode: dir.symlink_metadata().map_err(io_at(&dir))?.ino(),
            dir: dir.clone(),
            mode_before,
            pid: std::process::id(),
            cwd: new.cwd.to_owned(),
            started: crate::event::utc(new.started),
            transport: new.transport.as_str().to_owned(),
        };
        let Some(lock) = publish(&self.channels(), &entry, &record)? else { return Ok(None) };
        undo.forget();
        ended::forget(&self.channels(), &record);
        Ok(Some(Registration { record, entry, _lock: lock }))
    }

    /// Every channel of the list, alive or not, by nameplate.
    ///
    /// # Errors
    /// [`RundirError::Io`] where the list cannot be read.
    pub fn list(&self) -> Result<Vec<Channel>, RundirError> {
        let channels = self.channels();
        let mut found = Vec::new();
        for name in fs::read_dir(&channels).map_err(io_at(&channels))? {
            let name = name.map_err(io_at(&channels))?;
            // Not published yet.
            if name.file_name().as_bytes().starts_with(b".") {
                continue;
            }
            let Some((file, record)) = read_entry(&name.path()) else { continue };
            let alive = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err();
            found.extend(Channel::new(record, socket_of(&name.path()), alive));
        }
        found.sort_by(|a, b| (&a.nameplate, &a.dir).cmp(&(&b.nameplate, &b.dir)));
        Ok(found)
    }

    /// Takes away what dead owners left: their entries and their directories, and nothing that is not recognised as
    /// such. Cheap where there is nothing; called at the start of every command. What cannot be removed stays listed
    /// and is tried again next time. What was found is told.
    pub fn sweep(&self) -> Vec<Swept> {
        let mut found = Vec::new();
        let Ok(names) = fs::read_dir(self.channels()) else { return found };
        for name in names.flatten() {
            let path = name.path();
            if ended::is_note(&path) {
                continue;
            }
            let Some(file) = open_nofollow(&path) else { continue };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            // Another sweep may have removed the entry, and its name be taken anew, since it was opened.
            if !is_same_file(&file, &path) {
                continue;
            }
            // Half-written by a process that was killed there: it names nothing yet.
            let record = decode(&file);
            let left = record.as_ref().and_then(|record| record.remove().err());
            match (&left, &record) {
                (None, record) => unlist(&path, record.as_ref()),
                (Some(error), _) => {
                    tracing::warn!(%error, "a directory of a channel that died cannot be removed");
                }
            }
            found.extend(record.map(|record| Swept { dir: record.dir, owner: record.pid, left }));
        }
        ended::tidy(&self.channels());
        found
    }
}

/// What [`RuntimeDir::sweep`] found of a dead channel.
#[derive(Debug)]
pub struct Swept {
    /// Its directory.
    pub dir: PathBuf,
    /// The process that had it.
    pub owner: u32,
    /// Why it is still there; `None` where it is gone.
    pub left: Option<io::Error>,
}

/// What a new channel says about itself.
#[derive(Debug, Clone, Copy)]
pub struct NewChannel<'a> {
    /// The public part of the code.
    pub nameplate: &'a str,
    /// Which end this is.
    pub role: Role,
    /// The directory that was asked for; `None` is the default place.
    pub dir: Option<&'a Path>,
    /// Where the program was started.
    pub cwd: &'a Path,
    /// When.
    pub started: SystemTime,
    /// How its frames travel.
    pub transport: TransportKind,
}

/// What the list says about a channel, on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    nameplate: String,
    role: String,
    dir: PathBuf,
    /// Inode of `dir`: a directory that was put in its place is not ours to remove.
    inode: u64,
    /// Mode of `dir` where it was there before: such a directory stays. Absent where it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode_before: Option<u32>,
    pid: u32,
    cwd: PathBuf,
    started: String,
    transport: String,
}

impl Record {
    /// What a mount of the directory is called in the mount table, which everybody can read.
    fn source(&self) -> String {
        format!("agent-wormhole:{}-{}:{}", self.nameplate, self.role, self.pid)
    }

    /// Takes the directory away, and a mount that lies on it, if they are still ours.
    fn remove(&self) -> io::Result<()> {
        // Nothing is looked at below a mount whose owner is dead.
        mounts::detach(&self.dir, &self.source())?;
        // Another's is not looked at either: who serves it may be dead, too.
        if mounts::list()?.iter().any(|found| found.path == self.dir) {
            return Err(io::Error::other(format!("something else is mounted at {}", self.dir.display())));
        }
        leftover::remove(&self.dir, self.inode, self.mode_before)
    }
}

/// A channel of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The public part of the code.
    pub nameplate: String,
    /// Which end it is.
    pub role: Role,
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// Process of its owner.
    pub pid: u32,
    /// Where the owner was started.
    pub cwd: PathBuf,
    /// When the owner was started (UTC).
    pub started: String,
    /// `relay` or `direct`.
    pub transport: String,
    /// Where secrets are handed over.
    pub socket: PathBuf,
    /// Whether the owner lives.
    pub alive: bool,
}

impl Channel {
    /// `None` where a newer program wrote a role that this one does not know.
    fn new(record: Record, socket: PathBuf, alive: bool) -> Option<Self> {
        let Record { nameplate, role, dir, pid, cwd, started, transport, inode: _, mode_before: _ } = record;
        let role = [Role::Host, Role::Peer].into_iter().find(|known| known.as_str() == role)?;
        Some(Self { nameplate, role, dir, pid, cwd, started, transport, socket, alive })
    }
}

/// A channel's place in the list. Dropping it takes the channel off the list, and its directory away where the
/// mailbox has not done so; one that was there before stays, empty and with its old mode.
#[derive(Debug)]
pub struct Registration {
    record: Record,
    entry: PathBuf,
    /// Held for the life of the channel: alive means locked.
    _lock: File,
}

impl Registration {
    /// The channel's directory, absolute. It exists, is empty, and has mode 0700.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.record.dir
    }

    /// Where the channel's process hands secrets over: nothing is there yet, and what is goes with this.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_of(&self.entry)
    }

    /// What a mount of that directory is called in the mount table: no other channel's is.
    #[must_use]
    pub fn source(&self) -> String {
        self.record.source()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        match self.record.remove() {
            Ok(()) => {
                unlist(&self.entry, Some(&self.record));
                // Of two that end at once the later one sees that nobody is left.
                if let Some(channels) = self.entry.parent() {
                    ended::tidy(channels);
                }
            }
            // It stays listed, and the next command tries again.
            Err(error) => tracing::warn!(%error, "the channel's directory cannot be removed"),
        }
    }
}

/// The socket of the channel with this entry.
fn socket_of(entry: &Path) -> PathBuf {
    entry.with_extension("sock")
}

/// Removes an entry, its socket before it: without the entry nobody would look for that. The end is noted where that has
/// a meaning.
fn unlist(entry: &Path, record: Option<&Record>) {
    if let Some(record) = record {
        ended::note(entry, record);
    }
    let _ = fs::remove_file(socket_of(entry));
    let _ = fs::remove_file(entry);
}

/// Removes a directory that was made, or gives one that was taken its mode back, unless told to forget it.
struct Undo<'a> {
    dir: Option<&'a Path>,
    mode_before: Option<u32>,
}

impl Undo<'_> {
    fn forget(mut self) {
        self.dir = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // What fails is not ours any more: then it has to stay as it is.
        let _ = match (self.dir, self.mode_before) {
            (Some(dir), None) => fs::remove_dir(dir),
            (Some(dir), Some(mode)) => fs::set_permissions(dir, fs::Permissions::from_mode(mode)),
            (None, _) => Ok(()),
        };
    }
}

/// Writes the entry under a hidden name, locks it, and only then gives it its name: whoever sees it sees it whole and
/// locked. `None` where the name is taken.
fn publish(channels: &Path, entry: &Path, record: &Record) -> Result<Option<File>, RundirError> {
    let json = serde_json::to_vec(record).map_err(|error| io_at(entry)(io::Error::other(error)))?;
    // A sweep that comes between creation and lock takes the hidden file for a dead one: try again.
    for _ in 0..10 {
        // A random name: one that comes again could be another's by the time it is published.
        let mut hidden = tempfile::Builder::new()
            .prefix(".new-")
            .rand_bytes(HIDDEN_NAME)
            .tempfile_in(channels)
            .map_err(io_at(channels))?;
        let published = rustix::fs::flock(&hidden, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| hidden.write_all(&json))
            .and_then(|()| hidden.persist_noclobber(entry).map_err(|error| error.error));
        match published {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(io_at(entry)(error)),
        }
    }
    Err(io_at(entry)(io::ErrorKind::ResourceBusy.into()))
}

/// A directory of ours that nobody else can write into.
fn is_own_directory(path: &Path) -> bool {
    path.is_absolute()
        && path.metadata().is_ok_and(|found| {
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0
        })
}

fn make_new(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Makes a directory that only its owner can enter, or checks the one that is there. Follows no link.
fn make_private(path: &Path) -> Result<(), RundirError> {
    match make_new(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_at(path)(error)),
    }
    let found = path.symlink_metadata().map_err(io_at(path))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if found.is_dir() && ours && found.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(RundirError::Unsafe { path: path.to_owned() })
    }
}

/// The directory that was asked for with `--dir`, and its mode where it was there before: then it must be empty. Ours
/// alone from now on.
fn prepare_asked(asked: &Path) -> Result<(PathBuf, Option<u32>), RundirError> {
    let mode_before = match asked.symlink_metadata() {
        Ok(found) if !found.is_dir() => return Err(RundirError::NotADirectory { path: asked.to_owned() }),
        Ok(found) => {
            if fs::read_dir(asked).map_err(io_at(asked))?.next().is_some() {
                return Err(RundirError::NotEmpty { path: asked.to_owned() });
            }
            fs::set_permissions(asked, fs::Permissions::from_mode(0o700)).map_err(io_at(asked))?;
            Some(found.mode() & 0o7777)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = asked.parent() {
                fs::create_dir_all(parent).map_err(io_at(parent))?;
            }
            make_new(asked).map_err(io_at(asked))?;
            None
        }
        Err(error) => return Err(io_at(asked)(error)),
    };
    Ok((asked.canonicalize().map_err(io_at(asked))?, mode_before))
}

fn open_nofollow(path: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).ok()
}

fn read_entry(path: &Path) -> Option<(File, Record)> {
    let file = open_nofollow(path)?;
    let record = decode(&file)?;
    Some((file, record))
}

fn decode(file: &File) -> Option<Record> {
    let mut json = Vec::new();
    file.take(MAX_ENTRY).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
