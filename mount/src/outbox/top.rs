//! When things leave the outbox: they leave whole, so what counts is kept for each name at its top.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::entry::Weight;
use crate::secret;
use crate::special::Special;

/// One name at the top of the outbox with everything below it.
#[derive(Debug)]
pub(super) struct Top {
    /// Entries, itself included.
    all: usize,
    /// Of them, those that the peer does not have.
    pending: usize,
    /// Of them, those that are not sent: leaving would lose them.
    left_out: usize,
    /// Whether there is more in it than could be known.
    held: bool,
    /// Last change in it.
    pub(super) touched: Instant,
    /// It does not leave before this.
    pub(super) not_before: Instant,
    /// Its timer.
    leave: Option<Instant>,
}

impl Top {
    /// Whether nothing in it holds it back.
    pub(super) const fn is_done(&self) -> bool {
        self.pending == 0 && self.left_out == 0 && !self.held
    }

    const fn count(&mut self, weight: Weight) -> Option<&mut usize> {
        match weight {
            Weight::Pending => Some(&mut self.pending),
            Weight::LeftOut => Some(&mut self.left_out),
            Weight::Done => None,
        }
    }
}

/// All names at the top.
#[derive(Debug, Default)]
pub(super) struct Tops {
    tops: HashMap<Arc<str>, Top>,
    timers: BTreeSet<(Instant, Arc<str>)>,
}

impl Tops {
    pub(super) fn find(&self, name: &str) -> Option<&Top> {
        self.tops.get(name)
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut Top> {
        self.tops.get_mut(name)
    }

    /// There is more below a name than could be known: it does not leave.
    pub(super) fn hold(&mut self, name: &str) {
        if let Some(top) = self.tops.get_mut(name) {
            top.held = true;
            self.schedule(name, None);
        }
    }

    /// What could not be known is looked for again, and whatever that finds may leave.
    pub(super) fn release(&mut self) {
        self.tops.values_mut().for_each(|top| top.held = false);
    }

    /// An entry changed its weight; `None` before it was known and after it is gone.
    pub(super) fn weigh(&mut self, name: &str, old: Option<Weight>, new: Option<Weight>, now: Instant) {
        let top = self.tops.entry(name.into()).or_insert_with(|| Top {
            all: 0,
            pending: 0,
            left_out: 0,
            held: false,
            touched: now,
            not_before: now,
            leave: None,
        });
        top.all = top.all + usize::from(new.is_some()) - usize::from(old.is_some());
        if let Some(count) = old.and_then(|weight| top.count(weight)) {
            *count -= 1;
        }
        if let Some(count) = new.and_then(|weight| top.count(weight)) {
            *count += 1;
        }
        if top.all == 0 {
            self.schedule(name, None);
            self.tops.remove(name);
        }
    }

    /// Sets or clears the timer of a name.
    pub(super) fn schedule(&mut self, name: &str, at: Option<Instant>) {
        let Some((name, _)) = self.tops.get_key_value(name) else { return };
        let name = Arc::clone(name);
        let Some(top) = self.tops.get_mut(&name) else { return };
        if top.leave == at {
            return;
        }
        if let Some(old) = std::mem::replace(&mut top.leave, at) {
            self.timers.remove(&(old, Arc::clone(&name)));
        }
        if let Some(at) = at {
            self.timers.insert((at, name));
        }
    }

    /// A name whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Arc<str>> {
        let (_, name) = self.timers.first().filter(|(at, _)| *at <= now)?;
        let name = Arc::clone(name);
        self.schedule(&name, None);
        Some(name)
    }

    /// When the next name may leave.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }
}

/// The first part of a path; what is in a directory of ours leaves by itself.
pub(super) fn top_of(path: &str) -> &str {
    if Special::of(path).is_some() || secret::below(path).is_some() {
        return path;
    }
    path.split_once('/').map_or(path, |(top, _)| top)
}
