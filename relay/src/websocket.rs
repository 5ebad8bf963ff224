//! One websocket (RFC 6455) as the conversation on it wants it.
//!
//! Owns what is asked of axum's codec: its buffers and limits, how much of a message may come in before somebody has
//! agreed to it, what waits to be written and how much of that has been, and whose fault an error is. Knows no seats.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use bytes::Bytes;
use futures_util::{Sink as _, SinkExt as _, Stream as _};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Error as CodecError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::carrier::Meter;
use crate::exchange::Bell;
use crate::places::{Place, Places, SHORT};
use crate::rules::Source;
use crate::wire::MAX_CONTROL;

/// A connection's standing buffer, and what it takes from the [carrier](crate::carrier) at once.
const READ_BUFFER: usize = 1 << 10;
/// Bytes that gather before they are written: small frames share a system call, longer ones go out at once.
const WRITE_BUFFER: usize = 64 << 10;
/// Pings that are answered while a client does not take what is written to it. After these it is not read any more.
const MAX_PINGS: u32 = 256;
/// Longest body of a ping or pong in bytes, by RFC 6455.
const MAX_PING: usize = 125;
/// Longest head of a frame that the relay writes, in bytes.
const HEAD: usize = 10;
/// Bytes of a client's ping or pong beside its body: two, and the mask.
const PING_HEAD: u64 = 6;
/// What may be written beside the frame that is being written: a full buffer, the answers to pings, a control text.
const BESIDE: usize = WRITE_BUFFER + MAX_PINGS as usize * (HEAD + MAX_PING) + MAX_CONTROL + HEAD;
/// Bytes that may come in before the first message is complete: the longest control text, its head, and pings.
const BEFORE_HELLO: u64 = 2 * MAX_CONTROL as u64;
/// A frame below this length is copied out of the buffer it was read into, which is as large as the standing one at
/// least: otherwise one byte that waits would hold all of it. A longer one makes up half of its buffer.
const COPIED: usize = READ_BUFFER / 2;
/// What was said last and the close may take this long to be written and answered.
const CLOSING: Duration = Duration::from_secs(2);

/// Why a websocket is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The connection broke or ended without a close.
    #[error("the connection broke")]
    Gone,
    /// The client broke RFC 6455.
    #[error("not the websocket protocol")]
    Protocol,
    /// A message is longer than the limit.
    #[error("a message is too long")]
    TooLong,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
}

impl From<axum::Error> for Fault {
    fn from(error: axum::Error) -> Self {
        let Ok(error) = error.into_inner().downcast::<CodecError>() else { return Self::Gone };
        match *error {
            CodecError::Capacity(_) => Self::TooLong,
            CodecError::Utf8(_) => Self::NotText,
            CodecError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            CodecError::Protocol(_) => Self::Protocol,
            CodecError::ConnectionClosed
            | CodecError::AlreadyClosed
            | CodecError::Io(_)
            | CodecError::Tls(_)
            | CodecError::WriteBufferFull(_)
            | CodecError::AttackAttempt
            | CodecError::Url(_)
            | CodecError::Http(_)
            | CodecError::HttpFormat(_) => Self::Gone,
        }
    }
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A text message of at most [`MAX_CONTROL`] bytes.
    Text(String),
    /// A binary message.
    Frame(Bytes),
    /// The client closes, with this code. The codec answers that with the next flush.
    Closed(Option<u16>),
}

/// Where a seated connection finds places for long frames.
#[derive(Debug)]
pub(crate) struct Allotment {
    /// Places of those who read long frames.
    pub reading: Arc<Places>,
    /// Places of those who write long frames.
    pub writing: Arc<Places>,
    /// Who takes them.
    pub source: Source,
    /// Rung when there may be one again.
    pub bell: Arc<Bell>,
}

/// The codec of a request for a websocket, with messages of up to `max_frame` bytes. Extensions are not negotiated.
pub(crate) fn configure(upgrade: WebSocketUpgrade, max_frame: usize) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(BESIDE + HEAD + max_frame)
        .max_message_size(max_frame)
        .max_frame_size(max_frame)
}

/// One websocket.
#[derive(Debug)]
pub(crate) struct Websocket {
    ws: WebSocket,
    meter: Arc<Meter>,
    /// Not given to the codec yet. Bounded by the caller: what was popped at once and a few statuses.
    outbox: VecDeque<Message>,
    /// Something is with the codec that may not be with the kernel.
    unflushed: bool,
    /// Frames that are with the codec and may not be with the kernel.
    fed: usize,
    /// Frames that are with the kernel and were not reported.
    written: usize,
    /// Pings since everything was flushed.
    pings: u32,
    /// Bytes that may come in before the next message is complete.
    allowance: u64,
    /// Longest binary message in bytes.
    max_frame: usize,
    /// From the hello on.
    allotment: Option<Allotment>,
    reading: Option<Place>,
    writing: Option<Place>,
}

impl Websocket {
    /// A fresh websocket whose bytes `meter` counts; nothing long comes in before [`Websocket::seat`].
    pub fn new(ws: WebSocket, meter: Arc<Meter>, max_frame: usize) -> Self {
        meter.allow(BEFORE_HELLO);
        Self {
            ws,
            meter,
            outbox: VecDeque::new(),
            unflushed: false,
            fed: 0,
            written: 0,
            pings: 0,
            allowance: BEFORE_HELLO,
            max_frame,
            allotment: None,
            reading: None,
            writing: None,
        }
    }

    /// The hello is done: frames may come.
    pub fn seat(&mut self, allotment: Allotment) {
        self.allotment = Some(allotment);
        self.allowance = SHORT as u64;
        self.meter.allow(self.allowance);
    }

    /// Bytes received so far, to tell silence.
    pub fn received(&self) -> u64 {
        self.meter.received()
    }

    /// Bytes sent so far, to tell whether output moves.
    pub fn sent(&self) -> u64 {
        self.meter.sent()
    }

    /// Output waits for the client to take it, not for a place.
    pub fn is_stuck(&self) -> bool {
        self.unflushed
    }

    /// A long frame is not read on before there is a place for it.
    pub fn is_waiting(&self) -> bool {
        self.meter.is_full()
    }

    /// The next message. Cancel-safe: nothing that was read is lost.
    pub fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Fault>> {
        loop {
            if self.pings > MAX_PINGS {
                // The answers are being flushed, which wakes the task.
                return Poll::Pending;
            }
            let Poll::Ready(message) = Pin::new(&mut self.ws).poll_next(cx) else {
                if self.meter.is_full() && self.let_in()? {
                    continue;
                }
                return Poll::Pending;
            };
            let incoming = match message.ok_or(Fault::Gone)?? {
                Message::Binary(frame) => Incoming::Frame(detached(frame)),
                Message::Text(text) if text.len() > MAX_CONTROL => return Poll::Ready(Err(Fault::TooLong)),
                Message::Text(text) => Incoming::Text(text.as_str().to_owned()),
                Message::Ping(body) => {
                    self.meter.extend(PING_HEAD + body.len() as u64);
                    self.pings += 1;
                    self.unflushed = true;
                    continue;
                }
                Message::Pong(body) => {
                    self.meter.extend(PING_HEAD + body.len() as u64);
                    continue;
                }
                Message::Close(close) => {
                    self.unflushed = true;
                    return Poll::Ready(Ok(Incoming::Closed(close.map(|close| close.code))));
                }
            };
            self.meter.allow(self.allowance);
            return Poll::Ready(Ok(incoming));
        }
    }

    /// Whether more of an unfinished message may come in. If not yet, the bell rings.
    fn let_in(&mut self) -> Result<bool, Fault> {
        let Some(allotment) = self.allotment.as_ref().filter(|_| self.reading.is_none()) else {
            // No hello takes so much, and no message that is not cut into crumbs.
            return Err(Fault::TooLong);
        };
        self.reading = allotment.reading.take(allotment.source, &allotment.bell);
        if self.reading.is_some() {
            self.allowance = (SHORT + self.max_frame) as u64;
            self.meter.allow(self.allowance);
        }
        Ok(self.reading.is_some())
    }

    /// Queues a frame. [`Websocket::poll_flush`] counts it.
    pub fn send_frame(&mut self, frame: Bytes) {
        self.outbox.push_back(Message::Binary(frame));
    }

    /// Queues a text.
    pub fn send_text(&mut self, text: String) {
        self.outbox.push_back(Message::Text(text.into()));
    }

    /// Queues a ping, unless output is waiting anyway: that tells the client as much.
    pub fn send_ping(&mut self) {
        if !self.is_writing() {
            self.outbox.push_back(Message::Ping(Bytes::new()));
        }
    }

    /// Something waits to be written.
    pub fn is_writing(&self) -> bool {
        self.unflushed || !self.outbox.is_empty()
    }

    /// Ready when all that was queued has been handed to the kernel: how many frames that was since the last time.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        while let Some(next) = self.outbox.front() {
            let long = matches!(next, Message::Binary(frame) if frame.len() > SHORT);
            if long && !self.may_write_long() {
                ready!(self.poll_flush_codec(cx))?;
                return Poll::Pending;
            }
            ready!(Pin::new(&mut self.ws).poll_ready(cx))?;
            if let Some(next) = self.outbox.pop_front() {
                self.unflushed = true;
                self.fed += usize::from(matches!(next, Message::Binary(_)));
                Pin::new(&mut self.ws).start_send(next)?;
            }
        }
        ready!(self.poll_flush_codec(cx))?;
        Poll::Ready(Ok(self.take_written()))
    }

    fn poll_flush_codec(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.ws).poll_flush(cx))?;
            self.unflushed = false;
            self.pings = 0;
            self.written += std::mem::take(&mut self.fed);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is a place to write long frames. If not, the bell rings.
    fn may_write_long(&mut self) -> bool {
        if let Some(allotment) = self.allotment.as_ref().filter(|_| self.writing.is_none()) {
            self.writing = allotment.writing.take(allotment.source, &allotment.bell);
        }
        self.writing.is_some()
    }

    /// Frames that were written since [`Websocket::poll_flush`] last told, for a socket that does not get further.
    pub fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written)
    }

    /// Forgets queued frames that the codec has not got yet, and does not count those that it has: they belong to a
    /// pairing that ended.
    pub fn discard_frames(&mut self) {
        self.outbox.retain(|message| !matches!(message, Message::Binary(_)));
        self.fed = 0;
        self.written = 0;
    }

    /// Says `last` and this close; after that the connection may be dropped: the carrier's home waits for the client's
    /// own close. Two seconds for all of it.
    pub async fn close(mut self, last: Option<String>, code: u16, reason: &'static str) {
        let deadline = Instant::now() + CLOSING;
        self.meter.farewell(deadline);
        let said = async {
            if let Some(text) = last {
                self.ws.feed(Message::Text(text.into())).await?;
            }
            let close = CloseFrame { code, reason: reason.into() };
            self.ws.send(Message::Close(Some(close))).await
        };
        // A client that does not take its close in time is cut off.
        let _ = timeout_at(deadline, said).await;
    }

    /// Answers the client's close, within the same time.
    pub async fn answer_close(mut self) {
        let deadline = Instant::now() + CLOSING;
        self.meter.farewell(deadline);
        let _ = timeout_at(deadline, self.ws.flush()).await;
    }
}

/// The frame in a buffer of its own size, unless it makes up half of the buffer that it is in.
fn detached(frame: Bytes) -> Bytes {
    if frame.len() < COPIED { Bytes::copy_from_slice(&frame) } else { frame }
}
