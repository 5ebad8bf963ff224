//! `send`, `flush`, `status` and `close`, from another shell than the channel's own.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::Value;

use crate::fixture::content::{noise, same_tree, tree};
use crate::fixture::end::End;
use crate::fixture::process::{Ended, Process};
use crate::fixture::watch;
use crate::fixture::world::{Pair, Via, World};

/// Runs the program in a directory.
fn run_in(world: &World, dir: &Path, args: &[&str]) -> Ended {
    let mut command = world.command(args);
    command.current_dir(dir);
    Process::spawn(command).finish()
}

/// Runs it and holds if it is done and says nothing.
fn done(world: &World, dir: &Path, args: &[&str]) {
    let ended = run_in(world, dir, args);
    assert_eq!((ended.code, ended.out.len(), ended.err.as_str()), (Some(0), 0, ""), "{args:?}: {ended:?}");
}

fn dir(end: &End) -> &str {
    end.dir.to_str().unwrap()
}

#[test]
fn send_takes_texts_and_files_and_directories_from_where_the_end_was_started() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let (here, there) = (world.path("host"), world.path("peer"));
    let number = pair.host.nameplate.clone();
    done(&world, &here, &["send", &number, "the build is green"]);
    pair.peer.text("the build is green");
    // The same words in the other directory are from the other end.
    done(&world, &there, &["send", &number, "thanks", "--wait"]);
    pair.host.text("thanks");
    // The whole code is good, too, and standard input.
    let mut piped = world.command(&["send", &pair.host.code(), "-", "--wait", "--timeout", "30s"]);
    piped.current_dir(&here);
    let ended = Process::spawn_with(piped, "a\nb\n".as_bytes()).finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    pair.peer.text("a\nb\n");
    fs::write(here.join("model.bin"), noise(1, 3_000_000)).unwrap();
    tree(&here.join("src"), 30);
    done(&world, &here, &["send", &number, "--file", "model.bin", "src/", "--wait"]);
    // With --wait it is there when the command is back.
    assert!(fs::read(pair.peer.inbox("model.bin")).unwrap() == noise(1, 3_000_000));
    same_tree(&here.join("src"), &pair.peer.inbox("src"), true);
    done(&world, &here, &["send", &number, "--file", "model.bin", "--name", "other.bin", "--wait"]);
    assert_eq!(pair.peer.item("other.bin")["size"], 3_000_000);
    // Nothing of it was copied into the outbox, and all of it is out.
    assert_eq!(fs::read_dir(pair.host.outbox("")).unwrap().filter(visible).count(), 0);
    pair.close();
}

fn visible(entry: &std::io::Result<fs::DirEntry>) -> bool {
    !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')
}

#[test]
fn what_cannot_be_sent_is_told_at_once_and_nothing_is_sent() {
    let world = World::new();
    let pair = world.pair(Via::Local);
    let (here, number) = (world.path("host"), pair.host.nameplate.clone());
    fs::write(here.join("good.txt"), "x").unwrap();
    fs::write(here.join("scratch~"), "x").unwrap();
    fs::create_dir(here.join("other")).unwrap();
    fs::write(here.join("other/good.txt"), "y").unwrap();
    let long = "x".repeat(100_000);
    for (args, says) in [
        (&["--file", "good.txt", "missing.txt"][..], "missing.txt"),
        (&["--file", "/dev/null"], "neither a file nor a directory"),
        (&["--file", "scratch~"], "--name"),
        (&["--file", "good.txt", "--name", "a/b"], "one part"),
        (&["--file", "good.txt", "good.txt", "--name", "n"], "one file"),
        (&["--file", "good.txt", "other/good.txt"], "two of them"),
    ] {
        let ended = run_in(&world, &here, &[&["send", &number], args].concat());
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{args:?}: {ended:?}");
        assert!(ended.err.contains(says), "{args:?}: {ended:?}");
    }
    // A name that is no UTF-8 is asked for.
    let nameless = std::ffi::OsStr::from_bytes(b"n\xff");
    fs::write(here.join(nameless), "x").unwrap();
    let mut command = world.command(&["send", &number, "--file", "good.txt"]);
    command.arg(nameless).current_dir(&here);
    let ended = Process::spawn(command).finish();
    assert_eq!((ended.code, ended.err.contains("--name")), (Some(2), true), "{ended:?}");
    // The longest that an argument may be is a text.
    done(&world, &here, &["send", &number, &long, "--wait"]);
    let (_, peer) = pair.close();
    assert_eq!(peer.count(|event| event["from"] == "peer"), 1, "{peer:?}");
}

#[test]
fn directories_are_sent_whole_under_their_own_name_or_another() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let (here, number) = (world.path("host"), pair.host.nameplate.clone());
    for name in ["one", "two", "three"] {
        tree(&here.join(name), 10);
    }
    // The one that it stands in has a name, too.
    let three = here.join("three");
    let host = pair.host.dir.to_str().unwrap().to_owned();
    done(&world, &three, &["send", &host, "--file", ".", "--wait"]);
    same_tree(&three, &pair.peer.inbox("three"), true);
    done(&world, &here, &["send", &number, "--file", "one", "two/", "--wait"]);
    done(&world, &here, &["send", &number, "--file", "one/.", "--name", "uno", "--wait"]);
    for (sent, arrived) in [("one", "one"), ("two", "two"), ("one", "uno")] {
        same_tree(&here.join(sent), &pair.peer.inbox(arrived), true);
        assert_eq!(pair.peer.item(arrived)["type"], "dir");
    }
    let (_, peer) = pair.close();
    assert_eq!(peer.count(|event| event["from"] == "peer"), 4, "{peer:?}");
}

#[test]
fn send_waits_for_what_the_peer_refuses_and_for_what_it_has_no_time_for() {
    let world = World::new();
    let host = world.host(&[]);
    let peer = world.connect(&host.code(), &["--inbox-limit", "1MB"]);
    let mut pair = Pair { host, peer, relay: None };
    pair.connected();
    let (here, number) = (world.path("host"), pair.host.nameplate.clone());
    fs::write(here.join("large.bin"), noise(5, 3_000_000)).unwrap();
    fs::write(here.join("small.bin"), noise(6, 30_000)).unwrap();
    let ended = run_in(&world, &here, &["send", &number, "--file", "large.bin", "small.bin", "--wait"]);
    assert_eq!((ended.code, ended.out.len()), (Some(6), 0), "{ended:?}");
    assert!(ended.err.contains("large.bin") && !ended.err.contains("small.bin"), "{ended:?}");
    assert!(fs::read(pair.peer.inbox("small.bin")).unwrap() == noise(6, 30_000));
    // Taken out of the outbox, it fails nobody any more.
    fs::remove_file(pair.host.outbox("large.bin")).unwrap();
    pair.peer.signal(rustix::process::Signal::STOP);
    let ended =
        run_in(&world, &here, &["send", &number, "--file", "small.bin", "--wait", "--timeout", "500ms"]);
    pair.peer.signal(rustix::process::Signal::CONT);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.err.contains("small.bin"), "{ended:?}");
    pair.peer.item("small-2.bin");
    pair.close();
}

#[test]
fn a_channel_that_is_not_clear_is_asked_for() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let (home, number) = (world.path("home"), pair.host.nameplate.clone());
    for args in [&["send", &number, "whose?"][..], &["flush", &number], &["close", &number]] {
        let ended = run_in(&world, &home, args);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{args:?}: {ended:?}");
        assert!(ended.err.contains("--role"), "{args:?}: {ended:?}");
        assert!(
            ended.err.contains(dir(&pair.host)) && ended.err.contains(dir(&pair.peer)),
            "{args:?}: {ended:?}"
        );
    }
    done(&world, &home, &["send", &number, "by role", "--role", "host"]);
    pair.peer.text("by role");
    done(&world, &home, &["send", dir(&pair.host), "by directory"]);
    pair.peer.text("by directory");
    done(&world, &pair.host.outbox(""), &["send", &number, "by place"]);
    pair.peer.text("by place");
    // Once one end alone is left, it is meant.
    done(&world, &home, &["close", &number, "--role", "host"]);
    pair.host.finish().well();
    pair.peer.status("peer_closed");
    done(&world, &home, &["close", &number]);
    pair.peer.finish().well();
    let ended = run_in(&world, &home, &["send", &number, "nobody"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains(&format!("no channel {number}")), "{ended:?}");
}

#[test]
fn a_number_speaks_for_no_other_end_where_ones_own_has_ended() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let (here, there, number) = (world.path("host"), world.path("peer"), pair.host.nameplate.clone());
    let gone = dir(&pair.host).to_owned();
    done(&world, &here, &["close", &number]);
    pair.host.finish().well();
    pair.peer.status("peer_closed");
    for args in [
        &["send", &number, "for whom?"][..],
        &["send", &number, "--file", "x"],
        &["close", &number],
        &["flush", &number],
        &["wait", &number, "--timeout", "1s"],
        &["watch", &number],
        &["status", &number],
        &["unlock", &number, "K"],
        &["run", &number, "--secret", "K", "--", "true"],
    ] {
        let ended = run_in(&world, &here, args);
        if args[0] != "unlock" {
            assert!(ended.err.contains(&gone) && ended.err.contains(dir(&pair.peer)), "{args:?}: {ended:?}");
            assert!(ended.err.contains("--role peer"), "{args:?}: {ended:?}");
        }
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{args:?}: {ended:?}");
    }
    // Who says which, and who stands where it was started, has it.
    for (place, args) in [(&here, &["status", &number, "--role", "peer"][..]), (&there, &["status", &number])]
    {
        let ended = run_in(&world, place, args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    }
    done(&world, &there, &["close", &number]);
    pair.peer.finish().well();
    let ended = run_in(&world, &here, &["send", &number, "nobody"]);
    assert!(ended.code == Some(2) && ended.err.contains(&format!("no channel {number}")), "{ended:?}");
    world.is_clean();
}

#[test]
fn a_delivered_directory_is_not_said_to_wait_for_its_delivery() {
    for mount in ["fuse", "dir"] {
        let world = World::new();
        let pair = world.pair_on(Via::Local, mount);
        let (here, number) = (world.path("host"), pair.host.nameplate.clone());
        tree(&here.join("src"), 3);
        world.sh(&here, &format!("cp -r src '{}'", pair.host.outbox("").display()));
        world.flush(&pair.host);
        let ended = run_in(&world, &here, &["send", &number, "--file", "src"]);
        assert_eq!(ended.code, Some(2), "{mount}: {ended:?}");
        assert!(
            ended.err.contains("delivered and about to leave (a directory ten seconds"),
            "{mount}: {ended:?}"
        );
        pair.close();
    }
}

#[test]
fn flush_tells_what_is_not_confirmed_in_time_and_what_never_will_be() {
    let world = World::new();
    let host = world.host(&[]);
    host.put("report.txt", "to nobody yet");
    let ended = run_in(&world, &world.path("host"), &["flush", &host.nameplate, "--timeout", "100ms"]);
    assert_eq!((ended.code, ended.out.len()), (Some(5), 0), "{ended:?}");
    assert!(ended.err.contains("report.txt"), "{ended:?}");
    // Another one waits for ever, or until the channel ends.
    let mut waiting = Process::spawn(world.command(&["flush", dir(&host)]));
    let requests = host.dir.join(".flush");
    watch::until("the request", &requests, || fs::read_dir(&requests).unwrap().next().map(drop));
    done(&world, &world.path("home"), &["close", &host.nameplate, "--now"]);
    let ended = waiting.finish();
    assert_eq!(ended.code, Some(6), "{ended:?}");
    let host = host.finish();
    assert_eq!(
        (host.code, &host.last()["undelivered"]),
        (Some(6), &serde_json::json!(["report.txt"])),
        "{host:?}"
    );
    world.is_clean();
}

#[test]
fn flush_returns_when_the_peer_has_stored_everything() {
    for via in [Via::Direct, Via::Relay] {
        let world = World::new();
        let pair = world.pair(via);
        pair.host.put("large.bin", noise(3, 20_000_000));
        pair.host.put("note.msg", "kept\n");
        done(&world, &world.path("host"), &["flush", &pair.host.nameplate]);
        assert!(fs::read(pair.peer.inbox("large.bin")).unwrap() == noise(3, 20_000_000));
        assert_eq!(fs::read(pair.peer.inbox("messages/0001.txt")).unwrap(), b"kept\n");
        // There is nothing left to wait for, at either end.
        done(&world, &world.path("host"), &["flush", &pair.host.nameplate]);
        done(&world, &world.path("peer"), &["flush", &pair.peer.nameplate]);
        pair.close();
    }
}

#[test]
fn status_follows_the_channels_of_this_machine() {
    let world = World::new();
    let home = world.path("home");
    let lines = || -> Vec<Value> {
        let ended = run_in(&world, &home, &["status", "--json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(lines().len(), 0);
    let alone = world.host(&["--direct"]);
    alone.until_state("waiting", |state| state["state"] == "waiting");
    let mut pair = world.pair(Via::Local);
    pair.host.put("report.txt", "12345");
    pair.peer.item("report.txt");
    world.flush(&pair.host);
    pair.host.until_state("the receipt", |state| state["outbox"]["items"] == 1);
    pair.peer.until_state("the file", |state| state["inbox"]["items"] == 1);
    let all = lines();
    assert_eq!(all.len(), 3, "{all:?}");
    let row = |end: &End| all.iter().find(|row| row["dir"] == dir(end)).unwrap().clone();
    let (waiting, host, peer) = (row(&alone), row(&pair.host), row(&pair.peer));
    assert_eq!(
        (&waiting["state"], &waiting["transport"]),
        (&"waiting".into(), &"direct".into()),
        "{waiting}"
    );
    assert_eq!((&host["state"], &host["role"]), (&"connected".into(), &"host".into()), "{host}");
    assert_eq!((&peer["role"], &peer["pid"]), (&"peer".into(), &pair.peer.id().into()), "{peer}");
    assert_eq!(host["status"]["outbox"]["bytes"], 5, "{host}");
    assert_eq!(peer["cwd"], world.path("peer").to_str().unwrap(), "{peer}");
    let table = run_in(&world, &home, &["status"]);
    assert_eq!(table.out.len(), 4, "{table:?}");
    let sheet = run_in(&world, &home, &["status", dir(&pair.peer)]);
    assert!(sheet.out.iter().any(|line| line.starts_with("received   1 saved (5 B)")), "{sheet:?}");
    alone.signal(rustix::process::Signal::TERM);
    alone.finish();
    pair.close();
    assert_eq!(lines().len(), 0);
    world.is_clean();
}

#[test]
fn close_returns_at_once_and_the_channel_delivers_what_is_left() {
    let world = World::new();
    let mut pair = world.pair(Via::Relay);
    pair.host.put("late.bin", noise(4, 20_000_000));
    done(&world, &world.path("host"), &["close", &pair.host.nameplate]);
    // Again: it is closing already, or it is gone.
    let again = run_in(&world, &world.path("host"), &["close", &pair.host.nameplate, "--role", "host"]);
    assert!([Some(0), Some(2)].contains(&again.code), "{again:?}");
    pair.host.finish().well();
    pair.peer.status("peer_closed");
    assert!(fs::read(pair.peer.inbox("late.bin")).unwrap() == noise(4, 20_000_000));
    // Nobody takes anything any more, and that is told.
    let late = run_in(&world, &world.path("peer"), &["send", &pair.peer.nameplate, "too late", "--wait"]);
    assert_eq!(late.code, Some(6), "{late:?}");
    assert!(late.err.contains("the peer has closed"), "{late:?}");
    done(&world, &world.path("peer"), &["close", &pair.peer.nameplate]);
    let peer = pair.peer.finish();
    assert_eq!(peer.code, Some(6), "{peer:?}");
    assert_eq!(peer.last()["undelivered"].as_array().map(Vec::len), Some(1), "{peer:?}");
    world.is_clean();
}
