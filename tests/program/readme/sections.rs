//! The sections that need nothing but this machine.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::like;
use crate::detach::Background;
use crate::fixture::LIMIT;
use crate::fixture::blocks::{Block, shell, shell_with};
use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::process::{Ended, Process};
use crate::fixture::world::{Pair, Via, World};

/// Runs lines in one shell, to their good end.
fn session(world: &World, at: &Path, lines: &[String]) -> Ended {
    let ended = Process::spawn(shell(world, at, &lines.join("\n"))).finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{lines:#?}: {ended:?}");
    ended
}

/// Starts the one line of a block that does not end.
fn endless(world: &World, at: &Path, line: &str) -> Process {
    Process::spawn(shell(world, at, &format!("exec {line}")))
}

/// The one line that is typed in a block.
fn one(block: &Block) -> String {
    let [line] = &block.typed("$")[..] else { panic!("more than one line is typed: {block:#?}") };
    line.clone()
}

/// What the lines of the README send.
fn sources(at: &Path) {
    fs::write(at.join("report.pdf"), noise(1, 70_000)).unwrap();
    fs::write(at.join("model.bin"), noise(2, 3_000_000)).unwrap();
    for dir in ["src", "big"] {
        fs::create_dir(at.join(dir)).unwrap();
        fs::write(at.join(dir).join("main.c"), "int main;").unwrap();
    }
}

fn same(source: &Path, end: &End, name: &str) {
    assert!(fs::read(source.join(name)).unwrap() == fs::read(end.inbox(name)).unwrap(), "{name}");
}

pub fn make(blocks: &[Block]) {
    let [block] = blocks else { panic!("{blocks:#?}") };
    let world = World::new();
    for line in block.text.lines() {
        let dry = line.replacen("make ", "make -n ", 1);
        assert_ne!(dry, line);
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = world.command_of("sh", &["-euc", &dry]);
        command.current_dir(project).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        let ended = Process::spawn(command).finish();
        assert!(ended.code == Some(0) && !ended.out.is_empty(), "{line}: {ended:?}");
    }
}

pub fn one_machine(blocks: &[Block]) {
    let [host, connect, files, commands] = blocks else { panic!("{blocks:#?}") };
    let world = World::new();
    let (here, there) = (world.path("host"), world.path("peer"));
    sources(&here);
    let started = |at: &Path, block: &Block| End::start(shell(&world, at, &format!("exec {}", one(block))));
    let laptop = started(&here, host);
    let (code, run) = (laptop.code(), world.path("run").to_str().unwrap().to_owned());
    let words = [("9471-cross-clock-marble", &*code), ("9471", &*laptop.nameplate), ("/run/user/1000", &run)];
    let mut server = started(&there, &connect.with(&words));
    server.status("connected");
    let shown = [host.with(&words).printed(), connect.with(&words).printed()];
    like(&shown[0][0], &laptop.events[0]);
    assert_eq!((shown[0].len(), shown[1].len(), server.events.len()), (1, 2, 2));
    for (shown, event) in shown[1].iter().zip(&server.events) {
        like(shown, event);
    }
    let (following, lines): (Vec<_>, Vec<_>) =
        files.with(&words).typed("$").into_iter().partition(|line| line.starts_with("tail -f"));
    let [following] = &following[..] else { panic!("{following:?}") };
    let mut following = Process::spawn(shell(&world, &here, &format!("{}\nexec {following}", lines[0])));
    following.line("a line of the log", LIMIT).unwrap();
    session(&world, &here, &lines);
    laptop.finish().well();
    server.status("peer_closed");
    server.text("hello\n");
    for name in ["report.pdf", "src/main.c", "model.bin"] {
        same(&here, &server, name);
    }
    server.ctl("close");
    server.finish().well();
    world.is_clean();
    // The same by commands, in a channel of their own: that one is closed.
    let mut pair = world.pair(Via::Local);
    let lines = commands.with(&[("9471", &pair.host.nameplate)]).typed("$");
    session(&world, &here, &lines);
    pair.peer.text("the build is green");
    pair.peer.item("big.tar");
    session(&world, &there, &[format!("tar xf {}", pair.peer.inbox("big.tar").display())]);
    same(&here, &pair.peer, "model.bin");
    same(&here, &pair.peer, "src/main.c");
    assert_eq!(fs::read_to_string(there.join("big/main.c")).unwrap(), "int main;");
    pair.close();
}

/// What the tree of a block names, below its first line.
fn drawn(block: &Block) -> BTreeSet<PathBuf> {
    let (mut names, mut above) = (BTreeSet::new(), PathBuf::new());
    for line in block.text.lines().skip(1) {
        let depth = line.len() - line.trim_start().len();
        let drawn = line.trim_start().split("  ").next().unwrap();
        for name in drawn.split(", ").map(|name| name.trim_end_matches('/')) {
            let path = if depth > 2 { above.join(name) } else { PathBuf::from(name) };
            names.insert(path.clone());
            if depth == 2 {
                above = path;
            }
        }
    }
    names
}

/// What `ls` shows, two levels deep.
fn there(dir: &Path) -> BTreeSet<PathBuf> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().map(Result::unwrap);
        let shown = entries.filter(|entry| !entry.file_name().to_str().unwrap().starts_with('.'));
        shown.map(|entry| entry.path()).collect()
    };
    let top = list(dir);
    let below = top.iter().filter(|path| path.is_dir()).flat_map(|path| list(path));
    let names: Vec<PathBuf> = below.chain(top.clone()).collect();
    names.iter().map(|path| path.strip_prefix(dir).unwrap().to_owned()).collect()
}

pub fn directory(blocks: &[Block]) {
    let [tree] = blocks else { panic!("{blocks:#?}") };
    let world = World::new();
    let pair = world.pair_on(Via::Local, "fuse");
    // Some are there before they are listed.
    let (drawn, listed) = (drawn(tree), there(&pair.host.dir));
    let missing: Vec<_> = drawn.iter().filter(|path| !pair.host.dir.join(path).exists()).collect();
    let untold: Vec<_> = listed.difference(&drawn).collect();
    assert!(missing.is_empty() && untold.is_empty(), "missing: {missing:?}, not told: {untold:?}");
    pair.close();
}

/// Makes the other end print an event as it is shown.
fn provoke(world: &World, pair: &mut Pair, shown: &Value) -> Value {
    let source = world.path("host");
    match (shown["type"].as_str().unwrap(), shown["name"].as_str().unwrap_or_default()) {
        ("text", _) => {
            pair.host.put("message", shown["body"].as_str().unwrap());
            pair.peer.text(shown["body"].as_str().unwrap())
        }
        ("file", name) => {
            pair.host.put(name, noise(3, usize::try_from(shown["size"].as_u64().unwrap()).unwrap()));
            pair.peer.item(name)
        }
        ("dir", name) => {
            let [files, size] = ["files", "size"].map(|member| shown[member].as_u64().unwrap());
            fs::create_dir(source.join(name)).unwrap();
            for n in 0..files {
                let length = if n == 0 { size - (files - 1) * (size / files) } else { size / files };
                fs::write(source.join(name).join(format!("{n}.c")), vec![b'x'; length.try_into().unwrap()])
                    .unwrap();
            }
            session(world, &source, &[format!("agent-wormhole send {} --file {name}", pair.host.nameplate)]);
            pair.peer.item(name)
        }
        ("ask", name) => {
            pair.host.put(&format!("ask/{name}"), shown["body"].as_str().unwrap());
            pair.peer.item(name)
        }
        ("answer", name) => {
            pair.peer.put(&format!("ask/{name}"), "?");
            pair.host.item(name);
            pair.host.put(&format!("answer/{name}"), shown["body"].as_str().unwrap());
            pair.peer.item(name)
        }
        ("secret", name) => {
            let mut command = world.command(&["send", pair.host.dir.to_str().unwrap(), "--secret", name]);
            command.current_dir(&source);
            let ended = Process::spawn_with(command, b"of twenty-eight characters..").finish();
            assert_eq!(ended.code, Some(0), "{ended:?}");
            pair.peer.item(name)
        }
        other => panic!("nobody makes this event: {other:?}"),
    }
}

pub fn events(blocks: &[Block]) {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "fuse");
    // The README begins with the third.
    for text in ["first", "second"] {
        pair.host.put("message", text);
        pair.peer.text(text);
    }
    for line in blocks.iter().flat_map(Block::printed) {
        let event = provoke(&world, &mut pair, &serde_json::from_str(&line).unwrap());
        like(&line, &event);
    }
    assert!(blocks.iter().all(|block| block.printed().len() == block.text.lines().count()), "{blocks:#?}");
    pair.close();
}

pub fn waiting(blocks: &[Block]) {
    let [commands, each] = blocks else { panic!("{blocks:#?}") };
    let world = World::new();
    let here = world.path("host");
    let _killed_at_the_end = Background { world: &world };
    let [first, ..] = &commands.typed("$")[..] else { panic!("{commands:#?}") };
    let opened = session(&world, &here, std::slice::from_ref(first));
    let channel: Value = serde_json::from_str(&opened.out[0]).unwrap();
    let code = channel["code"].as_str().unwrap();
    let words = [("9471", code.split('-').next().unwrap())];
    let [_, connected, report, watch] = &commands.with(&words).typed("$")[..] else {
        panic!("{commands:#?}")
    };
    let mut peer = world.connect(code, &[]);
    peer.status("connected");
    let printed = session(&world, &here, std::slice::from_ref(connected));
    assert!(printed.out.len() == 1 && printed.out[0].contains(r#""event":"connected""#), "{printed:?}");
    for n in 1..=14 {
        peer.put(&format!("{n}.msg"), n.to_string());
    }
    world.flush(&peer);
    let mut each = Process::spawn(shell(&world, &here, &each.with(&words).text));
    peer.put("report.pdf", "x");
    let printed = session(&world, &here, std::slice::from_ref(report));
    assert!(printed.out.len() == 1 && printed.out[0].contains(r#""name":"report.pdf""#), "{printed:?}");
    let mut watching = endless(&world, &here, watch);
    let line: Value = serde_json::from_str(&watching.line("an event", LIMIT).unwrap()).unwrap();
    assert!(line["seq"].as_u64().unwrap() > 12, "{line}");
    let printed: Vec<Value> = (0..15)
        .map(|_| serde_json::from_str(&each.line("each item", LIMIT).expect("the loop goes on")).unwrap())
        .collect();
    let numbers: Vec<u64> = printed.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(printed.iter().all(|event| event["from"] == "peer"), "{printed:?}");
    session(&world, &here, &[format!("agent-wormhole close {}", words[0].1)]);
    assert_eq!(watching.finish().code, Some(0));
    peer.status("peer_closed");
    peer.ctl("close");
    peer.finish().well();
    let ended = each.finish();
    assert!(ended.code == Some(0) && ended.out.is_empty(), "each of them once: {ended:?}");
}

pub fn secrets(blocks: &[Block]) {
    let [block] = blocks else { panic!("{blocks:#?}") };
    let world = World::new();
    let mut server = world.host(&[]);
    let number = server.nameplate.clone();
    let laptop = world.connect(&server.code(), &[]);
    server.status("connected");
    let [here, there] = ["peer", "host"].map(|at| world.path(at));
    fs::write(here.join("key.txt"), "correct-horse-battery\n").unwrap();
    fs::write(there.join("deploy.sh"), "#!/bin/sh\necho \"${#API_KEY}: $API_KEY\"\n").unwrap();
    fs::set_permissions(there.join("deploy.sh"), Permissions::from_mode(0o755)).unwrap();
    let block = block.with(&[("9471", &number)]);
    let [sending, running] = ["laptop$", "server$"].map(|prompt| block.typed(prompt));
    assert_eq!(block.text.lines().count(), sending.len() + running.len());
    session(&world, &here, &sending);
    server.until("the secret", |event| event["type"] == "secret");
    let ran = session(&world, &there, &running);
    assert_eq!(ran.out, ["21: [secret API_KEY]"]);
    let mut pair = Pair { host: server, peer: laptop, relay: None };
    pair.connected();
    pair.close();
}

pub fn questions(blocks: &[Block]) {
    let [block] = blocks else { panic!("{blocks:#?}") };
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let block = block.with(&[("9471", &pair.host.nameplate)]);
    let (lines, shown) = (block.typed("$"), block.printed());
    assert_eq!(block.text.lines().count(), lines.len() + shown.len());
    let script = format!("D='{}'\n{}", pair.host.dir.display(), lines.join("\n"));
    let mut asking = Process::spawn(shell(&world, &world.path("host"), &script));
    let asked = pair.peer.until("the question", |event| event["type"] == "ask");
    let name = asked["name"].as_str().unwrap();
    let answer: Value = serde_json::from_str(&shown[0]).unwrap();
    pair.peer.put(&format!("answer/{name}"), answer["body"].as_str().unwrap());
    let ended = asking.finish();
    assert_eq!((ended.code, ended.out.len(), shown.len()), (Some(0), 1, 1), "{ended:?}");
    like(&shown[0], &serde_json::from_str(&ended.out[0]).unwrap());
    pair.close();
}

pub fn setup(blocks: &[Block]) {
    let [commands, plugin] = blocks else { panic!("{blocks:#?}") };
    let world = World::new();
    let (bin, read) = (world.path("tmp/bin"), world.path("tmp/read"));
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("claude"), format!("#!/bin/sh\nexec cat > '{}'\n", read.display())).unwrap();
    fs::set_permissions(bin.join("claude"), Permissions::from_mode(0o755)).unwrap();
    let script = commands.typed("$").join("\n");
    let ended = Process::spawn(shell_with(&world, &world.path("host"), &script, &[&bin])).finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert!(fs::read_to_string(read).unwrap().contains("This is the skill of agent-wormhole"));
    for path in ["home/.claude/skills/agent-wormhole/SKILL.md", "home/.agents/skills/agent-wormhole/SKILL.md"]
    {
        assert!(world.path(path).is_file(), "{path}");
    }
    assert!(fs::read_to_string(world.path("host/AGENTS.md")).unwrap().contains("agent-wormhole: begin"));
    // For Claude Code itself: a marketplace and a plugin of these names.
    let market = include_str!("../../../.claude-plugin/marketplace.json");
    let market: Value = serde_json::from_str(market).unwrap();
    let named =
        format!("{}@{}", market["plugins"][0]["name"].as_str().unwrap(), market["name"].as_str().unwrap());
    let expected = format!("/plugin marketplace add ./agent-wormhole\n/plugin install {named}\n");
    assert_eq!(plugin.text, expected);
}
