//! Every operation of a file system, one by one: what it does in `outbox/`, `inbox/` and the channel's directory, or with
//! which errno it ends.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::{Kind, Outcome};
use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::fixture::{Body, Fixture, each, only, run};

/// The errno of what was refused.
fn errno<T>(done: std::io::Result<T>) -> Option<i32> {
    done.err().and_then(|error| error.raw_os_error())
}

fn bytes(fixture: &Fixture) -> (String, Vec<u8>) {
    let offer = fixture.offer();
    match offer.content {
        Body::Bytes(bytes) => (offer.name, bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn writes_at_any_offset_truncation_and_holes() {
    each(|fixture| {
        let file = File::create(fixture.outbox("a.bin")).unwrap();
        file.write_all_at(b"end", 100_000).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.set_len(100_002).unwrap();
        file.write_all_at(b"x", 50_000).unwrap();
        drop(file);
        let (name, found) = bytes(fixture);
        let mut expected = vec![0; 100_002];
        expected[..5].copy_from_slice(b"start");
        expected[50_000] = b'x';
        expected[100_000..].copy_from_slice(b"en");
        assert_eq!(name, "a.bin");
        assert!(found == expected);
    });
}

#[test]
fn reading_back_what_is_being_written() {
    each(|fixture| {
        let mut file =
            File::options().read(true).write(true).create_new(true).open(fixture.outbox("a.bin")).unwrap();
        file.write_all(b"one two").unwrap();
        file.seek(SeekFrom::Start(4)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), file.metadata().unwrap().size()), ("two", 7));
        let mut other = File::open(fixture.outbox("a.bin")).unwrap();
        text.clear();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    });
}

#[test]
fn appends_of_several_writers_are_all_there() {
    each(|fixture| {
        File::create(fixture.outbox("a.bin")).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = fixture.outbox("a.bin");
                scope.spawn(move || {
                    let mut file = OpenOptions::new().append(true).open(path).unwrap();
                    for _ in 0..50 {
                        file.write_all(format!("{writer}234567\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(fixture.outbox("a.bin")).unwrap();
        assert_eq!((text.len(), text.lines().filter(|line| line.len() == 7).count()), (1600, 200));
    });
}

#[test]
fn an_exclusive_create_is_refused_where_something_is() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        let again = OpenOptions::new().write(true).create_new(true).open(fixture.outbox("a.bin"));
        assert_eq!(errno(again), Some(libc::EEXIST));
        assert_eq!(errno(fs::create_dir(fixture.outbox("a.bin"))), Some(libc::EEXIST));
        assert_eq!(errno(symlink("x", fixture.outbox("a.bin"))), Some(libc::EEXIST));
    });
}

#[test]
fn a_rename_that_may_not_replace_or_would_exchange() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        fixture.write("b.bin", "x");
        let rename = |flags| {
            rustix::fs::renameat_with(CWD, fixture.outbox("a.bin"), CWD, fixture.outbox("b.bin"), flags)
        };
        assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
        if fixture.name == "fuse" {
            assert_eq!(rename(RenameFlags::EXCHANGE), Err(Errno::INVAL));
        }
        rename(RenameFlags::empty()).unwrap();
    });
}

#[test]
fn a_mode_and_a_time_that_are_set_after_the_close_travel() {
    each(|fixture| {
        fixture.write("run.sh", "x");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().write(true).open(fixture.outbox("run.sh")).unwrap().set_modified(time).unwrap();
        fs::set_permissions(fixture.outbox("run.sh"), Permissions::from_mode(0o755)).unwrap();
        let offer = fixture.offer();
        assert_eq!((offer.executable, offer.mtime), (true, Some(time)));
    });
}

#[test]
fn times_before_1970_with_a_part_of_a_second_are_kept() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        run(Command::new("touch").args(["-d", "1969-12-31 23:59:58.5 UTC"]).arg(fixture.outbox("a.bin")));
        let found = fs::metadata(fixture.outbox("a.bin")).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (-2, 500_000_000));
        assert_eq!(fixture.offer().mtime, SystemTime::UNIX_EPOCH.checked_sub(Duration::from_millis(1500)));
    });
}

#[test]
fn the_first_and_the_last_time_that_there_are_end_no_mount() {
    only("fuse", |fixture| {
        fixture.write("a.bin", "x");
        let file = fs::File::open(fixture.outbox("a.bin")).unwrap();
        for (tv_sec, tv_nsec) in [(i64::MIN, 0), (i64::MIN, 999_999_999), (i64::MAX, 0), (-1, 1), (-2, 0)] {
            let at = rustix::fs::Timespec { tv_sec, tv_nsec };
            let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
            rustix::fs::futimens(&file, &times).unwrap();
            assert_eq!(file.metadata().unwrap().mtime(), tv_sec);
        }
        drop(file);
        assert_eq!(fixture.offer().name, "a.bin");
    });
}

#[test]
fn owners_and_set_id_bits_are_accepted_and_forgotten() {
    only("fuse", |fixture| {
        fixture.write("a.bin", "x");
        let path = fixture.outbox("a.bin");
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o6755)).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(
            (found.uid(), found.gid()),
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        );
        assert_eq!(found.mode() & 0o7777, 0o755);
    });
}

#[test]
fn attributes_say_where_an_item_stands() {
    only("fuse", |fixture| {
        fixture.write("a.bin", "x");
        fixture.write(".hidden", "x");
        let read = |path: &Path, name: &str| {
            let mut buffer = [0; 64];
            let len = rustix::fs::getxattr(path, name, &mut buffer)?;
            Ok::<_, Errno>(String::from_utf8_lossy(&buffer[..len]).into_owned())
        };
        let path = fixture.outbox("a.bin");
        let state = || read(&path, "user.wormhole.state").unwrap();
        assert_eq!(state(), "queued");
        let offer = fixture.offer();
        assert_eq!(state(), "sending");
        assert_eq!(read(&path, "user.wormhole.id").unwrap(), offer.entry.0.to_string());
        fixture.mailbox.settle(offer.entry, Outcome::Refused("no".to_owned()));
        assert_eq!(state(), "refused");
        fixture.write("a.bin", "y");
        fixture.deliver(&fixture.offer());
        assert_eq!(state(), "delivered");
        assert_eq!(read(&fixture.outbox(".hidden"), "user.wormhole.state"), Err(Errno::NODATA));
        assert_eq!(read(&path, "user.other"), Err(Errno::NODATA));
        let mut names = [0; 128];
        let len = rustix::fs::listxattr(&path, &mut names).unwrap();
        assert_eq!(names[..len], *b"user.wormhole.state\0user.wormhole.id\0");
        assert_eq!(rustix::fs::setxattr(&path, "user.other", b"x", XattrFlags::empty()), Err(Errno::NOTSUP));
        assert_eq!(
            rustix::fs::setxattr(&path, "user.wormhole.state", b"x", XattrFlags::empty()),
            Err(Errno::PERM)
        );
    });
}

#[test]
fn fsync_is_local_and_returns_at_once() {
    each(|fixture| {
        let file = File::create(fixture.outbox("a.bin")).unwrap();
        let start = Instant::now();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        File::open(fixture.outbox("")).unwrap().sync_all().unwrap();
        File::open(fixture.channel()).unwrap().sync_all().unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    });
}

#[test]
fn fsync_of_the_receipt_returns_when_the_peer_has_everything() {
    only("fuse", |fixture| {
        let receipt = || File::open(fixture.channel().join("receipt")).unwrap().sync_all();
        receipt().unwrap();
        fixture.write("a.bin", "x");
        fixture.write("b.msg", "x");
        std::thread::scope(|scope| {
            // As many as like wait at once.
            let waiting: Vec<_> = (0..40).map(|_| scope.spawn(receipt)).collect();
            let offers = fixture.offers(2);
            fixture.deliver(&offers[0]);
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
            // Nobody waits for them.
            fixture.write("c.tmp", "x");
            fs::remove_file(fixture.outbox("c.tmp")).unwrap();
            fixture.deliver(&offers[1]);
            for waiting in waiting {
                waiting.join().unwrap().unwrap();
            }
        });
    });
}

#[test]
fn fsync_of_the_receipt_says_that_something_did_not_arrive() {
    only("fuse", |fixture| {
        let receipt = || File::open(fixture.channel().join("receipt")).unwrap().sync_all();
        for (outcome, expected) in
            [(Outcome::Refused("too large".to_owned()), libc::EIO), (Outcome::Sent, libc::EOPNOTSUPP)]
        {
            fixture.write("a.bin", "x");
            std::thread::scope(|scope| {
                let waiting = scope.spawn(receipt);
                let offer = fixture.offer();
                // It is asked before it is answered: what is refused already is named all the same.
                fixture.mailbox.settle(offer.entry, outcome.clone());
                assert_eq!(errno(waiting.join().unwrap()), Some(expected), "{outcome:?}");
            });
            fs::remove_file(fixture.outbox("a.bin")).unwrap();
        }
        fixture.write("b.bin", "x");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(receipt);
            fixture.offer();
            fixture.mailbox.close().unwrap();
            assert_eq!(errno(waiting.join().unwrap()), Some(libc::ENOTCONN));
        });
    });
}

#[test]
fn statfs_shows_the_budgets() {
    only("fuse", |fixture| {
        let free = |path: &Path| {
            let found = rustix::fs::statvfs(path).unwrap();
            found.f_bavail * found.f_frsize
        };
        let (outbox, inbox) = (free(&fixture.outbox("")), free(&fixture.inbox("")));
        assert!(outbox > 0 && inbox > 0);
        fixture.write("a.bin", vec![1; 1 << 20]);
        fixture.receive(Kind::File, "b", &[1; 2 << 20]).unwrap();
        let (outbox_now, inbox_now) = (free(&fixture.outbox("")), free(&fixture.inbox("")));
        assert!((1 << 20..2 << 20).contains(&(outbox - outbox_now)), "{outbox} {outbox_now}");
        assert!((2 << 20..3 << 20).contains(&(inbox - inbox_now)), "{inbox} {inbox_now}");
        assert_eq!(rustix::fs::statvfs(fixture.outbox("")).unwrap().f_namemax, 255);
    });
}

#[test]
fn a_part_of_a_file_is_allocated_zeroed_or_taken_away() {
    each(|fixture| {
        let file = File::create(fixture.outbox("a.bin")).unwrap();
        file.write_all_at(&[7; 200_000], 0).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 250_000).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 65_536, 65_536)
            .unwrap();
        drop(file);
        let (_, found) = bytes(fixture);
        let mut expected = vec![7; 250_000];
        expected[65_536..131_072].fill(0);
        expected[200_000..].fill(0);
        assert!(found == expected);
    });
}

#[test]
fn data_and_holes_are_found() {
    only("fuse", |fixture| {
        let file = File::create(fixture.outbox("a.bin")).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"x", 512 * 1024).unwrap();
        let seek = |how| rustix::fs::seek(file.as_fd(), how);
        assert_eq!(seek(rustix::fs::SeekFrom::Data(0)), Ok(512 * 1024));
        assert_eq!(seek(rustix::fs::SeekFrom::Hole(512 * 1024)), Ok(576 * 1024));
        assert_eq!(seek(rustix::fs::SeekFrom::Data(600 * 1024)), Err(Errno::NXIO));
    });
}

#[test]
fn a_listing_goes_on_while_entries_come_and_go() {
    each(|fixture| {
        fs::create_dir(fixture.outbox("d")).unwrap();
        for n in 0..500 {
            fixture.write(&format!("d/{n}"), "");
        }
        let mut seen = Vec::new();
        for (at, entry) in fs::read_dir(fixture.outbox("d")).unwrap().enumerate() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if at == 10 {
                // What was listed goes, and something new comes.
                fs::remove_file(fixture.outbox(&format!("d/{}", seen[0]))).unwrap();
                fixture.write("d/new", "");
            }
            seen.push(name);
        }
        seen.retain(|name| name != "new");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 500);
    });
}

#[test]
fn a_child_that_holds_the_descriptor_holds_nothing_up() {
    only("fuse", |fixture| {
        // The shell writes and ends; its child has the file open, too.
        fixture.sh("exec 3> held.msg; echo one >&3; sleep 20 3>&3 >/dev/null 2>&1 & echo $! > ../../pid");
        let start = Instant::now();
        fixture.write("next.msg", "two");
        assert_eq!(fixture.offer().name, "next.msg");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let pid = fs::read_to_string(fixture.home("pid")).unwrap();
        run(Command::new("kill").arg(pid.trim()));
        assert_eq!(bytes(fixture), ("held.msg".to_owned(), b"one\n".to_vec()));
    });
}

#[test]
fn the_inbox_takes_nothing_from_its_owner_and_lets_him_take_things_out() {
    each(|fixture| {
        fixture.receive(Kind::File, "theirs.txt", b"x").unwrap();
        let mut theirs = fixture.inbox("theirs.txt");
        if fixture.name == "fuse" {
            let no = Some(libc::EACCES);
            assert_eq!(errno(File::create(fixture.inbox("new"))), no);
            assert_eq!(errno(fs::create_dir(fixture.inbox("new"))), no);
            assert_eq!(errno(symlink("x", fixture.inbox("new"))), no);
            assert_eq!(errno(OpenOptions::new().write(true).open(&theirs)), no);
            assert_eq!(errno(OpenOptions::new().append(true).open(fixture.inbox("log.jsonl"))), no);
            assert_eq!(errno(fs::set_permissions(&theirs, Permissions::from_mode(0o777))), no);
            assert_eq!(errno(fs::hard_link(&theirs, fixture.inbox("second"))), no);
            fixture.write("a.bin", "x");
            assert_eq!(errno(fs::rename(fixture.outbox("a.bin"), fixture.inbox("a.bin"))), no);
            fixture.deliver(&fixture.offer());
        }
        assert_eq!(fs::read(&theirs).unwrap(), b"x");
        // To send it back is to move it.
        fs::rename(&theirs, fixture.outbox("back.txt")).unwrap();
        assert_eq!(bytes(fixture), ("back.txt".to_owned(), b"x".to_vec()));
        theirs = fixture.receive(Kind::File, "second.txt", b"x").unwrap().path;
        fs::remove_file(&theirs).unwrap();
        fixture.receive(Kind::Dir, "d/e", b"").unwrap();
        fs::remove_dir_all(fixture.inbox("d")).unwrap();
        assert!(!fixture.inbox("d").exists());
    });
}

#[test]
fn the_channels_own_files_stay() {
    only("fuse", |fixture| {
        let no = Some(libc::EACCES);
        for name in ["README.md", ".gitignore", "status.json", "transcript.jsonl", "ctl", "receipt"] {
            let path = fixture.channel().join(name);
            assert_eq!(errno(fs::remove_file(&path)), no, "{name}");
            assert_eq!(errno(fs::rename(&path, fixture.outbox(name))), no, "{name}");
            if name != "ctl" {
                assert_eq!(errno(OpenOptions::new().write(true).open(&path)), no, "{name}");
            }
        }
        for name in ["inbox", "outbox"] {
            assert_eq!(
                errno(fs::rename(fixture.channel().join(name), fixture.channel().join("x"))),
                no,
                "{name}"
            );
        }
        assert_eq!(errno(fs::remove_dir(fixture.outbox(""))), no);
        assert_eq!(errno(File::create(fixture.channel().join("new"))), no);
        assert_eq!(errno(fs::create_dir(fixture.channel().join("new"))), no);
    });
}

#[test]
fn a_file_without_a_name_cannot_be_made() {
    only("fuse", |fixture| {
        let made = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(fixture.outbox(""));
        assert_eq!(errno(made), Some(libc::EOPNOTSUPP));
    });
}

#[test]
fn locks_are_kept_by_the_kernel() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        let open = || OpenOptions::new().write(true).open(fixture.outbox("a.bin")).unwrap();
        let (first, second) = (open(), open());
        let lock =
            |file: &File| rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        lock(&first).unwrap();
        assert_eq!(lock(&second), Err(Errno::WOULDBLOCK));
        drop(first);
        lock(&second).unwrap();
    });
}

#[test]
fn what_is_looked_up_without_being_opened_is_found() {
    each(|fixture| {
        fixture.sh("mkdir -p d/e; echo x > d/e/f; test -r d/e/f; test -x d; test ! -x d/e/f");
        assert!(
            rustix::fs::accessat(CWD, fixture.outbox("d/e/f"), rustix::fs::Access::READ_OK, AtFlags::empty())
                .is_ok()
        );
        assert_eq!(fs::metadata(fixture.outbox("d")).unwrap().nlink(), 3);
        assert_eq!(errno(fs::read_dir(fixture.outbox("d/e/f"))), Some(libc::ENOTDIR));
        assert_eq!(errno(fs::remove_dir(fixture.outbox("d"))), Some(libc::ENOTEMPTY));
        assert_eq!(errno(fs::remove_file(fixture.outbox("nothing"))), Some(libc::ENOENT));
    });
}
