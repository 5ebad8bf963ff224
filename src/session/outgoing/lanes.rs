//! What leaves next: answers first, then the prompt lane, and bulk whenever it is its turn.
//!
//! Fills records with whatever waits together, within grants, places, pace and flight (`src/PROTOCOL.md`, "Lanes",
//! "Flow").

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::records::Load;
use super::{Item, Outgoing, SHARED, Stage};
use crate::crypto::seal::TAG_LEN;
use crate::frame::{CHUNK_HEADER, ChunkBuf, Message, RECORD_HEADER, RECORD_OVERHEAD, chunk_header};
use crate::item::{ItemHead, ItemId, ItemKind, MAX_OPEN_BULK, MAX_UNRECEIPTED};
use crate::session::SessionEvent;
use crate::session::window::{SMALL_FRAME, chunk_cost, head_cost};

/// After this many prompt records in a row a waiting bulk record has its turn.
const PROMPT_RUN: u32 = 4;
/// Of the open bulk items, this many places are kept free for members of groups, so that a group can always go on.
const MEMBER_PLACES: usize = 4;
/// Longest receipt, cancel or `opened`, in bytes.
const ANSWER: usize = 32;
/// Groups under way at once.
const OPEN_GROUPS: usize = 4;

impl Outgoing {
    /// Seals a new record; whether there was something to put into one.
    pub(super) fn seal_next(&mut self, now: Instant, events: &mut VecDeque<SessionEvent>) -> bool {
        if self.close_number.is_some() || self.is_used_up() {
            return false;
        }
        let going_on = self.closing.is_none();
        let paced = going_on && self.prompt_is_paced(now);
        let prompt_ready = going_on && !paced && self.prompt_ready();
        let bulk_ready = going_on && self.bulk_ready(now);
        let bulk_turn = bulk_ready && (!prompt_ready || self.prompt_run >= PROMPT_RUN);
        // A long chunk shares its record with nobody: answers that never end must not keep it back for ever.
        if bulk_turn
            && (paced || self.bulk_passed_over || !self.answer_ready())
            && self.seal_chunk_in_place(now)
        {
            self.prompt_run = 0;
            self.bulk_passed_over = false;
            return true;
        }
        if paced && !bulk_turn {
            return false;
        }
        let mut plain = vec![0; RECORD_HEADER];
        let mut load = Load { receipts: self.fill_answers(&mut plain), ..Load::default() };
        let answers = plain.len();
        if let Some(reason) = self.closing.filter(|_| !self.answer_ready()) {
            Message::Close { reason }.encode(&mut plain);
            self.close_number = Some(self.end());
        } else if bulk_turn {
            self.fill_bulk(&mut plain, &mut load, now, events);
            self.bulk_passed_over = plain.len() == answers;
            if !self.bulk_passed_over {
                self.prompt_run = 0;
                self.pace[1].sent(now);
            }
        } else if prompt_ready {
            self.prompt_run += u32::from(bulk_ready);
            self.fill_prompt(&mut plain, &mut load, events);
        }
        let any = plain.len() > RECORD_HEADER;
        if any {
            if !bulk_turn || self.bulk_passed_over {
                self.prompt_sent(plain.len() + TAG_LEN, now);
            }
            self.records.seal(plain, load);
        }
        any
    }

    /// Whether texts and answers wait for the pace. What comes meanwhile leaves with them.
    fn prompt_is_paced(&mut self, now: Instant) -> bool {
        let waits = self.prompt_ready() || self.answer_ready();
        self.paced_until[0] = match self.pace[0].next(now).filter(|_| waits) {
            Some(at) if self.is_small() => self.small_pace.next(now).map(|small| small.min(at)),
            at => at,
        };
        self.paced_until[0].is_some()
    }

    /// Whether all texts and answers that wait fit into a frame that a relay counts apart.
    fn is_small(&self) -> bool {
        let answers = ANSWER * (self.misc.len() + self.voids.len() + self.opened.len());
        let prompt = self.prompt.first().and_then(|id| self.items.get(id)).map_or(0, prompt_length);
        self.prompt.len() <= 1 && RECORD_OVERHEAD + answers + prompt <= SMALL_FRAME
    }

    fn prompt_sent(&mut self, frame: usize, now: Instant) {
        if frame <= SMALL_FRAME && self.small_pace.next(now).is_none() {
            self.small_pace.sent(now);
        } else {
            self.pace[0].sent(now);
        }
    }

    /// Whether a receipt or cancel can leave.
    fn answer_ready(&self) -> bool {
        !self.misc.is_empty()
            || !self.opened.is_empty()
            || self.voids.first_key_value().is_some_and(|(id, _)| self.numbers.reaches(*id))
    }

    /// Receipts, cancels, and what was opened; how many receipts.
    fn fill_answers(&mut self, plain: &mut Vec<u8>) -> usize {
        let before = self.receipts;
        while self.answer_ready() && fits(plain, ANSWER, self.chunk) {
            if let Some(message) = self.misc.pop_front() {
                self.receipts -= usize::from(matches!(message, Message::Receipt { .. }));
                message.encode(plain);
            } else if let Some(item) =
                self.voids.first_key_value().map(|(item, _)| *item).filter(|item| self.numbers.reaches(*item))
                && let Some(reason) = self.voids.remove(&item)
            {
                self.numbers.take(item);
                Message::Cancel { item, reason }.encode(plain);
            } else if let Some((item, at)) = self.opened.pop_front() {
                Message::Opened { item, at }.encode(plain);
            }
        }
        before - self.receipts
    }

    /// Whether an item that gets a receipt of its own may begin.
    fn may_begin(&self, id: ItemId) -> bool {
        self.awaited < MAX_UNRECEIPTED && self.numbers.reaches(id)
    }

    fn prompt_ready(&self) -> bool {
        let Some(id) = self.prompt.first().copied() else { return false };
        let Some(item) = self.items.get(&id) else { return false };
        match (&item.head, item.staging.front()) {
            (Some(head), _) => self.may_begin(id) && self.windows[0].fits(head_cost(head)),
            (None, Some((chunk, _))) => self.windows[0].fits(chunk_cost(chunk.len())),
            (None, None) => false,
        }
    }

    /// Prompt messages, one item strictly after the other.
    fn fill_prompt(&mut self, plain: &mut Vec<u8>, load: &mut Load, events: &mut VecDeque<SessionEvent>) {
        while self.prompt_ready() {
            let Some(id) = self.prompt.first().copied() else { return };
            let Some(item) = self.items.get_mut(&id) else { return };
            if !fits(plain, prompt_length(item), self.chunk) {
                return;
            }
            let ended = if let Some(head) = item.head.take() {
                self.windows[0].spend(head_cost(&head));
                self.begin(id, head, plain, events)
            } else if let Some((chunk, last)) = item.staging.pop() {
                self.windows[0].spend(chunk_cost(chunk.len()));
                self.staged[0] -= chunk.len();
                load.share(id, chunk.len() as u64);
                push_chunk(plain, id, last, &chunk);
                last
            } else {
                return;
            };
            if ended {
                self.prompt.remove(&id);
                self.ended(id);
            }
        }
    }

    /// Writes an item's head; whether that is all of it.
    fn begin(
        &mut self,
        id: ItemId,
        head: ItemHead,
        plain: &mut Vec<u8>,
        events: &mut VecDeque<SessionEvent>,
    ) -> bool {
        self.numbers.take(id);
        self.open += 1;
        self.awaited += usize::from(head.group.is_none());
        if let Some(item) = self.items.get_mut(&id) {
            item.stage = Stage::Open;
            // Members that were offered early have waited for this.
            self.member_heads.extend(item.members.iter().flatten());
        }
        let whole = head.is_whole();
        if head.kind == ItemKind::Secret {
            // The record is sealed where it is; what it outgrew would stay in memory as it was. The tag has its room, too,
            // and so has whatever else goes into this record: another secret finds the room of the first.
            let most = RECORD_OVERHEAD + self.chunk.max(plain.len() + head_length(&head));
            plain.reserve(most.saturating_sub(plain.len()));
        }
        Message::Head { item: id, head }.encode(plain);
        if !whole {
            events.push_back(SessionEvent::Opened(id));
        }
        whole
    }

    /// The next bulk head that may leave: members first, the others in order, while there are places.
    fn bulk_head(&self) -> Option<ItemId> {
        let member = self.member_heads.first();
        let id = *member.or_else(|| self.bulk_heads.first())?;
        let item = self.items.get(&id)?;
        let head = item.head.as_ref()?;
        let places = MAX_OPEN_BULK - if member.is_some() { 0 } else { MEMBER_PLACES };
        let groups =
            || self.bulk_open.iter().filter(|id| self.items.get(id).is_some_and(|i| i.members.is_some()));
        let place = head.is_whole() || self.bulk_open.len() < places;
        let place = place && (item.members.is_none() || groups().count() < OPEN_GROUPS);
        let number = if member.is_some() { self.numbers.reaches(id) } else { self.may_begin(id) };
        (place && number && self.windows[1].fits(head_cost(head))).then_some(id)
    }

    /// The next open bulk item with a chunk that fits the grant. A group ends after its members.
    fn bulk_chunk(&self) -> Option<usize> {
        self.bulk_open.iter().position(|id| {
            let Some(item) = self.items.get(id) else { return false };
            let front = item.staging.front();
            let fits = front.is_some_and(|(chunk, _)| self.windows[1].fits(chunk_cost(chunk.len())));
            fits && item.members.as_ref().is_none_or(|members| members.is_empty())
        })
    }

    fn bulk_ready(&mut self, now: Instant) -> bool {
        let head = self.bulk_head().and_then(|id| self.items.get(&id)?.head.as_ref()).map(head_cost);
        if head.is_none() && self.bulk_chunk().is_none() {
            return false;
        }
        self.paced_until[1] = self.pace[1].next(now);
        if self.paced_until[1].is_some() {
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
        let Some(item) = self.items.get_mut(&id) else { return false };
        if item.staging.front().is_none_or(|(chunk, _)| chunk.len() <= SHARED) {
            return false;
        }
        let Some((chunk, last)) = item.staging.pop() else { return false };
        self.staged[1] -= chunk.len();
        self.windows[1].spend(chunk_cost(chunk.len()));
        self.flight.sealed(chunk.len() as u64);
        let root = item.parent.unwrap_or(id);
        self.records.seal_chunk(chunk, id, root, last);
        self.pace[1].sent(now);
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

    /// All of an item has left.
    fn ended(&mut self, id: ItemId) {
        let Some(item) = self.items.get_mut(&id) else { return };
        if item.parent.is_some() {
            return self.drop_item(id);
        }
        if std::mem::replace(&mut item.stage, Stage::Ended) == Stage::Open {
            self.open -= 1;
        }
    }

    /// Bulk heads and short chunks that travel together.
    fn fill_bulk(
        &mut self,
        plain: &mut Vec<u8>,
        load: &mut Load,
        now: Instant,
        events: &mut VecDeque<SessionEvent>,
    ) {
        while let Some(id) = self.bulk_head() {
            let Some(item) = self.items.get_mut(&id) else { break };
            let length = item.head.as_ref().map_or(0, head_length);
            if !fits(plain, length, self.chunk) {
                self.flight.sealed(load.bulk);
                return;
            }
            let Some(head) = item.head.take() else { break };
            let queue = if item.parent.is_some() { &mut self.member_heads } else { &mut self.bulk_heads };
            queue.remove(&id);
            self.windows[1].spend(head_cost(&head));
            let inline = head.inline.as_ref().map_or(0, |bytes| bytes.len() as u64);
            load.bulk += inline;
            if let Some(group) = head.group {
                load.share(group, inline);
            }
            if self.begin(id, head, plain, events) {
                self.ended(id);
            } else {
                self.bulk_open.push_back(id);
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
            load.bulk += len as u64;
            load.share(item.parent.unwrap_or(id), len as u64);
            push_chunk(plain, id, last, &chunk);
            self.rotate(at, id, last);
        }
        self.flight.sealed(load.bulk);
    }
}

/// Whether a message of `len` bytes still fits into the record that is being filled; the first always does.
const fn fits(plain: &[u8], len: usize, chunk: usize) -> bool {
    plain.len() == RECORD_HEADER || plain.len() + len + RECORD_OVERHEAD <= chunk
}

/// Bytes that the next message of a prompt item takes in a record, at most; none where it has nothing to say.
fn prompt_length(item: &Item) -> usize {
    match (&item.head, item.staging.front()) {
        (Some(head), _) => head_length(head),
        (None, Some((chunk, _))) => CHUNK_HEADER + chunk.len(),
        (None, None) => 0,
    }
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

#[cfg(test)]
mod tests {
    use rand_core::OsRng;

    use super::*;
    use crate::code::Code;
    use crate::crypto::pake::{Pake, Role};
    use crate::crypto::schedule::{self, Transcript};
    use crate::session::LinkLimits;

    fn outgoing() -> Outgoing {
        let code = Code::parse("1-abandon-ability-able", false).unwrap();
        let [host, peer] = [Role::Host, Role::Peer].map(|role| Pake::new(role, &code.secret, &mut OsRng));
        let transcript = Transcript {
            host_spake: host.message(),
            peer_spake: peer.message(),
            host_version: b"",
            peer_version: b"",
        };
        let key = host.shared(peer.message()).unwrap();
        let (sealer, _) = schedule::protocol2(&key, Role::Host, &transcript);
        let limits = LinkLimits { max_frame: 1024 * 1024, messages_per_minute: 0, relayed: false };
        Outgoing::new(sealer, limits)
    }

    #[test]
    fn secrets_that_share_a_record_are_written_once() {
        let mut out = outgoing();
        out.grant(1 << 30, 0);
        let (mut plain, mut load, mut events) = (vec![0; RECORD_HEADER], Load::default(), VecDeque::new());
        let mut room = None;
        for n in 0..12_u8 {
            out.offer(ItemHead {
                kind: ItemKind::Secret,
                group: None,
                name: "KEY".into(),
                size: None,
                executable: false,
                mtime: None,
                inline: Some(vec![n; 16 * 1024].into()),
            });
            out.fill_prompt(&mut plain, &mut load, &mut events);
            let now = (plain.as_ptr(), plain.capacity());
            assert_eq!(*room.get_or_insert(now), now, "number {n} has left those before it elsewhere");
        }
        assert!(plain.len() > 12 * 16 * 1024);
        assert!(plain.capacity() >= plain.len() + RECORD_OVERHEAD - RECORD_HEADER);
    }
}
