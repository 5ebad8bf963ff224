//! `doctor`: what it says of a machine that is well, and of each that is not; that it says what `host` would meet; and that
//! it leaves nothing behind, however it ends.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::LIMIT;
use crate::fixture::gateway::{Gateway, Manner};
use crate::fixture::process::{Ended, Process, failed};
use crate::fixture::tls::{Authority, Tls};
use crate::fixture::world::{Pair, Relay, World};
use crate::mounted::choice::NO_DEVICE;
use crate::mounted::guard::{Guard, is_mounted};
use crate::mounted::kills::kill_both;
use crate::mounted::processes::until_none;
use crate::mounted::user::{NOBODY, Place, Room, is_root};

/// When nothing of what was ended may be there any more.
const GONE: Duration = Duration::from_secs(5);
/// A name that cannot be: a part of one has 63 letters at most, so no resolver is asked.
const NOWHERE: &str = "nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere.test";
/// The steps of a canary, in their order.
const HOPS: [&str; 22] = [
    "host.link",
    "host.mount",
    "peer.link",
    "peer.mount",
    "handshake",
    "to_peer.text.settled",
    "to_peer.text.sent",
    "to_peer.text.stored",
    "to_peer.text.receipt",
    "to_peer.file.settled",
    "to_peer.file.sent",
    "to_peer.file.stored",
    "to_peer.file.receipt",
    "to_host.text.settled",
    "to_host.text.sent",
    "to_host.text.stored",
    "to_host.text.receipt",
    "to_host.file.settled",
    "to_host.file.sent",
    "to_host.file.stored",
    "to_host.file.receipt",
    "close",
];

/// What it said with `--json`.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    checks: BTreeMap<String, Value>,
    hops: Vec<String>,
    summary: Value,
}

impl Said {
    /// Reads all lines, each of which has to be as the README says.
    fn of(ended: &Ended) -> Self {
        assert_eq!(ended.err, "", "{ended:?}");
        let mut said =
            Self { code: ended.code, checks: BTreeMap::new(), hops: Vec::new(), summary: Value::Null };
        let (last, lines) = ended.out.split_last().unwrap_or_else(|| panic!("{ended:?}"));
        for line in lines {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if let Some(hop) = value["hop"].as_str() {
                assert!(value["ms"].is_number(), "{line}");
                said.hops.push(hop.to_owned());
                continue;
            }
            let state = value["state"].as_str().unwrap_or_else(|| panic!("{line}"));
            assert!(["ok", "warn", "fail", "skip"].contains(&state), "{line}");
            assert!(value["detail"].is_string(), "{line}");
            assert_eq!(value["do"].is_string(), ["warn", "fail"].contains(&state), "{line}");
            let known = said.checks.insert(value["check"].as_str().unwrap().to_owned(), value);
            assert!(known.is_none(), "told twice: {line}");
        }
        said.summary = serde_json::from_str(last).unwrap();
        assert_eq!(said.summary["exit"].as_i64(), said.code.map(i64::from), "{last}");
        for state in ["ok", "warn", "fail", "skip"] {
            assert_eq!(said.summary[state], said.with(state).len(), "{state}: {last}");
        }
        said
    }

    /// The checks of this state.
    fn with(&self, state: &str) -> Vec<&str> {
        self.checks
            .iter()
            .filter(|(_, value)| value["state"] == state)
            .map(|(check, _)| check.as_str())
            .collect()
    }

    fn word<'a>(&'a self, check: &str, member: &str) -> &'a str {
        self.checks.get(check).unwrap_or_else(|| panic!("no {check}: {self:#?}"))[member].as_str().unwrap()
    }
}

fn doctor(world: &World, args: &[&str]) -> Said {
    Said::of(&Process::spawn(world.command(&[&["doctor", "--json"], args].concat())).finish())
}

#[test]
fn a_machine_that_is_well() {
    let world = World::new();
    let said = doctor(&world, &[]);
    assert_eq!(said.code, Some(0));
    assert_eq!(said.with("fail"), [""; 0], "{said:#?}");
    for check in [
        "program",
        "settings",
        "directory",
        "fuse",
        "memory",
        "files",
        "inotify",
        "disk",
        "clock",
        "relay",
        "relay.name",
        "relay.tcp",
        "relay.proxy",
        "relay.tls",
        "relay.websocket",
        "relay.token",
        "relay.relay",
        "stale",
        "channels",
        "skill",
    ] {
        assert!(said.checks.contains_key(check), "{check}: {said:#?}");
    }
    assert_eq!((said.word("relay.tcp", "state"), said.word("relay.relay", "state")), ("skip", "ok"));
    assert!(said.word("relay", "detail").contains("nobody serves it now"), "{said:#?}");
    assert!(said.word("directory", "detail").starts_with(world.runtime().to_str().unwrap()));
    world.is_clean();
    // Who serves the relay is named, and what is open.
    let host = world.host(&[]);
    let said = doctor(&world, &[]);
    assert!(said.word("relay", "detail").contains(&format!("process {} serves it", host.id())), "{said:#?}");
    assert_eq!(said.word("channels", "detail"), format!("{} host waiting", host.nameplate));
    host.signal(Signal::STOP);
    let ended = Process::spawn(world.command(&["doctor", "--json", "--timeout", "1s"])).finish();
    host.signal(Signal::CONT);
    let said = Said::of(&ended);
    assert_eq!(said.word("channels", "state"), "warn");
    assert!(said.word("channels", "do").contains(&format!("kill -CONT {}", host.id())), "{said:#?}");
    // The relay in it does not answer either.
    assert_eq!((said.code, said.with("fail").len()), (Some(4), 1), "{said:#?}");
    host.ctl("close");
    host.finish().well();
    until_none(&world, GONE);
    world.is_clean();
}

#[test]
fn what_people_see_is_a_row_for_each_check() {
    let world = World::new();
    let ended = world.run(&["doctor"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    let text = ended.out.join("\n");
    assert!(!text.contains('\u{1b}'), "{text}");
    for check in ["program", "fuse", "relay.websocket", "channels"] {
        let row = ended.out.iter().find(|line| line.split_ascii_whitespace().next() == Some(check));
        let state = row.and_then(|row| row.split_ascii_whitespace().nth(1));
        assert!(matches!(state, Some("ok" | "warn")), "{check}: {text}");
    }
    assert!(ended.out.last().unwrap().contains(" ok, "), "{text}");
}

#[test]
fn a_relay_elsewhere_is_entered_and_left() {
    let world = World::new();
    // One channel from one address: what stayed there would take the place of the next.
    let one = ["--channels-per-source", "1"];
    let relay = Relay::start_with(world.command(&[]), &one);
    for _ in 0..3 {
        let said = doctor(&world, &["--relay", &relay.url()]);
        assert_eq!((said.code, said.with("fail")), (Some(0), vec![]), "{said:#?}");
        assert_eq!(said.word("relay", "detail"), format!("{}, set by --relay", relay.url()));
        for (check, state) in [
            ("relay.name", "skip"),
            ("relay.tcp", "ok"),
            ("relay.proxy", "skip"),
            ("relay.tls", "skip"),
            ("relay.websocket", "ok"),
            ("relay.token", "skip"),
            ("relay.relay", "ok"),
        ] {
            assert_eq!(said.word(check, "state"), state, "{check}: {said:#?}");
        }
        assert!(said.word("clock", "detail").contains("as the relay's"), "{said:#?}");
    }
    let host = world.host(&["--relay", &relay.url()]);
    let said = doctor(&world, &["--relay", &relay.url()]);
    assert_eq!(
        (said.code, said.with("fail")),
        (Some(4), vec!["relay.relay"]),
        "the place is taken: {said:#?}"
    );
    host.ctl("close");
    host.finish().well();
    world.is_clean();
}

/// `doctor` and `host` fail at the same step with these arguments, and every later step is not reached.
fn breaks(world: &World, check: &str, hop: &str, word: &str, args: &[&str]) {
    let said = doctor(world, args);
    assert_eq!((said.code, said.with("fail")), (Some(4), vec![check]), "{said:#?}");
    assert!(said.word(check, "detail").contains(word), "{word}: {said:#?}");
    let steps = [
        "relay.name",
        "relay.tcp",
        "relay.proxy",
        "relay.tls",
        "relay.websocket",
        "relay.token",
        "relay.relay",
    ];
    let after = steps.iter().skip_while(|step| **step != check).skip(1);
    for step in after {
        assert_eq!(said.word(step, "state"), "skip", "{said:#?}");
    }
    let mut hosting = world.command(&["host"]);
    hosting.args(args);
    let (event, _) = failed(hosting);
    assert_eq!(event["hop"], hop, "{event}");
    let same = [said.word(check, "detail"), said.word(check, "do")]
        .map(|half| half.trim_start_matches("it ").to_owned());
    for half in same {
        assert!(event["detail"].as_str().unwrap().contains(&half), "{half} is not what host says: {event}");
    }
}

#[test]
fn each_step_that_fails_is_named_as_host_names_it() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("ws://{}", taken.local_addr().unwrap());
    drop(taken);
    breaks(&world, "relay.tcp", "tcp", "connection refused", &["--relay", &refused]);
    breaks(&world, "relay.name", "name", "no address", &["--relay", &format!("wss://{NOWHERE}")]);
    let relay = world.relay();
    let tls = Tls::before(relay.address, "localhost", &Authority::new());
    breaks(&world, "relay.tls", "tls", "does not trust", &["--relay", &tls.url()]);
    let gateway = |answer| Gateway::start(Manner::Say(answer));
    let refusing = gateway("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    let proxied = ["--relay", "ws://relay.test", "--proxy", &refusing.url("http", "")];
    breaks(&world, "relay.proxy", "proxy", "does not allow", &proxied);
    let web = gateway("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    breaks(&world, "relay.websocket", "websocket", "404", &["--relay", &format!("ws://{}", web.address)]);
    let full = gateway("HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n");
    breaks(
        &world,
        "relay.relay",
        "relay",
        "too many connections",
        &["--relay", &format!("ws://{}", full.address)],
    );
    world.is_clean();
}

#[test]
fn a_token_is_a_step_of_its_own_and_its_file_is_to_be_private() {
    let world = World::new();
    let [theirs, mine] = ["theirs", "mine"].map(|name| world.path("home").join(name));
    fs::write(&theirs, "a-token-that-nobody-guesses\n").unwrap();
    let relay = Relay::start_with(world.command(&[]), &["--token-file", theirs.to_str().unwrap()]);
    let (url, path) = (relay.url(), mine.to_str().unwrap());
    breaks(&world, "relay.token", "relay", "wants a token", &["--relay", &url]);
    fs::write(&mine, "another\n").unwrap();
    fs::set_permissions(&mine, Permissions::from_mode(0o600)).unwrap();
    breaks(&world, "relay.token", "relay", "another one", &["--relay", &url, "--relay-token-file", path]);
    fs::copy(&theirs, &mine).unwrap();
    for (mode, state) in [(0o600, "ok"), (0o644, "warn")] {
        fs::set_permissions(&mine, Permissions::from_mode(mode)).unwrap();
        let said = doctor(&world, &["--relay", &url, "--relay-token-file", path]);
        assert_eq!((said.code, said.word("relay.token", "state")), (Some(0), "ok"), "{said:#?}");
        assert_eq!(said.word("token", "state"), state, "{said:#?}");
        assert!(!format!("{said:?}").contains("nobody-guesses"));
    }
}

#[test]
fn a_relay_that_does_not_answer_costs_no_more_than_was_given() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let said = doctor(&world, &["--relay", &url, "--timeout", "200ms"]);
    assert_eq!((said.code, said.with("fail")), (Some(4), vec!["relay.websocket"]), "{said:#?}");
    assert!(said.word("relay.websocket", "detail").contains("200ms"), "{said:#?}");
}

#[test]
fn settings_that_host_would_not_take_are_a_failure_of_this_machine() {
    let world = World::new();
    let place = world.path("config/agent-wormhole");
    fs::create_dir(&place).unwrap();
    for (text, word) in
        [("relai = \"wss://x\"\n", "did you mean"), ("timeout = \"soon\"\n", "write a duration")]
    {
        fs::write(place.join("config.toml"), text).unwrap();
        let said = doctor(&world, &["--loop"]);
        assert_eq!((said.code, said.with("fail")), (Some(1), vec!["settings"]), "{said:#?}");
        let told = [said.word("settings", "detail"), said.word("settings", "do")].join("; ");
        assert!(told.contains(word), "{said:#?}");
        assert_eq!((said.word("relay", "state"), said.word("loop", "state")), ("skip", "skip"));
    }
}

#[test]
fn a_runtime_directory_that_others_may_enter_is_a_failure() {
    let world = World::new();
    fs::create_dir(world.runtime()).unwrap();
    fs::set_permissions(world.runtime(), Permissions::from_mode(0o755)).unwrap();
    let said = doctor(&world, &["--loop"]);
    assert_eq!((said.code, said.with("fail")), (Some(1), vec!["directory"]), "{said:#?}");
    assert!(said.word("directory", "do").contains("chmod 700"), "{said:#?}");
    for check in ["relay", "channels", "stale", "loop", "fuse"] {
        assert_eq!(said.word(check, "state"), "skip", "{said:#?}");
    }
}

#[test]
fn what_a_killed_channel_left_is_removed_and_told() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let host = world.host(&[]);
    let pid = host.id();
    let dir = if host.events[0]["backend"] == "fuse" {
        kill_both(host)
    } else {
        let dir = host.dir.clone();
        host.kill();
        dir
    };
    let said = doctor(&world, &[]);
    let told = format!("{} of process {pid}", dir.display());
    assert!(said.word("stale", "detail").contains(&told), "{said:#?}");
    assert_eq!((said.code, said.word("stale", "state")), (Some(0), "ok"));
    assert!(!is_mounted(&dir) && !dir.exists());
    world.is_clean();
}

/// The canary came back over each step.
fn comes_back(said: &Said) {
    assert_eq!((said.code, said.word("loop", "state")), (Some(0), "ok"), "{said:#?}");
    assert_eq!(said.hops, HOPS, "{said:#?}");
}

#[test]
fn a_canary_comes_back_on_both_back_ends_and_every_way() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let relay = world.relay();
    for mount in ["auto", "dir"] {
        for way in [&[][..], &["--direct"], &["--relay", &relay.url()]] {
            let said = doctor(&world, &[&["--loop", "--mount", mount], way].concat());
            println!("{mount} {way:?}: {:?}", said.checks["loop"]);
            comes_back(&said);
        }
    }
    drop(relay);
    until_none(&world, GONE);
    world.is_clean();
}

#[test]
fn without_fuse_a_canary_comes_back_through_real_directories() {
    if !is_root() {
        return;
    }
    let bare = Room { setup: Some(NO_DEVICE), user: Some(NOBODY), path: Some("/nowhere"), ..Room::default() };
    let place = Place::new(bare);
    let _guard = Guard::new(&place.world);
    // Neither a home nor a runtime directory.
    let program = place.world.path("home/agent-wormhole");
    let without: Vec<&str> = ["env", "-i", program.to_str().unwrap()].to_vec();
    let run = |args: &[&str]| {
        let words = [&["/usr/bin/env", "-i"], &without[2..], args].concat();
        Said::of(&Process::spawn(place.command_of(&place.world.path("home"), &words)).finish())
    };
    let said = run(&["doctor", "--loop", "--json"]);
    assert_eq!((said.code, said.word("fuse", "state")), (Some(0), "warn"), "{said:#?}");
    assert!(said.word("fuse", "detail").contains("/dev/fuse"), "{said:#?}");
    assert_eq!(said.hops, HOPS);
    let said = run(&["doctor", "--json", "--mount", "fuse"]);
    assert_eq!((said.code, said.with("fail")), (Some(1), vec!["fuse"]), "{said:#?}");
    let said = run(&["doctor", "--json", "--mount", "dir"]);
    assert_eq!((said.code, said.word("fuse", "state")), (Some(0), "ok"), "{said:#?}");
    until_none(&place.world, GONE);
}

/// A canary on its way, once it has taken this step.
fn under_way(mut command: Command, args: &[&str], until: &str) -> Process {
    command.args(["doctor", "--loop", "--json"]).args(args);
    let mut process = Process::spawn(command);
    loop {
        let line = process.line(until, LIMIT).unwrap_or_else(|| panic!("it ended before {until}"));
        let value: Value = serde_json::from_str(&line).unwrap();
        if value["hop"] == until {
            return process;
        }
    }
}

#[test]
fn an_interrupted_canary_leaves_nothing() {
    let world = World::new();
    let _guard = Guard::new(&world);
    for (hop, signal) in [
        ("host.link", Signal::INT),
        ("peer.mount", Signal::TERM),
        ("to_peer.text.stored", Signal::INT),
        ("to_host.file.receipt", Signal::HUP),
    ] {
        let mut process = under_way(world.command(&[]), &[], hop);
        process.signal(signal);
        let ended = process.finish();
        let last: Value = serde_json::from_str(ended.out.last().unwrap()).unwrap();
        assert_eq!((ended.code, &last["exit"]), (Some(130), &130.into()), "{hop}: {ended:?}");
        until_none(&world, GONE);
        world.is_clean();
    }
}

#[test]
fn the_ends_of_a_killed_canary_end_by_themselves() {
    let world = World::new();
    let _guard = Guard::new(&world);
    for hop in ["host.mount", "handshake", "to_peer.file.stored"] {
        under_way(world.command(&[]), &[], hop).kill();
        until_none(&world, LIMIT);
        world.run(&["status"]);
        world.is_clean();
    }
}

#[test]
fn a_canary_that_takes_too_long_says_where_it_stands() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let relay = world.relay();
    let mut process =
        under_way(world.command(&[]), &["--relay", &relay.url(), "--timeout", "3s"], "handshake");
    relay.process.signal(Signal::STOP);
    let ended = process.finish();
    relay.process.signal(Signal::CONT);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let told = ended.out.iter().find(|line| line.contains(r#""check":"loop""#)).unwrap();
    drop(relay);
    assert!(told.contains("the canary stood at to_") && told.contains(r#""state":"fail""#), "{told}");
    until_none(&world, GONE);
    world.is_clean();
}

#[test]
fn a_canary_and_a_channel_do_not_disturb_each_other() {
    let world = World::new();
    let _guard = Guard::new(&world);
    let host = world.host(&[]);
    let peer = world.connect(&host.code(), &[]);
    let mut pair = Pair { host, peer, relay: None };
    pair.connected();
    let said = doctor(&world, &["--loop"]);
    assert_eq!((said.code, said.hops.len()), (Some(0), HOPS.len()), "{said:#?}");
    pair.peer.put("message", "still here\n");
    pair.host.text("still here\n");
    world.flush(&pair.peer);
    pair.close();
    until_none(&world, GONE);
    world.is_clean();
}
