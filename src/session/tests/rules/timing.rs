//! Who is away, what is stalled, and when a channel is idle.

use super::super::hand::{Hand, LIMITS, begin, file, millis, receipt, secs, text};
use crate::frame::{ChunkBuf, CloseReason, Message};
use crate::session::{Link, SessionEvent};

fn names(hand: &mut Hand) -> Vec<String> {
    let names = hand.events().into_iter().map(|event| match event {
        SessionEvent::Stalled(why) => format!("stalled: {why}"),
        other => format!("{other:?}"),
    });
    names.filter(|name| !name.starts_with("Receipt") && !name.starts_with("Opened")).collect()
}

#[test]
fn a_peer_that_says_nothing_for_45_seconds_is_away_and_then_back() {
    let mut hand = Hand::new();
    hand.pass(millis(44_999));
    assert_eq!(names(&mut hand), [] as [&str; 0]);
    hand.pass(millis(1));
    assert_eq!(names(&mut hand), ["PeerAway"]);
    hand.pass(secs(300));
    assert_eq!(names(&mut hand), [] as [&str; 0], "once");
    // A record that does not open, or is not even opened, is no word.
    let old = hand.control_record(0, &hand.state);
    hand.feed(&old).unwrap();
    assert_eq!(names(&mut hand), [] as [&str; 0]);
    hand.tell().unwrap();
    assert_eq!(names(&mut hand), ["PeerBack"]);
    hand.pass(secs(45));
    assert_eq!(names(&mut hand), ["PeerAway"]);
    hand.say(&[]).unwrap();
    assert_eq!(names(&mut hand), ["PeerBack"], "data is a word, too");
}

#[test]
fn the_link_is_left_alone_while_the_peer_is_away() {
    let mut hand = Hand::new();
    hand.pass(secs(60));
    hand.log.clear();
    hand.session.offer(text("still here?")).unwrap();
    assert!(!hand.settle().is_empty());
}

#[test]
fn an_hour_without_a_word_is_idle_whatever_the_link_does() {
    for linked in [true, false] {
        let mut hand = Hand::new();
        if !linked {
            hand.session.handle_link(Link::Down, hand.now).unwrap();
        }
        hand.pass(secs(3_599));
        assert_eq!(names(&mut hand), ["PeerAway"]);
        hand.pass(secs(1));
        assert_eq!(names(&mut hand), ["Idle"]);
        hand.pass(secs(7_200));
        assert_eq!(names(&mut hand), [] as [&str; 0], "once");
    }
    let mut hand = Hand::new();
    hand.pass_heard(secs(10_000));
    assert_eq!(names(&mut hand), [] as [&str; 0]);
}

#[test]
fn a_receiver_that_grants_nothing_stalls_a_transfer_after_30_seconds() {
    let mut hand = Hand::bare();
    (hand.state.grant_bulk, hand.state.grant_prompt) = (0, 0);
    hand.tell().unwrap();
    // A long quiet time before it counts for nothing.
    hand.pass_heard(secs(120));
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    hand.session.push(id, ChunkBuf::zeroed(100_000), false);
    hand.take();
    hand.pass_heard(millis(29_999));
    assert_eq!(names(&mut hand), [] as [&str; 0]);
    hand.pass(millis(2));
    assert_eq!(names(&mut hand), ["stalled: the peer takes nothing at the moment"]);
    hand.pass_heard(secs(100));
    assert_eq!(names(&mut hand), [] as [&str; 0], "once for each stall");
    // Progress ends it; the next one counts anew.
    hand.state.grant_bulk = 200_000;
    hand.tell().unwrap();
    hand.take();
    hand.session.push(id, ChunkBuf::zeroed(150_000), false);
    hand.take();
    let moved = hand.now;
    hand.pass_heard(secs(31));
    assert_eq!(names(&mut hand).len(), 1, "{:?}", hand.now - moved);
}

#[test]
fn prompt_items_that_wait_for_a_grant_stall_too() {
    let mut hand = Hand::bare();
    (hand.state.grant_bulk, hand.state.grant_prompt) = (0, 0);
    hand.tell().unwrap();
    for _ in 0..6 {
        hand.session.offer(text(&"x".repeat(16_000))).unwrap();
    }
    assert_eq!(hand.take().len(), 4);
    hand.pass_heard(secs(31));
    assert_eq!(names(&mut hand), ["stalled: the peer takes nothing at the moment"]);
}

#[test]
fn a_stall_says_what_it_waits_for() {
    let mut hand = Hand::new();
    hand.session.handle_link(Link::Down, hand.now).unwrap();
    hand.session.offer(text("x")).unwrap();
    hand.pass(secs(31));
    assert_eq!(names(&mut hand), ["stalled: the connection is down"]);

    let mut hand = Hand::new();
    hand.pass(secs(20));
    hand.session.offer(text("x")).unwrap();
    hand.pass(secs(31));
    assert_eq!(names(&mut hand), ["PeerAway", "stalled: the peer does not answer"]);

    let mut hand = Hand::new();
    hand.session.offer(text("x")).unwrap();
    hand.settle();
    hand.relink(LIMITS).unwrap();
    hand.pass_heard(secs(31));
    assert_eq!(names(&mut hand), ["stalled: the peer has not answered on the new connection"]);

    let mut hand = Hand::new();
    hand.session.offer(file("a pipe that nobody writes to")).unwrap();
    hand.take();
    hand.pass_heard(secs(31));
    assert_eq!(names(&mut hand), ["stalled: its content comes slowly on this side"]);
}

#[test]
fn nothing_stalls_where_nothing_is_under_way() {
    let mut hand = Hand::new();
    hand.pass_heard(secs(300));
    let id = hand.session.offer(text("x")).unwrap();
    hand.take();
    // All of it is there; it waits for its receipt, which may take a person's time.
    hand.pass_heard(secs(300));
    hand.say(&[receipt(id.0)]).unwrap();
    // Nor does what only the other end sends.
    hand.say(&[begin(1, file("f"))]).unwrap();
    hand.pass_heard(secs(300));
    hand.events()
        .into_iter()
        .for_each(|event| assert!(!matches!(event, SessionEvent::Stalled(_)), "{event:?}"));
}

#[test]
fn a_transfer_that_moves_does_not_stall() {
    let mut hand = Hand::new();
    hand.pass_heard(secs(300));
    let id = hand.session.offer(file("f")).unwrap();
    for _ in 0..20 {
        hand.session.push(id, ChunkBuf::zeroed(10), false);
        hand.take();
        hand.pass_heard(secs(20));
    }
    assert_eq!(names(&mut hand), [] as [&str; 0]);
}

#[test]
fn a_peer_that_has_closed_is_neither_away_nor_slow() {
    let mut hand = Hand::new();
    hand.session.offer(text("x")).unwrap();
    hand.settle();
    hand.say(&[Message::Close { reason: CloseReason::Done }]).unwrap();
    hand.events();
    hand.pass(secs(120));
    assert_eq!(names(&mut hand), [] as [&str; 0]);
}
