use std::future::poll_fn;

use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const MASK: [u8; 4] = [0x12, 0x9a, 0x00, 0xff];

/// A client's frame, byte by byte.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match body.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(body.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 255) as u8).collect()
}

/// A link and the client's end of its connection.
fn link(max_frame: usize) -> (Link<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Link::new(theirs, max_frame), ours)
}

async fn next(link: &mut Link<DuplexStream>) -> Result<Incoming, LinkError> {
    poll_fn(|cx| link.poll_incoming(cx)).await
}

/// What a link makes of these bytes, all announced frames allowed, until it wants more or fails.
async fn read(max_frame: usize, bytes: &[u8]) -> (Vec<Incoming>, LinkError) {
    let (mut link, mut client) = link(max_frame);
    client.write_all(bytes).await.expect("room");
    drop(client);
    let mut all = Vec::new();
    loop {
        match next(&mut link).await {
            Ok(Incoming::Wants(_)) => link.allow(),
            Ok(incoming) => all.push(incoming),
            Err(error) => return (all, error),
        }
    }
}

#[tokio::test]
async fn messages_of_every_length_form_are_read() {
    for len in [0, 1, 7, 8, 9, 125, 126, 127, 16_000, 16_384, 16_385, 65_535, 65_536, 300_000] {
        let body = pattern(len);
        let (got, _) = read(1 << 20, &frame(0x82, &body)).await;
        assert!(got == [Incoming::Frame(body.into())], "{len}");
    }
    let (got, _) = read(10, &frame(0x81, "grüße".as_bytes())).await;
    assert_eq!(got, [Incoming::Text("grüße".into())]);
}

#[tokio::test]
async fn messages_may_come_a_byte_at_a_time_or_all_at_once() {
    let mut bytes = frame(0x82, b"one");
    bytes.extend(frame(0x81, b"two"));
    bytes.extend(frame(0x82, &pattern(40_000)));
    bytes.extend(frame(0x82, b""));
    let want = [
        Incoming::Frame(Bytes::from("one")),
        Incoming::Text("two".into()),
        Incoming::Frame(pattern(40_000).into()),
        Incoming::Frame(Bytes::new()),
    ];
    let (at_once, _) = read(1 << 20, &bytes).await;
    assert!(at_once == want);
    let (mut link, mut client) = link(1 << 20);
    let trickle = async {
        for byte in &bytes {
            client.write_all(std::slice::from_ref(byte)).await.expect("room");
            tokio::task::yield_now().await;
        }
    };
    let collect = async {
        let mut all = Vec::new();
        while all.len() < want.len() {
            match next(&mut link).await.expect("a message") {
                Incoming::Wants(len) => {
                    assert_eq!(len, 40_000);
                    link.allow();
                }
                incoming => all.push(incoming),
            }
        }
        all
    };
    let ((), trickled) = tokio::join!(trickle, collect);
    assert!(trickled == want);
    assert_eq!(link.received(), bytes.len() as u64);
}

#[tokio::test]
async fn a_long_frame_is_announced_until_it_is_allowed() {
    let (mut link, mut client) = link(1 << 20);
    client.write_all(&frame(0x82, &pattern(100_000))).await.expect("room");
    for _ in 0..3 {
        assert!(matches!(next(&mut link).await, Ok(Incoming::Wants(100_000))));
    }
    assert!(link.received() <= READ as u64, "no more than the standing buffer is read");
    link.allow();
    assert!(matches!(next(&mut link).await, Ok(Incoming::Frame(body)) if body == pattern(100_000)));
}

#[tokio::test]
async fn fragments_make_one_message_around_control_frames() {
    let mut bytes = frame(0x02, &pattern(20_000));
    bytes.extend(frame(0x89, b"are you there"));
    bytes.extend(frame(0x00, &pattern(20_000)));
    bytes.extend(frame(0x8a, b""));
    bytes.extend(frame(0x80, b"end"));
    let want = [pattern(20_000), pattern(20_000), b"end".to_vec()].concat();
    let (got, _) = read(1 << 20, &bytes).await;
    assert!(got == [Incoming::Frame(want.into())]);
}

#[tokio::test]
async fn what_breaks_the_protocol_is_named() {
    let unmasked = [0x82, 0x01, 0x00];
    let cases: [(&str, Vec<u8>); 8] = [
        ("no mask", unmasked.to_vec()),
        ("reserved bit", frame(0xc2, b"x")),
        ("unknown opcode", frame(0x83, b"x")),
        ("unknown control", frame(0x8b, b"x")),
        ("long ping", frame(0x89, &[0; 126])),
        ("fragmented ping", frame(0x09, b"x")),
        ("continuation of nothing", frame(0x80, b"x")),
        ("message within a message", [frame(0x02, b"x"), frame(0x82, b"y")].concat()),
    ];
    for (name, bytes) in cases {
        let (got, error) = read(1 << 20, &bytes).await;
        assert!(got.is_empty() && matches!(error, LinkError::Protocol(_)), "{name}: {error}");
    }
    assert!(matches!(read(1 << 20, &frame(0x81, &[0xff])).await.1, LinkError::NotText));
}

#[tokio::test]
async fn too_long_is_told_before_it_is_read() {
    let head = |first: u8, len: u64| {
        let mut bytes = vec![first, 0xff];
        bytes.extend(len.to_be_bytes());
        bytes.extend(MASK);
        bytes
    };
    for bytes in [
        head(0x82, 1001),
        head(0x82, u64::MAX),
        head(0x81, MAX_CONTROL as u64 + 1),
        [frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat(),
        [frame(0x02, &[0; 600]), head(0x80, u64::MAX)].concat(),
    ] {
        assert!(matches!(read(1000, &bytes).await.1, LinkError::TooLong));
    }
    assert_eq!(read(1000, &frame(0x82, &[0; 1000])).await.0.len(), 1);
}

#[tokio::test]
async fn random_bytes_end_in_an_error_never_in_a_panic() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
    for seed in 0..500 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = vec![0; 2000];
        rng.fill_bytes(&mut bytes);
        // Half of them start as a well-formed frame, so that later states are reached.
        if seed % 2 == 0 {
            bytes.splice(..0, frame(0x02, b"start"));
            bytes[11] = [0x00, 0x80, 0x89, 0x88][seed as usize / 2 % 4];
            bytes[12] = 0x80 | (bytes[12] % 100);
        }
        read(1 << 16, &bytes).await;
    }
}

#[tokio::test]
async fn frames_are_written_in_every_length_form_and_counted() {
    let (mut link, mut client) = link(1 << 20);
    link.send_text("hi".into());
    for len in [0, 125, 126, 65_535, 65_536] {
        link.send_frame(pattern(len).into());
    }
    link.send_close(1009, "too long");
    assert_eq!(poll_fn(|cx| link.poll_flush(cx)).await.expect("written"), 5);
    assert!(!link.is_writing());
    drop(link);
    let mut want = b"\x81\x02hi\x82\x00\x82\x7d".to_vec();
    want.extend(pattern(125));
    want.extend(b"\x82\x7e\x00\x7e");
    want.extend(pattern(126));
    want.extend(b"\x82\x7e\xff\xff");
    want.extend(pattern(65_535));
    want.extend(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00");
    want.extend(pattern(65_536));
    want.extend(b"\x88\x0a\x03\xf1too long");
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.expect("read");
    assert!(got == want);
}

#[tokio::test]
async fn a_blocked_link_tells_what_it_wrote_and_keeps_one_pong() {
    let (client, theirs) = duplex(1000);
    let mut link = Link::new(theirs, 1 << 20);
    for _ in 0..5 {
        link.send_frame(pattern(400).into());
    }
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(link.poll_flush(&mut cx).is_pending());
    let (_, mut client_writes) = tokio::io::split(client);
    for n in 0..100_u8 {
        client_writes.write_all(&frame(0x89, &[n])).await.expect("room");
        assert!(link.poll_incoming(&mut cx).is_pending());
        assert!(link.poll_flush(&mut cx).is_pending());
    }
    assert!(link.outbox.len() <= 5, "pongs do not pile up");
    assert_eq!(link.take_written(), 2);
    assert_eq!(link.take_written(), 0);
}

#[tokio::test]
async fn discarded_frames_are_neither_written_nor_counted() {
    let (mut client, theirs) = duplex(8);
    let mut link = Link::new(theirs, 1 << 20);
    link.send_frame(Bytes::from("half written"));
    link.send_frame(Bytes::from("discarded"));
    link.send_text("kept".into());
    assert!(link.poll_flush(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    link.discard_frames();
    link.send_frame(Bytes::from("new"));
    let mut got = Vec::new();
    let write = async move { poll_fn(|cx| link.poll_flush(cx)).await.expect("written") };
    let (written, read) = tokio::join!(write, client.read_to_end(&mut got));
    read.expect("read");
    assert_eq!((written, &got[..]), (1, &b"\x82\x0chalf written\x81\x04kept\x82\x03new"[..]));
}
