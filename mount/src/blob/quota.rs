//! How many bytes may be held. Owns the counts; what is charged is given back when its [`Charge`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count with a limit that it is never above.
#[derive(Debug)]
pub(super) struct Gauge {
    limit: u64,
    used: AtomicU64,
}

impl Gauge {
    pub(super) const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Adds so many bytes, or nothing where they do not fit.
    pub(super) fn add(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Takes back what was added.
    pub(super) fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no space is left for it")]
pub struct Full;

/// How many bytes the contents of one zone (outbox or inbox) occupy, against its limit.
#[derive(Debug)]
pub struct Quota(Gauge);

impl Quota {
    /// An empty zone with a limit in bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self(Gauge::new(limit)))
    }

    /// The limit in bytes.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.0.limit()
    }

    /// Bytes that are charged now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used()
    }

    /// Counts bytes until the charge is dropped.
    ///
    /// # Errors
    /// [`Full`], and nothing is counted.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, Full> {
        let mut charge = Charge { quota: Arc::clone(self), bytes: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }
}

/// Bytes that count against a [`Quota`] as long as this lives.
#[derive(Debug)]
pub struct Charge {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Charge {
    /// Makes it at least so many bytes.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Full> {
        let more = bytes.saturating_sub(self.bytes);
        if !self.quota.0.add(more) {
            return Err(Full);
        }
        self.bytes += more;
        Ok(())
    }

    /// Makes it at most so many bytes.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.quota.0.sub(less);
        self.bytes -= less;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.quota.0.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_counts_as_long_as_it_lives() {
        let quota = Quota::new(100);
        let mut first = quota.charge(60).unwrap();
        assert_eq!(quota.charge(41).unwrap_err(), Full);
        assert_eq!(quota.charge(u64::MAX).unwrap_err(), Full);
        assert_eq!(first.grow(101), Err(Full));
        assert_eq!(quota.used(), 60);
        let second = quota.charge(40).unwrap();
        drop(first);
        assert_eq!(quota.used(), 40);
        drop(second);
        assert_eq!((quota.used(), quota.limit()), (0, 100));
    }

    #[test]
    fn a_charge_grows_and_shrinks_to_what_it_is_told() {
        let quota = Quota::new(100);
        let mut charge = quota.charge(10).unwrap();
        charge.grow(5).unwrap();
        charge.shrink(20);
        assert_eq!(quota.used(), 10);
        charge.grow(100).unwrap();
        charge.shrink(30);
        assert_eq!(quota.used(), 30);
    }
}
