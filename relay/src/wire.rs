//! The relay's control messages: the one file that client and server share.
//!
//! Owns the JSON texts of `relay/PROTOCOL.md` and the types inside them. Does no I/O and knows no
//! limits policy. Every message is a websocket *text*; frames between the two ends are websocket
//! *binary* messages and are opaque here.
//!
//! Each decoder bounds its input first ([`MAX_CONTROL`]) and never panics on bytes from outside.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest control text that either side reads, in bytes.
pub const MAX_CONTROL: usize = 16 * 1024;
/// Bytes of entropy in a seat or channel id.
pub const ID_LEN: usize = 16;
/// A frame of at most this many bytes (a state, a receipt) costs no message of the rate limit.
pub const SMALL_FRAME: usize = 128;
/// The relay pings every socket this often, in seconds.
pub const PING_EVERY_SECS: u64 = 10;

/// Sixteen random bytes, written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; ID_LEN]);

impl Id {
    /// An id made of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; ID_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Prints nothing: a seat is a credential.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(..)")
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::str::FromStr for Id {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let wrong = || WireError::Malformed("an id has 32 hexadecimal digits".into());
        let digits = text.as_bytes();
        if digits.len() != 2 * ID_LEN {
            return Err(wrong());
        }
        let mut bytes = [0; ID_LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| (d as char).to_digit(16);
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong()) };
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which end of a channel a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The end that allocated the nameplate.
    Host,
    /// The end that joined it.
    Peer,
}

impl Role {
    /// The end at the other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Peer,
            Self::Peer => Self::Host,
        }
    }

    /// Its place in a pair: 0 for the host, 1 for the peer.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Host => 0,
            Self::Peer => 1,
        }
    }
}

/// How a seat was left, for the relay's outcome counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mood {
    /// Both ends closed as asked.
    Happy,
    /// Nobody came.
    Lonely,
    /// The confirmation failed: a wrong code, or a guess. Counts as a failed join of the joiner's address.
    Scary,
    /// Anything else.
    Errory,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum ClientMessage {
    /// First message of a host: give me a nameplate.
    Allocate,
    /// First message of a peer: seat me at this nameplate.
    Join {
        /// The public digits of the code.
        nameplate: String,
    },
    /// First message of either end of a channel whose relay is told the whole code, as clients of 0.1.5 do it. It is
    /// written as a `join`, too: `code` and `role` instead of `nameplate`.
    #[serde(rename = "join", skip_deserializing)]
    JoinCode(JoinCode),
    /// First message of an end that comes back after a drop.
    Resume(Resume),
    /// From the host before its handshake is done: the peer's seat is closed, both queues are emptied, the nameplate
    /// can be joined again.
    Release,
    /// Ends this seat. Frames already queued for the other end stay deliverable.
    Bye {
        /// How it ended.
        mood: Mood,
    },
}

/// The other form of `join`: by the code itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCode {
    /// The whole code.
    pub code: Words,
    /// Which end asks: the host makes the channel.
    pub role: Role,
    /// The client takes texts after the first answer. A client of 0.1.5 does not say so, and does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub statuses: bool,
}

/// A code that a relay is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words(pub String);

/// Prints nothing: it is the secret of the two ends.
impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Words(..)")
    }
}

/// How the second form of `join` is told from the first, which has the same action.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum SecondForm {
    Join(JoinCode),
}

/// The proof that a seat was ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The end.
    pub role: Role,
    /// The seat that `welcome` gave.
    pub seat: Id,
    /// The channel that `paired` gave. Absent for a host that was not paired yet, which names its nameplate instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Id>,
    /// The nameplate, of an unpaired host only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameplate: Option<String>,
    /// The store's memory as it was when we were seated.
    pub boot: Id,
}

/// What the relay says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerMessage {
    /// Answer to `allocate`, `join` and `resume`: you are seated.
    Welcome(Welcome),
    /// Something happened.
    Status(Status),
    /// Refused; the socket is closed next.
    Error {
        /// From a closed set, so that clients print their own words.
        code: ErrorCode,
        /// For people who read traces; never shown to a model.
        message: String,
    },
}

/// A seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The nameplate; absent in the answer to a `resume` of a paired end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameplate: Option<String>,
    /// The credential for `resume`.
    pub seat: Id,
    /// The store's memory.
    pub boot: Id,
    /// What this relay takes.
    pub limits: Limits,
    /// From the operator to the person; never a model's business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// A relay's limits. Untrusted input to a client. 0 means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest frame in bytes.
    pub max_frame: u64,
    /// Messages a minute for each channel.
    pub messages_per_minute: u64,
    /// Bytes a minute for each channel.
    pub bytes_per_minute: u64,
    /// Seconds a channel may be without a frame.
    pub idle_secs: u64,
}

/// An event about the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Status {
    /// Both seats are taken; frames may flow.
    Paired {
        /// Fresh for every pairing.
        channel: Id,
        /// The store's memory.
        boot: Id,
    },
    /// The other seat's socket is away; its frames wait.
    PeerAway,
    /// The other seat's socket is back.
    PeerBack,
    /// The other end said `bye`.
    PeerLeft,
    /// The rate limit delays this channel; said once.
    Throttled,
    /// This relay is stopping; resume elsewhere or later.
    GoingAway,
    /// A newer relay's event that this client does not know.
    #[serde(other)]
    Unknown,
}

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No such nameplate, or it has both its ends: one answer for both.
    UnableToJoin,
    /// An unpaired host's nameplate was given to somebody else meanwhile.
    NameplateLost,
    /// The channel or seat of a `resume` is not known, or not yours.
    UnableToResume,
    /// Too many channels from this source.
    TooManyChannels,
    /// Too many failed joins from this source.
    TooManyFailedJoins,
    /// The relay is full.
    Busy,
    /// Not a message of this protocol, or not at this place.
    BadMessage,
    /// A newer relay's code that this client does not know.
    #[serde(other)]
    Unknown,
}

/// A control text that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub enum WireError {
    /// Longer than [`MAX_CONTROL`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not JSON, or not one of the messages.
    Malformed(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(f, "a control message of {len} bytes (at most {MAX_CONTROL})"),
            Self::Malformed(why) => write!(f, "not a control message: {why}"),
        }
    }
}

impl std::error::Error for WireError {}

fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, WireError> {
    if text.len() > MAX_CONTROL {
        return Err(WireError::TooLong { len: text.len() });
    }
    serde_json::from_str(text).map_err(|e| WireError::Malformed(e.to_string()))
}

fn encode<T: Serialize>(message: &T) -> String {
    // Strings, integers and maps with string keys only: serialising them cannot fail.
    serde_json::to_string(message).unwrap_or_default()
}

impl ClientMessage {
    /// Reads a client's text.
    ///
    /// # Errors
    /// [`WireError`] where it is too long or not a message.
    pub fn decode(text: &str) -> Result<Self, WireError> {
        decode(text).or_else(|error| match decode(text) {
            Ok(SecondForm::Join(join)) => Ok(Self::JoinCode(join)),
            Err(_) => Err(error),
        })
    }

    /// Its text.
    #[must_use]
    pub fn encode(&self) -> String {
        encode(self)
    }
}

/// The one answer that a client of 0.1.5 gets: whether the other end is there. Every later text it would take for
/// ciphertext.
#[must_use]
pub fn only_answer(paired: bool) -> String {
    let event = if paired { "paired" } else { "waiting" };
    format!(r#"{{"type":"status","event":"{event}"}}"#)
}

impl ServerMessage {
    /// Reads the relay's text.
    ///
    /// # Errors
    /// [`WireError`] where it is too long or not a message.
    pub fn decode(text: &str) -> Result<Self, WireError> {
        decode(text)
    }

    /// Its text.
    #[must_use]
    pub fn encode(&self) -> String {
        encode(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_specification() {
        let id = Id::new([0xab; 16]);
        let hex = "ab".repeat(16);
        let cases = [
            (ClientMessage::Allocate, r#"{"action":"allocate"}"#.to_owned()),
            (
                ClientMessage::Join { nameplate: "9471".into() },
                r#"{"action":"join","nameplate":"9471"}"#.to_owned(),
            ),
            (ClientMessage::Release, r#"{"action":"release"}"#.to_owned()),
            (ClientMessage::Bye { mood: Mood::Scary }, r#"{"action":"bye","mood":"scary"}"#.to_owned()),
            (
                ClientMessage::Resume(Resume {
                    role: Role::Host,
                    seat: id,
                    channel: Some(id),
                    nameplate: None,
                    boot: id,
                }),
                format!(
                    r#"{{"action":"resume","role":"host","seat":"{hex}","channel":"{hex}","boot":"{hex}"}}"#
                ),
            ),
        ];
        for (message, text) in cases {
            assert_eq!(message.encode(), text);
            assert_eq!(ClientMessage::decode(&text), Ok(message));
        }
        let paired = ServerMessage::Status(Status::Paired { channel: id, boot: id });
        let text = format!(r#"{{"type":"status","event":"paired","channel":"{hex}","boot":"{hex}"}}"#);
        assert_eq!(paired.encode(), text);
        assert_eq!(ServerMessage::decode(&text), Ok(paired));
    }

    #[test]
    fn a_join_by_code_is_the_one_of_0_1_5() {
        let join = |statuses| {
            let code = Words("acorn-amber-anvil".into());
            ClientMessage::JoinCode(JoinCode { code, role: Role::Host, statuses })
        };
        let python = r#"{"action": "join", "code": "acorn-amber-anvil", "role": "host"}"#;
        assert_eq!(ClientMessage::decode(python), Ok(join(false)));
        let ours = r#"{"action":"join","code":"acorn-amber-anvil","role":"host","statuses":true}"#;
        assert_eq!(join(true).encode(), ours);
        assert_eq!(ClientMessage::decode(ours), Ok(join(true)));
        assert!(!format!("{:?}", join(true)).contains("amber"));
        for text in
            [r#"{"action":"bye","code":"a-b-c","role":"host"}"#, r#"{"action":"join","code":"a-b-c"}"#]
        {
            assert!(matches!(ClientMessage::decode(text), Err(WireError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn what_a_newer_relay_says_is_unknown_not_an_error() {
        assert_eq!(
            ServerMessage::decode(r#"{"type":"status","event":"dancing","to":"music"}"#),
            Ok(ServerMessage::Status(Status::Unknown))
        );
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "[]", "{}", r#"{"action":"bye"}"#, r#"{"type":"status"}"#] {
            assert!(matches!(ClientMessage::decode(text), Err(WireError::Malformed(_))), "{text}");
        }
        let long = "x".repeat(MAX_CONTROL + 1);
        assert!(matches!(ClientMessage::decode(&long), Err(WireError::TooLong { .. })));
    }
}
