//! What the queues hold altogether.
//!
//! Owns the sums that the memory rule judges by, and who waits for memory. Does not hold frames.

use std::collections::VecDeque;

use super::channel::{Queue, cost};
use crate::exchange::WOKEN_AT_ONCE;
use crate::rules::{Ask, Room, Source, Sources, Verdict};
use crate::wire::Role;

/// The memory of all queues and what each source uses.
#[derive(Debug)]
pub(super) struct Ledger {
    room: Room,
    /// Channels, bytes and failures of each source.
    pub sources: Sources,
    /// Bytes held by frames.
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

    /// Judges a frame of `len` bytes from `payer` and books it if it fits: the queue has to append it then. `room` is
    /// what the direction may hold, and whether the frame goes straight through.
    pub fn admit(
        &mut self,
        queue: &Queue,
        payer: Source,
        len: usize,
        (bound, straight): (usize, bool),
    ) -> Verdict {
        let cost = cost(len);
        let verdict = self.room.judge(&Ask {
            cost,
            queued: queue.cost,
            bound,
            straight,
            total: self.total,
            source: self.sources.held(payer),
            active: self.active,
        });
        if verdict == Verdict::Fits {
            self.active += usize::from(!queue.is_active());
            self.total += cost;
            self.sources.hold(payer, cost);
        }
        verdict
    }

    /// Takes frames out of a queue that were written; `written` of those that were handed out.
    pub fn written(&mut self, queue: &mut Queue, written: usize) {
        self.shrink(queue, |queue, freed| queue.written(written, freed));
    }

    /// Empties a queue.
    pub fn clear(&mut self, queue: &mut Queue) {
        self.shrink(queue, |queue, freed| queue.clear(freed));
    }

    /// Takes frames out of a queue and books what that frees.
    fn shrink(&mut self, queue: &mut Queue, take: impl FnOnce(&mut Queue, &mut dyn FnMut(Source, usize))) {
        let before = queue.is_active();
        take(queue, &mut |payer, bytes| {
            self.total = self.total.saturating_sub(bytes);
            self.sources.free(payer, bytes);
        });
        if before && !queue.is_active() {
            self.active = self.active.saturating_sub(1);
        }
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
