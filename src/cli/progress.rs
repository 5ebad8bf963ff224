//! Progress in words: how much of an item there is, how fast it moves, and why it does not.
//!
//! Owns the words that `status` and the bars share. Draws nothing.

use super::quantity;
use crate::event::escape::visible;
use crate::event::state::InFlight;

/// `1.0 GiB of 4.0 GiB (25 %), 310.0 MiB/s, 10 s left`, or what it waits for.
pub(super) fn words(item: &InFlight) -> String {
    let done = quantity::shown(item.done);
    let share = |size: u64| u128::from(item.done.min(size)) * 100 / u128::from(size.max(1));
    let of = item.size.map(|size| format!(" of {} ({} %)", quantity::shown(size), share(size)));
    let mut words = done + &of.unwrap_or_default();
    let motion = motion(item);
    if !motion.is_empty() {
        words.push_str(", ");
        words.push_str(&motion);
    }
    words
}

/// How fast it moves and how long that takes, or why it does not. Empty where nothing is known yet.
pub(super) fn motion(item: &InFlight) -> String {
    match (&item.waits, item.rate, item.remaining) {
        (Some(why), ..) => format!("waiting: {}", visible(why)),
        (None, 0, _) => String::new(),
        (None, rate, None) => format!("{}/s", quantity::shown(rate)),
        (None, rate, Some(left)) => format!("{}/s, {} left", quantity::shown(rate), time(left)),
    }
}

/// Seconds as `12 s`, `3 min 20 s`, `2 h 5 min`.
fn time(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(size: Option<u64>, done: u64) -> InFlight {
        InFlight { size, done, ..InFlight::default() }
    }

    #[test]
    fn an_item_in_words() {
        for (item, expected) in [
            (item(None, 2048), "2.0 KiB"),
            (item(Some(0), 0), "0 B of 0 B (0 %)"),
            (item(Some(u64::MAX), u64::MAX), "16777216.0 TiB of 16777216.0 TiB (100 %)"),
            (InFlight { rate: 1024, ..item(None, 7) }, "7 B, 1.0 KiB/s"),
            (
                InFlight { rate: 5, remaining: Some(200), ..item(Some(10), 5) },
                "5 B of 10 B (50 %), 5 B/s, 3 min 20 s left",
            ),
            (InFlight { rate: 5, remaining: Some(7500), ..item(None, 5) }, "5 B, 5 B/s, 2 h 5 min left"),
            (
                InFlight { waits: Some("a\u{1b}b".into()), ..item(Some(9), 10) },
                "10 B of 9 B (100 %), waiting: a\\u001bb",
            ),
        ] {
            assert_eq!(words(&item), expected);
        }
    }
}
