//! One websocket from hello to close.
//!
//! Owns the order of messages, the clocks of one socket (hello, ping, silence) and the close codes. Frames wait in the
//! exchange, never here, except the one that has no room yet. One task for each socket: reading, writing and waiting
//! are polled side by side, so a socket that cannot be written is still read.

mod hearing;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{
    Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep_until, timeout, timeout_at,
};

use self::hearing::Hearing;
use crate::exchange::{Caller, Due, Ended, Exchange, Pushed, Refusal, Seated};
use crate::rules::{CodeHash, Nameplate, Source};
use crate::server::{Registered, Shared};
use crate::websocket::{Allotment, Fault, Incoming, Websocket};
use crate::wire::{ClientMessage, ErrorCode, Limits, Mood, PING_EVERY_SECS, ServerMessage, Status, Welcome};

/// The first message has to come within this time.
const HELLO: Duration = Duration::from_secs(10);
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
    /// The relay stops.
    Stopping,
}

impl Ending {
    /// The close code and reason; `None` where the client has closed already or nobody is there to hear it. The reasons
    /// are for people who read traces.
    fn close(&self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Closed(_) | Self::Silent | Self::Fault(Fault::Gone) => return None,
            Self::Bye(_) => (1000, "bye"),
            Self::NoHello => (1008, "no hello in time"),
            Self::Refused(_) => (1008, "refused"),
            Self::Ended(Ended::Replaced) => (4001, "resumed elsewhere"),
            Self::Ended(Ended::Released) => (4002, "released"),
            Self::Ended(Ended::Over) => (4003, "the channel ended"),
            Self::Ended(Ended::Forgot) => (1012, "the store forgot"),
            Self::Away => (1012, "the store is away"),
            Self::Fault(Fault::Protocol) => (1002, "protocol error"),
            Self::Fault(Fault::TooLong) => (1009, "too long"),
            Self::Fault(Fault::NotText) => (1007, "not UTF-8"),
            Self::Stopping => (1012, "going away"),
        })
    }

    /// The text before the close.
    fn last_words(&self) -> Option<String> {
        match self {
            Self::Refused(code) => {
                Some(ServerMessage::Error { code: *code, message: words(*code).to_owned() }.encode())
            }
            Self::Stopping => Some(ServerMessage::Status(Status::GoingAway).encode()),
            Self::Bye(_)
            | Self::Closed(_)
            | Self::Silent
            | Self::NoHello
            | Self::Ended(_)
            | Self::Fault(_)
            | Self::Away => None,
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
    let (ending, hears) = match hello(&mut ws, source, &shared, &registered).await {
        Ok((seated, hears)) => {
            (converse(&mut ws, seated, hears, source, &shared, &registered).await, hears == Hearing::All)
        }
        Err(ending) => (ending, true),
    };
    tracing::debug!(?ending, "a websocket ends");
    drop(registered);
    match (ending.close(), ending) {
        (Some((code, reason)), ending) => {
            ws.close(ending.last_words().filter(|_| hears), code, reason).await;
        }
        (None, Ending::Closed(_)) => ws.answer_close().await,
        (None, _) => {}
    }
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

/// Reads the first message and takes a seat.
async fn hello<E: Exchange>(
    ws: &mut Websocket,
    source: Source,
    shared: &Shared<E>,
    registered: &Registered<'_, E>,
) -> Result<(Seated<E::Hold>, Hearing), Ending> {
    let first = listen(ws, shared, registered);
    let text = match timeout(HELLO, first).await.unwrap_or(Err(Ending::NoHello))? {
        Incoming::Text(text) => text,
        Incoming::Closed(code) => return Err(Ending::Closed(code)),
        Incoming::Frame(_) => return Err(Ending::Refused(ErrorCode::BadMessage)),
    };
    let caller = Caller { source, bell: registered.bell.clone() };
    let now = Instant::now().into_std();
    let exchange = &shared.exchange;
    let mut hearing = Hearing::All;
    let seated = match ClientMessage::decode(&text) {
        Ok(ClientMessage::Allocate) => exchange.allocate(caller, now).await,
        Ok(ClientMessage::Join { nameplate }) => {
            let seated = exchange.join(&nameplate, caller, now).await;
            if matches!(seated, Err(Refusal::Code(ErrorCode::UnableToJoin))) {
                keep_back(ws, &nameplate, shared, registered).await?;
            }
            seated
        }
        Ok(ClientMessage::JoinCode(join)) => {
            hearing = if join.statuses { Hearing::All } else { Hearing::Once };
            let code = CodeHash::of(&join.code.0).filter(|_| shared.options.legacy_clients);
            match code {
                Some(code) => exchange.join_code(&code, join.role, caller, now).await,
                None => Err(ErrorCode::UnableToJoin.into()),
            }
        }
        Ok(ClientMessage::Resume(claim)) => exchange.resume(&claim, caller, now).await,
        Ok(ClientMessage::Release | ClientMessage::Bye { .. }) | Err(_) => Err(ErrorCode::BadMessage.into()),
    };
    Ok((seated?, hearing))
}

/// The next message of a client that has no seat, or the end.
async fn listen<E>(
    ws: &mut Websocket,
    shared: &Shared<E>,
    registered: &Registered<'_, E>,
) -> Result<Incoming, Ending> {
    poll_fn(|cx| {
        if registered.bell.poll_rung(cx).is_ready() && shared.stopping.load(Ordering::Acquire) {
            return Poll::Ready(Err(Ending::Stopping));
        }
        if let Poll::Ready(incoming) = ws.poll_incoming(cx) {
            return Poll::Ready(incoming.map_err(Ending::from));
        }
        if ws.is_writing() {
            // A pong at most. An error shows when reading.
            let _ = ws.poll_flush(cx);
        }
        Poll::Pending
    })
    .await
}

/// Waits before a failing join is answered, if many failed at its nameplate. The client is heard meanwhile, and what it
/// says changes nothing.
async fn keep_back<E>(
    ws: &mut Websocket,
    nameplate: &str,
    shared: &Shared<E>,
    registered: &Registered<'_, E>,
) -> Result<(), Ending> {
    // Who may fail without a limit may do so at once: the sessions of one machine.
    let Some(nameplate) = Nameplate::parse(nameplate).filter(|_| shared.options.failed_joins_per_minute > 0)
    else {
        return Ok(());
    };
    let now = Instant::now();
    let delay = shared.guesses().failed(nameplate, now.into_std());
    if delay.is_zero() {
        return Ok(());
    }
    let until = now + delay;
    loop {
        match timeout_at(until, listen(ws, shared, registered)).await {
            Err(_) => return Ok(()),
            Ok(Err(Ending::Stopping)) => return Err(Ending::Stopping),
            Ok(Ok(Incoming::Text(_) | Incoming::Frame(_))) => {}
            // How soon the end is noticed must not tell what the answer would have been.
            Ok(ended) => {
                sleep_until(until).await;
                return Err(ended.err().unwrap_or(Ending::Closed(None)));
            }
        }
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
    /// What may be said to it.
    hearing: Hearing,
    /// The frame that waits for room: the socket is not read meanwhile.
    parked: Option<Bytes>,
    /// What was read while the store was being waited for.
    stash: VecDeque<Incoming>,
    /// Bytes of frames in there.
    stashed: usize,
    /// Frames that were written meanwhile.
    flushed: Option<usize>,
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
    /// Whose turn it is to be polled first, of reading and writing.
    read_first: bool,
}

/// From the first answer to the end.
async fn converse<E: Exchange>(
    ws: &mut Websocket,
    seated: Seated<E::Hold>,
    hearing: Hearing,
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
        hearing,
        parked: None,
        stash: VecDeque::new(),
        stashed: 0,
        flushed: None,
        in_flight: 0,
        ping,
        again: None,
        silent: 0,
        stuck: 0,
        read_first: false,
    };
    let ending = match conversation.run().await {
        Ok(never) => match never {},
        Err(ending) => ending,
    };
    let now = Instant::now().into_std();
    match ending {
        Ending::Bye(mood) => shared.exchange.bye(seated.hold, mood, now).await,
        // A client of 0.1.5 knows no other goodbye.
        Ending::Closed(Some(NORMAL | GOING_AWAY)) if hearing != Hearing::All => {
            shared.exchange.bye(seated.hold, Mood::Happy, now).await;
        }
        _ => shared.exchange.leave(seated.hold, ws.take_written(), now).await,
    }
    ending
}

fn welcome<E: Exchange>(seated: &Seated<E::Hold>, shared: &Shared<E>) -> Welcome {
    Welcome {
        nameplate: seated.nameplate.map(|nameplate| nameplate.to_string()),
        seat: seated.seat,
        boot: shared.exchange.boot(),
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

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Ending>> {
        if self.parked.is_some() {
            return Poll::Pending;
        }
        if let Some(incoming) = self.stash.pop_front() {
            if let Incoming::Frame(frame) = &incoming {
                self.stashed -= frame.len();
            }
            return Poll::Ready(Ok(Event::Incoming(incoming)));
        }
        self.ws.poll_incoming(cx).map_ok(Event::Incoming).map_err(Ending::from)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Ending>> {
        if let Some(frames) = self.flushed.take() {
            return Poll::Ready(Ok(Event::Written(frames)));
        }
        if self.ws.is_writing() {
            self.ws.poll_flush(cx).map_ok(Event::Written).map_err(Ending::from)
        } else {
            Poll::Pending
        }
    }

    /// Waits for the store. A shared one may take its time, which the client must not notice: it is pinged and answered,
    /// and what was queued for it is written.
    async fn attend<T>(&mut self, asked: impl Future<Output = T>) -> Result<T, Ending> {
        let mut asked = pin!(asked);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            self.poll_meanwhile(cx).map(Err)
        })
        .await
    }

    /// Ready with what ends the websocket while the store is being waited for.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        while self.ping.poll_tick(cx).is_ready() {
            self.ws.send_ping();
        }
        while self.parked.is_none() && self.stashed < STASH && self.stash.len() < STASHED {
            match self.ws.poll_incoming(cx) {
                Poll::Ready(Ok(incoming)) => {
                    if let Incoming::Frame(frame) = &incoming {
                        self.stashed += frame.len();
                    }
                    self.stash.push_back(incoming);
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(fault.into()),
                Poll::Pending => break,
            }
        }
        if self.ws.is_writing() {
            match self.ws.poll_flush(cx) {
                Poll::Ready(Ok(frames)) => self.flushed = Some(self.flushed.unwrap_or(0) + frames),
                Poll::Ready(Err(fault)) => return Poll::Ready(fault.into()),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// The seat changed: what waited may fit, and something may be due.
    async fn look(&mut self) -> Result<(), Ending> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(Ending::Stopping);
        }
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
        if self.in_flight > 0 {
            return Ok(());
        }
        let shared = self.shared;
        let asked = shared.exchange.pop(self.hold, written, Instant::now().into_std());
        let due = self.attend(asked).await??;
        let Due { statuses, frames, again } = due;
        for text in self.hearing.texts(statuses) {
            self.ws.send_text(text);
        }
        self.in_flight = frames.len();
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
        match self.attend(asked).await?? {
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
        if !self.attend(asked).await?? {
            return Err(Ending::Refused(ErrorCode::NameplateLost));
        }
        self.ws.discard_frames();
        self.flushed = None;
        self.in_flight = 0;
        self.pop(0).await
    }
}
