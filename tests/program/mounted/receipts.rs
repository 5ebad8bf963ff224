//! `sync receipt`: it returns when the peer has everything, says so when that cannot be, and can be ended.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::guard::Guard;
use super::processes::{self, sync, syncing};
use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::process::Process;
use crate::fixture::proxy::Proxy;
use crate::fixture::world::{Pair, Via, World};

/// What one of two operations may take at most while receipts wait. The other one is at the mercy of whatever else the
/// machine does; it ends before the receipts, too.
const AT_ONCE: Duration = Duration::from_millis(250);
/// What the end of a `sync receipt` may take as often. It takes 50 ms and less.
const ENDED: Duration = Duration::from_millis(500);
/// What each of them may take, however busy the machine is.
const EACH: Duration = Duration::from_secs(10);
/// Parts in which a slow line lets a file through.
const PARTS: u64 = 16;
/// Bytes of that file.
const SIZE: usize = 2 << 20;
/// How often something is done while receipts wait.
const TRIES: usize = 50;
/// Receipts at once.
const MANY: usize = 30;

/// Both ends, and what stands between the host and the relay.
fn before_a_proxy(world: &World) -> (Pair, Proxy) {
    let relay = world.relay();
    let proxy = Proxy::before(Arc::new(Mutex::new(relay.address)));
    let host = world.host(&["--relay", &proxy.url()]);
    let peer = world.connect(&host.code(), &["--relay", &relay.url()]);
    let mut pair = Pair { host, peer, relay: Some(relay) };
    pair.connected();
    (pair, proxy)
}

/// The time that half of them took at most. None takes so long as if it waited for a receipt.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    assert!(times.iter().all(|took| *took < EACH), "{times:?}");
    times[times.len() / 2]
}

/// Does something in the shell, and returns how long it took in there.
fn times(world: &World, end: &End, script: &str) -> Vec<Duration> {
    let watch = format!(
        "for n in $(seq {TRIES}); do a=$(date +%s%N); {script}; b=$(date +%s%N); echo $((b-a)); done"
    );
    let mut command = world.command_of("bash", &["-ec", &watch]);
    command.current_dir(&end.dir);
    let ended = Process::spawn(command).finish();
    assert_eq!((ended.code, ended.out.len()), (Some(0), TRIES), "{script}: {ended:?}");
    ended.out.iter().map(|nanos| Duration::from_nanos(nanos.parse().unwrap())).collect()
}

fn says(mut process: Process, error: &str) {
    let ended = process.finish();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains(error), "{error}: {ended:?}");
}

#[test]
fn a_receipt_comes_when_a_slow_peer_has_everything() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let (pair, proxy) = before_a_proxy(&world);
    proxy.let_through(0);
    fs::write(world.path("home/slow.bin"), noise(1, SIZE)).unwrap();
    world.sh(&pair.host.outbox(""), "cp ~/slow.bin . && echo said > message");
    let mut waiting = sync(&world, &pair.host);
    let before = proxy.passed();
    for part in 1..PARTS {
        // A read may pass more than it is let, so that the last parts may be empty.
        let to = before + part * (SIZE as u64 / PARTS);
        proxy.let_through(to.saturating_sub(proxy.passed()));
        proxy.until_passed(to);
        assert!(!waiting.has_ended(), "after {part} of {PARTS} parts");
        assert!(!pair.peer.inbox("slow.bin").exists());
    }
    proxy.open();
    let ended = waiting.finish();
    let there = fs::read(pair.peer.inbox("slow.bin"));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert!(there.unwrap() == noise(1, SIZE));
    assert_eq!(fs::read(pair.peer.inbox("messages/0001.txt")).unwrap(), b"said\n");
    // Nothing is on the way any more.
    assert_eq!(syncing(&world, &pair.host).finish().code, Some(0));
    pair.close();
}

#[test]
fn a_receipt_waits_for_a_peer_that_is_not_there_yet() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let host = world.host(&[]);
    // Nothing to wait for: nothing is waited for.
    assert_eq!(syncing(&world, &host).finish().code, Some(0));
    host.put("early.msg", "early\n");
    let mut waiting = sync(&world, &host);
    assert!(!waiting.has_ended());
    let peer = world.connect(&host.code(), &[]);
    let ended = waiting.finish();
    let there = fs::read(peer.inbox("messages/0001.txt"));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(there.unwrap(), b"early\n");
    Pair { host, peer, relay: None }.close();
}

#[test]
fn a_receipt_for_what_the_peer_refuses_is_an_error() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let host = world.host(&[]);
    let peer = world.connect(&host.code(), &["--inbox-limit", "100k"]);
    let mut pair = Pair { host, peer, relay: None };
    pair.connected();
    world.sh(&pair.host.outbox(""), "head -c 300000 /dev/zero > large.bin");
    says(syncing(&world, &pair.host), "Input/output error");
    assert!(!pair.peer.inbox("large.bin").exists());
    // Without it everything is well again.
    world.sh(&pair.host.outbox(""), "rm large.bin && echo small > small.txt");
    let ended = syncing(&world, &pair.host).finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert!(pair.peer.inbox("small.txt").exists());
    pair.close();
}

#[test]
fn a_receipt_of_a_dead_peer_times_out() {
    let world = World::new();
    let _guard = Guard::new(&world);
    // A direct host sees its peer die; behind a relay it only hears nothing more.
    for (args, at) in [(&["--direct"][..], "@127.0.0.1"), (&[], "")] {
        let host = world.host(&[args, &["--timeout", "4s"]].concat());
        let peer = world.connect(&format!("{}{at}", host.code()), &[]);
        let mut pair = Pair { host, peer, relay: None };
        pair.connected();
        let Pair { host, peer, relay: _ } = pair;
        peer.kill();
        host.put("late.msg", "nobody reads it\n");
        let from = Instant::now();
        says(sync(&world, &host), "timed out");
        println!("a receipt of a dead peer ({args:?}) timed out after {:?} of 4 s", from.elapsed());
        host.ctl("close now");
        let closed = host.finish();
        assert_eq!(closed.code, Some(6), "{closed:?}");
    }
}

#[test]
fn a_receipt_of_a_closed_channel_is_not_connected() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let host = world.host(&[]);
    host.put("never.msg", "nobody reads it\n");
    let waiting = sync(&world, &host);
    let more = sync(&world, &host);
    let dir = host.dir.to_str().unwrap().to_owned();
    assert_eq!(world.run(&["close", &dir, "--now"]).code, Some(0));
    for waiting in [waiting, more] {
        says(waiting, "Transport endpoint is not connected");
    }
    let closed = host.finish();
    assert_eq!(closed.code, Some(6), "{closed:?}");
    world.is_clean();
}

#[test]
fn a_signal_ends_a_waiting_receipt_at_once() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let host = world.host(&[]);
    host.put("never.msg", "nobody reads it\n");
    for word in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut took = Vec::new();
        for _ in 0..10 {
            let mut waiting = sync(&world, &host);
            let from = Instant::now();
            waiting.signal(word);
            let ended = waiting.finish();
            took.push(from.elapsed());
            assert_eq!(ended.code, None, "{ended:?}");
        }
        let median = median(took);
        println!("{word:?} ended a waiting receipt after {median:?}");
        assert!(median < ENDED, "{word:?} took {median:?}");
    }
    // Also one that was stopped meanwhile, and one that sent itself to the background.
    let waiting = sync(&world, &host);
    waiting.signal(Signal::STOP);
    waiting.signal(Signal::CONT);
    waiting.kill();
    host.ctl("close now");
    host.finish();
}

#[test]
fn nothing_else_waits_while_receipts_do() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let host = world.host(&[]);
    host.put("never.msg", "nobody reads it\n");
    world.sh(&host.outbox(""), "mkdir deep && echo x > deep/file && echo x > 'file'");
    let mut waiting: Vec<_> = (0..MANY).map(|_| sync(&world, &host)).collect();
    let scripts = [
        ("ls", "ls outbox > /dev/null"),
        ("create", ": > outbox/new.$n"),
        ("write", "echo more > outbox/new.$n"),
        ("rm", "rm outbox/new.$n"),
        ("mkdir and rmdir", "mkdir outbox/d.$n && rmdir outbox/d.$n"),
        ("fsync of a file", "sync outbox/file"),
        ("fsync of outbox/", "sync outbox"),
        ("fsync of a directory in it", "sync outbox/deep"),
        ("fsync of inbox/ and the root", "sync inbox ."),
        ("stat receipt", "stat receipt > /dev/null"),
    ];
    for (what, script) in scripts {
        let median = median(times(&world, &host, script));
        println!("while {MANY} receipts wait, {what} takes {median:?}");
        assert!(median < AT_ONCE, "{what} takes {median:?}");
    }
    assert!(waiting.iter_mut().all(|waiting| !waiting.has_ended()));
    let peer = world.connect(&host.code(), &[]);
    for mut waiting in waiting {
        let ended = waiting.finish();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    }
    assert!(peer.inbox("messages/0001.txt").exists() && peer.inbox("deep/file").exists());
    Pair { host, peer, relay: None }.close();
}

#[test]
fn many_receipts_come_each_for_what_was_written_before_it() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let pair = world.pair(Via::Local);
    let script = "for n in $(seq 30); do echo $n > outbox/$n.txt; sync receipt && test -e \"$PEER/inbox/$n.txt\" & wait $! || exit 1; done";
    let mut command = world.command_of("sh", &["-c", script]);
    command.current_dir(&pair.host.dir).env("PEER", &pair.peer.dir);
    let ended = Process::spawn(command).finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert!(processes::children(pair.host.id()).len() == 1, "the bell and nobody else");
    pair.close();
}
