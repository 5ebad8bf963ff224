//! What a peer can make the log say, and a reader of standard output that is slow or gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Memory, Shared, unread};
use crate::channel::journal::Journal;
use crate::event::{ClosedEvent, Event, QuestionEvent, RefusedEvent, Side, StatusEvent, TextEvent};

fn journal(lines: crate::channel::options::Lines) -> (Arc<Journal>, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let journal = Journal::new(Arc::new(Shared(Arc::clone(&memory))), lines, || {}).unwrap();
    (Arc::new(journal), memory)
}

fn text(body: &str) -> Event {
    Event::Text(TextEvent { body: Some(body.to_owned()), ..TextEvent::default() })
}

#[test]
fn a_reader_that_never_reads_holds_up_neither_the_status_nor_the_end() {
    let (lines, _hold) = unread();
    let (journal, memory) = journal(lines);
    let writing = {
        let journal = Arc::clone(&journal);
        std::thread::spawn(move || (0..3000).for_each(|_| journal.event(&text("x"))))
    };
    while memory.log.lock().unwrap().len() < 1024 {
        std::thread::yield_now();
    }
    assert!(journal.last_seq() >= 1024, "answered without the reader");
    journal.tick();
    journal.release();
    writing.join().unwrap();
    journal.finish(Duration::ZERO);
    assert_eq!(memory.log.lock().unwrap().len(), 3000);
}

#[test]
fn a_full_disk_behind_standard_output_does_not_end_the_channel() {
    let (told, unread) = std::sync::mpsc::channel();
    let (reached, end) = std::sync::mpsc::channel();
    let mut kinds = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::BrokenPipe].into_iter();
    let lines = move |_: &str| {
        let kind = kinds.next().unwrap();
        reached.send(kind).unwrap();
        Err(kind.into())
    };
    let mailbox = Arc::new(Shared(Arc::default()));
    let journal = Journal::new(mailbox, Box::new(lines), move || told.send(()).unwrap()).unwrap();
    journal.event(&text("x"));
    end.recv().unwrap();
    assert!(unread.try_recv().is_err());
    journal.event(&text("x"));
    unread.recv().unwrap();
}

#[test]
fn long_lines_count_as_several_and_a_busy_log_is_rotated_too() {
    let (journal, memory) = journal(Box::new(|_| Ok(())));
    let long = text(&"\u{1}".repeat(1024));
    for _ in 0..8192 {
        journal.event(&long);
    }
    let lines = memory.log.lock().unwrap().len();
    assert!(lines < 8192 / 10, "{lines} lines of 6 KiB passed");
    let bytes = memory.log().len();
    assert!(bytes < 6 * 1024 * 1024, "{bytes} bytes at once");
    // What this end says itself is not bounded by the peer's share.
    for _ in 0..30_000 {
        journal.own(StatusEvent::Error(Some("x".repeat(600))));
    }
    assert!(memory.rotations.load(Ordering::SeqCst) > 0, "never quiet, and rotated all the same");
}

#[test]
fn closed_is_the_last_line() {
    let (journal, memory) = journal(Box::new(|_| Ok(())));
    for _ in 0..20_000 {
        journal.event(&text("x"));
    }
    journal.own(StatusEvent::Closed(ClosedEvent::default()));
    journal.finish(Duration::ZERO);
    let log = memory.log.lock().unwrap();
    assert!(log.last().unwrap().contains(r#""event":"closed""#), "{:?}", log.last());
    assert!(log[log.len() - 2].contains(r#""event":"burst""#));
}

fn answer(n: u64) -> Event {
    Event::Answer(QuestionEvent { id: Some(n), name: format!("q{n}"), ..QuestionEvent::default() })
}

#[test]
fn an_answer_is_told_whatever_else_comes_and_a_question_waits_for_its_time() {
    let (journal, memory) = journal(Box::new(|_| Ok(())));
    assert!(journal.may_ask());
    for _ in 0..20_000 {
        journal.event(&text("x"));
    }
    (0..1_000).for_each(|n| journal.event(&answer(n)));
    let told = |what: &str| memory.log.lock().unwrap().iter().filter(|line| line.contains(what)).count();
    assert_eq!(told(r#""type":"answer""#), 1_000);
    // The answers have left a debt of two seconds: a question waits, and is told all the same when the channel ends.
    assert!(!journal.may_ask());
    journal.release();
    assert!(journal.may_ask());
    journal.event(&Event::Ask(QuestionEvent::default()));
    assert_eq!(told(r#""type":"ask""#), 1);
}

fn refused(name: &str) -> RefusedEvent {
    RefusedEvent { by: Side::Peer, id: Some(1), name: name.to_owned(), detail: None }
}

#[test]
fn what_a_peer_says_hides_no_refusal_of_what_this_side_sends() {
    let (journal, memory) = journal(Box::new(|_| Ok(())));
    for _ in 0..20_000 {
        journal.event(&text("x"));
        journal.event(&Event::Status(StatusEvent::Refused(refused("theirs"))));
    }
    journal.own(StatusEvent::Refused(refused("mine")));
    assert!(memory.log().contains(r#""name":"mine""#));
    // And is bounded itself: a peer may refuse all that this side sends.
    (0..20_000).for_each(|_| journal.own(StatusEvent::Refused(refused("mine"))));
    let told = memory.log().matches(r#""name":"mine""#).count();
    assert!((8_192..10_000).contains(&told), "{told} lines");
}
