//! The small process that touches the mount: what becomes of a channel when it is killed, stopped or signalled.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::guard::{Guard, is_mounted, until_gone};
use super::kills::kill_both;
use super::processes::{Sitter, bell, children, lives, signal, until, until_none};
use crate::fixture::end::End;
use crate::fixture::process::Process;
use crate::fixture::world::{Pair, Via, World};

/// When a mount has to be gone.
const GONE: Duration = Duration::from_secs(1);
/// A bell that does not answer is killed after 5 s, and another one does it.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than the bell is started again within a short time.
const TOO_OFTEN: usize = 12;

/// Holds if this text arrived, in a file and once in the log.
fn arrived(end: &mut End, n: usize, body: &str) {
    let event = end.text(body);
    let saved = event["saved_to"].as_str().unwrap();
    assert_eq!(fs::read(saved).unwrap(), body.as_bytes(), "text {n}");
    let log = fs::read_to_string(end.inbox("log.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // It may stand there twice where a bell died just then, and never not at all.
    assert!(lines.iter().any(|line| line["body"] == body), "{body} is not in the log");
}

#[test]
fn a_killed_bell_loses_nothing() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let mut pair = world.pair(Via::Direct);
    for n in 0..4 {
        let before = bell(&pair.host);
        // Something is under way when it is killed, and something comes after it.
        pair.peer.put(&format!("{n}a.msg"), format!("{n}a"));
        signal(before, Signal::KILL);
        pair.peer.put(&format!("{n}b.msg"), format!("{n}b"));
        pair.peer.put(&format!("{n}.bin"), vec![7; 100_000]);
        arrived(&mut pair.host, n, &format!("{n}a"));
        arrived(&mut pair.host, n, &format!("{n}b"));
        pair.host.item(&format!("{n}.bin"));
        assert_eq!(fs::read(pair.host.inbox(&format!("{n}.bin"))).unwrap(), vec![7; 100_000]);
        assert_ne!(bell(&pair.host), before);
    }
    let zombies = children(pair.host.id()).into_iter().filter(|child| child.state == 'Z').count();
    assert_eq!(zombies, 0);
    pair.close();
    until_none(&world, GONE);
}

#[test]
fn a_channel_goes_on_where_no_bell_can_live() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let mut pair = world.pair(Via::Direct);
    for n in 0..TOO_OFTEN {
        for child in children(pair.host.id()) {
            signal(child.pid, Signal::KILL);
        }
        pair.peer.put(&format!("{n}.msg"), format!("text {n}"));
        arrived(&mut pair.host, n, &format!("text {n}"));
    }
    // What leaves the outbox and what is asked of it do without, too.
    pair.host.put("back.msg", "back\n");
    pair.peer.text("back\n");
    world.flush(&pair.host);
    pair.close();
    until_none(&world, GONE);
    world.is_clean();
}

#[test]
fn a_stopped_bell_holds_nothing_up_for_long() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let mut pair = world.pair(Via::Direct);
    let stopped = bell(&pair.host);
    signal(stopped, Signal::STOP);
    let from = Instant::now();
    pair.peer.put("message", "while it is stopped\n");
    // The other direction does not need it.
    pair.host.put("other.msg", "the other way\n");
    pair.peer.text("the other way\n");
    let other = from.elapsed();
    arrived(&mut pair.host, 0, "while it is stopped\n");
    let took = from.elapsed();
    println!("with a stopped bell a text arrived after {took:?}; the other way after {other:?}");
    assert!(took < PATIENCE && other < PATIENCE / 2);
    assert!(!lives(stopped));
    // A stopped bell does not keep it from closing either.
    signal(bell(&pair.host), Signal::STOP);
    let dir = pair.host.dir.clone();
    let from = Instant::now();
    pair.close();
    println!("with a stopped bell closing took {:?}", from.elapsed());
    assert!(!is_mounted(&dir) && from.elapsed() < 3 * PATIENCE);
    until_none(&world, GONE);
}

#[test]
fn signals_to_the_whole_group_leave_the_bell_to_its_owner() {
    for (word, code) in [(Signal::INT, 130), (Signal::TERM, 0), (Signal::HUP, 0)] {
        let world = World::new();
        let _guard = Guard::new(&world);
        let mut command = world.command(&["host"]);
        command.current_dir(world.path("host")).process_group(0);
        let host = End::start(command);
        let (dir, its_bell) = (host.dir.clone(), bell(&host));
        // To itself it means nothing.
        for word in [Signal::INT, Signal::TERM, Signal::HUP, Signal::PIPE] {
            signal(its_bell, word);
        }
        world.sh(&dir, "echo x > outbox/x && rm outbox/x");
        assert_eq!(bell(&host), its_bell);
        let from = Instant::now();
        let group = rustix::process::Pid::from_raw(host.id().cast_signed()).unwrap();
        rustix::process::kill_process_group(group, word).unwrap();
        let closed = host.finish();
        assert_eq!(closed.code, Some(code), "{word:?}: {closed:?}");
        until_gone(&dir, from, GONE + from.elapsed());
        assert!(!dir.exists());
        until_none(&world, GONE);
        world.is_clean();
    }
}

/// A mount of the kernel that nobody serves: whoever looks at it waits for ever. It ends with the process.
fn unserved(world: &World, dir: &Path, source: &str) -> Process {
    let script = r#"exec 3<> /dev/fuse
        mount -i -n -t fuse.agent-wormhole -o fd=3,rootmode=40000,user_id=0,group_id=0 "$1" "$2"
        echo mounted; exec sleep 1000"#;
    let command = world.command_of("sh", &["-ec", script, "sh", source, dir.to_str().unwrap()]);
    let mut process = Process::spawn(command);
    assert_eq!(process.line("the mount", crate::fixture::LIMIT).as_deref(), Some("mounted"), "{source}");
    process
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_mount_of_somebody_else_is_never_touched() {
    if !is_root() {
        return println!("only root can mount something else");
    }
    let world = World::new();
    let _guard = Guard::new(&world);
    let Pair { host, peer, relay: _ } = world.pair(Via::Direct);
    let runtime = world.runtime();
    let (memory, other) = (runtime.join("1-host"), runtime.join("2-peer"));
    for dir in [&memory, &other] {
        fs::create_dir(dir).unwrap();
    }
    world.sh(&runtime, "mount -t tmpfs -o mode=700 mine 1-host && echo kept > 1-host/file");
    let stranger = unserved(&world, &other, "agent-wormhole:2-peer:1");
    // One on top of a dead channel, and one where its directory was.
    let dirs = [kill_both(host), kill_both(peer)];
    world.sh(&runtime, &format!("mount -t tmpfs -o mode=700 mine '{}'", dirs[0].display()));
    fs::create_dir(dirs[0].join("inbox")).unwrap();
    fs::create_dir(dirs[0].join("outbox")).unwrap();
    rustix::mount::unmount(&dirs[1], rustix::mount::UnmountFlags::DETACH).unwrap();
    let on_top = unserved(&world, &dirs[1], "somebody-else");
    for _ in 0..2 {
        let ended = world.run(&["status"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(fs::read(memory.join("file")).unwrap(), b"kept\n");
        assert!([&memory, &other, &dirs[0], &dirs[1]].iter().all(|dir| is_mounted(dir)));
        assert!(dirs[0].join("inbox").exists());
    }
    // Without them the dead channels go.
    on_top.kill();
    for dir in [&dirs[0], &dirs[1], &memory, &other] {
        rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH).unwrap();
        let _ = fs::remove_dir(dir);
    }
    stranger.kill();
    assert_eq!(world.run(&["status"]).code, Some(0));
    until("the dead channels to go", GONE, || dirs.iter().all(|dir| !is_mounted(dir) && !dir.exists()));
    world.is_clean();
}

#[test]
fn a_sitter_in_a_mount_without_owner_and_bell_is_freed_by_the_next_command() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let Pair { host, peer, relay: _ } = world.pair(Via::Direct);
    let mut sitter = Sitter::new(&world, &host.inbox(""));
    let dir = kill_both(host);
    assert!(sitter.look().contains("Transport endpoint is not connected"));
    assert_eq!(world.run(&["status"]).code, Some(0));
    assert!(!is_mounted(&dir) && !dir.exists());
    sitter.leave();
    let (dir, from) = (peer.dir.clone(), Instant::now());
    peer.kill();
    until_gone(&dir, from, GONE);
    until_none(&world, GONE);
}

#[test]
fn a_dead_mount_is_found_where_the_runtime_directory_is_reached_through_a_link() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let link = world.path("link");
    std::os::unix::fs::symlink(world.path("run"), &link).unwrap();
    let command = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("XDG_RUNTIME_DIR", &link);
        command
    };
    let host = End::start(command(&["host"]));
    let its_bell = bell(&host);
    host.signal(Signal::STOP);
    signal(its_bell, Signal::KILL);
    host.kill();
    assert_eq!(super::guard::below(&world.path("run")).len(), 1);
    assert_eq!(Process::spawn(command(&["status"])).finish().code, Some(0));
    assert!(super::guard::below(&world.path("run")).is_empty());
    world.is_clean();
}
