//! `kill -9` of an end whose mount is in use: every process that waits for it gets an error.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::guard::{Guard, until_gone};
use super::processes::{Tail, bell, lives, sync, until, until_none};
use crate::fixture::process::Process;
use crate::fixture::world::{Pair, Via, World};

/// Kills of each kind.
const ROUNDS: usize = 5;
/// When the mount has to be gone.
const GONE: Duration = Duration::from_secs(1);
/// When everybody has to have ended.
const ENDED: Duration = Duration::from_secs(2);
/// Each goes on as long as it works, once a turn on standard output.
const LOOPS: [&str; 11] = [
    "dd if=/dev/zero of=outbox/big.bin bs=1M count=32 2> /dev/null",
    "head -c 300000 /dev/zero > outbox/medium.tmp && rm outbox/medium.tmp",
    "echo said > outbox/said.msg",
    "ls -lR inbox > /dev/null && ls . outbox > /dev/null",
    "cat inbox/log.jsonl status.json > /dev/null",
    "cat inbox/large.bin > /dev/null",
    "mkdir outbox/d && mv outbox/d outbox/e && rmdir outbox/e",
    "sync outbox inbox",
    "ln -s /etc/hostname outbox/link.tmp && rm outbox/link.tmp",
    r#"python3 -c "import os; os.getxattr('outbox/kept.bin', 'user.wormhole.state')""#,
    r#"python3 -c "import mmap; f = open('inbox/large.bin'); m = mmap.mmap(f.fileno(), 0, prot=1); sum(m[::4096])""#,
];

/// Kills the host while everything is done in its mount at once, or when nothing has been answered for a moment.
fn kill_when_busy(stopped: bool) -> Duration {
    let world = World::new();
    let _guard = Guard::new(&world);
    let mut pair = world.pair(Via::Direct);
    world.sh(&pair.peer.outbox(""), "head -c 9M /dev/zero > large.bin");
    world.sh(&pair.host.outbox(""), "head -c 90k /dev/zero > kept.bin");
    pair.host.item("large.bin");
    let mut users: Vec<Process> = LOOPS
        .iter()
        .map(|work| {
            let script = format!("while {work}; do echo .; done; echo over; exit 9");
            let mut command = world.command_of("sh", &["-c", &script]);
            command.current_dir(&pair.host.dir);
            Process::spawn(command)
        })
        .collect();
    for (user, work) in users.iter_mut().zip(LOOPS) {
        assert_eq!(user.line(work, crate::fixture::LIMIT).as_deref(), Some("."), "{work}");
    }
    let tail = Tail::new(&world, &pair.host);
    // The bell has something to do, too.
    for n in 0..200 {
        pair.peer.put(&format!("{n}.msg"), "flood\n");
    }
    pair.host.text("flood\n");
    let Pair { host, peer, relay: _ } = pair;
    let (dir, its_bell) = (host.dir.clone(), bell(&host));
    let waiting = stopped.then(|| {
        peer.signal(Signal::STOP);
        host.put("never.bin", vec![0; 100_000]);
        let waiting = sync(&world, &host);
        host.signal(Signal::STOP);
        // What is asked now is not answered any more.
        let ls = world.command_of("ls", &[dir.join("outbox").to_str().unwrap()]);
        [waiting, Process::spawn(ls)]
    });
    let from = Instant::now();
    host.kill();
    let gone = until_gone(&dir, from, GONE);
    for (user, work) in users.iter_mut().zip(LOOPS) {
        let ended = user.finish();
        assert_eq!(
            (ended.code, ended.out.last().map(String::as_str)),
            (Some(9), Some("over")),
            "{work}: {ended:?}"
        );
    }
    for mut waiting in waiting.into_iter().flatten() {
        assert_ne!(waiting.finish().code, Some(0));
    }
    until("the bell to end", ENDED, || !lives(its_bell));
    let all = from.elapsed();
    println!("stopped before: {stopped}; the mount was gone after {gone:?}, everybody after {all:?}");
    assert!(all < ENDED, "everybody ended after {all:?}");
    tail.end();
    peer.kill();
    until_none(&world, ENDED);
    assert_eq!(world.run(&["status"]).code, Some(0));
    world.is_clean();
    gone
}

#[test]
fn an_end_killed_while_its_mount_is_busy_ends_everybody() {
    for _ in 0..ROUNDS {
        kill_when_busy(false);
    }
}

#[test]
fn an_end_killed_while_it_owes_answers_ends_everybody() {
    for _ in 0..ROUNDS {
        kill_when_busy(true);
    }
}
