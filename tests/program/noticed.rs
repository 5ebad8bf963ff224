//! What watches the inbox of a mounted channel notices each arrival: inotify itself, and the watchers of Python and Node.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::fixture::LIMIT;
use crate::fixture::process::Process;
use crate::fixture::world::{Pair, Via, World};
use crate::programs::{installed, node_modules};

/// Files that arrive.
const ARRIVALS: usize = 500;
/// Files that are sent at once.
const BATCH: usize = 10;

/// Tells `ready`, then each file that it is told of.
const WATCHDOG: &str = r#"
import os, sys
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
class Tell(FileSystemEventHandler):
    def tell(self, event, path):
        print(event.event_type, os.path.basename(os.fsdecode(path)), flush=True)
    def on_created(self, event):
        self.tell(event, event.src_path)
    def on_modified(self, event):
        self.tell(event, event.src_path)
    def on_moved(self, event):
        self.tell(event, event.dest_path)
observer = Observer()
assert type(observer).__name__ == "InotifyObserver", observer
observer.schedule(Tell(), sys.argv[1])
observer.start()
print("ready", flush=True)
observer.join()
"#;

/// The same.
const CHOKIDAR: &str = r#"
const watcher = require("chokidar").watch(process.argv[1], { depth: 0 });
const tell = (event) => (path) => console.log(event + " " + require("path").basename(path));
watcher.on("ready", () => {
    for (const event of ["add", "change"]) watcher.on(event, tell(event));
    console.log("ready");
});
"#;

/// The middle, and what all but one in twenty are below, in milliseconds.
fn middle_and_most(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    format!("p50 {:.2} ms, p95 {:.2} ms, most {:.2} ms", at(0.5), at(0.95), at(1.0))
}

/// How much later than the other something was, in milliseconds.
fn later(one: Instant, other: Instant) -> f64 {
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    millis(one.saturating_duration_since(other)) - millis(other.saturating_duration_since(one))
}

/// A watcher that was told to say `ready`.
fn ready(mut process: Process) -> Process {
    let Some(line) = process.line("the watcher", LIMIT) else {
        panic!("run make needs; it ended: {:?}", process.finish());
    };
    assert_eq!(line, "ready");
    process
}

/// Lines of a watcher until each of these has come once.
fn until_all(watcher: &mut Process, wanted: &[String]) -> Vec<(Instant, String)> {
    let mut missing: std::collections::HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut lines = Vec::new();
    while !missing.is_empty() {
        let line = watcher.line("everything to be noticed", LIMIT).expect("the watcher to go on");
        missing.remove(line.as_str());
        lines.push((Instant::now(), line));
    }
    lines
}

fn inotifywait(pair: &Pair) -> Process {
    let mut command = Command::new(installed("inotifywait"));
    command.args(["-m", "--format", "%e %f"]).arg(pair.peer.inbox(""));
    let mut watcher = Process::spawn(command);
    while !watcher.error_line().contains("Watches established") {}
    watcher
}

#[test]
fn inotifywait_sees_each_arrival_as_moved_to_and_the_log_as_modify() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "fuse");
    let mut watcher = inotifywait(&pair);
    let (mut behind, mut all) = (Vec::new(), Vec::new());
    let mut lines = Vec::new();
    for batch in 0..ARRIVALS / BATCH {
        let names: Vec<_> = (0..BATCH).map(|n| format!("file-{batch}-{n}")).collect();
        let wanted: Vec<_> = names.iter().map(|name| format!("MOVED_TO {name}")).collect();
        let (seen, told) = std::thread::scope(|scope| {
            let seen = scope.spawn(|| until_all(&mut watcher, &wanted));
            let written = names.iter().map(|name| (pair.host.put(name, name), Instant::now()).1);
            let written: Vec<_> = written.collect();
            let told = names.iter().zip(written).map(|(name, written)| {
                pair.peer.item(name);
                (written, Instant::now())
            });
            let told: Vec<_> = told.collect();
            (seen.join().unwrap(), told)
        });
        for (wanted, (written, told)) in wanted.iter().zip(told) {
            let noticed: Vec<_> = seen.iter().filter(|(_, line)| line == wanted).collect();
            assert_eq!(noticed.len(), 1, "{wanted} once");
            behind.push(later(noticed[0].0, told));
            all.push(later(noticed[0].0, written));
        }
        lines.extend(seen.into_iter().map(|(_, line)| line));
    }
    println!("noticed after the line of the peer itself: {}", middle_and_most(behind));
    println!("noticed after the write (200 ms are for settling): {}", middle_and_most(all));
    let count = |what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("MOVED_TO file-"), ARRIVALS);
    // Those of the last batch may come later; each batch before has some.
    assert!(count("MODIFY log.jsonl") >= ARRIVALS / BATCH - 1, "{}", count("MODIFY log.jsonl"));
    let others = lines.iter().find(|line| line.contains(" file-") && !line.starts_with("MOVED_TO"));
    assert_eq!(others, None, "nobody else opened or changed them");
    pair.close();
}

#[test]
fn texts_are_noticed_within_milliseconds() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "fuse");
    let mut command = Command::new(installed("inotifywait"));
    command.args(["-m", "--format", "%e %f"]).arg(pair.peer.inbox("messages"));
    let mut watcher = Process::spawn(command);
    while !watcher.error_line().contains("Watches established") {}
    let mut times = Vec::new();
    for n in 1..=ARRIVALS {
        let wanted = format!("MOVED_TO {n:04}.txt");
        let began = Instant::now();
        pair.host.put("message", format!("text {n}"));
        while watcher.line("the text", LIMIT).unwrap() != wanted {}
        times.push(later(Instant::now(), began));
    }
    println!("from the write of a text to its notice at the peer: {}", middle_and_most(times));
    pair.peer.text(&format!("text {ARRIVALS}"));
    pair.close();
}

#[test]
fn the_watchers_of_python_and_node_see_the_same() {
    let world = World::new();
    for mount in ["fuse", "dir"] {
        let mut pair = world.pair_on(Via::Local, mount);
        let inbox = pair.peer.inbox("");
        let mut python = Command::new(crate::python::interpreter());
        python.args(["-c", WATCHDOG]).arg(&inbox);
        let mut python = ready(Process::spawn(python));
        let mut node = Command::new(installed("node"));
        node.args(["-e", CHOKIDAR]).arg(&inbox).env("NODE_PATH", node_modules());
        let mut node = ready(Process::spawn(node));
        let names: Vec<_> = (0..50).map(|n| format!("file-{n}")).collect();
        for name in &names {
            pair.host.put(name, name);
        }
        let of = |event: &str, log: &str| -> Vec<String> {
            names.iter().map(|name| format!("{event} {name}")).chain([log.to_owned()]).collect()
        };
        for (watcher, wanted) in
            [(&mut python, of("created", "modified log.jsonl")), (&mut node, of("add", "change log.jsonl"))]
        {
            let lines = until_all(watcher, &wanted);
            for name in &names {
                let seen = lines.iter().filter(|(_, line)| line.ends_with(&format!(" {name}"))).count();
                assert_eq!(seen, 1, "{name} once with --mount {mount}");
            }
        }
        names.iter().for_each(|name| drop(pair.peer.item(name)));
        (python.kill(), node.kill());
        pair.close();
    }
}
