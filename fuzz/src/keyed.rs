//! A peer that holds the keys and breaks every rule: what it sends is taken by the rules or ends the session, and the
//! session's own records stay what the protocol says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent_wormhole::code::Code;
use agent_wormhole::crypto::pake::{Pake, Role};
use agent_wormhole::crypto::schedule::{self, Transcript};
use agent_wormhole::crypto::seal::{Opener, Sealer};
use agent_wormhole::frame::{
    ChunkBuf, CloseReason, Message, Messages, RECORD_HEADER, RecordHeader, RecordKind, State,
};
use agent_wormhole::item::{ItemHead, ItemId, ItemKind, Refusal};
use agent_wormhole::session::{Link, LinkLimits, Session, SessionEvent};
use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::Script;

const LIMITS: LinkLimits = LinkLimits { max_frame: 1_114_112, messages_per_minute: 0, relayed: false };
const VERSION: &str =
    r#"{"version":1,"role":"peer","protocol":2,"features":["opened","secrets","questions"]}"#;
/// Most frames that the session sends for each thing that happens to it: what was kept for repetition, once.
const MOST_FRAMES: usize = 10_000;

/// What the peer is known to have begun.
struct Theirs {
    size: Option<u64>,
    got: u64,
    ended: bool,
}

/// A connected host, and the hand that is its peer.
struct Hand {
    session: Session,
    now: Instant,
    sealer: Sealer,
    opener: Opener,
    state: State,
    control: u64,
    /// The session's data records by number: one that comes again is the same.
    records: BTreeMap<u64, Bytes>,
    handshake: [Bytes; 2],
    theirs: BTreeMap<ItemId, Theirs>,
    /// Own items, and whether they have their receipt.
    own: BTreeMap<ItemId, bool>,
}

/// Any script of a peer and of what its host does meanwhile.
pub fn holds(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut hand = Hand::new();
    while !script.is_empty() {
        if !hand.act(&mut script) {
            break;
        }
        hand.settle();
    }
    hand.settle();
}

fn message(script: &mut Script<'_>) -> Message {
    let kinds = [
        ItemKind::Text,
        ItemKind::File,
        ItemKind::Dir,
        ItemKind::Group,
        ItemKind::Secret,
        ItemKind::Ask,
        ItemKind::Answer,
    ];
    let item = ItemId(u64::from(script.byte() % 16));
    let flags = script.byte();
    let refusal = if flags & 1 == 0 { Refusal::Cancelled } else { Refusal::Changed };
    match script.byte() % 8 {
        0 | 1 => {
            let content = script.bytes();
            let inline = (flags & 1 == 0).then(|| Bytes::copy_from_slice(content));
            let size = match flags & 6 {
                0 => None,
                2 => Some(u64::from(script.byte())),
                _ => Some(content.len() as u64),
            };
            let group = (flags & 24 == 8).then(|| ItemId(u64::from(script.byte() % 16)));
            let kind = kinds[usize::from(script.byte()) % kinds.len()];
            let head =
                ItemHead { kind, group, name: script.text(), size, executable: false, mtime: None, inline };
            Message::Head { item, head }
        }
        2..=4 => Message::Chunk { item, last: flags & 1 == 1, bytes: Bytes::copy_from_slice(script.bytes()) },
        5 => Message::Cancel { item, reason: refusal },
        6 => Message::Receipt { item, refused: (flags & 2 == 0).then_some(refusal) },
        _ if flags & 15 == 0 => Message::Close { reason: CloseReason::Done },
        _ => Message::Opened { item, at: u64::from(script.byte()) },
    }
}

impl Hand {
    fn new() -> Self {
        let now = Instant::now();
        let code = Code::parse("7-cross-clock-marble", false).expect("a code");
        let mut session = Session::new(Role::Host, &code.secret, &mut ChaCha8Rng::seed_from_u64(1));
        session.handle_link(Link::Up { limits: LIMITS, greeted: false }, now).expect("a link");
        let greeting = session.poll_transmit(now).expect("a greeting");
        let pake = Pake::new(Role::Peer, &code.secret, &mut ChaCha8Rng::seed_from_u64(2));
        let key = pake.shared(&greeting).expect("a greeting");
        let (mut seal_version, mut open_version) = schedule::legacy(&key, Role::Peer);
        let hers = BytesMut::from(&pake.message()[..]);
        session.handle_frame(hers, now).expect("a handshake does not fail here");
        let sealed = seal_version.seal(VERSION.as_bytes().to_vec());
        session.handle_frame(BytesMut::from(&sealed[..]), now).expect("a handshake does not fail here");
        let version = session.poll_transmit(now).expect("a version");
        let mut plain = version.to_vec();
        let length = open_version.open(&mut plain).expect("the version opens");
        plain.truncate(length);
        let transcript = Transcript {
            host_spake: &greeting,
            peer_spake: pake.message(),
            host_version: &plain,
            peer_version: VERSION.as_bytes(),
        };
        let (sealer, opener) = schedule::protocol2(&key, Role::Peer, &transcript);
        let state =
            State { grant_bulk: 1 << 40, grant_prompt: 1 << 40, link: 1, echo: 1, ..State::default() };
        let handshake = [greeting, version];
        let mut hand = Self {
            session,
            now,
            sealer,
            opener,
            state,
            control: 0,
            records: BTreeMap::new(),
            handshake,
            theirs: BTreeMap::new(),
            own: BTreeMap::new(),
        };
        let connected = hand.session.poll_event();
        assert!(matches!(connected, Some(SessionEvent::Connected { protocol: 2, .. })), "{connected:?}");
        hand
    }

    /// Does the next thing of the script; whether the session goes on.
    fn act(&mut self, script: &mut Script<'_>) -> bool {
        match script.byte() % 12 {
            0 => {
                let mut state = self.state;
                match script.byte() % 8 {
                    0 => state.next = u64::from(script.byte()),
                    1 => state.end = u64::from(script.byte()),
                    2 => state.echo = u64::from(script.byte()),
                    3 => state.grant_prompt = u64::from(script.byte()),
                    4 => (state.ask, state.again) = (true, true),
                    _ => {}
                }
                self.control_record(|plain| state.encode(plain))
            }
            1 => {
                let raw = script.bytes();
                self.control_record(|plain| plain.extend_from_slice(raw))
            }
            2 => {
                let raw = script.bytes();
                self.data_record(|plain| plain.extend_from_slice(raw))
            }
            3 => self.session.handle_frame(BytesMut::from(script.bytes()), self.now).is_ok(),
            4 => {
                self.now += Duration::from_secs(u64::from(script.byte()));
                self.session.handle_timeout(self.now);
                true
            }
            5 => {
                let link = Link::Up { limits: LIMITS, greeted: true };
                self.session.handle_link(Link::Down, self.now).is_ok()
                    && self.session.handle_link(link, self.now).is_ok()
            }
            6 => {
                self.offer(script.byte(), script.bytes());
                true
            }
            7 => {
                self.session.cancel(ItemId(u64::from(script.byte() % 16)), Refusal::Cancelled);
                true
            }
            _ => {
                let messages: Vec<_> = (0..=script.byte() % 4).map(|_| message(script)).collect();
                self.data_record(|plain| messages.iter().for_each(|message| message.encode(plain)))
            }
        }
    }

    fn control_record(&mut self, write: impl Fn(&mut Vec<u8>)) -> bool {
        self.control += 1;
        self.record(RecordKind::Control, self.control - 1, write)
    }

    fn data_record(&mut self, write: impl Fn(&mut Vec<u8>)) -> bool {
        self.state.end += 1;
        self.record(RecordKind::Data, self.state.end - 1, write)
    }

    fn record(&mut self, kind: RecordKind, number: u64, write: impl Fn(&mut Vec<u8>)) -> bool {
        let mut record = RecordHeader { kind, number }.encode().to_vec();
        write(&mut record);
        self.sealer.seal(kind as u8, number, &mut record, RECORD_HEADER);
        self.session.handle_frame(BytesMut::from(&record[..]), self.now).is_ok()
    }

    fn offer(&mut self, choice: u8, content: &[u8]) {
        let (kind, inline) = match choice % 3 {
            0 => (ItemKind::Text, Some(Bytes::copy_from_slice(b"own"))),
            1 => (ItemKind::Ask, Some(Bytes::copy_from_slice(b"own?"))),
            _ => (ItemKind::File, None),
        };
        let size = inline.as_ref().map_or(content.len(), Bytes::len) as u64;
        let head = ItemHead {
            kind,
            group: None,
            name: format!("own-{}", self.own.len()),
            size: Some(size),
            executable: false,
            mtime: None,
            inline: inline.clone(),
        };
        let Some(id) = self.session.offer(head) else { return };
        assert!(self.own.insert(id, false).is_none(), "a number is used once");
        if inline.is_none() {
            self.session.push(id, ChunkBuf::copy_of(content), true);
        }
    }

    /// Takes all that the session says and tells, as its driver and as its peer.
    fn settle(&mut self) {
        while let Some(event) = self.session.poll_event() {
            self.heard(event);
        }
        for count in 0.. {
            let Some(frame) = self.session.poll_transmit(self.now) else { break };
            assert!(count < MOST_FRAMES, "it babbles");
            if !self.handshake.contains(&frame) {
                self.sent(&frame);
            }
        }
    }

    fn sent(&mut self, frame: &Bytes) {
        let header = RecordHeader::decode(frame).expect("its own record");
        let (head, sealed) = frame.split_at(RECORD_HEADER);
        let mut plain = sealed.to_vec();
        let length = self.opener.open(header.kind as u8, header.number, head, &mut plain);
        plain.truncate(length.expect("its own record opens"));
        match header.kind {
            RecordKind::Control => assert!(State::decode(plain.into()).is_ok()),
            RecordKind::Data => {
                let known = self.records.insert(header.number, frame.clone());
                assert!(known.is_none_or(|known| known == *frame), "two records under one number");
                assert!(Messages::new(plain.into()).all(|message| message.is_ok()));
                if header.number == self.state.next {
                    self.state.next += 1;
                }
            }
        }
    }

    fn heard(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Head(incoming) => {
                let (id, head) = (incoming.id, incoming.head);
                let whole = head.is_whole();
                let inline = head.inline.as_ref().map_or(0, |bytes| bytes.len() as u64);
                if let (Some(size), Some(_)) = (head.size, &head.inline) {
                    assert_eq!(size, inline, "a head that contradicts itself");
                }
                let theirs = Theirs { size: head.size, got: inline, ended: whole };
                assert!(self.theirs.insert(id, theirs).is_none(), "item {id} began twice");
                self.session.accepted(id, inline);
                if whole {
                    self.session.stored(id, Ok(()));
                }
            }
            SessionEvent::Chunk { id, bytes, last } => {
                let theirs = self.theirs.get_mut(&id).expect("content of an item that began");
                assert!(!theirs.ended, "content after the end of {id}");
                theirs.got += bytes.len() as u64;
                theirs.ended = last;
                assert!(theirs.size.is_none_or(|size| theirs.got <= size), "more than was said");
                assert!(!last || theirs.size.is_none_or(|size| theirs.got == size), "less than was said");
                self.session.accepted(id, theirs.got);
                if last {
                    self.session.stored(id, Ok(()));
                }
            }
            SessionEvent::Cancelled { id, .. } => {
                let theirs = self.theirs.get_mut(&id).expect("the end of an item that began");
                assert!(!theirs.ended, "item {id} ended twice");
                theirs.ended = true;
            }
            SessionEvent::Receipt { id, .. } => {
                let told = self.own.insert(id, true);
                assert_eq!(told, Some(false), "one receipt for each own item");
            }
            SessionEvent::Read { id, .. } => assert!(self.own.contains_key(&id), "an own item was read"),
            SessionEvent::Opened(id) => assert!(self.own.contains_key(&id)),
            _ => {}
        }
    }
}
