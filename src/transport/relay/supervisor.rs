//! The task behind a transport through a relay.
//!
//! Owns the seat through all drops, what each of them means at this point of the channel's life, and what is told to
//! the driver. One loop; every wait is an arm of its `select!`.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_wormhole_relay::wire::{ClientMessage, ErrorCode, Id, Mood, Role, ServerMessage, Status, Welcome};
use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

use crate::transport::outbox::Outbox;
use crate::transport::{
    Control, Farewell, LinkLimits, MAX_FRAME, MAX_LEGACY_FRAME, OutFrame, TransportEnds, TransportError,
    TransportEvent,
};

use super::endpoint::Endpoint;
use super::seat::{self, Seat};
use super::socket::{Incoming, Socket};

/// A 0.1 peer that lost its connection has this long to come back: it tries for 33 s.
const PEER_ABSENCE: Duration = Duration::from_secs(60);

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

type Attempt = Pin<Box<dyn Future<Output = Result<(Socket, Welcome), TransportError>> + Send>>;

/// The loop goes on, or it ends: with a reason for the driver, or as the driver said.
type Step = ControlFlow<Result<Farewell, TransportError>>;

/// The state of the loop.
pub(super) struct Supervisor {
    events: Outbox,
    frames: mpsc::Receiver<OutFrame>,
    control: mpsc::UnboundedReceiver<Control>,
    endpoint: Arc<Endpoint>,
    seat: Seat,
    limits: LinkLimits,
    /// The connection, while there is one.
    socket: Option<Socket>,
    /// The attempts to get another.
    attempt: Option<Attempt>,
    /// Why they do not succeed.
    reasons: mpsc::Receiver<String>,
    /// Where the attempts say so.
    reason: mpsc::Sender<String>,
    /// Number of the last link.
    number: u64,
    /// The driver believes that frames can flow.
    up: bool,
    /// A release that the relay was not told yet.
    releasing: bool,
    /// The driver was told of a delay on this connection: a relay cannot make it listen to more than one each.
    throttled: bool,
    /// The relay says that the other end's connection is gone: when a 0.1 peer is given up.
    given_up: Option<Pin<Box<Sleep>>>,
    phase: Phase,
}

impl Supervisor {
    /// On this socket, whose welcome gave this seat.
    pub(super) fn new(
        ends: TransportEnds,
        endpoint: Endpoint,
        seat: Seat,
        limits: LinkLimits,
        socket: Socket,
    ) -> Self {
        let (reason, reasons) = mpsc::channel(1);
        Self {
            events: Outbox::new(ends.events),
            frames: ends.frames,
            control: ends.control,
            endpoint: Arc::new(endpoint),
            seat,
            limits,
            socket: Some(socket),
            attempt: None,
            reasons,
            reason,
            number: 0,
            up: false,
            releasing: false,
            throttled: false,
            given_up: None,
            phase: Phase::Unproven,
        }
    }

    /// Runs until the driver closes, or nothing more can come.
    pub(super) async fn run(mut self) {
        loop {
            if let ControlFlow::Break(outcome) = self.step().await {
                self.end(outcome).await;
                return;
            }
        }
    }

    async fn step(&mut self) -> Step {
        let link = self.up.then_some(self.number);
        let legacy = self.phase == Phase::Legacy;
        let Self { events, frames, control, socket, attempt, reasons, given_up, .. } = self;
        let waits = events.waits();
        tokio::select! {
            said = control.recv() => self.obey(said),
            () = events.flush(false), if waits => ControlFlow::Continue(()),
            incoming = incoming(socket, frames, link, !waits) => self.note(incoming),
            Some(why) = reasons.recv(), if !waits => self.still_down(why),
            Some(()) = over(given_up), if legacy => ControlFlow::Break(Err(TransportError::LegacyEnd)),
            Some(found) = found(attempt) => {
                self.attempt = None;
                match found {
                    Ok((socket, welcome)) => self.seated(socket, &welcome),
                    Err(e) => ControlFlow::Break(Err(self.last_word(e))),
                }
            }
        }
    }

    fn obey(&mut self, said: Option<Control>) -> Step {
        match said {
            // Whoever drops its side of the transport is done with it.
            None => return ControlFlow::Break(Ok(Farewell::Errory)),
            Some(Control::Close(farewell)) => return ControlFlow::Break(Ok(farewell)),
            Some(Control::Release) if self.phase == Phase::Unproven => match self.seat.role {
                Role::Host if self.up || self.seat.channel.is_some() => {
                    self.releasing = true;
                    self.release();
                    self.lower("the other end did not prove itself");
                }
                Role::Host => {}
                Role::Peer => return ControlFlow::Break(Err(TransportError::EndedEarly)),
            },
            Some(Control::Release) => {}
            Some(Control::Proven(_)) => self.phase = Phase::Proven,
            Some(Control::ProvenLegacy) => {
                self.phase = Phase::Legacy;
                if !self.up {
                    return ControlFlow::Break(Err(TransportError::LegacyEnd));
                }
                if self.given_up.is_some() {
                    self.events.put(TransportEvent::PeerAway);
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Tells the relay of a release, now or when it is there again.
    fn release(&mut self) {
        if self.releasing
            && let Some(socket) = &mut self.socket
        {
            socket.say(ClientMessage::Release.encode());
            self.releasing = false;
            self.seat.channel = None;
        }
    }

    fn note(&mut self, incoming: Incoming) -> Step {
        match incoming {
            Incoming::Frame(frame) => self.deliver(frame),
            Incoming::Text(text) => match ServerMessage::decode(&text) {
                Ok(ServerMessage::Status(status)) => self.learn(&status),
                Ok(ServerMessage::Error { code: ErrorCode::NameplateLost, .. }) => {
                    ControlFlow::Break(Err(TransportError::NameplateLost))
                }
                // The socket closes next; what that means is known then.
                Ok(ServerMessage::Error { code, .. }) => {
                    tracing::debug!(?code, "the relay refused");
                    ControlFlow::Continue(())
                }
                // A newer relay may say what this client does not know.
                Ok(ServerMessage::Welcome(_)) | Err(_) => ControlFlow::Continue(()),
            },
            Incoming::Flushed { frames } => {
                if self.phase == Phase::Legacy && self.up && self.frames.is_empty() {
                    self.events.put(TransportEvent::Drained { link: self.number, frames });
                }
                ControlFlow::Continue(())
            }
            Incoming::Ended(why) => self.lost(why),
        }
    }

    fn deliver(&mut self, frame: BytesMut) -> Step {
        let longest = if self.phase == Phase::Legacy { MAX_LEGACY_FRAME } else { MAX_FRAME };
        if frame.len() > longest {
            return self.lost("the other end sent a frame that is too long");
        }
        // Between a release and the next pairing come the last frames of the one that was released.
        if self.up {
            self.events.put(TransportEvent::Frame(frame));
        }
        ControlFlow::Continue(())
    }

    fn learn(&mut self, status: &Status) -> Step {
        match status {
            Status::Paired { channel, boot } => self.paired(*channel, *boot),
            Status::Throttled => {
                if !std::mem::replace(&mut self.throttled, true) {
                    self.events.put(TransportEvent::Throttled);
                }
            }
            // A 0.1 peer has no other goodbye.
            Status::PeerLeft if self.phase == Phase::Legacy => {
                return ControlFlow::Break(Err(TransportError::LegacyEnd));
            }
            // Where a session has its own way to tell absence, it learns of it by the silence.
            Status::PeerAway => {
                if self.given_up.is_none() {
                    self.given_up = Some(Box::pin(sleep(PEER_ABSENCE)));
                    self.tell_legacy(TransportEvent::PeerAway);
                }
            }
            Status::PeerBack => {
                if self.given_up.take().is_some() {
                    self.tell_legacy(TransportEvent::PeerBack);
                }
            }
            // Only a sealed goodbye is one. The socket of a relay that is going away closes by itself.
            Status::PeerLeft | Status::GoingAway | Status::Unknown => {
                tracing::debug!(?status, "the relay said");
            }
        }
        ControlFlow::Continue(())
    }

    fn tell_legacy(&mut self, event: TransportEvent) {
        if self.phase == Phase::Legacy {
            self.events.put(event);
        }
    }

    fn paired(&mut self, channel: Id, boot: Id) {
        let known = self.seat.channel == Some(channel);
        // Past the proof there is one pairing, and the relay has no say in that.
        if self.phase != Phase::Unproven && !known {
            return;
        }
        self.seat.channel = Some(channel);
        self.seat.boot = boot;
        if !(known && self.up) {
            self.lower("the relay paired this channel anew");
            self.raise();
        }
    }

    /// The seat is ours again.
    fn seated(&mut self, socket: Socket, welcome: &Welcome) -> Step {
        match seat::limits(welcome) {
            Ok(limits) => self.limits = limits,
            Err(e) => return ControlFlow::Break(Err(e)),
        }
        self.seat.id = welcome.seat;
        self.seat.boot = welcome.boot;
        self.socket = Some(socket);
        self.throttled = false;
        self.given_up = None;
        if self.releasing {
            self.release();
        } else if self.seat.channel.is_some() {
            self.raise();
        }
        ControlFlow::Continue(())
    }

    /// The connection is of no use any more.
    fn lost(&mut self, why: &str) -> Step {
        tracing::debug!(why, "the connection to the relay ended");
        self.socket = None;
        if self.phase == Phase::Legacy {
            return ControlFlow::Break(Err(TransportError::LegacyEnd));
        }
        self.lower(why);
        let (seat, endpoint, reason) = (self.seat.clone(), Arc::clone(&self.endpoint), self.reason.clone());
        self.attempt = Some(Box::pin(async move { seat.resume(&endpoint, &reason).await }));
        ControlFlow::Continue(())
    }

    /// Why a proven channel is without a link for so long.
    fn still_down(&mut self, why: String) -> Step {
        if self.phase == Phase::Proven && self.attempt.is_some() {
            self.events.put(TransportEvent::Down { why });
        }
        ControlFlow::Continue(())
    }

    fn raise(&mut self) {
        self.number += 1;
        self.up = true;
        self.events.put(TransportEvent::Up { link: self.number, limits: self.limits, greeted: false });
    }

    fn lower(&mut self, why: &str) {
        if std::mem::take(&mut self.up) {
            self.events.put(TransportEvent::Down { why: why.to_owned() });
        }
    }

    /// A peer whose seat is gone before the proof was released by the host, or the host has ended.
    fn last_word(&self, e: TransportError) -> TransportError {
        if self.seat.role == Role::Peer
            && self.phase == Phase::Unproven
            && matches!(e, TransportError::Refused(_))
        {
            return TransportError::EndedEarly;
        }
        e
    }

    async fn end(mut self, outcome: Result<Farewell, TransportError>) {
        self.attempt = None;
        let mut left = Vec::new();
        let mood = match outcome {
            Ok(farewell) => {
                self.frames.close();
                while let Ok(frame) = self.frames.try_recv() {
                    if self.up && frame.link == self.number {
                        left.push(frame.bytes);
                    }
                }
                mood(farewell)
            }
            Err(e) => {
                self.events.put(TransportEvent::Failed(e));
                self.events.flush(false).await;
                Mood::Errory
            }
        };
        if let Some(socket) = self.socket.take() {
            socket.close(left, ClientMessage::Bye { mood }.encode()).await;
        }
        self.endpoint.retire().await;
    }
}

/// What comes on the socket. Without one nothing does, and frames for earlier links go nowhere.
async fn incoming(
    socket: &mut Option<Socket>,
    frames: &mut mpsc::Receiver<OutFrame>,
    link: Option<u64>,
    deliver: bool,
) -> Incoming {
    match socket {
        Some(socket) => socket.next(frames, link, deliver).await,
        None => {
            while frames.recv().await.is_some() {}
            std::future::pending().await
        }
    }
}

/// When a time is over, if one is running.
async fn over(time: &mut Option<Pin<Box<Sleep>>>) -> Option<()> {
    time.as_mut()?.await;
    Some(())
}

/// How the attempts end, if some are being made.
async fn found(attempt: &mut Option<Attempt>) -> Option<Result<(Socket, Welcome), TransportError>> {
    match attempt {
        Some(attempt) => Some(attempt.await),
        None => None,
    }
}

const fn mood(farewell: Farewell) -> Mood {
    match farewell {
        Farewell::Happy => Mood::Happy,
        Farewell::Lonely => Mood::Lonely,
        Farewell::Scary => Mood::Scary,
        Farewell::Errory => Mood::Errory,
    }
}
