//! One channel: two seats, two queues, one rate.
//!
//! Owns what is due to a seat. Does not know the other channels, the budget or the nameplates.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::exchange::{Bell, Caller, Due, Ended, POP_BYTES, POP_FRAMES, POP_FRAMES_BY_CODE};
use crate::rules::{
    CODE_QUEUE, ChannelRate, CodeHash, Draw, FRAME_OVERHEAD, Nameplate, QUEUE, SeatHash, Source,
};
use crate::wire::{Id, Role, Status};

/// The other end, as a seat sees it or was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    Away,
    Left,
}

/// One end's seat.
#[derive(Debug)]
pub(super) struct Seat {
    /// What a resume has to match. `None`: re-created after a loss of memory, the first resume fixes it.
    pub hash: Option<SeatHash>,
    /// The epoch of the seat's first socket: an older hold belongs to a released seat.
    pub first_epoch: u64,
    /// The epoch of the latest socket.
    pub epoch: u64,
    /// Where that socket comes from.
    pub source: Source,
    /// Wakes it.
    pub bell: Arc<Bell>,
    /// Whether it is there.
    pub presence: Presence,
    /// Since when it is not.
    pub absent_since: Instant,
    /// It waits for its bell because nothing was due.
    idle: bool,
    /// It has been told that the channel is paired.
    pub told_paired: bool,
    /// What it has been told of the other end.
    told: Presence,
    /// It has been told of the rate limit.
    told_throttled: bool,
}

impl Seat {
    /// A seat with this socket in it.
    pub fn new(hash: Option<SeatHash>, caller: Caller, epoch: u64, now: Instant) -> Self {
        Self {
            hash,
            first_epoch: epoch,
            epoch,
            source: caller.source,
            bell: caller.bell,
            presence: Presence::Here,
            absent_since: now,
            idle: false,
            told_paired: false,
            told: Presence::Here,
            told_throttled: false,
        }
    }

    /// A seat of a re-created channel whose end has not come back yet.
    pub fn vacant(caller: &Caller, now: Instant) -> Self {
        let vacant = Caller { source: caller.source, bell: Arc::default() };
        Self { presence: Presence::Away, told_paired: true, ..Self::new(None, vacant, 0, now) }
    }

    /// Another socket takes the seat; the old one is woken to find out.
    pub fn replace(&mut self, caller: Caller, epoch: u64) {
        self.bell.ring();
        self.epoch = epoch;
        self.source = caller.source;
        self.bell = caller.bell;
        self.presence = Presence::Here;
        self.idle = false;
        self.told = Presence::Here;
    }

    /// Wakes the seat's socket: its state changed.
    pub fn wake(&mut self) {
        self.idle = false;
        self.bell.ring();
    }

    /// Wakes the seat's socket for a frame, unless it will look by itself.
    fn wake_if_idle(&mut self) {
        if std::mem::take(&mut self.idle) {
            self.bell.ring();
        }
    }
}

/// A frame that waits.
#[derive(Debug)]
struct Held {
    frame: Bytes,
    /// Whose share of the memory it uses.
    payer: Source,
}

/// The frames for one end.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Held>,
    /// Cost of `frames`.
    pub cost: usize,
    /// How many from the front the receiver's socket has been handed and not written yet.
    taken: usize,
    /// The sender waits for room.
    pub sender_waits: bool,
}

/// What a frame of `len` bytes costs.
pub(super) const fn cost(len: usize) -> usize {
    len + FRAME_OVERHEAD
}

impl Queue {
    /// Appends a frame. Its cost must have been booked.
    pub fn append(&mut self, frame: Bytes, payer: Source) {
        self.cost += cost(frame.len());
        self.frames.push_back(Held { frame, payer });
    }

    /// Removes up to `written` frames that were handed out; tells each one's payer and cost.
    pub fn written(&mut self, written: usize, mut freed: impl FnMut(Source, usize)) {
        for _ in 0..written.min(self.taken) {
            if let Some(held) = self.frames.pop_front() {
                let cost = cost(held.frame.len());
                self.cost -= cost;
                self.taken -= 1;
                freed(held.payer, cost);
            }
        }
    }

    /// Removes everything; tells each frame's payer and cost.
    pub fn clear(&mut self, freed: impl FnMut(Source, usize)) {
        self.taken = self.frames.len();
        self.written(self.taken, freed);
    }

    /// What was handed out and not written is due again.
    pub fn rewind(&mut self) {
        self.taken = 0;
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// It holds memory.
    pub fn is_active(&self) -> bool {
        self.cost > 0
    }
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    /// The public digits; `None` after a loss of memory or once the host has left.
    pub nameplate: Option<Nameplate>,
    /// The code that it is found by; `None` with a nameplate, or once the host has left.
    pub code: Option<CodeHash>,
    /// It was made under a code, so its ends may be of 0.1.5.
    pub by_code: bool,
    /// The current pairing.
    pub id: Option<Id>,
    /// Host and peer.
    pub seats: [Option<Seat>; 2],
    /// Frames to the host and to the peer.
    pub queues: [Queue; 2],
    /// What delays them.
    pub rate: ChannelRate,
    /// Who allocated it: its limits count the channel.
    pub owner: Source,
    /// Last frame, or pairing.
    pub active_at: Instant,
    /// It was re-created: it leaves a tombstone.
    pub recreated: bool,
    /// A failed confirmation has been counted for this pairing.
    pub scared: bool,
    /// The rate limit has delayed a frame of this pairing.
    throttled: bool,
}

impl Channel {
    /// A channel without a pairing or anybody in its seats.
    pub fn new(owner: Source, rate: ChannelRate, now: Instant) -> Self {
        Self {
            nameplate: None,
            code: None,
            by_code: false,
            id: None,
            seats: [None, None],
            queues: [Queue::default(), Queue::default()],
            rate,
            owner,
            active_at: now,
            recreated: false,
            scared: false,
            throttled: false,
        }
    }

    /// The seat of this end, if this epoch is its latest socket.
    pub fn held(&self, role: Role, epoch: u64) -> Result<&Seat, Ended> {
        match &self.seats[role.index()] {
            Some(seat) if seat.presence == Presence::Left => Err(Ended::Over),
            Some(seat) if seat.epoch == epoch => Ok(seat),
            Some(seat) if seat.first_epoch <= epoch => Err(Ended::Replaced),
            _ => Err(Ended::Released),
        }
    }

    /// Wakes an end's socket, if it has one.
    pub fn wake(&mut self, role: Role) {
        if let Some(seat) = &mut self.seats[role.index()] {
            seat.wake();
        }
    }

    /// How `role` sees the other end.
    pub fn other_presence(&self, role: Role) -> Option<Presence> {
        self.seats[role.other().index()].as_ref().map(|seat| seat.presence)
    }

    /// Bytes that each direction may hold while there is room.
    pub fn bound(&self) -> usize {
        if self.by_code { CODE_QUEUE } else { QUEUE }
    }

    /// A frame for `to` goes straight to a socket that has nothing before it.
    pub fn is_straight(&self, to: Role) -> bool {
        self.queues[to.index()].is_empty()
            && self.seats[to.index()].as_ref().is_some_and(|seat| seat.presence == Presence::Here)
    }

    /// Queues a frame for `to` and wakes the receiver.
    pub fn append(&mut self, to: Role, frame: Bytes, payer: Source, now: Instant) {
        self.active_at = now;
        self.queues[to.index()].append(frame, payer);
        if let Some(seat) = &mut self.seats[to.index()] {
            seat.wake_if_idle();
        }
    }

    /// What is due to `role`.
    pub fn due(&mut self, role: Role, boot: Id, now: Instant) -> Due {
        let mut due = Due::default();
        if self.id.is_some() {
            self.draw_frames(role, now, &mut due);
        }
        self.collect_statuses(role, boot, &mut due);
        if let Some(seat) = &mut self.seats[role.index()] {
            seat.idle = due.frames.is_empty();
        }
        due
    }

    fn draw_frames(&mut self, role: Role, now: Instant, due: &mut Due) {
        let most = if self.by_code { POP_FRAMES_BY_CODE } else { POP_FRAMES };
        let queue = &mut self.queues[role.index()];
        let mut bytes = 0;
        while let Some(held) = queue.frames.get(queue.taken) {
            let full = bytes > 0 && bytes + held.frame.len() > POP_BYTES;
            if full || due.frames.len() == most {
                break;
            }
            match self.rate.draw(role, held.frame.len(), now) {
                Draw::Now => {}
                Draw::At(at) => {
                    self.throttled = true;
                    due.again = due.frames.is_empty().then_some(at);
                    break;
                }
                Draw::Turn => break,
            }
            bytes += held.frame.len();
            due.frames.push(held.frame.clone());
            queue.taken += 1;
        }
        let other = role.other();
        if !due.frames.is_empty() && self.rate.is_waiting(other) {
            self.wake(other);
        }
        if self.throttled {
            self.wake_untold(other);
        }
    }

    /// Lets an end learn of the rate limit, once.
    fn wake_untold(&mut self, role: Role) {
        if let Some(seat) = self.seats[role.index()].as_mut().filter(|seat| !seat.told_throttled) {
            seat.wake();
        }
    }

    fn collect_statuses(&mut self, role: Role, boot: Id, due: &mut Due) {
        let Some(other) = self.other_presence(role) else { return };
        let nothing_left = self.queues[role.index()].is_empty() && due.frames.is_empty();
        let Some(seat) = &mut self.seats[role.index()] else { return };
        if let Some(channel) = self.id.filter(|_| !seat.told_paired) {
            seat.told_paired = true;
            due.statuses.push(Status::Paired { channel, boot });
        }
        if std::mem::replace(&mut seat.told_throttled, self.throttled) != self.throttled {
            due.statuses.push(Status::Throttled);
        }
        let event = match other {
            Presence::Here if seat.told == Presence::Away => Status::PeerBack,
            Presence::Away if seat.told == Presence::Here => Status::PeerAway,
            // Said last: after it no frame comes any more.
            Presence::Left if seat.told != Presence::Left && nothing_left => Status::PeerLeft,
            _ => return,
        };
        seat.told = other;
        due.statuses.push(event);
    }

    /// Ends the pairing: only the host's seat and the nameplate stay.
    pub fn unpair(&mut self, rate: ChannelRate, now: Instant) -> Option<Seat> {
        self.id = None;
        self.rate = rate;
        self.scared = false;
        self.throttled = false;
        self.active_at = now;
        for queue in &mut self.queues {
            queue.rewind();
            queue.sender_waits = false;
        }
        if let Some(host) = &mut self.seats[Role::Host.index()] {
            host.told_paired = false;
            host.told = Presence::Here;
            host.told_throttled = false;
        }
        self.seats[Role::Peer.index()].take()
    }
}
