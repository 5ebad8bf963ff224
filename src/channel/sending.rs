//! What this side sends: offers of the mailbox, items of the session, and the files between them.
//!
//! Owns which entry is which item, how far each was read, and what becomes of it. Performs no I/O: it asks the reader
//! and tells the mailbox through what it returns.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_wormhole_mount::{Content, EntryId, Kind, Member, Offer, Outcome, SourceError};
use bytes::Bytes;

use super::HOPS;
use super::reader::{Ask, Read, Reader};
use super::secrets;
use crate::event::state::InFlight;
use crate::event::{LengthClass, MAX_BODY, Sent, SentQuestion, Side};
use crate::frame::ChunkBuf;
use crate::item::{ItemHead, ItemId, ItemKind, Lane, MAX_INLINE, Refusal};
use crate::session::Session;

/// Chunks of one item that are read ahead of the cipher.
const AHEAD: usize = 3;
/// Members of a group are offered while fewer heads than this wait: 64 × 16 KiB inline is one mebibyte.
const QUEUED_HEADS: usize = 64;
/// Names remembered of which it was told that they changed while they were read. One more, and all may be told again.
const MAX_CHANGED: usize = 1024;

struct Item {
    /// `None` for a member of a group.
    entry: Option<EntryId>,
    group: Option<ItemId>,
    kind: ItemKind,
    name: String,
    size: Option<u64>,
    /// Until the head has left.
    content: Option<Content>,
    body: Option<String>,
    /// Chunks or members asked for and not answered.
    asked: usize,
    /// Bytes given to the session.
    pushed: u64,
    /// Why it could not be read to its end.
    failed: Option<SourceError>,
}

/// How an item ended.
pub(super) struct Ended {
    /// The entry of the outbox.
    pub(super) entry: EntryId,
    pub(super) name: String,
    pub(super) id: ItemId,
    pub(super) outcome: Outcome,
    /// For the transcript, where it was delivered.
    pub(super) sent: Option<Sent>,
    /// Bytes given to the session.
    pub(super) bytes: u64,
    /// Who did not take it and why, where that is an event.
    pub(super) told: Option<(Side, String)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Sending {
    entries: HashMap<EntryId, ItemId>,
    items: BTreeMap<ItemId, Item>,
    /// Files and trees that the reader has open.
    reading: Vec<ItemId>,
    /// Names of what changed while it was read, and was not delivered since: it is offered again and again.
    changed: HashSet<String>,
}

/// Nanoseconds since 1970, where they fit.
fn nanos(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|nanos| -nanos),
    }
}

const fn kind(kind: Kind) -> ItemKind {
    match kind {
        Kind::Text => ItemKind::Text,
        Kind::File => ItemKind::File,
        Kind::Dir => ItemKind::Dir,
        Kind::Group => ItemKind::Group,
        Kind::Secret => ItemKind::Secret,
        Kind::Ask => ItemKind::Ask,
        Kind::Answer => ItemKind::Answer,
    }
}

/// Logs how far an item is, under a name that `doctor --loop` asks for: `settled` (complete in the outbox, and offered),
/// `sent` (the session has all of it), `receipt` (the peer has stored it).
fn hop(hop: &'static str, item: ItemId) {
    tracing::debug!(target: HOPS, hop, item = item.0);
}

/// Short content travels in the head; what is left travels in chunks.
fn split(content: Content) -> (Option<Bytes>, Option<Content>) {
    match content {
        Content::Whole(bytes) if bytes.len() <= MAX_INLINE => (Some(bytes), None),
        Content::None => (None, None),
        Content::Secret(secret) => (Some(secrets::held(secret)), None),
        other => (None, Some(other)),
    }
}

impl Sending {
    /// Takes an offer. Only a connected session takes any; the mailbox offers nothing before.
    pub(super) fn offer(&mut self, offer: Offer, session: &mut Session) {
        let Offer { entry, kind: what, name, size, executable, mtime, content } = offer;
        let body = match (&content, what) {
            (Content::Whole(bytes), Kind::Text | Kind::Ask | Kind::Answer) if bytes.len() <= MAX_BODY => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            _ => None,
        };
        let (inline, content) = split(content);
        let kind = kind(what);
        let mtime = mtime.and_then(nanos);
        let head = ItemHead { kind, group: None, name: name.clone(), size, executable, mtime, inline };
        let is_whole = head.is_whole();
        let Some(id) = session.offer(head) else { return };
        hop("settled", id);
        if is_whole {
            hop("sent", id);
        }
        self.entries.insert(entry, id);
        let item = Item {
            entry: Some(entry),
            group: None,
            kind,
            name,
            size,
            content,
            body,
            asked: 0,
            pushed: 0,
            failed: None,
        };
        self.items.insert(id, item);
    }

    /// An entry was removed or written again.
    pub(super) fn withdraw(&mut self, entry: EntryId, session: &mut Session, reader: &Reader) {
        let Some(id) = self.entries.get(&entry).copied() else { return };
        self.stop_reading(id, reader);
        session.cancel(id, Refusal::Cancelled);
    }

    /// An item's head has left: its content is wanted.
    pub(super) fn opened(&mut self, id: ItemId, session: &mut Session, reader: &Reader) {
        let Some(item) = self.items.get_mut(&id) else { return };
        match item.content.take() {
            Some(Content::Whole(bytes)) => push_whole(id, &bytes, session),
            Some(Content::Stream(source)) => {
                reader.ask(Ask::Open(id, source, item.size));
                self.reading.push(id);
            }
            Some(Content::Tree(tree)) => {
                reader.ask(Ask::OpenTree(id, tree));
                self.reading.push(id);
            }
            Some(Content::None | Content::Secret(_)) | None => {
                session.push(id, ChunkBuf::zeroed(0), true);
                hop("sent", id);
            }
        }
    }

    /// Asks the reader for what the session has room for.
    pub(super) fn pump(&mut self, session: &mut Session, reader: &Reader) {
        let chunk = session.chunk_size();
        for id in &self.reading {
            let Some(item) = self.items.get_mut(id) else { continue };
            if item.kind == ItemKind::Group {
                if item.asked == 0 && session.queued() < QUEUED_HEADS {
                    item.asked = 1;
                    reader.ask(Ask::Member(*id));
                }
                continue;
            }
            while session.staged(*id) + item.asked * chunk < AHEAD * chunk
                && session.room(Lane::Bulk) >= chunk
            {
                item.asked += 1;
                let buffer = match session.reclaim() {
                    Some(old) => ChunkBuf::recycled(old, chunk),
                    None => ChunkBuf::zeroed(chunk),
                };
                reader.ask(Ask::Chunk(*id, buffer));
            }
        }
    }

    /// Takes the reader's answer; what was met in a tree and is not sent comes back.
    pub(super) fn read(&mut self, read: Read, session: &mut Session, reader: &Reader) {
        match read {
            Read::Chunk { id, chunk, last } => {
                let Some(item) = self.items.get_mut(&id) else { return };
                item.asked = item.asked.saturating_sub(1);
                item.pushed += chunk.len() as u64;
                if last {
                    self.reading.retain(|other| *other != id);
                }
                session.push(id, chunk, last);
                if last {
                    hop("sent", id);
                    self.forget_member(id);
                }
            }
            Read::Member { id, member: None, .. } => {
                self.reading.retain(|other| *other != id);
                session.push(id, ChunkBuf::zeroed(0), true);
                hop("sent", id);
            }
            Read::Member { id, member: Some(member), .. } => {
                let Some(item) = self.items.get_mut(&id) else { return };
                item.asked = 0;
                self.member(id, member, session);
            }
            Read::Failed { id, error } => self.failed(id, error, session, reader),
        }
    }

    /// What a member of a group is called from the outbox on.
    pub(super) fn name_of_member(&self, group: ItemId, member: &str) -> String {
        let group = self.items.get(&group).map_or("", |group| group.name.as_str());
        format!("{group}/{member}")
    }

    fn member(&mut self, group: ItemId, member: Member, session: &mut Session) {
        let Member { kind: what, name, size, executable, mtime, content } = member;
        let (inline, content) = split(content);
        let kind = kind(what);
        let inlined = inline.as_ref().map(|bytes| bytes.len() as u64);
        let mtime = mtime.and_then(nanos);
        let head = ItemHead { kind, group: Some(group), name: name.clone(), size, executable, mtime, inline };
        let Some(id) = session.offer(head) else { return };
        self.progress(group, inlined.unwrap_or(0));
        if content.is_some() {
            let item = Item {
                entry: None,
                group: Some(group),
                kind,
                name,
                size,
                content,
                body: None,
                asked: 0,
                pushed: 0,
                failed: None,
            };
            self.items.insert(id, item);
        }
    }

    fn progress(&mut self, group: ItemId, bytes: u64) {
        if let Some(item) = self.items.get_mut(&group) {
            item.pushed += bytes;
        }
    }

    /// A member ends with its last chunk: its group has the receipt.
    fn forget_member(&mut self, id: ItemId) {
        if let Some(group) = self.items.get(&id).and_then(|item| item.group)
            && let Some(member) = self.items.remove(&id)
        {
            self.progress(group, member.pushed);
        }
    }

    /// A file that cannot be read to its end takes its item back, and its group with it.
    fn failed(&mut self, id: ItemId, error: SourceError, session: &mut Session, reader: &Reader) {
        // What is closed may fail for that: it is known why it ended.
        if !self.reading.contains(&id) {
            return;
        }
        let Some(item) = self.items.get(&id) else { return };
        let whole = item.group.unwrap_or(id);
        let reason = match error {
            SourceError::Changed => Refusal::Changed,
            // To the other end it is as if its owner had taken it back.
            SourceError::BrokenOff => Refusal::Cancelled,
            SourceError::Io(_) => Refusal::Unreadable,
        };
        tracing::debug!(%error, item = %whole, "an item is taken back");
        if let Some(item) = self.items.get_mut(&whole) {
            item.failed.get_or_insert(error);
        }
        self.stop_reading(whole, reader);
        session.cancel(whole, reason);
    }

    /// Closes an item's source, and those of its members.
    fn stop_reading(&mut self, id: ItemId, reader: &Reader) {
        let members: Vec<ItemId> =
            self.items.iter().filter(|(_, item)| item.group == Some(id)).map(|(id, _)| *id).collect();
        for member in &members {
            self.items.remove(member);
        }
        for gone in members.into_iter().chain([id]) {
            self.reading.retain(|other| *other != gone);
            reader.ask(Ask::Close(gone));
        }
    }

    /// An item's one receipt; `None` for a member, or what was settled before.
    pub(super) fn ended(&mut self, id: ItemId, refused: Option<Refusal>, reader: &Reader) -> Option<Ended> {
        self.stop_reading(id, reader);
        let broke_off =
            self.items.get(&id).is_some_and(|item| matches!(item.failed, Some(SourceError::BrokenOff)));
        if refused.is_none() {
            hop("receipt", id);
        }
        let outcome = match refused {
            None => Outcome::Delivered,
            Some(Refusal::Cancelled) if broke_off => Outcome::BrokenOff,
            Some(Refusal::Cancelled) => Outcome::Cancelled,
            Some(Refusal::Changed) => Outcome::Changed,
            Some(other) => Outcome::Refused(other.as_str().to_owned()),
        };
        let told = self.told(id, refused);
        self.settle(id, outcome).map(|ended| Ended { told, ..ended })
    }

    /// What there is to tell of an item that was not delivered. That its owner took it back on purpose is nothing new to
    /// him, and that it changed while it was read is told once: it is offered until it holds still.
    fn told(&mut self, id: ItemId, refused: Option<Refusal>) -> Option<(Side, String)> {
        let item = self.items.get(&id)?;
        let Some(refused) = refused else {
            self.changed.remove(&item.name);
            return None;
        };
        match (&item.failed, refused) {
            (Some(SourceError::Changed), Refusal::Changed) => {
                if self.changed.len() >= MAX_CHANGED {
                    self.changed.clear();
                }
                let why = format!("{refused}; it is sent again until it holds still");
                self.changed.insert(item.name.clone()).then_some((Side::Myself, why))
            }
            (
                Some(error @ (SourceError::BrokenOff | SourceError::Io(_))),
                Refusal::Cancelled | Refusal::Unreadable,
            ) => Some((Side::Myself, format!("{error}; the peer keeps nothing of it"))),
            (_, Refusal::Cancelled | Refusal::Changed) => None,
            (_, refused) => Some((Side::Peer, refused.as_str().to_owned())),
        }
    }

    /// An item left for a 0.1 peer.
    pub(super) fn left(&mut self, id: ItemId) -> Option<Ended> {
        self.settle(id, Outcome::Sent)
    }

    /// The peer takes nothing more: forgets everything, and returns the entries that were on the way.
    pub(super) fn abandon(&mut self, reader: &Reader) -> Vec<EntryId> {
        for id in std::mem::take(&mut self.reading) {
            reader.ask(Ask::Close(id));
        }
        self.items.clear();
        std::mem::take(&mut self.entries).into_keys().collect()
    }

    fn settle(&mut self, id: ItemId, outcome: Outcome) -> Option<Ended> {
        let item = self.items.remove(&id)?;
        let entry = item.entry?;
        self.entries.remove(&entry);
        let done = matches!(outcome, Outcome::Delivered | Outcome::Sent);
        let (name, item_kind) = (item.kind.shown(&item.name).into_owned(), item.kind);
        let bytes = item.size.unwrap_or(item.pushed);
        let sent = done.then_some(match item.kind {
            ItemKind::Text => Sent::Text { id: id.0, size: bytes, body: item.body },
            ItemKind::File => Sent::File { id: id.0, name: item.name, size: Some(bytes) },
            ItemKind::Dir | ItemKind::Group => Sent::Dir { id: id.0, name: item.name },
            ItemKind::Secret => {
                let length = LengthClass::of(usize::try_from(bytes).unwrap_or(usize::MAX));
                Sent::Secret { id: id.0, name: item.name, length }
            }
            ItemKind::Ask => Sent::Ask(question(id, bytes, item)),
            ItemKind::Answer => Sent::Answer(question(id, bytes, item)),
        });
        // The sums of `status.json` do not tell how long it is.
        let bytes = if item_kind == ItemKind::Secret { 0 } else { bytes };
        Some(Ended { entry, name, id, outcome, sent, bytes, told: None })
    }

    /// Items on the way, for `status.json`: the oldest `most`, and how many more.
    pub(super) fn in_flight(&self, session: &Session, most: usize) -> (Vec<InFlight>, u64) {
        let roots = || self.items.iter().filter(|(_, item)| item.entry.is_some());
        let listed = roots().take(most).map(|(id, item)| InFlight {
            id: id.0,
            name: item.kind.shown(&item.name).into_owned(),
            // Nobody is told how long a secret is.
            size: item.size.filter(|_| item.kind != ItemKind::Secret),
            done: if item.kind == ItemKind::Secret { 0 } else { session.confirmed(*id) },
            waits: Some(session.why_waiting(*id).to_owned()),
            ..InFlight::default()
        });
        (listed.collect(), roots().count().saturating_sub(most) as u64)
    }
}

fn question(id: ItemId, size: u64, item: Item) -> SentQuestion {
    SentQuestion { id: id.0, name: item.name, size, body: item.body }
}

fn push_whole(id: ItemId, bytes: &Bytes, session: &mut Session) {
    let size = session.chunk_size().max(1);
    let count = bytes.len().div_ceil(size).max(1);
    for (index, chunk) in bytes.chunks(size).enumerate() {
        session.push(id, ChunkBuf::copy_of(chunk), index + 1 == count);
    }
    hop("sent", id);
}
