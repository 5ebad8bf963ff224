//! Two ends meet: nameplates, pairing, forwarding, refusals, leaving, stopping.

mod common;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::rules::Source;
use agent_wormhole_relay::server::Server;
use agent_wormhole_relay::wire::{ClientMessage, ErrorCode, Mood, Status};
use common::{Client, Running, pair, piped, unlimited};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};

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
    relay.stop().await;
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
