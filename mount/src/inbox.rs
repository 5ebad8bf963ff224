//! Decides how much the inbox takes and under which number a taken name is saved. Touches no file.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Refusal;
use crate::name::numbered;

/// Most numbers that are tried for one item; each costs one system call.
pub const MAX_TRIES: u32 = 1000;
/// Most names of which the next number is remembered, at most [`crate::name::MAX_PATH`] bytes each: 4 MiB.
const MAX_REMEMBERED: usize = 1024;

/// What a file or directory costs at least besides its bytes, in bytes: its last block, which it may not fill, and its
/// inode. So a peer cannot fill a disk with things that are small or empty.
const ITEM_COST: u64 = 4096;

/// The inbox never grows beyond this by itself, in bytes.
const MOST_INBOX: u64 = 16 << 30;
/// The largest part of a disk that stays free, in bytes: a tenth of what is free, and not more than this.
const MOST_RESERVE: u64 = 1 << 30;

/// What an inbox may grow to where nobody said, on a disk with so many bytes free: that less a reserve, at most 16 GiB.
#[must_use]
pub fn default_limit(free: u64) -> u64 {
    (free - (free / 10).min(MOST_RESERVE)).min(MOST_INBOX)
}

/// What each file and directory costs besides its bytes in an inbox of this limit, on a disk with so many inodes free (0
/// where it does not count them): an inbox that is full leaves a tenth of them.
#[must_use]
pub fn item_cost(limit: u64, free_inodes: u64) -> u64 {
    limit.checked_div(free_inodes / 10 * 9).unwrap_or(0).max(ITEM_COST)
}

/// How many bytes the inbox holds, against its limit. Shared by every item on its way.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: Mutex<Held>,
}

/// What a [`Budget`] counts.
#[derive(Debug, Default)]
struct Held {
    /// Bytes in the inbox, as far as is known.
    stored: u64,
    /// Bytes of items on their way.
    arriving: u64,
    /// Bytes that ever became part of the inbox.
    kept: u64,
}

impl Budget {
    /// An empty inbox with a limit in bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, held: Mutex::default() }
    }

    /// The limit in bytes.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether so many bytes fit now. `recount` says what the inbox really holds, without what is on its way; it is asked
    /// only where they seem not to fit: the owner may have removed something.
    ///
    /// # Errors
    /// [`Refusal::NoSpace`].
    pub fn check(&self, bytes: u64, recount: impl FnOnce() -> Option<u64>) -> Result<(), Refusal> {
        self.count(bytes, recount, |_| {})
    }

    /// Counts bytes of an item on its way, if they fit, as [`Budget::check`] says.
    ///
    /// # Errors
    /// [`Refusal::NoSpace`].
    pub fn charge(&self, bytes: u64, recount: impl FnOnce() -> Option<u64>) -> Result<(), Refusal> {
        self.count(bytes, recount, |held| held.arriving += bytes)
    }

    /// Takes bytes back that were counted and are not stored.
    pub fn refund(&self, bytes: u64) {
        let mut held = self.held();
        held.arriving = held.arriving.saturating_sub(bytes);
    }

    /// Bytes that were counted are part of the inbox now.
    pub fn keep(&self, bytes: u64) {
        let mut held = self.held();
        held.arriving = held.arriving.saturating_sub(bytes);
        held.stored = held.stored.saturating_add(bytes);
        held.kept = held.kept.wrapping_add(bytes);
    }

    fn count(
        &self,
        bytes: u64,
        recount: impl FnOnce() -> Option<u64>,
        then: impl FnOnce(&mut Held),
    ) -> Result<(), Refusal> {
        let mut held = self.held();
        if !self.fits(&held, bytes) {
            let kept = held.kept;
            // Nobody waits for the disk.
            drop(held);
            let stored = recount();
            held = self.held();
            if let Some(stored) = stored {
                // What came since may have been met or not.
                held.stored = stored.saturating_add(held.kept.wrapping_sub(kept));
            }
            if !self.fits(&held, bytes) {
                return Err(Refusal::NoSpace);
            }
        }
        then(&mut held);
        Ok(())
    }

    fn fits(&self, held: &Held, bytes: u64) -> bool {
        let all = held.stored.checked_add(held.arriving).and_then(|all| all.checked_add(bytes));
        all.is_some_and(|all| all <= self.limit)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(budget.check(40, || panic!("it fits")).is_ok());
        assert!(budget.charge(40, || panic!("it fits")).is_ok());
        assert!(matches!(budget.charge(1, || None), Err(Refusal::NoSpace)));
        assert!(matches!(budget.charge(1, || Some(0)), Err(Refusal::NoSpace)), "it is on its way");
        budget.refund(10);
        budget.keep(90);
        assert!(budget.charge(10, || panic!("it fits")).is_ok());
        assert!(budget.charge(50, || Some(20)).is_ok());
        assert!(matches!(budget.charge(u64::MAX, || Some(0)), Err(Refusal::NoSpace)));
        budget.refund(u64::MAX);
        assert!(budget.charge(100, || panic!("it is empty")).is_ok());
    }

    #[test]
    fn what_is_on_its_way_or_comes_while_it_is_recounted_stays_counted() {
        let budget = Budget::new(100);
        budget.charge(30, || None).unwrap();
        budget.charge(40, || None).unwrap();
        let full = budget.charge(40, || {
            budget.keep(40);
            Some(0)
        });
        assert!(full.is_err(), "30 are on their way and 40 came");
        budget.refund(30);
        assert!(budget.check(60, || panic!("it fits")).is_ok());
        assert!(budget.check(61, || None).is_err());
    }

    #[test]
    fn what_is_small_costs_its_block_and_its_part_of_the_inodes() {
        assert_eq!(item_cost(16 << 30, 0), 4096, "a file system without a table of inodes");
        assert_eq!(item_cost(100_000, 1_000_000), 4096);
        // 9 GiB and 600,000 inodes: as many items as nine of ten inodes.
        assert_eq!(item_cost(9 << 30, 600_000), (9 << 30) / 540_000);
        assert_eq!(item_cost(1 << 30, 5), 4096, "none is free: the file system says so itself");
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
