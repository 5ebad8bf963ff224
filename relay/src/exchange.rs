//! The exchange: where two ends meet and where frames wait.
//!
//! Owns the contract that a store keeps towards the sockets: [`memory`] is the store of one process, `redis` the one
//! that many share. Knows no websocket. Whatever the store, frames are never dropped, trimmed or reordered, and a frame
//! is forgotten only after its receiver's socket has written it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::rules::{CodeHash, Nameplate, Source};
use crate::wire::{ErrorCode, Id, Mood, Resume, Role, Status};

pub mod memory;
pub mod redis;
#[cfg(test)]
mod tests;

/// A socket is handed frames of this many bytes at a time, or one: as many as share a write. A socket that breaks tells
/// what it wrote in whole batches, so this is also what may come twice, beside one longer frame.
const POP_BYTES: usize = 64 << 10;
/// ... and of this many frames.
const POP_FRAMES: usize = 64;
/// A client of 0.1.5 does not survive a frame that comes twice: under a code each frame has a write of its own, so that
/// it is known which ones were written.
const POP_FRAMES_BY_CODE: usize = 1;
/// Senders that are woken when memory is freed. Who still does not fit waits again behind the others.
const WOKEN_AT_ONCE: usize = 16;

/// Wakes one socket: "look at your seat again". Rings while nobody listens are kept, several count as one.
#[derive(Debug, Default)]
pub struct Bell {
    /// Rung since the last look.
    rung: AtomicBool,
    /// The socket's task.
    waker: AtomicWaker,
}

impl Bell {
    /// Wakes the socket.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Ready once for all rings since the last time.
    pub fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if self.rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The socket that asks for a seat.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What its limits count for.
    pub source: Source,
    /// How the store wakes it.
    pub bell: Arc<Bell>,
}

/// A seat that was given.
#[derive(Debug)]
pub struct Seated<S> {
    /// The store's handle: one socket's hold on the seat.
    pub hold: S,
    /// The credential for `resume`.
    pub seat: Id,
    /// The store's memory that it is in.
    pub boot: Id,
    /// The nameplate, unless a paired end resumed by its channel, or there is none because there is a code.
    pub nameplate: Option<Nameplate>,
}

/// What a socket has to write.
#[derive(Debug, Default)]
pub struct Due {
    /// Statuses, to be written before the frames.
    pub statuses: Vec<Status>,
    /// Frames in order: the next ones that were not handed to this socket yet.
    pub frames: Vec<Bytes>,
    /// The rate limit delays the next frame: pop again at this time.
    pub again: Option<Instant>,
}

/// Why a hold is over. The socket closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Another socket took the seat.
    #[error("another socket took the seat")]
    Replaced,
    /// The host released the peer's seat.
    #[error("the host released the seat")]
    Released,
    /// The channel was without a frame for too long, or its host left before anybody came.
    #[error("the channel ended")]
    Over,
    /// The store forgot, or may have: whoever sat has to resume.
    #[error("the store forgot")]
    Forgot,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Channels, present or not.
    pub channels: usize,
    /// Bytes of frames that wait, with their overhead.
    pub queued: usize,
}

/// Why nobody was seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What the client is told.
    #[error("refused: {0:?}")]
    Code(ErrorCode),
    /// A third party: the nameplate has both its ends. The client is told the same as of a nameplate that does not
    /// exist; only the operator's counters know the difference.
    #[error("refused: the nameplate has both its ends")]
    Crowded,
    /// The store cannot be reached: later, or at another relay that shares it.
    #[error("the store is away")]
    Away,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

/// Whether the store took a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It did.
    Taken,
    /// There is no room: keep it, read no further, push it again when the bell rings.
    Full(Bytes),
    /// There is nobody at the other seat yet: a frame before `paired`.
    Unpaired,
}

/// A store. `now` is the caller's clock.
///
/// Every method may be called from any task; none waits for another socket. While a shared store is away they wait for
/// it, but not those that seat: a client may go elsewhere.
pub trait Exchange: Send + Sync + 'static {
    /// A socket's hold on its seat. It is worth nothing once another socket resumed the seat.
    type Hold: Send + Sync + 'static;

    /// The id of the store's memory: changes whenever the store forgot.
    fn boot(&self) -> Id;

    /// Whether the store can be reached.
    fn is_ready(&self) -> bool;

    /// Whether other instances have the same memory, so that a client can resume at one of them while this one stops.
    fn is_shared(&self) -> bool;

    /// What the store holds, for the operator, as of the last sweep at the latest; `None` before the first one.
    fn usage(&self) -> Option<Usage>;

    /// A number between 0 and `u64::MAX` that all sockets of a channel share, at any instance, and that is spread evenly
    /// over the channels: when they are closed by a relay that stops.
    fn slot(&self, hold: &Self::Hold) -> u64;

    /// A new channel with a free nameplate.
    ///
    /// # Errors
    /// What to refuse the client with.
    fn allocate(
        &self,
        caller: Caller,
        now: Instant,
    ) -> impl Future<Output = Result<Seated<Self::Hold>, Refusal>> + Send;

    /// The peer's seat at a nameplate. Pairs.
    ///
    /// # Errors
    /// What to refuse the client with; the same for "no such nameplate" and "it has both its ends".
    fn join(
        &self,
        nameplate: &str,
        caller: Caller,
        now: Instant,
    ) -> impl Future<Output = Result<Seated<Self::Hold>, Refusal>> + Send;

    /// Either seat under a code that the relay was told: for clients of 0.1.5, and for ends that talk to them.
    ///
    /// - A host makes the channel, which counts for its source, or takes its seat back; a peer takes its seat, which
    ///   pairs, or takes it back. For a peer there has to be a host's channel: present, or away for less than the
    ///   unclaimed absence.
    /// - A seat is taken back (as by a resume: the socket before it is [`Ended::Replaced`], frames that were not written
    ///   are due again, and `Paired` is due again where it holds) if its socket is away, or if that came from the
    ///   caller's source. A seat that was left by `bye` or has another source's socket in it is not: `UnableToJoin`, and
    ///   a failed join of the caller's. While a source has failed too often it is refused here, whatever its role.
    /// - The seat has a credential as others have, with which it is resumed once the channel is paired; there is no
    ///   nameplate. A host that `release`s its peer keeps its channel under the code.
    /// - A `bye` of the host frees the code at once, as it frees a nameplate; a channel that expires does, too.
    /// - The host's frames are taken before a peer has come ([`Pushed::Unpaired`] is for channels of a nameplate), a
    ///   direction holds [`rules::CODE_QUEUE`](crate::rules::CODE_QUEUE), and frames are handed out one at a time: a
    ///   client of 0.1.5 neither waits to be told nor survives a frame that comes twice.
    ///
    /// # Errors
    /// What to refuse the client with.
    fn join_code(
        &self,
        code: &CodeHash,
        role: Role,
        caller: Caller,
        now: Instant,
    ) -> impl Future<Output = Result<Seated<Self::Hold>, Refusal>> + Send;

    /// A seat taken back. Frames that were popped but not written are due again, first. A claim of a seat that is not the
    /// claimant's counts as a failed join of its source, and is refused as one beyond the limit; a rightful one never is.
    ///
    /// # Errors
    /// What to refuse the client with.
    fn resume(
        &self,
        claim: &Resume,
        caller: Caller,
        now: Instant,
    ) -> impl Future<Output = Result<Seated<Self::Hold>, Refusal>> + Send;

    /// The host undoes the pairing; both queues are emptied. `Ok(false)`: there is no nameplate to go back to.
    ///
    /// # Errors
    /// [`Ended`] where the hold is over.
    fn release(&self, hold: &Self::Hold, now: Instant) -> impl Future<Output = Result<bool, Ended>> + Send;

    /// The end leaves for good. What it sent stays deliverable.
    fn bye(&self, hold: Self::Hold, mood: Mood, now: Instant) -> impl Future<Output = ()> + Send;

    /// The socket is gone after it wrote the first `written` of the frames it was given; the seat is kept for a resume.
    fn leave(&self, hold: Self::Hold, written: usize, now: Instant) -> impl Future<Output = ()> + Send;

    /// A frame for the other end. It counts for the memory rule from here on.
    ///
    /// # Errors
    /// [`Ended`] where the hold is over.
    fn push(
        &self,
        hold: &Self::Hold,
        frame: Bytes,
        now: Instant,
    ) -> impl Future<Output = Result<Pushed, Ended>> + Send;

    /// What this socket has to write, after it has written the first `written` frames of those it was given.
    ///
    /// A socket that got frames pops again when they are written; one that got none is woken by its bell.
    ///
    /// # Errors
    /// [`Ended`] where the hold is over.
    fn pop(
        &self,
        hold: &Self::Hold,
        written: usize,
        now: Instant,
    ) -> impl Future<Output = Result<Due, Ended>> + Send;

    /// Forgets what expired. To be called every few seconds.
    fn sweep(&self, now: Instant) -> impl Future<Output = ()> + Send;
}
