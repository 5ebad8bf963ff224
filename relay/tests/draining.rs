//! How a relay stops, on paused time: slots, pairs, traffic, and who still comes.

mod common;

use std::time::Duration;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::rules::Source;
use agent_wormhole_relay::server::Server;
use agent_wormhole_relay::wire::Status;
use common::{Client, pair, piped, unlimited};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

const WINDOW: Duration = Duration::from_secs(10);
/// Channels of the drain that is looked at.
const CHANNELS: usize = 200;

fn draining(window: Duration) -> Server {
    Server::new(Options { drain: Some(window), ..unlimited() }).expect("options")
}

async fn pairs(server: &Server, count: usize) -> Vec<(Client, Client)> {
    let mut pairs = Vec::new();
    for _ in 0..count {
        let mut host = piped(server, Source::Local).await;
        let mut peer = piped(server, Source::Local).await;
        pair(&mut host, &mut peer).await;
        pairs.push((host, peer));
    }
    pairs
}

/// When this client's socket is closed with 1012, after it was told.
async fn end(mut client: Client, start: Instant) -> Duration {
    assert_eq!(client.status().await, Status::GoingAway);
    assert_eq!(start.elapsed(), Duration::ZERO, "told at once");
    loop {
        match client.next().await {
            // The other end's socket went, in the same moment.
            Message::Text(text) => assert!(text.contains("peer_away"), "{text}"),
            Message::Close(Some(close)) => {
                assert_eq!(u16::from(close.code), 1012);
                return start.elapsed();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sockets_close_over_the_window_and_those_of_a_channel_together() {
    let server = draining(WINDOW);
    let pairs = pairs(&server, CHANNELS).await;
    let start = Instant::now();
    let ends = join_all(pairs.into_iter().map(|(host, peer)| async move {
        let (host, peer) = tokio::join!(end(host, start), end(peer, start));
        assert!(host.abs_diff(peer) <= Duration::from_millis(1), "{host:?} and {peer:?}");
        host
    }));
    let (mut ends, ()) = tokio::join!(ends, server.drain());
    let mut seconds = [0; 10];
    for end in &ends {
        // A timer is a millisecond late at most: the last one may end with the window.
        seconds[(end.as_secs() as usize).min(9)] += 1;
    }
    for (second, count) in seconds.iter().enumerate() {
        println!("{second} s {count:3} {}", "#".repeat(*count));
    }
    // 20 are expected; less than 4 or more than 50 has a probability below 10^-4.
    assert!(seconds.iter().all(|count| (4..=50).contains(count)), "{seconds:?}");
    ends.sort();
    assert_eq!(ends.len(), CHANNELS);
    assert!(start.elapsed() < WINDOW + Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn traffic_goes_on_until_the_moment_comes() {
    let server = draining(WINDOW);
    let pairs = pairs(&server, 20).await;
    let start = Instant::now();
    let talk = |(mut host, mut peer): (Client, Client)| async move {
        assert_eq!(host.status().await, Status::GoingAway);
        assert_eq!(peer.status().await, Status::GoingAway);
        let mut frames = 0_u32;
        loop {
            host.send(frames.to_be_bytes().to_vec()).await;
            match peer.next().await {
                Message::Binary(frame) => assert_eq!(frame, frames.to_be_bytes().to_vec()),
                Message::Text(_) | Message::Close(_) => break,
                other => panic!("{other:?}"),
            }
            frames += 1;
            // Somebody who writes ten times a second.
            if timeout(Duration::from_millis(100), peer.next()).await.is_ok() {
                break;
            }
        }
        (start.elapsed(), frames)
    };
    let (talks, ()) = tokio::join!(join_all(pairs.into_iter().map(talk)), server.drain());
    for (ended, frames) in &talks {
        let tenths = ended.as_millis() / 100;
        assert!(u128::from(*frames).abs_diff(tenths) <= 1, "{frames} frames in {ended:?}");
    }
    assert!(talks.iter().map(|(_, frames)| frames).sum::<u32>() > 100, "{talks:?}");
}

#[tokio::test(start_paused = true)]
async fn who_has_no_seat_yet_is_sent_away_at_once() {
    let server = draining(WINDOW);
    let (mut seated, _peer) = pairs(&server, 1).await.remove(0);
    let (mut early, mut late) = (piped(&server, Source::Local).await, piped(&server, Source::Local).await);
    let start = Instant::now();
    let meanwhile = async {
        assert_eq!(seated.status().await, Status::GoingAway);
        assert!(!server.is_ready());
        // A hello that was on its way when the drain began.
        late.text(r#"{"action":"allocate"}"#).await;
        for client in [&mut early, &mut late] {
            assert_eq!(client.status().await, Status::GoingAway);
            assert_eq!(client.closed().await, 1012);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    };
    tokio::join!(meanwhile, server.drain());
}

#[tokio::test(start_paused = true)]
async fn a_relay_with_a_memory_of_its_own_drains_at_once() {
    let server = Server::new(unlimited()).expect("options");
    let pairs = pairs(&server, 10).await;
    let start = Instant::now();
    let ends = pairs.into_iter().flat_map(|(host, peer)| [end(host, start), end(peer, start)]);
    let (ends, ()) = tokio::join!(join_all(ends), server.drain());
    assert!(ends.iter().all(|end| *end == Duration::ZERO), "{ends:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_close_is_cut_off() {
    let server = draining(WINDOW);
    // Neither is ever polled again.
    let _deaf = pairs(&server, 1).await;
    let start = Instant::now();
    server.drain().await;
    assert!(start.elapsed() <= WINDOW + Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn stopping_cuts_a_drain_short() {
    let server = draining(Duration::from_secs(3600));
    let (host, peer) = pairs(&server, 1).await.remove(0);
    let start = Instant::now();
    let stop = async {
        sleep(Duration::from_millis(1)).await;
        server.stop().await;
    };
    let ends = async { tokio::join!(end(host, start), end(peer, start)) };
    let (ends, (), ()) = tokio::join!(ends, server.drain(), stop);
    assert!(ends.0 < Duration::from_secs(1) && ends.1 < Duration::from_secs(1), "{ends:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
