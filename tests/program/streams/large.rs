//! Streams of many bytes: nothing of them is kept anywhere on the side that sends, and memory stays flat.

use std::fs::File;
use std::io::{Read as _, Write as _};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use super::{MOUNTS, send};
use crate::fixture::LONG;
use crate::fixture::world::{Via, World};

/// Bytes that are handled at once.
const BLOCK: usize = 1 << 20;
/// What an end may need above what it needed before, in bytes: its windows and its staging. What a mount keeps in
/// memory of an inbox is bounded by `--memory`, and counts for the peer.
const MORE_MEMORY: u64 = 64 << 20;
/// What a mount may keep in memory here, in bytes.
const MOUNT_MEMORY: u64 = 32 << 20;
/// What `send` may need in all, in bytes.
const SENDER: u64 = 48 << 20;

/// So many blocks of noise through a pipe into a channel, and out of the peer's inbox.
fn flows(via: Via, mount: &str, blocks: u64, limit: std::time::Duration) {
    let world = World::new();
    let memory = (MOUNT_MEMORY >> 20).to_string() + "MiB";
    let options = ["--mount", mount, "--memory", &memory];
    let direct = [&options[..], &["--direct"]].concat();
    let mut host = world.host(if via == Via::Direct { &direct } else { &options });
    let at = if via == Via::Direct { "@127.0.0.1" } else { "" };
    let mut peer = world.connect(&format!("{}{at}", host.code()), &options);
    peer.status("connected");
    host.status("connected");
    let idle = [host.peak(), peer.peak()];
    let (sending, mut input) = send(&world, &host, "big.bin", &["--wait"]);
    let mut rng = ChaCha20Rng::seed_from_u64(blocks);
    let mut block = vec![0; BLOCK];
    let mut most = 0;
    for _ in 0..blocks {
        rng.fill_bytes(&mut block);
        input.write_all(&block).unwrap();
        most = sending.peak();
    }
    drop(input);
    let mut sending = sending;
    let event = peer.until_in(limit, "the stream", |event| event["name"] == "big.bin");
    assert_eq!(event["size"], blocks * BLOCK as u64, "{event}");
    let ended = sending.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut arrived = File::open(peer.inbox("big.bin")).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(blocks);
    let mut other = vec![0; BLOCK];
    for n in 0..blocks {
        rng.fill_bytes(&mut block);
        arrived.read_exact(&mut other).unwrap();
        assert!(block == other, "block {n} differs");
    }
    assert_eq!(arrived.read(&mut other).unwrap(), 0);
    drop(arrived);
    println!("{via:?}, {mount}: send {} MiB", most >> 20);
    assert!(most < SENDER, "send needed {} MiB", most >> 20);
    for (who, end, idle) in [("host", &host, idle[0]), ("peer", &peer, idle[1])] {
        let more = end.peak().saturating_sub(idle);
        println!("{via:?}, {mount}: {who} {} MiB above the {} MiB of before", more >> 20, idle >> 20);
        let mounted = if who == "peer" && mount == "fuse" { MOUNT_MEMORY } else { 0 };
        assert!(more < MORE_MEMORY + mounted, "{who} needed {} MiB above idle", more >> 20);
    }
    crate::fixture::world::Pair { host, peer, relay: None }.close();
}

#[test]
fn a_stream_of_three_hundred_mebibytes_is_kept_nowhere() {
    for (mount, via) in MOUNTS.into_iter().zip([Via::Local, Via::Direct]) {
        flows(via, mount, 300, LONG);
    }
}

#[test]
#[ignore = "long: run with make soak"]
fn a_stream_of_five_gibibytes_is_kept_nowhere() {
    for mount in MOUNTS {
        for via in [Via::Local, Via::Direct] {
            flows(via, mount, 5 << 10, 10 * LONG);
        }
    }
}
