//! An event line: whatever a peer says, it is one line of JSON with each member once, all of them ours, and nothing
//! hidden in it.

use std::collections::BTreeSet;
use std::time::SystemTime;

use agent_wormhole::event::{Event, FileEvent, QuestionEvent, Stamp, TextEvent, escape};
use serde::de::{MapAccess, Visitor};

use super::Script;

/// Members of a line in their order: a member that stands twice, which a map would hide, is an error.
struct Members(Vec<String>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, serde_json::Value>()? {
                    names.push(name);
                }
                Ok(Members(names))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Any body, name and path.
pub fn holds(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let kind = script.byte();
    let (name, saved_to, body) = (script.text(), script.text(), script.text());
    let pending = vec![script.text(), script.text()];
    let event = match kind % 4 {
        0 => Event::Text(TextEvent {
            id: 1,
            size: body.len() as u64,
            saved_to,
            body: Some(body.clone()),
            pending,
            pending_more: u64::from(script.byte()),
        }),
        1 => Event::File(FileEvent { id: 2, name, sent_as: Some(body.clone()), size: 3, saved_to }),
        2 => Event::Ask(QuestionEvent { id: Some(3), name, size: 4, saved_to, body: Some(body.clone()) }),
        _ => Event::Answer(QuestionEvent { id: Some(4), name, size: 5, saved_to, body: Some(body.clone()) }),
    };
    let line = event.to_line(Stamp { seq: 1, at: SystemTime::UNIX_EPOCH });
    assert_eq!(escape::visible(&line), line, "nothing in it is hidden");
    let Members(names) = serde_json::from_str(&line).expect("JSON");
    let once: BTreeSet<&String> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "{line}");
    let ours = [
        "type",
        "from",
        "id",
        "name",
        "sent_as",
        "size",
        "saved_to",
        "body",
        "pending",
        "pending_more",
        "seq",
        "at",
    ];
    assert!(names.iter().all(|name| ours.contains(&name.as_str())), "{line}");
    let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    if kind.is_multiple_of(4) && read.get("body").is_some() {
        assert_eq!(read["body"], body, "a text is what the peer said");
    }
}
