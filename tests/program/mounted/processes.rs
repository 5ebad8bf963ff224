//! Processes as /proc shows them, and those that sit in a mount.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal};

use crate::fixture::LIMIT;
use crate::fixture::end::End;
use crate::fixture::process::Process;
use crate::fixture::world::World;

/// How often /proc is looked at, which tells nobody when it changes.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Number of fsync(2) in /proc/PID/syscall.
const FSYNC: &str = if cfg!(target_arch = "x86_64") { "74 " } else { "82 " };

/// Waits until something is so that nobody tells.
pub fn until(what: &str, limit: Duration, mut is: impl FnMut() -> bool) -> Duration {
    let from = Instant::now();
    while !is() {
        assert!(from.elapsed() < limit, "waited {limit:?} for {what}");
        let _ = poll(&mut [], Some(&LOOK));
    }
    from.elapsed()
}

/// A process as its `stat` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub pid: u32,
    pub parent: u32,
    pub state: char,
    pub name: String,
}

fn seen(pid: u32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Seen { pid, parent, state, name: head.split_once(" (")?.1.to_owned() })
}

fn all() -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<Seen> {
    all().into_iter().filter_map(seen).filter(|seen| seen.parent == parent).collect()
}

/// The bell of an end, awaited where there is none at the moment.
pub fn bell(end: &End) -> u32 {
    let mut found = None;
    until("a bell", LIMIT, || {
        found = children(end.id()).into_iter().find(|child| child.state != 'Z').map(|child| child.pid);
        found.is_some()
    });
    found.unwrap()
}

/// Whether a process lives.
pub fn lives(pid: u32) -> bool {
    seen(pid).is_some_and(|seen| !['Z', 'X'].contains(&seen.state))
}

/// Sends a signal to a process that is no child of ours.
pub fn signal(pid: u32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Every program of ours that was started with the environment of this world, and every zombie that one of these
/// processes has.
pub fn of_world(world: &World) -> Vec<Seen> {
    let place = world.path("run");
    let mark = format!("XDG_RUNTIME_DIR={}", place.display());
    let ours = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    all().into_iter().filter(ours).filter_map(seen).collect()
}

/// Waits until no process of this world is there any more.
pub fn until_none(world: &World, limit: Duration) -> Duration {
    let mut left = Vec::new();
    let from = Instant::now();
    while from.elapsed() < limit {
        left = of_world(world);
        if left.is_empty() {
            return from.elapsed();
        }
        let _ = poll(&mut [], Some(&LOOK));
    }
    panic!("after {limit:?} there is still {left:?}");
}

/// Waits until a process waits for its fsync.
pub fn until_fsync(process: &Process) {
    let path = format!("/proc/{}/syscall", process.id());
    until("the fsync", LIMIT, || fs::read_to_string(&path).is_ok_and(|call| call.starts_with(FSYNC)));
}

/// `sync receipt` of an end, once it waits.
pub fn sync(world: &World, end: &End) -> Process {
    let process = syncing(world, end);
    until_fsync(&process);
    process
}

/// `sync receipt` of an end.
pub fn syncing(world: &World, end: &End) -> Process {
    let receipt = end.dir.join("receipt");
    let mut command = world.command_of("sync", &[receipt.to_str().unwrap()]);
    command.env("LC_ALL", "C");
    Process::spawn(command)
}

/// A shell that sits in a directory and looks around when it is asked to.
pub struct Sitter {
    process: Process,
    input: Option<ChildStdin>,
}

impl Sitter {
    pub fn new(world: &World, dir: &Path) -> Self {
        let script = r#"echo sits; while read -r word; do ls . 2>&1 | tr '\n' ' '; echo; done; echo leaves"#;
        let mut command = world.command_of("sh", &["-c", script]);
        command.current_dir(dir).env("LC_ALL", "C");
        let (process, input) = Process::spawn_open(command);
        let mut sitter = Self { process, input: Some(input) };
        assert_eq!(sitter.process.line("the sitter", LIMIT).as_deref(), Some("sits"));
        sitter
    }

    /// What `ls` says there.
    pub fn look(&mut self) -> String {
        self.input.as_mut().unwrap().write_all(b"look\n").unwrap();
        self.process.line("what the sitter sees", LIMIT).unwrap()
    }

    /// Ends it as its terminal does.
    pub fn leave(mut self) {
        self.input.take();
        let ended = self.process.finish();
        assert_eq!((ended.code, ended.out.as_slice()), (Some(0), &["leaves".to_owned()][..]));
    }
}

/// `tail -f` of an end's log, from its first line.
pub struct Tail(pub Process);

impl Tail {
    pub fn new(world: &World, end: &End) -> Self {
        let log = end.inbox("log.jsonl");
        let mut tail = Self(Process::spawn(
            world.command_of("tail", &["-n", "+1", "-s", "0.1", "-f", log.to_str().unwrap()]),
        ));
        tail.until("channel");
        tail
    }

    /// Waits for the line of a status.
    pub fn until(&mut self, word: &str) {
        let wanted = format!(r#"{{"type":"status","event":"{word}""#);
        while !self.0.line(word, LIMIT).unwrap_or_else(|| panic!("no {word}")).starts_with(&wanted) {}
    }

    /// Ends it, and holds if it can be ended.
    pub fn end(mut self) {
        if !self.0.has_ended() {
            self.0.signal(Signal::TERM);
        }
        self.0.finish();
    }
}
