//! Somebody who knows agent-wormhole 0.1.5 and has its README in hand: every command line of that and of its skill does here
//! what it did there, and what does not says what to type instead.
//!
//! Both documents are read from the installed Python package. In its lines, `9471-crossover-clockwork-marble`, `<code>`,
//! `<port>-<word>-<word>-<word>` and `<hostname>` stand for the code and the host of the channel of the test, and
//! `./config.json` and `/path/to/file` for files of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use agent_wormhole::cli::args::Args;
use clap::CommandFactory as _;

use crate::fixture::blocks::{fenced, shell, shell_with};
use crate::fixture::end::{End, text};
use crate::fixture::process::Process;
use crate::fixture::world::{Pair, World};
use crate::python::interpreter;

/// How a code is written in the documents.
const CODES: [&str; 3] = ["9471-crossover-clockwork-marble", "<code>", "<port>-<word>-<word>-<word>"];
/// Lines for another program than this one: how the package is fetched, and what a person types in Claude Code.
const ELSEWHERE: [&str; 3] =
    ["uv tool install agent-wormhole", "pip install agent-wormhole", "/agent-wormhole connect <code>"];
/// Flags of 0.1.5 that are not here under their names, and what is said then.
const REPLACED: [(&str, &str, &str); 2] = [
    ("", "--install-completion", "agent-wormhole completions bash"),
    ("", "--show-completion", "agent-wormhole completions bash"),
];
/// Prints all commands of 0.1.5 with their flags.
const FLAGS: &str = "
import json, typer
from agent_wormhole.cli import app
program = typer.main.get_command(app)
long = lambda command: [o for p in command.params for o in p.opts if o.startswith('--')]
print(json.dumps({'': long(program), **{name: long(command) for name, command in program.commands.items()}}))";

/// What is typed in the README and the skill of 0.1.5.
fn lines() -> BTreeSet<String> {
    let ask = "import importlib.metadata as m, importlib.resources as r; print(m.metadata('agent-wormhole').get_payload()); \
               print(r.files('agent_wormhole').joinpath('SKILL.md').read_text())";
    let output = Command::new(interpreter()).args(["-c", ask]).output().unwrap();
    let documents = String::from_utf8(output.stdout).unwrap();
    let typed = |line: &str| {
        let line = line.trim().trim_start_matches("$ ").trim_start_matches("# or: ");
        let line = line.strip_prefix("command=\"").and_then(|line| line.strip_suffix("\",")).unwrap_or(line);
        (line.contains("agent-wormhole") && !line.starts_with(['#', '{'])).then(|| line.to_owned())
    };
    fenced(&documents).iter().flat_map(|block| block.text.lines().filter_map(typed)).collect()
}

/// Types lines of the documents, and knows which are left.
struct Newcomer<'a> {
    world: &'a World,
    left: BTreeSet<String>,
    code: String,
}

impl Newcomer<'_> {
    /// The line with what stands for something in it replaced.
    fn line(&mut self, line: &str) -> String {
        self.left.remove(line);
        assert!(lines().contains(line), "the documents have no such line: {line}");
        let file = self.world.path("host/config.json");
        let line = CODES.iter().fold(line.to_owned(), |line, code| line.replace(code, &self.code));
        line.replace("<hostname>", "localhost").replace("/path/to/file", file.to_str().unwrap())
    }

    fn end(&mut self, at: &str, line: &str) -> End {
        let line = format!("exec {}", self.line(line));
        End::start(shell(self.world, &self.world.path(at), &line))
    }

    /// Types a line that ends, and hands over what it prints.
    fn types(&mut self, at: &str, line: &str) -> Vec<String> {
        let line = self.line(line);
        let ended = Process::spawn(shell(self.world, &self.world.path(at), &line)).finish();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{line}: {ended:?}");
        ended.out
    }

    /// Both ends, connected.
    fn pair(&mut self, host: &str, connect: &str) -> Pair {
        let host = self.end("host", host);
        self.code = host.code();
        let mut pair = Pair { host, peer: self.end("peer", connect), relay: None };
        pair.connected();
        pair
    }

    /// Closes from the host's side with a line, and from the other one in the same way.
    fn closes(&mut self, pair: Pair, line: &str) {
        let Pair { host, mut peer, relay: _ } = pair;
        self.types("host", line);
        host.finish().well();
        peer.status("peer_closed");
        self.types("peer", line);
        peer.finish().well();
    }
}

#[test]
fn every_line_of_the_readme_and_the_skill_of_0_1_works() {
    let world = World::new();
    let mut newcomer = Newcomer { world: &world, left: lines(), code: String::new() };
    for line in ELSEWHERE {
        assert!(newcomer.left.remove(line), "the documents have no such line: {line}");
    }
    fs::write(world.path("host/config.json"), "{}").unwrap();
    // The README's quickstart.
    assert!(newcomer.types("home", "agent-wormhole --help").iter().any(|line| line.contains("connect")));
    let mut pair =
        newcomer.pair("agent-wormhole host", "agent-wormhole connect 9471-crossover-clockwork-marble");
    newcomer.types("host", "agent-wormhole send 9471-crossover-clockwork-marble \"hello from laptop\"");
    pair.peer.text("hello from laptop");
    newcomer.types("host", "agent-wormhole send 9471-crossover-clockwork-marble --file ./config.json");
    pair.peer.item("config.json");
    newcomer.closes(pair, "agent-wormhole close 9471-crossover-clockwork-marble");
    // The skill, which names the role; the directory in which that is typed is then any.
    let mut pair = newcomer.pair("agent-wormhole host", "agent-wormhole connect <code>");
    newcomer.types("home", "agent-wormhole send <code> \"your message here\" --role host");
    pair.peer.text("your message here");
    newcomer.types("home", "agent-wormhole send <code> \"your message here\" --role peer");
    pair.host.text("your message here");
    newcomer.types("home", "agent-wormhole send <code> --file /path/to/file --role host");
    pair.peer.item("config.json");
    newcomer.closes(pair, "agent-wormhole close <code>");
    // Directly.
    let direct = "agent-wormhole connect <port>-<word>-<word>-<word>@<hostname>";
    let mut pair = newcomer.pair("agent-wormhole host --direct", direct);
    assert_eq!(text(&pair.peer.status("connected"), "transport"), "direct");
    pair.close();
    // The skill, for an agent that reads it from a pipe.
    let bin = world.path("tmp/bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("claude"), "#!/bin/sh\nexec grep -o 'setup claude'\n").unwrap();
    fs::set_permissions(bin.join("claude"), Permissions::from_mode(0o755)).unwrap();
    let line = newcomer.line("agent-wormhole setup | claude");
    let ended = Process::spawn(shell_with(&world, &world.path("home"), &line, &[&bin])).finish();
    assert!(ended.code == Some(0) && !ended.out.is_empty(), "{ended:?}");
    assert!(newcomer.types("home", "agent-wormhole setup").join("\n").contains("setup claude"));
    assert!(newcomer.left.is_empty(), "nobody typed {:#?}", newcomer.left);
    world.is_clean();
}

#[test]
fn every_command_and_flag_of_0_1_is_there_or_says_what_replaces_it() {
    let output = Command::new(interpreter()).args(["-c", FLAGS]).output().unwrap();
    let old: BTreeMap<String, Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(old.len() > 6 && old["send"].contains(&"--file".to_owned()), "{old:?}");
    let world = World::new();
    let mut program = Args::command();
    program.build();
    for (command, flags) in &old {
        let here = if command.is_empty() { &program } else { program.find_subcommand(command).unwrap() };
        for flag in flags {
            let is_here = here.get_arguments().any(|arg| arg.get_long() == flag.strip_prefix("--"));
            let replaced = REPLACED.iter().find(|(of, name, _)| of == command && name == flag);
            assert_ne!(is_here, replaced.is_some(), "{command} {flag}");
            let Some((_, _, says)) = replaced else { continue };
            let args: Vec<&str> =
                [command.as_str(), flag].into_iter().filter(|word| !word.is_empty()).collect();
            let ended = world.run(&args);
            assert!(ended.code == Some(2) && ended.err.contains(says), "{ended:?}");
        }
    }
    // The variable of 0.1 has its name still.
    let relay = world.relay();
    let mut command = world.command(&["host"]);
    command.env("AGENT_WORMHOLE_RELAY_URL", relay.url()).current_dir(world.path("host"));
    let host = End::start(command);
    assert!(
        text(&host.events[0], "connect").ends_with(&format!("--relay {}", relay.url())),
        "{:?}",
        host.events
    );
    host.ctl("close");
    host.finish().well();
}

#[test]
fn what_is_typed_out_of_habit_or_by_mistake_is_answered_with_what_to_type() {
    let world = World::new();
    let direct = "40123-cross-clock-marble@localhost";
    let numbered = "9471-crossover-clockwork-marble";
    for (args, says) in [
        (&[][..], &["Usage: agent-wormhole <COMMAND>", "host", "connect", "Example"][..]),
        (&["hots"], &["'host'"]),
        (&["conect", numbered], &["'connect'"]),
        (&["receive", "9471"], &["inbox/", "agent-wormhole wait CHANNEL"]),
        (&["join", numbered], &["agent-wormhole connect CODE"]),
        (&["list"], &["agent-wormhole status"]),
        (&["disconnect", numbered], &["agent-wormhole close CHANNEL"]),
        (&["ask", "9471"], &["outbox/ask/NAME", "--for answer:NAME"]),
        (&["connect", direct, "--direct"], &["leave it out", "@HOST"]),
        // 0.1 took a port and let it be without --direct.
        (&["host", "--port", "5000"], &["--direct"]),
        // Codes of 0.1: from its README, through a relay, and in direct mode.
        (&["connect", numbered], &["crossover", "--any-words", "still good"]),
        (&["connect", "crossover-clockwork-marble"], &["agent-wormhole 0.1", "--legacy"]),
        (&["connect", "40123-crossover-clockwork-marble@localhost"], &["--any-words"]),
        (&["connect", "<code>"], &["9471-cross-clock-marble"]),
        (&["send", numbered], &["<TEXT>"]),
        (&["send", numbered, "hi", "--file", "x"], &["--file"]),
        (&["send", numbered, "hi"], &["no channel 9471", "agent-wormhole host"]),
        (&["close", numbered], &["no channel 9471"]),
    ] {
        let ended = world.run(args);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{args:?}: {ended:?}");
        for words in says {
            assert!(ended.err.contains(words), "{args:?} does not say {words}: {ended:?}");
        }
    }
    for args in [&["help"][..], &["help", "send"], &["--version"], &["status"]] {
        assert_eq!(world.run(args).code, Some(0), "{args:?}");
    }
}
