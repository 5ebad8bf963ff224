//! Directories in the outbox, with the tools that people use.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use agent_wormhole_mount::{Kind, OutboxEvent};

use crate::fixture::{Body, Fixture, each, needs, run};

/// Makes a tree beside the channel: two files, one of them executable, a dot file and an empty directory.
fn tree(fixture: &Fixture) {
    let script =
        "mkdir -p src/a/b src/empty; echo one > src/one; echo two > src/a/b/two; echo x > src/a/.env;
        chmod 700 src/one; touch -d 2001-02-03T04:05:06Z src/a/b/two";
    run(Command::new("sh").args(["-ec", script]).current_dir(fixture.home.path()));
}

/// Holds if the tree is offered file by file under a name, and nothing else.
fn arrives_as(fixture: &Fixture, root: &str) {
    let offers = fixture.offers(4);
    let names: Vec<_> = offers.iter().map(|offer| offer.name.as_str()).collect();
    let expected = ["a/.env", "a/b/two", "empty", "one"].map(|name| format!("{root}/{name}"));
    assert_eq!(names, expected);
    let kinds: Vec<_> = offers.iter().map(|offer| offer.kind).collect();
    assert_eq!(kinds, [Kind::File, Kind::File, Kind::Dir, Kind::File]);
    assert_eq!(offers[1].content, Body::Bytes(b"two\n".to_vec()));
    fixture.nothing_more();
    for offer in &offers {
        fixture.deliver(offer);
    }
    assert_eq!(fixture.mailbox.undelivered(9).1, 0);
}

#[test]
fn cp_of_a_tree() {
    each(|fixture| {
        tree(fixture);
        fixture.sh("cp -r ../../src .");
        arrives_as(fixture, "src");
    });
}

#[test]
fn cp_that_preserves() {
    each(|fixture| {
        tree(fixture);
        fixture.sh("cp -a ../../src kept");
        let offers = fixture.offers(4);
        let time = offers[1].mtime.unwrap().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(time.as_secs(), 981_173_106);
        assert!(offers[3].executable && !offers[1].executable);
        fixture.nothing_more();
    });
}

#[test]
fn rsync_of_a_tree() {
    each(|fixture| {
        needs("rsync");
        tree(fixture);
        fixture.sh("rsync -a ../../src .; rsync -a ../../src .");
        arrives_as(fixture, "src");
    });
}

#[test]
fn tar_x() {
    each(|fixture| {
        tree(fixture);
        fixture.sh("tar cf - -C ../.. src | tar xf -");
        arrives_as(fixture, "src");
    });
}

#[test]
fn a_tree_moved_in() {
    each(|fixture| {
        tree(fixture);
        fixture.sh("mv ../../src .");
        arrives_as(fixture, "src");
    });
}

#[test]
fn a_tree_renamed_while_it_settles_goes_under_its_last_name() {
    each(|fixture| {
        tree(fixture);
        fixture.sh("cp -r ../../src first; mv first last");
        arrives_as(fixture, "last");
    });
}

#[test]
fn git_clone_leaves_the_repository_out() {
    each(|fixture| {
        needs("git");
        let script =
            "git init -q repo; cd repo; echo x > a; mkdir d; echo y > d/b; echo z > .gitignore; git add .;
            git -c user.name=a -c user.email=a@example.com commit -qm one";
        let mut git = Command::new("sh");
        run(git.args(["-ec", script]).current_dir(fixture.home.path()).env("HOME", fixture.home.path()));
        fixture.sh("git clone -q ../../repo clone");
        let names: Vec<_> = fixture.offers(3).into_iter().map(|offer| offer.name).collect();
        assert_eq!(names, ["clone/.gitignore", "clone/a", "clone/d/b"]);
        assert!(fixture.left_out("clone/.git").contains("git bundle"));
        fixture.nothing_more();
    });
}

#[test]
fn an_empty_directory_arrives() {
    each(|fixture| {
        fixture.sh("mkdir -p a/b");
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.name.as_str()), (Kind::Dir, "a/b"));
        fixture.nothing_more();
    });
}

#[test]
fn rm_of_a_tree_cancels_all_of_it() {
    each(|fixture| {
        tree(fixture);
        fixture.sh("cp -r ../../src .");
        let offered: Vec<_> = fixture.offers(4).into_iter().map(|offer| offer.entry).collect();
        fixture.sh("rm -r src");
        let mut withdrawn: Vec<_> = offered.iter().map(|_| fixture.withdrawn()).collect();
        withdrawn.sort();
        let mut expected = offered;
        expected.sort();
        assert_eq!(withdrawn, expected);
        assert_eq!(fixture.mailbox.undelivered(9).1, 0);
    });
}

#[test]
fn files_made_in_deep_directories_as_fast_as_possible_are_all_found() {
    each(|fixture| {
        fixture.sh("for a in 1 2 3 4 5 6; do for b in 1 2 3 4 5 6; do mkdir -p $a/$b/c/d; echo x > $a/$b/c/d/f; done; done");
        let offers = fixture.offers(36);
        assert!(offers.iter().all(|offer| offer.kind == Kind::File && offer.name.ends_with("/c/d/f")));
        fixture.nothing_more();
    });
}

#[test]
fn a_tree_that_its_owner_closed_is_sent_and_removed() {
    each(|fixture| {
        tree(fixture);
        fixture.sh("cp -r ../../src .; chmod 500 src/a src/a/b");
        assert_eq!(fixture.offers(4).len(), 4);
        let mode = fs::metadata(fixture.outbox("src/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o500);
    });
}

/// How long the mailbox takes for so many files in one directory: to offer them all, to look at all of them again, and
/// to cancel them all.
fn times_of(count: usize) -> [Duration; 3] {
    let times = Mutex::new([Duration::ZERO; 3]);
    each(|fixture| {
        fs::create_dir(fixture.outbox("d")).unwrap();
        // Links are made faster than files.
        fs::write(fixture.outbox("d/f0"), "x").unwrap();
        let link = |n| fs::hard_link(fixture.outbox("d/f0"), fixture.outbox(&format!("d/f{n}"))).unwrap();
        (1..count).for_each(link);
        let start = Instant::now();
        fixture.mailbox.finish();
        (0..count).for_each(|_| assert!(matches!(fixture.event(), OutboxEvent::Offer(_))));
        let offered = start.elapsed();
        assert!(matches!(fixture.event(), OutboxEvent::Idle));
        let start = Instant::now();
        assert_eq!(fixture.mailbox.undelivered(1).1, count);
        let looked = start.elapsed();
        if fixture.name == "fuse" {
            fs::remove_dir_all(fixture.outbox("d")).unwrap();
        } else {
            fs::rename(fixture.outbox("d"), fixture.home("d")).unwrap();
        }
        let start = Instant::now();
        (0..count).for_each(|_| assert!(matches!(fixture.event(), OutboxEvent::Withdraw { .. })));
        *times.lock().unwrap() = [offered, looked, start.elapsed()];
    });
    times.into_inner().unwrap()
}

#[test]
fn ten_times_as_many_entries_take_about_ten_times_as_long() {
    let (few, many) = (times_of(2000), times_of(20_000));
    println!("2,000: {few:?}, 20,000: {many:?}");
    for (few, many) in few.into_iter().zip(many) {
        // What is quadratic takes a hundred times as long; what is not may be disturbed by what else runs here.
        assert!(many < few.max(Duration::from_millis(20)) * 50, "{few:?} {many:?}");
    }
}
