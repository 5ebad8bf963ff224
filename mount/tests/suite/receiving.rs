//! What the peer sends, and what it cannot do with it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use agent_wormhole_mount::{Incoming, Kind, Mailbox as _, Refusal, dir};
use notify::{RecursiveMode, Watcher as _};

use crate::fixture::{Fixture, LONG, each, each_limited, head, only};

/// What is below the inbox and beside it, relative to the channel.
fn below(fixture: &Fixture, dir: &str) -> Vec<String> {
    let (mut todo, mut names) = (vec![fixture.channel().join(dir)], Vec::new());
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            // In a real directory a file explains where secrets go.
            if path.ends_with("secrets") && path.is_file() {
                continue;
            }
            names.push(path.strip_prefix(fixture.channel().join(dir)).unwrap().to_str().unwrap().to_owned());
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                todo.push(path);
            }
        }
    }
    names.sort();
    names
}

/// Holds if nothing is left of what did not arrive.
fn nothing_is_staged(fixture: &Fixture) {
    if fixture.name == "fuse" {
        // Nobody but the bell sees it.
        assert!(!fixture.channel().join(".incoming").exists());
        let inbox = rustix::fs::statvfs(fixture.inbox("")).unwrap();
        let held = (inbox.f_blocks - inbox.f_bfree) * inbox.f_frsize;
        let visible = below(fixture, "inbox").len() as u64;
        assert!(held <= visible * 8192, "{held} bytes for {visible} names");
    } else {
        assert_eq!(below(fixture, ".incoming"), Vec::<String>::new());
    }
}

#[test]
fn texts_are_numbered() {
    each(|fixture| {
        for n in 1..=3 {
            let saved = fixture.receive(Kind::Text, "../../evil", b"hi").unwrap();
            assert_eq!(saved.name, format!("messages/000{n}.txt"));
            assert_eq!((saved.path, saved.size), (fixture.inbox(&saved.name), 2));
        }
        assert_eq!(fs::read(fixture.inbox("messages/0002.txt")).unwrap(), b"hi");
    });
}

#[test]
fn an_inbox_that_its_owner_emptied_takes_everything_again() {
    each(|fixture| {
        fixture.receive(Kind::Text, "", b"one").unwrap();
        fixture.receive(Kind::File, "d/a", b"x").unwrap();
        fixture.mailbox.append_log("{}").unwrap();
        fixture.sh("rm -rf ../inbox/*");
        assert_eq!(fixture.receive(Kind::Text, "", b"two").unwrap().name, "messages/0002.txt");
        assert_eq!(fixture.receive(Kind::File, "d/a", b"x").unwrap().name, "d/a");
        fixture.mailbox.rotate_log("{}").unwrap();
        fixture.mailbox.append_log("{}").unwrap();
        assert_eq!(fs::read_to_string(fixture.inbox("log.jsonl")).unwrap(), "{}\n{}\n");
        if fixture.name == "fuse" {
            let renamed = fs::rename(fixture.inbox("messages"), fixture.inbox("old"));
            assert_eq!(renamed.unwrap_err().raw_os_error(), Some(libc::EACCES));
            return;
        }
        fixture.sh(
            "mv ../inbox/messages ../inbox/old; ln -s old ../inbox/messages; mv ../inbox/log.jsonl ../..",
        );
        assert_eq!(fixture.receive(Kind::Text, "", b"three").unwrap().name, "messages-2/0003.txt");
        assert_eq!(fixture.mailbox.append_log("{}").unwrap(), 3);
        assert_eq!(fs::read_to_string(fixture.home("log.jsonl")).unwrap(), "{}\n{}\n");
    });
}

#[test]
fn nothing_is_refused_because_its_owner_clears_the_inbox_at_that_moment() {
    only("fuse", |fixture| {
        let (inbox, outbox, done) = (fixture.inbox(""), fixture.outbox(""), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                // Whether something is there is left to chance.
                while !done.load(Ordering::Relaxed) {
                    let _ = fs::rename(inbox.join("messages"), outbox.join(".old"));
                    let _ = fs::remove_dir_all(outbox.join(".old"));
                    let _ = fs::remove_dir_all(inbox.join("d"));
                }
            });
            let received: Vec<_> = (0..300)
                .flat_map(|_| [(Kind::Text, ""), (Kind::File, "d/a"), (Kind::Dir, "d/e/f")])
                .map(|(kind, name)| fixture.receive(kind, name, if kind == Kind::Dir { b"" } else { b"x" }))
                .collect();
            done.store(true, Ordering::Relaxed);
            assert!(received.iter().all(Result::is_ok), "{:?}", received.iter().find(|it| it.is_err()));
        });
    });
}

#[test]
fn an_item_appears_complete_or_not_at_all() {
    each(|fixture| {
        let mut sink = fixture.mailbox.receive(&head(Kind::File, "a/b")).unwrap();
        sink.write(b"half").unwrap();
        assert_eq!(below(fixture, "inbox"), ["answer", "ask", "log.jsonl", "messages"]);
        drop(sink);
        assert_eq!(below(fixture, "inbox"), ["answer", "ask", "log.jsonl", "messages"]);
        nothing_is_staged(fixture);
    });
}

#[test]
fn mode_and_time_travel() {
    each(|fixture| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_000_000);
        for (time, seconds) in [(time, 1_000_000_000), (SystemTime::UNIX_EPOCH - Duration::from_secs(5), -5)]
        {
            let head = Incoming { executable: true, mtime: Some(time), ..head(Kind::File, "run.sh") };
            let saved = fixture.mailbox.receive(&head).unwrap().commit().unwrap();
            let found = fs::metadata(saved.path).unwrap();
            assert_eq!((found.mode() & 0o7777, found.mtime()), (0o700, seconds));
        }
        let plain = fixture.receive(Kind::File, "plain", b"").unwrap();
        assert_eq!(fs::metadata(plain.path).unwrap().mode() & 0o7777, 0o600);
    });
}

#[test]
fn nothing_is_ever_overwritten() {
    each(|fixture| {
        for name in ["report.pdf", "report-2.pdf", "report-3.pdf"] {
            assert_eq!(fixture.receive(Kind::File, "report.pdf", name.as_bytes()).unwrap().name, name);
        }
        assert_eq!(fs::read(fixture.inbox("report.pdf")).unwrap(), b"report.pdf");
        assert_eq!(fixture.receive(Kind::File, "log.jsonl", b"forged").unwrap().name, "log-2.jsonl");
        assert_eq!(
            fixture.receive(Kind::File, "messages/0001.txt", b"forged").unwrap().name,
            "messages-2/0001.txt"
        );
        assert_eq!(fixture.receive(Kind::File, "report.pdf/x", b"").unwrap().name, "report-4.pdf/x");
        assert_eq!(fixture.receive(Kind::File, "report.pdf/y", b"").unwrap().name, "report-4.pdf/y");
        assert_eq!(fixture.receive(Kind::Dir, "d", b"").unwrap().name, "d");
        assert_eq!(fixture.receive(Kind::Dir, "d", b"").unwrap().name, "d");
        assert_eq!(fixture.receive(Kind::File, "d", b"").unwrap().name, "d-2");
    });
}

#[test]
fn hostile_names_stay_inside() {
    each(|fixture| {
        let before: Vec<_> =
            fs::read_dir(fixture.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let long = "a".repeat(5000);
        let deep = ["d"; 70].join("/");
        let wide = "ü".repeat(200);
        let names = [
            "../escape",
            "/etc/passwd",
            "a/../../escape",
            "..",
            ".",
            "",
            "/",
            "//",
            "\0",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            "\u{202e}txt.exe",
            "\u{200b}",
            ".bashrc",
            ".git/config",
            "p/.git/hooks/x",
            "log.jsonl",
            "messages",
            "ctl",
            "../log.jsonl",
            "./log.jsonl",
            "~",
            "-rf",
            "*",
            "$(x)",
            "con",
            "a\\..\\b",
            &wide,
            &long,
            &deep,
        ];
        for name in names {
            for kind in [Kind::File, Kind::Dir] {
                match fixture.receive(kind, name, b"") {
                    Ok(saved) => {
                        assert!(saved.path.starts_with(fixture.inbox("")), "{name:?}");
                        assert!(
                            saved.path.canonicalize().unwrap().starts_with(fixture.inbox("")),
                            "{name:?}"
                        );
                        assert!(!saved.name.chars().any(char::is_control), "{name:?}");
                    }
                    Err(error) => assert!(matches!(error, Refusal::BadName), "{name:?}: {error}"),
                }
            }
        }
        let after: Vec<_> =
            fs::read_dir(fixture.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(before, after);
        assert_eq!(fs::read(fixture.inbox("log.jsonl")).unwrap(), b"");
        assert!(below(fixture, "inbox").iter().all(|name| !name.split('/').any(|part| part == ".git")));
    });
}

#[test]
fn links_in_the_inbox_are_not_followed() {
    only("fuse", |fixture| {
        let made = symlink(fixture.home("outside"), fixture.inbox("d"));
        assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EACCES));
    });
    only("dir", |fixture| {
        fs::create_dir(fixture.home("outside")).unwrap();
        symlink(fixture.home("outside"), fixture.inbox("d")).unwrap();
        symlink(fixture.home("target"), fixture.inbox("f")).unwrap();
        assert_eq!(fixture.receive(Kind::File, "d/x", b"x").unwrap().name, "d-2/x");
        assert_eq!(fixture.receive(Kind::File, "f", b"x").unwrap().name, "f-2");
        assert_eq!(fixture.receive(Kind::Dir, "d", b"").unwrap().name, "d-2");
        assert_eq!(fs::read_dir(fixture.home("outside")).unwrap().count(), 0);
        assert!(!fixture.home("target").exists());
    });
}

#[test]
fn a_group_appears_with_one_rename() {
    each(|fixture| {
        let mut group = fixture.mailbox.receive_group(&head(Kind::Group, "project")).unwrap();
        group.member(&head(Kind::Dir, "empty")).unwrap().commit().unwrap();
        for (name, saved_as) in [
            ("src/main.rs", "src/main.rs"),
            ("src/main.rs", "src/main-2.rs"),
            ("../up", "__/up"),
            (".git/config", "_git/config"),
        ] {
            let mut member = group.member(&head(Kind::File, name)).unwrap();
            member.write(b"x").unwrap();
            assert_eq!(member.commit().unwrap().name, saved_as);
        }
        drop(group.member(&head(Kind::File, "dropped")).unwrap());
        assert_eq!(below(fixture, "inbox"), ["answer", "ask", "log.jsonl", "messages"]);
        let saved = group.commit().unwrap();
        assert_eq!((saved.name.as_str(), saved.size), ("project", 4));
        let names = below(fixture, "inbox/project");
        assert_eq!(
            names,
            ["__", "__/up", "_git", "_git/config", "empty", "src", "src/main-2.rs", "src/main.rs"]
        );

        let second = fixture.mailbox.receive_group(&head(Kind::Group, "project")).unwrap();
        assert_eq!(second.commit().unwrap().name, "project-2");
        let mut third = fixture.mailbox.receive_group(&head(Kind::Group, "third")).unwrap();
        let member = third.member(&head(Kind::File, "a")).unwrap();
        assert!(third.commit().is_err(), "a member is not complete");
        drop(member);
        let mut fourth = fixture.mailbox.receive_group(&head(Kind::Group, "fourth")).unwrap();
        fourth.member(&head(Kind::File, "d/a")).unwrap().commit().unwrap();
        drop(fourth);
        nothing_is_staged(fixture);
    });
}

#[test]
fn the_inbox_has_a_limit_and_what_is_removed_frees_space() {
    each_limited(Some(100_000), |fixture| {
        let big = Incoming { size: Some(100_001), ..head(Kind::File, "a") };
        assert!(matches!(fixture.mailbox.receive(&big), Err(Refusal::TooLarge { limit: 100_000 })));
        assert!(matches!(fixture.receive(Kind::File, "a", &[0; 100_001]), Err(Refusal::TooLarge { .. })));
        fixture.receive(Kind::File, "a", &[0; 60_000]).unwrap();
        let mut half = fixture.mailbox.receive(&head(Kind::File, "b")).unwrap();
        half.write(&[0; 30_000]).unwrap();
        assert!(matches!(half.write(&[0; 5000]), Err(Refusal::NoSpace)));
        drop(half);
        let mut group = fixture.mailbox.receive_group(&head(Kind::Group, "g")).unwrap();
        let mut member = group.member(&head(Kind::File, "a")).unwrap();
        member.write(&[0; 20_000]).unwrap();
        member.commit().unwrap();
        drop(group);
        fixture.receive(Kind::File, "b", &[0; 20_000]).unwrap();
    });
    each_limited(Some(100_000), |fixture| {
        let saved = fixture.receive(Kind::File, "a", &[0; 80_000]).unwrap();
        fs::remove_file(saved.path).unwrap();
        fixture.receive(Kind::File, "b", &[0; 80_000]).unwrap();
    });
}

#[test]
fn what_is_empty_counts_too() {
    each_limited(Some(20 * 4096), |fixture| {
        let deep = ["d"; 10].join("/");
        fixture.receive(Kind::Dir, &deep, b"").unwrap();
        fixture.receive(Kind::Dir, &deep, b"").unwrap();
        for n in 0..7 {
            fixture.receive(Kind::File, &n.to_string(), b"").unwrap();
        }
        let full =
            (0..5).map(|n| fixture.receive(Kind::File, &format!("x{n}"), b"")).filter(Result::is_err).count();
        assert!(full >= 2, "{full}");
    });
}

#[test]
fn the_default_limit_leaves_room_on_the_disk() {
    let home = tempfile::tempdir().unwrap();
    let options = dir::Options::new(home.path().join("channel"));
    let mailbox = dir::DirMailbox::open(&options, Box::new(|_| true)).unwrap();
    let head = Incoming { size: Some(u64::MAX), ..head(Kind::File, "a") };
    let Err(Refusal::TooLarge { limit }) = mailbox.receive(&head) else {
        panic!("it is larger than any disk")
    };
    assert!(limit > 0 && limit <= 16 << 30);
}

#[test]
fn two_items_arrive_at_once() {
    each(|fixture| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..50 {
                        fixture.receive(Kind::Text, "", b"x").unwrap();
                        fixture.receive(Kind::File, "same", b"x").unwrap();
                        fixture.receive(Kind::File, &format!("d/{thread}/{n}"), b"x").unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(fixture.inbox("messages")).unwrap().count(), 200);
        assert!(fixture.inbox("messages/0200.txt").exists() && fixture.inbox("same-200").exists());
    });
}

#[test]
fn a_thousand_items_of_one_name_need_no_million_tries() {
    each(|fixture| {
        for _ in 0..2000 {
            fixture.receive(Kind::File, "same", b"").unwrap();
        }
        assert!(fixture.inbox("same-2000").exists());
    });
}

#[test]
fn the_log_grows_by_lines_and_is_rotated_in_place() {
    each(|fixture| {
        let log = fixture.inbox("log.jsonl");
        let inode = fs::metadata(&log).unwrap().ino();
        assert_eq!(fixture.mailbox.append_log(r#"{"seq":1}"#).unwrap(), 10);
        assert_eq!(fixture.mailbox.append_log(r#"{"seq":2}"#).unwrap(), 20);
        fixture.mailbox.rotate_log(r#"{"seq":3,"event":"rotated"}"#).unwrap();
        assert_eq!(fs::read_to_string(fixture.inbox("log.1.jsonl")).unwrap(), "{\"seq\":1}\n{\"seq\":2}\n");
        assert_eq!(fs::read_to_string(&log).unwrap(), "{\"seq\":3,\"event\":\"rotated\"}\n");
        assert_eq!(fs::metadata(&log).unwrap().ino(), inode, "tail -f follows it");
        fixture.mailbox.rotate_log("{}").unwrap();
        fs::remove_file(&log).unwrap();
        assert_eq!(fixture.mailbox.append_log("{}").unwrap(), 3);
        assert_eq!(fs::read_to_string(&log).unwrap(), "{}\n");
    });
}

#[test]
fn status_and_transcript_are_written() {
    each(|fixture| {
        fixture.mailbox.write_status(r#"{"state":"waiting"}"#).unwrap();
        fixture.mailbox.write_status(r#"{"state":"connected"}"#).unwrap();
        let status = fixture.channel().join("status.json");
        let (changed, changes) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |_| {
            let _ = changed.send(());
        })
        .unwrap();
        watcher.watch(&fixture.channel(), RecursiveMode::NonRecursive).unwrap();
        fixture.mailbox.write_status(r#"{"state":"connected"}"#).unwrap();
        changes.recv_timeout(LONG).expect("who watches it is told");
        assert_eq!(fs::read_to_string(&status).unwrap(), "{\"state\":\"connected\"}\n");
        assert_eq!(fs::metadata(&status).unwrap().mode() & 0o777, 0o600);
        fixture.mailbox.append_transcript("{}").unwrap();
        fixture.mailbox.append_transcript("{}").unwrap();
        assert_eq!(fs::read_to_string(fixture.channel().join("transcript.jsonl")).unwrap(), "{}\n{}\n");
    });
}
