//! Links: how frames get from one end to the other.
//!
//! Owns the boundary between the driver and the two transports. A transport is a task of its own; it dials, listens,
//! reconnects and notices silence, and it knows nothing of what a frame says.

mod backoff;
pub mod direct;
pub mod local;
mod outbox;
mod race;
pub mod relay;
mod tcp;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::crypto::resume::ResumeKey;
use crate::event::Hop;

/// Frames that wait between driver and transport in each direction: enough to overlap their work, few enough that a
/// prompt record overtakes a bulk one within a millisecond or two (4 × 256 KiB at 0.5 GB/s).
pub const FRAME_QUEUE: usize = 4;
/// Longest frame of a SPAKE2 message in bytes, and its only length.
pub const SPAKE_FRAME: usize = 33;
/// Longest version frame in bytes.
pub const MAX_VERSION_FRAME: usize = 16 * 1024;
/// Longest frame after the handshake in bytes.
pub const MAX_FRAME: usize = 1024 * 1024 + 64 * 1024;
/// Longest frame towards a 0.1 peer in bytes.
pub const MAX_LEGACY_FRAME: usize = 10 * 1024 * 1024;

/// The driver's side of a transport.
#[derive(Debug)]
pub struct Transport {
    /// What happens. Bounded by [`FRAME_QUEUE`]; `None` after [`TransportEvent::Failed`] or [`Control::Close`].
    pub events: mpsc::Receiver<TransportEvent>,
    /// Frames to send. Bounded by [`FRAME_QUEUE`].
    pub frames: mpsc::Sender<OutFrame>,
    /// What the driver decided about the link.
    pub control: mpsc::UnboundedSender<Control>,
}

/// The transport's side of itself.
#[derive(Debug)]
pub struct TransportEnds {
    /// See [`Transport::events`].
    pub events: mpsc::Sender<TransportEvent>,
    /// See [`Transport::frames`].
    pub frames: mpsc::Receiver<OutFrame>,
    /// See [`Transport::control`].
    pub control: mpsc::UnboundedReceiver<Control>,
}

impl Transport {
    /// Both sides of a new transport.
    #[must_use]
    pub fn pair() -> (Self, TransportEnds) {
        let (events_in, events) = mpsc::channel(FRAME_QUEUE);
        let (frames, frames_out) = mpsc::channel(FRAME_QUEUE);
        let (control, control_out) = mpsc::unbounded_channel();
        (
            Self { events, frames, control },
            TransportEnds { events: events_in, frames: frames_out, control: control_out },
        )
    }
}

/// A frame for one link; on any other link it is thrown away.
#[derive(Debug)]
pub struct OutFrame {
    /// The link of [`TransportEvent::Up`].
    pub link: u64,
    /// The frame.
    pub bytes: Bytes,
}

/// What a link takes. From a relay these are untrusted input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimits {
    /// Longest frame in bytes.
    pub max_frame: usize,
    /// Messages a minute; 0 is unlimited.
    pub messages_per_minute: u64,
    /// It leads through a relay.
    pub relayed: bool,
}

/// What a transport tells.
#[derive(Debug)]
pub enum TransportEvent {
    /// Frames can flow on a new link. Links are numbered from 1.
    Up {
        /// Its number.
        link: u64,
        /// What it takes.
        limits: LinkLimits,
        /// The transport itself has already sent the host's SPAKE2 message on it (direct host).
        greeted: bool,
    },
    /// A frame of the link that came up last.
    Frame(BytesMut),
    /// All frames given so far for this link have left this machine's socket buffers (direct), or have been handed to
    /// them (relay). Told after [`Control::ProvenLegacy`] only, whenever it becomes true.
    Drained {
        /// The link.
        link: u64,
        /// How many frames of the driver for this link that were: a later one has not left yet.
        frames: u64,
    },
    /// The link is gone; the transport tries for another. Told again with a new reason where that takes long.
    Down {
        /// Why, in words.
        why: String,
    },
    /// The relay delays this channel.
    Throttled,
    /// The relay says that a 0.1 peer lost its connection: it has a minute to come back. From any other peer the session
    /// hears itself.
    PeerAway,
    /// It is back.
    PeerBack,
    /// The transport has ended and will not come back.
    Failed(TransportError),
}

/// What the driver tells.
#[derive(Debug)]
pub enum Control {
    /// What is at the other end of this link did not prove itself, and made no guess: drop it, wait for another
    /// (direct: close the connection; relay: `release`). Answered by [`TransportEvent::Down`] and, for the next one, by
    /// another [`TransportEvent::Up`]; ignored after a proof, and when the link has gone down by itself meanwhile.
    Release,
    /// The handshake is done with a protocol-2 peer: resume with this key (direct), resume the seat (relay). Until this
    /// or [`Control::ProvenLegacy`] a direct link delivers the two frames of a handshake and no more.
    Proven(ResumeKey),
    /// The handshake is done with a 0.1 peer: larger frames, no pings, no resume of this end's own connection.
    ProvenLegacy,
    /// Send what waits in `frames`, say goodbye, end.
    Close(Farewell),
}

/// How a channel ended, for the relay's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// As asked.
    Happy,
    /// Nobody came.
    Lonely,
    /// A confirmation failed.
    Scary,
    /// Anything else.
    Errory,
}

/// Why a transport gave up, by whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The other end, or the relay, cannot be reached.
    #[error("{why}")]
    Unreachable {
        /// The step that failed.
        hop: Hop,
        /// How, and what to do.
        why: String,
    },
    /// The relay refused, in our own words for its closed set of codes.
    #[error("{0}")]
    Refused(String),
    /// The nameplate of a waiting host was given to somebody else.
    #[error(
        "the relay gave this channel's number to somebody else while the connection was down; host a new channel"
    )]
    NameplateLost,
    /// The link ended before the handshake was done.
    #[error(
        "the connection ended before the handshake was done; run connect again, and if that fails ask for a new code"
    )]
    EndedEarly,
    /// A 0.1 peer closed its connection: that is how it says goodbye.
    #[error("the peer closed its connection")]
    LegacyEnd,
    /// The relay's limits make a channel impossible.
    #[error(
        "the relay takes frames of at most {max_frame} bytes; at least 65536 are needed; use another with --relay"
    )]
    FrameTooSmall {
        /// What the relay said, in bytes.
        max_frame: u64,
    },
}

impl TransportError {
    /// The step on the way to the other end that failed.
    #[must_use]
    pub const fn hop(&self) -> Hop {
        match self {
            Self::Unreachable { hop, .. } => *hop,
            Self::Refused(_) | Self::NameplateLost | Self::FrameTooSmall { .. } => Hop::Relay,
            Self::EndedEarly | Self::LegacyEnd => Hop::Peer,
        }
    }
}
