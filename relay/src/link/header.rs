//! The head of a websocket frame and its mask.
//!
//! Owns the bytes of RFC 6455 section 5.2. Pure.

use bytes::{Buf, BytesMut};

use super::LinkError;

/// Longest body of a ping, pong or close.
const MAX_CONTROL_BODY: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Self, LinkError> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(LinkError::Protocol("an unknown opcode")),
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The message ends with this frame.
    pub last: bool,
    pub opcode: Opcode,
    /// Bytes of body.
    pub len: usize,
    mask: [u8; 4],
}

impl Header {
    /// Takes a head from the front of `bytes`; `None` (and nothing taken) while it is not complete.
    pub fn take(bytes: &mut BytesMut) -> Result<Option<Self>, LinkError> {
        let &[first, second, ..] = bytes.as_ref() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(LinkError::Protocol("a reserved bit"));
        }
        if second & 0x80 == 0 {
            return Err(LinkError::Protocol("a client's frame without a mask"));
        }
        let (last, opcode) = (first & 0x80 != 0, Opcode::parse(first & 0x0f)?);
        let short = usize::from(second & 0x7f);
        if opcode.is_control() && (!last || short > MAX_CONTROL_BODY) {
            return Err(LinkError::Protocol("a long or fragmented control frame"));
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if bytes.len() < 2 + extended + 4 {
            return Ok(None);
        }
        bytes.advance(2);
        let len = match extended {
            2 => u64::from(bytes.get_u16()),
            8 => bytes.get_u64(),
            _ => short as u64,
        };
        let len = usize::try_from(len).map_err(|_| LinkError::TooLong)?;
        let mut mask = [0; 4];
        bytes.copy_to_slice(&mut mask);
        Ok(Some(Self { last, opcode, len, mask }))
    }

    /// Unmasks a part of the body that starts `offset` bytes into it.
    pub fn unmask(&self, part: &mut [u8], offset: usize) {
        let mut mask = self.mask;
        mask.rotate_left(offset % 4);
        let [a, b, c, d] = mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = part.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
    }
}

/// The head of a server's frame: at most ten bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerHead {
    bytes: [u8; 10],
    len: usize,
}

impl ServerHead {
    /// The head of an unfragmented, unmasked frame with a body of `len` bytes.
    pub fn new(opcode: Opcode, len: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = 0x80 | opcode as u8;
        let used = match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short), _) if short < 126 => {
                bytes[1] = short;
                2
            }
            (_, Ok(medium)) => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&medium.to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(len as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len: used }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
