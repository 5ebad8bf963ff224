//! Coming back: after a drop, while the old socket lives, after the relay forgot.

mod common;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::wire::ClientMessage;
use agent_wormhole_relay::wire::{ErrorCode, Id, Resume, Role, Status};
use common::{Running, Seat, pair, unlimited};

#[tokio::test]
async fn frames_wait_for_who_comes_back() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    let (_, seat) = pair(&mut host, &mut peer).await;
    host.send("one").await;
    assert_eq!(peer.frame().await, "one");
    drop(peer);
    assert_eq!(host.status().await, Status::PeerAway);
    host.send("two").await;
    host.send("three").await;
    let mut peer = relay.client().await;
    peer.say(seat.claim()).await;
    let welcome = peer.welcome().await;
    assert_eq!((welcome.seat, welcome.nameplate), (seat.seat, None));
    assert_eq!(peer.frame().await, "two");
    assert_eq!(peer.frame().await, "three");
    assert_eq!(host.status().await, Status::PeerBack);
    peer.send("four").await;
    assert_eq!(host.frame().await, "four");
}

#[tokio::test]
async fn a_live_socket_is_replaced() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    let (seat, _) = pair(&mut host, &mut peer).await;
    let mut again = relay.client().await;
    again.say(seat.claim()).await;
    again.welcome().await;
    assert_eq!(host.closed().await, 4001);
    peer.send("to the new one").await;
    assert_eq!(again.frame().await, "to the new one");
    again.send("from the new one").await;
    assert_eq!(peer.frame().await, "from the new one");
}

#[tokio::test]
async fn a_wrong_seat_is_refused_and_disturbs_nobody() {
    let relay = Running::start(Options::default()).await;
    let (mut host, mut peer) = (relay.client().await, relay.client().await);
    let (seat, _) = pair(&mut host, &mut peer).await;
    let wrong = [
        Seat { seat: Id::new([1; 16]), ..seat.clone() },
        Seat { channel: Id::new([1; 16]), ..seat.clone() },
        Seat { role: Role::Peer, ..seat },
    ];
    for wrong in wrong {
        let mut thief = relay.client().await;
        thief.say(wrong.claim()).await;
        assert_eq!(thief.refused().await.0, ErrorCode::UnableToResume);
    }
    host.send("undisturbed").await;
    assert_eq!(peer.frame().await, "undisturbed");
}

#[tokio::test]
async fn an_unpaired_host_resumes_by_its_nameplate() {
    let relay = Running::start(Options::default()).await;
    let mut host = relay.client().await;
    let welcome = host.allocate().await;
    let nameplate = welcome.nameplate.expect("a nameplate");
    let claim = ClientMessage::Resume(Resume {
        role: Role::Host,
        seat: welcome.seat,
        channel: None,
        nameplate: Some(nameplate.clone()),
        boot: welcome.boot,
    });
    drop(host);
    let mut peer = relay.client().await;
    peer.join(&nameplate).await;
    peer.welcome().await;
    let channel = peer.paired().await;
    peer.send("anybody home").await;
    let mut host = relay.client().await;
    host.say(claim).await;
    assert_eq!(host.welcome().await.nameplate, Some(nameplate));
    assert_eq!(host.paired().await, channel);
    assert_eq!(host.frame().await, "anybody home");
}

#[tokio::test]
async fn a_relay_that_forgot_takes_both_ends_back() {
    let before = Running::start(unlimited()).await;
    let (mut host, mut peer) = (before.client().await, before.client().await);
    let (host_seat, peer_seat) = pair(&mut host, &mut peer).await;
    drop((host, peer));
    before.stop().await;

    let relay = Running::start(unlimited()).await;
    let mut host = relay.client().await;
    host.say(host_seat.claim()).await;
    assert_ne!(host.welcome().await.boot, host_seat.boot);
    assert_eq!(host.status().await, Status::PeerAway);
    host.send("found you").await;
    let mut peer = relay.client().await;
    peer.say(peer_seat.claim()).await;
    peer.welcome().await;
    assert_eq!(peer.frame().await, "found you");
    assert_eq!(host.status().await, Status::PeerBack);

    let mut thief = relay.client().await;
    thief.say(Seat { seat: Id::new([1; 16]), ..peer_seat }.claim()).await;
    assert_eq!(thief.refused().await.0, ErrorCode::UnableToResume);
}

#[tokio::test]
async fn a_lost_nameplate_is_named() {
    let relay = Running::start(unlimited()).await;
    let mut host = relay.client().await;
    let welcome = host.allocate().await;
    let mut other = relay.client().await;
    let claim = Resume {
        role: Role::Host,
        seat: Id::new([1; 16]),
        channel: None,
        nameplate: welcome.nameplate,
        boot: Id::new([2; 16]),
    };
    other.say(ClientMessage::Resume(claim)).await;
    assert_eq!(other.refused().await.0, ErrorCode::NameplateLost);
}
