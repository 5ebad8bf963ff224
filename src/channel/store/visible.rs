//! Whether what arrives still becomes visible, and what is becoming visible right now: an end that closes says goodbye
//! after the receipt of everything that its owner has seen.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Shared by the threads that write and the driver.
#[derive(Debug, Default)]
pub(super) struct Visible {
    /// Nothing becomes visible any more.
    over: AtomicBool,
    /// Items that are becoming visible.
    under_way: AtomicUsize,
    /// Answers that were given to the driver.
    answered: AtomicU64,
}

impl Visible {
    /// Makes something visible, unless that is over; whether it is over afterwards, so that who waits is to be told.
    pub(super) fn during(&self, act: impl FnOnce()) -> bool {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        if !self.is_over() {
            act();
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Nothing more is to become visible.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// An answer is about to be given.
    pub(super) fn answer(&self) {
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether everything that became visible has been answered, and the driver, which has taken so many answers, knows.
    pub(super) fn is_settled(&self, taken: u64) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0 && self.answered.load(Ordering::SeqCst) == taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_settled_when_all_that_was_seen_is_answered_and_the_answers_were_taken() {
        let visible = Visible::default();
        assert!(visible.is_settled(0));
        let over = visible.during(|| {
            visible.end();
            assert!(!visible.is_settled(0), "it is seen, and not answered");
            visible.answer();
            assert!(!visible.is_settled(1), "it may do more");
        });
        assert!(over, "who waits is told");
        assert!(!visible.is_settled(0) && visible.is_settled(1));
        assert!(visible.during(|| panic!("nothing becomes visible any more")));
    }
}
