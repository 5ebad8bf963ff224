//! Draining: how a relay that stops lets its sockets go.
//!
//! Owns since when it stops and the moment at which each channel's sockets are closed, so that clients do not all come
//! back in one instant. Closes nothing itself: each socket asks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The end of a relay, from the first moment on.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Set once.
    begun: OnceLock<Begun>,
    /// Nobody has any time left.
    over: AtomicBool,
}

#[derive(Debug)]
struct Begun {
    /// When the relay began to stop.
    at: Instant,
    /// How long it lets traffic go on.
    window: Duration,
}

impl Drain {
    /// The relay stops: new seats are refused, and those that are taken are given up within `window`. The first call
    /// counts; true for that one.
    pub fn begin(&self, at: Instant, window: Duration) -> bool {
        self.begun.set(Begun { at, window }).is_ok()
    }

    /// Every socket's moment is now.
    pub fn finish(&self, at: Instant) {
        self.begin(at, Duration::ZERO);
        self.over.store(true, Ordering::Release);
    }

    /// Whether the relay stops.
    pub fn is_begun(&self) -> bool {
        self.begun.get().is_some()
    }

    /// Whether no socket has any time left.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// When a socket of this slot has to close; `None` while the relay does not stop. Slots are spread evenly over the
    /// window.
    pub fn moment(&self, slot: u64) -> Option<Instant> {
        let Begun { at, window } = self.begun.get()?;
        // The upper half of the slot in parts of 2^32: exact in f64.
        let part = (slot >> 32) as f64 / (1_u64 << 32) as f64;
        Some(*at + window.mul_f64(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slots_are_spread_over_the_window() {
        let (drain, now) = (Drain::default(), Instant::now());
        assert!(!drain.is_begun() && drain.moment(7).is_none());
        assert!(drain.begin(now, Duration::from_secs(10)));
        assert!(!drain.begin(now, Duration::from_secs(99)));
        let moment = |slot| drain.moment(slot).expect("begun") - now;
        assert_eq!(moment(0), Duration::ZERO);
        assert_eq!(moment(1 << 63), Duration::from_secs(5));
        assert!((9_999..10_000).contains(&moment(u64::MAX).as_millis()));
        assert!(!drain.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_drain_has_no_window_left() {
        let (drain, now) = (Drain::default(), Instant::now());
        drain.finish(now);
        assert!(drain.is_begun() && drain.is_over());
        assert_eq!(drain.moment(u64::MAX), Some(now));
    }
}
