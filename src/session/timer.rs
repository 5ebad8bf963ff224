//! Deadlines that back off. Take the time as an argument.

use std::time::{Duration, Instant};

/// A deadline that doubles its interval each time it passes, up to a longest one, and starts anew when told.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    interval: Duration,
    at: Option<Instant>,
}

impl Backoff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, interval: first, at: None }
    }

    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Starts the clock unless it runs already.
    pub(super) fn arm(&mut self, now: Instant) {
        if self.at.is_none() {
            self.arm_at(now + self.first);
        }
    }

    /// Starts the clock with its first deadline at `at`.
    pub(super) fn arm_at(&mut self, at: Instant) {
        self.interval = self.first;
        self.at = Some(at);
    }

    /// Starts anew where the clock runs: something has moved.
    pub(super) fn restart(&mut self, now: Instant) {
        if self.at.is_some() {
            self.arm_at(now + self.first);
        }
    }

    /// Moves the next deadline forward to `at`; the interval stays.
    pub(super) fn arm_sooner(&mut self, at: Instant) {
        self.at = self.at.map(|now| now.min(at));
    }

    /// Stops the clock.
    pub(super) const fn disarm(&mut self) {
        self.at = None;
    }

    /// Whether the deadline has passed; the next one is then set.
    pub(super) fn passed(&mut self, now: Instant) -> bool {
        if self.at.is_none_or(|at| now < at) {
            return false;
        }
        self.at = Some(now + self.interval);
        self.interval = (self.interval * 2).min(self.longest);
        true
    }
}

/// The earliest of several deadlines.
pub(super) fn earliest(deadlines: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    deadlines.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_up_to_its_longest_and_starts_anew() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        assert!(!backoff.passed(at(100)), "not armed");
        backoff.arm(at(0));
        backoff.arm(at(50));
        assert!(!backoff.passed(start + Duration::from_millis(999)));
        for (now, next) in [(1, 2), (2, 4), (4, 7), (7, 10)] {
            assert!(backoff.passed(at(now)), "{now}");
            assert_eq!(backoff.at(), Some(at(next)), "{now}");
        }
        backoff.disarm();
        backoff.arm(at(20));
        assert_eq!(backoff.at(), Some(at(21)));
    }
}
