//! One connection in use.
//!
//! Owns what happens on it: frames in, frames out, its end. Which connection is in use, and what its end means, is the
//! [supervisor's](super::supervisor) business.

use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::transport::{MAX_VERSION_FRAME, OutFrame, SPAKE_FRAME};

use super::wire::{Expect, LinkEnd, Reader, Writer};

/// How often the socket is asked whether everything has left it, while somebody waits for that.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// A connection that showed what it must.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// The frames it showed, which are the driver's to judge.
    pub(super) shown: Vec<BytesMut>,
}

/// How far the handshake is on a link, as far as the limits of its frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The SPAKE2 message comes next.
    Spake,
    /// The sealed version comes next.
    Version,
    /// The driver is judging what came.
    Verdict,
    /// Frames of at most this many bytes.
    Frames(usize),
}

/// What happened on a link.
#[derive(Debug)]
pub(super) enum Happening {
    /// A frame came.
    Frame(BytesMut),
    /// All that was sent has left this machine.
    Drained(u64),
    /// It is over.
    Ended(LinkEnd),
}

/// The connection in use.
#[derive(Debug)]
pub(super) struct Link {
    number: u64,
    reader: Reader,
    writer: Writer,
    stage: Stage,
    /// Whether the driver is to be told when everything has left this machine.
    tells_drained: bool,
    /// Frames of the driver that were taken for this link.
    taken: u64,
    /// When to ask the socket next; `None` while nothing is outstanding.
    ask_at: Option<Instant>,
}

impl Link {
    pub(super) fn new(number: u64, reader: Reader, writer: Writer, stage: Stage) -> Self {
        Self { number, reader, writer, stage, tells_drained: false, taken: 0, ask_at: None }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// The handshake is done: frames of at most `longest` bytes, and never `silence` without a byte.
    pub(super) fn open(&mut self, longest: usize, silence: Option<Duration>) {
        self.stage = Stage::Frames(longest);
        self.reader.allow_silence(silence);
    }

    /// From now on tells when everything has left this machine.
    pub(super) fn tell_drained(&mut self) {
        self.tells_drained = true;
        // Frames sent before count as well.
        self.ask_at = Some(Instant::now());
    }

    /// Sends what the driver gives and reads, the latter only if `deliver`. May be dropped at any time.
    pub(super) async fn next(&mut self, frames: &mut mpsc::Receiver<OutFrame>, deliver: bool) -> Happening {
        loop {
            tokio::select! {
                read = self.reader.next(self.stage.expects()), if deliver => {
                    return match read {
                        Ok(frame) => {
                            self.stage = self.stage.after_frame();
                            Happening::Frame(frame)
                        }
                        Err(end) => Happening::Ended(end),
                    };
                }
                Some(frame) = frames.recv(), if self.writer.has_room() => {
                    self.send(frame);
                    while self.writer.has_room()
                        && let Ok(frame) = frames.try_recv()
                    {
                        self.send(frame);
                    }
                }
                flushed = self.writer.flush(), if self.writer.waits() => {
                    if let Err(e) = flushed {
                        return Happening::Ended(e.into());
                    }
                    if self.tells_drained {
                        self.ask_at = Some(Instant::now() + DRAIN_POLL);
                    }
                }
                () = until(self.ask_at), if self.ask_at.is_some() && !self.writer.waits() => {
                    // A system that cannot tell has at least taken everything.
                    if frames.is_empty() && self.writer.unacknowledged().unwrap_or(0) == 0 {
                        self.ask_at = None;
                        return Happening::Drained(self.taken);
                    }
                    self.ask_at = Some(Instant::now() + DRAIN_POLL);
                }
                // The driver takes no frames and gives none.
                else => std::future::pending().await,
            }
        }
    }

    /// Takes a frame if it is for this link.
    pub(super) fn send(&mut self, frame: OutFrame) {
        if frame.link == self.number {
            self.taken += 1;
            self.writer.push(frame.bytes);
        }
    }

    /// Sends what is left, ends the stream, and waits until the other machine has it all or has gone.
    pub(super) async fn finish(mut self) {
        let Self { reader, writer, .. } = &mut self;
        // Reading on keeps the other end from waiting for us, and its bytes from turning our end into a reset.
        let gone = reader.discard();
        let leaving = async {
            if writer.flush().await.is_err() || writer.finish().await.is_err() {
                return;
            }
            while writer.unacknowledged().is_none_or(|bytes| bytes > 0) {
                sleep(DRAIN_POLL).await;
            }
        };
        tokio::pin!(gone, leaving);
        tokio::select! {
            () = &mut leaving => {}
            // The other end may have closed only its own direction: what it has not read yet still goes out.
            _ = &mut gone => leaving.await,
        }
    }
}

impl Stage {
    const fn expects(self) -> Expect {
        match self {
            Self::Spake => Expect::Exactly(SPAKE_FRAME),
            Self::Version => Expect::UpTo(MAX_VERSION_FRAME),
            Self::Verdict => Expect::Nothing,
            Self::Frames(longest) => Expect::UpTo(longest),
        }
    }

    const fn after_frame(self) -> Self {
        match self {
            Self::Spake => Self::Version,
            Self::Version => Self::Verdict,
            Self::Verdict | Self::Frames(_) => self,
        }
    }
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at).await;
    }
}
