//! What is found when signs were lost, or have not come yet.

use std::fs;
use std::sync::mpsc::{self, Sender};
use std::time::SystemTime;

use super::*;

/// A worker whose signs go nowhere, its directory, its queue, and what it tells.
struct Deaf {
    layout: Arc<Layout>,
    orders: Sender<Order>,
    events: Receiver<OutboxEvent>,
    thread: Option<std::thread::JoinHandle<()>>,
    _nowhere: Receiver<Order>,
    _home: tempfile::TempDir,
}

fn deaf() -> Deaf {
    let deaf = waiting();
    deaf.orders.send(Order::Allow(100)).unwrap();
    deaf
}

/// One that may not offer anything yet.
fn waiting() -> Deaf {
    let home = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::create(&home.path().join("channel")).unwrap());
    let (signs, nowhere) = mpsc::channel();
    let (orders, queue) = mpsc::channel();
    let (tell, events) = mpsc::channel();
    let outlet = Box::new(move |event| tell.send(event).is_ok());
    let worker = Worker::new(Arc::clone(&layout), Arc::default(), outlet, signs).unwrap();
    let thread = std::thread::spawn(move || worker.run(&queue));
    Deaf { layout, orders, events, thread: Some(thread), _nowhere: nowhere, _home: home }
}

impl Deaf {
    fn outbox(&self, name: &str) -> PathBuf {
        self.layout.path.join(layout::OUTBOX).join(name)
    }

    fn overflow(&self) {
        self.orders.send(Order::Sign(watch::Sign::Overflow)).unwrap();
    }

    fn closed(&self, name: &str) {
        self.orders.send(Order::Sign(watch::Sign::Closed(self.outbox(name)))).unwrap();
    }

    /// Returns when everything before was done.
    fn settle(&self) {
        let (reply, answer) = mpsc::channel();
        self.orders.send(Order::Undelivered(0, reply)).unwrap();
        answer.recv().unwrap();
    }

    /// Holds if the next event tells of a question that was written over another one.
    fn is_written_over(&self, name: &str) {
        let OutboxEvent::Denied(LeftOut { name: told, reason }) = self.event() else { panic!("not told") };
        assert!(told == name && reason.contains("neither is sent"), "{told}: {reason}");
    }

    fn event(&self) -> OutboxEvent {
        self.events.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn offer(&self) -> crate::Offer {
        match self.event() {
            OutboxEvent::Offer(offer) => offer,
            event => panic!("an offer, not {event:?}"),
        }
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn after_an_overflow_everything_is_found_the_oldest_text_first() {
    let deaf = deaf();
    for (age, name) in [(1, "z.msg"), (3, "m.msg"), (2, "a.msg")] {
        fs::write(deaf.outbox(name), "x").unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        fs::File::options().write(true).open(deaf.outbox(name)).unwrap().set_modified(time).unwrap();
    }
    fs::create_dir_all(deaf.outbox("d/e")).unwrap();
    fs::write(deaf.outbox("d/e/f"), "x").unwrap();
    deaf.overflow();
    let names: Vec<_> = (0..4).map(|_| deaf.offer().name).collect();
    assert_eq!(names, ["m.msg", "a.msg", "z.msg", "d/e/f"]);
}

#[test]
fn after_an_overflow_what_is_gone_or_changed_is_cancelled() {
    let deaf = deaf();
    fs::write(deaf.outbox("gone"), "x").unwrap();
    fs::write(deaf.outbox("changed"), "x").unwrap();
    deaf.overflow();
    let offers = [deaf.offer(), deaf.offer()];
    let id = |name: &str| offers.iter().find(|offer| offer.name == name).map(|offer| offer.entry).unwrap();
    fs::remove_file(deaf.outbox("gone")).unwrap();
    fs::write(deaf.outbox("changed"), "other").unwrap();
    deaf.overflow();
    let mut withdrawn = Vec::new();
    for _ in 0..2 {
        match deaf.event() {
            OutboxEvent::Withdraw { entry } => withdrawn.push(entry),
            event => panic!("a withdrawal, not {event:?}"),
        }
    }
    withdrawn.sort();
    let mut expected = [id("gone"), id("changed")];
    expected.sort();
    assert_eq!(withdrawn, expected);
    assert_eq!(deaf.offer().name, "changed");
}

#[test]
fn a_move_out_without_a_move_in_is_a_removal() {
    let deaf = deaf();
    fs::write(deaf.outbox("a.msg"), "x").unwrap();
    deaf.orders.send(Order::Sign(watch::Sign::Closed(deaf.outbox("a.msg")))).unwrap();
    let offer = deaf.offer();
    fs::remove_file(deaf.outbox("a.msg")).unwrap();
    deaf.orders.send(Order::Sign(watch::Sign::MovedOut(deaf.outbox("a.msg"), Some(1)))).unwrap();
    let OutboxEvent::Withdraw { entry } = deaf.event() else { panic!("no withdrawal") };
    assert_eq!(entry, offer.entry);
}

#[test]
fn what_was_written_just_before_the_end_is_offered_though_its_signs_are_still_on_their_way() {
    let deaf = deaf();
    fs::write(deaf.outbox("note.msg"), "x").unwrap();
    fs::write(deaf.outbox("file"), "x").unwrap();
    fs::create_dir(deaf.outbox("dir")).unwrap();
    fs::write(deaf.outbox("dir/member"), "x").unwrap();
    deaf.orders.send(Order::Finish).unwrap();
    let mut names: Vec<_> = (0..3).map(|_| deaf.offer().name).collect();
    names.sort();
    assert_eq!(names, ["dir/member", "file", "note.msg"]);
    assert!(matches!(deaf.event(), OutboxEvent::Idle));
}

#[test]
fn what_was_written_just_before_the_end_is_named_as_undelivered() {
    let deaf = deaf();
    fs::write(deaf.outbox("file"), "x").unwrap();
    let (reply, answer) = mpsc::channel();
    deaf.orders.send(Order::Undelivered(10, reply)).unwrap();
    assert_eq!(answer.recv().unwrap(), (vec!["file".to_owned()], 1));
}

#[test]
fn a_question_that_is_written_over_before_it_is_sent_is_told_and_neither_is_sent() {
    let deaf = waiting();
    let write = |text: &str| {
        fs::write(deaf.outbox("ask/x"), text).unwrap();
        deaf.closed("ask/x");
        deaf.settle();
    };
    write("first");
    write("the second one");
    deaf.is_written_over("ask/x");
    // Renamed over one that is complete.
    write("again, and alone");
    fs::write(deaf.outbox("ask/.x"), "third").unwrap();
    fs::rename(deaf.outbox("ask/.x"), deaf.outbox("ask/x")).unwrap();
    deaf.orders.send(Order::Sign(watch::Sign::MovedIn(deaf.outbox("ask/x"), None))).unwrap();
    deaf.is_written_over("ask/x");
    write("the last one");
    // As `cp -p` and the like do it after the close.
    let past = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(deaf.outbox("ask/x")).unwrap().set_modified(past).unwrap();
    // Its name was no question before.
    fs::write(deaf.outbox("ask/y"), "").unwrap();
    deaf.closed("ask/y");
    deaf.settle();
    fs::write(deaf.outbox("ask/y"), "y").unwrap();
    deaf.closed("ask/y");
    deaf.orders.send(Order::Allow(2)).unwrap();
    let mut offers = [deaf.offer(), deaf.offer()].map(|offer| match offer.content {
        Content::Whole(bytes) => (offer.name, bytes),
        _ => panic!("no bytes"),
    });
    offers.sort();
    let expected = [("x", &b"the last one"[..]), ("y", b"y")];
    assert_eq!(offers, expected.map(|(name, text)| (name.to_owned(), bytes::Bytes::from(text))));
}

#[test]
fn a_time_alone_makes_no_new_question_of_what_was_told_to_be_sent_by_nobody() {
    let deaf = waiting();
    for text in ["first", "the second one"] {
        fs::write(deaf.outbox("ask/x"), text).unwrap();
        deaf.closed("ask/x");
        deaf.settle();
    }
    deaf.is_written_over("ask/x");
    let past = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(deaf.outbox("ask/x")).unwrap().set_modified(past).unwrap();
    deaf.overflow();
    deaf.orders.send(Order::Allow(1)).unwrap();
    deaf.orders.send(Order::Finish).unwrap();
    assert!(matches!(deaf.event(), OutboxEvent::Idle));
}

#[test]
fn a_question_that_is_written_over_while_its_sign_is_on_its_way_is_told() {
    let deaf = waiting();
    fs::write(deaf.outbox("ask/x"), "first").unwrap();
    deaf.closed("ask/x");
    deaf.settle();
    fs::write(deaf.outbox("ask/x"), "the second one").unwrap();
    deaf.orders.send(Order::Allow(1)).unwrap();
    deaf.is_written_over("ask/x");
    // The sign of what was told says nothing new.
    deaf.closed("ask/x");
    fs::write(deaf.outbox("ask/z"), "z").unwrap();
    deaf.closed("ask/z");
    assert_eq!(deaf.offer().name, "z");
}

#[test]
fn who_writes_a_question_that_somebody_has_closed_makes_both_be_told() {
    let deaf = deaf();
    let mut second = fs::File::options().write(true).create_new(true).open(deaf.outbox("ask/x")).unwrap();
    fs::write(deaf.outbox("ask/x"), "first").unwrap();
    deaf.closed("ask/x");
    deaf.settle();
    second.write_all(b"the second one").unwrap();
    // Half written, it is no question yet.
    deaf.settle();
    drop(second);
    deaf.closed("ask/x");
    deaf.is_written_over("ask/x");
}
