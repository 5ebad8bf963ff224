//! A report, not a judgement: how long a frame takes from end to end while others attack. Machines differ, so nothing is
//! asserted but that the frames arrive.
//!
//! `cargo test -p agent-wormhole-relay --test beside -- --ignored --nocapture`

#![allow(clippy::print_stdout, reason = "a report is read")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::wire::ClientMessage;
use common::{Client, Running, pair};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;

/// Round trips that are timed, one a millisecond.
const FRAMES: usize = 5000;
/// Joins a second that fail.
const JOINS: u64 = 1000;
/// Connections that say a part of a request and then nothing.
const SILENT: usize = 500;

/// Sends a frame there and back, again and again; prints how long that took.
async fn time(what: &str, host: &mut Client, peer: &mut Client) {
    let mut took = Vec::with_capacity(FRAMES);
    let mut pace = interval(Duration::from_millis(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..FRAMES {
        pace.tick().await;
        let start = Instant::now();
        host.send(vec![7; 1000]).await;
        assert_eq!(peer.frame().await.len(), 1000);
        peer.send(vec![7; 100]).await;
        assert_eq!(host.frame().await.len(), 100);
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| took[(FRAMES - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, longest {:?}", at(50), at(99), at(100));
}

/// One join that fails.
async fn guess(relay: std::net::SocketAddr, answered: Arc<AtomicUsize>) {
    let Ok(io) = TcpStream::connect(relay).await else { return };
    let Ok((mut ws, _)) = tokio_tungstenite::client_async("ws://relay/ws", io).await else { return };
    let join = ClientMessage::Join { nameplate: "9471".to_owned() }.encode();
    if ws.send(Message::text(join)).await.is_ok() {
        while let Some(Ok(_)) = ws.next().await {}
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a report for people"]
async fn a_round_trip_beside_an_attack() {
    // All of it comes from one address here, which would not be let in so often.
    let options = Options {
        messages_per_minute: 0,
        bytes_per_minute: 0,
        small_per_minute: 0,
        connections_per_source: 0,
        ..Options::default()
    };
    let relay = Running::start(options).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    pair(&mut host, &mut peer).await;
    time("alone", &mut host, &mut peer).await;

    let address = relay.address;
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = answered.clone();
    let joins = tokio::spawn(async move {
        let mut pace = interval(Duration::from_nanos(1_000_000_000 / JOINS));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            tokio::spawn(guess(address, counted.clone()));
        }
    });
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let mut io = TcpStream::connect(address).await.expect("a connection");
        io.write_all(b"GET /ws HTTP/1.1\r\n").await.expect("room");
        silent.push(io);
    }
    let what = format!("beside {JOINS} failing joins a second and {SILENT} silent connections");
    time(&what, &mut host, &mut peer).await;
    println!("{} joins were refused meanwhile", answered.load(Ordering::Relaxed));
    joins.abort();
    drop((silent, host, peer));
    relay.stop().await;
}
