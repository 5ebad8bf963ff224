//! What a hostile other end, or a stranger, can make this end keep or say.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use agent_wormhole_mount::secret::{MAX_WAITING, SharedVault};
use agent_wormhole_mount::{Ctl, OutboxEvent};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::error::TrySendError;

use super::{Memory, Rig, Shared, unread};
use crate::channel::backend::Chosen;
use crate::channel::driver::Notice;
use crate::channel::journal::Journal;
use crate::channel::report::Report;
use crate::channel::store::{Done, Job, Store};
use crate::crypto::pake::Role;
use crate::event::{Event, QuestionEvent, StatusEvent, TransportKind};
use crate::item::{ItemHead, ItemId, ItemKind, Lane, Refusal};
use crate::session::Incoming;
use crate::transport::{Control, TransportEvent};

fn head(kind: ItemKind, group: Option<u64>, name: &str) -> ItemHead {
    let group = group.map(ItemId);
    ItemHead { kind, group, name: name.into(), size: None, executable: false, mtime: None, inline: None }
}

fn incoming(id: u64, head: ItemHead) -> Incoming {
    Incoming { id: ItemId(id), head, pending: Vec::new(), pending_more: 0 }
}

fn journal() -> (Arc<Journal>, Arc<Memory>, Arc<dyn agent_wormhole_mount::Mailbox>) {
    let memory = Arc::new(Memory::default());
    let mailbox: Arc<dyn agent_wormhole_mount::Mailbox> = Arc::new(Shared(Arc::clone(&memory)));
    let journal = Journal::new(Arc::clone(&mailbox), Box::new(|_| Ok(())), || {}).unwrap();
    (Arc::new(journal), memory, mailbox)
}

#[test]
fn members_leave_nothing_behind_and_names_are_cut() {
    let (journal, _, mailbox) = journal();
    let mut report = Report::new(
        "1",
        Role::Host,
        (TransportKind::Direct, String::new()),
        &Chosen { mailbox, why: None, vault: SharedVault::default() },
        journal,
        None,
    );
    report.begin(&incoming(1, head(ItemKind::Group, None, "tree")));
    for id in 2..1000 {
        report.begin(&incoming(id, head(ItemKind::Dir, Some(1), "d")));
    }
    report.end(ItemId(1), Err(Refusal::Cancelled));
    report.begin(&incoming(2000, head(ItemKind::File, None, &"\u{1}".repeat(4096))));
    let json = report.render((Vec::new(), 0), "", Instant::now()).unwrap();
    assert!(json.len() < 4096, "{} bytes", json.len());
    assert!(json.contains(r#""in_flight":[{"id":2000"#), "{json}");
}

#[tokio::test]
async fn items_that_are_taken_back_do_not_pile_up_before_a_slow_disk() {
    let (journal, memory, mailbox) = journal();
    let (done_in, mut done) = tokio::sync::mpsc::unbounded_channel();
    let store = Store::start((&mailbox, &SharedVault::default()), &journal, &done_in).unwrap();
    let (go, gate) = channel();
    *memory.gate.lock().unwrap() = Some(gate);
    let whole = ItemHead { inline: Some(Bytes::new()), ..head(ItemKind::Text, None, "message") };
    store.give(Lane::Prompt, Job::Begin(incoming(1, whole)));
    let long = "n".repeat(4096);
    let taken_back = (2..100_000).find(|id| {
        store.give(Lane::Prompt, Job::Begin(incoming(*id, head(ItemKind::Text, None, &long))));
        store.give(Lane::Prompt, Job::Drop(ItemId(*id), Refusal::Cancelled));
        !store.has_room()
    });
    assert!(taken_back.is_some_and(|id| id < 4096), "{taken_back:?}");
    drop(go);
    loop {
        if matches!(done.recv().await, Some(Done::Room)) {
            break;
        }
    }
    assert!(store.has_room());
}

/// A question whose line counts as 13.
fn question(id: u64) -> Job {
    let inline = Some(Bytes::from("\u{1}".repeat(1024)));
    Job::Begin(incoming(id, ItemHead { inline, ..head(ItemKind::Ask, None, &format!("q{id}")) }))
}

/// Spends what a peer may say at once, and leaves a debt of two seconds.
fn exhaust(journal: &Journal) {
    let body = Some("\u{1}".repeat(1024));
    // 42,000 events' worth: seven minutes.
    for id in 0..3_000 {
        journal.event(&Event::Answer(QuestionEvent {
            id: Some(id),
            body: body.clone(),
            ..QuestionEvent::default()
        }));
    }
}

#[tokio::test]
async fn what_this_end_says_goes_ahead_of_questions_that_wait_and_what_the_peer_sent_does_not() {
    let (journal, memory, mailbox) = journal();
    let (done_in, _done) = tokio::sync::mpsc::unbounded_channel();
    let store = Store::start((&mailbox, &SharedVault::default()), &journal, &done_in).unwrap();
    exhaust(&journal);
    // Five seconds' worth for each forty.
    (1..=400).for_each(|id| store.give(Lane::Prompt, question(id)));
    let text = ItemHead { inline: Some(Bytes::new()), ..head(ItemKind::Text, None, "message") };
    store.give(Lane::Prompt, Job::Begin(incoming(401, text)));
    store.tell(StatusEvent::PeerClosed(None));
    store.tell(StatusEvent::Reconnecting(None));
    store.tell(StatusEvent::Reconnected(None));
    while !memory.log().contains(r#""event":"reconnected""#) {
        tokio::task::yield_now().await;
    }
    let asked = memory.log().matches(r#""type":"ask""#).count();
    assert!(asked < 400, "it was told after all {asked}");
    // At the end nobody waits, and what the peer sent is told in its order.
    store.settle().await;
    let log = memory.log();
    let asked = r#""type":"ask","from":"peer","id":"#;
    let ids = log.split(asked).skip(1).map(|rest| rest.split(',').next().unwrap().parse::<u64>().unwrap());
    assert!(ids.eq(1..=400), "each of them, in order");
    let at = |what: &str| log.find(what).unwrap();
    assert!(at(r#""event":"reconnecting""#) < at(r#""event":"reconnected""#));
    assert!(at(r#""event":"peer_closed""#) > log.rfind(asked).unwrap());
}

#[tokio::test]
async fn a_question_after_long_answers_is_told_in_time() {
    let (journal, memory, mailbox) = journal();
    let (done_in, mut done) = tokio::sync::mpsc::unbounded_channel();
    let store = Store::start((&mailbox, &SharedVault::default()), &journal, &done_in).unwrap();
    exhaust(&journal);
    store.give(Lane::Prompt, question(1));
    let stored = tokio::time::timeout(Duration::from_secs(60), done.recv()).await;
    assert!(matches!(stored, Ok(Some(Done::Stored { .. }))), "it waits for all that was answered");
    assert!(memory.log.lock().unwrap().last().unwrap().contains(r#""type":"ask""#));
}

#[tokio::test]
async fn more_secrets_than_may_wait_are_not_kept_on_their_way_either() {
    let (journal, memory, mailbox) = journal();
    let (done_in, mut done) = tokio::sync::mpsc::unbounded_channel();
    let vault = SharedVault::default();
    let store = Store::start((&mailbox, &vault), &journal, &done_in).unwrap();
    let (go, gate) = channel();
    *memory.gate.lock().unwrap() = Some(gate);
    let secret =
        |name| ItemHead { inline: Some(Bytes::from_static(b"value")), ..head(ItemKind::Secret, None, name) };
    let whole = ItemHead { inline: Some(Bytes::new()), ..head(ItemKind::Text, None, "message") };
    store.give(Lane::Prompt, Job::Begin(incoming(1, whole)));
    // Each would take the place of the one before.
    (2..=1_001).for_each(|id| store.give_secret(incoming(id, secret("K"))));
    drop(go);
    let mut refused = 0;
    for _ in 1..=1_001 {
        match done.recv().await {
            Some(Done::Stored { result: Ok(_), .. }) => {}
            Some(Done::Stored { result: Err(Refusal::NoSpace), .. }) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 1_000 - MAX_WAITING);
    store.give_secret(incoming(1_002, secret("L")));
    assert!(matches!(done.recv().await, Some(Done::Stored { result: Ok(_), .. })), "there are places again");
}

#[tokio::test]
async fn status_json_is_written_while_standard_output_is_not_read() {
    let (lines, _hold) = unread();
    let memory = Arc::new(Memory::default());
    let mailbox: Arc<dyn agent_wormhole_mount::Mailbox> = Arc::new(Shared(Arc::clone(&memory)));
    let journal = Arc::new(Journal::new(Arc::clone(&mailbox), lines, || {}).unwrap());
    let (done_in, _done) = tokio::sync::mpsc::unbounded_channel();
    let store = Store::start((&mailbox, &SharedVault::default()), &journal, &done_in).unwrap();
    for _ in 0..2000 {
        store.tell(crate::event::StatusEvent::PeerBack(None));
    }
    while memory.log.lock().unwrap().len() < 1024 {
        tokio::task::yield_now().await;
    }
    store.write_status("{}".into());
    while memory.statuses.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    store.settle().await;
    assert_eq!(memory.log.lock().unwrap().len(), 2000);
}

#[tokio::test]
async fn strangers_without_the_code_are_told_of_sparingly() {
    let Rig { mut driver, mut inputs, mut hands, journal } = Rig::new(Box::new(|_| Ok(())));
    let script = async {
        for link in 1..=200 {
            hands.up(link).await;
            hands.frame().await;
            // No element of the group, then a confirmation of something.
            let mut spake = [0; 33];
            (spake[0], spake[1]) = (b'X', 1);
            hands.tell(TransportEvent::Frame(BytesMut::from(&spake[..]))).await;
            hands.tell(TransportEvent::Frame(BytesMut::from(&[7; 50][..]))).await;
            let said = hands.ends.control.recv().await;
            assert!(matches!(said, Some(Control::Release)), "{said:?}");
            hands.tell(TransportEvent::Down { why: "released".into() }).await;
        }
        hands.notices.send(Notice::Stop).unwrap();
        hands
    };
    let (ending, hands) = tokio::join!(driver.run(&mut inputs), script);
    crate::channel::start::finish(driver, &journal, ending).await;
    let told = hands.memory.log().matches(r#""event":"waiting""#).count();
    assert!((1..50).contains(&told), "{told} lines");
}

#[tokio::test]
async fn a_legacy_peer_that_is_faster_than_the_disk_waits() {
    let Rig { mut driver, mut inputs, mut hands, journal } = Rig::new(Box::new(|_| Ok(())));
    let (go, gate) = channel();
    *hands.memory.gate.lock().unwrap() = Some(gate);
    let script = async {
        let mut sealer = hands.legacy_peer().await;
        let body = "A".repeat(8 * 1024 * 1024);
        let envelope = format!(r#"{{"type":"file","name":"a","size":6291456,"body":"{body}"}}"#);
        let mut taken = 0;
        let mut refused = 0;
        // The channel to the driver holds four; beyond that each one was taken.
        while refused < 1000 && taken < 20 {
            let sealed = sealer.seal(envelope.clone().into_bytes());
            let mut event = TransportEvent::Frame(BytesMut::from(&*sealed));
            while refused < 1000 {
                match hands.ends.events.try_send(event) {
                    Ok(()) => {
                        taken += 1;
                        break;
                    }
                    Err(TrySendError::Full(back)) => {
                        event = back;
                        refused += 1;
                        tokio::task::yield_now().await;
                    }
                    Err(TrySendError::Closed(_)) => panic!("the driver has ended"),
                }
            }
        }
        drop(go);
        hands.outbox.send(OutboxEvent::Ctl(Ctl::CloseNow)).unwrap();
        (taken, hands)
    };
    let (ending, (taken, _hands)) = tokio::join!(driver.run(&mut inputs), script);
    crate::channel::start::finish(driver, &journal, ending).await;
    assert!(taken <= 7, "{taken} frames of 8 MiB were taken");
}
