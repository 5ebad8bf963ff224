//! A finding: what a check found, how good that is, and what to do next.
//!
//! Owns its two forms, the row for people and the line for programs, and what all findings together mean. Looks at nothing.

use std::io;
use std::time::Duration;

use console::measure_text_width;
use serde::{Serialize, Serializer};

use crate::cli::exit::Exit;
use crate::cli::output::{Look, Tone};
use crate::event::escape::{self, visible};

/// Where states begin: the longest name of a check, and a gap.
const NAMES: usize = 17;
/// Where texts begin: the longest state, and a gap.
const TEXTS: usize = NAMES + 6;
/// A terminal that leaves less than this for texts gets them unbroken.
const NARROW: usize = 20;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// There is nothing to check, or a check before it failed.
    Skip,
    /// As it should be.
    Ok,
    /// It works, and something should be known.
    Warn,
    /// A channel would not come about, or not as it was asked for.
    Fail,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::Skip => Tone::Faint,
            Self::Ok => Tone::Good,
            Self::Warn => Tone::Wary,
            Self::Fail => Tone::Bad,
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Its name.
    pub(super) check: &'static str,
    /// How good it is.
    pub(super) state: State,
    /// What was found.
    pub(super) detail: String,
    /// What to do, where it is not good.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
    /// How long it took, where that tells something.
    #[serde(rename = "ms", skip_serializing_if = "Option::is_none", serialize_with = "some_millis")]
    pub(super) took: Option<Duration>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, state: State::Ok, detail: detail.into(), advice: None, took: None }
    }

    pub(super) fn skip(check: &'static str, detail: impl Into<String>) -> Self {
        Self { state: State::Skip, ..Self::ok(check, detail) }
    }

    pub(super) fn warn(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warn, advice: Some(advice.into()), ..Self::ok(check, detail) }
    }

    pub(super) fn fail(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Fail, ..Self::warn(check, detail, advice) }
    }

    /// A failure in the words of an error, which says what to do behind its last semicolon.
    pub(super) fn of_error(check: &'static str, text: &str) -> Self {
        match text.rsplit_once("; ") {
            Some((detail, advice)) => Self::fail(check, detail, advice),
            None => Self::fail(check, text, "put right what the message names"),
        }
    }

    pub(super) fn after(self, took: Duration) -> Self {
        Self { took: Some(took), ..self }
    }

    /// The line for programs.
    pub(super) fn line(&self) -> io::Result<String> {
        escape::to_line(self)
    }

    /// The row for people, and below it what to do.
    pub(super) fn row(&self, look: Look) -> String {
        let took = self.took.map(|took| format!(" ({})", shown(took))).unwrap_or_default();
        let mut out = format!("{:NAMES$}", self.check);
        out.push_str(&look.paint(&format!("{:5}", self.state.as_str()), self.state.tone()));
        out.push(' ');
        out.push_str(&hanging(&(visible(&self.detail) + &took), look.width));
        if let Some(advice) = &self.advice {
            out.push('\n');
            out.push_str(&" ".repeat(TEXTS));
            out.push_str(&look.paint(&hanging(&format!("→ {}", visible(advice)), look.width), Tone::Wary));
        }
        out
    }
}

/// Milliseconds with one digit behind the point.
pub(super) fn millis<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn some_millis<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    millis(&took.unwrap_or_default(), serializer)
}

/// A time for a person.
pub(super) fn shown(took: Duration) -> String {
    if took >= Duration::from_secs(10) {
        format!("{:.0} s", took.as_secs_f64())
    } else {
        format!("{:.1} ms", took.as_secs_f64() * 1000.0)
    }
}

/// The text in lines that fit below each other, where the terminal has a width.
fn hanging(text: &str, width: Option<usize>) -> String {
    let Some(room) = width.and_then(|width| width.checked_sub(TEXTS)).filter(|room| *room >= NARROW) else {
        return text.to_owned();
    };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{}", " ".repeat(TEXTS)))
}

/// All findings together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    /// The worst of them.
    summary: State,
    ok: usize,
    warn: usize,
    fail: usize,
    skip: usize,
    /// The exit code.
    exit: u8,
}

impl Summary {
    pub(super) fn of(findings: &[Finding], exit: Exit) -> Self {
        let count = |state| findings.iter().filter(|finding| finding.state == state).count();
        let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok).max(State::Ok);
        Self {
            summary: worst,
            ok: count(State::Ok),
            warn: count(State::Warn),
            fail: count(State::Fail),
            skip: count(State::Skip),
            exit: exit.code(),
        }
    }

    /// The line for programs.
    pub(super) fn line(&self) -> io::Result<String> {
        escape::to_line(self)
    }

    /// The same for people.
    pub(super) fn row(&self, look: Look) -> String {
        let verdict = match self.summary {
            State::Fail => "something failed: see → above",
            State::Warn => "a channel works here; see the warnings above",
            State::Ok | State::Skip => "all is well",
        };
        let Self { ok, warn, fail, skip, .. } = self;
        let counts = format!("{ok} ok, {warn} warn, {fail} fail, {skip} skip");
        format!("\n{} ({counts})", look.paint(verdict, self.summary.tone()))
    }
}

/// How the program ends with these: 0 where nothing failed, 4 where only the relay did, else 1. The canary has an end of its
/// own.
pub(super) fn exit(findings: &[Finding]) -> Exit {
    let failed = || findings.iter().filter(|finding| finding.state == State::Fail);
    if failed().next().is_none() {
        Exit::Done
    } else if failed().all(|finding| finding.check.starts_with("relay")) {
        Exit::Unreachable
    } else {
        Exit::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { width: None, colour: false };

    #[test]
    fn a_line_for_programs_is_escaped_and_says_no_more_than_there_is() {
        let finding = Finding::ok("relay.tcp", "a\u{1b}[2J\u{202e}b").after(Duration::from_micros(12_345));
        assert_eq!(
            finding.line().unwrap(),
            r#"{"check":"relay.tcp","state":"ok","detail":"a\u001b[2J\u202eb","ms":12.3}"#
        );
        let finding = Finding::fail("fuse", "no", "say\n\"yes\"");
        assert_eq!(
            finding.line().unwrap(),
            r#"{"check":"fuse","state":"fail","detail":"no","do":"say\n\"yes\""}"#
        );
    }

    #[test]
    fn a_row_for_people_is_aligned_broken_at_words_and_free_of_controls() {
        let finding = Finding::warn("fuse", "there is no mount\u{7}", "install fuse3");
        assert_eq!(
            finding.row(PLAIN),
            "fuse             warn  there is no mount\\u0007\n                       → install fuse3"
        );
        let narrow = finding.row(Look { width: Some(45), colour: false });
        assert_eq!(narrow.lines().count(), 3, "{narrow}");
        assert!(narrow.lines().all(|line| measure_text_width(line) <= 45), "{narrow}");
        let painted = finding.row(Look { width: None, colour: true });
        assert_eq!(console::strip_ansi_codes(&painted), finding.row(PLAIN));
        let tiny = finding.row(Look { width: Some(8), colour: false });
        assert_eq!(tiny, finding.row(PLAIN));
    }

    #[test]
    fn the_exit_code_says_whose_fault_it_is() {
        let (fine, known) = (Finding::ok("a", ""), Finding::warn("fuse", "", ""));
        let (relay, machine) = (Finding::fail("relay.tcp", "", ""), Finding::fail("directory", "", ""));
        for (findings, expected) in [
            (vec![], Exit::Done),
            (vec![fine.clone(), known.clone()], Exit::Done),
            (vec![fine.clone(), relay.clone()], Exit::Unreachable),
            (vec![relay, machine.clone()], Exit::Internal),
            (vec![machine], Exit::Internal),
        ] {
            assert_eq!(exit(&findings), expected, "{findings:?}");
        }
        let summary = Summary::of(&[fine, known], Exit::Done);
        assert_eq!(
            summary.line().unwrap(),
            r#"{"summary":"warn","ok":1,"warn":1,"fail":0,"skip":0,"exit":0}"#
        );
    }

    #[test]
    fn an_error_is_parted_into_what_is_and_what_to_do() {
        let finding = Finding::of_error("directory", "a; b is not; do this");
        assert_eq!((finding.detail.as_str(), finding.advice.as_deref()), ("a; b is not", Some("do this")));
        assert!(Finding::of_error("directory", "no").advice.is_some());
    }
}
