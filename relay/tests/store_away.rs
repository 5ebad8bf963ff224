//! What a relay does while its store is away: it is not ready, says so, and still ends in time.

mod common;

use std::time::{Duration, Instant};

use agent_wormhole_relay::exchange::memory::{Hold, Memory};
use agent_wormhole_relay::exchange::{Caller, Due, Ended, Exchange, Pushed, Refusal, Seated, Usage};
use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::rules::{CodeHash, Source};
use agent_wormhole_relay::server::Server;
use agent_wormhole_relay::wire::{ClientMessage, Id, Mood, Resume, Role, Status};
use bytes::Bytes;
use common::{Log, PIPE, pair, piped, unlimited};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// A store that can be away.
struct Fickle {
    memory: Memory,
    here: watch::Receiver<bool>,
}

impl Fickle {
    /// Ready while it is not away.
    async fn back(&self) {
        let _ = self.here.clone().wait_for(|here| *here).await;
    }
}

impl Exchange for Fickle {
    type Hold = Hold;

    fn boot(&self) -> Id {
        self.memory.boot()
    }
    fn is_ready(&self) -> bool {
        *self.here.borrow()
    }
    fn is_shared(&self) -> bool {
        true
    }
    fn usage(&self) -> Option<Usage> {
        None
    }
    fn slot(&self, hold: &Hold) -> u64 {
        self.memory.slot(hold)
    }
    async fn allocate(&self, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        if self.is_ready() { self.memory.allocate(caller, now).await } else { Err(Refusal::Away) }
    }
    async fn join(&self, nameplate: &str, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        self.memory.join(nameplate, caller, now).await
    }
    async fn join_code(
        &self,
        code: &CodeHash,
        role: Role,
        caller: Caller,
        now: Instant,
    ) -> Result<Seated<Hold>, Refusal> {
        self.memory.join_code(code, role, caller, now).await
    }
    async fn resume(&self, claim: &Resume, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        self.memory.resume(claim, caller, now).await
    }
    async fn release(&self, hold: &Hold, now: Instant) -> Result<bool, Ended> {
        self.memory.release(hold, now).await
    }
    async fn bye(&self, hold: Hold, mood: Mood, now: Instant) {
        self.memory.bye(hold, mood, now).await;
    }
    async fn leave(&self, hold: Hold, written: usize, now: Instant) {
        self.memory.leave(hold, written, now).await;
    }
    async fn push(&self, hold: &Hold, frame: Bytes, now: Instant) -> Result<Pushed, Ended> {
        self.back().await;
        self.memory.push(hold, frame, now).await
    }
    async fn pop(&self, hold: &Hold, written: usize, now: Instant) -> Result<Due, Ended> {
        self.back().await;
        self.memory.pop(hold, written, now).await
    }
    async fn sweep(&self, now: Instant) {
        self.memory.sweep(now).await;
    }
}

/// A relay over a store that is here, and what sends the store away.
fn fickle(options: Options) -> (Server<Fickle>, watch::Sender<bool>) {
    let (tell, here) = watch::channel(true);
    let memory = Memory::new(&options, Instant::now());
    let server = Server::with(options, Fickle { memory, here }).expect("options");
    (server, tell)
}

async fn readiness(server: &Server<Fickle>) -> String {
    let (mut client, theirs) = tokio::io::duplex(PIPE);
    server.serve_connection(theirs, Source::Local);
    client.write_all(b"GET /ready HTTP/1.1\r\nHost: relay\r\n\r\n").await.expect("asked");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer that ends");
    answer.split(' ').nth(1).expect("a status").to_owned()
}

#[tokio::test(start_paused = true)]
async fn it_is_not_ready_and_refuses_seats() {
    let (server, here) = fickle(unlimited());
    assert_eq!(readiness(&server).await, "200");
    here.send_replace(false);
    assert_eq!(readiness(&server).await, "503");
    let mut client = piped(&server, Source::Local).await;
    client.text(r#"{"action":"allocate"}"#).await;
    assert_eq!(client.closed().await, 1012);
    here.send_replace(true);
    assert_eq!(readiness(&server).await, "200");
}

#[tokio::test(start_paused = true)]
async fn a_shared_store_gives_a_drain_its_ten_seconds() {
    let (server, _here) = fickle(unlimited());
    let mut pairs = Vec::new();
    for _ in 0..20 {
        let (mut host, mut peer) = (piped(&server, Source::Local).await, piped(&server, Source::Local).await);
        pair(&mut host, &mut peer).await;
        pairs.push((host, peer));
    }
    let start = tokio::time::Instant::now();
    let last = async {
        for (host, peer) in &mut pairs {
            assert_eq!(host.status().await, Status::GoingAway);
            assert_eq!(peer.status().await, Status::GoingAway);
        }
        for (mut host, _peer) in pairs {
            while !matches!(host.next().await, Message::Close(_)) {}
        }
        start.elapsed()
    };
    let (last, ()) = tokio::join!(last, server.drain());
    assert!((5..10).contains(&last.as_secs()), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_store_is_let_go_in_its_slot() {
    let (server, here) = fickle(Options { drain: Some(Duration::from_secs(10)), ..unlimited() });
    let (mut host, mut peer) = (piped(&server, Source::Local).await, piped(&server, Source::Local).await);
    pair(&mut host, &mut peer).await;
    here.send_replace(false);
    // The relay hands it to the store, and hears nothing.
    host.send("waits").await;
    let start = tokio::time::Instant::now();
    let told = async {
        for client in [&mut host, &mut peer] {
            assert_eq!(client.status().await, Status::GoingAway);
            assert_eq!(client.closed().await, 1012);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    };
    tokio::join!(told, server.drain());
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_when_it_goes_and_comes_back() {
    let log = Log::listen();
    let (server, here) = fickle(unlimited());
    let changes = async {
        for is in [true, false, false, true] {
            here.send_replace(is);
            sleep(Duration::from_secs(5)).await;
        }
    };
    tokio::select! {
        () = server.watch_store() => {}
        () = changes => {}
    }
    let log = log.text();
    for line in [
        "WARN agent_wormhole_relay::events: the store is away",
        "INFO agent_wormhole_relay::events: the store is back",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_an_end_is_heard_before_it() {
    for says_bye in [true, false] {
        let (server, here) = fickle(unlimited());
        let (mut host, mut peer) = (piped(&server, Source::Local).await, piped(&server, Source::Local).await);
        pair(&mut host, &mut peer).await;
        here.send_replace(false);
        host.send("one").await;
        host.send("two").await;
        if says_bye {
            host.say(ClientMessage::Bye { mood: Mood::Happy }).await;
        }
        host.ws.close(None).await.expect("said");
        drop(host);
        sleep(Duration::from_secs(1)).await;
        here.send_replace(true);
        if says_bye {
            assert_eq!((peer.frame().await, peer.frame().await), ("one".into(), "two".into()));
            assert_eq!(peer.status().await, Status::PeerLeft);
        } else {
            // A status is written before the frames that are due with it.
            assert_eq!(peer.status().await, Status::PeerAway);
            assert_eq!((peer.frame().await, peer.frame().await), ("one".into(), "two".into()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_closes_with_the_last_word_of_0_1_5_has_left() {
    let (server, here) = fickle(unlimited());
    let (mut host, mut peer) = (piped(&server, Source::Local).await, piped(&server, Source::Local).await);
    host.text(r#"{"action":"join","code":"acorn-amber-anvil","role":"host"}"#).await;
    assert_eq!(host.next().await, Message::text(r#"{"type":"status","event":"waiting"}"#));
    peer.text(r#"{"action":"join","code":"acorn-amber-anvil","role":"peer","statuses":true}"#).await;
    peer.welcome().await;
    peer.paired().await;
    here.send_replace(false);
    host.send("one").await;
    host.send("and the last").await;
    host.ws.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await.expect("said");
    sleep(Duration::from_secs(1)).await;
    here.send_replace(true);
    assert_eq!((peer.frame().await, peer.frame().await), ("one".into(), "and the last".into()));
    assert_eq!(peer.status().await, Status::PeerLeft);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_while_it_was_away_does_not_come_twice() {
    let (server, here) = fickle(unlimited());
    let (mut host, mut peer) = (piped(&server, Source::Local).await, piped(&server, Source::Local).await);
    let (_, seat) = pair(&mut host, &mut peer).await;
    // More than the pipe holds: it is being written.
    host.send(vec![1; 3 * PIPE]).await;
    sleep(Duration::from_secs(1)).await;
    here.send_replace(false);
    assert_eq!(peer.frame().await.len(), 3 * PIPE);
    sleep(Duration::from_secs(1)).await;
    drop(peer);
    sleep(Duration::from_secs(1)).await;
    here.send_replace(true);
    assert_eq!(host.status().await, Status::PeerAway);
    host.send("next").await;
    let mut peer = piped(&server, Source::Local).await;
    peer.say(seat.claim()).await;
    peer.welcome().await;
    assert_eq!(peer.frame().await.len(), "next".len());
}
