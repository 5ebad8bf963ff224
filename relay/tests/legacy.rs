//! Clients of 0.1.5, with the texts as they send them: one answer, and never a text again.

mod common;

use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::wire::{ClientMessage, ErrorCode, JoinCode, Role, Status, Words};
use bytes::Bytes;
use common::{Client, Running, unlimited};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const HOST: &str = r#"{"action": "join", "code": "acorn-amber-anvil", "role": "host"}"#;
const PEER: &str = r#"{"action": "join", "code": "acorn-amber-anvil", "role": "peer"}"#;
const WAITING: &str = r#"{"type":"status","event":"waiting"}"#;
const PAIRED: &str = r#"{"type":"status","event":"paired"}"#;

/// The next message, which has to be a text.
async fn text(client: &mut Client) -> String {
    match client.next().await {
        Message::Text(text) => text.as_str().to_owned(),
        other => panic!("not a text: {other:?}"),
    }
}

/// A client that has sent this, and the answer.
async fn joined(relay: &Running, hello: &str) -> (Client, String) {
    let mut client = relay.client().await;
    client.text(hello).await;
    let answer = text(&mut client).await;
    (client, answer)
}

async fn pair(relay: &Running) -> (Client, Client) {
    let (host, answer) = joined(relay, HOST).await;
    assert_eq!(answer, WAITING);
    let (peer, answer) = joined(relay, PEER).await;
    assert_eq!(answer, PAIRED);
    (host, peer)
}

async fn close(client: &mut Client, code: u16) {
    let close = CloseFrame { code: code.into(), reason: "".into() };
    client.ws.send(Message::Close(Some(close))).await.expect("closed");
    while client.ws.next().await.is_some_and(|message| message.is_ok()) {}
}

/// An end of ours under the same code.
async fn ours(relay: &Running, role: Role) -> Client {
    let mut client = relay.client().await;
    let code = Words("acorn-amber-anvil".into());
    client.say(ClientMessage::JoinCode(JoinCode { code, role, statuses: true })).await;
    let welcome = client.welcome().await;
    assert_eq!(welcome.nameplate, None);
    client
}

#[tokio::test]
async fn the_host_speaks_before_the_peer_has_come_and_nobody_hears_a_text_again() {
    let relay = Running::start(Options { messages_per_minute: 4, ..Options::default() }).await;
    let (mut host, answer) = joined(&relay, HOST).await;
    assert_eq!(answer, WAITING);
    host.send(vec![0x41; 200]).await;
    let (mut peer, answer) = joined(&relay, PEER).await;
    assert_eq!(answer, PAIRED);
    // The fifth waits for the rate, which says so to others.
    for n in 0..4_u8 {
        peer.send(vec![n; 200]).await;
    }
    assert_eq!(peer.frame().await, vec![0x41; 200]);
    for n in 0..3_u8 {
        assert_eq!(host.frame().await, vec![n; 200]);
    }
    drop(peer);
    let (mut peer, answer) = joined(&relay, PEER).await;
    assert_eq!(answer, PAIRED);
    host.send("still a frame").await;
    assert_eq!(peer.frame().await, "still a frame");
    close(&mut peer, 1000).await;
    drop(peer);
    assert!(host.is_quiet());
    // The relay's end is a close, and no word before it.
    let hear = async move {
        loop {
            match host.next().await {
                Message::Binary(_) => {}
                Message::Close(close) => return close.map(|close| u16::from(close.code)),
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), code) = tokio::join!(relay.stop(), hear);
    assert_eq!(code, Some(1012));
}

#[tokio::test]
async fn refusals_are_in_the_words_that_it_knows() {
    let relay = Running::start(Options { channels_per_source: 1, ..Options::default() }).await;
    let refusal =
        |message: &str, code: &str| format!(r#"{{"type":"error","code":"{code}","message":"{message}"}}"#);
    let unable = refusal("unable to join channel", "unable_to_join");
    let long = format!(r#"{{"action":"join","code":"a-b-{}","role":"host"}}"#, "c".repeat(200));
    for hello in [
        PEER,
        r#"{"action":"join","code":"9471","role":"host"}"#,
        r#"{"action":"join","code":"Acorn-amber-anvil","role":"host"}"#,
        r#"{"action":"join","code":"acorn-amber","role":"peer"}"#,
        &long,
    ] {
        let (mut client, answer) = joined(&relay, hello).await;
        assert_eq!(answer, unable, "{hello}");
        assert_eq!(client.closed().await, 1008);
    }
    let (_host, answer) = joined(&relay, HOST).await;
    assert_eq!(answer, WAITING);
    let (_, answer) = joined(&relay, r#"{"action":"join","code":"a-b-c","role":"host"}"#).await;
    assert_eq!(answer, refusal("too many channels", "too_many_channels"));
}

#[tokio::test]
async fn an_operator_can_switch_it_off() {
    let relay = Running::start(Options { legacy_clients: false, ..Options::default() }).await;
    for hello in [HOST, PEER] {
        let mut client = relay.client().await;
        client.text(hello).await;
        assert_eq!(client.refused().await, (ErrorCode::UnableToJoin, "unable to join channel".into()));
    }
    let mut other = relay.client().await;
    other.allocate().await;
}

#[tokio::test]
async fn a_dead_connection_is_replaced_and_nothing_comes_twice() {
    let relay = Running::start(unlimited()).await;
    let (mut host, mut peer) = pair(&relay).await;
    host.send("one").await;
    assert_eq!(peer.frame().await, "one");
    // The relay still believes in it.
    let (mut again, answer) = joined(&relay, PEER).await;
    assert_eq!(answer, PAIRED);
    assert_eq!(peer.closed().await, 4001);
    host.send("two").await;
    assert_eq!(again.frame().await, "two");
    drop(again);
    host.send("three").await;
    let (mut again, _) = joined(&relay, PEER).await;
    assert_eq!(again.frame().await, "three");
    assert!(again.is_quiet());
}

#[tokio::test]
async fn its_close_is_a_goodbye_and_its_loss_is_not() {
    let relay = Running::start(unlimited()).await;
    for (code, status) in [
        (1000, Status::PeerLeft),
        (1001, Status::PeerLeft),
        (1011, Status::PeerAway),
        (4000, Status::PeerAway),
    ] {
        let mut host = ours(&relay, Role::Host).await;
        let (mut peer, answer) = joined(&relay, PEER).await;
        assert_eq!(answer, PAIRED);
        host.paired().await;
        close(&mut peer, code).await;
        assert_eq!(host.status().await, status, "{code}");
        host.text(r#"{"action":"bye","mood":"happy"}"#).await;
        assert_eq!(host.closed().await, 1000);
    }
}

#[tokio::test]
async fn a_hosts_goodbye_frees_the_code() {
    let relay = Running::start(unlimited()).await;
    let (mut host, _) = joined(&relay, HOST).await;
    let mut peer = ours(&relay, Role::Peer).await;
    peer.paired().await;
    host.send("last words").await;
    close(&mut host, 1000).await;
    assert_eq!(peer.frame().await, "last words");
    assert_eq!(peer.status().await, Status::PeerLeft);
    let (_host, answer) = joined(&relay, HOST).await;
    assert_eq!(answer, WAITING);
}

#[tokio::test]
async fn ends_that_take_statuses_hear_them_all() {
    let relay = Running::start(unlimited()).await;
    let mut host = ours(&relay, Role::Host).await;
    let mut peer = ours(&relay, Role::Peer).await;
    let channel = peer.paired().await;
    assert_eq!(host.paired().await, channel);
    drop(peer);
    assert_eq!(host.status().await, Status::PeerAway);
    let mut peer = ours(&relay, Role::Peer).await;
    assert_eq!(peer.paired().await, channel);
    assert_eq!(host.status().await, Status::PeerBack);
    host.say(ClientMessage::Release).await;
    assert_eq!(peer.closed().await, 4002);
    let (_peer, answer) = joined(&relay, PEER).await;
    assert_eq!(answer, PAIRED);
    assert_ne!(host.paired().await, channel);
}

#[tokio::test]
async fn nine_files_of_its_longest_size_pass_one_after_the_other() {
    let relay = Running::start(unlimited()).await;
    let (mut host, mut peer) = pair(&relay).await;
    let frame = |n: u8| Bytes::from(vec![n; 10 << 20]);
    let send = async {
        for n in 0..9 {
            host.send(frame(n)).await;
        }
    };
    let receive = async {
        for n in 0..9 {
            assert!(peer.frame().await == frame(n), "{n}");
        }
    };
    tokio::join!(send, receive);
}
