//! One socket's hold on a seat, and the bells of all sockets of this instance.
//!
//! Owns what this instance knows of a socket and the store does not: which frames it was given, and how to wake it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Inner;
use crate::exchange::Bell;
use crate::wire::{Id, Role};

/// One socket's hold on a seat. Dropped without a word, it leaves the seat by itself.
#[derive(Debug)]
pub struct Hold {
    /// The channel.
    pub(super) key: String,
    pub(super) role: Role,
    /// Which of the seat's sockets: the latest one counts.
    pub(super) epoch: u64,
    /// The store's memory when the seat was taken.
    pub(super) boot: Id,
    /// Of its bell.
    pub(super) number: u64,
    handed: Mutex<Handed>,
    /// What to tell of its end; nobody once that is done.
    store: Weak<Inner>,
}

/// What passed between the store and one socket.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// The serial of the last frame that it was given.
    pub after: u64,
    /// Frames that it was given and has not reported as written, oldest first. Bounded by what is popped at once.
    pub given: VecDeque<Given>,
    /// Frames that were taken from it.
    pub pushed: u64,
    /// Questions that are answered once, beside those frames.
    pub asked: u64,
    /// The last frame was a long one: the next may be, too.
    pub bulk: bool,
}

/// A frame that a socket was given.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub serial: u64,
    /// Whose share of the memory it uses, as the store names it.
    pub payer: String,
    /// In bytes, overhead included.
    pub cost: usize,
}

impl Handed {
    /// The first `written` frames, as scripts are told of them.
    pub fn settled(&self, written: usize) -> impl Iterator<Item = Bytes> {
        self.given.iter().take(written).flat_map(|given| {
            [
                given.serial.to_string().into(),
                Bytes::from(given.payer.clone()),
                Bytes::from(given.cost.to_string()),
            ]
        })
    }

    /// The number of the next question.
    pub fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Notes frames that are being given.
    pub fn give(&mut self, frames: Vec<Given>) {
        self.after = frames.last().map_or(self.after, |last| last.serial);
        self.given.extend(frames);
    }

    /// The frames that it was given are not there any more.
    pub fn forget(&mut self) {
        self.given.clear();
    }
}

impl Hold {
    pub(super) fn new(
        key: String,
        role: Role,
        epoch: u64,
        boot: Id,
        number: u64,
        store: &Arc<Inner>,
    ) -> Self {
        let handed = Mutex::default();
        Self { key, role, epoch, boot, number, handed, store: Arc::downgrade(store) }
    }

    /// No step panics half-way, so a poisoned lock still guards a whole state.
    pub(super) fn handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on its end is somebody's own business: the store to tell of it, if that is still there.
    pub(super) fn disarm(&mut self) -> Option<Arc<Inner>> {
        let store = std::mem::take(&mut self.store).upgrade()?;
        store.bells.remove(self.number);
        Some(store)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(store) = self.disarm() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let gone = Self {
            key: std::mem::take(&mut self.key),
            handed: Mutex::default(),
            store: Weak::new(),
            ..*self
        };
        runtime.spawn(async move { store.part(&gone, "away", false, 0, Instant::now()).await });
    }
}

/// The bells of this instance's sockets, by number.
#[derive(Debug, Default)]
pub(super) struct Bells {
    bells: Mutex<HashMap<u64, Arc<Bell>>>,
    /// The last number given.
    serial: AtomicU64,
}

impl Bells {
    /// Gives a bell a number.
    pub fn add(&self, bell: &Arc<Bell>) -> u64 {
        let number = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        self.bells().insert(number, bell.clone());
        number
    }

    pub fn remove(&self, number: u64) {
        self.bells().remove(&number);
    }

    pub fn ring(&self, numbers: &[u64]) {
        if numbers.is_empty() {
            return;
        }
        let bells = self.bells();
        for bell in numbers.iter().filter_map(|number| bells.get(number)) {
            bell.ring();
        }
    }

    /// Rings this one after a while.
    pub fn ring_later(self: &Arc<Self>, number: u64, pause: Duration) {
        let bells = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            bells.ring(&[number]);
        });
    }

    /// Rings all: who knows what they missed.
    pub fn ring_all(&self) {
        self.bells().values().for_each(|bell| bell.ring());
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<u64, Arc<Bell>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
