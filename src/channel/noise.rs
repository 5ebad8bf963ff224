//! Statuses that somebody else can cause as often as they like: strangers at the door, a relay that cuts and joins, a
//! peer that comes and goes.
//!
//! Owns how many of them are told. The newest is told in the end, so that a reader is never left with a state that has
//! passed. Takes the time as an argument.

use std::time::{Duration, Instant};

use crate::event::StatusEvent;

/// Statuses that may be told at once: a bad minute of a real network.
const AT_ONCE: u32 = 32;
/// In the long run one is told in this time: sixty lines for ten minutes of flapping.
const EACH: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Noise {
    /// How many may be told now.
    tokens: u32,
    /// Since when the next token grows.
    since: Instant,
    /// The newest that was not told.
    held: Option<StatusEvent>,
    /// How many before it were not told either.
    merged: u64,
}

impl Noise {
    pub(super) const fn new(now: Instant) -> Self {
        Self { tokens: AT_ONCE, since: now, held: None, merged: 0 }
    }

    /// The status, if it is to be told now; else it waits, in place of an earlier one.
    pub(super) fn pass(&mut self, status: StatusEvent, now: Instant) -> Option<StatusEvent> {
        self.grow(now);
        if self.tokens > 0 && self.held.is_none() {
            self.tokens -= 1;
            return Some(status);
        }
        self.merged += u64::from(self.held.replace(status).is_some());
        None
    }

    /// When [`Noise::release`] has something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.is_some().then(|| self.since + EACH)
    }

    /// What waited long enough, and how many were left out before it.
    pub(super) fn release(&mut self, now: Instant) -> Option<(StatusEvent, u64)> {
        self.grow(now);
        if self.tokens == 0 {
            return None;
        }
        let held = self.held.take()?;
        self.tokens -= 1;
        Some((held, std::mem::take(&mut self.merged)))
    }

    /// What waited is not true any more; how many were not told.
    pub(super) fn forget(&mut self) -> u64 {
        u64::from(self.held.take().is_some()) + std::mem::take(&mut self.merged)
    }

    fn grow(&mut self, now: Instant) {
        while self.tokens < AT_ONCE && now.saturating_duration_since(self.since) >= EACH {
            self.tokens += 1;
            self.since += EACH;
        }
        if self.tokens == AT_ONCE {
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(n: u64) -> StatusEvent {
        StatusEvent::Reconnecting(Some(n.to_string()))
    }

    #[test]
    fn a_flapping_link_is_told_sparingly_and_its_last_state_always() {
        let start = Instant::now();
        let mut noise = Noise::new(start);
        let mut told = 0;
        for n in 0..36_000_u64 {
            let now = start + Duration::from_millis(100 * n);
            told += u32::from(noise.release(now).is_some());
            told += u32::from(noise.pass(status(n), now).is_some());
        }
        assert!((AT_ONCE..=AT_ONCE + 361).contains(&told), "{told} in an hour");
        let (last, merged) = noise.release(noise.due().unwrap()).unwrap();
        assert_eq!(last, status(35_999));
        assert!(merged > 0);
        assert_eq!(noise.due(), None);
    }

    #[test]
    fn what_is_never_told_is_counted() {
        let now = Instant::now();
        let mut noise = Noise::new(now);
        let told = (0..40).filter(|n| noise.pass(status(*n), now).is_some()).count() as u64;
        assert_eq!((told, noise.forget()), (u64::from(AT_ONCE), 40 - u64::from(AT_ONCE)));
        assert_eq!((noise.forget(), noise.due()), (0, None));
    }

    #[test]
    fn what_comes_now_and_then_is_told_at_once() {
        let start = Instant::now();
        let mut noise = Noise::new(start);
        for n in 0..200 {
            let now = start + EACH * n;
            assert!(noise.pass(status(0), now).is_some(), "{n}");
        }
    }
}
