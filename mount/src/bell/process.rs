//! One bell as its owner sees it: a child process and the socket to it.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::lock;
use super::protocol::{REPLY, read_reply};

/// How long a killed bell is waited for. One that waits for an answer of the mount's server dies when that comes.
const DEATH: Duration = Duration::from_secs(1);

/// How a bell is started: the program, and what makes it call [`run`](super::run) before anything else.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program, for example `/proc/self/exe`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What it calls itself; the program's path where there is none.
    pub arg0: Option<OsString>,
}

/// A bell that was started.
pub(super) struct Process {
    socket: UnixStream,
    pid: u32,
    life: Arc<Life>,
    /// Bytes of a reply that is not whole yet.
    partial: ([u8; REPLY], usize),
}

/// A child until it has been waited for: only so long does its number mean it.
struct Life {
    child: Mutex<Option<Child>>,
    gone: Condvar,
}

impl Process {
    /// Starts it with this frame already in its socket, which holds more than that: an owner that is killed here has
    /// told it all the same. A thread waits for its end, whenever that is, and then calls `ended`.
    pub(super) fn spawn(
        options: &Options,
        first: &[u8],
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        // Both ends are close-on-exec; the child gets its own as standard input, and nothing else of ours.
        let (mut socket, its) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        socket.write_all(first)?;
        let mut command = std::process::Command::new(&options.program);
        if let Some(arg0) = &options.arg0 {
            command.arg0(arg0);
        }
        command.args(&options.args).stdin(Stdio::from(OwnedFd::from(its)));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // It holds the child's end, which nobody but the child may hold.
        drop(command);
        let pid = child.id();
        let life = Arc::new(Life { child: Mutex::new(Some(child)), gone: Condvar::new() });
        let process = Self { socket, pid, life: Arc::clone(&life), partial: ([0; REPLY], 0) };
        let keeper = move || {
            life.wait(pid);
            ended();
        };
        if let Err(error) = thread::Builder::new().name("bell".to_owned()).spawn(keeper) {
            let child = lock(&process.life.child).take();
            if let Some(mut child) = child {
                let _ = child.kill();
                let _ = child.wait();
            }
            return Err(error);
        }
        Ok(process)
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it closed its end: it ended, or is about to.
    pub(super) fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let polled = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok_and(|ready| ready > 0)
    }

    /// Sends a frame.
    pub(super) fn send(&mut self, frame: &[u8], until: Instant) -> io::Result<()> {
        let mut rest = frame;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) => self.pause(&error, PollFlags::OUT, until)?,
            }
        }
        Ok(())
    }

    /// The reply to the command of this number. Replies to earlier ones, which nobody waited for, are passed over.
    pub(super) fn reply(&mut self, number: u64, until: Instant) -> io::Result<Result<(), Errno>> {
        loop {
            let (bytes, filled) = &mut self.partial;
            match self.socket.read(bytes.get_mut(*filled..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => *filled += read,
                Err(error) => {
                    self.pause(&error, PollFlags::IN, until)?;
                    continue;
                }
            }
            if *filled < REPLY {
                continue;
            }
            *filled = 0;
            match read_reply(*bytes) {
                (its, _) if its < number => {}
                (its, 0) if its == number => return Ok(Ok(())),
                (its, errno @ 1..4096) if its == number => return Ok(Err(Errno::from_raw_os_error(errno))),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Waits for the socket after a call that could not go on.
    fn pause(&self, error: &io::Error, flags: PollFlags, until: Instant) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::Interrupted => return Ok(()),
            io::ErrorKind::WouldBlock => {}
            _ => return Err(error.kind().into()),
        }
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(&self.socket, flags)], Some(&left)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended and was waited for; whether it has.
    pub(super) fn gone_within(&self, most: Duration) -> bool {
        let child = lock(&self.life.child);
        let waited = self.life.gone.wait_timeout_while(child, most, |child| child.is_some());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_none()
    }

    /// Kills it where it has not ended, and waits a moment. Its thread waits as long as it takes.
    pub(super) fn kill(self) {
        if let Some(child) = lock(&self.life.child).as_mut() {
            let _ = child.kill();
        }
        self.gone_within(DEATH);
    }
}

impl Life {
    /// Waits for the child's end. Its number stays taken until the lock is held: who kills it kills no other.
    fn wait(&self, pid: u32) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options) {}
        }
        if let Some(mut child) = lock(&self.child).take() {
            let _ = child.wait();
        }
        self.gone.notify_all();
    }
}
