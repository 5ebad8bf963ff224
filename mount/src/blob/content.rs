//! The bytes of one file, shared copy on write with its snapshots.
//!
//! Owns which chunk is where. A chunk that only one content has is changed where it is, one that a snapshot has too is
//! left alone and replaced; so a snapshot never changes, whoever writes and reads meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::quota::{Charge, Quota};
use super::seal::{Damaged, Seal};
use super::slots::Place;
use super::{BlobError, CHUNK, MAX_LEN, Store, pages};
use crate::{Source, SourceError};

/// Bytes of a chunk, as a part of a file's offset.
const STEP: u64 = CHUNK as u64;
/// What a hole in a shared or sealed chunk is written with.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// A file's bytes. A clone is a snapshot: it shares the chunks and costs a reference for each.
#[derive(Clone)]
pub struct Content {
    store: Arc<Store>,
    quota: Arc<Quota>,
    /// By number; what is not here is a hole. None begins at or beyond the end.
    pub(super) chunks: BTreeMap<u64, Chunk>,
    len: u64,
    /// What the chunks occupy, in bytes.
    allocated: u64,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Content {
    /// No bytes yet; what is written is charged on `quota`.
    #[must_use]
    pub fn new(store: &Arc<Store>, quota: &Arc<Quota>) -> Self {
        let (store, quota) = (Arc::clone(store), Arc::clone(quota));
        Self { store, quota, chunks: BTreeMap::new(), len: 0, allocated: 0 }
    }

    /// No bytes, in the same store and on the same quota.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::new(&self.store, &self.quota)
    }

    /// From now on what is written is charged on another quota; what it has already stays where it is charged.
    pub fn charge_on(&mut self, quota: &Arc<Quota>) {
        self.quota = Arc::clone(quota);
    }

    /// Its length in bytes, holes included.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that its chunks occupy, in whole pages and without holes, whether or not snapshots share them.
    #[must_use]
    pub const fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Whether every chunk can be read without opening a seal.
    #[must_use]
    pub fn is_in_memory_unsealed(&self) -> bool {
        let nothing_sealed = !self.store.memory.is_sealed() && self.store.spilled() == 0;
        nothing_sealed || self.chunks.values().all(|chunk| chunk.slot.seal.is_none())
    }

    /// Fills `buf` with what is at `offset`, holes as zeros; less than all of it only at the end.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidData`] where a sealed chunk does not open.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buf.len());
        let (mut offset, mut rest) = (offset, &mut buf[..count]);
        while !rest.is_empty() {
            let (index, at) = split(offset);
            let (part, after) = rest.split_at_mut((CHUNK - at).min(rest.len()));
            match self.chunks.get(&index) {
                Some(chunk) => chunk.read(&self.store, at, part)?,
                None => part.fill(0),
            }
            offset += part.len() as u64;
            rest = after;
        }
        Ok(count)
    }

    /// Writes all of `data` at `offset`; what is between the end and a later offset becomes a hole.
    ///
    /// # Errors
    /// [`BlobError`]; whole chunks before the one that failed are written, and the length tells how far it came where
    /// it grew.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), BlobError> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > MAX_LEN) {
            return Err(BlobError::TooLarge);
        }
        let (mut offset, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (index, at) = split(offset);
            let (part, after) = rest.split_at((CHUNK - at).min(rest.len()));
            self.change(index, |content| content.put(index, at, part))?;
            offset += part.len() as u64;
            self.len = self.len.max(offset);
            rest = after;
        }
        Ok(())
    }

    /// Cuts it or makes it longer by a hole. A cut never fails.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`].
    pub fn set_len(&mut self, len: u64) -> Result<(), BlobError> {
        if len > MAX_LEN {
            return Err(BlobError::TooLarge);
        }
        if len < self.len {
            let gone = self.chunks.split_off(&len.div_ceil(STEP));
            self.allocated -= gone.values().map(Chunk::occupied).sum::<u64>();
            let (index, at) = split(len);
            self.change(index, |content| content.cut(index, at));
        }
        self.len = len;
        Ok(())
    }

    /// Makes a range zeros, as far as it is within the length; chunks that are wholly in it are given back.
    ///
    /// # Errors
    /// [`BlobError`], where a chunk is shared or sealed and its rest finds no new place.
    pub fn punch(&mut self, offset: u64, len: u64) -> Result<(), BlobError> {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end {
            return Ok(());
        }
        let touched: Vec<u64> =
            self.chunks.range(offset / STEP..=(end - 1) / STEP).map(|(index, _)| *index).collect();
        for index in touched {
            let start = index * STEP;
            let from = split(offset.max(start)).1;
            let to = (end - start).min(STEP) as usize;
            self.change(index, |content| content.clear(index, from, to))?;
        }
        Ok(())
    }

    /// Where data begins at or after `offset` (`SEEK_DATA`); a chunk with any byte in it is data. `None` where there is
    /// nothing but a hole up to the end.
    #[must_use]
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        if offset >= self.len {
            return None;
        }
        let (index, _) = self.chunks.range(offset / STEP..).next()?;
        Some(offset.max(index * STEP))
    }

    /// Where a hole begins at or after `offset` (`SEEK_HOLE`); the end is one. `None` at the end and beyond.
    #[must_use]
    pub fn next_hole(&self, offset: u64) -> Option<u64> {
        if offset >= self.len {
            return None;
        }
        let mut index = offset / STEP;
        for (taken, _) in self.chunks.range(index..) {
            if *taken != index {
                break;
            }
            index += 1;
        }
        Some(offset.max(index * STEP).min(self.len))
    }

    /// Changes at most the chunk `index`, and counts what it occupies then.
    fn change<T>(&mut self, index: u64, change: impl FnOnce(&mut Self) -> T) -> T {
        let occupied = |content: &Self| content.chunks.get(&index).map_or(0, Chunk::occupied);
        let before = occupied(self);
        let result = change(self);
        self.allocated = self.allocated - before + occupied(self);
        result
    }

    /// Writes into one chunk.
    fn put(&mut self, index: u64, at: usize, data: &[u8]) -> Result<(), BlobError> {
        let end = at + data.len();
        let Some(chunk) = self.chunks.get_mut(&index) else {
            let slot = Slot::new(&self.store, &self.quota, None, (at, data))?;
            self.chunks.insert(index, Chunk { slot: Arc::new(slot), visible: end });
            return Ok(());
        };
        match Arc::get_mut(&mut chunk.slot) {
            Some(slot) => slot.rewrite(&self.store, chunk.visible, (at, data))?,
            None => {
                let below = Some((&*chunk.slot, chunk.visible));
                chunk.slot = Arc::new(Slot::new(&self.store, &self.quota, below, (at, data))?);
            }
        }
        chunk.visible = chunk.visible.max(end);
        Ok(())
    }

    /// Makes `from..to` of one chunk zeros.
    fn clear(&mut self, index: u64, from: usize, to: usize) -> Result<(), BlobError> {
        match self.chunks.get(&index) {
            Some(chunk) if from < chunk.visible && to < chunk.visible => {
                self.put(index, from, &ZEROS[from..to])
            }
            _ => {
                self.cut(index, from);
                Ok(())
            }
        }
    }

    /// Makes one chunk zeros from `len` on. Where its bytes cannot go now, as a snapshot has them or they are sealed, they
    /// go when it is next written, and are out of sight until then.
    fn cut(&mut self, index: u64, len: usize) {
        if len == 0 {
            self.chunks.remove(&index);
        } else if let Some(chunk) = self.chunks.get_mut(&index) {
            chunk.visible = chunk.visible.min(len);
            if let Some(slot) = Arc::get_mut(&mut chunk.slot) {
                // What fails is tried again before the next write.
                let _later = slot.cut(chunk.visible);
            }
        }
    }
}

/// The chunk of an offset, and where in it.
const fn split(offset: u64) -> (u64, usize) {
    (offset / STEP, (offset % STEP) as usize)
}

/// A content's view of one chunk.
#[derive(Clone)]
pub(super) struct Chunk {
    pub(super) slot: Arc<Slot>,
    /// Bytes of the slot that belong to the content, more than none; the rest of the chunk is zeros.
    pub(super) visible: usize,
}

impl Chunk {
    fn occupied(&self) -> u64 {
        self.slot.place.bytes() as u64
    }

    /// Fills `buf`, which ends within the chunk.
    fn read(&self, store: &Store, at: usize, buf: &mut [u8]) -> io::Result<()> {
        let (shown, beyond) = buf.split_at_mut(self.visible.saturating_sub(at).min(buf.len()));
        beyond.fill(0);
        if shown.is_empty() { Ok(()) } else { self.slot.read(store, at, shown) }
    }
}

/// A chunk in its place. Never changed while more than one content has it.
pub(super) struct Slot {
    pub(super) place: Place,
    /// Bytes from its beginning that may be other than zeros; all that is sealed, where it is.
    pub(super) written: usize,
    pub(super) seal: Option<Seal>,
    /// What the place occupies.
    charge: Charge,
}

impl Slot {
    /// A new slot with what is `below`, as far as it is visible, and `data` over it.
    fn new(
        store: &Store,
        quota: &Arc<Quota>,
        below: Option<(&Self, usize)>,
        data: (usize, &[u8]),
    ) -> Result<Self, BlobError> {
        let written = (data.0 + data.1.len()).max(below.map_or(0, |(_, visible)| visible));
        let charge = quota.charge(pages(written) as u64)?;
        let place = store.take(written)?;
        let seal = fill(store, &place, below, data)?;
        Ok(Self { place, written, seal, charge })
    }

    /// Writes `data` over what is visible.
    fn rewrite(&mut self, store: &Store, visible: usize, data: (usize, &[u8])) -> Result<(), BlobError> {
        self.cut(visible)?;
        let written = visible.max(data.0 + data.1.len());
        self.charge.grow(pages(written) as u64)?;
        let result = self.rewrite_charged(store, visible, data, written);
        self.charge.shrink(self.place.bytes() as u64);
        Ok(result?)
    }

    fn rewrite_charged(
        &mut self,
        store: &Store,
        visible: usize,
        data: (usize, &[u8]),
        written: usize,
    ) -> io::Result<()> {
        if !self.place.is_sealed() && self.place.grow(written) {
            // Before the bytes, so that none of a write that fails is left where zeros should be.
            self.written = written;
            return self.place.write(data.0, data.1);
        }
        // Pages that are there already cannot fail for want of space. Blocks of a disk can: sealed there in place, the
        // chunk would be lost.
        if self.place.is_sealed() && self.place.is_in_memory() && written <= self.place.bytes() {
            self.seal = fill(store, &self.place, Some((&*self, visible)), data)?;
            self.written = written;
            if pages(written) < self.place.bytes() {
                // What fails is only kept longer.
                let _later = self.place.cut(written);
            }
            return Ok(());
        }
        let place = store.take(written)?;
        self.seal = fill(store, &place, Some((&*self, visible)), data)?;
        self.written = written;
        self.place = place;
        Ok(())
    }

    /// Makes what is not visible zeros, where it is not sealed.
    fn cut(&mut self, visible: usize) -> io::Result<()> {
        if self.seal.is_some() || self.written <= visible {
            return Ok(());
        }
        self.place.cut(visible)?;
        self.written = visible;
        self.charge.shrink(self.place.bytes() as u64);
        Ok(())
    }

    /// Fills `buf`, which ends within what was written.
    fn read(&self, store: &Store, at: usize, buf: &mut [u8]) -> io::Result<()> {
        let Some(seal) = &self.seal else { return self.place.read(at, buf) };
        if at == 0 && buf.len() == self.written {
            return self.open(store, seal, buf);
        }
        let mut scratch = store.pool.take();
        let whole = scratch.bytes(self.written);
        self.open(store, seal, whole)?;
        buf.copy_from_slice(&whole[at..at + buf.len()]);
        Ok(())
    }

    fn open(&self, store: &Store, seal: &Seal, whole: &mut [u8]) -> io::Result<()> {
        self.place.read(0, whole).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Damaged.into(),
            _ => error,
        })?;
        Ok(store.sealer.open(seal, &self.place.binding(whole.len()), whole)?)
    }
}

/// Writes what is `below`, as far as it is visible, with `data` over it. The place reads as zeros, or is sealed.
fn fill(
    store: &Store,
    place: &Place,
    below: Option<(&Slot, usize)>,
    (at, data): (usize, &[u8]),
) -> io::Result<Option<Seal>> {
    let end = at + data.len();
    let kept = below.filter(|(_, visible)| at > 0 || end < *visible);
    if kept.is_none() && !place.is_sealed() {
        place.write(at, data)?;
        return Ok(None);
    }
    let mut scratch = store.pool.take();
    let whole = scratch.bytes(kept.map_or(0, |(_, visible)| visible).max(end));
    match kept {
        Some((slot, visible)) if slot.seal.is_some() => slot.read(store, 0, &mut whole[..visible])?,
        Some((slot, visible)) => {
            slot.read(store, 0, &mut whole[..at.min(visible)])?;
            if end < visible {
                slot.read(store, end, &mut whole[end..visible])?;
            }
        }
        None => {}
    }
    whole[at..end].copy_from_slice(data);
    let seal =
        if place.is_sealed() { Some(store.sealer.seal(&place.binding(whole.len()), whole)?) } else { None };
    place.write(0, whole)?;
    Ok(seal)
}

/// A snapshot that is read from front to back. It cannot change, so it never says [`SourceError::Changed`].
pub struct Reading {
    content: Content,
    done: u64,
}

impl Reading {
    /// From the first byte on.
    #[must_use]
    pub const fn new(content: Content) -> Self {
        Self { content, done: 0 }
    }
}

impl Source for Reading {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
        let count = self.content.read_at(self.done, buf)?;
        self.done += count as u64;
        Ok(count)
    }
}
