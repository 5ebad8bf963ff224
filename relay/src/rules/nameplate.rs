//! Nameplates: the public digits of a code.
//!
//! Owns which number is given out next and which ones are in use. `T` is what the store binds to one. Does not know
//! channels.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use rand_core::RngCore;

use super::expired;

/// A nameplate has at least this many digits.
const MIN_DIGITS: u32 = 4;
/// ... and at most this many: 900 million of them are never a tenth in use.
const MAX_DIGITS: u32 = 9;
/// A number that ended is not given out again for this long ...
pub const RETIRED_FOR: Duration = Duration::from_secs(60 * 60);
/// ... as far as the latest this many are concerned: a ninth of the four-digit numbers, so that those who allocate and
/// leave in a loop neither fill memory nor lengthen the numbers of others.
pub const RETIRED_MAX: usize = 1_000;
/// Draws before giving up. At most a tenth is taken and a ninth retired: 64 misses in a row have odds below 2^-140.
const DRAWS: usize = 64;

/// Four to nine decimal digits without a leading zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nameplate(u32);

impl Nameplate {
    /// Reads a client's nameplate; `None` where it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = u32::try_from(text.len()).ok()?;
        let well_formed = (MIN_DIGITS..=MAX_DIGITS).contains(&digits)
            && !text.starts_with('0')
            && text.bytes().all(|b| b.is_ascii_digit());
        if well_formed { text.parse().ok().map(Self) } else { None }
    }

    /// How many digits it has.
    fn digits(self) -> u32 {
        self.0.max(1).ilog10() + 1
    }
}

impl fmt::Display for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Prints nothing: no log line carries a nameplate.
impl fmt::Debug for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nameplate(..)")
    }
}

/// The nameplates in use and those used a short while ago.
#[derive(Debug)]
pub struct Nameplates<T> {
    /// In use.
    taken: HashMap<Nameplate, T>,
    /// How many of each number of digits are in use.
    count: [usize; MAX_DIGITS as usize + 1],
    /// Not to be given out yet, oldest first.
    retired: VecDeque<(Nameplate, Instant)>,
}

impl<T> Default for Nameplates<T> {
    fn default() -> Self {
        Self { taken: HashMap::new(), count: [0; MAX_DIGITS as usize + 1], retired: VecDeque::new() }
    }
}

impl<T> Nameplates<T> {
    /// Binds a random free nameplate to `value`; `None` if none could be found.
    pub fn allocate(&mut self, value: T, rng: &mut impl RngCore, now: Instant) -> Option<Nameplate> {
        while self.retired.front().is_some_and(|(_, at)| expired(*at, RETIRED_FOR, now)) {
            self.retired.pop_front();
        }
        let digits =
            (MIN_DIGITS..=MAX_DIGITS).find(|d| self.count[*d as usize] * 10 <= space(*d) as usize)?;
        let chosen = (0..DRAWS).find_map(|_| {
            let draw = Nameplate(10_u32.pow(digits - 1) + below(space(digits), rng));
            let free = !self.taken.contains_key(&draw) && !self.retired.iter().any(|(n, _)| *n == draw);
            free.then_some(draw)
        })?;
        self.claim(chosen, value);
        Some(chosen)
    }

    /// Binds this very nameplate to `value`, if it is not in use. True if it was free.
    pub fn claim(&mut self, nameplate: Nameplate, value: T) -> bool {
        if self.taken.contains_key(&nameplate) {
            return false;
        }
        self.taken.insert(nameplate, value);
        self.count[nameplate.digits() as usize] += 1;
        true
    }

    /// What is bound to it.
    #[must_use]
    pub fn find(&self, nameplate: Nameplate) -> Option<&T> {
        self.taken.get(&nameplate)
    }

    /// Frees it; it is not given out again soon.
    pub fn retire(&mut self, nameplate: Nameplate, now: Instant) {
        if self.taken.remove(&nameplate).is_some() {
            self.count[nameplate.digits() as usize] -= 1;
            if self.retired.len() == RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back((nameplate, now));
        }
    }
}

/// How many nameplates of `digits` digits there are.
const fn space(digits: u32) -> u32 {
    9 * 10_u32.pow(digits - 1)
}

/// A uniform number below `bound` (rejection, so that no nameplate is likelier than another).
fn below(bound: u32, rng: &mut impl RngCore) -> u32 {
    let fair = u32::MAX - u32::MAX % bound;
    loop {
        let draw = rng.next_u32();
        if draw < fair {
            return draw % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn digits_only_four_to_nine_no_leading_zero() {
        for good in ["1000", "9471", "999999999"] {
            assert_eq!(Nameplate::parse(good).map(|n| n.to_string()).as_deref(), Some(good));
        }
        for bad in ["", "947", "0947", "1234567890", "94a1", "+947", "९४७१", "9471 ", "-9471"] {
            assert!(Nameplate::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn four_digits_until_a_tenth_is_taken_then_five() {
        let (mut rng, now) = (ChaCha8Rng::seed_from_u64(7), Instant::now());
        let mut names = Nameplates::default();
        for n in 0..=900 {
            assert_eq!(names.allocate(n, &mut rng, now).expect("free").digits(), 4);
        }
        let five = names.allocate(901, &mut rng, now).expect("free");
        assert_eq!(five.digits(), 5);
        assert_eq!(names.find(five), Some(&901));
    }

    #[test]
    fn what_ended_is_not_given_out_again_soon() {
        let (mut rng, now) = (ChaCha8Rng::seed_from_u64(7), Instant::now());
        let mut names = Nameplates::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..RETIRED_MAX {
            let n = names.allocate((), &mut rng, now).expect("free");
            assert!(seen.insert(n));
            names.retire(n, now);
        }
        let later = now + RETIRED_FOR;
        assert!(names.allocate((), &mut rng, later).is_some());
        assert!(names.retired.is_empty());
    }

    #[test]
    fn a_taken_one_cannot_be_claimed() {
        let mut names = Nameplates::default();
        let n = Nameplate::parse("9471").expect("valid");
        assert!(names.claim(n, 1));
        assert!(!names.claim(n, 2));
        names.retire(n, Instant::now());
        assert!(names.find(n).is_none());
        assert!(names.claim(n, 3));
    }
}
