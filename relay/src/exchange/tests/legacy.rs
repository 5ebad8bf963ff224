//! Channels under a code that the relay was told: for clients of 0.1.5.

use super::*;
use crate::exchange::Ended;
use crate::rules::{CODE_QUEUE, CodeHash, UNCLAIMED_ABSENCE};
use crate::wire::Mood;

fn code(words: &str) -> CodeHash {
    CodeHash::of(words).expect("a code")
}

/// Asks for a seat under `a-b-c`.
async fn join<E: Exchange>(
    store: &E,
    role: Role,
    n: u8,
    now: Instant,
) -> Result<(E::Hold, Arc<Bell>, Id), ErrorCode> {
    let caller = caller(n);
    match store.join_code(&code("a-b-c"), role, caller.clone(), now).await {
        Ok(seated) => {
            assert!(seated.nameplate.is_none());
            Ok((seated.hold, caller.bell, seated.seat))
        }
        refusal => Err(refused(refusal)),
    }
}

/// A seat under `a-b-c`, which must be given.
async fn end<E: Exchange>(store: &E, role: Role, n: u8, now: Instant) -> End<E> {
    let (hold, bell, seat) = join(store, role, n, now).await.expect("a seat");
    End { hold, bell, role, seat, boot: store.boot() }
}

/// Both ends, from the sources 1 and 2, told that they are paired.
async fn met<E: Exchange>(store: &E, now: Instant) -> (End<E>, End<E>, Id) {
    let host = end(store, Role::Host, 1, now).await;
    let peer = end(store, Role::Peer, 2, now).await;
    let channel = paired(&host.pop(store, 0, now).await);
    assert_eq!(paired(&peer.pop(store, 0, now).await), channel);
    (host, peer, channel)
}

pub(in crate::exchange) async fn a_host_and_a_peer_meet_under_a_code<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let host = end(&store, Role::Host, 1, now).await;
    assert_eq!(host.pop(&store, 0, now).await.statuses, []);
    let peer = end(&store, Role::Peer, 2, now).await;
    assert!(rang(&host.bell));
    let channel = paired(&host.pop(&store, 0, now).await);
    assert_eq!(paired(&peer.pop(&store, 0, now).await), channel);
    host.push(&store, "to the peer", now).await;
    peer.push(&store, "to the host", now).await;
    assert_eq!(peer.drain(&store, now).await, ["to the peer"]);
    assert_eq!(host.drain(&store, now).await, ["to the host"]);
    store.leave(peer.hold, 0, now).await;
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::PeerAway]);
}

pub(in crate::exchange) async fn a_peer_needs_a_host<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    assert_eq!(join(&store, Role::Peer, 2, now).await.err(), Some(ErrorCode::UnableToJoin));
    let host = end(&store, Role::Host, 1, now).await;
    let other = store.join_code(&code("a-b-d"), Role::Peer, caller(2), now).await;
    assert_eq!(refused(other), ErrorCode::UnableToJoin);
    store.leave(host.hold, 0, now).await;
    let peer = end(&store, Role::Peer, 2, now).await;
    let due = peer.pop(&store, 0, now).await;
    paired(&due);
    assert_eq!(due.statuses.get(1), Some(&Status::PeerAway));
}

pub(in crate::exchange) async fn a_code_has_two_ends<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, _) = met(&store, now).await;
    for role in [Role::Host, Role::Peer] {
        assert_eq!(join(&store, role, 3, now).await.err(), Some(ErrorCode::UnableToJoin));
    }
    host.push(&store, "undisturbed", now).await;
    assert_eq!(peer.drain(&store, now).await, ["undisturbed"]);
}

pub(in crate::exchange) async fn frames_before_the_peer_wait_for_it<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let host = end(&store, Role::Host, 1, now).await;
    host.push(&store, "hello", now).await;
    // It comes back, and does not say it again.
    store.leave(host.hold, 0, now).await;
    let host = end(&store, Role::Host, 1, now).await;
    let peer = end(&store, Role::Peer, 2, now).await;
    assert_eq!(peer.drain(&store, now).await, ["hello"]);
    paired(&host.pop(&store, 0, now).await);
}

pub(in crate::exchange) async fn a_seat_that_is_away_is_taken_back_by_anybody_with_the_code<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, channel) = met(&store, now).await;
    store.leave(peer.hold, 0, now).await;
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::PeerAway]);
    host.push(&store, "meanwhile", now).await;
    let peer = end(&store, Role::Peer, 7, now).await;
    let due = peer.pop(&store, 0, now).await;
    assert_eq!((paired(&due), &due.frames[..]), (channel, &[Bytes::from("meanwhile")][..]));
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::PeerBack]);
    store.leave(host.hold, 0, now).await;
    let host = end(&store, Role::Host, 8, now).await;
    assert_eq!(paired(&host.pop(&store, 0, now).await), channel);
}

pub(in crate::exchange) async fn a_seat_in_use_is_taken_back_by_its_own_source_only<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, channel) = met(&store, now).await;
    assert_eq!(join(&store, Role::Peer, 7, now).await.err(), Some(ErrorCode::UnableToJoin));
    rang(&peer.bell);
    let again = end(&store, Role::Peer, 2, now).await;
    assert!(rang(&peer.bell), "the old socket is woken");
    assert_eq!(store.pop(&peer.hold, 0, now).await.err(), Some(Ended::Replaced));
    assert_eq!(store.push(&peer.hold, Bytes::from("x"), now).await, Err(Ended::Replaced));
    store.leave(peer.hold, 0, now).await;
    assert_eq!(paired(&again.pop(&store, 0, now).await), channel);
    assert_eq!(host.pop(&store, 0, now).await.statuses, [], "the seat was never empty");
    again.push(&store, "from the new one", now).await;
    assert_eq!(host.drain(&store, now).await, ["from the new one"]);
}

pub(in crate::exchange) async fn what_was_not_written_is_due_again_one_frame_at_a_time<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, _) = met(&store, now).await;
    for frame in ["one", "two", "three"] {
        host.push(&store, frame, now).await;
    }
    assert_eq!(peer.pop(&store, 0, now).await.frames, ["one"]);
    assert_eq!(peer.pop(&store, 1, now).await.frames, ["two"]);
    store.leave(peer.hold, 0, now).await;
    let peer = end(&store, Role::Peer, 2, now).await;
    assert_eq!(peer.drain(&store, now).await, ["two", "three"]);
}

pub(in crate::exchange) async fn a_direction_holds_sixteen_mebibytes<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let host = end(&store, Role::Host, 1, now).await;
    let frame = Bytes::from(vec![7; 2 * MIB - 1000]);
    for _ in 0..CODE_QUEUE / (2 * MIB) {
        host.push(&store, frame.clone(), now).await;
    }
    assert_eq!(store.push(&host.hold, frame.clone(), now).await, Ok(Pushed::Full(frame.clone())));
    let peer = end(&store, Role::Peer, 2, now).await;
    rang(&host.bell);
    assert_eq!(peer.pop(&store, 0, now).await.frames.len(), 1);
    peer.pop(&store, 1, now).await;
    assert!(rang(&host.bell), "there is room");
    host.push(&store, frame, now).await;
}

pub(in crate::exchange) async fn a_bye_of_the_host_frees_the_code<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, channel) = met(&store, now).await;
    host.push(&store, "last words", now).await;
    store.bye(host.hold, Mood::Happy, now).await;
    let due = peer.pop(&store, 0, now).await;
    assert_eq!((&due.frames[..], &due.statuses[..]), (&[Bytes::from("last words")][..], &[][..]));
    assert_eq!(peer.pop(&store, 1, now).await.statuses, [Status::PeerLeft]);
    assert_eq!(join(&store, Role::Peer, 3, now).await.err(), Some(ErrorCode::UnableToJoin));
    let host = end(&store, Role::Host, 3, now).await;
    assert_eq!(host.pop(&store, 0, now).await.statuses, []);
    let fresh = end(&store, Role::Peer, 4, now).await;
    assert_ne!(paired(&fresh.pop(&store, 0, now).await), channel);
    assert_eq!(peer.pop(&store, 0, now).await.statuses, [], "the one before is apart from it");
}

pub(in crate::exchange) async fn a_bye_of_the_peer_keeps_the_code<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, _) = met(&store, now).await;
    store.bye(peer.hold, Mood::Happy, now).await;
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::PeerLeft]);
    for (role, n) in [(Role::Peer, 2), (Role::Peer, 3), (Role::Host, 3)] {
        assert_eq!(join(&store, role, n, now).await.err(), Some(ErrorCode::UnableToJoin));
    }
    store.bye(host.hold, Mood::Happy, now).await;
    end(&store, Role::Host, 3, now + secs(60)).await;
}

pub(in crate::exchange) async fn a_release_lets_another_peer_in<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, channel) = met(&store, now).await;
    host.push(&store, "for the first", now).await;
    assert_eq!(store.release(&peer.hold, now).await, Ok(false));
    assert_eq!(store.release(&host.hold, now).await, Ok(true));
    assert_eq!(store.pop(&peer.hold, 0, now).await.err(), Some(Ended::Released));
    let other = end(&store, Role::Peer, 3, now).await;
    let due = other.pop(&store, 0, now).await;
    assert_ne!(paired(&due), channel);
    assert!(due.frames.is_empty());
    paired(&host.pop(&store, 0, now).await);
}

pub(in crate::exchange) async fn a_code_expires_with_its_host_away<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let host = end(&store, Role::Host, 1, now).await;
    host.push(&store, "hello", now).await;
    let later = now + secs(3 * 3600);
    store.sweep(later).await;
    store.leave(host.hold, 0, later).await;
    store.sweep(later + UNCLAIMED_ABSENCE - secs(1)).await;
    let host = end(&store, Role::Host, 1, later + UNCLAIMED_ABSENCE - secs(1)).await;
    let left = later + UNCLAIMED_ABSENCE;
    store.leave(host.hold, 0, left).await;
    store.sweep(left + UNCLAIMED_ABSENCE).await;
    let refusal = join(&store, Role::Peer, 2, left + UNCLAIMED_ABSENCE).await.err();
    assert_eq!(refusal, Some(ErrorCode::UnableToJoin));
}

pub(in crate::exchange) async fn a_channel_under_a_code_expires_without_frames<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let idle = Options::default().idle;
    let (host, peer, _) = met(&store, now).await;
    host.push(&store, "a frame", now + secs(60)).await;
    store.sweep(now + idle).await;
    assert_eq!(peer.drain(&store, now + secs(60)).await, ["a frame"]);
    store.sweep(now + secs(60) + idle).await;
    assert_eq!(store.pop(&host.hold, 0, now + secs(60) + idle).await.err(), Some(Ended::Over));
    // It can be hosted afresh.
    end(&store, Role::Host, 3, now + secs(61) + idle).await;
}

pub(in crate::exchange) async fn it_counts_as_a_channel_and_its_failures_as_failed_joins<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let limits = Options { channels_per_source: 1, failed_joins_per_minute: 2, ..Options::default() };
    let store = make(limits, now).await;
    let first = end(&store, Role::Host, 1, now).await;
    let another = store.join_code(&code("a-b-d"), Role::Host, caller(1), now).await;
    assert_eq!(refused(another), ErrorCode::TooManyChannels);
    assert_eq!(refused(store.allocate(caller(1), now).await), ErrorCode::TooManyChannels);
    // A host's try at another's code is a guess, too.
    assert_eq!(join(&store, Role::Host, 2, now).await.err(), Some(ErrorCode::UnableToJoin));
    assert_eq!(refused(store.join("1", caller(2), now).await), ErrorCode::UnableToJoin);
    for role in [Role::Host, Role::Peer] {
        assert_eq!(join(&store, role, 2, now).await.err(), Some(ErrorCode::TooManyFailedJoins));
    }
    end(&store, Role::Peer, 3, now).await;
    store.bye(first.hold, Mood::Happy, now).await;
}

pub(in crate::exchange) async fn its_seats_are_resumed_as_others<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (mut host, peer, channel) = met(&store, now).await;
    peer.push(&store, "kept", now).await;
    let old = host.resume(&store, channel, 9, now).await;
    assert_eq!(store.pop(&old, 0, now).await.err(), Some(Ended::Replaced));
    assert_eq!(host.drain(&store, now).await, ["kept"]);
    // Whoever takes the seat by the code has another credential.
    store.leave(host.hold, 0, now).await;
    let fresh = end(&store, Role::Host, 1, now).await;
    let stale = Resume { seat: host.seat, ..fresh.claim(channel) };
    assert_eq!(refused(store.resume(&stale, caller(9), now).await), ErrorCode::UnableToResume);
    assert!(store.resume(&fresh.claim(channel), caller(1), now).await.is_ok());
}
