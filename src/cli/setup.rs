//! `agent-wormhole setup`: the skill, for an agent to read or to have.
//!
//! Owns what is said about it. Where files go and which may be touched is `skill`'s.

use std::path::{Path, PathBuf};

use super::args::{SetupArgs, SetupTarget};
use super::exit::{Exit, Failure};
use super::output;
use crate::event::escape::{shell_word, visible};
use crate::skill::{self, Done, Harness, Scope, SkillError, State, Surroundings, Target};

/// Columns of the word that says what was done, or how something stands.
const WORD: usize = 10;

pub(super) fn run(args: &SetupArgs) -> Result<Exit, Failure> {
    let around = Surroundings::from_env(&super::cwd()?);
    let Some(target) = args.target else {
        let text = if output::person_reads() { overview(&around)? } else { instructions(&program()) };
        output::data(&text).map_err(output::failed)?;
        return Ok(Exit::Done);
    };
    let scope = if args.project { Scope::Project } else { Scope::User };
    let targets = around.targets(&target.harnesses(args.project), scope)?;
    let mut all = Told::default();
    for target in &targets {
        match (args.check, args.remove) {
            (true, _) => all.check(target),
            (_, true) => all.done(target.remove(), target),
            _ => all.done(target.install(), target),
        }
    }
    all.tell()
}

/// What is said at the end, about all targets.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    errors: Vec<SkillError>,
    /// Whether something is to be done.
    wanting: bool,
}

impl Told {
    fn check(&mut self, target: &Target) {
        match target.state() {
            Ok(state) => {
                self.wanting |= !state.is_current();
                self.lines.push(format!("{:WORD$} {}", word(&state), shown(&target.path)));
            }
            Err(error) => self.errors.push(error),
        }
    }

    fn done(&mut self, done: Result<Vec<Done>, SkillError>, target: &Target) {
        match done {
            Ok(done) => self.lines.extend(done.iter().map(|done| line(done, target))),
            Err(error) => self.errors.push(error),
        }
    }

    /// Prints what was done, and gives back the first error after the others were told.
    fn tell(self) -> Result<Exit, Failure> {
        if !self.lines.is_empty() {
            output::data(&self.lines.join("\n")).map_err(output::failed)?;
        }
        let mut errors = self.errors.into_iter();
        let first = errors.next();
        for error in errors {
            output::failure(&error.into());
        }
        match first {
            Some(error) => Err(error.into()),
            None if self.wanting => {
                output::note("not all of it is current: run the same without --check");
                Ok(Exit::Internal)
            }
            None => Ok(Exit::Done),
        }
    }
}

impl From<SkillError> for Failure {
    fn from(error: SkillError) -> Self {
        let exit = if error.is_usage() { Exit::Usage } else { Exit::Internal };
        Self { exit, why: error.into() }
    }
}

/// `created    /home/x/.agents/skills/agent-wormhole/SKILL.md (codex, gemini, cursor)`
fn line(done: &Done, target: &Target) -> String {
    let link = done.link_to.as_ref().map(|to| format!(" -> {}", shown(to))).unwrap_or_default();
    let read =
        if done.path == target.path { format!(" ({})", readers(&target.readers)) } else { String::new() };
    format!("{:WORD$} {}{link}{read}", done.change.as_str(), shown(&done.path))
}

fn readers(harnesses: &[Harness]) -> String {
    harnesses.iter().map(|harness| harness.as_str()).collect::<Vec<_>>().join(", ")
}

/// How something stands, in a word or a few.
fn word(state: &State) -> String {
    match state {
        State::Missing => "missing".to_owned(),
        State::Current => "current".to_owned(),
        State::Old { version } => format!("old {}", visible(version)),
        State::Newer { version } => format!("newer {}", visible(version)),
        State::Edited => "edited".to_owned(),
        State::Dangling => "dangling".to_owned(),
        State::Foreign { .. } => "foreign".to_owned(),
    }
}

fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

/// What a person sees: every place, and how it stands there. Nothing is written.
fn overview(around: &Surroundings) -> Result<String, Failure> {
    let mut text = String::from("Nothing is written yet. Name whom the skill is for:\n");
    for scope in [Scope::User, Scope::Project] {
        let flag = if scope == Scope::Project { " --project" } else { "" };
        for target in around.targets(&SetupTarget::All.harnesses(scope == Scope::Project), scope)? {
            let state = match target.state() {
                Ok(state) => word(&state),
                Err(error) => visible(&error.to_string()),
            };
            text += &format!("\n  agent-wormhole setup {}{flag}\n", first(&target.readers));
            if target.readers.len() > 1 {
                text += &format!("      is for {}, which read the same file\n", readers(&target.readers));
            }
            text += &format!("      {}: {state}\n", shown(&target.path));
        }
    }
    Ok(
        text + "\n  agent-wormhole setup all [--project]\n  agent-wormhole setup | claude      an agent reads it, and installs it itself\n"
    )
}

fn first(harnesses: &[Harness]) -> &'static str {
    harnesses.first().map_or("all", |harness| harness.as_str())
}

/// What an agent reads: what to do to have the skill for good, and the skill.
fn instructions(program: &str) -> String {
    let body = skill::TEXT.splitn(3, "---\n").nth(2).unwrap_or(skill::TEXT).trim_start();
    format!(
        "This is the skill of agent-wormhole, for you to read. If your human piped or pasted it to you to set it up, install it \
         now: run the one of these that is for you. It writes the file itself and shows what it wrote.\n\n    \
         {program} setup claude      # Claude Code\n    \
         {program} setup codex       # or gemini, cursor: the three read one file\n    \
         {program} setup agents-md   # any other: a block in the project's AGENTS.md\n\n\
         Then say in one sentence that it is installed, and that a new session has it (in Claude Code as /agent-wormhole). Open \
         no channel before you are asked to. If you only looked up how the program is used, install nothing and read on.\n\n{body}"
    )
}

/// What an agent is to type for this program: as it was typed here, where that is a path.
fn program() -> String {
    let typed = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let here = typed.components().count() > 1;
    let path = if here { std::path::absolute(&typed).ok() } else { None };
    path.map_or_else(|| String::from("agent-wormhole"), |path| shell_word(&shown(&path)))
}
