//! `send --file -`: standard input of unknown length, whole or not at all, and what both ends hear of it.

mod large;

use std::fs;
use std::io::Write as _;
use std::process::ChildStdin;

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::process::Process;
use crate::fixture::world::{Pair, Via, World};

/// How a channel's directory is made.
const MOUNTS: [&str; 2] = ["fuse", "dir"];

/// `send --file -` into an end of a channel, and its standard input.
fn send(world: &World, end: &End, name: &str, more: &[&str]) -> (Process, ChildStdin) {
    let args = [&["send", end.dir.to_str().unwrap(), "--file", "-", "--name", name], more].concat();
    Process::spawn_open(world.command(&args))
}

/// Waits until a stream is on its way with at least so many bytes at the peer.
fn under_way(pair: &Pair, name: &str, bytes: u64) {
    pair.peer.until_state(name, |state| {
        let in_flight = state["inbox"]["in_flight"].as_array().unwrap();
        in_flight.iter().any(|item| item["name"] == name && item["done"].as_u64().unwrap() >= bytes)
    });
}

fn is_refused(event: &Value, name: &str) -> bool {
    event["event"] == "refused" && event["name"] == name
}

/// Holds if both ends say that something was broken off.
fn both_say_so(pair: &mut Pair, name: &str) {
    let own = pair.host.until("refused", |event| is_refused(event, name));
    assert_eq!(own["by"], "self", "{own}");
    assert!(own["detail"].as_str().unwrap().contains("broke off"), "{own}");
    let theirs = pair.peer.until("refused", |event| is_refused(event, name));
    assert_eq!((&theirs["by"], &theirs["id"]), (&"peer".into(), &own["id"]), "{theirs}");
    assert!(theirs["detail"].as_str().unwrap().contains("nothing of it was kept"), "{theirs}");
}

#[test]
fn a_stream_of_any_length_arrives_whole_and_send_waits_for_it() {
    for (mount, via) in MOUNTS.into_iter().zip([Via::Direct, Via::Relay]) {
        let world = World::new();
        let mut pair = world.pair_on(via, mount);
        for size in [0, 1, 16 * 1024 + 1, 65_536, 256 * 1024, 256 * 1024 + 1, 3_000_000] {
            let name = format!("{size}.bin");
            let (mut sending, mut input) = send(&world, &pair.host, &name, &["--wait"]);
            input.write_all(&noise(size as u64, size)).unwrap();
            drop(input);
            let ended = sending.finish();
            assert_eq!((ended.code, ended.out.len(), ended.err.as_str()), (Some(0), 0, ""), "{ended:?}");
            // It is there when the command has ended, and its link is not.
            assert!(fs::read(pair.peer.inbox(&name)).unwrap() == noise(size as u64, size), "{name}");
            assert!(fs::symlink_metadata(pair.host.outbox(&name)).is_err(), "{name}");
            let event = pair.peer.item(&name);
            assert_eq!(event["size"], size, "{event}");
        }
        let (host, peer) = pair.close();
        assert_eq!((host.statuses("refused"), peer.statuses("refused")), (0, 0));
        world.is_clean();
    }
}

#[test]
fn a_silent_stream_holds_up_no_text_and_no_file() {
    for mount in MOUNTS {
        let world = World::new();
        let mut pair = world.pair_on(Via::Local, mount);
        let (mut sending, mut input) = send(&world, &pair.host, "log", &[]);
        input.write_all(&noise(1, 600_000)).unwrap();
        under_way(&pair, "log", 512 * 1024);
        pair.host.put("hello.msg", "hello");
        pair.peer.text("hello");
        pair.host.put("large.bin", noise(2, 900_000));
        pair.peer.item("large.bin");
        assert!(!sending.has_ended());
        // Texts say what is still on its way; the stream goes on.
        input.write_all(b"the end").unwrap();
        drop(input);
        assert_eq!(sending.finish().code, Some(0));
        assert_eq!(pair.peer.item("log")["size"], 600_007);
        pair.close();
    }
}

#[test]
fn a_stream_that_is_broken_off_leaves_nothing_and_both_ends_say_so() {
    for mount in MOUNTS {
        let world = World::new();
        let mut pair = world.pair_on(Via::Local, mount);
        for (signal, code) in
            [(Signal::INT, Some(130)), (Signal::TERM, Some(130)), (Signal::KILL, None), (Signal::HUP, None)]
        {
            let name = format!("broken-{}", signal.as_raw());
            let (mut sending, mut input) = send(&world, &pair.host, &name, &["--wait"]);
            input.write_all(&noise(3, 800_000)).unwrap();
            under_way(&pair, &name, 512 * 1024);
            sending.signal(signal);
            let ended = sending.finish();
            assert_eq!(ended.code, code, "{ended:?}");
            assert!(code.is_none() || ended.err.contains("nothing of it was kept"), "{ended:?}");
            both_say_so(&mut pair, &name);
            drop(input);
        }
        // The name is free again, and nothing is left to wait for.
        let (mut sending, mut input) = send(&world, &pair.host, "broken-9", &["--wait"]);
        input.write_all(b"whole").unwrap();
        drop(input);
        assert_eq!(sending.finish().code, Some(0));
        world.flush(&pair.host);
        let (host, peer) = pair.close();
        assert_eq!((host.statuses("refused"), peer.statuses("refused")), (4, 4));
        assert_eq!(peer.count(|event| event["from"] == "peer"), 1, "{peer:?}");
        world.is_clean();
    }
}

#[test]
fn an_end_of_the_pipe_that_comes_with_an_interruption_is_no_end() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let (mut sending, mut input) = send(&world, &pair.host, "half.tar", &[]);
    input.write_all(&noise(4, 600_000)).unwrap();
    under_way(&pair, "half.tar", 512 * 1024);
    // As Ctrl-C does it: the writer of the pipe dies, and this process hears of it at once.
    sending.signal(Signal::STOP);
    drop(input);
    sending.signal(Signal::INT);
    sending.signal(Signal::CONT);
    assert_eq!(sending.finish().code, Some(130));
    both_say_so(&mut pair, "half.tar");
    assert!(!pair.peer.inbox("half.tar").exists());
    pair.close();
}

#[test]
fn a_stream_waits_for_the_peer_and_can_be_taken_back_before() {
    for mount in MOUNTS {
        let world = World::new();
        let mut host = world.host(&["--mount", mount]);
        let link = |name: &str| fs::symlink_metadata(host.outbox(name)).is_ok();
        let outbox = host.outbox("");
        let appears = |name: &str| crate::fixture::watch::until(name, &outbox, || link(name).then_some(()));
        let (mut taken_back, _input) = send(&world, &host, "taken-back", &[]);
        appears("taken-back");
        taken_back.signal(Signal::INT);
        assert_eq!(taken_back.finish().code, Some(130));
        assert!(!link("taken-back"));
        let (killed, _input) = send(&world, &host, "killed", &[]);
        appears("killed");
        killed.kill();
        assert!(link("killed"), "nobody could take it away");
        let (mut early, mut input) = send(&world, &host, "early", &["--wait"]);
        appears("early");
        input.write_all(b"waited for").unwrap();
        drop(input);
        let mut peer = world.connect(&host.code(), &["--mount", mount]);
        assert_eq!(early.finish().code, Some(0));
        assert_eq!(peer.item("early")["size"], 10);
        let state = host.until_state("the dead one", |state| state["left_out"][0]["name"] == "killed");
        assert!(state["left_out"][0]["reason"].as_str().unwrap().contains("had ended"), "{state}");
        crate::fixture::watch::until("its end", &outbox, || (!link("killed")).then_some(()));
        host.status("connected");
        // Its socket is the next one's to remove, once it is old.
        for entry in fs::read_dir(world.runtime()).unwrap().flatten() {
            if entry.file_name().to_str().unwrap().starts_with("agent-wormhole-stream-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        Pair { host, peer, relay: None }.close();
        world.is_clean();
    }
}

#[test]
fn a_stream_is_named_as_undelivered_where_its_channel_closes_under_it() {
    for mount in MOUNTS {
        let world = World::new();
        let mut pair = world.pair_on(Via::Local, mount);
        let (mut sending, mut input) = send(&world, &pair.host, "cut", &[]);
        input.write_all(&noise(5, 600_000)).unwrap();
        under_way(&pair, "cut", 512 * 1024);
        pair.host.ctl("close now");
        let ended = sending.finish();
        assert_eq!(ended.code, Some(6), "{ended:?}");
        assert!(ended.err.contains("open a new channel"), "{ended:?}");
        let host = pair.host.finish();
        assert_eq!(
            (host.code, &host.last()["undelivered"]),
            (Some(6), &serde_json::json!(["cut"])),
            "{host:?}"
        );
        pair.peer.status("peer_closed");
        assert!(!pair.peer.inbox("cut").exists());
        pair.peer.ctl("close");
        pair.peer.finish().well();
        drop(input);
        world.is_clean();
    }
}

#[test]
fn a_stream_that_outgrows_the_peers_inbox_is_refused_and_its_writer_knows() {
    for mount in MOUNTS {
        let world = World::new();
        let host = world.host(&["--mount", mount]);
        let peer = world.connect(&host.code(), &["--mount", mount, "--inbox-limit", "2MB"]);
        let mut pair = Pair { host, peer, relay: None };
        pair.connected();
        let (mut sending, input) = send(&world, &pair.host, "endless", &["--wait"]);
        // It ends because nobody takes more.
        let writing = std::thread::spawn(move || {
            let mut input = input;
            while input.write_all(&[7; 65_536]).is_ok() {}
        });
        let ended = sending.finish();
        assert_eq!(ended.code, Some(6), "{ended:?}");
        assert!(ended.err.contains("not stored by the peer"), "{ended:?}");
        writing.join().unwrap();
        let refused = pair.host.until("refused", |event| is_refused(event, "endless"));
        assert_eq!(refused["by"], "peer", "{refused}");
        let refused = pair.peer.until("refused", |event| is_refused(event, "endless"));
        assert_eq!(refused["by"], "self", "{refused}");
        // A flush tells it once; the end of the channel tells it, too.
        let flush = || world.run(&["flush", pair.host.dir.to_str().unwrap(), "--timeout", "30s"]);
        let told = flush();
        assert_eq!(told.code, Some(6), "{told:?}");
        assert!(told.err.contains("endless"), "{told:?}");
        assert_eq!(flush().code, Some(0));
        pair.host.ctl("close");
        let host = pair.host.finish();
        assert_eq!(
            (host.code, &host.last()["undelivered"]),
            (Some(6), &serde_json::json!(["endless"])),
            "{host:?}"
        );
        pair.peer.status("peer_closed");
        pair.peer.ctl("close");
        pair.peer.finish().well();
    }
}

#[test]
fn what_cannot_be_a_stream_is_told_before_anything_is_read() {
    let world = World::new();
    let pair = world.pair(Via::Local);
    fs::write(world.path("home/good.txt"), "x").unwrap();
    let (mut first, input) = send(&world, &pair.host, "taken", &[]);
    under_way(&pair, "taken", 0);
    let dir = pair.host.dir.to_str().unwrap();
    for (args, says) in [
        (&["--file", "-"][..], "--name"),
        (&["--file", "-", "good.txt"], "alone"),
        (&["--file", "good.txt", "-", "--name", "x"], "alone"),
        (&["--file", "-", "--name", "a/b"], "one part"),
        (&["--file", "-", "--name", ".hidden"], "dot"),
        (&["--file", "-", "--name", "taken"], "is in the outbox already"),
        (&["--file", "good.txt", "--name", "taken"], "is in the outbox already"),
    ] {
        let ended = world.run(&[&["send", dir], args].concat());
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{args:?}: {ended:?}");
        assert!(ended.err.contains(says), "{args:?}: {ended:?}");
    }
    // A directory has no bytes to read.
    let mut command = world.command(&["send", dir, "--file", "-", "--name", "dir"]);
    command.stdin(fs::File::open(world.path("home")).unwrap());
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("nothing of it was kept"), "{ended:?}");
    drop(input);
    assert_eq!(first.finish().code, Some(0));
    let (_, peer) = pair.close();
    assert_eq!(peer.count(|event| event["from"] == "peer"), 1, "{peer:?}");
}

#[test]
fn a_stream_with_a_time_limit_keeps_it() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let (mut sending, input) = send(&world, &pair.host, "slow", &["--wait", "--timeout", "3s"]);
    under_way(&pair, "slow", 0);
    let ended = sending.finish();
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.err.contains("nothing of it was kept"), "{ended:?}");
    drop(input);
    both_say_so(&mut pair, "slow");
    // The peer stands still: the channel has all of it, and goes on with it.
    pair.peer.signal(Signal::STOP);
    let (mut sending, mut input) = send(&world, &pair.host, "unconfirmed", &["--wait", "--timeout", "1s"]);
    input.write_all(b"small").unwrap();
    drop(input);
    let ended = sending.finish();
    pair.peer.signal(Signal::CONT);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.err.contains("still sending"), "{ended:?}");
    pair.peer.item("unconfirmed");
    pair.close();
}
