//! A seat at a relay: what is needed to take it back, and what the relay's answers mean.
//!
//! Owns the reading of untrusted limits and our own words for the relay's closed set of codes.

use std::time::Duration;

use agent_wormhole_relay::wire::{
    ClientMessage, ErrorCode, Id, JoinCode, Resume, Role, ServerMessage, Welcome, Words,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::event::Hop;
use crate::transport::backoff::{BLIP, Backoff};
use crate::transport::{LinkLimits, MAX_FRAME, TransportError};

use super::endpoint::Endpoint;
use super::socket::{Closed, Incoming, OpenError, Socket};

/// One attempt, from the name to the seat, takes this long at most.
const ATTEMPT_TIME: Duration = Duration::from_secs(15);
/// Least `max_frame` in bytes with which a channel makes sense.
const LEAST_FRAME: u64 = 64 * 1024;
/// Most digits of a nameplate.
const MAX_NAMEPLATE: usize = 12;
/// Under a code the seat of an own connection that broke may not be had before the relay has noticed that, which takes
/// it 30 s.
const NOTICED: Duration = Duration::from_secs(45);
/// What to do about a relay that is there and is of no use.
const ANOTHER: &str = "try again, or use another relay with --relay";
/// Longest part of an operator's notice that is shown, in characters.
const MAX_NOTICE: usize = 200;

/// What a channel is found by before its pairing.
#[derive(Debug, Clone)]
pub(super) enum Name {
    /// The public digits.
    Nameplate(String),
    /// The whole code, which the relay knows.
    Code(Words),
}

impl Name {
    /// The first message of an end that comes for the first time; a host with a nameplate gets that only then.
    pub(super) fn hello(&self, role: Role) -> ClientMessage {
        match self {
            Self::Nameplate(nameplate) => ClientMessage::Join { nameplate: nameplate.clone() },
            Self::Code(code) => {
                ClientMessage::JoinCode(JoinCode { code: code.clone(), role, statuses: true })
            }
        }
    }
}

/// What takes the seat back after a drop.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) role: Role,
    pub(super) id: Id,
    pub(super) boot: Id,
    /// What an unpaired end comes back by.
    pub(super) name: Name,
    /// The pairing, while there is one.
    pub(super) channel: Option<Id>,
}

/// Why a seat was not had.
#[derive(Debug)]
pub(super) enum SeatError {
    /// No relay.
    Open(OpenError),
    /// The relay said no.
    Code(ErrorCode),
    /// No answer that makes sense.
    Answer(&'static str),
    /// No answer in time.
    Silent,
}

impl SeatError {
    /// The step that failed.
    pub(super) const fn hop(&self) -> Hop {
        match self {
            Self::Open(e) => e.hop(),
            Self::Code(_) | Self::Answer(_) | Self::Silent => Hop::Relay,
        }
    }

    /// Whether it is the token that the relay does not like.
    pub(super) const fn is_token(&self) -> bool {
        matches!(self, Self::Open(OpenError::Closed(Closed::NoToken | Closed::WrongToken)))
    }

    /// What is wrong, and what to do about it.
    pub(super) fn words(&self) -> (String, String) {
        // Both halves of these are our own words.
        let halves = |text: String| match text.split_once("; ") {
            Some((why, advice)) => (why.to_owned(), advice.to_owned()),
            None => (text, ANOTHER.to_owned()),
        };
        match self {
            Self::Open(OpenError::Closed(why)) => halves(format!("it {why}")),
            Self::Open(e) => (e.to_string(), e.advice()),
            Self::Answer(why) => ((*why).to_owned(), ANOTHER.to_owned()),
            Self::Silent => ("no answer".to_owned(), ANOTHER.to_owned()),
            Self::Code(code) => halves(refusal(*code).to_string()),
        }
    }

    /// As the first attempt of a person fails.
    pub(super) fn told(self, endpoint: &Endpoint) -> TransportError {
        match self {
            Self::Open(OpenError::Closed(why)) => endpoint.closed(&why.to_string()),
            Self::Open(e) => endpoint.unreachable(e.hop(), &e.to_string(), &e.advice()),
            Self::Answer(why) => endpoint.unreachable(Hop::Relay, why, ANOTHER),
            Self::Silent => endpoint.unreachable(Hop::Relay, "no answer", ANOTHER),
            Self::Code(code) => refusal(code),
        }
    }
}

impl Seat {
    /// The seat that a welcome gives.
    pub(super) fn new(role: Role, name: Name, welcome: &Welcome) -> Self {
        Self { role, id: welcome.seat, boot: welcome.boot, name, channel: None }
    }

    /// Takes the seat back, with one attempt after another until the relay answers for good. Why it takes so long goes to
    /// `reasons`, each reason once.
    pub(super) async fn resume(
        &self,
        endpoint: &Endpoint,
        reasons: &mpsc::Sender<String>,
    ) -> Result<(Socket, Welcome), TransportError> {
        let (start, mut backoff) = (Instant::now(), Backoff::new());
        let (hello, patience) = match (self.channel, &self.name) {
            (Some(channel), _) => (self.claim(Some(channel), None), Duration::ZERO),
            (None, Name::Nameplate(nameplate)) => (self.claim(None, Some(nameplate.clone())), Duration::ZERO),
            (None, code @ Name::Code(_)) => (code.hello(self.role), NOTICED),
        };
        let (mut known, mut told) = (String::new(), false);
        loop {
            backoff.wait().await;
            match attempt(endpoint, &hello).await {
                Ok(seated) => return Ok(seated),
                Err(SeatError::Code(code)) if is_final(code) && start.elapsed() >= patience => {
                    return Err(refusal(code));
                }
                Err(e) => {
                    let e = e.told(endpoint);
                    let why = e.to_string();
                    // Once for each reason: attempts go on for as long as the channel lives.
                    if why != known {
                        tracing::info!(hop = e.hop().as_str(), why, "the relay is not reached again yet");
                        known = why.clone();
                        told = false;
                    }
                    // Where nobody has taken the last one yet, this one is told after the next attempt.
                    if !told && start.elapsed() >= BLIP {
                        told = reasons.try_send(why).is_ok();
                    }
                }
            }
        }
    }

    fn claim(&self, channel: Option<Id>, nameplate: Option<String>) -> ClientMessage {
        ClientMessage::Resume(Resume { role: self.role, seat: self.id, channel, nameplate, boot: self.boot })
    }
}

/// Connects, says hello, and waits for the welcome: once.
pub(super) async fn attempt(
    endpoint: &Endpoint,
    hello: &ClientMessage,
) -> Result<(Socket, Welcome), SeatError> {
    let deadline = Instant::now() + ATTEMPT_TIME;
    let seated = async {
        let mut socket = Socket::open(endpoint, deadline).await.map_err(SeatError::Open)?;
        socket.say(hello.encode());
        // Nobody sends frames before the welcome.
        let (_, mut none) = mpsc::channel(1);
        loop {
            match socket.next(&mut none, None, true).await {
                Incoming::Text(text) => match ServerMessage::decode(&text) {
                    Ok(ServerMessage::Welcome(welcome)) => {
                        endpoint.passed(Hop::Relay);
                        notice(&welcome);
                        return Ok((socket, welcome));
                    }
                    Ok(ServerMessage::Error { code, .. }) => return Err(SeatError::Code(code)),
                    Ok(ServerMessage::Status(_)) => {}
                    Err(_) => return Err(SeatError::Answer("its answer makes no sense")),
                },
                Incoming::Flushed { .. } => {}
                Incoming::Frame(_) => return Err(SeatError::Answer("its answer makes no sense")),
                Incoming::Ended(why) => return Err(SeatError::Answer(why)),
            }
        }
    };
    timeout_at(deadline, seated).await.unwrap_or(Err(SeatError::Silent))
}

/// The limits of a welcome, as a link's.
pub(super) fn limits(welcome: &Welcome) -> Result<LinkLimits, TransportError> {
    let max_frame = match welcome.limits.max_frame {
        0 => MAX_FRAME,
        max_frame if max_frame < LEAST_FRAME => return Err(TransportError::FrameTooSmall { max_frame }),
        max_frame => usize::try_from(max_frame).map_or(MAX_FRAME, |n| n.min(MAX_FRAME)),
    };
    let messages_per_minute = welcome.limits.messages_per_minute;
    Ok(LinkLimits { max_frame, messages_per_minute, relayed: true })
}

/// The nameplate of a welcome: digits and nothing else.
pub(super) fn nameplate(welcome: &Welcome) -> Result<String, TransportError> {
    match &welcome.nameplate {
        Some(digits)
            if (1..=MAX_NAMEPLATE).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Ok(digits.clone())
        }
        _ => Err(TransportError::Refused(
            "the relay gave no number for the channel; use another with --relay".into(),
        )),
    }
}

/// The operator's notice is for people who read logs: it never becomes an event, where a model would read it.
fn notice(welcome: &Welcome) {
    if let Some(notice) = &welcome.notice {
        let shown: String = notice.chars().take(MAX_NOTICE).flat_map(char::escape_default).collect();
        tracing::info!(target: "relay_notice", "{shown}");
    }
}

/// Whether asking again cannot help.
const fn is_final(code: ErrorCode) -> bool {
    match code {
        ErrorCode::UnableToJoin
        | ErrorCode::NameplateLost
        | ErrorCode::UnableToResume
        | ErrorCode::BadMessage => true,
        ErrorCode::TooManyChannels | ErrorCode::TooManyFailedJoins | ErrorCode::Busy | ErrorCode::Unknown => {
            false
        }
    }
}

/// Our words for a refusal, with what to do next.
pub(super) fn refusal(code: ErrorCode) -> TransportError {
    TransportError::Refused(
        match code {
            ErrorCode::NameplateLost => return TransportError::NameplateLost,
            ErrorCode::UnableToJoin => {
                "nobody is waiting under this code at the relay, or its place is taken; check that both ends use the \
                 same relay, or ask for a fresh code"
            }
            ErrorCode::UnableToResume => "the relay no longer knows this channel; host a new one",
            ErrorCode::TooManyChannels => {
                "the relay has too many channels from this address; close some, or use another with --relay"
            }
            ErrorCode::TooManyFailedJoins => {
                "the relay counted too many failed joins from this address; wait a minute and try again"
            }
            ErrorCode::Busy => "the relay is full; try again later, or use another with --relay",
            ErrorCode::BadMessage | ErrorCode::Unknown => {
                "the relay does not understand this version of agent-wormhole; update the older of the two"
            }
        }
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use agent_wormhole_relay::wire::Limits;

    use super::*;

    fn welcome(max_frame: u64, nameplate: Option<&str>) -> Welcome {
        Welcome {
            nameplate: nameplate.map(Into::into),
            seat: Id::new([1; 16]),
            boot: Id::new([2; 16]),
            limits: Limits { max_frame, messages_per_minute: 60, bytes_per_minute: 0, idle_secs: 1 },
            notice: None,
        }
    }

    #[test]
    fn limits_are_not_believed_blindly() {
        let frame = |max| limits(&welcome(max, None)).map(|l| l.max_frame);
        assert_eq!(frame(0), Ok(MAX_FRAME));
        assert_eq!(frame(u64::MAX), Ok(MAX_FRAME));
        assert_eq!(frame(65_536), Ok(65_536));
        assert_eq!(frame(65_535), Err(TransportError::FrameTooSmall { max_frame: 65_535 }));
    }

    #[test]
    fn a_nameplate_is_digits() {
        assert_eq!(nameplate(&welcome(0, Some("9471"))).as_deref(), Ok("9471"));
        for wrong in [None, Some(""), Some("94-71"), Some("9471\n"), Some("1234567890123"), Some("٣")] {
            assert!(nameplate(&welcome(0, wrong)).is_err(), "{wrong:?}");
        }
    }
}
