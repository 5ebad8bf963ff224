//! Seats, pairing, presence, limits, expiry.

use super::*;
use crate::exchange::{Ended, Usage};
use crate::rules::UNCLAIMED_ABSENCE;
use crate::wire::Mood;

pub(in crate::exchange) async fn a_join_pairs_with_a_fresh_channel<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    assert_eq!(host.pop(&store, 0, now).await.statuses, []);
    let peer = peer(&store, &nameplate, 2, now).await;
    assert!(rang(&host.bell));
    let channel = paired(&host.pop(&store, 0, now).await);
    assert_eq!(paired(&peer.pop(&store, 0, now).await), channel);
    assert_eq!(host.pop(&store, 0, now).await.statuses, []);
    let (_, _, other) = pair(&store, now).await;
    assert_ne!(channel, other);
}

pub(in crate::exchange) async fn a_third_party_is_refused_like_a_stranger<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (_, nameplate) = host(&store, 1, now).await;
    peer(&store, &nameplate, 2, now).await;
    for (n, at) in [&nameplate, "1", "0000", "nonsense", ""].into_iter().enumerate() {
        let refusal = refused(store.join(at, caller(10 + n as u8), now).await);
        assert_eq!(refusal, ErrorCode::UnableToJoin, "{at}");
    }
    // The operator's counters know the difference.
    assert_eq!(store.join(&nameplate, caller(3), now).await.err(), Some(Refusal::Crowded));
    assert_eq!(store.join("1", caller(3), now).await.err(), Some(Refusal::Code(ErrorCode::UnableToJoin)));
}

pub(in crate::exchange) async fn both_ends_share_a_slot_and_channels_do_not<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let mut slots = Vec::new();
    for _ in 0..20 {
        let (host, peer, _) = pair(&store, now).await;
        assert_eq!(store.slot(&host.hold), store.slot(&peer.hold));
        // Only the upper half counts.
        slots.push(store.slot(&host.hold) >> 32);
    }
    slots.sort_unstable();
    slots.dedup();
    // Two of twenty share one of 2^32 once in twenty million runs.
    assert_eq!(slots.len(), 20);
}

pub(in crate::exchange) async fn a_sweep_tells_what_the_store_holds<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, _) = pair(&store, now).await;
    host.push(&store, vec![0; 1000], now).await;
    store.sweep(now).await;
    let held = 1000 + crate::rules::FRAME_OVERHEAD;
    assert_eq!(store.usage(), Some(Usage { channels: 1, queued: held }));
    assert_eq!(peer.drain(&store, now).await.len(), 1);
    store.bye(host.hold, Mood::Happy, now).await;
    store.bye(peer.hold, Mood::Happy, now).await;
    store.sweep(now).await;
    assert_eq!(store.usage(), Some(Usage { channels: 0, queued: 0 }));
}

pub(in crate::exchange) async fn the_host_may_be_away_when_it_is_joined<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    store.leave(host.hold, 0, now).await;
    let peer = peer(&store, &nameplate, 2, now).await;
    let due = peer.pop(&store, 0, now).await;
    paired(&due);
    assert_eq!(due.statuses.get(1), Some(&Status::PeerAway));
}

pub(in crate::exchange) async fn a_resume_replaces_the_socket_before_it<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (mut host, peer, channel) = pair(&store, now).await;
    let bell = host.bell.clone();
    rang(&bell);
    let old = host.resume(&store, channel, 1, now).await;
    assert!(rang(&bell), "the old socket is woken");
    assert_eq!(store.pop(&old, 0, now).await.err(), Some(Ended::Replaced));
    assert_eq!(store.push(&old, Bytes::from("x"), now).await, Err(Ended::Replaced));
    store.leave(old, 0, now).await;
    assert_eq!(peer.pop(&store, 0, now).await.statuses, [], "the seat was never empty");
    host.push(&store, "new", now).await;
    assert_eq!(peer.drain(&store, now).await, ["new"]);
}

pub(in crate::exchange) async fn a_wrong_seat_resumes_nothing<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, channel) = pair(&store, now).await;
    let swapped = Resume { role: Role::Peer, ..host.claim(channel) };
    assert_eq!(refused(store.resume(&swapped, caller(9), now).await), ErrorCode::UnableToResume);
    let wrong = Resume { seat: Id::new([0; 16]), ..peer.claim(channel) };
    assert_eq!(refused(store.resume(&wrong, caller(9), now).await), ErrorCode::UnableToResume);
    let unknown = host.claim(Id::new([7; 16]));
    assert_eq!(refused(store.resume(&unknown, caller(9), now).await), ErrorCode::UnableToResume);
    assert!(store.pop(&host.hold, 0, now).await.is_ok(), "the owner still sits");
}

pub(in crate::exchange) async fn wrong_seats_count_as_failed_joins<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options { failed_joins_per_minute: 2, ..Options::default() }, now).await;
    let (mut host, _peer, channel) = pair(&store, now).await;
    let (waiting, nameplate) = super::host(&store, 3, now).await;
    let wrong = Resume { seat: Id::new([0; 16]), ..host.claim(channel) };
    let by_nameplate = Resume {
        seat: Id::new([0; 16]),
        channel: None,
        nameplate: Some(nameplate.clone()),
        ..waiting.claim(channel)
    };
    assert_eq!(refused(store.resume(&wrong, caller(9), now).await), ErrorCode::UnableToResume);
    assert_eq!(refused(store.resume(&by_nameplate, caller(9), now).await), ErrorCode::NameplateLost);
    for claim in [&wrong, &by_nameplate] {
        assert_eq!(refused(store.resume(claim, caller(9), now).await), ErrorCode::TooManyFailedJoins);
    }
    assert_eq!(refused(store.join(&nameplate, caller(9), now).await), ErrorCode::TooManyFailedJoins);
    // Whether somebody has a nameplate must not be told apart by this, or for free.
    let nobody = Resume { nameplate: Some("123456789".into()), ..by_nameplate.clone() };
    assert_eq!(refused(store.resume(&nobody, caller(9), now).await), ErrorCode::TooManyFailedJoins);
    for code in [ErrorCode::NameplateLost, ErrorCode::NameplateLost, ErrorCode::TooManyFailedJoins] {
        assert_eq!(refused(store.resume(&nobody, caller(8), now).await), code);
    }
    // Who has the seat may have a neighbour who guesses.
    host.resume(&store, channel, 9, now).await;
    assert_eq!(refused(store.resume(&wrong, caller(9), now + secs(30)).await), ErrorCode::UnableToResume);
}

pub(in crate::exchange) async fn presence_is_told<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, mut peer, channel) = pair(&store, now).await;
    rang(&host.bell);
    let old = std::mem::replace(&mut peer.hold, host_hold_placeholder(&store, now).await);
    store.leave(old, 0, now).await;
    assert!(rang(&host.bell));
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::PeerAway]);
    assert_eq!(host.pop(&store, 0, now).await.statuses, []);
    peer.resume(&store, channel, 2, now).await;
    assert!(rang(&host.bell));
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::PeerBack]);
    store.leave(host.hold, 0, now).await;
    peer.resume(&store, channel, 2, now).await;
    assert_eq!(peer.pop(&store, 0, now).await.statuses, [Status::PeerAway]);
}

/// A hold of nobody's interest, to put in the place of one that is given up.
async fn host_hold_placeholder<E: Exchange>(store: &E, now: Instant) -> E::Hold {
    host(store, 200, now).await.0.hold
}

pub(in crate::exchange) async fn release_frees_the_nameplate<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let first = peer(&store, &nameplate, 2, now).await;
    let channel = paired(&host.pop(&store, 0, now).await);
    assert_eq!(store.release(&host.hold, now).await, Ok(true));
    assert_eq!(refused(store.resume(&first.claim(channel), caller(2), now).await), ErrorCode::UnableToResume);
    assert_eq!(host.pop(&store, 0, now).await.statuses, []);
    let second = peer(&store, &nameplate, 3, now).await;
    let again = paired(&host.pop(&store, 0, now).await);
    assert_ne!(channel, again);
    assert_eq!(paired(&second.pop(&store, 0, now).await), again);
}

pub(in crate::exchange) async fn a_released_peer_is_told_so<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let one = peer(&store, &nameplate, 2, now).await;
    rang(&one.bell);
    assert_eq!(store.release(&host.hold, now).await, Ok(true));
    assert!(rang(&one.bell));
    peer(&store, &nameplate, 3, now).await;
    assert_eq!(store.pop(&one.hold, 0, now).await.err(), Some(Ended::Released));
    // The release was a failed join of the released one, and of nobody else.
    for _ in 0..4 {
        assert_eq!(refused(store.join("1", caller(2), now).await), ErrorCode::UnableToJoin);
    }
    assert_eq!(refused(store.join("1", caller(2), now).await), ErrorCode::TooManyFailedJoins);
    assert_eq!(refused(store.join("1", caller(3), now).await), ErrorCode::UnableToJoin);
}

pub(in crate::exchange) async fn only_a_host_releases<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, _) = pair(&store, now).await;
    assert_eq!(store.release(&peer.hold, now).await, Ok(false));
    assert!(store.pop(&host.hold, 0, now).await.is_ok() && store.pop(&peer.hold, 0, now).await.is_ok());
}

pub(in crate::exchange) async fn bye_frees_the_nameplate<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options { channels_per_source: 1, ..Options::default() }, now).await;
    let (one, nameplate) = host(&store, 1, now).await;
    store.bye(one.hold, Mood::Lonely, now).await;
    assert_eq!(refused(store.join(&nameplate, caller(2), now).await), ErrorCode::UnableToJoin);
    host(&store, 1, now).await;
}

pub(in crate::exchange) async fn scary_counts_once<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options { failed_joins_per_minute: 2, ..Options::default() }, now).await;
    let (host, peer, _) = pair(&store, now).await;
    store.bye(host.hold, Mood::Scary, now).await;
    store.bye(peer.hold, Mood::Scary, now).await;
    assert_eq!(refused(store.join("1", caller(2), now).await), ErrorCode::UnableToJoin);
    assert_eq!(refused(store.join("1", caller(2), now).await), ErrorCode::TooManyFailedJoins);
}

pub(in crate::exchange) async fn failed_joins_are_limited<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (_, nameplate) = host(&store, 1, now).await;
    for _ in 0..5 {
        assert_eq!(refused(store.join("1", caller(2), now).await), ErrorCode::UnableToJoin);
    }
    // Also a join that would succeed: otherwise guessing goes on.
    assert_eq!(refused(store.join(&nameplate, caller(2), now).await), ErrorCode::TooManyFailedJoins);
    peer(&store, &nameplate, 2, now + secs(12)).await;
}

pub(in crate::exchange) async fn channels_are_limited<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options { channels_per_source: 2, ..Options::default() }, now).await;
    let (one, _) = host(&store, 1, now).await;
    host(&store, 1, now).await;
    assert_eq!(refused(store.allocate(caller(1), now).await), ErrorCode::TooManyChannels);
    host(&store, 2, now).await;
    store.bye(one.hold, Mood::Happy, now).await;
    host(&store, 1, now).await;
}

pub(in crate::exchange) async fn an_unclaimed_nameplate_expires_in_absence_only<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (waiting, nameplate) = host(&store, 1, now).await;
    let later = now + secs(86_400);
    store.sweep(later).await;
    assert!(store.pop(&waiting.hold, 0, later).await.is_ok(), "a host that is there may wait");
    store.leave(waiting.hold, 0, later).await;
    let almost = later + UNCLAIMED_ABSENCE - secs(1);
    store.sweep(almost).await;
    peer(&store, &nameplate, 2, almost).await;

    let (leaving, nameplate) = host(&store, 1, now).await;
    store.leave(leaving.hold, 0, now).await;
    store.sweep(now + UNCLAIMED_ABSENCE).await;
    assert_eq!(refused(store.join(&nameplate, caller(3), now).await), ErrorCode::UnableToJoin);
}

pub(in crate::exchange) async fn a_channel_without_frames_expires<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, channel) = pair(&store, now).await;
    let half = now + secs(1800);
    host.push(&store, "still here", half).await;
    store.sweep(now + secs(3600)).await;
    assert_eq!(peer.drain(&store, half).await, ["still here"]);
    rang(&peer.bell);
    store.sweep(half + secs(3600)).await;
    assert!(rang(&peer.bell));
    assert_eq!(store.pop(&peer.hold, 0, half).await.err(), Some(Ended::Over));
    assert_eq!(refused(store.resume(&host.claim(channel), caller(1), half).await), ErrorCode::UnableToResume);
}
