//! Guesses: joins at one nameplate that fail again and again.
//!
//! Owns how long the answer to the next one is kept back. A join that succeeds is never delayed, so nobody can hold up
//! those who were given the code. Sets no timers: it says *how long*, the caller waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Nameplate, expired};

/// Failing joins at one nameplate that are answered at once: a code that was mistyped or came too late.
const AT_ONCE: u32 = 5;
/// The answer to the next one is kept back for this long, to each after it for twice as long ...
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// ... up to this: a connection that waits is held open that long.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// What nobody failed at for this long is forgotten.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Nameplates that are remembered at once: about 2 MiB. Beyond it every failing join waits the longest: so many
/// nameplates are tried within a minute by somebody who goes through them.
const REMEMBERED: usize = 65_536;

/// What is known of one nameplate.
#[derive(Debug)]
struct Failures {
    /// How many.
    count: u32,
    /// The latest.
    last: Instant,
}

/// The nameplates at which joins failed lately.
#[derive(Debug, Default)]
pub struct Guesses {
    failures: HashMap<Nameplate, Failures>,
}

impl Guesses {
    /// A join at this nameplate failed: how long to keep the answer back.
    pub fn failed(&mut self, nameplate: Nameplate, now: Instant) -> Duration {
        if self.failures.len() >= REMEMBERED && !self.failures.contains_key(&nameplate) {
            return MAX_DELAY;
        }
        let failures = self.failures.entry(nameplate).or_insert(Failures { count: 0, last: now });
        if expired(failures.last, REMEMBERED_FOR, now) {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        delay(failures.count)
    }

    /// Forgets what expired. To be called every few seconds.
    pub fn sweep(&mut self, now: Instant) {
        self.failures.retain(|_, failures| !expired(failures.last, REMEMBERED_FOR, now));
    }
}

/// How long the answer to this failure in a row is kept back.
fn delay(count: u32) -> Duration {
    let Some(doublings) = count.checked_sub(AT_ONCE + 1) else { return Duration::ZERO };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    FIRST_DELAY.saturating_mul(factor).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nameplate(n: usize) -> Nameplate {
        Nameplate::parse(&n.to_string()).expect("a nameplate")
    }

    #[test]
    fn five_are_answered_at_once_then_ever_later_up_to_two_seconds() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let mut delays = (0..50).map(|_| guesses.failed(nameplate(9471), now).as_millis());
        let first: Vec<u128> = delays.by_ref().take(12).collect();
        assert_eq!(first, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert!(delays.all(|delay| delay == 2000));
        assert_eq!(guesses.failed(nameplate(9472), now), Duration::ZERO);
    }

    #[test]
    fn a_quiet_minute_forgives() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..6 {
            guesses.failed(nameplate(9471), now);
        }
        let soon = now + REMEMBERED_FOR - Duration::from_secs(1);
        guesses.sweep(soon);
        assert_eq!(guesses.failed(nameplate(9471), soon), 2 * FIRST_DELAY);
        // Also when nobody swept in time.
        assert_eq!(guesses.failed(nameplate(9471), soon + REMEMBERED_FOR), Duration::ZERO);
        guesses.sweep(soon + 2 * REMEMBERED_FOR);
        assert!(guesses.failures.is_empty());
    }

    #[test]
    fn who_goes_through_all_nameplates_fills_no_memory_and_waits() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..REMEMBERED {
            assert_eq!(guesses.failed(nameplate(100_000 + n), now), Duration::ZERO);
        }
        assert_eq!(guesses.failed(nameplate(9471), now), MAX_DELAY);
        assert_eq!(guesses.failures.len(), REMEMBERED);
    }
}
