//! A running channel: one end, from its options to its exit.
//!
//! Owns the driver and the threads around it, the only clock of the client and the only `select!`. The protocol is
//! `session`'s, links are `transport`'s, the directory is the mailbox's.

mod backend;
mod credential;
mod credit;
mod driver;
/// How a secret is handed to a command, and taken from one.
pub mod handover;
mod journal;
mod memory;
mod noise;
/// What a channel is started with.
pub mod options;
mod presence;
mod printer;
mod rate;
mod reader;
mod report;
mod secrets;
mod sending;
mod start;
mod store;
#[cfg(test)]
mod tests;

use agent_wormhole_mount::dir::OpenError;
use agent_wormhole_mount::mounted::MountError;

use crate::event::Exit;
use crate::rundir::RundirError;
pub use start::{endpoint, run};

/// What the steps of a channel and of its items are called in the program's own log: `doctor --loop` times them.
pub const HOPS: &str = "hop";

/// How a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Closed as asked.
    Done,
    /// Something failed on this machine.
    Internal,
    /// The other end did not have the code, or somebody guessed.
    HandshakeFailed,
    /// The relay or the peer cannot be reached.
    Unreachable,
    /// The time that was given is over.
    Timeout,
    /// Something in the outbox is not known to have arrived.
    Undelivered,
    /// A protocol error or tampering.
    Protocol,
    /// Interrupted.
    Interrupted,
}

impl Ending {
    /// Whether items that were not delivered decide how the channel ended. A channel that never came to be says so
    /// instead.
    const fn may_leave_undelivered(self) -> bool {
        match self {
            Self::Done | Self::Undelivered | Self::Protocol | Self::Interrupted => true,
            Self::Internal | Self::HandshakeFailed | Self::Unreachable | Self::Timeout => false,
        }
    }

    /// How the program ends with it.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Done => Exit::Done,
            Self::Internal => Exit::Internal,
            Self::HandshakeFailed => Exit::HandshakeFailed,
            Self::Unreachable => Exit::Unreachable,
            Self::Timeout => Exit::Timeout,
            Self::Undelivered => Exit::Undelivered,
            Self::Protocol => Exit::Protocol,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    const fn detail(self) -> Option<&'static str> {
        match self {
            Self::Done => None,
            Self::Undelivered => Some("not everything in outbox/ is known to have arrived"),
            Self::Internal => Some("something failed on this machine"),
            Self::HandshakeFailed => Some("the handshake failed"),
            Self::Unreachable => Some("there is no connection"),
            Self::Timeout => Some("the time is over"),
            Self::Protocol => Some("the traffic was not to be trusted any more"),
            Self::Interrupted => Some("interrupted"),
        }
    }
}

/// Why a channel could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// No place for it.
    #[error(transparent)]
    Place(#[from] RundirError),
    /// No mailbox there.
    #[error(transparent)]
    Mailbox(#[from] OpenError),
    /// No mount, which was asked for.
    #[error("the directory cannot be mounted: {0}; use --mount auto, or --mount dir for a real directory")]
    Mount(MountError),
    /// No thread, no signal handler, no runtime.
    #[error("the system gives no thread, timer or signal handler: {0}")]
    Runtime(std::io::Error),
}
