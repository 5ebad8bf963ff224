//! The order of the outbox: settling, the two lanes of what is due, leaving, flushing, and what comes next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::barrier::{Answer, End, Member};
use super::entry::{Entry, Node, Stat, State};
use super::top::top_of;
use super::{Action, Identity, Leaving, Offered, Outbox, Prepared, Ticket, told_name};
use crate::{EntryId, LeftOut, secret};

/// Most times the pause doubles of what is found changing or open again and again.
const MAX_DOUBLINGS: u32 = 4;

impl Outbox {
    /// What to do next; `None` until the next input or [`Outbox::deadline`].
    pub fn next(&mut self, now: Instant) -> Option<Action> {
        self.advance(now);
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if let Some(answer) = self.next_answer() {
            return Some(Action::Answer(answer));
        }
        if let Some(ticket) = self.next_ticket(now) {
            return Some(Action::Prepare(ticket));
        }
        while let Some(path) = self.tops.due(now) {
            match self.leave_time(&path) {
                Some(at) if at <= now => return Some(Action::Leave(self.leaving(path))),
                at => self.tops.schedule(&path, at),
            }
        }
        if self.idle_wanted && self.unoffered == 0 {
            self.idle_wanted = false;
            return Some(Action::Idle);
        }
        None
    }

    /// When [`Outbox::next`] has something to say although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        timer.into_iter().chain(self.tops.deadline()).min()
    }

    /// Whether a ticket still waits for its answer: its path may have changed since, and have another.
    #[must_use]
    pub fn is_preparing(&self, ticket: &Ticket) -> bool {
        self.entries.get(&ticket.path).is_some_and(|entry| entry.state == State::Preparing(ticket.entry))
    }

    /// What became of a ticket. It may take long: a ticket whose path changed meanwhile is void.
    pub fn prepared(&mut self, ticket: &Ticket, result: Prepared, now: Instant) {
        let path = &ticket.path;
        if !self.is_preparing(ticket) {
            return;
        }
        let Some(entry) = self.entries.get_mut(path) else { return };
        match result {
            Prepared::Offered { identity, mark } => {
                (entry.identity, entry.mark, entry.last_offer) = (identity, mark, Some(ticket.entry));
                self.offers
                    .insert(ticket.entry, Offered { path: Arc::clone(path), withdrawn: false, once: false });
                self.set_state(path, State::Offered(ticket.entry), now);
                let next = Member::Offer(ticket.entry);
                self.barriers.end(&Member::Path(Arc::clone(path)), End::Becomes(&next));
                let parent = path.rsplit_once('/').and_then(|(parent, _)| self.entries.get_mut(parent));
                if let Some(parent) = parent {
                    parent.carried = true;
                }
            }
            Prepared::Open => {
                entry.tries += 1;
                self.wait(path, true, now);
            }
            Prepared::Changed(identity) => {
                entry.identity = identity;
                entry.tries += 1;
                self.wait(path, false, now);
            }
            Prepared::NotText => {
                entry.text = false;
                self.wait(path, false, now);
            }
            Prepared::Gone => self.gone(path, now),
            Prepared::Spent(reason) => {
                self.fail_path(path, &reason);
                self.actions.push_back(Action::LeftOut(LeftOut { name: path.to_string(), reason }));
                self.set_state(path, State::Delivered, now);
            }
            Prepared::LeftOut(reason) => self.leave_out_as(path, ticket.identity, reason.into(), now),
            Prepared::Denied { identity, reason } => self.deny(path, identity, reason, now),
        }
    }

    /// The content that is at a path now is not sent, and another one is tried. What was offered from there stays offered.
    pub fn deny(&mut self, path: &str, identity: Identity, reason: String, now: Instant) {
        self.fail_path(path, &reason);
        if let Some(entry) = self.entries.get_mut(path) {
            entry.identity = identity;
        }
        let due = Some((now + self.rules.empty, self.next_order()));
        self.set_state(path, State::LeftOut { due, reason: reason.into() }, now);
    }

    /// Whether something else than this was complete at a path, and waits to be offered: it is not there any more. A time
    /// alone says nothing: many tools set it after the close.
    #[must_use]
    pub fn is_written_over(&self, path: &str, identity: Identity) -> bool {
        let waits = |entry: &Entry| {
            matches!(entry.state, State::Waiting { .. } | State::Ready { .. } | State::Preparing(_))
        };
        // An empty one may be a name that its owner is about to write to.
        let is_whole = |entry: &Entry| entry.complete && entry.identity.size > 0 && waits(entry);
        let is_other = |known: Identity| (known.inode, known.size) != (identity.inode, identity.size);
        self.entries.get(path).is_some_and(|entry| is_whole(entry) && is_other(entry.identity))
    }

    /// Ends settling: everything that waits is due now, and [`Action::Idle`] follows when it was offered.
    pub fn finish(&mut self, now: Instant) {
        let waiting: Vec<_> = self.timers.values().cloned().collect();
        for path in waiting {
            if self.entries.get(&path).is_some_and(|entry| matches!(entry.state, State::Waiting { .. })) {
                self.due(&path, now);
            }
        }
        self.idle_wanted = true;
    }

    /// Waits until the peer has stored what is complete now. `is_open` says whether somebody is writing a path of
    /// which no close was seen; that is not waited for. `false` where too many wait already.
    pub fn flush(&mut self, token: String, is_open: &mut dyn FnMut(&str) -> bool) -> bool {
        if self.barriers.is_full() {
            return false;
        }
        let mut answer = Answer::new(token);
        let mut members = BTreeSet::new();
        for (path, entry) in &self.entries {
            match &entry.state {
                State::Waiting { open: true, .. } => {}
                State::Waiting { .. } if entry.node == Node::File && !entry.complete && is_open(path) => {}
                State::Waiting { .. } | State::Ready { .. } | State::Preparing(_) => {
                    members.insert(Member::Path(Arc::clone(path)));
                }
                State::Offered(id) => {
                    members.insert(Member::Offer(*id));
                }
                State::Refused(reason) => answer.fail(path, reason),
                State::Delivered | State::LeftOut { .. } | State::Made => {}
            }
        }
        if let Some(beyond) = &self.beyond {
            answer.fail(&beyond.name, &beyond.reason);
        }
        self.lost.tell(&mut answer);
        let texts = self.offers.iter().filter(|(_, offer)| !offer.withdrawn);
        members.extend(texts.map(|(id, _)| Member::Offer(*id)));
        self.barriers.add(members, answer)
    }

    /// Ends every flush that still waits: each answer names what it waited for as not stored.
    pub fn abandon_flushes(&mut self, reason: &str) -> Vec<Answer> {
        let offers = &self.offers;
        self.barriers.abandon(|member, answer| match member {
            Member::Path(path) => answer.fail(path, reason),
            Member::Offer(id) => answer.fail(offers.get(id).map_or("", |offer| &*offer.path), reason),
        })
    }

    /// Whether a flush waits under this token.
    #[must_use]
    pub fn is_flushing(&self, token: &str) -> bool {
        self.barriers.is_waiting(token)
    }

    /// The answer to a flush that waits for nothing any more. [`Outbox::next`] gives them, too.
    pub fn next_answer(&mut self) -> Option<Answer> {
        self.barriers.next()
    }

    /// Nobody waits for this flush any more.
    pub fn forget_flush(&mut self, token: &str) {
        self.barriers.forget(token);
    }

    /// Starts the time of an entry anew.
    pub(super) fn begin(&mut self, path: &str, now: Instant) {
        let Some(entry) = self.entries.get(path) else { return };
        if self.pause(entry).is_zero() {
            self.make_ready(path, now);
        } else {
            self.wait(path, false, now);
        }
    }

    /// Changes a state and everything that hangs on it.
    pub(super) fn set_state(&mut self, path: &str, state: State, now: Instant) {
        let Some((key, _)) = self.entries.get_key_value(path) else { return };
        let key = Arc::clone(key);
        let Some(entry) = self.entries.get_mut(path) else { return };
        match &entry.state {
            State::Waiting { due, .. } | State::LeftOut { due: Some(due), .. } => {
                self.timers.remove(due);
            }
            State::Ready { bulk, order } => {
                self.ready[usize::from(*bulk)].remove(order);
            }
            State::Preparing(_) if !matches!(state, State::Offered(_)) => {
                self.credit = self.credit.saturating_add(1);
            }
            _ => {}
        }
        match &state {
            State::Waiting { due, .. } | State::LeftOut { due: Some(due), .. } => {
                self.timers.insert(*due, key);
            }
            State::Ready { bulk, order } => {
                self.ready[usize::from(*bulk)].insert(*order, key);
            }
            _ => {}
        }
        self.unoffered =
            self.unoffered + usize::from(state.is_unoffered()) - usize::from(entry.state.is_unoffered());
        let (old, new) = (entry.state.weight(), state.weight());
        entry.state = state;
        self.tops.weigh(top_of(path), Some(old), Some(new), now);
        self.consider_leaving(top_of(path));
    }

    /// Sets or clears the time at which a name may leave.
    pub(super) fn consider_leaving(&mut self, top: &str) {
        let at = self.leave_time(top);
        self.tops.schedule(top, at);
    }

    /// Moves what is due to its lane, its report, or its rest.
    fn advance(&mut self, now: Instant) {
        while let Some((_, path)) = self.timers.first_key_value().filter(|((at, _), _)| *at <= now) {
            let path = Arc::clone(path);
            let Some(entry) = self.entries.get(&path) else { return };
            if let State::LeftOut { reason, .. } = &entry.state {
                let reason = reason.clone();
                let name = told_name(&path);
                self.actions.push_back(Action::LeftOut(LeftOut { name, reason: reason.to_string() }));
                self.set_state(&path, State::LeftOut { due: None, reason }, now);
            } else {
                self.due(&path, now);
            }
        }
    }

    /// The time of an entry has come.
    fn due(&mut self, path: &str, now: Instant) {
        let Some(entry) = self.entries.get(path) else { return };
        if entry.node == Node::Dir && (entry.carried || self.has_children(path)) {
            self.set_state(path, State::Made, now);
            self.barriers.end(&Member::Path(path.into()), End::Settled);
        } else {
            self.make_ready(path, now);
        }
    }

    fn make_ready(&mut self, path: &str, now: Instant) {
        let Some(entry) = self.entries.get(path) else { return };
        let state = State::Ready { bulk: entry.is_bulk(), order: entry.order };
        self.set_state(path, state, now);
    }

    fn wait(&mut self, path: &str, open: bool, now: Instant) {
        let order = self.next_order();
        let Some(entry) = self.entries.get(path) else { return };
        let due = (now + self.pause(entry), order);
        self.set_state(path, State::Waiting { due, open }, now);
    }

    /// How long an entry waits after its last close.
    fn pause(&self, entry: &Entry) -> Duration {
        let first = match entry.node {
            Node::Link if entry.complete => Duration::ZERO,
            Node::Link => self.rules.link,
            Node::Dir => self.rules.empty,
            Node::File if entry.identity.size == 0 || entry.held => self.rules.empty,
            Node::File if entry.text && entry.complete => Duration::ZERO,
            Node::File => self.rules.settle,
        };
        match entry.tries.checked_sub(1) {
            Some(doublings) => first.max(self.rules.settle * 2u32.pow(doublings.min(MAX_DOUBLINGS))),
            None => first,
        }
    }

    /// The next that is due, small before bulk, while there is credit.
    fn next_ticket(&mut self, now: Instant) -> Option<Ticket> {
        if self.credit == 0 {
            return None;
        }
        let path = self.ready.iter().find_map(|lane| lane.values().next()).map(Arc::clone)?;
        self.credit -= 1;
        self.last_id += 1;
        self.set_state(&path, State::Preparing(EntryId(self.last_id)), now);
        let entry = self.entries.get(&path)?;
        let (node, text, identity) = (entry.node, entry.text, entry.identity);
        Some(Ticket { entry: EntryId(self.last_id), path, node, text, identity })
    }

    /// When a name at the top may leave, as far as is known now.
    fn leave_time(&self, name: &str) -> Option<Instant> {
        let top = self.tops.find(name).filter(|top| top.is_done())?;
        let entry = self.entries.get(name)?;
        let at = match entry.node {
            Node::Link => entry.touched,
            // What the peer has is nowhere else any more.
            Node::File if entry.text || secret::below(name).is_some() => {
                entry.touched + self.rules.text_stays
            }
            Node::File => entry.touched + self.rules.file_stays,
            Node::Dir if self.below(name).next().is_some() => top.touched + self.rules.dir_stays,
            Node::Dir => top.touched + self.rules.empty_dir_stays,
        };
        Some(at.max(top.not_before))
    }

    fn leaving(&self, path: Arc<str>) -> Leaving {
        let stat = |entry: &Entry| Stat { node: entry.node, identity: entry.identity };
        let itself = self.entries.get(&path).map(|entry| (Arc::clone(&path), stat(entry)));
        let below = self.below(&path).map(|(path, entry)| (Arc::clone(path), stat(entry)));
        let members = itself.into_iter().chain(below).collect();
        Leaving { path, members }
    }
}
