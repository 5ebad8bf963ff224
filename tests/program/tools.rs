//! What tools do to files, and that each of it sends one item with the right bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::fixture::content::{noise, same_tree, tree};
use crate::fixture::end::Closed;
use crate::fixture::process::Process;
use crate::fixture::world::{Via, World};

/// Files of each tree.
const FILES: usize = 40;

fn count(closed: &Closed, name: &str) -> usize {
    closed.count(|event| event["from"] == "peer" && event["name"] == name)
}

#[test]
fn each_tool_sends_one_item_with_the_right_bytes() {
    let world = World::new();
    let pair = world.pair(Via::Local);
    let outbox = pair.host.outbox("");
    fs::write(world.path("home/source"), noise(1, 70_000)).unwrap();
    fs::set_permissions(world.path("home/source"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(world.path("home/moved"), noise(2, 70_000)).unwrap();
    // What pauses between two writes here is the user, not the test.
    let mut slow = world.command_of("sh", &["-ec", "{ printf a; sleep 5; printf b; } > slow"]);
    slow.current_dir(&outbox);
    let mut slow = Process::spawn(slow);
    world.sh(&outbox, "printf 'one two\\n' > edited && sed -i s/one/three/ edited");
    world.sh(&outbox, "printf 'one two\\n' > pearled && perl -i -pe s/two/four/ pearled");
    world.sh(&outbox, "cp -a ~/source preserved && cp ~/source copied && rsync -a ~/source synced");
    world.sh(&outbox, "mv ~/moved moved && install -m 700 ~/source installed");
    // As an agent's editor writes.
    world.sh(&outbox, "printf 'atomic\\n' > plan.md.tmp.4711.0af3 && mv plan.md.tmp.4711.0af3 plan.md");
    world.sh(&outbox, "printf 'said\\n' > note.msg.tmp.4711.0af4 && mv note.msg.tmp.4711.0af4 note.msg");
    world.sh(&outbox, "for n in 1 2 3 4 5 6 7 8 9; do echo $n; done | tee counted > /dev/null");
    world.sh(&outbox, "echo a > appended && echo b >> appended && echo c >> appended");
    world.sh(&outbox, "echo gone > gone && rm gone && echo draft > draft && mv draft final");
    world.sh(&outbox, "dd if=$HOME/source of=blocks bs=999 2> /dev/null");
    assert_eq!(slow.finish().code, Some(0));
    let expected = [
        ("slow", b"ab".to_vec()),
        ("edited", b"three two\n".to_vec()),
        ("pearled", b"one four\n".to_vec()),
        ("preserved", noise(1, 70_000)),
        ("copied", noise(1, 70_000)),
        ("synced", noise(1, 70_000)),
        ("moved", noise(2, 70_000)),
        ("installed", noise(1, 70_000)),
        ("plan.md", b"atomic\n".to_vec()),
        ("counted", b"1\n2\n3\n4\n5\n6\n7\n8\n9\n".to_vec()),
        ("appended", b"a\nb\nc\n".to_vec()),
        ("final", b"draft\n".to_vec()),
        ("blocks", noise(1, 70_000)),
    ];
    let peer = pair.delivered(|inbox| {
        for (name, bytes) in &expected {
            assert!(fs::read(inbox.join(name)).unwrap() == *bytes, "{name}");
        }
        let executable = |name| fs::metadata(inbox.join(name)).unwrap().permissions().mode() & 0o100 != 0;
        assert!(executable("preserved") && executable("installed") && !executable("moved"));
    });
    for (name, _) in &expected {
        assert_eq!(count(&peer, name), 1, "{name}: {peer:?}");
    }
    assert_eq!(peer.count(|event| event["type"] == "file"), expected.len(), "{peer:?}");
    assert_eq!(peer.count(|event| event["type"] == "text" && event["body"] == "said\n"), 1);
}

#[test]
fn each_way_to_put_a_tree_there_sends_each_file_once() {
    let world = World::new();
    let pair = world.pair(Via::Direct);
    let outbox = pair.host.outbox("");
    let project = world.path("home/project");
    tree(&project, FILES);
    world.sh(&world.path("home"), "cp -a project moved && tar --format=pax -cf project.tar project");
    world.sh(&outbox, "cp -a ~/project preserved & cp -r ~/project copied & wait");
    world.sh(&outbox, "rsync -a ~/project/ synced && mkdir unpacked && tar xf ~/project.tar -C unpacked");
    world.sh(&outbox, "mv ~/moved moved");
    // Beside the name, whether the mtimes travel.
    let kept = [
        ("preserved", true),
        ("copied", false),
        ("synced", true),
        ("unpacked/project", true),
        ("moved", true),
    ];
    let peer = pair.delivered(|inbox| {
        for (name, times) in &kept {
            same_tree(&project, &inbox.join(name), *times);
        }
    });
    let mut names: Vec<&str> = peer
        .events
        .iter()
        .filter(|event| event["type"] == "file")
        .map(|event| event["name"].as_str().unwrap())
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    // Beside the modules: an empty file, a hidden one, a script.
    assert_eq!((all, names.len()), (kept.len() * (FILES + 3), kept.len() * (FILES + 3)), "{peer:?}");
}

#[test]
fn what_is_not_sent_is_told() {
    is_told("fuse", &[]);
    is_told("dir", &["fifo"]);
}

/// Tries every kind of name that is not sent, and what a real directory takes besides.
fn is_told(mount: &str, fifos: &[&str]) {
    let world = World::new();
    let pair = world.pair_on(Via::Local, mount);
    let outbox = pair.host.outbox("");
    world.sh(
        &outbox,
        "for f in a~ .hidden b.tmp c.tmp.12.ab .d.swp e.part '#f#' g-wal 4913; do echo x > \"$f\"; done",
    );
    world.sh(
        &outbox,
        "mkdir repo && mkdir repo/.git && echo x > repo/.git/config && echo kept > repo/kept.lock",
    );
    world.sh(&outbox, "ln -s nowhere dangling && ln -s ../kept repo/inside && echo y > sent");
    for fifo in fifos {
        world.sh(&outbox, &format!("mkfifo {fifo}"));
    }
    let expected = [
        "a~",
        ".hidden",
        "b.tmp",
        "c.tmp.12.ab",
        ".d.swp",
        "e.part",
        "#f#",
        "g-wal",
        "4913",
        "repo/.git",
        "dangling",
        "repo/inside",
    ];
    let expected = [&expected[..], fifos].concat();
    let listed = |state: &Value| -> Vec<String> {
        let left_out = state["left_out"].as_array().unwrap().iter();
        left_out.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = |state: &Value| {
        let listed = listed(state);
        expected.iter().all(|name| listed.iter().any(|listed| listed == name))
    };
    let state = pair.host.until_state("everything to be told", all);
    assert_eq!(listed(&state).len(), expected.len(), "{state}");
    for entry in state["left_out"].as_array().unwrap() {
        assert!(entry["reason"].as_str().is_some_and(|reason| reason.len() > 5), "{entry}");
    }
    let sheet = world.run(&["status", pair.host.dir.to_str().unwrap()]);
    assert!(sheet.out.iter().any(|line| line.starts_with("left out   repo/.git: ")), "{sheet:?}");
    fs::remove_file(outbox.join("b.tmp")).unwrap();
    pair.host.until_state("what is not there any more to be listed no more", |state| {
        let listed = listed(state);
        listed.len() == expected.len() - 1 && !listed.iter().any(|listed| listed == "b.tmp")
    });
    let peer = pair.delivered(|inbox| assert!(!inbox.join("repo/.git").exists()));
    assert_eq!((count(&peer, "sent"), count(&peer, "repo/kept.lock")), (1, 1));
    assert_eq!(peer.count(|event| event["from"] == "peer"), 2, "{peer:?}");
}

#[test]
fn a_file_written_again_after_it_was_delivered_is_sent_again_beside_the_first() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    pair.host.put("report.txt", "first");
    pair.peer.item("report.txt");
    pair.host.put("report.txt", "second");
    let second = pair.peer.item("report-2.txt");
    assert_eq!(fs::read(second["saved_to"].as_str().unwrap()).unwrap(), b"second");
    assert_eq!(fs::read(pair.peer.inbox("report.txt")).unwrap(), b"first");
    pair.close();
}
