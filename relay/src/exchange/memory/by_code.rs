//! Channels under a code.
//!
//! Owns who may sit under a code that the relay was told. What a seat is, and all that comes after, is [`State`]'s.

use std::time::Instant;

use super::Hold;
use super::channel::{Presence, Seat};
use super::state::State;
use crate::exchange::Caller;
use crate::rules::{CodeHash, SeatHash};
use crate::wire::{ErrorCode, Id, Role};

/// What is drawn for a join, whether it is used or not.
pub(super) struct Drawn {
    /// Of the seat's credential.
    pub seat: SeatHash,
    /// The channel's id, where this is a pairing.
    pub pairing: Id,
}

impl State {
    pub fn join_code(
        &mut self,
        code: CodeHash,
        role: Role,
        drawn: Drawn,
        caller: Caller,
        now: Instant,
    ) -> Result<Hold, ErrorCode> {
        if !self.ledger.sources.may_join(caller.source, now) {
            return Err(ErrorCode::TooManyFailedJoins);
        }
        let source = caller.source;
        let seated = match (self.codes.get(&code).copied(), role) {
            (None, Role::Host) => return self.host_code(code, drawn, caller, now),
            (None, Role::Peer) => None,
            (Some(key), Role::Host) => self.take_seat(key, role, drawn.seat, caller),
            (Some(key), Role::Peer) if self.seat(key, role).is_some() => {
                self.take_seat(key, role, drawn.seat, caller)
            }
            (Some(key), Role::Peer) => {
                let epoch = self.next();
                let peer = Seat::new(Some(drawn.seat), caller, epoch, now);
                self.pair(key, drawn.pairing, peer, now)
            }
        };
        seated.ok_or_else(|| {
            self.ledger.sources.failed_join(source, now);
            ErrorCode::UnableToJoin
        })
    }

    /// The first to come as the host.
    fn host_code(
        &mut self,
        code: CodeHash,
        drawn: Drawn,
        caller: Caller,
        now: Instant,
    ) -> Result<Hold, ErrorCode> {
        let key = self.open(caller.source, now)?;
        let epoch = self.next();
        self.codes.insert(code, key);
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.code = Some(code);
            channel.by_code = true;
            channel.seats[Role::Host.index()] = Some(Seat::new(Some(drawn.seat), caller, epoch, now));
        }
        Ok(Hold { key, role: Role::Host, epoch })
    }

    /// Whoever knows the code takes a seat whose socket is away, or whose socket is its own: it may be dead, and the
    /// relay does not know yet.
    fn take_seat(&mut self, key: u64, role: Role, hash: SeatHash, caller: Caller) -> Option<Hold> {
        let seat = self.seat(key, role)?;
        let may = match seat.presence {
            Presence::Here => seat.source == caller.source,
            Presence::Away => true,
            Presence::Left => false,
        };
        if !may {
            return None;
        }
        // Its client knows nothing: it is told again.
        seat.told_paired = false;
        self.reseat(key, role, hash, caller)
    }
}
