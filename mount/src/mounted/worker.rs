//! The mailbox's own thread: carries what happened in the outbox to the state machine, and does what that asks for.
//! Nothing else reads or changes the state machine.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use crate::bell::BellError;
use crate::blob::Reading;
use crate::error::FileError;
use crate::files::{Change, FLUSH_DIR, Files, Piece, Snapshot, Way};
use crate::outbox::tickets::RELEASE_WAIT;
use crate::outbox::{
    Action, Answer, DELIVERED, Identity, Leaving, MAX_FLUSHES, NO_RECEIPTS, Node, Outbox, Prepared, Rules,
    Ticket, name_of,
};
use crate::prepare::{Preparer, Taken};
use crate::reference::{self, Own};
use crate::stream::{Streams, Word};
use crate::{
    Content, EntryId, Kind, LeftOut, MAX_TEXT, MAX_WHOLE, Offer, OutboxEvent, Outcome, Outlet, ignore, name,
    secret,
};

/// Before the number of a receipt in the token of its flush: no request has it in its name.
const RECEIPT: &str = "#";
/// Most flushes of receipts at once; more wait for one of them to end. The rest is for `flush`.
const MAX_RECEIPTS: usize = MAX_FLUSHES / 2;

/// What an attribute is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// `queued`, `sending`, `delivered` or `refused`.
    State,
    /// The number of the offer.
    Id,
}

/// What the thread is asked to do.
pub(crate) enum Order {
    /// Something happened.
    Look,
    /// More offers are allowed.
    Allow(usize),
    /// An offer ended.
    Outcome(EntryId, Outcome),
    /// What became of a ticket whose answer took long.
    Prepared(Ticket, Taken),
    /// End settling.
    Finish,
    /// Who is still in the outbox.
    Undelivered(usize, Sender<(Vec<String>, usize)>),
    /// An attribute of a path, and who wants it.
    Attribute(String, Ask, Box<dyn FnOnce(Option<String>) + Send>),
    /// Nobody answers the kernel any more.
    Unmounted(io::Error),
    /// End.
    Stop,
}

/// What is to be offered from a path.
enum Kept {
    File(Snapshot),
    Link,
    Dir,
}

/// Everything that the thread owns.
pub(super) struct Worker {
    shared: Arc<Shared>,
    outbox: Outbox,
    kept: BTreeMap<Arc<str>, Kept>,
    preparer: Preparer,
    streams: Arc<Streams>,
    /// `None` once nobody listens.
    outlet: Option<Outlet>,
    /// Receipts that wait for one of those before them to end.
    receipts: VecDeque<u64>,
    /// Receipts that the state machine knows.
    active: usize,
    /// Takes away what has left; ends with the worker.
    removals: Sender<String>,
}

impl Worker {
    pub(super) fn new(shared: &Arc<Shared>, own: Own, outlet: Outlet) -> Self {
        let (files, orders) = (Arc::clone(shared), shared.orders.clone());
        let streams = Arc::clone(&own.streams);
        let take = move |ticket: &Ticket| {
            // Not locked any more while the target is waited for.
            let target = files.files().link_target(&ticket.path);
            match target {
                Some(target) => reference::offer(ticket, Path::new(&target), ticket.identity, &own),
                None => Err(Prepared::Gone),
            }
        };
        let late = move |ticket, taken| {
            // After the end of the worker nobody wants to know.
            let _ = orders.send(Order::Prepared(ticket, taken));
        };
        let preparer = Preparer::new(take, late);
        let (removals, queue) = mpsc::channel();
        let remover = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("mailbox-leave".to_owned())
            .spawn(move || queue.iter().for_each(|path: String| remove(&remover, &path)));
        if let Err(error) = spawned {
            tracing::warn!(%error, "what has left the outbox is taken away at once");
        }
        Self {
            shared: Arc::clone(shared),
            outbox: Outbox::new(Rules::FUSE),
            kept: BTreeMap::new(),
            preparer,
            streams,
            outlet: Some(outlet),
            receipts: VecDeque::new(),
            active: 0,
            removals,
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            self.look();
            self.act();
            let deadline = self.outbox.deadline().into_iter().chain(self.shared.files().deadline()).min();
            let order = match deadline {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match order {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.end_flushes();
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Look | Order::Stop => {}
            Order::Allow(offers) => self.outbox.allow(offers),
            Order::Outcome(entry, outcome) => {
                let word = Word::from(&outcome);
                if let Some(path) = self.outbox.path_of(entry) {
                    self.shared.files().questions().ended(name_of(path), outcome.is_delivered());
                }
                self.outbox.outcome(entry, outcome, now);
                // Its name is free before its writer knows.
                self.act();
                self.streams.tell(entry, &word);
            }
            Order::Prepared(ticket, taken) => self.prepared(&ticket, taken),
            Order::Finish => {
                self.shared.files().complete_all(now);
                self.look();
                self.outbox.finish(Instant::now());
            }
            Order::Undelivered(most, reply) => {
                // Before the look: what becomes complete in between is known by one of them.
                let incomplete = self.shared.files().incomplete();
                // What is due waits for no older ticket any more: whose that is, is not complete, and named for it.
                self.look_ahead(RELEASE_WAIT);
                // Who asked may have given up.
                let _ = reply.send(self.undelivered(most, incomplete));
            }
            Order::Attribute(path, ask, reply) => {
                self.look();
                let standing = self.outbox.standing(&path);
                reply(match ask {
                    Ask::State => standing.map(|(word, _)| word.to_owned()),
                    Ask::Id => standing.and_then(|(_, id)| id).map(|id| id.0.to_string()),
                });
            }
            Order::Unmounted(error) => self.emit(OutboxEvent::Failed(error)),
        }
    }

    /// What the state machine knows, and what was not complete.
    fn undelivered(&self, most: usize, incomplete: Vec<String>) -> (Vec<String>, usize) {
        let (mut names, mut all) = self.outbox.undelivered(most);
        for path in incomplete {
            // What was delivered from there is not what is written there now.
            let is_named = self.outbox.standing(&path).is_some_and(|(word, _)| word != DELIVERED);
            if ignore::path(&path).is_none() && !is_named {
                all += 1;
                if names.len() < most {
                    names.push(path);
                }
            }
        }
        (names, all)
    }

    fn emit(&mut self, event: OutboxEvent) {
        if let Some(outlet) = &mut self.outlet
            && !outlet(event)
        {
            self.outlet = None;
        }
    }

    /// Takes over what happened.
    fn look(&mut self) {
        self.look_ahead(Duration::ZERO);
    }

    /// Takes over what happened, as far as it will be due in so long.
    fn look_ahead(&mut self, ahead: Duration) {
        self.shared.woken.store(false, Ordering::Release);
        loop {
            let change = self.shared.files().next_change(Instant::now() + ahead);
            let Some(change) = change else { return };
            self.apply(change);
        }
    }

    fn apply(&mut self, change: Change) {
        let now = Instant::now();
        match change {
            Change::Complete(piece) => self.touch(piece, now),
            Change::Moved { from, to, is_dir, pieces } => {
                let ignored = ignore::path(&to).is_some();
                // A name that is not sent takes nothing back: an editor's backup of what was saved.
                if let Some(from) = from.filter(|_| is_dir || !ignored) {
                    // What comes back to where it is still waiting from is no other.
                    let known = self.outbox.known(&to);
                    let is_back = |piece: &Piece| piece.path == to && known == Some(piece.stat);
                    if !pieces.iter().any(is_back) {
                        self.set_apart(&to, now);
                    }
                    self.outbox.renamed(&from, &to, now);
                    self.forget(&from);
                    self.shared.files().questions().gone(&from);
                }
                for piece in pieces {
                    self.touch(piece, now);
                }
            }
            Change::Gone(path) => {
                for apart in self.outbox.removed(&path, now) {
                    self.kept.remove(&apart);
                }
                self.forget(&path);
                self.shared.files().questions().gone(&path);
            }
            Change::Touched(path) => self.outbox.nudge(&path, now),
            Change::Flush(token) => self.flush(token),
            Change::Forget(token) => self.outbox.forget_flush(&token),
            Change::Receipt(number) => {
                self.receipts.push_back(number);
                self.start_receipts();
            }
            Change::Opened(item) => self.emit(OutboxEvent::Opened { item }),
            Change::Ctl(word) => self.emit(OutboxEvent::Ctl(word)),
        }
    }

    fn touch(&mut self, piece: Piece, now: Instant) {
        let Piece { path, stat, sign, snapshot, target } = piece;
        let parent = path.rsplit_once('/').map(|(parent, _)| parent);
        if parent.is_some_and(|parent| ignore::path(parent).is_some()) {
            // Reported with the directory.
            return;
        }
        if let Err(error) = name::own(Path::new(&path)) {
            return self.outbox.leave_out(&path, error.to_string().into(), now);
        }
        if stat.node == Node::Link && parent.is_some() && ignore::path(&path).is_none() {
            return self.outbox.leave_out(&path, reference::INSIDE.into(), now);
        }
        if let Some(reason) = secret::not_sent(&path).filter(|_| ignore::path(&path).is_none()) {
            return self.outbox.leave_out(&path, reason.into(), now);
        }
        if self.outbox.known(&path) != Some(stat) {
            self.set_apart(&path, now);
        }
        if self.outbox.touch(&path, stat, sign, now) {
            let kept = match (snapshot, target) {
                (Some(snapshot), _) => Kept::File(snapshot),
                (None, Some(_)) => Kept::Link,
                (None, None) => Kept::Dir,
            };
            self.kept.insert(path.into(), kept);
        }
    }

    /// A text that waits to be offered from a path is not lost to what comes there now.
    fn set_apart(&mut self, path: &str, now: Instant) {
        if let Some(key) = self.outbox.set_apart(path, now)
            && let Some(kept) = self.kept.remove(path)
        {
            self.kept.insert(key, kept);
        }
    }

    /// Forgets what was kept of a path and of what is below it.
    fn forget(&mut self, path: &str) {
        self.kept.remove(path);
        let prefix: Arc<str> = format!("{path}/").into();
        let below: Vec<_> = self
            .kept
            .range(Arc::clone(&prefix)..)
            .map(|(path, _)| Arc::clone(path))
            .take_while(|path| path.starts_with(&*prefix))
            .collect();
        for path in below {
            self.kept.remove(&path);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.outbox.next(Instant::now()) {
            match action {
                Action::Prepare(ticket) => {
                    if let Some(taken) = self.prepare(&ticket) {
                        self.prepared(&ticket, taken);
                    }
                }
                Action::Withdraw(entry) => {
                    self.streams.tell(entry, &Word::Cancelled);
                    self.emit(OutboxEvent::Withdraw { entry });
                }
                Action::LeftOut(left_out) => self.emit(OutboxEvent::LeftOut(left_out)),
                Action::Resolved(name) => self.emit(OutboxEvent::Resolved { name }),
                Action::Leave(leaving) => self.leave(leaving),
                Action::Answer(answer) => self.answer(&answer),
                Action::Rescan => {
                    let pieces = self.shared.files().everything();
                    for piece in pieces {
                        self.touch(piece, Instant::now());
                    }
                }
                Action::Idle => self.emit(OutboxEvent::Idle),
            }
        }
    }

    fn prepare(&mut self, ticket: &Ticket) -> Option<Taken> {
        match self.kept.get(&ticket.path) {
            None => Some(Err(Prepared::Gone)),
            Some(Kept::File(snapshot)) => Some(self.file(ticket, snapshot)),
            Some(Kept::Dir) => {
                let mtime = self.shared.files().times_of(&ticket.path).and_then(|(_, mtime)| mtime.system());
                let offer = offer(ticket, Kind::Dir, (None, false, mtime), Content::None);
                Some(Ok((offer, ticket.identity)))
            }
            Some(Kept::Link) => self.preparer.prepare(ticket),
        }
    }

    fn file(&self, ticket: &Ticket, snapshot: &Snapshot) -> Taken {
        let now = self.shared.files().times(snapshot.ino);
        let (mode, mtime) = now.unwrap_or((snapshot.mode, snapshot.mtime));
        if let Some(secret) = &snapshot.secret {
            return secret::offer(ticket, secret);
        }
        let size = snapshot.content.len();
        let about = (Some(size), mode & 0o100 != 0, mtime.system());
        let whole = || {
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            snapshot.content.read_at(0, &mut bytes).map(|_| bytes)
        };
        let unreadable = |error: io::Error| Prepared::LeftOut(format!("it cannot be read: {error}"));
        let (kind, content) = if ticket.text {
            if size > MAX_TEXT {
                return Err(Prepared::NotText);
            }
            let bytes = whole().map_err(unreadable)?;
            if std::str::from_utf8(&bytes).is_err() {
                return Err(Prepared::NotText);
            }
            (Kind::Text, Content::Whole(bytes.into()))
        } else if size <= MAX_WHOLE {
            (Kind::File, Content::Whole(whole().map_err(unreadable)?.into()))
        } else {
            (Kind::File, Content::Stream(Box::new(Reading::new((*snapshot.content).clone()))))
        };
        Ok((offer(ticket, kind, about, content), ticket.identity))
    }

    fn prepared(&mut self, ticket: &Ticket, taken: Taken) {
        if !self.outbox.is_preparing(ticket) {
            // It was changed or removed meanwhile.
            return self.streams.tell(ticket.entry, &Word::Cancelled);
        }
        let is_stream = self.streams.has(ticket.entry);
        let taken = taken.and_then(|taken| self.address(ticket, taken));
        let result = match taken {
            Ok((offer, _)) => {
                self.emit(OutboxEvent::Offer(offer));
                // A link is known by itself, not by its target.
                Prepared::Offered { identity: ticket.identity, mark: None }
            }
            Err(result) => result,
        };
        self.outbox.prepared(ticket, result, Instant::now());
        if is_stream {
            self.outbox.only_once(ticket.entry);
        }
    }

    /// A question or an answer becomes one, or is told at once to be none: somebody may be waiting for it.
    fn address(&mut self, ticket: &Ticket, (offer, identity): (Offer, Identity)) -> Taken {
        let addressed = self.shared.files().questions().address(offer);
        addressed.map(|offer| (offer, identity)).map_err(|denied| {
            let (name, reason) = (name_of(&ticket.path).to_owned(), denied.to_string());
            self.emit(OutboxEvent::Denied(LeftOut { name, reason: reason.clone() }));
            Prepared::Denied { identity: ticket.identity, reason }
        })
    }

    fn leave(&mut self, leaving: Leaving) {
        let path = Arc::clone(&leaving.path);
        let left = name_of(&path) != &*path || self.take_out(leaving);
        if left {
            self.outbox.left(&path, Instant::now());
            self.forget(&path);
        } else {
            self.outbox.stays(&path, Instant::now());
        }
    }

    /// Whether something is out of the outbox now.
    fn take_out(&self, leaving: Leaving) -> bool {
        // What happened before is known first: the bell's request meets the files as they are.
        let Some(way) = self.shared.files().grant(leaving) else { return false };
        let done = match &way {
            Way::None => Ok(()),
            Way::Unlink(path) => self.shared.bell.unlink(path),
            Way::Rename(from, to) => self.shared.bell.rename(from, to),
        };
        let left = match done {
            Ok(()) => true,
            Err(BellError::Errno(_)) => false,
            Err(BellError::Gone(_) | BellError::Closed) => self.shared.with(Files::leave_without_bell),
        };
        self.shared.files().revoke();
        if let (true, Way::Rename(_, to)) = (left, way) {
            // Without that thread it stays where nobody sees it, until the end.
            let _ = self.removals.send(to);
        }
        left
    }

    fn flush(&mut self, token: String) {
        if !self.outbox.flush(token.clone(), &mut |_| false) {
            let mut answer = Answer::new(token);
            answer.fail("", "too many wait already; try again later");
            self.answer(&answer);
        }
    }

    /// Lets those who wait at `receipt` wait for what is in the outbox now, as many at once as can be known.
    fn start_receipts(&mut self) {
        while self.active < MAX_RECEIPTS
            && let Some(number) = self.receipts.pop_front()
        {
            if self.shared.receipts.is_waiting(number)
                && self.outbox.flush(format!("{RECEIPT}{number}"), &mut |_| false)
            {
                self.active += 1;
            }
        }
    }

    fn answer(&mut self, answer: &Answer) {
        if let Some(number) = answer.token.strip_prefix(RECEIPT) {
            self.active = self.active.saturating_sub(1);
            if let Ok(number) = number.parse() {
                self.shared.receipts.answer(number, result(answer));
            }
            return self.start_receipts();
        }
        let line = serde_json::json!({ "failed_count": answer.failed_count, "failed": answer.failed });
        let line = format!("{line}\n");
        let path = format!("{FLUSH_DIR}/{}", answer.token);
        match self.shared.bell.append(&path, line.as_bytes()) {
            // Who asked may be gone.
            Ok(()) | Err(BellError::Errno(_)) => {}
            Err(BellError::Gone(_) | BellError::Closed) => {
                if let Err(error) = self.shared.files().answer(&answer.token, line.as_bytes()) {
                    tracing::debug!(%error, "an answer to a flush cannot be written");
                }
            }
        }
    }

    /// Answers everybody who waits.
    fn end_flushes(&mut self) {
        self.shared.files().close();
        self.look();
        while let Some(answer) = self.outbox.next_answer() {
            self.answer(&answer);
        }
        for answer in self.outbox.abandon_flushes("the channel closed before it was stored") {
            if !answer.token.starts_with(RECEIPT) {
                self.answer(&answer);
            }
        }
        self.shared.receipts.end();
        self.streams.end();
    }
}

/// What `fsync` of the receipt says.
fn result(answer: &Answer) -> Result<(), FileError> {
    match answer.failed.first() {
        None => Ok(()),
        Some((_, reason)) if reason == NO_RECEIPTS => Err(FileError::Unsupported),
        Some(_) => Err(FileError::Io),
    }
}

fn offer(
    ticket: &Ticket,
    kind: Kind,
    (size, executable, mtime): (Option<u64>, bool, Option<std::time::SystemTime>),
    content: Content,
) -> Offer {
    let name = name_of(&ticket.path).to_owned();
    Offer { entry: ticket.entry, kind, name, size, executable, mtime, content }
}

/// Removes what the bell took out of the outbox, one at a time: an arrival waits for one of them at most.
fn remove(shared: &Shared, path: &str) {
    let below = shared.files().removal(path);
    for (path, is_dir) in below {
        let done = if is_dir { shared.bell.rmdir(&path) } else { shared.bell.unlink(&path) };
        if let Err(error) = done {
            tracing::debug!(%error, "what has left the outbox is taken away without the bell");
            break;
        }
    }
    shared.with(|files| files.discard(path));
}
