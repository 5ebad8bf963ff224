//! The list against real files.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::UNIX_EPOCH;

use super::*;

fn runtime() -> (tempfile::TempDir, RuntimeDir) {
    let place = tempfile::tempdir().unwrap();
    let runtime = RuntimeDir::at(&place.path().canonicalize().unwrap().join("run")).unwrap();
    (place, runtime)
}

fn new<'a>(nameplate: &'a str, dir: Option<&'a Path>) -> NewChannel<'a> {
    NewChannel {
        nameplate,
        role: Role::Host,
        dir,
        cwd: Path::new("/work"),
        started: UNIX_EPOCH,
        transport: TransportKind::Relay,
    }
}

/// What `kill -9` leaves: the lock is gone, the files are not.
fn kill(registration: Registration) {
    drop(registration._lock.try_clone().unwrap());
    rustix::fs::flock(&registration._lock, FlockOperation::Unlock).unwrap();
    std::mem::forget(registration);
}

fn lay_out(dir: &Path) {
    fs::create_dir_all(dir.join("inbox/messages")).unwrap();
    fs::create_dir(dir.join("outbox")).unwrap();
    fs::write(dir.join("inbox/log.jsonl"), "{}\n").unwrap();
}

#[test]
fn a_channel_is_listed_while_it_lives_and_leaves_nothing() {
    let (_place, runtime) = runtime();
    let registration = runtime.register(&new("9471", None)).unwrap();
    assert_eq!(registration.dir(), runtime.path().join("9471-host"));
    assert_eq!(registration.dir().metadata().unwrap().mode() & 0o777, 0o700);
    lay_out(registration.dir());
    let listed = runtime.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].alive);
    assert_eq!(listed[0].nameplate, "9471");
    assert_eq!(listed[0].pid, std::process::id());
    assert_eq!(listed[0].started, "1970-01-01T00:00:00.000Z");
    runtime.sweep();
    assert!(registration.dir().join("inbox/log.jsonl").exists());
    drop(registration);
    assert_eq!(runtime.list().unwrap(), []);
    assert_eq!(fs::read_dir(runtime.path()).unwrap().count(), 1, "channels/ only");
    assert_eq!(fs::read_dir(runtime.path().join("channels")).unwrap().count(), 0);
}

#[test]
fn a_living_name_is_not_given_twice() {
    let (_place, runtime) = runtime();
    let first = runtime.register(&new("9471", None)).unwrap();
    let second = runtime.register(&new("9471", None)).unwrap();
    assert_eq!(second.dir(), runtime.path().join("9471-host.2"));
    drop(first);
    let third = runtime.register(&new("9471", None)).unwrap();
    assert_eq!(third.dir(), runtime.path().join("9471-host"));
}

#[test]
fn what_a_killed_channel_left_is_swept() {
    let (place, runtime) = runtime();
    let elsewhere = place.path().join("project/.wormhole");
    for dir in [None, Some(elsewhere.as_path())] {
        let registration = runtime.register(&new("9471", dir)).unwrap();
        let dir = registration.dir().to_owned();
        lay_out(&dir);
        fs::write(place.path().join("model.bin"), "kept").unwrap();
        symlink(place.path().join("model.bin"), dir.join("outbox/model.bin")).unwrap();
        kill(registration);
        assert!(!runtime.list().unwrap()[0].alive);
        runtime.sweep();
        assert_eq!(runtime.list().unwrap(), []);
        assert!(!dir.exists());
        assert!(place.path().join("model.bin").exists(), "what a link refers to stays");
    }
    assert!(place.path().join("project").exists());
}

#[test]
fn nothing_of_anybody_else_is_swept() {
    let (place, runtime) = runtime();
    let asked = place.path().join("dir");
    // Replaced by another directory after the owner died.
    let registration = runtime.register(&new("1", Some(&asked))).unwrap();
    kill(registration);
    let kept = place.path().join("kept");
    fs::rename(&asked, &kept).unwrap();
    lay_out(&asked);
    runtime.sweep();
    assert!(asked.join("inbox/log.jsonl").exists());
    assert!(kept.exists());
    // The same directory, but not a mailbox.
    let other = place.path().join("other");
    let registration = runtime.register(&new("2", Some(&other))).unwrap();
    fs::write(other.join("thesis.tex"), "years of work").unwrap();
    kill(registration);
    runtime.sweep();
    assert!(other.join("thesis.tex").exists());
    // A link in its place.
    let linked = place.path().join("linked");
    let registration = runtime.register(&new("3", Some(&linked))).unwrap();
    kill(registration);
    fs::remove_dir(&linked).unwrap();
    symlink(&asked, &linked).unwrap();
    runtime.sweep();
    assert!(asked.join("inbox/log.jsonl").exists());
    // A directory in the runtime directory that is in no list.
    fs::create_dir(runtime.path().join("9-host")).unwrap();
    runtime.sweep();
    assert!(runtime.path().join("9-host").exists());
    assert_eq!(runtime.list().unwrap(), []);
}

#[test]
fn half_written_entries_are_swept_and_not_listed() {
    let (_place, runtime) = runtime();
    fs::write(runtime.path().join("channels/.new-1-0"), "{\"namepl").unwrap();
    fs::write(runtime.path().join("channels/7-host.json"), "").unwrap();
    assert_eq!(runtime.list().unwrap(), []);
    runtime.sweep();
    assert_eq!(fs::read_dir(runtime.path().join("channels")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_was_there_before_stays_with_its_mode() {
    let (place, runtime) = runtime();
    let asked = place.path().join("asked");
    fs::create_dir(&asked).unwrap();
    fs::set_permissions(&asked, fs::Permissions::from_mode(0o750)).unwrap();
    let is_as_before = || {
        assert_eq!(fs::metadata(&asked).unwrap().permissions().mode() & 0o7777, 0o750);
        assert_eq!(fs::read_dir(&asked).unwrap().count(), 0);
        assert_eq!(fs::read_dir(runtime.path().join("channels")).unwrap().count(), 0);
    };
    drop(runtime.register(&new("1", Some(&asked))).unwrap());
    is_as_before();
    let registration = runtime.register(&new("2", Some(&asked))).unwrap();
    lay_out(&asked);
    kill(registration);
    runtime.sweep();
    is_as_before();
}

#[test]
fn an_asked_directory_must_be_empty() {
    let (place, runtime) = runtime();
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    drop(runtime.register(&new("1", Some(&empty))).unwrap());
    let full = place.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("x"), "").unwrap();
    let error = runtime.register(&new("1", Some(&full))).unwrap_err();
    assert!(matches!(error, RundirError::NotEmpty { .. }) && error.is_usage(), "{error}");
    let link = place.path().join("link");
    symlink(&full, &link).unwrap();
    let error = runtime.register(&new("1", Some(&link))).unwrap_err();
    assert!(matches!(error, RundirError::NotADirectory { .. }) && error.is_usage(), "{error}");
    assert_eq!(runtime.list().unwrap(), []);
}

#[test]
fn an_asked_directory_is_closed_to_others() {
    let (place, runtime) = runtime();
    let open = place.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, PermissionsExt::from_mode(0o755)).unwrap();
    let registration = runtime.register(&new("1", Some(&open))).unwrap();
    assert_eq!(open.metadata().unwrap().mode() & 0o777, 0o700);
    drop(registration);
    assert!(open.is_dir());
}

#[test]
fn a_runtime_directory_that_others_can_enter_is_not_used() {
    let place = tempfile::tempdir().unwrap();
    let open = place.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, PermissionsExt::from_mode(0o750)).unwrap();
    assert!(matches!(RuntimeDir::at(&open), Err(RundirError::Unsafe { .. })));
    let real = place.path().join("real");
    fs::DirBuilder::new().mode(0o700).create(&real).unwrap();
    let link = place.path().join("link");
    symlink(&real, &link).unwrap();
    assert!(matches!(RuntimeDir::at(&link), Err(RundirError::Unsafe { .. })));
}

#[test]
fn the_first_place_that_is_safe_is_taken() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path().canonicalize().unwrap();
    let name = format!("agent-wormhole-{}", rustix::process::geteuid().as_raw());
    let [xdg, shm, tmp] = ["xdg", "shm", "tmp"].map(|name| {
        fs::create_dir(place.join(name)).unwrap();
        place.join(name)
    });
    let open = |xdg: Option<&Path>, others: &[&Path]| {
        RuntimeDir::open_with(xdg.map(|xdg| xdg.as_os_str().to_owned()), others).map(|found| found.path)
    };
    assert_eq!(open(Some(&xdg), &[&shm, &tmp]).unwrap(), xdg.join("agent-wormhole"));
    assert_eq!(open(None, &[&shm, &tmp]).unwrap(), shm.join(&name));
    assert_eq!(open(Some(Path::new("relative")), &[&shm]).unwrap(), shm.join(&name));
    assert_eq!(open(Some(&place.join("missing")), &[&place.join("gone"), &tmp]).unwrap(), tmp.join(&name));
    fs::set_permissions(shm.join(&name), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(open(None, &[&shm, &tmp]).unwrap(), tmp.join(&name));
    assert!(matches!(open(None, &[]), Err(RundirError::NoPlace(_))));
}

#[test]
fn many_ends_register_and_sweep_at_once() {
    let (_place, runtime) = runtime();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let registration = runtime.register(&new("5", None)).unwrap();
                    runtime.sweep();
                    assert!(registration.dir().is_dir());
                    assert!(registration.entry.exists());
                }
            });
        }
    });
    assert_eq!(runtime.list().unwrap(), []);
    assert_eq!(fs::read_dir(runtime.path()).unwrap().count(), 1);
}

#[test]
fn a_runtime_directory_behind_a_link_is_known_without_it() {
    let place = tempfile::tempdir().unwrap();
    let real = place.path().canonicalize().unwrap().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, place.path().join("link")).unwrap();
    let runtime = RuntimeDir::at(&place.path().join("link/run")).unwrap();
    assert_eq!(runtime.path(), real.join("run"));
    let registration = runtime.register(&new("9471", None)).unwrap();
    assert_eq!(registration.dir(), real.join("run/9471-host"));
}

#[test]
fn an_end_is_remembered_while_another_of_its_number_lives_and_no_longer() {
    let (_place, runtime) = runtime();
    let at = |role, cwd| NewChannel { role, cwd: Path::new(cwd), ..new("9471", None) };
    let left = || fs::read_dir(runtime.path().join("channels")).unwrap().count();
    let ended = || runtime.ended().into_iter().map(|end| (end.role, end.cwd)).collect::<Vec<_>>();
    // It ends as asked, or is killed and swept by the next command.
    for killed in [false, true] {
        let host = runtime.register(&at(Role::Host, "/a")).unwrap();
        let peer = runtime.register(&at(Role::Peer, "/b")).unwrap();
        let other = runtime.register(&new("1", None)).unwrap();
        if killed {
            kill(host)
        } else {
            drop(host)
        }
        runtime.sweep();
        assert_eq!(ended(), [(Role::Host, "/a".into())]);
        assert_eq!(runtime.list().unwrap().len(), 2, "a note is no channel");
        assert!(runtime.ended().iter().all(|end| !end.alive));
        drop(peer);
        assert_eq!((ended(), left()), (vec![], 1), "nobody has the number any more");
        drop(other);
        assert_eq!(left(), 0);
    }
    // Where it begins anew, it is meant again.
    let host = runtime.register(&at(Role::Host, "/a")).unwrap();
    let peer = runtime.register(&at(Role::Peer, "/b")).unwrap();
    drop(host);
    let host = runtime.register(&at(Role::Host, "/a")).unwrap();
    assert_eq!(ended(), []);
    // In whatever role.
    drop(host);
    let host = runtime.register(&NewChannel { dir: None, ..at(Role::Peer, "/a") }).unwrap();
    assert_eq!(ended(), []);
    // Those that are killed together leave no note that stays.
    drop(peer);
    assert_eq!(ended().len(), 1);
    kill(host);
    runtime.sweep();
    assert_eq!(left(), 0);
    fs::write(runtime.path().join("channels/.ended-9471-1"), "{\"namepl").unwrap();
    runtime.sweep();
    assert_eq!(left(), 0);
}
