//! The protocol core of one end, without I/O: frames, links and time go in, frames and events come out.
//!
//! Owns every decision of `src/PROTOCOL.md` from the handshake to the close. Has no clock, no sockets and no
//! randomness but what it is handed, so two of them are tested against each other on virtual time. Storage, files and
//! reconnecting are the driver's.

mod handshake;
mod incoming;
mod legacy;
mod open;
mod outgoing;
mod timer;
mod window;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rand_core::{CryptoRng, RngCore};

use crate::code::Secret;
pub use crate::crypto::pake::Role;
use crate::crypto::resume::ResumeKey;
use crate::frame::{ChunkBuf, CloseReason, FrameError};
use crate::item::{Feature, ItemHead, ItemId, Lane, Refusal};

use handshake::{Handshake, Verdict};
use legacy::Legacy;
use open::Open;

/// What a link takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimits {
    /// Longest frame in bytes.
    pub max_frame: usize,
    /// Messages a minute; 0 is unlimited.
    pub messages_per_minute: u64,
    /// It leads through a relay.
    pub relayed: bool,
}

/// A change of the link. A reconnect is an input, not a secret of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Frames can flow.
    Up {
        /// What it takes.
        limits: LinkLimits,
        /// The transport has already sent [`Session::greeting`] on it.
        greeted: bool,
    },
    /// Frames go nowhere.
    Down,
}

/// What happened.
#[derive(Debug)]
pub enum SessionEvent {
    /// Both ends have proved that they hold the code.
    Connected {
        /// 2, or 1 for a 0.1 peer.
        protocol: u8,
        /// What the peer calls itself. Untrusted.
        agent: Option<String>,
        /// Resumes a direct link; absent for a 0.1 peer.
        resume: Option<ResumeKey>,
    },
    /// What is at the other end made no guess at the code: drop it and wait for another.
    Unproven(&'static str),
    /// A confirmation failed: the code is burnt, the session is over.
    HandshakeFailed(&'static str),
    /// An own item's head is out: its content is wanted.
    Opened(ItemId),
    /// An own item's one receipt; `None` is stored.
    Receipt {
        /// The item.
        id: ItemId,
        /// Why it was not stored.
        refused: Option<Refusal>,
    },
    /// The peer's owner has read an own item.
    Read {
        /// The item, at most the last that was offered.
        id: ItemId,
        /// When, in milliseconds since 1970-01-01 UTC by the peer's clock. Untrusted.
        at: u64,
    },
    /// An own item left for a 0.1 peer, which gives no receipts.
    Sent(ItemId),
    /// The peer began an item.
    Head(Incoming),
    /// Content of the peer's item, in order.
    Chunk {
        /// The item.
        id: ItemId,
        /// The content.
        bytes: Bytes,
        /// The item is complete and verified.
        last: bool,
    },
    /// The peer's item ends without being complete. Its receipt has been given.
    Cancelled {
        /// The item.
        id: ItemId,
        /// Why.
        reason: Refusal,
    },
    /// Nothing was heard of the peer for 45 s.
    PeerAway,
    /// It is heard again.
    PeerBack,
    /// A transfer made no progress for 30 s.
    Stalled(&'static str),
    /// A message of a 0.1 peer could not be read; the channel lives on.
    Unreadable(&'static str),
    /// The peer closed; nothing more comes.
    PeerClosed(CloseReason),
    /// An hour without the peer.
    Idle,
    /// Own close is acknowledged, or was asked about for two seconds.
    Closed,
}

/// The head of an item that the peer began.
#[derive(Debug)]
pub struct Incoming {
    /// Its number.
    pub id: ItemId,
    /// What it is; the content too, where it is inline.
    pub head: ItemHead,
    /// Names of items sent earlier that are not here yet (texts only). Untrusted.
    pub pending: Vec<String>,
    /// How many more there are.
    pub pending_more: u64,
}

/// Why a session cannot go on, by whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Between the ends: a record does not open.
    #[error("a record does not open: somebody between the two ends altered the traffic")]
    Tampered,
    /// The peer: a record opens and is not of this protocol.
    #[error("the peer broke the protocol: {0}")]
    Peer(PeerFault),
    /// The link: a smaller frame is demanded than what has been sealed already.
    #[error("this relay takes frames too small for what is already under way")]
    FrameLimit,
    /// Nobody: a key has carried all it may.
    #[error("2^44 bytes went one way, which is all that one key may carry; open a new channel")]
    UsedUp,
}

/// What a peer did that no correct peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// A frame or message that cannot be read.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Acknowledged what was never sent.
    #[error("it acknowledged records that were never sent")]
    AcknowledgedFuture,
    /// Sent more content than it was granted.
    #[error("it sent more than it was granted")]
    BeyondGrant,
    /// An item number twice, out of order, or too far ahead.
    #[error("an item number was reused or out of order")]
    ItemNumber,
    /// Content for an item that is not open.
    #[error("content came for an item that is not open")]
    NotOpen,
    /// A member of something that is not an open group.
    #[error("a member came for a group that is not open")]
    Group,
    /// A receipt for an item that awaits none.
    #[error("a receipt came for an item that awaits none")]
    Receipt,
    /// More items at once than the protocol allows.
    #[error("too many items at once")]
    TooMany,
    /// A head or chunk that contradicts itself.
    #[error("a head or chunk contradicts itself")]
    Contradiction,
    /// Something after its close.
    #[error("it went on after its close")]
    AfterClose,
}

impl From<FrameError> for SessionError {
    fn from(error: FrameError) -> Self {
        Self::Peer(error.into())
    }
}

impl From<PeerFault> for SessionError {
    fn from(fault: PeerFault) -> Self {
        Self::Peer(fault)
    }
}

/// Where own items stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Items offered that have no receipt yet.
    pub unreceipted: usize,
    /// Records sealed and not acknowledged.
    pub unacknowledged: usize,
}

enum Phase {
    Handshake(Box<Handshake>),
    Open(Box<Open>),
    Legacy(Box<Legacy>),
    Over,
}

/// One end of a channel.
pub struct Session {
    phase: Phase,
    role: Role,
    greeting: Bytes,
    events: VecDeque<SessionEvent>,
    /// Frames that leave whatever the phase: the last words of a failed handshake.
    last_words: VecDeque<Bytes>,
}

impl Session {
    /// A session before its handshake. `rng` gives the scalar of the key exchange and nothing else.
    pub fn new(role: Role, secret: &Secret, rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let handshake = Handshake::new(role, secret, rng);
        let greeting = handshake.greeting();
        Self {
            phase: Phase::Handshake(Box::new(handshake)),
            role,
            greeting,
            events: VecDeque::new(),
            last_words: VecDeque::new(),
        }
    }

    /// This end's SPAKE2 message: the same bytes for the whole run.
    #[must_use]
    pub fn greeting(&self) -> Bytes {
        self.greeting.clone()
    }

    /// Which end this is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Takes a frame of the current link.
    ///
    /// # Errors
    /// [`SessionError`]: the session has turned to its close and only wants to say so.
    pub fn handle_frame(&mut self, frame: BytesMut, now: Instant) -> Result<(), SessionError> {
        match &mut self.phase {
            Phase::Handshake(handshake) => {
                let verdict = handshake.handle_frame(&frame, now);
                self.judge(verdict, now);
                Ok(())
            }
            Phase::Open(open) => {
                let result = open.handle_frame(frame, now, &mut self.events);
                if let Err(error) = result {
                    open.fail(error, now, &mut self.events);
                }
                result
            }
            Phase::Legacy(legacy) => legacy.handle_frame(frame, &mut self.events),
            Phase::Over => Ok(()),
        }
    }

    /// Time has come to [`Session::poll_timeout`], or passed it.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Handshake(handshake) => {
                let verdict = handshake.handle_timeout(now);
                self.judge(verdict, now);
            }
            Phase::Open(open) => open.handle_timeout(now, &mut self.events),
            Phase::Legacy(_) | Phase::Over => {}
        }
    }

    /// The link came up or went down.
    ///
    /// # Errors
    /// [`SessionError::FrameLimit`]: the session has turned to its close.
    pub fn handle_link(&mut self, link: Link, now: Instant) -> Result<(), SessionError> {
        match &mut self.phase {
            Phase::Handshake(handshake) => handshake.handle_link(link, now),
            Phase::Open(open) => {
                let result = open.handle_link(link, now);
                if let Err(error) = result {
                    open.fail(error, now, &mut self.events);
                }
                return result;
            }
            Phase::Legacy(_) | Phase::Over => {}
        }
        Ok(())
    }

    /// All frames given for the link so far have left this machine (0.1 peers only).
    pub fn handle_drained(&mut self) {
        if let Phase::Legacy(legacy) = &mut self.phase {
            legacy.handle_drained(&mut self.events);
        }
    }

    /// Offers an item; its number says its place in the order of commit. Before the handshake is done nothing can be
    /// offered: `None`.
    pub fn offer(&mut self, head: ItemHead) -> Option<ItemId> {
        match &mut self.phase {
            Phase::Open(open) => Some(open.offer(head, &mut self.events)),
            Phase::Legacy(legacy) => Some(legacy.offer(head, &mut self.events)),
            Phase::Handshake(_) | Phase::Over => None,
        }
    }

    /// Gives content of an offered item, at most [`Session::chunk_size`] bytes at a time. Content for an item that was
    /// cancelled or refused meanwhile is dropped.
    pub fn push(&mut self, id: ItemId, chunk: ChunkBuf, last: bool) {
        match &mut self.phase {
            Phase::Open(open) => open.out.push(id, chunk, last),
            Phase::Legacy(legacy) => legacy.push(id, &chunk, last, &mut self.events),
            Phase::Handshake(_) | Phase::Over => {}
        }
    }

    /// The driver has taken the first `upto` bytes of content of the peer's item: grants room for more.
    pub fn accepted(&mut self, id: ItemId, upto: u64) {
        if let Phase::Open(open) = &mut self.phase {
            open.accepted(id, upto);
        }
    }

    /// How a peer's item ended here: complete, verified and visible, or refused. Early refusals are allowed.
    pub fn stored(&mut self, id: ItemId, result: Result<(), Refusal>) {
        if let Phase::Open(open) = &mut self.phase {
            open.stored(id, result);
        }
    }

    /// The owner of this end has read a stored item of the peer's, `at` milliseconds after 1970-01-01 UTC. Told where the
    /// peer knows of it; of more than 4,096 that wait for a link, the oldest are not told.
    pub fn opened(&mut self, id: ItemId, at: u64) {
        if let Phase::Open(open) = &mut self.phase {
            open.opened(id, at);
        }
    }

    /// Takes an own item back. Its receipt still comes.
    pub fn cancel(&mut self, id: ItemId, reason: Refusal) {
        match &mut self.phase {
            Phase::Open(open) => open.out.cancel(id, reason, &mut self.events),
            Phase::Legacy(legacy) => legacy.cancel(id, reason, &mut self.events),
            Phase::Handshake(_) | Phase::Over => {}
        }
    }

    /// From now on acknowledgements are asked for at once: the driver waits for [`Session::backlog`] to be empty.
    pub fn drain(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.drain();
        }
    }

    /// Says goodbye: what was not sent is not sent any more. [`SessionEvent::Closed`] follows.
    pub fn close(&mut self, reason: CloseReason, now: Instant) {
        match &mut self.phase {
            Phase::Open(open) => open.close(reason, now, &mut self.events),
            Phase::Handshake(_) | Phase::Legacy(_) | Phase::Over => {
                self.phase = Phase::Over;
                self.events.push_back(SessionEvent::Closed);
            }
        }
    }

    /// The next frame for the link, if there is one.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if let Some(frame) = self.last_words.pop_front() {
            return Some(frame);
        }
        match &mut self.phase {
            Phase::Handshake(handshake) => handshake.poll_transmit(),
            Phase::Open(open) => open.poll_transmit(now, &mut self.events),
            Phase::Legacy(legacy) => legacy.poll_transmit(&mut self.events),
            Phase::Over => None,
        }
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Handshake(handshake) => handshake.poll_timeout(),
            Phase::Open(open) => open.poll_timeout(),
            Phase::Legacy(_) | Phase::Over => None,
        }
    }

    /// Bytes of content that fit into this lane's staging now: back-pressure towards the reader of files.
    #[must_use]
    pub fn room(&self, lane: Lane) -> usize {
        match &self.phase {
            Phase::Open(open) => open.out.room(lane),
            Phase::Legacy(legacy) => legacy.room(),
            Phase::Handshake(_) | Phase::Over => 0,
        }
    }

    /// Offered items whose head has not left: the driver offers more members of a group while these are few.
    #[must_use]
    pub fn queued(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => open.out.queued(),
            Phase::Legacy(legacy) => legacy.backlog(),
            Phase::Handshake(_) | Phase::Over => 0,
        }
    }

    /// Bytes of an own item's content, of its members' for a group, that the other end is known to have received. An
    /// item that fits into one record, and one for a 0.1 peer, has none until it is done.
    #[must_use]
    pub fn confirmed(&self, id: ItemId) -> u64 {
        match &self.phase {
            Phase::Open(open) => open.out.confirmed(id),
            Phase::Handshake(_) | Phase::Legacy(_) | Phase::Over => 0,
        }
    }

    /// What an own item waits for, in words, where it does not move.
    #[must_use]
    pub fn why_waiting(&self, id: ItemId) -> &'static str {
        match &self.phase {
            Phase::Open(open) => open.why_waiting(id),
            Phase::Legacy(_) => "the connection has not taken it yet",
            Phase::Handshake(_) | Phase::Over => "there is no peer",
        }
    }

    /// Why what the peer has begun to send does not go on, in words.
    #[must_use]
    pub fn why_nothing_comes(&self) -> &'static str {
        match &self.phase {
            Phase::Open(open) => open.why_nothing_comes(),
            Phase::Legacy(_) | Phase::Handshake(_) | Phase::Over => "there is no peer",
        }
    }

    /// When something was last heard from the peer; `None` where that says nothing about it.
    #[must_use]
    pub const fn heard(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Open(open) => Some(open.heard_at()),
            Phase::Legacy(_) | Phase::Handshake(_) | Phase::Over => None,
        }
    }

    /// Whether both ends know of this.
    #[must_use]
    pub fn knows(&self, feature: Feature) -> bool {
        match &self.phase {
            Phase::Open(open) => open.knows(feature),
            Phase::Legacy(_) | Phase::Handshake(_) | Phase::Over => false,
        }
    }

    /// Bytes of content of one item that are staged and not sealed yet.
    #[must_use]
    pub fn staged(&self, id: ItemId) -> usize {
        match &self.phase {
            Phase::Open(open) => open.out.staged(id),
            Phase::Handshake(_) | Phase::Legacy(_) | Phase::Over => 0,
        }
    }

    /// Bytes of content in one chunk on this link.
    #[must_use]
    pub fn chunk_size(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => open.out.chunk_size(),
            Phase::Handshake(_) | Phase::Legacy(_) | Phase::Over => window::CHUNK,
        }
    }

    /// Where own items stand.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        match &self.phase {
            Phase::Open(open) => open.out.backlog(),
            Phase::Legacy(legacy) => Backlog { unreceipted: legacy.backlog(), unacknowledged: 0 },
            Phase::Handshake(_) | Phase::Over => Backlog::default(),
        }
    }

    /// Memory of sealed chunks that were acknowledged, to read new ones into.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        match &mut self.phase {
            Phase::Open(open) => open.out.reclaim(),
            Phase::Handshake(_) | Phase::Legacy(_) | Phase::Over => None,
        }
    }

    fn judge(&mut self, verdict: Option<Verdict>, now: Instant) {
        let Some(verdict) = verdict else { return };
        match verdict {
            Verdict::Unproven(why) => self.events.push_back(SessionEvent::Unproven(why)),
            Verdict::Failed { why, last_words } => {
                self.last_words.extend(last_words);
                self.phase = Phase::Over;
                self.events.push_back(SessionEvent::HandshakeFailed(why));
            }
            Verdict::Proven => {
                let Phase::Handshake(handshake) = std::mem::replace(&mut self.phase, Phase::Over) else {
                    return;
                };
                self.establish(*handshake, now);
            }
        }
    }

    fn establish(&mut self, handshake: Handshake, now: Instant) {
        let Some(mut proven) = handshake.finish() else { return };
        let agent = proven.agent.take();
        let (protocol, resume) = if let Some(keys) = proven.keys.take() {
            let resume = proven.resume.take();
            self.phase = Phase::Open(Box::new(Open::new(keys, proven, now)));
            (2, resume)
        } else {
            self.phase = Phase::Legacy(Box::new(Legacy::new(proven)));
            (1, None)
        };
        self.events.push_back(SessionEvent::Connected { protocol, agent, resume });
    }
}

#[cfg(test)]
mod tests;
