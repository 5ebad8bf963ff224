//! Files and texts at the top of the outbox.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::mounted::FuseMailbox;
use agent_wormhole_mount::{Content, Kind, MAX_TEXT, Mailbox as _, OutboxEvent, Outcome};

use crate::fixture::{Body, LONG, each, fuse_options, needs, only, read, watchdog};

fn bytes(content: &Body) -> &[u8] {
    match content {
        Body::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_is_offered_as_soon_as_it_is_closed() {
    each(|fixture| {
        for name in ["message", "note.msg"] {
            fixture.sh(&format!("echo hi > {name}"));
            let offer = fixture.offer();
            assert_eq!((offer.kind, offer.name.as_str()), (Kind::Text, name));
            assert_eq!(bytes(&offer.content), b"hi\n");
            fixture.deliver(&offer);
            fixture.until_gone(name);
        }
        assert_eq!(fixture.mailbox.undelivered(9).1, 0);
    });
}

#[test]
fn a_text_does_not_wait() {
    each(|fixture| {
        let mut waits = Vec::new();
        for n in 0..200 {
            let name = format!("{n}.msg");
            fs::write(fixture.outbox(&name), "hi").unwrap();
            let closed = Instant::now();
            let (event, at) = fixture.arrival();
            waits.push(at.saturating_duration_since(closed));
            let OutboxEvent::Offer(offer) = event else { panic!("{event:?}") };
            fixture.mailbox.settle(offer.entry, Outcome::Delivered);
        }
        waits.sort();
        println!("from close to outlet: median {:?}, 95 of 100 {:?}", waits[100], waits[190]);
        // On a machine that does nothing else it is some tens of microseconds; a debounce would be tens of thousands.
        assert!(waits[100] < Duration::from_millis(5), "{:?}", waits[100]);
    });
}

#[test]
fn a_thousand_texts_keep_their_order() {
    each(|fixture| {
        let names: Vec<_> = (0..1000).map(|n| format!("{}.msg", (n * 7919) % 1000)).collect();
        for name in &names {
            fixture.write(name, name);
        }
        let offered: Vec<_> = names.iter().map(|_| fixture.offer()).collect();
        for (offer, name) in offered.iter().zip(&names) {
            assert_eq!(offer.name, *name);
            assert_eq!(bytes(&offer.content), name.as_bytes());
        }
        fixture.nothing_more();
    });
}

#[test]
fn what_is_no_utf8_or_too_long_for_a_text_goes_as_a_file() {
    each(|fixture| {
        fixture.write("message", b"a\xff");
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.name.as_str()), (Kind::File, "message"));
        let long = vec![b'a'; usize::try_from(MAX_TEXT).unwrap() + 1];
        fixture.write("long.msg", &long);
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.size), (Kind::File, Some(MAX_TEXT + 1)));
        assert_eq!(bytes(&offer.content), long);
        fixture.write("longest.msg", &long[1..]);
        assert_eq!(fixture.offer().kind, Kind::Text);
        fs::create_dir(fixture.outbox("d")).unwrap();
        fixture.write("d/message", "no text");
        assert_eq!(fixture.offer().kind, Kind::File);
    });
}

#[test]
fn a_text_written_again_is_two_messages() {
    each(|fixture| {
        fixture.write("message", "one");
        let first = fixture.offer();
        fixture.write("message", "two");
        let second = fixture.offer();
        assert_eq!((bytes(&first.content), bytes(&second.content)), (&b"one"[..], &b"two"[..]));
        fixture.deliver(&first);
        fixture.deliver(&second);
        fixture.until_gone("message");
    });
}

#[test]
fn a_text_written_again_within_one_tick_of_the_clock_is_noticed() {
    each(|fixture| {
        fixture.write("message", "one");
        let first = fixture.offer();
        let mut file = OpenOptions::new().write(true).open(fixture.outbox("message")).unwrap();
        file.write_all(b"two").unwrap();
        file.set_modified(first.mtime.unwrap()).unwrap();
        drop(file);
        assert_eq!(bytes(&fixture.offer().content), b"two");
        // Closed without a change it is the same message.
        drop(OpenOptions::new().append(true).open(fixture.outbox("message")).unwrap());
        fixture.write("mark.msg", "x");
        assert_eq!(fixture.offer().name, "mark.msg");
    });
}

#[test]
fn a_slow_writer_yields_one_item_with_all_its_bytes() {
    each(|fixture| {
        let mut slow = File::create(fixture.outbox("slow.bin")).unwrap();
        slow.write_all(&[1; 50_000]).unwrap();
        // What is complete later is offered earlier, after the same time: the slow one was due, and open.
        fixture.write("quick.bin", [2; 10]);
        assert_eq!(fixture.offer().name, "quick.bin");
        slow.write_all(&[3; 50_000]).unwrap();
        drop(slow);
        let offer = fixture.offer();
        assert_eq!(offer.name, "slow.bin");
        assert_eq!(bytes(&offer.content), [vec![1; 50_000], vec![3; 50_000]].concat());
        fixture.nothing_more();
    });
}

#[test]
fn a_file_that_is_only_opened_again_is_complete_all_the_same() {
    only("fuse", |fixture| {
        fixture.write("log.txt", "one\n");
        let mut again = OpenOptions::new().append(true).open(fixture.outbox("log.txt")).unwrap();
        let offer = fixture.offer();
        assert_eq!(bytes(&offer.content), b"one\n");
        again.write_all(b"two\n").unwrap();
        drop(again);
        assert_eq!(fixture.withdrawn(), offer.entry);
        assert_eq!(bytes(&fixture.offer().content), b"one\ntwo\n");
    });
}

#[test]
fn a_file_that_was_closed_and_opened_again_is_waited_for() {
    only("dir", |fixture| {
        fixture.write("log.txt", "one\n");
        let mut again = OpenOptions::new().append(true).open(fixture.outbox("log.txt")).unwrap();
        fixture.write("marker", "x");
        assert_eq!(fixture.offer().name, "marker");
        again.write_all(b"two\n").unwrap();
        drop(again);
        assert_eq!(bytes(&fixture.offer().content), b"one\ntwo\n");
        fixture.nothing_more();
    });
}

#[test]
fn an_agents_temporary_name_is_never_offered() {
    each(|fixture| {
        for (temporary, name) in
            [("plan.md.tmp.4711.9f3ac2", "plan.md"), ("a.json.tmp", "a.json"), (".b.txt.swp", "b.txt")]
        {
            fixture.write(temporary, "whole");
            fs::rename(fixture.outbox(temporary), fixture.outbox(name)).unwrap();
        }
        let names: Vec<_> = fixture.offers(3).into_iter().map(|offer| offer.name).collect();
        assert_eq!(names, ["a.json", "b.txt", "plan.md"]);
        fixture.nothing_more();
    });
}

#[test]
fn a_temporary_text_renamed_into_place_goes_at_once() {
    each(|fixture| {
        fixture.write("message.tmp.12.ab", "hello");
        fs::rename(fixture.outbox("message.tmp.12.ab"), fixture.outbox("message")).unwrap();
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.name.as_str()), (Kind::Text, "message"));
    });
}

#[test]
fn sed_and_perl_in_place_send_the_edited_file_once() {
    each(|fixture| {
        fixture.write("a.txt", "one\n");
        fixture.sh("sed -i s/one/two/ a.txt; perl -pi -e s/two/three/ a.txt; sed -i s/three/four/ a.txt");
        let offer = fixture.offer();
        assert_eq!((offer.name.as_str(), bytes(&offer.content)), ("a.txt", &b"four\n"[..]));
        fixture.nothing_more();
    });
}

#[test]
fn vim_sends_what_was_written() {
    each(|fixture| {
        needs("vim");
        fixture.write("a.txt", "one\n");
        fixture.sh("vim -Nu NONE -es -c 'set backupskip= writebackup backup' -c '%s/one/two/' -c wq a.txt");
        let offer = fixture.offer();
        assert_eq!((offer.name.as_str(), bytes(&offer.content)), ("a.txt", &b"two\n"[..]));
        fixture.nothing_more();
        assert!(!fixture.left_out("a.txt~").is_empty());
    });
}

#[test]
fn a_file_moved_in_arrives_with_its_mode_and_time() {
    each(|fixture| {
        let script = fixture.home("run.sh");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().write(true).open(&script).unwrap().set_modified(time).unwrap();
        fixture.sh("mv ../../run.sh .");
        let offer = fixture.offer();
        assert!(offer.executable);
        assert_eq!(offer.mtime, Some(time));
        fixture.sh("install -m 600 run.sh plain.sh");
        assert!(!fixture.offer().executable);
    });
}

#[test]
fn an_empty_file_arrives() {
    each(|fixture| {
        fixture.sh(": > empty");
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.size), (Kind::File, Some(0)));
    });
}

#[test]
fn rm_cancels() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        fixture.write("b.bin", "x");
        fs::remove_file(fixture.outbox("b.bin")).unwrap();
        let offer = fixture.offer();
        fs::remove_file(fixture.outbox("a.bin")).unwrap();
        assert_eq!(fixture.withdrawn(), offer.entry);
        fixture.mailbox.settle(offer.entry, Outcome::Cancelled);
        fixture.nothing_more();
        assert_eq!(fixture.mailbox.undelivered(9).1, 0);
    });
}

#[test]
fn mv_out_of_the_outbox_cancels() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        let offer = fixture.offer();
        fixture.sh("mv a.bin ../..");
        assert_eq!(fixture.withdrawn(), offer.entry);
    });
}

#[test]
fn mv_within_the_outbox_cancels_and_sends_the_new_name() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        let offer = fixture.offer();
        fs::rename(fixture.outbox("a.bin"), fixture.outbox("b.bin")).unwrap();
        assert_eq!(fixture.withdrawn(), offer.entry);
        assert_eq!(fixture.offer().name, "b.bin");
    });
}

#[test]
fn writing_again_cancels_and_sends_the_new_content() {
    each(|fixture| {
        fixture.write("a.bin", "one");
        let offer = fixture.offer();
        fixture.sh("printf two >> a.bin");
        assert_eq!(fixture.withdrawn(), offer.entry);
        fixture.mailbox.settle(offer.entry, Outcome::Cancelled);
        assert_eq!(bytes(&fixture.offer().content), b"onetwo");
    });
}

#[test]
fn a_refused_file_stays_and_goes_again_when_it_is_written() {
    each(|fixture| {
        fixture.write("a.bin", "one");
        let offer = fixture.offer();
        fixture.mailbox.settle(offer.entry, Outcome::Refused("too large".to_owned()));
        fixture.nothing_more();
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["a.bin".to_owned()], 1));
        fixture.write("a.bin", "two");
        assert_eq!(bytes(&fixture.offer().content), b"two");
    });
}

#[test]
fn a_large_file_that_changes_while_it_is_read_is_offered_again() {
    each(|fixture| {
        fixture.write("big.bin", vec![1; 100_000]);
        let OutboxEvent::Offer(offer) = fixture.event() else { panic!("no offer") };
        let Content::Stream(source) = offer.content else { panic!("it is large") };
        let mut open = OpenOptions::new().append(true).open(fixture.outbox("big.bin")).unwrap();
        open.write_all(b"more").unwrap();
        // Where the file system shares blocks it is a snapshot.
        match read(source) {
            Ok(bytes) => assert_eq!(bytes.len(), 100_000),
            Err(_) => fixture.mailbox.settle(offer.entry, Outcome::Changed),
        }
        drop(open);
        let again = loop {
            match fixture.event() {
                OutboxEvent::Offer(offer) => break offer,
                OutboxEvent::Withdraw { entry } => assert_eq!(entry, offer.entry),
                event => panic!("{event:?}"),
            }
        };
        assert_eq!(again.size, Some(100_004));
    });
}

#[test]
fn what_cannot_be_sent_is_refused_at_once() {
    only("fuse", |fixture| {
        use std::os::unix::ffi::OsStrExt as _;
        let errno = |made: std::io::Result<()>| made.unwrap_err().raw_os_error();
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let made = rustix::fs::mknodat(rustix::fs::CWD, fixture.outbox("pipe"), fifo, mode, 0);
        assert_eq!(errno(made.map_err(Into::into)), Some(libc::EPERM));
        let bad = std::path::Path::new(std::ffi::OsStr::from_bytes(b"bad\xff"));
        assert_eq!(errno(fs::write(fixture.outbox("").join(bad), "x")), Some(libc::EINVAL));
        assert_eq!(errno(fs::write(fixture.outbox(&"a".repeat(256)), "x")), Some(libc::ENAMETOOLONG));
        fixture.sh("mkdir d; echo x > d/a; echo x > .env; echo x > a.txt~");
        symlink("a", fixture.outbox("d/link")).unwrap();
        assert_eq!(fixture.offers(1)[0].name, "d/a");
        for name in [".env", "a.txt~", "d/link"] {
            assert!(!fixture.left_out(name).is_empty(), "{name}");
        }
        fixture.nothing_more();
    });
}

#[test]
fn what_cannot_be_sent_is_told() {
    only("dir", |fixture| {
        use std::os::unix::ffi::OsStrExt as _;
        fixture.sh("mkfifo pipe; mkdir d; echo x > d/a; echo x > .env; echo x > a.txt~; mkfifo d/pipe");
        fixture.write("x", "x");
        let bad = std::path::Path::new(std::ffi::OsStr::from_bytes(b"bad\xff"));
        fs::write(fixture.outbox("").join(bad), "x").unwrap();
        symlink("a", fixture.outbox("d/link")).unwrap();
        assert_eq!(fixture.offers(2).len(), 2);
        for name in ["pipe", ".env", "a.txt~", "bad\\xff", "d/pipe", "d/link"] {
            assert!(!fixture.left_out(name).is_empty(), "{name}");
        }
        fixture.nothing_more();
        assert_eq!(fixture.mailbox.undelivered(9).1, 2);
    });
}

#[test]
fn a_hard_link_is_a_second_file() {
    each(|fixture| {
        fixture.write("a", "x");
        fs::hard_link(fixture.outbox("a"), fixture.outbox("b")).unwrap();
        let offers = fixture.offers(2);
        assert_eq!((offers[0].name.as_str(), offers[1].name.as_str()), ("a", "b"));
        assert_eq!(bytes(&offers[1].content), b"x");
    });
}

#[test]
fn without_credit_nothing_is_offered_and_nothing_is_lost() {
    let home = tempfile::tempdir().unwrap();
    for (name, open) in crate::fixture::BACK_ENDS {
        let (send, events) = std::sync::mpsc::channel();
        let mailbox = open(&home.path().join(name), None, Box::new(move |event| send.send(event).is_ok()));
        for n in 0..5 {
            fs::write(mailbox.path().join(format!("outbox/{n}.msg")), "x").unwrap();
        }
        mailbox.allow(2);
        let mut offered = Vec::new();
        for round in 1..=3 {
            while offered.len() < (round * 2).min(5) {
                match events.recv_timeout(crate::fixture::LONG).unwrap() {
                    OutboxEvent::Offer(offer) => offered.push(offer.name),
                    event => panic!("{event:?}"),
                }
            }
            assert!(events.try_recv().is_err());
            mailbox.allow(2);
        }
        assert_eq!(offered, ["0.msg", "1.msg", "2.msg", "3.msg", "4.msg"]);
    }
}

#[test]
fn a_text_that_is_moved_away_and_back_before_it_is_offered_is_one_message() {
    let home = tempfile::tempdir().unwrap();
    let channel = home.path().join("channel");
    let _watchdog = watchdog(&channel);
    let (outlet, events) = std::sync::mpsc::channel();
    let mailbox =
        FuseMailbox::open(fuse_options(&channel), Box::new(move |event| outlet.send(event).is_ok())).unwrap();
    let outbox = |name: &str| channel.join("outbox").join(name);
    fs::write(outbox("a.msg"), "once").unwrap();
    fs::rename(outbox("a.msg"), outbox("a.msg~")).unwrap();
    fs::rename(outbox("a.msg~"), outbox("a.msg")).unwrap();
    fs::write(outbox("b.msg"), "last").unwrap();
    assert_eq!(mailbox.undelivered(9).0, ["a.msg", "b.msg"]);
    mailbox.allow(9);
    for expected in ["a.msg", "b.msg"] {
        let event = events.recv_timeout(LONG).unwrap();
        assert!(matches!(&event, OutboxEvent::Offer(offer) if offer.name == expected), "{event:?}");
    }
    mailbox.close().unwrap();
}
