//! How fast items move, and whether they do.
//!
//! Owns the samples of what is on the way in one direction. Takes the time as an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::event::state::InFlight;

/// The rate is an average over about this long: steady enough to read, quick enough to believe.
const WINDOW: Duration = Duration::from_secs(3);
/// What has not moved for this long stands still.
const STILL: Duration = Duration::from_secs(2);

/// One item as it was seen last.
struct Sample {
    at: Instant,
    done: u64,
    /// When `done` rose last, or when it was seen first.
    moved: Instant,
    /// Bytes a second; `None` until it was seen twice.
    rate: Option<f64>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Rates {
    samples: BTreeMap<u64, Sample>,
}

impl Rates {
    /// Fills in rate and remaining time of each item, and takes `waits` away from those that move. What is not listed is
    /// forgotten. Returns the sum of the rates, in bytes a second.
    pub(super) fn measure(&mut self, items: &mut [InFlight], now: Instant) -> u64 {
        let mut before = std::mem::take(&mut self.samples);
        let mut sum = 0;
        for item in items {
            let sample = match before.remove(&item.id) {
                Some(sample) => sample.next(item.done, now),
                None => Sample { at: now, done: item.done, moved: now, rate: None },
            };
            let still = now.saturating_duration_since(sample.moved) >= STILL;
            item.rate = if still { 0 } else { sample.rate.unwrap_or(0.0) as u64 };
            item.remaining = item.size.and_then(|size| size.saturating_sub(item.done).checked_div(item.rate));
            item.waits = item.waits.take().filter(|_| still);
            sum += item.rate;
            self.samples.insert(item.id, sample);
        }
        sum
    }
}

impl Sample {
    fn next(self, done: u64, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.at);
        if passed.is_zero() {
            return self;
        }
        let moved = if done > self.done { now } else { self.moved };
        let fresh = done.saturating_sub(self.done) as f64 / passed.as_secs_f64();
        let weight = 1.0 - (-passed.as_secs_f64() / WINDOW.as_secs_f64()).exp();
        let rate = self.rate.map_or(fresh, |rate| rate + weight * (fresh - rate));
        Self { at: now, done, moved, rate: Some(rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: u64, size: Option<u64>, done: u64) -> InFlight {
        InFlight { id, size, done, waits: Some("the peer".into()), ..InFlight::default() }
    }

    /// One item each 200 ms for `steps`, `bytes` further each time.
    fn run(rates: &mut Rates, start: Instant, steps: u32, bytes: u64) -> InFlight {
        let mut last = InFlight::default();
        for step in 0..steps {
            let mut items = [item(1, Some(1 << 30), u64::from(step) * bytes)];
            rates.measure(&mut items, start + Duration::from_millis(200) * step);
            [last] = items;
        }
        last
    }

    #[test]
    fn a_steady_item_has_its_rate_at_once_and_says_how_long_it_takes() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let second = run(&mut rates, start, 2, 200_000);
        assert_eq!((second.rate, second.waits), (1_000_000, None));
        let later = run(&mut Rates::default(), start, 50, 200_000);
        assert!((999_000..=1_001_000).contains(&later.rate), "{}", later.rate);
        assert_eq!(later.remaining, Some(((1 << 30) - 49 * 200_000) / later.rate));
    }

    #[test]
    fn what_stands_still_says_why_and_what_moves_again_does_not() {
        let mut rates = Rates::default();
        let start = Instant::now();
        run(&mut rates, start, 10, 1000);
        let at = |millis| start + Duration::from_millis(millis);
        let mut items = [item(1, Some(1 << 30), 9000)];
        rates.measure(&mut items, at(1800 + 1999));
        assert_eq!(items[0].waits, None);
        assert!(items[0].rate > 0, "it only slows down");
        let mut items = [item(1, Some(1 << 30), 9000)];
        assert_eq!(rates.measure(&mut items, at(1800 + 2000)), 0);
        assert_eq!(items[0].waits.as_deref(), Some("the peer"));
        assert_eq!((items[0].rate, items[0].remaining), (0, None));
        let mut items = [item(1, Some(1 << 30), 9001)];
        rates.measure(&mut items, at(4000));
        assert_eq!(items[0].waits, None);
    }

    #[test]
    fn a_change_of_pace_shows_within_seconds() {
        let mut rates = Rates::default();
        let start = Instant::now();
        run(&mut rates, start, 50, 200_000);
        let mut last = 0;
        for step in 50..80_u32 {
            let done = 49 * 200_000 + u64::from(step - 49) * 20_000;
            let mut items = [item(1, None, done)];
            last = rates.measure(&mut items, start + Duration::from_millis(200) * step);
            assert_eq!(items[0].remaining, None, "nobody knows its size");
        }
        assert!((100_000..250_000).contains(&last), "six seconds later: {last}");
    }

    #[test]
    fn the_sum_is_of_what_is_listed_and_what_is_gone_is_forgotten() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.measure(&mut [item(1, None, 0), item(2, None, 0)], start);
        let mut items = [item(1, None, 500), item(2, None, 700)];
        assert_eq!(rates.measure(&mut items, start + Duration::from_secs(1)), 1200);
        rates.measure(&mut [], start + Duration::from_secs(2));
        assert!(rates.samples.is_empty());
    }

    #[test]
    fn a_clock_that_stands_still_divides_by_nothing() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.measure(&mut [item(1, Some(9), 0)], start);
        let mut items = [item(1, Some(9), 5)];
        assert_eq!(rates.measure(&mut items, start), 0);
        assert_eq!(items[0].remaining, None);
    }
}
