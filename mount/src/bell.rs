//! The bell: a small process that touches the mount for its owner.
//!
//! The kernel raises inotify events only for operations that come through a mount, and the process that serves a mount
//! must never use it: it would wait for itself. So a child makes arrivals appear, appends to logs and removes what left,
//! told so over a socket. At the end of the socket, however the owner ended, it detaches the mount and ends.
//!
//! Owns the child, what is said to it, and that there always is one. Decides nothing about a mailbox.
//!
//! The child inherits nothing: every descriptor of the owner is close-on-exec (`/dev/fuse`, too), it closes what it
//! finds all the same, and it lives in a session of its own in `/` with `/dev/null` as standard output and error. It
//! ignores INT, TERM, HUP and PIPE.
//!
//! **No call of [`Bell`] may be made on a thread that serves the mount**, except [`Bell::pid`]: the child waits for that
//! thread's answers.

mod child;
mod process;
mod protocol;
mod root;
mod tree;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

pub use child::close_others;
pub use process::Options;
use process::Process;
use protocol::Command;

use crate::mounts;

/// How long a reply is waited for. The mount's server answers in well under a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the reply to the last command is waited for: `fusermount3` has 5 s of it.
const LAST_PATIENCE: Duration = Duration::from_secs(6);
/// How long a bell that said its last word may take to end.
const END: Duration = Duration::from_secs(1);
/// Restarts within [`RESTARTS_WITHIN`]: a bell that cannot live is not tried for ever.
const MAX_RESTARTS: usize = 5;
/// See [`MAX_RESTARTS`].
const RESTARTS_WITHIN: Duration = Duration::from_secs(10);
/// Parts of one removal, of a quarter of a second each: a minute. Somebody who writes as fast ends it so.
const MAX_PARTS: usize = 240;
/// Bytes of a frame's buffer that are kept between commands.
const KEPT: usize = 64 * 1024;

/// The bell's whole life, in a process that was started for it by [`Bell::start`] and has done nothing before: every
/// descriptor but the standard ones is closed.
#[must_use]
pub fn run() -> ExitCode {
    child::run()
}

/// Why something was not done, or not known to be done.
#[derive(Debug, thiserror::Error)]
pub enum BellError {
    /// The file system said no.
    #[error("the mailbox's file system says: {0}")]
    Errno(Errno),
    /// The bell died or was silent for too long: it may have been done or not. Another one takes over where that is
    /// possible.
    #[error("the process that writes into the mailbox is gone: {0}")]
    Gone(#[source] io::Error),
    /// The mount has been detached.
    #[error("the mailbox is closed")]
    Closed,
}

impl From<BellError> for io::Error {
    fn from(error: BellError) -> Self {
        match error {
            BellError::Errno(errno) => errno.into(),
            BellError::Gone(error) => error,
            BellError::Closed => Self::from(io::ErrorKind::NotConnected),
        }
    }
}

/// The owner's side. Calls from several threads take turns; each waits at most 5 s for its reply, and a second more
/// where the bell has to be killed. Dropping it detaches the mount.
#[derive(Debug)]
pub struct Bell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    mountpoint: PathBuf,
    source: String,
    /// Of the living child, or 0. Written under the lock of `state`, read by anybody.
    pid: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Process>,
    /// Which process this is: a thread that saw another one end leaves it alone.
    generation: u64,
    /// Number of the last command.
    number: u64,
    /// Whether the owner said that the mount is there.
    mounted: bool,
    closed: bool,
    /// When it was restarted lately.
    restarts: VecDeque<Instant>,
    /// The frame that is sent.
    frame: Vec<u8>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Locks, also after a panic elsewhere: what is guarded here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bell {
    /// Starts the bell and tells it which mount is about to be made: absolute, without links, and with the source that
    /// the mount table will show. From here on a killed owner leaves no mount.
    ///
    /// # Errors
    /// Where it cannot be started, or does not answer.
    pub fn start(options: Options, mountpoint: PathBuf, source: String) -> io::Result<Self> {
        let pid = AtomicU32::new(0);
        let shared = Arc::new(Shared { options, mountpoint, source, pid, state: Mutex::default() });
        let bell = Self { shared };
        {
            let mut state = lock(&bell.shared.state);
            bell.shared.spawn(&mut state)?;
            let number = state.number;
            let process = state.process.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            // From its answer on it ignores what it ignores, and has left the owner's session.
            process.reply(number, Instant::now() + PATIENCE)??;
        }
        Ok(bell)
    }

    /// The mount is there: the bell opens its root. To say so again makes it open everything anew.
    ///
    /// # Errors
    /// [`BellError`].
    pub fn mounted(&self) -> Result<(), BellError> {
        let mut state = lock(&self.shared.state);
        state.mounted = true;
        let done = self.shared.call(&mut state, self.shared.greeting(true));
        if matches!(done, Err(BellError::Errno(_))) {
            state.mounted = false;
        }
        done
    }

    /// The living bell's process, 0 while there is none. Takes no lock. A bell that was killed counts as living until
    /// that has been seen, about a millisecond.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.pid.load(Ordering::Acquire)
    }

    /// Moves `.incoming/<staged>` to `inbox/<parents…>/<name>`, whose directories are made (0700) where they are
    /// missing. Never onto something: that is EEXIST.
    ///
    /// # Errors
    /// [`BellError`]; EINVAL for a name that is no single component.
    pub fn place(&self, staged: &str, parents: &[String], name: &str) -> Result<(), BellError> {
        if !protocol::is_component(staged) || !protocol::is_component(name) {
            return Err(BellError::Errno(Errno::INVAL));
        }
        let to = format!("{}/{name}", inbox(parents)?);
        self.call(Command::Place { from: &format!(".incoming/{staged}"), to: &to })
    }

    /// Makes `inbox/<parents…>` (0700), as far as it is missing.
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub fn make_dirs(&self, parents: &[String]) -> Result<(), BellError> {
        self.call(Command::MakeDirs { path: &inbox(parents)? })
    }

    /// Writes at the end of a file that is there, with one call: at most 4 MiB, EMSGSIZE beyond. Paths here and below
    /// are relative to the mount's root; the file stays open for the next append to it.
    ///
    /// # Errors
    /// [`BellError`]; EINVAL for a path that does not lead down, here and below.
    pub fn append(&self, path: &str, bytes: &[u8]) -> Result<(), BellError> {
        self.call(Command::Append { path, bytes })
    }

    /// Makes a file empty.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn truncate(&self, path: &str) -> Result<(), BellError> {
        self.call(Command::Truncate { path })
    }

    /// Renames, never onto something: that is EEXIST.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn rename(&self, from: &str, to: &str) -> Result<(), BellError> {
        self.call(Command::Rename { from, to })
    }

    /// Removes what is no directory.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn unlink(&self, path: &str) -> Result<(), BellError> {
        self.call(Command::Unlink { path })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn rmdir(&self, path: &str) -> Result<(), BellError> {
        self.call(Command::Rmdir { path })
    }

    /// Removes what is at a path and everything below it; nothing there is fine. Takes as long as it has to, at most a
    /// minute, in parts of a quarter of a second between which others have their turn.
    ///
    /// # Errors
    /// The first one, after all that can be removed was. ENOTEMPTY where the minute was not enough.
    pub fn remove_tree(&self, path: &str) -> Result<(), BellError> {
        for _ in 0..MAX_PARTS {
            match self.call(Command::RemoveTree { path }) {
                Err(BellError::Errno(Errno::AGAIN)) => {}
                done => return done,
            }
        }
        Err(BellError::Errno(Errno::NOTEMPTY))
    }

    /// Has the bell detach the mount and end. Where there is no bell or no answer, it is detached from here. Every later
    /// call is [`BellError::Closed`], and this one does nothing more.
    ///
    /// # Errors
    /// Where the mount stays.
    pub fn detach(&self) -> io::Result<()> {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        if std::mem::replace(&mut state.closed, true) {
            return Ok(());
        }
        let answer = shared.exchange(&mut state, Command::Detach, LAST_PATIENCE);
        shared.pid.store(0, Ordering::Release);
        if let Some(process) = state.process.take()
            && !(matches!(answer, Ok(Ok(()))) && process.gone_within(END))
        {
            process.kill();
        }
        match answer {
            Ok(done) => Ok(done?),
            Err(_) => mounts::detach(&shared.mountpoint, &shared.source).map(drop),
        }
    }

    fn call(&self, command: Command<'_>) -> Result<(), BellError> {
        self.shared.call(&mut lock(&self.shared.state), command)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::warn!(%error, "a mount cannot be detached");
        }
    }
}

fn inbox(parents: &[String]) -> Result<String, BellError> {
    let mut path = String::from("inbox");
    for part in parents {
        if !protocol::is_component(part) {
            return Err(BellError::Errno(Errno::INVAL));
        }
        path.push('/');
        path.push_str(part);
    }
    Ok(path)
}

impl Shared {
    /// Starts a bell and tells it what is known, without waiting for its answer.
    fn spawn(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        state.number += 1;
        let hello = self.greeting(state.mounted);
        protocol::encode(state.number, hello, &mut state.frame).map_err(|_| io::ErrorKind::InvalidInput)?;
        let generation = state.generation + 1;
        let shared = Arc::downgrade(self);
        let process = Process::spawn(&self.options, &state.frame, move || {
            if let Some(shared) = shared.upgrade() {
                shared.ended(generation);
            }
        })?;
        state.generation = generation;
        // Before any command but that: whatever it asks of the mount is known to come from it.
        self.pid.store(process.pid(), Ordering::Release);
        state.process = Some(process);
        Ok(())
    }

    /// A bell ended and was waited for. Called on its own thread.
    fn ended(self: &Arc<Self>, generation: u64) {
        let mut state = lock(&self.state);
        if state.closed || state.generation != generation || state.process.is_none() {
            return;
        }
        self.pid.store(0, Ordering::Release);
        state.process = None;
        if let Err(error) = self.restart(&mut state) {
            tracing::warn!(%error, "the process that writes into the mailbox ended and cannot be started again");
        }
    }

    /// Starts another bell, unless that was done too often.
    fn restart(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let now = Instant::now();
        while state.restarts.front().is_some_and(|first| now.duration_since(*first) > RESTARTS_WITHIN) {
            state.restarts.pop_front();
        }
        if state.restarts.len() >= MAX_RESTARTS {
            return Err(io::Error::other("it ended too often"));
        }
        state.restarts.push_back(now);
        self.spawn(state)
    }

    fn greeting(&self, mounted: bool) -> Command<'_> {
        Command::Hello { mounted, mountpoint: &self.mountpoint, source: &self.source }
    }

    fn call(self: &Arc<Self>, state: &mut State, command: Command<'_>) -> Result<(), BellError> {
        if state.closed {
            return Err(BellError::Closed);
        }
        // One that ended while it had nothing to do has left nothing half done.
        if state.process.as_ref().is_none_or(Process::hung_up) {
            self.replace(state).map_err(BellError::Gone)?;
        }
        match self.exchange(state, command, PATIENCE) {
            Ok(answer) => answer.map_err(BellError::Errno),
            Err(error) => {
                // Where it fails, the next call tries again.
                let _ = self.replace(state);
                Err(BellError::Gone(error))
            }
        }
    }

    /// Kills what is there, and starts another.
    fn replace(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        self.pid.store(0, Ordering::Release);
        if let Some(process) = state.process.take() {
            process.kill();
        }
        self.restart(state)
    }

    /// Sends a command and waits for its reply.
    fn exchange(
        &self,
        state: &mut State,
        command: Command<'_>,
        most: Duration,
    ) -> io::Result<Result<(), Errno>> {
        let State { process, number, frame, .. } = state;
        let process = process.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        *number += 1;
        if protocol::encode(*number, command, frame).is_err() {
            return Ok(Err(Errno::MSGSIZE));
        }
        let until = Instant::now() + most;
        let sent = process.send(frame, until);
        frame.clear();
        frame.shrink_to(KEPT);
        sent.and_then(|()| process.reply(*number, until))
    }
}
