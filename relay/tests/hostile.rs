//! Clients that mean harm, or are broken: what they cost is bounded, and others do not notice.

mod common;

use std::time::Duration;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::rules::Source;
use agent_wormhole_relay::server::Server;
use agent_wormhole_relay::wire::{ClientMessage, ErrorCode, Id, Mood, Resume, Role, Status};
use common::{Client, PIPE, Seat, pair, piped, unlimited};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

const HOST: Source = Source::V4([192, 0, 2, 1]);
const PEER: Source = Source::V4([192, 0, 2, 2]);
const GUESSER: Source = Source::V4([192, 0, 2, 66]);
/// The head of a request for a websocket.
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// A raw connection.
fn raw(server: &Server) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    server.serve_connection(theirs, GUESSER);
    ours
}

/// What the relay says until it closes.
async fn rest(io: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await.expect("closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A raw websocket after its upgrade.
async fn upgraded(server: &Server) -> DuplexStream {
    let mut io = raw(server);
    io.write_all(UPGRADE.as_bytes()).await.expect("room");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    io
}

/// The head of a client's frame whose mask is zero.
fn frame_head(first: u8, len: u64) -> Vec<u8> {
    let mut head = vec![first, 0x80 | 127];
    head.extend(len.to_be_bytes());
    head.extend([0; 4]);
    head
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_says_nothing_is_dropped_after_ten_seconds() {
    let server = Server::new(Options::default()).expect("options");
    let mut io = raw(&server);
    let start = Instant::now();
    rest(&mut io).await;
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_makes_a_request_no_longer() {
    let server = Server::new(Options::default()).expect("options");
    let (mut read, mut write) = tokio::io::split(raw(&server));
    let start = Instant::now();
    let drip = async {
        for byte in UPGRADE.bytes() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => panic!("all of it was read"),
        closed = read.read_to_end(&mut answer) => drop(closed.expect("closed")),
    }
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn endless_headers_end_at_sixteen_kibibytes() {
    let server = Server::new(Options::default()).expect("options");
    let (mut read, mut write) = tokio::io::split(raw(&server));
    let flood = async {
        write.write_all(b"GET /ws HTTP/1.1\r\n").await.expect("room");
        let mut sent = 0_usize;
        while write.write_all(b"X-Endless: and so on, and so on, and so on\r\n").await.is_ok() {
            sent += 44;
            assert!(sent < 2 * PIPE, "it is read without end");
        }
    };
    let mut answer = Vec::new();
    let start = Instant::now();
    tokio::join!(flood, async { drop(read.read_to_end(&mut answer).await) });
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(start_paused = true)]
async fn a_hello_in_crumbs_has_the_same_ten_seconds() {
    let server = Server::new(Options::default()).expect("options");
    let (mut read, mut write) = tokio::io::split(upgraded(&server).await);
    let start = Instant::now();
    let drip = async {
        // A text message that never ends, in fragments of one byte.
        let mut first = 0x01;
        while write.write_all(&[first, 0x81, 0, 0, 0, 0, b' ']).await.is_ok() {
            first = 0x00;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => {}
        closed = read.read_to_end(&mut answer) => drop(closed.expect("closed")),
    }
    // The close, and the two seconds that it may take to be answered.
    assert!((10..=12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(answer[..4], [0x88, answer[1], 0x03, 0xf0], "a close with 1008");
}

#[tokio::test(start_paused = true)]
async fn a_hello_without_end_is_cut_off() {
    let server = Server::new(Options::default()).expect("options");
    let (mut read, mut write) = tokio::io::split(upgraded(&server).await);
    let mut sent = 0;
    let flood = async {
        write.write_all(&frame_head(0x81, 5 << 20)).await.expect("room");
        while write.write_all(&[b' '; 1024]).await.is_ok() {
            sent += 1024;
        }
    };
    let mut close = [0; 4];
    tokio::select! {
        () = flood => panic!("closed before a word was said"),
        told = read.read_exact(&mut close) => drop(told.expect("a close")),
    }
    assert_eq!(close, [0x88, close[1], 0x03, 0xf1], "a close with 1009");
    assert!(sent <= 2 * PIPE, "{sent} bytes of it were read");
}

#[tokio::test(start_paused = true)]
async fn a_frame_beyond_the_limit_is_refused_by_its_head() {
    let server = Server::new(Options::default()).expect("options");
    let mut host = piped(&server, HOST).await;
    let nameplate = host.allocate().await.nameplate.expect("a nameplate");
    let mut io = upgraded(&server).await;
    let join = ClientMessage::Join { nameplate }.encode();
    let mut hello = vec![0x81, 0x80 | u8::try_from(join.len()).expect("short"), 0, 0, 0, 0];
    hello.extend(join.bytes());
    io.write_all(&hello).await.expect("room");
    host.paired().await;
    // Not one byte of its body has to come.
    io.write_all(&frame_head(0x82, 11 << 20)).await.expect("room");
    let answer = rest(&mut io).await;
    assert!(answer.len() < 1000);
    assert!(answer.contains("too long"), "{answer}");
    assert_eq!(host.status().await, Status::PeerAway);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_is_refused_as_such() {
    let server = Server::new(Options::default()).expect("options");
    let garbage = [
        Message::text(""),
        Message::text("{"),
        Message::text("[]"),
        Message::text(r#"{"action":"allocate""#),
        Message::text(r#"{"action":"dance"}"#),
        Message::text(r#"{"action":"join","nameplate":9471}"#),
        Message::text(r#"{"action":"resume","role":"host","seat":"zz","boot":"zz"}"#),
        Message::text(r#"{"action":"bye","mood":"happy"}"#),
        Message::text("[".repeat(10_000)),
        Message::binary(vec![0; 1000]),
        Message::binary(vec![]),
    ];
    for first in garbage {
        let mut client = piped(&server, GUESSER).await;
        client.ws.send(first.clone()).await.expect("sent");
        assert_eq!(client.refused().await.0, ErrorCode::BadMessage, "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_joins_are_each_refused_and_disturb_nobody() {
    let server = Server::new(Options::default()).expect("options");
    let (mut host, mut peer) = (piped(&server, HOST).await, piped(&server, PEER).await);
    pair(&mut host, &mut peer).await;
    let mut told = [0; 2];
    let start = Instant::now();
    for n in 0..1000 {
        let mut guesser = piped(&server, GUESSER).await;
        guesser.join(&format!("{}", 1000 + n)).await;
        match guesser.refused().await.0 {
            ErrorCode::UnableToJoin => told[0] += 1,
            ErrorCode::TooManyFailedJoins => told[1] += 1,
            other => panic!("{other:?}"),
        }
        if n % 100 == 0 {
            host.send(vec![n as u8; 100]).await;
            assert_eq!(peer.frame().await.len(), 100);
        }
    }
    assert_eq!(told, [5, 995]);
    assert!(start.elapsed() < Duration::from_secs(1), "no refusal waits for another: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn failing_joins_at_one_nameplate_are_answered_ever_later_and_good_ones_at_once() {
    let server =
        Server::new(Options { failed_joins_per_minute: 1000, ..Options::default() }).expect("options");
    let mut host = piped(&server, HOST).await;
    let nameplate = host.allocate().await.nameplate.expect("a nameplate");
    let mut peer = piped(&server, PEER).await;
    let took = async |nameplate: &str| {
        let mut guesser = piped(&server, GUESSER).await;
        let start = Instant::now();
        guesser.join(nameplate).await;
        assert_eq!(guesser.refused().await.0, ErrorCode::UnableToJoin);
        start.elapsed().as_millis()
    };
    let free = if nameplate == "1234" { "4321" } else { "1234" };
    let delays = [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 2000, 2000];
    for delay in delays {
        assert!((delay..delay + 5).contains(&took(free).await), "{delay}");
    }
    assert!(took("9999").await < 5, "another nameplate is another matter");

    // The nameplate of a channel that is full is no different, and neither a ping nor a close tells more.
    peer.join(&nameplate).await;
    peer.welcome().await;
    for delay in &delays[..8] {
        assert!((*delay..delay + 5).contains(&took(&nameplate).await), "{delay}");
    }
    let mut guesser = piped(&server, GUESSER).await;
    let start = Instant::now();
    guesser.join(&nameplate).await;
    guesser.ws.send(Message::Ping("x".into())).await.expect("sent");
    assert!(matches!(guesser.ws.next().await, Some(Ok(Message::Pong(_)))));
    assert_eq!(start.elapsed(), Duration::ZERO);
    guesser.send("more").await;
    guesser.ws.close(None).await.expect("closing");
    while guesser.ws.next().await.is_some() {}
    assert!((800..805).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());

    // Its host asks for another peer, and who has the code is answered at once.
    host.paired().await;
    peer.paired().await;
    host.say(ClientMessage::Release).await;
    assert_eq!(peer.closed().await, 4002);
    let start = Instant::now();
    let mut second = piped(&server, PEER).await;
    second.join(&nameplate).await;
    second.welcome().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn guessing_seats_counts_as_failed_joins() {
    let server = Server::new(Options::default()).expect("options");
    let (mut host, mut peer) = (piped(&server, HOST).await, piped(&server, PEER).await);
    let (seat, _) = pair(&mut host, &mut peer).await;
    for n in 0..20_u8 {
        let mut thief = piped(&server, GUESSER).await;
        thief.say(Seat { seat: Id::new([n; 16]), ..seat.clone() }.claim()).await;
        let want = if n < 5 { ErrorCode::UnableToResume } else { ErrorCode::TooManyFailedJoins };
        assert_eq!(thief.refused().await.0, want);
    }
    let mut guesser = piped(&server, GUESSER).await;
    guesser.join("9471").await;
    assert_eq!(guesser.refused().await.0, ErrorCode::TooManyFailedJoins);
    host.send("undisturbed").await;
    assert_eq!(peer.frame().await, "undisturbed");
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_was_left_cannot_be_taken_again() {
    let server = Server::new(Options::default()).expect("options");
    let (mut host, mut peer) = (piped(&server, HOST).await, piped(&server, PEER).await);
    let (host_seat, peer_seat) = pair(&mut host, &mut peer).await;
    peer.say(ClientMessage::Bye { mood: Mood::Happy }).await;
    assert_eq!(peer.closed().await, 1000);
    let replay = async |claim: ClientMessage| {
        let mut client = piped(&server, GUESSER).await;
        client.say(claim).await;
        client.refused().await.0
    };
    assert_eq!(replay(peer_seat.claim()).await, ErrorCode::UnableToResume);
    assert_eq!(host.status().await, Status::PeerLeft);
    host.say(ClientMessage::Bye { mood: Mood::Happy }).await;
    assert_eq!(host.closed().await, 1000);
    for claim in [host_seat.claim(), peer_seat.claim()] {
        assert_eq!(replay(claim).await, ErrorCode::UnableToResume);
    }
    let unknown = Resume {
        role: Role::Host,
        seat: host_seat.seat,
        channel: None,
        nameplate: Some(host_seat.nameplate),
        boot: host_seat.boot,
    };
    assert_eq!(replay(ClientMessage::Resume(unknown)).await, ErrorCode::NameplateLost);
}

/// Sends until the relay reads no more.
async fn fill(client: &mut Client, len: usize) -> usize {
    let mut sent = 0;
    while timeout(Duration::from_millis(1), client.ws.send(Message::binary(vec![0; len]))).await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "never full");
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn who_never_reads_pauses_its_peer_only_and_is_away_after_thirty_seconds() {
    let server = Server::new(unlimited()).expect("options");
    let (mut host, mut deaf) = (piped(&server, HOST).await, piped(&server, PEER).await);
    pair(&mut host, &mut deaf).await;
    let (mut other_host, mut other_peer) = (piped(&server, HOST).await, piped(&server, PEER).await);
    pair(&mut other_host, &mut other_peer).await;
    let start = Instant::now();
    let sent = fill(&mut host, 100_000).await;
    assert!(sent < 30, "{sent}: two mebibytes and what pipes and buffers hold");
    other_host.send("elsewhere").await;
    assert_eq!(other_peer.frame().await, "elsewhere");
    drop((other_host, other_peer));
    assert_eq!(host.status().await, Status::PeerAway);
    assert!((30..=40).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_are_gone_with_their_queues_full_are_away_after_a_minute() {
    let server = Server::new(Options { max_connections: 2, ..unlimited() }).expect("options");
    let (mut host, mut peer) = (piped(&server, HOST).await, piped(&server, PEER).await);
    let (_, seat) = pair(&mut host, &mut peer).await;
    // Neither is read any more, so neither could be judged by what it says.
    fill(&mut host, 100_000).await;
    fill(&mut peer, 100_000).await;
    let start = Instant::now();
    let is_full = || raw(&server).read_u8().now_or_never().is_some();
    while is_full() {
        assert!(start.elapsed().as_secs() < 80, "their connections are held");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed().as_secs() >= 60, "{:?}", start.elapsed());
    drop((host, peer));
    let mut again = piped(&server, PEER).await;
    again.say(seat.claim()).await;
    again.welcome().await;
    assert_eq!(again.status().await, Status::PeerAway);
    assert_eq!(again.frame().await.len(), 100_000, "nothing of what waits is lost");
}
