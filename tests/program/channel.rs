//! A channel from its first line to its last: what goes through it, and every way in which it ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::content::{noise, same_tree, tree};
use crate::fixture::end::End;
use crate::fixture::process::Process;
use crate::fixture::watch;
use crate::fixture::world::{Relay, Via, WAYS, World};

/// Files of the trees that are sent.
const FILES: usize = 150;

fn undelivered(event: &Value) -> Vec<&str> {
    event["undelivered"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn texts_files_and_trees_go_both_ways_however_the_frames_travel() {
    for via in WAYS {
        let world = World::new();
        let mut pair = world.pair(via);
        let transport = if via == Via::Direct { "direct" } else { "relay" };
        assert_eq!(pair.host.status("connected")["transport"], transport);
        let project = world.path("home/project");
        tree(&project, FILES);
        let bytes = noise(1, 3_000_000);
        for end in [&pair.host, &pair.peer] {
            end.put("message", "hello\n");
            end.put("model.bin", &bytes);
            world.sh(&end.dir, &format!("cp -a '{}' outbox/", project.display()));
        }
        for end in [&mut pair.host, &mut pair.peer] {
            let text = end.text("hello\n");
            assert_eq!((&text["from"], &text["size"]), (&"peer".into(), &6.into()));
            assert_eq!(fs::read(text["saved_to"].as_str().unwrap()).unwrap(), b"hello\n");
            let file = end.item("model.bin");
            assert_eq!((&file["type"], &file["size"]), (&"file".into(), &3_000_000.into()));
            assert!(fs::read(file["saved_to"].as_str().unwrap()).unwrap() == bytes);
        }
        world.flush(&pair.peer);
        same_tree(&project, &pair.host.inbox("project"), true);
        // What `close` delivers is checked before the inboxes go.
        pair.host.ctl("close");
        let host = pair.host;
        pair.peer.status("peer_closed");
        same_tree(&project, &pair.peer.inbox("project"), true);
        host.finish().well();
        pair.peer.ctl("close");
        let peer = pair.peer.finish();
        peer.well();
        // Each file of the tree, the large one, and the empty directory.
        assert_eq!(peer.count(|event| event["type"] == "file"), FILES + 4);
        assert_eq!(peer.count(|event| event["type"] == "dir"), 1);
        world.is_clean();
    }
}

#[test]
fn a_tree_from_the_peer_arrives_whole() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let project = world.path("home/project");
    tree(&project, FILES);
    world.sh(&pair.peer.dir, &format!("cp -r '{}' outbox/", project.display()));
    pair.peer.ctl("close");
    pair.host.status("peer_closed");
    same_tree(&project, &pair.host.inbox("project"), false);
    pair.peer.finish().well();
    pair.host.ctl("close");
    pair.host.finish().well();
}

#[test]
fn what_was_written_before_the_peer_connects_arrives_when_it_does() {
    let world = World::new();
    let host = world.host(&[]);
    host.put("message", "early\n");
    host.put("early.bin", noise(2, 100_000));
    world.sh(&host.dir, "mkdir outbox/early && echo deep > outbox/early/file");
    let mut peer = world.connect(&host.code(), &[]);
    peer.text("early\n");
    peer.item("early.bin");
    peer.item("early/file");
    assert_eq!(fs::read(peer.inbox("early.bin")).unwrap(), noise(2, 100_000));
    host.ctl("close");
    host.finish().well();
    peer.ctl("close");
    peer.finish().well();
    world.is_clean();
}

#[test]
fn the_log_has_what_standard_output_has_but_for_the_code() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    pair.peer.put("a.msg", "first\n");
    pair.host.text("first\n");
    pair.host.put("b.msg", "second\n");
    pair.peer.text("second\n");
    // What was delivered is in the transcript, and nowhere else.
    let lines = |name| {
        let text = fs::read_to_string(pair.host.dir.join(name)).ok()?;
        text.lines().map(|line| serde_json::from_str(line).ok()).collect::<Option<Vec<Value>>>()
    };
    let transcript = watch::until("the transcript", &pair.host.dir, || {
        lines("transcript.jsonl").filter(|all| all.iter().any(|event| event["from"] == "self"))
    });
    let log = lines("inbox/log.jsonl").unwrap();
    assert_eq!(log[1..], pair.host.events[1..]);
    assert_eq!((log[0].get("code"), &log[0]["nameplate"]), (None, &pair.host.nameplate.as_str().into()));
    let sent: Vec<_> = transcript.iter().filter(|event| event["from"] == "self").collect();
    assert_eq!((sent.len(), &sent[0]["body"]), (1, &"second\n".into()));
    pair.close();
}

#[test]
fn the_peers_close_leaves_the_inbox_readable() {
    for via in WAYS {
        let world = World::new();
        let mut pair = world.pair(via);
        pair.host.put("kept.bin", noise(3, 50_000));
        pair.host.put("message", "kept\n");
        pair.host.ctl("close");
        let host = pair.host.finish();
        host.well();
        pair.peer.status("peer_closed");
        assert_eq!(fs::read(pair.peer.inbox("kept.bin")).unwrap(), noise(3, 50_000));
        assert_eq!(fs::read(pair.peer.inbox("messages/0001.txt")).unwrap(), b"kept\n");
        pair.peer.until_state("peer_closed", |state| state["state"] == "peer_closed");
        pair.peer.ctl("close");
        let peer = pair.peer.finish();
        peer.well();
        // A relay that comes back after it brings nobody back.
        assert_eq!((peer.last()["seq"].as_u64(), peer.statuses("reconnected")), (Some(6), 0), "{peer:?}");
        world.is_clean();
    }
}

#[test]
fn close_drains_and_close_now_does_not() {
    for via in [Via::Direct, Via::Local] {
        let world = World::new();
        let mut pair = world.pair(via);
        // Written just now: it is still settling when `close` comes.
        pair.host.put("late.bin", noise(4, 2_000_000));
        pair.host.ctl("close");
        pair.host.finish().well();
        pair.peer.item("late.bin");
        assert_eq!(fs::read(pair.peer.inbox("late.bin")).unwrap(), noise(4, 2_000_000));
        pair.peer.ctl("close");
        pair.peer.finish().well();

        let mut pair = world.pair(via);
        pair.peer.put("unsent.bin", noise(5, 1000));
        pair.peer.ctl("close now");
        let peer = pair.peer.finish();
        assert_eq!((peer.code, undelivered(peer.last())), (Some(6), vec!["unsent.bin"]), "{peer:?}");
        pair.host.status("peer_closed");
        assert!(!pair.host.inbox("unsent.bin").exists());
        pair.host.ctl("close");
        pair.host.finish().well();
        world.is_clean();
    }
}

#[test]
fn what_nobody_took_is_named_and_the_exit_code_is_6() {
    let world = World::new();
    let host = world.host(&[]);
    host.put("message", "to nobody\n");
    world.sh(&host.dir, "mkdir outbox/dir && echo x > outbox/dir/file && echo y > outbox/other.txt");
    host.ctl("close");
    let host = host.finish();
    let mut names = undelivered(host.last());
    names.sort_unstable();
    assert_eq!((host.code, names), (Some(6), vec!["dir/file", "message", "other.txt"]), "{host:?}");
    assert_eq!(host.last()["event"], "closed");
    world.is_clean();
}

#[test]
fn a_wrong_word_in_ctl_closes_nothing_and_is_told() {
    let world = World::new();
    let pair = world.pair_on(Via::Local, "dir");
    pair.host.ctl("clsoe");
    let state =
        pair.host.until_state("the wrong word", |state| !state["left_out"].as_array().unwrap().is_empty());
    assert_eq!(state["left_out"][0]["name"], "ctl", "{state}");
    pair.close();
    // A mount says so at once.
    let pair = world.pair_on(Via::Local, "fuse");
    let wrong = fs::write(pair.host.dir.join("ctl"), "clsoe\n");
    assert_eq!(wrong.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    pair.close();
}

#[test]
fn signals_close_and_leave_nothing_behind() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130), (Signal::HUP, 0)] {
        let world = World::new();
        let mut pair = world.pair(Via::Local);
        pair.peer.put("last.bin", noise(6, 500_000));
        pair.peer.signal(signal);
        let peer = pair.peer.finish();
        assert_eq!(peer.code, Some(code), "{peer:?}");
        assert_eq!(peer.last()["event"], "closed");
        pair.host.item("last.bin");
        pair.host.status("peer_closed");
        pair.host.signal(signal);
        assert_eq!(pair.host.finish().code, Some(code));
        world.is_clean();
    }
}

#[test]
fn a_signal_without_a_peer_ends_at_once() {
    let world = World::new();
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        for args in [&["--direct"][..], &[]] {
            let host = world.host(args);
            host.signal(signal);
            assert_eq!(host.finish().code, Some(code));
            world.is_clean();
        }
    }
}

#[test]
fn a_signal_right_after_a_write_leaves_nothing_out_in_silence() {
    for via in [Via::Direct, Via::Local] {
        let world = World::new();
        for _ in 0..5 {
            let pair = world.pair(via);
            pair.peer.put("message", "just now\n");
            pair.peer.signal(Signal::TERM);
            pair.peer.finish().well();
            pair.host.ctl("close");
            let host = pair.host.finish();
            assert_eq!(host.count(|event| event["body"] == "just now\n"), 1, "{host:?}");
        }
        let host = world.host(if via == Via::Direct { &["--direct"] } else { &[] });
        host.put("message", "to nobody\n");
        host.signal(Signal::TERM);
        let host = host.finish();
        assert_eq!((host.code, undelivered(host.last())), (Some(6), vec!["message"]), "{host:?}");
    }
}

#[test]
fn the_end_of_standard_output_closes() {
    let world = World::new();
    let mut command = world.command(&["host"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let channel: Value = serde_json::from_str(&line).unwrap();
    let mut peer = world.connect(channel["code"].as_str().unwrap(), &[]);
    peer.status("connected");
    let mount = channel["mount"].as_str().unwrap();
    fs::write(format!("{mount}/outbox/message"), "the reader goes\n").unwrap();
    drop(out);
    peer.text("the reader goes\n");
    peer.status("peer_closed");
    peer.ctl("close");
    peer.finish().well();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    world.is_clean();
}

#[test]
fn what_a_killed_end_left_is_swept_by_the_next_command() {
    let world = World::new();
    let elsewhere = world.path("home/elsewhere");
    let host = world.host(&["--mount", "dir"]);
    let other = world.host(&["--mount", "dir", "--dir", elsewhere.to_str().unwrap()]);
    let dir = host.dir.clone();
    host.put("message", "plaintext\n");
    host.kill();
    other.kill();
    assert!(dir.join("outbox/message").exists() && elsewhere.join("outbox").exists());
    let status = world.run(&["status"]);
    assert_eq!((status.code, status.out.len()), (Some(0), 0), "{status:?}");
    assert!(!dir.exists() && !elsewhere.exists());
    world.is_clean();
}

#[test]
fn a_directory_that_holds_something_is_refused_untouched() {
    let world = World::new();
    let dir = world.path("home/full");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mine"), "mine").unwrap();
    for path in [dir.clone(), dir.join("mine")] {
        for command in [&["host", "--direct"][..], &["host"], &["connect", "1-cross-clock-marble@127.0.0.1"]]
        {
            let ended = world.run(&[command, &["--dir", path.to_str().unwrap()]].concat());
            assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{command:?}: {ended:?}");
            assert!(ended.err.contains("full"), "{ended:?}");
        }
    }
    assert_eq!(fs::read(dir.join("mine")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    world.is_clean();
}

#[test]
fn a_directory_of_ones_own_stays_and_is_empty_again() {
    let world = World::new();
    let dir = world.path("home/project/.wormhole");
    fs::create_dir_all(&dir).unwrap();
    let host = world.host(&["--dir", dir.to_str().unwrap()]);
    assert_eq!(host.dir, dir);
    let mut peer = world.connect(&host.code(), &["--dir", world.path("home/new").to_str().unwrap()]);
    assert_eq!(peer.dir, world.path("home/new"));
    host.put("message", "here\n");
    peer.text("here\n");
    host.ctl("close");
    host.finish().well();
    peer.ctl("close");
    peer.finish().well();
    assert!(dir.is_dir() && !world.path("home/new").exists());
    world.is_clean();
}

#[test]
fn the_time_that_was_given_ends_the_waiting() {
    let world = World::new();
    for args in [&["--timeout", "300ms"][..], &["--timeout", "300ms", "--direct"]] {
        let mut host = world.host(args);
        host.status("timeout");
        let host = host.finish();
        assert_eq!((host.code, &host.last()["event"]), (Some(5), &"closed".into()), "{host:?}");
        world.is_clean();
    }
}

/// Taken and not listened on: whoever connects is refused.
fn refusing() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[test]
fn what_cannot_be_reached_is_exit_4() {
    let world = World::new();
    let (_socket, port) = refusing();
    let (url, direct) = (format!("ws://127.0.0.1:{port}"), format!("{port}-cross-clock-marble@127.0.0.1"));
    let relay = world.relay();
    for args in [
        &["host", "--relay", &url][..],
        &["connect", "1-cross-clock-marble", "--relay", &url],
        &["connect", &direct],
        // Nobody waits there.
        &["connect", "987654-cross-clock-marble", "--relay", &relay.url()],
        &["connect", "987654-cross-clock-marble"],
    ] {
        let ended = Process::spawn(world.command(args)).finish();
        assert_eq!(ended.code, Some(4), "{args:?}: {ended:?}");
        let failed = ended.out.iter().any(|line| line.contains(r#""event":"connection_failed""#));
        assert!(failed, "{args:?}: {ended:?}");
        world.is_clean();
    }
}

#[test]
fn the_connect_member_is_the_whole_command_for_the_other_side() {
    let world = World::new();
    let relay: Relay = world.relay();
    for args in [&["--relay", &relay.url()][..], &[]] {
        let host = world.host(args);
        let line = host.events[0]["connect"].as_str().unwrap().to_owned();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[..2], ["agent-wormhole", "connect"]);
        let mut peer = End::start(world.command(&words[1..]));
        peer.status("connected");
        host.ctl("close");
        host.finish().well();
        peer.ctl("close");
        peer.finish().well();
    }
}
