//! The known answers of `tests/vectors/`, which a second implementation can check itself against.
//!
//! They were computed outside this project from `src/PROTOCOL.md`; here the code is checked against them. Where the
//! code's own version message is part of a key, the key is derived from what it sent, with the formula of the
//! specification and not with the code's.

// clippy.toml excuses test functions, but not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, Nonce, Tag};
use aes_gcm::{Aes256Gcm, KeyInit};
use agent_wormhole::code::{Code, CodeError};
use agent_wormhole::crypto::pake::{Pake, Role};
use agent_wormhole::crypto::resume::ResumeKey;
use agent_wormhole::crypto::schedule::{self, Transcript};
use agent_wormhole::frame::{
    CloseReason, FrameError, MAX_CBOR, Message, Messages, RECORD_HEADER, RecordHeader, RecordKind, State,
};
use agent_wormhole::item::{ItemHead, ItemId, ItemKind, MAX_NAME, Refusal};
use agent_wormhole::session::{Link, LinkLimits, PeerFault, Session, SessionError, SessionEvent};
use bytes::{Bytes, BytesMut};
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::Value;
use sha2::{Digest, Sha256};

const LIMITS: LinkLimits = LinkLimits { max_frame: 1 << 20, messages_per_minute: 0, relayed: false };

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn handshake() -> Value {
    vectors(include_str!("vectors/handshake.json"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.is_ascii() && digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Hexadecimal digits; `6e*9` among them is a byte nine times.
fn bytes(value: &Value) -> Vec<u8> {
    let mut all = Vec::new();
    for part in text(value).split_whitespace() {
        match part.split_once('*') {
            Some((byte, times)) => all.extend(unhex(byte).repeat(times.parse().unwrap())),
            None => all.extend(unhex(part)),
        }
    }
    all
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn role(name: &Value) -> Role {
    if text(name) == "host" { Role::Host } else { Role::Peer }
}

/// Which key a role seals with.
const fn direction(role: Role) -> &'static str {
    match role {
        Role::Host => "host_to_peer",
        Role::Peer => "peer_to_host",
    }
}

fn rng(end: &Value) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(array(&end["rng_seed"]))
}

fn code(known: &Value) -> Code {
    Code::parse(text(&known["code"]), false).unwrap()
}

// --- the specification's formulas, without the code's

fn expand(key: &[u8], salt: Option<&[u8]>, info: &str) -> [u8; 32] {
    let mut okm = [0; 32];
    Hkdf::<Sha256>::new(salt, key).expand(info.as_bytes(), &mut okm).unwrap();
    okm
}

fn salt(parts: [&[u8]; 4]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u32::try_from(part.len()).unwrap().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn nonce(kind: u32, number: u64) -> Nonce<Aes256Gcm> {
    let mut nonce = Nonce::<Aes256Gcm>::default();
    nonce[..4].copy_from_slice(&kind.to_be_bytes());
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn seal(key: &[u8; 32], nonce: &Nonce<Aes256Gcm>, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut sealed = plain.to_vec();
    let cipher = Aes256Gcm::new(key.into());
    let tag = cipher.encrypt_inout_detached(nonce, aad, InOutBuf::from(&mut sealed[..])).unwrap();
    sealed.extend_from_slice(&tag);
    sealed
}

fn open(key: &[u8; 32], nonce: &Nonce<Aes256Gcm>, aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (body, tag) = sealed.split_at(sealed.len() - 16);
    let (mut body, tag) = (body.to_vec(), Tag::<Aes256Gcm>::try_from(tag).unwrap());
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt_inout_detached(nonce, aad, InOutBuf::from(&mut body[..]), &tag).unwrap();
    body
}

fn record(key: &[u8; 32], kind: u8, number: u64, plain: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    record.extend_from_slice(&number.to_be_bytes());
    let sealed = seal(key, &nonce(kind.into(), number), &record, plain);
    record.extend_from_slice(&sealed);
    record
}

/// Kind, number and plaintext of a record.
fn opened(key: &[u8; 32], record: &[u8]) -> (u8, u64, Vec<u8>) {
    let number = u64::from_be_bytes(record[1..9].try_into().unwrap());
    let plain = open(key, &nonce(record[0].into(), number), &record[..9], &record[9..]);
    (record[0], number, plain)
}

// --- codes

#[test]
fn codes_are_read_or_refused() {
    for case in list(&vectors(include_str!("vectors/codes.json"))["cases"]) {
        let typed = text(&case["typed"]);
        let any_words = case["any_words"].as_bool().unwrap_or(false);
        let outcome = Code::parse(typed, any_words).map(|code| code.secret.reveal().to_owned());
        let outcome = outcome.map_err(|error| match error {
            // Of three words without a number more is said.
            CodeError::Nameplate | CodeError::Wordy => "nameplate",
            CodeError::NotLegacy => "not legacy",
            CodeError::Count { .. } => "count",
            CodeError::UnknownWord { .. } => "unknown word",
            CodeError::TooLong => "too long",
        });
        match case.get("code") {
            Some(code) => assert_eq!(outcome.as_deref(), Ok(text(code)), "{typed:?}"),
            None => assert_eq!(outcome, Err(text(&case["error"])), "{typed:?}"),
        }
    }
}

// --- keys

#[test]
fn one_password_and_two_scalars_give_these_messages() {
    let known = handshake();
    let password = text(&known["code"]).as_bytes();
    let mut wide = [0; 48];
    Hkdf::<Sha256>::new(None, password).expand(b"SPAKE2 pw", &mut wide).unwrap();
    assert_eq!(wide.to_vec(), bytes(&known["password_wide"]));
    for role in [Role::Host, Role::Peer] {
        let end = &known[role.as_str()];
        let (mut seed, mut scalar) = ([0; 32], [0; 64]);
        rng(end).fill_bytes(&mut seed);
        ChaCha20Rng::from_seed(seed).fill_bytes(&mut scalar);
        assert_eq!(scalar.to_vec(), bytes(&end["scalar_wide"]));
        let pake = Pake::new(role, &code(&known).secret, &mut rng(end));
        assert_eq!(pake.message().to_vec(), bytes(&end["spake"]));
    }
}

#[test]
fn the_shared_key_is_the_hash_of_the_transcript() {
    let known = handshake();
    let mut hash = Sha256::new();
    hash.update(Sha256::digest(text(&known["code"])));
    hash.update(Sha256::digest(b""));
    hash.update(Sha256::digest(b""));
    hash.update(&bytes(&known["host"]["spake"])[1..]);
    hash.update(&bytes(&known["peer"]["spake"])[1..]);
    hash.update(bytes(&known["shared_element"]));
    assert_eq!(hash.finalize().to_vec(), bytes(&known["shared_key"]));
}

#[test]
fn the_keys_follow_from_the_shared_key() {
    let known = handshake();
    let key = bytes(&known["shared_key"]);
    let (host, peer) = (bytes(&known["host"]["spake"]), bytes(&known["peer"]["spake"]));
    let versions = [text(&known["host"]["version"]).as_bytes(), text(&known["peer"]["version"]).as_bytes()];
    let salt = salt([&host, &peer, versions[0], versions[1]]);
    assert_eq!(salt.to_vec(), bytes(&known["salt"]));
    for (direction, info) in [("host_to_peer", "host-to-peer"), ("peer_to_host", "peer-to-host")] {
        assert_eq!(expand(&key, None, info).to_vec(), bytes(&known["legacy_keys"][direction]));
        let second = expand(&key, Some(&salt), &format!("agent-wormhole/2 {info}"));
        assert_eq!(second.to_vec(), bytes(&known["keys"][direction]));
    }
    let salt: [u8; 32] = Sha256::digest([host, peer].concat()).into();
    let resume = expand(&key, Some(&salt), "agent-wormhole/2 resume");
    assert_eq!(resume.to_vec(), bytes(&known["resume"]["key"]));
}

#[test]
fn the_code_seals_and_opens_what_the_vectors_say() {
    let known = handshake();
    let (host_spake, peer_spake) = (bytes(&known["host"]["spake"]), bytes(&known["peer"]["spake"]));
    let transcript = Transcript {
        host_spake: &host_spake,
        peer_spake: &peer_spake,
        host_version: text(&known["host"]["version"]).as_bytes(),
        peer_version: text(&known["peer"]["version"]).as_bytes(),
    };
    for own in [Role::Host, Role::Peer] {
        let end = &known[own.as_str()];
        let pake = Pake::new(own, &code(&known).secret, &mut rng(end));
        let key = pake.shared(&bytes(&known[own.other().as_str()]["spake"])).unwrap();
        let (mut sealer, _) = schedule::legacy(&key, own);
        let version = text(&end["version"]).as_bytes().to_vec();
        assert_eq!(sealer.seal(version), bytes(&end["sealed_version"]));
        let (sealer, opener) = schedule::protocol2(&key, own, &transcript);
        for case in list(&known["records"]) {
            let (kind, number) = (case["kind"].as_u64().unwrap() as u8, case["number"].as_u64().unwrap());
            let (plain, whole) = (bytes(&case["plaintext"]), bytes(&case["record"]));
            let (header, sealed) = whole.split_at(RECORD_HEADER);
            if role(&case["from"]) == own {
                let mut record = [header, &plain].concat();
                sealer.seal(kind, number, &mut record, RECORD_HEADER);
                assert_eq!(record, whole, "{}", case["name"]);
            } else {
                let mut sealed = sealed.to_vec();
                let len = opener.open(kind, number, header, &mut sealed).unwrap();
                assert_eq!(sealed[..len], plain, "{}", case["name"]);
            }
        }
        check_resume(&known["resume"], &schedule::resume(&key, &host_spake, &peer_spake));
    }
}

fn check_resume(known: &Value, key: &ResumeKey) {
    let (cp, ch) = (array(&known["peer_challenge"]), array(&known["host_challenge"]));
    let frames = [
        [b"R\x01", &cp[..]].concat(),
        [b"R\x02", &ch[..], &key.host_proof(&cp, &ch)].concat(),
        [b"R\x03", &key.peer_proof(&cp, &ch)[..]].concat(),
    ];
    for (frame, known) in frames.iter().zip(list(&known["frames"])) {
        assert_eq!(*frame, bytes(known));
    }
    let given = ResumeKey::new(array(&known["key"]));
    assert!(given.host_proved(&cp, &ch, &frames[1][34..]) && given.peer_proved(&cp, &ch, &frames[2][2..]));
}

// --- whole sessions

/// A session of one end, and this test as the other.
struct Run {
    session: Session,
    now: Instant,
    known: Value,
}

impl Run {
    fn new(own: Role) -> Self {
        let known = handshake();
        let mut session = Session::new(own, &code(&known).secret, &mut rng(&known[own.as_str()]));
        let now = Instant::now();
        session.handle_link(Link::Up { limits: LIMITS, greeted: false }, now).unwrap();
        let mut run = Self { session, now, known };
        assert_eq!(run.frame(), Some(bytes(&run.known[own.as_str()]["spake"])), "the first frame");
        run
    }

    fn frame(&mut self) -> Option<Vec<u8>> {
        self.session.poll_transmit(self.now).map(|frame| frame.to_vec())
    }

    fn feed(&mut self, frame: &[u8]) -> Result<(), SessionError> {
        self.session.handle_frame(BytesMut::from(frame), self.now)
    }

    fn event(&mut self) -> Option<SessionEvent> {
        self.session.poll_event()
    }

    fn legacy_key(&self, from: Role) -> [u8; 32] {
        array(&self.known["legacy_keys"][direction(from)])
    }

    /// The version that this end sealed, checked.
    fn own_version(&self, sealed: &[u8]) -> Vec<u8> {
        let role = self.session.role();
        let plain = open(&self.legacy_key(role), &nonce(0, 0), b"", sealed);
        let version: Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!((&version["version"], &version["protocol"]), (&Value::from(1), &Value::from(2)));
        assert_eq!(text(&version["role"]), role.as_str());
        assert_eq!(version["features"], Value::Array(Vec::new()));
        assert!(text(&version["agent"]).starts_with("agent-wormhole/"));
        plain
    }

    /// Confirms as the other end, whose version text is fixed; the keys that follow, host's first.
    fn connect(&mut self) -> [[u8; 32]; 2] {
        let own = self.session.role();
        let other = self.known[own.other().as_str()].clone();
        self.feed(&bytes(&other["spake"])).unwrap();
        let sealed = (own == Role::Peer).then(|| self.frame().unwrap());
        self.feed(&bytes(&other["sealed_version"])).unwrap();
        let sealed = sealed.unwrap_or_else(|| self.frame().unwrap());
        let (ours, theirs) = (self.own_version(&sealed), text(&other["version"]).as_bytes());
        let versions = if own == Role::Host { [&ours[..], theirs] } else { [theirs, &ours[..]] };
        let spakes = ["host", "peer"].map(|role| bytes(&self.known[role]["spake"]));
        let salt = salt([&spakes[0], &spakes[1], versions[0], versions[1]]);
        let key = bytes(&self.known["shared_key"]);
        let connected = self.event();
        assert!(matches!(connected, Some(SessionEvent::Connected { protocol: 2, .. })), "{connected:?}");
        ["host-to-peer", "peer-to-host"]
            .map(|info| expand(&key, Some(&salt), &format!("agent-wormhole/2 {info}")))
    }

    fn plaintext(&self, name: &str) -> (u8, u64, Vec<u8>) {
        let case = list(&self.known["records"]).iter().find(|case| case["name"] == name).unwrap();
        let (kind, number) = (case["kind"].as_u64().unwrap() as u8, case["number"].as_u64().unwrap());
        (kind, number, bytes(&case["plaintext"]))
    }
}

#[test]
fn a_session_speaks_as_the_vectors_do() {
    let mut host = Run::new(Role::Host);
    let [to_peer, to_host] = host.connect();
    let first = host.frame().unwrap();
    assert_eq!(opened(&to_peer, &first), host.plaintext("first state of the host"));
    let head = ItemHead {
        kind: ItemKind::Text,
        group: None,
        name: "greeting".into(),
        size: Some(5),
        executable: false,
        mtime: None,
        inline: Some(Bytes::from_static(b"hello")),
    };
    assert_eq!(host.session.offer(head), Some(ItemId(1)));
    let text = host.frame().unwrap();
    assert_eq!(opened(&to_peer, &text), host.plaintext("a text"));
    for name in ["first state of the peer", "its receipt", "acknowledgement of the text"] {
        let (kind, number, plain) = host.plaintext(name);
        host.feed(&record(&to_host, kind, number, &plain)).unwrap();
    }
    assert!(matches!(host.event(), Some(SessionEvent::Receipt { id: ItemId(1), refused: None })));
    assert_eq!(host.session.backlog().unacknowledged, 0);

    let mut peer = Run::new(Role::Peer);
    let [_, to_host] = peer.connect();
    let first = peer.frame().unwrap();
    assert_eq!(opened(&to_host, &first), peer.plaintext("first state of the peer"));
}

#[test]
fn handshakes_end_as_the_vectors_say() {
    for case in list(&handshake()["verdicts"]) {
        let mut run = Run::new(role(&case["role"]));
        for frame in list(&case["frames"]) {
            run.feed(&bytes(frame)).unwrap();
        }
        let verdict = match run.event() {
            None => "none",
            Some(SessionEvent::Unproven(_)) => "unproven",
            Some(SessionEvent::HandshakeFailed(_)) => "failed",
            Some(SessionEvent::Connected { protocol: 1, .. }) => "protocol 1",
            Some(SessionEvent::Connected { protocol: 2, .. }) => "protocol 2",
            Some(other) => panic!("{}: {other:?}", case["name"]),
        };
        assert_eq!(verdict, text(&case["verdict"]), "{} ({})", case["name"], case["role"]);
        // A host says its own version after every guess, right or wrong, and in no other case.
        let judged = !["none", "unproven"].contains(&verdict);
        if text(&case["role"]) == "host" {
            let answer = run.frame();
            assert_eq!(answer.is_some(), judged, "{}", case["name"]);
            answer.into_iter().for_each(|sealed| drop(run.own_version(&sealed)));
        }
    }
}

#[test]
fn a_0_1_peer_is_understood() {
    let mut host = Run::new(Role::Host);
    let known = host.known["with_a_0_1_peer"].clone();
    host.feed(&bytes(&host.known["peer"]["spake"])).unwrap();
    host.feed(&bytes(&known["sealed_version"])).unwrap();
    assert!(matches!(host.event(), Some(SessionEvent::Connected { protocol: 1, resume: None, .. })));
    let version = host.frame().unwrap();
    host.own_version(&version);
    for case in list(&known["envelopes"]) {
        host.feed(&bytes(&case["sealed"])).unwrap();
        let event = host.event().unwrap();
        let Some(kind) = case.get("kind") else {
            assert!(matches!(event, SessionEvent::Unreadable(_)), "{case}");
            continue;
        };
        let SessionEvent::Head(incoming) = event else { panic!("{event:?}") };
        assert_eq!(name_of_kind(incoming.head.kind), text(kind));
        assert_eq!(incoming.head.name, text(&case["name"]));
        let content = match incoming.head.inline {
            Some(inline) => inline,
            None => match host.event() {
                Some(SessionEvent::Chunk { bytes, last: true, .. }) => bytes,
                other => panic!("{other:?}"),
            },
        };
        assert_eq!(content.to_vec(), bytes(&case["content"]));
    }
}

const fn name_of_fault(fault: PeerFault) -> &'static str {
    match fault {
        PeerFault::Frame(_) => "frame",
        PeerFault::AcknowledgedFuture => "acknowledged future",
        PeerFault::BeyondGrant => "beyond grant",
        PeerFault::ItemNumber => "item number",
        PeerFault::NotOpen => "not open",
        PeerFault::Group => "group",
        PeerFault::Receipt => "receipt",
        PeerFault::TooMany => "too many",
        PeerFault::Contradiction => "contradiction",
        PeerFault::AfterClose => "after close",
    }
}

#[test]
fn what_a_peer_may_not_do_is_named() {
    for case in list(&vectors(include_str!("vectors/sessions.json"))["cases"]) {
        let mut host = Run::new(Role::Host);
        let [to_peer, to_host] = host.connect();
        let (kind, _, plain) = opened(&to_peer, &host.frame().unwrap());
        assert_eq!((kind, State::decode(plain.into()).map(|state| state.next)), (2, Ok(0)));
        let mut outcome = Ok(());
        for (number, plain) in list(&case["records"]).iter().enumerate() {
            outcome = outcome.and(host.feed(&record(&to_host, 1, number as u64, &bytes(plain))));
        }
        let outcome = match outcome {
            Ok(()) => "ok",
            Err(SessionError::Peer(fault)) => name_of_fault(fault),
            Err(other) => panic!("{}: {other:?}", case["name"]),
        };
        assert_eq!(outcome, text(&case["outcome"]), "{}", case["name"]);
    }
}

// --- messages

const KINDS: [(&str, ItemKind); 4] =
    [("text", ItemKind::Text), ("file", ItemKind::File), ("dir", ItemKind::Dir), ("group", ItemKind::Group)];
const REFUSALS: [(&str, Refusal); 11] = [
    ("cancelled", Refusal::Cancelled),
    ("changed", Refusal::Changed),
    ("unreadable", Refusal::Unreadable),
    ("too large", Refusal::TooLarge),
    ("no space", Refusal::NoSpace),
    ("bad name", Refusal::BadName),
    ("storage failed", Refusal::StorageFailed),
    ("closing", Refusal::Closing),
    ("wrong size", Refusal::WrongSize),
    ("unsupported", Refusal::Unsupported),
    ("bad text", Refusal::BadText),
];
const REASONS: [(&str, CloseReason); 7] = [
    ("done", CloseReason::Done),
    ("stopped", CloseReason::Stopped),
    ("tampered", CloseReason::Tampered),
    ("protocol", CloseReason::Protocol),
    ("used up", CloseReason::UsedUp),
    ("idle", CloseReason::Idle),
    ("internal", CloseReason::Internal),
];

fn named<T: Copy>(names: &[(&str, T)], name: &Value) -> T {
    names.iter().find(|(known, _)| *known == text(name)).unwrap().1
}

fn name_of_kind(kind: ItemKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).unwrap().0
}

fn message(case: &Value) -> Message {
    let item = ItemId(case["item"].as_u64().unwrap_or(0));
    match text(&case["message"]) {
        "head" => {
            let head = ItemHead {
                kind: named(&KINDS, &case["kind"]),
                group: case["group"].as_u64().map(ItemId),
                name: text(&case["path"]).to_owned(),
                size: case["size"].as_u64(),
                executable: case["executable"].as_bool().unwrap_or(false),
                mtime: case["mtime"].as_i64(),
                inline: case.get("inline").map(|inline| bytes(inline).into()),
            };
            Message::Head { item, head }
        }
        "chunk" => Message::Chunk {
            item,
            last: case["last"] == Value::Bool(true),
            bytes: bytes(&case["content"]).into(),
        },
        "cancel" => Message::Cancel { item, reason: named(&REFUSALS, &case["reason"]) },
        "receipt" => Message::Receipt { item, refused: case.get("refused").map(|why| named(&REFUSALS, why)) },
        "close" => Message::Close { reason: named(&REASONS, &case["reason"]) },
        other => panic!("{other}"),
    }
}

fn state(case: &Value) -> State {
    let number = |member: &str| case[member].as_u64().unwrap();
    State {
        next: number("next"),
        grant_bulk: number("grant_bulk"),
        grant_prompt: number("grant_prompt"),
        end: number("end"),
        link: number("link"),
        echo: number("echo"),
        ask: case["ask"] == Value::Bool(true),
        again: case["again"] == Value::Bool(true),
    }
}

fn name_of_error(error: FrameError) -> &'static str {
    match error {
        FrameError::Tag(_) => "tag",
        FrameError::Length => "length",
        FrameError::Body(_) => "body",
        FrameError::Short(_) | FrameError::Kind(_) => "record",
    }
}

#[test]
fn messages_are_these_bytes() {
    let known = vectors(include_str!("vectors/messages.json"));
    for case in list(&known["encoded"]) {
        let mut out = Vec::new();
        message(case).encode(&mut out);
        assert_eq!(out, bytes(&case["bytes"]), "{}", case["name"]);
    }
    for case in list(&known["encoded"]).iter().chain(list(&known["read"])) {
        let read: Result<Vec<_>, _> = Messages::new(bytes(&case["bytes"]).into()).collect();
        assert_eq!(read, Ok(vec![message(case)]), "{}", case["name"]);
    }
    for case in list(&known["states"]) {
        let mut out = Vec::new();
        state(case).encode(&mut out);
        assert_eq!(out, bytes(&case["bytes"]), "{}", case["name"]);
        assert_eq!(State::decode(out.into()), Ok(state(case)));
    }
    for case in list(&known["headers"]) {
        let kind = if case["kind"] == 1 { RecordKind::Data } else { RecordKind::Control };
        let header = RecordHeader { kind, number: case["number"].as_u64().unwrap() };
        assert_eq!(header.encode().to_vec(), bytes(&case["bytes"]));
    }
}

#[test]
fn hostile_messages_are_refused_by_name() {
    // The vectors' lengths are those of the specification.
    assert_eq!((MAX_NAME, MAX_CBOR), (4096, 20_736));
    let known = vectors(include_str!("vectors/messages.json"));
    for case in list(&known["refused"]) {
        let first = Messages::new(bytes(&case["bytes"]).into()).next();
        let error = first.map(|read| read.map_err(name_of_error));
        assert_eq!(error, Some(Err(text(&case["error"]))), "{}", case["name"]);
    }
    for case in list(&known["refused_states"]) {
        let read = State::decode(bytes(&case["bytes"]).into()).map_err(name_of_error);
        assert_eq!(read, Err(text(&case["error"])), "{}", case["name"]);
    }
}
