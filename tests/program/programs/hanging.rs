//! Programs that hang at `receipt` while others write.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::fixture::LIMIT;
use crate::fixture::process::Process;
use crate::fixture::world::World;

/// Programs that wait at `receipt`.
const READERS: usize = 24;
/// Programs that follow the log.
const FOLLOWERS: usize = 3;
/// Writes of each kind.
const WRITES: usize = 5000;

/// Waits until a process is in fsync(2).
fn in_fsync(process: &Process) {
    let number = format!("{} ", libc_fsync());
    let end = Instant::now() + LIMIT;
    loop {
        let call = fs::read_to_string(format!("/proc/{}/syscall", process.id())).unwrap();
        if call.starts_with(&number) {
            return;
        }
        assert!(Instant::now() < end, "it is in {call}");
        std::thread::yield_now();
    }
}

/// The number of fsync(2) here.
const fn libc_fsync() -> u32 {
    if cfg!(target_arch = "x86_64") { 74 } else { 82 }
}

#[test]
fn five_thousand_writes_to_one_name_and_to_two_arrive_in_order_while_readers_hang() {
    let world = World::new();
    // A real directory has no receipt, and may see only the last of quick writes to one name.
    let mut host = world.host(&["--mount", "fuse"]);
    host.put("message", "first");
    let receipt = host.dir.join("receipt");
    let reader = || Process::spawn(world.command_of("sync", &[receipt.to_str().unwrap()]));
    let mut readers: Vec<Process> = (0..READERS).map(|_| reader()).collect();
    readers.iter().for_each(in_fsync);
    let log = host.inbox("log.jsonl");
    let follower = || Process::spawn(world.command_of("tail", &["-f", log.to_str().unwrap()]));
    let followers: Vec<Process> = (0..FOLLOWERS).map(|_| follower()).collect();
    let began = Instant::now();
    let mut expected = vec!["first".to_owned()];
    for n in 0..WRITES {
        expected.push(format!("one {n}"));
        host.put("message", expected.last().unwrap());
    }
    println!("{WRITES} writes to one name in {:?} while {READERS} hang", began.elapsed());
    let half = Instant::now();
    for n in 0..WRITES {
        expected.push(format!("two {n}"));
        host.put(["a.msg", "b.msg"][n % 2], expected.last().unwrap());
    }
    println!("{WRITES} writes to two names in {:?}", half.elapsed());
    readers.iter().for_each(in_fsync);
    let connecting = Instant::now();
    let mut peer = world.connect(&host.code(), &["--mount", "fuse"]);
    peer.status("connected");
    host.status("connected");
    peer.text(expected.last().unwrap());
    println!("all {} arrived {:?} after the peer was started", expected.len(), connecting.elapsed());
    let texts = peer.events.iter().filter(|event| event["type"] == "text");
    let arrived: Vec<&str> = texts.map(|event: &Value| event["body"].as_str().unwrap()).collect();
    let wrong = arrived.iter().zip(&expected).position(|(arrived, expected)| *arrived != expected);
    assert_eq!(wrong, None, "{:?}", wrong.map(|at| &arrived[at.saturating_sub(3)..at + 3]));
    assert_eq!(arrived.len(), expected.len());
    for reader in &mut readers {
        let ended = reader.finish();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    drop(followers);
    crate::fixture::world::Pair { host, peer, relay: None }.close();
}
