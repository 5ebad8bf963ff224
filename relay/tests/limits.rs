//! Limits on paused time: rates, room, silence, hellos, joins. Connections are pipes in memory, so that the clock
//! stands still while anything is under way.

mod common;

use std::time::Duration;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::rules::Source;
use agent_wormhole_relay::server::Server;
use agent_wormhole_relay::wire::{ErrorCode, Status};
use bytes::Bytes;
use common::{Client, PIPE, pair, piped, unlimited};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

const HOST: Source = Source::V4([192, 0, 2, 1]);
const PEER: Source = Source::V4([192, 0, 2, 2]);

async fn two(server: &Server) -> (Client, Client) {
    (piped(server, HOST).await, piped(server, PEER).await)
}

#[tokio::test(start_paused = true)]
async fn the_message_rate_delays_and_drops_nothing() {
    let server = Server::new(Options::default()).expect("options");
    let (mut host, mut peer) = two(&server).await;
    pair(&mut host, &mut peer).await;
    let start = Instant::now();
    let send = async {
        for n in 0..120_u8 {
            host.send(vec![n; 1000]).await;
        }
        assert_eq!(host.status().await, Status::Throttled);
        // Goes on to answer pings.
        assert!(timeout(Duration::from_secs(90), host.next()).await.is_err());
    };
    let receive = async {
        let mut throttled = 0;
        for n in 0..120_u8 {
            let frame = loop {
                match peer.next().await {
                    Message::Text(_) => throttled += 1,
                    Message::Binary(frame) => break frame,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(frame, vec![n; 1000]);
            if n == 59 {
                assert!(start.elapsed() < Duration::from_secs(1), "a minute's worth goes at once");
            }
        }
        assert_eq!(throttled, 1);
        let took = start.elapsed();
        assert!((60..62).contains(&took.as_secs()), "{took:?}");
    };
    tokio::join!(send, receive);
}

#[tokio::test(start_paused = true)]
async fn the_byte_rate_delays() {
    let server = Server::new(Options { messages_per_minute: 0, ..Options::default() }).expect("options");
    let (mut host, mut peer) = two(&server).await;
    pair(&mut host, &mut peer).await;
    let start = Instant::now();
    let frame = Bytes::from(vec![1; 1 << 20]);
    let send = async {
        for _ in 0..100 {
            host.send(frame.clone()).await;
        }
    };
    let receive = async {
        let mut frames = 0;
        while frames < 100 {
            frames += usize::from(matches!(peer.next().await, Message::Binary(_)));
        }
    };
    tokio::join!(send, receive);
    let took = start.elapsed();
    assert!((60..62).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn receipts_pass_a_throttled_transfer() {
    let server = Server::new(Options { messages_per_minute: 1, ..Options::default() }).expect("options");
    let (mut host, mut peer) = two(&server).await;
    pair(&mut host, &mut peer).await;
    host.send(vec![0; 1000]).await;
    host.send(vec![0; 1000]).await;
    assert_eq!(peer.status().await, Status::Throttled);
    assert_eq!(peer.frame().await.len(), 1000);
    let start = Instant::now();
    for n in 0..200_u8 {
        peer.send(vec![n; 128]).await;
    }
    assert_eq!(host.status().await, Status::Throttled);
    for n in 0..200_u8 {
        assert_eq!(host.frame().await, vec![n; 128]);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    tokio::select! {
        frame = peer.frame() => assert_eq!(frame.len(), 1000),
        // Answers pings.
        message = host.next() => panic!("{message:?}"),
    }
    assert_eq!(start.elapsed().as_secs(), 60);
}

/// Sends until the pipe is full and the relay reads no more; returns how many were sent, the last one perhaps in part.
async fn fill(client: &mut Client, len: usize) -> usize {
    let mut sent = 0;
    loop {
        let frame = Message::Binary(vec![sent as u8; len].into());
        // Short enough that no ping falls into it.
        if timeout(Duration::from_millis(1), client.ws.send(frame)).await.is_err() {
            return sent + 1;
        }
        sent += 1;
        assert!(sent < 1000, "never full");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_stops_its_sender_only_and_is_not_silence() {
    let server = Server::new(unlimited()).expect("options");
    let (mut host, mut peer) = two(&server).await;
    let (_, peer_seat) = pair(&mut host, &mut peer).await;
    let (mut other_host, mut other_peer) = two(&server).await;
    pair(&mut other_host, &mut other_peer).await;
    drop(peer);
    assert_eq!(host.status().await, Status::PeerAway);

    let len = 100_000;
    let sent = fill(&mut host, len).await;
    let queued = (2 << 20) / len;
    assert!((queued..queued + 4).contains(&sent), "{sent}: two mebibytes and what the pipe holds");

    other_host.send(vec![5; PIPE / 2]).await;
    assert_eq!(other_peer.frame().await.len(), PIPE / 2);

    // The relay does not read the host, whose pongs would be behind its frames, for far longer than silence is borne.
    drop((other_host, other_peer));
    tokio::time::sleep(Duration::from_secs(300)).await;
    let mut peer = piped(&server, PEER).await;
    peer.say(peer_seat.claim()).await;
    peer.welcome().await;
    let rest = async { host.ws.flush().await.expect("written") };
    let receive = async {
        for n in 0..sent {
            assert!(peer.frame().await == vec![n as u8; len], "{n}");
        }
    };
    tokio::join!(rest, receive);
    peer.send("all there").await;
    assert_eq!(host.status().await, Status::PeerBack);
    assert_eq!(host.frame().await, "all there");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_comes_again() {
    let server = Server::new(unlimited()).expect("options");
    let (mut host, mut peer) = two(&server).await;
    let (_, seat) = pair(&mut host, &mut peer).await;
    // The pipe to the peer takes the first frames; the rest is popped, partly written, and the peer never reads on.
    for n in 0..10_u8 {
        host.send(vec![n; 50_000]).await;
    }
    for n in 0..3_u8 {
        assert_eq!(peer.frame().await, vec![n; 50_000]);
    }
    drop(peer);
    assert_eq!(host.status().await, Status::PeerAway);
    let mut peer = piped(&server, PEER).await;
    peer.say(seat.claim()).await;
    peer.welcome().await;
    let first = peer.frame().await;
    // What the pipe had swallowed is gone with it; nothing is repeated, and nothing that stayed here is lost.
    assert!((3..=4).contains(&first[0]), "{}", first[0]);
    for n in first[0] + 1..10 {
        assert_eq!(peer.frame().await, vec![n; 50_000]);
    }
    assert!(peer.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_hello_has_ten_seconds() {
    let server = Server::new(Options::default()).expect("options");
    let mut client = piped(&server, HOST).await;
    let start = Instant::now();
    assert_eq!(client.closed().await, 1008);
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_request_has_ten_seconds() {
    let server = Server::new(Options::default()).expect("options");
    let (mut slow, theirs) = tokio::io::duplex(PIPE);
    server.serve_connection(theirs, HOST);
    slow.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.expect("room");
    let start = Instant::now();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.expect("closed");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_for_thirty_seconds_is_away() {
    let server = Server::new(Options::default()).expect("options");
    let (mut host, mut peer) = two(&server).await;
    pair(&mut host, &mut peer).await;
    let start = Instant::now();
    // The host answers pings by reading; the peer is never polled.
    assert_eq!(host.status().await, Status::PeerAway);
    assert!((30..=40).contains(&start.elapsed().as_secs()));
    // Who answers stays.
    assert!(timeout(Duration::from_secs(600), host.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_relay_pings_every_ten_seconds() {
    let server = Server::new(Options::default()).expect("options");
    let mut host = piped(&server, HOST).await;
    host.allocate().await;
    let start = Instant::now();
    for n in 1..10 {
        assert!(matches!(host.ws.next().await, Some(Ok(Message::Ping(_)))));
        assert_eq!(start.elapsed().as_secs(), n * 10);
    }
}

#[tokio::test(start_paused = true)]
async fn failed_joins_are_limited_for_each_source() {
    let server = Server::new(Options::default()).expect("options");
    for n in 0..6 {
        let mut guesser = piped(&server, PEER).await;
        guesser.join("9471").await;
        let want = if n < 5 { ErrorCode::UnableToJoin } else { ErrorCode::TooManyFailedJoins };
        assert_eq!(guesser.refused().await.0, want);
    }
    let mut other = piped(&server, HOST).await;
    other.join("9471").await;
    assert_eq!(other.refused().await.0, ErrorCode::UnableToJoin);
}

#[tokio::test(start_paused = true)]
async fn channels_are_limited_for_each_source() {
    let server = Server::new(Options { channels_per_source: 1, ..Options::default() }).expect("options");
    let mut one = piped(&server, HOST).await;
    one.allocate().await;
    let mut two = piped(&server, HOST).await;
    two.text(r#"{"action":"allocate"}"#).await;
    assert_eq!(two.refused().await.0, ErrorCode::TooManyChannels);
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_is_dropped_unanswered() {
    let server = Server::new(Options { max_connections: 2, ..Options::default() }).expect("options");
    let (mut host, mut peer) = two(&server).await;
    pair(&mut host, &mut peer).await;
    let (mut third, theirs) = tokio::io::duplex(PIPE);
    server.serve_connection(theirs, HOST);
    assert_eq!(third.read(&mut [0; 1]).now_or_never().map(Result::ok), Some(Some(0)));
    // Room comes back with the connection that had it.
    drop(peer);
    assert_eq!(host.status().await, Status::PeerAway);
    let mut fourth = piped(&server, PEER).await;
    fourth.allocate().await;
}
