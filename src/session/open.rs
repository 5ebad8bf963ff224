//! An open protocol-2 session: records in and out, control states, timers, heartbeat and close.
//!
//! Joins the sending and the receiving half. Everything that a relay may do to frames (delay, drop, double, reorder,
//! cut, forget) is met here by absolute snapshots that are asked for again (`src/PROTOCOL.md`, "Records", "Close").

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::handshake::Proven;
use super::incoming::ItemsIn;
use super::outgoing::{Hindrance, Outgoing};
use super::timer::{Backoff, earliest};
use super::{Link, PeerFault, SessionError, SessionEvent};
use crate::crypto::seal::{Opener, Sealer};
use crate::frame::{CloseReason, Message, Messages, RECORD_HEADER, RecordHeader, RecordKind, State};
use crate::item::{Feature, ItemHead, ItemId, MAX_UNRECEIPTED, Refusal};

/// Without progress, a state is asked for after this long, then less and less often.
const ASK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// What is missing is asked for again at most this often.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// The other end has more than arrived: it may be on the way for this long.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// A state goes out at least this often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Without a record that opens for this long the peer counts as away.
const AWAY: Duration = Duration::from_secs(45);
/// Without a record that opens for this long the channel ends.
const IDLE: Duration = Duration::from_secs(3600);
/// A transfer without progress for this long is reported.
const STALLED: Duration = Duration::from_secs(30);
/// Own close is asked about for this long.
const LINGER: Duration = Duration::from_secs(2);
/// A state is due after this many messages: it keeps short what a sender of receipts must remember. A quarter of the
/// items that may lack one.
const MESSAGES: usize = MAX_UNRECEIPTED / 4;
/// While lingering, it is asked about this often.
const LINGER_ASK: Duration = Duration::from_millis(250);

/// Something that is missing: the number that is expected, and when it is asked for again.
struct Gap {
    next: u64,
    again: Backoff,
    /// It was asked for: from now on the backoff alone says when.
    asked: bool,
}

/// What this end owes the other on the next occasion.
#[derive(Default)]
struct Due {
    state: bool,
    ask: bool,
    again: bool,
}

/// An open session.
pub(super) struct Open {
    opener: Opener,
    pub(super) out: Outgoing,
    items: ItemsIn,
    /// Handshake frames still to send on this link.
    handshake: VecDeque<Bytes>,
    /// Own handshake frames, until the first record of the other end opens.
    own_frames: Option<[Bytes; 2]>,
    accepted_frames: [Bytes; 2],
    /// What both ends know.
    features: Vec<Feature>,
    control_number: u64,
    /// The highest control number that opened.
    control_heard: Option<u64>,
    next: u64,
    /// Messages taken since a state was sent.
    untold: usize,
    /// The highest `end` that the other end told.
    peer_end: u64,
    link: u64,
    heard_link: u64,
    up: bool,
    /// Data may leave: the first link, or one that was echoed.
    ready: bool,
    due: Due,
    ask: Backoff,
    gap: Option<Gap>,
    asked_for_acknowledgement: bool,
    heartbeat_at: Instant,
    heard_at: Instant,
    away: bool,
    idle: bool,
    /// Something is under way since, or moved last.
    progress_at: Instant,
    transferring: bool,
    stalled: bool,
    draining: bool,
    linger: Option<Instant>,
    closed: bool,
    peer_closed: bool,
}

impl Open {
    pub(super) fn new((sealer, opener): (Sealer, Opener), proven: Proven, now: Instant) -> Self {
        let Proven { unsent, own_frames, accepted_frames, features, limits, .. } = proven;
        Self {
            opener,
            out: Outgoing::new(sealer, limits),
            items: ItemsIn::new(),
            handshake: unsent,
            own_frames: Some(own_frames),
            accepted_frames,
            features,
            control_number: 0,
            control_heard: None,
            next: 0,
            untold: 0,
            peer_end: 0,
            link: 1,
            heard_link: 0,
            up: true,
            ready: true,
            due: Due { state: true, ..Due::default() },
            ask: Backoff::new(ASK.0, ASK.1),
            gap: None,
            asked_for_acknowledgement: false,
            heartbeat_at: now + HEARTBEAT,
            heard_at: now,
            away: false,
            idle: false,
            progress_at: now,
            transferring: false,
            stalled: false,
            draining: false,
            linger: None,
            closed: false,
            peer_closed: false,
        }
    }

    pub(super) fn handle_link(&mut self, link: Link, now: Instant) -> Result<(), SessionError> {
        self.handshake.clear();
        match link {
            Link::Up { limits, greeted } => {
                self.up = true;
                self.ready = false;
                self.link += 1;
                if let Some([greeting, version]) = &self.own_frames {
                    self.handshake.extend((!greeted).then(|| greeting.clone()));
                    self.handshake.push_back(version.clone());
                }
                self.due = Due { state: true, ask: true, again: false };
                self.ask.arm_at(now + ASK.0);
                // What is missing is known anew with the echo.
                self.gap = None;
                self.out.relink(limits)
            }
            Link::Down => {
                self.up = false;
                self.ready = false;
                self.ask.disarm();
                Ok(())
            }
        }
    }

    pub(super) fn handle_frame(
        &mut self,
        mut frame: BytesMut,
        now: Instant,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), SessionError> {
        // The other end resends its handshake until it has opened a record of ours.
        if self.accepted_frames.iter().any(|accepted| accepted == &frame) {
            return Ok(());
        }
        let header = RecordHeader::decode(&frame)?;
        let news = match header.kind {
            RecordKind::Data => self.is_next(header.number, now),
            RecordKind::Control => self.control_heard.is_none_or(|heard| header.number > heard),
        };
        if !news {
            return Ok(());
        }
        let head = frame.split_to(RECORD_HEADER);
        let opened = self.opener.open(header.kind as u8, header.number, &head, &mut frame);
        let len = opened.map_err(|_| SessionError::Tampered)?;
        frame.truncate(len);
        self.heard(now, events);
        match header.kind {
            RecordKind::Data => self.handle_data(frame.freeze(), now, events)?,
            RecordKind::Control => {
                self.control_heard = Some(header.number);
                self.handle_state(State::decode(frame.freeze())?, now)?;
            }
        }
        if self.out.is_used_up() { Err(SessionError::UsedUp) } else { Ok(()) }
    }

    /// Whether a data record is the one expected. A double is answered, a gap is asked for. The number of a record
    /// that is not opened says that something may be missing now, and nothing more: anybody can write it.
    fn is_next(&mut self, number: u64, now: Instant) -> bool {
        if number < self.next {
            self.due.state = true;
            return false;
        }
        let news = number == self.next && !self.out.is_choked();
        if !news {
            self.missing_since(now);
        }
        news
    }

    /// Asks for what is missing from `at` on, unless that is being asked for already.
    fn missing_since(&mut self, at: Instant) {
        match &mut self.gap {
            Some(gap) if gap.next == self.next => {
                if !gap.asked {
                    gap.again.arm_sooner(at);
                }
            }
            gap => {
                let mut again = Backoff::new(AGAIN.0, AGAIN.1);
                again.arm_at(at);
                *gap = Some(Gap { next: self.next, again, asked: false });
            }
        }
    }

    fn heard(&mut self, now: Instant, events: &mut VecDeque<SessionEvent>) {
        self.own_frames = None;
        self.heard_at = now;
        self.idle = false;
        if std::mem::take(&mut self.away) {
            events.push_back(SessionEvent::PeerBack);
        }
    }

    fn handle_data(
        &mut self,
        plaintext: Bytes,
        now: Instant,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), SessionError> {
        if self.peer_closed {
            return Err(PeerFault::AfterClose.into());
        }
        self.next += 1;
        self.gap = None;
        if self.peer_end > self.next {
            self.missing_since(now + ON_THE_WAY);
        }
        self.progress(now);
        for message in Messages::new(plaintext) {
            self.untold += 1;
            match message? {
                _ if self.peer_closed => return Err(PeerFault::AfterClose.into()),
                Message::Receipt { item, refused } => self.out.handle_receipt(item, refused, events)?,
                Message::Opened { item, at } => {
                    self.out.was_offered(item).then_some(()).ok_or(PeerFault::Receipt)?;
                    events.push_back(SessionEvent::Read { id: item, at });
                }
                Message::Close { reason } => {
                    self.peer_closed = true;
                    self.due.state = true;
                    events.push_back(SessionEvent::PeerClosed(reason));
                }
                message => self.items.handle(message, events)?,
            }
        }
        self.due.state |= self.untold >= MESSAGES;
        self.pass_receipts();
        Ok(())
    }

    fn handle_state(&mut self, state: State, now: Instant) -> Result<(), SessionError> {
        let acknowledged = self.out.acknowledge(state.next, now)?;
        let granted = self.out.grant(state.grant_prompt, state.grant_bulk);
        self.peer_end = self.peer_end.max(state.end);
        if state.link > self.heard_link {
            self.heard_link = state.link;
            self.due.state = true;
        }
        self.due.state |= state.ask;
        if !self.ready && self.up && state.echo == self.link {
            // The first echo of this link: what was on the way on the old one has arrived by now or is lost.
            self.ready = true;
            self.out.resend_from(state.next);
            self.progress(now);
            if self.peer_end > self.next {
                self.missing_since(now);
            }
        } else if state.again {
            self.out.resend_from(state.next);
        }
        if acknowledged || granted {
            self.progress(now);
        }
        if self.peer_end > self.next && self.gap.is_none() {
            self.missing_since(now + ON_THE_WAY);
        }
        Ok(())
    }

    fn progress(&mut self, now: Instant) {
        self.progress_at = now;
        self.stalled = false;
        self.asked_for_acknowledgement = false;
        self.ask.restart(now);
    }

    /// The stall watch begins with what is under way, however long nothing was before.
    fn watch(&mut self, now: Instant) {
        let transferring = self.out.is_transferring();
        if transferring && !self.transferring {
            self.progress_at = now;
            self.stalled = false;
        }
        self.transferring = transferring;
    }

    pub(super) const fn heard_at(&self) -> Instant {
        self.heard_at
    }

    pub(super) fn knows(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// Offers an item; one that the other end does not know has its receipt at once.
    pub(super) fn offer(&mut self, head: ItemHead, events: &mut VecDeque<SessionEvent>) -> ItemId {
        let known = head.kind.feature().is_none_or(|feature| self.knows(feature));
        let id = self.out.offer(head);
        if !known {
            self.out.cancel(id, Refusal::Unsupported, events);
        }
        id
    }

    /// The owner of this end has read an item of the other end's.
    pub(super) fn opened(&mut self, id: ItemId, at: u64) {
        if self.knows(Feature::Opened) {
            self.out.opened(id, at);
        }
    }

    pub(super) fn accepted(&mut self, id: ItemId, upto: u64) {
        self.items.accepted(id, upto);
        self.due.state |= self.items.worth_telling();
    }

    pub(super) fn stored(&mut self, id: ItemId, result: Result<(), Refusal>) {
        self.items.stored(id, result);
        self.pass_receipts();
    }

    fn pass_receipts(&mut self) {
        while let Some(receipt) = self.items.poll_receipt() {
            self.out.receipt(receipt.id, receipt.refused);
        }
        self.due.state |= self.items.worth_telling();
    }

    pub(super) const fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn close(&mut self, reason: CloseReason, now: Instant, events: &mut VecDeque<SessionEvent>) {
        if self.out.is_closing() {
            return;
        }
        self.items.deafen();
        self.out.close(reason);
        if self.peer_closed {
            // It may have left already: nobody is asked.
            self.finish(events);
        } else {
            self.linger = Some(now + LINGER);
            self.ask = Backoff::new(LINGER_ASK, LINGER_ASK);
            self.ask.arm(now);
        }
    }

    /// A fault of the other end, or of what lies between: the last record says which.
    pub(super) fn fail(&mut self, error: SessionError, now: Instant, events: &mut VecDeque<SessionEvent>) {
        let reason = match error {
            SessionError::Tampered => CloseReason::Tampered,
            SessionError::Peer(_) => CloseReason::Protocol,
            SessionError::FrameLimit => CloseReason::Internal,
            SessionError::UsedUp => CloseReason::UsedUp,
        };
        self.close(reason, now, events);
    }

    fn finish(&mut self, events: &mut VecDeque<SessionEvent>) {
        if !std::mem::replace(&mut self.closed, true) {
            events.push_back(SessionEvent::Closed);
        }
        self.linger = None;
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, events: &mut VecDeque<SessionEvent>) {
        self.out.handle_timeout(now);
        self.watch(now);
        if self.ask.passed(now) {
            self.due.ask = true;
        }
        if let Some(gap) = &mut self.gap
            && gap.again.passed(now)
        {
            gap.asked = true;
            self.due.again = true;
        }
        if now >= self.heartbeat_at {
            self.due.state = true;
            self.heartbeat_at = now + HEARTBEAT;
        }
        let silent = now.saturating_duration_since(self.heard_at);
        if silent >= AWAY && !self.away && !self.peer_closed {
            self.away = true;
            events.push_back(SessionEvent::PeerAway);
        }
        if silent >= IDLE && !self.idle {
            self.idle = true;
            events.push_back(SessionEvent::Idle);
        }
        if !self.stalled && self.stall_at().is_some_and(|at| now >= at) {
            self.stalled = true;
            events.push_back(SessionEvent::Stalled(self.why_stalled()));
        }
        if self.linger.is_some_and(|at| now >= at) {
            self.finish(events);
        }
    }

    /// When a transfer counts as stalled. One that began without a word to this clock is due at once, to be noticed.
    fn stall_at(&self) -> Option<Instant> {
        let watched = !self.peer_closed && !self.out.is_closing() && self.out.is_transferring();
        match (watched, self.transferring, self.stalled) {
            (false, ..) | (true, true, true) => None,
            (true, false, _) => Some(self.progress_at),
            (true, true, false) => Some(self.progress_at + STALLED),
        }
    }

    fn why_stalled(&self) -> &'static str {
        self.obstacle().unwrap_or_else(|| {
            let starved = self.out.is_starved();
            if starved { Hindrance::Source } else { Hindrance::Grant }.as_str()
        })
    }

    /// Why nothing moves at all.
    fn obstacle(&self) -> Option<&'static str> {
        if !self.up {
            Some("the connection is down")
        } else if self.away {
            Some("the peer does not answer")
        } else if !self.ready {
            Some("the peer has not answered on the new connection")
        } else {
            None
        }
    }

    /// What an own item waits for.
    pub(super) fn why_waiting(&self, id: ItemId) -> &'static str {
        self.obstacle().unwrap_or_else(|| self.out.hindrance(id).as_str())
    }

    /// What holds up everything that comes from the other end, as far as it is known here.
    pub(super) fn why_nothing_comes(&self) -> &'static str {
        self.obstacle().unwrap_or("nothing more of it comes from the peer")
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let up = |at: Option<Instant>| at.filter(|_| self.up);
        earliest([
            up(self.ask.at()),
            up(self.gap.as_ref().and_then(|gap| gap.again.at())),
            up(Some(self.heartbeat_at)),
            up(self.out.paced_until()),
            (!self.away && !self.peer_closed).then(|| self.heard_at + AWAY),
            (!self.idle).then(|| self.heard_at + IDLE),
            self.stall_at(),
            self.linger,
        ])
    }

    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        events: &mut VecDeque<SessionEvent>,
    ) -> Option<Bytes> {
        if self.linger.is_some() && self.out.close_acknowledged() {
            self.finish(events);
        }
        self.watch(now);
        if !self.up {
            return None;
        }
        if let Some(frame) = self.handshake.pop_front() {
            return Some(frame);
        }
        if self.due.state || self.due.ask || self.due.again {
            return Some(self.state(now));
        }
        let record = if self.ready { self.out.poll_record(now, events) } else { None };
        self.watch(now);
        record.or_else(|| self.poll_ask(now))
    }

    /// Nothing is to be sent now: arms the clock for what is waited for, or asks at once where only an
    /// acknowledgement is missing.
    fn poll_ask(&mut self, now: Instant) -> Option<Bytes> {
        if self.out.is_waiting() || !self.ready {
            self.ask.arm(now);
        } else {
            self.ask.disarm();
        }
        let wanted = self.out.wants_acknowledgement(self.draining || self.linger.is_some());
        if wanted && !self.asked_for_acknowledgement && self.ready {
            self.asked_for_acknowledgement = true;
            self.due.ask = true;
            return Some(self.state(now));
        }
        None
    }

    /// Seals a snapshot.
    fn state(&mut self, now: Instant) -> Bytes {
        let due = std::mem::take(&mut self.due);
        self.untold = 0;
        let (grant_prompt, grant_bulk) = self.items.tell();
        let state = State {
            next: self.next,
            grant_bulk,
            grant_prompt,
            end: self.out.end(),
            link: self.link,
            echo: self.heard_link,
            ask: due.ask,
            again: due.again,
        };
        self.heartbeat_at = now + HEARTBEAT;
        let number = self.control_number;
        self.control_number += 1;
        self.out.seal_control(number, &state)
    }
}
