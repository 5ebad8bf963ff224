//! The bell itself: a process that does what it is told on its standard input, and takes the mount away at its end.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::protocol::{self, Command, HEAD};
use super::root::Root;
use super::tree;
use crate::mounts;

/// Bytes that are read ahead, and kept between frames.
const BUFFER: usize = 64 * 1024;
/// How long one part of a removal takes, so that others get their turn and no reply is late.
const PART: Duration = Duration::from_millis(250);
/// How long a mount that was about to be made is waited for at the end: `fusermount3` outlives who started it.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The whole life of the process.
pub(super) fn run() -> ExitCode {
    apart();
    let mut bell = Child { mount: None, mounted: false, root: None };
    let served =
        io::stdin().as_fd().try_clone_to_owned().and_then(|socket| bell.serve(&UnixStream::from(socket)));
    match served {
        Ok(Served::Detached) => ExitCode::SUCCESS,
        Ok(Served::Alone) => {
            bell.last_look();
            ExitCode::SUCCESS
        }
        Err(_) => {
            bell.last_look();
            ExitCode::FAILURE
        }
    }
}

/// Leaves everything behind that belongs to the owner: descriptors, session, directory, signals, umask. What fails
/// here is the lesser evil.
fn apart() {
    close_others();
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // What it carries is plaintext: no core file. It needs nothing that this takes away.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    settle_signals();
}

#[allow(unsafe_code)] // rustix has no signal dispositions
fn settle_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: to ignore a signal installs no handler and reads no memory.
        let _ = unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // An owner that ignores its children hands that on, and `fusermount3` could not be waited for.
    // SAFETY: as above.
    let _ = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Closes every descriptor but the standard ones. Is to be called before anything else is opened. Every descriptor of the owner is close-on-exec, but one that it received from
/// `fusermount3` may be so only a moment later: a bell that holds `/dev/fuse` keeps a dead owner's mount hanging.
#[allow(unsafe_code)] // rustix has no close_range
pub fn close_others() {
    #[cfg(target_os = "linux")]
    {
        const FIRST: libc::c_uint = 3;
        // SAFETY: this is the first thing that the process does, with one thread: nobody owns a descriptor above the
        // standard ones yet, and no memory is touched.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    }
}

/// Why there is nothing more to do.
enum Served {
    /// It was asked to detach, did, and said so.
    Detached,
    /// Nobody is at the other end.
    Alone,
}

struct Child {
    /// Mountpoint and source, from the first frame on.
    mount: Option<(PathBuf, String)>,
    /// Whether the mount is known to be there.
    mounted: bool,
    root: Option<Root>,
}

impl Child {
    fn serve(&mut self, mut socket: &UnixStream) -> io::Result<Served> {
        let mut reader = BufReader::with_capacity(BUFFER, socket);
        let mut frame = Vec::new();
        loop {
            if reader.fill_buf()?.is_empty() {
                return Ok(Served::Alone);
            }
            let mut head = [0; HEAD];
            reader.read_exact(&mut head)?;
            let length = protocol::length(head).ok_or(io::ErrorKind::InvalidData)?;
            frame.clear();
            frame.shrink_to(BUFFER);
            // Room is made for what comes, not for what is promised.
            if reader.by_ref().take(length as u64).read_to_end(&mut frame)? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (number, command) = protocol::decode(&frame).ok_or(io::ErrorKind::InvalidData)?;
            let errno = self.act(command).map_or_else(Errno::raw_os_error, |()| 0);
            socket.write_all(&protocol::reply(number, errno))?;
            if command == Command::Detach {
                return Ok(Served::Detached);
            }
        }
    }

    fn act(&mut self, command: Command<'_>) -> Result<(), Errno> {
        match command {
            Command::Hello { mounted, mountpoint, source } => {
                self.mount = Some((mountpoint.to_owned(), source.to_owned()));
                (self.root, self.mounted) = (None, false);
                if mounted {
                    self.root = Some(Root::open(mountpoint)?);
                    self.mounted = true;
                }
                return Ok(());
            }
            Command::Detach => {
                self.root = None;
                return self.detach().map(drop);
            }
            _ => {}
        }
        let root = self.root.as_mut().ok_or(Errno::NOTCONN)?;
        match command {
            Command::MakeDirs { path } => root.make_dirs(path),
            Command::Place { from, to } => root.place(from, to),
            Command::Rename { from, to } => root.rename(from, to),
            Command::Append { path, bytes } => root.append(path, bytes),
            Command::Truncate { path } => root.truncate(path),
            Command::Unlink { path } => root.unlink(path),
            Command::Rmdir { path } => root.rmdir(path),
            Command::RemoveTree { path } => {
                let (dir, name) = root.parent(path)?;
                root.forget(path);
                tree::remove(dir, name, Instant::now() + PART)
            }
            Command::Hello { .. } | Command::Detach => Ok(()),
        }
    }

    fn detach(&self) -> Result<bool, Errno> {
        let Some((path, source)) = &self.mount else { return Ok(false) };
        mounts::detach(path, source).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Detaches the mount of an owner that is gone. One that was not there yet may still come.
    fn last_look(&mut self) {
        // A handle inside keeps a detached mount alive.
        self.root = None;
        #[cfg(target_os = "linux")]
        {
            let until = Instant::now() + LAST_LOOK;
            let Ok(mut watch) = mounts::Watch::new() else {
                let _ = self.detach();
                return;
            };
            while !self.detach().unwrap_or(false) && !self.mounted && watch.changed(until) {}
        }
    }
}
