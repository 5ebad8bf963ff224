//! Item numbers of this end on the wire: they may leave out of order, but not too far apart.

use crate::item::{ItemId, MAX_UNRECEIPTED};

/// Which numbers the other end has seen, as far as it must be known to stay within what it takes.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The highest that has left.
    highest: u64,
    /// How many below it have not.
    skipped: u64,
}

impl Numbers {
    /// Whether the other end takes this number now. The lowest that has not left it always takes.
    pub(super) const fn reaches(&self, id: ItemId) -> bool {
        let ahead = id.0.saturating_sub(self.highest);
        ahead == 0 || self.skipped + ahead - 1 <= MAX_UNRECEIPTED as u64
    }

    /// A number leaves, once.
    pub(super) const fn take(&mut self, id: ItemId) {
        let ahead = id.0.saturating_sub(self.highest);
        if ahead == 0 {
            self.skipped = self.skipped.saturating_sub(1);
        } else {
            self.skipped += ahead - 1;
            self.highest = id.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_numbers_are_skipped_as_the_other_end_takes() {
        let mut numbers = Numbers::default();
        let far = ItemId(MAX_UNRECEIPTED as u64 + 1);
        assert!(numbers.reaches(far) && !numbers.reaches(ItemId(far.0 + 1)));
        numbers.take(far);
        assert!(!numbers.reaches(ItemId(far.0 + 2)), "one more would be skipped");
        assert!(numbers.reaches(ItemId(far.0 + 1)), "none is skipped by the next one");
        numbers.take(ItemId(1));
        assert!(numbers.reaches(ItemId(far.0 + 2)), "one place is free again");
    }
}
