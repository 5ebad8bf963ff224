//! `--detach`: the program once more, in the background, and what passes between the two until the channel is up.
//!
//! Owns the second process from its first instruction to the moment when nothing of its caller is left in it. It is
//! started anew, never forked, and is told what was typed through a socket: a code is in no list of processes. Until the
//! channel is up that socket brings its events back; the end of either process is seen by the other one in it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_wormhole_mount::{bell, mounted};
use anyhow::Context as _;
use zeroize::Zeroizing;

use super::exit::{Exit, Failure};
use super::output;
use crate::channel::options::{Lines, Unread};

/// What makes the program the one in the background: no command for people, so it is in no help.
const WORD: &str = "detached";
/// Says that the channel is up. In no line of an event.
const UP: u8 = 0;
/// Most bytes of what was typed.
const MAX_REQUEST: u64 = 16 * 1024 * 1024;

/// How a command was started.
pub(super) enum Ground {
    /// By a caller, who typed this.
    Fore(Typed),
    /// By the one that a caller started, for the background.
    Back(Handover),
}

/// Arguments as they were typed, before the code in them is hidden. Each ends with a NUL byte.
pub(super) struct Typed(Zeroizing<Vec<u8>>);

impl Typed {
    pub(super) fn new(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut bytes = Zeroizing::new(Vec::new());
        for argument in arguments {
            bytes.extend_from_slice(&Zeroizing::new(argument.into_vec()));
            bytes.push(0);
        }
        Self(bytes)
    }

    /// The arguments again.
    fn arguments(&self) -> Vec<OsString> {
        let parts = self.0.split_inclusive(|&byte| byte == 0);
        parts.map(|part| OsString::from_vec(part.strip_suffix(&[0]).unwrap_or(part).to_vec())).collect()
    }
}

/// Starts `command` in the background, and prints its events until its channel is up. `input` is what was read from
/// standard input.
pub(super) fn start(command: &str, typed: &Typed, input: Option<&str>) -> Result<Exit, Failure> {
    // Both ends are close-on-exec; the other process gets its own as standard input.
    let (mut socket, its) = UnixStream::pair().context("no socket can be had")?;
    let ours = mounted::own_bell();
    let mut process = Command::new(&ours.program);
    if let Some(arg0) = &ours.arg0 {
        process.arg0(arg0);
    }
    process.args([WORD, command]).stdin(Stdio::from(OwnedFd::from(its))).stdout(Stdio::null());
    let mut child = process.spawn().context("the program cannot be started once more")?;
    // It holds the other end, which nobody but the other process may hold.
    drop(process);
    let told = tell(&mut socket, typed, input);
    let up = told.and_then(|()| forward(socket));
    match up.context("the program in the background cannot be reached")? {
        Forwarded::Up => Ok(Exit::Done),
        Forwarded::Unread(error) => Err(output::failed(error)),
        Forwarded::Ended => {
            let status = child.wait().context("the program in the background cannot be waited for")?;
            let code = status.code().and_then(|code| u64::try_from(code).ok());
            Ok(code.and_then(Exit::of_code).unwrap_or(Exit::Internal))
        }
    }
}

fn tell(socket: &mut UnixStream, typed: &Typed, input: Option<&str>) -> io::Result<()> {
    let count = typed.0.iter().filter(|&&byte| byte == 0).count();
    let mut request = Zeroizing::new(format!("{count}\n").into_bytes());
    request.extend_from_slice(&typed.0);
    request.extend_from_slice(input.unwrap_or_default().as_bytes());
    socket.write_all(&request)?;
    socket.shutdown(Shutdown::Write)
}

/// What became of it.
enum Forwarded {
    /// It is up.
    Up,
    /// It has ended before that.
    Ended,
    /// Nobody reads its events.
    Unread(io::Error),
}

/// Prints what the other process tells, until there is no more of it.
fn forward(socket: UnixStream) -> io::Result<Forwarded> {
    let mut socket = BufReader::new(socket);
    loop {
        if socket.fill_buf()?.first() == Some(&UP) {
            return Ok(Forwarded::Up);
        }
        let mut line = Zeroizing::new(String::with_capacity(crate::event::MAX_BODY * 8));
        if socket.read_line(&mut line)? == 0 {
            return Ok(Forwarded::Ended);
        }
        if let Err(error) = output::data(&line) {
            return Ok(Forwarded::Unread(error));
        }
    }
}

/// Whether this is the process in the background.
pub(super) fn is_background() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == WORD)
}

/// What the process in the background has of its caller: the socket, until the channel is up.
pub(super) struct Handover {
    socket: UnixStream,
    nowhere: OwnedFd,
    /// What the caller read from standard input; empty where it was not asked to.
    pub(super) input: Zeroizing<String>,
}

/// Begins in the background, and returns what was typed.
///
/// # Errors
/// Where this was not started by [`start`].
pub(super) fn begin() -> Result<(Vec<OsString>, Handover), Failure> {
    // What the caller has open is not ours: a pipe that we kept would never end for its reader.
    bell::close_others();
    // No terminal ends us, and no shell that leaves. It fails where we lead a session already.
    let _ = rustix::process::setsid();
    let nowhere = || -> anyhow::Result<OwnedFd> {
        Ok(File::options().read(true).write(true).open("/dev/null").context("there is no /dev/null")?.into())
    };
    let nowhere = nowhere()?;
    let socket = io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?;
    rustix::stdio::dup2_stdin(&nowhere).map_err(anyhow::Error::from)?;
    let socket = UnixStream::from(socket);
    let (typed, input) = told(&socket).context("this is not a command; see `agent-wormhole --help`")?;
    Ok((typed.arguments(), Handover { socket, nowhere, input }))
}

/// Reads what [`tell`] has written.
fn told(socket: &UnixStream) -> io::Result<(Typed, Zeroizing<String>)> {
    let mut request = Zeroizing::new(Vec::new());
    let mut reader = BufReader::new(socket.take(MAX_REQUEST));
    let mut count = String::new();
    reader.read_line(&mut count)?;
    let count: usize = count.trim_end().parse().map_err(io::Error::other)?;
    for _ in 0..count {
        if reader.read_until(0, &mut request)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut input = Zeroizing::new(String::new());
    reader.read_to_string(&mut input)?;
    Ok((Typed(request), input))
}

impl Handover {
    /// Where events go, and what tells that the caller is gone: until the event of this word, with which the channel is
    /// up. From then on they are in the log only, and nothing of the caller is left.
    pub(super) fn streams(self, up_at: &'static str) -> io::Result<(Lines, Unread)> {
        let Self { socket, nowhere, input: _ } = self;
        let up = Arc::new(AtomicBool::new(false));
        let watched = socket.try_clone()?;
        let is_up = Arc::clone(&up);
        let unread = move || {
            output::until_hung_up(&watched);
            !is_up.load(Ordering::Acquire)
        };
        let first = format!(r#"{{"type":"status","event":"{up_at}","#);
        let mut caller = Some(socket);
        let lines = move |line: &str| {
            let Some(socket) = &mut caller else { return Ok(()) };
            let mut whole = Zeroizing::new(String::with_capacity(line.len() + 1));
            whole.push_str(line);
            whole.push('\n');
            socket.write_all(whole.as_bytes())?;
            if line.starts_with(&first) {
                up.store(true, Ordering::Release);
                leave(&nowhere)?;
                // Who hears it returns at once: it is the last thing that the two have in common. One that has gone since
                // has printed what there was.
                let _ = socket.write_all(&[UP]);
                let _ = socket.shutdown(Shutdown::Both);
                caller = None;
            }
            Ok(())
        };
        Ok((Box::new(lines), Box::new(unread)))
    }
}

/// Leaves the rest behind: the caller's standard error and directory.
fn leave(nowhere: &OwnedFd) -> io::Result<()> {
    rustix::stdio::dup2_stdout(nowhere)?;
    rustix::stdio::dup2_stderr(nowhere)?;
    Ok(rustix::process::chdir("/")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_comes_through_the_socket_as_it_was() {
        let arguments = ["agent-wormhole", "connect", "", "9471-a b", "--dir"].map(OsString::from);
        let odd = OsString::from_vec(b"\xff/x".to_vec());
        let typed = Typed::new(arguments.iter().cloned().chain([odd]));
        for input in [None, Some("9471-cross-clock-marble\n")] {
            let (mut ours, its) = UnixStream::pair().unwrap();
            tell(&mut ours, &typed, input).unwrap();
            let (read, with) = told(&its).unwrap();
            assert_eq!(read.arguments(), typed.arguments());
            assert_eq!(read.arguments().len(), 6);
            assert_eq!(*with, input.unwrap_or_default());
        }
        let (ours, its) = UnixStream::pair().unwrap();
        (&ours).write_all(b"3\na\0").unwrap();
        drop(ours);
        assert!(told(&its).is_err());
    }

    #[test]
    fn the_caller_hears_each_line_and_that_it_is_up_or_never_will_be() {
        let (ours, mut its) = UnixStream::pair().unwrap();
        its.write_all(b"{\"a\":1}\n\0").unwrap();
        assert!(matches!(forward(ours).unwrap(), Forwarded::Up));
        let (ours, mut its) = UnixStream::pair().unwrap();
        its.write_all(b"{\"a\":1}\n").unwrap();
        drop(its);
        assert!(matches!(forward(ours).unwrap(), Forwarded::Ended));
    }
}
