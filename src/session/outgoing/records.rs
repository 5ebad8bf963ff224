//! Records of this end: each is sealed once under its number, and kept until the other end has it.
//!
//! Owns the numbers of data records and what goes again. Knows nothing of what is in a record
//! (`src/PROTOCOL.md`, "Records").

use std::collections::VecDeque;

use bytes::Bytes;

use crate::crypto::seal::Sealer;
use crate::frame::{ChunkBuf, RECORD_HEADER, RecordHeader, RecordKind, State};
use crate::item::ItemId;
use crate::session::PeerFault;

/// Bytes that one key seals in a direction, at most.
const MAX_SEALED: u64 = 1 << 44;
/// Buffers of acknowledged chunks kept for new ones: what a bulk window holds.
const POOL: usize = 32;
/// Only the memory of longer records than this is worth keeping: shorter ones are no chunk sealed in place.
const POOLED: usize = super::SHARED;

/// A sealed data record.
struct Record {
    bytes: Bytes,
    load: Load,
}

/// What is in a record, as far as somebody counts it.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Bytes of bulk content.
    pub(super) bulk: u64,
    /// Receipts.
    pub(super) receipts: usize,
    /// Bytes of content of items that do not fit into one record; of a group's members under the group.
    pub(super) shares: Vec<(ItemId, u64)>,
}

impl Load {
    /// Counts content of an item.
    pub(super) fn share(&mut self, item: ItemId, bytes: u64) {
        match self.shares.last_mut() {
            Some((last, sum)) if *last == item => *sum += bytes,
            _ if bytes > 0 => self.shares.push((item, bytes)),
            _ => {}
        }
    }
}

/// Data records that are sealed and not acknowledged, and the key that seals.
pub(super) struct Records {
    sealer: Sealer,
    /// The first has number `base`.
    kept: VecDeque<Record>,
    base: u64,
    /// The next one to put on the link, `base..=end`.
    cursor: u64,
    sealed_bytes: u64,
    /// Receipts in what is kept.
    receipts: usize,
    pool: Vec<Vec<u8>>,
}

impl Records {
    pub(super) const fn new(sealer: Sealer) -> Self {
        Self {
            sealer,
            kept: VecDeque::new(),
            base: 0,
            cursor: 0,
            sealed_bytes: 0,
            receipts: 0,
            pool: Vec::new(),
        }
    }

    /// The number of the next new record.
    pub(super) fn end(&self) -> u64 {
        self.base + self.kept.len() as u64
    }

    /// The lowest number that is not acknowledged.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Receipts that were sealed and are not acknowledged.
    pub(super) const fn receipts(&self) -> usize {
        self.receipts
    }

    /// The longest record that may have to go again.
    pub(super) fn longest(&self) -> usize {
        self.kept.iter().map(|record| record.bytes.len()).max().unwrap_or(0)
    }

    /// Whether all that was sealed is on the link.
    pub(super) fn is_sent(&self) -> bool {
        self.cursor == self.end()
    }

    /// Whether the key has sealed all it may.
    pub(super) const fn is_used_up(&self) -> bool {
        self.sealed_bytes >= MAX_SEALED
    }

    #[cfg(test)]
    pub(super) const fn use_up(&mut self) {
        self.sealed_bytes = MAX_SEALED - 1;
    }

    /// Memory of acknowledged chunks.
    pub(super) fn reclaim(&mut self) -> Option<Vec<u8>> {
        self.pool.pop()
    }

    /// The next sealed record that the link has not carried, or must carry again.
    pub(super) fn next_unsent(&mut self) -> Option<Bytes> {
        let index = usize::try_from(self.cursor - self.base).ok()?;
        let record = self.kept.get(index)?;
        self.cursor += 1;
        Some(record.bytes.clone())
    }

    /// Writes the header into the first bytes of `record`, seals what follows, and keeps it.
    pub(super) fn seal(&mut self, mut record: Vec<u8>, load: Load) {
        let header = RecordHeader { kind: RecordKind::Data, number: self.end() };
        record[..RECORD_HEADER].copy_from_slice(&header.encode());
        self.keep(record, load);
    }

    /// Seals a chunk where it was read. It counts as content of `root`: the item, or its group.
    pub(super) fn seal_chunk(&mut self, chunk: ChunkBuf, item: ItemId, root: ItemId, last: bool) {
        let mut load = Load { bulk: chunk.len() as u64, ..Load::default() };
        load.share(root, load.bulk);
        let record = chunk.into_record(self.end(), item, last);
        self.keep(record, load);
    }

    fn keep(&mut self, mut record: Vec<u8>, load: Load) {
        self.sealer.seal(RecordKind::Data as u8, self.end(), &mut record, RECORD_HEADER);
        self.sealed_bytes += record.len() as u64;
        self.receipts += load.receipts;
        self.kept.push_back(Record { bytes: record.into(), load });
    }

    /// Seals a control record; it is never resent.
    pub(super) fn seal_control(&self, number: u64, state: &State) -> Bytes {
        let mut record = Vec::with_capacity(128);
        record.extend_from_slice(&RecordHeader { kind: RecordKind::Control, number }.encode());
        state.encode(&mut record);
        self.sealer.seal(RecordKind::Control as u8, number, &mut record, RECORD_HEADER);
        record.into()
    }

    /// The other end expects `next`: forgets what it has, and tells what was in each record.
    ///
    /// # Errors
    /// Where `next` was never sealed.
    pub(super) fn acknowledge(&mut self, next: u64) -> Result<impl Iterator<Item = Load>, PeerFault> {
        if next > self.end() {
            return Err(PeerFault::AcknowledgedFuture);
        }
        let count = usize::try_from(next.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.base = self.base.max(next);
        self.cursor = self.cursor.max(self.base);
        Ok(self.kept.drain(..count.min(self.kept.len())).map(|record| {
            self.receipts -= record.load.receipts;
            if record.load.bulk > POOLED as u64 && self.pool.len() < POOL {
                self.pool.extend(record.bytes.try_into_mut().ok().map(Vec::from));
            }
            record.load
        }))
    }

    /// Records from `next` on leave again.
    pub(super) fn resend_from(&mut self, next: u64) {
        self.cursor = next.clamp(self.base, self.end());
    }
}
