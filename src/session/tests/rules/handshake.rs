//! The handshake: who confirms when, what is a guess, and what is sent again.

use std::time::Instant;

use bytes::Bytes;

use super::super::hand::{CODE, Hand, LIMITS, Shake, feed, millis, secs, session, text, up, version};
use crate::crypto::pake::{MESSAGE_LEN, Role};
use crate::session::{Link, Session, SessionEvent};

const WRONG: &str = "7-cross-clock-abandon";

fn frames(session: &mut Session, now: Instant) -> Vec<Bytes> {
    std::iter::from_fn(|| session.poll_transmit(now)).collect()
}

fn verdict(session: &mut Session) -> &'static str {
    let verdict = match session.poll_event() {
        None => "none",
        Some(SessionEvent::Connected { .. }) => "connected",
        Some(SessionEvent::Unproven(_)) => "unproven",
        Some(SessionEvent::HandshakeFailed(_)) => "failed",
        Some(other) => panic!("{other:?}"),
    };
    assert!(session.poll_event().is_none(), "one verdict");
    verdict
}

/// A host with a link, whose SPAKE2 message is out.
fn host(now: Instant) -> (Session, Bytes) {
    let mut host = session(Role::Host);
    up(&mut host, now);
    let greeting = frames(&mut host, now);
    assert_eq!(greeting, [host.greeting()]);
    (host, greeting[0].clone())
}

/// A real peer comes on a new link and is connected.
fn a_real_peer_still_connects(mut host: Session, now: Instant) {
    host.handle_link(Link::Down, now).unwrap();
    up(&mut host, now);
    let greeting = host.greeting();
    let sent = frames(&mut host, now);
    assert!(sent.len() == 1 && sent[0] == greeting);
    let peer = Shake::new(Role::Peer, CODE);
    feed(&mut host, &peer.greeting(), now).unwrap();
    feed(&mut host, &peer.sealed(&greeting, &version(Role::Peer)), now).unwrap();
    assert_eq!(verdict(&mut host), "connected");
}

#[test]
fn the_peer_confirms_first_and_the_host_only_after_it_opened_that() {
    let now = Instant::now();
    let (mut host, greeting) = host(now);
    let peer = Shake::new(Role::Peer, CODE);
    feed(&mut host, &peer.greeting(), now).unwrap();
    assert_eq!(frames(&mut host, now), [] as [Bytes; 0], "33 bytes buy no sealed version");
    feed(&mut host, &peer.sealed(&greeting, &version(Role::Peer)), now).unwrap();
    let sealed = frames(&mut host, now)[0].clone();
    let mut keys = peer.legacy(&greeting);
    let mut plain = sealed.to_vec();
    assert!(keys.1.open(&mut plain).is_ok(), "it is the host's version");

    let mut peer = session(Role::Peer);
    up(&mut peer, now);
    assert_eq!(frames(&mut peer, now), [peer.greeting()]);
    let host = Shake::new(Role::Host, CODE);
    feed(&mut peer, &host.greeting(), now).unwrap();
    assert_eq!(frames(&mut peer, now).len(), 1, "the peer confirms unasked");
    assert_eq!(verdict(&mut peer), "none");
    let sealed = host.sealed(&peer.greeting(), &version(Role::Host));
    feed(&mut peer, &sealed, now).unwrap();
    assert_eq!(verdict(&mut peer), "connected");
}

#[test]
fn a_wrong_code_fails_both_sides_by_the_same_proof() {
    let now = Instant::now();
    let (mut host, greeting) = host(now);
    let mut peer = Session::new(Role::Peer, &super::super::hand::secret(WRONG), &mut rand_core::OsRng);
    up(&mut peer, now);
    feed(&mut host, &frames(&mut peer, now)[0], now).unwrap();
    feed(&mut peer, &greeting, now).unwrap();
    let confirmation = frames(&mut peer, now);
    feed(&mut host, &confirmation[0], now).unwrap();
    assert_eq!(verdict(&mut host), "failed");
    let last_words = frames(&mut host, now);
    assert_eq!(last_words.len(), 1, "the host sends its version anyway");
    feed(&mut peer, &last_words[0], now).unwrap();
    assert_eq!(verdict(&mut peer), "failed");
    // The code is burnt: nothing brings the host back.
    let real = Shake::new(Role::Peer, CODE);
    feed(&mut host, &real.greeting(), now).unwrap();
    feed(&mut host, &real.sealed(&greeting, &version(Role::Peer)), now).unwrap();
    up(&mut host, now);
    assert_eq!((verdict(&mut host), frames(&mut host, now).len()), ("none", 0));
}

#[test]
fn what_is_no_guess_leaves_the_code_alive() {
    let now = Instant::now();
    let mut malformed = [0; MESSAGE_LEN];
    malformed[0] = 0x41;
    let spake = Shake::new(Role::Peer, WRONG).greeting();
    for (what, said) in [
        ("a malformed SPAKE2 message", vec![malformed.to_vec(), vec![0; 100]]),
        ("a version before any SPAKE2 message", vec![vec![0; 100]]),
        ("an overlong first frame", vec![vec![0; 16 * 1024 + 1]]),
        ("an overlong second frame", vec![spake.to_vec(), vec![0; 16 * 1024 + 1]]),
        ("an empty frame", vec![Vec::new()]),
    ] {
        let (mut host, _) = host(now);
        for frame in said {
            assert_eq!(verdict(&mut host), "none", "{what}");
            feed(&mut host, &frame, now).unwrap();
        }
        assert_eq!(verdict(&mut host), "unproven", "{what}");
        assert_eq!(frames(&mut host, now).len(), 0, "{what}: nothing more is sent on that link");
        a_real_peer_still_connects(host, now);
    }
}

#[test]
fn a_greeting_outlives_its_link_unless_that_was_unproven() {
    let now = Instant::now();
    let spake = Shake::new(Role::Peer, WRONG).greeting();
    for (unproven, outcome) in [(true, "unproven"), (false, "failed")] {
        let (mut host, _) = host(now);
        feed(&mut host, &spake, now).unwrap();
        if unproven {
            feed(&mut host, &[0; 16 * 1024 + 1], now).unwrap();
            assert_eq!(verdict(&mut host), "unproven");
        }
        host.handle_link(Link::Down, now).unwrap();
        up(&mut host, now);
        // A version alone: it is judged against the greeting that is remembered, if one is.
        feed(&mut host, &[0; 100], now).unwrap();
        assert_eq!(verdict(&mut host), outcome);
    }
}

#[test]
fn ten_seconds_of_silence_are_no_guess() {
    let start = Instant::now();
    let (mut host, _) = host(start);
    host.handle_timeout(start + millis(9_999));
    assert_eq!(verdict(&mut host), "none");
    assert_eq!(host.poll_timeout(), Some(start + secs(10)));
    host.handle_timeout(start + secs(10));
    assert_eq!(verdict(&mut host), "unproven");
    a_real_peer_still_connects(host, start + secs(11));
}

#[test]
fn a_link_that_ends_is_no_guess() {
    let now = Instant::now();
    let (mut host, _) = host(now);
    feed(&mut host, &Shake::new(Role::Peer, WRONG).greeting(), now).unwrap();
    host.handle_link(Link::Down, now).unwrap();
    assert_eq!((verdict(&mut host), host.poll_timeout()), ("none", None));
    a_real_peer_still_connects(host, now);
}

#[test]
fn a_greeting_that_was_kept_has_ten_seconds_for_its_version_from_the_new_link() {
    let start = Instant::now();
    let (mut host, _) = host(start);
    feed(&mut host, &Shake::new(Role::Peer, WRONG).greeting(), start + secs(9)).unwrap();
    host.handle_link(Link::Down, start + secs(18)).unwrap();
    up(&mut host, start + secs(30));
    host.handle_timeout(start + millis(39_999));
    assert_eq!((verdict(&mut host), host.poll_timeout()), ("none", Some(start + secs(40))));
    host.handle_timeout(start + secs(40));
    assert_eq!(verdict(&mut host), "unproven");
}

#[test]
fn a_squatter_that_greets_again_and_again_wins_ten_seconds_once() {
    let start = Instant::now();
    let (mut host, _) = host(start);
    let squatter = Shake::new(Role::Peer, WRONG).greeting();
    let mut now = start;
    while verdict(&mut host) == "none" {
        assert!(now < start + secs(20), "it holds the seat for ever");
        feed(&mut host, &squatter, now).unwrap();
        now += secs(5);
        host.handle_timeout(now);
    }
    a_real_peer_still_connects(host, now);
}

#[test]
fn a_frame_after_its_link_has_gone_changes_nothing() {
    let now = Instant::now();
    let (mut host, greeting) = host(now);
    let peer = Shake::new(Role::Peer, CODE);
    feed(&mut host, &peer.greeting(), now).unwrap();
    host.handle_link(Link::Down, now).unwrap();
    feed(&mut host, &peer.sealed(&greeting, &version(Role::Peer)), now).unwrap();
    assert_eq!(verdict(&mut host), "none");
    a_real_peer_still_connects(host, now);
}

#[test]
fn the_peer_gives_up_after_thirty_seconds_on_a_living_link() {
    let start = Instant::now();
    let mut peer = session(Role::Peer);
    up(&mut peer, start);
    peer.handle_timeout(start + secs(20));
    peer.handle_link(Link::Down, start + secs(20)).unwrap();
    peer.handle_timeout(start + secs(90));
    assert_eq!((verdict(&mut peer), peer.poll_timeout()), ("none", None), "no link, no clock");
    up(&mut peer, start + secs(90));
    feed(&mut peer, &Shake::new(Role::Host, CODE).greeting(), start + secs(110)).unwrap();
    peer.handle_timeout(start + millis(119_999));
    assert_eq!(verdict(&mut peer), "none");
    peer.handle_timeout(start + secs(120));
    assert_eq!(verdict(&mut peer), "failed");
}

#[test]
fn a_version_that_opens_and_is_wrong_is_a_failed_confirmation() {
    let now = Instant::now();
    for own in [Role::Host, Role::Peer] {
        for wrong in [
            version(own),
            "not json".to_owned(),
            "[]".to_owned(),
            r#"{"version":1}"#.to_owned(),
            version(own.other()).replace("\"version\":1", "\"version\":2"),
            version(own.other()).replace("\"protocol\":2", "\"protocol\":\"2\""),
            version(own.other()).replace("\"protocol\":2", "\"protocol\":-1"),
            version(own.other()).replace("\"features\"", "\"protocol\":2,\"features\""),
        ] {
            let mut session = session(own);
            up(&mut session, now);
            frames(&mut session, now);
            let other = Shake::new(own.other(), CODE);
            feed(&mut session, &other.greeting(), now).unwrap();
            let sealed = other.sealed(&session.greeting(), &wrong);
            feed(&mut session, &sealed, now).unwrap();
            assert_eq!(verdict(&mut session), "failed", "{own:?}: {wrong}");
        }
    }
}

#[test]
fn an_altered_version_burns_the_code_whatever_was_altered() {
    let now = Instant::now();
    let peer = Shake::new(Role::Peer, CODE);
    let (session_, greeting) = host(now);
    drop(session_);
    let sealed = peer.sealed(&greeting, &version(Role::Peer));
    for at in 0..sealed.len() {
        let (mut host, _) = host(now);
        feed(&mut host, &peer.greeting(), now).unwrap();
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        feed(&mut host, &altered, now).unwrap();
        assert_eq!(verdict(&mut host), "failed", "byte {at}: `protocol` can be neither stripped nor altered");
    }
}

#[test]
fn two_ends_that_believe_different_versions_share_no_key() {
    // In this run the peer says what it says in every other one, with other spaces between.
    let now = Instant::now();
    let mut host = session(Role::Host);
    up(&mut host, now);
    let shake = Shake::new(Role::Peer, CODE);
    feed(&mut host, &shake.greeting(), now).unwrap();
    let sealed = shake.sealed(&host.greeting(), &version(Role::Peer).replace(',', ", "));
    feed(&mut host, &sealed, now).unwrap();
    assert_eq!(verdict(&mut host), "connected");
    let mut other = Hand::new();
    let record = other.data_record(0, &[]);
    assert!(feed(&mut host, &record, now).is_err(), "sealed under keys of another transcript");
    assert!(other.feed(&record).is_ok(), "and good under its own");
}

#[test]
fn handshake_frames_go_again_byte_for_byte_until_the_first_record_opens() {
    let mut hand = Hand::new();
    let frames_of = |hand: &mut Hand| {
        hand.relink(LIMITS).unwrap();
        let [greeting, version, ..] = hand.frames.clone();
        let sent = frames(&mut hand.session, hand.now);
        [greeting, version].map(|frame| sent.iter().filter(|sent| **sent == frame).count())
    };
    // In `Hand::new` a state of the peer has opened already.
    assert_eq!(frames_of(&mut hand), [0, 0]);

    let now = Instant::now();
    for own in [Role::Host, Role::Peer] {
        let mut session = session(own);
        up(&mut session, now);
        let other = Shake::new(own.other(), CODE);
        let mut first = frames(&mut session, now);
        feed(&mut session, &other.greeting(), now).unwrap();
        first.extend(frames(&mut session, now));
        let sealed = other.sealed(&session.greeting(), &version(own.other()));
        feed(&mut session, &sealed, now).unwrap();
        assert_eq!(verdict(&mut session), "connected");
        first.extend(frames(&mut session, now));
        for _ in 0..3 {
            session.handle_link(Link::Down, now).unwrap();
            up(&mut session, now);
            let again = frames(&mut session, now);
            assert_eq!(again[..2], first[..2], "{own:?}: own SPAKE2 message and version, as they were");
            assert_eq!(again.len(), 3, "{own:?}: and a state");
        }
        session.handle_link(Link::Down, now).unwrap();
        session.handle_link(Link::Up { limits: LIMITS, greeted: true }, now).unwrap();
        assert_eq!(frames(&mut session, now)[0], first[1], "{own:?}: the transport has sent the first");
    }
}

#[test]
fn a_peer_that_confirmed_confirms_again_on_a_new_link() {
    let now = Instant::now();
    let mut peer = session(Role::Peer);
    up(&mut peer, now);
    let host = Shake::new(Role::Host, CODE);
    let mut first = frames(&mut peer, now);
    feed(&mut peer, &host.greeting(), now).unwrap();
    first.extend(frames(&mut peer, now));
    peer.handle_link(Link::Down, now).unwrap();
    up(&mut peer, now);
    assert_eq!(frames(&mut peer, now), first);
    // The host greets on each link: that is no second confirmation.
    feed(&mut peer, &host.greeting(), now).unwrap();
    assert_eq!(frames(&mut peer, now), [] as [Bytes; 0]);
    let sealed = host.sealed(&peer.greeting(), &version(Role::Host));
    feed(&mut peer, &sealed, now).unwrap();
    assert_eq!(verdict(&mut peer), "connected");
}

#[test]
fn an_accepted_frame_that_comes_again_is_ignored_for_ever() {
    let mut hand = Hand::new();
    hand.session.offer(text("one")).unwrap();
    hand.take();
    for _ in 0..3 {
        let [_, _, spake, sealed] = hand.frames.clone();
        assert_eq!((hand.feed(&spake), hand.feed(&sealed)), (Ok(()), Ok(())));
        assert_eq!(hand.settle(), [], "not even an answer");
        hand.pass_heard(secs(20));
        hand.settle();
    }
    // Any other frame of the handshake is not of this protocol any more.
    assert!(hand.feed(&Shake::new(Role::Peer, WRONG).greeting()).is_err());
}

#[test]
fn the_host_takes_the_last_greeting_before_a_confirmation() {
    let now = Instant::now();
    let (mut host, greeting) = host(now);
    feed(&mut host, &Shake::new(Role::Peer, WRONG).greeting(), now).unwrap();
    let peer = Shake::new(Role::Peer, CODE);
    feed(&mut host, &peer.greeting(), now).unwrap();
    feed(&mut host, &peer.sealed(&greeting, &version(Role::Peer)), now).unwrap();
    assert_eq!(verdict(&mut host), "connected");
}
