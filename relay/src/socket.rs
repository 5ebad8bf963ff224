//! One websocket from hello to close.
//!
//! Owns the order of messages, the clocks of one socket (hello, ping, silence) and the close codes. Frames wait in the
//! exchange, never here, except the one that has no room yet. One task for each socket: reading, writing and waiting
//! are polled side by side, so a socket that cannot be written is still read.

mod hearing;
mod hello;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep_until};

use self::hearing::Hearing;
use self::hello::Taken;
use crate::exchange::{Due, Ended, Exchange, Pushed, Refusal, Seated};
use crate::rules::Source;
use crate::server::{Registered, Shared};
use crate::websocket::{Allotment, Fault, Incoming, Websocket};
use crate::wire::{
    ClientMessage, ErrorCode, Limits, Mood, PING_EVERY_SECS, Role, ServerMessage, Status, Welcome,
};

/// The relay pings this often.
const PING_EVERY: Duration = Duration::from_secs(PING_EVERY_SECS);
/// Pings in a row without a byte from a socket that is read, after which it is dead: 30 s.
const SILENT_PINGS: u32 = 3;
/// Pings in a row without a byte in either direction while output waits, after which a socket is dead even if it is not
/// read: 60 s. Otherwise two ends that are gone, with their queues full, would hold each other's connection.
const STUCK_PINGS: u32 = 6;
/// Close code of a websocket whose purpose is fulfilled.
const NORMAL: u16 = 1000;
/// Close code of a client that ends.
const GOING_AWAY: u16 = 1001;
/// Bytes of frames that are read, so that pings behind them are answered, while the store is being waited for: this and
/// the frame that goes beyond it.
const STASH: usize = 64 << 10;
/// ... and messages.
const STASHED: usize = 64;

/// Why a websocket ends.
#[derive(Debug)]
enum Ending {
    /// The client said `bye`.
    Bye(Mood),
    /// The client closed, with this code. It may resume.
    Closed(Option<u16>),
    /// No byte for 30 s, or for 60 s if it is not read and takes nothing.
    Silent,
    /// No hello in time.
    NoHello,
    /// The client is refused.
    Refused(ErrorCode),
    /// The store took the seat away.
    Ended(Ended),
    /// The connection broke, or the client broke the websocket protocol or a length limit.
    Fault(Fault),
    /// The store is away.
    Away,
    /// A third party: it is told what somebody is told who joins nobody.
    Crowded,
    /// The relay stops.
    Stopping,
    /// The relay stops, the client was told, and its moment has come.
    Drained,
}

impl Ending {
    /// The close code and reason; `None` where the client has closed already or nobody is there to hear it. The reasons
    /// are for people who read traces.
    fn close(&self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Closed(_) | Self::Silent | Self::Fault(Fault::Gone) => return None,
            Self::Bye(_) => (1000, "bye"),
            Self::NoHello => (1008, "no hello in time"),
            Self::Refused(_) | Self::Crowded => (1008, "refused"),
            Self::Ended(Ended::Replaced) => (4001, "resumed elsewhere"),
            Self::Ended(Ended::Released) => (4002, "released"),
            Self::Ended(Ended::Over) => (4003, "the channel ended"),
            Self::Ended(Ended::Forgot) => (1012, "the store forgot"),
            Self::Away => (1012, "the store is away"),
            Self::Fault(Fault::Protocol) => (1002, "protocol error"),
            Self::Fault(Fault::TooLong) => (1009, "too long"),
            Self::Fault(Fault::NotText) => (1007, "not UTF-8"),
            Self::Stopping | Self::Drained => (1012, "going away"),
        })
    }

    /// The text before the close.
    fn last_words(&self) -> Option<String> {
        match self {
            Self::Refused(code) => Some(refusal(*code)),
            Self::Crowded => Some(refusal(ErrorCode::UnableToJoin)),
            Self::Stopping => Some(ServerMessage::Status(Status::GoingAway).encode()),
            Self::Bye(_)
            | Self::Closed(_)
            | Self::Silent
            | Self::NoHello
            | Self::Ended(_)
            | Self::Fault(_)
            | Self::Away
            | Self::Drained => None,
        }
    }
}

impl From<Ended> for Ending {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Code(code) => Self::Refused(code),
            Refusal::Crowded => Self::Crowded,
            Refusal::Away => Self::Away,
        }
    }
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Runs one websocket to its end.
pub(crate) async fn run<E: Exchange>(mut ws: Websocket, source: Source, shared: Arc<Shared<E>>) {
    let registered = shared.register();
    let (ending, hears) = match hello::take_seat(&mut ws, source, &shared, &registered).await {
        Ok(taken) => {
            let hears = taken.hearing == Hearing::All;
            (converse(&mut ws, taken, source, &shared, &registered).await, hears)
        }
        Err(ending) => (ending, true),
    };
    tracing::debug!(?ending, "a websocket ends");
    match ending {
        Ending::Refused(code) => shared.events.refused(code, source),
        Ending::Crowded => shared.events.crowded(source),
        _ => {}
    }
    drop(registered);
    match (ending.close(), ending) {
        (Some((code, reason)), ending) => {
            ws.close(ending.last_words().filter(|_| hears), code, reason).await;
        }
        (None, Ending::Closed(_)) => ws.answer_close().await,
        (None, _) => {}
    }
}

/// The text of a refusal.
fn refusal(code: ErrorCode) -> String {
    ServerMessage::Error { code, message: words(code).to_owned() }.encode()
}

/// What a refusal says to people who read traces, and to clients of 0.1.5, which know some of these words.
fn words(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UnableToJoin => "unable to join channel",
        ErrorCode::NameplateLost => "the nameplate is not yours any more",
        ErrorCode::UnableToResume => "there is no such seat to resume",
        ErrorCode::TooManyChannels => "too many channels",
        ErrorCode::TooManyFailedJoins => "rate limited",
        ErrorCode::Busy => "the relay is full",
        ErrorCode::BadMessage => "not a message of this protocol, or not at this place",
        ErrorCode::Unknown => "refused",
    }
}

/// What the socket's task is woken for.
enum Event {
    /// Something about the seat changed, or the relay stops.
    Bell,
    /// All that was queued is written: this many frames.
    Written(usize),
    /// Time for a ping.
    Tick,
    /// The rate limit lets the next frame go.
    Again,
    /// The client said something.
    Incoming(Incoming),
}

/// A seated socket.
struct Conversation<'a, E: Exchange> {
    ws: &'a mut Websocket,
    shared: &'a Shared<E>,
    registered: &'a Registered<'a, E>,
    hold: &'a E::Hold,
    /// Which end it is.
    role: Role,
    source: Source,
    /// What may be said to it.
    hearing: Hearing,
    /// The frame that waits for room: the socket is not read meanwhile.
    parked: Option<Bytes>,
    /// What was read while the store was being waited for.
    stash: VecDeque<Incoming>,
    /// Bytes of frames in there.
    stashed: usize,
    /// The connection broke meanwhile: that is judged after what was read before.
    fault: Option<Fault>,
    /// Frames that were written meanwhile.
    flushed: Option<usize>,
    /// Frames that were written and that the store may not know of.
    unsettled: usize,
    /// Frames popped and not reported as written.
    in_flight: usize,
    ping: Interval,
    /// When the rate limit lets the next frame go.
    again: Option<Pin<Box<Sleep>>>,
    /// Bytes received at the last ping.
    received: u64,
    /// Bytes sent at the last ping.
    sent: u64,
    /// Pings without a byte received since.
    silent: u32,
    /// Pings without a byte received or sent since, while output waited.
    stuck: u32,
    /// The relay stops and the client was told: its moment.
    closing: Option<Pin<Box<Sleep>>>,
    /// Whose turn it is to be polled first, of reading and writing.
    read_first: bool,
}

/// From the first answer to the end.
async fn converse<E: Exchange>(
    ws: &mut Websocket,
    Taken { role, hearing, seated }: Taken<E::Hold>,
    source: Source,
    shared: &Shared<E>,
    registered: &Registered<'_, E>,
) -> Ending {
    ws.seat(Allotment {
        reading: shared.reading.clone(),
        writing: shared.writing.clone(),
        source,
        bell: registered.bell.clone(),
    });
    let _counted = shared.events.metrics().seated();
    if hearing == Hearing::All {
        ws.send_text(ServerMessage::Welcome(welcome(&seated, shared)).encode());
    }
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut conversation = Conversation {
        received: ws.received(),
        sent: ws.sent(),
        ws,
        shared,
        registered,
        hold: &seated.hold,
        role,
        source,
        hearing,
        parked: None,
        stash: VecDeque::new(),
        stashed: 0,
        fault: None,
        flushed: None,
        unsettled: 0,
        in_flight: 0,
        ping,
        again: None,
        silent: 0,
        stuck: 0,
        closing: None,
        read_first: false,
    };
    let ending = match conversation.run().await {
        Ok(never) => match never {},
        Err(ending) => ending,
    };
    let unsettled = conversation.unsettled + conversation.flushed.unwrap_or(0);
    let now = Instant::now().into_std();
    match ending {
        Ending::Bye(mood) => {
            shared.events.left(mood, source);
            shared.exchange.bye(seated.hold, mood, now).await;
        }
        // A client of 0.1.5 knows no other goodbye.
        Ending::Closed(Some(NORMAL | GOING_AWAY)) if hearing != Hearing::All => {
            shared.events.left(Mood::Happy, source);
            shared.exchange.bye(seated.hold, Mood::Happy, now).await;
        }
        _ => shared.exchange.leave(seated.hold, unsettled + ws.take_written(), now).await,
    }
    ending
}

fn welcome<E: Exchange>(seated: &Seated<E::Hold>, shared: &Shared<E>) -> Welcome {
    Welcome {
        nameplate: seated.nameplate.map(|nameplate| nameplate.to_string()),
        seat: seated.seat,
        boot: seated.boot,
        limits: limits(shared),
        notice: None,
    }
}

fn limits<E>(shared: &Shared<E>) -> Limits {
    let options = &shared.options;
    Limits {
        max_frame: options.max_frame as u64,
        messages_per_minute: options.messages_per_minute,
        bytes_per_minute: options.bytes_per_minute,
        idle_secs: options.idle.as_secs(),
    }
}

impl<E: Exchange> Conversation<'_, E> {
    async fn run(&mut self) -> Result<std::convert::Infallible, Ending> {
        self.pop(0).await?;
        loop {
            match poll_fn(|cx| self.poll_event(cx)).await? {
                Event::Bell => self.look().await?,
                Event::Written(frames) => self.pop(frames).await?,
                Event::Tick => self.tick().await?,
                Event::Again => self.pop(0).await?,
                Event::Incoming(incoming) => self.handle(incoming).await?,
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Ending>> {
        if let Poll::Ready(ending) = self.poll_drain(cx) {
            return Poll::Ready(Err(ending));
        }
        if self.registered.bell.poll_rung(cx).is_ready() {
            return Poll::Ready(Ok(Event::Bell));
        }
        if self.ping.poll_tick(cx).is_ready() {
            return Poll::Ready(Ok(Event::Tick));
        }
        if self.again.as_mut().is_some_and(|again| again.as_mut().poll(cx).is_ready()) {
            self.again = None;
            return Poll::Ready(Ok(Event::Again));
        }
        self.read_first = !self.read_first;
        if self.read_first
            && let Poll::Ready(event) = self.poll_read(cx)
        {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = self.poll_write(cx) {
            return Poll::Ready(event);
        }
        if !self.read_first
            && let Poll::Ready(event) = self.poll_read(cx)
        {
            return Poll::Ready(event);
        }
        // Reading may have queued a pong after writing was polled.
        self.poll_write(cx)
    }

    /// Ready once a relay that stops has come to this socket. The client is told when that begins.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let drain = &self.shared.drain;
        if let Some(closing) = &mut self.closing {
            return if drain.is_over() { Poll::Ready(()) } else { closing.as_mut().poll(cx) }
                .map(|()| Ending::Drained);
        }
        if !drain.is_begun() {
            return Poll::Pending;
        }
        match drain.moment(self.shared.exchange.slot(self.hold)).filter(|at| *at > Instant::now()) {
            Some(at) if !drain.is_over() => {
                if self.hearing == Hearing::All {
                    self.ws.send_text(ServerMessage::Status(Status::GoingAway).encode());
                }
                self.closing.insert(Box::pin(sleep_until(at))).as_mut().poll(cx).map(|()| Ending::Drained)
            }
            _ => Poll::Ready(Ending::Stopping),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Ending>> {
        if self.parked.is_some() {
            return self.fault.map_or(Poll::Pending, |fault| Poll::Ready(Err(fault.into())));
        }
        if let Some(incoming) = self.stash.pop_front() {
            if let Incoming::Frame(frame) = &incoming {
                self.stashed -= frame.len();
            }
            return Poll::Ready(Ok(Event::Incoming(incoming)));
        }
        if let Some(fault) = self.fault {
            return Poll::Ready(Err(fault.into()));
        }
        self.ws.poll_incoming(cx).map_ok(Event::Incoming).map_err(Ending::from)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Ending>> {
        if let Some(frames) = self.flushed.take() {
            return Poll::Ready(Ok(Event::Written(frames)));
        }
        if !self.ws.is_writing() || self.fault.is_some() {
            return Poll::Pending;
        }
        match self.ws.poll_flush(cx) {
            Poll::Ready(Err(fault)) if !self.stash.is_empty() => {
                self.fault = Some(fault);
                // What was read before is next.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            flushed => flushed.map_ok(Event::Written).map_err(Ending::from),
        }
    }

    /// Waits for the store. A shared one may take its time, which the client must not notice: it is pinged and answered,
    /// and what was queued for it is written. Where the store is `told` what the client said, an end of the connection
    /// waits for that, and for what was read after it: who says its last words and goes is heard.
    async fn attend<T>(&mut self, told: bool, asked: impl Future<Output = T>) -> Result<T, Ending> {
        let mut asked = pin!(asked);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            self.poll_meanwhile(told, cx).map(Err)
        })
        .await
    }

    /// Ready with what ends the websocket while the store is being waited for.
    fn poll_meanwhile(&mut self, told: bool, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Poll::Ready(ending) = self.poll_drain(cx) {
            return Poll::Ready(ending);
        }
        while self.ping.poll_tick(cx).is_ready() {
            self.ws.send_ping();
        }
        let at_once = |stash: &VecDeque<Incoming>| !told && stash.is_empty();
        while self.may_stash() {
            match self.ws.poll_incoming(cx) {
                Poll::Ready(Ok(Incoming::Closed(code))) if at_once(&self.stash) => {
                    return Poll::Ready(Ending::Closed(code));
                }
                Poll::Ready(Ok(incoming)) => {
                    if let Incoming::Frame(frame) = &incoming {
                        self.stashed += frame.len();
                    }
                    self.stash.push_back(incoming);
                }
                Poll::Ready(Err(fault)) => self.fault = Some(fault),
                Poll::Pending => break,
            }
        }
        if self.ws.is_writing() && self.fault.is_none() {
            match self.ws.poll_flush(cx) {
                Poll::Ready(Ok(frames)) => self.flushed = Some(self.flushed.unwrap_or(0) + frames),
                Poll::Ready(Err(fault)) => self.fault = Some(fault),
                Poll::Pending => {}
            }
        }
        match self.fault.filter(|_| at_once(&self.stash)) {
            Some(fault) => Poll::Ready(fault.into()),
            None => Poll::Pending,
        }
    }

    /// Whether more may be read while the store is being waited for. Nothing comes after a close.
    fn may_stash(&self) -> bool {
        let closed = matches!(self.stash.back(), Some(Incoming::Closed(_)));
        let room = self.stashed < STASH && self.stash.len() < STASHED;
        self.parked.is_none() && self.fault.is_none() && room && !closed
    }

    /// The seat changed: what waited may fit, and something may be due.
    async fn look(&mut self) -> Result<(), Ending> {
        if let Some(frame) = self.parked.take() {
            self.push(frame).await?;
        }
        self.pop(0).await
    }

    async fn tick(&mut self) -> Result<(), Ending> {
        let (received, sent) = (self.ws.received(), self.ws.sent());
        let quiet = received == self.received;
        let unread = self.parked.is_some() || self.ws.is_waiting();
        let stuck = quiet && sent == self.sent && self.ws.is_stuck();
        (self.received, self.sent) = (received, sent);
        self.silent = if quiet && !unread { self.silent + 1 } else { 0 };
        self.stuck = if stuck { self.stuck + 1 } else { 0 };
        if self.silent >= SILENT_PINGS || self.stuck >= STUCK_PINGS {
            return Err(Ending::Silent);
        }
        self.ws.send_ping();
        // A wake-up that got lost is made good here.
        self.look().await
    }

    /// Queues what is due, unless frames are still being written.
    async fn pop(&mut self, written: usize) -> Result<(), Ending> {
        self.in_flight -= written.min(self.in_flight);
        self.unsettled += written;
        if self.in_flight > 0 {
            return Ok(());
        }
        let shared = self.shared;
        let asked = shared.exchange.pop(self.hold, self.unsettled, Instant::now().into_std());
        let due = self.attend(false, asked).await??;
        self.unsettled = 0;
        let Due { statuses, frames, again } = due;
        // Both ends are told, once in a pairing; it counts once.
        if self.role == Role::Host && statuses.contains(&Status::Throttled) {
            self.shared.events.throttled(self.source);
        }
        for text in self.hearing.texts(statuses) {
            self.ws.send_text(text);
        }
        self.in_flight = frames.len();
        shared.events.metrics().forwarded(&frames);
        for frame in frames {
            self.ws.send_frame(frame);
        }
        self.again = again.map(|at| Box::pin(sleep_until(at.into())));
        Ok(())
    }

    async fn handle(&mut self, incoming: Incoming) -> Result<(), Ending> {
        match incoming {
            Incoming::Frame(frame) => self.push(frame).await,
            Incoming::Closed(code) => Err(Ending::Closed(code)),
            Incoming::Text(text) => match ClientMessage::decode(&text) {
                Ok(ClientMessage::Bye { mood }) => Err(Ending::Bye(mood)),
                Ok(ClientMessage::Release) => self.release().await,
                Ok(
                    ClientMessage::Allocate
                    | ClientMessage::Join { .. }
                    | ClientMessage::JoinCode(_)
                    | ClientMessage::Resume(_),
                )
                | Err(_) => Err(Ending::Refused(ErrorCode::BadMessage)),
            },
        }
    }

    async fn push(&mut self, frame: Bytes) -> Result<(), Ending> {
        let shared = self.shared;
        let asked = shared.exchange.push(self.hold, frame, Instant::now().into_std());
        match self.attend(true, asked).await?? {
            Pushed::Taken => Ok(()),
            Pushed::Full(frame) => {
                self.parked = Some(frame);
                Ok(())
            }
            Pushed::Unpaired => Err(Ending::Refused(ErrorCode::BadMessage)),
        }
    }

    async fn release(&mut self) -> Result<(), Ending> {
        let shared = self.shared;
        let asked = shared.exchange.release(self.hold, Instant::now().into_std());
        if !self.attend(true, asked).await?? {
            return Err(Ending::Refused(ErrorCode::NameplateLost));
        }
        self.ws.discard_frames();
        self.flushed = None;
        (self.in_flight, self.unsettled) = (0, 0);
        self.pop(0).await
    }
}
