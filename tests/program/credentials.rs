//! Plain content that looks like a credential: told of, and withheld where its owner asked for that.

use serde_json::Value;

use crate::fixture::end::text;
use crate::fixture::world::{Pair, World};

/// Made up, in the shape of a key; in pieces, so that no scanner takes this file for a leak.
fn key() -> String {
    format!("{}{}", "AKIA", "QYLPMN5HHHFPZAM2")
}

fn pair(world: &World, mount: &str, blocks: bool) -> Pair {
    let mut args = vec!["--mount", mount];
    args.extend(blocks.then_some("--block-secrets"));
    let host = world.host(&args);
    let peer = world.connect(&host.code(), &["--mount", mount]);
    let mut pair = Pair { host, peer, relay: None };
    pair.connected();
    pair
}

fn told<'a>(events: &'a [Value], word: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == word).collect()
}

#[test]
fn what_looks_like_a_credential_is_sent_and_told_of_once_each_without_its_value() {
    for mount in ["fuse", "dir"] {
        let world = World::new();
        let mut pair = pair(&world, mount, false);
        pair.host.put("message", format!("the key is {}\n", key()));
        pair.host.put("settings.env", format!("AWS_ACCESS_KEY_ID={}\n", key()));
        pair.host.put("harmless.txt", "the key is on the table\n");
        std::fs::create_dir_all(world.path("home/whole")).unwrap();
        std::fs::write(world.path("home/whole/id"), key()).unwrap();
        pair.host.link(&world.path("home/whole"), "whole");
        for name in ["settings.env", "harmless.txt", "whole"] {
            pair.peer.item(name);
        }
        let state = pair.host.until_state("three of them", |state| {
            state["credentials"].as_array().is_some_and(|found| found.len() == 3)
        });
        let mut names: Vec<&str> =
            state["credentials"].as_array().unwrap().iter().map(|found| text(found, "name")).collect();
        names.sort_unstable();
        assert_eq!(names, ["message", "settings.env", "whole/id"], "{mount}");
        assert!(!state.to_string().contains(&key()), "{state}");
        let (host, peer) = pair.close();
        let events = told(&host.events, "credential");
        assert_eq!(events.len(), 3, "{mount} {host:?}");
        for event in events {
            assert!(text(event, "detail").contains("an AWS access key"), "{event}");
            assert!(!event.to_string().contains(&key()), "{event}");
        }
        assert!(told(&peer.events, "credential").is_empty(), "it is the sender's affair: {peer:?}");
    }
}

#[test]
fn what_must_not_leave_is_refused_at_close_and_stays_and_the_peer_hears_nothing() {
    for mount in ["fuse", "dir"] {
        let world = World::new();
        let mut pair = pair(&world, mount, true);
        // A mount says so where it is written, a real directory in the events.
        let refused = if mount == "fuse" { "!" } else { "" };
        let copy = format!("printf '{}\\n' > \"$1\" && {refused} cp \"$1\" settings.env", key());
        world.sh(&pair.host.outbox(""), &format!("set -- \"$HOME/keys\"; {copy}"));
        let event = pair.host.until("its refusal", |event| event["event"] == "refused");
        assert_eq!((text(&event, "name"), text(&event, "by")), ("settings.env", "self"), "{mount}");
        assert!(text(&event, "detail").contains("--secret NAME"), "{event}");
        std::fs::create_dir_all(world.path("home/whole")).unwrap();
        std::fs::write(world.path("home/whole/id"), key()).unwrap();
        pair.host.link(&world.path("home/whole"), "whole");
        let event = pair.host.until("that of the directory", |event| event["name"] == "whole");
        assert!(text(&event, "detail").contains("whole/id: it looks like an AWS access key"), "{event}");
        pair.host.put("harmless.txt", "the key is on the table\n");
        pair.peer.item("harmless.txt");
        world.sh(&pair.host.outbox(""), "test -e settings.env && rm settings.env whole");
        let (host, peer) = pair.close();
        assert!(told(&host.events, "credential").is_empty(), "{mount} {host:?}");
        assert_eq!(peer.count(|event| event["type"] == "file" || event["type"] == "dir"), 1, "{peer:?}");
    }
}
