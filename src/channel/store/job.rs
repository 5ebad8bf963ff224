//! What a lane of the store is given to do, and what it answers.

use agent_wormhole_mount::secret::Secret;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::channel::secrets::Place;
use crate::event::{Sent, StatusEvent};
use crate::item::{ItemId, ItemKind, Refusal};
use crate::session::Incoming;

/// What a job holds beside the peer's bytes, in bytes.
const JOB: usize = 256;

/// Work for a lane.
pub(in crate::channel) enum Job {
    /// An item begins.
    Begin(Incoming),
    /// A secret arrived, of which only the head without its content is as it came.
    Secret(Incoming, Result<(Secret, Place), Refusal>),
    /// Content of an item.
    Chunk {
        /// The item.
        id: ItemId,
        /// The content.
        bytes: Bytes,
        /// It is complete and verified.
        last: bool,
    },
    /// An item ends without being complete.
    Drop(ItemId, Refusal),
    /// Something that this end says.
    Tell(StatusEvent),
    /// Something this side sent was delivered.
    Sent(Sent),
    /// A new `status.json` is in [`Store::status`](super::Store).
    Status,
    /// Everything before has been done.
    Barrier(oneshot::Sender<()>),
}

impl Job {
    /// Bytes that it holds while it waits.
    pub(super) fn weight(&self) -> usize {
        let theirs = match self {
            Self::Begin(Incoming { head, pending, .. }) => {
                let inline = head.inline.as_ref().map_or(0, Bytes::len);
                head.name.len() + inline + pending.iter().map(String::len).sum::<usize>()
            }
            Self::Secret(Incoming { head, .. }, secret) => {
                head.name.len() + secret.as_ref().map_or(0, |(secret, _)| secret.len())
            }
            Self::Chunk { bytes, .. } => bytes.len(),
            Self::Drop(..) | Self::Tell(_) | Self::Sent(_) | Self::Status | Self::Barrier(_) => 0,
        };
        JOB + theirs
    }

    /// Whether it goes ahead of a question of the peer's that has to wait for its turn: what this end says, but that the
    /// peer has closed, which comes after all that it sent.
    pub(super) const fn goes_ahead(&self) -> bool {
        matches!(self, Self::Tell(status) if !matches!(status, StatusEvent::PeerClosed(_)))
    }

    /// Whether an item of this kind that comes whole begins with it.
    pub(super) fn is_whole(&self, kind: ItemKind) -> bool {
        matches!(self, Self::Begin(Incoming { head, .. }) if head.kind == kind && head.is_whole())
    }
}

/// What a lane answers.
#[derive(Debug)]
pub(in crate::channel) enum Done {
    /// The first `upto` bytes of an item are written.
    Accepted {
        /// The item.
        id: ItemId,
        /// Bytes.
        upto: u64,
    },
    /// An item ended.
    Stored {
        /// The item.
        id: ItemId,
        /// Bytes of it, or why it is not there.
        result: Result<u64, Refusal>,
    },
    /// [`Store::has_room`](super::Store::has_room) again.
    Room,
}
