//! The contract over Redis, and what only a store outside the process can do: be shared, go away, come back, forget.

use std::future::poll_fn;
use std::time::Instant;

use futures_util::FutureExt as _;

use super::*;
use crate::exchange::tests::redis_server::RedisServer;
use crate::exchange::tests::{End, caller, frame, host, pair, paired, peer, rang};
use crate::rules::FRAME_OVERHEAD;
use crate::wire::Status;

/// A store of its own for each test, on a server of its own.
fn stores() -> impl AsyncFn(Options, Instant) -> Redis {
    let server = RedisServer::start();
    async move |options: Options, _now| store(&server, &fresh_id(&mut OsRng).to_string(), &options).await
}

async fn store(server: &RedisServer, prefix: &str, options: &Options) -> Redis {
    Redis::open(&server.url(), prefix, options).await.expect("Redis is there")
}

/// Two instances of one relay.
async fn two(server: &RedisServer, options: &Options) -> (Redis, Redis) {
    (store(server, "shared", options).await, store(server, "shared", options).await)
}

/// Until the bell rings: a wake-up of another instance takes its time.
async fn rung(bell: &Bell) {
    let rung = timeout(Duration::from_secs(10), poll_fn(|cx| bell.poll_rung(cx))).await;
    rung.expect("the bell rings");
}

fn unlimited() -> Options {
    Options { memory_per_source: Options::default().memory_per_source, ..Options::local() }
}

mod contract {
    crate::exchange::tests::suite!(super::stores());
}

#[tokio::test]
async fn a_channel_spans_instances_and_each_wakes_the_others() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let (one, two) = two(&server, &unlimited()).await;
    assert_eq!(one.boot(), two.boot());
    let (host, nameplate) = host(&one, 1, now).await;
    assert!(host.pop(&one, 0, now).await.statuses.is_empty());
    let mut peer = peer(&two, &nameplate, 2, now).await;
    rung(&host.bell).await;
    let channel = paired(&host.pop(&one, 0, now).await);
    assert_eq!(paired(&peer.pop(&two, 0, now).await), channel);
    assert_eq!(one.slot(&host.hold), two.slot(&peer.hold));
    rang(&peer.bell);
    host.push(&one, "there", now).await;
    rung(&peer.bell).await;
    assert_eq!(peer.drain(&two, now).await, ["there"]);
    peer.push(&two, "and back", now).await;
    rung(&host.bell).await;
    assert_eq!(host.drain(&one, now).await, ["and back"]);
    // On a third instance, which takes the seat from the second.
    let three = store(&server, "shared", &unlimited()).await;
    let (bell, old) = (peer.bell.clone(), peer.resume(&three, channel, 2, now).await);
    rung(&bell).await;
    assert_eq!(two.pop(&old, 0, now).await.err(), Some(Ended::Replaced));
    assert!(peer.pop(&three, 0, now).await.frames.is_empty());
    host.push(&one, "to the third", now).await;
    rung(&peer.bell).await;
    assert_eq!(peer.drain(&three, now).await, ["to the third"]);
}

#[tokio::test]
async fn a_code_spans_instances_and_no_key_holds_a_word_of_it() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let (one, two) = two(&server, &unlimited()).await;
    let code = CodeHash::of("acorn-amber-anvil").expect("a code");
    let (at_one, at_two) = (caller(1), caller(2));
    let host = one.join_code(&code, Role::Host, at_one.clone(), now).await.expect("a seat");
    assert_eq!(one.push(&host.hold, "before the peer".into(), now).await, Ok(Pushed::Taken));
    let peer = two.join_code(&code, Role::Peer, at_two, now).await.expect("a seat");
    rung(&at_one.bell).await;
    paired(&one.pop(&host.hold, 0, now).await.expect("seated"));
    assert_eq!(two.pop(&peer.hold, 0, now).await.expect("seated").frames, ["before the peer"]);
    let mut redis = client(&server).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.expect("keys");
    assert!(keys.iter().any(|key| key.ends_with(&code.to_hex())), "{keys:?}");
    assert!(
        !keys.iter().any(|key| ["acorn", "amber", "anvil"].iter().any(|word| key.contains(word))),
        "{keys:?}"
    );
    one.bye(host.hold, Mood::Happy, now).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.expect("keys");
    assert!(!keys.iter().any(|key| key.contains(&code.to_hex())), "{keys:?}");
}

#[tokio::test]
async fn a_slow_reader_at_one_instance_stops_the_writer_at_another() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let (one, two) = two(&server, &unlimited()).await;
    let (host, nameplate) = host(&one, 1, now).await;
    let peer = peer(&two, &nameplate, 2, now).await;
    paired(&host.pop(&one, 0, now).await);
    let mut sent = 0;
    while one.push(&host.hold, frame(300 << 10), now).await == Ok(Pushed::Taken) {
        sent += 1;
        assert!(sent < 100);
    }
    assert_eq!(sent, 6, "2 MiB");
    host.bell.ring();
    assert!(rang(&host.bell));
    assert_eq!(peer.pop(&two, 0, now).await.frames.len(), 1);
    assert!(!rang(&host.bell));
    peer.pop(&two, 1, now).await;
    rung(&host.bell).await;
    host.push(&one, frame(300 << 10), now).await;
    assert_eq!(peer.drain(&two, now).await.len(), 5, "six and one, less the two that it was given");
}

#[tokio::test]
async fn an_instance_that_dies_leaves_its_seats_to_others() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let (one, two) = two(&server, &unlimited()).await;
    let (host, nameplate) = host(&one, 1, now).await;
    let mut peer = peer(&two, &nameplate, 2, now).await;
    let channel = paired(&host.pop(&one, 0, now).await);
    paired(&peer.pop(&two, 0, now).await);
    for n in 0..3_u8 {
        host.push(&one, vec![n], now).await;
    }
    // Handed to a socket that dies with its instance.
    assert_eq!(peer.pop(&two, 0, now).await.frames.len(), 3);
    let instance = two.inner.link.instance_key();
    let mut redis = client(&server).await;
    let _: u64 = redis::cmd("DEL").arg(instance).query_async(&mut redis).await.expect("deleted");
    assert_eq!(host.pop(&one, 0, now).await.statuses, [Status::PeerAway], "its word is not heard any more");
    peer.resume(&one, channel, 2, now).await;
    assert_eq!(peer.drain(&one, now).await, [[0], [1], [2]].map(Vec::from));
    assert_eq!(host.pop(&one, 0, now).await.statuses, [Status::PeerBack]);
}

#[tokio::test]
async fn what_is_asked_twice_is_done_once() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "twice", &unlimited()).await;
    let (host, peer, _) = pair(&store, now).await;
    host.push(&store, "once", now).await;
    // As if the reply had been lost with its connection.
    host.hold.handed().pushed = 0;
    host.push(&store, "once", now).await;
    assert_eq!(peer.pop(&store, 0, now).await.frames, ["once"]);
    let written = peer.hold.handed().given.clone();
    assert!(peer.pop(&store, 1, now).await.frames.is_empty());
    peer.hold.handed().given = written;
    assert!(peer.pop(&store, 1, now).await.frames.is_empty());
    assert_eq!(total(&server, "twice").await, 0, "its memory was freed once");
}

#[tokio::test]
async fn what_a_lost_reply_said_is_said_again() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "said", &unlimited()).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let _peer = peer(&store, &nameplate, 2, now).await;
    let channel = paired(&host.pop(&store, 0, now).await);
    host.hold.handed().asked -= 1;
    assert_eq!(paired(&host.pop(&store, 0, now).await), channel);
    assert!(host.pop(&store, 0, now).await.statuses.is_empty(), "it was heard");
}

#[tokio::test]
async fn a_release_that_is_asked_twice_leaves_the_next_peer_alone() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "released", &unlimited()).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let stranger = peer(&store, &nameplate, 2, now).await;
    assert_eq!(store.release(&host.hold, now).await, Ok(true));
    let next = peer(&store, &nameplate, 3, now).await;
    host.hold.handed().asked -= 1;
    assert_eq!(store.release(&host.hold, now).await, Ok(true));
    assert_eq!(store.pop(&stranger.hold, 0, now).await.err(), Some(Ended::Released));
    paired(&next.pop(&store, 0, now).await);
    assert_eq!(store.release(&host.hold, now).await, Ok(true));
    assert_eq!(store.pop(&next.hold, 0, now).await.err(), Some(Ended::Released));
}

#[tokio::test]
async fn who_does_not_wait_any_more_takes_no_seat_from_those_who_sit() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let (one, mut two) = two(&server, &unlimited()).await;
    let (_host, peer, channel) = pair(&one, now).await;
    two.wait = Duration::ZERO;
    let late = two.resume(&peer.claim(channel), caller(2), now).await;
    assert!(matches!(late, Err(Refusal::Away)));
    assert!(matches!(two.allocate(caller(3), now).await, Err(Refusal::Away)));
    // Its task has asked meanwhile, and was answered.
    two.sweep(now).await;
    two.sweep(now).await;
    assert_eq!(two.usage().map(|usage| usage.channels), Some(1));
    assert!(one.pop(&peer.hold, 0, now).await.is_ok(), "the socket that was there is there");
}

#[tokio::test]
async fn what_comes_late_by_connections_that_were_given_up_is_refused() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "late", &unlimited()).await;
    let (host, peer, _) = pair(&store, now).await;
    let (link, push) = (&store.inner.link, &store.inner.scripts.push);
    let old = link.live_now().expect("there");
    old.give_up("as if it had not answered in time");
    // Asked again on the next ones, and another after it.
    host.push(&store, "one", now).await;
    host.push(&store, "two", now).await;
    let args = [host.hold.key.clone(), "h".into(), host.hold.epoch.to_string(), "1".into(), "one".into()];
    let args = args.map(Bytes::from);
    let late = link.ask(&old, Ask { script: push, boot: &old.boot, now, args: &args, bulk: false }).await;
    assert!(matches!(late, Answer::Again), "{late:?}");
    assert_eq!(peer.drain(&store, now).await, ["one", "two"]);
}

#[tokio::test]
async fn a_redis_that_stands_still_is_waited_for() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "still", &unlimited()).await;
    let (host, peer, _) = pair(&store, now).await;
    server.freeze();
    let mut push = Box::pin(store.push(&host.hold, frame(10), now));
    assert!((&mut push).now_or_never().is_none());
    assert!(timeout(Duration::from_millis(50), &mut push).await.is_err());
    server.go_on();
    assert_eq!(push.await, Ok(Pushed::Taken));
    assert_eq!(peer.drain(&store, now).await.len(), 1);
}

#[tokio::test]
async fn a_redis_that_lost_everything_makes_everybody_resume() {
    let (mut server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "lost", &unlimited()).await;
    let (mut host, mut peer, channel) = pair(&store, now).await;
    let boot = store.boot();
    rang(&host.bell);
    server.kill();
    let pushed = store.push(&host.hold, frame(10), now);
    let (pushed, ()) = tokio::join!(pushed, async {
        while store.is_ready() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(store.allocate(caller(3), now).await, Err(Refusal::Away)));
        server.start_again();
    });
    assert_eq!(pushed, Err(Ended::Forgot));
    rung(&host.bell).await;
    assert_eq!(store.pop(&host.hold, 0, now).await.err(), Some(Ended::Forgot));
    assert_ne!(store.boot(), boot);
    peer.resume(&store, channel, 2, now).await;
    host.resume(&store, channel, 1, now).await;
    host.push(&store, "again", now).await;
    assert_eq!(peer.drain(&store, now).await, ["again"]);
}

#[tokio::test]
async fn a_redis_that_is_emptied_is_noticed() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "emptied", &unlimited()).await;
    let (host, ..) = pair(&store, now).await;
    let boot = store.boot();
    let mut redis = client(&server).await;
    let _: String = redis::cmd("FLUSHALL").query_async(&mut redis).await.expect("emptied");
    rang(&host.bell);
    assert_eq!(store.pop(&host.hold, 0, now).await.err(), Some(Ended::Forgot));
    assert_ne!(store.boot(), boot);
}

#[tokio::test]
async fn a_redis_that_kept_its_files_goes_on_with_them() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let now = Instant::now();
    let store = store(&server, "kept", &unlimited()).await;
    let (host, mut peer, channel) = pair(&store, now).await;
    let boot = store.boot();
    host.push(&store, "kept", now).await;
    rang(&host.bell);
    server.kill();
    server.start_again();
    rung(&host.bell).await;
    assert_eq!(
        store.pop(&host.hold, 0, now).await.err(),
        Some(Ended::Forgot),
        "it may have forgotten something"
    );
    assert_ne!(store.boot(), boot);
    peer.resume(&store, channel, 2, now).await;
    assert_eq!(peer.drain(&store, now).await, ["kept"]);
}

#[tokio::test]
async fn a_redis_without_memory_is_full_and_gives_it_back() {
    let server = RedisServer::start_with(&["--maxmemory", "12mb", "--maxmemory-policy", "noeviction"]);
    let now = Instant::now();
    let store = store(&server, "tight", &unlimited()).await;
    let mut ends = Vec::new();
    let stopped = loop {
        let (host, peer, _) = pair(&store, now).await;
        let pushed = store.push(&host.hold, frame(1 << 20), now).await.expect("seated");
        ends.push((host, peer));
        assert!(ends.len() < 30);
        match pushed {
            Pushed::Taken => {}
            Pushed::Full(frame) => break frame,
            Pushed::Unpaired => panic!("unpaired"),
        }
    };
    let (last, _) = ends.last().expect("one");
    for (_, peer) in &ends {
        peer.drain(&store, now).await;
    }
    rung(&last.bell).await;
    last.push(&store, stopped, now).await;
}

#[tokio::test]
async fn a_socket_that_vanished_without_a_word_leaves_its_seat() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "vanished", &unlimited()).await;
    let (host, peer, _) = pair(&store, now).await;
    rang(&host.bell);
    drop(peer.hold);
    rung(&host.bell).await;
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::PeerAway]);
}

#[tokio::test]
async fn every_key_expires_and_none_tells_an_address() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let options = Options { messages_per_minute: 1, ..Options::default() };
    let store = store(&server, "named", &options).await;
    let (one, nameplate) = host(&store, 1, now).await;
    let two = peer(&store, &nameplate, 2, now).await;
    for _ in 0..3 {
        let _ = store.push(&one.hold, frame(1 << 20), now).await;
        let _ = store.join("1", caller(3), now).await;
    }
    two.pop(&store, 0, now).await;
    store.sweep(now).await;
    let (gone, _) = host(&store, 4, now).await;
    store.bye(gone.hold, Mood::Lonely, now).await;
    let mut redis = client(&server).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.expect("keys");
    assert!(keys.len() > 8, "{keys:?}");
    for key in keys {
        assert!(key.starts_with("{named}:"), "{key}");
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis).await.expect("a time");
        assert!(left > 0, "{key} never expires");
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.expect("a dump");
        for address in [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]] {
            assert!(!dump.windows(4).any(|window| window == address), "{key}");
        }
        assert!(!String::from_utf8_lossy(&dump).contains("192.0.2") && !key.contains("192.0"), "{key}");
    }
}

#[tokio::test]
async fn a_sweep_renews_what_those_who_hold_memory_are_known_by() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let (store, idle) = (store(&server, "renewed", &Options::default()).await, Options::default().idle);
    let (_host, peer, _) = pair(&store, now).await;
    peer.push(&store, "from another source than the channel", now + idle / 2).await;
    let mut redis = client(&server).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:source:*").query_async(&mut redis).await.expect("keys");
    assert_eq!(keys.len(), 2);
    for key in &keys {
        let _: u64 = redis::cmd("EXPIRE").arg(key).arg(60).query_async(&mut redis).await.expect("set");
    }
    store.sweep(now + idle).await;
    for key in &keys {
        let left: u64 = redis::cmd("TTL").arg(key).query_async(&mut redis).await.expect("a time");
        assert!(left > 60, "{left} s");
    }
}

#[tokio::test]
async fn connections_are_three_whatever_the_number_of_channels() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let options = Options { channels_per_source: 0, ..unlimited() };
    let store = store(&server, "many", &options).await;
    let mut redis = client(&server).await;
    let mut ends = Vec::new();
    for _ in 0..200 {
        ends.push(pair(&store, now).await);
    }
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.expect("a list");
    assert_eq!(list.lines().count(), 3 + 1, "{list}");
}

#[tokio::test]
async fn a_cluster_takes_all_keys_and_sends_us_to_their_node() {
    let cluster: &[&str] = &["--cluster-enabled", "yes"];
    let (one, two) = (RedisServer::start_with(cluster), RedisServer::start_with(cluster));
    let (mut first, mut second) = (client(&one).await, client(&two).await);
    let ok = |slots: &str| {
        let (from, to) = slots.split_once('-').expect("a range");
        redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(from).arg(to).to_owned()
    };
    let _: String = ok("0-8191").query_async(&mut first).await.expect("slots");
    let _: String = ok("8192-16383").query_async(&mut second).await.expect("slots");
    let mut meet = redis::cmd("CLUSTER");
    meet.arg("MEET").arg("127.0.0.1").arg(two.port());
    let _: String = meet.query_async(&mut first).await.expect("met");
    for redis in [&mut first, &mut second] {
        loop {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(redis).await.expect("info");
            if info.contains("cluster_state:ok") {
                break;
            }
        }
    }
    // Whichever node a prefix belongs to, from the same one.
    for n in 0..8 {
        let now = Instant::now();
        let store = store(&one, &format!("prefix{n}"), &unlimited()).await;
        let (host, peer, _) = pair(&store, now).await;
        host.push(&store, "here", now).await;
        assert_eq!(peer.drain(&store, now).await, ["here"]);
    }
    for redis in [&mut first, &mut second] {
        let keys: u64 = redis::cmd("DBSIZE").query_async(redis).await.expect("a number");
        assert!(keys > 0);
    }
}

#[tokio::test]
async fn what_waiting_does_not_mend_is_said_at_once() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let open = async |url: String| Redis::open(&url, "x", &Options::default()).await.map(drop);
    let url = |who: &str| server.url().replace("redis://", &format!("redis://{who}"));
    assert!(matches!(open(url("")).await, Err(RedisError::Refused(_))));
    assert!(matches!(open(url(":wrong@")).await, Err(RedisError::Refused(_))));
    assert!(open(url(":right@")).await.is_ok());
    assert!(matches!(open("http://x".into()).await, Err(RedisError::Url(_))));
    let nobody = Redis::open("redis://127.0.0.1:1", "x", &Options::default()).await.expect("waits");
    assert!(!nobody.is_ready());
    assert!(matches!(nobody.allocate(caller(1), Instant::now()).await, Err(Refusal::Away)));
}

/// A connection of the test's own.
async fn client(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("Redis is there")
}

/// Bytes that all queues hold.
async fn total(server: &RedisServer, prefix: &str) -> usize {
    let mut asking = redis::cmd("HGET");
    asking.arg(format!("{{{prefix}}}:ledger")).arg("total");
    let total: Option<usize> = asking.query_async(&mut client(server).await).await.expect("a number");
    total.unwrap_or_default()
}

#[tokio::test]
async fn sums_return_to_nothing() {
    let (server, now) = (RedisServer::start(), Instant::now());
    let store = store(&server, "sums", &unlimited()).await;
    let (host, peer, _) = pair(&store, now).await;
    host.push(&store, frame(1000), now).await;
    assert_eq!(total(&server, "sums").await, 1000 + FRAME_OVERHEAD);
    let End { hold, .. } = peer;
    store.bye(hold, Mood::Happy, now).await;
    store.bye(host.hold, Mood::Happy, now).await;
    assert_eq!(total(&server, "sums").await, 0);
    let mut redis = client(&server).await;
    let left: Vec<String> =
        redis::cmd("KEYS").arg("*:channel:*").query_async(&mut redis).await.expect("keys");
    assert!(left.is_empty(), "{left:?}");
}
