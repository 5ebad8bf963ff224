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

/// Writes them; what lists the directory meanwhile is held back no more than before by those who wait.
const WRITE: &str = r"
n=0
while [ $n -lt 5000 ]; do
    case $((n < 2500 ? 3 : n % 3)) in 0) name=a.msg ;; 1) name=b.msg ;; 2) name=c.msg ;; *) name=message ;; esac
    printf %s $n > $name
    [ $n -ne 1250 ] || ls > /dev/null
    n=$((n + 1))
done
";

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
    // From a process of its own: a child that another test is about to start would hold a descriptor of this one for a
    // while, and whoever holds one is waited for 50 ms and no longer.
    world.sh(&host.outbox(""), WRITE);
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
    let differs = bodies.iter().zip(&expected).position(|(body, expected)| body != expected);
    assert!(bodies == expected, "{} of {WRITES}, in another order from {differs:?} on", bodies.len());
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
