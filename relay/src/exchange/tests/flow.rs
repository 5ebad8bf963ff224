//! Frames: order, room, rates.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::*;
use crate::rules::FRAME_OVERHEAD;
use crate::wire::Mood;

/// Nothing but memory limits.
fn unlimited() -> Options {
    Options { memory_per_source: Options::default().memory_per_source, ..Options::local() }
}

pub(in crate::exchange) async fn frames_arrive_in_order<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, peer, _) = pair(&store, now).await;
    rang(&peer.bell);
    for n in 0..200_u8 {
        host.push(&store, vec![n; 3], now).await;
        peer.push(&store, vec![n; 5], now).await;
    }
    assert!(rang(&peer.bell) && rang(&host.bell));
    assert_eq!(peer.drain(&store, now).await, (0..200_u8).map(|n| vec![n; 3]).collect::<Vec<_>>());
    assert_eq!(host.drain(&store, now).await, (0..200_u8).map(|n| vec![n; 5]).collect::<Vec<_>>());
    assert!(!rang(&peer.bell));
    host.push(&store, "again", now).await;
    assert!(rang(&peer.bell), "who had nothing to do is woken");
}

pub(in crate::exchange) async fn a_frame_before_the_pairing_is_refused<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, _) = host(&store, 1, now).await;
    assert_eq!(store.push(&host.hold, frame(1), now).await, Ok(Pushed::Unpaired));
}

pub(in crate::exchange) async fn what_was_not_written_is_due_again<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, mut peer, channel) = pair(&store, now).await;
    for n in 0..5_u8 {
        host.push(&store, vec![n], now).await;
    }
    assert_eq!(peer.pop(&store, 0, now).await.frames.len(), 5);
    // Two of five were written, which is told with the next look; then the socket broke.
    assert!(peer.pop(&store, 2, now).await.frames.is_empty());
    let old = peer.resume(&store, channel, 2, now).await;
    store.leave(old, 0, now).await;
    host.push(&store, vec![5], now).await;
    assert_eq!(peer.drain(&store, now).await, [[2], [3], [4], [5]].map(Vec::from));
    host.push(&store, "written", now).await;
    host.push(&store, "not written", now).await;
    assert_eq!(peer.pop(&store, 0, now).await.frames.len(), 2);
    let (seat, role, boot) = (peer.seat, peer.role, peer.boot);
    store.leave(peer.hold, 1, now).await;
    let claim = Resume { role, seat, channel: Some(channel), nameplate: None, boot };
    let hold = store.resume(&claim, caller(2), now).await.expect("resumed").hold;
    let peer = End::<E> { hold, bell: Arc::default(), role, seat, boot };
    assert_eq!(peer.drain(&store, now).await, ["not written"]);
    // More than was handed out is never taken away.
    host.push(&store, "kept", now).await;
    assert_eq!(peer.pop(&store, 9, now).await.frames, ["kept"]);
}

pub(in crate::exchange) async fn frames_wait_for_an_absent_end<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let peer = peer(&store, &nameplate, 2, now).await;
    store.leave(host.hold, 0, now).await;
    peer.push(&store, "first", now).await;
    let claim = Resume {
        role: Role::Host,
        seat: host.seat,
        channel: None,
        nameplate: Some(nameplate),
        boot: host.boot,
    };
    let seated = store.resume(&claim, caller(1), now).await.expect("resumed");
    let due = store.pop(&seated.hold, 0, now).await.expect("seated");
    paired(&due);
    assert_eq!(due.frames, ["first"]);
}

pub(in crate::exchange) async fn a_full_direction_stops_its_sender_only<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, peer, _) = pair(&store, now).await;
    let (other_host, other_peer, _) = pair(&store, now).await;
    let mut sent = 0;
    let kept = loop {
        match store.push(&host.hold, frame(256 << 10), now).await.expect("seated") {
            Pushed::Taken => sent += 1,
            Pushed::Full(frame) => break frame,
            Pushed::Unpaired => panic!("unpaired"),
        }
        assert!(sent < 100);
    };
    assert_eq!((sent, kept.len()), (7, 256 << 10), "2 MiB, less what each frame costs beside its bytes");
    peer.push(&store, "back", now).await;
    other_host.push(&store, frame(MIB), now).await;
    assert_eq!(other_peer.drain(&store, now).await.len(), 1);
    rang(&host.bell);
    assert_eq!(peer.pop(&store, 0, now).await.frames.len(), 1);
    assert!(!rang(&host.bell));
    peer.pop(&store, 1, now).await;
    assert!(rang(&host.bell), "room is told");
    host.push(&store, kept, now).await;
}

pub(in crate::exchange) async fn an_empty_direction_takes_any_frame<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, peer, _) = pair(&store, now).await;
    host.push(&store, frame(10 * MIB), now).await;
    assert_eq!(store.push(&host.hold, frame(0), now).await, Ok(Pushed::Full(frame(0))));
    assert_eq!(peer.drain(&store, now).await.len(), 1);
}

pub(in crate::exchange) async fn frames_outlive_their_sender<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, peer, channel) = pair(&store, now).await;
    host.push(&store, "last words", now).await;
    store.bye(host.hold, Mood::Happy, now).await;
    let due = peer.pop(&store, 0, now).await;
    assert_eq!((due.frames, due.statuses), (vec![Bytes::from("last words")], vec![]));
    let due = peer.pop(&store, 1, now).await;
    assert_eq!((due.frames, due.statuses), (vec![], vec![Status::PeerLeft]), "after the last frame");
    peer.push(&store, "to nobody", now).await;
    let claim = Resume { role: Role::Host, ..peer.claim(channel) };
    assert_eq!(refused(store.resume(&claim, caller(1), now).await), ErrorCode::UnableToResume);
}

pub(in crate::exchange) async fn release_empties_both_queues<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let first = peer(&store, &nameplate, 2, now).await;
    host.push(&store, "to the first", now).await;
    first.push(&store, "from the first", now).await;
    assert_eq!(host.pop(&store, 0, now).await.frames.len(), 1);
    assert_eq!(store.release(&host.hold, now).await, Ok(true));
    let second = peer(&store, &nameplate, 3, now).await;
    second.push(&store, "from the second", now).await;
    assert_eq!(host.drain(&store, now).await, ["from the second"]);
    assert_eq!(second.drain(&store, now).await, [""; 0]);
}

pub(in crate::exchange) async fn memory_is_bounded_and_freed<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let options = Options { max_frame: MIB, memory: 8 * MIB, memory_per_source: 8 * MIB, ..unlimited() };
    let store = make(options, now).await;
    let mut ends = Vec::new();
    for n in 0..20 {
        let (host, nameplate) = host(&store, n, now).await;
        let peer = peer(&store, &nameplate, n, now).await;
        assert!(store.pop(&peer.hold, 0, now).await.is_ok());
        ends.push((host, peer));
    }
    // Straight through: the whole budget. What waits: three quarters.
    let mut taken = 0;
    for (host, _) in &ends {
        if store.push(&host.hold, frame(MIB - FRAME_OVERHEAD), now).await == Ok(Pushed::Taken) {
            taken += 1;
        }
    }
    assert_eq!(taken, 8);
    let (last, _) = &ends[19];
    rang(&last.bell);
    for (_, peer) in &ends[..4] {
        assert_eq!(peer.drain(&store, now).await.len(), 1);
    }
    assert!(rang(&last.bell), "freed memory is told");
    last.push(&store, frame(MIB / 2), now).await;
    for (host, peer) in &ends {
        peer.drain(&store, now).await;
        host.drain(&store, now).await;
    }
    let mut waiting = 0;
    for (host, peer) in ends {
        store.leave(peer.hold, 0, now).await;
        let pushed = store.push(&host.hold, frame(MIB - FRAME_OVERHEAD), now).await;
        waiting += usize::from(pushed == Ok(Pushed::Taken));
    }
    assert_eq!(waiting, 6);
}

pub(in crate::exchange) async fn a_source_cannot_hold_the_memory_of_others<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let options = Options { max_frame: MIB, memory: 80 * MIB, memory_per_source: 10 * MIB, ..unlimited() };
    let store = make(options, now).await;
    let mut taken = 0;
    let mut ends = Vec::new();
    for _ in 0..20 {
        let (host, peer, _) = pair(&store, now).await;
        if store.push(&host.hold, frame(MIB), now).await == Ok(Pushed::Taken) {
            taken += 1;
        }
        peer.push(&store, "the other way", now).await;
        ends.push((host, peer));
    }
    assert_eq!(taken, 9, "ten, less what each frame costs beside its bytes");
}

pub(in crate::exchange) async fn the_rate_delays_and_loses_nothing<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options::default(), now).await;
    let (host, peer, _) = pair(&store, now).await;
    let mut clock = now;
    let (mut sent, mut got) = (0_u32, 0_u32);
    let mut written = 0;
    while got < 150 {
        while sent < 150
            && store.push(&host.hold, sent.to_be_bytes().repeat(250).into(), clock).await == Ok(Pushed::Taken)
        {
            sent += 1;
        }
        let due = peer.pop(&store, written, clock).await;
        written = due.frames.len();
        for frame in due.frames {
            assert_eq!(frame[..4], got.to_be_bytes());
            got += 1;
        }
        if let Some(again) = due.again {
            assert!(again > clock);
            clock = again;
        }
    }
    assert_eq!(clock - now, secs(90), "60 at once, then one a second");
}

pub(in crate::exchange) async fn throttled_is_said_once_to_both<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(Options { messages_per_minute: 1, ..Options::default() }, now).await;
    let (host, peer, _) = pair(&store, now).await;
    rang(&host.bell);
    for _ in 0..3 {
        host.push(&store, frame(1000), now).await;
    }
    assert_eq!(peer.pop(&store, 0, now).await.statuses, [Status::Throttled]);
    assert!(rang(&host.bell));
    assert_eq!(host.pop(&store, 0, now).await.statuses, [Status::Throttled]);
    let later = now + secs(60);
    let due = peer.pop(&store, 1, later).await;
    assert_eq!((due.frames.len(), due.statuses), (1, vec![]));
    assert_eq!(host.pop(&store, 0, later).await.statuses, []);
}

pub(in crate::exchange) async fn random_drops_lose_and_repeat_nothing<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let store = make(unlimited(), now).await;
        let (mut host, mut peer, channel) = pair(&store, now).await;
        let (mut sent, mut parked, mut got) = (0_u32, None::<Bytes>, Vec::<u32>::new());
        let (mut flying, mut bytes_written) = (Vec::<Bytes>::new(), 0);
        for _ in 0..2000 {
            match rng.next_u32() % 10 {
                0..4 => {
                    let fresh = || Bytes::from(sent.to_be_bytes().repeat(1 + (sent as usize % 50) * 1000));
                    let frame = parked.take().unwrap_or_else(fresh);
                    match store.push(&host.hold, frame, now).await.expect("seated") {
                        Pushed::Taken => sent += 1,
                        Pushed::Full(frame) => parked = Some(frame),
                        Pushed::Unpaired => panic!("unpaired"),
                    }
                }
                4..8 => {
                    // Writes what was handed out, wholly, then looks for more.
                    got.extend(flying.iter().map(number));
                    flying = peer.pop(&store, bytes_written, now).await.frames;
                    bytes_written = flying.len();
                }
                8 => {
                    // Breaks after some were written and reported.
                    let some = flying.len().min(rng.next_u32() as usize % 4);
                    got.extend(flying.drain(..some).map(|frame| number(&frame)));
                    peer.pop(&store, some, now).await;
                    let old = peer.resume(&store, channel, 2, now).await;
                    store.leave(old, 1, now).await;
                    (flying, bytes_written) = (Vec::new(), 0);
                }
                _ => {
                    let old = host.resume(&store, channel, 1, now).await;
                    store.leave(old, 0, now).await;
                }
            }
        }
        got.extend(flying.iter().map(number));
        peer.pop(&store, bytes_written, now).await;
        let old = peer.resume(&store, channel, 2, now).await;
        store.leave(old, 0, now).await;
        got.extend(peer.drain(&store, now).await.iter().map(number));
        assert_eq!(got, (0..sent).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// The number that a frame carries.
fn number(frame: &Bytes) -> u32 {
    u32::from_be_bytes(*frame.first_chunk().expect("four bytes"))
}

pub(in crate::exchange) async fn a_long_frame_swallows_no_status<E: Exchange>(
    make: impl AsyncFn(Options, Instant) -> E,
    now: Instant,
) {
    let store = make(unlimited(), now).await;
    let (host, nameplate) = host(&store, 1, now).await;
    let peer = peer(&store, &nameplate, 2, now).await;
    let channel = paired(&peer.pop(&store, 0, now).await);
    peer.push(&store, frame(200 << 10), now).await;
    let due = host.pop(&store, 0, now).await;
    assert_eq!((paired(&due), due.frames.len()), (channel, 1));
    let (seat, claim) = (peer.seat, peer.claim(channel));
    store.leave(peer.hold, 0, now).await;
    assert_eq!(host.pop(&store, 1, now).await.statuses, [Status::PeerAway]);
    let hold = store.resume(&claim, caller(2), now).await.expect("resumed").hold;
    let peer = End::<E> { hold, bell: Arc::default(), role: Role::Peer, seat, boot: claim.boot };
    peer.push(&store, frame(200 << 10), now).await;
    let due = host.pop(&store, 0, now).await;
    assert_eq!((due.statuses, due.frames.len()), (vec![Status::PeerBack], 1));
}
