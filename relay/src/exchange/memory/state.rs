//! All channels of one process, as one value.
//!
//! Owns the steps of the contract. Synchronous: the lock around it is [`super::Memory`]'s.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use rand_core::RngCore;

use super::Hold;
use super::channel::{Channel, Presence, Seat};
use super::ledger::Ledger;
use crate::exchange::{Caller, Due, Ended, Pushed, Refusal};
use crate::options::Options;
use crate::rules::{
    self, ChannelRate, CodeHash, MAX_CHANNELS, Nameplate, Nameplates, Room, SeatHash, Source, Sources,
    Verdict,
};
use crate::wire::{ErrorCode, Id, Mood, Resume, Role};

/// Tombstones at a time: one for each channel that was re-created and ended, within `idle` of the start; 4 MiB. Beyond
/// it nothing is re-created any more, so nothing that ended can rise again.
const MAX_TOMBSTONES: usize = 65_536;

/// The channels.
#[derive(Debug)]
pub(super) struct State {
    options: Options,
    boot: Id,
    started: Instant,
    pub channels: HashMap<u64, Channel>,
    /// Paired channels by their id.
    ids: HashMap<Id, u64>,
    nameplates: Nameplates<u64>,
    /// Channels whose host is there, or may come back, by their code.
    pub codes: HashMap<CodeHash, u64>,
    pub ledger: Ledger,
    /// Hashes of the ids of re-created channels that ended, and when.
    tombstones: HashMap<[u8; 32], Instant>,
    /// The last key or epoch given.
    serial: u64,
}

impl State {
    pub fn new(options: Options, boot: Id, now: Instant) -> Self {
        let room = Room { budget: options.memory, share: options.memory_per_source };
        let sources = Sources::new(options.channels_per_source, options.failed_joins_per_minute);
        Self {
            options,
            boot,
            started: now,
            channels: HashMap::new(),
            ids: HashMap::new(),
            nameplates: Nameplates::default(),
            codes: HashMap::new(),
            ledger: Ledger::new(room, sources),
            tombstones: HashMap::new(),
            serial: 0,
        }
    }

    pub fn held(&self) -> usize {
        self.ledger.total()
    }

    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    pub fn allocate(
        &mut self,
        caller: Caller,
        hash: SeatHash,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Result<(Hold, Nameplate), ErrorCode> {
        let key = self.open(caller.source, now)?;
        let Some(nameplate) = self.nameplates.allocate(key, rng, now) else {
            self.end(key, now);
            return Err(ErrorCode::Busy);
        };
        Ok((self.seat_host(key, nameplate, hash, caller, now), nameplate))
    }

    pub fn join(
        &mut self,
        nameplate: &str,
        caller: Caller,
        hash: SeatHash,
        id: Id,
        now: Instant,
    ) -> Result<(Hold, Nameplate), Refusal> {
        if !self.ledger.sources.may_join(caller.source, now) {
            return Err(ErrorCode::TooManyFailedJoins.into());
        }
        let found = Nameplate::parse(nameplate).and_then(|n| Some((n, *self.nameplates.find(n)?)));
        let epoch = self.next();
        let source = caller.source;
        let paired = found.and_then(|(nameplate, key)| {
            let peer = Seat::new(Some(hash), caller, epoch, now);
            Some((self.pair(key, id, peer, now)?, nameplate))
        });
        paired.ok_or_else(|| {
            self.ledger.sources.failed_join(source, now);
            // Of a third party only the operator's counters know.
            found.map_or(ErrorCode::UnableToJoin.into(), |_| Refusal::Crowded)
        })
    }

    pub fn resume(
        &mut self,
        claim: &Resume,
        hash: SeatHash,
        caller: Caller,
        now: Instant,
    ) -> Result<(Hold, Option<Nameplate>), ErrorCode> {
        if let Some(id) = claim.channel {
            let key = match self.ids.get(&id) {
                Some(key) => *key,
                None => self.recreate(id, claim.boot, &caller, now)?,
            };
            let source = caller.source;
            let hold = self.retake(key, claim.role, hash, caller);
            return Ok((hold.ok_or_else(|| self.wrong_seat(source, ErrorCode::UnableToResume, now))?, None));
        }
        let (Some(text), Role::Host) = (&claim.nameplate, claim.role) else {
            return Err(ErrorCode::BadMessage);
        };
        let nameplate = Nameplate::parse(text).ok_or(ErrorCode::NameplateLost)?;
        if let Some(key) = self.nameplates.find(nameplate).copied() {
            let source = caller.source;
            let hold = self.retake(key, Role::Host, hash, caller);
            let hold = hold.ok_or_else(|| self.wrong_seat(source, ErrorCode::NameplateLost, now))?;
            if let Some(host) = self.seat(key, Role::Host) {
                host.told_paired = false;
            }
            return Ok((hold, Some(nameplate)));
        }
        if !self.may_recreate(claim.boot, now) {
            return Err(self.wrong_seat(caller.source, ErrorCode::NameplateLost, now));
        }
        let key = self.open(caller.source, now)?;
        self.nameplates.claim(nameplate, key);
        Ok((self.seat_host(key, nameplate, hash, caller, now), Some(nameplate)))
    }

    pub fn release(&mut self, hold: Hold, now: Instant) -> Result<bool, Ended> {
        let rate = self.rate();
        let channel = self.channels.get_mut(&hold.key).ok_or(Ended::Over)?;
        channel.held(hold.role, hold.epoch)?;
        if hold.role != Role::Host || (channel.nameplate.is_none() && channel.code.is_none()) {
            return Ok(false);
        }
        for queue in &mut channel.queues {
            self.ledger.clear(queue);
        }
        if let Some(id) = channel.id {
            self.ids.remove(&id);
        }
        if let Some(peer) = channel.unpair(rate, now) {
            peer.bell.ring();
            self.ledger.sources.failed_join(peer.source, now);
        }
        self.wake_waiting();
        Ok(true)
    }

    pub fn bye(&mut self, hold: Hold, mood: Mood, now: Instant) {
        let Ok(channel) = self.channel(hold) else { return };
        let joiner = channel.seats[Role::Peer.index()].as_ref().map(|seat| seat.source);
        let scary = mood == Mood::Scary && !std::mem::replace(&mut channel.scared, mood == Mood::Scary);
        let (freed, code) = match hold.role {
            Role::Host => (channel.nameplate.take(), channel.code.take()),
            Role::Peer => (None, None),
        };
        if let Some(joiner) = joiner.filter(|_| scary) {
            self.ledger.sources.failed_join(joiner, now);
        }
        if let Some(nameplate) = freed {
            self.nameplates.retire(nameplate, now);
        }
        if let Some(code) = code {
            self.codes.remove(&code);
        }
        self.vacate(hold, Presence::Left, now);
        let over = self.channels.get(&hold.key).is_some_and(|channel| {
            channel.seats.iter().flatten().all(|seat| seat.presence == Presence::Left)
        });
        if over {
            self.end(hold.key, now);
        }
        self.wake_waiting();
    }

    pub fn leave(&mut self, hold: Hold, written: usize, now: Instant) {
        if self.channel(hold).is_ok() {
            self.settle(hold, written, now);
            self.vacate(hold, Presence::Away, now);
            self.wake_waiting();
        }
    }

    pub fn push(&mut self, hold: Hold, frame: Bytes, now: Instant) -> Result<Pushed, Ended> {
        let channel = self.channels.get_mut(&hold.key).ok_or(Ended::Over)?;
        let payer = channel.held(hold.role, hold.epoch)?.source;
        match channel.other_presence(hold.role) {
            None if !channel.by_code => return Ok(Pushed::Unpaired),
            // Nobody will ever come for it.
            Some(Presence::Left) => return Ok(Pushed::Taken),
            None | Some(Presence::Here | Presence::Away) => {}
        }
        let to = hold.role.other();
        let room = (channel.bound(), channel.is_straight(to));
        let queue = &mut channel.queues[to.index()];
        let verdict = self.ledger.admit(queue, payer, frame.len(), room);
        queue.sender_waits = verdict != Verdict::Fits;
        match verdict {
            Verdict::Fits => {
                channel.append(to, frame, payer, now);
                return Ok(Pushed::Taken);
            }
            Verdict::Direction => {}
            Verdict::Memory => self.ledger.wait(hold.key, to),
        }
        Ok(Pushed::Full(frame))
    }

    pub fn pop(&mut self, hold: Hold, written: usize, now: Instant) -> Result<Due, Ended> {
        self.channel(hold)?;
        self.settle(hold, written, now);
        let channel = self.channels.get_mut(&hold.key).ok_or(Ended::Over)?;
        Ok(channel.due(hold.role, self.boot, now))
    }

    pub fn sweep(&mut self, now: Instant) {
        let idle = self.options.idle;
        let over = |channel: &Channel| match (&channel.id, &channel.seats[Role::Host.index()]) {
            (None, Some(host)) if host.presence == Presence::Here => false,
            (None, Some(host)) => rules::expired(host.absent_since, rules::UNCLAIMED_ABSENCE, now),
            _ => rules::expired(channel.active_at, idle, now),
        };
        let ended: Vec<u64> = self.channels.iter().filter(|(_, c)| over(c)).map(|(key, _)| *key).collect();
        for key in ended {
            self.end(key, now);
        }
        self.tombstones.retain(|_, at| !rules::expired(*at, idle, now));
        self.ledger.sources.sweep(now);
        self.wake_waiting();
    }

    /// The channel of a hold that is not over.
    fn channel(&mut self, hold: Hold) -> Result<&mut Channel, Ended> {
        let channel = self.channels.get_mut(&hold.key).ok_or(Ended::Over)?;
        channel.held(hold.role, hold.epoch)?;
        Ok(channel)
    }

    pub fn seat(&mut self, key: u64, role: Role) -> Option<&mut Seat> {
        self.channels.get_mut(&key)?.seats[role.index()].as_mut()
    }

    pub fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn rate(&self) -> ChannelRate {
        let o = &self.options;
        ChannelRate::new(o.messages_per_minute, o.bytes_per_minute, o.small_per_minute)
    }

    /// Makes an empty channel that counts for `owner`.
    pub fn open(&mut self, owner: Source, now: Instant) -> Result<u64, ErrorCode> {
        if self.channels.len() >= MAX_CHANNELS {
            return Err(ErrorCode::Busy);
        }
        if !self.ledger.sources.add_channel(owner) {
            return Err(ErrorCode::TooManyChannels);
        }
        let key = self.next();
        self.channels.insert(key, Channel::new(owner, self.rate(), now));
        Ok(key)
    }

    /// Gives the free seat of a peer at this channel.
    pub fn pair(&mut self, key: u64, id: Id, peer: Seat, now: Instant) -> Option<Hold> {
        let channel = self.channels.get_mut(&key)?;
        let seat = &mut channel.seats[Role::Peer.index()];
        if seat.is_some() {
            return None;
        }
        let epoch = peer.epoch;
        *seat = Some(peer);
        channel.id = Some(id);
        channel.active_at = now;
        channel.wake(Role::Host);
        self.ids.insert(id, key);
        Some(Hold { key, role: Role::Peer, epoch })
    }

    /// Puts a host into an empty channel.
    fn seat_host(
        &mut self,
        key: u64,
        nameplate: Nameplate,
        hash: SeatHash,
        caller: Caller,
        now: Instant,
    ) -> Hold {
        let epoch = self.next();
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.nameplate = Some(nameplate);
            channel.seats[Role::Host.index()] = Some(Seat::new(Some(hash), caller, epoch, now));
        }
        Hold { key, role: Role::Host, epoch }
    }

    /// Whether what a client of that boot knows may be made again.
    fn may_recreate(&self, boot: Id, now: Instant) -> bool {
        boot != self.boot
            && !rules::expired(self.started, self.options.idle, now)
            && self.tombstones.len() < MAX_TOMBSTONES
    }

    /// Makes a paired channel again that was lost with an earlier memory.
    fn recreate(&mut self, id: Id, boot: Id, caller: &Caller, now: Instant) -> Result<u64, ErrorCode> {
        if !self.may_recreate(boot, now) || self.tombstones.contains_key(&rules::tombstone(&id)) {
            return Err(ErrorCode::UnableToResume);
        }
        let key = self.open(caller.source, now)?;
        self.ids.insert(id, key);
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.id = Some(id);
            channel.recreated = true;
            channel.seats = [Some(Seat::vacant(caller, now)), Some(Seat::vacant(caller, now))];
        }
        Ok(key)
    }

    /// Takes a seat back for another socket; `None` where it is not the claimant's.
    fn retake(&mut self, key: u64, role: Role, hash: SeatHash, caller: Caller) -> Option<Hold> {
        let seat = self.seat(key, role)?;
        let mine = seat.hash.is_none_or(|known| known.matches(&hash));
        if !mine || seat.presence == Presence::Left {
            return None;
        }
        self.reseat(key, role, hash, caller)
    }

    /// Puts another socket into a seat. Whether it may sit there has been judged.
    pub fn reseat(&mut self, key: u64, role: Role, hash: SeatHash, caller: Caller) -> Option<Hold> {
        let epoch = self.next();
        let channel = self.channels.get_mut(&key)?;
        let seat = channel.seats[role.index()].as_mut()?;
        seat.hash = Some(hash);
        seat.replace(caller, epoch);
        channel.queues[role.index()].rewind();
        channel.rate.stop_waiting(role);
        channel.wake(role.other());
        Some(Hold { key, role, epoch })
    }

    /// A seat was claimed that is somebody else's or was left, or at a nameplate that nobody has: that counts like a failed
    /// join, so that nobody goes on trying, or learns which nameplates there are. Whoever has the right one is let in whatever others of the same source did.
    fn wrong_seat(&mut self, source: Source, code: ErrorCode, now: Instant) -> ErrorCode {
        if !self.ledger.sources.may_join(source, now) {
            return ErrorCode::TooManyFailedJoins;
        }
        self.ledger.sources.failed_join(source, now);
        code
    }

    /// Forgets frames that the socket has written, and tells those who wait for their room. The hold must be good.
    fn settle(&mut self, hold: Hold, written: usize, now: Instant) {
        let Some(channel) = self.channels.get_mut(&hold.key).filter(|_| written > 0) else { return };
        channel.active_at = now;
        let queue = &mut channel.queues[hold.role.index()];
        self.ledger.written(queue, written);
        if std::mem::take(&mut queue.sender_waits) {
            channel.wake(hold.role.other());
        }
        self.wake_waiting();
    }

    /// Takes the socket out of its seat. The hold must be good.
    fn vacate(&mut self, hold: Hold, presence: Presence, now: Instant) {
        let (role, other) = (hold.role, hold.role.other());
        let Some(channel) = self.channels.get_mut(&hold.key) else { return };
        if let Some(seat) = &mut channel.seats[role.index()] {
            seat.presence = presence;
            seat.absent_since = now;
        }
        channel.queues[other.index()].sender_waits = false;
        let incoming = &mut channel.queues[role.index()];
        incoming.rewind();
        if presence == Presence::Left {
            self.ledger.clear(incoming);
        }
        channel.rate.stop_waiting(role);
        channel.wake(other);
    }

    /// Forgets a channel.
    fn end(&mut self, key: u64, now: Instant) {
        let Some(mut channel) = self.channels.remove(&key) else { return };
        for queue in &mut channel.queues {
            self.ledger.clear(queue);
        }
        if let Some(nameplate) = channel.nameplate {
            self.nameplates.retire(nameplate, now);
        }
        if let Some(code) = channel.code {
            self.codes.remove(&code);
        }
        if let Some(id) = channel.id {
            self.ids.remove(&id);
            if channel.recreated {
                self.tombstones.insert(rules::tombstone(&id), now);
            }
        }
        self.ledger.sources.remove_channel(channel.owner);
        for seat in channel.seats.iter().flatten() {
            seat.bell.ring();
        }
    }

    /// Wakes senders that wait for memory, after some was freed.
    fn wake_waiting(&mut self) {
        for (key, to) in self.ledger.woken() {
            if let Some(channel) = self.channels.get_mut(&key) {
                channel.wake(to.other());
            }
        }
    }
}
