//! Connections that are cut, and relays that die, in the middle of a transfer.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::fixture::LONG;
use crate::fixture::content::{noise_file, same_file};
use crate::fixture::end::End;
use crate::fixture::network::with_network;
use crate::fixture::proxy::Proxy;
use crate::fixture::world::{Pair, World};

/// Bytes of the file.
const SIZE: u64 = 256 << 20;
/// Cuts during its transfer.
const CUTS: usize = 20;
/// Bytes between two cuts.
const BETWEEN: u64 = SIZE / (CUTS as u64 + 1);
/// What an end may need above what it needed before, in bytes.
const MORE_MEMORY: u64 = 64 << 20;

/// A file on its way from the host, and what the ends needed before it.
struct Transfer<'a> {
    pair: Pair,
    source: &'a Path,
    idle: [u64; 2],
}

impl<'a> Transfer<'a> {
    fn start(mut pair: Pair, source: &'a Path) -> Self {
        pair.connected();
        let idle = [pair.host.peak(), pair.peer.peak()];
        pair.host.link(source, "big.bin");
        Self { pair, source, idle }
    }

    /// Both ends say something, numbered.
    fn say(&self, n: usize) {
        self.pair.host.put(&format!("{n}.msg"), format!("host {n}"));
        self.pair.peer.put(&format!("{n}.msg"), format!("peer {n}"));
    }

    /// Holds if the file, and every text up to `said`, arrived intact and once, and memory stayed flat.
    fn arrives(mut self, what: &str, said: usize) {
        self.pair.peer.until_in(LONG, "the file", |event| event["name"] == "big.bin");
        same_file(self.source, &self.pair.peer.inbox("big.bin"));
        if let Some(last) = said.checked_sub(1) {
            self.pair.peer.text(&format!("host {last}"));
            self.pair.host.text(&format!("peer {last}"));
        }
        for (end, idle) in [(&self.pair.host, self.idle[0]), (&self.pair.peer, self.idle[1])] {
            let more = end.peak().saturating_sub(idle);
            println!("{what}: {} MiB above the {} MiB of before", more >> 20, idle >> 20);
            assert!(more < MORE_MEMORY, "{what}: {} MiB above the {} MiB of before", more >> 20, idle >> 20);
        }
        let (host, peer) = self.pair.close();
        assert_eq!(peer.count(|event| event["type"] == "file"), 1, "{peer:?}");
        for (end, from) in [(peer, "host"), (host, "peer")] {
            let texts = end.events.iter().filter(|event| event["type"] == "text");
            let bodies: Vec<&str> = texts.map(|event| event["body"].as_str().unwrap()).collect();
            assert_eq!(bodies, (0..said).map(|n| format!("{from} {n}")).collect::<Vec<_>>());
            // Each loss of the link is told, and so is its return.
            assert_eq!(end.statuses("reconnecting"), end.statuses("reconnected"), "{end:?}");
            assert!(end.statuses("reconnected") > 0, "{end:?}");
        }
    }
}

fn big_file(world: &World) -> std::path::PathBuf {
    let source = world.path("home/big.bin");
    noise_file(&source, 1, SIZE);
    source
}

#[test]
fn a_direct_connection_cut_twenty_times_loses_and_repeats_nothing() {
    with_network("cuts::a_direct_connection_cut_twenty_times_loses_and_repeats_nothing", |network| {
        let world = World::new();
        let source = big_file(&world);
        let network = Arc::new(network);
        let (host, proxy) = loop {
            let mut command = world.command(&["host", "--direct"]);
            command.current_dir(world.path("host"));
            let host = network.run(move || End::start(command));
            let port: u16 = host.nameplate.parse().unwrap();
            let inside = Arc::clone(&network);
            match Proxy::start(([127, 0, 0, 2], port).into(), move || inside.connect(port)) {
                Ok(proxy) => break (host, proxy),
                // Free there, and taken here: another one.
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
            }
        };
        let peer = world.connect(&format!("{}@127.0.0.2", host.code()), &[]);
        let transfer = Transfer::start(Pair { host, peer, relay: None }, &source);
        proxy.cut_every(BETWEEN, CUTS as u64);
        for n in 0..CUTS {
            proxy.until_cuts(n + 1);
            transfer.say(n);
        }
        transfer.arrives("direct", CUTS);
        assert_eq!(proxy.cuts(), CUTS);
    });
}

#[test]
fn either_ends_connection_to_its_relay_cut_twenty_times_loses_and_repeats_nothing() {
    let world = World::new();
    let source = big_file(&world);
    let relay = world.relay();
    let target = Arc::new(Mutex::new(relay.address));
    let (before_host, before_peer) = (Proxy::before(Arc::clone(&target)), Proxy::before(target));
    let host = world.host(&["--relay", &before_host.url()]);
    let peer = world.connect(&host.code(), &["--relay", &before_peer.url()]);
    let transfer = Transfer::start(Pair { host, peer, relay: Some(relay) }, &source);
    // What the host has sent is cut at one place, what the peer has received at another.
    before_host.cut_every(BETWEEN, CUTS as u64);
    before_peer.cut_every(BETWEEN * 7 / 8, CUTS as u64);
    for n in 0..CUTS {
        before_host.until_cuts(n + 1);
        transfer.say(n);
    }
    transfer.arrives("relay", CUTS);
    assert_eq!((before_host.cuts(), before_peer.cuts()), (CUTS, CUTS));
}

#[test]
fn a_relay_that_is_killed_and_started_again_loses_and_repeats_nothing() {
    let world = World::new();
    let source = big_file(&world);
    let mut relay = world.relay();
    // A proxy keeps the relay's address while the relay behind it comes and goes.
    let target = Arc::new(Mutex::new(relay.address));
    let proxy = Proxy::before(Arc::clone(&target));
    let host = world.host(&["--relay", &proxy.url()]);
    let peer = world.connect(&host.code(), &["--relay", &proxy.url()]);
    let transfer = Transfer::start(Pair { host, peer, relay: None }, &source);
    let deaths = 5;
    for n in 0..deaths {
        // Everything comes through twice.
        proxy.until_passed((n as u64 + 1) * 2 * SIZE / (deaths as u64 + 1));
        relay.process.kill();
        transfer.say(n);
        relay = world.relay();
        *target.lock().unwrap() = relay.address;
    }
    transfer.arrives("killed relay", deaths);
}
