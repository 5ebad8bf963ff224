//! Progress, as a person at a terminal and a program beside the channel see it.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::content::noise_file;
use crate::fixture::process::Process;
use crate::fixture::watch;
use crate::fixture::world::{Via, World};

/// Large enough to be seen on its way.
const BIG: u64 = 256 << 20;

fn first(state: &Value, flow: &str) -> Value {
    state[flow]["in_flight"][0].clone()
}

#[test]
fn what_is_on_the_way_has_a_rate_and_what_stands_still_says_why() {
    let world = World::new();
    let pair = world.pair(Via::Relay);
    let big = world.path("host/big.bin");
    noise_file(&big, 1, BIG);
    pair.host.link(&big, "big.bin");
    for (end, flow) in [(&pair.host, "outbox"), (&pair.peer, "inbox")] {
        let state = end.until_state("a rate", |state| first(state, flow)["remaining"].is_u64());
        let item = first(&state, flow);
        assert_eq!((&item["name"], &item["size"]), (&"big.bin".into(), &BIG.into()), "{item}");
        assert!(item["rate"].as_u64() > Some(0) && item["waits"].is_null(), "{item}");
        assert_eq!(state[flow]["rate"], item["rate"], "{state}");
    }
    // A peer that is stopped takes nothing, and its mount answers nobody.
    pair.peer.signal(Signal::STOP);
    let state = pair.host.until_state("a reason", |state| first(state, "outbox")["waits"].is_string());
    let item = first(&state, "outbox");
    assert_eq!((&item["rate"], &item["remaining"]), (&0.into(), &Value::Null), "{item}");
    assert!(item["done"].as_u64() < Some(BIG), "{item}");
    let sheet = world.run(&["status", &pair.host.nameplate, "--role", "host"]);
    let waits = format!("waiting: {}", item["waits"].as_str().unwrap());
    assert!(sheet.out.iter().any(|line| line.contains("big.bin: ") && line.ends_with(&waits)), "{sheet:?}");
    let table = world.run(&["status"]);
    let line = |end: &str| table.out.iter().find(|line| line.contains(end)).unwrap();
    assert!(line("host  connected").contains("1, waiting"), "{table:?}");
    assert!(line("peer  not_answering").contains(pair.peer.dir.to_str().unwrap()), "{table:?}");
    pair.peer.signal(Signal::CONT);
    pair.host.until_state("it to move", |state| first(state, "outbox")["waits"].is_null());
    world.flush(&pair.host);
    let state = pair.host.until_state("nothing on the way", |state| first(state, "outbox").is_null());
    assert_eq!((&state["outbox"]["bytes"], &state["outbox"]["rate"]), (&BIG.into(), &0.into()), "{state}");
    pair.close();
}

#[test]
fn what_was_refused_is_listed_with_its_reason() {
    let world = World::new();
    let mut host = world.host(&["--direct"]);
    let peer = world.connect(&format!("{}@127.0.0.1", host.code()), &["--inbox-limit", "1000"]);
    host.status("connected");
    host.put("much.bin", vec![7; 100_000]);
    let refused = host.status("refused");
    for (end, flow) in [(&host, "outbox"), (&peer, "inbox")] {
        let state = end.until_state("a refusal", |state| state[flow]["refused"] == 1);
        assert_eq!(state[flow]["refusals"][0]["name"], "much.bin", "{state}");
        let sheet = world.run(&["status", end.dir.to_str().unwrap()]);
        let reason = state[flow]["refusals"][0]["reason"].as_str().unwrap();
        assert!(sheet.out.contains(&format!("refused    much.bin: {reason}")), "{sheet:?}");
    }
    assert_eq!(refused["name"], "much.bin", "{refused}");
    host.ctl("close now");
    assert_eq!(host.finish().code, Some(6));
    peer.ctl("close");
    peer.finish().well();
}

/// A host whose standard error is a terminal and whose standard output is a file.
fn on_a_terminal(world: &World, args: &str) -> (Process, String) {
    let script = format!("exec {} host --direct {args} > events.jsonl", env!("CARGO_BIN_EXE_agent-wormhole"));
    let mut command = world.command_of("script", &["-qefc", &script, "typescript"]);
    command.current_dir(world.path("host"));
    let process = Process::spawn(command);
    let code = watch::until("the code", &world.path("host"), || {
        let events = events(&world.path("host/events.jsonl"));
        Some(events.first()?["code"].as_str()?.to_owned())
    });
    (process, code)
}

/// The lines of a file; each has to be an event.
fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"))).collect()
}

#[test]
fn bars_are_on_the_terminal_and_standard_output_is_data() {
    for (args, bars) in [("", true), ("--json", false)] {
        let world = World::new();
        let (mut host, code) = on_a_terminal(&world, args);
        let mut peer = world.connect(&format!("{code}@127.0.0.1"), &[]);
        peer.status("connected");
        let big = world.path("peer/big.bin");
        noise_file(&big, 2, BIG);
        peer.link(&big, "big.bin");
        let waiting = format!("{} flush {}", env!("CARGO_BIN_EXE_agent-wormhole"), peer.dir.display());
        let flushed = world.path("peer/flushed");
        let mut command = world.command_of("script", &["-qefc", &waiting, flushed.to_str().unwrap()]);
        command.current_dir(world.path("peer"));
        assert_eq!(Process::spawn(command).finish().code, Some(0));
        let shown = fs::read_to_string(flushed).unwrap();
        assert!(shown.contains("-> [") && shown.contains("big.bin"), "{shown}");
        world.run(&["close", &code, "--role", "host"]);
        let ended = host.finish();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let shown = fs::read_to_string(world.path("host/typescript")).unwrap();
        assert_eq!(shown.contains("<- ["), bars, "{shown}");
        assert_eq!(shown.contains("big.bin"), bars, "{shown}");
        let events = events(&world.path("host/events.jsonl"));
        assert!(events.iter().any(|event| event["name"] == "big.bin"), "{events:?}");
        assert_eq!(events.last().unwrap()["event"], "closed", "{events:?}");
        peer.ctl("close");
        peer.finish().well();
    }
}
