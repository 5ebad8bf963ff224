//! The directory itself: how it is made, the words of `ctl`, and how it goes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use agent_wormhole_mount::dir::{DirMailbox, OpenError, Options, at_rest};
use agent_wormhole_mount::secret::{Secret, SecretName};
use agent_wormhole_mount::{Ctl, Kind, Mailbox as _, OutboxEvent, Outcome, Refusal, SecretNotSent};

use notify::Watcher as _;

use crate::fixture::{LONG, each, head, only, run};

fn open(path: &Path) -> Result<DirMailbox, OpenError> {
    DirMailbox::open(&Options::new(path.to_owned()), Box::new(|_| true))
}

#[test]
fn everything_belongs_to_its_owner_only() {
    each(|fixture| {
        let mut todo = vec![fixture.channel()];
        let mut names = Vec::new();
        while let Some(path) = todo.pop() {
            let found = fs::metadata(&path).unwrap();
            // What explains where secrets go is for reading.
            let explains = found.is_file() && path.ends_with("secrets");
            assert_eq!(
                found.mode() & 0o777,
                if found.is_dir() {
                    0o700
                } else if explains {
                    0o400
                } else {
                    0o600
                },
                "{}",
                path.display()
            );
            if found.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            names.push(path.strip_prefix(fixture.channel()).unwrap().to_str().unwrap().to_owned());
        }
        for name in [
            "README.md",
            "status.json",
            "transcript.jsonl",
            "ctl",
            "inbox/log.jsonl",
            "inbox/messages",
            "outbox",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        assert_eq!(fs::read_to_string(fixture.channel().join(".gitignore")).unwrap(), "*\n");
        let readme = fs::read_to_string(fixture.channel().join("README.md")).unwrap();
        assert!(readme.contains("outbox/message") && readme.lines().count() <= 60);
    });
}

#[test]
fn a_strange_umask_changes_nothing() {
    // The umask belongs to the whole process: another one makes the mailbox.
    let home = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let script = format!(
        "umask 0177; MAILBOX_PLACE={} exec {} --exact --ignored closing::made_under_a_umask",
        home.path().join("channel").display(),
        this.display()
    );
    run(Command::new("sh").args(["-ec", &script]));
}

#[test]
#[ignore = "run by a_strange_umask_changes_nothing"]
fn made_under_a_umask() {
    let Some(place) = std::env::var_os("MAILBOX_PLACE") else { return };
    let mailbox = open(Path::new(&place)).unwrap();
    let mut sink = mailbox
        .receive(&agent_wormhole_mount::Incoming { executable: true, ..head(Kind::File, "a/b") })
        .unwrap();
    sink.write(b"x").unwrap();
    let saved = sink.commit().unwrap();
    for (path, mode) in [
        (mailbox.path().join("outbox"), 0o700),
        (mailbox.path().join("ctl"), 0o600),
        (mailbox.path().join("inbox/a"), 0o700),
        (saved.path, 0o700),
    ] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn only_an_empty_directory_of_ours_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("full");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("precious"), "x").unwrap();
    assert!(matches!(open(&path), Err(OpenError::NotEmpty(_))));
    assert!(matches!(open(&path.join("precious")), Err(OpenError::NotADirectory(_))));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);

    let path = home.path().join("empty");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mailbox = open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    mailbox.close().unwrap();
    assert_eq!(
        fs::read_dir(&path).unwrap().count(),
        0,
        "the directory is its owner's; what is in it was ours"
    );

    let mailbox = open(&home.path().join("a/b/c")).unwrap();
    let path = mailbox.path().to_owned();
    drop(mailbox);
    assert!(!path.exists() && home.path().join("a/b").exists());
}

#[test]
fn a_link_to_the_place_is_followed_once_and_paths_are_absolute() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("real")).unwrap();
    symlink("real", home.path().join("link")).unwrap();
    let mailbox = open(&home.path().join("link/channel")).unwrap();
    assert_eq!(mailbox.path(), home.path().canonicalize().unwrap().join("real/channel"));
}

#[test]
fn where_bytes_rest_is_told() {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        assert_eq!(at_rest(memory).unwrap(), "in memory (tmpfs)");
    }
    assert_eq!(at_rest(Path::new("/proc")).unwrap(), "plaintext on disk");
}

#[test]
fn words_for_ctl() {
    each(|fixture| {
        let ctl = fixture.channel().join("ctl");
        fs::write(&ctl, "close\n").unwrap();
        assert_eq!(fixture.ctl(), Ctl::Close);
        fs::write(&ctl, "close now").unwrap();
        assert_eq!(fixture.ctl(), Ctl::CloseNow);
        let wrong = fs::write(&ctl, "clsoe\u{1b}[2J");
        if fixture.name == "fuse" {
            assert_eq!(wrong.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        } else {
            let reason = fixture.left_out("ctl");
            assert!(reason.contains("`close now`") && !reason.contains('\u{1b}'), "{reason}");
        }
        assert_eq!(fs::read(&ctl).unwrap(), b"");
    });
}

#[test]
fn reading_ctl_is_no_sign_to_read_it_again() {
    only("dir", |fixture| {
        let ctl = fixture.channel().join("ctl");
        let (closed, closes) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.unwrap().kind.is_access() {
                let _ = closed.send(());
            }
        })
        .unwrap();
        watcher.watch(&ctl, notify::RecursiveMode::NonRecursive).unwrap();
        fs::write(&ctl, "wrong").unwrap();
        assert!(fixture.left_out("ctl").contains("no word"));
        // Long enough to meet many of its own signs.
        for n in 0..100 {
            fixture.write(&format!("{n}.msg"), "x");
            fixture.offer();
        }
        assert!(closes.try_iter().count() < 20);
    });
}

#[test]
fn ctl_survives_being_removed_or_replaced() {
    only("fuse", |fixture| {
        let ctl = fixture.channel().join("ctl");
        fs::write(fixture.home("word"), "close now\n").unwrap();
        for done in [fs::remove_file(&ctl), fs::rename(&ctl, fixture.channel().join("x"))] {
            assert_eq!(done.unwrap_err().raw_os_error(), Some(libc::EACCES));
        }
    });
    only("dir", |fixture| {
        let ctl = fixture.channel().join("ctl");
        fs::remove_file(&ctl).unwrap();
        crate::fixture::until(&fixture.channel(), || ctl.exists());
        fs::write(&ctl, "close\n").unwrap();
        assert_eq!(fixture.ctl(), Ctl::Close);
        fs::write(fixture.home("word"), "close now\n").unwrap();
        fs::rename(fixture.home("word"), &ctl).unwrap();
        assert_eq!(fixture.ctl(), Ctl::CloseNow);
        fs::write(&ctl, "close\n").unwrap();
        assert_eq!(fixture.ctl(), Ctl::Close);
    });
}

#[test]
fn closing_takes_everything_away_whatever_its_modes_are() {
    each(|fixture| {
        fs::write(fixture.home("kept"), "x").unwrap();
        fs::create_dir(fixture.home("dir")).unwrap();
        fixture.sh("mkdir -p a/b; echo x > a/b/c; ln -s ../../dir a/link; ln -s ../../kept .");
        fs::set_permissions(fixture.outbox("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
        fs::set_permissions(fixture.outbox("a"), fs::Permissions::from_mode(0o0)).unwrap();
        fixture.mailbox.close().unwrap();
        assert!(!fixture.channel().exists());
        assert!(fixture.home("kept").exists() && fixture.home("dir").exists());
        assert!(matches!(fixture.receive(Kind::Text, "", b"x"), Err(Refusal::Closing)));
        assert_eq!(fixture.mailbox.undelivered(9), (Vec::new(), 0));
    });
}

#[test]
fn what_waits_behind_a_file_that_is_not_released_is_named_as_undelivered() {
    only("fuse", |fixture| {
        // Closed once and open still: what happens now waits for it.
        let held = fs::File::create(fixture.outbox("held.msg")).unwrap();
        (&held).write_all(b"x").unwrap();
        drop(held.try_clone().unwrap());
        symlink("/etc/hostname", fixture.outbox("link")).unwrap();
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["link".to_owned(), "held.msg".to_owned()], 2));
    });
}

#[test]
fn what_is_written_again_where_something_was_delivered_is_named_as_undelivered() {
    only("fuse", |fixture| {
        fixture.write("a.bin", "first");
        let first = fixture.offer();
        let mut again = fs::File::options().append(true).open(fixture.outbox("a.bin")).unwrap();
        fixture.deliver(&first);
        assert_eq!(fixture.mailbox.undelivered(9), (vec![], 0));
        again.write_all(b"second").unwrap();
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["a.bin".to_owned()], 1));
    });
}

#[test]
fn an_outbox_that_is_shut_takes_nothing_more() {
    each(|fixture| {
        fixture.write("early.bin", "x");
        fixture.mailbox.shut();
        let (name, secret) = (SecretName::parse("KEY").unwrap(), Secret::copy_of(b"value").unwrap());
        assert_eq!(fixture.mailbox.send_secret(name, secret), Err(SecretNotSent::Closing));
        if fixture.name == "fuse" {
            let late = fs::write(fixture.outbox("late.bin"), "x");
            assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::NotConnected);
        }
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["early.bin".to_owned()], 1));
    });
}

#[test]
fn the_outlet_itself_may_close() {
    let home = tempfile::tempdir().unwrap();
    let slot: Arc<std::sync::OnceLock<DirMailbox>> = Arc::default();
    let (done, closed) = std::sync::mpsc::channel();
    let outlet = {
        let slot = Arc::clone(&slot);
        move |_| {
            slot.wait().close().unwrap();
            done.send(()).is_ok()
        }
    };
    let mailbox = DirMailbox::open(&Options::new(home.path().join("channel")), Box::new(outlet)).unwrap();
    let path = mailbox.path().to_owned();
    slot.set(mailbox).unwrap();
    fs::write(path.join("ctl"), "close").unwrap();
    closed.recv_timeout(crate::fixture::LONG).unwrap();
    assert!(!path.exists());
}

#[test]
fn what_took_the_place_of_the_channels_directory_is_not_removed() {
    for taken in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let (path, other) = (home.path().join("channel"), home.path().join("other"));
        if taken {
            fs::create_dir(&path).unwrap();
        }
        fs::create_dir(&other).unwrap();
        fs::write(other.join("precious"), "x").unwrap();
        for is_link in [false, true] {
            let mailbox = open(&path).unwrap();
            fs::rename(&path, home.path().join("moved")).unwrap();
            if is_link {
                symlink(&other, &path).unwrap();
            } else {
                fs::rename(&other, &path).unwrap();
            }
            assert!(mailbox.close().unwrap_err().to_string().contains("was moved"));
            assert_eq!(fs::read(path.join("precious")).unwrap(), b"x");
            let left = fs::read_dir(home.path().join("moved")).unwrap().count();
            assert_eq!(left, 0, "what was in the channel is removed wherever it is");
            if is_link {
                fs::remove_file(&path).unwrap();
            } else {
                fs::rename(&path, &other).unwrap();
                fs::create_dir(&path).unwrap();
            }
            fs::remove_dir_all(home.path().join("moved")).unwrap();
        }
    }
}

#[test]
fn what_takes_the_place_of_the_channels_directory_while_it_lives_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("channel");
    let (offers, offered) = std::sync::mpsc::channel();
    let mailbox =
        DirMailbox::open(&Options::new(path.clone()), Box::new(move |event| offers.send(event).is_ok()))
            .unwrap();
    mailbox.allow(9);
    let mut group = mailbox.receive_group(&head(Kind::Group, "g")).unwrap();
    group.member(&head(Kind::File, "a")).unwrap().commit().unwrap();
    fs::write(path.join("outbox/a.msg"), "x").unwrap();
    let OutboxEvent::Offer(offer) = offered.recv_timeout(LONG).unwrap() else { panic!("no offer") };
    // Somebody else's directory, with what looks like ours.
    fs::rename(&path, home.path().join("moved")).unwrap();
    for name in [".leaving/1", ".incoming/0"] {
        fs::create_dir_all(path.join(name)).unwrap();
        fs::write(path.join(name).join("precious"), "x").unwrap();
    }
    drop(group);
    mailbox.settle(offer.entry, Outcome::Delivered);
    let resting = home.path().join("moved/.leaving");
    crate::fixture::until(&home.path().join("moved/outbox"), || {
        !home.path().join("moved/outbox/a.msg").exists()
    });
    crate::fixture::until(&resting, || fs::read_dir(&resting).unwrap().count() == 0);
    assert_eq!(fs::read_dir(home.path().join("moved/.incoming")).unwrap().count(), 0);
    assert!(mailbox.close().is_err());
    assert!(path.join(".leaving/1/precious").exists() && path.join(".incoming/0/precious").exists());
}
