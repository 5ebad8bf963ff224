//! Whole sessions of one end, with the test as the other.

use std::time::Instant;

use agent_wormhole::crypto::pake::Role;
use agent_wormhole::frame::{Message, State};
use agent_wormhole::item::{ItemHead, ItemId, ItemKind};
use agent_wormhole::session::{Link, LinkLimits, PeerFault, Session, SessionError, SessionEvent};
use bytes::{Bytes, BytesMut};
use serde_json::Value;

use crate::messages::name_of_kind;
use crate::{
    array, bytes, code, direction, expand, handshake, list, nonce, open, opened, record, rng, role, salt,
};
use crate::{text, vectors};

const LIMITS: LinkLimits = LinkLimits { max_frame: 1 << 20, messages_per_minute: 0, relayed: false };

/// A session of one end, and this test as the other.
pub struct Run {
    pub session: Session,
    now: Instant,
    pub known: Value,
}

impl Run {
    pub fn new(own: Role) -> Self {
        let known = handshake();
        let mut session = Session::new(own, &code(&known).secret, &mut rng(&known[own.as_str()]));
        let now = Instant::now();
        session.handle_link(Link::Up { limits: LIMITS, greeted: false }, now).unwrap();
        let mut run = Self { session, now, known };
        assert_eq!(run.frame(), Some(bytes(&run.known[own.as_str()]["spake"])), "the first frame");
        run
    }

    pub fn frame(&mut self) -> Option<Vec<u8>> {
        self.session.poll_transmit(self.now).map(|frame| frame.to_vec())
    }

    /// Whatever this end's clocks are due for at this moment.
    pub fn tick(&mut self) {
        self.session.handle_timeout(self.now);
    }

    pub fn feed(&mut self, frame: &[u8]) -> Result<(), SessionError> {
        self.session.handle_frame(BytesMut::from(frame), self.now)
    }

    pub fn event(&mut self) -> Option<SessionEvent> {
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
        assert_eq!(version["features"], serde_json::json!(["secrets", "questions", "opened"]));
        assert!(text(&version["agent"]).starts_with("agent-wormhole/"));
        plain
    }

    /// Confirms as the other end, whose version text is fixed; the keys that follow, host's first.
    pub fn connect(&mut self) -> [[u8; 32]; 2] {
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

    /// How the handshake has ended, if it has.
    pub fn verdict(&mut self) -> &'static str {
        match self.event() {
            None => "none",
            Some(SessionEvent::Unproven(_)) => "unproven",
            Some(SessionEvent::HandshakeFailed(_)) => "failed",
            Some(SessionEvent::Connected { protocol: 1, .. }) => "protocol 1",
            Some(SessionEvent::Connected { protocol: 2, .. }) => "protocol 2",
            Some(other) => panic!("{other:?}"),
        }
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
        let verdict = run.verdict();
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

pub fn name_of_outcome(outcome: Result<(), SessionError>) -> &'static str {
    match outcome {
        Ok(()) => "ok",
        Err(SessionError::Tampered) => "tampered",
        Err(SessionError::Peer(fault)) => name_of_fault(fault),
        Err(other) => panic!("{other:?}"),
    }
}

/// So many texts without a byte, whole, from item 1 on.
fn empty_texts(count: u64) -> Vec<u8> {
    let head = ItemHead {
        kind: ItemKind::Text,
        group: None,
        name: String::new(),
        size: None,
        executable: false,
        mtime: None,
        inline: Some(Bytes::new()),
    };
    let mut plain = Vec::new();
    for item in 1..=count {
        Message::Head { item: ItemId(item), head: head.clone() }.encode(&mut plain);
    }
    plain
}

#[test]
fn what_a_peer_may_not_do_is_named() {
    for case in list(&vectors(include_str!("../vectors/sessions.json"))["cases"]) {
        let mut host = Run::new(Role::Host);
        let [to_peer, to_host] = host.connect();
        let (kind, _, plain) = opened(&to_peer, &host.frame().unwrap());
        assert_eq!((kind, State::decode(plain.into()).map(|state| state.next)), (2, Ok(0)));
        let mut outcome = Ok(());
        let texts = case.get("texts").map(|count| empty_texts(count.as_u64().unwrap()));
        let records = texts.into_iter().chain(list(&case["records"]).iter().map(bytes));
        for (number, plain) in records.enumerate() {
            outcome = outcome.and(host.feed(&record(&to_host, 1, number as u64, &plain)));
        }
        let outcome = name_of_outcome(outcome);
        assert_eq!(outcome, text(&case["outcome"]), "{}", case["name"]);
    }
}
