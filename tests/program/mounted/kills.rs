//! `kill -9` of an end in the middle of something: nothing hangs, nothing stays, nothing can be read afterwards.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::guard::{Guard, below, is_mounted, until_gone};
use super::processes::{Sitter, Tail, bell, sync, until_none};
use super::user::{Device, NOBODY, Place, Room, is_root};
use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::process::Process;
use crate::fixture::proxy::Proxy;
use crate::fixture::watch;
use crate::fixture::world::{Pair, Via, World};

/// Bytes of the transfer, more than what is kept in memory.
const SIZE: u64 = 300 << 20;
/// The same in the soak.
const SOAK_SIZE: u64 = 1 << 30;
/// Kills while entries leave.
const KILLS: usize = 20;
/// The same in the soak.
const SOAK_KILLS: usize = 200;
/// Kills at once.
const AT_ONCE: usize = 4;
/// Milliseconds after its start at which an end is killed. It is there after some ten.
const MOMENTS: u64 = 40;
/// Entries of which the first leaves at the moment of a kill.
const ENTRIES: usize = 40;
/// When the mount has to be gone. It takes some milliseconds.
const GONE: Duration = Duration::from_secs(1);
/// When everything else has to be gone.
const ENDED: Duration = Duration::from_secs(2);

/// Large transfers one after the other: the machine is small.
static LARGE: Mutex<()> = Mutex::new(());

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Host,
    Peer,
}

/// Whether a stream holds these bytes.
fn holds(mut stream: impl Read, mark: &[u8]) -> bool {
    let mut bytes = Vec::new();
    let mut block = vec![0; 1 << 20];
    while let Ok(count @ 1..) = stream.read(&mut block) {
        bytes.extend_from_slice(&block[..count]);
        if memchr(&bytes, mark) {
            return true;
        }
        let kept = bytes.len().saturating_sub(mark.len());
        bytes.drain(..kept);
    }
    false
}

fn memchr(bytes: &[u8], mark: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == mark[0]) {
        if rest[at..].starts_with(mark) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// The unlinked files of a process that are no memory, and how many bytes they have.
fn spilled(end: &End) -> Vec<(PathBuf, u64)> {
    let descriptors = PathBuf::from(format!("/proc/{}/fd", end.id()));
    let mut found = Vec::new();
    for entry in fs::read_dir(descriptors).unwrap() {
        let path = entry.unwrap().path();
        let Ok(target) = fs::read_link(&path) else { continue };
        let target = target.to_string_lossy().into_owned();
        if target.starts_with('/') && target.ends_with(" (deleted)") && !target.starts_with("/memfd:") {
            let size = fs::metadata(&path).map_or(0, |about| about.len());
            found.push((path, size));
        }
    }
    found
}

/// Files that were written since `stamp` below these directories and have the mark.
fn found(world: &World, below: &[&str], stamp: &Path, mark: &str) -> Vec<String> {
    // One that goes meanwhile is none.
    let script = r#"f=$1 m=$2; shift 2; find "$@" -xdev -type f -newer "$f" -exec grep -laF -e "$m" {} + 2> /dev/null; true"#;
    let mut command = world.command_of("sh", &["-c", script, "sh", stamp.to_str().unwrap(), mark]);
    command.args(below);
    let ended = Process::spawn(command).finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.out
}

/// A mark that nothing else has. What looks for it has it in its arguments, which are in no file.
fn mark() -> String {
    let seed = u64::from(std::process::id());
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    noise(at.as_nanos() as u64 ^ seed, 20).iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

fn kill_in_a_transfer(who: Who, size: u64, everywhere: bool) {
    let _alone = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    let _guard = Guard::new(&world);
    let stamp = world.path("stamp");
    File::create(&stamp).unwrap();
    let relay = world.relay();
    let proxy = Proxy::before(Arc::new(Mutex::new(relay.address)));
    let host = world.host(&["--relay", &proxy.url()]);
    let peer = world.connect(&host.code(), &["--relay", &relay.url()]);
    let mut pair = Pair { host, peer, relay: Some(relay) };
    pair.connected();
    // Half of it arrives.
    proxy.let_through(size / 2);
    let (before, mark) = (proxy.passed(), mark());
    let mut write = world.command_of("sh", &["-c", r#"yes "$MARK" | head -c "$SIZE" > big.bin"#]);
    write.current_dir(pair.host.outbox("")).env("MARK", &mark).env("SIZE", size.to_string());
    assert_eq!(Process::spawn(write).finish().code, Some(0));
    let mut waiting = sync(&world, &pair.host);
    proxy.until_passed(before + size / 2);
    assert!(!waiting.has_ended());
    // What is more than the memory is on disk, and sealed.
    let files = spilled(&pair.host);
    let bytes: u64 = files.iter().map(|(_, size)| size).sum();
    println!("{} MiB of {} MiB are spilled", bytes >> 20, size >> 20);
    assert!(bytes > 0, "{files:?}");
    for (path, _) in files {
        assert!(!holds(File::open(&path).unwrap(), mark.as_bytes()), "{} is plaintext", path.display());
    }
    let Pair { host, peer, relay } = pair;
    let (killed, other) = if who == Who::Host { (host, peer) } else { (peer, host) };
    let (dir, its_bell) = (killed.dir.clone(), bell(&killed));
    let mut sitter = Sitter::new(&world, &killed.inbox(""));
    let tail = Tail::new(&world, &killed);
    let from = Instant::now();
    killed.kill();
    let gone = until_gone(&dir, from, GONE);
    super::processes::until("the bell to end", ENDED, || !super::processes::lives(its_bell));
    println!("{who:?} killed: the mount was gone after {gone:?}, the bell after {:?}", from.elapsed());
    let seen = sitter.look();
    assert!(seen.contains("Transport endpoint is not connected"), "{seen}");
    sitter.leave();
    tail.end();
    if who == Who::Host {
        let ended = waiting.finish();
        println!("its receipt ended after {:?}", from.elapsed());
        assert!(ended.code == Some(1) && ended.err.contains("sync"), "{ended:?}");
    }
    other.kill();
    if who == Who::Peer {
        assert_eq!(waiting.finish().code, Some(1));
    }
    drop((proxy, relay));
    until_none(&world, ENDED);
    let (disk, near) = (["/", "/dev/shm"], ["/dev/shm", "/tmp", "/var/tmp", "/run"]);
    let places = if everywhere { &disk[..] } else { &near };
    assert!(found(&world, places, &stamp, &mark).is_empty(), "plaintext is left");
    // The search would find it.
    let control = world.path("tmp/control");
    fs::write(&control, format!("{mark}\n")).unwrap();
    assert_eq!(found(&world, places, &stamp, &mark), [control.to_str().unwrap(); 1]);
    clean_after(&world);
}

/// The next command takes away what is left.
fn clean_after(world: &World) {
    let ended = world.run(&["status"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    world.is_clean();
}

#[test]
fn the_host_killed_in_a_transfer_leaves_nothing() {
    kill_in_a_transfer(Who::Host, SIZE, false);
}

#[test]
fn the_peer_killed_in_a_transfer_leaves_nothing() {
    kill_in_a_transfer(Who::Peer, SIZE, false);
}

#[test]
#[ignore = "soak: a gibibyte, and a search of the whole disk"]
fn either_end_killed_in_a_transfer_of_a_gibibyte_leaves_nothing() {
    kill_in_a_transfer(Who::Host, SOAK_SIZE, true);
    kill_in_a_transfer(Who::Peer, SOAK_SIZE, true);
}

/// Kills the host when this entry has left, while others do, and returns when its mount was gone.
fn kill_while_entries_leave(n: usize) -> Duration {
    let world = World::new();
    let _guard = Guard::new(&world);
    let mut pair = world.pair(Via::Local);
    let script =
        format!("for n in $(seq {ENTRIES}); do echo $n > $n.txt; done; mkdir tree; echo x > tree/file");
    world.sh(&pair.host.outbox(""), &script);
    pair.peer.item(&format!("{ENTRIES}.txt"));
    // Goes to nobody: it waits from here on.
    let never = format!("head -c 10M /dev/zero > never.bin; kill -STOP {}", pair.peer.id());
    world.sh(&pair.host.outbox(""), &never);
    let mut waiting = [sync(&world, &pair.host), sync(&world, &pair.host)];
    let mut sitter = Sitter::new(&world, &pair.host.outbox(""));
    let first = pair.host.outbox(&format!("{n}.txt"));
    let outbox = pair.host.outbox("");
    watch::until("an entry to leave", &outbox, || (!first.exists()).then_some(()));
    let Pair { host, peer, relay: _ } = pair;
    let (dir, its_bell) = (host.dir.clone(), bell(&host));
    let from = Instant::now();
    host.kill();
    let gone = until_gone(&dir, from, GONE);
    for waiting in &mut waiting {
        let ended = waiting.finish();
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
    let seen = sitter.look();
    assert!(seen.contains("Transport endpoint is not connected"), "{seen}");
    sitter.leave();
    super::processes::until("the bell to end", ENDED, || !super::processes::lives(its_bell));
    let peers = peer.dir.clone();
    peer.kill();
    until_gone(&peers, Instant::now(), GONE);
    until_none(&world, ENDED);
    clean_after(&world);
    gone
}

fn kill_often(times: usize) {
    let mut slowest = Duration::ZERO;
    for round in 0..times / AT_ONCE {
        let kill =
            |n: usize| thread::spawn(move || kill_while_entries_leave(1 + (round * AT_ONCE + n) % ENTRIES));
        let kills: Vec<_> = (0..AT_ONCE).map(kill).collect();
        slowest = kills.into_iter().map(|kill| kill.join().unwrap()).fold(slowest, Duration::max);
    }
    println!(
        "{times} kills while entries left and receipts waited: the slowest mount was gone after {slowest:?}"
    );
}

#[test]
fn a_host_killed_while_entries_leave_leaves_nothing() {
    kill_often(KILLS);
}

#[test]
#[ignore = "soak: ten times as often"]
fn a_host_killed_two_hundred_times_while_entries_leave_leaves_nothing() {
    kill_often(SOAK_KILLS);
}

/// Kills the owner and its bell as the end of a cgroup does: neither can do anything about the other.
pub fn kill_both(end: End) -> PathBuf {
    let (dir, its_bell) = (end.dir.clone(), bell(&end));
    end.signal(Signal::STOP);
    super::processes::signal(its_bell, Signal::KILL);
    end.kill();
    super::processes::until("the bell to end", ENDED, || !super::processes::lives(its_bell));
    assert!(is_mounted(&dir), "nobody was there to detach it");
    dir
}

#[test]
fn a_kill_of_everything_is_cleaned_up_by_the_next_command() {
    for args in [&["status"][..], &["close", "1"], &["send", "1", "x"], &["flush", "1"]] {
        let world = World::new();
        let _guard = Guard::new(&world);
        let pair = world.pair(Via::Direct);
        let Pair { host, peer, relay: _ } = pair;
        let dirs = [kill_both(host), kill_both(peer)];
        let from = Instant::now();
        let ended = world.run(args);
        assert!(ended.code.is_some(), "{ended:?}");
        for dir in dirs {
            until_gone(&dir, from, GONE);
            assert!(!dir.exists(), "{} is left by {args:?}: {ended:?}", dir.display());
        }
        until_none(&world, ENDED);
        world.is_clean();
    }
}

/// Kills an end at a moment of its beginning or of its end, and holds if nothing of it stays.
fn kill_at(place: &Place, after: Duration, close: bool) {
    let from = Instant::now();
    let wait = |until: Instant| {
        let left = until.saturating_duration_since(Instant::now());
        let _ = rustix::event::poll(&mut [], Some(&left.try_into().unwrap()));
    };
    if close {
        let end = place.host(&[]);
        // Somebody reads the log, so that it takes a while.
        let log = end.inbox("log.jsonl");
        let args = ["tail", "-f", log.to_str().unwrap()];
        let tail = Tail(Process::spawn(place.command_of(&place.world.path("home"), &args)));
        end.signal(Signal::TERM);
        wait(Instant::now() + after);
        end.kill();
        tail.end();
    } else {
        let process = Process::spawn(place.command("host", &["host"]));
        wait(from + after);
        process.kill();
    }
    let killed = Instant::now();
    // The bell waits a second for a mount that may still come.
    until_none(&place.world, ENDED);
    let left = below(&place.world.path(""));
    assert!(
        left.is_empty(),
        "killed after {after:?}, closing: {close}: {left:?} after {:?}",
        killed.elapsed()
    );
    assert_eq!(place.run(&["status"]).code, Some(0));
    place.world.is_clean();
}

fn kill_at_any_moment(room: Room) {
    let place = Place::new(room);
    let _guard = Guard::new(&place.world);
    for millis in 0..MOMENTS {
        kill_at(&place, Duration::from_millis(millis), false);
        kill_at(&place, Duration::from_millis(millis / 4), true);
    }
}

#[test]
fn an_end_killed_at_any_moment_of_its_beginning_or_end_leaves_nothing() {
    kill_at_any_moment(Room::default());
    if is_root() {
        let _device = Device::with_mode(0o666);
        kill_at_any_moment(Room { user: Some(NOBODY), ..Room::default() });
    }
}
