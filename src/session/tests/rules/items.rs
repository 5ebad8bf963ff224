//! Items: numbers, one receipt each, refusals, cancels, groups, and what each lane may have under way.

use super::super::hand::{Hand, begin, chunk, file, head, member, receipt, secs, text};
use crate::frame::{ChunkBuf, Message};
use crate::item::{ItemHead, ItemId, ItemKind, MAX_OPEN_BULK, MAX_UNRECEIPTED, Refusal};
use crate::session::{PeerFault, SessionEvent};

const fn refused(item: u64, reason: Refusal) -> Message {
    Message::Receipt { item: ItemId(item), refused: Some(reason) }
}

const fn cancel(item: u64, reason: Refusal) -> Message {
    Message::Cancel { item: ItemId(item), reason }
}

/// What the session answers, without its cancels and heads.
fn receipts(hand: &mut Hand) -> Vec<Message> {
    let mut taken = hand.take();
    taken.retain(|message| matches!(message, Message::Receipt { .. }));
    taken
}

fn cancelled(hand: &mut Hand) -> Vec<(u64, Refusal)> {
    let events = hand.events().into_iter().filter_map(|event| match event {
        SessionEvent::Cancelled { id, reason } => Some((id.0, reason)),
        _ => None,
    });
    events.collect()
}

/// Receipts of own items that the session tells its owner.
fn told(hand: &mut Hand) -> Vec<(u64, Option<Refusal>)> {
    let events = hand.events().into_iter().filter_map(|event| match event {
        SessionEvent::Receipt { id, refused } => Some((id.0, refused)),
        _ => None,
    });
    events.collect()
}

fn sized(size: u64) -> ItemHead {
    ItemHead { size: Some(size), ..file("f") }
}

fn heads_of(messages: &[Message]) -> Vec<u64> {
    let heads = messages.iter().filter_map(|message| match message {
        Message::Head { item, .. } => Some(item.0),
        _ => None,
    });
    heads.collect()
}

// --- what the other end may not do

#[test]
fn what_no_correct_peer_says_is_a_fault_of_its_own() {
    let group = || begin(1, head(ItemKind::Group, "g"));
    let inline = |kind| ItemHead { inline: Some("x".into()), ..head(kind, "n") };
    for (what, said, fault) in [
        ("number 0", vec![begin(0, text("x"))], PeerFault::ItemNumber),
        ("a reused number", vec![begin(1, text("x")), begin(1, text("x"))], PeerFault::ItemNumber),
        ("a falling prompt number", vec![begin(2, text("x")), begin(1, text("x"))], PeerFault::ItemNumber),
        ("a number too far ahead", vec![begin(4_098, file("f"))], PeerFault::ItemNumber),
        (
            "the highest of all numbers",
            vec![begin(9, file("f")), begin(u64::MAX, file("f"))],
            PeerFault::ItemNumber,
        ),
        ("a chunk of nothing", vec![chunk(1, 1, true)], PeerFault::NotOpen),
        (
            "a chunk after the end",
            vec![begin(1, file("f")), chunk(1, 1, true), chunk(1, 1, true)],
            PeerFault::NotOpen,
        ),
        ("a chunk of an inline item", vec![begin(1, text("x")), chunk(1, 1, true)], PeerFault::NotOpen),
        (
            "an empty chunk in between",
            vec![begin(1, file("f")), chunk(1, 0, false)],
            PeerFault::Contradiction,
        ),
        ("content of a group", vec![group(), chunk(1, 1, false)], PeerFault::Contradiction),
        ("a dir with content", vec![begin(1, inline(ItemKind::Dir))], PeerFault::Contradiction),
        ("a group with content", vec![begin(1, inline(ItemKind::Group))], PeerFault::Contradiction),
        (
            "two sizes",
            vec![begin(1, ItemHead { size: Some(2), ..inline(ItemKind::File) })],
            PeerFault::Contradiction,
        ),
        (
            "a text in a group",
            vec![group(), begin(2, ItemHead { group: Some(ItemId(1)), ..text("x") })],
            PeerFault::Contradiction,
        ),
        (
            "a group in a group",
            vec![group(), begin(2, ItemHead { group: Some(ItemId(1)), ..head(ItemKind::Group, "h") })],
            PeerFault::Contradiction,
        ),
        ("a member of nothing", vec![begin(2, member(1, "m"))], PeerFault::Group),
        ("a member of itself", vec![begin(2, member(2, "m"))], PeerFault::Group),
        ("a member of a file", vec![begin(1, file("f")), begin(2, member(1, "m"))], PeerFault::Group),
        ("a member too late", vec![group(), chunk(1, 0, true), begin(2, member(1, "m"))], PeerFault::Group),
        (
            "the end of a group before its member's",
            vec![group(), begin(2, member(1, "m")), chunk(1, 0, true)],
            PeerFault::Contradiction,
        ),
        ("a receipt of nothing", vec![receipt(1)], PeerFault::Receipt),
        (
            "two prompt items at once",
            vec![begin(1, head(ItemKind::Text, "")), begin(2, text("x"))],
            PeerFault::TooMany,
        ),
    ] {
        let mut hand = Hand::new();
        assert_eq!(hand.fault(&said), Some(fault), "{what}");
        let closed = hand.take().into_iter().any(|message| matches!(message, Message::Close { .. }));
        assert!(closed, "{what}: the other side learns it");
    }
}

#[test]
fn an_unknown_tag_is_a_fault() {
    let mut hand = Hand::new();
    let record = hand.sealed(crate::frame::RecordKind::Data, 0, b"\x09\0\0\0\0");
    assert!(hand.feed(&record).is_err());
    let mut hand = Hand::new();
    let mut state = Vec::new();
    hand.state.encode(&mut state);
    let record = hand.sealed(crate::frame::RecordKind::Data, 0, &state);
    assert!(hand.feed(&record).is_err(), "a state is no data");
}

#[test]
fn a_receipt_that_is_not_due_is_a_fault() {
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    assert_eq!(hand.fault(&[receipt(id.0)]), Some(PeerFault::Receipt), "its head has not left");

    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    assert_eq!(hand.fault(&[receipt(id.0)]), Some(PeerFault::Receipt), "stored before its end");

    let mut hand = Hand::new();
    let id = hand.session.offer(text("x")).unwrap();
    hand.take();
    assert_eq!(hand.fault(&[receipt(id.0), receipt(id.0)]), Some(PeerFault::Receipt), "a second one");
    assert_eq!(told(&mut hand), [(1, None)]);

    let mut hand = Hand::new();
    let group = hand.session.offer(head(ItemKind::Group, "g")).unwrap();
    hand.take();
    let id = hand.session.offer(member(group.0, "m")).unwrap();
    hand.take();
    assert_eq!(hand.fault(&[refused(id.0, Refusal::NoSpace)]), Some(PeerFault::Receipt), "a member has none");
}

#[test]
fn more_than_4096_without_a_receipt_or_16_open_are_a_fault() {
    let mut hand = Hand::new();
    for id in 1..=MAX_UNRECEIPTED as u64 {
        assert_eq!(hand.fault(&[begin(id, head(ItemKind::Dir, "d"))]), None);
        hand.settle();
    }
    // One answer makes one place.
    hand.session.stored(ItemId(5), Ok(()));
    hand.settle();
    assert_eq!(hand.fault(&[begin(4_097, text("x"))]), None);
    assert_eq!(hand.fault(&[begin(4_098, text("x"))]), Some(PeerFault::TooMany));

    let mut hand = Hand::new();
    for id in 1..=MAX_OPEN_BULK as u64 {
        assert_eq!(hand.fault(&[begin(id, file("f"))]), None);
    }
    assert_eq!(hand.fault(&[chunk(3, 1, true), begin(17, file("f"))]), None);
    assert_eq!(hand.fault(&[begin(18, file("f"))]), Some(PeerFault::TooMany));
}

// --- receipts

#[test]
fn each_item_gets_exactly_one_receipt() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, text("x")), begin(2, file("f")), chunk(2, 9, true)]).unwrap();
    assert_eq!(receipts(&mut hand), [], "nothing is stored yet");
    for _ in 0..2 {
        hand.session.stored(ItemId(2), Ok(()));
        hand.session.stored(ItemId(2), Err(Refusal::NoSpace));
        hand.session.stored(ItemId(1), Err(Refusal::BadText));
        hand.session.stored(ItemId(1), Ok(()));
        hand.session.stored(ItemId(3), Ok(()));
    }
    assert_eq!(receipts(&mut hand), [receipt(2), refused(1, Refusal::BadText)]);
}

#[test]
fn an_item_that_has_not_ended_is_not_stored() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, file("f")), chunk(1, 9, false)]).unwrap();
    hand.session.stored(ItemId(1), Ok(()));
    assert_eq!(receipts(&mut hand), []);
    hand.say(&[chunk(1, 1, true)]).unwrap();
    hand.session.stored(ItemId(1), Ok(()));
    assert_eq!(receipts(&mut hand), [receipt(1)]);
}

#[test]
fn after_an_early_refusal_what_comes_is_dropped_and_its_grant_given_back() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, file("f")), chunk(1, 1 << 20, false)]).unwrap();
    hand.session.stored(ItemId(1), Err(Refusal::NoSpace));
    assert_eq!(receipts(&mut hand), [refused(1, Refusal::NoSpace)]);
    hand.events();
    // Ten windows more, none of them taken by anybody.
    for _ in 0..80 {
        hand.say(&[chunk(1, 1 << 20, false)]).unwrap();
        hand.settle();
    }
    assert!(hand.events().is_empty(), "nobody hears of it");
    hand.say(&[chunk(1, 1, true)]).unwrap();
    assert_eq!(receipts(&mut hand), [], "its receipt has been given");
    assert_eq!(hand.fault(&[chunk(1, 1, true)]), Some(PeerFault::NotOpen));
}

#[test]
fn a_sender_ends_what_was_refused_early() {
    let mut hand = Hand::new();
    for head in [file("f"), head(ItemKind::Text, "")] {
        let id = hand.session.offer(head).unwrap();
        hand.session.push(id, ChunkBuf::zeroed(10), false);
        hand.take();
        hand.session.push(id, ChunkBuf::zeroed(1000), false);
        hand.say(&[refused(id.0, Refusal::NoSpace)]).unwrap();
        hand.session.push(id, ChunkBuf::zeroed(1000), true);
        assert_eq!(hand.take(), [cancel(id.0, Refusal::Cancelled)]);
        assert_eq!(told(&mut hand), [(id.0, Some(Refusal::NoSpace))]);
    }
    let backlog = hand.session.backlog();
    assert_eq!((backlog.unreceipted, backlog.unacknowledged), (0, 0));
    assert_eq!(hand.session.room(crate::item::Lane::Bulk), hand.session.room(crate::item::Lane::Prompt));
}

// --- cancel

#[test]
fn cancel_works_in_each_stage() {
    let mut hand = Hand::new();
    // Queued: its number is filled, nothing else.
    let queued = hand.session.offer(text("x")).unwrap();
    hand.session.cancel(queued, Refusal::Changed);
    assert_eq!(told(&mut hand), [(1, Some(Refusal::Changed))]);
    assert_eq!(hand.take(), [cancel(1, Refusal::Changed)]);
    // Open: the peer answers.
    let open = hand.session.offer(file("f")).unwrap();
    hand.session.push(open, ChunkBuf::zeroed(10), false);
    hand.take();
    hand.session.push(open, ChunkBuf::zeroed(10), false);
    hand.events();
    hand.session.cancel(open, Refusal::Unreadable);
    hand.session.cancel(open, Refusal::Cancelled);
    assert_eq!(hand.take(), [cancel(2, Refusal::Unreadable)], "what was staged is not sent any more");
    assert_eq!(told(&mut hand), []);
    hand.say(&[refused(2, Refusal::Unreadable)]).unwrap();
    assert_eq!(told(&mut hand), [(2, Some(Refusal::Unreadable))]);
    // Ended: too late, the receipt says how it went.
    let ended = hand.session.offer(text("x")).unwrap();
    hand.take();
    hand.session.cancel(ended, Refusal::Cancelled);
    assert_eq!(hand.take(), []);
    hand.say(&[receipt(3)]).unwrap();
    assert_eq!(told(&mut hand), [(3, None)]);
    // Gone.
    hand.session.cancel(ended, Refusal::Cancelled);
    assert_eq!((hand.take(), told(&mut hand)), (vec![], vec![]));
    assert_eq!(hand.session.backlog().unreceipted, 0);
}

#[test]
fn a_cancel_of_the_peer_is_answered_with_its_reason_unless_it_comes_too_late() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, file("f")), chunk(1, 9, false), cancel(1, Refusal::Changed)]).unwrap();
    assert_eq!(cancelled(&mut hand), [(1, Refusal::Changed)]);
    assert_eq!(receipts(&mut hand), [refused(1, Refusal::Changed)]);
    hand.say(&[cancel(2, Refusal::Cancelled)]).unwrap();
    assert_eq!((receipts(&mut hand), cancelled(&mut hand)), (vec![], vec![]), "it never began");
    hand.say(&[begin(3, text("x")), cancel(3, Refusal::Cancelled)]).unwrap();
    assert_eq!((receipts(&mut hand), cancelled(&mut hand)), (vec![], vec![]), "it has ended");
    hand.session.stored(ItemId(3), Ok(()));
    assert_eq!(receipts(&mut hand), [receipt(3)]);
    hand.say(&[cancel(3, Refusal::Cancelled)]).unwrap();
    assert_eq!(receipts(&mut hand), []);
    assert_eq!(hand.fault(&[begin(2, text("x"))]), Some(PeerFault::ItemNumber), "its number was filled");
}

// --- size

#[test]
fn another_size_than_announced_is_one_refused_item() {
    for said in
        [vec![chunk(1, 11, true)], vec![chunk(1, 9, true)], vec![chunk(1, 6, false), chunk(1, 6, false)]]
    {
        let mut hand = Hand::new();
        hand.say(&[begin(1, sized(10))]).unwrap();
        hand.say(&said).unwrap();
        assert_eq!(cancelled(&mut hand), [(1, Refusal::WrongSize)]);
        assert_eq!(receipts(&mut hand), [refused(1, Refusal::WrongSize)]);
        hand.session.stored(ItemId(1), Ok(()));
        assert_eq!(receipts(&mut hand), []);
        hand.say(&[begin(2, sized(10)), chunk(2, 10, true)]).unwrap();
        hand.session.stored(ItemId(2), Ok(()));
        assert_eq!(receipts(&mut hand), [receipt(2)], "the channel lives on");
    }
}

#[test]
fn a_text_over_a_mebibyte_is_one_refused_item() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, head(ItemKind::Text, ""))]).unwrap();
    hand.say(&[chunk(1, 1 << 20, false)]).unwrap();
    assert_eq!(receipts(&mut hand), []);
    hand.say(&[chunk(1, 1, true)]).unwrap();
    assert_eq!(receipts(&mut hand), [refused(1, Refusal::BadText)]);
}

// --- groups

#[test]
fn a_group_has_the_one_receipt_for_all_its_members() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, head(ItemKind::Group, "g")), begin(2, member(1, "a")), chunk(2, 5, true)]).unwrap();
    hand.session.stored(ItemId(2), Ok(()));
    assert_eq!(receipts(&mut hand), []);
    hand.say(&[chunk(1, 0, true)]).unwrap();
    hand.session.stored(ItemId(1), Ok(()));
    assert_eq!(receipts(&mut hand), [receipt(1)]);
}

#[test]
fn a_member_that_fails_takes_its_group_with_it() {
    let group = || [begin(1, head(ItemKind::Group, "g")), begin(2, member(1, "ok")), chunk(2, 5, true)];
    let bad = || begin(3, ItemHead { size: Some(10), ..member(1, "bad") });
    for (what, said, reason) in [
        ("too short", vec![bad(), chunk(3, 9, true)], Refusal::WrongSize),
        ("too long", vec![bad(), chunk(3, 11, false)], Refusal::WrongSize),
        ("taken back", vec![bad(), cancel(3, Refusal::Changed)], Refusal::Changed),
    ] {
        let mut hand = Hand::new();
        hand.say(&group()).unwrap();
        hand.say(&said).unwrap();
        assert_eq!(cancelled(&mut hand), [(1, reason)], "{what}");
        assert_eq!(receipts(&mut hand), [refused(1, reason)], "{what}: a group is whole or not there");
        hand.session.stored(ItemId(2), Ok(()));
        // What still comes of it is dropped.
        hand.say(&[begin(4, member(1, "more")), chunk(4, 7, true)]).unwrap();
        hand.say(&[cancel(1, Refusal::Cancelled)]).unwrap();
        assert_eq!((receipts(&mut hand), hand.heads().len()), (vec![], 0), "{what}");
    }
    let mut hand = Hand::new();
    hand.say(&group()).unwrap();
    hand.session.stored(ItemId(2), Err(Refusal::NoSpace));
    assert_eq!(receipts(&mut hand), [refused(1, Refusal::NoSpace)]);
}

#[test]
fn a_sender_takes_a_group_back_with_all_that_is_under_way() {
    for by_member in [false, true] {
        let mut hand = Hand::new();
        let group = hand.session.offer(head(ItemKind::Group, "g")).unwrap();
        hand.take();
        let ended = hand.session.offer(ItemHead { inline: Some("x".into()), ..member(1, "ended") }).unwrap();
        let open = hand.session.offer(member(1, "open")).unwrap();
        let taken = hand.take();
        assert_eq!(heads_of(&taken), [ended.0, open.0]);
        // No place in the link for the next one.
        let queued = hand.session.offer(member(1, "queued")).unwrap();
        hand.events();
        hand.session.cancel(if by_member { open } else { group }, Refusal::Changed);
        let late = hand.session.offer(member(1, "late")).unwrap();
        assert_eq!(
            hand.take(),
            [
                cancel(group.0, Refusal::Changed),
                cancel(open.0, Refusal::Cancelled),
                cancel(queued.0, Refusal::Cancelled),
                cancel(late.0, Refusal::Cancelled),
            ],
            "the reason goes first"
        );
        hand.say(&[refused(1, Refusal::Changed)]).unwrap();
        assert_eq!(told(&mut hand), [(1, Some(Refusal::Changed))], "members have none");
        let backlog = hand.session.backlog();
        assert_eq!((backlog.unreceipted, backlog.unacknowledged), (0, 0));
    }
}

#[test]
fn a_group_ends_after_its_members_and_they_begin_after_it() {
    let mut hand = Hand::new();
    // Offered all at once, the end first.
    let group = hand.session.offer(head(ItemKind::Group, "g")).unwrap();
    let small = hand.session.offer(ItemHead { inline: Some("x".into()), ..member(1, "a") }).unwrap();
    let long = hand.session.offer(member(1, "b")).unwrap();
    hand.session.push(group, ChunkBuf::zeroed(0), true);
    let begun = hand.take();
    assert_eq!(heads_of(&begun), [group.0, small.0, long.0]);
    assert_eq!(begun.len(), 3, "the end waits");
    hand.session.push(long, ChunkBuf::zeroed(3), true);
    let ended: Vec<u64> = hand
        .take()
        .iter()
        .map(|message| match message {
            Message::Chunk { item, last: true, .. } => item.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ended, [long.0, group.0]);
}

// --- what a sender keeps below

/// Offers, and answers each head at the very last moment; the most that lacked a receipt, and the most open.
fn offer_many(heads: impl Iterator<Item = ItemHead>, take_back: bool) -> (usize, usize) {
    let mut hand = Hand::new();
    let mut offered = Vec::new();
    for head in heads {
        offered.push(hand.session.offer(head).unwrap());
    }
    if take_back {
        // Numbers that are filled run as far ahead as those that begin.
        for id in offered.iter().skip(1).step_by(2) {
            hand.session.cancel(*id, Refusal::Cancelled);
        }
    }
    // The receiver's own rules are what this is held against.
    let mut peer = Hand::new();
    let (mut most, mut most_open, mut ended) = (0, 0, 0);
    let mut waiting = Vec::new();
    let mut open = Vec::new();
    while ended < offered.len() {
        let messages = hand.take();
        for message in &messages {
            match message {
                Message::Head { item, head } if head.is_whole() => waiting.push(*item),
                Message::Head { item, .. } => open.push(*item),
                Message::Chunk { item, last: true, .. } => {
                    open.retain(|other| other != item);
                    waiting.push(*item);
                }
                Message::Cancel { .. } => ended += 1,
                other => panic!("{other:?}"),
            }
        }
        most = most.max(waiting.len() + open.len());
        most_open = most_open.max(open.len());
        assert_eq!(peer.fault(&messages), None);
        peer.take();
        if messages.is_empty() {
            // Nothing goes any more: only now there is an end, and an answer.
            if let Some(id) = open.first() {
                hand.session.push(*id, ChunkBuf::zeroed(1), true);
            } else {
                let id = waiting.pop().expect("neither something to send nor to answer");
                hand.say(&[receipt(id.0)]).unwrap();
                peer.session.stored(id, Ok(()));
                ended += 1;
            }
        }
    }
    assert_eq!(hand.session.backlog().unreceipted, 0);
    (most, most_open)
}

#[test]
fn a_sender_of_5000_small_items_keeps_4096_without_a_receipt() {
    let (most, _) = offer_many((0..5_000).map(|_| text("x")), false);
    assert_eq!(most, MAX_UNRECEIPTED);
}

#[test]
fn a_sender_of_5000_files_keeps_16_open_and_4096_without_a_receipt() {
    let (most, open) = offer_many((0..5_000).map(|_| file("f")), false);
    assert_eq!(most, MAX_UNRECEIPTED);
    assert!((1..=MAX_OPEN_BULK).contains(&open), "{open}");
}

#[test]
fn numbers_of_one_lane_do_not_run_away_from_those_of_the_other() {
    let files = (0..5_000).map(|_| file("f"));
    let (most, _) = offer_many(files.chain((0..5_000).map(|_| text("x"))), false);
    assert_eq!(most, MAX_UNRECEIPTED);
}

#[test]
fn filled_numbers_do_not_run_away_either() {
    offer_many((0..10_000).map(|n| if n < 5_000 { file("f") } else { text("x") }), true);
}

#[test]
fn a_text_names_what_was_sent_earlier_and_is_not_there() {
    let mut hand = Hand::new();
    hand.say(&[
        begin(1, file("report.pdf")),
        begin(2, head(ItemKind::Group, "tree")),
        begin(3, member(2, "tree/leaf")),
        begin(4, file("there.txt")),
        chunk(4, 1, true),
        begin(5, ItemHead { inline: Some("x".into()), ..file("short") }),
        begin(6, file("refused")),
        // 7 and 8 have not begun; 10 comes later than the text.
        begin(10, file("later")),
        begin(9, text("done")),
    ])
    .unwrap();
    let pending = |hand: &mut Hand| {
        let incoming = hand.heads().pop().unwrap();
        (incoming.pending, incoming.pending_more)
    };
    let names = ["report.pdf", "tree", "there.txt", "refused"].map(str::to_owned).to_vec();
    assert_eq!(pending(&mut hand), (names, 2), "received is not stored yet");
    hand.session.stored(ItemId(4), Ok(()));
    hand.session.stored(ItemId(6), Err(Refusal::NoSpace));
    hand.say(&[cancel(7, Refusal::Cancelled), cancel(1, Refusal::Changed), begin(11, text("now"))]).unwrap();
    assert_eq!(pending(&mut hand), (vec!["tree".into(), "later".into()], 1));
    // Only texts are told so.
    hand.say(&[begin(12, ItemHead { inline: Some("x".into()), ..file("short") })]).unwrap();
    assert_eq!(pending(&mut hand), (vec![], 0));
}

#[test]
fn sixteen_names_are_enough_and_the_rest_is_counted() {
    let mut hand = Hand::new();
    for id in 1..=30 {
        hand.say(&[begin(id, file(&format!("f{id}"))), chunk(id, 1, true)]).unwrap();
    }
    hand.say(&[begin(33, text("x"))]).unwrap();
    let incoming = hand.heads().pop().unwrap();
    assert_eq!((incoming.pending.len(), incoming.pending_more), (16, 14 + 2));
    assert_eq!(incoming.pending[15], "f16");
}

#[test]
fn long_waits_change_nothing_about_items() {
    let mut hand = Hand::new();
    let id = hand.session.offer(text("x")).unwrap();
    hand.take();
    hand.pass_heard(secs(600));
    hand.say(&[receipt(id.0)]).unwrap();
    assert_eq!(told(&mut hand), [(1, None)]);
}
