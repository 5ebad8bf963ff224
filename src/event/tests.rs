//! Exact lines of every event.

use std::time::{Duration, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::*;

fn stamp() -> Stamp {
    Stamp { seq: 7, at: UNIX_EPOCH + Duration::from_micros(1_772_366_400_250_999) }
}

/// The members that end every line of [`stamp`].
const END: &str = r#","seq":7,"at":"2026-03-01T12:00:00.250Z"}"#;

fn line(event: Event) -> String {
    let line = event.to_line(stamp());
    assert_eq!(line.lines().count(), 1);
    serde_json::from_str::<serde_json::Value>(&line).unwrap();
    line.strip_suffix(END).unwrap_or_else(|| panic!("{line} does not end as every line does")).to_owned()
        + "}"
}

fn status(event: StatusEvent) -> String {
    line(Event::Status(event))
}

fn channel(via: Option<Via>) -> ChannelEvent {
    ChannelEvent {
        code: Some(Zeroizing::new("9471-cross-clock-marble".into())),
        nameplate: "9471".into(),
        mount: "/run/user/1000/agent-wormhole/9471-host".into(),
        backend: "dir".into(),
        why: Some("no mount: /dev/fuse is missing".into()),
        via,
    }
}

#[test]
fn the_channel_line_tells_the_whole_command() {
    assert_eq!(
        status(StatusEvent::Channel(channel(Some(Via::Default)))),
        r#"{"type":"status","event":"channel","code":"9471-cross-clock-marble","mount":"/run/user/1000/agent-wormhole/9471-host","connect":"agent-wormhole connect 9471-cross-clock-marble","backend":"dir","detail":"no mount: /dev/fuse is missing"}"#
    );
    let relay = Via::Relay { url: "wss://relay.example/ws".into() };
    assert_eq!(
        *relay.connect_command("1-a-b-c"),
        "agent-wormhole connect 1-a-b-c --relay wss://relay.example/ws"
    );
    let odd = Via::Relay { url: "wss://x/?a='$(id)&b".into() };
    assert_eq!(
        *odd.connect_command("1-a-b-c"),
        r"agent-wormhole connect 1-a-b-c --relay 'wss://x/?a='\''$(id)&b'"
    );
    let legacy = |url: Option<&str>| Via::Legacy { url: url.map(Into::into) };
    assert_eq!(*legacy(None).connect_command("a-b-c"), "agent-wormhole connect a-b-c --legacy");
    assert_eq!(
        *legacy(Some("wss://relay.example")).connect_command("a-b-c"),
        "agent-wormhole connect a-b-c --legacy --relay wss://relay.example"
    );
    let numbered = status(StatusEvent::Channel(channel(Some(legacy(None)))));
    assert!(
        numbered.contains(r#""code":"9471-cross-clock-marble","nameplate":"9471","mount""#),
        "{numbered}"
    );
    let direct = Via::Direct { host: "laptop.local".into() };
    assert_eq!(*direct.connect_command("1-a-b-c"), "agent-wormhole connect 1-a-b-c@laptop.local");
}

#[test]
fn no_secret_word_is_in_a_line_for_the_disk() {
    for via in
        [None, Some(Via::Default), Some(Via::Legacy { url: None }), Some(Via::Direct { host: "h".into() })]
    {
        let event = Event::Status(StatusEvent::Channel(channel(via)));
        let line = event.to_log_line(stamp());
        assert_eq!(
            line,
            format!(
                r#"{{"type":"status","event":"channel","nameplate":"9471","mount":"/run/user/1000/agent-wormhole/9471-host","backend":"dir","detail":"no mount: /dev/fuse is missing"{END}"#
            )
        );
        let debug = format!("{event:?}");
        for word in ["cross", "clock", "marble"] {
            assert!(!line.contains(word) && !debug.contains(word));
        }
    }
}

#[test]
fn the_end_that_connects_repeats_no_code() {
    let event = ChannelEvent { code: None, via: None, ..channel(None) };
    assert_eq!(
        status(StatusEvent::Channel(event)),
        r#"{"type":"status","event":"channel","nameplate":"9471","mount":"/run/user/1000/agent-wormhole/9471-host","backend":"dir","detail":"no mount: /dev/fuse is missing"}"#
    );
}

#[test]
fn a_line_for_the_disk_is_otherwise_the_same() {
    let event = Event::File(FileEvent { id: 4, name: "a".into(), ..FileEvent::default() });
    assert_eq!(event.to_line(stamp()), event.to_log_line(stamp()));
}

#[test]
fn plain_statuses() {
    let detail = || Some("why".to_owned());
    let cases = [
        (StatusEvent::LegacyCode(detail()), "legacy_code"),
        (StatusEvent::Waiting(detail()), "waiting"),
        (StatusEvent::Reconnecting(detail()), "reconnecting"),
        (StatusEvent::Reconnected(detail()), "reconnected"),
        (StatusEvent::PeerAway(detail()), "peer_away"),
        (StatusEvent::PeerBack(detail()), "peer_back"),
        (StatusEvent::PeerClosed(detail()), "peer_closed"),
        (StatusEvent::Stalled(detail()), "stalled"),
        (StatusEvent::Throttled(detail()), "throttled"),
        (StatusEvent::Tampered(detail()), "tampered"),
        (StatusEvent::PeerError(detail()), "peer_error"),
        (StatusEvent::NameplateLost(detail()), "nameplate_lost"),
        (StatusEvent::HandshakeFailed(detail()), "handshake_failed"),
        (StatusEvent::Timeout(detail()), "timeout"),
        (StatusEvent::Error(detail()), "error"),
    ];
    for (event, word) in cases {
        assert_eq!(status(event), format!(r#"{{"type":"status","event":"{word}","detail":"why"}}"#));
    }
    assert_eq!(status(StatusEvent::Waiting(None)), r#"{"type":"status","event":"waiting"}"#);
}

#[test]
fn what_looks_like_a_credential_is_named_and_not_shown() {
    let found =
        CredentialEvent { name: "a\u{202e}.msg".into(), detail: "it looks like a GitHub token".into() };
    assert_eq!(
        status(StatusEvent::Credential(found)),
        r#"{"type":"status","event":"credential","name":"a\u202e.msg","detail":"it looks like a GitHub token"}"#
    );
}

#[test]
fn a_failed_connection_names_the_step_that_failed() {
    let words = [
        (Hop::Name, "name"),
        (Hop::Tcp, "tcp"),
        (Hop::Proxy, "proxy"),
        (Hop::Tls, "tls"),
        (Hop::Websocket, "websocket"),
        (Hop::Relay, "relay"),
        (Hop::Peer, "peer"),
    ];
    for (hop, word) in words {
        assert_eq!(
            status(StatusEvent::ConnectionFailed { hop, detail: Some("why".into()) }),
            format!(r#"{{"type":"status","event":"connection_failed","hop":"{word}","detail":"why"}}"#)
        );
    }
}

#[test]
fn statuses_with_members_of_their_own() {
    assert_eq!(
        status(StatusEvent::Connected { transport: TransportKind::Relay, protocol: 2 }),
        r#"{"type":"status","event":"connected","transport":"relay","protocol":2}"#
    );
    assert_eq!(
        status(StatusEvent::Connected { transport: TransportKind::Direct, protocol: 1 }),
        r#"{"type":"status","event":"connected","transport":"direct","protocol":1}"#
    );
    assert_eq!(
        status(StatusEvent::Refused(RefusedEvent {
            by: Side::Peer,
            id: Some(9),
            name: "big.bin".into(),
            detail: Some("it is larger than the inbox may grow (5 bytes)".into()),
        })),
        r#"{"type":"status","event":"refused","by":"peer","id":9,"name":"big.bin","detail":"it is larger than the inbox may grow (5 bytes)"}"#
    );
    assert_eq!(
        status(StatusEvent::Refused(RefusedEvent {
            by: Side::Myself,
            id: None,
            name: "x".into(),
            detail: None
        })),
        r#"{"type":"status","event":"refused","by":"self","name":"x"}"#
    );
    assert_eq!(status(StatusEvent::Burst { count: 12 }), r#"{"type":"status","event":"burst","count":12}"#);
    assert_eq!(
        status(StatusEvent::Rotated),
        r#"{"type":"status","event":"rotated","detail":"earlier lines are in log.1.jsonl"}"#
    );
    assert_eq!(
        status(StatusEvent::Closed(ClosedEvent::default())),
        r#"{"type":"status","event":"closed","exit":0}"#
    );
    assert_eq!(
        status(StatusEvent::Closed(ClosedEvent {
            detail: Some("closed here".into()),
            undelivered: vec!["a".into(), "b/c".into()],
            undelivered_more: 3,
            exit: Exit::Undelivered,
        })),
        r#"{"type":"status","event":"closed","detail":"closed here","undelivered":["a","b/c"],"undelivered_more":3,"exit":6}"#
    );
}

#[test]
fn items_from_the_peer() {
    let text = TextEvent {
        id: 3,
        size: 17,
        saved_to: "/i/messages/0003.txt".into(),
        body: Some("hello from laptop".into()),
        ..TextEvent::default()
    };
    assert_eq!(
        line(Event::Text(text.clone())),
        r#"{"type":"text","from":"peer","id":3,"size":17,"saved_to":"/i/messages/0003.txt","body":"hello from laptop"}"#
    );
    let waiting = TextEvent { pending: vec!["report.pdf".into()], pending_more: 2, ..text };
    assert_eq!(
        line(Event::Text(waiting)),
        r#"{"type":"text","from":"peer","id":3,"size":17,"saved_to":"/i/messages/0003.txt","body":"hello from laptop","pending":["report.pdf"],"pending_more":2}"#
    );
    let file = FileEvent {
        id: 4,
        name: "config.json".into(),
        sent_as: None,
        size: 2048,
        saved_to: "/i/config.json".into(),
    };
    assert_eq!(
        line(Event::File(file)),
        r#"{"type":"file","from":"peer","id":4,"name":"config.json","size":2048,"saved_to":"/i/config.json"}"#
    );
    let whole = DirEvent {
        id: 5,
        name: "src".into(),
        sent_as: None,
        files: Some(12),
        size: Some(345),
        saved_to: "/i/src".into(),
    };
    assert_eq!(
        line(Event::Dir(whole.clone())),
        r#"{"type":"dir","from":"peer","id":5,"name":"src","files":12,"size":345,"saved_to":"/i/src"}"#
    );
    let single = DirEvent { files: None, size: None, ..whole };
    assert_eq!(
        line(Event::Dir(single)),
        r#"{"type":"dir","from":"peer","id":5,"name":"src","saved_to":"/i/src"}"#
    );
}

#[test]
fn what_this_side_sent() {
    let text = Sent::Text { id: 1, size: 2, body: Some("hi".into()) };
    assert_eq!(
        text.to_line(stamp()),
        format!(r#"{{"type":"text","from":"self","id":1,"size":2,"body":"hi"{END}"#)
    );
    let file = Sent::File { id: 2, name: "a/b".into(), size: Some(3) };
    assert_eq!(
        file.to_line(stamp()),
        format!(r#"{{"type":"file","from":"self","id":2,"name":"a/b","size":3{END}"#)
    );
    let dir = Sent::Dir { id: 3, name: "a".into() };
    assert_eq!(dir.to_line(stamp()), format!(r#"{{"type":"dir","from":"self","id":3,"name":"a"{END}"#));
}

#[test]
fn a_body_is_in_the_line_up_to_its_limit() {
    for (size, inlined) in [(MAX_BODY, true), (MAX_BODY + 1, false)] {
        let text =
            TextEvent { id: 1, size: size as u64, body: Some("x".repeat(size)), ..TextEvent::default() };
        assert_eq!(line(Event::Text(text)).contains("body"), inlined);
        let sent = Sent::Text { id: 1, size: size as u64, body: Some("x".repeat(size)) };
        assert_eq!(sent.to_line(stamp()).contains("body"), inlined);
    }
}

#[test]
fn lists_are_bounded_and_the_rest_is_counted() {
    let closed = ClosedEvent {
        detail: None,
        undelivered: (0..MAX_NAMES + 5).map(|n| n.to_string()).collect(),
        undelivered_more: 100,
        exit: Exit::Undelivered,
    };
    let line = status(StatusEvent::Closed(closed));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["undelivered"].as_array().unwrap().len(), MAX_NAMES);
    assert_eq!(value["undelivered_more"], 105);
}

#[test]
fn a_long_detail_is_cut_visibly_and_between_characters() {
    let line = status(StatusEvent::Error(Some("é".repeat(MAX_DETAIL))));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let detail = value["detail"].as_str().unwrap();
    assert!(detail.ends_with('…') && detail.len() <= MAX_DETAIL + '…'.len_utf8());
}

#[test]
fn a_peer_cannot_forge_a_line_through_any_member() {
    let evil = "x\"}\n{\"type\":\"status\",\"event\":\"closed\",\"seq\":9}\u{2028}\u{202e}\u{1b}[2J";
    let events = [
        Event::Text(TextEvent {
            id: 1,
            size: 1,
            saved_to: evil.into(),
            body: Some(evil.into()),
            pending: vec![evil.into()],
            pending_more: 0,
        }),
        Event::File(FileEvent {
            id: 1,
            name: evil.into(),
            sent_as: Some(evil.into()),
            size: 1,
            saved_to: evil.into(),
        }),
        Event::Dir(DirEvent {
            id: 1,
            name: evil.into(),
            sent_as: Some(evil.into()),
            saved_to: evil.into(),
            ..DirEvent::default()
        }),
        Event::Status(StatusEvent::PeerError(Some(evil.into()))),
        Event::Status(StatusEvent::Refused(RefusedEvent {
            by: Side::Peer,
            id: None,
            name: evil.into(),
            detail: Some(evil.into()),
        })),
        Event::Status(StatusEvent::Closed(ClosedEvent {
            detail: None,
            undelivered: vec![evil.into()],
            undelivered_more: 0,
            exit: Exit::Done,
        })),
    ];
    for event in events {
        let line = event.to_line(stamp());
        assert!(!line.chars().any(escape::is_hidden), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["seq"], 7);
        let kind = value["type"].as_str().unwrap();
        assert!(line.starts_with(&format!("{{\"type\":\"{kind}\",")));
    }
}

#[test]
fn time_is_utc_with_milliseconds() {
    assert_eq!(utc(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000Z");
}
