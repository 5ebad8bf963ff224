//! One end of a channel with things to say: a real session on a real transport, without a directory.
//!
//! Owns what it sends, what it has to receive, and the comparison.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agent_wormhole::code::{Code, Nameplate};
use agent_wormhole::frame::ChunkBuf;
use agent_wormhole::item::{ItemHead, ItemId, ItemKind, Lane};
use agent_wormhole::session::{Link, LinkLimits, Role, Session, SessionEvent};
use agent_wormhole::transport::relay::{Endpoint, allocate, join};
use agent_wormhole::transport::{Control, Farewell, OutFrame, Transport, TransportEvent};
use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_core::OsRng;
use tokio::time::{sleep_until, timeout};

/// Longest file in bytes: several chunks.
const LONGEST: usize = 700_000;

/// An end.
pub struct Talker {
    session: Session,
    transport: Transport,
    seed: u64,
    /// Items that it sends in all, and how many of them it has offered.
    items: usize,
    offered: usize,
    /// When the next one is due, and how far apart they are.
    next: Instant,
    pace: Duration,
    link: Option<u64>,
    frame: Option<Bytes>,
    /// Content of files under way, and how much of it was given.
    leaving: HashMap<ItemId, (Vec<u8>, usize)>,
    coming: HashMap<ItemId, (ItemHead, BytesMut)>,
    receipts: usize,
    /// Items that came, by their number: a second one is a failure.
    came: Vec<bool>,
    texts: usize,
    connected: bool,
    /// Of both ends: ready when both are.
    ready: Arc<AtomicUsize>,
    told: bool,
    /// Links that it has had.
    pub links: usize,
}

/// Two ends of a fresh channel, each with `items` to say, the next one `pace` after the one before.
pub async fn channel(url: &str, seed: u64, items: usize, pace: Duration) -> (Talker, Talker) {
    let endpoint: Endpoint = url.parse().unwrap();
    let (nameplate, transport) = allocate(url.parse().unwrap()).await.unwrap();
    let code = Code::draw(Nameplate::parse(&nameplate).unwrap(), &mut OsRng);
    let ready = Arc::<AtomicUsize>::default();
    let new = |role, transport, seed, ready| {
        let session = Session::new(role, &code.secret, &mut OsRng);
        Talker::new(session, transport, (seed, items), pace, ready)
    };
    let host = new(Role::Host, transport, 2 * seed, ready.clone());
    let peer = new(Role::Peer, join(endpoint, &nameplate).await.unwrap(), 2 * seed + 1, ready);
    let (mut host, mut peer) = (host, peer);
    tokio::join!(host.connect(), peer.connect());
    (host, peer)
}

impl Talker {
    fn new(
        session: Session,
        transport: Transport,
        (seed, items): (u64, usize),
        pace: Duration,
        ready: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            session,
            transport,
            seed,
            items,
            offered: 0,
            next: Instant::now(),
            pace,
            link: None,
            frame: None,
            leaving: HashMap::new(),
            coming: HashMap::new(),
            receipts: 0,
            came: vec![false; items],
            texts: 0,
            connected: false,
            ready,
            told: false,
            links: 0,
        }
    }

    /// The handshake.
    async fn connect(&mut self) {
        while !self.connected {
            self.step().await;
        }
    }

    /// Says all and hears all, until the other end has, too; returns the number of items that came.
    pub async fn talk(mut self, limit: Duration) -> (usize, usize) {
        self.next = Instant::now();
        let talked = async {
            while self.ready.load(Ordering::Acquire) < 2 {
                self.step().await;
            }
        };
        if timeout(limit, talked).await.is_err() {
            let missing = self.came.iter().filter(|came| !**came).count();
            panic!(
                "end {}: {} of {} offered, {} receipts, {missing} did not come; link {:?}, {} links",
                self.seed, self.offered, self.items, self.receipts, self.link, self.links
            );
        }
        let _ = self.transport.control.send(Control::Close(Farewell::Happy));
        (self.came.len(), self.links)
    }

    async fn step(&mut self) {
        self.pump();
        if !self.told && self.receipts == self.items && self.came.iter().all(|came| *came) {
            self.told = true;
            self.ready.fetch_add(1, Ordering::AcqRel);
        }
        // The other end is done at a time of its own.
        let soon = Instant::now() + Duration::from_millis(200);
        let at = [self.session.poll_timeout(), (self.offered < self.items).then_some(self.next), Some(soon)];
        let at = at.into_iter().flatten().min().unwrap_or(soon);
        let frames = self.transport.frames.clone();
        tokio::select! {
            event = self.transport.events.recv() => self.on_transport(event.expect("the transport lives")),
            permit = frames.reserve(), if self.frame.is_some() => {
                if let (Ok(permit), Some(bytes), Some(link)) = (permit, self.frame.take(), self.link) {
                    permit.send(OutFrame { link, bytes });
                }
            }
            () = sleep_until(at.into()) => {
                let now = Instant::now();
                if self.session.poll_timeout().is_some_and(|at| at <= now) {
                    self.session.handle_timeout(now);
                }
            }
        }
    }

    fn on_transport(&mut self, event: TransportEvent) {
        let now = Instant::now();
        match event {
            TransportEvent::Up { link, limits, greeted } => {
                self.link = Some(link);
                self.links += 1;
                self.frame = None;
                let limits = LinkLimits {
                    max_frame: limits.max_frame,
                    messages_per_minute: limits.messages_per_minute,
                    relayed: limits.relayed,
                };
                self.session.handle_link(Link::Up { limits, greeted }, now).unwrap();
            }
            TransportEvent::Down { .. } => {
                self.link = None;
                self.frame = None;
                self.session.handle_link(Link::Down, now).unwrap();
            }
            TransportEvent::Frame(frame) => self.session.handle_frame(frame, now).unwrap(),
            TransportEvent::Drained { .. } | TransportEvent::Throttled => {}
            // Of a 0.1 peer only.
            TransportEvent::PeerAway | TransportEvent::PeerBack => {}
            TransportEvent::Failed(error) => panic!("end {}: the transport failed: {error}", self.seed),
        }
    }

    fn pump(&mut self) {
        let now = Instant::now();
        while self.connected && self.offered < self.items && self.next <= now {
            self.offer();
            self.next += self.pace;
        }
        loop {
            while let Some(event) = self.session.poll_event() {
                self.on_session(event);
            }
            self.feed();
            if self.frame.is_none() && self.link.is_some() {
                self.frame = self.session.poll_transmit(now);
            }
            let Some((link, bytes)) = self.link.zip(self.frame.take()) else { break };
            if let Err(error) = self.transport.frames.try_send(OutFrame { link, bytes }) {
                self.frame = Some(error.into_inner().bytes);
                break;
            }
        }
    }

    /// The next item: a text, or a file of some length.
    fn offer(&mut self) {
        let number = self.offered;
        self.offered += 1;
        let content = content(self.seed, number);
        let text = is_text(number);
        let head = ItemHead {
            kind: if text { ItemKind::Text } else { ItemKind::File },
            group: None,
            name: number.to_string(),
            size: Some(content.len() as u64),
            executable: false,
            mtime: None,
            inline: text.then(|| content.clone().into()),
        };
        let id = self.session.offer(head).expect("connected");
        if !text {
            self.leaving.insert(id, (content, usize::MAX));
        }
    }

    /// Gives content of files that the session wants.
    fn feed(&mut self) {
        let chunk = self.session.chunk_size();
        for (id, (content, given)) in &mut self.leaving {
            while *given < content.len() && self.session.room(Lane::Bulk) >= chunk {
                let end = (*given + chunk).min(content.len());
                self.session.push(*id, ChunkBuf::copy_of(&content[*given..end]), end == content.len());
                *given = end;
            }
        }
    }

    fn on_session(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Connected { resume, .. } => {
                self.connected = true;
                let _ = self.transport.control.send(Control::Proven(resume.expect("protocol 2")));
            }
            SessionEvent::Opened(id) => {
                if let Some((_, given)) = self.leaving.get_mut(&id) {
                    *given = 0;
                }
            }
            SessionEvent::Receipt { id, refused } => {
                assert!(refused.is_none(), "end {}: {refused:?}", self.seed);
                self.leaving.remove(&id);
                self.receipts += 1;
            }
            SessionEvent::Head(incoming) => match incoming.head.inline.clone() {
                Some(content) => self.arrived(incoming.id, &incoming.head, &content),
                None => drop(self.coming.insert(incoming.id, (incoming.head, BytesMut::new()))),
            },
            SessionEvent::Chunk { id, bytes, last } => {
                let (_, content) = self.coming.get_mut(&id).expect("an item that began");
                content.extend_from_slice(&bytes);
                self.session.accepted(id, content.len() as u64);
                if last {
                    let (head, content) = self.coming.remove(&id).unwrap();
                    self.arrived(id, &head, &content);
                }
            }
            SessionEvent::PeerAway | SessionEvent::PeerBack | SessionEvent::Stalled(_) => {}
            other => panic!("end {}: {other:?}", self.seed),
        }
    }

    fn arrived(&mut self, id: ItemId, head: &ItemHead, bytes: &[u8]) {
        let number: usize = head.name.parse().unwrap();
        assert!(!self.came[number], "end {}: item {number} came twice", self.seed);
        assert!(bytes == content(self.seed ^ 1, number), "end {}: item {number} is not whole", self.seed);
        if is_text(number) {
            assert!(number >= self.texts, "end {}: text {number} after text {}", self.seed, self.texts);
            self.texts = number;
        }
        self.came[number] = true;
        self.session.stored(id, Ok(()));
    }
}

fn is_text(number: usize) -> bool {
    number % 3 != 2
}

/// What item `number` of an end holds.
fn content(seed: u64, number: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed << 32 | number as u64);
    let longest = if is_text(number) { 2000 } else { LONGEST };
    let mut content = vec![0; rng.next_u32() as usize % longest];
    rng.fill_bytes(&mut content);
    if is_text(number) {
        content.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
    }
    content
}
