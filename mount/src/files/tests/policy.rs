//! Who may do what where: one row for each operation and place.

use super::*;
use crate::Guard;

type Try = fn(&mut Rig, Ino) -> Result<(), FileError>;

/// Operations that make something new under a name in a directory.
const MAKING: [(&str, Try); 5] = [
    ("create", |rig, dir| rig.files.create(dir, "new".as_ref(), 0o644, false, false).map(drop)),
    ("mkdir", |rig, dir| rig.files.mkdir(dir, "new".as_ref(), 0o755, Caller::User).map(drop)),
    ("symlink", |rig, dir| rig.files.symlink(dir, "new".as_ref(), "x".as_ref()).map(drop)),
    ("mknod", |rig, dir| rig.files.mknod(dir, "new".as_ref(), 0o644, rig.now).map(drop)),
    ("link", |rig, dir| {
        let ino = rig.at("outbox/a").unwrap();
        rig.files.link(ino, dir, "new".as_ref(), rig.now).map(drop)
    }),
];

fn received(rig: &mut Rig, name: &str) {
    let mut content = rig.files.incoming();
    content.write_at(0, b"theirs").unwrap();
    let staged = rig.files.stage_file(content, false, None).unwrap();
    let incoming = rig.files.places.incoming;
    let (inbox, now) = (rig.files.places.inbox, rig.now);
    let from = (incoming, staged.name.as_ref());
    rig.files.rename(from, (inbox, name.as_ref()), true, Caller::Bell, now).unwrap();
    assert!(rig.files.is_placed(&staged));
}

#[test]
fn only_the_outbox_takes_something_new() {
    for (name, make) in MAKING {
        let mut rig = rig();
        rig.put("a", "x");
        let places = [rig.outbox(), rig.files.places.inbox, ROOT, rig.files.places.incoming];
        let results = places.map(|dir| make(&mut rig, dir));
        let no = Err(FileError::Policy);
        assert_eq!(results, [Ok(()), no, no, no], "{name}");
        let outbox = rig.outbox();
        assert_eq!(make(&mut rig, outbox), Err(FileError::Taken), "{name}");
    }
}

#[test]
fn names_that_cannot_be_sent_are_refused_at_once() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut rig = rig();
    let outbox = rig.outbox();
    let mut make = |name: &OsStr| rig.files.create(outbox, name, 0o644, false, false).map(drop);
    assert_eq!(make("a".repeat(256).as_ref()), Err(FileError::NameTooLong));
    assert_eq!(make("a".repeat(255).as_ref()), Ok(()));
    assert_eq!(make(OsStr::from_bytes(b"a\xff")), Err(FileError::Invalid));
    let mut dir = outbox;
    let made = (0..).find_map(|_| match rig.files.mkdir(dir, "d".as_ref(), 0o755, Caller::User) {
        Ok(made) => {
            dir = made.attr.ino;
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(made, Some(FileError::NameTooLong));
    assert_eq!(rig.files.outbox_path(dir).unwrap().split('/').count(), crate::name::MAX_DEPTH);
    assert_eq!(
        rig.files.symlink(outbox, "l".as_ref(), "x".repeat(4097).as_ref()),
        Err(FileError::NameTooLong)
    );
}

#[test]
fn the_inbox_is_read_only_and_its_owner_may_take_things_out() {
    let mut rig = rig();
    received(&mut rig, "theirs");
    received(&mut rig, "second");
    assert_eq!(rig.open("inbox/theirs", NOW), Err(FileError::Policy));
    assert_eq!(rig.open("inbox/theirs", TRUNCATING), Err(FileError::Policy));
    let fh = rig.open("inbox/theirs", READING).unwrap();
    assert_eq!(rig.files.write(fh, (0, b"x"), true, Caller::User, rig.now), Err(FileError::Policy));
    let Bytes::Content(content) = rig.files.bytes(fh).unwrap() else { panic!() };
    assert_eq!(text(&content), "theirs");
    let ino = rig.at("inbox/theirs").unwrap();
    let set = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    assert_eq!(rig.files.set_attr(ino, set, Caller::User, rig.now), Err(FileError::Policy));
    let (inbox, outbox, now) = (rig.files.places.inbox, rig.outbox(), rig.now);
    let from = (inbox, "theirs".as_ref());
    assert_eq!(
        rig.files.rename(from, (inbox, "x".as_ref()), false, Caller::User, now),
        Err(FileError::Policy)
    );
    rig.files.rename(from, (outbox, "back".as_ref()), false, Caller::User, now).unwrap();
    assert_eq!(rig.changes(), ["inbox > back: back = theirs"]);
    rig.files.unlink(inbox, "second".as_ref(), Caller::User, now).unwrap();
    assert_eq!(rig.at("inbox/second"), None);
    // And nothing goes there but by the bell.
    let back = (outbox, "back".as_ref());
    assert_eq!(
        rig.files.rename(back, (inbox, "x".as_ref()), false, Caller::User, now),
        Err(FileError::Policy)
    );
    assert!(rig.open("outbox/back", NOW).is_ok());
}

#[test]
fn what_is_written_into_what_was_received_counts_against_the_outbox() {
    let mut rig = rig();
    received(&mut rig, "moved");
    received(&mut rig, "linked");
    let (inbox, outbox, now) = (rig.files.places.inbox, rig.outbox(), rig.now);
    let linked = rig.at("inbox/linked").unwrap();
    let used = |rig: &Rig| (rig.files.inbox_quota.used(), rig.files.outbox_quota.used());
    let before = used(&rig).0;
    let to = (outbox, "moved".as_ref());
    rig.files.rename((inbox, "moved".as_ref()), to, false, Caller::User, now).unwrap();
    rig.files.link(linked, outbox, "linked".as_ref(), now).unwrap();
    for name in ["outbox/moved", "outbox/linked"] {
        let (count, fh) = (used(&rig), rig.open(name, NOW).unwrap());
        rig.files.write(fh, (1 << 20, &[1; 100_000]), false, Caller::User, now).unwrap();
        assert_eq!(used(&rig).0, before, "{name}");
        assert!(used(&rig).1 >= count.1 + 100_000, "{name}");
        rig.close(fh);
    }
}

#[test]
fn what_is_received_leaves_inodes_for_what_is_sent() {
    let rig = rig();
    let free = |ino| rig.files.space(ino).free_nodes;
    assert_eq!(free(rig.outbox()) - free(rig.files.places.inbox), KEPT_NODES as u64);
    assert_eq!([Zone::Inbox, Zone::Hidden].map(most_nodes), [MAX_NODES - KEPT_NODES; 2]);
    assert_eq!([Zone::Outbox, Zone::Flush].map(most_nodes), [MAX_NODES; 2]);
}

#[test]
fn our_own_files_and_directories_stay() {
    let mut rig = rig();
    let (outbox, now) = (rig.outbox(), rig.now);
    for path in
        ["README.md", "status.json", "transcript.jsonl", "receipt", "ctl", ".gitignore", "inbox/log.jsonl"]
    {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = if dir.is_empty() { ROOT } else { rig.at(dir).unwrap() };
        let no = Err(FileError::Policy);
        if name != "log.jsonl" {
            assert_eq!(rig.files.unlink(dir, name.as_ref(), Caller::User, now), no, "{path}");
        }
        let to = (outbox, "x".as_ref());
        assert_eq!(rig.files.rename((dir, name.as_ref()), to, false, Caller::User, now), no, "{path}");
        if name != "ctl" {
            assert_eq!(rig.open(path, NOW), no.map(|()| 0), "{path}");
        }
        assert!(rig.open(path, READING).is_ok(), "{path}");
    }
    for name in ["inbox", "outbox"] {
        let no = Err(FileError::Policy);
        if name == "outbox" {
            assert_eq!(rig.files.rmdir(ROOT, name.as_ref(), Caller::User, now), no);
        }
        let from = (ROOT, name.as_ref());
        assert_eq!(rig.files.rename(from, (outbox, "x".as_ref()), false, Caller::User, now), no, "{name}");
    }
    // The log goes, and is made anew with its next line.
    let inbox = rig.files.places.inbox;
    rig.files.append_log(b"one\n").unwrap();
    rig.files.unlink(inbox, "log.jsonl".as_ref(), Caller::User, now).unwrap();
    rig.files.append_log(b"two\n").unwrap();
    let fh = rig.open("inbox/log.jsonl", READING).unwrap();
    let Bytes::Content(log) = rig.files.bytes(fh).unwrap() else { panic!() };
    assert_eq!(text(&log), "two\n");
}

#[test]
fn what_is_hidden_is_seen_by_the_bell_alone() {
    let mut rig = rig();
    for name in [".incoming", ".leaving"] {
        let seen = rig.files.lookup(ROOT, name.as_ref(), Caller::User);
        assert_eq!(seen.map(drop), Err(FileError::Missing));
        let seen = rig.files.lookup(ROOT, name.as_ref(), Caller::Bell).unwrap();
        assert_eq!(seen.ttl, Duration::ZERO, "nobody else may find it in the kernel's cache");
    }
    let names: Vec<_> = rig.files.list(ROOT, 0).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.contains(&"inbox".into()) && !names.contains(&".incoming".into()), "{names:?}");
}

#[test]
fn a_rename_replaces_only_what_it_may() {
    let mut rig = rig();
    let (outbox, now) = (rig.outbox(), rig.now);
    rig.put("file", "x");
    for name in ["empty", "full"] {
        rig.files.mkdir(outbox, name.as_ref(), 0o755, Caller::User).unwrap();
    }
    let full = rig.at("outbox/full").unwrap();
    rig.files.mkdir(full, "in".as_ref(), 0o755, Caller::User).unwrap();
    let mut rename = |from: &str, to: &str, no_replace| {
        rig.files.rename((outbox, from.as_ref()), (outbox, to.as_ref()), no_replace, Caller::User, now)
    };
    assert_eq!(rename("nothing", "x", false), Err(FileError::Missing));
    assert_eq!(rename("file", "empty", false), Err(FileError::IsADirectory));
    assert_eq!(rename("empty", "file", false), Err(FileError::NotADirectory));
    assert_eq!(rename("empty", "full", false), Err(FileError::NotEmpty));
    assert_eq!(rename("file", "empty", true), Err(FileError::Taken));
    assert_eq!(rename("full", "empty", false), Ok(()));
    assert_eq!(rename("file", "file", false), Ok(()));
    let inside = rig.files.rename((outbox, "empty".as_ref()), (full, "x".as_ref()), false, Caller::User, now);
    assert_eq!(inside, Err(FileError::Invalid));
}

#[test]
fn what_the_guard_forbids_is_refused_at_its_close_and_completes_all_the_same() {
    let mut rig = rig();
    let guard = Guard::new(|bytes| bytes.starts_with(b"key"));
    rig.files = std::mem::replace(&mut rig.files, super::rig().files).guarded(Some(guard));
    for (name, bytes, forbidden) in [
        ("a.txt", "key".to_owned(), true),
        ("b.txt", "no key".to_owned(), false),
        ("message", format!("key{}", "x".repeat(100_000)), true),
        ("c.bin", format!("key{}", "x".repeat(100_000)), false),
    ] {
        let fh = rig.create(name);
        rig.write(fh, &bytes);
        let expected = if forbidden { Err(FileError::Policy) } else { Ok(()) };
        assert_eq!(rig.files.flush(fh), expected, "{name}");
        rig.files.release(fh, rig.now);
        assert!(rig.at(&format!("outbox/{name}")).is_some(), "{name}");
        assert!(rig.files.next_change(rig.now).is_some(), "{name} completes");
        while rig.files.next_change(rig.now).is_some() {}
    }
}

/// Makes a question, open for writing.
fn ask(rig: &mut Rig, name: &str) -> Fh {
    let dir = rig.at("outbox/ask").unwrap();
    rig.files.create(dir, name.as_ref(), 0o644, false, false).unwrap().1
}

#[test]
fn an_empty_question_is_written_by_who_made_it_although_the_kernel_has_not_released_it() {
    let mut rig = rig();
    for (name, truncate) in [("x", false), ("y", true)] {
        let made = ask(&mut rig, name);
        rig.flush(made);
        let path = format!("outbox/ask/{name}");
        if truncate {
            let set = SetAttr { size: Some(0), ..SetAttr::default() };
            let (ino, now) = (rig.at(&path).unwrap(), rig.now);
            rig.files.set_attr(ino, set, Caller::User, now).unwrap();
        } else {
            let written = rig.open(&path, NOW).unwrap();
            rig.write(written, "may I?");
            rig.close(written);
            assert_eq!(rig.open(&path, NOW), Err(FileError::Taken));
        }
        rig.release(made);
    }
    // One that has bytes is asked with its close.
    let asked = ask(&mut rig, "z");
    rig.write(asked, "may I?");
    assert_eq!(rig.open("outbox/ask/z", NOW), Err(FileError::Taken));
    rig.flush(asked);
    assert_eq!(rig.open("outbox/ask/z", NOW), Err(FileError::Taken));
}

#[test]
fn nothing_is_renamed_over_a_question_that_somebody_is_writing() {
    let mut rig = rig();
    rig.put("mine.tmp", "mine");
    let (outbox, dir, now) = (rig.outbox(), rig.at("outbox/ask").unwrap(), rig.now);
    let rename = |rig: &mut Rig| {
        let (from, to) = ((outbox, "mine.tmp".as_ref()), (dir, "x".as_ref()));
        rig.files.rename(from, to, false, Caller::User, now)
    };
    let open = ask(&mut rig, "x");
    rig.write(open, "theirs");
    assert_eq!(rename(&mut rig), Err(FileError::Taken));
    rig.flush(open);
    assert_eq!(rename(&mut rig), Err(FileError::Taken), "it is asked, released or not");
    rig.release(open);
    assert!(rig.changes().contains(&"ask/x = theirs".to_owned()));
    // A name that was only made gives way.
    let made = ask(&mut rig, "y");
    rig.flush(made);
    let (from, to) = ((outbox, "mine.tmp".as_ref()), (dir, "y".as_ref()));
    assert_eq!(rig.files.rename(from, to, false, Caller::User, now), Ok(()));
}

#[test]
fn what_mkstemp_made_is_incomplete_from_its_first_close_until_its_release() {
    let mut rig = rig();
    let fh = rig.files.create(rig.outbox(), "tmpX".as_ref(), 0o600, true, false).unwrap().1;
    rig.flush(fh);
    assert!(rig.files.incomplete().is_empty(), "it is only a name");
    rig.write(fh, "x");
    assert!(rig.files.incomplete().is_empty());
    rig.flush(fh);
    assert_eq!(rig.files.incomplete(), ["tmpX"]);
}
