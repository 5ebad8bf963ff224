//! Records and messages read back, and hostile ones are refused.

use super::*;

fn samples() -> Vec<Message> {
    let head = |kind, inline: Option<&'static [u8]>| ItemHead {
        kind,
        group: None,
        name: "a/b.txt".into(),
        size: Some(5),
        executable: true,
        mtime: Some(-1),
        inline: inline.map(Bytes::from_static),
    };
    vec![
        Message::Head { item: ItemId(1), head: head(ItemKind::File, None) },
        Message::Head { item: ItemId(u64::MAX), head: head(ItemKind::Text, Some(b"hello")) },
        Message::Head {
            item: ItemId(3),
            head: ItemHead {
                group: Some(ItemId(2)),
                size: None,
                executable: false,
                ..head(ItemKind::Dir, None)
            },
        },
        Message::Chunk { item: ItemId(1), last: false, bytes: Bytes::from_static(b"chunk") },
        Message::Chunk { item: ItemId(1), last: true, bytes: Bytes::new() },
        Message::Cancel { item: ItemId(1), reason: Refusal::Changed },
        Message::Receipt { item: ItemId(9), refused: None },
        Message::Receipt { item: ItemId(9), refused: Some(Refusal::NoSpace) },
        Message::Close { reason: CloseReason::Done },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn messages_read_back_in_their_order() {
    let mut plain = Vec::new();
    for message in samples() {
        message.encode(&mut plain);
    }
    let back: Result<Vec<_>, _> = Messages::new(plain.into()).collect();
    assert_eq!(back, Ok(samples()));
}

#[test]
fn bytes_are_those_of_the_specification() {
    let bytes = |m: &Message| {
        let mut out = Vec::new();
        m.encode(&mut out);
        hex(&out)
    };
    let samples = samples();
    assert_eq!(
        samples.iter().map(bytes).collect::<Vec<_>>(),
        [
            "0100000014a60001010103 67612f622e747874 0405 05f5 0620".replace(' ', ""),
            "010000 0023 a7001bffffffffffffffff0100 0367612f622e747874 0405 05f5 0620 074568656c6c6f"
                .replace(' ', ""),
            "0100000012 a5 0003 0102 0202 0367612f622e747874 0620".replace(' ', ""),
            "020000000e 0000000000000001 00 6368756e6b".replace(' ', ""),
            "0200000009 0000000000000001 01".replace(' ', ""),
            "0300000005 a200010101".replace(' ', ""),
            "0400000003 a10009".replace(' ', ""),
            "0400000005 a200090104".replace(' ', ""),
            "0500000003 a10000".replace(' ', ""),
        ]
    );
    let mut out = Vec::new();
    State { next: 1, grant_bulk: 2, grant_prompt: 3, end: 4, link: 5, echo: 6, ask: true, again: false }
        .encode(&mut out);
    assert_eq!(hex(&out), "0600000011a80001010202030304040505 0606f507f4".replace(' ', ""));
    let header = RecordHeader { kind: RecordKind::Control, number: 258 };
    assert_eq!(hex(&header.encode()), "020000000000000102");
}

#[test]
fn the_longest_state_is_small_enough_to_cost_a_relay_nothing() {
    let mut out = Vec::new();
    let max = u64::MAX;
    let state = State {
        next: max,
        grant_bulk: max,
        grant_prompt: max,
        end: max,
        link: max,
        echo: max,
        ask: true,
        again: true,
    };
    state.encode(&mut out);
    assert!(out.len() + RECORD_OVERHEAD <= agent_wormhole_relay::wire::SMALL_FRAME, "{}", out.len());
    assert_eq!(State::decode(out.into()), Ok(state));
}

#[test]
fn every_truncation_and_every_flipped_byte_is_an_answer_not_a_panic() {
    for message in samples() {
        let mut plain = Vec::new();
        message.encode(&mut plain);
        for cut in 1..plain.len() {
            let first = Messages::new(Bytes::copy_from_slice(&plain[..cut])).next();
            assert!(matches!(first, Some(Err(_))), "{message:?} cut at {cut}");
        }
        for at in 0..plain.len() {
            for bit in 0..8 {
                let mut hostile = plain.clone();
                hostile[at] ^= 1 << bit;
                let _ = Messages::new(hostile.into()).count();
            }
        }
    }
}

#[test]
fn hostile_messages_are_refused() {
    let first = |bytes: &[u8]| Messages::new(Bytes::copy_from_slice(bytes)).next();
    assert_eq!(first(b"\x09\0\0\0\0"), Some(Err(FrameError::Tag(9))));
    assert_eq!(first(b"\x02\xff\xff\xff\xff"), Some(Err(FrameError::Length)));
    assert_eq!(first(b"\x02\0\0\0\x08\0\0\0\0\0\0\0\0"), Some(Err(FrameError::Length)));
    assert_eq!(first(b"\x02\0\0\0\x09\0\0\0\0\0\0\0\0\x02"), Some(Err(FrameError::Body("chunk"))));
    // A name that claims four gigabytes.
    assert_eq!(first(b"\x01\0\0\0\x06\xa1\x03\x7a\xff\xff\xff"), Some(Err(FrameError::Body("head"))));
    // A state where a message is expected, and the other way round.
    assert_eq!(first(b"\x06\0\0\0\x01\xa0"), Some(Err(FrameError::Tag(6))));
    assert_eq!(State::decode(Bytes::from_static(b"\x05\0\0\0\x03\xa1\0\0")), Err(FrameError::Tag(5)));
    let mut long = Vec::new();
    let name = "n".repeat(MAX_NAME + 1);
    let head = ItemHead { name, ..sample_head() };
    Message::Head { item: ItemId(1), head }.encode(&mut long);
    assert_eq!(first(&long), Some(Err(FrameError::Body("head"))));
}

fn sample_head() -> ItemHead {
    let Some(Message::Head { head, .. }) = samples().into_iter().next() else { panic!("a head") };
    head
}

#[test]
fn a_member_of_the_future_is_skipped() {
    // {0: 9, 1: null, 77: "later"} as a receipt.
    let body = b"\xa3\x00\x09\x01\xf6\x18\x4d\x65later";
    let mut message = vec![4, 0, 0, 0, body.len() as u8];
    message.extend_from_slice(body);
    let read = Messages::new(message.into()).next();
    assert_eq!(read, Some(Ok(Message::Receipt { item: ItemId(9), refused: None })));
}

#[test]
fn record_headers_are_checked_before_anything_is_opened() {
    assert_eq!(RecordHeader::decode(&[1; 24]), Err(FrameError::Short(24)));
    assert_eq!(RecordHeader::decode(&[3; 25]), Err(FrameError::Kind(3)));
    let mut record = [0; 25];
    record[..9].copy_from_slice(&RecordHeader { kind: RecordKind::Data, number: 1 << 40 }.encode());
    assert_eq!(RecordHeader::decode(&record), Ok(RecordHeader { kind: RecordKind::Data, number: 1 << 40 }));
}
