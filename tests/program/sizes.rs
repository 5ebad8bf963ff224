//! Sizes at which something changes: nothing, one byte, one chunk, one more.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, UNIX_EPOCH};

use crate::fixture::LONG;
use crate::fixture::content::{noise, noise_file, same_file, same_tree, tree};
use crate::fixture::world::{Via, World};

/// Bytes of a chunk.
const CHUNK: usize = 256 * 1024;
/// Bytes up to which a file travels within its head.
const INLINE: usize = 16 * 1024;
/// Every size that is tried.
const SIZES: [usize; 15] = [
    0,
    1,
    2,
    INLINE - 1,
    INLINE,
    INLINE + 1,
    65_535,
    65_536,
    65_537,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    2 * CHUNK,
    3 * CHUNK - 1,
    8 * 1024 * 1024 + 1,
];

#[test]
fn every_size_is_exact_by_copy_and_by_reference() {
    for via in [Via::Direct, Via::Relay] {
        let world = World::new();
        let mut pair = world.pair(via);
        for size in SIZES {
            let source = world.path(&format!("home/{size}"));
            fs::write(&source, noise(size as u64, size)).unwrap();
            let executable = size % 2 == 1;
            fs::set_permissions(&source, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
                .unwrap();
            let mtime = UNIX_EPOCH + Duration::new(1_000_000_000 + size as u64, 123_456_789);
            File::open(&source).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
            pair.host.link(&source, &format!("link-{size}"));
            world.sh(&pair.host.dir, &format!("cp -p '{}' outbox/copy-{size}", source.display()));
        }
        for size in SIZES {
            let source = world.path(&format!("home/{size}"));
            for how in ["link", "copy"] {
                let event = pair.peer.item(&format!("{how}-{size}"));
                assert_eq!(event["size"], size, "{event}");
                let saved = pair.peer.inbox(&format!("{how}-{size}"));
                same_file(&source, &saved);
                let (sent, received) = (fs::metadata(&source).unwrap(), fs::metadata(&saved).unwrap());
                assert_eq!(sent.modified().unwrap(), received.modified().unwrap(), "{event}");
                assert_eq!(sent.mode() & 0o100, received.mode() & 0o100, "{event}");
                assert_eq!(received.mode() & 0o077, 0, "for its owner alone: {event}");
            }
        }
        let (_, peer) = pair.close();
        assert_eq!(peer.count(|event| event["type"] == "file"), 2 * SIZES.len());
    }
}

#[test]
fn texts_of_every_size_arrive_and_longer_ones_go_as_files() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let body = |size: usize| "ä".repeat(size / 2) + &"x".repeat(size % 2);
    for (n, size) in [0, 1, 1024, 1025, INLINE, INLINE + 1, CHUNK + 1, 1 << 20].into_iter().enumerate() {
        pair.host.put(&format!("{size}.msg"), body(size));
        let text = pair.peer.until("the text", |event| event["type"] == "text" && event["size"] == size);
        let expected = (size <= 1024).then(|| body(size).into());
        assert_eq!(text.get("body").cloned(), expected, "{size}");
        assert_eq!(
            fs::read_to_string(pair.peer.inbox(&format!("messages/{:04}.txt", n + 1))).unwrap(),
            body(size)
        );
    }
    pair.host.put("long.msg", body((1 << 20) + 1));
    assert_eq!(pair.peer.item("long.msg")["type"], "file");
    pair.close();
}

#[test]
fn a_linked_directory_arrives_whole_as_one_event() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let project = world.path("home/project");
    tree(&project, 100);
    fs::write(project.join("big.bin"), noise(9, 3 * CHUNK + 5)).unwrap();
    pair.peer.link(&project, "project");
    let event = pair.host.item("project");
    assert_eq!((&event["type"], &event["files"]), (&"dir".into(), &104.into()), "{event}");
    same_tree(&project, &pair.host.inbox("project"), true);
    let (host, _) = pair.close();
    assert_eq!(host.count(|event| event["from"] == "peer"), 1, "{host:?}");
}

#[test]
#[ignore = "long: run with make soak"]
fn ten_gibibytes_arrive_and_memory_stays_flat() {
    let world = World::new();
    let mut pair = world.pair(Via::Direct);
    let idle = [pair.host.peak(), pair.peer.peak()];
    // Sparse but for its ends, so that the machine needs room for one copy only.
    let size = 10_u64 << 30;
    let source = world.path("home/huge.bin");
    noise_file(&source, 10, 4 << 20);
    let file = File::options().write(true).open(&source).unwrap();
    file.set_len(size - 5).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"the end!!", size - 9).unwrap();
    pair.host.link(&source, "huge.bin");
    let event = pair.peer.until_in(10 * LONG, "10 GiB", |event| event["name"] == "huge.bin");
    assert_eq!(event["size"], size);
    same_file(&source, &pair.peer.inbox("huge.bin"));
    for (end, idle) in [(&pair.host, idle[0]), (&pair.peer, idle[1])] {
        let more = end.peak().saturating_sub(idle) >> 20;
        println!("{more} MiB above idle");
        assert!(more < 64, "{more} MiB above idle");
    }
    pair.close();
}
