//! What this end sends: items in two lanes, records that are kept until they are acknowledged.
//!
//! Owns the state of own items and what each may still do. `records` owns sealed records and their numbers, `lanes`
//! the order in which things leave, `numbers` how far item numbers may run ahead (`src/PROTOCOL.md`, "Items", "Flow").

mod lanes;
mod numbers;
mod records;
mod standing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::window::{CHUNK, FRAME_MARGIN, Flight, LIMITED_CHUNK, Pace, SendWindow, Staging};
use super::{Backlog, LinkLimits, PeerFault, SessionError, SessionEvent};
use crate::crypto::seal::Sealer;
use crate::frame::{ChunkBuf, CloseReason, Message, State};
use crate::item::{ItemHead, ItemId, ItemKind, Lane, MAX_UNRECEIPTED, Refusal};

pub(super) use standing::Hindrance;

use numbers::Numbers;
use records::Records;

/// Bytes of content staged for each lane: enough to keep the cipher fed while the next chunk is read.
const STAGING: usize = 4 * LIMITED_CHUNK;
/// A chunk up to this many bytes is copied into a shared record; a longer one is a record of its own, sealed in place.
const SHARED: usize = 16 * 1024;
/// Receipts that this end keeps for a peer that does not acknowledge them; then what it sends is not taken. A correct
/// peer acknowledges each 1,024 messages, and 4,096 items may get their receipt at once.
const MAX_RECEIPTS: usize = 4 * MAX_UNRECEIPTED;

/// Items of which it waits to be told that they were opened; of one more, the oldest is not told.
const MAX_OPENED: usize = MAX_UNRECEIPTED;

/// Where an own item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its head has not left.
    Queued,
    /// Its head has left, its end has not.
    Open,
    /// All of it has left.
    Ended,
}

struct Item {
    /// Taken when it leaves.
    head: Option<ItemHead>,
    lane: Lane,
    /// The group it is a member of. A member has no receipt: its group has.
    parent: Option<ItemId>,
    /// Of a group: its members that have not ended. Its own end waits for them.
    members: Option<BTreeSet<ItemId>>,
    stage: Stage,
    staging: Staging,
    /// Bytes of its content, or of its members', that the other end is known to have.
    confirmed: u64,
}

/// The sending half of an open session.
pub(super) struct Outgoing {
    records: Records,
    items: BTreeMap<ItemId, Item>,
    last_id: u64,
    numbers: Numbers,
    /// Receipts, and cancels of what has begun: they need no grant and go first.
    misc: VecDeque<Message>,
    /// Receipts in `misc`.
    receipts: usize,
    /// What the owner of this end has read, and when: told after the receipts.
    opened: VecDeque<(ItemId, u64)>,
    /// Numbers of items that never begin: each is filled by a cancel as soon as the other end takes the number.
    voids: BTreeMap<ItemId, Refusal>,
    prompt: BTreeSet<ItemId>,
    /// Heads of members overtake other bulk heads: their group is under way.
    member_heads: BTreeSet<ItemId>,
    bulk_heads: BTreeSet<ItemId>,
    /// Bulk items under way, round robin.
    bulk_open: VecDeque<ItemId>,
    /// Items whose head has left and whose end has not.
    open: usize,
    /// Items that were offered, are nobody's member and have no receipt.
    unreceipted: usize,
    /// Those of them whose head has left.
    awaited: usize,
    staged: [usize; 2],
    windows: [SendWindow; 2],
    flight: Flight,
    /// Of the prompt lane and all answers, and of bulk.
    pace: [Pace; 2],
    /// Of records without bulk that are short.
    small_pace: Pace,
    chunk: usize,
    limited: bool,
    prompt_run: u32,
    /// The last record took bulk's turn and carried none of it.
    bulk_passed_over: bool,
    /// Bulk waits for an acknowledgement and nothing else.
    flight_limited: bool,
    /// A lane waits for the pace of a limited relay until then.
    paced_until: [Option<Instant>; 2],
    closing: Option<CloseReason>,
    close_number: Option<u64>,
}

const fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Prompt => 0,
        Lane::Bulk => 1,
    }
}

impl Outgoing {
    pub(super) fn new(sealer: Sealer, limits: LinkLimits) -> Self {
        let mut out = Self {
            records: Records::new(sealer),
            items: BTreeMap::new(),
            last_id: 0,
            numbers: Numbers::default(),
            misc: VecDeque::new(),
            receipts: 0,
            opened: VecDeque::new(),
            voids: BTreeMap::new(),
            prompt: BTreeSet::new(),
            member_heads: BTreeSet::new(),
            bulk_heads: BTreeSet::new(),
            bulk_open: VecDeque::new(),
            open: 0,
            unreceipted: 0,
            awaited: 0,
            staged: [0; 2],
            windows: [SendWindow::new(), SendWindow::new()],
            flight: Flight::default(),
            pace: Pace::both(limits.messages_per_minute),
            small_pace: Pace::of_small(limits.messages_per_minute),
            chunk: CHUNK,
            limited: limits.messages_per_minute != 0,
            prompt_run: 0,
            bulk_passed_over: false,
            flight_limited: false,
            paced_until: [None; 2],
            closing: None,
            close_number: None,
        };
        out.set_limits(limits);
        out
    }

    fn set_limits(&mut self, limits: LinkLimits) {
        let limited = limits.messages_per_minute != 0;
        let most = limits.max_frame.saturating_sub(FRAME_MARGIN);
        let chunk = most.min(if limited { LIMITED_CHUNK } else { CHUNK });
        if chunk < self.chunk {
            self.items.values_mut().for_each(|item| item.staging.limit(chunk));
        }
        self.chunk = chunk;
        // The bucket of a link that only came back is not full again.
        if limited != self.limited {
            self.pace = Pace::both(limits.messages_per_minute);
            self.small_pace = Pace::of_small(limits.messages_per_minute);
        }
        self.limited = limited;
    }

    /// A new link takes over; nothing is resent before its echo.
    ///
    /// # Errors
    /// Where a sealed record is longer than the link takes.
    pub(super) fn relink(&mut self, limits: LinkLimits) -> Result<(), SessionError> {
        self.set_limits(limits);
        if self.records.longest() > limits.max_frame { Err(SessionError::FrameLimit) } else { Ok(()) }
    }

    pub(super) const fn chunk_size(&self) -> usize {
        self.chunk
    }

    /// The number of the next new record.
    pub(super) fn end(&self) -> u64 {
        self.records.end()
    }

    pub(super) fn room(&self, lane: Lane) -> usize {
        STAGING.saturating_sub(self.staged[lane_index(lane)])
    }

    pub(super) fn queued(&self) -> usize {
        self.prompt.len() + self.member_heads.len() + self.bulk_heads.len()
    }

    pub(super) fn staged(&self, id: ItemId) -> usize {
        self.items.get(&id).map_or(0, |item| item.staging.bytes())
    }

    pub(super) fn backlog(&self) -> Backlog {
        Backlog {
            unreceipted: self.unreceipted,
            unacknowledged: self.records.len() + self.misc.len() + self.voids.len(),
        }
    }

    pub(super) fn reclaim(&mut self) -> Option<Vec<u8>> {
        self.records.reclaim()
    }

    pub(super) fn offer(&mut self, head: ItemHead) -> ItemId {
        self.last_id += 1;
        let id = ItemId(self.last_id);
        let lane = head.lane();
        let parent = head.group;
        let mut under_way = true;
        if let Some(parent) = parent {
            let group = self.items.get_mut(&parent).filter(|group| group.stage != Stage::Ended);
            let Some((members, stage)) = group.and_then(|group| Some((group.members.as_mut()?, group.stage)))
            else {
                // The group was refused or taken back meanwhile: its number is filled, nothing more.
                self.voids.insert(id, Refusal::Cancelled);
                return id;
            };
            members.insert(id);
            under_way = stage == Stage::Open;
        }
        match (lane, parent) {
            (Lane::Prompt, _) => drop(self.prompt.insert(id)),
            (Lane::Bulk, None) => drop(self.bulk_heads.insert(id)),
            // It may leave once its group's head has.
            (Lane::Bulk, Some(_)) if under_way => drop(self.member_heads.insert(id)),
            (Lane::Bulk, Some(_)) => {}
        }
        self.unreceipted += usize::from(parent.is_none());
        let members = (head.kind == ItemKind::Group).then(BTreeSet::new);
        let stage = Stage::Queued;
        let staging = Staging::default();
        self.items.insert(id, Item { head: Some(head), lane, parent, members, stage, staging, confirmed: 0 });
        id
    }

    pub(super) fn push(&mut self, id: ItemId, chunk: ChunkBuf, last: bool) {
        let Some(item) = self.items.get_mut(&id) else { return };
        if item.stage == Stage::Ended || (chunk.is_empty() && !last) {
            return;
        }
        let long = chunk.len() > self.chunk;
        self.staged[lane_index(item.lane)] += chunk.len();
        item.staging.push(chunk, last);
        if long {
            // It was read for an earlier link, which took more.
            item.staging.limit(self.chunk);
        }
    }

    /// Takes an own item back, wherever it stands. A member takes its group with it: the group cannot be whole.
    pub(super) fn cancel(&mut self, id: ItemId, reason: Refusal, events: &mut VecDeque<SessionEvent>) {
        let Some(item) = self.items.get_mut(&id) else { return };
        if let Some(group) = item.parent {
            return self.cancel(group, reason, events);
        }
        match item.stage {
            Stage::Queued => {
                self.drop_members(id);
                self.drop_item(id);
                self.voids.insert(id, reason);
                events.push_back(SessionEvent::Receipt { id, refused: Some(reason) });
            }
            Stage::Open => {
                item.stage = Stage::Ended;
                self.open -= 1;
                self.staged[lane_index(item.lane)] -= item.staging.clear();
                self.leave_queues(id);
                // Before its members' cancels: what the other end hears first is why.
                self.misc.push_back(Message::Cancel { item: id, reason });
                self.drop_members(id);
            }
            Stage::Ended => {}
        }
    }

    pub(super) fn receipt(&mut self, item: ItemId, refused: Option<Refusal>) {
        self.receipts += 1;
        self.misc.push_back(Message::Receipt { item, refused });
    }

    /// The owner of this end has read an item of the other end's.
    pub(super) fn opened(&mut self, item: ItemId, at: u64) {
        if self.opened.len() >= MAX_OPENED {
            self.opened.pop_front();
        }
        self.opened.push_back((item, at));
    }

    /// Whether an item of that number was ever offered.
    pub(super) const fn was_offered(&self, id: ItemId) -> bool {
        id.0 > 0 && id.0 <= self.last_id
    }

    /// Whether the peer acknowledges so little that no more of its items can be answered.
    pub(super) const fn is_choked(&self) -> bool {
        self.receipts + self.records.receipts() >= MAX_RECEIPTS
    }

    /// The other end's one answer to an own item.
    pub(super) fn handle_receipt(
        &mut self,
        id: ItemId,
        refused: Option<Refusal>,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), PeerFault> {
        let item = self.items.get(&id).ok_or(PeerFault::Receipt)?;
        let early = item.stage != Stage::Ended;
        if item.parent.is_some() || item.stage == Stage::Queued || (early && refused.is_none()) {
            return Err(PeerFault::Receipt);
        }
        if early {
            // It is ended by a cancel, and forgotten: its receipt has been given.
            self.misc.push_back(Message::Cancel { item: id, reason: Refusal::Cancelled });
        }
        self.drop_members(id);
        self.drop_item(id);
        events.push_back(SessionEvent::Receipt { id, refused });
        Ok(())
    }

    /// Forgets an item, wherever it stands.
    fn drop_item(&mut self, id: ItemId) {
        self.leave_queues(id);
        let Some(item) = self.items.remove(&id) else { return };
        self.staged[lane_index(item.lane)] -= item.staging.bytes();
        self.open -= usize::from(item.stage == Stage::Open);
        if item.parent.is_none() {
            self.unreceipted -= 1;
            self.awaited -= usize::from(item.stage != Stage::Queued);
        }
        let group = item.parent.and_then(|parent| self.items.get_mut(&parent));
        if let Some(members) = group.and_then(|group| group.members.as_mut()) {
            members.remove(&id);
        }
    }

    /// Takes back what a group that ends early still has under way.
    fn drop_members(&mut self, group: ItemId) {
        let members = self.items.get_mut(&group).and_then(|group| group.members.as_mut());
        for member in members.map(std::mem::take).unwrap_or_default() {
            let begun = self.items.get(&member).is_some_and(|item| item.stage != Stage::Queued);
            self.drop_item(member);
            if begun {
                self.misc.push_back(Message::Cancel { item: member, reason: Refusal::Cancelled });
            } else {
                self.voids.insert(member, Refusal::Cancelled);
            }
        }
    }

    fn leave_queues(&mut self, id: ItemId) {
        self.prompt.remove(&id);
        self.member_heads.remove(&id);
        self.bulk_heads.remove(&id);
        // At most `MAX_OPEN_BULK` of them.
        self.bulk_open.retain(|other| *other != id);
    }

    /// From now on nothing is begun; one last record says why.
    pub(super) fn close(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
        self.opened.clear();
    }

    pub(super) const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether the close was sealed and acknowledged.
    pub(super) fn close_acknowledged(&self) -> bool {
        self.close_number.is_some_and(|number| self.records.base() > number)
    }

    /// Whether the key has sealed all it may and the close is still to be decided on.
    pub(super) const fn is_used_up(&self) -> bool {
        self.records.is_used_up() && self.closing.is_none()
    }

    #[cfg(test)]
    pub(super) const fn use_up(&mut self) {
        self.records.use_up();
    }

    /// The other end expects `next`; whether that is progress.
    pub(super) fn acknowledge(&mut self, next: u64, now: Instant) -> Result<bool, PeerFault> {
        let progress = next > self.records.base();
        for load in self.records.acknowledge(next)? {
            self.flight.acknowledged(load.bulk, now);
            for (id, bytes) in load.shares {
                if let Some(item) = self.items.get_mut(&id) {
                    item.confirmed += bytes;
                }
            }
        }
        if progress {
            self.flight_limited = false;
        }
        Ok(progress)
    }

    /// Takes totals of both lanes; whether one rose.
    pub(super) const fn grant(&mut self, prompt: u64, bulk: u64) -> bool {
        let prompt = self.windows[0].grant(prompt);
        let bulk = self.windows[1].grant(bulk);
        prompt || bulk
    }

    /// Records from `next` on leave again.
    pub(super) fn resend_from(&mut self, next: u64) {
        self.records.resend_from(next);
    }

    /// Whether something waits for the other end: an acknowledgement, a grant.
    pub(super) fn is_waiting(&self) -> bool {
        !self.records.is_empty()
            || !self.misc.is_empty()
            || !self.voids.is_empty()
            || !self.prompt.is_empty()
            || !self.member_heads.is_empty()
            || self.staged != [0; 2]
    }

    /// Whether something is under way or waits to be, for the stall watch.
    pub(super) fn is_transferring(&self) -> bool {
        self.open > 0 || self.queued() > 0 || !self.records.is_empty()
    }

    /// Whether all that was sealed is on the link and bulk (or a drain) waits for its acknowledgement alone.
    pub(super) fn wants_acknowledgement(&self, draining: bool) -> bool {
        !self.records.is_empty() && self.records.is_sent() && (draining || self.flight_limited)
    }

    /// When the pace of a limited relay lets the next record go.
    pub(super) fn paced_until(&self) -> Option<Instant> {
        self.paced_until.into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.paced_until = self.paced_until.map(|until| until.filter(|at| *at > now));
    }

    /// The next data record for the link: an old one that must go again, or a new one.
    pub(super) fn poll_record(&mut self, now: Instant, events: &mut VecDeque<SessionEvent>) -> Option<Bytes> {
        if self.records.is_sent() && !self.seal_next(now, events) {
            return None;
        }
        self.records.next_unsent()
    }

    /// Seals a control record; it is never resent.
    pub(super) fn seal_control(&self, number: u64, state: &State) -> Bytes {
        self.records.seal_control(number, state)
    }
}
