//! A stream from another process into a channel: what comes from a pipe is handed on as it comes, and stored nowhere on
//! this side.
//!
//! Owns the socket that the mailbox connects to, the link to it in the outbox, and the end that writes; what is said is
//! in `mount/src/stream.rs`. One thread, one loop around `poll`: whatever happens on the other side is noticed at once, also
//! while the pipe is silent. Until the mailbox has connected, dropping a [`Stream`] takes everything away again;
//! afterwards the end of the connection says it all, however this process ends.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use super::{PostError, check_name, failed, hidden, outbox_of, unique};
use crate::outbox::NO_RECEIPTS;
use crate::stream::{GREETING, HELLO, MAX_FRAME, MAX_LINE, PREFIX, Word, is_own};

/// How often the link is looked for while nobody has connected.
const LOOK: Duration = Duration::from_millis(500);
/// After this long without a connection a person is told.
const HINT: Duration = Duration::from_secs(1);
/// After the end of the input an interruption is waited for as long: Ctrl-C ends the writer of a pipe and this process
/// at once, and what the writer left unfinished must not count as whole.
const GRACE: Duration = Duration::from_millis(50);
/// A socket that nobody listens on is removed when it is this old: a younger one may be in the making.
const STALE: Duration = Duration::from_secs(60);
/// Longest path of a socket that every system takes, in bytes.
const MAX_SOCKET_PATH: usize = 100;

/// Why a stream did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The input cannot be read.
    #[error("standard input cannot be read: {0}; nothing of it was kept, send it again")]
    Input(io::Error),
    /// Somebody interrupted it.
    #[error("interrupted; nothing of it was kept")]
    Interrupted,
    /// Somebody interrupted it when the channel had all of it.
    #[error("interrupted; the channel has all of it and is still sending it")]
    Left,
    /// The time was over before the channel had all of it.
    #[error("not sent in time; nothing of it was kept, send it again with a longer --timeout")]
    Late,
    /// The time was over before the peer had stored it.
    #[error("not confirmed in time; the channel has all of it and is still sending it")]
    Unconfirmed,
    /// Its link was taken out of the outbox.
    #[error("it was taken out of outbox/ before the peer had it; nothing of it was kept")]
    Cancelled,
    /// It was not taken.
    #[error("not stored by the peer: {0}; nothing of it was kept")]
    Refused(String),
    /// The channel closed, or its process died.
    #[error(
        "the channel ended before the peer had it; nothing of it was kept, open a new channel and send it again"
    )]
    Ended,
    /// The channel closed, or its process died, when it had all of it.
    #[error("the channel ended before the peer had confirmed it; ask the other end whether it arrived")]
    Unknown,
    /// The system said no.
    #[error("the stream cannot be handed to the channel: {0}")]
    Io(#[from] io::Error),
}

/// How a stream is sent.
pub struct Sending<'a> {
    /// Readable as soon as it is to be broken off.
    pub interrupt: BorrowedFd<'a>,
    /// When it is given up.
    pub deadline: Option<Instant>,
    /// Whether to wait until the peer has stored it, not only until the channel has all of it.
    pub wait: bool,
    /// Told once where the channel does not take it at once.
    pub waiting: &'a mut dyn FnMut(),
}

/// A stream whose link is in an outbox.
pub struct Stream {
    listener: UnixListener,
    socket: Removed,
    link: Removed,
}

/// A path that is removed when this is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // It may have left by itself.
        let _ = fs::remove_file(&self.0);
    }
}

/// Puts a stream into the outbox of the channel at `channel`, under a name that must be free there. `private` is a
/// directory that only this user can enter, outside of the mailbox: the socket is made there.
///
/// # Errors
/// [`PostError`], and nothing was put there.
pub fn post_stream(channel: &Path, private: &Path, name: &str) -> Result<Stream, PostError> {
    check_name(name)?;
    let outbox = outbox_of(channel)?;
    sweep(private);
    let unique = unique();
    let (listener, socket) = listen(private, &format!("{PREFIX}{unique}"))
        .map_err(|source| PostError::Socket { path: private.to_owned(), source })?;
    let (hidden, place) = (outbox.join(hidden(&unique)), outbox.join(name));
    std::os::unix::fs::symlink(&socket.0, &hidden).map_err(|error| failed(channel, error))?;
    let hidden = Removed(hidden);
    match crate::dir::rename_new(&hidden.0, &place) {
        Ok(()) => {
            std::mem::forget(hidden);
            Ok(Stream { listener, socket, link: Removed(place) })
        }
        Err(Errno::EXIST) => Err(PostError::Taken(name.to_owned())),
        Err(error) => Err(failed(channel, error.into())),
    }
}

fn listen(private: &Path, name: &str) -> io::Result<(UnixListener, Removed)> {
    let path = private.join(name);
    let socket = Removed(path.clone());
    // A socket's address is short; the directory may be named by its descriptor instead.
    let listener = if path.as_os_str().len() > MAX_SOCKET_PATH && cfg!(target_os = "linux") {
        let dir = fs::File::open(private)?;
        UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?
    } else {
        UnixListener::bind(&path)?
    };
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok((listener, socket))
}

/// Removes sockets whose writers were killed before anybody had connected.
fn sweep(private: &Path) {
    for entry in fs::read_dir(private).into_iter().flatten().flatten() {
        let is_old = || {
            let made = entry.metadata().and_then(|about| about.modified());
            made.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > STALE))
        };
        let is_stream = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // A writer that lives takes this for a reader that changed its mind.
        let is_dead = || {
            let connected = UnixStream::connect(entry.path());
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if is_stream && is_old() && is_dead() {
            // Another one may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Stream {
    /// Hands `input` on, to its end. Returns when the channel has all of it, or where it is to wait, when the peer does.
    ///
    /// # Errors
    /// [`StreamError`]; but for [`StreamError::Unconfirmed`], [`StreamError::Left`] and [`StreamError::Unknown`] the peer
    /// has nothing of it.
    pub fn send(self, input: &mut (impl Read + AsFd), sending: Sending<'_>) -> Result<(), StreamError> {
        let Sending { interrupt, deadline, wait, waiting } = sending;
        let socket = self.connected(interrupt, deadline, waiting)?;
        // The link is the mailbox's from here on, and nobody else can connect.
        let Self { listener, socket: path, link } = self;
        drop((listener, path));
        std::mem::forget(link);
        let mut pump = Pump {
            socket,
            frame: Vec::with_capacity(MAX_FRAME + 4),
            sent: 0,
            words: Vec::new(),
            input: Input::Open,
            taken: Taken::No,
        };
        pump.run(input, (interrupt, deadline), wait)
    }

    /// Waits for the mailbox.
    fn connected(
        &self,
        interrupt: BorrowedFd<'_>,
        deadline: Option<Instant>,
        waiting: &mut dyn FnMut(),
    ) -> Result<UnixStream, StreamError> {
        let mut hint = Some(Instant::now() + HINT);
        loop {
            match self.listener.accept() {
                // Whoever it is, if it is not the mailbox, another one may come.
                Ok((socket, _)) => match greet(&socket) {
                    Ok(()) => return Ok(socket),
                    Err(error) => tracing::debug!(%error, "somebody connected who is no mailbox"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if fs::symlink_metadata(&self.link.0).is_err() {
                        let outbox = self.link.0.parent().is_some_and(Path::is_dir);
                        return Err(if outbox { StreamError::Cancelled } else { StreamError::Ended });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            if deadline.is_some_and(|at| at <= now) {
                return Err(StreamError::Late);
            }
            if hint.is_some_and(|at| at <= now) {
                hint = None;
                waiting();
            }
            let until = deadline.into_iter().chain(hint).chain([now + LOOK]).min();
            let mut fds =
                [PollFd::new(&interrupt, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            wait_for(&mut fds, until)?;
            if !fds[0].revents().is_empty() {
                return Err(StreamError::Interrupted);
            }
        }
    }
}

/// Makes sure that who connected is the mailbox.
fn greet(socket: &UnixStream) -> io::Result<()> {
    if !is_own(socket) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(GREETING))?;
    let mut hello = HELLO;
    let mut end = socket;
    end.read_exact(&mut hello)?;
    if hello != HELLO {
        return Err(io::ErrorKind::InvalidData.into());
    }
    end.write_all(&HELLO)?;
    let go = Word::Go.line();
    let mut said = vec![0; go.len()];
    end.read_exact(&mut said)?;
    if said != go.as_bytes() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    socket.set_nonblocking(true)
}

fn wait_for(fds: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<()> {
    let left = until.map(|at| at.saturating_duration_since(Instant::now()));
    // A time that no clock reaches is none.
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, left.as_ref()) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            // What was asked for is looked at; nothing is known of it.
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether it is readable by now: what this process was stopped for, or was too busy to see, comes before the time.
fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())))?;
    Ok(!fds[0].revents().is_empty())
}

/// How far the input is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// It has ended; it counts as whole then.
    Ended(Instant),
    /// The end is in the last frame.
    Told,
    /// Nobody takes more of it.
    Unwanted,
}

/// How much of it the channel has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    No,
    Whole,
}

/// From the input to the socket, one frame at a time.
struct Pump {
    socket: UnixStream,
    /// The frame on its way; empty where there is none.
    frame: Vec<u8>,
    /// Bytes of it that have left.
    sent: usize,
    /// What the mailbox said, up to a line that is not whole.
    words: Vec<u8>,
    input: Input,
    taken: Taken,
}

impl Pump {
    fn run(
        &mut self,
        input: &mut (impl Read + AsFd),
        (interrupt, deadline): (BorrowedFd<'_>, Option<Instant>),
        wait: bool,
    ) -> Result<(), StreamError> {
        loop {
            let writes = !self.frame.is_empty();
            let reads = !writes && self.input == Input::Open;
            let grace = if let Input::Ended(at) = self.input { Some(at) } else { None };
            let of_socket = if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let of_input = if reads { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = [
                PollFd::new(&interrupt, PollFlags::IN),
                PollFd::new(&self.socket, of_socket),
                PollFd::new(input, of_input),
            ];
            // A pipe whose writer has gone is always ready: it is asked only when it may be read.
            let asked = if reads { &mut fds[..] } else { &mut fds[..2] };
            wait_for(asked, deadline.into_iter().chain(grace).min())?;
            let [interrupted, spoken, readable] = fds.each_ref().map(PollFd::revents);
            if !interrupted.is_empty() {
                return self.give_up(wait, StreamError::Interrupted, StreamError::Left);
            }
            if spoken.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                && let Some(done) = self.listen(wait)
            {
                return done;
            }
            let now = Instant::now();
            if deadline.is_some_and(|at| at <= now) {
                return self.give_up(wait, StreamError::Late, StreamError::Unconfirmed);
            }
            if grace.is_some_and(|at| at <= now) {
                if is_readable(interrupt)? {
                    continue;
                }
                self.input = Input::Told;
                self.frame.extend([0; 4]);
            }
            if reads && !readable.is_empty() {
                self.read(input)?;
            }
            self.write()?;
        }
    }

    /// Breaks off: `whole` where the mailbox has all of it by now, else `part`.
    fn give_up(&mut self, wait: bool, part: StreamError, whole: StreamError) -> Result<(), StreamError> {
        // From here on the mailbox cannot say that it has all of it, and takes a stream to which it cannot for half of
        // one. What it said before can still be read.
        let _ = self.socket.shutdown(Shutdown::Both);
        match self.listen(wait) {
            Some(Ok(())) => Ok(()),
            Some(Err(StreamError::Refused(why))) => Err(StreamError::Refused(why)),
            _ if self.taken == Taken::Whole => Err(whole),
            _ => Err(part),
        }
    }

    fn read(&mut self, input: &mut impl Read) -> Result<(), StreamError> {
        self.frame.resize(MAX_FRAME + 4, 0);
        match input.read(&mut self.frame[4..]) {
            Ok(0) => {
                self.frame.clear();
                self.input = Input::Ended(Instant::now() + GRACE);
            }
            Ok(count) => {
                self.frame.truncate(count + 4);
                // At most MAX_FRAME.
                let length = u32::try_from(count).unwrap_or(u32::MAX);
                self.frame[..4].copy_from_slice(&length.to_be_bytes());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.frame.clear();
            }
            Err(error) => return Err(StreamError::Input(error)),
        }
        Ok(())
    }

    /// Writes as much as the mailbox takes.
    fn write(&mut self) -> Result<(), StreamError> {
        while self.sent < self.frame.len() {
            match self.socket.write(&self.frame[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
                {
                    // The mailbox wants no more: it says why, or it is gone.
                    self.input = Input::Unwanted;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.frame.clear();
        self.sent = 0;
        Ok(())
    }

    /// Takes what the mailbox says; the result where that ends it.
    fn listen(&mut self, wait: bool) -> Option<Result<(), StreamError>> {
        let mut buffer = [0; 1024];
        let ended = loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => self.words.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break true,
            }
            if self.words.len() > 2 * MAX_LINE {
                break true;
            }
        };
        while let Some(end) = self.words.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.words.drain(..=end).collect();
            let word = std::str::from_utf8(&line).ok().and_then(|line| Word::parse(line.trim_end()));
            match word {
                Some(Word::Whole) => {
                    self.taken = Taken::Whole;
                    if !wait {
                        return Some(Ok(()));
                    }
                }
                Some(Word::Delivered) => return Some(Ok(())),
                Some(Word::Sent) => return Some(Err(StreamError::Refused(NO_RECEIPTS.to_owned()))),
                Some(Word::Refused(why)) => return Some(Err(StreamError::Refused(why))),
                Some(Word::Cancelled) => return Some(Err(StreamError::Cancelled)),
                Some(Word::Closed) => return Some(Err(self.ended())),
                // Of a newer program.
                Some(Word::Go) | None => {}
            }
        }
        ended.then(|| Err(self.ended()))
    }

    /// The channel ended.
    const fn ended(&self) -> StreamError {
        match self.taken {
            Taken::No => StreamError::Ended,
            Taken::Whole => StreamError::Unknown,
        }
    }
}
