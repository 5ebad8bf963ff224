//! A peer whose texts and names are made to be taken for something else: no line that does not parse, no raw character
//! that hides or forges, no member that is not theirs to set, nothing outside of the inbox.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use agent_wormhole::event::escape::is_hidden;
use agent_wormhole::item::ItemKind;
use agent_wormhole_mount::name::{Root, SafeName};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::fixture::end::{End, text};
use crate::fixture::hostile::Hostile;
use crate::fixture::world::World;

/// Members of what comes from the peer, in any order.
const MEMBERS: [(&str, &[&str]); 7] = [
    ("text", &["id", "size", "saved_to", "body", "pending", "pending_more"]),
    ("file", &["id", "name", "sent_as", "size", "saved_to"]),
    ("dir", &["id", "name", "sent_as", "files", "size", "saved_to"]),
    ("ask", &["id", "name", "size", "saved_to", "body"]),
    ("answer", &["id", "name", "size", "saved_to", "body"]),
    ("secret", &["id", "name", "length", "replaces"]),
    (
        "status",
        &[
            "event",
            "by",
            "id",
            "name",
            "detail",
            "transport",
            "protocol",
            "nameplate",
            "mount",
            "connect",
            "backend",
            "code",
            "undelivered",
            "exit",
            "count",
        ],
    ),
];
/// What comes after everything else.
const LAST: &str = "that was all";
/// Members that every line has, by who writes it.
const OURS: [&str; 3] = ["type", "seq", "at"];

/// An object with its members as they stand: none is lost where two have one name.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

fn texts() -> Vec<(String, String)> {
    let list: Vec<Value> = serde_json::from_str(include_str!("../vectors/hostile_texts.json")).unwrap();
    list.iter().map(|entry| (text(entry, "what").to_owned(), text(entry, "text").to_owned())).collect()
}

/// Holds if nothing in a text for a reader hides or forges; a line may end.
fn is_plain(what: &str, shown: &str) {
    let bad = shown.chars().find(|c| is_hidden(*c) && *c != '\n');
    assert_eq!(bad, None, "{what}: {shown:?}");
}

/// Holds if each line is one object, of members that this program sets once each.
fn are_sound(what: &str, lines: &str, from: &[&str]) -> usize {
    is_plain(what, lines);
    assert!(lines.ends_with('\n'), "{what}");
    for line in lines.lines() {
        let Members(members) = serde_json::from_str(line).unwrap_or_else(|e| panic!("{what}: {e}: {line}"));
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{what}: twice: {line}");
        let member = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let kind = member("type").and_then(Value::as_str).unwrap();
        let (_, known) = MEMBERS.iter().find(|(known, _)| *known == kind).unwrap_or_else(|| panic!("{line}"));
        let theirs = names.iter().filter(|name| !OURS.contains(name) && **name != "from");
        assert!(theirs.clone().all(|name| known.contains(name)), "{what}: {line}");
        let who = member("from").and_then(Value::as_str);
        assert!(
            if kind == "status" { who.is_none() } else { who.is_some_and(|who| from.contains(&who)) },
            "{line}"
        );
    }
    lines.lines().count()
}

/// All that is below a directory, relative to it.
fn below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
        }
    }
    found
}

/// Sends everything in every way that a name or a text can come.
fn attack(hostile: &mut Hostile) {
    for (what, evil) in texts() {
        assert!(hostile.send(ItemKind::Text, &evil, evil.as_bytes()), "a text: {what}");
        let named = hostile.send(ItemKind::File, &evil, evil.as_bytes());
        assert!(named || evil.trim_matches(|c: char| c == '.' || c == ' ').is_empty(), "a file: {what}");
        hostile.send(ItemKind::Dir, &evil, b"");
        hostile.send_group(&evil, &evil, evil.as_bytes());
        let may_be_a_name = evil.starts_with(|c: char| c.is_ascii_alphabetic())
            && evil.len() <= 64
            && evil.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        for kind in [ItemKind::Ask, ItemKind::Answer, ItemKind::Secret] {
            let stored = hostile.send(kind, &evil, b"x");
            assert!(!stored || may_be_a_name, "{kind:?}: {what}");
        }
    }
}

/// Every file that came holds what was sent, lies in the inbox, and its event says where.
fn are_where_they_belong(host: &End) {
    let inbox = fs::canonicalize(host.inbox("")).unwrap();
    let mut bodies: Vec<String> = Vec::new();
    for event in host.events.iter().filter(|event| event.get("saved_to").is_some()) {
        let path = Path::new(text(event, "saved_to"));
        assert!(fs::canonicalize(path).unwrap().starts_with(&inbox), "{event}");
        if event["type"] == "text" {
            let saved = fs::read_to_string(path).unwrap();
            assert!(event.get("body").is_none_or(|body| *body == saved), "{event}");
            assert_eq!(event.get("body").is_none(), saved.len() > 1024, "{event}");
            bodies.push(saved);
        }
    }
    assert_eq!(bodies.pop().as_deref(), Some(LAST));
    assert_eq!(bodies.len(), texts().len());
    for ((what, evil), body) in texts().iter().zip(&bodies) {
        assert!(evil == body, "{what}");
    }
}

#[test]
fn what_no_line_shows_raw_no_name_in_the_inbox_has() {
    for c in ('\0'..=char::MAX).filter(|c| is_hidden(*c)) {
        let name = SafeName::parse(&format!("a{c}b"), Root::Inbox).unwrap();
        assert_eq!(name.to_string(), "a_b", "{c:?}");
    }
}

#[test]
fn a_hostile_peers_texts_and_names_stay_what_they_are() {
    assert!(texts().len() >= 60);
    for mount in ["fuse", "dir"] {
        let world = World::new();
        let mut host = world.host(&["--direct", "--mount", mount]);
        let mut hostile = Hostile::enter(&host.code());
        attack(&mut hostile);
        assert!(hostile.send(ItemKind::Text, "", LAST.as_bytes()));
        host.text(LAST);
        are_where_they_belong(&host);
        for path in below(&host.dir) {
            is_plain("a name", &path);
        }
        let read = |name: &str| fs::read_to_string(host.dir.join(name)).unwrap();
        assert!(are_sound("log.jsonl", &read("inbox/log.jsonl"), &["peer"]) > 3 * texts().len());
        are_sound("transcript.jsonl", &read("transcript.jsonl"), &["peer"]);
        is_plain("status.json", &read("status.json"));
        let _: Value = serde_json::from_str(&read("status.json")).unwrap();
        for args in
            [&["status"][..], &["status", &host.nameplate], &["status", "--json"], &["wait", &host.nameplate]]
        {
            let ended = world.run(args);
            assert_eq!(ended.code, Some(0), "{args:?} {ended:?}");
            is_plain(&args.join(" "), &ended.out.join("\n"));
            is_plain(&args.join(" "), &ended.err);
        }
        // No shell ran, and nothing climbed out.
        let all = below(&world.path(""));
        assert!(all.iter().all(|path| path.contains("/inbox/") || !path.contains("pwned")), "{all:#?}");
        hostile.break_off(ItemKind::File, &"A".repeat(1 << 20));
        let closed = host.finish();
        assert_eq!(closed.code, Some(7), "{closed:?}");
        assert_eq!(closed.statuses("peer_error"), 1, "{closed:?}");
        is_plain("standard error", &closed.err);
    }
}
