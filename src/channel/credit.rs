//! How much the mailbox may offer before earlier offers have ended.
//!
//! Owns the bound on what offers hold in memory. The mailbox counts offers, not bytes: each offer that it may still
//! make counts as the longest.

use std::collections::HashMap;

use agent_wormhole_mount::{EntryId, MAX_TEXT};

/// Bytes that offers hold in memory at most: a quarter of what a channel may take above its idle size (64 MiB), beside
/// the windows of both directions and the staging of both lanes. Sixteen texts of the longest kind.
const MEMORY: usize = 16 * 1024 * 1024;
/// Offers without an outcome at most: `cp -r` of small files (16 KiB at most, 2 MiB in all) keeps a round trip full.
const OFFERS: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Credit {
    /// Offers without an outcome, and the bytes each holds.
    held: HashMap<EntryId, usize>,
    /// The bytes of all of them.
    bytes: usize,
    /// Offers that the mailbox may still make.
    unspent: usize,
}

impl Credit {
    /// The mailbox has made an offer that holds this many bytes.
    pub(super) fn offered(&mut self, entry: EntryId, bytes: usize) {
        self.unspent = self.unspent.saturating_sub(1);
        self.bytes += bytes;
        self.bytes -= self.held.insert(entry, bytes).unwrap_or(0);
    }

    /// An offer has its outcome.
    pub(super) fn settled(&mut self, entry: EntryId) {
        self.bytes -= self.held.remove(&entry).unwrap_or(0);
    }

    /// How many offers more the mailbox is to be allowed now.
    pub(super) fn grant(&mut self) -> usize {
        let by_bytes = MEMORY.saturating_sub(self.bytes) / MAX_TEXT as usize;
        let by_number = OFFERS.saturating_sub(self.held.len());
        let more = by_bytes.min(by_number).saturating_sub(self.unspent);
        self.unspent += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mailbox that offers whatever it may, each of this many bytes: how many are without outcome then.
    fn filled(credit: &mut Credit, bytes: usize) -> usize {
        let mut allowed = credit.grant();
        let mut offers = 0;
        while allowed > 0 {
            allowed -= 1;
            offers += 1;
            credit.offered(EntryId(offers), bytes);
            allowed += credit.grant();
        }
        assert!(credit.bytes <= MEMORY, "{} bytes", credit.bytes);
        offers as usize
    }

    #[test]
    fn long_texts_are_bounded_by_their_bytes_and_small_files_by_their_number() {
        assert_eq!(filled(&mut Credit::default(), MAX_TEXT as usize), 16);
        assert_eq!(filled(&mut Credit::default(), 16 * 1024), OFFERS);
        assert_eq!(filled(&mut Credit::default(), 0), OFFERS);
    }

    #[test]
    fn an_outcome_makes_room_again() {
        let mut credit = Credit::default();
        filled(&mut credit, MAX_TEXT as usize);
        assert_eq!(credit.grant(), 0);
        credit.settled(EntryId(1));
        assert_eq!(credit.grant(), 1);
        credit.settled(EntryId(2));
        credit.settled(EntryId(2));
        assert_eq!(credit.grant(), 1, "an outcome counts once");
    }
}
