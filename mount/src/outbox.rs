//! Decides what in the outbox is complete, when it is offered, cancelled, left out, and when it leaves.
//!
//! Does no I/O and has no clock: a back end tells what it saw ([`Outbox::touch`], [`Outbox::gone`],
//! [`Outbox::renamed`]), asks [`Outbox::next`] what to do until it says nothing more, does it, tells how it went,
//! and comes back at [`Outbox::deadline`]. Paths are relative to `outbox/`, with `/` between parts.

mod apart;
mod barrier;
mod entry;
mod lost;
mod queue;
#[cfg(test)]
mod tests;
pub mod tickets;
mod top;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

pub use apart::{DELIVERED, name_of};
pub use barrier::{Answer, MAX_FAILED, MAX_FLUSHES, NO_RECEIPTS};
pub use entry::{Identity, Node, Rules, Sign, Stat};

use crate::special::WRITTEN_OVER;
use crate::{EntryId, LeftOut, MAX_TEXT, Outcome, ignore};
use barrier::{Barriers, End, Member};
pub(crate) use entry::is_text_name;
use entry::{Due, Entry, State};
use lost::Lost;
use top::{Tops, top_of};

/// Most entries that are known at once: about 300 bytes each with a path of usual length, so about 40 MiB. What is
/// beyond is reported as left out and looked for again when others have left; the directory that it lies in stays.
pub const MAX_ENTRIES: usize = 1 << 17;

/// What a back end is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open it, make sure that nobody writes it, offer it, and answer with [`Outbox::prepared`].
    Prepare(Ticket),
    /// Cancel an offer.
    Withdraw(EntryId),
    /// Report what is not sent.
    LeftOut(LeftOut),
    /// What was reported under this name is not there any more, or is another content.
    Resolved(String),
    /// Take this out of the outbox if all of it is still as it says; answer [`Outbox::left`] or [`Outbox::stays`].
    Leave(Leaving),
    /// Answer a flush.
    Answer(Answer),
    /// Look for what was beyond [`MAX_ENTRIES`].
    Rescan,
    /// Everything complete was offered.
    Idle,
}

/// Something that may be offered now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The id of the offer, if it becomes one.
    pub entry: EntryId,
    /// Path relative to `outbox/`.
    pub path: Arc<str>,
    /// What it is.
    pub node: Node,
    /// Whether it goes as a text if its bytes are UTF-8.
    pub text: bool,
    /// The content that was last seen.
    pub identity: Identity,
}

/// What became of a [`Ticket`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// It was offered with this content.
    Offered {
        /// Its identity.
        identity: Identity,
        /// A fingerprint of its bytes, where it was written so lately that the clock of the file system may give the
        /// next content the same identity.
        mark: Option<u64>,
    },
    /// Somebody is still writing it.
    Open,
    /// It has another content than was last seen, and nobody can say whether that is complete.
    Changed(Identity),
    /// It is no text: it goes as a file.
    NotText,
    /// It is not there.
    Gone,
    /// It can never be sent again: it leaves, and is reported.
    Spent(String),
    /// It cannot be sent.
    LeftOut(String),
    /// The same, and what was offered from its path before stays offered.
    Denied {
        /// The content that is not sent; another one is tried.
        identity: Identity,
        /// Why.
        reason: String,
    },
}

/// A name at the top of the outbox that may leave, with everything in it that was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The name.
    pub path: Arc<str>,
    /// It and what is below it: at most [`MAX_ENTRIES`]. Of a directory only the inode counts.
    pub members: Vec<(Arc<str>, Stat)>,
}

/// An offer without its outcome.
#[derive(Debug)]
struct Offered {
    path: Arc<str>,
    withdrawn: bool,
    /// It cannot be read a second time.
    once: bool,
}

/// The state of one outbox.
#[derive(Debug)]
pub struct Outbox {
    rules: Rules,
    entries: BTreeMap<Arc<str>, Entry>,
    /// Offers without an outcome: as many as there was credit for.
    offers: HashMap<EntryId, Offered>,
    tops: Tops,
    timers: BTreeMap<Due, Arc<str>>,
    /// What is due, by the order of its last close: texts and small files, then bulk.
    ready: [BTreeMap<u64, Arc<str>>; 2],
    barriers: Barriers,
    /// Actions that need no decision any more.
    actions: VecDeque<Action>,
    credit: usize,
    last_id: u64,
    last_order: u64,
    /// Entries that hold back [`Action::Idle`].
    unoffered: usize,
    idle_wanted: bool,
    /// The first of what was beyond [`MAX_ENTRIES`] when it was last looked for.
    beyond: Option<LeftOut>,
    /// What left without being stored, until something else is at its path.
    lost: Lost,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: BTreeMap::new(),
            offers: HashMap::new(),
            tops: Tops::default(),
            timers: BTreeMap::new(),
            ready: [BTreeMap::new(), BTreeMap::new()],
            barriers: Barriers::default(),
            actions: VecDeque::new(),
            credit: 0,
            last_id: 0,
            last_order: 0,
            unoffered: 0,
            idle_wanted: false,
            beyond: None,
            lost: Lost::default(),
        }
    }

    /// Something is at a path. `false` where it is not sent, so that nothing below it need be looked at.
    pub fn touch(&mut self, path: &str, stat: Stat, sign: Sign, now: Instant) -> bool {
        if let Some(reason) = ignore::path(path) {
            self.leave_out(path, reason.into(), now);
            return false;
        }
        if let Some(entry) = self.entries.get(path) {
            let left_out = matches!(entry.state, State::LeftOut { .. });
            // What was told to be sent by nobody is not sent for its time alone.
            let is_denied = matches!(&entry.state, State::LeftOut { reason, .. } if reason == WRITTEN_OVER);
            let content = |identity: Identity| (identity.inode, identity.size);
            let is_same =
                content(entry.identity) == content(stat.identity) && is_denied && !sign.is_complete();
            if left_out && (is_same || entry.identity == stat.identity) {
                return true;
            }
            if left_out || entry.node != stat.node {
                self.gone(path, now);
            }
        }
        let order = self.next_order();
        let Some(entry) = self.entries.get_mut(path) else {
            return self.first_seen(path, stat, sign, now);
        };
        let complete = sign.is_complete();
        if complete {
            (entry.touched, entry.tries) = (now, 0);
        }
        let changed = match stat.node {
            Node::Dir => entry.identity.inode != stat.identity.inode,
            Node::File | Node::Link => entry.identity != stat.identity,
        };
        let again = match entry.state {
            State::Waiting { .. } => stat.node != Node::Dir && (changed || complete),
            _ => changed,
        };
        if !again {
            self.consider_leaving(top_of(path));
            return true;
        }
        let (old, text) = (entry.state.clone(), entry.text);
        entry.identity = stat.identity;
        entry.text = is_text_name(path) && stat.node == Node::File && stat.identity.size <= MAX_TEXT;
        (entry.complete, entry.held, entry.order) = (complete, sign == Sign::Held, order);
        (entry.touched, entry.mark) = (now, None);
        // A text that was offered is a message of its own: the next one does not take it back.
        if let (State::Offered(id), false) = (old, text) {
            self.withdraw(id, End::Becomes(&Member::Path(path.into())));
        }
        self.changed_below(path, now);
        self.begin(path, now);
        true
    }

    /// Something at a path can never be sent.
    pub fn leave_out(&mut self, path: &str, reason: Cow<'static, str>, now: Instant) {
        self.leave_out_as(path, Identity { inode: 0, size: 0, mtime: (0, 0) }, reason, now);
    }

    /// Nothing is at a path any more: what was offered from it or from below it is cancelled.
    pub fn gone(&mut self, path: &str, now: Instant) {
        for path in self.subtree(path) {
            for id in self.offers_of(&path) {
                self.withdraw(id, End::Settled);
            }
            self.remove(&path, now);
        }
        self.barriers.end(&Member::Path(path.into()), End::Settled);
        self.changed_below(path, now);
        self.emptied(path, now);
        self.look_beyond();
    }

    /// A path was renamed within the outbox. To be followed by [`Outbox::touch`] or [`Outbox::gone`] for the new path
    /// and what is below it. A new name that is not sent cancels nothing that was offered.
    pub fn renamed(&mut self, from: &str, to: &str, now: Instant) {
        let ignored = ignore::path(to);
        for path in self.subtree(from) {
            let next = Member::Path(format!("{to}{}", &path[from.len()..]).into());
            match ignored {
                Some(reason) => self.fail_path(&path, reason),
                None => {
                    for id in self.offers_of(&path) {
                        self.withdraw(id, End::Becomes(&next));
                    }
                    self.barriers.end(&Member::Path(Arc::clone(&path)), End::Becomes(&next));
                }
            }
            self.remove(&path, now);
        }
        self.changed_below(from, now);
        self.emptied(from, now);
    }

    /// Allows this many offers more.
    pub fn allow(&mut self, offers: usize) {
        self.credit = self.credit.saturating_add(offers);
    }

    /// How an offer ended. Unknown ids are ignored.
    pub fn outcome(&mut self, id: EntryId, outcome: Outcome, now: Instant) {
        let Some(offer) = self.offers.remove(&id) else { return };
        let (path, once) = (offer.path, offer.once);
        let is_current = self.entries.get(&path).is_some_and(|entry| entry.state == State::Offered(id));
        let next = Member::Path(Arc::clone(&path));
        let (state, end) = match &outcome {
            Outcome::Delivered => (Some(State::Delivered), End::Settled),
            Outcome::Sent => (Some(State::Delivered), End::Failed(&path, NO_RECEIPTS)),
            Outcome::Refused(why) => (Some(State::Refused(why.clone())), End::Failed(&path, why)),
            Outcome::Cancelled if is_current => {
                (Some(State::Refused("cancelled".to_owned())), End::Failed(&path, "it was cancelled"))
            }
            Outcome::Cancelled => (None, End::Settled),
            Outcome::Changed if is_current => (None, End::Becomes(&next)),
            Outcome::Changed => (None, End::Failed(&path, "it changed while it was read")),
            Outcome::BrokenOff => (Some(State::Delivered), End::Failed(&path, "its writer broke off")),
        };
        self.barriers.end(&Member::Offer(id), end);
        if !is_current {
            return;
        }
        if let Some(mut state) = state {
            if once {
                // There is nothing that could be sent again: it leaves, whatever became of it.
                if let State::Refused(why) = &state {
                    self.lost.add(&path, why);
                }
                state = State::Delivered;
            }
            if name_of(&path) != &*path {
                // Of a text that was set apart there is nothing that could stay until it is written again.
                state = State::Delivered;
            }
            self.set_state(&path, state, now);
        } else if let Some(entry) = self.entries.get_mut(&path) {
            entry.tries += 1;
            self.begin(&path, now);
        }
    }

    /// The path of an offer without an outcome.
    #[must_use]
    pub fn path_of(&self, id: EntryId) -> Option<&str> {
        self.offers.get(&id).map(|offer| &*offer.path)
    }

    /// An offer can be read once only: whatever becomes of it, it leaves the outbox. One that was refused stays known as
    /// undelivered, and fails the next flush.
    pub fn only_once(&mut self, id: EntryId) {
        if let Some(offer) = self.offers.get_mut(&id) {
            offer.once = true;
        }
    }

    /// A name is out of the outbox: what was known below it is forgotten.
    pub fn left(&mut self, path: &str, now: Instant) {
        for path in self.subtree(path) {
            self.remove(&path, now);
        }
        self.look_beyond();
    }

    /// A name could not leave: it is looked at again later.
    pub fn stays(&mut self, path: &str, now: Instant) {
        let again = now + self.rules.file_stays;
        if let Some(top) = self.tops.find_mut(path) {
            top.not_before = again;
        }
        self.consider_leaving(path);
    }

    /// What had left is back, because it changed on the way: its parts are as they were when they were delivered.
    pub fn restored(&mut self, members: &[(Arc<str>, Stat)], now: Instant) {
        for (path, stat) in members {
            if !self.entries.contains_key(path) && self.insert(path, *stat, Sign::Complete, now) {
                self.set_state(path, State::Delivered, now);
            }
        }
    }

    /// The identity and the fingerprint of what was offered from a path, where [`Prepared::Offered`] gave one.
    #[must_use]
    pub fn mark(&self, path: &str) -> Option<(Identity, u64)> {
        self.entries.get(path).and_then(|entry| entry.mark.map(|mark| (entry.identity, mark)))
    }

    /// The bytes at a path are others, although their identity is the same: the next touch is a change.
    pub fn doubt(&mut self, path: &str) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.identity.mtime = (0, 0);
            entry.mark = None;
        }
    }

    /// What is known at a path.
    #[must_use]
    pub fn known(&self, path: &str) -> Option<Stat> {
        self.entries.get(path).map(|entry| Stat { node: entry.node, identity: entry.identity })
    }

    /// Every known path: at most [`MAX_ENTRIES`].
    #[must_use]
    pub fn paths(&self) -> Vec<Arc<str>> {
        self.entries.keys().cloned().collect()
    }

    /// Names in the outbox, complete or not, that the peer does not have: at most `most`, and how many in all. What
    /// is beyond [`MAX_ENTRIES`] counts as one.
    #[must_use]
    pub fn undelivered(&self, most: usize) -> (Vec<String>, usize) {
        let waits = |path: &str, entry: &Entry| match entry.state {
            State::Waiting { .. } => entry.node != Node::Dir || !self.has_children(path),
            State::Ready { .. } | State::Preparing(_) | State::Offered(_) | State::Refused(_) => true,
            State::Delivered | State::LeftOut { .. } | State::Made => false,
        };
        let entries = self.entries.iter().filter(|(path, entry)| waits(path, entry)).map(|(path, _)| path);
        let earlier =
            self.offers.iter().filter(|(id, offer)| !offer.withdrawn && !self.is_current(**id, offer));
        let beyond = self.beyond.iter().map(|beyond| beyond.name.as_str());
        let known = entries.chain(earlier.map(|(_, offer)| &offer.path)).map(|path| &**path);
        let all: Vec<&str> = known.chain(beyond).chain(self.lost.names()).collect();
        (all.iter().take(most).map(|path| name_of(path).to_owned()).collect(), all.len())
    }
}

/// What the inputs have in common.
impl Outbox {
    /// A path is met for the first time.
    fn first_seen(&mut self, path: &str, stat: Stat, sign: Sign, now: Instant) -> bool {
        let taken = self.insert(path, stat, sign, now);
        if taken {
            self.changed_below(path, now);
            self.begin(path, now);
        }
        taken
    }

    /// Leaves a content out until there is another one at its path.
    fn leave_out_as(&mut self, path: &str, identity: Identity, reason: Cow<'static, str>, now: Instant) {
        match self.entries.get(path).map(|entry| &entry.state) {
            Some(State::LeftOut { .. }) => return,
            Some(_) => {
                self.fail_path(path, &reason);
                self.gone(path, now);
            }
            None => self.fail_path(path, &reason),
        }
        if self.insert(path, Stat { node: Node::File, identity }, Sign::Seen, now) {
            let due = Some((now + self.rules.empty, self.next_order()));
            self.set_state(path, State::LeftOut { due, reason }, now);
        }
    }

    /// Makes an entry, in a state that is to be set next. `false` where there are too many.
    fn insert(&mut self, path: &str, stat: Stat, sign: Sign, now: Instant) -> bool {
        if self.entries.len() >= MAX_ENTRIES {
            let reason = format!(
                "more than {MAX_ENTRIES} entries are in the outbox; it waits until others left, or link its directory"
            );
            self.fail_path(path, &reason);
            self.tops.hold(top_of(path));
            if self.beyond.is_none() {
                let beyond = LeftOut { name: path.to_owned(), reason };
                self.actions.push_back(Action::LeftOut(beyond.clone()));
                self.beyond = Some(beyond);
            }
            return false;
        }
        self.lost.remove(path);
        let order = self.next_order();
        let entry = Entry {
            node: stat.node,
            text: is_text_name(path) && stat.node == Node::File && stat.identity.size <= MAX_TEXT,
            identity: stat.identity,
            state: State::Made,
            complete: sign.is_complete(),
            held: sign == Sign::Held,
            order,
            touched: now,
            tries: 0,
            carried: false,
            last_offer: None,
            mark: None,
        };
        self.tops.weigh(top_of(path), None, Some(entry.state.weight()), now);
        self.entries.insert(path.into(), entry);
        true
    }

    /// Forgets an entry, its timer and its place in a lane. Its offers stay.
    fn remove(&mut self, path: &str, now: Instant) {
        let was_told = |entry: &Entry| matches!(entry.state, State::LeftOut { due: None, .. });
        if self.entries.get(path).is_some_and(was_told) {
            self.actions.push_back(Action::Resolved(told_name(path)));
        }
        self.set_state(path, State::Made, now);
        if let Some(entry) = self.entries.remove(path) {
            self.tops.weigh(top_of(path), Some(entry.state.weight()), None, now);
        }
    }

    /// Cancels an offer, once, and tells the barriers how its content goes on.
    fn withdraw(&mut self, id: EntryId, end: End<'_>) {
        self.barriers.end(&Member::Offer(id), end);
        if let Some(offer) = self.offers.get_mut(&id).filter(|offer| !offer.withdrawn) {
            offer.withdrawn = true;
            self.actions.push_back(Action::Withdraw(id));
        }
    }

    /// The offers of a path without an outcome. A text that was written again has more than one.
    fn offers_of(&self, path: &str) -> Vec<EntryId> {
        match self.entries.get(path) {
            Some(Entry { text: false, state: State::Offered(id), .. }) => vec![*id],
            Some(Entry { text: false, .. }) => Vec::new(),
            _ => self.offers.iter().filter(|(_, offer)| &*offer.path == path).map(|(id, _)| *id).collect(),
        }
    }

    fn is_current(&self, id: EntryId, offer: &Offered) -> bool {
        self.entries.get(&offer.path).is_some_and(|entry| entry.state == State::Offered(id))
    }

    /// A path and the known paths below it.
    fn subtree(&self, path: &str) -> Vec<Arc<str>> {
        let itself = self.entries.get_key_value(path).map(|(path, _)| Arc::clone(path));
        itself.into_iter().chain(self.below(path).map(|(path, _)| Arc::clone(path))).collect()
    }

    /// The known entries below a directory.
    fn below(&self, dir: &str) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        let prefix: Arc<str> = format!("{dir}/").into();
        self.entries.range(Arc::clone(&prefix)..).take_while(move |(path, _)| path.starts_with(&*prefix))
    }

    /// Whether something is in a directory that is sent.
    fn has_children(&self, dir: &str) -> bool {
        self.below(dir).any(|(_, entry)| !matches!(entry.state, State::LeftOut { .. }))
    }

    /// A path has no entry: its parent may be an empty directory now, of which nothing was ever sent.
    fn emptied(&mut self, path: &str, now: Instant) {
        let Some((parent, _)) = path.rsplit_once('/') else { return };
        let is_bare = |entry: &Entry| entry.state == State::Made && !entry.carried;
        if self.entries.get(parent).is_some_and(is_bare) && !self.has_children(parent) {
            self.begin(parent, now);
        }
    }

    fn changed_below(&mut self, path: &str, now: Instant) {
        let top = top_of(path);
        if let Some(top) = self.tops.find_mut(top) {
            top.touched = now;
        }
        self.consider_leaving(top);
    }

    fn fail_path(&mut self, path: &str, reason: &str) {
        self.barriers.end(&Member::Path(path.into()), End::Failed(path, reason));
    }

    /// Looks again for what was beyond [`MAX_ENTRIES`], once an eighth of the room is free.
    fn look_beyond(&mut self) {
        if self.entries.len() < MAX_ENTRIES / 8 * 7
            && let Some(beyond) = self.beyond.take()
        {
            self.tops.release();
            self.actions.push_back(Action::Resolved(beyond.name));
            self.actions.push_back(Action::Rescan);
        }
    }

    fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }
}

/// What an entry is called where it is reported.
fn told_name(path: &str) -> String {
    name_of(path).replace('\0', "")
}
