//! What this end sends: items in two lanes, records that are kept until they are acknowledged.
//!
//! Owns the order in which things leave, the numbers of data records and the state of own items. Seals each record
//! once and resends it byte for byte (`src/PROTOCOL.md`, "Records", "Items", "Flow").

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::window::{
    CHUNK, FRAME_MARGIN, Flight, LIMITED_CHUNK, Pace, SendWindow, Staging, chunk_cost, head_cost,
};
use super::{Backlog, LinkLimits, PeerFault, SessionError, SessionEvent};
use crate::crypto::seal::Sealer;
use crate::frame::{
    CHUNK_HEADER, ChunkBuf, CloseReason, Message, RECORD_HEADER, RECORD_OVERHEAD, RecordHeader, RecordKind,
    State, chunk_header,
};
use crate::item::{ItemHead, ItemId, ItemKind, Lane, MAX_OPEN_BULK, Refusal};

/// Bytes of content staged for each lane: enough to keep the cipher fed while the next chunk is read.
const STAGING: usize = 4 * LIMITED_CHUNK;
/// A chunk up to this many bytes is copied into a shared record; a longer one is a record of its own, sealed in place.
const SHARED: usize = 16 * 1024;
/// After this many prompt records in a row a waiting bulk record has its turn.
const PROMPT_RUN: u32 = 4;
/// Bytes that one key seals in a direction, at most.
const MAX_SEALED: u64 = 1 << 44;
/// Of the open bulk items, this many places are kept free for members of groups, so that a group can always go on.
const MEMBER_PLACES: usize = 4;
/// Groups under way at once.
const OPEN_GROUPS: usize = 4;
/// Buffers of acknowledged chunks kept for new ones: what a bulk window holds.
const POOL: usize = 32;

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
    /// Of a group: how many of its members have not ended. Its own end waits for them.
    members: Option<usize>,
    stage: Stage,
    staging: Staging,
}

/// A sealed data record.
struct Record {
    bytes: Bytes,
    /// Bulk content in it.
    bulk: u64,
}

/// The sending half of an open session.
pub(super) struct Outgoing {
    sealer: Sealer,
    items: BTreeMap<ItemId, Item>,
    last_id: u64,
    /// Receipts and cancels: they need no grant and go first.
    misc: VecDeque<Message>,
    prompt: VecDeque<ItemId>,
    /// Heads of members overtake other bulk heads: their group is under way.
    member_heads: VecDeque<ItemId>,
    bulk_heads: VecDeque<ItemId>,
    /// Bulk items under way, round robin.
    bulk_open: VecDeque<ItemId>,
    staged: [usize; 2],
    windows: [SendWindow; 2],
    flight: Flight,
    pace: Pace,
    chunk: usize,
    limited: bool,
    /// Sealed and not acknowledged; the first has number `base`.
    records: VecDeque<Record>,
    base: u64,
    /// The next record to put on the link, `base..=end`.
    cursor: u64,
    prompt_run: u32,
    sealed_bytes: u64,
    /// Bulk waits for an acknowledgement and nothing else.
    flight_limited: bool,
    /// Bulk waits for the pace of a limited relay until then.
    paced_until: Option<Instant>,
    closing: Option<CloseReason>,
    close_number: Option<u64>,
    pool: Vec<Vec<u8>>,
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
            sealer,
            items: BTreeMap::new(),
            last_id: 0,
            misc: VecDeque::new(),
            prompt: VecDeque::new(),
            member_heads: VecDeque::new(),
            bulk_heads: VecDeque::new(),
            bulk_open: VecDeque::new(),
            staged: [0; 2],
            windows: [SendWindow::new(), SendWindow::new()],
            flight: Flight::default(),
            pace: Pace::new(0),
            chunk: CHUNK,
            limited: false,
            records: VecDeque::new(),
            base: 0,
            cursor: 0,
            prompt_run: 0,
            sealed_bytes: 0,
            flight_limited: false,
            paced_until: None,
            closing: None,
            close_number: None,
            pool: Vec::new(),
        };
        out.set_limits(limits);
        out
    }

    fn set_limits(&mut self, limits: LinkLimits) {
        let limited = limits.messages_per_minute != 0;
        let most = limits.max_frame.saturating_sub(FRAME_MARGIN);
        self.chunk = most.min(if limited { LIMITED_CHUNK } else { CHUNK });
        // The bucket of a link that only came back is not full again.
        if limited != self.limited || self.records.is_empty() && self.base == 0 {
            self.pace = Pace::new(limits.messages_per_minute);
        }
        self.limited = limited;
    }

    /// A new link takes over; nothing is resent before its echo.
    ///
    /// # Errors
    /// Where a sealed record is longer than the link takes.
    pub(super) fn relink(&mut self, limits: LinkLimits) -> Result<(), SessionError> {
        self.set_limits(limits);
        let longest = self.records.iter().map(|record| record.bytes.len()).max().unwrap_or(0);
        if longest > limits.max_frame { Err(SessionError::FrameLimit) } else { Ok(()) }
    }

    pub(super) const fn chunk_size(&self) -> usize {
        self.chunk
    }

    /// The number of the next new record.
    pub(super) fn end(&self) -> u64 {
        self.base + self.records.len() as u64
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
            unreceipted: self.items.values().filter(|item| item.parent.is_none()).count(),
            unacknowledged: self.records.len() + self.misc.len(),
        }
    }

    pub(super) fn reclaim(&mut self) -> Option<Vec<u8>> {
        self.pool.pop()
    }

    pub(super) fn offer(&mut self, head: ItemHead) -> ItemId {
        self.last_id += 1;
        let id = ItemId(self.last_id);
        let lane = head.lane();
        let parent = head.group;
        if let Some(parent) = parent {
            let group = self.items.get_mut(&parent).filter(|group| group.stage != Stage::Ended);
            let Some(members) = group.and_then(|group| group.members.as_mut()) else {
                // The group was refused or taken back meanwhile: its number is filled, nothing more.
                self.misc.push_back(Message::Cancel { item: id, reason: Refusal::Cancelled });
                return id;
            };
            *members += 1;
        }
        match (lane, parent) {
            (Lane::Prompt, _) => self.prompt.push_back(id),
            (Lane::Bulk, Some(_)) => self.member_heads.push_back(id),
            (Lane::Bulk, None) => self.bulk_heads.push_back(id),
        }
        let members = (head.kind == ItemKind::Group).then_some(0);
        let stage = Stage::Queued;
        self.items
            .insert(id, Item { head: Some(head), lane, parent, members, stage, staging: Staging::default() });
        id
    }

    pub(super) fn push(&mut self, id: ItemId, chunk: ChunkBuf, last: bool) {
        let Some(item) = self.items.get_mut(&id) else { return };
        if item.stage == Stage::Ended || (chunk.is_empty() && !last) {
            return;
        }
        self.staged[lane_index(item.lane)] += chunk.len();
        item.staging.push(chunk, last);
    }

    /// Takes an own item back, wherever it stands.
    pub(super) fn cancel(&mut self, id: ItemId, reason: Refusal, events: &mut VecDeque<SessionEvent>) {
        let Some(item) = self.items.get_mut(&id) else { return };
        match item.stage {
            Stage::Queued => {
                self.drop_item(id);
                self.misc.push_back(Message::Cancel { item: id, reason });
                events.push_back(SessionEvent::Receipt { id, refused: Some(reason) });
            }
            Stage::Open => {
                item.stage = Stage::Ended;
                self.staged[lane_index(item.lane)] -= item.staging.clear();
                let member = item.parent.is_some();
                self.drop_members(id);
                self.leave_queues(id);
                self.misc.push_back(Message::Cancel { item: id, reason });
                if member {
                    self.drop_item(id);
                }
            }
            Stage::Ended => {}
        }
    }

    pub(super) fn receipt(&mut self, item: ItemId, refused: Option<Refusal>) {
        self.misc.push_back(Message::Receipt { item, refused });
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
        self.drop_members(id);
        if early {
            // It is ended by a cancel, and forgotten: its receipt has been given.
            self.misc.push_back(Message::Cancel { item: id, reason: Refusal::Cancelled });
        }
        self.drop_item(id);
        events.push_back(SessionEvent::Receipt { id, refused });
        Ok(())
    }

    fn drop_item(&mut self, id: ItemId) {
        self.leave_queues(id);
        let Some(item) = self.items.remove(&id) else { return };
        self.staged[lane_index(item.lane)] -= item.staging.bytes();
        let group = item.parent.and_then(|parent| self.items.get_mut(&parent));
        if let Some(members) = group.and_then(|group| group.members.as_mut()) {
            *members = members.saturating_sub(1);
        }
    }

    /// Takes back what a group that ends early still has under way.
    fn drop_members(&mut self, group: ItemId) {
        if self.items.get(&group).is_none_or(|item| item.members.is_none_or(|members| members == 0)) {
            return;
        }
        let members: Vec<ItemId> =
            self.items.iter().filter(|(_, item)| item.parent == Some(group)).map(|(id, _)| *id).collect();
        for member in members {
            self.drop_item(member);
            self.misc.push_back(Message::Cancel { item: member, reason: Refusal::Cancelled });
        }
    }

    fn leave_queues(&mut self, id: ItemId) {
        self.prompt.retain(|other| *other != id);
        self.member_heads.retain(|other| *other != id);
        self.bulk_heads.retain(|other| *other != id);
        self.bulk_open.retain(|other| *other != id);
    }

    /// From now on nothing is begun; one last record says why.
    pub(super) fn close(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
    }

    pub(super) const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether the close was sealed and acknowledged.
    pub(super) fn close_acknowledged(&self) -> bool {
        self.close_number.is_some_and(|number| self.base > number)
    }

    /// The other end expects `next`; whether that is progress.
    pub(super) fn acknowledge(&mut self, next: u64, now: Instant) -> Result<bool, PeerFault> {
        if next > self.end() {
            return Err(PeerFault::AcknowledgedFuture);
        }
        let progress = next > self.base;
        while self.base < next {
            let Some(record) = self.records.pop_front() else { break };
            self.base += 1;
            self.flight.acknowledged(record.bulk, now);
            if record.bulk > SHARED as u64 && self.pool.len() < POOL {
                self.pool.extend(record.bytes.try_into_mut().ok().map(Vec::from));
            }
        }
        self.cursor = self.cursor.max(self.base);
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
        self.cursor = next.clamp(self.base, self.end());
    }

    /// Whether something waits for the other end: an acknowledgement, a grant.
    pub(super) fn is_waiting(&self) -> bool {
        !self.records.is_empty()
            || !self.misc.is_empty()
            || !self.prompt.is_empty()
            || !self.member_heads.is_empty()
            || self.staged != [0; 2]
    }

    /// Whether a transfer is under way, for the stall watch.
    pub(super) fn is_transferring(&self) -> bool {
        self.items.values().any(|item| item.stage == Stage::Open) || !self.records.is_empty()
    }

    /// Whether all that was sealed is on the link and bulk (or a drain) waits for its acknowledgement alone.
    pub(super) fn wants_acknowledgement(&self, draining: bool) -> bool {
        !self.records.is_empty() && self.cursor == self.end() && (draining || self.flight_limited)
    }

    /// When the pace of a limited relay lets the next bulk record go.
    pub(super) const fn paced_until(&self) -> Option<Instant> {
        self.paced_until
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.paced_until = self.paced_until.filter(|at| *at > now);
    }

    /// The next data record for the link: an old one that must go again, or a new one.
    pub(super) fn poll_record(
        &mut self,
        now: Instant,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<Option<Bytes>, SessionError> {
        if self.cursor == self.end() && !self.seal_next(now, events)? {
            return Ok(None);
        }
        let index = usize::try_from(self.cursor - self.base).unwrap_or(usize::MAX);
        let record = self.records.get(index).map(|record| record.bytes.clone());
        self.cursor += u64::from(record.is_some());
        Ok(record)
    }

    /// Seals a control record; it is never resent.
    pub(super) fn seal_control(&self, number: u64, state: &State) -> Bytes {
        let mut record = Vec::with_capacity(128);
        record.extend_from_slice(&RecordHeader { kind: RecordKind::Control, number }.encode());
        state.encode(&mut record);
        self.sealer.seal(RecordKind::Control as u8, number, &mut record, RECORD_HEADER);
        record.into()
    }

    fn seal_next(&mut self, now: Instant, events: &mut VecDeque<SessionEvent>) -> Result<bool, SessionError> {
        if self.close_number.is_some() {
            return Ok(false);
        }
        if self.sealed_bytes >= MAX_SEALED && self.closing.is_none() {
            return Err(SessionError::UsedUp);
        }
        let mut plain = Vec::new();
        plain.resize(RECORD_HEADER, 0);
        self.fill_misc(&mut plain);
        if let (Some(reason), true) = (self.closing, self.misc.is_empty()) {
            Message::Close { reason }.encode(&mut plain);
            self.close_number = Some(self.end());
            self.finish_record(plain, 0);
            return Ok(true);
        }
        if self.closing.is_none() {
            let prompt_ready = self.prompt_ready();
            let bulk_ready = self.bulk_ready(now);
            let bulk_turn = bulk_ready && (!prompt_ready || self.prompt_run >= PROMPT_RUN);
            if bulk_turn {
                self.prompt_run = 0;
                if plain.len() == RECORD_HEADER && self.seal_chunk_in_place(now) {
                    return Ok(true);
                }
                let bulk = self.fill_bulk(&mut plain, now, events);
                if plain.len() > RECORD_HEADER {
                    self.pace.sent(now);
                    self.finish_record(plain, bulk);
                    return Ok(true);
                }
            } else if prompt_ready {
                self.prompt_run += u32::from(bulk_ready);
                self.fill_prompt(&mut plain, events);
            }
        }
        let any = plain.len() > RECORD_HEADER;
        if any {
            self.finish_record(plain, 0);
        }
        Ok(any)
    }

    /// Writes the header, seals, and keeps the record until it is acknowledged.
    fn finish_record(&mut self, mut record: Vec<u8>, bulk: u64) {
        let header = RecordHeader { kind: RecordKind::Data, number: self.end() };
        record[..RECORD_HEADER].copy_from_slice(&header.encode());
        self.keep(record, bulk);
    }

    fn keep(&mut self, mut record: Vec<u8>, bulk: u64) {
        self.sealer.seal(RecordKind::Data as u8, self.end(), &mut record, RECORD_HEADER);
        self.sealed_bytes += record.len() as u64;
        self.flight.sealed(bulk);
        self.records.push_back(Record { bytes: record.into(), bulk });
    }

    fn fill_misc(&mut self, plain: &mut Vec<u8>) {
        /// Receipts and cancels are this long at most.
        const LONGEST: usize = 32;
        while !self.misc.is_empty() && fits(plain, LONGEST, self.chunk) {
            if let Some(message) = self.misc.pop_front() {
                message.encode(plain);
            }
        }
    }

    fn prompt_ready(&self) -> bool {
        let Some(item) = self.prompt.front().and_then(|id| self.items.get(id)) else { return false };
        match (&item.head, item.staging.front()) {
            (Some(head), _) => self.windows[0].fits(head_cost(head)),
            (None, Some((chunk, _))) => self.windows[0].fits(chunk_cost(chunk.len())),
            (None, None) => false,
        }
    }

    /// Prompt messages, one item strictly after the other.
    fn fill_prompt(&mut self, plain: &mut Vec<u8>, events: &mut VecDeque<SessionEvent>) {
        while self.prompt_ready() {
            let Some(id) = self.prompt.front().copied() else { return };
            let Some(item) = self.items.get_mut(&id) else { return };
            let length = match (&item.head, item.staging.front()) {
                (Some(head), _) => head_length(head),
                (None, Some((chunk, _))) => CHUNK_HEADER + chunk.len(),
                (None, None) => return,
            };
            if !fits(plain, length, self.chunk) {
                return;
            }
            let ended = if let Some(head) = item.head.take() {
                self.windows[0].spend(head_cost(&head));
                let whole = head.is_whole();
                Message::Head { item: id, head }.encode(plain);
                item.stage = Stage::Open;
                if !whole {
                    events.push_back(SessionEvent::Opened(id));
                }
                whole
            } else if let Some((chunk, last)) = item.staging.pop() {
                self.windows[0].spend(chunk_cost(chunk.len()));
                self.staged[0] -= chunk.len();
                push_chunk(plain, id, last, &chunk);
                last
            } else {
                return;
            };
            if ended {
                item.stage = Stage::Ended;
                self.prompt.pop_front();
            }
        }
    }

    /// The next bulk head that may leave: members first, the others in order, while there are places.
    fn bulk_head(&self) -> Option<ItemId> {
        let member = self.member_heads.front();
        let id = *member.or_else(|| self.bulk_heads.front())?;
        let item = self.items.get(&id)?;
        let head = item.head.as_ref()?;
        let places = MAX_OPEN_BULK - if member.is_some() { 0 } else { MEMBER_PLACES };
        let groups =
            || self.bulk_open.iter().filter(|id| self.items.get(id).is_some_and(|i| i.members.is_some()));
        let room = head.is_whole() || self.bulk_open.len() < places;
        let room = room && (item.members.is_none() || groups().count() < OPEN_GROUPS);
        (room && self.windows[1].fits(head_cost(head))).then_some(id)
    }

    /// The next open bulk item with a chunk that fits the grant. A group ends after its members.
    fn bulk_chunk(&self) -> Option<usize> {
        self.bulk_open.iter().position(|id| {
            let Some(item) = self.items.get(id) else { return false };
            let front = item.staging.front();
            let fits = front.is_some_and(|(chunk, _)| self.windows[1].fits(chunk_cost(chunk.len())));
            fits && item.members.is_none_or(|members| members == 0)
        })
    }

    fn bulk_ready(&mut self, now: Instant) -> bool {
        let head = self.bulk_head().and_then(|id| self.items.get(&id)?.head.as_ref()).map(head_cost);
        if head.is_none() && self.bulk_chunk().is_none() {
            return false;
        }
        self.paced_until = self.pace.next(now);
        if self.paced_until.is_some() {
            return false;
        }
        if head == Some(0) {
            return true;
        }
        let fits = self.flight.fits(self.chunk, now);
        self.flight_limited |= !fits;
        fits
    }

    /// Seals a long chunk where it was read; whether there was one whose turn it is.
    fn seal_chunk_in_place(&mut self, now: Instant) -> bool {
        if self.bulk_head().is_some() {
            return false;
        }
        let Some(at) = self.bulk_chunk() else { return false };
        let Some(id) = self.bulk_open.get(at).copied() else { return false };
        let number = self.end();
        let Some(item) = self.items.get_mut(&id) else { return false };
        if item.staging.front().is_none_or(|(chunk, _)| chunk.len() <= SHARED) {
            return false;
        }
        let Some((chunk, last)) = item.staging.pop() else { return false };
        let len = chunk.len();
        self.staged[1] -= len;
        self.windows[1].spend(chunk_cost(len));
        self.keep(chunk.into_record(number, id, last), len as u64);
        self.pace.sent(now);
        self.rotate(at, id, last);
        true
    }

    /// After a chunk of the item at `at`: it ends, or goes to the back of the round.
    fn rotate(&mut self, at: usize, id: ItemId, last: bool) {
        self.bulk_open.remove(at);
        if last {
            self.ended(id);
        } else {
            self.bulk_open.push_back(id);
        }
    }

    fn ended(&mut self, id: ItemId) {
        let Some(item) = self.items.get_mut(&id) else { return };
        item.stage = Stage::Ended;
        if item.parent.is_some() {
            self.drop_item(id);
        }
    }

    /// Bulk heads and short chunks that travel together; how many bytes of content.
    fn fill_bulk(&mut self, plain: &mut Vec<u8>, now: Instant, events: &mut VecDeque<SessionEvent>) -> u64 {
        let mut content = 0;
        while let Some(id) = self.bulk_head() {
            let Some(item) = self.items.get_mut(&id) else { break };
            let length = item.head.as_ref().map_or(0, head_length);
            if !fits(plain, length, self.chunk) {
                return content;
            }
            let Some(head) = item.head.take() else { break };
            item.stage = Stage::Open;
            let queue = if item.parent.is_some() { &mut self.member_heads } else { &mut self.bulk_heads };
            queue.pop_front();
            self.windows[1].spend(head_cost(&head));
            content += head.inline.as_ref().map_or(0, |bytes| bytes.len() as u64);
            let whole = head.is_whole();
            Message::Head { item: id, head }.encode(plain);
            if whole {
                self.ended(id);
            } else {
                self.bulk_open.push_back(id);
                events.push_back(SessionEvent::Opened(id));
            }
        }
        while let Some(at) = self.bulk_chunk() {
            let Some(id) = self.bulk_open.get(at).copied() else { break };
            let Some(item) = self.items.get_mut(&id) else { break };
            let Some(len) = item.staging.front().map(|(chunk, _)| chunk.len()) else { break };
            if len > SHARED
                || !fits(plain, len + CHUNK_HEADER, self.chunk)
                || !self.flight.fits(self.chunk, now)
            {
                break;
            }
            let Some((chunk, last)) = item.staging.pop() else { break };
            self.staged[1] -= len;
            self.windows[1].spend(chunk_cost(len));
            content += len as u64;
            push_chunk(plain, id, last, &chunk);
            self.rotate(at, id, last);
        }
        content
    }
}

/// Whether a message of `len` bytes still fits into the record that is being filled; the first always does.
const fn fits(plain: &[u8], len: usize, chunk: usize) -> bool {
    plain.len() == RECORD_HEADER || plain.len() + len + RECORD_OVERHEAD <= chunk
}

/// Bytes that a head takes in a record, at most.
fn head_length(head: &ItemHead) -> usize {
    /// Its numbers and framing.
    const FIXED: usize = 80;
    FIXED + head.name.len() + head.inline.as_ref().map_or(0, Bytes::len)
}

fn push_chunk(plain: &mut Vec<u8>, id: ItemId, last: bool, chunk: &ChunkBuf) {
    plain.extend_from_slice(&chunk_header(id, last, chunk.len()));
    plain.extend_from_slice(chunk.content());
}
