//! Resuming after the store forgot.

use super::*;
use crate::wire::Mood;

/// The boot of a memory that is gone.
const OLD_BOOT: Id = Id::new([9; 16]);
/// A channel of that memory.
const LOST: Id = Id::new([8; 16]);

fn claim(role: Role, seat: u8) -> Resume {
    Resume { role, seat: Id::new([seat; 16]), channel: Some(LOST), nameplate: None, boot: OLD_BOOT }
}

fn claim_nameplate(seat: u8, nameplate: &str, boot: Id) -> Resume {
    Resume { channel: None, nameplate: Some(nameplate.to_owned()), boot, ..claim(Role::Host, seat) }
}

pub(in crate::exchange) async fn a_lost_channel_is_made_again<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host_caller, peer_caller) = (caller(1), caller(2));
    let host = store.resume(&claim(Role::Host, 1), host_caller.clone(), now).await.expect("made again");
    assert!(host.nameplate.is_none());
    let due = store.pop(&host.hold, 0, now).await.expect("seated");
    assert_eq!(due.statuses, [Status::PeerAway], "it is paired already");
    assert_eq!(store.push(&host.hold, Bytes::from("early"), now).await, Ok(Pushed::Taken));
    let peer = store.resume(&claim(Role::Peer, 2), peer_caller, now).await.expect("resumed");
    assert!(rang(&host_caller.bell));
    assert_eq!(store.pop(&host.hold, 0, now).await.expect("seated").statuses, [Status::PeerBack]);
    assert_eq!(store.pop(&peer.hold, 0, now).await.expect("seated").frames, ["early"]);
}

pub(in crate::exchange) async fn the_first_resume_fixes_the_seat<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    store.resume(&claim(Role::Host, 1), caller(1), now).await.expect("made again");
    assert_eq!(refused(store.resume(&claim(Role::Host, 3), caller(3), now).await), ErrorCode::UnableToResume);
    store.resume(&claim(Role::Host, 1), caller(1), now).await.expect("resumed");
    store.resume(&claim(Role::Peer, 2), caller(2), now).await.expect("resumed");
    assert_eq!(refused(store.resume(&claim(Role::Peer, 3), caller(3), now).await), ErrorCode::UnableToResume);
}

pub(in crate::exchange) async fn our_own_boot_is_not_made_again<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let ours = Resume { boot: store.boot(), ..claim(Role::Host, 1) };
    assert_eq!(refused(store.resume(&ours, caller(1), now).await), ErrorCode::UnableToResume);
    let ours = claim_nameplate(1, "9471", store.boot());
    assert_eq!(refused(store.resume(&ours, caller(1), now).await), ErrorCode::NameplateLost);
}

pub(in crate::exchange) async fn too_late_is_not_made_again<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    // The store is made after `now`, by a little.
    let late = now + secs(3601);
    assert_eq!(
        refused(store.resume(&claim(Role::Host, 1), caller(1), late).await),
        ErrorCode::UnableToResume
    );
    let early = late - secs(2);
    store.resume(&claim(Role::Host, 1), caller(1), early).await.expect("made again");
    store.resume(&claim(Role::Peer, 2), caller(2), late).await.expect("its other end may come later");
}

pub(in crate::exchange) async fn a_tombstone_stays_shut<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    for (role, seat) in [(Role::Host, 1), (Role::Peer, 2)] {
        let seated = store.resume(&claim(role, seat), caller(seat), now).await.expect("resumed");
        store.bye(seated.hold, Mood::Happy, now).await;
    }
    for role in [Role::Host, Role::Peer] {
        let refusal = refused(store.resume(&claim(role, 5), caller(5), now).await);
        assert_eq!(refusal, ErrorCode::UnableToResume);
    }
    store.sweep(now + secs(3599)).await;
    let refusal = refused(store.resume(&claim(Role::Host, 5), caller(5), now + secs(3599)).await);
    assert_eq!(refusal, ErrorCode::UnableToResume);
}

pub(in crate::exchange) async fn it_counts_as_an_allocation<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options { channels_per_source: 1, ..Options::default() }, now).await;
    host(&store, 1, now).await;
    assert_eq!(
        refused(store.resume(&claim(Role::Host, 1), caller(1), now).await),
        ErrorCode::TooManyChannels
    );
    store.resume(&claim(Role::Host, 1), caller(2), now).await.expect("made again");
    assert_eq!(refused(store.allocate(caller(2), now).await), ErrorCode::TooManyChannels);
}

pub(in crate::exchange) async fn an_unpaired_host_keeps_its_nameplate<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (one, nameplate) = host(&store, 1, now).await;
    let stranger = claim_nameplate(77, &nameplate, one.boot);
    assert_eq!(refused(store.resume(&stranger, caller(3), now).await), ErrorCode::NameplateLost);
    let mine = Resume { seat: one.seat, ..stranger };
    let seated = store.resume(&mine, caller(1), now).await.expect("resumed");
    assert_eq!(seated.nameplate.map(|n| n.to_string()), Some(nameplate.clone()));
    peer(&store, &nameplate, 2, now).await;

    // After a loss of memory it is made again, unless somebody else has it.
    let free = if nameplate == "5555" { "6666" } else { "5555" };
    store.resume(&claim_nameplate(1, free, OLD_BOOT), caller(1), now).await.expect("made again");
    peer(&store, free, 2, now).await;
    let taken = claim_nameplate(78, &nameplate, OLD_BOOT);
    assert_eq!(refused(store.resume(&taken, caller(4), now).await), ErrorCode::NameplateLost);
}

pub(in crate::exchange) async fn a_host_that_missed_the_pairing_learns_of_it<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let peer = peer(&store, &nameplate, 2, now).await;
    let channel = paired(&peer.pop(&store, 0, now).await);
    // Popped, but lost with the connection.
    assert_eq!(paired(&host.pop(&store, 0, now).await), channel);
    let mine = Resume { seat: host.seat, ..claim_nameplate(0, &nameplate, host.boot) };
    let seated = store.resume(&mine, caller(1), now).await.expect("resumed");
    assert_eq!(paired(&store.pop(&seated.hold, 0, now).await.expect("seated")), channel);
}

pub(in crate::exchange) async fn a_malformed_claim_is_refused<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let peer = Resume { role: Role::Peer, ..claim_nameplate(1, "9471", OLD_BOOT) };
    assert_eq!(refused(store.resume(&peer, caller(1), now).await), ErrorCode::BadMessage);
    let neither = Resume { channel: None, ..claim(Role::Host, 1) };
    assert_eq!(refused(store.resume(&neither, caller(1), now).await), ErrorCode::BadMessage);
    let nonsense = claim_nameplate(1, "no number", OLD_BOOT);
    assert_eq!(refused(store.resume(&nonsense, caller(1), now).await), ErrorCode::NameplateLost);
}
