//! The task behind a direct transport.
//!
//! Owns which connection is in use, what its end means at each point of a channel's life, and what is told to the
//! driver. One loop; every wait is an arm of its `select!`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::transport::outbox::Outbox;
use crate::transport::{
    Control, LinkLimits, MAX_FRAME, MAX_LEGACY_FRAME, OutFrame, TransportEnds, TransportError, TransportEvent,
};

use super::LINK_SILENCE;
use super::dialer::Dialer;
use super::door::{Door, Exam};
use super::link::{Candidate, Happening, Link, Stage};

/// Sending what is left at the end takes this long at most.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// Where connections come from.
pub(super) enum Source {
    /// The host's listener.
    Door(Door),
    /// The peer's attempts.
    Dialer(Dialer),
    /// Nowhere any more: a 0.1 peer has one connection.
    Shut,
}

/// How far the channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody has proved anything.
    Unproven,
    /// With a protocol-2 peer.
    Proven,
    /// With a 0.1 peer.
    Legacy,
}

/// The state of the loop.
pub(super) struct Supervisor {
    events: Outbox,
    frames: mpsc::Receiver<OutFrame>,
    control: mpsc::UnboundedReceiver<Control>,
    source: Source,
    /// Why the source's attempts do not succeed.
    reasons: mpsc::Receiver<String>,
    link: Option<Link>,
    /// Number of the last link.
    number: u64,
    phase: Phase,
    /// An unproven link has ended; what comes next waits until the driver has seen that, so that a decision about the
    /// old link is never taken for one about the new.
    settling: bool,
}

/// The loop goes on, or it ends: with a reason for the driver, or because the driver said so.
type Step = ControlFlow<Option<TransportError>>;

impl Supervisor {
    pub(super) fn new(ends: TransportEnds, source: Source, reasons: mpsc::Receiver<String>) -> Self {
        Self {
            events: Outbox::new(ends.events),
            frames: ends.frames,
            control: ends.control,
            source,
            reasons,
            link: None,
            number: 0,
            phase: Phase::Unproven,
            settling: false,
        }
    }

    /// Runs until the driver closes, or nothing more can come.
    pub(super) async fn run(mut self) {
        loop {
            if let ControlFlow::Break(failure) = self.step().await {
                self.end(failure).await;
                return;
            }
        }
    }

    async fn step(&mut self) -> Step {
        let Self { events, frames, control, source, reasons, link, phase, settling, .. } = self;
        let (waits, linked, settling) = (events.waits(), link.is_some(), *settling);
        tokio::select! {
            said = control.recv() => self.obey(said),
            () = events.flush(settling), if waits || settling => {
                if settling { self.settle() } else { ControlFlow::Continue(()) }
            }
            happening = happening(link, frames, !waits) => self.note(happening),
            Some(why) = reasons.recv(), if !waits => {
                if !linked {
                    events.put(TransportEvent::Down { why });
                }
                ControlFlow::Continue(())
            }
            found = source.next(linked, *phase), if !settling => match found {
                Ok(candidate) => {
                    self.raise(candidate);
                    ControlFlow::Continue(())
                }
                Err(e) => ControlFlow::Break(Some(e)),
            },
        }
    }

    fn obey(&mut self, said: Option<Control>) -> Step {
        match said {
            // Whoever drops its side of the transport is done with it.
            None => return ControlFlow::Break(None),
            Some(Control::Close(_)) => return ControlFlow::Break(None),
            Some(Control::Release) => {
                if self.phase == Phase::Unproven {
                    self.lower("the other end did not prove itself".into());
                }
            }
            Some(Control::Proven(key)) => {
                self.phase = Phase::Proven;
                match &mut self.source {
                    Source::Door(door) => door.examine(Exam::Resume(Arc::new(key))),
                    Source::Dialer(dialer) => dialer.resume_with(key),
                    Source::Shut => {}
                }
                if let Some(link) = &mut self.link {
                    link.open(MAX_FRAME, Some(LINK_SILENCE));
                }
            }
            Some(Control::ProvenLegacy) => {
                self.phase = Phase::Legacy;
                self.source = Source::Shut;
                match &mut self.link {
                    Some(link) => {
                        link.open(MAX_LEGACY_FRAME, None);
                        link.tell_drained();
                    }
                    None => return ControlFlow::Break(Some(TransportError::LegacyEnd)),
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The driver has seen that the unproven link is gone, and all that it decided about it is here.
    fn settle(&mut self) -> Step {
        while let Ok(said) = self.control.try_recv() {
            self.obey(Some(said))?;
        }
        self.settling = false;
        if self.phase == Phase::Unproven && matches!(self.source, Source::Dialer(_)) {
            return ControlFlow::Break(Some(TransportError::EndedEarly));
        }
        ControlFlow::Continue(())
    }

    fn note(&mut self, happening: Happening) -> Step {
        match happening {
            Happening::Frame(frame) => self.events.put(TransportEvent::Frame(frame)),
            Happening::Drained(frames) => {
                self.events.put(TransportEvent::Drained { link: self.number, frames });
            }
            Happening::Ended(end) => {
                tracing::debug!(link = self.number, %end, "a link ended");
                if self.phase == Phase::Legacy {
                    return ControlFlow::Break(Some(TransportError::LegacyEnd));
                }
                self.lower(end.to_string());
            }
        }
        ControlFlow::Continue(())
    }

    /// A connection is the link from now on, in place of what was.
    fn raise(&mut self, candidate: Candidate) {
        self.lower("a new connection of the same channel took its place".into());
        self.number += 1;
        let Candidate { reader, writer, shown } = candidate;
        let greeted = !shown.is_empty();
        let stage = if greeted { Stage::Verdict } else { Stage::Spake };
        let mut link = Link::new(self.number, reader, writer, stage);
        if self.phase == Phase::Proven {
            link.open(MAX_FRAME, Some(LINK_SILENCE));
        }
        let limits = LinkLimits { max_frame: MAX_FRAME, messages_per_minute: 0, relayed: false };
        self.events.put(TransportEvent::Up { link: link.number(), limits, greeted });
        for frame in shown {
            self.events.put(TransportEvent::Frame(frame));
        }
        self.link = Some(link);
    }

    /// The link, if there is one, is no more.
    fn lower(&mut self, why: String) {
        if self.link.take().is_some() {
            self.events.put(TransportEvent::Down { why });
            self.settling = self.phase == Phase::Unproven;
        }
    }

    async fn end(mut self, failure: Option<TransportError>) {
        self.source = Source::Shut;
        match failure {
            Some(e) => {
                self.events.put(TransportEvent::Failed(e));
                self.events.flush(false).await;
            }
            None => {
                if let Some(mut link) = self.link.take() {
                    self.frames.close();
                    while let Ok(frame) = self.frames.try_recv() {
                        link.send(frame);
                    }
                    let _ = timeout(FAREWELL_TIME, link.finish()).await;
                }
            }
        }
    }
}

/// What happens on the link. Without one nothing does, and frames for earlier links go nowhere.
async fn happening(
    link: &mut Option<Link>,
    frames: &mut mpsc::Receiver<OutFrame>,
    deliver: bool,
) -> Happening {
    match link {
        Some(link) => link.next(frames, deliver).await,
        None => {
            while frames.recv().await.is_some() {}
            std::future::pending().await
        }
    }
}

impl Source {
    /// The next connection, if one is wanted now. The door is kept in any case.
    async fn next(&mut self, linked: bool, phase: Phase) -> Result<Candidate, TransportError> {
        match self {
            // A proven peer that dials again knows better than we whether the old connection still lives.
            Self::Door(door) => Ok(door.next(!linked || phase == Phase::Proven).await),
            Self::Dialer(dialer) if !linked => dialer.next().await,
            Self::Dialer(_) | Self::Shut => std::future::pending().await,
        }
    }
}
