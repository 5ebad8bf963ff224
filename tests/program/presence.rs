//! What the other end tells of what was sent: when it was stored, and when its owner opened it, no model involved.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::fixture::end::End;
use crate::fixture::process::Process;
use crate::fixture::world::{Pair, Via, World};

/// Runs a program on a file of the inbox, as its owner does.
fn read(world: &World, end: &End, program: &str, args: &[&str], name: &str) {
    let path = end.inbox(name);
    let ended =
        Process::spawn(world.command_of(program, &[args, &[path.to_str().unwrap()]].concat())).finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// What is known of an item that was sent, once it is there.
fn sent(end: &End, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let find = |state: &Value| {
        state["sent"]
            .as_array()
            .and_then(|all| all.iter().find(|item| item["name"] == name && is(item)).cloned())
    };
    find(&end.until_state(name, |state| find(state).is_some())).unwrap()
}

fn is_opened(item: &Value) -> bool {
    item["opened"].is_string()
}

/// Sends a text and waits until its owner is known to have read it: whatever was told before that is known, too.
fn after_all_that(world: &World, from: &End, to: &mut End, name: &str) {
    from.put(&format!("{name}.msg"), name);
    let text = to.text(name);
    let saved = text["saved_to"].as_str().unwrap().to_owned();
    let ended = Process::spawn(world.command_of("cat", &[&saved])).finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    sent(from, &format!("{name}.msg"), is_opened);
}

#[test]
fn who_sent_something_sees_when_it_was_stored_and_when_it_was_opened() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Relay, "fuse");
    for name in ["a.txt", "b.txt", "c.txt"] {
        pair.host.put(name, "several words");
        pair.peer.item(name);
    }
    // None of these is a reader: who looks at the beginning, an indexer, and the programs of the channel itself.
    let indexer = world.path("tracker-miner-f");
    fs::copy("/bin/cat", &indexer).unwrap();
    read(&world, &pair.peer, "head", &["-c", "1"], "b.txt");
    read(&world, &pair.peer, indexer.to_str().unwrap(), &[], "c.txt");
    let waited = world.run(&["wait", pair.peer.dir.to_str().unwrap(), "--for", "b.txt"]);
    assert_eq!(waited.code, Some(0), "{waited:?}");
    read(&world, &pair.peer, "cat", &[], "a.txt");
    let opened = sent(&pair.host, "a.txt", is_opened);
    assert!(opened["stored"].as_str() <= opened["opened"].as_str(), "{opened}");
    assert_eq!((&opened["kind"], &opened["size"]), (&"file".into(), &13.into()));
    after_all_that(&world, &pair.host, &mut pair.peer, "marker");
    for name in ["b.txt", "c.txt"] {
        assert!(!is_opened(&sent(&pair.host, name, |_| true)), "{name}");
    }
    let state = pair.host.until_state("the peer", |state| state["peer"]["opened"].is_string());
    assert_eq!(state["peer"]["tells_opened"], true, "{state}");
    assert!(state["peer"]["heard"].is_string(), "{state}");
    let dir = pair.host.dir.to_str().unwrap();
    let sheet = world.run(&["status", dir]).out.join("\n");
    assert!(sheet.contains("file a.txt: stored 20") && sheet.contains(", opened 20"), "{sheet}");
    assert!(sheet.contains("b.txt: stored ") && sheet.contains("not opened yet"), "{sheet}");
    let lines = world.run(&["status", dir, "--json"]).out;
    let row: Value = serde_json::from_str(&lines[0]).unwrap();
    assert!(row["status"]["sent"].as_array().unwrap().iter().any(is_opened), "{row}");
    // It wakes nobody.
    let (host, _) = pair.close();
    assert_eq!(host.count(|event| event["type"] != "status"), 0, "{:?}", host.events);
}

#[test]
fn who_wants_no_receipts_and_a_real_directory_tell_nothing() {
    for args in [&["--mount", "fuse", "--no-read-receipts"][..], &["--mount", "dir"]] {
        let world = World::new();
        let mut host = world.host(&["--direct", "--mount", "fuse"]);
        let mut peer = world.connect(&format!("{}@127.0.0.1", host.code()), args);
        for end in [&mut host, &mut peer] {
            end.status("connected");
        }
        host.put("a.txt", "several words");
        peer.item("a.txt");
        read(&world, &peer, "cat", &[], "a.txt");
        // The other way it is told, and after it all that would have been told.
        peer.put("b.txt", "others");
        host.item("b.txt");
        read(&world, &host, "cat", &[], "b.txt");
        sent(&peer, "b.txt", is_opened);
        let item = sent(&host, "a.txt", |_| true);
        assert!(!is_opened(&item), "{item}");
        peer.ctl("close");
        host.status("peer_closed");
        let state = host.until_state("the end", |state| state["state"] == "peer_closed");
        assert!(
            state["peer"]["opened"].is_null() && !state.to_string().contains("\"opened\":\"2"),
            "{state}"
        );
        host.ctl("close");
        host.finish().well();
        peer.finish().well();
    }
}

#[test]
fn what_was_opened_without_a_link_is_told_when_there_is_one() {
    let world = World::new();
    let relay = world.relay();
    let url = relay.url();
    let mut host = world.host(&["--relay", &url, "--mount", "fuse"]);
    let mut peer = world.connect(&host.code(), &["--relay", &url, "--mount", "fuse"]);
    for end in [&mut host, &mut peer] {
        end.status("connected");
    }
    host.put("a.txt", "several words");
    peer.item("a.txt");
    sent(&host, "a.txt", |_| true);
    let address = url.strip_prefix("ws://").unwrap().to_owned();
    drop(relay);
    peer.status("reconnecting");
    read(&world, &peer, "cat", &[], "a.txt");
    assert!(!is_opened(&sent(&host, "a.txt", |_| true)));
    let mut again: Command = world.command(&["relay", "--listen", &address]);
    again.args(["--messages-per-minute", "0", "--bytes-per-minute", "0"]);
    let _relay = Process::spawn(again);
    peer.status("reconnected");
    sent(&host, "a.txt", is_opened);
    for mut end in [host, peer] {
        end.ctl("close");
        end.status("closed");
        end.finish();
    }
}

#[test]
fn a_secret_counts_as_opened_when_a_command_has_used_it() {
    for (args, told) in [(&["--mount", "dir"][..], true), (&["--mount", "dir", "--no-read-receipts"], false)]
    {
        let world = World::new();
        let host = world.host(&["--mount", "dir"]);
        let peer = world.connect(&host.code(), args);
        let mut pair = Pair { host, peer, relay: None };
        pair.connected();
        let send = world.command(&["send", pair.host.dir.to_str().unwrap(), "--secret", "KEY", "--wait"]);
        assert_eq!(Process::spawn_with(send, b"value-of-the-key").finish().code, Some(0));
        let event = pair.peer.item("KEY");
        let (dir, number) = (pair.peer.dir.to_str().unwrap().to_owned(), event["id"].clone());
        let waited = world.run(&["wait", &dir, "--for", "secret:KEY", "--timeout", "20s"]);
        assert_eq!(waited.code, Some(0), "{waited:?}");
        sent(&pair.host, "KEY", |item| item["id"] == number && !is_opened(item));
        let ended = world.run(&["run", &dir, "--secret", "KEY", "--", "true"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        if told {
            sent(&pair.host, "KEY", is_opened);
        } else {
            pair.peer.put("after.msg", "after");
            pair.host.text("after");
            sent(&pair.host, "KEY", |item| !is_opened(item));
        }
        pair.close();
    }
}
