//! `watch` and `wait`: from another process than the channel's own, nobody misses or repeats an event.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;

use agent_wormhole::follow::{Next, Tail};
use agent_wormhole_mount::Mailbox;
use agent_wormhole_mount::bell;
use agent_wormhole_mount::dir::{self, DirMailbox};
use agent_wormhole_mount::mounted::{self, FuseMailbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::process::{Ended, Process};
use crate::fixture::world::{Via, World};
use crate::fixture::{LIMIT, LONG};
use crate::mounted::processes;
use crate::mounted::user::is_root;

const MOUNTS: [&str; 2] = ["fuse", "dir"];

fn dir(end: &End) -> &str {
    end.dir.to_str().unwrap()
}

fn seq(line: &str) -> u64 {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    event["seq"].as_u64().unwrap()
}

fn watch(world: &World, dir: &str, args: &[&str]) -> Process {
    Process::spawn(world.command(&[&["watch", dir], args].concat()))
}

fn wait(world: &World, dir: &str, args: &[&str]) -> Ended {
    world.run(&[&["wait", dir], args].concat())
}

/// Waits until a process looks at a log: that is a thread of its own.
fn is_following(process: &Process) {
    let tasks = format!("/proc/{}/task", process.id());
    let is_watcher = |comm: String| comm.starts_with("notify-rs");
    processes::until("a watch", LIMIT, || {
        let mut tasks = fs::read_dir(&tasks).unwrap().flatten();
        tasks.any(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(is_watcher))
    });
}

/// Waits until no thread of a process asks its mount for something. What a mount has begun to answer when it is stopped,
/// the kernel waits for: whoever asked cannot even be killed before it goes on.
fn rests(process: &Process) {
    let tasks = format!("/proc/{}/task", process.id());
    let idle = |task: fs::DirEntry| {
        let place = fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        place.contains("futex") || place.contains("poll")
    };
    processes::until("it to rest", LIMIT, || fs::read_dir(&tasks).unwrap().flatten().all(idle));
}

/// The lines of a watch up to the one that has this in it.
fn until(watch: &mut Process, lines: &mut Vec<String>, last: &str) {
    loop {
        let line = watch.line(last, LONG).unwrap_or_else(|| panic!("it ended before {last}"));
        let found = line.contains(last);
        lines.push(line);
        if found {
            return;
        }
    }
}

/// Every event that a loop of `wait --since` returns, up to the file `last.bin`.
fn waits(world: &World, dir: &str, wanted: &[&str]) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let since = seen.last().copied().unwrap_or(0).to_string();
        let ended = wait(world, dir, &[&["--since", &since, "--timeout", "60s"], wanted].concat());
        assert_eq!((ended.code, ended.out.len(), ended.err.as_str()), (Some(0), 1, ""), "{ended:?}");
        seen.push(seq(&ended.out[0]));
        if ended.out[0].contains("last.bin") {
            return seen;
        }
    }
}

/// Ten `wait` and two `watch` at once, while the peer sends: each sees every event of its kind once.
fn together(mount: &str, texts: usize, files: usize) {
    const WRITERS: usize = 4;
    let world = World::new();
    let mut pair = world.pair_on(Via::Direct, mount);
    let (host, outbox, world) = (dir(&pair.host), pair.peer.outbox(""), &world);
    let put = |name: String, text: String| fs::write(outbox.join(name), text).unwrap();
    let put = &put;
    let mut watches = [watch(world, host, &[]), watch(world, host, &[])];
    let mut told = [Vec::new(), Vec::new()];
    let (all, of_files) = thread::scope(|scope| {
        let all: Vec<_> = (0..2).map(|_| scope.spawn(|| waits(world, host, &[]))).collect();
        let of_files: Vec<_> =
            (0..8).map(|_| scope.spawn(|| waits(world, host, &["--for", "file"]))).collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for n in (writer..texts).step_by(WRITERS) {
                        put(format!("{n}.msg"), format!("text {n}"));
                    }
                    for n in (writer..files).step_by(WRITERS) {
                        put(format!("{n}.bin"), format!("file {n}"));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        world.flush(&pair.peer);
        put("last.bin".to_owned(), "the last".to_owned());
        let join = |threads: Vec<thread::ScopedJoinHandle<'_, Vec<u64>>>| -> Vec<Vec<u64>> {
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        };
        (join(all), join(of_files))
    });
    for (watch, lines) in watches.iter_mut().zip(&mut told) {
        until(watch, lines, "last.bin");
    }
    pair.host.item("last.bin");
    let numbers = |is: &dyn Fn(&Value) -> bool| -> Vec<u64> {
        let events = pair.host.events.iter().filter(|event| is(event));
        events.map(|event| event["seq"].as_u64().unwrap()).collect()
    };
    let expected = numbers(&|event| event["from"] == "peer");
    assert_eq!(expected.len(), texts + files + 1);
    for seen in all {
        assert_eq!(seen, expected, "{mount}");
    }
    for seen in of_files {
        assert_eq!(seen, numbers(&|event| event["type"] == "file"), "{mount}");
    }
    let log = fs::read_to_string(pair.host.inbox("log.jsonl")).unwrap();
    for lines in &told {
        assert_eq!(*lines, log.lines().collect::<Vec<_>>(), "{mount}");
    }
    pair.close();
    for watch in &mut watches {
        let ended = watch.finish();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        assert!(ended.out.last().unwrap().contains(r#""event":"closed""#), "{ended:?}");
    }
    world.is_clean();
}

#[test]
fn ten_waits_and_two_watches_see_each_of_a_thousand_events_once() {
    together("fuse", 900, 99);
}

#[test]
fn so_they_do_in_a_real_directory() {
    together("dir", 150, 49);
}

#[test]
fn a_watch_goes_on_where_one_that_was_killed_had_stopped() {
    for mount in MOUNTS {
        let world = World::new();
        let pair = world.pair_on(Via::Direct, mount);
        let (host, ours, theirs) = (dir(&pair.host), pair.host.outbox(""), pair.peer.outbox(""));
        let mut lines = Vec::new();
        let mut first = watch(&world, host, &[]);
        let mut second = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..600 {
                    fs::write(theirs.join(format!("{n}.msg")), format!("text {n}.")).unwrap();
                    if n % 50 == 0 {
                        // What this end sends takes numbers, too.
                        fs::write(ours.join(format!("{n}.msg")), "back").unwrap();
                    }
                }
            });
            until(&mut first, &mut lines, "text 100.");
            // What it had printed and nobody had read counts, too.
            lines.extend(first.kill().out);
            let since = lines.last().map(|line| seq(line)).unwrap().to_string();
            let second = watch(&world, host, &["--since", &since]);
            writer.join().unwrap();
            second
        });
        until(&mut second, &mut lines, "text 599.");
        let log = fs::read_to_string(pair.host.inbox("log.jsonl")).unwrap();
        assert_eq!(lines, log.lines().take(lines.len()).collect::<Vec<_>>(), "{mount}");
        assert!(lines.len() >= 602, "{}", lines.len());
        pair.close();
        assert_eq!(second.finish().code, Some(0));
    }
}

/// A mailbox without a channel: its log is rotated when the test wants it.
fn mailbox(world: &World, mount: &str) -> Box<dyn Mailbox> {
    let path = world.path("home").join(mount);
    fs::create_dir(&path).unwrap();
    let outlet = Box::new(|_| true);
    if mount == "dir" {
        return Box::new(DirMailbox::open(&dir::Options { path, inbox_limit: None }, outlet).unwrap());
    }
    let bell = bell::Options {
        program: env!("CARGO_BIN_EXE_agent-wormhole").into(),
        args: vec!["bell".into()],
        arg0: None,
    };
    let source = format!("agent-wormhole:watch-{}", path.display());
    Box::new(FuseMailbox::open(mounted::Options::new(path, source, bell), outlet).unwrap())
}

struct Writer {
    mailbox: Box<dyn Mailbox>,
    seq: u64,
}

impl Writer {
    fn event(&mut self, transcribed: bool) -> u64 {
        self.seq += 1;
        let line = format!(r#"{{"type":"text","from":"peer","id":1,"seq":{},"at":"t"}}"#, self.seq);
        self.mailbox.append_log(&line).unwrap();
        if transcribed {
            self.mailbox.append_transcript(&line).unwrap();
        }
        self.seq
    }

    fn sent(&mut self) {
        self.seq += 1;
        let line = format!(r#"{{"type":"text","from":"self","id":1,"seq":{},"at":"t"}}"#, self.seq);
        self.mailbox.append_transcript(&line).unwrap();
    }

    fn rotate(&mut self) -> u64 {
        self.seq += 1;
        let line = format!(r#"{{"type":"status","event":"rotated","seq":{},"at":"t"}}"#, self.seq);
        self.mailbox.rotate_log(&line).unwrap();
        self.seq
    }
}

/// All that can be read now: numbers of events, and of what is in no file any more.
fn read(tail: &mut Tail<'_>) -> (Vec<u64>, Vec<u64>) {
    let (mut seen, mut lost) = (Vec::new(), Vec::new());
    tail.look_again();
    loop {
        match tail.next(None).unwrap() {
            Next::Event(line) => seen.push(line.seq),
            Next::Missing(numbers) => lost.extend(numbers),
            Next::Quiet => return (seen, lost),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rotations_lose_nothing() {
    for mount in MOUNTS {
        let world = World::new();
        let mut writer = Writer { mailbox: mailbox(&world, mount), seq: 0 };
        let path = writer.mailbox.path().to_owned();
        let alive = || true;
        let open = |since| Tail::open(&path, since, &alive);
        let mut tail = open(0);
        let mut expected: Vec<u64> = (0..5).map(|_| writer.event(true)).collect();
        assert_eq!(read(&mut tail), (expected.clone(), vec![]), "{mount}");
        // One that watches: what came before the rotation is in the older log, however long the new one is by now.
        let mut news = vec![writer.event(true), writer.event(true)];
        writer.sent();
        news.push(writer.rotate());
        news.extend((0..20).map(|_| writer.event(true)));
        assert_eq!(read(&mut tail), (news.clone(), vec![]), "{mount}");
        expected.extend(&news);
        // One that was away for one rotation, and one that begins.
        assert_eq!(read(&mut open(3)), (expected[3..].to_vec(), vec![]), "{mount}");
        assert_eq!(read(&mut open(0)), (expected.clone(), vec![]), "{mount}");
        // Two rotations: what is in no log any more is in the transcript, but for the first of their own lines.
        let last = writer.seq;
        let mut news = vec![writer.event(true)];
        writer.sent();
        let first = writer.rotate();
        news.push(writer.event(true));
        let second = writer.rotate();
        news.push(writer.event(true));
        let third = writer.rotate();
        news.push(writer.event(true));
        let with = |rotations: &[u64]| {
            let mut all = [&news[..], rotations].concat();
            all.sort_unstable();
            all
        };
        assert_eq!(read(&mut tail), (with(&[second, third]), vec![]), "{mount}");
        assert_eq!(read(&mut open(last)), (with(&[second, third]), vec![]), "{mount}");
        assert!(!with(&[second, third]).contains(&first));
        // The transcript is full: that is told, and what is there follows.
        let last = writer.seq;
        let lost = writer.event(false);
        let second = [writer.rotate(), writer.event(false)];
        let third = [writer.rotate(), writer.event(false)];
        let (seen, missing) = read(&mut open(last));
        assert_eq!(seen, [second, third].concat(), "{mount}");
        assert_eq!(missing, [lost], "{mount}");
        drop(tail);
        writer.mailbox.close().unwrap();
    }
}

#[test]
fn a_log_that_its_owner_took_away_goes_on_in_the_new_one() {
    for mount in MOUNTS {
        let world = World::new();
        let mut writer = Writer { mailbox: mailbox(&world, mount), seq: 0 };
        let path = writer.mailbox.path().to_owned();
        let alive = || true;
        let mut tail = Tail::open(&path, 0, &alive);
        let mut expected = vec![writer.event(true), writer.event(true)];
        assert_eq!(read(&mut tail).0, expected, "{mount}");
        fs::remove_file(path.join("inbox/log.jsonl")).unwrap();
        let news = [writer.event(true), writer.event(true)];
        assert_eq!(read(&mut tail), (news.to_vec(), vec![]), "{mount}");
        expected.extend(news);
        assert_eq!(read(&mut Tail::open(&path, 0, &alive)), (expected, vec![]), "{mount}");
        drop(tail);
        writer.mailbox.close().unwrap();
    }
}

#[test]
fn half_a_line_and_what_is_no_event_do_no_harm() {
    let world = World::new();
    let mut writer = Writer { mailbox: mailbox(&world, "dir"), seq: 0 };
    let path = writer.mailbox.path().to_owned();
    let mut tail = Tail::open(&path, 0, &|| true);
    writer.event(true);
    assert_eq!(read(&mut tail).0, [1]);
    let log = path.join("inbox/log.jsonl");
    let append = |text: &str| {
        let before = fs::read_to_string(&log).unwrap();
        fs::write(&log, before + text).unwrap();
    };
    append("{\"type\":\"text\",\"from\":\"peer\"");
    assert_eq!(read(&mut tail).0, [0; 0], "half a line");
    append(",\"seq\":2,\"at\":\"t\"}\nwhatever\n");
    assert!(matches!(tail.next(None).unwrap(), Next::Event(line) if line.seq == 2));
    assert_eq!(tail.next(None).unwrap(), Next::Foreign);
    drop(tail);
    writer.mailbox.close().unwrap();
}

#[test]
fn a_watch_ends_with_its_channel_and_as_it_does() {
    for mount in MOUNTS {
        let world = World::new();
        let mut host = world.host(&["--mount", mount]);
        let mut watching = [watch(&world, dir(&host), &[]), watch(&world, dir(&host), &["--since", "1"])];
        let first = watching[0].line("the first event", LIMIT).unwrap();
        assert!(first.contains(r#""event":"channel""#) && !first.contains(&host.code()), "{first}");
        host.put("never.msg", "nobody reads it");
        host.until_state("the text", |state| state["state"] == "waiting");
        host.ctl("close now");
        host.status("closed");
        let closed = host.finish();
        assert_eq!(closed.code, Some(6), "{closed:?}");
        for watch in &mut watching {
            let ended = watch.finish();
            assert_eq!((ended.code, ended.err.as_str()), (Some(6), ""), "{mount}: {ended:?}");
            let last: Value = serde_json::from_str(ended.out.last().unwrap()).unwrap();
            assert_eq!((&last, &last["exit"]), (closed.last(), &6.into()), "{mount}");
        }
        world.is_clean();
    }
}

#[test]
fn who_watches_or_waits_for_a_channel_that_was_killed_is_told() {
    for mount in MOUNTS {
        let world = World::new();
        let host = world.host(&["--mount", mount]);
        let (pid, number) = (host.id(), host.nameplate.clone());
        let mut watching = watch(&world, dir(&host), &[]);
        let mut waiting = Process::spawn(world.command(&["wait", dir(&host)]));
        watching.line("the first event", LIMIT).unwrap();
        is_following(&waiting);
        host.kill();
        for process in [&mut watching, &mut waiting] {
            let ended = process.finish();
            assert_eq!((ended.code, ended.out.len()), (Some(4), 0), "{mount}: {ended:?}");
            let says =
                format!("channel {number} has ended and its last event cannot be read: its process ({pid})");
            assert!(ended.err.contains(&says), "{mount}: {ended:?}");
        }
        // Nothing is left to watch, and that is told otherwise.
        let ended = world.run(&["watch", &number]);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{ended:?}");
        world.is_clean();
    }
}

#[test]
fn a_watch_ends_when_nobody_reads_it() {
    let world = World::new();
    let host = world.host(&[]);
    let mut command = world.command(&["watch", dir(&host)]);
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(std::process::Stdio::null()).stdout(writer).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut first = [0; 1];
    rustix::io::read(reader.as_fd(), &mut first).unwrap();
    drop(reader);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    host.signal(Signal::TERM);
    host.finish().well();
}

#[test]
fn wait_returns_what_it_was_asked_for() {
    for mount in MOUNTS {
        let world = World::new();
        let host = world.host(&["--direct", "--mount", mount]);
        let ended = wait(&world, dir(&host), &["--for", "connected", "--timeout", "100ms"]);
        assert_eq!((ended.code, ended.out.len()), (Some(5), 0), "{ended:?}");
        assert!(ended.err.contains("no peer came within 100ms"), "{ended:?}");
        let mut connected = Process::spawn(world.command(&["wait", dir(&host), "--for", "connected"]));
        let peer = world.connect(&format!("{}@127.0.0.1", host.code()), &["--mount", mount]);
        assert_eq!(connected.finish().code, Some(0));
        let mut waiting = ["text", "report.pdf", "src/"].map(|wanted| {
            Process::spawn(world.command(&["wait", dir(&host), "--for", wanted, "--timeout", "60s"]))
        });
        fs::create_dir(world.path("peer/src")).unwrap();
        fs::write(world.path("peer/src/a.rs"), "x").unwrap();
        peer.link(&world.path("peer/src"), "src");
        peer.put("report.pdf", "first");
        peer.put("message", "hello");
        let [text, file, tree] = waiting.each_mut().map(|waiting| {
            let ended = waiting.finish();
            assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
            serde_json::from_str::<Value>(&ended.out[0]).unwrap()
        });
        assert_eq!((&text["body"], &tree["type"]), (&"hello".into(), &"dir".into()));
        assert!(Path::new(file["saved_to"].as_str().unwrap()).exists());
        // The next one of that name has another one here.
        world.flush(&peer);
        peer.put("report.pdf", "second");
        let since = file["seq"].to_string();
        let ended = wait(&world, dir(&host), &["--for", "report.pdf", "--since", &since, "--timeout", "60s"]);
        let second: Value = serde_json::from_str(&ended.out[0]).unwrap();
        assert_eq!((&second["name"], &second["sent_as"]), (&"report-2.pdf".into(), &"report.pdf".into()));
        assert_eq!(file.get("sent_as"), None);
        peer.ctl("close");
        peer.finish().well();
        // What came is found; nothing else can come.
        assert_eq!(wait(&world, dir(&host), &["--for", "src"]).code, Some(0));
        let state = host.until_state("the peer's close", |state| state["state"] == "peer_closed");
        for since in ["0".to_owned(), state["last_seq"].to_string()] {
            let ended = wait(&world, dir(&host), &["--for", "other.txt", "--since", &since]);
            assert_eq!((ended.code, ended.out.len()), (Some(4), 0), "{ended:?}");
            assert!(ended.err.contains("the peer has closed"), "{ended:?}");
        }
        host.ctl("close");
        host.finish().well();
    }
}

#[test]
fn wait_tells_that_a_file_was_refused_and_why() {
    let world = World::new();
    let host = world.host(&["--direct", "--inbox-limit", "100kB"]);
    let peer = world.connect(&format!("{}@127.0.0.1", host.code()), &[]);
    let mut waiting = Process::spawn(world.command(&["wait", dir(&host), "--for", "big.bin"]));
    peer.put("big.bin", noise(1, 300_000));
    let ended = waiting.finish();
    assert_eq!((ended.code, ended.out.len()), (Some(6), 0), "{ended:?}");
    assert!(ended.err.contains("`big.bin` was refused by this end: "), "{ended:?}");
    // At the other end it is what the peer says.
    let ended = wait(&world, dir(&peer), &["--for", "big.bin", "--timeout", "60s"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.err.contains("`big.bin` was refused by the peer: "), "{ended:?}");
    for end in [host, peer] {
        end.ctl("close now");
        end.finish();
    }
}

#[test]
fn a_wait_for_a_channel_that_does_not_answer_keeps_its_time() {
    if !is_root() {
        // Where a thread waits is root's to see.
        return;
    }
    let world = World::new();
    // Dropped after the pair: it could not end before.
    let mut early;
    let pair = world.pair(Via::Direct);
    // It has the log open when the process stops.
    early = Process::spawn(world.command(&["wait", dir(&pair.peer), "--for", "text", "--timeout", "2s"]));
    let open = format!("/proc/{}/fd", early.id());
    let is_log =
        |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|path| path.ends_with("inbox/log.jsonl"));
    processes::until("an open log", LIMIT, || fs::read_dir(&open).unwrap().flatten().any(is_log));
    is_following(&early);
    rests(&early);
    pair.peer.signal(Signal::STOP);
    let pid = pair.peer.id();
    let late = wait(&world, dir(&pair.peer), &["--for", "text", "--timeout", "500ms"]);
    for ended in [early.finish(), late] {
        assert_eq!((ended.code, ended.out.len()), (Some(5), 0), "{ended:?}");
        assert!(ended.err.contains(&format!("`kill -CONT {pid}`")), "{ended:?}");
    }
    pair.peer.signal(Signal::CONT);
    pair.close();
}
