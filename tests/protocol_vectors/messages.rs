//! Messages as bytes, and those that are refused.

use agent_wormhole::frame::{
    CloseReason, FrameError, MAX_CBOR, Message, Messages, RecordHeader, RecordKind, State,
};
use agent_wormhole::item::{ItemHead, ItemId, ItemKind, MAX_NAME, Refusal};
use serde_json::Value;

use crate::{bytes, list, text, vectors};

const KINDS: [(&str, ItemKind); 7] = [
    ("text", ItemKind::Text),
    ("file", ItemKind::File),
    ("dir", ItemKind::Dir),
    ("group", ItemKind::Group),
    ("secret", ItemKind::Secret),
    ("ask", ItemKind::Ask),
    ("answer", ItemKind::Answer),
];
const REFUSALS: [(&str, Refusal); 13] = [
    ("cancelled", Refusal::Cancelled),
    ("changed", Refusal::Changed),
    ("unreadable", Refusal::Unreadable),
    ("too large", Refusal::TooLarge),
    ("no space", Refusal::NoSpace),
    ("bad name", Refusal::BadName),
    ("storage failed", Refusal::StorageFailed),
    ("closing", Refusal::Closing),
    ("wrong size", Refusal::WrongSize),
    ("unsupported", Refusal::Unsupported),
    ("bad text", Refusal::BadText),
    ("name used", Refusal::NameUsed),
    ("not asked", Refusal::NotAsked),
];
const REASONS: [(&str, CloseReason); 7] = [
    ("done", CloseReason::Done),
    ("stopped", CloseReason::Stopped),
    ("tampered", CloseReason::Tampered),
    ("protocol", CloseReason::Protocol),
    ("used up", CloseReason::UsedUp),
    ("idle", CloseReason::Idle),
    ("internal", CloseReason::Internal),
];

fn named<T: Copy>(names: &[(&str, T)], name: &Value) -> T {
    names.iter().find(|(known, _)| *known == text(name)).unwrap().1
}

pub fn name_of_kind(kind: ItemKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).unwrap().0
}

fn message(case: &Value) -> Message {
    let item = ItemId(case["item"].as_u64().unwrap_or(0));
    match text(&case["message"]) {
        "head" => {
            let head = ItemHead {
                kind: named(&KINDS, &case["kind"]),
                group: case["group"].as_u64().map(ItemId),
                name: text(&case["path"]).to_owned(),
                size: case["size"].as_u64(),
                executable: case["executable"].as_bool().unwrap_or(false),
                mtime: case["mtime"].as_i64(),
                inline: case.get("inline").map(|inline| bytes(inline).into()),
            };
            Message::Head { item, head }
        }
        "chunk" => Message::Chunk {
            item,
            last: case["last"] == Value::Bool(true),
            bytes: bytes(&case["content"]).into(),
        },
        "cancel" => Message::Cancel { item, reason: named(&REFUSALS, &case["reason"]) },
        "receipt" => Message::Receipt { item, refused: case.get("refused").map(|why| named(&REFUSALS, why)) },
        "opened" => Message::Opened { item, at: case["at"].as_u64().unwrap() },
        "close" => Message::Close { reason: named(&REASONS, &case["reason"]) },
        other => panic!("{other}"),
    }
}

fn state(case: &Value) -> State {
    let number = |member: &str| case[member].as_u64().unwrap();
    State {
        next: number("next"),
        grant_bulk: number("grant_bulk"),
        grant_prompt: number("grant_prompt"),
        end: number("end"),
        link: number("link"),
        echo: number("echo"),
        ask: case["ask"] == Value::Bool(true),
        again: case["again"] == Value::Bool(true),
    }
}

fn name_of_error(error: FrameError) -> &'static str {
    match error {
        FrameError::Tag(_) => "tag",
        FrameError::Length => "length",
        FrameError::Body(_) => "body",
        FrameError::Short(_) | FrameError::Kind(_) => "record",
    }
}

#[test]
fn messages_are_these_bytes() {
    let known = vectors(include_str!("../vectors/messages.json"));
    for case in list(&known["encoded"]) {
        let mut out = Vec::new();
        message(case).encode(&mut out);
        assert_eq!(out, bytes(&case["bytes"]), "{}", case["name"]);
    }
    for case in list(&known["encoded"]).iter().chain(list(&known["read"])) {
        let read: Result<Vec<_>, _> = Messages::new(bytes(&case["bytes"]).into()).collect();
        assert_eq!(read, Ok(vec![message(case)]), "{}", case["name"]);
    }
    for case in list(&known["states"]) {
        let mut out = Vec::new();
        state(case).encode(&mut out);
        assert_eq!(out, bytes(&case["bytes"]), "{}", case["name"]);
        assert_eq!(State::decode(out.into()), Ok(state(case)));
    }
    for case in list(&known["headers"]) {
        let kind = if case["kind"] == 1 { RecordKind::Data } else { RecordKind::Control };
        let header = RecordHeader { kind, number: case["number"].as_u64().unwrap() };
        assert_eq!(header.encode().to_vec(), bytes(&case["bytes"]));
    }
}

#[test]
fn hostile_messages_are_refused_by_name() {
    // The vectors' lengths are those of the specification.
    assert_eq!((MAX_NAME, MAX_CBOR), (4096, 20_736));
    let known = vectors(include_str!("../vectors/messages.json"));
    for case in list(&known["refused"]) {
        let first = Messages::new(bytes(&case["bytes"]).into()).next();
        let error = first.map(|read| read.map_err(name_of_error));
        assert_eq!(error, Some(Err(text(&case["error"]))), "{}", case["name"]);
    }
    for case in list(&known["refused_states"]) {
        let read = State::decode(bytes(&case["bytes"]).into()).map_err(name_of_error);
        assert_eq!(read, Err(text(&case["error"])), "{}", case["name"]);
    }
}
