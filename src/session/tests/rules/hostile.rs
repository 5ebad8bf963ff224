//! A peer that holds the keys and means harm, and a relay that does not hold them: what each can make of an end.

use std::time::Instant;

use super::super::hand::{Hand, LIMITS, Out, begin, chunk, file, head, member, receipt, secs, text};
use crate::frame::{Message, State};
use crate::item::{ItemHead, ItemId, ItemKind, MAX_UNRECEIPTED, Refusal};
use crate::session::PeerFault;

const fn cancel(item: u64) -> Message {
    Message::Cancel { item: ItemId(item), reason: Refusal::Cancelled }
}

/// Real time in nanoseconds that each of the `n` steps of `run` takes, the best of three.
fn cost(n: usize, prepare: impl Fn() -> Hand, run: impl Fn(&mut Hand, usize)) -> f64 {
    let time = |_| {
        let mut hand = prepare();
        let start = Instant::now();
        run(&mut hand, n);
        start.elapsed().as_nanos() as f64 / n as f64
    };
    (0..3).map(time).fold(f64::INFINITY, f64::min)
}

/// A step among many others may cost several times what it costs among few (caches, other programs on this machine);
/// a scan would cost a hundred times as much.
fn does_not_scan(few: f64, many: f64) {
    assert!(many < 10.0 * few, "{few:.0} ns each among few, {many:.0} ns each among many");
}

#[test]
fn receipts_for_a_peer_that_acknowledges_nothing_are_bounded() {
    let mut hand = Hand::new();
    let mut most = 0;
    // Heads of files cost nothing, and each is answered: this would go on for ever.
    for id in 1..=30_000 {
        hand.say(&[begin(id, file("f")), cancel(id)]).unwrap();
        hand.settle();
        most = most.max(hand.session.backlog().unacknowledged);
    }
    assert!(most <= 4 * MAX_UNRECEIPTED, "{most}");
    assert!(hand.session.events.len() < 40_000, "what is not taken makes no events");
    let answered = hand.records.len() as u64;
    assert!(answered < 30_000);
    // It is asked again, and where the peer acknowledges, all goes on where it stopped.
    hand.log.clear();
    hand.pass(secs(40));
    assert!(hand.log.iter().any(|(_, out)| matches!(out, Out::State(State { ask: true, .. }))));
    assert!(hand.log.iter().any(|(_, out)| matches!(out, Out::State(State { again: true, .. }))));
    hand.state.next = answered;
    hand.tell().unwrap();
    let next = answered + 1;
    let record = hand.data_record(answered, &[begin(next, file("f")), cancel(next)]);
    hand.feed(&record).unwrap();
    let out = hand.settle();
    let goes_on = out.iter().any(|out| matches!(out, Out::Data(_, said) if said.contains(&Message::Receipt { item: ItemId(next), refused: Some(Refusal::Cancelled) })));
    assert!(goes_on, "{out:?}");
}

#[test]
fn an_honest_peer_is_never_held_up_by_that_bound() {
    let mut hand = Hand::new();
    // It acknowledges only what makes a state due: each 1,024 messages.
    let mut untold = 0;
    for id in 1..=50_000 {
        hand.say(&[begin(id, text(""))]).unwrap();
        hand.session.stored(ItemId(id), Ok(()));
        for out in hand.settle() {
            if let Out::Data(number, messages) = out {
                assert_eq!(number, hand.state.next);
                hand.state.next += 1;
                untold += messages.len();
            }
        }
        if untold >= 1_024 {
            untold = 0;
            hand.tell().unwrap();
        }
        assert_eq!(hand.session.events.drain(..).count(), 1, "item {id} was taken");
    }
}

#[test]
fn text_after_text_that_is_refused_and_never_ended_is_not_kept() {
    // Each is refused for its size, keeps no room and has its receipt: only its entry could pile up.
    let mut hand = Hand::new();
    let lie = || ItemHead { size: Some(1), ..head(ItemKind::Text, "") };
    hand.say(&[begin(1, lie()), chunk(1, 2, false)]).unwrap();
    assert_eq!(hand.fault(&[begin(2, lie())]), Some(PeerFault::TooMany));
}

#[test]
fn long_names_draw_on_the_grant() {
    let name = "n".repeat(4_096);
    for group in [None, Some(ItemId(1))] {
        let mut hand = Hand::new();
        hand.say(&[begin(1, head(ItemKind::Group, "g"))]).unwrap();
        let mut kept = 0;
        for id in 2.. {
            let dir = ItemHead { group, ..head(ItemKind::Dir, &name) };
            if let Some(fault) = hand.fault(&[begin(id, dir)]) {
                assert_eq!(fault, PeerFault::BeyondGrant);
                break;
            }
            kept += name.len();
            hand.settle();
        }
        assert!(kept <= 8 << 20, "{kept} bytes of names for a window");
    }
}

#[test]
fn the_dropped_members_of_a_refused_group_are_not_kept() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, head(ItemKind::Group, "g"))]).unwrap();
    hand.session.stored(ItemId(1), Err(Refusal::NoSpace));
    hand.events();
    for id in 2..20_000 {
        let said = [begin(id, member(1, "m")), chunk(id, 1_000, true)];
        assert_eq!(hand.fault(&said), None, "their room is given back at once");
        hand.take();
    }
    assert!(hand.events().is_empty());
    assert_eq!(hand.fault(&[cancel(1), begin(20_000, member(1, "m"))]), Some(PeerFault::Group));
}

#[test]
fn sixteen_places_hold_whatever_was_refused_too() {
    let mut hand = Hand::new();
    for id in 1..=16 {
        hand.say(&[begin(id, file("f"))]).unwrap();
        hand.session.stored(ItemId(id), Err(Refusal::NoSpace));
    }
    assert_eq!(hand.fault(&[begin(17, file("f"))]), Some(PeerFault::TooMany));
}

#[test]
fn a_storm_of_asks_and_agains_makes_one_answer_for_each_turn_of_the_link() {
    let mut hand = Hand::new();
    for n in 0..10 {
        hand.session.offer(text(&n.to_string())).unwrap();
        hand.settle();
    }
    for _ in 0..1_000 {
        hand.tell_as(State { ask: true, again: true, ..hand.state }).unwrap();
    }
    let out = hand.settle();
    assert_eq!(out.len(), 1 + 10, "one state, and what is unacknowledged once");
}

#[test]
fn extreme_states_are_taken_without_a_fault() {
    let mut hand = Hand::new();
    let extreme = State {
        next: 0,
        grant_bulk: u64::MAX,
        grant_prompt: u64::MAX,
        end: u64::MAX,
        link: u64::MAX,
        echo: u64::MAX,
        ask: true,
        again: true,
    };
    hand.tell_as(extreme).unwrap();
    hand.session.offer(text("x")).unwrap();
    let id = hand.session.offer(file("f")).unwrap();
    assert_eq!(hand.take().len(), 2);
    hand.session.cancel(id, Refusal::Cancelled);
    hand.relink(LIMITS).unwrap();
    hand.pass(secs(300));
    assert!(hand.log.len() < 200, "{} frames in five minutes", hand.log.len());
}

#[test]
fn forged_frames_without_a_key_change_nothing_but_drop_or_end() {
    for kind in [1_u8, 2] {
        for number in [0, 1, 2, 1 << 44, u64::MAX - 1, u64::MAX] {
            let mut hand = Hand::new();
            hand.say(&[begin(1, text("x"))]).unwrap();
            hand.settle();
            hand.events();
            let mut forged = vec![kind];
            forged.extend_from_slice(&number.to_be_bytes());
            forged.extend_from_slice(&[0; 40]);
            let taken = hand.feed(&forged);
            if taken.is_ok() {
                hand.pass(secs(5));
                hand.say(&[begin(2, text("y"))]).unwrap();
                assert_eq!(hand.heads().len(), 1, "kind {kind}, number {number}");
            } else {
                assert_eq!(hand.heads().len(), 0);
            }
        }
    }
}

#[test]
fn a_receipt_costs_the_same_among_thousands() {
    let prepare = |offered: usize| {
        move || {
            let mut hand = Hand::new();
            for _ in 0..offered {
                hand.session.offer(text("")).unwrap();
            }
            hand.take();
            hand
        }
    };
    let run = |hand: &mut Hand, n: usize| {
        for id in 1..=n as u64 {
            hand.say(&[receipt(id)]).unwrap();
            // As the driver does on every turn.
            let _ = (hand.session.backlog(), hand.session.poll_timeout(), hand.session.queued());
            hand.session.events.clear();
        }
    };
    does_not_scan(cost(400, prepare(400), run), cost(400, prepare(30_000), run));
}

#[test]
fn taking_back_costs_the_same_among_thousands() {
    let prepare = |offered: usize| {
        move || {
            let mut hand = Hand::new();
            for _ in 0..offered {
                hand.session.offer(text("")).unwrap();
            }
            hand
        }
    };
    let run = |hand: &mut Hand, n: usize| {
        for id in 1..=n as u64 {
            hand.session.cancel(ItemId(id), Refusal::Cancelled);
        }
        assert_eq!(hand.session.events.len(), n);
    };
    does_not_scan(cost(1_000, prepare(1_000), run), cost(1_000, prepare(100_000), run));
}

#[test]
fn a_refused_group_costs_the_same_among_thousands_of_members() {
    let prepare = |members: u64| {
        move || {
            let mut hand = Hand::new();
            hand.say(&[begin(1, head(ItemKind::Group, "big"))]).unwrap();
            for id in 2..2 + members {
                let dir = ItemHead { group: Some(ItemId(1)), ..head(ItemKind::Dir, "m") };
                hand.say(&[begin(id, dir)]).unwrap();
            }
            hand.settle();
            hand
        }
    };
    let run = |first: u64| {
        move |hand: &mut Hand, n: usize| {
            for id in first..first + n as u64 {
                hand.say(&[begin(id, head(ItemKind::Group, "g")), cancel(id)]).unwrap();
                hand.take();
            }
        }
    };
    does_not_scan(cost(500, prepare(10), run(12)), cost(500, prepare(60_000), run(60_002)));
}

#[test]
fn a_text_among_thousands_of_files_names_sixteen_and_looks_at_no_more() {
    let prepare = |files: u64| {
        move || {
            let mut hand = Hand::new();
            for id in 1..=files {
                hand.say(&[begin(id, file("f")), chunk(id, 1, true)]).unwrap();
            }
            hand.settle();
            hand.events();
            hand
        }
    };
    let run = |first: u64| {
        move |hand: &mut Hand, n: usize| {
            for id in first..first + n as u64 {
                hand.say(&[begin(id, text(""))]).unwrap();
                hand.session.stored(ItemId(id), Ok(()));
            }
            assert!(hand.heads().iter().all(|incoming| incoming.pending.len() == 16));
        }
    };
    does_not_scan(cost(500, prepare(20), run(21)), cost(500, prepare(4_000), run(4_001)));
}
