//! Flow: grants, lanes, flight, and the pace of a limited relay.

use std::time::Duration;

use super::super::hand::{Hand, Out, begin, chunk, file, head, millis, secs, text};
use crate::crypto::pake::Role;
use crate::frame::{ChunkBuf, CloseReason, Message};
use crate::item::{ItemHead, ItemId, ItemKind, Lane};
use crate::session::{LinkLimits, PeerFault};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What each side may send before it has heard a grant.
const INITIAL: usize = 64 * KIB;
const COST: usize = 64;

/// The grants that the session tells when it is asked: prompt, bulk.
fn grants(hand: &mut Hand) -> (usize, usize) {
    hand.tell_as(crate::frame::State { ask: true, ..hand.state }).unwrap();
    let states = hand.settle().into_iter().filter_map(|out| match out {
        Out::State(state) => Some(state),
        Out::Data(..) => None,
    });
    let state = states.last().unwrap();
    (state.grant_prompt as usize, state.grant_bulk as usize)
}

fn content(messages: &[Message]) -> usize {
    let lens = messages.iter().map(|message| match message {
        Message::Chunk { bytes, .. } => bytes.len(),
        _ => 0,
    });
    lens.sum()
}

/// Keeps a file's staging full.
fn feed(hand: &mut Hand, id: ItemId) {
    let chunk = hand.session.chunk_size();
    while hand.session.room(Lane::Bulk) >= chunk {
        hand.session.push(id, ChunkBuf::zeroed(chunk), false);
    }
}

#[test]
fn the_windows_are_eight_and_two_mebibytes() {
    let mut hand = Hand::new();
    assert_eq!(grants(&mut hand), (2 * MIB, 8 * MIB));
}

#[test]
fn what_was_dealt_with_is_granted_again_and_nothing_else() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, file("f")), chunk(1, MIB, false), chunk(1, MIB, false)]).unwrap();
    assert_eq!(grants(&mut hand), (2 * MIB, 8 * MIB), "a slow disk grants nothing");
    hand.session.accepted(ItemId(1), MIB as u64);
    assert_eq!(grants(&mut hand), (2 * MIB, 9 * MIB + COST));
    hand.session.accepted(ItemId(1), MIB as u64 + 1);
    assert_eq!(grants(&mut hand).1, 9 * MIB + COST, "half a chunk is none");
    hand.say(&[chunk(1, 0, true)]).unwrap();
    hand.session.stored(ItemId(1), Ok(()));
    assert_eq!(grants(&mut hand).1, 10 * MIB + 3 * COST);

    hand.say(&[begin(2, ItemHead { name: "four".into(), ..text("hello") })]).unwrap();
    assert_eq!(grants(&mut hand).0, 2 * MIB);
    hand.session.stored(ItemId(2), Ok(()));
    assert_eq!(grants(&mut hand).0, 2 * MIB + COST + 4 + 5, "a name is content, too");
}

#[test]
fn a_quarter_received_or_freed_makes_a_state_due() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, file("f"))]).unwrap();
    hand.say(&[chunk(1, 2 * MIB - 2 * COST, false)]).unwrap();
    assert_eq!(hand.settle(), []);
    hand.say(&[chunk(1, COST, false)]).unwrap();
    assert_eq!(hand.states().len(), 1, "a quarter received");
    hand.session.accepted(ItemId(1), u64::MAX);
    let states = hand.states();
    assert_eq!(states.len(), 1, "a quarter freed");
    assert_eq!(states[0].grant_bulk as usize, 10 * MIB + COST);
}

#[test]
fn beyond_the_grant_is_a_fault_in_either_lane() {
    let mut hand = Hand::bare();
    assert_eq!(hand.fault(&[begin(1, file("f")), chunk(1, 8 * MIB - COST, false)]), None, "as was told");
    assert_eq!(hand.fault(&[chunk(1, 1, false)]), Some(PeerFault::BeyondGrant));
    let mut hand = Hand::new();
    hand.say(&[begin(1, head(ItemKind::Text, "")), chunk(1, MIB, true)]).unwrap();
    assert_eq!(hand.fault(&[begin(2, head(ItemKind::Text, "")), chunk(2, MIB - 5 * COST, false)]), None);
    assert_eq!(hand.fault(&[chunk(2, 2 * COST, false)]), Some(PeerFault::BeyondGrant));
}

#[test]
fn a_sender_without_a_word_sends_64_kib_of_each_lane() {
    let mut hand = Hand::bare();
    hand.state.grant_bulk = 0;
    hand.state.grant_prompt = 0;
    let id = hand.session.offer(file("f")).unwrap();
    for _ in 0..20 {
        hand.session.push(id, ChunkBuf::zeroed(4 * KIB), false);
        hand.session.offer(text(&"x".repeat(4 * KIB))).unwrap();
    }
    let messages = hand.take();
    let texts =
        messages.iter().filter(|m| matches!(m, Message::Head { head, .. } if head.kind == ItemKind::Text));
    assert_eq!(content(&messages), 15 * 4 * KIB);
    assert_eq!(texts.count(), 15);
}

#[test]
fn receipts_cancels_and_bulk_heads_need_no_grant() {
    let mut hand = Hand::bare();
    hand.state.grant_bulk = 0;
    hand.state.grant_prompt = 0;
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    hand.session.push(id, ChunkBuf::zeroed(INITIAL), false);
    assert_eq!(hand.take(), [], "64 more than there is");
    hand.say(&[begin(1, text("x"))]).unwrap();
    hand.session.stored(ItemId(1), Ok(()));
    let other = hand.session.offer(file("g")).unwrap();
    let out = hand.take();
    assert!(
        matches!(out[..], [Message::Receipt { .. }, Message::Head { item, .. }] if item == other),
        "{out:?}"
    );
}

#[test]
fn a_receiver_that_takes_nothing_holds_up_the_reader_here() {
    let mut hand = Hand::bare();
    (hand.state.grant_bulk, hand.state.grant_prompt) = (8 * MIB as u64, 2 * MIB as u64);
    hand.tell().unwrap();
    let id = hand.session.offer(file("f")).unwrap();
    let mut sent = 0;
    for _ in 0..200 {
        feed(&mut hand, id);
        sent += content(&hand.take());
    }
    let chunk = hand.session.chunk_size();
    assert_eq!(sent, (8 * MIB).div_ceil(chunk + COST) * chunk - chunk, "a window, and not one chunk more");
    assert!(hand.session.room(Lane::Bulk) < chunk, "and no more is read than what is staged");
    assert!(hand.session.staged(id) <= 4 * MIB);
}

#[test]
fn bulk_in_flight_is_two_chunks_until_more_was_acknowledged() {
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    let chunk = hand.session.chunk_size();
    let flying = |hand: &mut Hand| {
        let mut flying = 0;
        loop {
            feed(hand, id);
            let out = hand.settle();
            let new: usize = out
                .iter()
                .map(|out| if let Out::Data(_, messages) = out { content(messages) } else { 0 })
                .sum();
            flying += new;
            if new == 0 {
                return flying / chunk;
            }
        }
    };
    assert_eq!(flying(&mut hand), 2);
    assert!(
        hand.log.iter().any(|(_, out)| matches!(out, Out::State(state) if state.ask)),
        "asked for at once"
    );
    let acknowledge = |hand: &mut Hand, records: u64| {
        hand.state.next += records;
        hand.tell().unwrap();
    };
    acknowledge(&mut hand, 2);
    assert_eq!(flying(&mut hand), 2, "two were acknowledged in this second");
    acknowledge(&mut hand, 2);
    assert_eq!(flying(&mut hand), 4, "and four by now");
    hand.now += millis(1_001);
    acknowledge(&mut hand, 4);
    assert_eq!(flying(&mut hand), 4, "those of the last second count");
    hand.now += millis(1_001);
    acknowledge(&mut hand, 1);
    assert_eq!(flying(&mut hand), 0);
    acknowledge(&mut hand, 3);
    assert_eq!(flying(&mut hand), 4);
}

#[test]
fn prompt_overtakes_bulk_and_leaves_it_one_record_in_five() {
    let mut hand =
        Hand::with(Role::Host, LinkLimits { max_frame: 2_000, messages_per_minute: 0, relayed: false });
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    let line = "x".repeat(1_500);
    let mut lanes = String::new();
    for _ in 0..20 {
        feed(&mut hand, id);
        for _ in 0..3 {
            hand.session.offer(text(&line)).unwrap();
        }
        let frame = hand.session.poll_transmit(hand.now).unwrap();
        assert!(frame.len() <= 2_000);
        // One record at a time, as a slow link takes them; each is acknowledged.
        hand.state.next += 1;
        hand.tell().unwrap();
        lanes.push(if hand.opens_to_chunk(&frame) { 'b' } else { 'p' });
    }
    assert_eq!(lanes, "ppppbppppbppppbppppb");
}

#[test]
fn a_text_goes_before_all_bulk_that_is_not_sealed() {
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    feed(&mut hand, id);
    hand.session.offer(text("now")).unwrap();
    let out = hand.settle();
    let first =
        out.iter().find_map(|out| if let Out::Data(_, messages) = out { messages.first() } else { None });
    assert!(matches!(first, Some(Message::Head { head, .. }) if head.kind == ItemKind::Text), "{first:?}");
}

#[test]
fn answers_that_never_end_do_not_keep_bulk_back() {
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    let mut chunks = 0;
    for item in 1..=20 {
        feed(&mut hand, id);
        hand.say(&[begin(item, text("x"))]).unwrap();
        hand.session.stored(ItemId(item), Ok(()));
        let frame = hand.session.poll_transmit(hand.now).unwrap();
        hand.state.next += 1;
        hand.tell().unwrap();
        chunks += usize::from(hand.opens_to_chunk(&frame));
    }
    assert!(chunks >= 4, "{chunks} of 20 records");
}

#[test]
fn prompt_items_go_one_after_another_and_bulk_chunks_in_turn() {
    let mut hand = Hand::new();
    let texts: Vec<ItemId> = (0..2).map(|_| hand.session.offer(head(ItemKind::Text, "")).unwrap()).collect();
    let files: Vec<ItemId> = (0..3).map(|n| hand.session.offer(file(&n.to_string())).unwrap()).collect();
    for id in texts.iter().chain(&files) {
        for n in 0..3 {
            hand.session.push(*id, ChunkBuf::zeroed(10), n == 2);
        }
    }
    let order = hand.take().into_iter().map(|message| match message {
        Message::Head { item, .. } => format!("h{item}"),
        Message::Chunk { item, .. } => format!("c{item}"),
        other => panic!("{other:?}"),
    });
    let order: Vec<String> = order.collect();
    assert_eq!(order.join(" "), "h1 c1 c1 c1 h2 c2 c2 c2 h3 h4 h5 c3 c4 c5 c3 c4 c5 c3 c4 c5");
}

#[test]
fn what_waits_together_travels_together_and_a_lone_message_at_once() {
    let mut hand = Hand::new();
    for n in 0..2_000 {
        hand.session.offer(text(&n.to_string())).unwrap();
    }
    let out = hand.settle();
    assert!(out.len() <= 2, "{} records for 2,000 texts", out.len());
    hand.session.offer(text("alone")).unwrap();
    assert_eq!(hand.settle().len(), 1);
}

#[test]
fn a_relay_of_sixty_a_minute_carries_fifty_of_bulk() {
    let limits = LinkLimits { max_frame: MIB + 64 * KIB, messages_per_minute: 60, relayed: true };
    let mut hand = Hand::with(Role::Host, limits);
    assert_eq!(hand.session.chunk_size(), MIB);
    let id = hand.session.offer(file("f")).unwrap();
    let from = hand.now;
    let mut texts = 0;
    let mut bulk = Vec::new();
    // Each ten seconds there is also a text: it does not wait for them.
    for second in 0..240 {
        if second % 10 == 0 {
            hand.session.offer(text("t")).unwrap();
        }
        for _ in 0..100 {
            feed(&mut hand, id);
            let messages = hand.take();
            bulk.extend(messages.iter().filter(|m| matches!(m, Message::Chunk { .. })).map(|_| second));
            texts += messages
                .iter()
                .filter(|m| matches!(m, Message::Head { head, .. } if head.kind == ItemKind::Text))
                .count();
        }
        assert_eq!(texts, second / 10 + 1, "at its second");
        hand.now += secs(1);
        hand.session.handle_timeout(hand.now);
    }
    assert_eq!(hand.now - from, secs(240));
    let in_minute = |minute: usize| bulk.iter().filter(|second| **second / 60 == minute).count();
    assert!(in_minute(0) <= 50 + 25, "{}", in_minute(0));
    for minute in 1..4 {
        assert!((49..=51).contains(&in_minute(minute)), "{}", in_minute(minute));
    }
}

/// Data records that left since then, with how many messages each.
fn records(hand: &Hand, since: usize) -> Vec<usize> {
    let records = hand.log[since..].iter().filter_map(|(_, out)| match out {
        Out::Data(_, messages) => Some(messages.len()),
        Out::State(_) => None,
    });
    records.collect()
}

#[test]
fn many_texts_on_a_relay_of_sixty_a_minute_leave_together_after_the_first() {
    let limits = LinkLimits { max_frame: MIB + 64 * KIB, messages_per_minute: 60, relayed: true };
    let mut hand = Hand::with(Role::Host, limits);
    let long = "more than a relay passes on for nothing ".repeat(4);
    let from = hand.log.len();
    for _ in 0..300 {
        hand.session.offer(text(&long)).unwrap();
        hand.settle();
    }
    assert_eq!(records(&hand, from), vec![1; 15], "half a minute's share, at once");
    hand.pass(secs(2));
    assert_eq!(records(&hand, from)[15..], [285], "all that waited");
    // In the long run one record each two seconds, and a minute of silence makes room for a burst again.
    let from = hand.log.len();
    for _ in 0..600 {
        hand.session.offer(text(&long)).unwrap();
        hand.pass(Duration::from_millis(100));
    }
    let more = records(&hand, from);
    assert!((29..=31).contains(&more.len()) && more.iter().sum::<usize>() >= 580, "{more:?}");
    hand.pass(secs(60));
    let from = hand.log.len();
    hand.session.offer(text("alone")).unwrap();
    hand.settle();
    assert_eq!(records(&hand, from), [1]);
}

#[test]
fn many_answers_on_a_relay_of_sixty_a_minute_leave_together_and_a_close_waits_for_none() {
    let limits = LinkLimits { max_frame: MIB + 64 * KIB, messages_per_minute: 60, relayed: true };
    let mut hand = Hand::with(Role::Host, limits);
    let texts: Vec<_> = (1..=300).map(|id| begin(id, text("x"))).collect();
    hand.say(&texts).unwrap();
    let from = hand.log.len();
    for id in 1..=299 {
        hand.session.stored(ItemId(id), Ok(()));
        hand.settle();
    }
    // Each is short, and the relay passes 600 of those on in a minute, half of which are for records.
    assert_eq!(records(&hand, from), vec![1; 150 + 15]);
    hand.pass(secs(2));
    assert_eq!(records(&hand, from)[165..], [299 - 165]);
    // Those of two seconds since then, and one that waits.
    let from = hand.log.len();
    for id in 300..=310 {
        hand.say(&[begin(id + 1, text("x"))]).unwrap();
        hand.session.stored(ItemId(id), Ok(()));
        hand.settle();
    }
    assert_eq!(records(&hand, from), vec![1; 10], "ten short ones in two seconds, and the last waits");
    hand.session.close(CloseReason::Done, hand.now);
    hand.settle();
    let last = hand.log.iter().rev().find_map(|(_, out)| match out {
        Out::Data(_, messages) => Some(messages.clone()),
        Out::State(_) => None,
    });
    let done =
        [Message::Receipt { item: ItemId(310), refused: None }, Message::Close { reason: CloseReason::Done }];
    assert_eq!(last.as_deref(), Some(&done[..]));
}

#[test]
fn answers_that_wait_for_the_pace_take_no_turn_of_a_long_chunk() {
    let limits = LinkLimits { max_frame: MIB + 64 * KIB, messages_per_minute: 60, relayed: true };
    let mut hand = Hand::with(Role::Host, limits);
    let texts: Vec<_> = (1..=400).map(|id| begin(id, text("x"))).collect();
    hand.say(&texts).unwrap();
    for id in 1..=300 {
        hand.session.stored(ItemId(id), Ok(()));
        hand.take();
    }
    // From here on they wait.
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    let from = hand.log.len();
    for done in 301..=320 {
        hand.session.stored(ItemId(done), Ok(()));
        feed(&mut hand, id);
        hand.take();
    }
    let records = hand.log[from..].iter().filter_map(|(_, out)| match out {
        Out::Data(_, messages) => Some(&messages[..]),
        Out::State(_) => None,
    });
    let [mut chunks, mut answers] = [0; 2];
    for messages in records {
        match messages {
            [Message::Chunk { .. }] => chunks += 1,
            _ => answers += 1,
        }
    }
    assert!(chunks >= 10 && answers == 0, "{chunks} chunks and {answers} other records");
}

#[test]
fn a_link_that_came_back_brings_no_new_burst() {
    let limits = LinkLimits { max_frame: MIB + 64 * KIB, messages_per_minute: 60, relayed: true };
    let mut hand = Hand::with(Role::Host, limits);
    let id = hand.session.offer(file("f")).unwrap();
    let mut sent = 0;
    for link in 2..12 {
        for _ in 0..50 {
            feed(&mut hand, id);
            sent += content(&hand.take()) / MIB;
        }
        hand.relink(limits).unwrap();
        hand.settle();
        hand.state.echo = link;
        hand.tell().unwrap();
    }
    assert!(sent <= 25, "{sent} within no time");
}

#[test]
fn messages_are_acknowledged_before_their_sender_must_remember_many() {
    let mut hand = Hand::new();
    let mut due = 0;
    for id in 1..=4_000 {
        hand.say(&[begin(id, text(""))]).unwrap();
        hand.session.stored(ItemId(id), Ok(()));
        for out in hand.settle() {
            due += u64::from(matches!(out, Out::State(_)));
        }
    }
    assert!((3..=5).contains(&due), "{due} states for 4,000 messages");
}
