//! A day of two agents: the example, run as it stands.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::fixture::LONG;
use crate::fixture::process::Process;
use crate::fixture::world::World;

/// Items that each agent of the example sends, before the one at noon.
const ITEMS: usize = 50;

/// Every line of a file: an event whose number is above the one before.
fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "{}", path.display());
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}")))
        .collect();
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{}: {seqs:?}", path.display());
    events
}

fn statuses(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

/// How many items come from a side.
fn items(events: &[Value], from: &str) -> usize {
    events.iter().filter(|event| event["from"] == from).count()
}

/// Holds if these come in this order, others between them or not.
fn in_this_order(words: &[&str], story: &[&str]) {
    let mut rest = words.iter();
    for word in story {
        assert!(rest.any(|other| other == word), "{word} is not where it belongs in {words:?}");
    }
}

#[test]
fn a_day_of_two_agents_reads_like_a_story() {
    let world = World::new();
    let kept = world.path("home");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/agents-day.sh");
    let mut command = world.command_of("bash", &[script]);
    command.env("BIN", env!("CARGO_BIN_EXE_agent-wormhole")).env("KEEP", &kept);
    command.env("DAY_ITEMS", ITEMS.to_string());
    let mut day = Process::spawn(command);
    let mut told = Vec::new();
    while let Some(line) = day.line("the day's next step", LONG) {
        told.push(line);
    }
    let ended = day.finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{told:#?} {ended:?}");
    for words in ["the laptop's channel ended with 0", "the server's channel ended with 0"] {
        assert!(told.iter().any(|line| line == words), "{told:#?}");
    }
    // The transcript: both sides of the conversation, and what happened to the channel.
    let laptop = events(&kept.join("laptop.transcript.jsonl"));
    in_this_order(
        &statuses(&laptop),
        &["channel", "connected", "reconnecting", "reconnected", "peer_away", "peer_back"],
    );
    assert_eq!((items(&laptop, "self"), items(&laptop, "peer")), (ITEMS + 1, ITEMS));
    assert_eq!(laptop.last().unwrap()["body"], "are you there?\n");
    let server = events(&kept.join("server.transcript.jsonl"));
    assert_eq!((items(&server, "self"), items(&server, "peer")), (ITEMS, ITEMS + 1));
    // What was watched from the first event to the last: nothing of what this side sent, and how it ended.
    for (name, came) in [("laptop", ITEMS), ("server", ITEMS + 1)] {
        let watched = events(&kept.join(format!("{name}.events.jsonl")));
        assert_eq!((items(&watched, "self"), items(&watched, "peer")), (0, came), "{name}");
        let last = watched.last().unwrap();
        assert_eq!((&last["event"], &last["exit"]), (&"closed".into(), &0.into()), "{name}: {last}");
        let first = events(&kept.join(format!("{name}.first.jsonl")));
        assert_eq!(first[0]["event"], "channel", "{name}: {first:?}");
        assert!(watched[0].get("code").is_none(), "the code is with who started it alone: {watched:?}");
    }
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0, "the day leaves nothing behind");
}
