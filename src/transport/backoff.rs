//! How long to wait before the next attempt to connect.
//!
//! Owns the numbers of "exponential backoff with jitter, 100 ms to 5 s" (`src/PROTOCOL.md`, "Flow, limits, time").

use std::time::Duration;

use rand_core::{OsRng, RngCore};

/// The longest first pause.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause at all.
const LONGEST: Duration = Duration::from_secs(5);

/// A connection that is back within this time was not away: why it was not had at once is nobody's concern.
pub(super) const BLIP: Duration = Duration::from_secs(5);

/// Pauses that double from 100 ms to 5 s. Each is drawn from the upper half of its step, so that many clients of one
/// relay do not come back in the same instant.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The longest that the next pause may be.
    step: Duration,
}

impl Backoff {
    /// From the shortest pause on.
    pub(super) const fn new() -> Self {
        Self { step: SHORTEST }
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(LONGEST);
        let mut draw = [0; 4];
        // Without randomness there is no jitter, which is no reason to stay away.
        let _ = OsRng.try_fill_bytes(&mut draw);
        let half = step / 2;
        half + half.mul_f64(f64::from(u32::from_le_bytes(draw)) / f64::from(u32::MAX))
    }

    /// Waits for the next pause.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_tenth_of_a_second_to_five_seconds() {
        let mut backoff = Backoff::new();
        let mut step = SHORTEST;
        for _ in 0..12 {
            let pause = backoff.pause();
            assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
            step = (step * 2).min(LONGEST);
        }
        assert_eq!(step, LONGEST);
    }
}
