//! The driver and its threads against a mailbox, a transport and a peer that the test holds in its hands.

mod closing;
mod flood;
mod handover;
mod journal;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use agent_wormhole_mount::secret::{Secret, SecretName, SharedVault};
use agent_wormhole_mount::{
    Backend, EntryId, Group, Incoming, Mailbox, OutboxEvent, Outcome, Refusal, Saved, SecretNotSent, Sink,
};
use bytes::{Bytes, BytesMut};
use rand_core::OsRng;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::backend::Chosen;
use super::driver::{Driver, Inputs, Notice, Parts};
use super::journal::Journal;
use super::reader::Reader;
use super::report::Report;
use super::store::Store;
use crate::code::Code;
use crate::crypto::pake::{Pake, Role};
use crate::crypto::schedule;
use crate::crypto::seal::LegacySealer;
use crate::event::TransportKind;
use crate::item::{ItemHead, ItemKind};
use crate::session::{Link, LinkLimits, Session};
use crate::transport::{self, MAX_FRAME, OutFrame, Transport, TransportEnds, TransportEvent};

/// A mailbox in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) log: Mutex<Vec<String>>,
    pub(super) rotations: AtomicUsize,
    pub(super) statuses: AtomicUsize,
    /// Items in the inbox.
    pub(super) stored: AtomicUsize,
    /// Every commit waits for a word here, where there is one.
    pub(super) gate: Mutex<Option<Receiver<()>>>,
}

impl Memory {
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn log_size(&self) -> u64 {
        self.log.lock().unwrap().iter().map(|line| line.len() as u64 + 1).sum()
    }
}

struct Taker(Arc<Memory>);

impl Sink for Taker {
    fn write(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        if let Some(gate) = &*self.0.gate.lock().unwrap() {
            let _ = gate.recv();
        }
        self.0.stored.fetch_add(1, Ordering::SeqCst);
        Ok(Saved { path: "/inbox/x".into(), name: "x".into(), size: 0 })
    }
}

impl Group for Taker {
    fn member(&mut self, _: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        Ok(Box::new(Self(Arc::new(Memory::default()))))
    }

    fn commit(self: Box<Self>) -> Result<Saved, Refusal> {
        Sink::commit(self)
    }
}

/// A mailbox is shared: so is what the test looks at.
pub(super) struct Shared(pub(super) Arc<Memory>);

impl Mailbox for Shared {
    fn path(&self) -> &Path {
        Path::new("/memory")
    }
    fn backend(&self) -> Backend {
        Backend::Dir
    }
    fn at_rest(&self) -> &str {
        "nowhere"
    }
    fn allow(&self, _: usize) {}
    fn settle(&self, _: EntryId, _: Outcome) {}
    fn shut(&self) {}
    fn undelivered(&self, _: usize) -> (Vec<String>, usize) {
        (Vec::new(), 0)
    }
    fn send_secret(&self, _: SecretName, _: Secret) -> Result<(), SecretNotSent> {
        Ok(())
    }
    fn finish(&self) {}
    fn receive(&self, _: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        Ok(Box::new(Taker(Arc::clone(&self.0))))
    }
    fn receive_group(&self, _: &Incoming<'_>) -> Result<Box<dyn Group>, Refusal> {
        Ok(Box::new(Taker(Arc::clone(&self.0))))
    }
    fn append_log(&self, line: &str) -> io::Result<u64> {
        self.0.log.lock().unwrap().push(line.to_owned());
        Ok(self.0.log_size())
    }
    fn rotate_log(&self, first: &str) -> io::Result<()> {
        self.0.rotations.fetch_add(1, Ordering::SeqCst);
        *self.0.log.lock().unwrap() = vec![first.to_owned()];
        Ok(())
    }
    fn append_transcript(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn write_status(&self, _: &str) -> io::Result<()> {
        self.0.statuses.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader of standard output that never comes: the first line waits until the sender is dropped.
pub(super) fn unread() -> (super::options::Lines, Sender<()>) {
    let (hold, held) = channel::<()>();
    let lines = move |_: &str| {
        let _ = held.recv();
        Ok(())
    };
    (Box::new(lines), hold)
}

/// One end with everything around it.
pub(super) struct Rig {
    pub(super) driver: Driver,
    pub(super) inputs: Inputs,
    pub(super) hands: Hands,
    pub(super) journal: Arc<Journal>,
}

/// What the test holds.
pub(super) struct Hands {
    pub(super) memory: Arc<Memory>,
    pub(super) notices: UnboundedSender<Notice>,
    pub(super) outbox: UnboundedSender<OutboxEvent>,
    pub(super) ends: TransportEnds,
    code: Code,
}

impl Rig {
    /// A host.
    pub(super) fn new(lines: super::options::Lines) -> Self {
        let memory = Arc::new(Memory::default());
        let mailbox: Arc<dyn Mailbox> = Arc::new(Shared(Arc::clone(&memory)));
        let code = Code::parse("1-abandon-ability-able", false).unwrap();
        let journal = Arc::new(Journal::new(Arc::clone(&mailbox), lines, || {}).unwrap());
        let (done_in, done) = unbounded_channel();
        let (read_in, read) = unbounded_channel();
        let (notices_in, notices) = unbounded_channel();
        let (outlet, outbox) = unbounded_channel();
        let (transport, ends) = Transport::pair();
        let kind = TransportKind::Direct;
        let chosen = Chosen { mailbox: Arc::clone(&mailbox), why: None, vault: SharedVault::default() };
        let parts = Parts {
            session: Session::new(Role::Host, &code.secret, &mut OsRng),
            transport,
            store: Store::start((&mailbox, &SharedVault::default()), &journal, &done_in).unwrap(),
            reader: Reader::start(read_in).unwrap(),
            kind,
            report: Report::new("1", Role::Host, (kind, String::new()), &chosen, Arc::clone(&journal), None),
            mailbox,
            patience: None,
            block_secrets: false,
            vault: Arc::clone(&chosen.vault),
        };
        let driver = Driver::new(parts);
        let inputs = Inputs { outbox, done, read, notices };
        let hands = Hands { memory, notices: notices_in, outbox: outlet, ends, code };
        Self { driver, inputs, hands, journal }
    }
}

impl Hands {
    pub(super) async fn tell(&self, event: TransportEvent) {
        self.ends.events.send(event).await.unwrap();
    }

    pub(super) async fn up(&self, link: u64) {
        let limits = transport::LinkLimits { max_frame: MAX_FRAME, messages_per_minute: 0, relayed: false };
        self.tell(TransportEvent::Up { link, limits, greeted: false }).await;
    }

    pub(super) async fn frame(&mut self) -> Bytes {
        let OutFrame { bytes, .. } = self.ends.frames.recv().await.unwrap();
        bytes
    }

    /// A protocol-2 peer on the first link, connected.
    pub(super) async fn peer(&mut self) -> Session {
        let mut peer = Session::new(Role::Peer, &self.code.secret, &mut OsRng);
        self.up(1).await;
        let limits = LinkLimits { max_frame: MAX_FRAME, messages_per_minute: 0, relayed: false };
        peer.handle_link(Link::Up { limits, greeted: false }, Instant::now()).unwrap();
        // Greetings, then the peer's version, then the host's and the first states.
        while !peer_is_open(&mut peer) {
            self.carry(&mut peer).await;
            let frame = self.frame().await;
            peer.handle_frame(BytesMut::from(&*frame), Instant::now()).unwrap();
        }
        self.carry(&mut peer).await;
        peer
    }

    /// Hands over all that the peer has to say.
    pub(super) async fn carry(&self, peer: &mut Session) {
        while let Some(frame) = peer.poll_transmit(Instant::now()) {
            self.tell(TransportEvent::Frame(BytesMut::from(&*frame))).await;
        }
    }

    /// A 0.1 peer on the first link, connected: what seals its frames.
    pub(super) async fn legacy_peer(&mut self) -> LegacySealer {
        let pake = Pake::new(Role::Peer, &self.code.secret, &mut OsRng);
        self.up(1).await;
        let greeting = self.frame().await;
        let (mut sealer, _) = schedule::legacy(&pake.shared(&greeting).unwrap(), Role::Peer);
        self.tell(TransportEvent::Frame(BytesMut::from(&pake.message()[..]))).await;
        let version = sealer.seal(br#"{"version":1,"role":"peer"}"#.to_vec());
        self.tell(TransportEvent::Frame(BytesMut::from(&*version))).await;
        self.frame().await;
        sealer
    }
}

/// An open session takes offers; each try that succeeds is a text for the host.
pub(super) fn peer_is_open(peer: &mut Session) -> bool {
    peer.offer(text()).is_some()
}

pub(super) fn text() -> ItemHead {
    ItemHead {
        kind: ItemKind::Text,
        group: None,
        name: "message".into(),
        size: None,
        executable: false,
        mtime: None,
        inline: Some(Bytes::from_static(b"hi")),
    }
}
