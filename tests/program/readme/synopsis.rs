//! The table of commands, held against what can be typed: nothing is missing, nothing is invented.

use std::collections::{BTreeMap, BTreeSet};

use agent_wormhole::cli::args::Args;
use clap::{Command, CommandFactory as _};

use crate::fixture::blocks::Block;

/// What the table says of each command, with what it says of several added to each of them.
fn entries(block: &Block) -> BTreeMap<String, String> {
    let (mut entries, mut last) = (BTreeMap::<String, String>::new(), String::new());
    let mut of_several = Vec::new();
    for line in block.text.lines() {
        if let Some(rest) = line.strip_prefix("agent-wormhole ") {
            let (name, rest) = rest.split_once(' ').unwrap();
            name.clone_into(&mut last);
            entries.insert(last.clone(), rest.to_owned());
        } else if let Some((whom, what)) =
            line.trim().strip_prefix("with ").and_then(|line| line.split_once(':'))
        {
            of_several.push((whom, what));
        } else {
            entries.get_mut(&last).unwrap().push_str(line);
        }
    }
    for (whom, what) in of_several {
        // Whoever ends in an ellipsis has said that there is more.
        let meant = |text: &&mut String| text.contains(whom) && !is_open(text);
        entries.values_mut().filter(meant).for_each(|text| text.push_str(what));
    }
    entries
}

/// Whether an entry says that it does not name all.
fn is_open(text: &str) -> bool {
    text.contains("] …")
}

/// The flags of a text, each with what stands behind it.
fn flags(text: &str) -> BTreeMap<&str, &str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
    text.match_indices("--")
        .filter(|(at, _)| !text[..*at].ends_with(is_name))
        .map(|(at, _)| {
            let rest = &text[at + 2..];
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let value = rest[end..].strip_prefix(' ').unwrap_or_default();
            (&rest[..end], value.split([' ', ']']).next().unwrap_or_default())
        })
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

/// The flags that a command shows in its help.
fn known(command: &Command) -> BTreeSet<&str> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| arg.get_long());
    shown.filter(|name| !["help", "version"].contains(name)).collect()
}

/// What can be typed, where only some words can.
fn values(arg: &clap::Arg) -> BTreeSet<String> {
    let values = arg.get_possible_values();
    let names = values.iter().map(|value| value.get_name().to_owned());
    names
        .filter(|name| arg.get_action().takes_values() && !["true", "false"].contains(&name.as_str()))
        .collect()
}

/// The words of `auto|fuse|dir`.
fn words(text: &str) -> BTreeSet<String> {
    text.split('|').map(str::to_owned).collect()
}

pub fn commands(blocks: &[Block]) {
    let [block] = blocks else { panic!("{blocks:#?}") };
    let entries = entries(block);
    let program = Args::command();
    let names: BTreeSet<&str> = program.get_subcommands().map(Command::get_name).collect();
    assert_eq!(entries.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
    for command in program.get_subcommands() {
        let (name, entry) = (command.get_name(), &entries[command.get_name()]);
        let (shown, known) = (flags(entry), known(command));
        let invented: Vec<_> = shown.keys().filter(|flag| !known.contains(*flag)).collect();
        assert!(invented.is_empty(), "{name} has no {invented:?}");
        let of_host = if entry.contains("[the same]") { flags(&entries["host"]) } else { BTreeMap::new() };
        let missing: Vec<_> =
            known.iter().filter(|flag| !shown.contains_key(*flag) && !of_host.contains_key(*flag)).collect();
        assert!(missing.is_empty() || is_open(entry), "{name} has {missing:?}, too: {entry}");
        for arg in command.get_arguments() {
            let values = values(arg);
            let typed = match arg.get_long() {
                _ if values.is_empty() => continue,
                Some(flag) if is_open(entry) && !shown.contains_key(flag) => continue,
                Some(flag) => shown.get(flag).or_else(|| of_host.get(flag)).copied(),
                None => entry.split([' ', '[', ']']).find(|word| word.contains('|')),
            };
            assert_eq!(typed.map(words), Some(values), "{name} {:?}", arg.get_long());
        }
    }
}
