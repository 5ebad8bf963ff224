//! The end: what drained means, the last record, who waits for whom, and what a key may carry.

use super::super::hand::{Hand, Out, begin, chunk, file, goodbye, head, millis, receipt, secs, text};
use crate::crypto::pake::Role;
use crate::frame::{ChunkBuf, CloseReason, State};
use crate::item::{ItemId, ItemKind, Refusal};
use crate::session::{Phase, SessionError, SessionEvent};

fn closed(hand: &mut Hand) -> bool {
    hand.events().iter().any(|event| matches!(event, SessionEvent::Closed))
}

fn peer_closed(hand: &mut Hand) -> Option<CloseReason> {
    hand.events().into_iter().find_map(|event| match event {
        SessionEvent::PeerClosed(reason) => Some(reason),
        _ => None,
    })
}

fn close(hand: &mut Hand, reason: CloseReason) {
    hand.session.close(reason, hand.now);
}

#[test]
fn drained_is_every_receipt_and_every_acknowledgement() {
    let mut hand = Hand::new();
    let backlog = |hand: &Hand| {
        let backlog = hand.session.backlog();
        (backlog.unreceipted, backlog.unacknowledged)
    };
    hand.session.offer(text("x")).unwrap();
    assert_eq!(backlog(&hand), (1, 0));
    hand.settle();
    assert_eq!(backlog(&hand), (1, 1));
    hand.state.next = 1;
    hand.tell().unwrap();
    assert_eq!(backlog(&hand), (1, 0));
    hand.say(&[receipt(1), begin(1, text("y"))]).unwrap();
    assert_eq!(backlog(&hand), (0, 0));
    // A receipt that this end owes counts from the moment it is given.
    hand.session.stored(ItemId(1), Ok(()));
    assert_eq!(backlog(&hand), (0, 1));
    hand.settle();
    assert_eq!(backlog(&hand), (0, 1));
    hand.take();
    hand.state.next = 2;
    hand.tell().unwrap();
    assert_eq!(backlog(&hand), (0, 0));
    // So does a number that is still to be filled.
    let id = hand.session.offer(text("z")).unwrap();
    hand.session.cancel(id, Refusal::Cancelled);
    assert_eq!(backlog(&hand), (0, 1));
}

#[test]
fn a_drain_asks_for_the_last_acknowledgement_at_once() {
    let mut hand = Hand::new();
    hand.session.offer(text("x")).unwrap();
    assert_eq!(hand.settle().len(), 1, "no ask before");
    hand.session.drain();
    let states = hand.states();
    assert_eq!((states.len(), states[0].ask, states[0].end), (1, true, 1));
    assert_eq!(hand.settle(), [], "once");
}

#[test]
fn close_is_the_last_record_and_nothing_is_begun_before_it() {
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    hand.say(&[begin(1, text("x"))]).unwrap();
    hand.session.stored(ItemId(1), Ok(()));
    hand.session.offer(text("too late")).unwrap();
    hand.session.push(id, ChunkBuf::zeroed(10), true);
    close(&mut hand, CloseReason::Stopped);
    assert_eq!(hand.take(), [receipt(1), goodbye(CloseReason::Stopped)], "an answer that waits still goes");
    hand.session.offer(text("later still")).unwrap();
    hand.session.cancel(id, Refusal::Cancelled);
    close(&mut hand, CloseReason::Done);
    hand.pass(secs(10));
    assert_eq!(hand.times(hand.start, |out| matches!(out, Out::Data(..))).len(), 2, "nothing after it");
}

#[test]
fn a_close_is_asked_for_every_quarter_second_for_two_seconds() {
    let mut hand = Hand::new();
    let from = hand.now;
    close(&mut hand, CloseReason::Done);
    hand.pass(millis(1_999));
    assert!(!closed(&mut hand));
    let asks = hand.times(from, |out| matches!(out, Out::State(State { ask: true, .. })));
    assert_eq!(asks, [0, 250, 500, 750, 1_000, 1_250, 1_500, 1_750].map(millis));
    hand.pass(millis(1));
    assert!(closed(&mut hand), "then it leaves, not confirmed");
    hand.pass(secs(100));
    assert!(!closed(&mut hand), "once");
}

#[test]
fn other_progress_does_not_slow_the_asking() {
    let mut hand = Hand::new();
    hand.session.offer(text("x")).unwrap();
    hand.settle();
    let from = hand.now;
    close(&mut hand, CloseReason::Done);
    hand.pass(millis(300));
    hand.state.next = 1;
    hand.tell().unwrap();
    hand.log.clear();
    hand.pass(millis(600));
    let asks = hand.times(from, |out| matches!(out, Out::State(State { ask: true, .. })));
    assert!(asks.len() >= 3, "{asks:?}");
}

#[test]
fn an_acknowledged_close_ends_at_once() {
    let mut hand = Hand::new();
    close(&mut hand, CloseReason::Done);
    assert_eq!(hand.take(), [goodbye(CloseReason::Done)]);
    hand.settle();
    assert!(closed(&mut hand));
}

#[test]
fn a_close_over_a_dead_link_ends_after_two_seconds() {
    let mut hand = Hand::new();
    hand.session.handle_link(crate::session::Link::Down, hand.now).unwrap();
    close(&mut hand, CloseReason::Done);
    hand.pass(millis(1_999));
    assert!(!closed(&mut hand));
    hand.pass(millis(1));
    assert!(closed(&mut hand));
}

#[test]
fn everything_before_the_peers_close_is_handled_and_doubles_are_answered() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, text("x")), goodbye(CloseReason::Done)]).unwrap();
    let events = hand.events();
    assert!(
        matches!(events[..], [SessionEvent::Head(_), SessionEvent::PeerClosed(CloseReason::Done)]),
        "{events:?}"
    );
    assert_eq!(hand.states()[0].next, 1, "it is acknowledged at once");
    let double = hand.data_record(0, &[]);
    for _ in 0..3 {
        hand.feed(&double).unwrap();
        assert_eq!(hand.states()[0].next, 1);
    }
    // What came before its close is stored, and the peer may still be there to hear it.
    hand.session.stored(ItemId(1), Ok(()));
    assert_eq!(hand.take(), [receipt(1)]);
}

#[test]
fn nothing_comes_after_a_close() {
    let mut hand = Hand::new();
    assert!(hand.say(&[goodbye(CloseReason::Done), begin(1, text("x"))]).is_err());
    assert_eq!(hand.heads().len(), 0);
    let mut hand = Hand::new();
    hand.say(&[goodbye(CloseReason::Done)]).unwrap();
    assert!(hand.say(&[]).is_err());
}

#[test]
fn a_lower_number_that_is_missing_keeps_a_close_back() {
    let mut hand = Hand::new();
    let close = hand.data_record(1, &[goodbye(CloseReason::Done)]);
    hand.feed(&close).unwrap();
    assert_eq!(peer_closed(&mut hand), None);
    hand.say(&[begin(1, text("x"))]).unwrap();
    hand.feed(&close).unwrap();
    assert_eq!(peer_closed(&mut hand), Some(CloseReason::Done));
}

#[test]
fn crossing_closes_answer_each_other() {
    let mut hand = Hand::new();
    close(&mut hand, CloseReason::Done);
    hand.settle();
    hand.say(&[goodbye(CloseReason::Idle)]).unwrap();
    let events = hand.events();
    assert!(matches!(events[..], [SessionEvent::PeerClosed(CloseReason::Idle)]), "{events:?}");
    assert_eq!(hand.states()[0].next, 1);
    hand.state.next = 1;
    hand.tell().unwrap();
    hand.settle();
    assert!(closed(&mut hand));
}

#[test]
fn an_end_that_took_a_close_does_not_wait_for_anybody() {
    let mut hand = Hand::new();
    hand.say(&[goodbye(CloseReason::Done)]).unwrap();
    hand.settle();
    close(&mut hand, CloseReason::Done);
    assert!(closed(&mut hand));
    assert_eq!(hand.take(), [goodbye(CloseReason::Done)], "it says so nevertheless");
}

#[test]
fn after_the_own_close_nothing_becomes_visible() {
    let mut hand = Hand::new();
    hand.say(&[
        begin(1, file("f")),
        chunk(1, 10, false),
        begin(2, file("whole, not stored")),
        chunk(2, 10, true),
        begin(3, head(ItemKind::Group, "g")),
    ])
    .unwrap();
    hand.events();
    close(&mut hand, CloseReason::Done);
    hand.session.stored(ItemId(2), Ok(()));
    hand.say(&[chunk(1, 10, true), begin(4, text("x")), chunk(3, 0, true)]).unwrap();
    hand.say(&[begin(5, file("g")), chunk(5, 1 << 20, false)]).unwrap();
    assert_eq!(hand.events().len(), 0, "neither heads nor content");
    for id in 1..=5 {
        hand.session.stored(ItemId(id), Ok(()));
    }
    assert_eq!(hand.take(), [goodbye(CloseReason::Done)], "and no receipt");
}

#[test]
fn an_item_without_a_receipt_at_the_end_stays_unanswered() {
    let mut hand = Hand::new();
    hand.session.offer(text("x")).unwrap();
    hand.take();
    hand.say(&[goodbye(CloseReason::Done)]).unwrap();
    let events = hand.events();
    assert!(
        !events.iter().any(|event| matches!(event, SessionEvent::Receipt { .. })),
        "not confirmed: {events:?}"
    );
    assert_eq!(hand.session.backlog().unreceipted, 1);
}

#[test]
fn a_key_that_carried_two_to_the_44_bytes_closes_the_channel() {
    let mut hand = Hand::with(Role::Peer, super::super::hand::LIMITS);
    let Phase::Open(open) = &mut hand.session.phase else { panic!("open") };
    open.out.use_up();
    hand.session.offer(text("the last one")).unwrap();
    assert_eq!(hand.settle().len(), 1);
    hand.session.offer(text("one too many")).unwrap();
    assert_eq!(hand.settle(), []);
    hand.state.next = 1;
    assert_eq!(hand.tell(), Err(SessionError::UsedUp));
    assert_eq!(hand.take(), [goodbye(CloseReason::UsedUp)]);
    hand.settle();
    assert!(closed(&mut hand));
    // A frame more is no second reason.
    assert_eq!(hand.tell(), Ok(()));
}
