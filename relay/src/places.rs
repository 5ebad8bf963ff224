//! Places: how many connections may move long frames.
//!
//! Owns the count, for the relay and for each source. The websocket's codec keeps the memory of the longest frame that
//! a connection has moved until that connection ends, so a place is held that long. Holds no frames.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::exchange::Bell;
use crate::options::Options;
use crate::rules::{SOURCE_PARTS, Source};

/// Frames of at most this many bytes need no place: the longest one of protocol 2 (1 MiB + 64 KiB) with its head, and
/// the pings and fragment heads that may come with it.
pub(crate) const SHORT: usize = (1 << 20) + (128 << 10);
/// Buffers that may grow to the longest frame: the one it is read into and the one that its fragments are put together
/// in, for a place to read; the one it is written from, for a place to write.
const BUFFERS: usize = 3;

/// The places of one relay to read long frames, or those to write them. They are counted apart: if senders could hold
/// all of them, nothing could be delivered.
#[derive(Debug)]
pub(crate) struct Places {
    /// How many there are.
    max: usize,
    /// How many of those one source may hold.
    share: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// Sources that hold any.
    sources: HashMap<Source, usize>,
    /// Connections that found none and still are: one entry for each.
    waiting: Vec<Weak<Bell>>,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    source: Source,
}

impl Places {
    /// As many as let all buffers of both kinds use as much as the queues may, one at least. A source may hold as large
    /// a part of them as of the queues' memory, one at least.
    pub fn new(options: &Options) -> Self {
        let max = (options.memory / options.max_frame.saturating_mul(BUFFERS).max(1)).max(1);
        let parts = if options.memory_per_source < options.memory { SOURCE_PARTS } else { 1 };
        Self { max, share: (max / parts).max(1), taken: Mutex::default() }
    }

    /// A place, or none: then the bell rings when one gets free.
    pub fn take(self: &Arc<Self>, source: Source, bell: &Arc<Bell>) -> Option<Place> {
        let mut taken = self.taken();
        let held = taken.sources.get(&source).copied().unwrap_or(0);
        if taken.total >= self.max || held >= self.share {
            let me = Arc::downgrade(bell);
            taken.waiting.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&me));
            taken.waiting.push(me);
            return None;
        }
        taken.total += 1;
        taken.sources.insert(source, held + 1);
        Some(Place { places: self.clone(), source })
    }

    /// No step panics half-way, so a poisoned lock still guards a whole count.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.total -= 1;
        if let Some(held) = taken.sources.get_mut(&self.source) {
            *held -= 1;
            if *held == 0 {
                taken.sources.remove(&self.source);
            }
        }
        for bell in std::mem::take(&mut taken.waiting) {
            if let Some(bell) = bell.upgrade() {
                bell.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    const MIB: usize = 1 << 20;

    fn rang(bell: &Bell) -> bool {
        bell.poll_rung(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn they_are_as_many_as_the_memory_could_hold() {
        let places = Places::new(&Options::default());
        assert_eq!((places.max, places.share), (17, 2));
        let local = Places::new(&Options::local());
        assert_eq!((local.max, local.share), (17, 17));
        let tight = Places::new(&Options::default().with_memory(20 * MIB, 10 * MIB));
        assert_eq!((tight.max, tight.share), (1, 1));
    }

    #[test]
    fn a_source_has_its_share_and_who_waits_is_told() {
        let places = Arc::new(Places { max: 3, share: 2, taken: Mutex::default() });
        let (one, other) = (Source::V4([192, 0, 2, 1]), Source::V4([192, 0, 2, 2]));
        let bell = Arc::default();
        let first = places.take(one, &bell).expect("a place");
        let _second = places.take(one, &bell).expect("a place");
        assert!(places.take(one, &bell).is_none() && places.take(one, &bell).is_none());
        assert_eq!(places.taken().waiting.len(), 1);
        let third = places.take(other, &bell);
        assert!(third.is_some() && !rang(&bell));
        drop(first);
        assert!(rang(&bell));
        let fourth = places.take(one, &bell);
        assert!(fourth.is_some() && places.take(other, &Arc::default()).is_none());
        drop(third);
        drop(fourth);
        let taken = places.taken();
        assert_eq!((taken.total, taken.sources.len()), (1, 1));
    }

    #[test]
    fn who_is_gone_does_not_wait() {
        let places = Arc::new(Places { max: 1, share: 1, taken: Mutex::default() });
        let _place = places.take(Source::Local, &Arc::default()).expect("a place");
        for _ in 0..10 {
            assert!(places.take(Source::Local, &Arc::default()).is_none());
        }
        assert!(places.taken().waiting.len() <= 1);
    }
}
