//! Whether what was received was read: told by a mount, where it can be seen, and by a real directory never.

use std::fs;
use std::process::{Command, Stdio};

use agent_wormhole_mount::{Kind, Mailbox as _, OutboxEvent, mounted};

use crate::fixture::{Fixture, LONG, each, fuse_options, head, needs, only, run, watchdog};

/// The number that the fixture gives each item.
const ITEM: u64 = 7;

/// Runs a program on what was received, as another process than this one, which has the mailbox.
fn read(f: &Fixture, program: &[&str], name: &str) {
    run(Command::new(program[0]).args(&program[1..]).arg(f.inbox(name)).stdout(Stdio::null()));
}

fn is_opened(f: &Fixture) {
    match f.event() {
        OutboxEvent::Opened { item: ITEM } => {}
        event => panic!("it is told that it was opened, not {event:?}"),
    }
}

#[test]
fn what_another_process_has_read_whole_is_told_once() {
    only("fuse", |f| {
        for (kind, name) in [(Kind::File, "a.txt"), (Kind::Text, ""), (Kind::Ask, "q")] {
            let saved = f.receive(kind, name, b"several words").unwrap().name;
            read(f, &["cat"], &saved);
            is_opened(f);
            read(f, &["cat"], &saved);
        }
        f.receive(Kind::File, "empty", b"").unwrap();
        read(f, &["cat"], "empty");
        is_opened(f);
        f.nothing_more();
    });
}

#[test]
fn a_part_of_it_and_what_stat_says_are_not_all_of_it() {
    only("fuse", |f| {
        f.receive(Kind::File, "small", b"several words").unwrap();
        f.receive(Kind::File, "large", &vec![b'x'; 3 << 20]).unwrap();
        for name in ["small", "large"] {
            read(f, &["head", "-c", "1"], name);
            read(f, &["stat"], name);
            read(f, &["ls", "-l"], name);
        }
        // Of a file of less than a block it reads everything.
        read(f, &["tail", "-c", "1"], "large");
        f.nothing_more();
        for name in ["large", "small"] {
            read(f, &["cat"], name);
            is_opened(f);
        }
        f.nothing_more();
    });
}

#[test]
fn who_reads_everything_by_itself_and_this_process_do_not_count() {
    only("fuse", |f| {
        let indexer = f.home("tracker-miner-f");
        fs::copy("/bin/cat", &indexer).unwrap();
        for (name, size) in [("small", 100), ("large", 3 << 20)] {
            let saved = f.receive(Kind::File, name, &vec![b'x'; size]).unwrap();
            assert_eq!(fs::read(saved.path).unwrap().len(), size);
            read(f, &[indexer.to_str().unwrap()], name);
            f.nothing_more();
            // It has not hidden who comes after it.
            read(f, &["cat"], name);
            is_opened(f);
        }
    });
}

#[test]
fn a_mapping_is_read_as_anything_else() {
    needs("python3");
    only("fuse", |f| {
        f.receive(Kind::File, "mapped", &[b'x'; 20_000]).unwrap();
        let map = "import mmap, sys\nwith open(sys.argv[1], 'rb') as file:\n    \
                   with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as map:\n        assert len(map[:]) == 20000";
        read(f, &["python3", "-c", map], "mapped");
        is_opened(f);
    });
}

#[test]
fn of_a_directory_the_first_file_that_is_read_is_told() {
    only("fuse", |f| {
        let mut group = f.mailbox.receive_group(&head(Kind::Group, "src")).unwrap();
        for name in ["a", "b", "c"] {
            let mut member = group.member(&head(Kind::File, name)).unwrap();
            member.write(b"words").unwrap();
            member.commit().unwrap();
        }
        group.commit().unwrap();
        read(f, &["ls", "-l"], "src");
        f.nothing_more();
        for name in ["src/b", "src/a", "src/c"] {
            read(f, &["cat"], name);
        }
        is_opened(f);
        f.nothing_more();
    });
}

#[test]
fn a_real_directory_and_who_does_not_want_it_tell_nothing() {
    only("dir", |f| {
        f.receive(Kind::File, "a", b"words").unwrap();
        read(f, &["cat"], "a");
        f.nothing_more();
    });
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("channel");
    let _watchdog = watchdog(&path);
    let (outlet, events) = std::sync::mpsc::channel();
    let options = mounted::Options { read_receipts: false, ..fuse_options(&path) };
    let mailbox =
        mounted::FuseMailbox::open(options, Box::new(move |event| outlet.send(event).is_ok())).unwrap();
    let mut sink = mailbox.receive(&head(Kind::File, "a")).unwrap();
    sink.write(b"words").unwrap();
    let saved = sink.commit().unwrap();
    run(Command::new("cat").arg(saved.path));
    mailbox.finish();
    assert!(matches!(events.recv_timeout(LONG), Ok(OutboxEvent::Idle)));
    mailbox.close().unwrap();
}

#[test]
fn what_was_moved_away_before_it_was_read_is_not_told() {
    each(|f| {
        f.receive(Kind::File, "a", b"words").unwrap();
        fs::rename(f.inbox("a"), f.outbox("b")).unwrap();
        let offer = f.offer();
        run(Command::new("cat").arg(f.outbox("b")));
        f.deliver(&offer);
        f.nothing_more();
    });
}
