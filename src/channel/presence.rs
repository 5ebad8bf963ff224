//! What became of what this side sent: when the peer had stored it, and when its owner had read it, as far as it is told.
//!
//! Owns the last items and their times, which are those of this side's clock. What the peer says is bounded by what is
//! known here: nothing was read before it was stored, nor later than now. Takes the time as an argument.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::report::utc;
use crate::event::state::{MAX_LISTED, SentState};
use crate::item::ItemId;

/// An item that the peer has stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: ItemId,
    /// The word of its event.
    pub(super) kind: &'static str,
    /// Relative to the outbox.
    pub(super) name: String,
    pub(super) size: u64,
}

#[derive(Debug)]
struct Known {
    item: Stored,
    stored: SystemTime,
    opened: Option<SystemTime>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// The last [`MAX_LISTED`], oldest first.
    items: VecDeque<Known>,
    /// How many were there before them.
    more: u64,
    /// Items that were read before their receipt was here: the last [`MAX_LISTED`].
    early: VecDeque<ItemId>,
    last: Option<SystemTime>,
}

impl Presence {
    /// The receipt of an item is here.
    pub(super) fn stored(&mut self, item: Stored, now: SystemTime) {
        let early = self.early.iter().position(|id| *id == item.id);
        let opened = early.and_then(|at| self.early.remove(at)).map(|_| now);
        if self.items.len() >= MAX_LISTED {
            self.items.pop_front();
            self.more += 1;
        }
        self.items.push_back(Known { item, stored: now, opened });
    }

    /// The peer says that its owner has read an item at some time, in milliseconds since 1970. The first time counts.
    pub(super) fn opened(&mut self, id: ItemId, at: u64, now: SystemTime) {
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at)).unwrap_or(now).min(now);
        let Some(known) = self.items.iter_mut().find(|known| known.item.id == id) else {
            // Or it is not listed any more: receipts come in no order of numbers, so that cannot be told apart.
            if self.early.len() >= MAX_LISTED {
                self.early.pop_front();
            }
            self.early.push_back(id);
            self.last = Some(self.last.map_or(at, |last| last.max(at)));
            return;
        };
        let at = at.max(known.stored).min(now);
        known.opened.get_or_insert(at);
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    /// When something was last read.
    pub(super) const fn last_opened(&self) -> Option<SystemTime> {
        self.last
    }

    /// For `status.json`: the last items, and how many there were before.
    pub(super) fn listed(&self) -> (Vec<SentState>, u64) {
        let listed = self.items.iter().map(|Known { item, stored, opened }| SentState {
            id: item.id.0,
            kind: item.kind.to_owned(),
            name: item.name.clone(),
            size: item.size,
            stored: utc(*stored),
            opened: opened.map(utc),
        });
        (listed.collect(), self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn stored(presence: &mut Presence, id: u64, now: u64) {
        let item = Stored { id: ItemId(id), kind: "file", name: id.to_string(), size: 1 };
        presence.stored(item, at(now));
    }

    fn opened(presence: &Presence) -> Vec<Option<String>> {
        presence.listed().0.into_iter().map(|item| item.opened).collect()
    }

    #[test]
    fn a_time_of_the_peers_lies_between_the_receipt_and_now() {
        for (said, known) in [(0, 100), (99_999, 100), (150_000, 150), (201_000, 200), (u64::MAX, 200)] {
            let mut presence = Presence::default();
            stored(&mut presence, 1, 100);
            presence.opened(ItemId(1), said, at(200));
            assert_eq!(opened(&presence), [Some(utc(at(known)))], "{said}");
            assert_eq!(presence.last_opened(), Some(at(known)));
        }
    }

    #[test]
    fn the_first_time_counts_and_a_clock_that_was_set_back_does_no_harm() {
        let mut presence = Presence::default();
        stored(&mut presence, 1, 100);
        presence.opened(ItemId(1), 120_000, at(200));
        presence.opened(ItemId(1), 150_000, at(200));
        assert_eq!(opened(&presence), [Some(utc(at(120)))]);
        assert_eq!(presence.last_opened(), Some(at(150)));
        stored(&mut presence, 2, 300);
        presence.opened(ItemId(2), 1, at(250));
        assert_eq!(opened(&presence)[1], Some(utc(at(250))));
    }

    #[test]
    fn what_was_read_before_its_receipt_was_here_is_known_when_it_is() {
        let mut presence = Presence::default();
        presence.opened(ItemId(1), 100_000, at(100));
        assert!(opened(&presence).is_empty());
        stored(&mut presence, 1, 101);
        assert_eq!(opened(&presence), [Some(utc(at(101)))]);
    }

    #[test]
    fn a_file_that_a_later_text_overtook_may_be_read_before_its_receipt_is_here_too() {
        let mut presence = Presence::default();
        stored(&mut presence, 2, 100);
        presence.opened(ItemId(1), 100_000, at(100));
        stored(&mut presence, 1, 101);
        assert_eq!(opened(&presence), [None, Some(utc(at(101)))]);
    }

    #[test]
    fn only_the_last_are_known() {
        let mut presence = Presence::default();
        for id in 1..=MAX_LISTED as u64 + 5 {
            presence.opened(ItemId(id + 1_000_000), 1, at(id));
            stored(&mut presence, id, id);
        }
        let (listed, more) = presence.listed();
        assert_eq!((listed.len(), listed[0].id, more), (MAX_LISTED, 6, 5));
        assert_eq!(presence.early.len(), MAX_LISTED);
        presence.opened(ItemId(1), 1, at(500));
        assert_eq!(presence.early.len(), MAX_LISTED);
    }
}
