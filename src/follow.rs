//! The events of a channel as they come, for whoever did not start it: `inbox/log.jsonl` read from outside.
//!
//! Owns what counts as an event line, which of them were seen, and the way from one log to the next when it is rotated.
//! [`Follower`] decides and reads nothing; [`Tail`] reads the files and decides nothing about a line. Knows a channel by
//! its directory alone and writes nothing there.

mod line;
mod reader;
mod tail;

use std::ops::RangeInclusive;

pub use self::line::Line;
pub use self::tail::{Next, Tail};

/// Longest line that is read, in bytes: a text's names and body, escaped, stay far below. What is longer is no event.
pub const MAX_LINE: usize = 1 << 20;

/// What bytes of a log turned out to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An event that was not seen yet.
    Event(Box<Line>),
    /// Something that is no event.
    Foreign,
}

/// Cuts bytes into lines and lets each event through once, in the order of its number.
#[derive(Debug)]
pub struct Follower {
    /// Number of the last event that was let through, or that is not wanted.
    last: u64,
    /// The highest number in this file, of whatever line.
    reached: u64,
    /// The beginning of a line whose end has not come.
    half: Vec<u8>,
    /// The line is too long: all of it is passed over.
    endless: bool,
}

impl Follower {
    /// Lets through what comes after this number.
    #[must_use]
    pub const fn new(since: u64) -> Self {
        Self { last: since, reached: 0, half: Vec::new(), endless: false }
    }

    /// What has this number or a lower one is not wanted any more.
    pub fn pass(&mut self, upto: u64) {
        self.last = self.last.max(upto);
    }

    /// Number of the last event that was let through or passed.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The highest number of any line since the last [`restart`](Self::restart).
    #[must_use]
    pub const fn reached(&self) -> u64 {
        self.reached
    }

    /// How many bytes of a line wait for its end.
    #[must_use]
    pub fn held(&self) -> usize {
        self.half.len()
    }

    /// What comes next is from another place: half a line of the one before is none.
    pub fn restart(&mut self) {
        *self = Self::new(self.last);
    }

    /// Reads on, and lets through what is below a number. Half a line at the end is kept for the next bytes.
    pub fn feed(&mut self, bytes: &[u8], below: u64, mut found: impl FnMut(Found)) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !self.endless {
                self.half.extend_from_slice(part);
                self.endless = self.half.len() > MAX_LINE;
            }
            if self.endless {
                self.half = Vec::new();
            }
            if !part.ends_with(b"\n") {
                continue;
            }
            let whole = std::mem::take(&mut self.half);
            if std::mem::take(&mut self.endless) {
                found(Found::Foreign);
            } else {
                self.line(&whole, below, &mut found);
            }
        }
    }

    fn line(&mut self, whole: &[u8], below: u64, found: &mut impl FnMut(Found)) {
        // The usual case of who has seen most of it: not looked at any further.
        if let Some(seq) = line::number(whole)
            && (seq <= self.last || seq >= below)
        {
            self.reached = self.reached.max(seq);
            return;
        }
        match Line::parse(whole) {
            Some(line) => {
                self.reached = self.reached.max(line.seq);
                if line.is_event() && self.last < line.seq && line.seq < below {
                    self.last = line.seq;
                    found(Found::Event(Box::new(line)));
                }
            }
            None if whole.trim_ascii().is_empty() => {}
            None => found(Found::Foreign),
        }
    }
}

/// Where events that were missed are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// `transcript.jsonl` has them before this number.
    pub transcript: Option<u64>,
    /// `log.1.jsonl` has some.
    pub old: bool,
}

impl Plan {
    /// What to read before a log that begins with number `log`, after all up to `last` was seen; the older log begins
    /// with number `old`.
    #[must_use]
    pub fn new(last: u64, log: u64, old: Option<u64>) -> Self {
        // What this side sent has numbers, too, and is in no log: the numbers in between may be nothing but that.
        let begins = |first: u64| first <= last.saturating_add(1);
        match old {
            _ if begins(log) => Self { transcript: None, old: false },
            Some(old) if begins(old) && old < log => Self { transcript: None, old: true },
            Some(old) if old < log => Self { transcript: Some(old), old: true },
            // There is none, or it is the copy of a log that is about to be emptied.
            Some(_) | None => Self { transcript: Some(log), old: false },
        }
    }
}

/// Which numbers are in no file any more, where the transcript was read for what is before `upto`: it ends with number
/// `end`. Numbers that it skips are no events.
#[must_use]
pub fn missing(last: u64, end: u64, upto: u64) -> Option<RangeInclusive<u64>> {
    let first = last.max(end).saturating_add(1);
    (first < upto).then(|| first..=upto - 1)
}

#[cfg(test)]
mod tests;
