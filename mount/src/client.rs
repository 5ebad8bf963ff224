//! What `send`, `flush` and `close` do from another process: they write files in the mailbox, nothing more.
//!
//! Owns the hidden names under which they write. Knows no channel but the directory it is given, and finds none.

pub mod stream;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;

use crate::dir::layout::{CTL, FLUSH, OUTBOX};
use crate::secret::SECRETS;
use crate::special::Special;
use crate::{MAX_TEXT, ignore, name};

/// How often at least a waiting flush asks whether the mailbox still lives.
const LIFE: Duration = Duration::from_millis(200);
/// Most names that a flush tells when its time is over.
const MAX_NAMES: usize = 100;
/// Longest answer to a flush, in bytes: [`crate::outbox::MAX_FAILED`] names of full length, escaped as JSON.
const MAX_ANSWER: u64 = 4 << 20;

/// Why something cannot be put into a mailbox.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// There is no mailbox at this path.
    #[error("{} is not the directory of a living channel; see `agent-wormhole status`", .0.display())]
    NoChannel(PathBuf),
    /// A text over [`MAX_TEXT`].
    #[error("a text has at most {MAX_TEXT} bytes, and this has {0}; send it as a file")]
    TooLong(usize),
    /// A name that is not sent, or cannot be.
    #[error("{name:?} cannot be sent under this name: {reason}; choose another with --name")]
    BadName {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file or directory of that name is in the outbox: it is not delivered yet, or was just now.
    #[error(
        "{0:?} is in the outbox already: on its way, or delivered and about to leave (a directory ten seconds after the last change \
         in it, if all of it is sent); wait until it has left, or choose another name with --name"
    )]
    Taken(String),
    /// What is to be sent cannot be found.
    #[error("{} cannot be sent: {source}", path.display())]
    Target {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No socket can be made for a stream.
    #[error("no socket can be made in {}: {source}; set XDG_RUNTIME_DIR to a directory of your own", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system said no.
    #[error("the mailbox at {} cannot be written: {source}", path.display())]
    Io {
        /// The channel's directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a flush did not end with everything stored.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The request could not be made.
    #[error(transparent)]
    Post(#[from] PostError),
    /// The peer has not stored these.
    #[error("not stored by the peer: {}; once that is no longer so, write them again", list(.failed, *.count))]
    NotStored {
        /// Names and reasons: at most [`crate::outbox::MAX_FAILED`].
        failed: Vec<(String, String)>,
        /// How many there are in all.
        count: usize,
    },
    /// The time is over.
    #[error("not confirmed in time, still in the outbox: {}; they are still being sent", .0.join(", "))]
    Late(Vec<String>),
    /// The channel ended before it answered.
    #[error("not confirmed: the channel ended; what was delivered is in its last event")]
    Ended,
}

fn list(failed: &[(String, String)], count: usize) -> String {
    let names: Vec<_> = failed.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
    let more = count.saturating_sub(failed.len());
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    names.join(", ") + &more
}

/// Puts a text into the outbox of the channel at `channel`, and returns its name there. Names sort by time.
///
/// # Errors
/// [`PostError`], and nothing was put there.
pub fn post_text(channel: &Path, body: &str) -> Result<String, PostError> {
    if body.len() as u64 > MAX_TEXT {
        return Err(PostError::TooLong(body.len()));
    }
    let outbox = outbox_of(channel)?;
    let unique = unique();
    let (hidden, name) = (outbox.join(hidden(&unique)), format!("{unique}.msg"));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&hidden)
        .and_then(|mut file| file.write_all(body.as_bytes()))
        .and_then(|()| fs::rename(&hidden, outbox.join(&name)));
    written.map_err(|error| {
        // It may not be there at all.
        let _ = fs::remove_file(&hidden);
        failed(channel, error)
    })?;
    Ok(name)
}

/// Whether something can be sent under this name.
///
/// # Errors
/// [`PostError::BadName`].
pub fn check_name(name: &str) -> Result<(), PostError> {
    let bad = |reason: &str| PostError::BadName { name: name.to_owned(), reason: reason.to_owned() };
    if name.is_empty()
        || name == "."
        || name == ".."
        || name.contains(['/', '\0'])
        || name.len() > name::MAX_PART
    {
        return Err(bad("it is not one part of a path"));
    }
    match ignore::part(name, true) {
        Some(reason) => Err(bad(reason)),
        None => Ok(()),
    }
}

/// Whether a file or directory can be put there by [`post_link`]; returns its absolute path.
///
/// # Errors
/// [`PostError::BadName`] and [`PostError::Target`].
pub fn check_link(target: &Path, name: &str) -> Result<PathBuf, PostError> {
    check_name(name)?;
    let no_target = |source| PostError::Target { path: target.to_owned(), source };
    let target = std::path::absolute(target).map_err(no_target)?;
    let kind = fs::metadata(&target).map_err(no_target)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(no_target(io::Error::other("it is neither a file nor a directory")));
    }
    Ok(target)
}

/// Puts a link to a file or directory into the outbox under `name`: it is sent by reference. An older link of that
/// name is replaced.
///
/// # Errors
/// [`PostError`], and nothing was put there.
pub fn post_link(channel: &Path, target: &Path, name: &str) -> Result<(), PostError> {
    let outbox = outbox_of(channel)?;
    let target = check_link(target, name)?;
    let (hidden, place) = (outbox.join(hidden(&unique())), outbox.join(name));
    std::os::unix::fs::symlink(&target, &hidden).map_err(|error| failed(channel, error))?;
    let placed = match crate::dir::rename_new(&hidden, &place) {
        Err(Errno::EXIST) if is_replaced(&place) => {
            fs::rename(&hidden, &place).map_err(|error| failed(channel, error))
        }
        Err(Errno::EXIST) => Err(PostError::Taken(name.to_owned())),
        result => result.map_err(|error| failed(channel, error.into())),
    };
    if placed.is_err() {
        // It may have been renamed after all.
        let _ = fs::remove_file(&hidden);
    }
    placed
}

/// Whether something has a name in the outbox that gives way to nothing else.
///
/// # Errors
/// [`PostError::Taken`], [`PostError::NoChannel`].
pub fn check_free(channel: &Path, name: &str) -> Result<(), PostError> {
    let place = outbox_of(channel)?.join(name);
    let taken = fs::symlink_metadata(&place).is_ok() && !is_replaced(&place);
    if taken { Err(PostError::Taken(name.to_owned())) } else { Ok(()) }
}

/// Whether what has a name in the outbox gives way to a link: an older link does, but no stream, whose writer would be
/// broken off.
fn is_replaced(place: &Path) -> bool {
    fs::read_link(place).is_ok_and(|target| !crate::stream::is_named(&target))
}

/// Asks the channel to close: after it has delivered what is in the outbox, or `now`.
///
/// # Errors
/// [`PostError`].
pub fn request_close(channel: &Path, now: bool) -> Result<(), PostError> {
    let word: &[u8] = if now { b"close now\n" } else { b"close\n" };
    let written = OpenOptions::new().write(true).truncate(true).open(channel.join(CTL));
    written.and_then(|mut ctl| ctl.write_all(word)).map_err(|error| failed(channel, error))
}

/// Waits until everything that was complete in the outbox when this was called is stored by the peer, also what is
/// still settling, but not what somebody is still writing. `alive` says whether the mailbox's process lives; it is
/// asked five times a second.
///
/// # Errors
/// [`FlushError`].
pub fn flush(channel: &Path, deadline: Instant, alive: &dyn Fn() -> bool) -> Result<(), FlushError> {
    let outbox = outbox_of(channel)?;
    let dir = channel.join(FLUSH);
    let (changed, changes) = mpsc::channel();
    // Where no watch can be had, the answer is looked for as often as the mailbox's life.
    let _watcher = watch(&dir, changed.clone()).ok();
    let mut request = Request::make(&dir).map_err(|error| failed(channel, error))?;
    loop {
        // The request stays readable when the mailbox and its directory are gone.
        match request.answer() {
            Ok(Some(answer)) => return answer,
            Ok(None) => {}
            Err(error) if is_unmounted(&error) => return Err(FlushError::Ended),
            Err(error) => return Err(failed(channel, error).into()),
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(FlushError::Late(waiting(&outbox)));
        }
        let woken = changes.recv_timeout(LIFE.min(deadline - now));
        match woken {
            _ if request.is_removed() || (woken.is_err() && !alive()) => {
                // Its last act may have been to answer.
                return request.answer().ok().flatten().unwrap_or(Err(FlushError::Ended));
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Tells of everything that happens in a directory, until it is dropped.
fn watch(dir: &Path, changed: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let tell = move |_| {
        // Who waited may be done.
        let _ = changed.send(());
    };
    let mut watcher = RecommendedWatcher::new(tell, notify::Config::default())?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// A request file, which the mailbox writes its answer into. Dropping it removes it.
struct Request {
    path: PathBuf,
    file: File,
}

impl Request {
    fn make(dir: &Path) -> io::Result<Self> {
        let path = dir.join(unique());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    /// Whether the mailbox was taken away with its directory.
    fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.nlink() == 0)
    }

    /// The answer, once its line is whole.
    fn answer(&mut self) -> io::Result<Option<Result<(), FlushError>>> {
        let mut line = String::new();
        self.file.rewind()?;
        (&self.file).take(MAX_ANSWER).read_to_string(&mut line)?;
        let Some(line) = line.strip_suffix('\n') else { return Ok(None) };
        let answer: serde_json::Value = serde_json::from_str(line)?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let pair = |value: &serde_json::Value| (text(&value[0]), text(&value[1]));
        let failed: Vec<_> = answer["failed"].as_array().into_iter().flatten().map(pair).collect();
        let count = answer["failed_count"].as_u64().and_then(|count| usize::try_from(count).ok());
        Ok(Some(match count {
            Some(0) => Ok(()),
            count => Err(FlushError::NotStored { count: count.unwrap_or(failed.len()), failed }),
        }))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // It is gone with its channel, or goes with it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Names at the top of the outbox, and in the directories of ours there, that would be sent.
fn waiting(outbox: &Path) -> Vec<String> {
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let names = |dir: &Path| list(dir).map(|entry| name::escape(Path::new(&entry.file_name())));
    // In a real directory that of secrets is a file, with nothing below it.
    let ours = || Special::ALL.map(Special::as_str).into_iter().chain([SECRETS]);
    let top = names(outbox).filter(|name| !ours().any(|dir| dir == name));
    let below = ours().flat_map(|dir| names(&outbox.join(dir)).map(move |name| format!("{dir}/{name}")));
    top.chain(below).filter(|name| ignore::path(name).is_none()).take(MAX_NAMES).collect()
}

fn outbox_of(channel: &Path) -> Result<PathBuf, PostError> {
    let outbox = channel.join(OUTBOX);
    if outbox.is_dir() { Ok(outbox) } else { Err(PostError::NoChannel(channel.to_owned())) }
}

fn failed(channel: &Path, source: io::Error) -> PostError {
    if source.kind() == io::ErrorKind::NotFound || is_unmounted(&source) {
        return PostError::NoChannel(channel.to_owned());
    }
    PostError::Io { path: channel.to_owned(), source }
}

/// Whether nobody answers for a mount any more.
fn is_unmounted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTCONN | Errno::CONNABORTED))
}

/// A name that no other post has, on this machine; sorts by time.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:010}-{:09}-{}-{count}", now.as_secs(), now.subsec_nanos(), std::process::id())
}

/// The name under which something is made before it is renamed: not sent, for its dot.
fn hidden(unique: &str) -> String {
    format!(".post-{unique}")
}
