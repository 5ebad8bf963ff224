//! A mailbox in a temporary directory, whatever its back end, and the channel's side of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::dir::{DirMailbox, Options};
use agent_wormhole_mount::mounted::{self, FuseMailbox};
use agent_wormhole_mount::{
    Content, Ctl, EntryId, Incoming, Kind, LeftOut, Mailbox, OutboxEvent, Outcome, Outlet, Refusal, Saved,
    Source, SourceError, bell, mounts,
};
use notify::{RecursiveMode, Watcher as _};

/// How long a test waits for what must come. Never how long it waits for what must not.
pub const LONG: Duration = Duration::from_secs(30);

/// A way to open a mailbox: the place, the limit of its inbox, and who listens.
pub type Open = fn(&Path, Option<u64>, Outlet) -> Arc<dyn Mailbox>;

/// Every back end that the suite runs against.
pub const BACK_ENDS: &[(&str, Open)] = &[("dir", open_dir), ("fuse", open_fuse)];
/// A mailbox whose test takes longer than this is taken away under it: what waits for it fails, and hangs no machine.
const WATCHDOG: Duration = Duration::from_secs(120);

fn open_dir(path: &Path, inbox_limit: Option<u64>, outlet: Outlet) -> Arc<dyn Mailbox> {
    Arc::new(DirMailbox::open(&Options { path: path.to_owned(), inbox_limit }, outlet).unwrap())
}

fn open_fuse(path: &Path, inbox_limit: Option<u64>, outlet: Outlet) -> Arc<dyn Mailbox> {
    let options = mounted::Options { inbox_limit, ..fuse_options(path) };
    Arc::new(FuseMailbox::open(options, outlet).expect("a mount: run as root, with /dev/fuse"))
}

/// How the suite mounts: under a name of its own, with the bell that is built beside it.
pub fn fuse_options(path: &Path) -> mounted::Options {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let source = format!("agent-wormhole:suite-{}-{number}", std::process::id());
    let program = env!("CARGO_BIN_EXE_agent-wormhole-bell").into();
    mounted::Options::new(path.to_owned(), source, bell::Options { program, args: Vec::new(), arg0: None })
}

/// Ends with the test, or ends what hangs in it.
pub fn watchdog(path: &Path) -> impl Drop + use<> {
    struct Guard(Option<Sender<()>>, Option<JoinHandle<()>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0 = None;
            let _ = self.1.take().unwrap().join();
        }
    }
    let (end, ended) = mpsc::channel();
    let path = path.to_owned();
    let watch = thread::spawn(move || {
        if ended.recv_timeout(WATCHDOG) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        println!("{} took too long and is taken away", path.display());
        let connections = Path::new("/sys/fs/fuse/connections");
        if fs::read_dir(connections).unwrap().next().is_none() {
            let _ = Command::new("mount").args(["-t", "fusectl", "none"]).arg(connections).status();
        }
        for mounted in mounts::list().unwrap().iter().filter(|mounted| mounted.path == path) {
            let _ = mounts::abort(mounted.device);
        }
    });
    Guard(Some(end), Some(watch))
}

/// One mailbox and its listener.
pub struct Fixture {
    /// The back end.
    pub name: &'static str,
    pub mailbox: Arc<dyn Mailbox>,
    events: Mutex<Receiver<(OutboxEvent, Instant)>>,
    /// A directory beside the channel, for what is sent and unpacked.
    pub home: tempfile::TempDir,
    left_out: Mutex<Vec<LeftOut>>,
}

/// An offer with its bytes.
#[derive(Debug)]
pub struct Offered {
    pub entry: EntryId,
    pub kind: Kind,
    pub name: String,
    pub size: Option<u64>,
    pub executable: bool,
    pub mtime: Option<SystemTime>,
    pub content: Body,
}

/// What a test looks at of a content.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    Bytes(Vec<u8>),
    Changed,
    BrokenOff,
    /// Name, whether it is a file, bytes.
    Tree(Vec<(String, bool, Vec<u8>)>, Vec<String>),
}

/// Runs a body against every back end.
pub fn each(body: impl Fn(&Fixture)) {
    each_limited(None, body);
}

/// The same with a limit of the inbox in bytes.
pub fn each_limited(limit: Option<u64>, body: impl Fn(&Fixture)) {
    for (name, open) in BACK_ENDS {
        run_one(name, *open, limit, &body);
    }
}

/// Runs a body against one back end.
pub fn only(wanted: &str, body: impl Fn(&Fixture)) {
    for (name, open) in BACK_ENDS.iter().filter(|(name, _)| *name == wanted) {
        run_one(name, *open, None, &body);
    }
}

fn run_one(name: &'static str, open: Open, limit: Option<u64>, body: &impl Fn(&Fixture)) {
    println!("back end: {name}");
    let home = tempfile::tempdir().unwrap();
    let _watchdog = watchdog(&home.path().join("channel"));
    let (outlet, events) = mpsc::channel();
    let outlet = Box::new(move |event| outlet.send((event, Instant::now())).is_ok());
    let mailbox = open(&home.path().join("channel"), limit, outlet);
    mailbox.allow(1_000_000);
    let fixture = Fixture { name, mailbox, events: Mutex::new(events), home, left_out: Mutex::default() };
    body(&fixture);
    fixture.mailbox.close().unwrap();
    assert!(!fixture.home.path().join("channel").exists());
}

impl Fixture {
    pub fn channel(&self) -> PathBuf {
        self.mailbox.path().to_owned()
    }

    pub fn outbox(&self, name: &str) -> PathBuf {
        self.mailbox.path().join("outbox").join(name)
    }

    pub fn inbox(&self, name: &str) -> PathBuf {
        self.mailbox.path().join("inbox").join(name)
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.outbox(name), bytes).unwrap();
    }

    /// The next event, and when it came.
    pub fn arrival(&self) -> (OutboxEvent, Instant) {
        self.events.lock().unwrap().recv_timeout(LONG).expect("an event")
    }

    /// The next event that is not about something left out.
    pub fn event(&self) -> OutboxEvent {
        loop {
            match self.arrival().0 {
                OutboxEvent::LeftOut(left_out) => self.left_out.lock().unwrap().push(left_out),
                OutboxEvent::Resolved { .. } => {}
                event => return event,
            }
        }
    }

    /// The next event, which is an offer.
    pub fn offer(&self) -> Offered {
        match self.event() {
            OutboxEvent::Offer(offer) => Offered {
                entry: offer.entry,
                kind: offer.kind,
                name: offer.name,
                size: offer.size,
                executable: offer.executable,
                mtime: offer.mtime,
                content: drain(offer.content),
            },
            event => panic!("an offer, not {event:?}"),
        }
    }

    /// The next `count` offers, sorted by name.
    pub fn offers(&self, count: usize) -> Vec<Offered> {
        let mut offers: Vec<_> = (0..count).map(|_| self.offer()).collect();
        offers.sort_by(|a, b| a.name.cmp(&b.name));
        offers
    }

    pub fn withdrawn(&self) -> EntryId {
        match self.event() {
            OutboxEvent::Withdraw { entry } => entry,
            event => panic!("a withdrawal, not {event:?}"),
        }
    }

    pub fn ctl(&self) -> Ctl {
        match self.event() {
            OutboxEvent::Ctl(word) => word,
            event => panic!("a word, not {event:?}"),
        }
    }

    /// Waits until something of this name is left out, and returns the reason.
    pub fn left_out(&self, name: &str) -> String {
        loop {
            let found = self.left_out.lock().unwrap().iter().find(|left_out| left_out.name == name).cloned();
            if let Some(left_out) = found {
                return left_out.reason;
            }
            match self.arrival().0 {
                OutboxEvent::LeftOut(left_out) => self.left_out.lock().unwrap().push(left_out),
                OutboxEvent::Resolved { .. } => {}
                event => panic!("{name} left out, not {event:?}"),
            }
        }
    }

    /// Makes everything due, and holds if nothing is offered then.
    pub fn nothing_more(&self) {
        self.mailbox.finish();
        match self.event() {
            OutboxEvent::Idle => {}
            event => panic!("nothing more, not {event:?}"),
        }
    }

    pub fn deliver(&self, offer: &Offered) {
        self.mailbox.settle(offer.entry, Outcome::Delivered);
    }

    /// Waits until a name has left the outbox.
    pub fn until_gone(&self, name: &str) {
        let path = self.outbox(name);
        until(path.parent().unwrap(), || fs::symlink_metadata(&path).is_err());
    }

    /// Receives something whole.
    pub fn receive(&self, kind: Kind, name: &str, bytes: &[u8]) -> Result<Saved, Refusal> {
        let mut sink = self.mailbox.receive(&head(kind, name))?;
        sink.write(bytes)?;
        sink.commit()
    }

    /// Runs a shell command in the outbox.
    pub fn sh(&self, script: &str) {
        run(Command::new("sh")
            .args(["-ec", script])
            .current_dir(self.outbox(""))
            .env("HOME", self.home.path()));
    }
}

pub fn head(kind: Kind, name: &str) -> Incoming<'_> {
    Incoming { kind, item: 7, name, size: None, executable: false, mtime: None }
}

/// Holds if a program can be run: a test that cannot do its work fails.
pub fn needs(program: &str) {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found, "{program} is not installed; run `make needs`");
}

/// Runs a command and holds if it succeeds.
pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until something in a directory makes `is_so` true.
pub fn until(dir: &Path, is_so: impl Fn() -> bool) {
    let (changed, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = changed.send(());
    })
    .unwrap();
    watcher.watch(dir, RecursiveMode::NonRecursive).unwrap();
    let end = Instant::now() + LONG;
    while !is_so() {
        let left = end.checked_duration_since(Instant::now()).expect("it to become so in time");
        // A change outside of the directory has no event: it is looked for now and then.
        let _ = changes.recv_timeout(left.min(Duration::from_millis(100)));
    }
}

pub fn read(mut source: Box<dyn Source>) -> Result<Vec<u8>, SourceError> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match source.read(&mut buf)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buf[..count]),
        }
    }
}

pub fn drain(content: Content) -> Body {
    match content {
        Content::None => Body::Bytes(Vec::new()),
        Content::Whole(bytes) => Body::Bytes(bytes.to_vec()),
        Content::Secret(secret) => Body::Bytes(secret.bytes().to_vec()),
        Content::Stream(source) => match read(source) {
            Ok(bytes) => Body::Bytes(bytes),
            Err(SourceError::Changed) => Body::Changed,
            Err(SourceError::BrokenOff) => Body::BrokenOff,
            Err(SourceError::Io(error)) => panic!("{error}"),
        },
        Content::Tree(mut tree) => {
            let (mut members, mut left_out) = (Vec::new(), Vec::new());
            while let Some(member) = tree.next().unwrap() {
                let Body::Bytes(bytes) = drain(member.content) else { panic!("{} changed", member.name) };
                members.push((member.name, member.kind == Kind::File, bytes));
                left_out.extend(tree.left_out().into_iter().map(|left_out| left_out.name));
            }
            left_out.extend(tree.left_out().into_iter().map(|left_out| left_out.name));
            members.sort();
            left_out.sort();
            Body::Tree(members, left_out)
        }
    }
}
