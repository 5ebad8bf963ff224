//! From the first link to two proven ends. The peer confirms first, the host last.
//!
//! Owns the SPAKE2 run, the version messages and what counts as a guess. Consumes itself into [`Proven`]
//! (`src/PROTOCOL.md`, "Handshake").

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::{CryptoRng, RngCore};
use serde::Deserialize;

use super::{Link, LinkLimits};
use crate::code::Secret;
use crate::crypto::pake::{MESSAGE_LEN, Pake, Role, SharedKey};
use crate::crypto::resume::ResumeKey;
use crate::crypto::schedule::{self, Transcript};
use crate::crypto::seal::{LegacyOpener, LegacySealer, Opener, Sealer};
use crate::item::Feature;

/// A host gives an unproven other end this long between its frames.
const SILENCE: Duration = Duration::from_secs(10);
/// A peer waits this long for the host's version on a living link.
const CONFIRMATION: Duration = Duration::from_secs(30);
/// Longest sealed version in bytes.
const MAX_VERSION: usize = 16 * 1024;

/// How far the handshake came.
pub(super) enum Verdict {
    /// The other end made no guess: drop it.
    Unproven(&'static str),
    /// The code is burnt.
    Failed {
        /// Why, in words.
        why: &'static str,
        /// Frames that still leave, so that the other end fails by the same proof.
        last_words: VecDeque<Bytes>,
    },
    /// Both ends hold the code.
    Proven,
}

/// The version message of the other end.
#[derive(Deserialize)]
struct Version {
    version: u64,
    role: String,
    #[serde(default)]
    protocol: u64,
    #[serde(default)]
    agent: Option<String>,
}

/// What the other end proved, and the keys that follow from it.
pub(super) struct Proven {
    /// The keys of protocol 2, and what resumes a direct link; absent for a 0.1 peer.
    pub(super) keys: Option<(Sealer, Opener)>,
    pub(super) resume: Option<ResumeKey>,
    /// The 0.1 keys, one frame further.
    pub(super) legacy: (LegacySealer, LegacyOpener),
    pub(super) agent: Option<String>,
    /// What both ends know.
    pub(super) features: Vec<Feature>,
    /// Own handshake frames, resent on each new link until a protocol-2 record opens.
    pub(super) own_frames: [Bytes; 2],
    /// The other end's handshake frames: equal ones are ignored from now on.
    pub(super) accepted_frames: [Bytes; 2],
    /// Own frames that this link has not carried yet.
    pub(super) unsent: VecDeque<Bytes>,
    pub(super) limits: LinkLimits,
}

/// The other end's confirmation as it opened.
struct Confirmed {
    key: SharedKey,
    legacy: (LegacySealer, LegacyOpener),
    theirs: Version,
    their_plain: Vec<u8>,
    their_sealed: Bytes,
    own_sealed: Bytes,
}

/// A peer that has confirmed: the version it sealed, and the keys to open the host's.
struct Sealed {
    key: SharedKey,
    legacy: (LegacySealer, LegacyOpener),
    own_sealed: Bytes,
}

/// A handshake under way.
pub(super) struct Handshake {
    role: Role,
    pake: Pake,
    greeting: Bytes,
    own_version: Vec<u8>,
    /// The other end's SPAKE2 message, kept across links: a relay does not deliver a frame twice.
    their_spake: Option<Bytes>,
    sealed: Option<Sealed>,
    confirmed: Option<Confirmed>,
    transmit: VecDeque<Bytes>,
    deadline: Option<Instant>,
    /// This link has carried a key exchange message: more of them win no more time.
    greeted: bool,
    /// Of the link that is up.
    limits: Option<LinkLimits>,
}

impl Handshake {
    pub(super) fn new(role: Role, secret: &Secret, rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let pake = Pake::new(role, secret, rng);
        let own_version = serde_json::json!({
            "version": 1,
            "role": role.as_str(),
            "protocol": 2,
            "features": Feature::ALL.map(Feature::as_str),
            "agent": concat!("agent-wormhole/", env!("CARGO_PKG_VERSION")),
        });
        Self {
            role,
            greeting: Bytes::copy_from_slice(pake.message()),
            pake,
            own_version: own_version.to_string().into_bytes(),
            their_spake: None,
            sealed: None,
            confirmed: None,
            transmit: VecDeque::new(),
            deadline: None,
            greeted: false,
            limits: None,
        }
    }

    pub(super) fn greeting(&self) -> Bytes {
        self.greeting.clone()
    }

    pub(super) fn handle_link(&mut self, link: Link, now: Instant) {
        self.transmit.clear();
        self.greeted = false;
        match link {
            Link::Up { limits, greeted } => {
                self.limits = Some(limits);
                if !greeted {
                    self.transmit.push_back(self.greeting.clone());
                }
                self.transmit.extend(self.sealed.iter().map(|s| s.own_sealed.clone()));
                self.deadline = Some(now + if self.role == Role::Host { SILENCE } else { CONFIRMATION });
            }
            Link::Down => {
                self.limits = None;
                self.deadline = None;
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Verdict> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.deadline = None;
        Some(match self.role {
            Role::Host => self.unproven("it was silent for ten seconds before it confirmed"),
            Role::Peer => failed("the host did not confirm within 30 seconds"),
        })
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.pop_front()
    }

    pub(super) fn handle_frame(&mut self, frame: &[u8], now: Instant) -> Option<Verdict> {
        // What is left of a link that has gone proves nothing: the answer would go to another.
        self.limits?;
        // A sealed version is never 33 bytes long: `{"version":1,"role":"peer"}` and its tag are 43.
        match (self.role, frame.len()) {
            (_, len) if len > MAX_VERSION => {
                Some(self.unexpected("a frame is longer than any of the handshake"))
            }
            (Role::Host, MESSAGE_LEN) => {
                self.their_spake = Some(Bytes::copy_from_slice(frame));
                if !std::mem::replace(&mut self.greeted, true) {
                    self.deadline = Some(now + SILENCE);
                }
                None
            }
            (Role::Peer, MESSAGE_LEN) => self.host_spake(frame),
            (Role::Host, _) => Some(self.peer_version(frame)),
            (Role::Peer, _) => Some(self.host_version(frame)),
        }
    }

    /// The host judges the one guess that a peer makes.
    fn peer_version(&mut self, frame: &[u8]) -> Verdict {
        let Some(theirs) = self.their_spake.clone() else {
            return self.unproven("its first frame was not a key exchange message");
        };
        let Ok(key) = self.pake.shared(&theirs) else {
            return self.unproven("its first frame was not a key exchange message");
        };
        let mut legacy = schedule::legacy(&key, self.role);
        let own_sealed = Bytes::from(legacy.0.seal(self.own_version.clone()));
        self.transmit.push_back(own_sealed.clone());
        match open_version(&mut legacy.1, frame, self.role.other()) {
            Ok((theirs, their_plain)) => {
                let their_sealed = Bytes::copy_from_slice(frame);
                self.confirmed =
                    Some(Confirmed { key, legacy, theirs, their_plain, their_sealed, own_sealed });
                Verdict::Proven
            }
            Err(why) => Verdict::Failed { why, last_words: std::mem::take(&mut self.transmit) },
        }
    }

    /// The peer confirms, once, to the first host message it gets.
    fn host_spake(&mut self, frame: &[u8]) -> Option<Verdict> {
        if self.sealed.is_some() {
            return None;
        }
        let Ok(key) = self.pake.shared(frame) else {
            return Some(failed("the host's first message is not a key exchange message"));
        };
        let mut legacy = schedule::legacy(&key, self.role);
        let own_sealed = Bytes::from(legacy.0.seal(self.own_version.clone()));
        self.their_spake = Some(Bytes::copy_from_slice(frame));
        self.transmit.push_back(own_sealed.clone());
        self.sealed = Some(Sealed { key, legacy, own_sealed });
        None
    }

    fn host_version(&mut self, frame: &[u8]) -> Verdict {
        let Some(Sealed { key, mut legacy, own_sealed }) = self.sealed.take() else {
            return failed("the host's first message is not a key exchange message");
        };
        match open_version(&mut legacy.1, frame, self.role.other()) {
            Ok((theirs, their_plain)) => {
                let their_sealed = Bytes::copy_from_slice(frame);
                self.confirmed =
                    Some(Confirmed { key, legacy, theirs, their_plain, their_sealed, own_sealed });
                Verdict::Proven
            }
            Err(why) => failed(why),
        }
    }

    fn unexpected(&mut self, why: &'static str) -> Verdict {
        match self.role {
            Role::Host => self.unproven(why),
            Role::Peer => failed(why),
        }
    }

    fn unproven(&mut self, why: &'static str) -> Verdict {
        self.their_spake = None;
        self.transmit.clear();
        Verdict::Unproven(why)
    }

    /// After [`Verdict::Proven`]: the keys.
    pub(super) fn finish(self) -> Option<Proven> {
        let Confirmed { key, legacy, theirs, their_plain, their_sealed, own_sealed } = self.confirmed?;
        let their_spake = self.their_spake?;
        let (host_spake, peer_spake) = in_order(self.role, &self.greeting, &their_spake);
        let (host_version, peer_version) = in_order(self.role, &self.own_version, &their_plain);
        let transcript = Transcript { host_spake, peer_spake, host_version, peer_version };
        let second = theirs.protocol >= 2;
        Some(Proven {
            keys: second.then(|| schedule::protocol2(&key, self.role, &transcript)),
            resume: second.then(|| schedule::resume(&key, host_spake, peer_spake)),
            legacy,
            agent: theirs.agent,
            features: features(&their_plain),
            own_frames: [self.greeting, own_sealed],
            accepted_frames: [their_spake, their_sealed],
            unsent: self.transmit,
            limits: self.limits?,
        })
    }
}

fn in_order<'a>(role: Role, own: &'a [u8], theirs: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    match role {
        Role::Host => (own, theirs),
        Role::Peer => (theirs, own),
    }
}

const fn failed(why: &'static str) -> Verdict {
    Verdict::Failed { why, last_words: VecDeque::new() }
}

/// What the other end knows of what this end knows. A list that is not one of strings holds none.
fn features(version: &[u8]) -> Vec<Feature> {
    #[derive(Deserialize)]
    struct Known {
        features: Vec<String>,
    }
    let known = serde_json::from_slice(version).map_or_else(|_| Vec::new(), |Known { features }| features);
    Feature::ALL.into_iter().filter(|ours| known.iter().any(|theirs| theirs == ours.as_str())).collect()
}

/// Opens and reads the other end's version.
fn open_version(
    opener: &mut LegacyOpener,
    frame: &[u8],
    role: Role,
) -> Result<(Version, Vec<u8>), &'static str> {
    let mut plain = frame.to_vec();
    let len = opener.open(&mut plain).map_err(|_| "the codes differ: a wrong code, or somebody guessed")?;
    plain.truncate(len);
    let version: Version =
        serde_json::from_slice(&plain).map_err(|_| "the other end's version message cannot be read")?;
    if version.version != 1 {
        return Err("the other end speaks another version of the protocol");
    }
    if version.role != role.as_str() {
        return Err("the other end claims to be this end");
    }
    Ok((version, plain))
}
