//! A channel with the second implementation at its other end, which was written from the two `PROTOCOL.md` alone.
//!
//! What it received it keeps in memory and tells as a SHA-256.

mod features;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::fixture::content::{noise, same_tree, tree};
use crate::fixture::end::{End, text};
use crate::fixture::process::{Ended, Process};
use crate::fixture::proxy::Proxy;
use crate::fixture::world::{Relay, World};
use crate::fixture::{LIMIT, LONG};
use crate::python::interpreter;

/// Sizes of files: of nothing, inline, the first that is not, more than one chunk, more than one window.
const SIZES: [usize; 6] = [0, 1, 16_384, 16_385, (1 << 20) + 1, 9 << 20];
/// Texts each way.
const TEXTS: usize = 20;

/// The second implementation as one end.
struct Second {
    process: Process,
    input: Option<ChildStdin>,
    events: Vec<Value>,
}

fn program(world: &World, args: &[&str]) -> std::process::Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_implementation.py");
    let mut command = world.command_of(interpreter().to_str().unwrap(), &[script]);
    command.args(args).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

impl Second {
    fn start(world: &World, args: &[&str]) -> Self {
        let (process, input) = Process::spawn_open(program(world, args));
        Self { process, input: Some(input), events: Vec::new() }
    }

    /// Asks it for something.
    fn ask(&mut self, command: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    /// Lets it send something; its number.
    fn send(&mut self, command: &Value) -> Value {
        self.ask(command);
        let sent = self.events.iter().filter(|event| event["event"] == "sent").count();
        self.nth(sent, "an item's number", |event| event["event"] == "sent")["item"].clone()
    }

    /// The `n`-th event of which `is` holds, from 0.
    fn nth(&mut self, n: usize, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(event) = self.events.iter().filter(|event| is(event)).nth(n) {
                return event.clone();
            }
            let Some(line) = self.process.line(what, LONG) else {
                panic!("ended before {what}: {:?}; there is {:?}", self.process.finish(), self.events)
            };
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_ne!(event["event"], "fault", "{event}");
            self.events.push(event);
        }
    }

    fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.nth(0, what, is)
    }

    fn event(&mut self, word: &str) -> Value {
        self.until(word, |event| event["event"] == word)
    }

    fn delivered(&mut self, item: &Value) {
        self.until("a receipt", |event| event["event"] == "delivered" && event["item"] == *item);
    }

    /// Waits until it has ended by itself.
    fn finish(&mut self) -> Ended {
        while let Some(line) = self.process.line("its end", LIMIT) {
            self.events.push(serde_json::from_str(&line).unwrap());
        }
        let ended = self.process.finish();
        assert_eq!(ended.err, "", "{:?}", self.events);
        ended
    }

    fn bodies(&self) -> Vec<&str> {
        let texts = self.events.iter().filter(|event| event["event"] == "text");
        texts.map(|event| text(event, "body")).collect()
    }
}

/// One end of each kind, connected, and what is between them.
struct Meeting<'a> {
    world: &'a World,
    ours: End,
    second: Second,
    /// In front of the host or of the relay, whichever the one that dials is told.
    proxy: Proxy,
    _relay: Option<Relay>,
}

/// Who hosts, and how frames travel.
#[derive(Debug, Clone, Copy)]
struct Case {
    ours_hosts: bool,
    direct: bool,
}

const CASES: [Case; 4] = [
    Case { ours_hosts: true, direct: true },
    Case { ours_hosts: false, direct: true },
    Case { ours_hosts: true, direct: false },
    Case { ours_hosts: false, direct: false },
];

/// What each end is told besides, when it is started.
#[derive(Debug, Clone, Copy, Default)]
struct Told<'a> {
    ours: &'a [&'a str],
    second: &'a [&'a str],
}

impl<'a> Meeting<'a> {
    fn new(world: &'a World, case: Case) -> Self {
        Self::telling(world, case, Told::default())
    }

    fn telling(world: &'a World, case: Case, told: Told<'_>) -> Self {
        let mut meeting = if case.direct {
            Self::direct(world, case.ours_hosts, told)
        } else {
            Self::at_relay(world, case.ours_hosts, told)
        };
        meeting.second.event("connected");
        assert_eq!(meeting.ours.status("connected")["protocol"], 2);
        meeting
    }

    fn direct(world: &'a World, ours_hosts: bool, told: Told<'_>) -> Self {
        let target = Arc::new(Mutex::new(SocketAddr::from(([127, 0, 0, 1], 0))));
        let proxy = Proxy::before(Arc::clone(&target));
        let port = proxy.address.port().to_string();
        let (ours, second) = if ours_hosts {
            let ours = world.host(&[&["--direct"], told.ours].concat());
            target.lock().unwrap().set_port(ours.nameplate.parse().unwrap());
            let args = ["peer", &ours.code(), "--direct", "127.0.0.1", "--port", &port];
            let second = Second::start(world, &[&args, told.second].concat());
            (ours, second)
        } else {
            let args = ["host", "--direct", "127.0.0.1", "--port", &port];
            let mut second = Second::start(world, &[&args, told.second].concat());
            let code = second.event("code");
            let port = code["port"].as_u64().unwrap().try_into().unwrap();
            // Who proves nothing costs nothing.
            TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            target.lock().unwrap().set_port(port);
            (world.connect(&format!("{}@127.0.0.1", text(&code, "code")), told.ours), second)
        };
        Self { world, ours, second, proxy, _relay: None }
    }

    /// Both ends reach it through one proxy.
    fn at_relay(world: &'a World, ours_hosts: bool, told: Told<'_>) -> Self {
        let relay = world.relay();
        let proxy = Proxy::before(Arc::new(Mutex::new(relay.address)));
        let url = proxy.url();
        let (ours, second) = if ours_hosts {
            let ours = world.host(&[&["--relay", &url], told.ours].concat());
            let args = ["peer", &ours.code(), "--relay", &url];
            let second = Second::start(world, &[&args, told.second].concat());
            (ours, second)
        } else {
            let mut second = Second::start(world, &[&["host", "--relay", &url], told.second].concat());
            let code = text(&second.event("code"), "code").to_owned();
            (world.connect(&code, &[&["--relay", &url], told.ours].concat()), second)
        };
        Self { world, ours, second, proxy, _relay: Some(relay) }
    }

    /// A file for the second implementation to send.
    fn source(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.world.path("tmp").join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// It sends this, and what arrived is the same.
    fn sends(&mut self, name: &str, content: &[u8]) {
        let path = self.source(name, content);
        let item = self.second.send(&json!({"do": "file", "name": name, "path": path}));
        self.arrives(name, content);
        self.second.delivered(&item);
    }

    fn arrives(&mut self, name: &str, content: &[u8]) {
        self.ours.until_in(LONG, name, |event| event["name"] == name && event["from"] == "peer");
        assert!(fs::read(self.ours.inbox(name)).unwrap() == content, "{name}");
    }

    fn is_told(&mut self, name: &str, content: &[u8]) {
        let told = self.second.until(name, |event| event["event"] == "file" && event["name"] == name);
        assert_eq!((text(&told, "sha256"), &told["size"]), (hash(content).as_str(), &content.len().into()));
    }

    /// The second implementation closes once all is delivered, or our end does. Both end well.
    fn close(self, second_closes: bool) -> (Second, Vec<Value>) {
        let Self { world, mut ours, mut second, proxy: _proxy, _relay } = self;
        if second_closes {
            second.ask(&json!({"do": "close"}));
        } else {
            ours.ctl("close");
        }
        let ended = if second_closes {
            assert_eq!(ours.status("peer_closed")["detail"], "closed as asked");
            ours.ctl("close");
            ours.finish()
        } else {
            let ours = ours.finish();
            assert_eq!(second.event("peer_closed")["reason"], "done");
            // The end of its input closes, too; it may have seen already that nobody is there any more.
            second.input = None;
            ours
        };
        ended.well();
        let finished = second.finish();
        assert_eq!((finished.code, &second.event("closed")["unconfirmed"]), (Some(0), &json!([])));
        world.is_clean();
        (second, ended.events)
    }
}

fn hash(content: &[u8]) -> String {
    let mut digits = String::new();
    for byte in Sha256::digest(content) {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits
}

fn numbered(from: &str) -> Vec<String> {
    (0..TEXTS).map(|n| format!("{from} {n}: grüße\n")).collect()
}

/// Texts, files of all sizes and a directory go both ways.
fn everything(case: Case, second_closes: bool) {
    let world = World::new();
    let mut meeting = Meeting::new(&world, case);
    for (n, (ours, theirs)) in numbered("ours").iter().zip(numbered("second")).enumerate() {
        meeting.ours.put(&format!("{n}.msg"), ours);
        meeting.second.send(&json!({"do": "text", "body": theirs}));
    }
    let long = "a text of more than one message\n".repeat(2_000);
    let item = meeting.second.send(&json!({"do": "text", "body": long}));
    meeting.second.delivered(&item);
    for size in SIZES {
        meeting.ours.put(&format!("ours-{size}.bin"), noise(1, size));
        meeting.sends(&format!("second-{size}.bin"), &noise(2, size));
    }
    for size in SIZES {
        meeting.is_told(&format!("ours-{size}.bin"), &noise(1, size));
    }
    directories(&mut meeting);
    let (second, events) = meeting.close(second_closes);
    assert_eq!(second.bodies(), numbered("ours"));
    let texts = events.iter().filter(|event| event["type"] == "text");
    let numbers: Vec<u64> = texts.clone().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let bodies: Vec<&str> = texts.filter_map(|event| event["body"].as_str()).collect();
    assert_eq!(bodies[..TEXTS], numbered("second"));
}

fn directories(meeting: &mut Meeting<'_>) {
    let project = meeting.world.path("home/project");
    tree(&project, 40);
    fs::write(project.join("large.bin"), noise(3, 3 << 20)).unwrap();
    meeting.ours.link(&project, "ours");
    let item = meeting.second.send(&json!({"do": "group", "name": "second", "path": project}));
    meeting.ours.item("second");
    same_tree(&project, &meeting.ours.inbox("second"), true);
    meeting.second.delivered(&item);
    let told = meeting.second.until("the group", |event| event["event"] == "group");
    assert_eq!(told["name"], "ours");
    let members = told["members"].as_array().unwrap();
    let files: Vec<&Value> = members.iter().filter(|member| member["kind"] == "file").collect();
    assert_eq!(files.len(), 40 + 4);
    for member in files {
        let content = fs::read(project.join(text(member, "name"))).unwrap();
        assert_eq!(text(member, "sha256"), hash(&content), "{member}");
        assert_eq!(member["executable"], member["name"] == "run.sh", "{member}");
    }
    assert!(members.iter().any(|member| member["name"] == "empty/dir" && member["kind"] == "dir"));
}

#[test]
fn everything_goes_both_ways_directly() {
    everything(CASES[0], true);
    everything(CASES[1], false);
}

#[test]
fn everything_goes_both_ways_through_a_relay() {
    everything(CASES[2], false);
    everything(CASES[3], true);
}

/// Cuts in the middle of two large files, one each way.
fn cuts(case: Case) {
    let (size, times) = (24 << 20, 6);
    let world = World::new();
    let mut meeting = Meeting::new(&world, case);
    let (ours, theirs) = (noise(1, size), noise(2, size));
    meeting.proxy.cut_every(size as u64 / times, times);
    meeting.ours.put("ours.bin", &ours);
    let path = meeting.source("second.bin", &theirs);
    let item = meeting.second.send(&json!({"do": "file", "name": "second.bin", "path": path}));
    for n in 0..times as usize {
        meeting.proxy.until_cuts(n + 1);
        meeting.ours.put(&format!("{n}.msg"), format!("ours {n}"));
        meeting.second.send(&json!({"do": "text", "body": format!("second {n}")}));
    }
    meeting.arrives("second.bin", &theirs);
    meeting.second.delivered(&item);
    meeting.is_told("ours.bin", &ours);
    let links = meeting.second.events.iter().filter(|event| event["event"] == "link").count();
    assert!(links > 1, "{case:?}: {links} links");
    let (second, events) = meeting.close(case.ours_hosts);
    assert_eq!(second.bodies(), (0..times).map(|n| format!("ours {n}")).collect::<Vec<_>>());
    let texts = events.iter().filter_map(|event| event["body"].as_str());
    assert!(texts.eq((0..times).map(|n| format!("second {n}"))), "{events:?}");
}

#[test]
fn cuts_of_a_direct_connection_lose_and_repeat_nothing() {
    cuts(CASES[0]);
    cuts(CASES[1]);
}

#[test]
fn cuts_of_the_connections_to_a_relay_lose_and_repeat_nothing() {
    cuts(CASES[2]);
    cuts(CASES[3]);
}

#[test]
fn a_wrong_code_is_told_on_both_sides() {
    let wrong = |code: &str| format!("{}-zoo-zoo-zoo", code.split('-').next().unwrap());
    let world = World::new();
    let relay = world.relay();
    let url = relay.url();
    for args in [["--direct", "127.0.0.1"], ["--relay", &url]] {
        let ours = world.host(if args[0] == "--direct" { &args[..1] } else { &args });
        let mut second = Second::start(&world, &[&["peer", &wrong(&ours.code())], &args[..]].concat());
        second.event("handshake_failed");
        assert_eq!(second.finish().code, Some(3));
        let ours = ours.finish();
        assert_eq!((ours.code, ours.statuses("handshake_failed")), (Some(3), 1), "{ours:?}");

        let mut second = Second::start(&world, &[&["host"], &args[..]].concat());
        let code = wrong(text(&second.event("code"), "code"));
        let ours = if args[0] == "--direct" {
            Process::spawn(world.connecting(&format!("{code}@127.0.0.1"), &[])).finish()
        } else {
            Process::spawn(world.connecting(&code, &args)).finish()
        };
        assert_eq!(ours.code, Some(3), "{ours:?}");
        second.event("handshake_failed");
        assert_eq!(second.finish().code, Some(3));
    }
    world.is_clean();
}

#[test]
fn an_item_that_is_taken_back_by_either_end_arrives_nowhere() {
    let world = World::new();
    let mut meeting = Meeting::new(&world, CASES[0]);
    // One that is on its way and has no end yet.
    let path = meeting.source("stream.bin", &noise(1, 2 << 20));
    let item = meeting.second.send(&json!({"do": "stream", "name": "stream.bin", "path": path}));
    let after = meeting.second.send(&json!({"do": "text", "body": "after the stream"}));
    meeting.second.delivered(&after);
    meeting.second.ask(&json!({"do": "cancel", "item": item}));
    let refused = meeting.second.event("refused");
    assert_eq!((&refused["item"], &refused["reason"]), (&item, &"cancelled".into()));
    assert!(!meeting.ours.inbox("stream.bin").exists());
    // One whose line stands still.
    let source = meeting.source("large.bin", &noise(2, 32 << 20));
    meeting.proxy.let_through(4 << 20);
    meeting.ours.link(Path::new(&source), "large.bin");
    meeting.ours.until_state("the file to be on its way", |state| state.to_string().contains("large.bin"));
    fs::remove_file(meeting.ours.outbox("large.bin")).unwrap();
    meeting.proxy.open();
    let refused = meeting.second.event("not_taken");
    assert_eq!((&refused["name"], &refused["reason"]), (&"large.bin".into(), &"cancelled".into()));
    meeting.sends("small.bin", b"small");
    let (_, events) = meeting.close(true);
    let of_the_stream: Vec<&Value> = events.iter().filter(|event| event["name"] == "stream.bin").collect();
    assert_eq!(of_the_stream.len(), 1, "{events:?}");
    assert_eq!((&of_the_stream[0]["event"], &of_the_stream[0]["by"]), (&"refused".into(), &"peer".into()));
}

#[test]
fn the_second_implementation_gives_the_known_answers() {
    let world = World::new();
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/src/PROTOCOL.md");
    let ended = Process::spawn(program(&world, &["vectors", vectors, document])).finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    let suites: Vec<&str> = ended.out.iter().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    assert_eq!(suites, ["codes", "handshake", "messages", "records", "sessions", "example"]);
}
