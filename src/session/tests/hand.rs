//! The other end of a session, played by a test that holds its keys: it can say anything at any time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::code::{Code, Secret};
use crate::crypto::pake::{Pake, Role, SharedKey};
use crate::crypto::schedule::{self, Transcript};
use crate::crypto::seal::{LegacyOpener, LegacySealer, Opener, Sealer};
use crate::frame::{CloseReason, Message, Messages, RECORD_HEADER, RecordHeader, RecordKind, State};
use crate::item::{ItemHead, ItemId, ItemKind};
use crate::session::{Incoming, Link, LinkLimits, PeerFault, Session, SessionError, SessionEvent};

pub(super) const CODE: &str = "7-cross-clock-marble";
pub(super) const LIMITS: LinkLimits =
    LinkLimits { max_frame: 1_114_112, messages_per_minute: 0, relayed: false };

pub(super) fn secret(code: &str) -> Secret {
    Code::parse(code, false).unwrap().secret
}

pub(super) fn session(role: Role) -> Session {
    Session::new(role, &secret(CODE), &mut ChaCha8Rng::seed_from_u64(role as u64))
}

pub(super) fn up(session: &mut Session, now: Instant) {
    session.handle_link(Link::Up { limits: LIMITS, greeted: false }, now).unwrap();
}

pub(super) fn feed(session: &mut Session, frame: &[u8], now: Instant) -> Result<(), SessionError> {
    session.handle_frame(BytesMut::from(frame), now)
}

pub(super) fn version(role: Role) -> String {
    let features = r#"["opened","secrets","questions","telepathy"]"#;
    format!(
        r#"{{"version":1,"role":"{}","protocol":2,"features":{features},"agent":"a hand"}}"#,
        role.as_str()
    )
}

/// One end of the handshake, by hand.
pub(super) struct Shake {
    role: Role,
    pake: Pake,
}

impl Shake {
    /// `role` is the hand's own.
    pub(super) fn new(role: Role, code: &str) -> Self {
        Self { role, pake: Pake::new(role, &secret(code), &mut ChaCha8Rng::seed_from_u64(99)) }
    }

    pub(super) fn greeting(&self) -> Bytes {
        Bytes::copy_from_slice(self.pake.message())
    }

    pub(super) fn key(&self, theirs: &[u8]) -> SharedKey {
        self.pake.shared(theirs).unwrap()
    }

    pub(super) fn legacy(&self, theirs: &[u8]) -> (LegacySealer, LegacyOpener) {
        schedule::legacy(&self.key(theirs), self.role)
    }

    /// Its version as it goes to an end that sent `theirs`.
    pub(super) fn sealed(&self, theirs: &[u8], version: &str) -> Vec<u8> {
        self.legacy(theirs).0.seal(version.as_bytes().to_vec())
    }
}

/// What came out of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    State(State),
    Data(u64, Vec<Message>),
}

/// A connected session, and the hand that is its other end.
pub(super) struct Hand {
    pub(super) session: Session,
    pub(super) start: Instant,
    pub(super) now: Instant,
    sealer: Sealer,
    opener: Opener,
    /// What the hand says of itself in its next state.
    pub(super) state: State,
    control: u64,
    /// Each data record that came, as it was on the link.
    pub(super) records: BTreeMap<u64, Bytes>,
    /// Each control number that came.
    controls: u64,
    /// Each frame that came, and when.
    pub(super) log: Vec<(Duration, Out)>,
    /// Frames of the handshake: the session's, then the hand's.
    pub(super) frames: [Bytes; 4],
}

impl Hand {
    /// A session of the host, connected, whose hand grants everything.
    pub(super) fn new() -> Self {
        Self::with(Role::Host, LIMITS)
    }

    pub(super) fn with(role: Role, limits: LinkLimits) -> Self {
        let mut hand = Self::before_states(role, limits, version(role.other()));
        hand.tell().unwrap();
        hand.settle();
        hand.log.clear();
        hand
    }

    /// A session of the host that has heard no state, so that it may send what the protocol grants at first.
    pub(super) fn bare() -> Self {
        Self::before_states(Role::Host, LIMITS, version(Role::Peer))
    }

    /// A session of the host, connected, whose hand says so of itself, and grants everything.
    pub(super) fn saying(version: String) -> Self {
        let mut hand = Self::before_states(Role::Host, LIMITS, version);
        hand.tell().unwrap();
        hand.settle();
        hand.log.clear();
        hand
    }

    fn before_states(role: Role, limits: LinkLimits, own: String) -> Self {
        let start = Instant::now();
        let mut session = session(role);
        session.handle_link(Link::Up { limits, greeted: false }, start).unwrap();
        let shake = Shake::new(role.other(), CODE);
        let greeting = session.poll_transmit(start).unwrap();
        let (mut own_sealer, mut own_opener) = shake.legacy(&greeting);
        let sealed = Bytes::from(own_sealer.seal(own.clone().into_bytes()));
        feed(&mut session, &shake.greeting(), start).unwrap();
        let early = (role == Role::Peer).then(|| session.poll_transmit(start).unwrap());
        feed(&mut session, &sealed, start).unwrap();
        let theirs = early.unwrap_or_else(|| session.poll_transmit(start).unwrap());
        let mut plain = theirs.to_vec();
        let len = own_opener.open(&mut plain).unwrap();
        plain.truncate(len);
        let mine = shake.greeting();
        let (host_spake, peer_spake, host_version, peer_version) = match role {
            Role::Host => (&greeting[..], &mine[..], &plain[..], own.as_bytes()),
            Role::Peer => (&mine[..], &greeting[..], own.as_bytes(), &plain[..]),
        };
        let transcript = Transcript { host_spake, peer_spake, host_version, peer_version };
        let (sealer, opener) = schedule::protocol2(&shake.key(&greeting), role.other(), &transcript);
        let connected = session.poll_event();
        assert!(matches!(connected, Some(SessionEvent::Connected { protocol: 2, .. })), "{connected:?}");
        let state =
            State { grant_bulk: 1 << 40, grant_prompt: 1 << 40, link: 1, echo: 1, ..State::default() };
        let mut hand = Self {
            session,
            start,
            now: start,
            sealer,
            opener,
            state,
            control: 0,
            records: BTreeMap::new(),
            controls: 0,
            log: Vec::new(),
            frames: [greeting, theirs, mine, sealed],
        };
        hand.settle();
        hand.log.clear();
        hand
    }

    // --- what the hand says

    pub(super) fn sealed(&self, kind: RecordKind, number: u64, plain: &[u8]) -> Vec<u8> {
        let mut record = RecordHeader { kind, number }.encode().to_vec();
        record.extend_from_slice(plain);
        self.sealer.seal(kind as u8, number, &mut record, RECORD_HEADER);
        record
    }

    pub(super) fn data_record(&self, number: u64, messages: &[Message]) -> Vec<u8> {
        let mut plain = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut plain));
        self.sealed(RecordKind::Data, number, &plain)
    }

    pub(super) fn control_record(&self, number: u64, state: &State) -> Vec<u8> {
        let mut plain = Vec::new();
        state.encode(&mut plain);
        self.sealed(RecordKind::Control, number, &plain)
    }

    pub(super) fn feed(&mut self, frame: &[u8]) -> Result<(), SessionError> {
        feed(&mut self.session, frame, self.now)
    }

    /// The next data record.
    pub(super) fn say(&mut self, messages: &[Message]) -> Result<(), SessionError> {
        let record = self.data_record(self.state.end, messages);
        self.state.end += 1;
        self.feed(&record)
    }

    /// The fault that the next data record is.
    pub(super) fn fault(&mut self, messages: &[Message]) -> Option<PeerFault> {
        match self.say(messages) {
            Err(SessionError::Peer(fault)) => Some(fault),
            Err(other) => panic!("{other:?}"),
            Ok(()) => None,
        }
    }

    /// The hand's state as it stands.
    pub(super) fn tell(&mut self) -> Result<(), SessionError> {
        self.tell_as(self.state)
    }

    pub(super) fn tell_as(&mut self, state: State) -> Result<(), SessionError> {
        let record = self.control_record(self.control, &state);
        self.control += 1;
        self.feed(&record)
    }

    // --- what the session says

    /// Takes all that the session sends now, and acknowledges nothing.
    pub(super) fn settle(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        while let Some(frame) = self.session.poll_transmit(self.now) {
            if self.frames.contains(&frame) {
                continue;
            }
            let header = RecordHeader::decode(&frame).unwrap();
            let (head, sealed) = frame.split_at(RECORD_HEADER);
            let mut plain = sealed.to_vec();
            let len = self.opener.open(header.kind as u8, header.number, head, &mut plain).unwrap();
            plain.truncate(len);
            out.push(match header.kind {
                RecordKind::Control => {
                    assert_eq!(header.number, self.controls, "control numbers rise by one");
                    self.controls += 1;
                    Out::State(State::decode(plain.into()).unwrap())
                }
                RecordKind::Data => {
                    let known = self.records.insert(header.number, frame.clone());
                    assert!(known.is_none_or(|known| known == frame), "sealed twice under one number");
                    let messages = Messages::new(plain.into()).collect::<Result<_, _>>().unwrap();
                    Out::Data(header.number, messages)
                }
            });
        }
        let at = self.now - self.start;
        self.log.extend(out.iter().map(|out| (at, out.clone())));
        out
    }

    /// Whether a frame is a data record with a chunk in it. It stays unheard otherwise.
    pub(super) fn opens_to_chunk(&self, frame: &[u8]) -> bool {
        let header = RecordHeader::decode(frame).unwrap();
        let (head, sealed) = frame.split_at(RECORD_HEADER);
        let mut plain = sealed.to_vec();
        let len = self.opener.open(header.kind as u8, header.number, head, &mut plain).unwrap();
        plain.truncate(len);
        assert_eq!(header.kind, RecordKind::Data);
        Messages::new(plain.into()).any(|message| matches!(message, Ok(Message::Chunk { .. })))
    }

    /// Messages of the data records that the session sends now; the hand acknowledges and answers.
    pub(super) fn take(&mut self) -> Vec<Message> {
        let mut taken = Vec::new();
        loop {
            let out = self.settle();
            let before = taken.len();
            for out in out {
                if let Out::Data(number, messages) = out
                    && number == self.state.next
                {
                    self.state.next += 1;
                    taken.extend(messages);
                }
            }
            if taken.len() == before {
                return taken;
            }
            self.tell().unwrap();
        }
    }

    /// States that the session sends now, and no data.
    pub(super) fn states(&mut self) -> Vec<State> {
        let states = self.settle().into_iter().map(|out| match out {
            Out::State(state) => state,
            Out::Data(number, messages) => panic!("record {number}: {messages:?}"),
        });
        states.collect()
    }

    pub(super) fn events(&mut self) -> Vec<SessionEvent> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Heads that came, all other events dropped.
    pub(super) fn heads(&mut self) -> Vec<Incoming> {
        let heads = self.events().into_iter().filter_map(|event| match event {
            SessionEvent::Head(incoming) => Some(incoming),
            _ => None,
        });
        heads.collect()
    }

    // --- time

    /// Lets time pass, with every timer at its time and everything sent at once.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        loop {
            self.settle();
            let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            steps += 1;
            assert!(steps < 10_000, "spinning");
        }
        self.now = end;
    }

    /// The same for a peer that is there: it says so every ten seconds.
    pub(super) fn pass_heard(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass(Duration::from_secs(10).min(end - self.now));
            self.tell().unwrap();
        }
    }

    /// When frames of a kind came since the log was cleared, relative to `from`.
    pub(super) fn times(&self, from: Instant, which: impl Fn(&Out) -> bool) -> Vec<Duration> {
        let from = from - self.start;
        self.log.iter().filter(|(_, out)| which(out)).map(|(at, _)| *at - from).collect()
    }

    /// A new link, up on both sides; the session's states on it.
    pub(super) fn relink(&mut self, limits: LinkLimits) -> Result<(), SessionError> {
        self.session.handle_link(Link::Down, self.now)?;
        self.session.handle_link(Link::Up { limits, greeted: false }, self.now)
    }
}

// --- messages

pub(super) fn head(kind: ItemKind, name: &str) -> ItemHead {
    ItemHead {
        kind,
        group: None,
        name: name.into(),
        size: None,
        executable: false,
        mtime: None,
        inline: None,
    }
}

pub(super) fn text(content: &str) -> ItemHead {
    ItemHead { inline: Some(Bytes::copy_from_slice(content.as_bytes())), ..head(ItemKind::Text, "") }
}

pub(super) fn file(name: &str) -> ItemHead {
    head(ItemKind::File, name)
}

pub(super) fn member(group: u64, name: &str) -> ItemHead {
    ItemHead { group: Some(ItemId(group)), ..file(name) }
}

pub(super) const fn begin(item: u64, head: ItemHead) -> Message {
    Message::Head { item: ItemId(item), head }
}

pub(super) fn chunk(item: u64, len: usize, last: bool) -> Message {
    Message::Chunk { item: ItemId(item), last, bytes: vec![7; len].into() }
}

pub(super) const fn receipt(item: u64) -> Message {
    Message::Receipt { item: ItemId(item), refused: None }
}

pub(super) const fn goodbye(reason: CloseReason) -> Message {
    Message::Close { reason }
}

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
