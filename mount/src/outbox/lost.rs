//! What left the outbox although nobody stored it: streams that were refused after their writer had written all of it.
//!
//! Owns what is remembered of them: each fails one flush, as an `fsync` tells of an error once, and counts as undelivered
//! until something else is at its path.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::barrier::Answer;

/// Most that are remembered; the event `refused` has told of each.
const MAX_LOST: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Why, and whether a flush has told it.
    paths: BTreeMap<Arc<str>, (String, bool)>,
}

impl Lost {
    pub(super) fn add(&mut self, path: &Arc<str>, why: &str) {
        if self.paths.len() < MAX_LOST {
            self.paths.insert(Arc::clone(path), (why.to_owned(), false));
        }
    }

    /// Something else is at a path.
    pub(super) fn remove(&mut self, path: &str) {
        self.paths.remove(path);
    }

    /// Fails a flush with each that failed none before.
    pub(super) fn tell(&mut self, answer: &mut Answer) {
        for (path, (why, told)) in self.paths.iter_mut().filter(|(_, (_, told))| !told) {
            answer.fail(path, why);
            *told = true;
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(|path| &**path)
    }
}
