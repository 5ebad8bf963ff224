//! The memory that a chunk is read into, sealed in and sent from: no copy in between.
//!
//! Owns the free space in front of and behind the content. Knows no keys.

use super::{CHUNK_HEADROOM, RECORD_HEADER, RecordHeader, RecordKind, chunk_header};
use crate::crypto::seal::TAG_LEN;
use crate::item::ItemId;

/// A chunk's content with free space in front of it and behind it, so that it is sealed where it was read.
pub struct ChunkBuf(Vec<u8>);

impl std::fmt::Debug for ChunkBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkBuf({})", self.len())
    }
}

impl ChunkBuf {
    /// Room for `content` bytes, all zero, to be read into.
    #[must_use]
    pub fn zeroed(content: usize) -> Self {
        let mut buf = Vec::with_capacity(CHUNK_HEADROOM + content + TAG_LEN);
        buf.resize(CHUNK_HEADROOM + content, 0);
        Self(buf)
    }

    /// A copy of `content`.
    #[must_use]
    pub fn copy_of(content: &[u8]) -> Self {
        let mut buf = Vec::with_capacity(CHUNK_HEADROOM + content.len() + TAG_LEN);
        buf.resize(CHUNK_HEADROOM, 0);
        buf.extend_from_slice(content);
        Self(buf)
    }

    /// Takes the memory of a sealed chunk for a new one of `content` bytes; what it held is still in it.
    #[must_use]
    pub fn recycled(mut buf: Vec<u8>, content: usize) -> Self {
        buf.resize(CHUNK_HEADROOM + content, 0);
        Self(buf)
    }

    /// Bytes of content.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len().saturating_sub(CHUNK_HEADROOM)
    }

    /// Whether it has no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content.
    pub fn content_mut(&mut self) -> &mut [u8] {
        self.0.get_mut(CHUNK_HEADROOM..).unwrap_or_default()
    }

    /// The content.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.0.get(CHUNK_HEADROOM..).unwrap_or_default()
    }

    /// Shortens the content.
    pub fn truncate(&mut self, content: usize) {
        self.0.truncate(CHUNK_HEADROOM + content);
    }

    /// The same content in pieces of at most `most` bytes, in order; no piece where there is no content.
    pub(crate) fn pieces(&self, most: usize) -> impl Iterator<Item = Self> {
        self.content().chunks(most.max(1)).map(Self::copy_of)
    }

    /// A data record's header and the chunk's message header, written in front of the content.
    #[must_use]
    pub(crate) fn into_record(mut self, number: u64, item: ItemId, last: bool) -> Vec<u8> {
        let header = RecordHeader { kind: RecordKind::Data, number }.encode();
        let message = chunk_header(item, last, self.len());
        self.0[..RECORD_HEADER].copy_from_slice(&header);
        self.0[RECORD_HEADER..CHUNK_HEADROOM].copy_from_slice(&message);
        self.0
    }
}
