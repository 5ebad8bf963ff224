//! The commands that do not run a channel, as a shell sees them.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::UNIX_EPOCH;

use agent_wormhole::crypto::pake::Role;
use agent_wormhole::event::TransportKind;
use agent_wormhole::event::state::{ChannelState, Phase};
use agent_wormhole::rundir::{NewChannel, Registration, RuntimeDir};

/// A user of their own: nothing outside of one temporary directory is read or written.
struct User {
    place: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.place.path().canonicalize().unwrap()
    }

    fn runtime(&self) -> RuntimeDir {
        RuntimeDir::at(&self.path().join("agent-wormhole")).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-wormhole"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.path()).env("XDG_CONFIG_HOME", self.path().join("config"));
        command.env("HOME", self.path().join("home")).env_remove("XDG_DATA_HOME");
        command.env_remove("AGENT_WORMHOLE_RELAY_URL").env_remove("AGENT_WORMHOLE_LOG");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A channel that this process owns, with the parts of a mailbox that the commands look at.
    fn channel(&self, nameplate: &str, role: Role) -> Registration {
        let cwd = self.path();
        let registration = self
            .runtime()
            .register(&NewChannel {
                nameplate,
                role,
                dir: None,
                cwd: &cwd,
                started: UNIX_EPOCH,
                transport: TransportKind::Relay,
            })
            .unwrap();
        lay_out(registration.dir());
        registration
    }
}

fn lay_out(dir: &Path) {
    fs::create_dir_all(dir.join("inbox/messages")).unwrap();
    fs::create_dir_all(dir.join("outbox")).unwrap();
    fs::write(dir.join("ctl"), "").unwrap();
    let state = ChannelState { state: Phase::Connected, nameplate: "9471".into(), ..ChannelState::default() };
    fs::write(dir.join("status.json"), state.to_json().unwrap()).unwrap();
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_cannot_be_is_exit_2_and_says_what_to_do() {
    let user = User::new();
    for (args, says) in [
        (&["dance"][..], "Usage"),
        (&["host", "--relay", "https://relay.example"], "wss://relay.example.org"),
        (&["host", "--timeout", "soon"], "90s"),
        (&["connect", "1-cross-clock-marble@h", "--relay", "wss://x"], "leave out"),
        (&["connect", "1-cross-clock-marble@a b"], "after @"),
        (&["connect", "70000-cross-clock-marble@h"], "65535"),
        (&["connect", "9471-cross-clokc-marble"], "did you mean clock"),
        (&["connect", "-"], "standard input"),
        (&["host", "--relay", "wss://x", "--ca", "/missing"], "check the path"),
        (&["status", "9471"], "no channel 9471 is running"),
        (&["status", "nonsense"], "number"),
        (&["send", "9471", "hi"], "agent-wormhole host"),
        (&["send", "9471", "hi", "--file", "x"], "cannot be used with"),
        (&["flush", "9471"], "no channel 9471"),
        (&["close", "9471"], "no channel 9471"),
    ] {
        let output = user.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(says), "{args:?}: {}", err(&output));
        assert!(err(&output).matches("os error").count() < 2, "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}: standard output is data");
    }
}

#[test]
fn a_broken_config_file_is_exit_2() {
    let user = User::new();
    fs::create_dir_all(user.path().join("config/agent-wormhole")).unwrap();
    fs::write(user.path().join("config/agent-wormhole/config.toml"), "relay = \"nonsense\"").unwrap();
    let output = user.run(&["host"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("config.toml"), "{}", err(&output));
}

#[test]
fn help_is_data_and_ends_with_an_example() {
    let user = User::new();
    for args in [&["--help"][..], &["host", "--help"], &["send", "--help"], &["status", "--help"]] {
        let output = user.run(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains("Example"), "{}", out(&output));
    }
}

#[test]
fn status_shows_what_lives() {
    let user = User::new();
    let nothing = user.run(&["status"]);
    assert_eq!((nothing.status.code(), out(&nothing).as_str()), (Some(0), ""));
    let _host = user.channel("9471", Role::Host);
    let _peer = user.channel("9471", Role::Peer);
    let table = out(&user.run(&["status"]));
    assert_eq!(table.lines().count(), 3, "{table}");
    let json = out(&user.run(&["status", "--json"]));
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["role"], &lines[0]["state"]), (&"host".into(), &"connected".into()));
    // Both were started here: which is meant?
    let output = user.run(&["status", "9471"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("9471-host") && err(&output).contains("9471-peer"), "{}", err(&output));
    let sheet = out(&user.run(&["status", "9471-cross-clock-marble", "--role", "peer"]));
    assert!(sheet.starts_with("channel    9471 (peer)\n"), "{sheet}");
}

#[test]
fn what_a_dead_channel_left_is_gone_after_any_command() {
    let user = User::new();
    let dir = user.runtime().path().join("12-host");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    lay_out(&dir);
    let entry = serde_json::json!({
        "nameplate": "12", "role": "host", "dir": dir, "inode": dir.metadata().unwrap().ino(), "pid": 1,
        "cwd": "/", "started": "1970-01-01T00:00:00.000Z", "transport": "relay",
    });
    fs::write(user.runtime().path().join("channels/12-host.json"), entry.to_string()).unwrap();
    let output = user.run(&["status"]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), ""));
    assert!(!dir.exists());
    assert_eq!(fs::read_dir(user.runtime().path().join("channels")).unwrap().count(), 0);
}

#[test]
fn a_reader_that_left_is_no_panic() {
    let user = User::new();
    let _host = user.channel("9471", Role::Host);
    for args in [&["status"][..], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = user.command(args).stdout(writer).output().unwrap();
        assert!(!err(&output).contains("panicked"), "{}", err(&output));
        assert_ne!(output.status.code(), Some(101));
    }
}

/// While a command reads its text from standard input there is time to look at it.
#[test]
#[cfg(target_os = "linux")]
fn the_words_are_not_in_the_process_list_and_no_core_is_dumped() {
    let user = User::new();
    let host = user.channel("9471", Role::Host);
    let mut child = user
        .command(&["send", "9471-cross-clock-marble", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    // It may still be starting: the masked argument is awaited, with an end to the patience.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let masked = loop {
        let arguments = fs::read(proc.join("cmdline")).unwrap();
        let arguments = String::from_utf8(arguments).unwrap();
        let core = fs::read_to_string(proc.join("limits")).unwrap();
        let core = core.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        let replaced = arguments.contains('*') && !arguments.contains("marble");
        if replaced && core.split_whitespace().nth(4) == Some("0") {
            break arguments;
        }
        assert!(std::time::Instant::now() < deadline, "{arguments:?} {core}");
        std::thread::yield_now();
    };
    assert!(masked.contains("\09471*******************\0-\0"), "{masked:?}");
    child.stdin.take().unwrap().write_all("hello\n".as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(fs::read_dir(host.dir().join("outbox")).unwrap().count(), 1);
}
