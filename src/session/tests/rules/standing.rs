//! Where an own item stands: what the other end is known to have of it, and what it waits for.

use super::super::hand::{Hand, Out, begin, file, head, member, secs, text};
use crate::crypto::pake::Role;
use crate::frame::ChunkBuf;
use crate::item::{ItemHead, ItemKind};
use crate::session::{Link, LinkLimits};

const KIB: usize = 1024;

#[test]
fn content_is_confirmed_by_the_acknowledgement_of_its_record_and_not_by_its_leaving() {
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    hand.session.push(id, ChunkBuf::zeroed(100 * KIB), false);
    hand.session.push(id, ChunkBuf::zeroed(5), false);
    let records = hand.settle().iter().filter(|out| matches!(out, Out::Data(..))).count() as u64;
    assert_eq!(records, 3, "a head, a long chunk, a short one");
    let mut confirmed = Vec::new();
    for _ in 0..records {
        confirmed.push(hand.session.confirmed(id));
        hand.state.next += 1;
        hand.tell().unwrap();
    }
    confirmed.push(hand.session.confirmed(id));
    assert_eq!(confirmed, [0, 0, 100 * KIB as u64, 100 * KIB as u64 + 5]);
    hand.tell().unwrap();
    assert_eq!(hand.session.confirmed(id), 100 * KIB as u64 + 5, "once");
}

#[test]
fn a_group_counts_what_its_members_have() {
    let mut hand = Hand::new();
    let group = hand.session.offer(head(ItemKind::Group, "g")).unwrap();
    let inline = ItemHead { inline: Some(vec![7; 30].into()), ..member(group.0, "a") };
    hand.session.offer(inline).unwrap();
    let long = hand.session.offer(member(group.0, "b")).unwrap();
    hand.session.push(long, ChunkBuf::zeroed(20 * KIB), false);
    hand.session.push(long, ChunkBuf::zeroed(3), true);
    hand.take();
    assert_eq!(hand.session.confirmed(group), 30 + 20 * KIB as u64 + 3);
    assert_eq!(hand.session.confirmed(long), 0, "its group has it");
}

#[test]
fn a_long_text_is_confirmed_chunk_by_chunk() {
    let mut hand = Hand::new();
    let id = hand.session.offer(head(ItemKind::Text, "")).unwrap();
    for _ in 0..3 {
        hand.session.push(id, ChunkBuf::zeroed(20 * KIB), false);
    }
    hand.take();
    assert_eq!(hand.session.confirmed(id), 60 * KIB as u64);
}

#[test]
fn what_an_item_waits_for_is_named() {
    let mut hand = Hand::new();
    let id = hand.session.offer(file("f")).unwrap();
    assert_eq!(hand.session.why_waiting(id), "others are before it");
    hand.take();
    assert_eq!(hand.session.why_waiting(id), "its content comes slowly on this side");
    hand.session.push(id, ChunkBuf::zeroed(100), false);
    hand.settle();
    assert_eq!(hand.session.why_waiting(id), "what was sent is not acknowledged yet");
    hand.take();
    hand.session.push(id, ChunkBuf::zeroed(100), true);
    hand.take();
    assert_eq!(hand.session.why_waiting(id), "the peer has not stored it yet");
    hand.pass(secs(46));
    assert_eq!(hand.session.why_waiting(id), "the peer does not answer");
    assert_eq!(hand.session.why_nothing_comes(), "the peer does not answer");
    hand.session.handle_link(Link::Down, hand.now).unwrap();
    assert_eq!(hand.session.why_waiting(id), "the connection is down");
}

#[test]
fn a_peer_without_room_and_a_relay_that_counts_are_told_apart() {
    let mut hand = Hand::bare();
    (hand.state.grant_bulk, hand.state.grant_prompt) = (0, 0);
    let id = hand.session.offer(file("f")).unwrap();
    hand.take();
    for _ in 0..9 {
        hand.session.push(id, ChunkBuf::zeroed(8 * KIB), false);
        hand.take();
    }
    assert_eq!(hand.session.why_waiting(id), "the peer takes nothing at the moment");
    assert_eq!(hand.session.confirmed(id), 56 * KIB as u64, "64 KiB, less the cost of each chunk");

    let limits = LinkLimits { max_frame: 1 << 20, messages_per_minute: 6, relayed: true };
    let mut hand = Hand::with(Role::Host, limits);
    let id = hand.session.offer(file("f")).unwrap();
    for _ in 0..9 {
        hand.session.push(id, ChunkBuf::zeroed(100 * KIB), false);
        hand.take();
    }
    assert_eq!(hand.session.why_waiting(id), "the relay's limit of messages a minute");
}

#[test]
fn what_comes_and_stops_is_the_peers_affair_while_it_is_there() {
    let mut hand = Hand::new();
    hand.say(&[begin(1, file("f")), begin(2, text("x"))]).unwrap();
    assert_eq!(hand.session.why_nothing_comes(), "nothing more of it comes from the peer");
}
