//! With a peer of 0.1, made by hand with its own keys.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::hand::{CODE, Shake, feed, file, head, session, text};
use crate::crypto::pake::Role;
use crate::crypto::seal::{LegacyOpener, LegacySealer};
use crate::frame::ChunkBuf;
use crate::item::{ItemHead, ItemId, ItemKind, Lane, Refusal};
use crate::session::{Link, LinkLimits, Session, SessionError, SessionEvent};

const MIB: usize = 1024 * 1024;
const DIRECT: LinkLimits = LinkLimits { max_frame: 1_114_112, messages_per_minute: 0, relayed: false };
const RELAY: LinkLimits = LinkLimits { max_frame: 1_114_112, messages_per_minute: 0, relayed: true };

/// A session, and the Python program at the other end.
struct Python {
    session: Session,
    now: Instant,
    sealer: LegacySealer,
    opener: LegacyOpener,
}

impl Python {
    fn new(own: Role, limits: LinkLimits) -> Self {
        let now = Instant::now();
        let mut session = session(own);
        session.handle_link(Link::Up { limits, greeted: false }, now).unwrap();
        let greeting = session.poll_transmit(now).unwrap();
        let shake = Shake::new(own.other(), CODE);
        let (mut sealer, mut opener) = shake.legacy(&greeting);
        let version = format!(r#"{{"version": 1, "role": "{}"}}"#, own.other().as_str());
        feed(&mut session, &shake.greeting(), now).unwrap();
        feed(&mut session, &sealer.seal(version.into_bytes()), now).unwrap();
        let mut sealed = session.poll_transmit(now).unwrap().to_vec();
        let len = opener.open(&mut sealed).unwrap();
        let version: Value = serde_json::from_slice(&sealed[..len]).unwrap();
        assert_eq!((&version["version"], &version["role"]), (&json!(1), &json!(own.as_str())));
        let event = session.poll_event();
        assert!(
            matches!(event, Some(SessionEvent::Connected { protocol: 1, resume: None, .. })),
            "{event:?}"
        );
        Self { session, now, sealer, opener }
    }

    fn say(&mut self, json: &str) -> Result<(), SessionError> {
        let sealed = self.sealer.seal(json.as_bytes().to_vec());
        feed(&mut self.session, &sealed, self.now)
    }

    /// The envelope that it hears now, and the length of its frame.
    fn hear(&mut self) -> Option<(Value, usize)> {
        let mut frame = self.session.poll_transmit(self.now)?.to_vec();
        let sealed = frame.len();
        let len = self.opener.open(&mut frame).expect("counters go on without gaps");
        Some((serde_json::from_slice(&frame[..len]).unwrap(), sealed))
    }

    fn events(&mut self) -> Vec<String> {
        let events = std::iter::from_fn(|| self.session.poll_event()).map(|event| match event {
            SessionEvent::Receipt { id, refused } => format!("receipt {id} {refused:?}"),
            SessionEvent::Unreadable(_) => "unreadable".into(),
            other => format!("{other:?}"),
        });
        events.collect()
    }

    /// Sends a file to its end; the envelope.
    fn send(&mut self, name: &str, content: &[u8]) -> Option<(Value, usize)> {
        let id = self.session.offer(file(name)).unwrap();
        assert_eq!(self.events(), [format!("Opened(ItemId({id}))")]);
        for piece in content.chunks(256 * 1024) {
            self.session.push(id, ChunkBuf::copy_of(piece), false);
        }
        self.session.push(id, ChunkBuf::zeroed(0), true);
        let heard = self.hear();
        self.session.handle_drained();
        heard
    }
}

#[test]
fn texts_and_files_go_both_ways() {
    for own in [Role::Host, Role::Peer] {
        let mut python = Python::new(own, DIRECT);
        python.session.offer(text("hällo \"you\"\n")).unwrap();
        assert_eq!(python.hear().unwrap().0, json!({"type": "text", "body": "hällo \"you\"\n"}));
        python.session.handle_drained();
        assert_eq!(python.events(), ["Sent(ItemId(1))"]);
        let content: Vec<u8> = (0..700_000_u32).map(|n| n as u8).collect();
        let (envelope, _) = python.send("dir/report.pdf", &content).unwrap();
        assert_eq!((&envelope["type"], &envelope["name"]), (&json!("file"), &json!("report.pdf")));
        assert_eq!(envelope["size"], json!(700_000));
        assert_eq!(BASE64.decode(envelope["body"].as_str().unwrap()).unwrap(), content);

        python.events();
        python.say(r#"{"type": "text", "body": "hi", "extra": [1, {}]}"#).unwrap();
        let Some(SessionEvent::Head(incoming)) = python.session.poll_event() else { panic!("a text") };
        assert_eq!((incoming.head.kind, incoming.head.inline), (ItemKind::Text, Some("hi".into())));
        assert_eq!(incoming.id, ItemId(1));
        let body = BASE64.encode(&content);
        python.say(&json!({"type": "file", "name": "../x", "size": 3, "body": body}).to_string()).unwrap();
        let Some(SessionEvent::Head(incoming)) = python.session.poll_event() else { panic!("a file") };
        assert_eq!(
            (incoming.id, incoming.head.size),
            (ItemId(2), Some(700_000)),
            "what came, not what was said"
        );
        assert_eq!(incoming.head.name, "../x", "untrusted, as every name");
        let Some(SessionEvent::Chunk { id: ItemId(2), bytes, last: true }) = python.session.poll_event()
        else {
            panic!("its content")
        };
        assert_eq!(bytes, content);
    }
}

#[test]
fn an_item_is_sent_once_the_socket_has_drained_and_one_at_a_time() {
    let mut python = Python::new(Role::Host, DIRECT);
    python.session.offer(text("one")).unwrap();
    let second = python.session.offer(file("two")).unwrap();
    let third = python.session.offer(file("three")).unwrap();
    assert_eq!(python.events(), [] as [&str; 0], "no content is wanted yet");
    assert_eq!(python.session.room(Lane::Bulk), 0);
    assert!(python.hear().is_some());
    assert_eq!(python.events(), ["Opened(ItemId(2))"], "the next one is read while this one leaves");
    python.session.push(third, ChunkBuf::copy_of(b"not its turn"), true);
    python.session.push(second, ChunkBuf::copy_of(b"2"), true);
    assert!(python.hear().is_none(), "one at a time");
    assert_eq!(python.session.backlog().unreceipted, 3);
    assert_eq!(python.events(), [] as [&str; 0]);
    python.session.handle_drained();
    assert_eq!(python.events(), ["Sent(ItemId(1))"], "never delivered");
    assert_eq!(python.hear().unwrap().0["body"], json!(BASE64.encode(b"2")));
    python.session.handle_drained();
    assert_eq!(python.events(), ["Opened(ItemId(3))", "Sent(ItemId(2))"]);
    python.session.push(third, ChunkBuf::copy_of(b"3"), true);
    assert_eq!(python.hear().unwrap().0["body"], json!(BASE64.encode(b"3")));
    python.session.handle_drained();
    python.session.handle_drained();
    assert_eq!(python.events(), ["Sent(ItemId(3))"], "once");
    assert_eq!(python.session.backlog().unreceipted, 0);
}

#[test]
fn what_is_too_large_is_refused_and_the_channel_lives_on() {
    for (limits, most, fits, too_much) in
        [(DIRECT, 10 * MIB, 7_864_000, 7_864_320), (RELAY, MIB, 786_300, 786_432)]
    {
        let mut python = Python::new(Role::Host, limits);
        let (_, sealed) = python.send("fits", &vec![1; fits]).expect("it fits");
        assert!(sealed <= most && sealed > most - 1_000, "{sealed}");
        python.events();
        assert!(python.send("does not", &vec![1; too_much]).is_none());
        assert_eq!(python.events(), ["receipt 2 Some(TooLarge)"]);
        // Known before, and met while it is read.
        python.session.offer(ItemHead { size: Some(10 * MIB as u64), ..file("known") }).unwrap();
        assert_eq!(python.events(), ["receipt 3 Some(TooLarge)"]);
        let grows = python.session.offer(file("grows")).unwrap();
        python.session.push(grows, ChunkBuf::zeroed(7 * MIB), false);
        python.session.push(grows, ChunkBuf::zeroed(MIB), false);
        python.session.push(grows, ChunkBuf::zeroed(MIB), true);
        assert_eq!(python.events(), ["Opened(ItemId(4))", "receipt 4 Some(TooLarge)"]);
        python.session.offer(text("still here")).unwrap();
        assert_eq!(python.hear().unwrap().0["body"], json!("still here"));
    }
}

#[test]
fn what_python_cannot_take_is_refused() {
    let mut python = Python::new(Role::Host, DIRECT);
    python.session.offer(head(ItemKind::Dir, "d")).unwrap();
    python.session.offer(head(ItemKind::Group, "g")).unwrap();
    python.session.offer(ItemHead { group: Some(ItemId(2)), ..file("m") }).unwrap();
    python.session.offer(ItemHead { inline: Some(Bytes::from_static(b"\xff")), ..text("") }).unwrap();
    assert!(python.hear().is_none());
    let refused = |id: u64, why: Refusal| format!("receipt {id} Some({why:?})");
    assert_eq!(
        python.events(),
        [
            refused(1, Refusal::Unsupported),
            refused(2, Refusal::Unsupported),
            refused(3, Refusal::Unsupported),
            refused(4, Refusal::BadText),
        ]
    );
}

#[test]
fn names_are_safe_short_and_unique() {
    let mut python = Python::new(Role::Host, DIRECT);
    let long = "n".repeat(300);
    let mut names = Vec::new();
    for name in [
        "a/report.pdf",
        "b/report.pdf",
        "report-2.pdf",
        "report-2.pdf",
        "c/report.pdf",
        "..",
        "x/..",
        "a\0b",
        "d/",
        ".",
        &long,
        &long,
        &format!("{long}.txt"),
        &format!("e.{long}"),
        &format!("e.{long}"),
    ] {
        let (envelope, _) = python.send(name, b"").unwrap();
        python.events();
        names.push(envelope["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names[..3], ["report.pdf", "report-2.pdf", "report-2-2.pdf"]);
    assert_eq!(names[5..9], ["__", "__-2", "a_b", "file"]);
    for name in &names {
        assert!(name.len() <= 200 && !name.contains("..") && !name.contains(['/', '\0']), "{name}");
    }
    let unique: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
}

#[test]
fn an_envelope_that_cannot_be_read_is_one_report() {
    let mut python = Python::new(Role::Host, DIRECT);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for json in [
        "",
        "\0",
        "[]",
        "{}",
        &deep,
        r#"{"type":"text"}"#,
        r#"{"type":"text","body":7}"#,
        r#"{"type":"file","body":"AA=="}"#,
        r#"{"type":"file","name":"x","body":"AA"}"#,
        r#"{"type":"file","name":null,"body":"AA=="}"#,
        r#"{"type":"exec","body":""}"#,
    ] {
        python.say(json).unwrap();
        assert_eq!(python.events(), ["unreadable"], "{}", json.get(..40).unwrap_or(json));
    }
    python.say(r#"{"type":"text","body":"\ud83d alone \udc00"}"#).unwrap();
    let Some(SessionEvent::Head(incoming)) = python.session.poll_event() else { panic!("a text") };
    assert_eq!(incoming.head.inline, Some("\u{fffd} alone \u{fffd}".into()));
}

#[test]
fn a_frame_that_does_not_open_is_tampered() {
    let mut python = Python::new(Role::Host, DIRECT);
    let sealed = python.sealer.seal(br#"{"type":"text","body":"x"}"#.to_vec());
    let mut altered = sealed.clone();
    altered[3] ^= 1;
    assert_eq!(feed(&mut python.session, &altered, python.now), Err(SessionError::Tampered));
    let mut python = Python::new(Role::Host, DIRECT);
    assert_eq!(feed(&mut python.session, &sealed, python.now), Ok(()));
    assert_eq!(feed(&mut python.session, &sealed, python.now), Err(SessionError::Tampered), "a double");
    assert_eq!(feed(&mut python.session, b"", python.now), Err(SessionError::Tampered));
}

#[test]
fn cancel_takes_back_what_has_not_left() {
    let mut python = Python::new(Role::Host, DIRECT);
    let first = python.session.offer(file("first")).unwrap();
    let second = python.session.offer(text("second")).unwrap();
    python.session.push(first, ChunkBuf::copy_of(b"x"), false);
    python.session.cancel(first, Refusal::Changed);
    assert_eq!(python.hear().unwrap().0["body"], json!("second"));
    python.session.cancel(second, Refusal::Cancelled);
    python.session.handle_drained();
    assert_eq!(python.events(), ["Opened(ItemId(1))", "receipt 1 Some(Changed)", "Sent(ItemId(2))"]);
}

#[test]
fn what_is_short_goes_before_a_file_that_is_still_being_read() {
    let mut python = Python::new(Role::Host, DIRECT);
    let slow = python.session.offer(file("slow")).unwrap();
    python.session.push(slow, ChunkBuf::copy_of(b"be"), false);
    let long = ItemHead { inline: None, ..text("") };
    python.session.offer(text("one")).unwrap();
    let long = python.session.offer(long).unwrap();
    python.session.offer(text("three")).unwrap();
    assert_eq!(python.hear().unwrap().0["body"], json!("one"));
    python.session.handle_drained();
    assert!(python.hear().is_none(), "texts keep their order, and a long one is read in its turn");
    python.session.push(slow, ChunkBuf::copy_of(b"gun"), true);
    assert_eq!(python.hear().unwrap().0["body"], json!(BASE64.encode(b"begun")));
    python.session.handle_drained();
    python.session.push(long, ChunkBuf::copy_of(b"two"), true);
    assert_eq!(python.hear().unwrap().0["body"], json!("two"));
    python.session.handle_drained();
    assert_eq!(python.hear().unwrap().0["body"], json!("three"));
}
