//! The loop of one end: the only `select!`, the only clock.
//!
//! Owns the session and carries its decisions out: frames to the transport, content to the store, files from the
//! reader, lines to the journal. Decides nothing about the protocol. Sending is an arm of the loop, never a wait inside
//! another arm: two ends that are both full would wait for each other.

mod closing;
mod link;
mod screening;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::secret::{SharedVault, lock_vault};
use agent_wormhole_mount::{Content, Ctl, EntryId, LeftOut, Mailbox, OutboxEvent, Outcome};
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, error::TrySendError};

use self::closing::{Closing, DRAIN, PEER_CLOSED};
use self::link::detached;
use super::Ending;
use super::credit::Credit;
use super::noise::Noise;
use super::presence::Stored;
use super::reader::{Read, Reader};
use super::report::{Motion, Report};
use super::sending::{Ended, Sending};
use super::store::{Done, Job, Store};
use crate::event::escape::shortened;
use crate::event::state::{MAX_LISTED, Phase};
use crate::event::{MAX_FOREIGN_NAME, RefusedEvent, Side, StatusEvent, TransportKind};
use crate::frame::CloseReason;
use crate::item::{Feature, ItemId, ItemKind};
use crate::session::{Role, Session, SessionEvent};
use crate::transport::{Control, Farewell, MAX_LEGACY_FRAME, OutFrame, Transport};

/// `status.json` is written at most this often.
const STATUS: Duration = Duration::from_millis(200);
/// Where what is on the way stands still, `status.json` is written this often.
const STANDING: Duration = Duration::from_secs(1);

/// Where nothing is due the clock is looked at this often.
const NOTHING_DUE: Duration = Duration::from_secs(3600);
/// What a peer sent stays this long after it has closed, unless this end closes sooner: the inactivity limit.
const KEPT: Duration = Duration::from_secs(3600);

/// The driver's clock, which tests can stop. It stands still while the machine sleeps (`CLOCK_MONOTONIC`): the
/// inactivity limit counts waking hours, and a peer that was gone meanwhile is noticed after waking.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What happens outside of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Nobody reads standard output any more.
    Unread,
    /// SIGTERM or SIGHUP.
    Stop,
    /// SIGINT.
    Interrupt,
    /// What became of a secret is to be told.
    Secrets,
    /// A command has used the secret of this number.
    Used(u64),
}

/// What the driver listens to.
pub(super) struct Inputs {
    pub(super) outbox: UnboundedReceiver<OutboxEvent>,
    pub(super) done: UnboundedReceiver<Done>,
    pub(super) read: UnboundedReceiver<Read>,
    pub(super) notices: UnboundedReceiver<Notice>,
}

/// See the module.
pub(super) struct Driver {
    pub(super) session: Session,
    pub(super) transport: Transport,
    pub(super) mailbox: Arc<dyn Mailbox>,
    pub(super) store: Store,
    pub(super) reader: Reader,
    pub(super) kind: TransportKind,
    pub(super) report: Report,
    /// When the peer must have connected.
    pub(super) patience: Option<Instant>,
    pub(super) vault: SharedVault,
    sending: Sending,
    /// The link that is up.
    link: Option<u64>,
    frame: Option<Bytes>,
    /// Frames that were given to the transport for this link.
    given: u64,
    /// Length of the last frame that came.
    came: usize,
    connected: bool,
    closing: Option<Closing>,
    /// The session is over.
    over: bool,
    /// The transport has nothing more to tell.
    unlinked: bool,
    /// The transport is let go then: the peer has closed.
    let_go: Option<Instant>,
    peer_ending: Option<Ending>,
    status_at: Option<Instant>,
    throttled: bool,
    credit: Credit,
    /// Answers of the store that were taken.
    answers: u64,
    noise: Noise,
    /// What looks like a credential is not sent as plain content.
    block_secrets: bool,
    /// After the peer's close, this end closes by itself then.
    kept_until: Option<Instant>,
}

/// What a channel is made of.
pub(super) struct Parts {
    pub(super) session: Session,
    pub(super) transport: Transport,
    pub(super) mailbox: Arc<dyn Mailbox>,
    pub(super) store: Store,
    pub(super) reader: Reader,
    pub(super) kind: TransportKind,
    pub(super) report: Report,
    pub(super) patience: Option<Instant>,
    pub(super) block_secrets: bool,
    pub(super) vault: SharedVault,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            session,
            transport,
            mailbox,
            store,
            reader,
            kind,
            report,
            patience,
            block_secrets,
            vault,
        } = parts;
        Self {
            session,
            transport,
            mailbox,
            store,
            reader,
            kind,
            report,
            patience,
            block_secrets,
            vault,
            sending: Sending::default(),
            link: None,
            frame: None,
            given: 0,
            came: 0,
            connected: false,
            closing: None,
            over: false,
            unlinked: false,
            let_go: None,
            peer_ending: None,
            status_at: Some(now()),
            throttled: false,
            credit: Credit::default(),
            answers: 0,
            noise: Noise::new(now()),
            kept_until: None,
        }
    }

    /// Runs the channel to its end.
    pub(super) async fn run(&mut self, inputs: &mut Inputs) -> Ending {
        let sleep = tokio::time::sleep_until(now().into());
        tokio::pin!(sleep);
        let frames = self.transport.frames.clone();
        loop {
            self.pump();
            if self.over {
                return self.closing.map_or(Ending::Internal, |closing| closing.ending);
            }
            let at = self.next_time().unwrap_or_else(|| now() + NOTHING_DUE);
            sleep.as_mut().reset(at.into());
            tokio::select! {
                event = self.transport.events.recv(), if !self.unlinked && self.may_take() => match event {
                    Some(event) => self.on_transport(event),
                    None => self.on_transport_end(),
                },
                permit = frames.reserve(), if self.frame.is_some() && !self.unlinked => {
                    match (permit, self.frame.take(), self.link) {
                        (Ok(permit), Some(bytes), Some(link)) => {
                            permit.send(OutFrame { link, bytes });
                            self.given += 1;
                        }
                        // The transport has ended: its events say why.
                        (Err(_), ..) => self.link = None,
                        _ => {}
                    }
                }
                Some(event) = inputs.outbox.recv() => self.on_outbox(event),
                Some(done) = inputs.done.recv() => self.on_done(done),
                Some(read) = inputs.read.recv() => self.on_read(read),
                Some(notice) = inputs.notices.recv() => self.on_notice(notice),
                () = &mut sleep => self.on_time(),
            }
        }
    }

    /// Carries out what the session has decided, until it has nothing more.
    fn pump(&mut self) {
        loop {
            let now = now();
            while let Some(event) = self.session.poll_event() {
                self.on_session(event);
            }
            self.sending.pump(&mut self.session, &self.reader);
            if self.frame.is_none() && self.link.is_some() {
                self.frame = self.session.poll_transmit(now);
            }
            let Some((link, bytes)) = self.link.zip(self.frame.take()) else { break };
            match self.transport.frames.try_send(OutFrame { link, bytes }) {
                Ok(()) => self.given += 1,
                Err(TrySendError::Full(frame)) => {
                    self.frame = Some(frame.bytes);
                    break;
                }
                Err(TrySendError::Closed(_)) => {
                    self.link = None;
                    break;
                }
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.on_session(event);
        }
        self.advance_close();
    }

    fn next_time(&self) -> Option<Instant> {
        let closing = self.closing.filter(|closing| !closing.said);
        let closing = closing.map(|closing| closing.settled_by.unwrap_or(closing.deadline));
        let patience = self.patience.filter(|_| !self.connected && self.closing.is_none());
        let kept = self.kept_until.filter(|_| self.closing.is_none());
        let wiped = lock_vault(&self.vault).deadline();
        let own = [closing, patience, self.status_at, self.let_go, kept, self.noise.due(), wiped];
        own.into_iter().chain([self.session.poll_timeout()]).flatten().min()
    }

    fn on_time(&mut self) {
        let now = now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.session.poll_timeout()) {
            self.session.handle_timeout(now);
        }
        if passed(self.patience) && !self.connected && self.closing.is_none() {
            let why = match self.session.role() {
                Role::Host => "nobody connected in time; host again for a new code",
                Role::Peer => {
                    "the host did not answer in time; check that it is still there, or ask for a new code"
                }
            };
            self.tell(StatusEvent::Timeout(Some(why.into())));
            self.end(Ending::Timeout, Farewell::Lonely);
        }
        if passed(self.let_go) {
            self.let_go = None;
            self.farewell(Farewell::Happy);
        }
        if passed(self.kept_until) && self.closing.is_none() {
            self.idle("the peer closed an hour ago");
        }
        if passed(self.noise.due())
            && let Some((status, merged)) = self.noise.release(now)
        {
            if merged > 0 {
                self.tell(StatusEvent::Burst { count: merged });
            }
            self.tell(status);
        }
        if lock_vault(&self.vault).expire((now, SystemTime::now())) {
            self.changed();
        }
        if passed(self.status_at) {
            self.status_at = None;
            self.write_status();
        }
    }

    /// `status.json` is written soon.
    fn changed(&mut self) {
        let soon = now() + STATUS;
        self.status_at = Some(self.status_at.map_or(soon, |at| at.min(soon)));
    }

    /// Whether a frame more may come in. Of what comes after the goodbye nothing is kept.
    fn may_take(&self) -> bool {
        self.closing.is_some_and(|closing| closing.said) || self.store.has_room()
    }

    fn idle(&mut self, why: &str) {
        self.tell(StatusEvent::Timeout(Some(format!(
            "{why}; open a new channel where there is more to say"
        ))));
        self.close(Ending::Timeout, Duration::ZERO);
    }

    /// Tells what somebody else may cause as often as they like.
    fn murmur(&mut self, status: StatusEvent) {
        if let Some(status) = self.noise.pass(status, now()) {
            self.tell(status);
        }
        self.changed();
    }

    /// What waits to be told is not true any more: only its number is told.
    fn hush(&mut self) {
        let count = self.noise.forget();
        if count > 0 {
            self.tell(StatusEvent::Burst { count });
        }
    }

    fn write_status(&mut self) {
        let in_flight = self.sending.in_flight(&self.session, MAX_LISTED);
        let tells_opened = self.session.knows(Feature::Opened);
        self.report.heard(self.session.heard(), tells_opened, now());
        match self.report.render(in_flight, self.session.why_nothing_comes(), now()) {
            Ok(json) => self.store.write_status(json),
            Err(error) => tracing::warn!(%error, "status.json could not be rendered"),
        }
        self.status_at = match self.report.motion() {
            Motion::None => None,
            Motion::Standing => Some(now() + STANDING),
            Motion::Moving => Some(now() + STATUS),
        };
    }

    /// What an end that closes, or whose peer has closed, is doing does not change any more.
    fn phase(&mut self, phase: Phase) {
        let later = matches!(phase, Phase::Closing) || self.closing.is_none() && self.peer_ending.is_none();
        if !later {
            return;
        }
        self.report.phase(phase);
        self.changed();
    }

    fn tell(&mut self, status: StatusEvent) {
        self.store.tell(status);
        self.changed();
    }

    fn on_session(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Connected { protocol, agent, resume } => {
                let proof = resume.map_or(Control::ProvenLegacy, Control::Proven);
                self.on_connected(protocol, agent, proof);
            }
            SessionEvent::Unproven(why) => {
                // The transport has ended: there is nobody to drop.
                let _ = self.transport.control.send(Control::Release);
                self.murmur(StatusEvent::Waiting(Some(format!(
                    "somebody connected without the code ({why})"
                ))));
            }
            SessionEvent::HandshakeFailed(why) => {
                let why = format!("{why}; the code cannot be used again, host a new channel");
                self.tell(StatusEvent::HandshakeFailed(Some(why)));
                self.end(Ending::HandshakeFailed, Farewell::Scary);
            }
            SessionEvent::Opened(id) => self.sending.opened(id, &mut self.session, &self.reader),
            SessionEvent::Receipt { id, refused } => {
                let ended = self.sending.ended(id, refused, &self.reader);
                self.settled(ended);
            }
            SessionEvent::Read { id, at } => {
                self.report.opened(id, at);
                self.changed();
            }
            SessionEvent::Sent(id) => {
                let ended = self.sending.left(id);
                self.settled(ended);
            }
            SessionEvent::Head(incoming) if incoming.head.kind == ItemKind::Secret => {
                self.report.begin(&incoming);
                self.store.give_secret(incoming);
                self.changed();
            }
            SessionEvent::Head(mut incoming) => {
                for name in &mut incoming.pending {
                    *name = shortened(name, MAX_FOREIGN_NAME).into_owned();
                }
                incoming.head.inline = incoming.head.inline.map(|bytes| detached(bytes, self.came));
                self.report.begin(&incoming);
                self.store.give(incoming.head.lane(), Job::Begin(incoming));
                self.changed();
            }
            SessionEvent::Chunk { id, bytes, last } => {
                let (lane, bytes) = (self.report.lane(id), detached(bytes, self.came));
                self.store.give(lane, Job::Chunk { id, bytes, last });
            }
            SessionEvent::Cancelled { id, reason } => {
                let lane = self.report.lane(id);
                self.report.end(id, Err(reason));
                self.store.give(lane, Job::Drop(id, reason));
            }
            SessionEvent::PeerAway => {
                let why = "nothing heard for 45 seconds; what is sent waits";
                self.murmur(StatusEvent::PeerAway(Some(why.into())));
                self.phase(Phase::PeerAway);
            }
            SessionEvent::PeerBack => {
                self.murmur(StatusEvent::PeerBack(None));
                self.phase(Phase::Connected);
            }
            SessionEvent::Stalled(why) => self.murmur(StatusEvent::Stalled(Some(why.into()))),
            SessionEvent::Unreadable(why) => {
                self.murmur(StatusEvent::PeerError(Some(format!("{why}; it was left out"))));
            }
            SessionEvent::PeerClosed(reason) => self.on_peer_closed(reason),
            SessionEvent::Idle => self.idle("nothing was heard from the peer for an hour"),
            SessionEvent::Closed => self.farewell_and_end(),
        }
    }

    fn on_connected(&mut self, protocol: u8, agent: Option<String>, proof: Control) {
        self.connected = true;
        if matches!(proof, Control::ProvenLegacy) {
            self.report.limits(MAX_LEGACY_FRAME, 0);
        }
        // The transport has ended: it says so itself.
        let _ = self.transport.control.send(proof);
        self.report.peer(agent.as_deref().unwrap_or_default(), u32::from(protocol));
        // What there is to say of strangers is over.
        self.hush();
        self.tell(StatusEvent::Connected { transport: self.kind, protocol: u32::from(protocol) });
        self.phase(Phase::Connected);
        self.allow();
    }

    fn on_peer_closed(&mut self, reason: CloseReason) {
        let why = Some(reason.as_str().to_owned());
        match reason {
            CloseReason::Tampered => self.peer_closed(Ending::Protocol, StatusEvent::Tampered(why)),
            CloseReason::Protocol => self.peer_closed(Ending::Protocol, StatusEvent::PeerError(why)),
            CloseReason::Done
            | CloseReason::Stopped
            | CloseReason::UsedUp
            | CloseReason::Idle
            | CloseReason::Internal => self.peer_closed(Ending::Done, StatusEvent::PeerClosed(why)),
        }
    }

    /// What was received stays until this side closes; a fault ends both sides.
    fn peer_closed(&mut self, ending: Ending, status: StatusEvent) {
        self.hush();
        self.tell(status);
        self.phase(Phase::PeerClosed);
        self.peer_ending = Some(ending);
        self.let_go = Some(now() + PEER_CLOSED);
        self.kept_until = Some(now() + KEPT);
        // Whoever waits for a receipt waits no longer; the event says why, and `closed` names them.
        for entry in self.sending.abandon(&self.reader) {
            self.answer(entry, too_late());
        }
        if ending == Ending::Protocol || self.closing.is_some() {
            // Nothing more can be delivered: an own close has nothing to wait for.
            self.close(ending, Duration::ZERO);
        }
    }

    fn settled(&mut self, ended: Option<Ended>) {
        let Some(Ended { entry, name, id, outcome, sent, bytes, told }) = ended else { return };
        match &outcome {
            Outcome::Delivered | Outcome::Sent => self.report.delivered(bytes),
            Outcome::Refused(reason) => self.report.refused(&name, reason),
            Outcome::BrokenOff => {
                let reason = told.as_ref().map_or("broken off", |(_, reason)| reason);
                self.report.refused(&name, reason);
            }
            Outcome::Cancelled | Outcome::Changed => {}
        }
        if let Some((by, detail)) = told {
            let name = name.clone();
            self.tell(StatusEvent::Refused(RefusedEvent { by, id: Some(id.0), name, detail: Some(detail) }));
        }
        if let Some(sent) = sent {
            if outcome == Outcome::Delivered {
                let kind = sent.word();
                self.report.stored(Stored { id, kind, name, size: bytes });
            }
            self.store.sent(sent);
        }
        self.answer(entry, outcome);
    }

    fn answer(&mut self, entry: EntryId, outcome: Outcome) {
        self.credit.settled(entry);
        self.mailbox.settle(entry, outcome);
        self.allow();
        self.changed();
    }

    fn allow(&mut self) {
        let more = self.credit.grant();
        if more > 0 {
            self.mailbox.allow(more);
        }
    }

    fn on_outbox(&mut self, event: OutboxEvent) {
        match event {
            OutboxEvent::Offer(offer) => {
                let bytes = if let Content::Whole(bytes) = &offer.content { bytes.len() } else { 0 };
                self.credit.offered(offer.entry, bytes);
                if self.peer_ending.is_some() {
                    self.answer(offer.entry, too_late());
                    return;
                }
                if let Some(offer) = self.screen(offer) {
                    self.sending.offer(offer, &mut self.session);
                }
                self.allow();
                self.changed();
            }
            OutboxEvent::Withdraw { entry } => self.sending.withdraw(entry, &mut self.session, &self.reader),
            OutboxEvent::LeftOut(left_out) => {
                self.report.left_out(left_out);
                self.changed();
            }
            OutboxEvent::Resolved { name } => {
                self.report.resolved(&name);
                self.changed();
            }
            OutboxEvent::Opened { item } => self.session.opened(ItemId(item), millis()),
            OutboxEvent::Denied(LeftOut { name, reason }) => {
                let (by, id, detail) = (Side::Myself, None, Some(reason));
                self.tell(StatusEvent::Refused(RefusedEvent { by, id, name, detail }));
            }
            OutboxEvent::Ctl(Ctl::Close) => self.close(Ending::Done, DRAIN),
            OutboxEvent::Ctl(Ctl::CloseNow) => self.close(Ending::Done, Duration::ZERO),
            OutboxEvent::Idle => {
                if let Some(closing) = &mut self.closing {
                    closing.idle = true;
                }
            }
            OutboxEvent::Failed(error) => {
                let why = format!("the outbox cannot be watched any more ({error}); open a new channel");
                self.tell(StatusEvent::Error(Some(why)));
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        self.answers += 1;
        match done {
            Done::Accepted { id, upto } => {
                self.session.accepted(id, upto);
                self.report.accepted(id, upto);
            }
            Done::Stored { id, result } => {
                self.session.stored(id, result.map(drop));
                self.report.end(id, result);
                self.changed();
            }
            // The loop looks at it.
            Done::Room => {}
        }
    }

    fn on_read(&mut self, read: Read) {
        if let Read::Member { left_out, .. } = &read {
            for left_out in left_out {
                self.report.left_out(left_out.clone());
            }
        }
        let read = self.screen_member(read);
        self.sending.read(read, &mut self.session, &self.reader);
    }
}

/// Milliseconds since 1970.
fn millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What becomes of an entry that a peer has not stored when it closes.
fn too_late() -> Outcome {
    Outcome::Refused("the peer has closed".to_owned())
}
