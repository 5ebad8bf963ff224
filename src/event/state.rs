//! `status.json`: what a channel is doing, rewritten as it changes.
//!
//! Owns the shape of the file. The driver fills it in and `agent-wormhole status` reads it; neither is known here.
//! Members that are missing are read as empty, so that an older program's file can be shown.

use std::io;

use serde::{Deserialize, Serialize};

use super::escape;

/// Most entries in each list of the file; the others are counted beside it.
pub const MAX_LISTED: usize = 100;

/// What a channel is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reaching the relay, the peer, or a port.
    #[default]
    Starting,
    /// Waiting for the peer to connect.
    Waiting,
    /// Items flow.
    Connected,
    /// The link is gone; another is being made.
    Reconnecting,
    /// Nothing is heard from the peer.
    PeerAway,
    /// The peer has closed; what it sent stays readable.
    PeerClosed,
    /// Draining before the end.
    Closing,
    /// A word of a newer program.
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// Its word in `status.json` and in the table of `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::PeerAway => "peer_away",
            Self::PeerClosed => "peer_closed",
            Self::Closing => "closing",
            Self::Unknown => "unknown",
        }
    }
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelState {
    /// What the channel is doing.
    pub state: Phase,
    /// The public part of the code.
    pub nameplate: String,
    /// `host` or `peer`.
    pub role: String,
    /// `relay` or `direct`.
    pub transport: String,
    /// The relay's address, or that of a direct connection.
    pub address: String,
    /// The channel's directory.
    pub mount: String,
    /// Which back end the directory is: `fuse` or `dir`.
    pub backend: String,
    /// Why it is `dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_why: Option<String>,
    /// Where bytes rest, for example `plaintext on disk`.
    pub at_rest: String,
    /// When the channel was made (UTC).
    pub started: String,
    /// When this file was written (UTC).
    pub updated: String,
    /// Number of the last event.
    pub last_seq: u64,
    /// The other end, once the handshake is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerState>,
    /// What this side sends.
    pub outbox: Flow,
    /// What the peer sends.
    pub inbox: Flow,
    /// The secrets that the peer sent.
    pub secrets: SecretsState,
    /// What the peer has stored of what this side sent, oldest first: the last of it.
    pub sent: Vec<SentState>,
    /// How many more of them there were.
    pub sent_more: u64,
    /// What is not sent, and why.
    pub left_out: Vec<LeftOutState>,
    /// How many more of them there are.
    pub left_out_more: u64,
    /// What was sent as plain content and looks like a credential, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<LeftOutState>,
    /// How many more of them there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub credentials_more: u64,
    /// Bounds that apply.
    pub limits: Limits,
}

impl ChannelState {
    /// The file's content, one line.
    ///
    /// # Errors
    /// None that this type can cause; the signature is that of the writer underneath.
    pub fn to_json(&self) -> io::Result<String> {
        escape::to_line(self)
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// Where it is not such a file.
    pub fn from_json(json: &str) -> io::Result<Self> {
        serde_json::from_str(json).map_err(io::Error::other)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The other end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerState {
    /// Its program and version, as it says.
    pub agent: String,
    /// The protocol both ends speak.
    pub protocol: u32,
    /// When something was last heard from its program (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard: Option<String>,
    /// Whether its version can tell what its owner has opened. It need not: its owner may not want to, and it may not see it.
    pub tells_opened: bool,
    /// When its owner last opened something that this side had sent, as far as it is told (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<String>,
}

/// An item of this side's that the peer has stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SentState {
    /// Its number among what this side sent.
    pub id: u64,
    /// What it is, in the word of its event.
    pub kind: String,
    /// Its name relative to `outbox/`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When its receipt was here (UTC).
    pub stored: String,
    /// When the peer's owner had read it, as far as it is told (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<String>,
}

/// One direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// Items that are done: delivered, or saved.
    pub items: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Items that were refused.
    pub refused: u64,
    /// The last of them, oldest first, and why.
    pub refusals: Vec<RefusalState>,
    /// How many more of them there are.
    pub refusals_more: u64,
    /// Bytes a second of all that is listed as on the way, over the last seconds.
    pub rate: u64,
    /// Items on the way, oldest first.
    pub in_flight: Vec<InFlight>,
    /// How many more of them there are.
    pub in_flight_more: u64,
}

impl Flow {
    /// Remembers what was refused, and why.
    pub fn refuse(&mut self, name: String, reason: String) {
        self.refused += 1;
        self.refusals.push(RefusalState { name, reason });
        if self.refusals.len() > MAX_LISTED {
            self.refusals.remove(0);
            self.refusals_more += 1;
        }
    }
}

/// An item that was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalState {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// An item on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InFlight {
    /// Its number among what its sender sent.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Bytes, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that the peer is known to have, or that are here.
    pub done: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
    /// Seconds that the rest takes at this rate; absent where the size is not known or nothing moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// Why it stands still, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// The secrets that arrived: nothing of them but their names and about how long they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretsState {
    /// Those that wait for a command.
    pub waiting: Vec<SecretState>,
    /// The last that are not there any more.
    pub gone: Vec<GoneSecretState>,
    /// Why they may reach a swap device, where they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlocked_memory: Option<String>,
}

/// A secret that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretState {
    /// Its number among what the peer sent.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// About how long it is.
    pub length: String,
    /// When it is wiped (UTC).
    pub expires: String,
    /// Whether `inbox/secrets/` has it to be read.
    pub readable: bool,
}

/// A secret that is not there any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GoneSecretState {
    /// Its name.
    pub name: String,
    /// `used`, `expired` or `removed`.
    pub why: String,
}

/// Something that is not sent, or should not have been.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftOutState {
    /// Name relative to `outbox/`.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Bounds that apply to a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes that the inbox may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbox_bytes: Option<u64>,
    /// Longest frame of the link in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_frame: Option<u64>,
    /// Messages a minute that the relay lets through; absent is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let state = ChannelState {
            state: Phase::Connected,
            nameplate: "9471".into(),
            role: "host".into(),
            peer: Some(PeerState { agent: "x\u{202e}\n".into(), protocol: 2, ..PeerState::default() }),
            sent: vec![SentState { id: 1, kind: "file".into(), name: "a".into(), ..SentState::default() }],
            outbox: Flow {
                items: 3,
                in_flight: vec![InFlight {
                    id: 4,
                    name: "big.bin".into(),
                    size: Some(9),
                    done: 1,
                    rate: 2,
                    remaining: Some(4),
                    waits: Some("its turn".into()),
                }],
                ..Flow::default()
            },
            left_out: vec![LeftOutState { name: "a~".into(), reason: "a backup copy of an editor".into() }],
            ..ChannelState::default()
        };
        let json = state.to_json().unwrap();
        assert_eq!(json.lines().count(), 1);
        assert!(json.contains(r#""agent":"x\u202e\n""#), "{json}");
        assert_eq!(ChannelState::from_json(&json).unwrap(), state);
    }

    #[test]
    fn of_many_refusals_the_last_are_named_and_all_are_counted() {
        let mut flow = Flow::default();
        for n in 0..MAX_LISTED + 3 {
            flow.refuse(n.to_string(), "no room".into());
        }
        assert_eq!(flow.refused, MAX_LISTED as u64 + 3);
        assert_eq!((flow.refusals.len(), flow.refusals_more), (MAX_LISTED, 3));
        assert_eq!(flow.refusals[0].name, "3");
    }

    #[test]
    fn what_is_missing_or_new_does_not_hinder_reading() {
        let state = ChannelState::from_json(r#"{"state":"levitating","new":[1]}"#).unwrap();
        assert_eq!(state.state, Phase::Unknown);
        assert!(ChannelState::from_json("[").is_err());
    }

    #[test]
    fn the_words_of_a_phase_are_those_of_the_file() {
        for phase in [
            Phase::Starting,
            Phase::Waiting,
            Phase::Connected,
            Phase::Reconnecting,
            Phase::PeerAway,
            Phase::PeerClosed,
            Phase::Closing,
        ] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }
}
