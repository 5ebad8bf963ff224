//! `agent-wormhole man`: the manual, a page for the program and one for each command.
//!
//! Owns how the help of a command is laid out as a page. The commands and flags are those of [`Args`], and so is every
//! word that is said about them.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::{Args, ManArgs};
use super::exit::{Exit, Failure};
use super::output;

/// The section of the manual that is for commands.
const SECTION: &str = "1";
/// What the pages belong to, at the head of each.
const MANUAL: &str = "User Commands";
/// What the help puts before the paragraph about exit codes.
const EXIT_CODES: &str = "Exit codes:";

pub(super) fn run(args: &ManArgs) -> Result<Exit, Failure> {
    let pages = pages().context("the manual cannot be made")?;
    if let Some(dir) = &args.dir {
        write(dir, &pages).with_context(|| {
            format!("the manual cannot be written to {}; choose a directory that is yours", dir.display())
        })?;
        return Ok(Exit::Done);
    }
    let wanted = args.command.iter().fold("agent-wormhole".to_owned(), |name, word| name + "-" + word);
    let Some(page) = pages.iter().find(|page| page.name == wanted) else {
        let known: Vec<&str> =
            pages.iter().filter_map(|page| page.name.strip_prefix("agent-wormhole-")).collect();
        return Err(Failure::usage(anyhow::anyhow!(
            "there is no such page; choose one of {}",
            known.join(", ")
        )));
    };
    output::data(&page.text).map_err(output::failed)?;
    Ok(Exit::Done)
}

/// A page of the manual.
struct Page {
    /// `agent-wormhole-wait`; its file has the section behind.
    name: String,
    /// For `man`.
    text: String,
}

/// The page of the program, and those of all commands that its help shows.
fn pages() -> std::io::Result<Vec<Page>> {
    // Every page has what `help` would say.
    let mut args = Args::command().disable_help_subcommand(true);
    args.build();
    let mut open = vec![args];
    let mut pages = Vec::new();
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
        pages.push(page(command)?);
    }
    pages.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pages)
}

fn write(dir: &Path, pages: &[Page]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    for page in pages {
        fs::write(dir.join(format!("{}.{SECTION}", page.name)), &page.text)?;
    }
    Ok(())
}

fn page(command: Command) -> std::io::Result<Page> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let after = Paragraphs::of(&after);
    let has_flags = command.get_arguments().any(|arg| !arg.is_hide_set());
    let has_commands = command.has_subcommands();
    let man = Man::new(command.subcommand_help_heading("COMMANDS")).section(SECTION);
    let mut text = title(&name).into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    text.write_all(details(&after.rest).as_bytes())?;
    if has_flags {
        man.render_options_section(&mut text)?;
    }
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    text.write_all(section("EXIT STATUS", &after.exit_codes).as_bytes())?;
    text.write_all(section("EXAMPLES", &after.examples).as_bytes())?;
    text.write_all(see_also(&name).as_bytes())?;
    Ok(Page { name, text: String::from_utf8_lossy(&text).into_owned() })
}

/// The first line. There is no date in it, so that the same source makes the same page; roff's own writer leaves an empty
/// argument out, and all that follow would move up.
fn title(name: &str) -> String {
    format!(
        ".TH \"{}\" \"{SECTION}\" \"\" \"agent-wormhole {}\" \"{MANUAL}\"\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION")
    )
}

/// What the help says after the flags, sorted as a manual does.
#[derive(Default)]
struct Paragraphs<'a> {
    rest: Vec<Vec<&'a str>>,
    exit_codes: Vec<&'a str>,
    examples: Vec<&'a str>,
}

impl<'a> Paragraphs<'a> {
    fn of(help: &'a str) -> Self {
        let mut sorted = Self::default();
        for paragraph in help.split("\n\n") {
            let lines: Vec<&str> = paragraph.lines().filter(|line| !line.is_empty()).collect();
            match lines.split_first() {
                None => {}
                Some((&("Example:" | "Examples:"), examples)) => sorted.examples = examples.to_vec(),
                Some((first, others)) if first.starts_with(EXIT_CODES) => {
                    let first = first.trim_start_matches(EXIT_CODES).trim_start();
                    sorted.exit_codes = Some(first).filter(|first| !first.is_empty()).into_iter().collect();
                    sorted.exit_codes.extend(others);
                }
                Some(_) => sorted.rest.push(lines),
            }
        }
        sorted
    }
}

/// Paragraphs that go on with the description.
fn details(paragraphs: &[Vec<&str>]) -> String {
    let mut page = Roff::new();
    for lines in paragraphs {
        page.control("PP", []);
        laid_out(&mut page, lines);
    }
    page.to_roff()
}

/// A section of its own, where there is something for it.
fn section(heading: &str, lines: &[&str]) -> String {
    let mut page = Roff::new();
    if !lines.is_empty() {
        page.control("SH", [heading]);
        laid_out(&mut page, lines);
    }
    page.to_roff()
}

/// Lines one below the other where the help indents some of them, else as running text.
fn laid_out(page: &mut Roff, lines: &[&str]) {
    if !lines.iter().any(|line| line.starts_with(' ')) {
        page.text([roman(lines.join(" "))]);
        return;
    }
    page.control("EX", []);
    for line in lines {
        page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    page.control("EE", []);
}

/// Each page leads to that of the program, and that one to all others by its commands.
fn see_also(name: &str) -> String {
    let mut page = Roff::new();
    page.control("SH", ["SEE ALSO"]);
    if name == "agent-wormhole" {
        page.text([bold("fusermount3"), roman("(1)")]);
    } else {
        page.text([bold("agent-wormhole"), roman("(1)")]);
    }
    page.to_roff()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> String {
        let pages = pages().unwrap();
        let page = pages.into_iter().find(|page| page.name == name).unwrap_or_else(|| panic!("no {name}"));
        // As a reader sees it: a hyphen is a hyphen, and a bold word is a word.
        page.text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
    }

    /// Every command of the help, those within a command, too, under the name of its page.
    fn commands(command: &Command, name: &str) -> Vec<(String, Command)> {
        let inside = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        let inside = inside.flat_map(|inner| commands(inner, &format!("{name}-{}", inner.get_name())));
        [(name.to_owned(), command.clone())].into_iter().chain(inside).collect()
    }

    #[test]
    fn every_command_has_a_page_with_its_flags_values_and_examples() {
        let all = commands(&Args::command(), "agent-wormhole");
        assert!(all.iter().any(|(name, _)| name == "agent-wormhole-relay-healthcheck"));
        assert_eq!(pages().unwrap().len(), all.len());
        for (name, command) in all {
            let text = text(&name);
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let flag = arg.get_long().map(|long| format!("\n--{long}"));
                let takes = arg.get_action().takes_values();
                let value = arg.get_value_names().filter(|_| takes).map(|names| names[0].to_string());
                for word in flag.into_iter().chain(value) {
                    assert!(text.contains(&word), "{name} does not say {word:?}");
                }
                if let Some(variable) = arg.get_env() {
                    assert!(text.contains(&*variable.to_string_lossy()), "{name}: {variable:?}");
                }
            }
            let examples =
                text.split("\n.SH EXAMPLES\n.EX\n").nth(1).unwrap_or_else(|| panic!("{name}: no examples"));
            assert!(examples.contains("agent-wormhole"), "{name}: {examples}");
            assert!(text.contains("\n.SH \"SEE ALSO\"\n"), "{name}");
        }
    }

    #[test]
    fn what_the_help_says_below_its_flags_stands_where_a_manual_has_it() {
        let wait = text("agent-wormhole-wait");
        let order =
            [".SH DESCRIPTION", "WHAT is one of these", ".SH OPTIONS", ".SH \"EXIT STATUS\"", ".SH EXAMPLES"];
        let at = order.map(|part| wait.find(part).unwrap_or_else(|| panic!("no {part} in {wait}")));
        assert!(at.is_sorted(), "{at:?}");
        assert!(!wait.contains("Exit codes:"), "{wait}");
        let program = text("agent-wormhole");
        assert!(program.contains("\n.SH \"EXIT STATUS\"\n0 done, 1 internal"), "{program}");
        assert!(
            program.contains("\n.SH COMMANDS\n") && program.contains("agent-wormhole-wait(1)"),
            "{program}"
        );
    }
}
