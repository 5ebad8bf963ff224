//! What had begun to arrive and is taken back: both ends hear of it once, and nothing of it is kept.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::content::{noise_file, same_file, same_tree};
use crate::fixture::world::{Pair, Via, World};

/// More than the windows and the socket between two ends hold: it cannot be all on its way while the peer stands still.
const SIZE: u64 = 64 << 20;

fn refused<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == "refused" && event["name"] == name).collect()
}

fn detail(event: &Value) -> &str {
    event["detail"].as_str().unwrap()
}

/// A pair whose peer has the beginning of an item and stands still.
fn stopped_in_the_middle(world: &World, target: &Path, name: &str) -> Pair {
    let mut pair = world.pair(Via::Direct);
    pair.peer.put("before.msg", "before");
    pair.host.text("before");
    pair.host.link(target, name);
    pair.peer.until_state("its beginning", |state| {
        let in_flight = state["inbox"]["in_flight"].as_array().unwrap();
        in_flight.iter().any(|item| item["name"] == name)
    });
    pair.peer.signal(Signal::STOP);
    pair
}

#[test]
fn a_file_that_changes_while_it_is_read_is_told_once_and_arrives_in_the_end() {
    let world = World::new();
    let source = world.path("home/growing.bin");
    noise_file(&source, 1, SIZE);
    let mut pair = world.pair(Via::Local);
    // The peer stands still before it has much of it: what is read now is not the end of it.
    pair.peer.signal(Signal::STOP);
    pair.host.link(&source, "growing.bin");
    let on_its_way = |state: &Value| {
        state["outbox"]["in_flight"][0]["waits"].as_str().is_some_and(|why| why.contains("acknowledged"))
    };
    pair.host.until_state("its beginning", on_its_way);
    File::options().write(true).open(&source).unwrap().write_all_at(b"x", SIZE).unwrap();
    pair.peer.signal(Signal::CONT);
    let event = pair.peer.item("growing.bin");
    assert_eq!(event["size"], SIZE + 1, "{event}");
    same_file(&source, &pair.peer.inbox("growing.bin"));
    let (host, peer) = pair.close();
    for (end, by) in [(&host, "self"), (&peer, "peer")] {
        let told = refused(&end.events, "growing.bin");
        assert_eq!(told.len(), 1, "{end:?}");
        assert_eq!(told[0]["by"], by, "{end:?}");
        assert!(detail(told[0]).contains("changed") && detail(told[0]).contains("again"), "{end:?}");
    }
    assert_eq!(peer.count(|event| event["type"] == "file"), 1, "{peer:?}");
}

#[test]
fn what_its_owner_takes_back_on_purpose_is_told_to_the_peer_alone() {
    let world = World::new();
    let source = world.path("home/big.bin");
    noise_file(&source, 2, 8 * SIZE);
    let mut pair = stopped_in_the_middle(&world, &source, "big.bin");
    fs::remove_file(pair.host.outbox("big.bin")).unwrap();
    pair.peer.signal(Signal::CONT);
    let told = pair.peer.until("refused", |event| event["event"] == "refused");
    assert_eq!((&told["by"], &told["name"]), (&"peer".into(), &"big.bin".into()), "{told}");
    assert!(detail(&told).contains("nothing of it was kept"), "{told}");
    assert!(!pair.peer.inbox("big.bin").exists());
    let (host, peer) = pair.close();
    assert_eq!((host.statuses("refused"), peer.statuses("refused")), (0, 1), "{host:?} {peer:?}");
}

#[test]
fn a_directory_of_which_a_file_changes_is_told_once_under_its_own_name() {
    let world = World::new();
    let project = world.path("home/project");
    fs::create_dir(&project).unwrap();
    noise_file(&project.join("a.bin"), 3, 8 * SIZE);
    let pair = stopped_in_the_middle(&world, &project, "project");
    File::options().write(true).open(project.join("a.bin")).unwrap().set_len(8 * SIZE - 1).unwrap();
    pair.peer.signal(Signal::CONT);
    let mut pair = pair;
    pair.peer.item("project");
    same_tree(&project, &pair.peer.inbox("project"), true);
    let (host, peer) = pair.close();
    for (end, by) in [(&host, "self"), (&peer, "peer")] {
        let told = refused(&end.events, "project");
        assert_eq!((told.len(), end.statuses("refused")), (1, 1), "{end:?}");
        assert_eq!(told[0]["by"], by, "{end:?}");
    }
}
