//! Two ends meet: nameplates, pairing, forwarding, refusals, leaving, stopping.

mod common;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::wire::{ClientMessage, ErrorCode, Mood, Status};
use common::{Client, Running, pair, unlimited};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::test]
async fn frames_go_both_ways_in_order() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    pair(&mut host, &mut peer).await;
    for n in 0..20_u8 {
        host.send(vec![n; 200]).await;
        peer.send(vec![100 + n; usize::from(n)]).await;
    }
    for n in 0..20_u8 {
        assert_eq!(peer.frame().await, vec![n; 200]);
        assert_eq!(host.frame().await, vec![100 + n; usize::from(n)]);
    }
}

#[tokio::test]
async fn long_frames_arrive_unchanged() {
    let relay = Running::start(unlimited()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    pair(&mut host, &mut peer).await;
    for len in [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_535, 65_536, 1 << 20, 10 << 20] {
        let frame: Vec<u8> = (0..len).map(|n: usize| (n * 7 + n / 251) as u8).collect();
        let (sent, got) = tokio::join!(host.send(frame.clone()), peer.frame());
        let () = sent;
        assert!(got == frame, "{len} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_at_once_deliver_everything() {
    let relay = Running::start(unlimited()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    pair(&mut host, &mut peer).await;
    let busy = |client: Client| async move {
        use futures_util::StreamExt as _;
        let (mut writer, mut reader) = client.ws.split();
        let write = async {
            for n in 0..200_u32 {
                let len = [10, 3_000, 70_000, 400_000][n as usize % 4];
                let mut frame = vec![n as u8; len];
                frame[..4].copy_from_slice(&n.to_be_bytes());
                writer.send(Message::Binary(frame.into())).await.expect("sent");
            }
        };
        let read = async {
            for n in 0..200_u32 {
                let message = loop {
                    match reader.next().await.expect("not ended").expect("a message") {
                        Message::Binary(frame) => break frame,
                        // The other end may be done and gone already.
                        Message::Ping(_) | Message::Text(_) => {}
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!(message[..4], n.to_be_bytes());
                assert!(message[4..].iter().all(|byte| *byte == n as u8));
            }
        };
        tokio::join!(write, read);
    };
    let (one, two) = (tokio::spawn(busy(host)), tokio::spawn(busy(peer)));
    one.await.expect("the host's side");
    two.await.expect("the peer's side");
}

#[tokio::test]
async fn the_welcome_tells_the_limits() {
    let relay = Running::start(Options::default()).await;
    let welcome = relay.client().await.allocate().await;
    assert_eq!(welcome.limits.max_frame, 10 << 20);
    assert_eq!(welcome.limits.messages_per_minute, 60);
    assert_eq!(welcome.limits.bytes_per_minute, 50 << 20);
    assert_eq!(welcome.limits.idle_secs, 3600);
    assert!(welcome.nameplate.is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit())));
}

#[tokio::test]
async fn a_third_party_hears_what_a_stranger_hears() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    let (seat, _) = pair(&mut host, &mut peer).await;
    let mut third = relay.client().await;
    third.join(&seat.nameplate).await;
    let full = third.refused().await;
    let mut stranger = relay.client().await;
    stranger.join("1234567").await;
    assert_eq!(stranger.refused().await, full);
    assert_eq!(full.0, ErrorCode::UnableToJoin);
    host.send("still here").await;
    assert_eq!(peer.frame().await, "still here");
}

#[tokio::test]
async fn what_can_be_no_nameplate_is_one_where_nobody_hosts() {
    let relay = Running::start(unlimited()).await;
    for text in ["", "123", "0471", "1234567890", "94-71"] {
        let mut client = relay.client().await;
        client.join(text).await;
        assert_eq!(client.refused().await.0, ErrorCode::UnableToJoin, "{text:?}");
    }
    let mut client = relay.client().await;
    client.text(r#"{"action":"join","nameplate":9471}"#).await;
    assert_eq!(client.refused().await.0, ErrorCode::BadMessage);
}

#[tokio::test]
async fn release_makes_the_nameplate_joinable_again() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut squatter) = (relay.client().await, relay.client().await);
    let (seat, _) = pair(&mut host, &mut squatter).await;
    host.send("for the squatter").await;
    squatter.send("from the squatter").await;
    assert_eq!(host.frame().await, "from the squatter");
    host.say(ClientMessage::Release).await;
    assert_eq!(squatter.frame().await, "for the squatter");
    assert_eq!(squatter.closed().await, 4002);
    let mut peer = relay.client().await;
    peer.join(&seat.nameplate).await;
    peer.welcome().await;
    let channel = peer.paired().await;
    assert_ne!(channel, seat.channel);
    assert_eq!(host.paired().await, channel);
    peer.send("hello").await;
    assert_eq!(host.frame().await, "hello");
}

#[tokio::test]
async fn bye_leaves_queued_frames_then_says_so() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    let (_, seat) = pair(&mut host, &mut peer).await;
    drop(peer);
    assert_eq!(host.status().await, Status::PeerAway);
    host.send("last words").await;
    host.say(ClientMessage::Bye { mood: Mood::Happy }).await;
    assert_eq!(host.closed().await, 1000);
    let mut peer = relay.client().await;
    peer.say(seat.claim()).await;
    peer.welcome().await;
    assert_eq!(peer.frame().await, "last words");
    assert_eq!(peer.status().await, Status::PeerLeft);
}

#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let relay = Running::start(Options::default()).await;
    let nonsense =
        ["", "hello", "[]", r#"{"action":"dance"}"#, r#"{"action":"release"}"#, r#"{"action":"join"}"#];
    for text in nonsense {
        let mut client = relay.client().await;
        client.text(text).await;
        assert_eq!(client.refused().await.0, ErrorCode::BadMessage, "{text}");
    }
    let mut client = relay.client().await;
    client.send("binary").await;
    assert_eq!(client.refused().await.0, ErrorCode::BadMessage);
    let mut client = relay.client().await;
    client.text(&"x".repeat(16 * 1024 + 1)).await;
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn what_has_no_place_later_is_refused() {
    let relay = Running::start(Options::default()).await;
    for text in ["nonsense", r#"{"action":"allocate"}"#] {
        let mut client = relay.client().await;
        client.allocate().await;
        client.text(text).await;
        assert_eq!(client.refused().await.0, ErrorCode::BadMessage, "{text}");
    }
    let mut early = relay.client().await;
    early.allocate().await;
    early.send("before paired").await;
    assert_eq!(early.refused().await.0, ErrorCode::BadMessage);
}

#[tokio::test]
async fn an_oversize_frame_closes_with_1009() {
    let relay = Running::start(Options { max_frame: 64 << 10, ..Options::default() }).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    pair(&mut host, &mut peer).await;
    host.send(vec![1; 64 << 10]).await;
    assert_eq!(peer.frame().await.len(), 64 << 10);
    host.send(vec![1; (64 << 10) + 1]).await;
    assert_eq!(host.closed().await, 1009);
    assert_eq!(peer.status().await, Status::PeerAway);
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let relay = Running::start(Options::default()).await;
    let mut client = relay.client().await;
    client.allocate().await;
    let close = CloseFrame { code: CloseCode::Away, reason: "".into() };
    client.ws.close(Some(close)).await.expect("closing");
    assert_eq!(client.closed().await, 1001, "with its own code");
}

#[tokio::test]
async fn a_stopping_relay_says_so_and_closes_everything() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    pair(&mut host, &mut peer).await;
    let mut waiting = relay.client().await;
    let said = async {
        for client in [&mut host, &mut peer, &mut waiting] {
            assert_eq!(client.status().await, Status::GoingAway);
            assert_eq!(client.closed().await, 1012);
            // Answers the close, so that the relay need not wait for it.
            drop(client.ws.flush().await);
        }
        drop((host, peer, waiting));
    };
    tokio::join!(relay.stop(), said);
}
