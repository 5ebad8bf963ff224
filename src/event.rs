//! Events: the public JSON-lines contract of standard output, `inbox/log.jsonl` and `transcript.jsonl`.
//!
//! Owns what a line looks like: one compact object, `type` and then `event` or `from` first, `seq` and `at` last, every
//! string through the one escaper. Reads no clock and writes no file: the number and the time are arguments
//! ([`Stamp`]). Readers ignore members that they do not know.

/// The first line.
mod channel;
/// The one escaper.
pub mod escape;
/// Exit codes.
mod exit;
/// The steps of a way to the other end.
mod hop;
/// What arrived, and what was sent.
mod item;
/// `status.json`.
pub mod state;

use std::time::SystemTime;

use jiff::Timestamp;

pub use self::channel::{ChannelEvent, Via};
use self::escape::{push_json, shortened};
pub use self::exit::Exit;
pub use self::hop::Hop;
pub use self::item::{
    DirEvent, FileEvent, LengthClass, QuestionEvent, SecretEvent, Sent, SentQuestion, TextEvent,
};

/// Longest body that stands in a line, in bytes; a longer text has `saved_to` and `size` only.
pub const MAX_BODY: usize = 1024;
/// Most names in `pending` and `undelivered`; the others are counted beside them.
pub const MAX_NAMES: usize = 20;
/// Longest `detail` in bytes; it may quote a peer, and every byte costs a reader attention. Ends in `…` where cut.
pub const MAX_DETAIL: usize = 600;
/// Longest name in bytes of an item of the peer's that is not in the inbox: in `pending`, and where it was refused.
/// Ends in `…` where cut.
pub const MAX_FOREIGN_NAME: usize = 255;

/// Number and time of a line. Numbers rise by one within a channel; the time is the caller's.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Number of the line.
    pub seq: u64,
    /// When it happened.
    pub at: SystemTime,
}

/// What a channel tells its reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The channel itself.
    Status(StatusEvent),
    /// A text from the peer.
    Text(TextEvent),
    /// A file from the peer.
    File(FileEvent),
    /// A directory from the peer.
    Dir(DirEvent),
    /// A secret from the peer.
    Secret(SecretEvent),
    /// A question from the peer.
    Ask(QuestionEvent),
    /// The peer's answer to a question of this side.
    Answer(QuestionEvent),
}

impl Event {
    /// The line for standard output, without its newline. That of [`StatusEvent::Channel`] holds the code.
    #[must_use]
    pub fn to_line(&self, stamp: Stamp) -> String {
        self.render(stamp, Audience::Starter)
    }

    /// The line for `log.jsonl`, without its newline: no code is in it.
    #[must_use]
    pub fn to_log_line(&self, stamp: Stamp) -> String {
        self.render(stamp, Audience::Disk)
    }

    fn render(&self, stamp: Stamp, audience: Audience) -> String {
        match self {
            Self::Status(status) => {
                let mut line = Line::new("status");
                line.text("event", status.word());
                status.members(&mut line, audience);
                line.end(stamp)
            }
            Self::Text(text) => text.to_line(stamp),
            Self::File(file) => file.to_line(stamp),
            Self::Dir(dir) => dir.to_line(stamp),
            Self::Secret(secret) => secret.to_line(stamp),
            Self::Ask(question) => question.to_line("ask", stamp),
            Self::Answer(answer) => answer.to_line("answer", stamp),
        }
    }
}

/// Who reads a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// Who started the program, and is to hand the code on.
    Starter,
    /// A file: the code is left out.
    Disk,
}

/// More words about a status, where there are any. Shortened to [`MAX_DETAIL`].
pub type Detail = Option<String>;

/// What happened to the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusEvent {
    /// It exists: the first line of a host or a connected end.
    Channel(ChannelEvent),
    /// The relay is told this code, and can read all that is sent under it.
    LegacyCode(Detail),
    /// It waits for the peer.
    Waiting(Detail),
    /// The handshake is done.
    Connected {
        /// How the frames travel.
        transport: TransportKind,
        /// The protocol both ends speak.
        protocol: u32,
    },
    /// The link is gone; another is being made.
    Reconnecting(Detail),
    /// There is a link again.
    Reconnected(Detail),
    /// Nothing was heard from the peer for a while; the channel waits.
    PeerAway(Detail),
    /// The peer is heard again.
    PeerBack(Detail),
    /// The peer has closed the channel; what it sent stays readable.
    PeerClosed(Detail),
    /// An item was refused.
    Refused(RefusedEvent),
    /// Plain content that was sent looks like a credential.
    Credential(CredentialEvent),
    /// A transfer has made no progress for a while.
    Stalled(Detail),
    /// The relay delays this channel.
    Throttled(Detail),
    /// The end. The last line.
    Closed(ClosedEvent),
    /// A record did not open: somebody changed it on the way.
    Tampered(Detail),
    /// The peer broke the protocol.
    PeerError(Detail),
    /// The number of a waiting host was given to somebody else.
    NameplateLost(Detail),
    /// The other end did not have the code, or somebody guessed.
    HandshakeFailed(Detail),
    /// No connection could be made.
    ConnectionFailed {
        /// Where on the way it failed.
        hop: Hop,
        /// Why, and what to do.
        detail: Detail,
    },
    /// The time that was given is over.
    Timeout(Detail),
    /// Something on this machine failed.
    Error(Detail),
    /// Events came faster than the local limit and are in `inbox/` only.
    Burst {
        /// How many.
        count: u64,
    },
    /// First line of a log whose earlier lines were moved to `log.1.jsonl`.
    Rotated,
}

impl StatusEvent {
    /// Its word in the `event` member.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Channel(_) => "channel",
            Self::LegacyCode(_) => "legacy_code",
            Self::Waiting(_) => "waiting",
            Self::Connected { .. } => "connected",
            Self::Reconnecting(_) => "reconnecting",
            Self::Reconnected(_) => "reconnected",
            Self::PeerAway(_) => "peer_away",
            Self::PeerBack(_) => "peer_back",
            Self::PeerClosed(_) => "peer_closed",
            Self::Refused(_) => "refused",
            Self::Credential(_) => "credential",
            Self::Stalled(_) => "stalled",
            Self::Throttled(_) => "throttled",
            Self::Closed(_) => "closed",
            Self::Tampered(_) => "tampered",
            Self::PeerError(_) => "peer_error",
            Self::NameplateLost(_) => "nameplate_lost",
            Self::HandshakeFailed(_) => "handshake_failed",
            Self::ConnectionFailed { .. } => "connection_failed",
            Self::Timeout(_) => "timeout",
            Self::Error(_) => "error",
            Self::Burst { .. } => "burst",
            Self::Rotated => "rotated",
        }
    }

    fn members(&self, line: &mut Line, audience: Audience) {
        match self {
            Self::Channel(channel) => channel.members(line, audience),
            Self::Connected { transport, protocol } => {
                line.text("transport", transport.as_str());
                line.number("protocol", u64::from(*protocol));
            }
            Self::Refused(refused) => {
                line.text("by", refused.by.as_str());
                line.maybe_number("id", refused.id);
                match refused.by {
                    Side::Myself => line.text("name", &shortened(&refused.name, MAX_FOREIGN_NAME)),
                    Side::Peer => line.text("name", &refused.name),
                }
                line.detail(&refused.detail);
            }
            Self::Credential(found) => {
                line.text("name", &shortened(&found.name, MAX_FOREIGN_NAME));
                line.text("detail", &shortened(&found.detail, MAX_DETAIL));
            }
            Self::Closed(closed) => {
                line.detail(&closed.detail);
                line.names("undelivered", "undelivered_more", &closed.undelivered, closed.undelivered_more);
                line.number("exit", closed.exit.code().into());
            }
            Self::ConnectionFailed { hop, detail } => {
                line.text("hop", hop.as_str());
                line.detail(detail);
            }
            Self::Burst { count } => line.number("count", *count),
            Self::Rotated => line.text("detail", "earlier lines are in log.1.jsonl"),
            Self::LegacyCode(detail)
            | Self::Waiting(detail)
            | Self::Reconnecting(detail)
            | Self::Reconnected(detail)
            | Self::PeerAway(detail)
            | Self::PeerBack(detail)
            | Self::PeerClosed(detail)
            | Self::Stalled(detail)
            | Self::Throttled(detail)
            | Self::Tampered(detail)
            | Self::PeerError(detail)
            | Self::NameplateLost(detail)
            | Self::HandshakeFailed(detail)
            | Self::Timeout(detail)
            | Self::Error(detail) => line.detail(detail),
        }
    }
}

/// How frames travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// Through a relay.
    Relay,
    /// Over one TCP connection.
    Direct,
}

impl TransportKind {
    /// Its word in events, `status.json` and the list of channels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Direct => "direct",
        }
    }
}

/// Which end did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This end.
    Myself,
    /// The other end.
    Peer,
}

impl Side {
    /// Its word in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Myself => "self",
            Self::Peer => "peer",
        }
    }
}

/// An item that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEvent {
    /// Who refused: the peer (an item of `outbox/`) or this end (an item of the peer's).
    pub by: Side,
    /// The item's number among what its sender sent, where it got one.
    pub id: Option<u64>,
    /// Its name.
    pub name: String,
    /// Why.
    pub detail: Detail,
}

/// Plain content that looks like a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialEvent {
    /// Its name relative to `outbox/`.
    pub name: String,
    /// What it looks like, and what to do.
    pub detail: String,
}

/// How the channel ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClosedEvent {
    /// Why.
    pub detail: Detail,
    /// Names of what was in `outbox/` and is not known to have arrived.
    pub undelivered: Vec<String>,
    /// How many more of them there are.
    pub undelivered_more: u64,
    /// How `host` or `connect` ends.
    pub exit: Exit,
}

/// Bytes that a line rarely exceeds. The one with the code must not grow: each growth leaves a copy behind.
const LINE: usize = 2048;

/// One JSON object on its way.
struct Line {
    out: String,
}

impl Line {
    fn new(kind: &str) -> Self {
        let mut line = Self { out: String::with_capacity(LINE) };
        line.out.push('{');
        line.text("type", kind);
        line
    }

    fn from(kind: &str, side: &str) -> Self {
        let mut line = Self::new(kind);
        line.text("from", side);
        line
    }

    fn key(&mut self, key: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        push_json(&mut self.out, text);
        self.out.push('"');
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.string(text);
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.out.push_str(&number.to_string());
    }

    fn maybe_number(&mut self, key: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(key, number);
        }
    }

    fn body(&mut self, body: Option<&str>) {
        if let Some(body) = body.filter(|body| body.len() <= MAX_BODY) {
            self.text("body", body);
        }
    }

    fn sent_as(&mut self, name: Option<&str>) {
        if let Some(name) = name {
            self.text("sent_as", &shortened(name, MAX_FOREIGN_NAME));
        }
    }

    fn detail(&mut self, detail: &Detail) {
        let Some(detail) = detail else { return };
        self.text("detail", &shortened(detail, MAX_DETAIL));
    }

    fn names(&mut self, key: &str, more_key: &str, names: &[String], more: u64) {
        let shown = &names[..names.len().min(MAX_NAMES)];
        let more = more.saturating_add((names.len() - shown.len()) as u64);
        if !shown.is_empty() {
            self.key(key);
            self.out.push('[');
            for (index, name) in shown.iter().enumerate() {
                if index > 0 {
                    self.out.push(',');
                }
                self.string(name);
            }
            self.out.push(']');
        }
        if more > 0 {
            self.number(more_key, more);
        }
    }

    fn end(mut self, stamp: Stamp) -> String {
        self.number("seq", stamp.seq);
        self.text("at", &utc(stamp.at));
        self.out.push('}');
        self.out
    }
}

/// RFC 3339 in UTC with milliseconds, for example `2026-03-01T12:00:00.250Z`.
#[must_use]
pub fn utc(at: SystemTime) -> String {
    // Outside of the years -9999 to 9999 only: no clock is there.
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests;
