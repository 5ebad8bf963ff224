//! What other users of the machine can see: no word of the code, no name of an item.

use std::fs;

use rustix::process::Signal;

use super::guard::Guard;
use super::processes::{of_world, sync};
use crate::fixture::world::{Via, World};

/// Stands in every name and text.
const MARK: &str = "onlyfortheotherend";
/// Words of the list that every command line has.
const OF_COMMANDS: [&str; 2] = ["agent", "connect"];

/// Everything about mounts and processes that anybody can read, or that goes into a core file's head or a process list.
fn readable(world: &World) -> Vec<(String, String)> {
    let mut paths = vec!["/proc/mounts".to_owned(), "/proc/self/mountinfo".to_owned()];
    for process in of_world(world) {
        let of = |name: &str| format!("/proc/{}/{name}", process.pid);
        paths.extend(["cmdline", "comm", "environ", "mounts", "stat", "status", "mountstats"].map(of));
    }
    // One that ended meanwhile shows nothing.
    let read = |path: String| Some((String::from_utf8_lossy(&fs::read(&path).ok()?).into_owned(), path));
    paths.into_iter().filter_map(read).map(|(text, path)| (path, text)).collect()
}

#[test]
fn neither_processes_nor_mounts_show_the_code_or_the_names_of_items() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let mut pair = world.pair(Via::Local);
    let code = pair.host.code();
    pair.peer.put(&format!("{MARK}.msg"), MARK);
    pair.peer.put(&format!("{MARK}.txt"), MARK.repeat(9000));
    pair.host.text(MARK);
    pair.host.item(&format!("{MARK}.txt"));
    // In the middle of something: a bell that works, a receipt that waits, entries that stay.
    pair.peer.signal(Signal::STOP);
    world.sh(&pair.host.outbox(""), &format!("mkdir {MARK} && head -c 9M /dev/zero > {MARK}/{MARK}.bin"));
    let waiting = sync(&world, &pair.host);
    let found = readable(&world);
    assert!(
        found.iter().any(|(_, text)| text.contains("agent-wormhole\0bell\0")),
        "the bells are among them"
    );
    assert!(
        found.iter().any(|(_, text)| text.contains(&format!("agent-wormhole:{}-host:", pair.host.nameplate)))
    );
    let words = code.split('-').skip(1).filter(|word| word.len() > 4 && !OF_COMMANDS.contains(word));
    for secret in words.chain([MARK, code.as_str()]) {
        for (path, text) in &found {
            // A word may come about in a path by itself, between other letters; between others it may not.
            let is_word = text.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == secret);
            assert!(!(is_word || secret == code && text.contains(secret)), "{secret} is in {path}: {text}");
        }
    }
    waiting.kill();
    pair.peer.signal(Signal::CONT);
    pair.close();
}
