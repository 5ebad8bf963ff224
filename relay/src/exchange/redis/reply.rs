//! What a script answers.
//!
//! Owns the reading of replies. They come from our own scripts, but by way of a server that is not ours: whatever is
//! missing reads as empty, and what is not understood is no seat and no frame.

use std::time::Instant;

use bytes::Bytes;
use redis::Value;

use super::hold::Given;
use crate::exchange::{Due, Ended, Refusal};
use crate::rules::FRAME_OVERHEAD;
use crate::wire::{ErrorCode, Id, Status};

/// A reply of a script: a word, the numbers of sockets to wake, and what else there is.
#[derive(Debug, Default)]
pub(super) struct Reply {
    word: String,
    pub rings: Vec<u64>,
    rest: Vec<Value>,
}

impl Reply {
    pub fn new(value: Value) -> Self {
        let mut items = list(value).into_iter();
        let word = items.next().map(string).unwrap_or_default();
        let rings = items.next().map(list).unwrap_or_default().iter().map(number).collect();
        Self { word, rings, rest: items.collect() }
    }

    pub fn is_ok(&self) -> bool {
        self.word == "ok"
    }

    /// The boot is another.
    pub fn is_forgotten(&self) -> bool {
        self.word == "forgot"
    }

    /// The connection was given up.
    pub fn is_stale(&self) -> bool {
        self.word == "stale"
    }

    pub fn is_unpaired(&self) -> bool {
        self.word == "unpaired"
    }

    /// Why nobody was seated.
    pub fn refusal(&self) -> Option<Refusal> {
        Some(Refusal::Code(match self.word.as_str() {
            "ok" => return None,
            // Whoever asked does not wait any more.
            "late" => return Some(Refusal::Away),
            "crowded" => return Some(Refusal::Crowded),
            "unable_to_join" => ErrorCode::UnableToJoin,
            "nameplate_lost" => ErrorCode::NameplateLost,
            "unable_to_resume" => ErrorCode::UnableToResume,
            "too_many_channels" => ErrorCode::TooManyChannels,
            "too_many_failed_joins" => ErrorCode::TooManyFailedJoins,
            _ => ErrorCode::Busy,
        }))
    }

    /// Why the hold is over.
    pub fn ended(&self) -> Option<Ended> {
        Some(match self.word.as_str() {
            "over" => Ended::Over,
            "replaced" => Ended::Replaced,
            "released" => Ended::Released,
            _ => return None,
        })
    }

    /// The number at this place behind the rings.
    pub fn number(&self, at: usize) -> u64 {
        self.rest.get(at).map(number).unwrap_or_default()
    }

    /// The text at this place behind the rings.
    pub fn text(&self, at: usize) -> String {
        self.rest.get(at).cloned().map(string).unwrap_or_default()
    }

    /// What is due, and what was given for it; `None` where the next frame is too long for this connection.
    pub fn due(&mut self, boot: &Id, instant: impl Fn(u64) -> Instant) -> Option<(Due, Vec<Given>)> {
        if self.number(3) != 0 {
            return None;
        }
        let again = self.number(2);
        let mut rest = std::mem::take(&mut self.rest).into_iter();
        let statuses = rest.next().map(list).unwrap_or_default();
        let mut frames = rest.next().map(list).unwrap_or_default().into_iter();
        let mut due = Due {
            statuses: statuses.into_iter().filter_map(|value| status(&string(value), boot)).collect(),
            frames: Vec::new(),
            again: (again > 0).then(|| instant(again)),
        };
        let mut given = Vec::new();
        while let (Some(serial), Some(payer), Some(Value::BulkString(frame))) =
            (frames.next(), frames.next(), frames.next())
        {
            let cost = frame.len() + FRAME_OVERHEAD;
            given.push(Given { serial: number(&serial), payer: string(payer), cost });
            due.frames.push(Bytes::from(frame));
        }
        Some((due, given))
    }
}

fn status(text: &str, boot: &Id) -> Option<Status> {
    Some(match text {
        "throttled" => Status::Throttled,
        "peer_away" => Status::PeerAway,
        "peer_back" => Status::PeerBack,
        "peer_left" => Status::PeerLeft,
        other => Status::Paired { channel: other.strip_prefix("paired:")?.parse().ok()?, boot: *boot },
    })
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn string(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        Value::SimpleString(text) => text,
        _ => String::new(),
    }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Int(number) => u64::try_from(*number).unwrap_or_default(),
        _ => 0,
    }
}
