//! Records and the messages inside them: total encoders, total decoders, no I/O, no keys.
//!
//! A record is `kind u8 ‖ number u64 BE ‖ ciphertext ‖ tag`; its plaintext is one or more messages
//! `tag u8 ‖ length u32 BE ‖ body`. Bodies are CBOR maps with integer keys (unknown keys are skipped), but for chunks,
//! which are raw (`src/PROTOCOL.md`, "Records" and "Messages"). Decoders never panic and never allocate by a length
//! that the bytes at hand do not cover.

mod chunk;

use bytes::Bytes;
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use crate::crypto::seal::TAG_LEN;
use crate::item::{ItemHead, ItemId, ItemKind, MAX_INLINE, MAX_NAME, Refusal};
pub use chunk::ChunkBuf;

/// Bytes before a record's ciphertext; they are the additional data of its seal.
pub const RECORD_HEADER: usize = 9;
/// Bytes that a record adds to its plaintext.
pub const RECORD_OVERHEAD: usize = RECORD_HEADER + TAG_LEN;
/// Bytes before a message's body.
pub const MESSAGE_HEADER: usize = 5;
/// Bytes of a chunk message before its content: header, item, flags.
pub const CHUNK_HEADER: usize = MESSAGE_HEADER + 9;
/// Bytes kept free in front of a chunk's content so that it is sealed where it was read.
pub const CHUNK_HEADROOM: usize = RECORD_HEADER + CHUNK_HEADER;
/// Longest body of a CBOR message in bytes: a head with the longest name and inline content, and its framing.
pub const MAX_CBOR: usize = MAX_NAME + MAX_INLINE + 256;

const FLAG_LAST: u8 = 1;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// Messages, numbered without gaps, resent until acknowledged.
    Data = 1,
    /// One [`State`], never resent.
    Control = 2,
}

/// What a peer sent that is not of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than the shortest record.
    #[error("a record of {0} bytes")]
    Short(usize),
    /// Neither data nor control.
    #[error("a record of unknown kind {0}")]
    Kind(u8),
    /// A message with an unknown tag.
    #[error("a message with unknown tag {0}")]
    Tag(u8),
    /// A message that goes beyond its record, or is empty where it must not be.
    #[error("a message of a wrong length")]
    Length,
    /// A body that is not what its tag says.
    #[error("a malformed {0} message")]
    Body(&'static str),
}

/// The nine bytes in front of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it carries.
    pub kind: RecordKind,
    /// Its number within kind and direction.
    pub number: u64,
}

impl RecordHeader {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; RECORD_HEADER] {
        let mut bytes = [self.kind as u8; RECORD_HEADER];
        bytes[1..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// Reads the header of a whole record.
    ///
    /// # Errors
    /// [`FrameError::Short`] below 25 bytes, [`FrameError::Kind`].
    pub fn decode(record: &[u8]) -> Result<Self, FrameError> {
        let short = FrameError::Short(record.len());
        if record.len() < RECORD_OVERHEAD {
            return Err(short);
        }
        let (kind, rest) = record.split_first().ok_or(short)?;
        let number = rest.first_chunk::<8>().ok_or(short)?;
        let kind = match kind {
            1 => RecordKind::Data,
            2 => RecordKind::Control,
            other => return Err(FrameError::Kind(*other)),
        };
        Ok(Self { kind, number: u64::from_be_bytes(*number) })
    }
}

/// An absolute snapshot of one end: may be lost, doubled and reordered without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct State {
    /// The data record I expect next.
    #[n(0)]
    pub next: u64,
    /// Cost of bulk content you may send, a total since the start.
    #[n(1)]
    pub grant_bulk: u64,
    /// Cost of prompt content you may send, a total since the start.
    #[n(2)]
    pub grant_prompt: u64,
    /// The number that my next new data record gets.
    #[n(3)]
    pub end: u64,
    /// How many links I have had.
    #[n(4)]
    pub link: u64,
    /// The highest `link` I heard from you.
    #[n(5)]
    pub echo: u64,
    /// Please answer.
    #[n(6)]
    pub ask: bool,
    /// Please resend from `next`.
    #[n(7)]
    pub again: bool,
}

/// How a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum CloseReason {
    /// As its owner asked.
    #[n(0)]
    Done,
    /// The process was told to stop.
    #[n(1)]
    Stopped,
    /// A record did not open.
    #[n(2)]
    Tampered,
    /// A record opened and was not of this protocol.
    #[n(3)]
    Protocol,
    /// 2^44 bytes went one way.
    #[n(4)]
    UsedUp,
    /// An hour without a word.
    #[n(5)]
    Idle,
    /// The other end's program failed.
    #[n(6)]
    Internal,
}

impl CloseReason {
    /// In words for events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "closed as asked",
            Self::Stopped => "the program was stopped",
            Self::Tampered => "a record did not open: somebody altered the traffic",
            Self::Protocol => "a record broke the protocol",
            Self::UsedUp => "the channel carried all that one key may carry",
            Self::Idle => "nothing was heard for an hour",
            Self::Internal => "the program failed",
        }
    }
}

/// One message of a data record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// An item begins.
    Head {
        /// Its number.
        item: ItemId,
        /// What it is.
        head: ItemHead,
    },
    /// Content of an item.
    Chunk {
        /// Its item.
        item: ItemId,
        /// Whether the item ends with it.
        last: bool,
        /// The content.
        bytes: Bytes,
    },
    /// The sender takes an item back.
    Cancel {
        /// The item.
        item: ItemId,
        /// Why.
        reason: Refusal,
    },
    /// The one answer to an item.
    Receipt {
        /// The item.
        item: ItemId,
        /// `None` is stored: complete, verified, visible.
        refused: Option<Refusal>,
    },
    /// The owner of the other end has read an item that was stored.
    Opened {
        /// The item, among those of whoever gets this message.
        item: ItemId,
        /// When, in milliseconds since 1970-01-01 UTC by the clock of the other end. Untrusted.
        at: u64,
    },
    /// The last message of its direction.
    Close {
        /// Why.
        reason: CloseReason,
    },
}

const TAG_HEAD: u8 = 1;
const TAG_CHUNK: u8 = 2;
const TAG_CANCEL: u8 = 3;
const TAG_RECEIPT: u8 = 4;
const TAG_CLOSE: u8 = 5;
const TAG_STATE: u8 = 6;
const TAG_OPENED: u8 = 7;

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireHead<'b> {
    #[n(0)]
    item: u64,
    #[n(1)]
    kind: ItemKind,
    #[n(2)]
    group: Option<u64>,
    #[b(3)]
    name: &'b str,
    #[n(4)]
    size: Option<u64>,
    #[n(5)]
    executable: Option<bool>,
    #[n(6)]
    mtime: Option<i64>,
    #[b(7)]
    inline: Option<&'b ByteSlice>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireCancel {
    #[n(0)]
    item: u64,
    #[n(1)]
    reason: Refusal,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireReceipt {
    #[n(0)]
    item: u64,
    #[n(1)]
    refused: Option<Refusal>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireOpened {
    #[n(0)]
    item: u64,
    #[n(1)]
    at: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireClose {
    #[n(0)]
    reason: CloseReason,
}

fn push_cbor<T: Encode<()>>(out: &mut Vec<u8>, tag: u8, body: &T) {
    out.push(tag);
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let body_at = out.len();
    // Writing into a Vec cannot fail, and these types have no failing encoder.
    let written = minicbor::encode(body, &mut *out);
    debug_assert!(written.is_ok());
    let length = u32::try_from(out.len() - body_at).unwrap_or(u32::MAX);
    out[length_at..body_at].copy_from_slice(&length.to_be_bytes());
}

impl Message {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Head { item, head } => push_cbor(
                out,
                TAG_HEAD,
                &WireHead {
                    item: item.0,
                    kind: head.kind,
                    group: head.group.map(|g| g.0),
                    name: &head.name,
                    size: head.size,
                    executable: head.executable.then_some(true),
                    mtime: head.mtime,
                    inline: head.inline.as_deref().map(Into::into),
                },
            ),
            Self::Chunk { item, last, bytes } => {
                out.extend_from_slice(&chunk_header(*item, *last, bytes.len()));
                out.extend_from_slice(bytes);
            }
            Self::Cancel { item, reason } => {
                push_cbor(out, TAG_CANCEL, &WireCancel { item: item.0, reason: *reason });
            }
            Self::Receipt { item, refused } => {
                push_cbor(out, TAG_RECEIPT, &WireReceipt { item: item.0, refused: *refused });
            }
            Self::Opened { item, at } => push_cbor(out, TAG_OPENED, &WireOpened { item: item.0, at: *at }),
            Self::Close { reason } => push_cbor(out, TAG_CLOSE, &WireClose { reason: *reason }),
        }
    }

    fn decode(tag: u8, body: &Bytes) -> Result<Self, FrameError> {
        if tag != TAG_CHUNK && body.len() > MAX_CBOR {
            return Err(FrameError::Length);
        }
        match tag {
            TAG_HEAD => decode_head(body),
            TAG_CHUNK => {
                let (header, _) = body.split_first_chunk::<9>().ok_or(FrameError::Length)?;
                let [a, b, c, d, e, f, g, h, flags] = *header;
                if flags & !FLAG_LAST != 0 {
                    return Err(FrameError::Body("chunk"));
                }
                let item = ItemId(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
                Ok(Self::Chunk { item, last: flags & FLAG_LAST != 0, bytes: body.slice(9..) })
            }
            TAG_CANCEL => {
                let m: WireCancel = cbor(body, "cancel")?;
                Ok(Self::Cancel { item: ItemId(m.item), reason: m.reason })
            }
            TAG_RECEIPT => {
                let m: WireReceipt = cbor(body, "receipt")?;
                Ok(Self::Receipt { item: ItemId(m.item), refused: m.refused })
            }
            TAG_OPENED => {
                let m: WireOpened = cbor(body, "opened")?;
                Ok(Self::Opened { item: ItemId(m.item), at: m.at })
            }
            TAG_CLOSE => {
                let m: WireClose = cbor(body, "close")?;
                Ok(Self::Close { reason: m.reason })
            }
            other => Err(FrameError::Tag(other)),
        }
    }
}

fn cbor<'b, T: Decode<'b, ()>>(body: &'b [u8], what: &'static str) -> Result<T, FrameError> {
    let mut decoder = minicbor::Decoder::new(body);
    let message = decoder.decode().map_err(|_| FrameError::Body(what))?;
    if decoder.position() == body.len() { Ok(message) } else { Err(FrameError::Body(what)) }
}

fn decode_head(body: &Bytes) -> Result<Message, FrameError> {
    let wire: WireHead<'_> = cbor(body, "head")?;
    let inline = wire.inline.map(|bytes| body.slice_ref(bytes));
    if wire.name.len() > MAX_NAME || inline.as_ref().is_some_and(|bytes| bytes.len() > MAX_INLINE) {
        return Err(FrameError::Body("head"));
    }
    let head = ItemHead {
        kind: wire.kind,
        group: wire.group.map(ItemId),
        name: wire.name.to_owned(),
        size: wire.size,
        executable: wire.executable.unwrap_or(false),
        mtime: wire.mtime,
        inline,
    };
    Ok(Message::Head { item: ItemId(wire.item), head })
}

/// The bytes in front of a chunk's content of `len` bytes.
#[must_use]
pub fn chunk_header(item: ItemId, last: bool, len: usize) -> [u8; CHUNK_HEADER] {
    let mut header = [0; CHUNK_HEADER];
    header[0] = TAG_CHUNK;
    // A chunk is at most 1 MiB: the length fits.
    let body = u32::try_from(len + 9).unwrap_or(u32::MAX);
    header[1..5].copy_from_slice(&body.to_be_bytes());
    header[5..13].copy_from_slice(&item.0.to_be_bytes());
    header[13] = u8::from(last) * FLAG_LAST;
    header
}

/// The messages of an opened data record, front to back.
pub struct Messages(Bytes);

impl Messages {
    /// Reads a data record's plaintext.
    #[must_use]
    pub const fn new(plaintext: Bytes) -> Self {
        Self(plaintext)
    }
}

fn split_message(rest: &mut Bytes) -> Result<(u8, Bytes), FrameError> {
    let (header, _) = rest.split_first_chunk::<MESSAGE_HEADER>().ok_or(FrameError::Length)?;
    let [tag, a, b, c, d] = *header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| FrameError::Length)?;
    let end =
        MESSAGE_HEADER.checked_add(length).filter(|end| *end <= rest.len()).ok_or(FrameError::Length)?;
    let message = rest.split_to(end);
    Ok((tag, message.slice(MESSAGE_HEADER..)))
}

impl Iterator for Messages {
    type Item = Result<Message, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = split_message(&mut self.0).and_then(|(tag, body)| Message::decode(tag, &body));
        if message.is_err() {
            self.0.clear();
        }
        Some(message)
    }
}

impl State {
    /// Appends the plaintext of a control record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        push_cbor(out, TAG_STATE, self);
    }

    /// Reads a control record's plaintext: one message, the whole of it.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(plaintext: Bytes) -> Result<Self, FrameError> {
        let mut rest = plaintext;
        let (tag, body) = split_message(&mut rest)?;
        if tag != TAG_STATE {
            return Err(FrameError::Tag(tag));
        }
        if !rest.is_empty() {
            return Err(FrameError::Length);
        }
        cbor(&body, "state")
    }
}

#[cfg(test)]
mod tests;
