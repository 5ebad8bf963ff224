//! What an operator sees: numbers that move, lines of the log, readiness. And what nobody may see in them.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::rules::Source;
use agent_wormhole_relay::server::Server;
use agent_wormhole_relay::wire::{ClientMessage, ErrorCode, Id, Mood, Status};
use common::{Log, pair, piped, unlimited};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const HOST: Source = Source::V4([192, 0, 2, 77]);
const PEER: Source = Source::V6([0x20, 0x01, 0x0d, 0xb8, 0xab, 0xcd, 0xef, 0x12]);

/// The whole answer to one question.
async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let question = format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
    stream.write_all(question.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer that ends");
    answer
}

/// The operator's listener of a relay.
async fn monitored(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = server.clone();
    tokio::spawn(async move { server.monitor(listener).await });
    address
}

/// The value of one number.
fn number(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with(&format!("agent_wormhole_relay_{name} ")));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {metrics}"))
}

/// Waits for something that another task is about to do.
async fn until(mut is: impl AsyncFnMut() -> bool) {
    for _ in 0..100_000 {
        if is().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never was");
}

/// A channel's life with everything in it that is counted. Returns what identifies it.
async fn live(server: &Server) -> Vec<String> {
    let mut host = piped(server, HOST).await;
    let mut peer = piped(server, PEER).await;
    let (host_seat, peer_seat) = pair(&mut host, &mut peer).await;
    for _ in 0..3 {
        host.send("the body of a frame").await;
        peer.frame().await;
    }
    let mut third = piped(server, PEER).await;
    third.join(&host_seat.nameplate).await;
    assert_eq!(third.refused().await.0, ErrorCode::UnableToJoin);
    let mut stranger = piped(server, PEER).await;
    stranger.join("987654321").await;
    assert_eq!(stranger.refused().await.0, ErrorCode::UnableToJoin);
    drop(peer);
    assert_eq!(host.status().await, Status::PeerAway);
    let mut peer = piped(server, PEER).await;
    peer.say(peer_seat.claim()).await;
    peer.welcome().await;
    assert_eq!(host.status().await, Status::PeerBack);
    host.say(ClientMessage::Bye { mood: Mood::Happy }).await;
    assert_eq!(host.closed().await, 1000);
    assert_eq!(peer.status().await, Status::PeerLeft);
    peer.say(ClientMessage::Bye { mood: Mood::Scary }).await;
    assert_eq!(peer.closed().await, 1000);
    [host_seat.seat, peer_seat.seat, host_seat.channel, host_seat.boot]
        .iter()
        .map(Id::to_string)
        .chain([host_seat.nameplate, "987654321".to_owned()])
        .collect()
}

/// Addresses of the clients in the ways they could be written.
fn addresses() -> Vec<String> {
    ["192.0.2.77", "192, 0, 2, 77", "c000024d", "2001:db8", "20010db8", "32, 1, 13, 184"]
        .map(str::to_owned)
        .to_vec()
}

#[tokio::test]
async fn numbers_move_and_no_label_identifies_anybody() {
    let server = Server::new(Options { messages_per_minute: 2, ..unlimited() }).expect("options");
    let address = monitored(&server).await;
    let before = ask(address, "/metrics").await;
    assert!(before.contains("content-type: application/openmetrics-text"), "{before}");
    assert!(before.ends_with("# EOF\n"), "{before}");
    assert_eq!(number(&before, "frames_total"), 0);
    assert_eq!(number(&before, "refusals_total{code=\"busy\"}"), 0);
    assert!(before.contains(&format!("build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));

    let mut host = piped(&server, HOST).await;
    let mut peer = piped(&server, PEER).await;
    let (seat, _) = pair(&mut host, &mut peer).await;
    for _ in 0..3 {
        host.send(vec![0; 1000]).await;
    }
    assert_eq!(host.status().await, Status::Throttled);
    let during = ask(address, "/metrics").await;
    for (name, want) in
        [("connections", 2), ("sockets", 2), ("channels", 1), ("throttles_total", 1), ("store_up", 1)]
    {
        assert_eq!(number(&during, name), want, "{name}");
    }
    assert_eq!(number(&during, "frames_total"), 2, "the third one waits");
    assert_eq!(number(&during, "forwarded_bytes_total"), 2000);
    assert!((1000..2000).contains(&number(&during, "queued_bytes")), "{during}");
    drop((host, peer));

    let unthrottled = Server::new(unlimited()).expect("options");
    let address = monitored(&unthrottled).await;
    let mut identifying = live(&unthrottled).await;
    until(async || number(&ask(address, "/metrics").await, "connections") == 0).await;
    let after = ask(address, "/metrics").await;
    for (name, want) in [
        ("sockets", 0),
        ("channels", 0),
        ("queued_bytes", 0),
        ("frames_total", 3),
        ("outcomes_total{mood=\"happy\"}", 1),
        ("outcomes_total{mood=\"scary\"}", 1),
        ("outcomes_total{mood=\"crowded\"}", 1),
        ("outcomes_total{mood=\"lonely\"}", 0),
        ("refusals_total{code=\"unable_to_join\"}", 2),
    ] {
        assert_eq!(number(&after, name), want, "{name}");
    }
    identifying.extend([seat.nameplate, seat.channel.to_string()]);
    identifying.extend(addresses());
    for word in identifying {
        for text in [&before, &during, &after] {
            let (_, body) = text.split_once("\r\n\r\n").expect("a body");
            let words = |text: &str| text.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
            assert!(!words(body) && (word.len() < 10 || !body.contains(&word)), "{word} is in {body}");
        }
    }
}

#[tokio::test]
async fn one_connection_too_many_is_counted() {
    let server = Server::new(Options { max_connections: 1, ..unlimited() }).expect("options");
    let address = monitored(&server).await;
    let _one = piped(&server, HOST).await;
    let (_two, theirs) = tokio::io::duplex(1);
    server.serve_connection(theirs, HOST);
    assert_eq!(number(&ask(address, "/metrics").await, "full_total"), 1);
}

#[tokio::test]
async fn readiness_fails_while_draining_and_the_operator_still_sees_it() {
    let hour = Some(Duration::from_secs(3600));
    let server = Server::new(Options { drain: hour, ..unlimited() }).expect("options");
    let address = monitored(&server).await;
    for (path, status) in [("/health", "200"), ("/ready", "200"), ("/ws", "404"), ("/", "404")] {
        let answer = ask(address, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    let mut client = piped(&server, HOST).await;
    client.allocate().await;
    let draining = tokio::spawn({
        let server = server.clone();
        async move { server.drain().await }
    });
    assert_eq!(client.status().await, Status::GoingAway);
    assert!(ask(address, "/ready").await.starts_with("HTTP/1.1 503 "));
    assert!(ask(address, "/health").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(number(&ask(address, "/metrics").await, "sockets"), 1);
    let closed = async move { client.closed().await };
    let (code, ()) = tokio::join!(closed, server.stop());
    assert_eq!(code, 1012);
    draining.await.expect("drained");
}

#[tokio::test]
async fn the_log_tells_what_happens_and_of_whom_only_pseudonyms() {
    let log = Log::listen();
    let server = Server::new(unlimited()).expect("options");
    let mut identifying = live(&server).await;
    server.drain().await;
    let log = log.text();
    for (want, times) in [
        (" INFO agent_wormhole_relay::events: a channel is paired", 1),
        ("a seat is left mood=\"happy\"", 1),
        ("a seat is left mood=\"scary\"", 1),
        ("a client is refused code=\"unable_to_join\"", 2),
        ("draining: nobody is accepted any more", 1),
        ("drained: every connection is closed", 1),
        ("DEBUG", 1),
    ] {
        let found = log.matches(want).count();
        assert!(found == times || want == "DEBUG" && found > 0, "{want}: {found} times in {log}");
    }
    // One peer joined, was refused twice and left: the same pseudonym each time, and another one for the host.
    let sources: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("source=").map(|(_, it)| it)).collect();
    let peer = sources.first().expect("a source");
    assert_eq!(peer.len(), 16, "{log}");
    assert_eq!(sources.iter().filter(|source| *source == peer).count(), 4, "{log}");
    identifying.extend(addresses());
    identifying.push("body of a frame".to_owned());
    for word in identifying {
        let part = log.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
        assert!(!part && (word.len() < 8 || !log.contains(&word)), "{word} is in {log}");
    }
}

#[tokio::test]
async fn a_throttled_channel_is_logged_once() {
    let log = Log::listen();
    let server = Server::new(Options { messages_per_minute: 1, ..unlimited() }).expect("options");
    let (mut host, mut peer) = (piped(&server, HOST).await, piped(&server, PEER).await);
    pair(&mut host, &mut peer).await;
    for _ in 0..3 {
        peer.send(vec![0; 1000]).await;
    }
    for end in [&mut host, &mut peer] {
        assert_eq!(end.status().await, Status::Throttled);
    }
    assert_eq!(log.text().matches("a channel is throttled").count(), 1, "{}", log.text());
}
