//! The command that gets the secrets: started with them, watched, and its output passed on masked.
//!
//! Owns the process, its pipes and the signals that are passed to it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal as _, PipeReader, PipeWriter, Read, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use agent_wormhole_mount::secret::SecretName;
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::Secret;
use super::mask::{Mask, Masker};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Stream};

/// Bytes of output that are masked at once.
const BLOCK: usize = 64 * 1024;
/// What shells end with where a command cannot be found.
const NOT_FOUND: u8 = 127;
/// And where it cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Added to a signal's number where that ended the command.
const BY_SIGNAL: i32 = 128;

/// A secret for the command.
pub(super) struct Given {
    pub(super) name: SecretName,
    pub(super) variable: String,
    pub(super) secret: Secret,
}

/// Why a command was not started.
pub(super) enum NotStarted {
    /// It cannot be: what a shell would end with, and why.
    Command { code: u8, why: anyhow::Error },
    /// The secret cannot be given in this way.
    Value(String),
}

/// A command that runs.
pub(super) struct Running {
    child: Child,
    /// What passes its output on.
    passing: Vec<JoinHandle<()>>,
}

/// Starts a command with secrets in its environment, or behind descriptors.
pub(super) fn start(command: &[OsString], given: Vec<Given>, by_fd: bool) -> Result<Running, NotStarted> {
    let not_had = |error: io::Error| NotStarted::Command {
        code: NOT_EXECUTABLE,
        why: anyhow::Error::new(error).context("no pipe or thread can be had for the command; try again"),
    };
    let Some((program, arguments)) = command.split_first() else {
        return Err(NotStarted::Value("no command was given; put it after --".to_owned()));
    };
    let mut building = Command::new(program);
    building.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mask =
        Mask::of(given.iter().map(|given| (given.name.as_str(), without_line_break(given.secret.bytes()))));
    let mut pipes: Vec<(PipeReader, PipeWriter, Secret)> = Vec::new();
    for Given { name, variable, secret } in given {
        let value = without_line_break(secret.bytes());
        if by_fd {
            let (reader, writer) = io::pipe().map_err(not_had)?;
            rustix::io::fcntl_setfd(&reader, FdFlags::empty()).map_err(|error| not_had(error.into()))?;
            building.env(variable, format!("/dev/fd/{}", reader.as_raw_fd()));
            pipes.push((reader, writer, secret));
        } else if value.contains(&0) {
            let why = format!("{name} holds a NUL, which no variable can; hand it over with --fd");
            return Err(NotStarted::Value(why));
        } else {
            building.env(variable, OsStr::from_bytes(value));
        }
    }
    let signals = Signals::catch().map_err(not_had)?;
    let mut child = building.spawn().map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let program = program.to_string_lossy().escape_debug().to_string();
        let why = anyhow::Error::new(error).context(format!(
            "{program} cannot be started, and the secret waits on; check the command after --"
        ));
        NotStarted::Command { code: if missing { NOT_FOUND } else { NOT_EXECUTABLE }, why }
    })?;
    // From here on there is a child: what fails now is no reason to give the secret back.
    signals.pass_to(&child);
    for (reader, mut writer, secret) in pipes {
        drop(reader);
        // On a thread: a child that does not read holds up nothing but this.
        let fed = thread::Builder::new()
            .name("secret".into())
            .spawn(move || drop(writer.write_all(secret.bytes())));
        if let Err(error) = fed {
            tracing::warn!(%error, "the command gets nothing through its descriptor");
        }
    }
    let mask = Arc::new(mask);
    let out = child.stdout.take().map(|out| (Stream::Out, OwnedFd::from(out)));
    let err = child.stderr.take().map(|err| (Stream::Err, OwnedFd::from(err)));
    let mut passing = Vec::new();
    for (stream, pipe) in out.into_iter().chain(err) {
        let mask = Arc::clone(&mask);
        let pass = move || pass(stream, File::from(pipe), &mask);
        // Without a thread the pipe closes: the child learns it when it writes.
        passing.extend(thread::Builder::new().name("output".into()).spawn(pass));
    }
    Ok(Running { child, passing })
}

impl Running {
    /// Waits for its end, and for the end of all that it prints.
    pub(super) fn finish(mut self) -> Result<u8, Failure> {
        let status = self.child.wait().map_err(|error| {
            Failure::new(Exit::Internal, format!("the command cannot be waited for: {error}; look at `ps`"))
        })?;
        for thread in self.passing {
            let _ = thread.join();
        }
        let code = status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::Internal.code()))
    }
}

/// As `$(…)` has it: a key that `echo` wrote is not meant to end with a line break.
fn without_line_break(value: &[u8]) -> &[u8] {
    value.strip_suffix(b"\n").unwrap_or(value)
}

/// Passes on what a command prints, until it prints nothing more or nobody reads it.
fn pass(stream: Stream, mut from: impl Read, mask: &Mask) {
    let mut masker = Masker::new(mask);
    let mut block = zeroize::Zeroizing::new(vec![0; BLOCK]);
    loop {
        let ready = match from.read(&mut block) {
            Ok(0) => break,
            Ok(count) => masker.push(block.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // The pipe closes with this: the command learns that nobody reads.
        if output::pass(stream, &ready).is_err() {
            return;
        }
    }
    // Nobody reads it any more.
    let _ = output::pass(stream, &masker.finish());
}

/// Signals that are passed on, caught from before the command is started.
struct Signals {
    runtime: tokio::runtime::Runtime,
    caught: Vec<(tokio::signal::unix::Signal, Signal)>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let inside = runtime.enter();
        // From a terminal these two come to the whole group, and so to the command by themselves.
        let own = io::stdin().is_terminal();
        let mut caught = Vec::new();
        for (kind, number, both) in [
            (SignalKind::interrupt(), Signal::INT, own),
            (SignalKind::quit(), Signal::QUIT, own),
            (SignalKind::terminate(), Signal::TERM, false),
            (SignalKind::hangup(), Signal::HUP, false),
            (SignalKind::user_defined1(), Signal::USR1, false),
            (SignalKind::user_defined2(), Signal::USR2, false),
        ] {
            let stream = signal(kind)?;
            if !both {
                caught.push((stream, number));
            }
        }
        drop(inside);
        Ok(Self { runtime, caught })
    }

    /// Passes them on, on a thread that ends with the process.
    fn pass_to(self, child: &Child) {
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map(Arc::new);
        let Ok(pidfd) = pidfd else { return };
        let Self { runtime, caught } = self;
        let watch = move || {
            let local = tokio::task::LocalSet::new();
            for (mut stream, number) in caught {
                let pidfd = Arc::clone(&pidfd);
                local.spawn_local(async move {
                    while stream.recv().await.is_some() {
                        // It has ended.
                        let _ = pidfd_send_signal(&*pidfd, number);
                    }
                });
            }
            runtime.block_on(local);
        };
        if let Err(error) = thread::Builder::new().name("signals".into()).spawn(watch) {
            tracing::warn!(%error, "signals are not passed on to the command");
        }
    }
}
