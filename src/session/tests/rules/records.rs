//! Records: the order of checks, what is answered, what is asked for, and what is sent again.

use super::super::hand::{Hand, LIMITS, Out, begin, millis, receipt, secs, text};
use crate::frame::{CloseReason, FrameError, Message, RecordKind, State};
use crate::item::ItemId;
use crate::session::{LinkLimits, PeerFault, SessionError, SessionEvent};

const fn is_again(out: &Out) -> bool {
    matches!(out, Out::State(State { again: true, .. }))
}

const fn is_ask(out: &Out) -> bool {
    matches!(out, Out::State(State { ask: true, .. }))
}

const fn is_data(out: &Out) -> bool {
    matches!(out, Out::Data(..))
}

fn closes_with(hand: &mut Hand) -> Option<CloseReason> {
    hand.take().into_iter().find_map(|message| match message {
        Message::Close { reason } => Some(reason),
        _ => None,
    })
}

#[test]
fn a_frame_that_is_no_record_is_the_peers_fault_whatever_its_number() {
    for (frame, error) in [
        (vec![1; 24], FrameError::Short(24)),
        (vec![], FrameError::Short(0)),
        (vec![0; 25], FrameError::Kind(0)),
        (vec![3; 64], FrameError::Kind(3)),
    ] {
        let mut hand = Hand::new();
        assert_eq!(hand.feed(&frame), Err(SessionError::Peer(PeerFault::Frame(error))));
        assert_eq!(closes_with(&mut hand), Some(CloseReason::Protocol));
    }
}

#[test]
fn a_lower_number_is_dropped_unopened_and_answered_by_one_state() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, text("a"))]).unwrap();
    hand.settle();
    let mut garbage = hand.data_record(0, &[begin(1, text("a"))]);
    garbage[12] ^= 1;
    for _ in 0..5 {
        assert_eq!(hand.feed(&garbage), Ok(()), "it is not even opened");
    }
    let states = hand.states();
    assert_eq!((states.len(), states[0].next), (1, 1), "several causes make one state");
    assert_eq!(hand.heads().len(), 1);
}

#[test]
fn a_higher_number_is_dropped_unopened_and_asked_for() {
    let mut hand = Hand::new();
    let mut garbage = hand.data_record(7, &[]);
    garbage[12] ^= 1;
    assert_eq!(hand.feed(&garbage), Ok(()), "it is not even opened");
    hand.session.handle_timeout(hand.now);
    let states = hand.states();
    assert_eq!(states.len(), 1);
    assert!(states[0].again && states[0].next == 0, "at once");
}

#[test]
fn only_a_failed_opening_is_tampering_and_both_sides_learn_it() {
    for at in [0, 5, 9, 20, 30] {
        let mut hand = Hand::new();
        let mut record = hand.data_record(0, &[begin(1, text("attack at dawn"))]);
        if at < 9 {
            // The header decides what is opened: swap the kind under a good seal.
            record = hand.sealed(RecordKind::Control, 1, b"");
            record[0] = 1;
            record[8] = 0;
        } else {
            record[at] ^= 1;
        }
        assert_eq!(hand.feed(&record), Err(SessionError::Tampered), "byte {at}");
        assert_eq!(closes_with(&mut hand), Some(CloseReason::Tampered));
        assert!(hand.heads().is_empty(), "nothing of it was taken");
    }
    let mut hand = Hand::new();
    let mut record = hand.control_record(50, &hand.state);
    record[10] ^= 1;
    assert_eq!(hand.feed(&record), Err(SessionError::Tampered));
    assert_eq!(closes_with(&mut hand), Some(CloseReason::Tampered));
}

#[test]
fn after_a_fault_records_are_still_taken_and_another_fault_changes_nothing() {
    let mut hand = Hand::new();
    let mut altered = hand.data_record(0, &[begin(1, text("x"))]);
    altered[20] ^= 1;
    assert_eq!(hand.feed(&altered), Err(SessionError::Tampered));
    assert_eq!(closes_with(&mut hand), Some(CloseReason::Tampered));
    let good = hand.data_record(0, &[begin(1, text("x"))]);
    assert_eq!(hand.feed(&good), Ok(()));
    assert!(hand.heads().is_empty(), "the item is dropped");
    assert!(matches!(hand.feed(b"no record"), Err(SessionError::Peer(_))));
    assert_eq!(hand.feed(&good), Ok(()), "a double");
    assert_eq!(hand.states().last().map(|state| state.next), Some(1), "it was taken");
    assert_eq!(closes_with(&mut hand), None, "one close, with the first reason");
}

#[test]
fn an_old_control_is_dropped_unopened_even_when_it_was_never_seen() {
    let mut hand = Hand::new();
    let ask = State { ask: true, ..hand.state };
    let old = hand.control_record(10, &ask);
    let mut altered = hand.control_record(12, &ask);
    altered[20] ^= 1;
    let newer = hand.control_record(12, &hand.state);
    hand.feed(&newer).unwrap();
    for stale in [&old, &altered, &newer] {
        assert_eq!(hand.feed(stale), Ok(()));
        assert_eq!(hand.settle(), [], "an old ask is not answered");
    }
    hand.feed(&hand.control_record(13, &ask)).unwrap();
    assert_eq!(hand.states().len(), 1);
}

#[test]
fn the_highest_control_number_is_the_last_one_taken() {
    let mut hand = Hand::new();
    let last = hand.control_record(u64::MAX, &State { ask: true, ..hand.state });
    hand.feed(&last).unwrap();
    assert_eq!(hand.states().len(), 1);
    let older = hand.control_record(5, &State { ask: true, ..hand.state });
    for replayed in [&last, &older] {
        hand.feed(replayed).unwrap();
        assert_eq!(hand.settle(), [], "a replay is not heard");
    }
}

#[test]
fn an_ask_a_new_link_and_a_double_are_answered_at_the_next_transmit() {
    let mut hand = Hand::new();
    hand.tell_as(State { ask: true, ..hand.state }).unwrap();
    assert_eq!(hand.states().len(), 1, "ask");
    hand.state.link = 2;
    hand.tell().unwrap();
    let states = hand.states();
    assert_eq!((states.len(), states[0].echo), (1, 2), "a new link is echoed");
    hand.tell().unwrap();
    assert_eq!(hand.settle(), [], "a state alone is not answered: two ends would never be quiet");
}

#[test]
fn what_is_due_goes_before_any_record() {
    let mut hand = Hand::new();
    hand.session.offer(text("one")).unwrap();
    hand.tell_as(State { ask: true, ..hand.state }).unwrap();
    let out = hand.settle();
    assert!(matches!(out[..], [Out::State(_), Out::Data(0, _)]), "{out:?}");
}

#[test]
fn a_lost_last_acknowledgement_is_asked_for() {
    let mut hand = Hand::new();
    hand.session.offer(text("one")).unwrap();
    let sent = hand.now;
    hand.settle();
    // The hand has it, and its state was lost.
    hand.state.next = 1;
    hand.pass(secs(1));
    assert_eq!(hand.times(sent, is_ask), [secs(1)]);
    hand.tell().unwrap();
    assert_eq!(hand.session.backlog().unacknowledged, 0);
    hand.log.clear();
    hand.pass_heard(secs(60));
    assert_eq!(hand.times(sent, is_ask), [], "nothing is waited for any more");
}

#[test]
fn a_lost_grant_is_asked_for() {
    let mut hand = Hand::new();
    // The grants of `Hand` count from the start: this one is for a session that knows 64 KiB only.
    let mut poor = hand_without_grants();
    let long = "x".repeat(16_000);
    for _ in 0..5 {
        poor.session.offer(text(&long)).unwrap();
    }
    let taken = poor.take();
    assert_eq!(taken.len(), 4, "64 KiB hold four");
    let waiting = poor.now;
    poor.log.clear();
    poor.pass(secs(1));
    assert_eq!(poor.times(waiting, is_ask).len(), 1, "everything is acknowledged, and yet something waits");
    poor.state.grant_prompt = 1 << 20;
    poor.tell().unwrap();
    assert_eq!(poor.take().len(), 1);
    assert_eq!(hand.take().len(), 0);
}

/// A hand that has told no grant yet.
fn hand_without_grants() -> Hand {
    let mut hand = Hand::bare();
    hand.state.grant_bulk = 0;
    hand.state.grant_prompt = 0;
    hand.tell().unwrap();
    hand.settle();
    hand
}

#[test]
fn asks_back_off_from_one_second_to_fifteen() {
    let mut hand = Hand::new();
    hand.session.offer(text("one")).unwrap();
    let sent = hand.now;
    hand.settle();
    hand.pass(secs(80));
    let asks = hand.times(sent, is_ask);
    assert_eq!(asks, [1, 2, 4, 8, 16, 31, 46, 61, 76].map(secs));
    assert_eq!(hand.times(sent, is_data), [secs(0)], "an ask alone resends nothing");
    // Progress starts it anew.
    hand.session.offer(text("two")).unwrap();
    hand.state.next = 1;
    hand.tell().unwrap();
    let moved = hand.now;
    hand.log.clear();
    hand.pass(secs(4));
    assert_eq!(hand.times(moved, is_ask), [1, 2, 4].map(secs));
}

#[test]
fn again_comes_at_most_each_half_second_doubling_to_fifteen() {
    let mut hand = Hand::new();
    let from = hand.now;
    let late = hand.data_record(3, &[]);
    for _ in 0..400 {
        hand.feed(&late).unwrap();
        hand.pass(millis(100));
    }
    let times = hand.times(from, is_again);
    let wanted = [0, 500, 1_500, 3_500, 7_500, 15_500, 30_500].map(millis);
    assert_eq!(times, wanted, "however many records come");
    // The gap ends with the record that was missing; the next one is a gap of its own.
    hand.say(&[]).unwrap();
    hand.settle();
    hand.log.clear();
    let from = hand.now;
    hand.feed(&late).unwrap();
    hand.pass(millis(600));
    assert_eq!(hand.times(from, is_again), [0, 500].map(millis));
}

#[test]
fn an_end_above_next_is_asked_for_after_a_second() {
    let mut hand = Hand::new();
    hand.tell_as(State { end: 2, ..hand.state }).unwrap();
    let from = hand.now;
    hand.pass(millis(999));
    assert_eq!(hand.times(from, is_again), []);
    hand.pass(millis(1));
    assert_eq!(hand.times(from, is_again), [secs(1)]);
}

#[test]
fn a_forged_number_is_forgotten_with_the_next_record() {
    let mut hand = Hand::new();
    let mut forged = hand.data_record(u64::MAX, &[]);
    forged[30 - 9] ^= 1;
    hand.feed(&forged).unwrap();
    hand.pass(millis(10));
    hand.say(&[]).unwrap();
    hand.settle();
    hand.log.clear();
    let from = hand.now;
    hand.pass_heard(secs(120));
    assert_eq!(hand.times(from, is_again), [], "anybody can write a number");
}

#[test]
fn a_state_goes_out_every_fifteen_seconds() {
    let mut hand = Hand::new();
    let from = hand.now;
    hand.log.clear();
    hand.pass_heard(secs(61));
    assert_eq!(hand.times(from, |_| true), [15, 30, 45, 60].map(secs));
}

#[test]
fn no_data_leaves_after_a_link_came_up_until_its_echo() {
    let mut hand = Hand::new();
    hand.session.offer(text("one")).unwrap();
    hand.settle();
    hand.session.offer(text("two")).unwrap();
    hand.relink(LIMITS).unwrap();
    let states = hand.states();
    assert_eq!(states.len(), 1);
    assert!(states[0].ask && states[0].link == 2);
    // `again`, an ask and the echo of the last link change nothing.
    hand.tell_as(State { again: true, ask: true, ..hand.state }).unwrap();
    assert_eq!(hand.states().len(), 1);
    hand.pass(secs(3));
    assert_eq!(hand.times(hand.start, is_data), [secs(0)], "asked for, not sent");
    let first = hand.records[&0].clone();
    hand.state.echo = 2;
    hand.tell().unwrap();
    let out = hand.settle();
    let numbers: Vec<u64> =
        out.iter().filter_map(|out| if let Out::Data(n, _) = out { Some(*n) } else { None }).collect();
    assert_eq!(numbers, [0, 1], "from `next` on");
    assert_eq!(hand.records[&0], first, "byte for byte");
    hand.tell().unwrap();
    assert_eq!(hand.settle(), [], "only the first echo of a link resends");
}

#[test]
fn the_first_echo_asks_at_once_for_what_is_missing() {
    let mut hand = Hand::new();
    // A gap that has been asked for until its clock is slow.
    hand.feed(&hand.data_record(1, &[])).unwrap();
    hand.pass(secs(20));
    hand.relink(LIMITS).unwrap();
    hand.settle();
    hand.log.clear();
    let from = hand.now;
    hand.state.echo = 2;
    hand.state.end = 2;
    hand.tell().unwrap();
    hand.pass(millis(10));
    assert_eq!(hand.times(from, is_again), [secs(0)]);
}

#[test]
fn again_resends_the_same_bytes_and_seals_nothing() {
    let mut hand = Hand::new();
    for n in 0..3 {
        hand.session.offer(text(&n.to_string())).unwrap();
        hand.settle();
    }
    let records = hand.records.clone();
    hand.state.next = 1;
    hand.tell_as(State { again: true, ..hand.state }).unwrap();
    // `settle` compares the bytes of each number with those that it saw first.
    let out = hand.settle();
    assert!(matches!(out[..], [Out::Data(1, _), Out::Data(2, _)]), "{out:?}");
    assert_eq!(hand.records, records);
    hand.session.offer(text("new")).unwrap();
    let out = hand.settle();
    assert!(matches!(out[..], [Out::Data(3, _)]), "{out:?}");
}

#[test]
fn a_next_above_the_end_is_a_fault() {
    let mut hand = Hand::new();
    hand.session.offer(text("one")).unwrap();
    hand.settle();
    let error = hand.tell_as(State { next: 2, ..hand.state });
    assert_eq!(error, Err(SessionError::Peer(PeerFault::AcknowledgedFuture)));
    let mut hand = Hand::new();
    let error = hand.tell_as(State { next: u64::MAX, ..hand.state });
    assert_eq!(error, Err(SessionError::Peer(PeerFault::AcknowledgedFuture)));
}

#[test]
fn a_falling_next_or_grant_changes_nothing() {
    let mut hand = Hand::new();
    for n in 0..2 {
        hand.session.offer(text(&n.to_string())).unwrap();
    }
    hand.take();
    hand.tell_as(State { next: 0, grant_bulk: 0, grant_prompt: 0, end: 0, link: 0, ..hand.state }).unwrap();
    assert_eq!(hand.settle(), []);
    hand.session.offer(text(&"x".repeat(16_000))).unwrap();
    assert_eq!(hand.take().len(), 1, "what was granted stays granted");
}

#[test]
fn a_link_with_shorter_frames_than_what_must_go_again_ends_the_channel() {
    let mut hand = Hand::new();
    hand.session.offer(text(&"x".repeat(16_000))).unwrap();
    hand.settle();
    let error = hand.relink(LinkLimits { max_frame: 8_000, messages_per_minute: 0, relayed: false });
    assert_eq!(error, Err(SessionError::FrameLimit));
    hand.pass(secs(3));
    assert!(hand.events().iter().any(|event| matches!(event, SessionEvent::Closed)));
}

#[test]
fn what_was_staged_for_a_longer_frame_is_cut_for_a_shorter_one() {
    use super::super::hand::file;
    use crate::frame::ChunkBuf;
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    // No grant: the chunk waits while the link changes.
    hand.session.handle_link(crate::session::Link::Down, hand.now).unwrap();
    let content: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    hand.session.push(id, ChunkBuf::copy_of(&content[..150_000]), false);
    let limits = LinkLimits { max_frame: 65_536, messages_per_minute: 0, relayed: false };
    hand.session.handle_link(crate::session::Link::Up { limits, greeted: false }, hand.now).unwrap();
    // One that was read for the old link comes late.
    hand.session.push(id, ChunkBuf::copy_of(&content[150_000..]), true);
    hand.settle();
    hand.state.echo = 2;
    hand.tell().unwrap();
    let mut got = Vec::new();
    let mut lasts = Vec::new();
    for message in hand.take() {
        if let Message::Chunk { bytes, last, .. } = message {
            got.extend_from_slice(&bytes);
            lasts.push(last);
        }
    }
    assert_eq!(got, content);
    assert_eq!(lasts.iter().position(|last| *last), Some(lasts.len() - 1), "the end comes once, at the end");
    assert!(hand.records.values().all(|record| record.len() <= 65_536));
}

#[test]
fn an_empty_record_is_taken_and_acknowledged() {
    let mut hand = Hand::new();
    hand.say(&[]).unwrap();
    hand.tell_as(State { ask: true, ..hand.state }).unwrap();
    assert_eq!(hand.states()[0].next, 1);
}

#[test]
fn a_record_with_a_fault_has_had_its_earlier_messages_handled() {
    let mut hand = Hand::new();
    assert_eq!(hand.fault(&[begin(1, text("a")), receipt(9), begin(2, text("b"))]), Some(PeerFault::Receipt));
    let heads: Vec<ItemId> = hand.heads().into_iter().map(|incoming| incoming.id).collect();
    assert_eq!(heads, [ItemId(1)]);
}
