//! Many writes to few names, while whoever can wait in the channel's directory does.

use std::fs;
use std::time::Instant;

use crate::fixture::LIMIT;
use crate::fixture::process::Process;
use crate::fixture::world::{Via, World};

/// Writes to one name, and to names in turn.
const WRITES: usize = 5000;
/// Processes that wait for the receipt, and that read the log.
const READERS: usize = 12;

#[test]
fn five_thousand_texts_under_one_name_and_under_names_in_turn_arrive_in_order_while_readers_hang() {
    let world = World::new();
    let host = world.host(&["--mount", "fuse"]);
    let (receipt, log) = (host.dir.join("receipt"), host.inbox("log.jsonl"));
    fs::write(host.outbox("first.bin"), "x").unwrap();
    let waiting: Vec<_> = (0..READERS)
        .map(|_| Process::spawn(world.command_of("sync", &[receipt.to_str().unwrap()])))
        .collect();
    let reading: Vec<_> = (0..READERS)
        .map(|_| Process::spawn(world.command_of("tail", &["-f", log.to_str().unwrap()])))
        .collect();
    let start = Instant::now();
    for n in 0..WRITES {
        let name = if n < WRITES / 2 { "message" } else { ["a.msg", "b.msg", "c.msg"][n % 3] };
        fs::write(host.outbox(name), n.to_string()).unwrap();
        if n == WRITES / 4 {
            // Nothing more than before is held back by those who wait.
            fs::read_dir(host.outbox("")).unwrap().for_each(drop);
        }
    }
    println!("{WRITES} texts were written in {:?}, before anybody had connected", start.elapsed());
    let mut peer = world.connect(&host.code(), &["--mount", "fuse"]);
    let last = (WRITES - 1).to_string();
    peer.until_in(LIMIT * 4, "the last text", |event| {
        event["type"] == "text" && event["body"] == last.as_str()
    });
    println!("the last of them arrived after {:?}", start.elapsed());
    let bodies: Vec<&str> = peer
        .events
        .iter()
        .filter(|event| event["type"] == "text")
        .map(|event| event["body"].as_str().unwrap())
        .collect();
    let expected: Vec<_> = (0..WRITES).map(|n| n.to_string()).collect();
    assert!(bodies == expected, "{} of {WRITES}, or in another order", bodies.len());
    for mut waiting in waiting {
        assert_eq!(waiting.finish().code, Some(0), "what was there before has arrived");
    }
    for reading in reading {
        reading.kill();
    }
    let mut pair = crate::fixture::world::Pair { host, peer, relay: None };
    pair.connected();
    pair.close();
    assert_eq!(world.pair(Via::Direct).close().0.code, Some(0));
}
