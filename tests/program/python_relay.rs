//! The Python tool 0.1.5 through our relay: with itself, and with an end of ours that was told to take its codes.

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::fixture::LIMIT;
use crate::fixture::content::noise;
use crate::fixture::end::{End, text};
use crate::fixture::process::Process;
use crate::fixture::proxy::Proxy;
use crate::fixture::world::{Relay, World};
use crate::python::Tool;

/// Longest file that the tool takes through a relay, nearly: base64 of it makes 1 MiB.
const LARGE: usize = 780_000;

/// A relay, and the proxies that stand before it: one for each end.
struct Place {
    _relay: Relay,
    host: Proxy,
    peer: Proxy,
}

impl Place {
    fn before(relay: Relay) -> Self {
        let target = Arc::new(Mutex::new(relay.address));
        let (host, peer) = (Proxy::before(Arc::clone(&target)), Proxy::before(target));
        host.remember();
        peer.remember();
        Self { _relay: relay, host, peer }
    }

    fn new(world: &World) -> Self {
        Self::before(world.relay())
    }

    /// The tool as a host that the relay knows: it tells its code before.
    fn tool<'a>(&self, world: &'a World) -> Tool<'a> {
        let tool = Tool::host_at(world, &self.host.url());
        self.host.until_told(br#""event":"waiting""#);
        tool
    }

    /// The tool at both ends, connected.
    fn tools<'a>(&self, world: &'a World) -> [Tool<'a>; 2] {
        let mut host = self.tool(world);
        let mut peer = Tool::connect_at(world, &host.code, &self.peer.url());
        for tool in [&mut host, &mut peer] {
            assert_eq!(tool.line()["event"], "connected");
        }
        [host, peer]
    }

    /// An end of ours and the tool, connected; and the proxy before the tool.
    fn ours_and_tool<'a>(&self, world: &'a World, ours_hosts: bool) -> (End, Tool<'a>, &Proxy) {
        let (mut end, mut tool, proxy) = if ours_hosts {
            let end = world.host(&["--legacy", "--relay", &self.host.url()]);
            let tool = Tool::connect_at(world, &end.code(), &self.peer.url());
            (end, tool, &self.peer)
        } else {
            let tool = self.tool(world);
            let end = world.connect(&tool.code, &["--legacy", "--relay", &self.peer.url()]);
            (end, tool, &self.host)
        };
        assert_eq!(tool.line()["event"], "connected");
        let connected = end.status("connected");
        assert_eq!((&connected["transport"], &connected["protocol"]), (&"relay".into(), &1.into()));
        let warned: Vec<&Value> = end.events.iter().filter(|event| event["event"] == "legacy_code").collect();
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(text(warned[0], "detail").contains("the relay can read"), "{warned:?}");
        (end, tool, proxy)
    }
}

/// The tool says that it lost its connection, and that it has one again.
fn reconnects(tool: &mut Tool<'_>) {
    assert_eq!(tool.line()["event"], "reconnecting");
    assert_eq!(tool.line()["event"], "reconnected");
}

#[test]
fn two_python_tools_talk_through_our_relay_and_survive_cuts() {
    let world = World::new();
    let place = Place::new(&world);
    let [mut host, mut peer] = place.tools(&world);
    let source = world.path("home/file.bin");
    for round in 0..3 {
        host.send("text", &format!("from the host {round}"));
        peer.send("text", &format!("from the peer {round}"));
        assert_eq!(peer.line()["body"], format!("from the host {round}"));
        assert_eq!(host.line()["body"], format!("from the peer {round}"));
        let content = noise(round, if round == 0 { LARGE } else { 1000 });
        fs::write(&source, &content).unwrap();
        host.send("file", source.to_str().unwrap());
        assert_eq!(peer.line()["size"], content.len());
        assert!(peer.received("file.bin") == content);
        peer.send("file", source.to_str().unwrap());
        assert_eq!(host.line()["size"], content.len());
        assert!(host.received("file.bin") == content);
        let (proxy, cut) = if round == 1 { (&place.host, &mut host) } else { (&place.peer, &mut peer) };
        proxy.cut();
        reconnects(cut);
    }
}

/// What is said to a tool while its connection is away waits for it, and nothing comes twice.
#[test]
fn what_is_said_to_a_python_tool_that_is_away_waits_for_it() {
    let world = World::new();
    let place = Place::new(&world);
    let [host, mut peer] = place.tools(&world);
    // Nothing comes through to the new connection of the peer before the texts are in the queue.
    place.peer.let_through(0);
    place.peer.cut();
    assert_eq!(peer.line()["event"], "reconnecting");
    let before = place.host.passed();
    host.send_many(20, 100);
    place.host.until_passed(before + 20 * 100);
    place.peer.open();
    assert_eq!(peer.line()["event"], "reconnected");
    in_order(&mut peer, 20);
    host.send("text", "the last");
    assert_eq!(peer.line()["body"], "the last");
}

fn in_order(tool: &mut Tool<'_>, count: usize) {
    for n in 0..count {
        let line = tool.line();
        assert!(text(&line, "body").starts_with(&format!("{n} ")), "{n}: {line}");
    }
}

/// As fast as it can, the tool says so many texts of 300 bytes.
fn hurries(limits: &[&str], count: usize, limit: std::time::Duration) {
    let world = World::new();
    let place = Place::before(Relay::start_with(world.command(&[]), limits));
    let [mut host, mut peer] = place.tools(&world);
    host.send_many(count, 300);
    for n in 0..count {
        let line = peer.process.line("a text", limit).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(text(&line, "body").starts_with(&format!("{n} ")), "{n}: {line}");
    }
    peer.send("text", "and back");
    assert_eq!(host.line()["body"], "and back");
}

#[test]
fn three_hundred_texts_of_a_hurried_python_tool_arrive_in_order() {
    // A minute's worth goes through at once, then three a second: 20 of them have to wait.
    hurries(&["--messages-per-minute", "200"], 220, LIMIT);
    hurries(&["--messages-per-minute", "600"], 300, LIMIT);
}

#[test]
#[ignore = "takes four minutes, which the default limits are worth"]
fn three_hundred_texts_of_a_hurried_python_tool_arrive_in_order_under_the_default_limits() {
    hurries(&[], 300, LIMIT);
}

#[test]
fn our_ends_talk_with_the_python_tool_through_our_relay_in_either_role() {
    for ours_hosts in [true, false] {
        let world = World::new();
        let place = Place::new(&world);
        let (mut end, mut tool, proxy) = place.ours_and_tool(&world, ours_hosts);
        for round in 0..2 {
            end.put("message", format!("grüße {round}\n"));
            assert_eq!(tool.line()["body"], format!("grüße {round}\n"));
            tool.send("text", &format!("héllo {round}"));
            end.text(&format!("héllo {round}"));
            let (name, content) = (format!("{round}.bin"), noise(round, LARGE));
            end.put(&name, &content);
            assert_eq!(tool.line()["name"], name);
            assert!(tool.received(&name) == content);
            let source = world.path(&format!("home/back-{name}"));
            fs::write(&source, &content).unwrap();
            tool.send("file", source.to_str().unwrap());
            end.item(&format!("back-{name}"));
            assert!(fs::read(end.inbox(&format!("back-{name}"))).unwrap() == content);
            if round == 0 {
                proxy.cut();
                end.status("peer_away");
                end.status("peer_back");
                reconnects(&mut tool);
            }
        }
        // What it cannot take through a relay is refused here: it would cut the connection.
        end.put("large.bin", noise(7, 1 << 20));
        let refused = end.status("refused");
        assert!(text(&refused, "detail").contains("larger than the other end takes"), "{refused}");
        end.ctl("close");
        let closed = end.finish();
        assert_eq!((closed.code, closed.last()["undelivered"][0].as_str()), (Some(6), Some("large.bin")));
        assert!(!format!("{closed:?}").contains("tampered"), "{closed:?}");
        world.is_clean();
    }
}

#[test]
fn the_end_of_the_python_tool_and_the_loss_of_our_connection_end_the_channel() {
    for ours_hosts in [true, false] {
        let world = World::new();
        let place = Place::new(&world);
        let (mut end, mut tool, _) = place.ours_and_tool(&world, ours_hosts);
        tool.send("text", "bye");
        end.text("bye");
        tool.process.signal(rustix::process::Signal::INT);
        end.status("peer_closed");
        assert_eq!(end.events.iter().filter(|event| event["event"] == "peer_away").count(), 0);
        tool.process.finish();
        end.ctl("close");
        end.finish().well();

        let place = Place::new(&world);
        let (mut end, _tool, _) = place.ours_and_tool(&world, ours_hosts);
        if ours_hosts { &place.host } else { &place.peer }.cut();
        end.status("peer_closed");
        end.ctl("close");
        end.finish().well();
        world.is_clean();
    }
}

#[test]
fn two_ends_of_ours_under_a_code_for_the_relay_lose_nothing_when_cut() {
    let world = World::new();
    let place = Place::new(&world);
    let mut host = world.host(&["--legacy", "--relay", &place.host.url()]);
    let code = host.code();
    let connect = text(&host.events[0], "connect").to_owned();
    assert_eq!(connect, format!("agent-wormhole connect {code} --legacy --relay {}", place.host.url()));
    place.host.cut();
    place.host.until_accepted(2);
    let mut peer = world.connect(&code, &["--legacy", "--relay", &place.peer.url()]);
    for end in [&mut host, &mut peer] {
        assert_eq!(end.status("connected")["protocol"], 2);
        end.status("legacy_code");
        assert!(!end.dir.to_str().unwrap().contains(code.split('-').next().unwrap()), "{:?}", end.dir);
    }
    for n in 0..5 {
        if n % 2 == 0 { &place.host } else { &place.peer }.cut();
        host.put(&format!("{n}.msg"), format!("host {n}"));
        peer.put(&format!("{n}.msg"), format!("peer {n}"));
        peer.text(&format!("host {n}"));
        host.text(&format!("peer {n}"));
    }
    // The number stands for the code in commands.
    let sent = world.run(&["send", &host.nameplate, "by number", "--wait"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    peer.text("by number");
    let status = world.run(&["status", &code]);
    assert_eq!(status.code, Some(2), "{status:?}");
    assert!(!status.err.contains(&code) && status.err.contains("agent-wormhole status"), "{status:?}");
    host.ctl("close");
    host.finish().well();
    peer.status("peer_closed");
    peer.ctl("close");
    peer.finish().well();
    world.is_clean();
}

#[test]
fn a_code_of_the_wrong_kind_is_a_usage_error_that_says_what_to_do() {
    let world = World::new();
    let relay = world.relay();
    for (code, args, words) in [
        ("acorn-amber-anvil", &[][..], &["--legacy", "can read all"][..]),
        ("9471-cross-clock-marble", &["--legacy"], &["leave out --legacy"]),
        ("acorn-amber-anvil@laptop.local", &["--legacy"], &["leave out @HOST"]),
    ] {
        let mut command = world.connecting(code, args);
        if !code.contains('@') {
            command.args(["--relay", &relay.url()]);
        }
        let ended = Process::spawn(command).finish();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(words.iter().all(|word| ended.err.contains(word)), "{ended:?}");
    }
    let nobody = world.connecting("acorn-amber-anvil", &["--legacy", "--relay", &relay.url()]);
    let ended = Process::spawn(nobody).finish();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(format!("{ended:?}").contains("nobody is waiting under this code"), "{ended:?}");
}

#[test]
fn a_relay_that_takes_no_legacy_clients_refuses_both_ends() {
    let world = World::new();
    let relay = Relay::start_with(world.command(&[]), &["--no-legacy-clients"]);
    let mut tool = Tool::host_at(&world, &relay.url());
    let failed = tool.line();
    assert_eq!(failed["event"], "connection_failed");
    assert!(text(&failed, "detail").contains("unable to join channel"), "{failed}");
    let mut host = world.command(&["host", "--legacy", "--relay", &relay.url()]);
    host.current_dir(world.path("host"));
    assert_eq!(Process::spawn(host).finish().code, Some(4));
}
