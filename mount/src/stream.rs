//! A stream: a link in the outbox whose target is the socket of a process that writes, and ends when that process says
//! so. Nothing of it is stored on this side.
//!
//! Owns what both ends of such a socket say, and the end that reads; [`crate::client::stream`] is the one that writes.
//! The mailbox connects and says [`HELLO`], the writer answers with the same, the mailbox says [`Word::Go`]. From then
//! on the writer sends frames (a length of four bytes, the highest first, and as many bytes, at most [`MAX_FRAME`]; a
//! frame without bytes is the honest end), and the mailbox says a line for each [`Word`]. A connection that closes
//! before the honest end means that its writer broke off.
//!
//! A socket and not a FIFO: its end tells whether the writer was done, both sides see whose process the other is, only
//! one reader can have it, and it has a way back for the answer.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::outbox::{Identity, Prepared, Ticket};
use crate::prepare::Taken;
use crate::{Content, EntryId, Hangup, Kind, Offer, Outcome, Source, SourceError};

/// How the name of a stream's socket begins. No other socket is connected to: that might wake a service.
pub(crate) const PREFIX: &str = "agent-wormhole-stream-";
/// What each end says first; the number rises with what follows.
pub(crate) const HELLO: [u8; 8] = *b"AWSTRM1\n";
/// Longest frame in bytes: what a pipe holds.
pub(crate) const MAX_FRAME: usize = 64 * 1024;
/// Longest line of a [`Word`] in bytes.
pub(crate) const MAX_LINE: usize = 4096;
/// How long either end waits for the other's greeting. A writer that is stopped is tried again later.
pub(crate) const GREETING: Duration = Duration::from_secs(2);
/// Streams of one outbox at once, each with a thread that reads it: of the 12 places that the protocol leaves for items
/// under way beside groups, files keep four. More wait their turn.
const MAX_STREAMS: usize = 8;

/// What the mailbox says to the writer of a stream, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// Frames may come.
    Go,
    /// All of it was taken; it is not yet delivered.
    Whole,
    /// The peer has stored it. This and what follows are last words.
    Delivered,
    /// It went to a peer that gives no receipts.
    Sent,
    /// It was not taken, and why.
    Refused(String),
    /// Its link was taken out of the outbox.
    Cancelled,
    /// The channel closed.
    Closed,
}

impl Word {
    /// Its line.
    pub(crate) fn line(&self) -> String {
        let mut line = match self {
            Self::Go => "go".to_owned(),
            Self::Whole => "whole".to_owned(),
            Self::Delivered => "delivered".to_owned(),
            Self::Sent => "sent".to_owned(),
            Self::Refused(why) => format!("refused {}", why.replace('\n', " ")),
            Self::Cancelled => "cancelled".to_owned(),
            Self::Closed => "closed".to_owned(),
        };
        line.truncate(line.floor_char_boundary(MAX_LINE - 1));
        line.push('\n');
        line
    }

    /// Reads a line without its end; `None` for a word of a newer program.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        Some(match line.split_once(' ').unwrap_or((line, "")) {
            ("go", "") => Self::Go,
            ("whole", "") => Self::Whole,
            ("delivered", "") => Self::Delivered,
            ("sent", "") => Self::Sent,
            ("refused", why) => Self::Refused(why.to_owned()),
            ("cancelled", "") => Self::Cancelled,
            ("closed", "") => Self::Closed,
            _ => return None,
        })
    }
}

impl From<&Outcome> for Word {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Delivered => Self::Delivered,
            Outcome::Sent => Self::Sent,
            Outcome::Refused(why) => Self::Refused(why.clone()),
            Outcome::Cancelled | Outcome::Changed | Outcome::BrokenOff => Self::Cancelled,
        }
    }
}

/// Whether the process at the other end is this user's.
pub(crate) fn is_own(socket: &UnixStream) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let us = rustix::process::geteuid();
        rustix::net::sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == us)
    }
    // Elsewhere the directory of the socket and its mode say who may connect.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        true
    }
}

/// A socket that a link leads to.
pub(crate) struct Socket {
    /// Leads to it and to nothing else.
    path: PathBuf,
    /// Keeps it what it is.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    _held: OwnedFd,
}

impl Socket {
    /// Takes a reference to a socket; `None` where it is none of a stream.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn new(found: OwnedFd) -> Option<Self> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        let stat = rustix::fs::fstat(&found).ok()?;
        let is_socket = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket;
        let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
        let named = is_named(&std::fs::read_link(&path).ok()?);
        (is_socket && is_ours && named).then_some(Self { path, _held: found })
    }

    /// Takes a path; `None` where there is no socket of a stream.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn at(path: &Path) -> Option<Self> {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let path = path.canonicalize().ok()?;
        let found = path.symlink_metadata().ok()?;
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        (found.file_type().is_socket() && is_ours && is_named(&path)).then_some(Self { path })
    }
}

/// Whether a path is that of a stream's socket, as far as its name says.
pub(crate) fn is_named(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

/// Why there is no stream.
enum NoStream {
    /// It may be there another time.
    Later,
    /// Its writer is gone, or has another reader.
    Dead,
    /// What answers is no writer of ours.
    Foreign,
}

/// The streams of one outbox from their first word to their last.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None` until it is connected.
    open: HashMap<EntryId, Option<Arc<UnixStream>>>,
    ended: bool,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The offer of a stream. `identity` is the link's. May wait for the writer's greeting.
    pub(crate) fn offer(&self, ticket: &Ticket, socket: &Socket, identity: Identity) -> Taken {
        {
            let mut inner = self.lock();
            if inner.ended || inner.open.len() >= MAX_STREAMS {
                return Err(Prepared::Changed(identity));
            }
            inner.open.insert(ticket.entry, None);
        }
        match connect(&socket.path) {
            Ok(connected) => {
                let connected = Arc::new(connected);
                self.lock().open.insert(ticket.entry, Some(Arc::clone(&connected)));
                let offer = Offer {
                    entry: ticket.entry,
                    kind: Kind::File,
                    name: ticket.path.to_string(),
                    size: None,
                    executable: false,
                    mtime: Some(SystemTime::now()),
                    content: Content::Stream(Box::new(Incoming { socket: connected, left: 0, ended: false })),
                };
                Ok((offer, identity))
            }
            Err(why) => {
                self.lock().open.remove(&ticket.entry);
                Err(match why {
                    NoStream::Later => Prepared::Changed(identity),
                    NoStream::Dead => {
                        Prepared::Spent("its writer had ended before the channel could take it".to_owned())
                    }
                    NoStream::Foreign => {
                        Prepared::LeftOut("the link leads to a socket that is no stream of yours".to_owned())
                    }
                })
            }
        }
    }

    /// Whether an entry is a stream.
    pub(crate) fn has(&self, entry: EntryId) -> bool {
        self.lock().open.contains_key(&entry)
    }

    /// Says the last word to the writer of a stream, once; nothing where the entry is none.
    pub(crate) fn tell(&self, entry: EntryId, word: &Word) {
        if let Some(Some(socket)) = self.lock().open.remove(&entry) {
            last_word(&socket, word);
        }
    }

    /// The mailbox closes.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        for socket in inner.open.drain().filter_map(|(_, socket)| socket) {
            last_word(&socket, &Word::Closed);
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.end();
    }
}

/// Never waits: the little that was said before leaves room for it.
fn say(socket: &UnixStream, word: &Word) -> rustix::io::Result<usize> {
    rustix::net::send(socket, word.line().as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

fn last_word(socket: &UnixStream, word: &Word) {
    // A writer that has gone wants to know nothing.
    let _ = say(socket, word);
    let _ = socket.shutdown(Shutdown::Both);
}

fn connect(path: &Path) -> Result<UnixStream, NoStream> {
    let mut socket = UnixStream::connect(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::CONNREFUSED | Errno::NOENT) => NoStream::Dead,
        Some(Errno::ACCESS | Errno::PERM | Errno::PROTOTYPE) => NoStream::Foreign,
        _ => NoStream::Later,
    })?;
    if !is_own(&socket) {
        return Err(NoStream::Foreign);
    }
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => NoStream::Later,
        _ => NoStream::Dead,
    };
    socket.set_read_timeout(Some(GREETING)).map_err(lost)?;
    socket.write_all(&HELLO).map_err(lost)?;
    let mut hello = HELLO;
    socket.read_exact(&mut hello).map_err(lost)?;
    if hello != HELLO {
        return Err(NoStream::Foreign);
    }
    say(&socket, &Word::Go).map_err(|_| NoStream::Dead)?;
    socket.set_read_timeout(None).map_err(lost)?;
    Ok(socket)
}

/// The frames of a stream as bytes.
struct Incoming {
    socket: Arc<UnixStream>,
    /// Bytes of the frame that were not read.
    left: usize,
    ended: bool,
}

impl Source for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
        if self.ended || buf.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut length = [0; 4];
            (&*self.socket).read_exact(&mut length).map_err(|_| SourceError::BrokenOff)?;
            self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if self.left > MAX_FRAME {
                return Err(SourceError::BrokenOff);
            }
            if self.left == 0 {
                // A writer that has gone before it could hear that has told its user that nothing was kept.
                say(&self.socket, &Word::Whole).map_err(|_| SourceError::BrokenOff)?;
                self.ended = true;
                return Ok(0);
            }
        }
        let most = self.left.min(buf.len());
        loop {
            match (&*self.socket).read(&mut buf[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return Err(SourceError::BrokenOff),
                Ok(count) => {
                    self.left -= count;
                    return Ok(count);
                }
            }
        }
    }

    fn hangup(&self) -> Option<Hangup> {
        let socket = Arc::clone(&self.socket);
        Some(Box::new(move || drop(socket.shutdown(Shutdown::Read))))
    }
}

#[cfg(test)]
mod tests;
