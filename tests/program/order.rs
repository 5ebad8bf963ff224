//! The order in which things arrive.
//!
//! Who writes here is a process of its own: a child that another test is about to start would hold a descriptor of this
//! one for a while, and whoever holds one is waited for 50 ms and no longer.

use std::fs;

use serde_json::Value;

use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::world::{Via, World};

/// Messages that are written one after the other.
const MESSAGES: usize = 1000;

fn bodies(end: &End) -> Vec<&str> {
    let texts = end.events.iter().filter(|event| event["type"] == "text");
    texts.map(|event| event["body"].as_str().unwrap()).collect()
}

fn names(end: &End) -> Vec<&str> {
    let files = end.events.iter().filter(|event| event["type"] == "file");
    files.map(|event| event["name"].as_str().unwrap()).collect()
}

#[test]
fn a_thousand_messages_each_way_at_once_arrive_in_their_order() {
    for via in [Via::Direct, Via::Relay] {
        let world = World::new();
        let mut pair = world.pair(via);
        std::thread::scope(|scope| {
            for (outbox, from) in [(pair.host.outbox(""), "host"), (pair.peer.outbox(""), "peer")] {
                let script = format!(
                    "n=0; while [ $n -lt {MESSAGES} ]; do printf '{from} %d' $n > $n.msg; n=$((n + 1)); done"
                );
                let world = &world;
                scope.spawn(move || world.sh(&outbox, &script));
            }
        });
        for (end, from) in [(&mut pair.peer, "host"), (&mut pair.host, "peer")] {
            let last = format!("{from} {}", MESSAGES - 1);
            end.text(&last);
            let expected: Vec<String> = (0..MESSAGES).map(|n| format!("{from} {n}")).collect();
            assert!(bodies(end) == expected, "{:?}", bodies(end));
            // What is in the directory is what the events said, number by number.
            for (n, body) in expected.iter().enumerate() {
                let path = end.inbox(&format!("messages/{:04}.txt", n + 1));
                assert_eq!(&fs::read_to_string(path).unwrap(), body);
            }
        }
        let (host, peer) = pair.close();
        for end in [host, peer] {
            assert_eq!(end.count(|event| event["type"] == "text"), MESSAGES);
        }
    }
}

#[test]
fn texts_and_small_files_mixed_keep_their_orders() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    for n in 0..100 {
        fs::write(world.path(&format!("home/file-{n}")), noise(n, 10 + n as usize * 100)).unwrap();
    }
    let both = "n=0; while [ $n -lt 100 ]; do
        printf 'text %d' $n > $n.msg; cat ~/file-$n > file-$n; n=$((n + 1)); done";
    world.sh(&pair.host.outbox(""), both);
    pair.peer.text("text 99");
    pair.peer.item("file-99");
    assert_eq!(bodies(&pair.peer), (0..100).map(|n| format!("text {n}")).collect::<Vec<_>>());
    assert_eq!(names(&pair.peer), (0..100).map(|n| format!("file-{n}")).collect::<Vec<_>>());
    for n in 0..100 {
        assert!(fs::read(pair.peer.inbox(&format!("file-{n}"))).unwrap() == noise(n, 10 + n as usize * 100));
    }
    pair.close();
}

#[test]
fn a_text_overtakes_a_large_file_and_says_so() {
    let world = World::new();
    let mut pair = world.pair(Via::Direct);
    let big = world.path("home/big.bin");
    crate::fixture::content::noise_file(&big, 7, 400 << 20);
    pair.host.link(&big, "big.bin");
    let under_way = |state: &Value| {
        state["inbox"]["in_flight"].as_array().unwrap().iter().any(|item| item["name"] == "big.bin")
    };
    pair.peer.until_state("the file to be under way", under_way);
    pair.host.put("message", "meanwhile");
    let text = pair.peer.text("meanwhile");
    assert_eq!(text["pending"], serde_json::json!(["big.bin"]), "{text}");
    let file = pair.peer.item("big.bin");
    assert!(text["seq"].as_u64() < file["seq"].as_u64(), "{text} {file}");
    pair.close();
}
