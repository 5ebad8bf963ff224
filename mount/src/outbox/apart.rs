//! Texts that were written over before they could be offered: each is a message of its own, and has a key of its own
//! until it is delivered. Owns these keys.

use std::sync::Arc;
use std::time::Instant;

use super::barrier::{End, Member};
use super::entry::{Node, State};
use super::{Outbox, Sign, Stat};
use crate::EntryId;

/// Between the name and the number of a text that was set apart: no path has two NUL.
const APART: &str = "\0\0";

/// The word of [`Outbox::standing`] for what the peer has.
pub const DELIVERED: &str = "delivered";

/// The name that the owner of something knows it by.
#[must_use]
pub fn name_of(key: &str) -> &str {
    key.split_once(APART).map_or(key, |(name, _)| name)
}

impl Outbox {
    /// A text that is due and not offered yet is about to be written over, renamed over or removed from its path by a
    /// back end that has kept its bytes: it stays in its place in the order, under a key that is returned. `None` where
    /// there is nothing to set apart: what still waits, as an empty one does for its first bytes and one of `mkstemp` for
    /// its name, was no message yet.
    pub fn set_apart(&mut self, path: &str, now: Instant) -> Option<Arc<str>> {
        let entry = self.entries.get(path)?;
        let (order, touched) = (entry.order, entry.touched);
        let stat = Stat { node: entry.node, identity: entry.identity };
        let is_due = matches!(entry.state, State::Ready { .. });
        if !(is_due && entry.text && entry.complete && entry.node == Node::File) {
            return None;
        }
        let state = entry.state.clone();
        self.remove(path, now);
        let key: Arc<str> = format!("{path}{APART}{order}").into();
        // One was removed: there is room.
        self.insert(&key, stat, Sign::Complete, now);
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.text, entry.order, entry.touched) = (true, order, touched);
        }
        self.barriers.end(&Member::Path(path.into()), End::Becomes(&Member::Path(Arc::clone(&key))));
        self.set_state(&key, state, now);
        Some(key)
    }

    /// Its owner removed what is at a path: as [`Outbox::gone`], with the texts that were set apart from it. Returns
    /// their keys.
    pub fn removed(&mut self, path: &str, now: Instant) -> Vec<Arc<str>> {
        let prefix: Arc<str> = format!("{path}{APART}").into();
        let known = self.entries.range(Arc::clone(&prefix)..).map(|(key, _)| Arc::clone(key));
        let keys: Vec<_> = known.take_while(|key| key.starts_with(&*prefix)).collect();
        for key in &keys {
            self.gone(key, now);
        }
        self.gone(path, now);
        keys
    }

    /// Where a path stands, in a word for a person, and the offer that it has or had last; `None` where it is not sent.
    #[must_use]
    pub fn standing(&self, path: &str) -> Option<(&'static str, Option<EntryId>)> {
        let entry = self.entries.get(path)?;
        let word = match &entry.state {
            State::Waiting { .. } | State::Ready { .. } | State::Preparing(_) => "queued",
            State::Offered(_) => "sending",
            State::Delivered => DELIVERED,
            State::Refused(_) => "refused",
            State::LeftOut { .. } => return None,
            // Its name goes with what is in it.
            State::Made => "queued",
        };
        Some((word, entry.last_offer))
    }

    /// Something about a path changed that is no content: it leaves later.
    pub fn nudge(&mut self, path: &str, now: Instant) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.touched = now;
        }
        self.changed_below(path, now);
    }
}
