//! `--detach`: the channel lives on without its caller, and nothing of the caller lives on in it.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

use crate::fixture::process::{Ended, Process};
use crate::fixture::watch;
use crate::fixture::world::World;
use crate::mounted::processes::children;

const MOUNTS: [&str; 2] = ["fuse", "dir"];

/// What runs in the background of a world. Dropped, it is killed where it still runs.
pub struct Background<'a> {
    pub world: &'a World,
}

impl Background<'_> {
    /// The channels that are listed.
    fn list(&self) -> Vec<Value> {
        let names = fs::read_dir(self.world.runtime().join("channels")).into_iter().flatten().flatten();
        let entries = names.filter_map(|name| fs::read(name.path()).ok());
        entries.filter_map(|entry| serde_json::from_slice(&entry).ok()).collect()
    }

    fn of(&self, role: &str) -> Value {
        self.list().into_iter().find(|channel| channel["role"] == role).unwrap()
    }

    /// Waits until none is left.
    fn gone(&self) {
        let channels = self.world.runtime().join("channels");
        watch::until("the end of all channels", &channels, || {
            fs::read_dir(&channels).unwrap().next().is_none().then_some(())
        });
        self.world.is_clean();
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        for channel in self.list() {
            let _ = kill_process(pid(&channel), Signal::KILL);
        }
    }
}

fn pid(channel: &Value) -> Pid {
    Pid::from_raw(i32::try_from(channel["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

fn events(ended: &Ended) -> Vec<Value> {
    ended.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn words(ended: &Ended) -> Vec<String> {
    events(ended).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

/// Runs it in a directory, by a shell that leaves the caller's output open in two more places. That this returns means
/// that nobody holds it.
fn run(world: &World, at: &str, args: &[&str], input: &str) -> Ended {
    let script = r#"exec 7>&1 8>&2; "$@"; exit $?"#;
    let mut command = world.command_of("sh", &["-c", script, "sh", env!("CARGO_BIN_EXE_agent-wormhole")]);
    command.args(args).current_dir(world.path(at));
    Process::spawn_with(command, input.as_bytes()).finish()
}

fn stat(pid: &str, field: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(field - 3).unwrap().to_owned()
}

/// Holds if a process has nothing of whoever started it.
fn is_apart(world: &World, pid: &str, code: &str) {
    let arguments = String::from_utf8(fs::read(format!("/proc/{pid}/cmdline")).unwrap()).unwrap();
    for word in code.split('-').skip(1) {
        assert!(!arguments.contains(word), "{arguments:?}");
    }
    assert_eq!(stat(pid, 6), pid, "it leads a session of its own");
    // What is not dumpable shows its descriptors to root alone. That the caller's pipes have ended says the same.
    if !geteuid().is_root() {
        return;
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(target) = fs::read_link(descriptor.path()) else { continue };
        let number: u32 = descriptor.file_name().to_str().unwrap().parse().unwrap();
        let target = target.to_str().unwrap().to_owned();
        let own = target.starts_with(world.runtime().to_str().unwrap())
            || ["socket:", "anon_inode:", "/memfd:", "/dev/fuse", "/dev/null"]
                .iter()
                .any(|own| target.starts_with(own))
            || target.contains("(deleted)");
        assert!(own, "{number}: {target}");
        assert!(number > 2 || target == "/dev/null" || target.starts_with("socket:"), "{number}: {target}");
    }
}

#[test]
fn a_detached_channel_lives_on_and_has_nothing_of_its_caller() {
    for mount in MOUNTS {
        let world = World::new();
        let background = Background { world: &world };
        let ended = run(&world, "host", &["host", "--detach", "--mount", mount], "");
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        assert_eq!(words(&ended), ["channel"]);
        let code = events(&ended)[0]["code"].as_str().unwrap().to_owned();
        let number = code.split('-').next().unwrap().to_owned();
        // As an argument, and from standard input with what surrounds it there.
        let (given, input) = if mount == "fuse" { (code.as_str(), "") } else { ("-", "  \t") };
        let input = if input.is_empty() { String::new() } else { format!("{input}{code} \r\nmore\n") };
        let ended = run(&world, "peer", &["connect", given, "--detach", "--mount", mount], &input);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        assert_eq!(words(&ended), ["channel", "connected"]);
        for role in ["host", "peer"] {
            let channel = background.of(role);
            assert_eq!(channel["cwd"], world.path(role).to_str().unwrap());
            let pid = channel["pid"].to_string();
            is_apart(&world, &pid, &code);
            let children = children(pid.parse().unwrap());
            assert_eq!(children.len(), usize::from(mount == "fuse"), "{children:?}");
            children.iter().for_each(|bell| is_apart(&world, &bell.pid.to_string(), &code));
            // No terminal is there that could hang up.
            kill_process(self::pid(&channel), Signal::HUP).unwrap();
        }
        // The same words in the other directory are from the other end.
        for (from, to) in [("host", "peer"), ("peer", "host")] {
            let ended = run(&world, from, &["send", &number, from, "--wait", "--timeout", "30s"], "");
            assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
            let ended = run(&world, to, &["wait", &number, "--for", "text", "--timeout", "30s"], "");
            assert_eq!((ended.code, &events(&ended)[0]["body"]), (Some(0), &from.into()), "{ended:?}");
        }
        let mut watching = Process::spawn(world.command(&["watch", &number, "--role", "peer"]));
        for role in ["host", "peer"] {
            let ended = run(&world, role, &["close", &number, "--role", role], "");
            assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        }
        let ended = watching.finish();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        background.gone();
    }
}

#[test]
fn its_end_is_in_the_log_alone() {
    let world = World::new();
    let background = Background { world: &world };
    let ended = run(&world, "host", &["host", "--detach", "--direct", "--timeout", "1s"], "");
    assert_eq!((ended.code, words(&ended)), (Some(0), vec!["channel".to_owned()]), "{ended:?}");
    let number = background.of("host")["nameplate"].as_str().unwrap().to_owned();
    let ended = run(&world, "host", &["watch", &number], "");
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert_eq!(words(&ended), ["channel", "timeout", "closed"]);
    background.gone();
}

#[test]
fn what_fails_before_it_is_up_fails_as_it_does_in_the_foreground() {
    let world = World::new();
    let background = Background { world: &world };
    // A port that nobody listens on.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = format!("ws://{nobody}");
    for args in [&["host"][..], &["connect", "1-cross-clock-marble"]] {
        let ended = run(&world, "host", &[args, &["--detach", "--relay", &relay]].concat(), "");
        assert_eq!((ended.code, words(&ended)), (Some(4), vec!["connection_failed".to_owned()]), "{ended:?}");
    }
    let ended = run(&world, "host", &["host", "--detach"], "");
    let code = events(&ended)[0]["code"].as_str().unwrap().to_owned();
    let number = code.split('-').next().unwrap();
    let wrong = ["cross-clock-marble", "amber-anvil-acorn"].map(|words| format!("{number}-{words}"));
    let wrong = wrong.iter().find(|wrong| **wrong != code).unwrap();
    let mut watching = Process::spawn(world.command(&["watch", number]));
    watching.line("the first event", crate::fixture::LIMIT).unwrap();
    let ended = run(&world, "peer", &["connect", wrong, "--any-words", "--detach"], "");
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(words(&ended), ["channel", "handshake_failed", "closed"]);
    assert_eq!(events(&ended)[2]["exit"], 3);
    assert_eq!(watching.finish().code, Some(3));
    // What is wrong with the command line is told by standard error.
    for (args, input, says) in [
        (&["connect", "-", "--detach"][..], "", "no code on standard input"),
        (&["connect", "-", "--detach"], " \n", "no code on standard input"),
        (&["connect", "-"], "", "no code on standard input"),
        (&["connect", "9471-cross", "--detach"], "", "words"),
        (&["host", "--detach", "--dir", "/proc"], "", "/proc"),
        (&["host", "--detach", "--relay", "ftp://x"], "", "ftp"),
    ] {
        let ended = run(&world, "peer", args, input);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{args:?}: {ended:?}");
        assert!(ended.err.contains(says), "{args:?}: {ended:?}");
    }
    background.gone();
}

#[test]
fn who_interrupts_the_caller_while_it_waits_ends_both() {
    let world = World::new();
    for word in [Signal::INT, Signal::KILL] {
        // A relay that takes connections and never says a word.
        let relay = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", relay.local_addr().unwrap());
        let mut waiting = Process::spawn(world.command(&["host", "--detach", "--relay", &url]));
        let (mut connection, _) = relay.accept().unwrap();
        connection.set_read_timeout(Some(crate::fixture::LIMIT)).unwrap();
        let mut begin = [0; 4];
        connection.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"GET ");
        waiting.signal(word);
        let ended = waiting.finish();
        assert_eq!((ended.code, ended.out.len()), (None, 0), "{ended:?}");
        // The connection of the one in the background ends with it.
        connection.read_to_end(&mut Vec::new()).unwrap();
    }
}
