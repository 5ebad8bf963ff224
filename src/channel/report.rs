//! What a channel says about itself in `status.json`.
//!
//! Owns the counters and the items on the way. Writes nothing, and tells whoever shows progress.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use agent_wormhole_mount::LeftOut;
use agent_wormhole_mount::secret::SharedVault;
use jiff::Timestamp;

use super::backend::Chosen;
use super::journal::Journal;
use super::options::Progress;
use super::presence::{Presence, Stored};
use super::rate::Rates;
use crate::event::escape::shortened;
use crate::event::state::{ChannelState, InFlight, LeftOutState, Limits, MAX_LISTED, PeerState, Phase};
use crate::event::{MAX_FOREIGN_NAME, TransportKind};
use crate::item::{ItemId, ItemKind, Lane, Refusal};
use crate::session::{Incoming, Role};

struct Arriving {
    name: String,
    size: Option<u64>,
    done: u64,
    lane: Lane,
}

/// Longest part of what the peer's program calls itself that is shown, in bytes.
const MAX_AGENT: usize = 128;

/// See the module.
pub(super) struct Report {
    state: ChannelState,
    arriving: BTreeMap<ItemId, Arriving>,
    journal: std::sync::Arc<Journal>,
    progress: Option<Progress>,
    /// Of what is sent, and of what arrives.
    rates: [Rates; 2],
    vault: SharedVault,
    presence: Presence,
}

pub(super) fn utc(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

impl Report {
    pub(super) fn new(
        nameplate: &str,
        role: Role,
        (transport, address): (TransportKind, String),
        chosen: &Chosen,
        journal: std::sync::Arc<Journal>,
        progress: Option<Progress>,
    ) -> Self {
        let Chosen { mailbox, why, vault } = chosen;
        let state = ChannelState {
            state: if role == Role::Host { Phase::Waiting } else { Phase::Starting },
            nameplate: nameplate.to_owned(),
            role: role.as_str().to_owned(),
            transport: transport.as_str().to_owned(),
            address,
            mount: mailbox.path().to_string_lossy().into_owned(),
            backend: mailbox.backend().as_str().to_owned(),
            backend_why: why.clone(),
            at_rest: mailbox.at_rest().to_owned(),
            started: utc(SystemTime::now()),
            ..ChannelState::default()
        };
        let (arriving, rates, presence) = Default::default();
        Self { state, arriving, journal, progress, rates, vault: Arc::clone(vault), presence }
    }

    pub(super) const fn phase(&mut self, phase: Phase) {
        self.state.state = phase;
    }

    pub(super) fn peer(&mut self, agent: &str, protocol: u32) {
        let agent = shortened(agent, MAX_AGENT).into_owned();
        self.state.peer = Some(PeerState { agent, protocol, ..PeerState::default() });
    }

    pub(super) fn limits(&mut self, max_frame: usize, messages_per_minute: u64) {
        self.state.limits = Limits {
            inbox_bytes: self.state.limits.inbox_bytes,
            max_frame: Some(max_frame as u64),
            messages_per_minute: Some(messages_per_minute).filter(|n| *n > 0),
        };
    }

    pub(super) fn left_out(&mut self, left_out: LeftOut) {
        let LeftOut { name, reason } = left_out;
        let list = &mut self.state.left_out;
        list.retain(|known| known.name != name);
        list.push(LeftOutState { name, reason });
        if list.len() > MAX_LISTED {
            list.remove(0);
            self.state.left_out_more += 1;
        }
    }

    /// Something that was left out is not there any more, or is sent.
    pub(super) fn resolved(&mut self, name: &str) {
        let list = &mut self.state.left_out;
        let listed = list.len();
        list.retain(|known| known.name != name);
        if list.len() == listed {
            // One of those that the list had no room for.
            self.state.left_out_more = self.state.left_out_more.saturating_sub(1);
        }
    }

    pub(super) fn credential(&mut self, name: &str, what: &str) {
        let list = &mut self.state.credentials;
        list.push(LeftOutState { name: name.to_owned(), reason: format!("it looks like {what}") });
        if list.len() > MAX_LISTED {
            list.remove(0);
            self.state.credentials_more += 1;
        }
    }

    /// What is known of the other end's program: when it was last heard, and whether it can tell what was opened.
    pub(super) fn heard(&mut self, at: Option<Instant>, tells_opened: bool, now: Instant) {
        let Some(peer) = &mut self.state.peer else { return };
        if let Some(at) = at.and_then(|at| SystemTime::now().checked_sub(now.saturating_duration_since(at))) {
            peer.heard = Some(utc(at));
            peer.tells_opened = tells_opened;
        }
    }

    /// The peer has stored an item of this side's.
    pub(super) fn stored(&mut self, item: Stored) {
        self.presence.stored(item, SystemTime::now());
    }

    /// The peer says that its owner has read an item, and when: in milliseconds since 1970, by its own clock.
    pub(super) fn opened(&mut self, id: ItemId, at: u64) {
        self.presence.opened(id, at, SystemTime::now());
    }

    pub(super) const fn delivered(&mut self, bytes: u64) {
        self.state.outbox.items += 1;
        self.state.outbox.bytes += bytes;
    }

    pub(super) fn refused(&mut self, name: &str, reason: &str) {
        self.state.outbox.refuse(name.to_owned(), reason.to_owned());
    }

    pub(super) fn begin(&mut self, incoming: &Incoming) {
        let head = &incoming.head;
        // Members are their group's affair. They have no receipt, so nothing would tell when to forget them.
        if head.group.is_none() {
            let name = shortened(&head.kind.shown(&head.name), MAX_FOREIGN_NAME).into_owned();
            // Nobody is told how long a secret is.
            let size = head.size.filter(|_| head.kind != ItemKind::Secret);
            let arriving = Arriving { name, size, done: 0, lane: head.lane() };
            self.arriving.insert(incoming.id, arriving);
        }
    }

    /// The lane of an item under way. Members are bulk.
    pub(super) fn lane(&self, id: ItemId) -> Lane {
        self.arriving.get(&id).map_or(Lane::Bulk, |arriving| arriving.lane)
    }

    pub(super) fn accepted(&mut self, id: ItemId, upto: u64) {
        if let Some(arriving) = self.arriving.get_mut(&id) {
            arriving.done = upto;
        }
    }

    pub(super) fn end(&mut self, id: ItemId, result: Result<u64, Refusal>) {
        let Some(Arriving { name, .. }) = self.arriving.remove(&id) else { return };
        let inbox = &mut self.state.inbox;
        match result {
            Ok(bytes) => {
                inbox.items += 1;
                inbox.bytes += bytes;
            }
            Err(reason) => inbox.refuse(name, reason.as_str().to_owned()),
        }
    }

    /// The file's content. `sending` says of each item what it waits for, `nothing_comes` the same of what arrives: it is
    /// shown of what does not move.
    pub(super) fn render(
        &mut self,
        (mut sending, more): (Vec<InFlight>, u64),
        nothing_comes: &str,
        now: Instant,
    ) -> io::Result<String> {
        let [sent, came] = &mut self.rates;
        self.state.last_seq = self.journal.last_seq();
        self.state.updated = utc(SystemTime::now());
        (self.state.sent, self.state.sent_more) = self.presence.listed();
        if let Some(peer) = &mut self.state.peer {
            peer.opened = self.presence.last_opened().map(utc);
        }
        self.state.outbox.rate = sent.measure(&mut sending, now);
        self.state.outbox.in_flight = sending;
        self.state.outbox.in_flight_more = more;
        let listed = self.arriving.iter().take(MAX_LISTED).map(|(id, arriving)| InFlight {
            id: id.0,
            name: arriving.name.clone(),
            size: arriving.size,
            done: arriving.done,
            waits: Some(nothing_comes.to_owned()),
            ..InFlight::default()
        });
        let mut coming: Vec<InFlight> = listed.collect();
        self.state.inbox.rate = came.measure(&mut coming, now);
        self.state.inbox.in_flight = coming;
        self.state.inbox.in_flight_more = self.arriving.len().saturating_sub(MAX_LISTED) as u64;
        self.state.secrets = super::secrets::state(&self.vault);
        if let Some(progress) = &mut self.progress {
            progress(&self.state);
        }
        self.state.to_json()
    }

    /// Whether what was rendered last goes on changing: something is on the way, and whether it moves.
    pub(super) fn motion(&self) -> Motion {
        let on_the_way = || self.state.outbox.in_flight.iter().chain(&self.state.inbox.in_flight);
        if on_the_way().next().is_none() {
            Motion::None
        } else if on_the_way().all(|item| item.waits.is_some()) {
            Motion::Standing
        } else {
            Motion::Moving
        }
    }
}

/// What is on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Motion {
    /// Nothing.
    None,
    /// Something that does not move.
    Standing,
    /// Something that moves.
    Moving,
}
