//! One line of a log.
//!
//! Owns which of its members are looked at. What a line means to whoever reads it is theirs.

use std::borrow::Cow;

use serde::Deserialize;

/// An event line, and what it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The line itself, without its newline.
    pub text: String,
    /// Its number.
    pub seq: u64,
    /// `status`, `text`, `file`, `dir`, or what a newer program says.
    pub kind: String,
    /// `peer`, or `self` in a transcript; empty in a status.
    pub from: String,
    /// The word of a status; else empty.
    pub event: String,
    /// Of an item: under which name it is in the inbox, or was refused.
    pub name: String,
    /// Of an item that was saved under another name: the one it was sent with.
    pub sent_as: String,
    /// Of an item: its number among what its sender sent; absent where it got none.
    pub id: Option<u64>,
    /// Of a refused item: who refused.
    pub by: String,
    /// More words.
    pub detail: String,
    /// Of the last line: how `host` or `connect` ends.
    pub exit: Option<u64>,
    /// Of a burst: how many.
    pub count: u64,
}

#[derive(Deserialize)]
struct Members<'a> {
    seq: u64,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    from: Cow<'a, str>,
    #[serde(default, borrow)]
    event: Cow<'a, str>,
    #[serde(default, borrow)]
    name: Cow<'a, str>,
    #[serde(default, borrow)]
    sent_as: Cow<'a, str>,
    #[serde(default)]
    id: Option<u64>,
    #[serde(default, borrow)]
    by: Cow<'a, str>,
    #[serde(default, borrow)]
    detail: Cow<'a, str>,
    #[serde(default)]
    exit: Option<u64>,
    #[serde(default)]
    count: u64,
}

impl Line {
    /// Reads a line; `None` where it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?.trim_end_matches(['\r', '\n']);
        let Members { seq, kind, from, event, id, name, sent_as, by, detail, exit, count } =
            serde_json::from_str(text).ok()?;
        let [kind, from, event] = [kind, from, event].map(Cow::into_owned);
        let [name, sent_as, by, detail] = [name, sent_as, by, detail].map(Cow::into_owned);
        let text = text.to_owned();
        Some(Self { text, seq, kind, from, event, id, name, sent_as, by, detail, exit, count })
    }

    /// Whether it is an event: what this side sent stands in a transcript and is none.
    #[must_use]
    pub fn is_event(&self) -> bool {
        self.from != "self"
    }

    /// Whether it is the last one of its channel.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.kind == "status" && self.event == "closed"
    }
}

/// The number of a line whose last members are `seq` and `at`, without reading the rest. Inside a string the quotes would
/// be escaped.
pub(super) fn number(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b",\"seq\":";
    let at = line.windows(KEY.len()).rposition(|window| window == KEY)?;
    let digits = line.get(at + KEY.len()..)?;
    let length = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    str::from_utf8(digits.get(..length)?).ok()?.parse().ok()
}
