//! Decides how much the inbox takes and under which number a taken name is saved. Touches no file.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Refusal;
use crate::name::numbered;

/// Most numbers that are tried for one item; each costs one system call.
pub const MAX_TRIES: u32 = 1000;
/// Most names of which the next number is remembered, at most [`crate::name::MAX_PATH`] bytes each: 4 MiB.
const MAX_REMEMBERED: usize = 1024;

/// What a file or directory costs besides its bytes, in bytes: its inode and its name. So a peer cannot fill a disk with
/// things that are empty.
pub const ITEM_COST: u64 = 1024;

/// How many bytes the inbox holds, against its limit. Shared by every item on its way.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// An empty inbox with a limit in bytes.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// The limit in bytes.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts bytes, if they fit. `recount` says what is really stored, and is asked only where they seem not to:
    /// the owner may have removed something.
    ///
    /// # Errors
    /// [`Refusal::NoSpace`].
    pub fn charge(&self, bytes: u64, recount: impl FnOnce() -> Option<u64>) -> Result<(), Refusal> {
        if self.try_charge(bytes) {
            return Ok(());
        }
        if let Some(stored) = recount() {
            self.used.store(stored, Ordering::Relaxed);
            if self.try_charge(bytes) {
                return Ok(());
            }
        }
        Err(Refusal::NoSpace)
    }

    /// Takes bytes back that were counted and are not stored.
    pub fn refund(&self, bytes: u64) {
        // Only a closure that always answers can fail to be applied.
        let _ = self
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }

    fn try_charge(&self, bytes: u64) -> bool {
        let add = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

/// Which number a name that is taken gets next, so that a thousand of one name need no million tries.
#[derive(Debug, Default)]
pub struct Numbers {
    next: HashMap<String, u32>,
}

impl Numbers {
    /// The number to begin with for a full name relative to its root.
    #[must_use]
    pub fn first(&self, name: &str) -> u32 {
        self.next.get(name).copied().unwrap_or(2)
    }

    /// A number was used.
    pub fn used(&mut self, name: &str, number: u32) {
        if self.next.len() >= MAX_REMEMBERED && !self.next.contains_key(name) {
            self.next.clear();
        }
        self.next.insert(name.to_owned(), number.saturating_add(1));
    }
}

/// The names to try for one part, with their numbers: itself (0), then [`MAX_TRIES`] numbers from `first` on.
pub fn candidates(part: &str, first: u32) -> impl Iterator<Item = (u32, String)> {
    let numbers =
        (first..first.saturating_add(MAX_TRIES)).map(move |number| (number, numbered(part, number)));
    std::iter::once((0, part.to_owned())).chain(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_counts_takes_back_and_asks_before_it_refuses() {
        let budget = Budget::new(100);
        assert!(budget.charge(60, || panic!("it fits")).is_ok());
        assert!(budget.charge(40, || panic!("it fits")).is_ok());
        assert!(matches!(budget.charge(1, || Some(100)), Err(Refusal::NoSpace)));
        assert!(matches!(budget.charge(1, || None), Err(Refusal::NoSpace)));
        budget.refund(10);
        assert!(budget.charge(10, || panic!("it fits")).is_ok());
        assert!(budget.charge(50, || Some(20)).is_ok());
        assert!(matches!(budget.charge(u64::MAX, || Some(0)), Err(Refusal::NoSpace)));
        budget.refund(u64::MAX);
        assert!(budget.charge(100, || panic!("it is empty")).is_ok());
    }

    #[test]
    fn a_name_is_tried_first_without_and_then_with_numbers() {
        let names: Vec<_> = candidates("a.txt", 2).take(3).map(|(_, name)| name).collect();
        assert_eq!(names, ["a.txt", "a-2.txt", "a-3.txt"]);
        assert_eq!(candidates("a", u32::MAX - 1).count(), 2);
        assert_eq!(candidates("a", 2).count(), 1001);
    }

    #[test]
    fn numbers_go_on_and_their_memory_is_bounded() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.first("a"), 2);
        numbers.used("a", 2);
        assert_eq!(numbers.first("a"), 3);
        for n in 0..5000 {
            numbers.used(&n.to_string(), 2);
        }
        assert!(numbers.next.len() <= MAX_REMEMBERED);
    }
}
