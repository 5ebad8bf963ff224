//! Operations, on an ordinary directory.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::mpsc;

use agent_wormhole_mount::bell::{Bell, BellError};
use notify::Watcher as _;
use rustix::io::Errno;

use crate::stage::{LONG, Plain, SOURCE, options};

fn errno(done: Result<(), BellError>) -> Errno {
    match done {
        Err(BellError::Errno(errno)) => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_arrival_is_moved_into_directories_that_are_made() {
    let plain = Plain::new();
    let parents = ["a".to_owned(), "ü b".to_owned()];
    fs::write(plain.at(".incoming/7"), "content").unwrap();
    plain.bell.place("7", &parents, "f.txt").unwrap();
    assert_eq!(plain.read("inbox/a/ü b/f.txt"), "content");
    assert_eq!(fs::metadata(plain.at("inbox/a")).unwrap().mode() & 0o777, 0o700);
    assert!(!plain.at(".incoming/7").exists());

    fs::write(plain.at(".incoming/8"), "second").unwrap();
    assert_eq!(errno(plain.bell.place("8", &parents, "f.txt")), Errno::EXIST);
    assert_eq!(errno(plain.bell.place("9", &parents, "g.txt")), Errno::NOENT);
    assert_eq!(errno(plain.bell.place("8", &["a".into(), "ü b".into(), "f.txt".into()], "g")), Errno::NOTDIR);
    plain.bell.place("8", &[], "top").unwrap();
    assert_eq!(plain.read("inbox/top"), "second");
    assert_eq!(plain.read("inbox/a/ü b/f.txt"), "content");
    plain.bell.make_dirs(&["x".into(), "y".into()]).unwrap();
    plain.bell.make_dirs(&["x".into(), "y".into()]).unwrap();
    assert!(plain.at("inbox/x/y").is_dir());
}

#[test]
fn an_arrival_and_a_line_are_events() {
    let plain = Plain::new();
    fs::write(plain.at(".incoming/7"), "content").unwrap();
    let (send, events) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| drop(send.send(event))).unwrap();
    watcher.watch(&plain.at("inbox"), notify::RecursiveMode::NonRecursive).unwrap();
    plain.bell.place("7", &[], "f").unwrap();
    plain.bell.append("inbox/log.jsonl", b"line\n").unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = events.recv_timeout(LONG).unwrap().unwrap();
        use notify::EventKind::Modify;
        use notify::event::{ModifyKind, RenameMode};
        match event.kind {
            Modify(ModifyKind::Name(RenameMode::To)) => seen.push(("moved to", event.paths[0].clone())),
            Modify(ModifyKind::Data(_)) => seen.push(("modified", event.paths[0].clone())),
            _ => {}
        }
    }
    assert_eq!(seen, [("moved to", plain.at("inbox/f")), ("modified", plain.at("inbox/log.jsonl"))]);
}

#[test]
fn lines_are_appended_and_truncated() {
    let plain = Plain::new();
    let log = "inbox/log.jsonl";
    plain.bell.append(log, b"one\n").unwrap();
    plain.bell.append(log, b"two\n").unwrap();
    assert_eq!(plain.read(log), "one\ntwo\n");
    // Somebody else writes, too: the end is where the file ends.
    fs::write(plain.at(log), "0\n").unwrap();
    plain.bell.append(log, b"three\n").unwrap();
    assert_eq!(plain.read(log), "0\nthree\n");
    plain.bell.truncate(log).unwrap();
    plain.bell.append(log, b"four\n").unwrap();
    assert_eq!(plain.read(log), "four\n");

    fs::write(plain.at("transcript.jsonl"), "").unwrap();
    plain.bell.append("transcript.jsonl", b"a").unwrap();
    plain.bell.append(log, b"five\n").unwrap();
    assert_eq!((plain.read("transcript.jsonl"), plain.read(log)), ("a".into(), "four\nfive\n".into()));

    let long = vec![b'x'; 4 * 1024 * 1024];
    plain.bell.append(log, &long).unwrap();
    assert_eq!(fs::metadata(plain.at(log)).unwrap().len(), 10 + long.len() as u64);
    assert_eq!(errno(plain.bell.append(log, &[&long[..], b"x"].concat())), Errno::MSGSIZE);
    assert_eq!(errno(plain.bell.append("inbox/none", b"x")), Errno::NOENT);

    // Renamed away or removed, it is another file from then on.
    plain.bell.rename(log, "inbox/log.1.jsonl").unwrap();
    fs::write(plain.at(log), "").unwrap();
    plain.bell.append(log, b"new\n").unwrap();
    assert_eq!(plain.read(log), "new\n");
    plain.bell.unlink(log).unwrap();
    fs::write(plain.at(log), "").unwrap();
    plain.bell.append(log, b"newer\n").unwrap();
    assert_eq!(plain.read(log), "newer\n");
    fs::rename(plain.at(log), plain.at("old")).unwrap();
    fs::write(plain.at(log), "").unwrap();
    plain.bell.mounted().unwrap();
    plain.bell.append(log, b"newest\n").unwrap();
    assert_eq!(plain.read(log), "newest\n");
}

#[test]
fn what_left_is_removed() {
    let plain = Plain::new();
    fs::create_dir_all(plain.at("outbox/d/e")).unwrap();
    fs::write(plain.at("outbox/d/e/f"), "").unwrap();
    assert_eq!(errno(plain.bell.rmdir("outbox/d")), Errno::NOTEMPTY);
    assert_eq!(errno(plain.bell.unlink("outbox/d")), Errno::ISDIR);
    plain.bell.unlink("outbox/d/e/f").unwrap();
    plain.bell.rmdir("outbox/d/e").unwrap();
    fs::create_dir_all(plain.at("outbox/d/g/h")).unwrap();
    plain.bell.remove_tree("outbox/d").unwrap();
    plain.bell.remove_tree("outbox/d").unwrap();
    assert!(plain.at("outbox").is_dir() && !plain.at("outbox/d").exists());

    fs::write(plain.at("outbox/a"), "a").unwrap();
    fs::write(plain.at("outbox/b"), "b").unwrap();
    assert_eq!(errno(plain.bell.rename("outbox/a", "outbox/b")), Errno::EXIST);
    plain.bell.rename("outbox/a", "inbox/c").unwrap();
    assert_eq!(plain.read("inbox/c"), "a");
}

#[test]
fn a_large_tree_is_removed_while_others_have_their_turn() {
    let plain = Plain::new();
    for dir in 0..40 {
        fs::create_dir_all(plain.at(&format!("outbox/d/{dir}"))).unwrap();
        for file in 0..500 {
            fs::write(plain.at(&format!("outbox/d/{dir}/{file}")), "").unwrap();
        }
    }
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| plain.bell.remove_tree("outbox/d"));
        for _ in 0..100 {
            plain.bell.append("inbox/log.jsonl", b"x\n").unwrap();
        }
        removal.join().unwrap().unwrap();
    });
    assert!(!plain.at("outbox/d").exists());
    assert_eq!(plain.read("inbox/log.jsonl").len(), 200);
}

#[test]
fn no_name_and_no_link_leads_out() {
    let plain = Plain::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    symlink(outside.path(), plain.at("inbox/link")).unwrap();
    symlink(outside.path().join("kept"), plain.at("inbox/kept")).unwrap();
    fs::write(plain.at(".incoming/1"), "1").unwrap();
    for bad in ["", ".", "..", "a/b", "a\0"] {
        assert_eq!(errno(plain.bell.place("1", &[], bad)), Errno::INVAL, "{bad:?}");
        assert_eq!(errno(plain.bell.place(bad, &[], "x")), Errno::INVAL, "{bad:?}");
        assert_eq!(errno(plain.bell.make_dirs(&[bad.into()])), Errno::INVAL, "{bad:?}");
    }
    for bad in ["", "..", "../x", "/etc/passwd", "inbox/../x", "inbox//x", "inbox/", "a\0b"] {
        for done in [
            plain.bell.unlink(bad),
            plain.bell.rmdir(bad),
            plain.bell.remove_tree(bad),
            plain.bell.append(bad, b"x"),
            plain.bell.truncate(bad),
            plain.bell.rename(bad, "x"),
            plain.bell.rename(".incoming/1", bad),
        ] {
            assert_eq!(errno(done), Errno::INVAL, "{bad:?}");
        }
    }
    assert_eq!(errno(plain.bell.place("1", &["link".into()], "x")), Errno::NOTDIR);
    assert_eq!(errno(plain.bell.unlink("inbox/link/kept")), Errno::NOTDIR);
    assert_eq!(errno(plain.bell.append("inbox/kept", b"x")), Errno::LOOP);
    plain.bell.remove_tree("inbox/link").unwrap();
    plain.bell.unlink("inbox/kept").unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn many_threads_take_turns() {
    let plain = Plain::new();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let plain = &plain;
            scope.spawn(move || {
                for n in 0..50 {
                    fs::write(plain.at(&format!(".incoming/{thread}-{n}")), "x").unwrap();
                    plain
                        .bell
                        .place(&format!("{thread}-{n}"), &[format!("d{}", n % 3)], &format!("{thread}-{n}"))
                        .unwrap();
                    plain.bell.append("inbox/log.jsonl", format!("{thread} {n}\n").as_bytes()).unwrap();
                    assert_ne!(plain.bell.pid(), 0);
                }
            });
        }
    });
    let log = plain.read("inbox/log.jsonl");
    for thread in 0..8 {
        let numbers: Vec<u32> = log
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("{thread} ")))
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers.into_iter().eq(0..50));
    }
}

#[test]
fn before_the_mount_is_there_nothing_can_be_done() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let bell = Bell::start(options(), missing.clone(), SOURCE.into()).unwrap();
    assert_eq!(errno(bell.unlink("x")), Errno::NOTCONN);
    assert_eq!(errno(bell.mounted()), Errno::NOENT);
    assert_eq!(errno(bell.unlink("x")), Errno::NOTCONN);
    fs::create_dir(&missing).unwrap();
    bell.mounted().unwrap();
    assert_eq!(errno(bell.unlink("x")), Errno::NOENT);
    bell.detach().unwrap();
    bell.detach().unwrap();
    assert_eq!(bell.pid(), 0);
    assert!(matches!(bell.unlink("x"), Err(BellError::Closed)));
    assert!(matches!(bell.mounted(), Err(BellError::Closed)));
}
