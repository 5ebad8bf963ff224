//! Where a secret is, while one command holds it: with that command, and nowhere else that anybody can look at.
//!
//! Looks through files, logs, lines, the list of processes and their environments, what the relay received, what was
//! written to any descriptor (with `strace`), and at last through the memory of the process that received it.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;
use crate::fixture::LIMIT;
use crate::fixture::proxy::Proxy;
use crate::fixture::world::{Pair, Relay};

/// The variable that asks for more of a process's log.
const LOG: &str = "AGENT_WORMHOLE_LOG";
/// A text that is sent beside the secrets: the search finds it, so it would find them.
const SEEN: &str = "a-text-that-anybody-may-see";

/// The program under `strace`, which notes what is written and where.
fn traced(world: &World, trace: &Path, args: &[&str]) -> Command {
    let mut command = world.command_of("strace", &[]);
    command.args(trace::arguments(trace)).arg(env!("CARGO_BIN_EXE_agent-wormhole")).args(args);
    command.env(LOG, "trace");
    command
}

/// Holds if no form of these values was written anywhere but to sockets and pipes; how often it was to these.
fn only_passed_on(trace: &Path, values: &[String]) -> usize {
    let text = fs::read_to_string(trace).unwrap();
    assert!(text.lines().count() > 3, "{} holds nothing", trace.display());
    let forms: Vec<String> = values.iter().flat_map(|value| forms(value)).map(|form| hex(&form)).collect();
    trace::only_passed_on(&text, |bytes| forms.iter().any(|form| bytes.contains(form)))
}

/// Every file below a directory that can be read.
fn files(root: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        found.insert(format!("the name {}", path.display()), path.display().to_string().into_bytes());
        if about.is_dir() {
            files(&path, found);
        } else if about.is_file()
            && let Ok(bytes) = fs::read(&path)
        {
            found.insert(path.display().to_string(), bytes);
        }
    }
}

/// Arguments and environments of every process but this one.
fn processes() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.bytes().all(|byte| byte.is_ascii_digit()) && name != std::process::id().to_string() {
            for what in ["cmdline", "environ"] {
                // It may have ended.
                if let Ok(bytes) = fs::read(entry.path().join(what)) {
                    found.insert(format!("/proc/{name}/{what}"), bytes);
                }
            }
        }
    }
    found
}

/// What of a process's memory holds one of these.
fn in_memory(id: u32, needles: &[Vec<u8>]) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{id}/mem")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.seek(std::io::SeekFrom::Start(start)).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        for needle in needles {
            found.extend(holds(&bytes, needle).then(|| line.to_owned()));
        }
    }
    found
}

fn nowhere(values: &[String], found: &BTreeMap<String, Vec<u8>>) {
    for (place, bytes) in found {
        for form in values.iter().flat_map(|value| forms(value)) {
            assert!(!holds(bytes, &form), "a secret is in {place}");
        }
    }
}

/// Both ends, traced, with a relay that somebody listens at.
fn start(world: &World, mount: &str, url: &str) -> Pair {
    let trace = |name: &str| world.path(&format!("trace-{name}"));
    let mut host = traced(world, &trace("host"), &["host", "--relay", url, "--mount", mount]);
    host.current_dir(world.path("host"));
    let host = End::start(host);
    let mut peer =
        traced(world, &trace("peer"), &["connect", &host.code(), "--relay", url, "--mount", mount]);
    peer.current_dir(world.path("peer"));
    let mut pair = Pair { host, peer: End::start(peer), relay: None };
    pair.connected();
    pair
}

/// A command that holds a secret until it is told to end.
fn holding(world: &World, end: &End, name: &str, value: &str) -> (Process, std::process::ChildStdin, String) {
    let trace = world.path(&format!("trace-run-{name}"));
    let script = "echo $$; read line; printf %s \"$V\" | sha256sum; echo \"$V\"; printf %s \"$V\" | base64";
    let secret = format!("{name}=V");
    let args = ["run", end.dir.to_str().unwrap(), "--secret", &secret, "--", "sh", "-c", script];
    let (mut process, input) = Process::spawn_open(traced(world, &trace, &args));
    let child = process.line("the command's number", LIMIT).unwrap();
    let environment = fs::read(format!("/proc/{child}/environ")).unwrap();
    assert!(holds(&environment, format!("V={value}\0").as_bytes()), "the command has it");
    (process, input, child)
}

fn a_secret_is_with_its_command_alone(mount: &str) {
    let world = World::new();
    let mut command = world.command(&[]);
    command.env(LOG, "trace");
    let mut relay = Relay::start(command);
    let proxy = Proxy::before(Arc::new(Mutex::new(relay.address)));
    proxy.remember();
    let mut pair = start(&world, mount, &proxy.url());
    let values = [value(), value()];
    // One each way: through the mount where there is one, and through the socket.
    if mount == "fuse" {
        fs::write(pair.host.outbox("secrets/THERE"), &values[0]).unwrap();
    } else {
        send(&world, &pair.host, "THERE", &values[0]);
    }
    let sending = traced(
        &world,
        &world.path("trace-send"),
        &["send", pair.peer.dir.to_str().unwrap(), "--secret", "BACK", "--wait"],
    );
    let sent = Process::spawn_with(sending, values[1].as_bytes()).finish();
    assert_eq!(sent.code, Some(0), "{sent:?}");
    arrived(&mut pair.peer, "THERE");
    arrived(&mut pair.host, "BACK");
    pair.host.put("message", SEEN);
    pair.peer.text(SEEN);
    world.flush(&pair.host);
    let (mut there, there_in, there_id) = holding(&world, &pair.peer, "THERE", &values[0]);
    let (mut back, back_in, back_id) = holding(&world, &pair.host, "BACK", &values[1]);

    let mut found = processes();
    found.retain(|place, _| {
        place != &format!("/proc/{there_id}/environ") && place != &format!("/proc/{back_id}/environ")
    });
    assert!(found.len() > 8, "{} processes", found.len());
    for args in [&["status"][..], &["status", "--json"], &["status", pair.peer.dir.to_str().unwrap()]] {
        found.insert(args.join(" "), format!("{:?}", world.run(args)).into_bytes());
    }
    files(world.path("run").parent().unwrap(), &mut found);
    files(&pair.host.dir, &mut found);
    files(&pair.peer.dir, &mut found);
    // The traces are this test's own, and hold what passes between processes.
    found.retain(|place, _| !place.contains("/trace-"));
    let seen = found.values().filter(|bytes| holds(bytes, SEEN.as_bytes())).count();
    assert!(seen >= 4, "the search finds what may be seen: {seen} places");
    nowhere(&values, &found);

    for (process, mut input, value) in [(&mut there, there_in, &values[0]), (&mut back, back_in, &values[1])]
    {
        input.write_all(b"go\n").unwrap();
        let ended = process.finish();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.out[0], format!("{}  -", digest(value)));
        assert!(ended.out[1].starts_with("[secret ") && ended.out[2].starts_with("[secret "), "{ended:?}");
    }
    until_gone(&pair.peer);
    until_gone(&pair.host);
    close(world, pair, &mut relay, &proxy, &values);
}

/// What was said until the end, what the relay saw, and what was written where.
fn close(world: World, pair: Pair, relay: &mut Relay, proxy: &Proxy, values: &[String]) {
    let mut found = BTreeMap::new();
    let (host, peer) = pair.close();
    for (who, closed) in [("host", host), ("peer", peer)] {
        found.insert(format!("standard output of the {who}"), format!("{:?}", closed.events).into_bytes());
        found.insert(format!("the log of the {who}"), closed.err.into_bytes());
    }
    relay.process.signal(rustix::process::Signal::TERM);
    found.insert("the relay's log".into(), format!("{:?}", relay.process.finish()).into_bytes());
    for (n, [received, sent]) in proxy.memory().into_iter().enumerate() {
        found.insert(format!("what the relay received in connection {n}"), received);
        found.insert(format!("what it sent in connection {n}"), sent);
    }
    files(world.path("tmp").as_path(), &mut found);
    files(world.path("run").as_path(), &mut found);
    nowhere(values, &found);
    let passed: usize = ["host", "peer", "send", "run-THERE", "run-BACK"]
        .map(|name| only_passed_on(&world.path(&format!("trace-{name}")), values))
        .iter()
        .sum();
    assert!(passed >= 3, "the trace sees how secrets pass between processes: {passed}");
}

#[test]
fn a_secret_of_a_mount_is_with_its_command_alone() {
    a_secret_is_with_its_command_alone("fuse");
}

#[test]
fn a_secret_of_a_real_directory_is_with_its_command_alone() {
    a_secret_is_with_its_command_alone("dir");
}

/// The process that received a secret wipes it with its use, wherever it had it.
#[test]
fn nothing_of_a_used_secret_is_left_in_the_memory_of_the_process_that_received_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can look into the memory of a process that forbids it");
        return;
    }
    let world = World::new();
    let mut pair = world.pair_on(crate::fixture::world::Via::Local, "dir");
    let value = value();
    send(&world, &pair.host, "K", &value);
    arrived(&mut pair.peer, "K");
    let needle = [value.clone().into_bytes()];
    assert!(!in_memory(pair.peer.id(), &needle).is_empty(), "it waits there");
    let ended = run(&world, &pair.peer, &["--secret", "K"], "printf %s \"$K\" | sha256sum");
    assert_eq!(ended.out, [format!("{}  -", digest(&value))]);
    until_gone(&pair.peer);
    assert_eq!(in_memory(pair.peer.id(), &needle), Vec::<String>::new());
    pair.close();
}
