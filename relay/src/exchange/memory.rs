//! The store of one process.
//!
//! Owns all channels behind one lock that is never held across an await. Each step is short: a few map look-ups, no
//! hashing, no copying. Everything is forgotten when the process ends; that is a loss of memory in the sense of
//! `PROTOCOL.md`.

mod by_code;
mod channel;
mod ledger;
mod state;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use rand_core::OsRng;

use self::by_code::Drawn;
use self::state::State;
use super::{Caller, Due, Ended, Exchange, Pushed, Refusal, Seated, Usage};
use crate::options::Options;
use crate::rules::{CodeHash, SeatHash, fresh_id};
use crate::wire::{Id, Mood, Resume, Role};

/// The channels of this process.
#[derive(Debug)]
pub struct Memory {
    boot: Id,
    state: Mutex<State>,
    /// Spreads the channels over the slots of a drain.
    slots: RandomState,
}

/// One socket's hold on a seat.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// The channel.
    key: u64,
    /// The end.
    role: Role,
    /// Which of the seat's sockets: the latest one counts.
    epoch: u64,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new(options: &Options, now: Instant) -> Self {
        let boot = fresh_id(&mut OsRng);
        let state = Mutex::new(State::new(options.clone(), boot, now));
        Self { boot, state, slots: RandomState::new() }
    }

    /// Bytes held in queues, overhead included.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held()
    }

    /// No step of the state panics half-way, so a poisoned lock still guards a whole one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange for Memory {
    type Hold = Hold;

    fn boot(&self) -> Id {
        self.boot
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn usage(&self) -> Option<Usage> {
        let state = self.state();
        Some(Usage { channels: state.channels(), queued: state.held() })
    }

    fn slot(&self, hold: &Hold) -> u64 {
        self.slots.hash_one(hold.key)
    }

    async fn allocate(&self, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        let seat = fresh_id(&mut OsRng);
        let hash = SeatHash::of(&seat);
        let (hold, nameplate) = self.state().allocate(caller, hash, &mut OsRng, now)?;
        Ok(Seated { hold, boot: self.boot, seat, nameplate: Some(nameplate) })
    }

    async fn join(&self, nameplate: &str, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        let seat = fresh_id(&mut OsRng);
        let hash = SeatHash::of(&seat);
        let channel = fresh_id(&mut OsRng);
        let (hold, nameplate) = self.state().join(nameplate, caller, hash, channel, now)?;
        Ok(Seated { hold, boot: self.boot, seat, nameplate: Some(nameplate) })
    }

    async fn join_code(
        &self,
        code: &CodeHash,
        role: Role,
        caller: Caller,
        now: Instant,
    ) -> Result<Seated<Hold>, Refusal> {
        let seat = fresh_id(&mut OsRng);
        let drawn = Drawn { seat: SeatHash::of(&seat), pairing: fresh_id(&mut OsRng) };
        let hold = self.state().join_code(*code, role, drawn, caller, now)?;
        Ok(Seated { hold, boot: self.boot, seat, nameplate: None })
    }

    async fn resume(&self, claim: &Resume, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        let hash = SeatHash::of(&claim.seat);
        let (hold, nameplate) = self.state().resume(claim, hash, caller, now)?;
        Ok(Seated { hold, boot: self.boot, seat: claim.seat, nameplate })
    }

    async fn release(&self, hold: &Hold, now: Instant) -> Result<bool, Ended> {
        self.state().release(*hold, now)
    }

    async fn bye(&self, hold: Hold, mood: Mood, now: Instant) {
        self.state().bye(hold, mood, now);
    }

    async fn leave(&self, hold: Hold, written: usize, now: Instant) {
        self.state().leave(hold, written, now);
    }

    async fn push(&self, hold: &Hold, frame: Bytes, now: Instant) -> Result<Pushed, Ended> {
        self.state().push(*hold, frame, now)
    }

    async fn pop(&self, hold: &Hold, written: usize, now: Instant) -> Result<Due, Ended> {
        self.state().pop(*hold, written, now)
    }

    async fn sweep(&self, now: Instant) {
        self.state().sweep(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(options: Options, now: Instant) -> Memory {
        Memory::new(&options, now)
    }

    crate::exchange::tests::suite!(store);
}
