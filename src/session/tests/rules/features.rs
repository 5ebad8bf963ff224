//! What both ends know besides: secrets, questions, and that an item was opened.

use bytes::Bytes;

use super::super::hand::{Hand, LIMITS, Out, begin, head, secs, version};
use crate::crypto::pake::Role;
use crate::frame::Message;
use crate::item::{Feature, ItemHead, ItemId, ItemKind, Refusal};
use crate::session::{Link, PeerFault, SessionEvent};

fn secret(bytes: &'static [u8]) -> ItemHead {
    ItemHead { inline: Some(Bytes::from_static(bytes)), ..head(ItemKind::Secret, "KEY") }
}

fn messages(outs: &[Out]) -> Vec<Message> {
    let data = outs.iter().filter_map(|out| match out {
        Out::Data(_, messages) => Some(messages.clone()),
        Out::State(_) => None,
    });
    data.flatten().collect()
}

#[test]
fn what_the_other_end_does_not_name_is_refused_at_home_and_its_number_is_filled() {
    let all = version(Role::Peer);
    let list = all.split("\"features\":").nth(1).unwrap().split(",\"agent\"").next().unwrap();
    for features in ["[]", "1", "{}", "[\"secret\",1]", "null", "[1,\"secrets\",\"questions\"]"] {
        let mut hand = Hand::saying(all.replace(list, features));
        for (kind, item) in [
            (ItemKind::Secret, secret(b"s")),
            (ItemKind::Ask, head(ItemKind::Ask, "q")),
            (ItemKind::Answer, head(ItemKind::Answer, "q")),
        ] {
            let id = hand.session.offer(item).unwrap();
            let told = hand.session.poll_event();
            assert!(
                matches!(told, Some(SessionEvent::Receipt { id: of, refused: Some(Refusal::Unsupported) }) if of == id),
                "{features} {kind:?} {told:?}"
            );
            let left = messages(&hand.settle());
            assert_eq!(
                left,
                [Message::Cancel { item: id, reason: Refusal::Unsupported }],
                "{features} {kind:?}"
            );
        }
        hand.session.opened(ItemId(1), 7);
        assert!(messages(&hand.settle()).is_empty(), "{features}: it was told what it does not know");
    }
}

#[test]
fn what_both_name_is_sent() {
    let mut hand = Hand::new();
    for item in
        [secret(b"s"), ItemHead { inline: Some(Bytes::from_static(b"?")), ..head(ItemKind::Ask, "q") }]
    {
        let id = hand.session.offer(item.clone()).unwrap();
        assert_eq!(messages(&hand.settle()), [Message::Head { item: id, head: item }]);
    }
}

#[test]
fn that_an_item_was_opened_is_told_once() {
    let mut hand = Hand::new();
    hand.session.opened(ItemId(3), 1_700_000_000_123);
    assert_eq!(hand.take(), [Message::Opened { item: ItemId(3), at: 1_700_000_000_123 }]);
    hand.pass_heard(secs(60));
    assert!(hand.take().is_empty());
}

#[test]
fn an_item_that_was_offered_can_be_opened_and_no_other() {
    let mut hand = Hand::new();
    let id = hand.session.offer(head(ItemKind::Text, "")).unwrap();
    hand.say(&[Message::Opened { item: id, at: u64::MAX }]).unwrap();
    let event = hand.session.poll_event();
    assert!(matches!(event, Some(SessionEvent::Read { id: of, at: u64::MAX }) if of == id), "{event:?}");
    for id in [0, id.0 + 1, u64::MAX] {
        let mut hand = Hand::new();
        hand.session.offer(head(ItemKind::Text, "")).unwrap();
        let fault = hand.fault(&[Message::Opened { item: ItemId(id), at: 0 }]);
        assert_eq!(fault, Some(PeerFault::Receipt), "{id}");
    }
}

#[test]
fn a_secret_in_pieces_and_one_in_a_group_break_the_protocol() {
    for item in [
        head(ItemKind::Secret, "KEY"),
        ItemHead { group: Some(ItemId(1)), ..secret(b"s") },
        ItemHead { size: Some(2), ..secret(b"s") },
    ] {
        let mut hand = Hand::new();
        hand.say(&[begin(1, head(ItemKind::Group, "g"))]).unwrap();
        assert_eq!(hand.fault(&[begin(2, item)]), Some(PeerFault::Contradiction));
    }
}

#[test]
fn of_what_was_opened_without_a_link_the_oldest_is_not_told() {
    let mut hand = Hand::new();
    hand.session.handle_link(Link::Down, hand.now).unwrap();
    for id in 1..=5_000 {
        hand.session.opened(ItemId(id), id);
    }
    hand.session.handle_link(Link::Up { limits: LIMITS, greeted: false }, hand.now).unwrap();
    hand.settle();
    hand.state.echo = 2;
    hand.tell().unwrap();
    let opened = hand.take().into_iter().map(|message| match message {
        Message::Opened { item, .. } => item.0,
        other => panic!("{other:?}"),
    });
    assert_eq!(opened.collect::<Vec<_>>(), (905..=5_000).collect::<Vec<u64>>());
}

#[test]
fn each_feature_has_a_word_of_its_own() {
    let words = Feature::ALL.map(Feature::as_str);
    assert_eq!(words, ["secrets", "questions", "opened"]);
}
