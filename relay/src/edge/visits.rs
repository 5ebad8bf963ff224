//! How many connections each source has.
//!
//! Owns the count. A connection is counted before it has cost more than its acceptance, and until it is closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rules::Source;

/// The connections of each source. Bounded by the connections that there are.
#[derive(Debug)]
pub(crate) struct Visits {
    /// How many one source may have; 0 is unlimited.
    max: usize,
    counts: Mutex<HashMap<Source, usize>>,
}

/// One connection of a source, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    visits: Arc<Visits>,
    source: Source,
}

impl Visits {
    /// Nobody yet; at most so many for each source, 0 is unlimited.
    pub fn new(max: usize) -> Self {
        Self { max, counts: Mutex::default() }
    }

    /// One more of this source, if it may have it.
    pub(super) fn enter(self: &Arc<Self>, source: Source) -> Option<Visit> {
        let mut counts = self.counts();
        let count = counts.entry(source).or_default();
        if self.max > 0 && *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Visit { visits: self.clone(), source })
    }

    /// No step panics half-way, so a poisoned lock still guards a whole count.
    fn counts(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit {
    /// Whose it is.
    pub const fn source(&self) -> Source {
        self.source
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut counts = self.visits.counts();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_and_room_comes_back() {
        let visits = Arc::new(Visits::new(2));
        let (one, other) = (Source::V4([192, 0, 2, 1]), Source::V4([192, 0, 2, 2]));
        let first = visits.enter(one).expect("room");
        let _second = visits.enter(one).expect("room");
        assert!(visits.enter(one).is_none());
        assert_eq!(visits.enter(other).expect("room").source(), other);
        drop(first);
        assert!(visits.enter(one).is_some());
        assert_eq!(visits.counts().len(), 1, "nothing is kept of who has gone");
    }

    #[test]
    fn zero_is_unlimited() {
        let visits = Arc::new(Visits::new(0));
        let all: Vec<_> = (0..1000).map(|_| visits.enter(Source::Local).expect("room")).collect();
        drop(all);
        assert!(visits.counts().is_empty());
    }
}
