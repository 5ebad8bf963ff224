//! What arrives is noticed by whoever watches the directory, also where it is a mount: inotify, and what others built on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fixture::LIMIT;
use crate::fixture::process::Process;
use crate::fixture::world::{Pair, Via, World};
use crate::programs::{installed, node_modules};
use crate::python;

/// Arrivals that are timed.
const ARRIVALS: usize = 500;

/// Watches a directory with watchdog, and prints the names of files that appear.
const WATCHDOG: &str = r#"
import os, sys
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
class Handler(FileSystemEventHandler):
    def on_any_event(self, event):
        if event.event_type in ("created", "moved"):
            print(os.path.basename(event.dest_path or event.src_path), flush=True)
        elif event.event_type == "modified" and event.src_path.endswith("log.jsonl"):
            print("log.jsonl", flush=True)
observer = Observer()
observer.schedule(Handler(), sys.argv[1], recursive=True)
observer.start()
print("ready", flush=True)
observer.join()
"#;

/// The same with chokidar.
const CHOKIDAR: &str = r#"
const { watch } = require("chokidar"), path = require("path");
const watcher = watch(process.argv[1], { ignoreInitial: true });
watcher.on("add", file => console.log(path.basename(file)));
watcher.on("change", file => { if (file.endsWith("log.jsonl")) console.log("log.jsonl"); });
watcher.on("ready", () => console.log("ready"));
"#;

/// Waits for a line, and tells whether the log was among those before it.
fn until_line(process: &mut Process, wanted: &str) -> bool {
    let (end, mut log) = (Instant::now() + LIMIT, false);
    loop {
        let time = end.checked_duration_since(Instant::now()).unwrap_or_default();
        let line = process.line(wanted, time).unwrap_or_else(|| panic!("it ended before {wanted}"));
        log |= line == "log.jsonl";
        if line == wanted {
            return log;
        }
    }
}

/// Sends files and holds if the watcher prints each of them, and that the log grew.
fn notices(pair: &mut Pair, mut watcher: Process) {
    until_line(&mut watcher, "ready");
    let mut log = false;
    for n in 0..6 {
        let name = format!("file-{n}.bin");
        pair.host.put(&name, "x");
        log |= until_line(&mut watcher, &name);
    }
    pair.host.put("message", "hello");
    log |= until_line(&mut watcher, "0001.txt");
    // Which of many changes it tells is the watcher's affair.
    assert!(log, "the log grew, and nobody was told");
    watcher.kill();
}

#[test]
fn watchdog_and_chokidar_see_what_arrives() {
    let world = World::new();
    for mount in ["fuse", "dir"] {
        let mut pair = world.pair_on(Via::Local, mount);
        let inbox = pair.peer.inbox("");
        let args = ["-c", WATCHDOG, inbox.to_str().unwrap()];
        notices(&mut pair, Process::spawn(world.command_of(python::interpreter().to_str().unwrap(), &args)));
        pair.close();
        let mut pair = world.pair_on(Via::Local, mount);
        let inbox = pair.peer.inbox("");
        let mut command = world.command_of("node", &["-e", CHOKIDAR, inbox.to_str().unwrap()]);
        command.env("NODE_PATH", node_modules());
        notices(&mut pair, Process::spawn(command));
        pair.close();
    }
}

/// `inotifywait` on an inbox and its texts: its lines are the time, the names of the event and the file.
fn inotifywait(world: &World, dir: &Path) -> Process {
    let mut command: Command = world.command_of(
        installed("inotifywait").to_str().unwrap(),
        &["-m", "--timefmt", "%s", "--format", "%e %f", "-e", "moved_to,modify"],
    );
    command.arg(dir).arg(dir.join("messages"));
    let mut process = Process::spawn(command);
    while !process.error_line().contains("Watches established") {}
    process
}

#[test]
fn inotify_tells_of_each_arrival_and_of_each_line_within_milliseconds() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Direct, "fuse");
    let mut watcher = inotifywait(&world, &pair.peer.inbox(""));
    let mut waits = Vec::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for n in 0..ARRIVALS {
        let name = format!("{:04}.txt", n + 1);
        // A text waits for nothing before it is sent.
        pair.host.put(&format!("{n}.msg"), "x");
        let start = Instant::now();
        let (mut moved, mut logged) = (false, false);
        while !(moved && logged) {
            let line = watcher.line("the arrival", LIMIT).expect("inotifywait goes on");
            if line == format!("MOVED_TO {name}") {
                waits.push(start.elapsed());
                *seen.entry("MOVED_TO").or_default() += 1;
                moved = true;
            } else if line == "MODIFY log.jsonl" {
                *seen.entry("MODIFY").or_default() += 1;
                logged = moved;
            } else {
                panic!("{line}");
            }
        }
    }
    waits.sort();
    let at = |share: usize| waits[waits.len() * share / 100];
    println!(
        "from a text's close here to inotify there, {ARRIVALS} times: p50 {:?}, p95 {:?}",
        at(50),
        at(95)
    );
    assert_eq!(seen["MOVED_TO"], ARRIVALS);
    assert!(seen["MODIFY"] >= ARRIVALS, "{seen:?}");
    // A watcher that looks once a second would take hundreds.
    assert!(at(50) < Duration::from_millis(100), "{:?}", at(50));
    watcher.kill();
    pair.connected();
    pair.close();
}
