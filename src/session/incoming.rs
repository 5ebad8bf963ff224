//! What the other end sends: items until they are stored or refused, and the room granted for them.
//!
//! Owns the checks of item numbers, sizes and limits, and the receive windows. Content is passed on, never kept
//! (`src/PROTOCOL.md`, "Items").

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::window::{BULK_WINDOW, PROMPT_WINDOW, ReceiveWindow, chunk_cost, head_cost};
use super::{Incoming, PeerFault, SessionEvent};
use crate::frame::Message;
use crate::item::{ItemHead, ItemId, ItemKind, Lane, MAX_OPEN_BULK, MAX_TEXT, MAX_UNRECEIPTED, Refusal};

struct Item {
    lane: Lane,
    kind: ItemKind,
    parent: Option<ItemId>,
    size: Option<u64>,
    received: u64,
    ended: bool,
    /// Refused, here or by the sender: what still comes is dropped.
    dropped: bool,
    /// Content up to an offset, and what room its message took.
    charged: VecDeque<(u64, u64)>,
    /// Of a group: its members that are neither stored nor dropped.
    members: BTreeSet<ItemId>,
    /// How many of them have not ended.
    open_members: usize,
}

/// What is to be said about an item.
pub(super) struct Receipt {
    pub(super) id: ItemId,
    pub(super) refused: Option<Refusal>,
}

/// The receiving half of an open session.
pub(super) struct ItemsIn {
    items: BTreeMap<ItemId, Item>,
    /// Names of bulk items that are nobody's member and not here yet, for a later text's `pending`.
    names: BTreeMap<ItemId, String>,
    /// Every number up to this was used or is a gap.
    highest: u64,
    /// Numbers that were skipped and may still come.
    gaps: BTreeSet<u64>,
    last_prompt: u64,
    /// The prompt item that has begun and not ended: there is one at a time.
    open_prompt: Option<ItemId>,
    unreceipted: usize,
    open_bulk: usize,
    windows: [ReceiveWindow; 2],
    receipts: VecDeque<Receipt>,
    /// Own close was sealed: nothing becomes visible any more.
    deaf: bool,
}

impl ItemsIn {
    pub(super) fn new() -> Self {
        Self {
            items: BTreeMap::new(),
            names: BTreeMap::new(),
            highest: 0,
            gaps: BTreeSet::new(),
            last_prompt: 0,
            open_prompt: None,
            unreceipted: 0,
            open_bulk: 0,
            windows: [ReceiveWindow::new(PROMPT_WINDOW), ReceiveWindow::new(BULK_WINDOW)],
            receipts: VecDeque::new(),
            deaf: false,
        }
    }

    /// Nothing becomes visible any more: what is not stored yet is dropped, and what comes still.
    pub(super) fn deafen(&mut self) {
        self.deaf = true;
        self.receipts.clear();
        self.names.clear();
        self.unreceipted = 0;
        let all: Vec<ItemId> = self.items.keys().copied().collect();
        for id in all {
            if let Some(item) = self.items.get_mut(&id) {
                item.dropped = true;
            }
            self.forget_dropped(id);
        }
    }

    /// The grants to tell now: prompt, bulk.
    pub(super) fn tell(&mut self) -> (u64, u64) {
        (self.windows[0].tell(), self.windows[1].tell())
    }

    pub(super) fn worth_telling(&self) -> bool {
        self.windows.iter().any(ReceiveWindow::worth_telling)
    }

    pub(super) fn poll_receipt(&mut self) -> Option<Receipt> {
        self.receipts.pop_front()
    }

    /// Takes a head, chunk or cancel.
    pub(super) fn handle(
        &mut self,
        message: Message,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), PeerFault> {
        match message {
            Message::Head { item, head } => self.head(item, head, events),
            Message::Chunk { item, last, bytes } => self.chunk(item, last, bytes, events),
            Message::Cancel { item, reason } => self.cancelled(item, reason, events),
            Message::Receipt { .. } | Message::Opened { .. } | Message::Close { .. } => Ok(()),
        }
    }

    fn window(&mut self, lane: Lane) -> &mut ReceiveWindow {
        match lane {
            Lane::Prompt => &mut self.windows[0],
            Lane::Bulk => &mut self.windows[1],
        }
    }

    fn charge(&mut self, lane: Lane, cost: u64) -> Result<(), PeerFault> {
        if self.window(lane).receive(cost) { Ok(()) } else { Err(PeerFault::BeyondGrant) }
    }

    /// A number may come once, and not too far ahead of those that did not come yet.
    fn take_number(&mut self, id: ItemId) -> Result<(), PeerFault> {
        if self.gaps.remove(&id.0) {
            return Ok(());
        }
        let skipped = id.0.checked_sub(self.highest + 1).ok_or(PeerFault::ItemNumber)?;
        if skipped.saturating_add(self.gaps.len() as u64) > MAX_UNRECEIPTED as u64 {
            return Err(PeerFault::ItemNumber);
        }
        self.gaps.extend(self.highest + 1..id.0);
        self.highest = id.0;
        Ok(())
    }

    fn head(
        &mut self,
        id: ItemId,
        head: ItemHead,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), PeerFault> {
        let lane = head.lane();
        let whole = head.is_whole();
        self.take_number(id)?;
        if lane == Lane::Prompt {
            if id.0 <= self.last_prompt {
                return Err(PeerFault::ItemNumber);
            }
            self.last_prompt = id.0;
            if self.open_prompt.is_some() {
                return Err(PeerFault::TooMany);
            }
            self.open_prompt = (!whole).then_some(id);
        }
        check_head(&head)?;
        let cost = head_cost(&head);
        self.charge(lane, cost)?;
        let dropped = self.deaf || self.group_is_dropped(&head)?;
        self.open_bulk += usize::from(lane == Lane::Bulk && !whole);
        self.unreceipted += usize::from(head.group.is_none() && !dropped);
        if self.open_bulk > MAX_OPEN_BULK || self.unreceipted > MAX_UNRECEIPTED {
            return Err(PeerFault::TooMany);
        }
        let received = head.inline.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let item = Item {
            lane,
            kind: head.kind,
            parent: head.group,
            size: head.size,
            received,
            ended: whole,
            dropped,
            charged: VecDeque::from([(received, cost)]),
            members: BTreeSet::new(),
            open_members: 0,
        };
        self.items.insert(id, item);
        if dropped {
            self.forget_dropped(id);
        } else {
            self.announce(id, head, events);
        }
        Ok(())
    }

    fn announce(&mut self, id: ItemId, head: ItemHead, events: &mut VecDeque<SessionEvent>) {
        if let Some(group) = head.group.and_then(|group| self.items.get_mut(&group)) {
            group.members.insert(id);
            group.open_members += usize::from(!head.is_whole());
        } else if head.lane() == Lane::Bulk {
            self.names.insert(id, head.name.clone());
        }
        let (pending, pending_more) = if head.kind.is_text() { self.pending(id) } else { (Vec::new(), 0) };
        events.push_back(SessionEvent::Head(Incoming { id, head, pending, pending_more }));
    }

    /// Whether a member's group takes no more; a member of anything but an open group is a fault.
    fn group_is_dropped(&self, head: &ItemHead) -> Result<bool, PeerFault> {
        let Some(group) = head.group else { return Ok(false) };
        let group = self.items.get(&group).filter(|item| item.kind == ItemKind::Group && !item.ended);
        group.map(|item| item.dropped).ok_or(PeerFault::Group)
    }

    /// Items sent before this text that are not here yet: names of those that have begun, and how many more.
    fn pending(&self, text: ItemId) -> (Vec<String>, u64) {
        let begun = self.names.range(..text);
        let names: Vec<String> = begun.clone().map(|(_, name)| name.clone()).take(MAX_OPEN_BULK).collect();
        // From the far end: a text is mostly the latest of all.
        let later = self.names.range(text..).count() + names.len();
        let missing = self.gaps.len() - self.gaps.range(text.0..).count();
        let unnamed = self.names.len().saturating_sub(later);
        (names, (missing + unnamed) as u64)
    }

    fn chunk(
        &mut self,
        id: ItemId,
        last: bool,
        bytes: Bytes,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), PeerFault> {
        let cost = chunk_cost(bytes.len());
        let item = self.items.get(&id).filter(|item| !item.ended).ok_or(PeerFault::NotOpen)?;
        if bytes.is_empty() && !last || item.kind == ItemKind::Group && !bytes.is_empty() {
            return Err(PeerFault::Contradiction);
        }
        self.charge(item.lane, cost)?;
        let Some(item) = self.items.get_mut(&id) else { return Err(PeerFault::NotOpen) };
        item.received += bytes.len() as u64;
        item.charged.push_back((item.received, cost));
        let dropped = item.dropped;
        if last && item.open_members > 0 && !dropped {
            return Err(PeerFault::Contradiction);
        }
        if last {
            self.end(id);
        }
        let Some(item) = self.items.get(&id) else { return Err(PeerFault::NotOpen) };
        if dropped {
            self.forget_dropped(id);
            return Ok(());
        }
        let too_many = item.size.is_some_and(|size| item.received > size);
        let too_few = last && item.size.is_some_and(|size| item.received < size);
        let long_text = item.kind.is_text() && item.received > MAX_TEXT;
        if too_many || too_few || long_text {
            self.spoilt(id, if long_text { Refusal::BadText } else { Refusal::WrongSize }, events);
            return Ok(());
        }
        events.push_back(SessionEvent::Chunk { id, bytes, last });
        Ok(())
    }

    /// The sender takes an item back. After its end that comes too late, and its receipt says how it went.
    fn cancelled(
        &mut self,
        id: ItemId,
        reason: Refusal,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), PeerFault> {
        let Some(item) = self.items.get_mut(&id) else {
            // Taken back before it began, or ended and answered already.
            return if id.0 == 0 || id.0 > self.highest || self.gaps.contains(&id.0) {
                self.take_number(id)
            } else {
                Ok(())
            };
        };
        if item.ended {
            return Ok(());
        }
        let dropped = item.dropped;
        self.end(id);
        if dropped {
            self.forget_dropped(id);
        } else {
            self.spoilt(id, reason, events);
        }
        Ok(())
    }

    /// Nothing more comes of an item.
    fn end(&mut self, id: ItemId) {
        let Some(item) = self.items.get_mut(&id) else { return };
        item.ended = true;
        let (lane, parent, dropped) = (item.lane, item.parent, item.dropped);
        match lane {
            Lane::Prompt => self.open_prompt = None,
            Lane::Bulk => self.open_bulk -= 1,
        }
        if let Some(group) = parent.and_then(|parent| self.items.get_mut(&parent)).filter(|_| !dropped) {
            group.open_members -= 1;
        }
    }

    /// An item did not come whole. The group of a member cannot be whole either.
    fn spoilt(&mut self, id: ItemId, reason: Refusal, events: &mut VecDeque<SessionEvent>) {
        let id = self.items.get(&id).and_then(|item| item.parent).unwrap_or(id);
        self.refuse(id, reason);
        events.push_back(SessionEvent::Cancelled { id, reason });
    }

    /// Gives the one receipt, a refusal; what still comes is dropped. A refused group takes its members with it.
    fn refuse(&mut self, id: ItemId, reason: Refusal) {
        let Some(item) = self.items.get_mut(&id) else { return };
        item.dropped = true;
        item.open_members = 0;
        let members = std::mem::take(&mut item.members);
        if item.parent.is_none() {
            self.unreceipted -= 1;
            self.names.remove(&id);
            self.receipts.push_back(Receipt { id, refused: Some(reason) });
        }
        for member in members {
            self.refuse(member, reason);
        }
        self.forget_dropped(id);
    }

    /// Gives back the room of a dropped item, and forgets it once it has ended.
    fn forget_dropped(&mut self, id: ItemId) {
        self.free(id, u64::MAX);
        if self.items.get(&id).is_some_and(|item| item.ended) {
            self.items.remove(&id);
        }
    }

    fn free(&mut self, id: ItemId, upto: u64) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let mut cost = 0;
        while let Some((_, charged)) = item.charged.pop_front_if(|(end, _)| *end <= upto) {
            cost += charged;
        }
        let lane = item.lane;
        self.window(lane).free(cost);
    }

    /// The driver has taken the first `upto` bytes of an item.
    pub(super) fn accepted(&mut self, id: ItemId, upto: u64) {
        self.free(id, upto);
    }

    /// How an item ended here. A member that is refused takes its group with it.
    pub(super) fn stored(&mut self, id: ItemId, result: Result<(), Refusal>) {
        let Some(item) = self.items.get(&id).filter(|item| !item.dropped) else { return };
        let parent = item.parent;
        match result {
            Err(reason) => self.refuse(parent.unwrap_or(id), reason),
            // Stored before its end cannot be: the driver knows the end.
            Ok(()) if !item.ended => {}
            Ok(()) => {
                if let Some(group) = parent.and_then(|parent| self.items.get_mut(&parent)) {
                    group.members.remove(&id);
                }
                if parent.is_none() {
                    self.unreceipted -= 1;
                    self.names.remove(&id);
                    self.receipts.push_back(Receipt { id, refused: None });
                }
                self.free(id, u64::MAX);
                self.items.remove(&id);
            }
        }
    }
}

/// What a head must not say.
fn check_head(head: &ItemHead) -> Result<(), PeerFault> {
    let inline = head.inline.as_ref().map(|bytes| bytes.len() as u64);
    let size = head.size.is_some_and(|size| inline.is_some_and(|inline| inline != size));
    let hollow = matches!(head.kind, ItemKind::Dir | ItemKind::Group) && inline.is_some();
    let nested = head.group.is_some() && !matches!(head.kind, ItemKind::File | ItemKind::Dir);
    // A secret is never in pieces: it is kept nowhere but where it is used.
    let torn = head.kind == ItemKind::Secret && inline.is_none();
    if size || hollow || nested || torn { Err(PeerFault::Contradiction) } else { Ok(()) }
}
