//! What the operator is told while a relay runs: a line in the log and a number in the metrics for each event.
//!
//! Owns the words of those lines. None carries a nameplate, an id, a frame or an address: who it was is a
//! [pseudonym](crate::log::Pseudonyms).

use std::time::Duration;

use crate::edge::Denied;
use crate::log::Pseudonyms;
use crate::metrics::{Metrics, code_name, mood_name};
use crate::rules::Source;
use crate::wire::{ErrorCode, Mood};

/// Log and metrics of one relay.
#[derive(Debug, Default)]
pub(crate) struct Events {
    metrics: Metrics,
    pseudonyms: Pseudonyms,
}

impl Events {
    /// What has no line in the log.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Somebody joined a nameplate.
    pub fn paired(&self, source: Source) {
        tracing::info!(source = %self.pseudonyms.of(source), "a channel is paired");
    }

    /// An end said `bye`.
    pub fn left(&self, mood: Mood, source: Source) {
        self.metrics.left(mood);
        tracing::info!(mood = mood_name(mood), source = %self.pseudonyms.of(source), "a seat is left");
    }

    /// A client was told an error.
    pub fn refused(&self, code: ErrorCode, source: Source) {
        self.metrics.refused(code);
        tracing::info!(code = code_name(code), source = %self.pseudonyms.of(source), "a client is refused");
    }

    /// The edge did not let somebody in.
    pub fn denied(&self, denied: Denied, source: Source) {
        self.metrics.denied(denied);
        tracing::info!(source = %self.pseudonyms.of(source), %denied, "a client is not let in");
    }

    /// A third party came to a nameplate that has both its ends.
    pub fn crowded(&self, source: Source) {
        self.metrics.crowded();
        self.refused(ErrorCode::UnableToJoin, source);
    }

    /// The rate limit begins to delay a channel.
    pub fn throttled(&self, source: Source) {
        self.metrics.throttled();
        tracing::info!(source = %self.pseudonyms.of(source), "a channel is throttled");
    }

    /// A connection was dropped because the relay has all that it may have.
    pub fn full(&self, source: Source) {
        self.metrics.full();
        tracing::warn!(
            source = %self.pseudonyms.of(source),
            "a connection is refused: the relay has all that it may have"
        );
    }

    /// The relay stops; this many connections are open.
    pub fn draining(&self, window: Duration, connections: usize) {
        tracing::info!(connections, seconds = window.as_secs(), "draining: nobody is accepted any more");
    }

    /// The relay has stopped.
    pub fn drained(&self, closed: bool) {
        if closed {
            tracing::info!("drained: every connection is closed");
        } else {
            tracing::warn!("drained: connections that did not close in time are cut");
        }
    }

    /// The store cannot be reached, or can be again.
    pub fn store(&self, ready: bool) {
        if ready {
            tracing::info!("the store is back");
        } else {
            tracing::warn!("the store is away: traffic waits for it");
        }
    }
}
