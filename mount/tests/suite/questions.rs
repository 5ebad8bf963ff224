//! Questions and answers: `outbox/ask/` and `outbox/answer/`, and what of them arrives.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use agent_wormhole_mount::{Kind, OutboxEvent, Outcome, Refusal};

use crate::fixture::{Body, Fixture, Offered, each, only, until};

/// The next offer, which is of this kind and name.
fn asked(f: &Fixture, kind: Kind, name: &str) -> Offered {
    let offer = f.offer();
    assert_eq!((offer.kind, &*offer.name), (kind, name));
    offer
}

/// Why something is told at once not to be sent.
fn denied(f: &Fixture, name: &str) -> String {
    match f.event() {
        OutboxEvent::Denied(denied) if denied.name == name => denied.reason,
        event => panic!("{name} is told not to be sent, not {event:?}"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn a_question_is_offered_at_once_under_its_name_and_leaves_when_it_is_delivered() {
    each(|f| {
        f.write("ask/deploy", "may I?\n");
        let question = asked(f, Kind::Ask, "deploy");
        assert_eq!(question.content, Body::Bytes(b"may I?\n".to_vec()));
        f.deliver(&question);
        f.until_gone("ask/deploy");
        assert!(f.outbox("ask").is_dir() && f.outbox("answer").is_dir());
    });
}

#[test]
fn a_question_under_a_temporary_name_is_sent_under_its_last() {
    each(|f| {
        f.write("ask/q1.tmp.4711.9f3ac2", "half");
        f.write("ask/.q1.swp", "an editor's");
        fs::rename(f.outbox("ask/q1.tmp.4711.9f3ac2"), f.outbox("ask/q1")).unwrap();
        let question = asked(f, Kind::Ask, "q1");
        assert_eq!(question.content, Body::Bytes(b"half".to_vec()));
        f.deliver(&question);
        fs::remove_file(f.outbox("ask/.q1.swp")).unwrap();
        f.nothing_more();
    });
}

#[test]
fn both_directories_are_there_from_the_start_and_stay() {
    each(|f| {
        for top in ["outbox", "inbox"] {
            for dir in ["ask", "answer"] {
                assert!(f.channel().join(top).join(dir).is_dir(), "{top}/{dir}");
            }
        }
        f.nothing_more();
    });
    only("fuse", |f| {
        assert_eq!(fs::read_dir(f.outbox("")).unwrap().count(), 0, "nothing waits there");
        for dir in ["ask", "answer"] {
            let kind = |done: std::io::Result<()>| done.unwrap_err().kind();
            assert_eq!(kind(fs::remove_dir(f.outbox(dir))), ErrorKind::PermissionDenied);
            assert_eq!(kind(fs::rename(f.outbox(dir), f.outbox("other"))), ErrorKind::PermissionDenied);
            fs::create_dir_all(f.outbox("tree")).unwrap();
            assert_eq!(kind(fs::rename(f.outbox("tree"), f.outbox(dir))), ErrorKind::PermissionDenied);
        }
    });
}

#[test]
fn a_directory_of_questions_that_was_removed_or_renamed_is_made_anew() {
    only("dir", |f| {
        fs::remove_dir(f.outbox("ask")).unwrap();
        until(&f.outbox(""), || f.outbox("ask").is_dir());
        f.write("ask/again", "?");
        f.deliver(&asked(f, Kind::Ask, "again"));
        f.until_gone("ask/again");
        fs::rename(f.outbox("ask"), f.outbox("mine")).unwrap();
        until(&f.outbox(""), || f.outbox("ask").is_dir());
        f.write("ask/more", "?");
        asked(f, Kind::Ask, "more");
    });
}

#[test]
fn what_is_no_question_is_refused_at_once() {
    only("fuse", |f| {
        let errno = |done: std::io::Result<()>| done.unwrap_err().raw_os_error();
        let write = |name: &str| fs::write(f.outbox(name), "x");
        let long = format!("ask/{}", "a".repeat(65));
        for name in ["ask/1st", "ask/a b", "ask/ä", "ask/-x", &long] {
            assert_eq!(errno(write(name)), Some(libc::EINVAL), "{name}");
        }
        assert_eq!(errno(fs::create_dir(f.outbox("ask/dir"))), Some(libc::EINVAL));
        assert_eq!(
            errno(std::os::unix::fs::symlink("/etc/hostname", f.outbox("ask/link"))),
            Some(libc::EINVAL)
        );
        fs::create_dir(f.outbox("tree")).unwrap();
        assert_eq!(errno(fs::rename(f.outbox("tree"), f.outbox("answer/tree"))), Some(libc::EINVAL));
        assert_eq!(errno(write("answer/never")), Some(libc::ENOENT));
        let long = vec![b'x'; 1024 * 1024 + 1];
        assert_eq!(errno(fs::write(f.outbox("ask/long"), long)), Some(libc::EFBIG));
    });
}

#[test]
fn what_is_no_question_is_left_out_and_told() {
    only("dir", |f| {
        f.write("ask/1st", "x");
        assert!(f.left_out("ask/1st").contains("a letter or `_`"));
        fs::create_dir(f.outbox("ask/dir")).unwrap();
        assert!(f.left_out("ask/dir").contains("only files"));
        std::os::unix::fs::symlink("/etc/hostname", f.outbox("ask/link")).unwrap();
        assert!(f.left_out("ask/link").contains("only files"));
        f.write("answer/never", "x");
        assert_eq!(denied(f, "answer/never"), "no question of that name was asked".replace("that", "this"));
        f.write("ask/long", vec![b'x'; 1024 * 1024 + 1]);
        assert!(denied(f, "ask/long").contains("at most 1 MiB"));
    });
}

#[test]
fn a_question_that_is_no_text_is_told_at_once() {
    each(|f| {
        f.write("ask/bytes", b"\xff\xfe");
        assert!(denied(f, "ask/bytes").contains("UTF-8"));
        f.write("ask/bytes", "now it is one");
        asked(f, Kind::Ask, "bytes");
    });
}

#[test]
fn a_name_is_asked_once() {
    each(|f| {
        f.write("ask/x", "first");
        let first = asked(f, Kind::Ask, "x");
        again(f, "second");
        f.deliver(&first);
        if f.name == "fuse" {
            f.until_gone("ask/x");
        }
        again(f, "third, now that it was delivered");
    });
}

/// A second question `x` is refused.
fn again(f: &Fixture, text: &str) {
    let written = fs::write(f.outbox("ask/x"), text);
    if f.name == "fuse" {
        assert_eq!(written.unwrap_err().kind(), ErrorKind::AlreadyExists);
        fs::write(f.outbox("other.tmp"), text).unwrap();
        let moved = fs::rename(f.outbox("other.tmp"), f.outbox("ask/x"));
        assert_eq!(moved.unwrap_err().kind(), ErrorKind::AlreadyExists);
    } else {
        written.unwrap();
        assert!(denied(f, "ask/x").contains("used before"));
    }
}

#[test]
fn of_two_who_write_one_question_at_once_one_is_told() {
    only("fuse", |f| {
        let mut first = fs::File::create(f.outbox("ask/x")).unwrap();
        first.write_all(b"first").unwrap();
        let second = fs::File::create(f.outbox("ask/x"));
        assert_eq!(second.unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(first);
        assert_eq!(asked(f, Kind::Ask, "x").content, Body::Bytes(b"first".to_vec()));
    });
}

#[test]
fn a_refused_or_cancelled_question_frees_its_name() {
    each(|f| {
        f.write("ask/x", "first");
        let first = asked(f, Kind::Ask, "x");
        f.mailbox.settle(first.entry, Outcome::Refused("no room".into()));
        f.mailbox.undelivered(1);
        f.write("ask/x", "second");
        let second = asked(f, Kind::Ask, "x");
        assert_eq!(second.content, Body::Bytes(b"second".to_vec()));
        fs::remove_file(f.outbox("ask/x")).unwrap();
        assert_eq!(f.withdrawn(), second.entry);
        f.mailbox.settle(second.entry, Outcome::Cancelled);
        f.mailbox.undelivered(1);
        f.write("ask/x", "third");
        assert_eq!(asked(f, Kind::Ask, "x").content, Body::Bytes(b"third".to_vec()));
    });
}

#[test]
fn a_question_that_was_never_offered_frees_its_name_with_rm() {
    only("fuse", |f| {
        // More than was allowed: nothing is offered until it is.
        fs::write(f.outbox("ask/x.tmp"), "a").unwrap();
        fs::rename(f.outbox("ask/x.tmp"), f.outbox("ask/x")).unwrap();
        let question = asked(f, Kind::Ask, "x");
        fs::remove_file(f.outbox("ask/x")).unwrap();
        assert_eq!(f.withdrawn(), question.entry);
        let again = fs::write(f.outbox("ask/x"), "b");
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists, "the peer may have it");
    });
}

#[test]
fn a_question_arrives_under_its_name_and_is_answered_once() {
    each(|f| {
        let saved = f.receive(Kind::Ask, "x", b"may I?").unwrap();
        assert_eq!((&*saved.name, saved.path), ("ask/x", f.inbox("ask/x")));
        assert_eq!(fs::read(f.inbox("ask/x")).unwrap(), b"may I?");
        let twice = f.receive(Kind::Ask, "x", b"another").map(|saved| saved.name);
        assert!(matches!(twice, Err(Refusal::NameUsed)), "{twice:?}");
        f.write("answer/x", "yes");
        let answer = asked(f, Kind::Answer, "x");
        assert_eq!(answer.content, Body::Bytes(b"yes".to_vec()));
        f.deliver(&answer);
        f.until_gone("answer/x");
        let again = fs::write(f.outbox("answer/x"), "no");
        if f.name == "fuse" {
            assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
        } else {
            again.unwrap();
            assert!(denied(f, "answer/x").contains("used before"));
        }
        assert_eq!(names(&f.inbox("ask")), ["x"]);
    });
}

#[test]
fn an_answer_arrives_only_to_what_was_asked_and_only_once() {
    each(|f| {
        let unasked = f.receive(Kind::Answer, "x", b"yes").map(|saved| saved.name);
        assert!(matches!(unasked, Err(Refusal::NotAsked)), "{unasked:?}");
        f.write("ask/x", "may I?");
        // Before the receipt of the question.
        let question = asked(f, Kind::Ask, "x");
        let saved = f.receive(Kind::Answer, "x", b"yes").unwrap();
        assert_eq!((&*saved.name, fs::read(saved.path).unwrap()), ("answer/x", b"yes".to_vec()));
        f.deliver(&question);
        f.until_gone("ask/x");
        let twice = f.receive(Kind::Answer, "x", b"no").map(|saved| saved.name);
        assert!(matches!(twice, Err(Refusal::NameUsed)), "{twice:?}");
        assert_eq!(fs::read(f.inbox("answer/x")).unwrap(), b"yes");
        // Also where its owner took the first one away.
        fs::remove_file(f.inbox("answer/x")).unwrap();
        assert!(matches!(f.receive(Kind::Answer, "x", b"no"), Err(Refusal::NameUsed)));
    });
}

#[test]
fn hostile_names_of_questions_are_refused() {
    each(|f| {
        for name in ["", "..", "../x", "x/y", "/etc/x", ".x", "1", "a\nb", "x\u{202e}", &"x".repeat(65)] {
            let got = f.receive(Kind::Ask, name, b"?").map(|saved| saved.name);
            assert!(matches!(got, Err(Refusal::BadName)), "{name:?}: {got:?}");
        }
        assert!(names(&f.inbox("ask")).is_empty());
    });
}

#[test]
fn a_file_of_the_peer_takes_no_place_of_a_question() {
    each(|f| {
        assert_eq!(f.receive(Kind::File, "ask/x", b"no question").unwrap().name, "ask-2/x");
        assert_eq!(f.receive(Kind::File, "answer", b"no answer").unwrap().name, "answer-2");
        assert!(names(&f.inbox("ask")).is_empty() && names(&f.inbox("answer")).is_empty());
    });
}

#[test]
fn a_question_is_never_numbered_and_replaces_nothing() {
    only("dir", |f| {
        fs::write(f.inbox("ask/x"), "its owner's").unwrap();
        assert!(matches!(f.receive(Kind::Ask, "x", b"?"), Err(Refusal::Io(_))));
        assert_eq!(fs::read(f.inbox("ask/x")).unwrap(), b"its owner's");
        fs::remove_file(f.inbox("ask/x")).unwrap();
        assert_eq!(f.receive(Kind::Ask, "x", b"?").unwrap().name, "ask/x");
        // Nor is the directory.
        fs::rename(f.inbox("ask"), f.inbox("mine")).unwrap();
        fs::write(f.inbox("ask"), "its owner's").unwrap();
        assert!(matches!(f.receive(Kind::Ask, "y", b"?"), Err(Refusal::Io(_))));
        fs::remove_file(f.inbox("ask")).unwrap();
        assert_eq!(f.receive(Kind::Ask, "y", b"?").unwrap().name, "ask/y");
        assert!(!f.inbox("ask-2").exists());
    });
}
