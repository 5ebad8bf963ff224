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
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, thread};

use agent_wormhole_mount::secret::SecretName;
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
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
    target: Target,
    /// How many of its streams are passed on.
    passing: usize,
    news: Receiver<News>,
}

/// Whom a signal is passed to, as long as there is somebody: the number is taken out before it can become another's.
#[derive(Clone)]
struct Target(Arc<Mutex<Option<Pid>>>);

impl Target {
    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is waited for after the end of the command.
enum News {
    /// Nothing more comes on one of its streams.
    Printed,
    /// Somebody does not want to wait for whoever still has them open.
    Interrupted,
}

/// Tells [`News::Printed`] when it is dropped, however that comes.
struct Told(Sender<News>);

impl Drop for Told {
    fn drop(&mut self) {
        // Who waited may have been interrupted.
        let _ = self.0.send(News::Printed);
    }
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
    let (tell, news) = mpsc::channel();
    let target = Target(Arc::new(Mutex::new(Some(Pid::from_child(&child)))));
    signals.pass_to(target.clone(), tell.clone());
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
    let mut passing = 0;
    for (stream, pipe) in out.into_iter().chain(err) {
        let (mask, tell) = (Arc::clone(&mask), tell.clone());
        let pass = move || {
            let _told = Told(tell);
            pass(stream, File::from(pipe), &mask);
        };
        // Without a thread the pipe closes: the child learns it when it writes.
        passing += usize::from(thread::Builder::new().name("output".into()).spawn(pass).is_ok());
    }
    Ok(Running { child, target, passing, news })
}

impl Running {
    /// Waits for its end, and for the end of all that it prints: what it has left running may hold its streams open. A
    /// signal that ends a program ends that second wait.
    pub(super) fn finish(mut self) -> Result<u8, Failure> {
        // Its number stays its own until it is waited for below.
        let ended = WaitId::Pid(Pid::from_child(&self.child));
        while matches!(waitid(ended.clone(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT), Err(Errno::INTR))
        {
        }
        *self.target.lock() = None;
        let status = self.child.wait().map_err(|error| {
            Failure::new(Exit::Internal, format!("the command cannot be waited for: {error}; look at `ps`"))
        })?;
        while self.passing > 0
            && let Ok(News::Printed) = self.news.recv()
        {
            self.passing -= 1;
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
    caught: Vec<(tokio::signal::unix::Signal, Passed)>,
}

/// How a signal is passed on.
#[derive(Clone, Copy)]
struct Passed {
    number: Signal,
    /// A terminal sends it to the whole group, and so to the command, too. In the foreground it is taken for that, also where
    /// somebody has sent it to this process alone.
    by_terminal: bool,
    /// It ends a program that does nothing about it, and is meant to.
    ends: bool,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let inside = runtime.enter();
        // Where there is no /proc, nothing is known to be ignored.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut caught = Vec::new();
        for (kind, number, by_terminal, ends) in [
            (SignalKind::interrupt(), Signal::INT, true, true),
            (SignalKind::quit(), Signal::QUIT, true, true),
            (SignalKind::terminate(), Signal::TERM, false, true),
            (SignalKind::hangup(), Signal::HUP, false, true),
            (SignalKind::user_defined1(), Signal::USR1, false, false),
            (SignalKind::user_defined2(), Signal::USR2, false, false),
        ] {
            // The command ignores it, too, as it would without this program: one that is caught it would not.
            if !is_ignored(number, &status) {
                caught.push((signal(kind)?, Passed { number, by_terminal, ends }));
            }
        }
        drop(inside);
        Ok(Self { runtime, caught })
    }

    /// Passes them on, on a thread that ends with the process.
    fn pass_to(self, target: Target, tell: Sender<News>) {
        let Self { runtime, caught } = self;
        let watch = move || {
            let local = tokio::task::LocalSet::new();
            for (mut stream, passed) in caught {
                let (target, tell) = (target.clone(), tell.clone());
                local.spawn_local(async move {
                    while stream.recv().await.is_some() {
                        passed.on(&target, &tell);
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

impl Passed {
    fn on(self, target: &Target, tell: &Sender<News>) {
        match *target.lock() {
            Some(_) if self.by_terminal && is_in_foreground() => {}
            Some(command) => {
                // It may have ended, and not been waited for yet.
                let _ = kill_process(command, self.number);
            }
            None if self.ends => {
                // Nobody waits any more.
                let _ = tell.send(News::Interrupted);
            }
            None => {}
        }
    }
}

/// Whether a signal was ignored before this program began, as behind `nohup` and behind `&` of a script; of `status` as
/// /proc has it.
fn is_ignored(number: Signal, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(number.as_raw() - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or_default() & 1 == 1)
}

/// Whether a terminal sends its signals to this process, and so to the command.
fn is_in_foreground() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    stat.and_then(|stat| has_terminal(&stat)).unwrap_or_else(|| io::stdin().is_terminal())
}

/// Whether a process is of the group that has its terminal; of `stat` as /proc has it.
fn has_terminal(stat: &str) -> Option<bool> {
    // The name of the program may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(2);
    let (group, terminal, foreground) = (fields.next()?, fields.nth(1)?, fields.next()?);
    Some(terminal != "0" && group == foreground)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ignored_before_stays_ignored() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000004000\n";
        let ignored = |number| is_ignored(number, status);
        assert!(ignored(Signal::HUP) && ignored(Signal::INT) && ignored(Signal::PIPE));
        assert!(!ignored(Signal::QUIT) && !ignored(Signal::TERM) && !ignored(Signal::USR1));
        assert!(!is_ignored(Signal::HUP, ""));
    }

    #[test]
    fn a_terminal_tells_the_group_that_it_belongs_to() {
        for (stat, has) in [
            ("7 (agent) 1 (x) S 1 7 5 34816 7 4194304 0", Some(true)),
            ("7 (agent-wormhole) S 1 7 5 34816 5 4194304 0", Some(false)),
            ("7 (agent-wormhole) S 1 7 7 0 -1 4194304 0", Some(false)),
            ("7 (agent-wormhole) S 1", None),
            ("", None),
        ] {
            assert_eq!(has_terminal(stat), has, "{stat}");
        }
    }
}
