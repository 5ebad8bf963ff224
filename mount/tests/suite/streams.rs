//! Links in the outbox whose target is the socket of a process that writes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use agent_wormhole_mount::client::stream::{Sending, StreamError, post_stream};
use agent_wormhole_mount::client::{self, FlushError, PostError};
use agent_wormhole_mount::{Content, Kind, Offer, OutboxEvent, Outcome};

use crate::fixture::{Body, Fixture, LONG, drain, each};

/// A writer: its thread, what it reads from, and what interrupts it when it is dropped.
struct Writer {
    thread: Option<JoinHandle<Result<(), StreamError>>>,
    input: Option<UnixStream>,
    interrupt: Option<UnixStream>,
}

impl Writer {
    fn start(fixture: &Fixture, name: &str, wait: bool) -> Self {
        Self::limited(fixture, name, wait, LONG)
    }

    fn limited(fixture: &Fixture, name: &str, wait: bool, limit: Duration) -> Self {
        let stream = post_stream(&fixture.channel(), &private(fixture), name).unwrap();
        let (input, mut output) = UnixStream::pair().unwrap();
        let (interrupt, interrupted) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || {
            let deadline = Some(Instant::now() + limit);
            let sending = Sending { interrupt: interrupted.as_fd(), deadline, wait, waiting: &mut || {} };
            stream.send(&mut output, sending)
        });
        Self { thread: Some(thread), input: Some(input), interrupt: Some(interrupt) }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The end of its input.
    fn end(&mut self) {
        self.input = None;
    }

    fn interrupt(&mut self) {
        self.interrupt = None;
    }

    fn result(mut self) -> Result<(), StreamError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Where the sockets are.
fn private(fixture: &Fixture) -> PathBuf {
    let path = fixture.home("private");
    if fs::create_dir(&path).is_ok() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    path
}

fn is_clean(fixture: &Fixture) {
    assert_eq!(fs::read_dir(private(fixture)).unwrap().count(), 0, "a socket is left");
}

/// The next offer, with its bytes still to come.
fn offer(fixture: &Fixture) -> Offer {
    match fixture.event() {
        OutboxEvent::Offer(offer) => offer,
        event => panic!("an offer, not {event:?}"),
    }
}

#[test]
fn a_stream_is_offered_without_a_size_and_arrives_as_it_is_written() {
    each(|fixture| {
        let mut writer = Writer::start(fixture, "big.tar", true);
        let mut offer = offer(fixture);
        assert_eq!((offer.kind, offer.name.as_str(), offer.size), (Kind::File, "big.tar", None));
        let Content::Stream(source) = &mut offer.content else { panic!("no stream") };
        // Long before its end, and whatever the sizes of the writes are.
        writer.write(b"first");
        let mut first = [0; 5];
        source.read(&mut first).unwrap();
        assert_eq!(&first, b"first");
        // Nobody else can connect by then.
        is_clean(fixture);
        let rest = vec![7; 300_000];
        let writing = thread::spawn(move || {
            writer.write(&rest);
            writer.end();
            writer
        });
        assert_eq!(drain(offer.content), Body::Bytes(vec![7; 300_000]));
        let writer = writing.join().unwrap();
        fixture.mailbox.settle(offer.entry, Outcome::Delivered);
        writer.result().unwrap();
        assert!(
            fs::symlink_metadata(fixture.outbox("big.tar")).is_err(),
            "its name is free when its writer knows"
        );
        fixture.nothing_more();
    });
}

#[test]
fn a_writer_that_does_not_wait_ends_when_all_was_taken() {
    each(|fixture| {
        let mut writer = Writer::start(fixture, "note", false);
        writer.write(b"x");
        writer.end();
        let taken = fixture.offer();
        assert_eq!(taken.content, Body::Bytes(b"x".to_vec()));
        writer.result().unwrap();
        // The peer has no room: the writer has gone, the next flush tells it, and so does the end.
        fixture.mailbox.settle(taken.entry, Outcome::Refused("no room".to_owned()));
        fixture.until_gone("note");
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["note".to_owned()], 1));
        let flush = || client::flush(&fixture.channel(), Instant::now() + LONG, &|| true);
        let Err(FlushError::NotStored { failed, count: 1 }) = flush() else { panic!("nothing was told") };
        assert_eq!(failed, [("note".to_owned(), "no room".to_owned())]);
        flush().unwrap();
        // What has its name now is another thing.
        fixture.write("note", "y");
        fixture.deliver(&fixture.offer());
        flush().unwrap();
        assert_eq!(fixture.mailbox.undelivered(9).1, 0);
    });
}

#[test]
fn a_writer_that_breaks_off_leaves_nothing_to_send() {
    each(|fixture| {
        let mut writer = Writer::start(fixture, "half", true);
        writer.write(b"half of it");
        let offer = offer(fixture);
        writer.interrupt();
        assert!(matches!(writer.result(), Err(StreamError::Interrupted)));
        assert_eq!(drain(offer.content), Body::BrokenOff);
        let channel = fixture.channel();
        let flush = thread::spawn(move || client::flush(&channel, Instant::now() + LONG, &|| true));
        let requests = fixture.channel().join(".flush");
        crate::fixture::until(&requests, || fs::read_dir(&requests).unwrap().next().is_some());
        // The request is in the mailbox's queue before this.
        fixture.mailbox.undelivered(1);
        fixture.mailbox.settle(offer.entry, Outcome::BrokenOff);
        let Err(FlushError::NotStored { failed, .. }) = flush.join().unwrap() else { panic!("not told") };
        assert_eq!(failed, [("half".to_owned(), "its writer broke off".to_owned())]);
        fixture.until_gone("half");
        assert_eq!(fixture.mailbox.undelivered(9).1, 0, "its writer took it back");
        fixture.nothing_more();
    });
}

#[test]
fn rm_of_a_stream_ends_its_writer() {
    each(|fixture| {
        let writer = Writer::start(fixture, "silent", true);
        let offer = offer(fixture);
        fs::remove_file(fixture.outbox("silent")).unwrap();
        assert_eq!(fixture.withdrawn(), offer.entry);
        // Also while its input is silent.
        assert!(matches!(writer.result(), Err(StreamError::Cancelled)));
        fixture.mailbox.settle(offer.entry, Outcome::Cancelled);
        fixture.nothing_more();
    });
}

#[test]
fn the_end_of_the_mailbox_ends_the_writer_and_names_the_stream() {
    each(|fixture| {
        let writer = Writer::start(fixture, "silent", false);
        let _offer = offer(fixture);
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["silent".to_owned()], 1));
        fixture.mailbox.close().unwrap();
        assert!(matches!(writer.result(), Err(StreamError::Ended)));
    });
}

#[test]
fn what_is_not_whole_in_time_is_taken_back() {
    each(|fixture| {
        let writer = Writer::limited(fixture, "slow", true, Duration::from_millis(300));
        let late = offer(fixture);
        assert!(matches!(writer.result(), Err(StreamError::Late)));
        assert_eq!(drain(late.content), Body::BrokenOff);
        fixture.mailbox.settle(late.entry, Outcome::BrokenOff);
        let mut writer = Writer::limited(fixture, "whole", true, Duration::from_millis(300));
        writer.end();
        let whole = fixture.offer();
        assert!(matches!(writer.result(), Err(StreamError::Unconfirmed)));
        fixture.deliver(&whole);
        fixture.until_gone("whole");
    });
}

#[test]
fn what_its_writer_gave_up_is_never_whole_although_its_end_was_written() {
    each(|fixture| {
        let mut writer = Writer::limited(fixture, "slow", false, Duration::from_millis(300));
        writer.write(b"all of it");
        writer.end();
        // Nobody reads meanwhile: its end waits in the socket.
        let offer = offer(fixture);
        assert!(matches!(writer.result(), Err(StreamError::Late)));
        assert_eq!(drain(offer.content), Body::BrokenOff);
        fixture.mailbox.settle(offer.entry, Outcome::BrokenOff);
        fixture.until_gone("slow");
    });
}

#[test]
fn an_interruption_after_the_end_says_that_the_channel_has_it_all() {
    each(|fixture| {
        let mut writer = Writer::start(fixture, "whole", true);
        writer.end();
        let whole = fixture.offer();
        assert_eq!(whole.content, Body::Bytes(Vec::new()));
        writer.interrupt();
        assert!(matches!(writer.result(), Err(StreamError::Left)));
        fixture.deliver(&whole);
        fixture.until_gone("whole");
        let mut writer = Writer::start(fixture, "lost", true);
        writer.end();
        let _whole = fixture.offer();
        fixture.mailbox.close().unwrap();
        assert!(matches!(writer.result(), Err(StreamError::Unknown)));
    });
}

#[test]
fn a_name_is_one_streams_alone() {
    each(|fixture| {
        let mut writer = Writer::start(fixture, "one", false);
        let taken = |result: Result<(), PostError>| assert!(matches!(result, Err(PostError::Taken(_))));
        taken(post_stream(&fixture.channel(), &private(fixture), "one").map(drop));
        fs::write(fixture.home("file"), "x").unwrap();
        taken(client::post_link(&fixture.channel(), &fixture.home("file"), "one"));
        taken(client::check_free(&fixture.channel(), "one"));
        let before = offer(fixture);
        writer.write(b"still");
        writer.end();
        assert_eq!(drain(before.content), Body::Bytes(b"still".to_vec()));
        writer.result().unwrap();
        fixture.mailbox.settle(before.entry, Outcome::Delivered);
        fixture.until_gone("one");
        is_clean(fixture);
    });
}

#[test]
fn a_dead_stream_leaves_and_a_foreign_socket_is_left_out() {
    each(|fixture| {
        let private = private(fixture);
        // Killed before anybody had connected: its socket and its link are there.
        let dead = private.join("agent-wormhole-stream-dead");
        drop(UnixListener::bind(&dead).unwrap());
        symlink(&dead, fixture.outbox("dead")).unwrap();
        assert!(fixture.left_out("dead").contains("had ended"), "{}", fixture.left_out("dead"));
        fixture.until_gone("dead");
        // Nobody's stream: it is not even connected to.
        let service = private.join("service");
        let listener = UnixListener::bind(&service).unwrap();
        listener.set_nonblocking(true).unwrap();
        symlink(&service, fixture.outbox("service")).unwrap();
        assert!(fixture.left_out("service").contains("neither"), "{}", fixture.left_out("service"));
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        // What has the name and says something else.
        let other = private.join("agent-wormhole-stream-other");
        let listener = UnixListener::bind(&other).unwrap();
        let answering = thread::spawn(move || {
            let (mut reader, _) = listener.accept().unwrap();
            reader.read_exact(&mut [0; 8]).unwrap();
            reader.write_all(b"SSH-2.0-x").unwrap();
        });
        symlink(&other, fixture.outbox("other")).unwrap();
        assert!(fixture.left_out("other").contains("no stream"), "{}", fixture.left_out("other"));
        answering.join().unwrap();
        fixture.nothing_more();
        assert_eq!(fixture.mailbox.undelivered(9).1, 0);
    });
}

#[test]
fn a_writer_that_does_not_answer_holds_nothing_back() {
    each(|fixture| {
        let path = private(fixture).join("agent-wormhole-stream-silent");
        let listener = UnixListener::bind(&path).unwrap();
        symlink(&path, fixture.outbox("silent")).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        reader.read_exact(&mut [0; 8]).unwrap();
        fixture.write("quick.msg", "quick");
        assert_eq!(fixture.offer().name, "quick.msg");
        assert!(fs::metadata(fixture.outbox("quick.msg")).is_ok());
        // It is still being waited for.
        reader.set_nonblocking(true).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        fs::remove_file(fixture.outbox("silent")).unwrap();
    });
}

#[test]
fn a_stream_that_nobody_takes_yet_goes_without_a_trace() {
    each(|fixture| {
        // In a directory that is not watched by anybody: a mailbox that is not connected is like one without a reader.
        let private = private(fixture);
        let elsewhere = fixture.home("elsewhere");
        fs::create_dir_all(elsewhere.join("outbox")).unwrap();
        let start = || {
            let stream = post_stream(&elsewhere, &private, "early").unwrap();
            let (interrupt, interrupted) = UnixStream::pair().unwrap();
            let waiting = thread::spawn(move || {
                let (mut input, _open) = UnixStream::pair().unwrap();
                let sending = Sending {
                    interrupt: interrupted.as_fd(),
                    deadline: None,
                    wait: false,
                    waiting: &mut || {},
                };
                stream.send(&mut input, sending)
            });
            (interrupt, waiting)
        };
        let (interrupt, waiting) = start();
        // Who is no mailbox is sent away.
        let socket = fs::read_link(elsewhere.join("outbox/early")).unwrap();
        UnixStream::connect(&socket).unwrap().write_all(b"GET / HTTP/1.0\r\n").unwrap();
        drop(interrupt);
        assert!(matches!(waiting.join().unwrap(), Err(StreamError::Interrupted)));
        assert_eq!(fs::read_dir(elsewhere.join("outbox")).unwrap().count(), 0);
        let (_interrupt, waiting) = start();
        fs::remove_file(elsewhere.join("outbox/early")).unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(StreamError::Cancelled)));
        is_clean(fixture);
    });
}

#[test]
fn more_than_eight_streams_wait_their_turn() {
    each(|fixture| {
        let mut writers: Vec<_> = (0..9).map(|n| Writer::start(fixture, &format!("s{n}"), true)).collect();
        let offers: Vec<Offer> = (0..8).map(|_| offer(fixture)).collect();
        writers.iter_mut().for_each(Writer::end);
        let mut finish = |offer: Offer| {
            assert_eq!(drain(offer.content), Body::Bytes(Vec::new()));
            fixture.mailbox.settle(offer.entry, Outcome::Delivered);
        };
        offers.into_iter().for_each(&mut finish);
        finish(offer(fixture));
        for writer in writers {
            writer.result().unwrap();
        }
    });
}

#[test]
fn a_directory_with_a_long_path_has_room_for_a_socket() {
    each(|fixture| {
        let long = private(fixture).join("l".repeat(120));
        fs::create_dir(&long).unwrap();
        let stream = post_stream(&fixture.channel(), &long, "deep").unwrap();
        let writing = thread::spawn(move || {
            let (mut input, output) = UnixStream::pair().unwrap();
            let (_open, interrupt) = UnixStream::pair().unwrap();
            drop(output);
            let sending =
                Sending { interrupt: interrupt.as_fd(), deadline: None, wait: false, waiting: &mut || {} };
            stream.send(&mut input, sending)
        });
        assert_eq!(fixture.offer().content, Body::Bytes(Vec::new()));
        writing.join().unwrap().unwrap();
    });
}
