//! A model of two drivers, two stores and what lies between them, on virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::code::Code;
use crate::frame::ChunkBuf;
use crate::item::{ItemHead, ItemId, ItemKind, Lane, Refusal};
use crate::session::{Link, LinkLimits, Role, Session, SessionError, SessionEvent};

/// Frames that a wire holds before its sender waits.
const WIRE: usize = 8;

/// What lies between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// TCP: in order until cut, both ends notice.
    Direct,
    /// An honest relay: each end is cut alone, frames wait, and now and then its memory is lost.
    Relay,
    /// A relay that drops, doubles and reorders at will.
    Hostile,
}

/// An item as its sender knows it.
pub(super) struct Sent {
    pub(super) head: ItemHead,
    pub(super) content: Vec<u8>,
    pushed: usize,
    ended: bool,
    opened: bool,
    pub(super) receipts: Vec<Option<Refusal>>,
    pub(super) members: Vec<ItemId>,
    to_offer: VecDeque<(ItemHead, Vec<u8>)>,
}

/// An item as its receiver knows it.
#[derive(Default)]
pub(super) struct Got {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
    pub(super) stored: bool,
    parent: Option<ItemId>,
}

enum Job {
    Begin(ItemId),
    Take(ItemId, Bytes, bool),
}

pub(super) struct End {
    pub(super) session: Session,
    pub(super) sent: BTreeMap<ItemId, Sent>,
    pub(super) got: BTreeMap<ItemId, Got>,
    /// Prompt items in the order in which they became visible.
    pub(super) prompt_order: Vec<ItemId>,
    pub(super) statuses: Vec<String>,
    pub(super) error: Option<SessionError>,
    jobs: [VecDeque<(Instant, Job)>; 2],
    up: bool,
    pub(super) refuse_one_in: u32,
}

pub(super) struct Sim {
    pub(super) rng: ChaCha8Rng,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) ends: [End; 2],
    /// Frames on their way to each end.
    wires: [VecDeque<(Instant, Bytes)>; 2],
    pub(super) profile: Profile,
    pub(super) adversity: bool,
    pub(super) limits: LinkLimits,
    /// Every frame that was sent to an end.
    pub(super) seen: [Vec<Bytes>; 2],
}

pub(super) fn below(rng: &mut ChaCha8Rng, bound: u32) -> u32 {
    rng.next_u32() % bound.max(1)
}

impl End {
    fn new(role: Role, code: &str, rng: &mut ChaCha8Rng) -> Self {
        let secret = Code::parse(code, false).unwrap().secret;
        Self {
            session: Session::new(role, &secret, rng),
            sent: BTreeMap::new(),
            got: BTreeMap::new(),
            prompt_order: Vec::new(),
            statuses: Vec::new(),
            error: None,
            jobs: [VecDeque::new(), VecDeque::new()],
            up: false,
            refuse_one_in: 0,
        }
    }

    pub(super) fn offer(
        &mut self,
        head: ItemHead,
        content: Vec<u8>,
        members: Vec<(ItemHead, Vec<u8>)>,
    ) -> ItemId {
        let parent = head.group;
        let inline = head.is_whole();
        let id = self.session.offer(head.clone()).expect("connected");
        let sent = Sent {
            head,
            content,
            pushed: 0,
            ended: inline,
            opened: false,
            receipts: Vec::new(),
            members: Vec::new(),
            to_offer: members.into(),
        };
        self.sent.insert(id, sent);
        if let Some(group) = parent.and_then(|parent| self.sent.get_mut(&parent)) {
            group.members.push(id);
        }
        id
    }

    /// Reads files for the session, as far as it has room.
    fn feed(&mut self) {
        let open: Vec<ItemId> =
            self.sent.iter().filter(|(_, sent)| sent.opened && !sent.ended).map(|(id, _)| *id).collect();
        for id in open {
            let chunk = self.session.chunk_size();
            let Some(sent) = self.sent.get_mut(&id) else { continue };
            if let Some((mut head, content)) = sent.to_offer.pop_front() {
                head.group = Some(id);
                self.offer(head, content, Vec::new());
                continue;
            }
            if self.session.staged(id) > 2 * chunk || self.session.room(Lane::Bulk) < chunk {
                continue;
            }
            let rest = &sent.content[sent.pushed..];
            let take = rest.len().min(chunk);
            let last = take == rest.len();
            self.session.push(id, ChunkBuf::copy_of(&rest[..take]), last);
            sent.pushed += take;
            sent.ended = last;
        }
    }

    fn on_event(&mut self, event: SessionEvent, at: Instant) {
        match event {
            SessionEvent::Opened(id) => {
                if let Some(sent) = self.sent.get_mut(&id) {
                    sent.opened = true;
                }
            }
            SessionEvent::Receipt { id, refused } => {
                if let Some(sent) = self.sent.get_mut(&id) {
                    sent.receipts.push(refused);
                    sent.ended = true;
                }
            }
            SessionEvent::Head(incoming) => {
                let lane = usize::from(incoming.head.lane() == Lane::Bulk);
                let before = self.got.insert(
                    incoming.id,
                    Got { name: incoming.head.name.clone(), parent: incoming.head.group, ..Got::default() },
                );
                assert!(before.is_none(), "an item came twice");
                let job = match incoming.head.inline.clone() {
                    Some(bytes) => Job::Take(incoming.id, bytes, true),
                    None if incoming.head.kind == ItemKind::Dir => Job::Take(incoming.id, Bytes::new(), true),
                    None => Job::Begin(incoming.id),
                };
                if incoming.head.lane() == Lane::Prompt {
                    self.prompt_order.push(incoming.id);
                }
                self.jobs[lane].push_back((at, job));
            }
            SessionEvent::Chunk { id, bytes, last } => {
                let lane = usize::from(!self.prompt_order.contains(&id));
                self.jobs[lane].push_back((at, Job::Take(id, bytes, last)));
            }
            SessionEvent::Cancelled { id, .. } => {
                self.got.remove(&id);
                self.prompt_order.retain(|other| *other != id);
            }
            other => self.statuses.push(status(&other)),
        }
    }

    /// The store takes what it was given.
    fn work(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        for lane in 0..2 {
            while let Some((_, job)) = self.jobs[lane].pop_front_if(|(at, _)| *at <= now) {
                match job {
                    Job::Begin(id) => {
                        if self.refuse_one_in > 0 && below(rng, self.refuse_one_in) == 0 {
                            self.refuse(id);
                        }
                    }
                    Job::Take(id, bytes, last) => self.take(id, &bytes, last),
                }
            }
        }
    }

    fn refuse(&mut self, id: ItemId) {
        let id = self.got.get(&id).and_then(|got| got.parent).unwrap_or(id);
        self.session.stored(id, Err(Refusal::NoSpace));
        self.got.retain(|other, got| *other != id && got.parent != Some(id));
        self.prompt_order.retain(|other| *other != id);
    }

    fn take(&mut self, id: ItemId, bytes: &[u8], last: bool) {
        let Some(got) = self.got.get_mut(&id) else { return };
        got.content.extend_from_slice(bytes);
        self.session.accepted(id, got.content.len() as u64);
        if last {
            got.stored = true;
            self.session.stored(id, Ok(()));
        }
    }
}

fn status(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Connected { protocol, .. } => format!("connected {protocol}"),
        SessionEvent::HandshakeFailed(_) => "handshake_failed".into(),
        SessionEvent::Unproven(_) => "unproven".into(),
        SessionEvent::PeerClosed(reason) => format!("peer_closed {reason:?}"),
        SessionEvent::PeerAway => "away".into(),
        SessionEvent::PeerBack => "back".into(),
        SessionEvent::Closed => "closed".into(),
        SessionEvent::Stalled(why) => format!("stalled {why}"),
        SessionEvent::Idle => "idle".into(),
        other => format!("{other:?}"),
    }
}

impl Sim {
    pub(super) fn new(seed: u64, profile: Profile, codes: [&str; 2]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let start = Instant::now();
        let ends = [End::new(Role::Host, codes[0], &mut rng), End::new(Role::Peer, codes[1], &mut rng)];
        let max_frame = 512 + below(&mut rng, 4096) as usize;
        let messages_per_minute = if below(&mut rng, 8) == 0 { 6000 } else { 0 };
        let limits = LinkLimits { max_frame, messages_per_minute, relayed: false };
        let wires = [VecDeque::new(), VecDeque::new()];
        Self {
            rng,
            start,
            now: start,
            ends,
            wires,
            profile,
            adversity: false,
            limits,
            seen: [Vec::new(), Vec::new()],
        }
    }

    /// Both ends, connected over a link without faults.
    pub(super) fn connected(seed: u64, profile: Profile) -> Self {
        let code = "7-cross-clock-marble";
        let mut sim = Self::new(seed, profile, [code, code]);
        sim.up(0);
        sim.up(1);
        sim.run_until(Duration::from_secs(1), |sim| {
            sim.ends.iter().all(|end| end.statuses == ["connected 2"])
        });
        for end in &mut sim.ends {
            assert_eq!(end.statuses, ["connected 2"]);
            end.statuses.clear();
        }
        sim
    }

    pub(super) fn up(&mut self, end: usize) {
        if !std::mem::replace(&mut self.ends[end].up, true) {
            let link = Link::Up { limits: self.limits, greeted: false };
            self.ends[end].session.handle_link(link, self.now).expect("frames fit");
        }
    }

    pub(super) fn down(&mut self, end: usize) {
        if std::mem::replace(&mut self.ends[end].up, false) {
            self.ends[end].session.handle_link(Link::Down, self.now).expect("down is always taken");
        }
    }

    /// Cuts as this profile does.
    pub(super) fn cut(&mut self) {
        match self.profile {
            Profile::Direct => {
                self.wires.iter_mut().for_each(VecDeque::clear);
                self.down(0);
                self.down(1);
            }
            Profile::Relay | Profile::Hostile if below(&mut self.rng, 10) == 0 => {
                self.wires.iter_mut().for_each(VecDeque::clear);
                self.down(0);
                self.down(1);
            }
            Profile::Relay | Profile::Hostile => {
                let end = below(&mut self.rng, 2) as usize;
                // What was written to its dead socket is lost, and what it wrote last.
                let lost = below(&mut self.rng, 3) as usize;
                let keep = self.wires[end].len().saturating_sub(lost);
                let wire = self.wires[end].split_off(self.wires[end].len() - keep);
                self.wires[end] = wire;
                let lost = below(&mut self.rng, 3) as usize;
                let keep = self.wires[1 - end].len().saturating_sub(lost);
                self.wires[1 - end].truncate(keep);
                self.down(end);
            }
        }
    }

    pub(super) fn restore(&mut self) {
        self.up(0);
        self.up(1);
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(u64::from(100 + below(&mut self.rng, 3000)))
    }

    /// Lets both ends do what they can at this instant.
    fn settle(&mut self) {
        for end in 0..2 {
            self.ends[end].work(self.now, &mut self.rng);
            if self.ends[end].session.poll_timeout().is_some_and(|at| at <= self.now) {
                self.ends[end].session.handle_timeout(self.now);
            }
            self.ends[end].feed();
            while self.ends[end].up && self.wires[1 - end].len() < WIRE {
                let Some(frame) = self.ends[end].session.poll_transmit(self.now) else { break };
                assert!(frame.len() <= self.limits.max_frame, "{} > {}", frame.len(), self.limits.max_frame);
                self.seen[1 - end].push(frame.clone());
                self.send(1 - end, frame);
                self.ends[end].feed();
            }
            while let Some(event) = self.ends[end].session.poll_event() {
                let at = self.now + Duration::from_micros(u64::from(below(&mut self.rng, 2000)));
                self.ends[end].on_event(event, at);
            }
        }
    }

    fn send(&mut self, to: usize, frame: Bytes) {
        let mut at = self.now + self.latency();
        if self.profile == Profile::Hostile && self.adversity {
            match below(&mut self.rng, 10) {
                0 => return,
                1 => {
                    let again = self.now + self.latency() * 10;
                    self.wires[to].push_back((again, frame.clone()));
                }
                2 => at += self.latency() * 20,
                3 if !self.seen[to].is_empty() => {
                    let replay = below(&mut self.rng, self.seen[to].len() as u32) as usize;
                    let replay = self.seen[to][replay].clone();
                    self.wires[to].push_back((at, replay));
                }
                _ => {}
            }
        } else if let Some((last, _)) = self.wires[to].back() {
            at = at.max(*last);
        }
        self.wires[to].push_back((at, frame));
    }

    fn deliver(&mut self) {
        for to in 0..2 {
            if !self.ends[to].up {
                continue;
            }
            while let Some(index) = self.wires[to].iter().position(|(at, _)| *at <= self.now) {
                // A relay that reorders delivers whatever is due; all others deliver in order.
                let index = if self.profile == Profile::Hostile { index } else { 0 };
                if self.wires[to][index].0 > self.now {
                    break;
                }
                let Some((_, frame)) = self.wires[to].remove(index) else { break };
                let end = &mut self.ends[to];
                if let Err(error) = end.session.handle_frame(BytesMut::from(&frame[..]), self.now) {
                    end.error.get_or_insert(error);
                }
            }
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let wires =
            (0..2).filter(|to| self.ends[*to].up).flat_map(|to| self.wires[to].iter().map(|(at, _)| *at));
        let timers = self.ends.iter().filter_map(|end| end.session.poll_timeout());
        let jobs = self
            .ends
            .iter()
            .flat_map(|end| end.jobs.iter().filter_map(|jobs| jobs.front().map(|(at, _)| *at)));
        wires.chain(timers).chain(jobs).min()
    }

    /// Runs until `done`, for at most `most` of virtual time; whether it came to that.
    pub(super) fn run_until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + most;
        let mut steps = 0_u32;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            steps += 1;
            assert!(steps < 2_000_000, "spinning at {:?}", self.now - self.start);
            let next = self.next_time().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return false;
            }
            // A deadline that does not move would spin for ever: time itself always moves on.
            self.now = next.max(self.now + Duration::from_nanos(100));
            self.deliver();
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }
}
