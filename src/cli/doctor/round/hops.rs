//! The steps of a canary: as an end's log tells them, and as they are shown.
//!
//! Owns the reading of the log and the arithmetic. Waits for nothing.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::doctor::finding::{millis, shown};
use crate::crypto::pake::Role;
use crate::event::escape;

/// A step that an end has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::doctor) struct Mark {
    pub(super) end: Role,
    /// Its word in the log.
    pub(super) hop: String,
    /// The item, where it is a step of one.
    pub(super) item: Option<u64>,
    pub(super) at: Timestamp,
}

impl Mark {
    /// Reads a line of an end's log: `TIME DEBUG hop="WORD" item=NUMBER`. Other lines are none.
    pub(super) fn read(end: Role, line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let at = words.next()?.parse().ok()?;
        if words.next()? != "DEBUG" {
            return None;
        }
        let hop = words.next()?.strip_prefix("hop=\"")?.strip_suffix('"')?.to_owned();
        let item = words.next().and_then(|word| word.strip_prefix("item=")?.parse().ok());
        Some(Self { end, hop, item, at })
    }
}

/// A step of the canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli::doctor) struct Hop {
    /// Its name.
    hop: String,
    /// How long it took.
    #[serde(rename = "ms", serialize_with = "millis")]
    took: Duration,
}

impl Hop {
    /// Between two moments; what was before nothing took no time: clocks are read by two processes.
    pub(super) fn between(hop: impl Into<String>, from: Timestamp, to: Timestamp) -> Self {
        let took = to.duration_since(from).try_into().unwrap_or_default();
        Self { hop: hop.into(), took }
    }

    /// The line for programs.
    pub(in crate::cli::doctor) fn line(&self) -> io::Result<String> {
        escape::to_line(self)
    }

    /// The row for people.
    pub(in crate::cli::doctor) fn row(&self) -> String {
        format!("  {:26}{:>12}", self.hop, shown(self.took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_from_the_log_and_nothing_else_is() {
        let mark =
            Mark::read(Role::Host, r#"2026-11-26T01:00:00.123456Z DEBUG hop="settled" item=3"#).unwrap();
        assert_eq!((mark.hop.as_str(), mark.item), ("settled", Some(3)));
        assert_eq!(mark.at.subsec_microsecond(), 123_456);
        let mark = Mark::read(Role::Host, r#"2026-11-26T01:00:00.123456Z DEBUG hop="linked""#).unwrap();
        assert_eq!((mark.hop.as_str(), mark.item), ("linked", None));
        for line in [
            "",
            "agent-wormhole: no",
            r#"2026-11-26T01:00:00.1Z  WARN hop="settled" item=3"#,
            r#"2026-11-26T01:00:00.1Z DEBUG an item hop="settled""#,
            r#"yesterday DEBUG hop="settled""#,
        ] {
            assert_eq!(Mark::read(Role::Host, line), None, "{line}");
        }
    }

    #[test]
    fn a_step_has_its_time_and_never_less_than_none() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (one, two) = (at("2026-11-26T01:00:00Z"), at("2026-11-26T01:00:00.2034Z"));
        let hop = Hop::between("to_peer.text.settled", one, two);
        assert_eq!(hop.line().unwrap(), r#"{"hop":"to_peer.text.settled","ms":203.4}"#);
        assert_eq!(hop.row(), "  to_peer.text.settled          203.4 ms");
        assert_eq!(Hop::between("x", two, one).line().unwrap(), r#"{"hop":"x","ms":0.0}"#);
    }
}
