//! Where an own item stands, for whoever shows it: how much of it the other end has, and what it waits for.
//!
//! Owns the words for what holds an item up on this end. Decides nothing about what leaves.

use super::{Outgoing, Stage, lane_index};
use crate::item::ItemId;

/// What the content of an item waits for while the connection stands and the peer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Hindrance {
    /// Its head has not left: others are before it.
    Turn,
    /// Its bytes come slowly out of their source.
    Source,
    /// A relay counts messages.
    Pace,
    /// The other end grants nothing.
    Grant,
    /// All of it has left; the receipt is missing.
    Receipt,
    /// Nothing in particular: what was sent is on its way.
    Way,
}

impl Hindrance {
    pub(in crate::session) const fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "others are before it",
            Self::Source => "its content comes slowly on this side",
            Self::Pace => "the relay's limit of messages a minute",
            Self::Grant => "the peer takes nothing at the moment",
            Self::Receipt => "the peer has not stored it yet",
            Self::Way => "what was sent is not acknowledged yet",
        }
    }
}

impl Outgoing {
    /// Bytes of an item's content, of a group's members for a group, that the other end is known to have.
    pub(in crate::session) fn confirmed(&self, id: ItemId) -> u64 {
        self.items.get(&id).map_or(0, |item| item.confirmed)
    }

    /// What an item waits for.
    pub(in crate::session) fn hindrance(&self, id: ItemId) -> Hindrance {
        let Some(item) = self.items.get(&id) else { return Hindrance::Receipt };
        match item.stage {
            Stage::Queued => return Hindrance::Turn,
            Stage::Ended => return Hindrance::Receipt,
            Stage::Open => {}
        }
        let mut under_way = item.members.iter().flatten().chain([&id]);
        let staged =
            under_way.any(|id| self.items.get(id).is_some_and(|item| item.staging.front().is_some()));
        if !staged && self.records.is_empty() {
            Hindrance::Source
        } else if self.paced_until[lane_index(item.lane)].is_some() {
            Hindrance::Pace
        } else if staged && self.records.is_empty() {
            Hindrance::Grant
        } else {
            Hindrance::Way
        }
    }

    /// Whether this end itself has nothing to give for what is under way.
    pub(in crate::session) fn is_starved(&self) -> bool {
        self.records.is_empty()
            && self.staged == [0; 2]
            && self.items.values().all(|item| item.stage != Stage::Queued && item.staging.front().is_none())
    }
}
