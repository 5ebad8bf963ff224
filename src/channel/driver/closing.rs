//! How a channel ends: drained where it can be, said goodbye, let go.
//!
//! Owns the steps of a close and their deadlines. What becomes of the mailbox afterwards is `start`'s.

use std::time::{Duration, Instant};

use super::{Driver, Notice, millis, now};
use crate::channel::Ending;
use crate::event::state::Phase;
use crate::frame::CloseReason;
use crate::item::ItemId;
use crate::transport::{Control, Farewell, OutFrame};

/// A local close waits this long for what is in the outbox.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// What has become visible is given its receipt before the goodbye, within this time.
const SETTLE: Duration = Duration::from_secs(1);
/// After the peer's close its doubles are answered this long.
pub(super) const PEER_CLOSED: Duration = Duration::from_secs(2);

/// Why this end closes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub(super) ending: Ending,
    /// The session says so from then on, drained or not.
    pub(super) deadline: Instant,
    /// The mailbox has offered all that is complete.
    pub(super) idle: bool,
    /// Nothing becomes visible any more, and the goodbye is said then at the latest.
    pub(super) settled_by: Option<Instant>,
    /// The session has said goodbye.
    pub(super) said: bool,
}

impl Driver {
    pub(super) fn on_notice(&mut self, notice: Notice) {
        let (ending, again) = match notice {
            Notice::Secrets => return self.changed(),
            Notice::Used(item) => return self.session.opened(ItemId(item), millis()),
            Notice::Unread | Notice::Stop => (Ending::Done, false),
            Notice::Interrupt => (Ending::Interrupted, self.closing.is_some()),
        };
        // Who interrupts twice does not want to wait.
        self.close(ending, if again { Duration::ZERO } else { DRAIN });
    }

    /// Begins to close: what is in the outbox still goes, for as long as `drain`.
    pub(super) fn close(&mut self, ending: Ending, drain: Duration) {
        let now = now();
        self.store.release();
        if let Some(closing) = &mut self.closing {
            if ending == Ending::Protocol {
                closing.ending = ending;
            }
            closing.deadline = closing.deadline.min(now + drain);
            return;
        }
        // Nothing can go to a peer that is not there any more, or not yet.
        let drain = if self.connected && self.peer_ending.is_none() { drain } else { Duration::ZERO };
        let ending = self.peer_ending.filter(|peer| *peer != Ending::Done).unwrap_or(ending);
        self.closing =
            Some(Closing { ending, deadline: now + drain, idle: false, settled_by: None, said: false });
        self.hush();
        self.phase(Phase::Closing);
        if drain > Duration::ZERO {
            self.session.drain();
            self.mailbox.finish();
        }
    }

    /// Says goodbye once everything has gone, or time is up.
    pub(super) fn advance_close(&mut self) {
        let Some(closing) = &mut self.closing else { return };
        if closing.said {
            return;
        }
        let now = now();
        let backlog = self.session.backlog();
        let drained = closing.idle && backlog.unreceipted == 0 && backlog.unacknowledged == 0;
        if closing.settled_by.is_none() && !drained && now < closing.deadline {
            return;
        }
        self.store.deafen();
        let by = *closing.settled_by.get_or_insert(now + SETTLE);
        if self.store.is_settled(self.answers) || now >= by {
            closing.said = true;
            let reason = match closing.ending {
                Ending::Interrupted => CloseReason::Stopped,
                Ending::Timeout => CloseReason::Idle,
                _ => CloseReason::Done,
            };
            self.session.close(reason, now);
            while let Some(event) = self.session.poll_event() {
                self.on_session(event);
            }
        }
    }

    pub(super) fn farewell(&mut self, farewell: Farewell) {
        self.link = None;
        // The transport has ended by itself.
        let _ = self.transport.control.send(Control::Close(farewell));
    }

    pub(super) fn farewell_and_end(&mut self) {
        let farewell = match self.closing.map(|closing| closing.ending) {
            Some(Ending::Protocol | Ending::Internal) => Farewell::Errory,
            _ if !self.connected => Farewell::Lonely,
            _ => Farewell::Happy,
        };
        self.farewell(farewell);
        self.over = true;
    }

    /// Ends without a goodbye of the session: there is nobody to say it to.
    pub(super) fn end(&mut self, ending: Ending, farewell: Farewell) {
        while let Some(bytes) = self.session.poll_transmit(now()) {
            let Some(link) = self.link else { break };
            // A full queue: the other end learns it from the end of the link.
            if self.transport.frames.try_send(OutFrame { link, bytes }).is_err() {
                break;
            }
        }
        let closing = Closing { ending, deadline: now(), idle: true, settled_by: None, said: true };
        self.closing.get_or_insert(closing);
        self.farewell(farewell);
        self.over = true;
    }

    /// After [`Driver::run`]: waits for the transport to send what it has, at most two seconds.
    pub(in crate::channel) async fn part(&mut self) {
        let told = async { while self.transport.events.recv().await.is_some() {} };
        // Who does not take a goodbye learns it from the end of the link.
        let _ = tokio::time::timeout(PEER_CLOSED, told).await;
    }
}
