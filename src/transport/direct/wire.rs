//! Frames on a TCP connection: `u32` big-endian length, then as many bytes.
//!
//! Owns the two halves of one connection. Both can be dropped in the middle of any wait and asked again: what was read
//! or written so far is kept in them. Small frames cost one system call, on either side for several of them; the bulk
//! of a large one is read into its own buffer, which is neither zeroed nor copied.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::socket;
use crate::transport::tcp;

/// Bytes of the length in front of each frame.
const HEAD: usize = 4;
/// Bytes read at once when no large frame is being read: several small frames, and little to copy of a large one.
const STAGE: usize = 16 * 1024;
/// Frames in one system call.
const BATCH_FRAMES: usize = 16;
/// A batch with this many bytes takes no further frame: a bulk frame travels alone, so that a prompt one waits for one
/// at most.
const BATCH_BYTES: usize = 64 * 1024;

/// What the next frame may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Exactly this many bytes.
    Exactly(usize),
    /// At most this many bytes.
    UpTo(usize),
    /// None yet: its limit is not known. The connection is still watched for its end.
    Nothing,
}

impl Expect {
    const fn allows(self, len: usize) -> bool {
        match self {
            Self::Exactly(exact) => len == exact,
            Self::UpTo(most) => len <= most,
            Self::Nothing => false,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkEnd {
    /// End of the stream.
    #[error("the other end closed the connection")]
    Closed,
    /// No byte for as long as [`Reader::silence`] allows.
    #[error("the other end was silent for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// A length that is not allowed here.
    #[error("the other end announced a frame of {0} bytes, which is not allowed here")]
    Length(usize),
    /// The system's word.
    #[error("the connection to the other end broke ({0})")]
    Io(io::ErrorKind),
}

impl From<io::Error> for LinkEnd {
    fn from(e: io::Error) -> Self {
        Self::Io(e.kind())
    }
}

/// Both halves of a new connection, with its options set.
pub(super) fn split(stream: TcpStream) -> (Reader, Writer) {
    tcp::tune(&stream);
    let (read, write) = stream.into_split();
    (Reader::new(read), Writer::new(write))
}

/// The half that reads.
#[derive(Debug)]
pub(super) struct Reader {
    half: OwnedReadHalf,
    /// Bytes read ahead, at most [`STAGE`].
    stage: BytesMut,
    /// The frame that is being read: its bytes so far, and its length.
    frame: Option<(BytesMut, usize)>,
    /// The stream has ended.
    ended: bool,
    /// When the last byte came.
    heard: Instant,
    /// How long the connection may be without a single byte; `None` is for ever.
    silence: Option<Duration>,
}

impl Reader {
    fn new(half: OwnedReadHalf) -> Self {
        Self {
            half,
            stage: BytesMut::with_capacity(STAGE),
            frame: None,
            ended: false,
            heard: Instant::now(),
            silence: None,
        }
    }

    /// From now on this long may pass without a byte.
    pub(super) fn allow_silence(&mut self, silence: Option<Duration>) {
        self.silence = silence;
        self.heard = Instant::now();
    }

    /// The next frame.
    pub(super) async fn next(&mut self, expect: Expect) -> Result<BytesMut, LinkEnd> {
        loop {
            if self.frame.is_none() && expect != Expect::Nothing {
                self.begin(expect)?;
            }
            if let Some((bytes, _)) = self.frame.take_if(|(bytes, len)| bytes.len() == *len) {
                return Ok(bytes);
            }
            if self.ended {
                // What came before the end is for whoever knows its limit, and that is about to be decided.
                if expect == Expect::Nothing && !self.stage.is_empty() {
                    return std::future::pending().await;
                }
                return Err(LinkEnd::Closed);
            }
            self.fill().await?;
        }
    }

    /// Reads and forgets until the connection ends.
    pub(super) async fn discard(&mut self) -> LinkEnd {
        self.frame = None;
        loop {
            self.stage.clear();
            if self.ended {
                return LinkEnd::Closed;
            }
            if let Err(end) = self.fill().await {
                return end;
            }
        }
    }

    /// Starts on the next frame if its length is known, with those of its bytes that are here.
    fn begin(&mut self, expect: Expect) -> Result<(), LinkEnd> {
        let Some(head) = self.stage.first_chunk::<HEAD>() else { return Ok(()) };
        let len = u32::from_be_bytes(*head) as usize;
        if !expect.allows(len) {
            return Err(LinkEnd::Length(len));
        }
        self.stage.advance(HEAD);
        self.frame = Some((BytesMut::with_capacity(len), len));
        self.spill();
        Ok(())
    }

    /// Moves what is read ahead of the frame that is being read to it.
    fn spill(&mut self) {
        if let Some((bytes, len)) = &mut self.frame {
            let here = self.stage.len().min(len.saturating_sub(bytes.len()));
            bytes.put((&mut self.stage).take(here));
        }
    }

    /// Reads once, into a large frame itself or else ahead.
    async fn fill(&mut self) -> Result<(), LinkEnd> {
        match self.read().await? {
            0 => self.ended = true,
            _ => self.heard = Instant::now(),
        }
        self.spill();
        Ok(())
    }

    async fn read(&mut self) -> Result<usize, LinkEnd> {
        let Self { half, stage, frame, heard, silence, .. } = self;
        let reading = async {
            match frame {
                Some((bytes, len)) if *len - bytes.len() >= STAGE => {
                    let rest = *len - bytes.len();
                    half.read_buf(&mut bytes.limit(rest)).await
                }
                // With a full stage and no frame allowed there is nothing to read for.
                _ if stage.len() >= STAGE => std::future::pending().await,
                _ => {
                    let room = STAGE - stage.len();
                    stage.reserve(room);
                    half.read_buf(&mut stage.limit(room)).await
                }
            }
        };
        let silent = async {
            match *silence {
                Some(silence) => {
                    tokio::time::sleep_until(*heard + silence).await;
                    silence
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = reading => Ok(read?),
            silence = silent => Err(LinkEnd::Silent(silence)),
        }
    }
}

/// The half that writes.
#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
    /// Frames with their lengths, the first of them perhaps written in part.
    batch: VecDeque<([u8; HEAD], Bytes)>,
    /// Bytes of the batch, lengths included, that are not written yet.
    left: usize,
    /// Bytes of the first frame, its length included, that are written.
    done: usize,
}

impl Writer {
    fn new(half: OwnedWriteHalf) -> Self {
        Self { half, batch: VecDeque::new(), left: 0, done: 0 }
    }

    /// Whether another frame may join the batch.
    pub(super) fn has_room(&self) -> bool {
        self.left < BATCH_BYTES && self.batch.len() < BATCH_FRAMES
    }

    /// Whether something is not written yet.
    pub(super) fn waits(&self) -> bool {
        self.left > 0
    }

    /// Adds a frame to the batch. One that `u32` cannot count is none of ours and is left out.
    pub(super) fn push(&mut self, frame: Bytes) {
        if let Ok(len) = u32::try_from(frame.len()) {
            self.left += HEAD + frame.len();
            self.batch.push_back((len.to_be_bytes(), frame));
        }
    }

    /// Writes the whole batch.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while self.left > 0 {
            let mut slices = [IoSlice::new(&[]); 2 * BATCH_FRAMES];
            let mut skip = self.done;
            let mut used = 0;
            let parts = self.batch.iter().flat_map(|(head, body)| [head.as_slice(), body.as_ref()]);
            for (slot, part) in slices.iter_mut().zip(parts.filter_map(|part| {
                let rest = part.get(skip.min(part.len())..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                (!rest.is_empty()).then_some(rest)
            })) {
                *slot = IoSlice::new(part);
                used += 1;
            }
            let written = self.half.write_vectored(slices.get(..used).unwrap_or_default()).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(written);
        }
        Ok(())
    }

    /// Forgets what was written.
    fn advance(&mut self, written: usize) {
        self.left = self.left.saturating_sub(written);
        self.done += written;
        while let Some((_, body)) = self.batch.front()
            && self.done >= HEAD + body.len()
        {
            self.done -= HEAD + body.len();
            self.batch.pop_front();
        }
    }

    /// No more frames: the other end reads the end of the stream after the last of them.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.half.shutdown().await
    }

    /// See [`socket::unacknowledged`].
    pub(super) fn unacknowledged(&self) -> Option<usize> {
        socket::unacknowledged(self.half.as_ref())
    }
}
