//! What the transport tells: links that come and go, frames, and the end of it all.
//!
//! Owns what each of them means for the channel. What a frame says is the session's business.

use bytes::Bytes;

use super::closing::Closing;
use super::{Driver, now};
use crate::channel::Ending;
use crate::event::state::Phase;
use crate::event::{Hop, StatusEvent};
use crate::frame::CloseReason;
use crate::session::{Link, LinkLimits, SessionError};
use crate::transport::{Farewell, TransportError, TransportEvent};

impl Driver {
    pub(super) fn on_transport(&mut self, event: TransportEvent) {
        let now = now();
        match event {
            TransportEvent::Up { link, limits, greeted } => {
                let limits = LinkLimits {
                    max_frame: limits.max_frame,
                    messages_per_minute: limits.messages_per_minute,
                    relayed: limits.relayed,
                };
                self.report.limits(limits.max_frame, limits.messages_per_minute);
                self.link = Some(link);
                self.frame = None;
                self.given = 0;
                let taken = self.session.handle_link(Link::Up { limits, greeted }, now);
                if self.is_open() {
                    self.murmur(StatusEvent::Reconnected(None));
                    self.phase(Phase::Connected);
                }
                self.check(taken);
            }
            TransportEvent::Frame(frame) => {
                self.came = frame.len();
                let taken = self.session.handle_frame(frame, now);
                self.check(taken);
            }
            // One that speaks of fewer frames than were given is of an earlier moment.
            TransportEvent::Drained { link, frames } => {
                if self.link == Some(link) && self.frame.is_none() && frames == self.given {
                    self.session.handle_drained();
                }
            }
            TransportEvent::Down { why } => {
                self.link = None;
                self.frame = None;
                let taken = self.session.handle_link(Link::Down, now);
                self.check(taken);
                if self.is_open() {
                    self.murmur(StatusEvent::Reconnecting(Some(why)));
                    self.phase(Phase::Reconnecting);
                }
            }
            TransportEvent::Throttled if !self.throttled => {
                self.throttled = true;
                let why = "the relay's rate limit delays this channel; nothing is lost";
                self.tell(StatusEvent::Throttled(Some(why.into())));
            }
            TransportEvent::Throttled => {}
            TransportEvent::PeerAway if self.is_open() => {
                let why = "the other end lost its connection to the relay; it has a minute to come back";
                self.murmur(StatusEvent::PeerAway(Some(why.into())));
                self.phase(Phase::PeerAway);
            }
            TransportEvent::PeerBack if self.is_open() => {
                self.murmur(StatusEvent::PeerBack(None));
                self.phase(Phase::Connected);
            }
            TransportEvent::PeerAway | TransportEvent::PeerBack => {}
            TransportEvent::Failed(error) => self.on_transport_failure(error),
        }
    }

    /// Items flow, or would if there were a link.
    const fn is_open(&self) -> bool {
        self.connected && self.closing.is_none() && self.peer_ending.is_none()
    }

    /// The transport tells nothing more. It says why, or was told to end; else it has failed itself.
    pub(super) fn on_transport_end(&mut self) {
        self.unlinked = true;
        self.link = None;
        if let Some(closing) = &mut self.closing {
            closing.deadline = closing.deadline.min(now());
        } else if self.peer_ending.is_none() {
            let why = "the connection's task failed; this is a bug, please report it".to_owned();
            self.tell(StatusEvent::Error(Some(why)));
            self.end(Ending::Internal, Farewell::Errory);
        }
    }

    fn on_transport_failure(&mut self, error: TransportError) {
        self.link = None;
        self.frame = None;
        if let Some(closing) = &mut self.closing {
            // No other link will come: what is not delivered now never will be.
            closing.deadline = closing.deadline.min(now());
            return;
        }
        if self.peer_ending.is_some() {
            return;
        }
        let (hop, why) = (error.hop(), Some(error.to_string()));
        match error {
            TransportError::LegacyEnd => {
                self.peer_closed(Ending::Done, StatusEvent::PeerClosed(Some("the peer has gone".into())));
                return;
            }
            TransportError::NameplateLost => self.tell(StatusEvent::NameplateLost(why)),
            TransportError::Unreachable { .. }
            | TransportError::Refused(_)
            | TransportError::EndedEarly
            | TransportError::FrameTooSmall { .. } => {
                self.tell(StatusEvent::ConnectionFailed { hop, detail: why });
            }
        }
        self.end(Ending::Unreachable, Farewell::Errory);
    }

    /// A fault ends the channel; the session has turned to its close and says why. Also while this end drains: who is
    /// attacked always says so.
    pub(super) fn check(&mut self, taken: Result<(), SessionError>) {
        let Err(error) = taken else { return };
        if self.closing.is_some_and(|closing| closing.said) {
            return;
        }
        let why = format!("{error}; this channel ends, open a new one");
        self.session.close(CloseReason::Internal, now());
        let ending = match error {
            SessionError::Tampered => {
                self.tell(StatusEvent::Tampered(Some(why)));
                Ending::Protocol
            }
            SessionError::Peer(_) => {
                self.tell(StatusEvent::PeerError(Some(why)));
                Ending::Protocol
            }
            SessionError::FrameLimit => {
                self.tell(StatusEvent::ConnectionFailed { hop: Hop::Relay, detail: Some(why) });
                Ending::Unreachable
            }
            SessionError::UsedUp => {
                self.tell(StatusEvent::Error(Some(error.to_string())));
                Ending::Done
            }
        };
        self.store.deafen();
        self.hush();
        self.phase(Phase::Closing);
        self.closing = Some(Closing { ending, deadline: now(), idle: true, settled_by: None, said: true });
    }
}

/// Content of a frame of this length, to be kept. A slice keeps its whole frame in memory: what is short beside it is
/// copied, or a peer that fills its frames with nothing would take a thousand times what it was granted.
pub(super) fn detached(bytes: Bytes, frame: usize) -> Bytes {
    if bytes.len() < frame / 2 { Bytes::copy_from_slice(&bytes) } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_content_does_not_keep_a_long_frame() {
        let frame = Bytes::from(vec![7; 64]);
        for (length, copied) in [(0, true), (1, true), (31, true), (32, false), (64, false)] {
            let slice = frame.slice(..length);
            let kept = detached(slice.clone(), frame.len());
            assert_eq!((kept.as_ptr() != slice.as_ptr(), &kept), (copied, &slice), "{length}");
        }
    }
}
