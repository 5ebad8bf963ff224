//! README.md as it stands: each of its fenced blocks is run by a shell, or held against what the program does.
//!
//! What stands in for what in a block, and nothing else:
//! - `9471`, `9471-cross-clock-marble` and `40123-cross-clock-marble`: the number and the code of a channel of this run;
//! - `/run/user/1000`: the runtime directory of the test's world;
//! - `$D`: where a section does not set it, the directory of the end whose shell it is;
//! - `laptop$`, `server$` and `relay$`, where addresses are needed: shells in one network namespace, where no port is taken, 192.0.2.7 is an address and a
//!   hosts file has relay.example.org; what is asked for by `wss://` there has a certificate of the test's own authority
//!   (`AGENT_WORMHOLE_CA`);
//! - `claude`: a program that reads its standard input;
//! - `make`: with `-n`; the demo itself is run in `examples`, with less to send.
//!
//! What does not end by itself (`host`, `connect`, `tail -f`, `watch`) runs beside the rest, and its lines are read.

mod networked;
mod sections;
mod synopsis;

use std::thread;

use serde_json::Value;

use crate::fixture::blocks::{Block, fenced};

/// The document.
const README: &str = include_str!("../../README.md");

/// What is done with the blocks of a section, of which it has to know each.
type Run = fn(&[Block]);

/// Sections with blocks that are tried on this machine.
const HERE: [(&str, Run); 9] = [
    ("agent-wormhole", sections::make),
    ("One machine", sections::one_machine),
    ("The directory", sections::directory),
    ("Secrets", sections::secrets),
    ("Events", sections::events),
    ("Commands", synopsis::commands),
    ("Waiting and watching", sections::waiting),
    ("For an agent", sections::setup),
    ("Questions", sections::questions),
];
/// Sections whose blocks need machines and names: a test each, that may run again in a namespace.
const NETWORKED: [&str; 2] = ["Two machines", "Doctor"];

/// The blocks of a section.
fn blocks(heading: &str) -> Vec<Block> {
    fenced(README).into_iter().filter(|block| block.heading == heading).collect()
}

/// Holds if an event is as the README shows it. `…` stands for anything; ids, numbers and times are those of the run.
fn like(shown: &str, event: &Value) {
    let (mut shown, mut event): (Value, Value) = (serde_json::from_str(shown).unwrap(), event.clone());
    for own in ["id", "seq", "at"] {
        let [a, b] = [&mut shown, &mut event].map(|value| value.as_object_mut().unwrap().remove(own));
        assert_eq!(a.is_some(), b.is_some(), "{own}: {shown} {event}");
    }
    let members = shown.as_object_mut().unwrap();
    for (name, value) in members {
        let Some((start, end)) = value.as_str().and_then(|text| text.split_once('…')) else { continue };
        let real = event[name].as_str().unwrap_or_else(|| panic!("no {name}: {event}"));
        assert!(real.starts_with(start) && real.ends_with(end), "{name}: {event}");
        *value = event[name].clone();
    }
    assert_eq!(shown, event);
}

#[test]
fn every_block_of_the_readme_has_a_test() {
    for block in fenced(README) {
        let known = HERE.iter().map(|(heading, _)| *heading).chain(NETWORKED);
        assert!(known.into_iter().any(|heading| heading == block.heading), "nobody runs this: {block:#?}");
    }
    for heading in HERE.map(|(heading, _)| heading).into_iter().chain(NETWORKED) {
        assert!(!blocks(heading).is_empty(), "{heading} has no block");
    }
}

#[test]
fn the_blocks_of_the_readme_run_as_they_stand() {
    let failed: Vec<&str> = thread::scope(|scope| {
        let running = HERE.map(|(heading, run)| (heading, scope.spawn(move || run(&blocks(heading)))));
        running.into_iter().filter_map(|(heading, running)| running.join().err().map(|_| heading)).collect()
    });
    assert!(failed.is_empty(), "what these sections show does not hold: {failed:?}");
}
