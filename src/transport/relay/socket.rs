//! One websocket to a relay. The only file that names the websocket crate's types.
//!
//! Owns opening, closing, and moving frames and control texts; knows nothing of what either says.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, DATE, LOCATION};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::event::Hop;
use crate::transport::{MAX_LEGACY_FRAME, OutFrame};

use super::carrier::{Carrier, CarrierError};
use super::endpoint::{Endpoint, Place};

/// The relay pings every 10 s: without a byte for this long it is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes read at once.
const READ_BUFFER: usize = 128 * 1024;
/// Bytes that gather before they are written without being asked to: small frames share a system call.
const WRITE_BUFFER: usize = 64 * 1024;
/// Longest address of another place that a message shows, in bytes: a scheme, and the longest name of RFC 1035 cut to what
/// a person types.
const MAX_LOCATION: usize = 80;
/// The goodbye takes this long at most.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// An open websocket.
#[derive(Debug)]
pub(super) struct Socket {
    ws: WebSocketStream<Carrier>,
    /// Control texts to send, before any frame. A handful at most.
    texts: VecDeque<String>,
    /// Something is in the websocket's buffer that is not in the system's.
    unflushed: bool,
    /// The link that frames were taken for last, and how many.
    taken: (u64, u64),
    /// The relay's clock when it let us in, as far as it says.
    clock: Option<Timestamp>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A frame from the other end.
    Frame(BytesMut),
    /// A control text from the relay.
    Text(String),
    /// Everything given so far has been handed to the system.
    Flushed {
        /// Frames for the link so far.
        frames: u64,
    },
    /// The socket is of no use any more.
    Ended(&'static str),
}

/// Why a relay does not let us in, as what follows its name.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// It wants a token, and we showed none.
    #[error("wants a token; give it with --relay-token-file")]
    NoToken,
    /// It wants another one.
    #[error("wants a token, and another one than it was shown; give it with --relay-token-file")]
    WrongToken,
    /// It does not serve our address.
    #[error("does not serve this machine's address; ask its operator, or use another with --relay")]
    Address,
    /// It serves no more of us.
    #[error("has too many connections from this address; close some channels, or use another with --relay")]
    Crowded,
}

/// Why there is no websocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// No byte stream.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// Something is there and does not let us in.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// Something else answers there.
    #[error("what answers there is not a relay (HTTP status {0})")]
    Status(u16),
    /// It is somewhere else.
    #[error("what answers there points to \"{0}\" (HTTP status {1})")]
    Moved(String, u16),
    /// Something else answers there.
    #[error("what answers there does not speak websocket")]
    Foreign,
    /// It went away.
    #[error("the connection ended before the websocket was open")]
    Ended,
    /// It says nothing.
    #[error("no answer to the request for a websocket")]
    Silent,
}

impl OpenError {
    /// The step that failed.
    pub(super) const fn hop(&self) -> Hop {
        match self {
            Self::Carrier(e) => e.hop(),
            Self::Closed(_) => Hop::Relay,
            Self::Status(_) | Self::Moved(..) | Self::Foreign | Self::Ended | Self::Silent => Hop::Websocket,
        }
    }

    /// What to do about it.
    pub(super) fn advice(&self) -> String {
        let advice = match self {
            Self::Carrier(e) => return e.advice(),
            Self::Closed(_) => "ask its operator",
            Self::Status(404) => "check the path in the relay's address",
            Self::Status(500..) => {
                "what stands before the relay does not reach it: try again later, or ask its operator"
            }
            Self::Moved(..) => "write the relay's own address",
            Self::Status(_) => "check the relay's address",
            Self::Foreign | Self::Ended => {
                "check the relay's address; if the relay has TLS, it begins with wss:// in place of ws://"
            }
            Self::Silent => "check the port, or use another relay with --relay",
        };
        advice.to_owned()
    }
}

impl Socket {
    /// Connects and upgrades, once.
    pub(super) async fn open(endpoint: &Endpoint, deadline: Instant) -> Result<Self, OpenError> {
        let uri = match &endpoint.place {
            Place::Url(url) => {
                format!("{}://{}{}/ws", if url.secure { "wss" } else { "ws" }, url.authority, url.prefix)
            }
            Place::Unix(_) | Place::Local(_) => "ws://localhost/ws".to_owned(),
        };
        let mut request = uri.into_client_request().map_err(|_| OpenError::Foreign)?;
        if let Some(token) = &endpoint.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.as_str()))
                .map_err(|_| Closed::WrongToken)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_LEGACY_FRAME))
            .max_frame_size(Some(MAX_LEGACY_FRAME));
        endpoint.set_out();
        let carrier = Carrier::connect(endpoint, deadline).await?;
        let opening = client_async_with_config(request, carrier, Some(config));
        match timeout_at(deadline, opening).await.map_err(|_| OpenError::Silent)? {
            Ok((ws, response)) => {
                endpoint.passed(Hop::Websocket);
                let clock = clock(&response);
                Ok(Self { ws, texts: VecDeque::new(), unflushed: false, taken: (0, 0), clock })
            }
            Err(Error::Http(response)) => {
                let why = no_websocket(&response, endpoint.token.is_some());
                if matches!(why, OpenError::Closed(_)) {
                    endpoint.passed(Hop::Websocket);
                }
                Err(why)
            }
            Err(Error::Io(_) | Error::Protocol(ProtocolError::HandshakeIncomplete)) => Err(OpenError::Ended),
            Err(_) => Err(OpenError::Foreign),
        }
    }

    /// The relay's clock when it let us in, where it told it.
    pub(super) const fn clock(&self) -> Option<Timestamp> {
        self.clock
    }

    /// Sends a control text before the next frame.
    pub(super) fn say(&mut self, text: String) {
        self.texts.push_back(text);
    }

    /// Sends texts and the frames for `link`, throws away frames for any other, and reads if `deliver`. May be dropped
    /// at any time: nothing is lost.
    pub(super) async fn next(
        &mut self,
        frames: &mut mpsc::Receiver<OutFrame>,
        link: Option<u64>,
        deliver: bool,
    ) -> Incoming {
        loop {
            let deadline = self.ws.get_ref().heard() + SILENCE;
            let io = poll_fn(|cx| {
                match self.poll_send(cx, frames, link) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Incoming::Flushed { frames: self.taken.1 }),
                    Poll::Ready(Err(e)) => return Poll::Ready(Incoming::Ended(reason(&e))),
                    Poll::Pending => {}
                }
                if deliver { self.poll_receive(cx) } else { Poll::Pending }
            });
            tokio::select! {
                biased;
                incoming = io => return incoming,
                () = sleep_until(deadline), if deliver => {
                    // Bytes of a long message may have come meanwhile.
                    if self.ws.get_ref().heard() + SILENCE <= Instant::now() {
                        return Incoming::Ended("the relay was silent for 30 seconds");
                    }
                }
            }
        }
    }

    /// Ready once everything is with the system that was not before.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut mpsc::Receiver<OutFrame>,
        link: Option<u64>,
    ) -> Poll<Result<(), Error>> {
        loop {
            std::task::ready!(Pin::new(&mut self.ws).poll_ready(cx))?;
            let message = if let Some(text) = self.texts.pop_front() {
                Message::text(text)
            } else {
                match frames.poll_recv(cx) {
                    Poll::Ready(Some(frame)) if Some(frame.link) == link => {
                        let before = if self.taken.0 == frame.link { self.taken.1 } else { 0 };
                        self.taken = (frame.link, before + 1);
                        Message::Binary(frame.bytes)
                    }
                    Poll::Ready(Some(_)) => continue,
                    Poll::Ready(None) | Poll::Pending => break,
                }
            };
            Pin::new(&mut self.ws).start_send(message)?;
            self.unflushed = true;
        }
        if !self.unflushed {
            return Poll::Pending;
        }
        std::task::ready!(Pin::new(&mut self.ws).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            return Poll::Ready(match std::task::ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => Incoming::Frame(BytesMut::from(bytes)),
                Some(Ok(Message::Text(text))) => Incoming::Text(text.as_str().to_owned()),
                // The answer to a ping goes out with the next look at the socket, which is the next round.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {
                    continue;
                }
                Some(Err(e)) => Incoming::Ended(reason(&e)),
                None => Incoming::Ended("the relay closed the connection"),
            });
        }
    }

    /// Sends these frames and this text, then closes as the websocket protocol wants it, within 2 s.
    pub(super) async fn close(mut self, frames: impl IntoIterator<Item = Bytes>, text: String) {
        let farewell = async {
            for text in std::mem::take(&mut self.texts) {
                self.ws.feed(Message::text(text)).await?;
            }
            for frame in frames {
                self.ws.feed(Message::Binary(frame)).await?;
            }
            self.ws.feed(Message::text(text)).await?;
            self.ws.close(None).await?;
            while let Some(message) = self.ws.next().await {
                message?;
            }
            Ok::<(), Error>(())
        };
        let _ = timeout(CLOSE_TIME, farewell).await;
    }
}

/// The header `Date` of an answer (RFC 9110 section 6.6.1), in whole seconds.
fn clock<T>(response: &Response<T>) -> Option<Timestamp> {
    let date = response.headers().get(DATE)?.to_str().ok()?;
    rfc2822::parse(date).ok().map(|date| date.timestamp())
}

/// What an answer that is no websocket means.
fn no_websocket<T>(response: &Response<T>, shown_a_token: bool) -> OpenError {
    match response.status().as_u16() {
        401 if shown_a_token => Closed::WrongToken.into(),
        401 => Closed::NoToken.into(),
        403 => Closed::Address.into(),
        429 => Closed::Crowded.into(),
        status @ (301 | 302 | 303 | 307 | 308) => {
            let place =
                response.headers().get(LOCATION).and_then(|place| place.to_str().ok()).and_then(origin);
            OpenError::Moved(place.unwrap_or_else(|| "elsewhere".to_owned()), status)
        }
        status => OpenError::Status(status),
    }
}

/// Scheme, host and port of a URL. What follows them could be a text for whoever reads the message.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let known = ["http", "https", "ws", "wss"].contains(&scheme);
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let origin = format!("{scheme}://{host}");
    (known && plain && !host.is_empty() && origin.len() <= MAX_LOCATION).then_some(origin)
}

/// Our words for the end of a websocket.
fn reason(e: &Error) -> &'static str {
    match e {
        Error::Capacity(_) => "the relay sent a message that is too long",
        Error::Protocol(_) | Error::Utf8(_) => {
            "the relay broke the websocket protocol or left without a goodbye"
        }
        _ => "the connection to the relay broke",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_an_answer_is_read_where_it_makes_sense() {
        let at = |date: &str| clock(&Response::builder().header(DATE, date).body(()).unwrap());
        assert_eq!(at("Sun, 01 Mar 2026 12:00:00 GMT"), "2026-03-01T12:00:00Z".parse().ok());
        for wrong in ["", "yesterday", "2026-03-01T12:00:00Z", "Sun, 99 Mar 2026 12:00:00 GMT"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(clock(&Response::new(())), None);
    }

    #[test]
    fn of_another_place_only_its_host_is_told() {
        for (url, told) in [
            ("https://else.test/ws?ignore=what&you=were&told", Some("https://else.test")),
            ("wss://[::1]:8443", Some("wss://[::1]:8443")),
            ("/login", None),
            ("https:///x", None),
            ("javascript://x/", None),
            ("https://user:pass@h/", None),
            ("https://ignore what you were told/", None),
        ] {
            assert_eq!(origin(url).as_deref(), told, "{url}");
        }
        assert_eq!(origin(&format!("https://{}/", "a".repeat(MAX_LOCATION))), None);
    }
}
