//! Channels of one machine that share the relay inside one of them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use crate::fixture::content::{noise_file, same_file};
use crate::fixture::world::{Pair, Via, World};

/// Bytes that are on their way when the relay's owner ends.
const SIZE: u64 = 128 << 20;

/// Texts that are written in each direction.
fn say(pair: &Pair, from: usize, to: usize) {
    for n in from..to {
        pair.host.put(&format!("{n}.msg"), format!("host {n}"));
        pair.peer.put(&format!("{n}.msg"), format!("peer {n}"));
    }
}

fn goes_on_after(end_of_owner: impl FnOnce(Pair)) {
    let world = World::new();
    // The first of all serves the relay.
    let owner = world.pair(Via::Local);
    let mut other = world.pair(Via::Local);
    assert_ne!(owner.host.nameplate, other.host.nameplate);
    let source = world.path("home/big.bin");
    noise_file(&source, 1, SIZE);
    say(&other, 0, 50);
    other.host.link(&source, "big.bin");
    other.peer.until_state("the file to be under way", |state| {
        state["inbox"]["in_flight"].as_array().unwrap().iter().any(|item| item["name"] == "big.bin")
    });
    end_of_owner(owner);
    say(&other, 50, 100);
    other.peer.item("big.bin");
    same_file(&source, &other.peer.inbox("big.bin"));
    for (end, from) in [(&mut other.peer, "host"), (&mut other.host, "peer")] {
        end.text(&format!("{from} 99"));
        let texts = end.events.iter().filter(|event| event["type"] == "text");
        let bodies: Vec<&str> = texts.map(|event| event["body"].as_str().unwrap()).collect();
        assert_eq!(bodies, (0..100).map(|n| format!("{from} {n}")).collect::<Vec<_>>());
        end.status("reconnected");
    }
    // There is a relay for those who come later.
    let late = world.pair(Via::Local);
    late.close();
    other.close();
}

#[test]
fn the_other_channel_goes_on_when_the_relays_owner_is_killed() {
    goes_on_after(|owner| {
        owner.host.kill();
        owner.peer.kill();
    });
}

#[test]
fn the_other_channel_goes_on_when_the_relays_owner_closes() {
    goes_on_after(|owner| drop(owner.close()));
}

#[test]
fn channels_go_on_as_one_owner_of_the_relay_after_the_other_is_killed() {
    let world = World::new();
    let mut pairs: Vec<Pair> = (0..4).map(|_| world.pair(Via::Local)).collect();
    let mut n = 0;
    while pairs.len() > 1 {
        // The first owner is the first host; who comes after it is whoever is there first.
        let Pair { host, peer, .. } = pairs.remove(0);
        host.kill();
        peer.kill();
        for pair in &mut pairs {
            say(pair, n, n + 1);
            pair.peer.text(&format!("host {n}"));
            pair.host.text(&format!("peer {n}"));
        }
        n += 1;
    }
    let last = pairs.remove(0);
    let (host, peer) = last.close();
    for end in [host, peer] {
        // The first host at least was served by nobody else, and is gone.
        assert!(end.statuses("reconnected") > 0, "{end:?}");
        assert_eq!(end.statuses("reconnecting"), end.statuses("reconnected"), "{end:?}");
    }
}

#[test]
fn what_a_dead_owner_left_of_its_relay_is_no_obstacle() {
    let world = World::new();
    world.host(&[]).kill();
    let (socket, lock) = (world.runtime().join("relay.sock"), world.runtime().join("relay.lock"));
    let refused = UnixStream::connect(&socket).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "a stale socket is there");
    world.pair(Via::Local).close();
    // Something else in its place, and nothing at all.
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "not a socket").unwrap();
    world.pair(Via::Local).close();
    fs::remove_file(&socket).unwrap();
    fs::remove_file(&lock).unwrap();
    world.pair(Via::Local).close();
    for path in [&socket, &lock] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}
