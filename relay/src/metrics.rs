//! The relay's numbers, as Prometheus reads them.
//!
//! Owns their names and what each one counts. No label carries a nameplate, an id or an address: labels are words of
//! this file. Counting is an atomic addition; what the store holds is asked for when somebody reads.

use std::fmt;

use bytes::Bytes;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::edge::Denied;
use crate::exchange::Usage;
use crate::wire::{ErrorCode, Mood};

/// What every name begins with.
const PREFIX: &str = "agent_wormhole_relay";
/// The outcome of a third party that came to a nameplate with both its ends.
const CROWDED: &str = "crowded";

/// One label: its name and its value.
type Label = [(&'static str, &'static str); 1];

/// The numbers of one relay.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    connections: Gauge,
    sockets: Gauge,
    channels: Gauge,
    queued: Gauge,
    store_up: Gauge,
    frames: Counter,
    bytes: Counter,
    throttles: Counter,
    full: Counter,
    refusals: Family<Label, Counter>,
    denials: Family<Label, Counter>,
    outcomes: Family<Label, Counter>,
}

/// Something that is there as long as this lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let new = Self {
            registry: Registry::with_prefix(PREFIX),
            connections: Gauge::default(),
            sockets: Gauge::default(),
            channels: Gauge::default(),
            queued: Gauge::default(),
            store_up: Gauge::default(),
            frames: Counter::default(),
            bytes: Counter::default(),
            throttles: Counter::default(),
            full: Counter::default(),
            refusals: Family::default(),
            denials: Family::default(),
            outcomes: Family::default(),
        };
        new.registered()
    }
}

impl Metrics {
    /// Names all numbers, and makes each label's value, so that a zero is seen before it moves.
    fn registered(mut self) -> Self {
        for code in CODES {
            self.refusals.get_or_create(&[("code", code_name(code))]).inc_by(0);
        }
        for denied in [Denied::Address, Denied::Token, Denied::Crowded] {
            self.denials.get_or_create(&[("reason", reason(denied))]).inc_by(0);
        }
        for mood in MOODS {
            self.outcomes.get_or_create(&[("mood", mood_name(mood))]).inc_by(0);
        }
        self.outcomes.get_or_create(&[("mood", CROWDED)]).inc_by(0);
        let r = &mut self.registry;
        r.register("build", "Version of the relay", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("connections", "Connections that are open", self.connections.clone());
        r.register("sockets", "Websockets that have a seat", self.sockets.clone());
        r.register("channels", "Channels in the store, present or not", self.channels.clone());
        r.register(
            "queued_bytes",
            "Bytes of frames that wait in the store, with overhead",
            self.queued.clone(),
        );
        r.register("store_up", "Whether the store can be reached", self.store_up.clone());
        r.register("frames", "Frames handed to a receiver's socket", self.frames.clone());
        r.register("forwarded_bytes", "Bytes of those frames", self.bytes.clone());
        r.register("throttles", "Pairings that the rate limit began to delay", self.throttles.clone());
        r.register(
            "full",
            "Connections dropped because the relay had all that it may have",
            self.full.clone(),
        );
        r.register("refusals", "Clients that were told an error, by its code", self.refusals.clone());
        r.register("denials", "Clients that the edge did not let in, by the reason", self.denials.clone());
        r.register(
            "outcomes",
            "How seats were left, by mood; crowded: a third party came",
            self.outcomes.clone(),
        );
        self
    }

    /// One more connection, until the answer is dropped.
    pub fn connected(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// One more websocket with a seat, until the answer is dropped.
    pub fn seated(&self) -> Counted {
        Counted::new(&self.sockets)
    }

    /// These frames were handed to a socket.
    pub fn forwarded(&self, frames: &[Bytes]) {
        if !frames.is_empty() {
            self.frames.inc_by(frames.len() as u64);
            self.bytes.inc_by(frames.iter().map(|frame| frame.len() as u64).sum());
        }
    }

    /// A pairing is throttled.
    pub fn throttled(&self) {
        self.throttles.inc();
    }

    /// A connection was dropped.
    pub fn full(&self) {
        self.full.inc();
    }

    /// A client was told this error.
    pub fn refused(&self, code: ErrorCode) {
        self.refusals.get_or_create(&[("code", code_name(code))]).inc();
    }

    /// The edge did not let a client in.
    pub fn denied(&self, denied: Denied) {
        self.denials.get_or_create(&[("reason", reason(denied))]).inc();
    }

    /// A third party came.
    pub fn crowded(&self) {
        self.outcomes.get_or_create(&[("mood", CROWDED)]).inc();
    }

    /// A seat was left.
    pub fn left(&self, mood: Mood) {
        self.outcomes.get_or_create(&[("mood", mood_name(mood))]).inc();
    }

    /// All numbers as text (OpenMetrics), with what the store says now.
    ///
    /// # Errors
    /// Never in practice: a string takes what is written.
    pub fn text(&self, store_up: bool, usage: Option<Usage>) -> Result<String, fmt::Error> {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.store_up.set(i64::from(store_up));
        if let Some(Usage { channels, queued }) = usage {
            self.channels.set(gauge(channels));
            self.queued.set(gauge(queued));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The word for what the edge refuses.
const fn reason(denied: Denied) -> &'static str {
    match denied {
        Denied::Address => "address",
        Denied::Token => "token",
        Denied::Crowded => "crowded",
    }
}

/// The codes that this relay says.
const CODES: [ErrorCode; 7] = [
    ErrorCode::UnableToJoin,
    ErrorCode::NameplateLost,
    ErrorCode::UnableToResume,
    ErrorCode::TooManyChannels,
    ErrorCode::TooManyFailedJoins,
    ErrorCode::Busy,
    ErrorCode::BadMessage,
];
/// The moods that clients say.
const MOODS: [Mood; 4] = [Mood::Happy, Mood::Lonely, Mood::Scary, Mood::Errory];

/// The word of the wire for a code.
pub(crate) const fn code_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UnableToJoin => "unable_to_join",
        ErrorCode::NameplateLost => "nameplate_lost",
        ErrorCode::UnableToResume => "unable_to_resume",
        ErrorCode::TooManyChannels => "too_many_channels",
        ErrorCode::TooManyFailedJoins => "too_many_failed_joins",
        ErrorCode::Busy => "busy",
        ErrorCode::BadMessage => "bad_message",
        ErrorCode::Unknown => "unknown",
    }
}

/// The word of the wire for a mood.
pub(crate) const fn mood_name(mood: Mood) -> &'static str {
    match mood {
        Mood::Happy => "happy",
        Mood::Lonely => "lonely",
        Mood::Scary => "scary",
        Mood::Errory => "errory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_wire() {
        for code in CODES {
            let json = serde_json::to_string(&code).expect("a word");
            assert_eq!(json, format!("\"{}\"", code_name(code)));
        }
        for mood in MOODS {
            assert_eq!(serde_json::to_string(&mood).expect("a word"), format!("\"{}\"", mood_name(mood)));
        }
    }

    #[test]
    fn every_number_is_in_the_readme() {
        let readme = include_str!("../README.md");
        let text = Metrics::default().text(true, None).expect("text");
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(names.len() >= 12, "{text}");
        for line in names {
            let mut words = line.split(' ');
            let name = words.next().expect("a name").trim_start_matches(PREFIX);
            let suffix = match words.next() {
                Some("counter") => "_total",
                Some("info") => "_info",
                _ => "",
            };
            assert!(readme.contains(&format!("| `{name}{suffix}` |")), "{name}{suffix} is not described");
        }
    }

    #[test]
    fn what_is_counted_leaves_with_its_guard() {
        let metrics = Metrics::default();
        let connections = || {
            let text = metrics.text(true, None).expect("text");
            let line = text.lines().find(|line| line.starts_with("agent_wormhole_relay_connections "));
            line.map(str::to_owned)
        };
        let guard = metrics.connected();
        assert_eq!(connections().as_deref(), Some("agent_wormhole_relay_connections 1"));
        drop(guard);
        assert_eq!(connections().as_deref(), Some("agent_wormhole_relay_connections 0"));
    }
}
