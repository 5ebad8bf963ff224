//! What a link has to write.
//!
//! Owns the order and the vectored write: several frames leave in one system call, each from its own buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::header::{Opcode, ServerHead};

/// Slices handed to one system call: heads and bodies of 32 frames.
const SLICES: usize = 64;

/// One frame, as far as it is not written.
#[derive(Debug)]
struct Outgoing {
    head: ServerHead,
    body: Bytes,
    /// It counts as a written frame.
    counted: bool,
    /// It is the answer to a ping.
    pong: bool,
}

/// Frames to be written. Bounded by the caller: it queues what was popped at once, a few statuses and one close.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Outgoing>,
    /// Bytes of the first frame, head included, that are written.
    done: usize,
    /// The answer to the latest ping. A newer ping takes its place, so pings do not pile up answers.
    pong: Option<Bytes>,
    /// An answer to an earlier ping is among the frames.
    ponging: bool,
    /// Counted frames that were written since the last report.
    written: usize,
}

impl Outbox {
    pub fn push(&mut self, opcode: Opcode, body: Bytes, counted: bool) {
        let (head, pong) = (ServerHead::new(opcode, body.len()), opcode == Opcode::Pong);
        self.frames.push_back(Outgoing { head, body, counted, pong });
    }

    pub fn pong(&mut self, body: Bytes) {
        self.pong = Some(body);
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.pong.is_none()
    }

    pub fn disown(&mut self) {
        self.written = 0;
        for frame in &mut self.frames {
            frame.counted = false;
        }
    }

    /// Writes until nothing is left; then answers how many counted frames that was.
    pub fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(body) = self.pong.take_if(|_| !self.ponging) {
                self.push(Opcode::Pong, body, false);
                self.ponging = true;
            }
            if self.frames.is_empty() {
                break;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            let mut skip = self.done;
            for frame in self.frames.iter().take(SLICES / 2) {
                for part in [frame.head.as_bytes(), &frame.body] {
                    let rest = part.get(skip..).unwrap_or_default();
                    skip = skip.saturating_sub(part.len());
                    if !rest.is_empty() {
                        slices[used] = IoSlice::new(rest);
                        used += 1;
                    }
                }
            }
            let count = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..used]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        ready!(Pin::new(io).poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.written)))
    }

    fn advance(&mut self, count: usize) {
        self.done += count;
        while let Some(first) = self.frames.front() {
            let len = first.head.as_bytes().len() + first.body.len();
            if self.done < len {
                break;
            }
            self.done -= len;
            self.written += usize::from(first.counted);
            self.ponging &= !first.pong;
            self.frames.pop_front();
        }
    }
}
