//! What the queues hold altogether.
//!
//! Owns the sums that the memory rule judges by, and who waits for memory. Does not hold frames.

use std::collections::VecDeque;

use super::channel::{Queue, cost};
use crate::rules::{Ask, Room, Source, Sources, Verdict};
use crate::wire::Role;

/// Senders that are woken when memory is freed. Who still does not fit waits again behind the others.
const WOKEN_AT_ONCE: usize = 16;

/// The memory of all queues and what each source uses.
#[derive(Debug)]
pub(super) struct Ledger {
    room: Room,
    /// Channels, bytes and failures of each source.
    pub sources: Sources,
    /// Bytes held by frames and reservations.
    total: usize,
    /// Directions that hold any.
    active: usize,
    /// Senders that wait for memory: the channel and who receives. At most one entry for each direction.
    waiting: VecDeque<(u64, Role)>,
}

impl Ledger {
    pub fn new(room: Room, sources: Sources) -> Self {
        Self { room, sources, total: 0, active: 0, waiting: VecDeque::new() }
    }

    /// Bytes held.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Reserves room for a frame of `len` bytes from `payer`, in place of an earlier reservation. That one stays if
    /// there is no room.
    pub fn reserve(&mut self, queue: &mut Queue, payer: Source, len: usize, straight: bool) -> Verdict {
        self.change(queue, |ledger, queue| {
            let earlier = queue.reserved.take();
            if let Some((payer, bytes)) = earlier {
                ledger.free(payer, bytes);
            }
            let verdict = ledger.room.judge(&Ask {
                cost: cost(len),
                queued: queue.cost,
                straight,
                total: ledger.total,
                source: ledger.sources.held(payer),
                active: ledger.active,
            });
            queue.reserved = if verdict == Verdict::Fits { Some((payer, cost(len))) } else { earlier };
            if let Some((payer, bytes)) = queue.reserved {
                ledger.hold(payer, bytes);
            }
            verdict
        })
    }

    /// Changes a queue and books what it holds more or less afterwards.
    pub fn change<R>(&mut self, queue: &mut Queue, change: impl FnOnce(&mut Self, &mut Queue) -> R) -> R {
        let before = queue.is_active();
        let result = change(self, queue);
        match (before, queue.is_active()) {
            (false, true) => self.active += 1,
            (true, false) => self.active = self.active.saturating_sub(1),
            _ => {}
        }
        result
    }

    pub fn hold(&mut self, payer: Source, bytes: usize) {
        self.total += bytes;
        self.sources.hold(payer, bytes);
    }

    pub fn free(&mut self, payer: Source, bytes: usize) {
        self.total = self.total.saturating_sub(bytes);
        self.sources.free(payer, bytes);
    }

    /// Gives the sender's reservation back.
    pub fn unreserve(&mut self, queue: &mut Queue) {
        self.change(queue, |ledger, queue| {
            if let Some((payer, bytes)) = queue.reserved.take() {
                ledger.free(payer, bytes);
            }
        });
    }

    /// Empties the queue and gives the reservation back.
    pub fn clear(&mut self, queue: &mut Queue) {
        self.unreserve(queue);
        self.change(queue, |ledger, queue| queue.clear(|payer, bytes| ledger.free(payer, bytes)));
    }

    /// This direction's sender waits for memory.
    pub fn wait(&mut self, key: u64, to: Role) {
        if !self.waiting.contains(&(key, to)) {
            self.waiting.push_back((key, to));
        }
    }

    /// Who to wake because memory was freed.
    pub fn woken(&mut self) -> impl Iterator<Item = (u64, Role)> + use<> {
        let count = self.waiting.len().min(WOKEN_AT_ONCE);
        self.waiting.drain(..count).collect::<Vec<_>>().into_iter()
    }
}
