//! The two ends of a canary: children of this process, run by the same program as everybody's.
//!
//! Owns them from their start to the moment when nothing of them is left, however this ends: closed, too late, interrupted,
//! dropped. One that outlives this process ends by itself, as nobody reads its events any more.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use agent_wormhole_mount::{mounted, mounts};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::hops::Mark;
use super::{Stop, Told};
use crate::channel::HOPS;
use crate::cli::doctor::News;
use crate::cli::output;
use crate::crypto::pake::Role;
use crate::rundir::RuntimeDir;

/// Longest line of an end that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// How long an end may take to end after it was interrupted once, and after it was again.
const ASKED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How long what a killed end leaves may take to go: its child takes the mount away within milliseconds.
const GONE: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A child.
struct Running {
    role: Role,
    child: Child,
    /// Its streams that are still open: two of them.
    open: usize,
}

/// Both, and what they have told.
pub(super) struct Ends<'a> {
    news: &'a Receiver<News>,
    tell: Sender<News>,
    runtime: &'a RuntimeDir,
    running: Vec<Running>,
    /// Their events.
    events: Vec<(Role, Value)>,
    /// Their steps.
    marks: Vec<Mark>,
    /// Whatever else they said on standard error.
    said: Vec<(Role, String)>,
    /// Their directories.
    pub(super) dirs: Vec<PathBuf>,
    deadline: Instant,
}

impl<'a> Ends<'a> {
    pub(super) fn new(
        (news, tell): (&'a Receiver<News>, Sender<News>),
        runtime: &'a RuntimeDir,
        deadline: Instant,
    ) -> Self {
        let (running, events, marks) = (Vec::new(), Vec::new(), Vec::new());
        Self { news, tell, runtime, running, events, marks, said: Vec::new(), dirs: Vec::new(), deadline }
    }

    /// Starts one, with this on its standard input.
    pub(super) fn start(&mut self, role: Role, args: &[OsString], input: Option<&str>) -> Result<(), Stop> {
        let failed = |error| Stop::failed(format!("the program cannot be started once more: {error}"));
        let ours = mounted::own_bell();
        let mut command = Command::new(&ours.program);
        if let Some(arg0) = &ours.arg0 {
            command.arg0(arg0);
        }
        command.args(args).env(output::LOG_VARIABLE, format!("agent_wormhole=warn,{HOPS}=debug"));
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        let (out, err, typed) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
        // From here on it is ended, whatever comes.
        self.running.push(Running { role, child, open: 2 });
        if let (Some(mut typed), Some(input)) = (typed, input) {
            typed.write_all(input.as_bytes()).map_err(failed)?;
        }
        let read = move |line: &str| {
            serde_json::from_str(line).map_or(Told::Nothing, |event| Told::Event(role, event))
        };
        let heard = move |line: &str| match Mark::read(role, line) {
            Some(mark) => Told::Mark(mark),
            None => Told::Said(role, line.to_owned()),
        };
        out.map(|out| listen(role, out, self.tell.clone(), read)).transpose().map_err(failed)?;
        err.map(|err| listen(role, err, self.tell.clone(), heard)).transpose().map_err(failed)?;
        Ok(())
    }

    /// Waits for a step that is not older than this.
    pub(super) fn mark_after(&mut self, end: Role, hop: &str, from: Timestamp) -> Result<Mark, Stop> {
        let is = |mark: &&Mark| mark.end == end && mark.hop == hop && mark.at >= from;
        self.until(end, |ends| ends.marks.iter().find(is).cloned())
    }

    /// Waits for a step: one of this item, or one that is of none.
    pub(super) fn mark(&mut self, end: Role, hop: &str, item: Option<u64>) -> Result<Mark, Stop> {
        let is = |mark: &&Mark| mark.end == end && mark.hop == hop && mark.item == item;
        self.until(end, |ends| ends.marks.iter().find(is).cloned())
    }

    /// Waits for an event.
    pub(super) fn event(&mut self, end: Role, is: impl Fn(&Value) -> bool) -> Result<Value, Stop> {
        let found = |(role, event): &&(Role, Value)| *role == end && is(event);
        self.until(end, |ends| ends.events.iter().find(found).map(|(_, event)| event.clone()))
    }

    /// Waits until it has ended by itself; whether it ended well.
    pub(super) fn ended(&mut self, end: Role) -> Result<bool, Stop> {
        loop {
            if let Some(at) = self.running.iter().position(|running| running.role == end && running.open == 0)
            {
                let status = self.running.swap_remove(at).child.wait();
                return Ok(status.is_ok_and(|status| status.success()));
            }
            self.hear()?;
        }
    }

    /// Does something with files of an end, on a thread of its own: an end that hangs does not answer for its mount.
    pub(super) fn act(
        &mut self,
        act: impl FnOnce() -> Result<Vec<u8>, String> + Send + 'static,
    ) -> Result<Vec<u8>, Stop> {
        let tell = self.tell.clone();
        let acting = move || {
            // Who asked may not wait any more.
            let _ = tell.send(News::Round(Told::Did(act())));
        };
        thread::Builder::new()
            .name("canary".into())
            .spawn(acting)
            .map_err(|error| Stop::failed(error.to_string()))?;
        loop {
            if let Told::Did(done) = self.next()? {
                return done.map_err(Stop::failed);
            }
        }
    }

    fn until<T>(&mut self, end: Role, found: impl Fn(&Self) -> Option<T>) -> Result<T, Stop> {
        loop {
            if let Some(found) = found(self) {
                return Ok(found);
            }
            if self.running.iter().all(|running| running.role != end || running.open == 0) {
                return Err(Stop::failed(self.last_words(end)));
            }
            self.hear()?;
        }
    }

    fn hear(&mut self) -> Result<(), Stop> {
        self.next().map(drop)
    }

    fn next(&mut self) -> Result<Told, Stop> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.news.recv_timeout(left) {
            Ok(News::Interrupted) => Err(Stop::Interrupted),
            Ok(News::Round(told)) => Ok(self.note(told)),
            // A check that came too late.
            Ok(News::Looked(_)) => Ok(Told::Nothing),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Stop::Late),
        }
    }

    fn note(&mut self, told: Told) -> Told {
        match told {
            Told::Event(role, event) => self.events.push((role, event)),
            Told::Mark(mark) => self.marks.push(mark),
            Told::Said(role, line) => self.said.push((role, line)),
            Told::Silent(role) => {
                for running in self.running.iter_mut().filter(|running| running.role == role) {
                    running.open = running.open.saturating_sub(1);
                }
            }
            done @ Told::Did(_) => return done,
            Told::Nothing => {}
        }
        Told::Nothing
    }

    /// Why an end has ended, as it said.
    fn last_words(&self, end: Role) -> String {
        let details = self.events.iter().rev().filter(|(role, _)| *role == end);
        let detail = details.filter_map(|(_, event)| event.get("detail")?.as_str()).next();
        let said = self.said.iter().rev().find(|(role, _)| *role == end).map(|(_, line)| line.as_str());
        let why = detail.or(said).unwrap_or("it did not say why");
        format!("the end `{}` has ended: {why}", end.as_str())
    }

    /// What the ends have left: directories, mounts, entries of the list.
    pub(super) fn left(&self) -> Vec<String> {
        let mounts = mounts::list().unwrap_or_default();
        let listed = self.runtime.list().unwrap_or_default();
        let is_left = |dir: &&PathBuf| {
            dir.symlink_metadata().is_ok()
                || mounts.iter().any(|mount| mount.path == **dir)
                || listed.iter().any(|channel| channel.dir == **dir)
        };
        self.dirs.iter().filter(is_left).map(|dir| dir.display().to_string()).collect()
    }

    /// Ends whoever still runs, and takes away what they leave.
    fn end(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let mut hurry = false;
        for patience in ASKED {
            self.signal(Signal::INT);
            self.deadline = Instant::now() + patience;
            while !hurry && self.running.iter().any(|running| running.open > 0) {
                match self.hear() {
                    Ok(()) => {}
                    // Who interrupts again does not want to wait.
                    Err(Stop::Interrupted) => hurry = true,
                    Err(_) => break,
                }
            }
        }
        for mut running in self.running.drain(..) {
            // It may have ended.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        let until = Instant::now() + GONE;
        loop {
            self.runtime.sweep();
            if self.left().is_empty() || Instant::now() >= until {
                return;
            }
            thread::sleep(LOOK);
        }
    }

    fn signal(&self, signal: Signal) {
        for running in self.running.iter().filter(|running| running.open > 0) {
            // It was not waited for, so the number is still its own.
            let _ = kill_process(Pid::from_child(&running.child), signal);
        }
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads a stream of an end, line by line, on a thread that ends with the stream.
fn listen(
    role: Role,
    stream: impl Read + Send + 'static,
    tell: Sender<News>,
    read: impl Fn(&str) -> Told + Send + 'static,
) -> std::io::Result<()> {
    let listening = move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while (&mut stream).take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            // Who listened may have gone: the stream is read on, so that the end is not held up.
            let _ = tell.send(News::Round(read(String::from_utf8_lossy(&line).trim_end())));
            line.clear();
        }
        let _ = tell.send(News::Round(Told::Silent(role)));
    };
    thread::Builder::new().name("canary".into()).spawn(listening).map(drop)
}
