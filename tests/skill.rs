//! The skill says what the program does: every event, command, flag and exit code in it exists, and all of them are in it.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use agent_wormhole::cli::args::Args;
use agent_wormhole::event::Exit;
use agent_wormhole::skill::{TEXT, stamp};
use clap::{CommandFactory as _, Parser as _};

/// Most lines: an agent pays for each.
const MAX_LINES: usize = 220;
/// Longest description in characters. It is in an agent's context in every session, used or not.
const MAX_DESCRIPTION: usize = 400;
/// Longest `compatibility` that the format allows.
const MAX_COMPATIBILITY: usize = 500;
/// The fields that every harness knows, in their order.
const FIELDS: [&str; 6] = ["name", "description", "license", "compatibility", "metadata", "allowed-tools"];
/// Commands that only look, or wait: an agent may run them without asking. What sends, opens, closes or runs something is
/// its human's to allow.
const LOOKING: [&str; 5] = ["status", "watch", "wait", "flush", "doctor"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Head and body.
fn parts() -> (&'static str, &'static str) {
    let rest = TEXT.strip_prefix("---\n").unwrap();
    rest.split_once("\n---\n").unwrap()
}

fn field(name: &str) -> &'static str {
    let line = parts().0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("{name} is missing"))
}

/// What stands under a heading.
fn section(heading: &str) -> &'static str {
    let after = parts().1.split(&format!("\n## {heading}\n")).nth(1);
    after.unwrap_or_else(|| panic!("no section {heading}")).split("\n## ").next().unwrap()
}

/// The words in backticks of a text.
fn ticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Everything that is code: fenced, indented, or in backticks.
fn code() -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    let mut continued = String::new();
    for line in parts().1.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            found.push(line.trim().to_owned());
        } else {
            continued.push_str(line);
            continued.push('\n');
        }
    }
    found.extend(ticked(&continued).into_iter().map(|span| span.replace('\n', " ")));
    found
}

/// The commands of this program in a piece of code, each as a line of words.
fn commands(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for piece in code.split(['|', ';', '(', ')', '"']) {
        let Some((_, rest)) = piece.split_once("agent-wormhole ") else { continue };
        let end = rest.find(['#', '<', '>', '\'', '&']).unwrap_or(rest.len());
        found.push(rest[..end].split_whitespace().map(str::to_owned).collect());
    }
    found
}

fn all_commands() -> Vec<Vec<String>> {
    code().iter().flat_map(|code| commands(code)).filter(|words| !words.is_empty()).collect()
}

/// Every Rust file of the events.
fn event_sources() -> String {
    let mut files = vec![root().join("src/event.rs")];
    let inside = fs::read_dir(root().join("src/event")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(inside.filter(|path: &PathBuf| path.file_stem().is_none_or(|stem| stem != "tests")));
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// What a text has in quotes after each of these.
fn quoted_after(text: &str, before: &str) -> BTreeSet<String> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn the_head_has_the_fields_that_every_harness_knows() {
    let head = parts().0;
    let fields: Vec<&str> = head
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(fields, FIELDS);
    assert_eq!(field("name"), "agent-wormhole");
    assert_eq!(field("license"), "MIT");
    let description = field("description");
    assert!(description.chars().count() < MAX_DESCRIPTION, "{}", description.chars().count());
    // What is no YAML in a plain value, and what some readers take for markup.
    assert!(!description.contains(": ") && !description.contains(['<', '>', '#']), "{description}");
    for trigger in ["channel", "connect", "send", "file", "API key", "another agent"] {
        assert!(description.contains(trigger), "{trigger}");
    }
    assert!(field("compatibility").chars().count() <= MAX_COMPATIBILITY);
    assert_eq!(stamp::version(TEXT).unwrap(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn it_is_short() {
    assert!(TEXT.lines().count() < MAX_LINES, "{} lines", TEXT.lines().count());
    assert!(TEXT.is_ascii() || TEXT.chars().all(|c| c.is_ascii() || "…".contains(c)));
}

#[test]
fn what_needs_no_question_only_looks() {
    for tool in field("allowed-tools").split(") ") {
        let command = tool.trim_end_matches(')').strip_prefix("Bash(agent-wormhole ").unwrap();
        let command = command.strip_suffix(":*").unwrap();
        assert!(LOOKING.contains(&command), "{command} is allowed without a question");
        assert!(Args::command().find_subcommand(command).is_some(), "there is no {command}");
    }
}

#[test]
fn its_events_are_those_of_the_program() {
    let source = event_sources();
    let words = source.split("pub const fn word(&self)").nth(1).unwrap();
    let words = quoted_after(words.split("\n    }\n").next().unwrap(), "=> \"");
    assert!(words.len() > 20, "{words:?}");
    let table = section("Events of `\"type\":\"status\"`");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<&str> = rows.flat_map(|row| ticked(row.split('|').nth(1).unwrap())).collect();
    let once: BTreeSet<String> = told.iter().map(|word| (*word).to_owned()).collect();
    assert_eq!((once.len(), &once), (told.len(), &words), "the table of events");
    let mut types: BTreeSet<String> = quoted_after(&source, "Line::from(\"");
    types.extend(quoted_after(&source, ".to_line(\""));
    types.insert("status".to_owned());
    assert!(types.contains("dir"), "{types:?}");
    assert_eq!(quoted_after(TEXT, "\"type\":\""), types, "the types of events");
}

#[test]
fn its_exit_codes_are_those_of_the_program() {
    let rows = section("Exit codes").lines().filter(|line| line.starts_with("| "));
    let told: Vec<u8> = rows.filter_map(|row| row.split('|').nth(1)?.trim().parse().ok()).collect();
    assert_eq!(told, Exit::ALL.map(Exit::code));
}

#[test]
fn its_commands_are_those_of_the_program() {
    let args = Args::command();
    let known: BTreeSet<&str> = args.get_subcommands().map(clap::Command::get_name).collect();
    let used = all_commands();
    assert!(used.len() > 15, "{used:?}");
    for words in &used {
        assert!(known.contains(words[0].as_str()) || words[0] == "--help", "there is no {words:?}");
    }
    let code = code();
    for command in known {
        let named = code.iter().any(|code| code == command) || used.iter().any(|words| words[0] == command);
        assert!(named, "{command} is not in the skill");
    }
}

#[test]
fn its_commands_can_be_typed_as_they_stand() {
    for words in all_commands() {
        let typed = [&["agent-wormhole".to_owned()], words.as_slice()].concat();
        // A command that is named without what it works on says nothing wrong; nor does one whose help is asked for.
        let bare = words.len() == 1 || words.iter().any(|word| word == "--help");
        let parsed = Args::try_parse_from(&typed).map(drop);
        assert!(bare || parsed.is_ok(), "{typed:?}: {}", parsed.unwrap_err());
    }
}

#[test]
fn its_flags_are_flags_of_the_command_that_they_stand_with() {
    let args = Args::command();
    let flags = |command: &clap::Command| -> BTreeSet<String> {
        command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect()
    };
    let mut any: BTreeSet<String> = args.get_subcommands().flat_map(flags).collect();
    any.insert("--help".to_owned());
    for code in code() {
        for word in code.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
            assert!(any.contains(word), "no command has {word}: {code}");
        }
        for words in commands(&code).into_iter().filter(|words| words.len() > 1) {
            let own = flags(args.find_subcommand(&words[0]).unwrap());
            // What stands after `--` belongs to another program.
            let given = words.iter().take_while(|word| *word != "--").filter(|word| word.starts_with("--"));
            for flag in given.filter(|flag| *flag != "--help") {
                assert!(own.contains(flag), "{} has no {flag}", words[0]);
            }
        }
    }
}

#[test]
fn the_plugin_has_this_skill_and_this_version() {
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(root().join(path)).unwrap()).unwrap()
    };
    // A plugin whose root holds a SKILL.md has that one.
    let plugin = json("skill/.claude-plugin/plugin.json");
    assert_eq!(
        (&plugin["name"], &plugin["version"]),
        (&"agent-wormhole".into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert!(plugin.get("skills").is_none() && !root().join("skill/skills").exists());
    let market = json(".claude-plugin/marketplace.json");
    assert_eq!(
        (&market["plugins"][0]["name"], &market["plugins"][0]["source"]),
        (&plugin["name"], &"./skill".into())
    );
    let hooks = json("skill/hooks/hooks.json");
    let command = hooks["hooks"]["SessionStart"][0]["hooks"][0]["command"].as_str().unwrap();
    assert!(command.contains("${CLAUDE_PLUGIN_ROOT}/hooks/open-channels.sh"), "{command}");
}
