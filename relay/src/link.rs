//! A websocket connection (RFC 6455, server side), after its handshake.
//!
//! Owns framing: it reads messages and writes them, and answers pings. A long frame is announced before a byte of it is
//! read ([`Incoming::Wants`]), so that the caller finds room for it first; a frame is written from the buffer it
//! was read into, without a copy. Knows no seats and no JSON. Extensions are not negotiated.

mod header;
mod outbox;

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use self::header::{Header, Opcode};
use self::outbox::Outbox;
use crate::wire::MAX_CONTROL;

/// Bytes read at once when no long frame is under way: a socket's standing buffer.
const READ: usize = 16 * 1024;
/// A frame of at most this many bytes is read without being announced: it fits into the standing buffer.
pub(crate) const UNANNOUNCED: usize = READ;

/// Why a link ended. Whose fault it is decides the close code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The connection broke or ended without a close.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The client broke RFC 6455.
    #[error("not the websocket protocol: {0}")]
    Protocol(&'static str),
    /// A message is longer than the limit.
    #[error("a message is too long")]
    TooLong,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Frame(Bytes),
    /// A binary message of this many bytes in all is about to be read: [`Link::allow`] it, once there is room.
    Wants(usize),
    /// The client closes.
    Closed,
}

/// Where reading stands.
#[derive(Debug)]
enum Reading {
    /// Before a frame.
    Head,
    /// A long frame waits for room.
    Announced(Header),
    /// Within a frame; what there is of it is unmasked.
    Body(Header, BytesMut),
}

/// A fragmented message, as far as it has come.
#[derive(Debug)]
struct Partial {
    opcode: Opcode,
    body: BytesMut,
}

/// One websocket.
#[derive(Debug)]
pub(crate) struct Link<IO> {
    io: IO,
    /// Bytes read and not looked at.
    unread: BytesMut,
    reading: Reading,
    partial: Option<Partial>,
    outbox: Outbox,
    /// Longest binary message.
    max_frame: usize,
    /// Bytes received, to tell silence.
    received: u64,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Link<IO> {
    /// A link over an upgraded connection that takes binary messages of up to `max_frame` bytes.
    pub fn new(io: IO, max_frame: usize) -> Self {
        Self {
            io,
            unread: BytesMut::new(),
            reading: Reading::Head,
            partial: None,
            outbox: Outbox::default(),
            max_frame,
            received: 0,
        }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The announced frame may be read.
    pub fn allow(&mut self) {
        if let Reading::Announced(header) = &self.reading {
            let mut body = BytesMut::with_capacity(header.len);
            let here = self.unread.len().min(header.len);
            body.extend_from_slice(&self.unread.split_to(here));
            header.unmask(&mut body, 0);
            self.reading = Reading::Body(*header, body);
        }
    }

    /// The next message. Cancel-safe: nothing that was read is lost.
    pub fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, LinkError>> {
        loop {
            match &mut self.reading {
                Reading::Head => {
                    let Some(header) = Header::take(&mut self.unread)? else {
                        ready!(self.poll_more(cx))?;
                        continue;
                    };
                    let total = self.admit(&header)?;
                    self.reading = Reading::Announced(header);
                    if self.unread.len() >= header.len || total <= UNANNOUNCED {
                        self.allow();
                    } else {
                        return Poll::Ready(Ok(Incoming::Wants(total)));
                    }
                }
                Reading::Announced(header) => {
                    let before = self.partial.as_ref().map_or(0, |partial| partial.body.len());
                    return Poll::Ready(Ok(Incoming::Wants(before + header.len)));
                }
                Reading::Body(header, body) if body.len() < header.len => {
                    let from = body.len();
                    let missing = header.len - from;
                    let count = ready!(pin!(self.io.read_buf(&mut body.limit(missing))).poll(cx))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                    }
                    self.received += count as u64;
                    header.unmask(&mut body[from..], from);
                }
                Reading::Body(header, body) => {
                    let (header, body) = (*header, std::mem::take(body));
                    self.reading = Reading::Head;
                    if let Some(incoming) = self.finish(header, body)? {
                        return Poll::Ready(Ok(incoming));
                    }
                }
            }
        }
    }

    /// Queues a frame. [`Link::poll_flush`] counts it.
    pub fn send_frame(&mut self, frame: Bytes) {
        self.outbox.push(Opcode::Binary, frame, true);
    }

    /// Queues a text.
    pub fn send_text(&mut self, text: String) {
        self.outbox.push(Opcode::Text, text.into(), false);
    }

    /// Queues a ping, unless output is waiting anyway: that tells the client as much.
    pub fn send_ping(&mut self) {
        if self.outbox.is_empty() {
            self.outbox.push(Opcode::Ping, Bytes::new(), false);
        }
    }

    /// Queues the close.
    pub fn send_close(&mut self, code: u16, reason: &str) {
        let body = [&code.to_be_bytes(), reason.as_bytes()].concat();
        self.outbox.push(Opcode::Close, body.into(), false);
    }

    /// Something waits to be written.
    pub fn is_writing(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Ready when all that was queued has been handed to the kernel: how many frames that was since the last time.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, LinkError>> {
        self.outbox.poll_write(&mut self.io, cx).map_err(LinkError::Io)
    }

    /// Frames that are queued are not counted when they are written: they belong to a pairing that ended.
    pub fn disown_frames(&mut self) {
        self.outbox.disown();
    }

    /// After a close was sent: ends the sending direction, then reads and drops until the client has ended, too, so
    /// that a reset does not overtake the close.
    pub async fn drain(&mut self) {
        use tokio::io::AsyncWriteExt as _;
        if self.io.shutdown().await.is_err() {
            return;
        }
        self.unread = BytesMut::with_capacity(READ);
        while self.io.read_buf(&mut self.unread).await.is_ok_and(|count| count > 0) {
            self.unread.clear();
        }
    }

    /// Checks a frame against the state and the limits; answers the length of its message so far.
    fn admit(&self, header: &Header) -> Result<usize, LinkError> {
        let (opcode, before) = match (header.opcode, &self.partial) {
            (Opcode::Continuation, Some(partial)) => (partial.opcode, partial.body.len()),
            (Opcode::Continuation, None) => return Err(LinkError::Protocol("a continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(LinkError::Protocol("a message within a message"));
            }
            (opcode, _) => (opcode, 0),
        };
        let max = match opcode {
            Opcode::Binary => self.max_frame,
            Opcode::Text | Opcode::Continuation => MAX_CONTROL,
            Opcode::Ping | Opcode::Pong | Opcode::Close => return Ok(header.len),
        };
        match before.checked_add(header.len) {
            Some(total) if total <= max => Ok(total),
            _ => Err(LinkError::TooLong),
        }
    }

    /// Reads what there is into the standing buffer.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.unread.capacity() - self.unread.len() < READ / 8 {
            self.unread.reserve(READ);
        }
        let count = ready!(pin!(self.io.read_buf(&mut self.unread)).poll(cx))?;
        if count == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        self.received += count as u64;
        Poll::Ready(Ok(()))
    }

    /// A frame is complete.
    fn finish(&mut self, header: Header, body: BytesMut) -> Result<Option<Incoming>, LinkError> {
        let (opcode, body) = match header.opcode {
            Opcode::Ping => {
                self.outbox.pong(body.freeze());
                return Ok(None);
            }
            Opcode::Pong => return Ok(None),
            Opcode::Close => return Ok(Some(Incoming::Closed)),
            Opcode::Continuation => match self.partial.take() {
                Some(mut partial) => {
                    partial.body.extend_from_slice(&body);
                    (partial.opcode, partial.body)
                }
                None => return Err(LinkError::Protocol("a continuation of nothing")),
            },
            opcode => (opcode, body),
        };
        if !header.last {
            self.partial = Some(Partial { opcode, body });
            return Ok(None);
        }
        if opcode == Opcode::Text {
            let text = String::from_utf8(body.into()).map_err(|_| LinkError::NotText)?;
            return Ok(Some(Incoming::Text(text)));
        }
        Ok(Some(Incoming::Frame(body.freeze())))
    }
}

#[cfg(test)]
mod tests;
