//! A channel with the Python tool 0.1.5 at its other end, in direct mode: all that 0.1 has.
//!
//! The tool keeps what it receives under one directory of the machine; here it is started through its own functions,
//! which take another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fixture::LIMIT;
use crate::fixture::content::{noise, noise_file};
use crate::fixture::end::{End, text};
use crate::fixture::process::Process;
use crate::fixture::world::World;

/// Names the interpreter that has the tool.
const VARIABLE: &str = "AGENT_WORMHOLE_PYTHON";
/// The version that is spoken with.
const VERSION: &str = "0.1.5";
/// What runs the tool as either end; its arguments are the place, the command, and that command's own.
const SCRIPT: &str = r#"
import asyncio, sys
from pathlib import Path
from agent_wormhole import channel
place, command, *rest = sys.argv[1:]
place = Path(place)
if command == "host":
    asyncio.run(channel.run_host(direct=True, base=place))
elif command == "connect":
    asyncio.run(channel.run_peer(rest[0], base=place))
elif command == "relay-host":
    asyncio.run(channel.run_host(base=place))
elif command == "relay-connect":
    asyncio.run(channel.run_peer(rest[0], base=place))
elif command == "texts":
    for n in range(int(rest[2])):
        channel.send_to_outbox(rest[0], message=f"{n} ".ljust(int(rest[3]), "."), role=rest[1], base=place)
elif command == "text":
    channel.send_to_outbox(rest[0], message=rest[2], role=rest[1], base=place)
elif command == "file":
    channel.send_to_outbox(rest[0], file_path=rest[2], role=rest[1], base=place)
"#;

/// The interpreter, with the right version of the tool.
pub fn interpreter() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let python = named.unwrap_or(built);
    let asked = "from importlib.metadata import version; print(version('agent-wormhole'))";
    let version = Command::new(&python).args(["-c", asked]).output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    assert_eq!(
        version.as_deref().ok(),
        Some(VERSION),
        "{} has no agent-wormhole {VERSION}; run make needs, or name another interpreter in {VARIABLE}",
        python.display()
    );
    python
}

/// The tool as one end of a channel.
pub struct Tool<'a> {
    world: &'a World,
    pub process: Process,
    role: &'static str,
    pub code: String,
}

impl<'a> Tool<'a> {
    fn command(world: &World, role: &str, args: &[&str]) -> Command {
        // Each end clears away all of its code's.
        let place = world.path(&format!("tmp/python-{role}"));
        let mut command = world.command_of(interpreter().to_str().unwrap(), &["-c", SCRIPT]);
        command.arg(place).args(args);
        command
    }

    fn host(world: &'a World) -> Self {
        Self::hosting(world, Self::command(world, "host", &["host"]))
    }

    /// Its host at a relay.
    pub fn host_at(world: &'a World, relay: &str) -> Self {
        let mut command = Self::command(world, "host", &["relay-host"]);
        command.env("AGENT_WORMHOLE_RELAY_URL", relay);
        Self::hosting(world, command)
    }

    /// Its peer at a relay.
    pub fn connect_at(world: &'a World, code: &str, relay: &str) -> Self {
        let mut command = Self::command(world, "peer", &["relay-connect", code]);
        command.env("AGENT_WORMHOLE_RELAY_URL", relay);
        Self { world, process: Process::spawn(command), role: "peer", code: code.to_owned() }
    }

    fn hosting(world: &'a World, command: Command) -> Self {
        let process = Process::spawn(command);
        let mut tool = Self { world, process, role: "host", code: String::new() };
        let channel = tool.line();
        tool.code = text(&channel, "code").to_owned();
        tool
    }

    fn connect(world: &'a World, code: &str) -> Self {
        let at = format!("{code}@127.0.0.1");
        let process = Process::spawn(Self::command(world, "peer", &["connect", &at]));
        Self { world, process, role: "peer", code: code.to_owned() }
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> Value {
        let line = self.process.line("a line of the Python tool", LIMIT);
        let line = line.unwrap_or_else(|| panic!("it has ended: {:?}", self.process.finish()));
        serde_json::from_str(&line).unwrap()
    }

    pub fn send(&self, kind: &str, what: &str) {
        self.sends(&[kind, &self.code, self.role, what]);
    }

    /// So many numbered texts of this length at once.
    pub fn send_many(&self, count: usize, length: usize) {
        self.sends(&["texts", &self.code, self.role, &count.to_string(), &length.to_string()]);
    }

    fn sends(&self, args: &[&str]) {
        let sent = Process::spawn(Self::command(self.world, self.role, args)).finish();
        assert_eq!(sent.code, Some(0), "{sent:?}");
    }

    /// What it received under this name.
    pub fn received(&self, name: &str) -> Vec<u8> {
        let place = self.world.path(&format!("tmp/python-{}", self.role));
        fs::read(place.join(&self.code).join("files").join(name)).unwrap()
    }
}

/// Both ends connected, one of which is ours.
fn meet(world: &World, ours_hosts: bool) -> (End, Tool<'_>) {
    let (mut end, mut tool) = if ours_hosts {
        let end = world.host(&["--direct"]);
        let tool = Tool::connect(world, &end.code());
        (end, tool)
    } else {
        let tool = Tool::host(world);
        let end = world.connect(&format!("{}@127.0.0.1", tool.code), &["--any-words"]);
        (end, tool)
    };
    assert_eq!(tool.line()["event"], "connected");
    let connected = end.status("connected");
    assert_eq!((&connected["transport"], &connected["protocol"]), (&"direct".into(), &1.into()));
    (end, tool)
}

#[test]
fn texts_and_files_go_both_ways_with_the_python_tool_in_either_role() {
    for ours_hosts in [true, false] {
        let world = World::new();
        let (mut end, mut tool) = meet(&world, ours_hosts);
        end.put("message", "grüße\n");
        let said = tool.line();
        assert_eq!((&said["type"], &said["body"]), (&"text".into(), &"grüße\n".into()));
        tool.send("text", "héllo \"you\"");
        assert_eq!(end.text("héllo \"you\"")["from"], "peer");
        // As much as fits, nearly.
        let large = 7_500_000;
        for (name, bytes) in
            [("empty.bin", 0), ("small.bin", 1000), ("odd.bin", 300_001), ("large.bin", large)]
        {
            let content = noise(bytes as u64, bytes);
            end.put(name, &content);
            let file = tool.line();
            assert_eq!(
                (&file["type"], &file["name"], &file["size"]),
                (&"file".into(), &name.into(), &bytes.into())
            );
            assert!(tool.received(name) == content, "{name}");
            let source = world.path(&format!("home/back-{name}"));
            fs::write(&source, &content).unwrap();
            tool.send("file", source.to_str().unwrap());
            let event = end.item(&format!("back-{name}"));
            assert_eq!((&event["type"], &event["size"]), (&"file".into(), &bytes.into()));
            assert!(fs::read(end.inbox(&format!("back-{name}"))).unwrap() == content, "{name}");
        }
        // It is sent, and nobody says more than that.
        let transcript = fs::read_to_string(end.dir.join("transcript.jsonl")).unwrap();
        assert!(
            transcript.contains("empty.bin") && !transcript.contains(r#""event":"refused""#),
            "{transcript}"
        );
        end.ctl("close");
        end.finish().well();
        assert_eq!(tool.line()["event"], "disconnected");
        world.is_clean();
    }
}

#[test]
fn what_the_python_tool_cannot_take_is_refused_by_name_and_the_channel_lives_on() {
    let world = World::new();
    let (mut end, mut tool) = meet(&world, true);
    let source = world.path("home/huge.bin");
    noise_file(&source, 1, 8 << 20);
    end.link(&source, "huge.bin");
    let refused = end.status("refused");
    assert_eq!((&refused["by"], &refused["name"]), (&"peer".into(), &"huge.bin".into()), "{refused}");
    assert!(text(&refused, "detail").contains("larger than the other end takes"), "{refused}");
    // A directory, which 0.1 does not know, is told as well.
    let project = world.path("home/project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("file"), "x").unwrap();
    end.link(&project, "project");
    let refused =
        end.until("the directory", |event| event["event"] == "refused" && event["name"] == "project");
    assert!(text(&refused, "detail").contains("version cannot take it"), "{refused}");
    end.put("message", "still here\n");
    assert_eq!(tool.line()["body"], "still here\n");
    tool.send("text", "so am I");
    end.text("so am I");
    let flush = world.run(&["flush", end.dir.to_str().unwrap(), "--timeout", "30s"]);
    assert_eq!(flush.code, Some(6), "{flush:?}");
    for name in ["huge.bin", "project"] {
        assert!(flush.err.contains(name), "{flush:?}");
    }
    end.ctl("close");
    let closed = end.finish();
    assert_eq!(closed.code, Some(6), "{closed:?}");
    let undelivered = closed.last()["undelivered"].to_string();
    assert!(undelivered.contains("huge.bin") && undelivered.contains("project"), "{closed:?}");
    assert_eq!(tool.line()["event"], "disconnected");
}

#[test]
fn a_wrong_code_is_told_on_both_sides_of_a_channel_with_the_python_tool() {
    let world = World::new();
    let host = world.host(&["--direct"]);
    let mut tool = Tool::connect(&world, &format!("{}-acorn-amber-anvil", host.nameplate));
    assert_eq!(tool.line()["event"], "handshake_failed");
    let host = host.finish();
    assert_eq!((host.code, host.statuses("handshake_failed")), (Some(3), 1), "{host:?}");

    let mut tool = Tool::host(&world);
    let (number, _) = tool.code.split_once('-').unwrap();
    let wrong = format!("{number}-acorn-amber-zzz@127.0.0.1");
    let peer = Process::spawn(world.connecting(&wrong, &["--any-words"])).finish();
    assert_eq!(peer.code, Some(3), "{peer:?}");
    assert_eq!(tool.line()["event"], "handshake_failed");
    world.is_clean();
}

#[test]
fn the_python_tools_end_is_the_peers_goodbye() {
    let world = World::new();
    let (mut end, mut tool) = meet(&world, false);
    tool.send("text", "bye");
    end.text("bye");
    tool.process.signal(rustix::process::Signal::KILL);
    end.status("peer_closed");
    assert_eq!(tool.process.finish().code, None);
    assert_eq!(fs::read(end.inbox("messages/0001.txt")).unwrap(), b"bye");
    end.ctl("close");
    end.finish().well();
}
