//! The threads that write: one for each lane of what the peer sent, one for what this end says about itself.
//!
//! Own the sinks of items under way and the order in which things become visible. A slow disk or an unread standard
//! output holds up its lane and nothing else: the driver never waits, and `status.json` stays true. Every item ends with
//! one answer.

mod job;
mod visible;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use agent_wormhole_mount as mount;
use agent_wormhole_mount::secret::{Secret, SharedVault};
use mount::{Group, Mailbox, Saved, Sink};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

pub(super) use self::job::{Done, Job};
use self::visible::Visible;
use super::journal::Journal;
use super::secrets::{self, Place, Places};
use crate::event::escape::shortened;
use crate::event::{
    DirEvent, Event, FileEvent, MAX_BODY, MAX_FOREIGN_NAME, QuestionEvent, RefusedEvent, Sent, Side,
    StatusEvent, TextEvent,
};
use crate::item::{ItemHead, ItemId, ItemKind, Lane, MAX_TEXT, Refusal};
use crate::session::Incoming;

/// How often the journal is looked at while something waits in it.
const TICK: Duration = Duration::from_millis(500);
/// How often it is looked at whether a question has its turn: one more event may come in this time.
const TURN: Duration = Duration::from_millis(10);
/// What waits for a disk or a reader of standard output, in bytes at most; then frames wait. A peer that keeps to its
/// grants and takes nothing back has 10 MiB on the way; what it takes back, and what a 0.1 peer sends, no grant bounds.
const MAX_WAITING: usize = 16 * 1024 * 1024;
/// Names remembered of which it was told that they changed while their sender read them. One more, and all may be told
/// again.
const MAX_CHANGED: usize = 1024;
/// The newest `status.json` that is not written yet. One slot: what a slow disk did not get to see is not missed.
type Slot = Arc<Mutex<Option<String>>>;

fn take_slot(slot: &Slot) -> MutexGuard<'_, Option<String>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All three threads.
pub(super) struct Store {
    /// Prompt, bulk, and this end's own affairs.
    desks: [Sender<Job>; 3],
    /// Bytes of the jobs that are not done.
    waiting: Arc<AtomicUsize>,
    status: Slot,
    journal: Arc<Journal>,
    threads: Vec<JoinHandle<()>>,
    visible: Arc<Visible>,
    secrets: Places,
}

impl Store {
    /// Starts the threads.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn start(
        (mailbox, vault): (&Arc<dyn Mailbox>, &SharedVault),
        journal: &Arc<Journal>,
        done: &UnboundedSender<Done>,
    ) -> std::io::Result<Self> {
        let visible = Arc::new(Visible::default());
        let status = Slot::default();
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        let mut start = |name: &str| {
            let (jobs, queue) = channel();
            let mut worker = Worker {
                mailbox: Arc::clone(mailbox),
                vault: Arc::clone(vault),
                journal: Arc::clone(journal),
                done: done.clone(),
                visible: Arc::clone(&visible),
                status: Arc::clone(&status),
                waiting: Arc::clone(&waiting),
                items: HashMap::new(),
                groups: HashMap::new(),
                changed: HashSet::new(),
            };
            threads.push(thread::Builder::new().name(name.into()).spawn(move || worker.run(&queue))?);
            Ok::<_, std::io::Error>(jobs)
        };
        let desks = [start("inbox-prompt")?, start("inbox-bulk")?, start("own-affairs")?];
        let (journal, secrets) = (Arc::clone(journal), Places::default());
        Ok(Self { desks, waiting, status, journal, threads, visible, secrets })
    }

    /// Gives work to the lane that it belongs to.
    pub(super) fn give(&self, lane: Lane, job: Job) {
        let [prompt, bulk, _] = &self.desks;
        self.put(if lane == Lane::Prompt { prompt } else { bulk }, job);
    }

    /// Takes a secret out of its frame, and gives it to its lane; one too many is refused there.
    pub(super) fn give_secret(&self, incoming: Incoming) {
        let place = self.secrets.take().ok_or(Refusal::NoSpace);
        let (incoming, secret) = secrets::arrived(incoming);
        self.give(Lane::Prompt, Job::Secret(incoming, secret.and_then(|secret| Ok((secret, place?)))));
    }

    fn give_own(&self, job: Job) {
        let [.., own] = &self.desks;
        self.put(own, job);
    }

    fn put(&self, desk: &Sender<Job>, job: Job) {
        self.waiting.fetch_add(job.weight(), Ordering::AcqRel);
        // A lane that panicked has nobody to work for it; its items stay unanswered, which is the truth.
        let _ = desk.send(job);
    }

    /// Whether more of what the peer sends may be given. [`Done::Room`] says when it may again.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < MAX_WAITING
    }

    /// Writes down what was delivered.
    pub(super) fn sent(&self, sent: Sent) {
        self.give_own(Job::Sent(sent));
    }

    /// Writes `status.json`; one that was not written yet is left out.
    pub(super) fn write_status(&self, json: String) {
        if take_slot(&self.status).replace(json).is_none() {
            self.give_own(Job::Status);
        }
    }

    /// Tells of something, after what the prompt lane has before it, but for questions that have to wait.
    pub(super) fn tell(&self, status: StatusEvent) {
        self.give(Lane::Prompt, Job::Tell(status));
    }

    /// Nothing becomes visible any more.
    pub(super) fn deafen(&self) {
        self.visible.end();
    }

    /// Whether the driver, which has taken so many answers, knows of everything that became visible. After
    /// [`Store::deafen`] an answer says when it may be so.
    pub(super) fn is_settled(&self, taken: u64) -> bool {
        self.visible.is_settled(taken)
    }

    /// The channel closes: nothing waits for a reader of standard output any more.
    pub(super) fn release(&self) {
        self.journal.release();
    }

    /// Waits until all have done what they were given so far, but not for a reader of standard output.
    pub(super) async fn settle(&self) {
        self.release();
        for desk in &self.desks {
            let (told, settled) = oneshot::channel();
            self.put(desk, Job::Barrier(told));
            // An error is a lane that has ended: it has done what it could.
            let _ = settled.await;
        }
    }

    /// Ends the threads after what they were given.
    pub(super) fn finish(self) {
        drop(self.desks);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// An item under way.
struct Writing {
    sink: Box<dyn Sink>,
    head: ItemHead,
    written: u64,
    /// The text so far, of a text.
    text: Vec<u8>,
    pending: (Vec<String>, u64),
}

/// An atomic directory under way.
struct Grouping {
    group: Box<dyn Group>,
    name: String,
    files: u64,
    bytes: u64,
}

struct Worker {
    mailbox: Arc<dyn Mailbox>,
    vault: SharedVault,
    journal: Arc<Journal>,
    done: UnboundedSender<Done>,
    visible: Arc<Visible>,
    status: Slot,
    waiting: Arc<AtomicUsize>,
    items: HashMap<ItemId, Writing>,
    groups: HashMap<ItemId, Grouping>,
    /// Names of what changed while its sender read it, and has not arrived since.
    changed: HashSet<String>,
}

impl Worker {
    fn run(&mut self, queue: &Receiver<Job>) {
        // What came while a question waited: it is counted as waiting until it is done.
        let mut behind = VecDeque::new();
        loop {
            let job = if let Some(job) = behind.pop_front() {
                job
            } else if self.journal.is_waiting() {
                match queue.recv_timeout(TICK) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => {
                        self.journal.tick();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match queue.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                }
            };
            if self.asks(&job) {
                self.wait_for_turn(queue, &mut behind);
            }
            self.finish(job);
        }
    }

    fn finish(&mut self, job: Job) {
        let weight = job.weight();
        self.work(job);
        let before = self.waiting.fetch_sub(weight, Ordering::AcqRel);
        if before >= MAX_WAITING && before - weight < MAX_WAITING {
            self.answer(Done::Room);
        }
    }

    /// Whether a question is complete with this.
    fn asks(&self, job: &Job) -> bool {
        match job {
            Job::Chunk { id, last: true, .. } => {
                self.items.get(id).is_some_and(|writing| writing.head.kind == ItemKind::Ask)
            }
            other => other.is_whole(ItemKind::Ask),
        }
    }

    /// Waits until the peer may ask once more. What this end says does not wait for that.
    fn wait_for_turn(&mut self, queue: &Receiver<Job>, behind: &mut VecDeque<Job>) {
        while !self.journal.may_ask() {
            match queue.recv_timeout(TURN) {
                Ok(job) if job.goes_ahead() => self.finish(job),
                Ok(job) => behind.push_back(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Begin(incoming) => self.begin(incoming),
            Job::Secret(incoming, secret) => self.visibly(|worker| worker.secret(incoming, secret)),
            Job::Chunk { id, bytes, last } => self.chunk(id, &bytes, last),
            Job::Drop(id, reason) => self.drop_item(id, reason),
            Job::Tell(status) => self.journal.own(status),
            Job::Sent(sent) => self.journal.sent(&sent),
            Job::Status => {
                let newest = take_slot(&self.status).take();
                if let Some(Err(error)) = newest.map(|json| self.mailbox.write_status(&json)) {
                    tracing::debug!(%error, "status.json could not be written");
                }
            }
            Job::Barrier(told) => drop(told.send(())),
        }
    }

    fn answer(&self, done: Done) {
        self.visible.answer();
        // The driver has ended: nobody wants to know.
        let _ = self.done.send(done);
    }

    fn begin(&mut self, incoming: Incoming) {
        let Incoming { id, head, pending, pending_more } = incoming;
        let Some(kind) = kind(head.kind) else {
            return self.refuse_as(id, &head, Refusal::Unsupported, None);
        };
        let described = mount::Incoming {
            kind,
            item: id.0,
            name: &head.name,
            size: head.size,
            executable: head.executable,
            mtime: head.mtime.and_then(time),
        };
        if head.kind == ItemKind::Group {
            match self.mailbox.receive_group(&described) {
                Ok(group) => {
                    self.groups.insert(id, Grouping { group, name: head.name, files: 0, bytes: 0 });
                }
                Err(refusal) => self.refuse(id, &head, &refusal),
            }
            return;
        }
        let sink = match head.group {
            None => self.mailbox.receive(&described),
            // A group that was refused takes no members: the session drops what still comes.
            Some(group) => match self.groups.get_mut(&group) {
                Some(grouping) => grouping.group.member(&described),
                None => return,
            },
        };
        let sink = match sink {
            Ok(sink) => sink,
            Err(refusal) => return self.refuse(id, &head, &refusal),
        };
        let inline = head.inline.clone();
        let whole = head.is_whole();
        let writing = Writing { sink, head, written: 0, text: Vec::new(), pending: (pending, pending_more) };
        self.items.insert(id, writing);
        if whole {
            self.chunk(id, &inline.unwrap_or_default(), true);
        }
    }

    /// A secret goes into the vault; nothing of it is left elsewhere.
    fn secret(&mut self, incoming: Incoming, secret: Result<(Secret, Place), Refusal>) {
        let Incoming { id, head, .. } = incoming;
        let kept = secret.and_then(|(secret, _place)| secrets::keep(&self.vault, id, &head.name, secret));
        match kept {
            Ok(event) => {
                self.journal.event(&Event::Secret(event));
                // How long it is is nobody's business.
                self.answer(Done::Stored { id, result: Ok(0) });
            }
            Err(reason) => self.refuse_named(id, head.name, reason, None),
        }
    }

    fn chunk(&mut self, id: ItemId, bytes: &[u8], last: bool) {
        if let Some(grouping) = self.groups.remove(&id) {
            return self.visibly(|worker| worker.commit_group(id, grouping));
        }
        let Some(writing) = self.items.get_mut(&id) else { return };
        let written = if writing.head.kind.is_text() {
            writing.text.extend_from_slice(bytes);
            if writing.text.len() as u64 > MAX_TEXT { Err(Refusal::BadText) } else { Ok(()) }
        } else {
            writing.sink.write(bytes).map_err(|refusal| wire_refusal(&refusal))
        };
        if let Err(reason) = written {
            if let Some(writing) = self.items.remove(&id) {
                self.refuse_as(id, &writing.head, reason, None);
            }
            return;
        }
        writing.written += bytes.len() as u64;
        if !last {
            let upto = writing.written;
            return self.answer(Done::Accepted { id, upto });
        }
        if let Some(writing) = self.items.remove(&id) {
            self.visibly(|worker| worker.commit(id, writing));
        }
    }

    /// Makes something visible, unless the channel is closing, and tells who waits for that.
    fn visibly(&mut self, act: impl FnOnce(&mut Self)) {
        let visible = Arc::clone(&self.visible);
        if visible.during(|| act(self)) {
            self.answer(Done::Room);
        }
    }

    fn commit(&mut self, id: ItemId, writing: Writing) {
        let Writing { mut sink, head, written, text, pending } = writing;
        let mut body = None;
        if head.kind.is_text() {
            let Ok(text) = String::from_utf8(text) else {
                return self.refuse_as(id, &head, Refusal::BadText, None);
            };
            if let Err(refusal) = sink.write(text.as_bytes()) {
                return self.refuse(id, &head, &refusal);
            }
            body = (text.len() <= MAX_BODY).then_some(text);
        }
        match sink.commit() {
            Ok(saved) => {
                if let Some(grouping) = head.group.and_then(|group| self.groups.get_mut(&group)) {
                    grouping.files += u64::from(head.kind == ItemKind::File);
                    grouping.bytes += written;
                } else if head.group.is_none() {
                    tracing::debug!(target: super::HOPS, hop = "stored", item = id.0);
                    self.changed.remove(&head.name);
                    self.journal.event(&saved_event(id, &head, saved, body, pending));
                }
                self.answer(Done::Stored { id, result: Ok(written) });
            }
            Err(refusal) => self.refuse(id, &head, &refusal),
        }
    }

    fn commit_group(&mut self, id: ItemId, grouping: Grouping) {
        let Grouping { group, name, files, bytes } = grouping;
        match group.commit() {
            Ok(saved) => {
                self.changed.remove(&name);
                let event = DirEvent {
                    id: id.0,
                    sent_as: sent_as(&name, &saved.name),
                    name: saved.name,
                    files: Some(files),
                    size: Some(bytes),
                    saved_to: saved.path.to_string_lossy().into_owned(),
                };
                self.journal.event(&Event::Dir(event));
                self.answer(Done::Stored { id, result: Ok(bytes) });
            }
            Err(refusal) => self.refuse_named(id, name, wire_refusal(&refusal), Some(&refusal)),
        }
    }

    fn refuse(&mut self, id: ItemId, head: &ItemHead, refusal: &mount::Refusal) {
        self.refuse_as(id, head, wire_refusal(refusal), Some(refusal));
    }

    /// A member that cannot be taken takes its group with it.
    fn refuse_as(&mut self, id: ItemId, head: &ItemHead, reason: Refusal, refusal: Option<&mount::Refusal>) {
        match head.group {
            None => self.refuse_named(id, head.kind.shown(&head.name).into_owned(), reason, refusal),
            Some(group) => {
                if let Some(grouping) = self.groups.remove(&group) {
                    let name = format!("{}/{}", grouping.name, head.name);
                    self.items.retain(|_, writing| writing.head.group != Some(group));
                    self.refuse_named(group, name, reason, refusal);
                }
            }
        }
    }

    fn refuse_named(&mut self, id: ItemId, name: String, reason: Refusal, refusal: Option<&mount::Refusal>) {
        let detail = refusal.map_or_else(|| reason.as_str().to_owned(), ToString::to_string);
        let event = RefusedEvent { by: Side::Myself, id: Some(id.0), name, detail: Some(detail) };
        self.journal.event(&Event::Status(StatusEvent::Refused(event)));
        self.answer(Done::Stored { id, result: Err(reason) });
    }

    /// The session has given the receipt.
    fn drop_item(&mut self, id: ItemId, reason: Refusal) {
        self.items.retain(|_, writing| writing.head.group != Some(id));
        let item = self.items.remove(&id).map(|Writing { head, .. }| {
            let told = head.group.is_none() && head.lane() == Lane::Bulk;
            (head.kind.shown(&head.name).into_owned(), told)
        });
        let name = item.or_else(|| self.groups.remove(&id).map(|grouping| (grouping.name, true)));
        let Some((name, told)) = name else { return };
        let (by, detail) = match reason {
            Refusal::WrongSize | Refusal::BadText => (Side::Myself, reason.as_str()),
            // A text or a member: what is told of is what somebody may be waiting for under its name.
            _ if !told => return,
            Refusal::Changed => {
                if self.changed.len() >= MAX_CHANGED {
                    self.changed.clear();
                }
                if !self.changed.insert(name.clone()) {
                    return;
                }
                (
                    Side::Peer,
                    "it changed while its sender read it; nothing of it was kept, and it is sent again",
                )
            }
            Refusal::Unreadable => {
                (Side::Peer, "its sender could not read it to its end; nothing of it was kept")
            }
            _ => (Side::Peer, "its sender broke off; nothing of it was kept"),
        };
        let name = shortened(&name, MAX_FOREIGN_NAME).into_owned();
        let event = RefusedEvent { by, id: Some(id.0), name, detail: Some(detail.to_owned()) };
        self.journal.event(&Event::Status(StatusEvent::Refused(event)));
    }
}

fn saved_event(
    id: ItemId,
    head: &ItemHead,
    saved: Saved,
    body: Option<String>,
    (pending, pending_more): (Vec<String>, u64),
) -> Event {
    let Saved { path, name, size } = saved;
    let (id, saved_to) = (id.0, path.to_string_lossy().into_owned());
    let sent_as = sent_as(&head.name, &name);
    match head.kind {
        ItemKind::Text => Event::Text(TextEvent { id, size, saved_to, body, pending, pending_more }),
        // A secret is never saved.
        ItemKind::File | ItemKind::Secret => Event::File(FileEvent { id, sent_as, name, size, saved_to }),
        ItemKind::Dir | ItemKind::Group => {
            Event::Dir(DirEvent { id, sent_as, name, files: None, size: None, saved_to })
        }
        // Its name is one that needs no other.
        ItemKind::Ask | ItemKind::Answer => {
            let event = QuestionEvent { id: Some(id), name: head.name.clone(), size, saved_to, body };
            if head.kind == ItemKind::Ask { Event::Ask(event) } else { Event::Answer(event) }
        }
    }
}

/// The name that an item was sent with, where it could not be saved under it.
fn sent_as(sent: &str, saved: &str) -> Option<String> {
    (sent.trim_end_matches('/') != saved).then(|| sent.to_owned())
}

const fn kind(kind: ItemKind) -> Option<mount::Kind> {
    match kind {
        ItemKind::Text => Some(mount::Kind::Text),
        ItemKind::File => Some(mount::Kind::File),
        ItemKind::Dir => Some(mount::Kind::Dir),
        ItemKind::Group => Some(mount::Kind::Group),
        ItemKind::Ask => Some(mount::Kind::Ask),
        ItemKind::Answer => Some(mount::Kind::Answer),
        ItemKind::Secret => None,
    }
}

/// Nanoseconds since 1970 as a time; `None` where the system has no such time.
fn time(nanos: i64) -> Option<SystemTime> {
    let since = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    }
}

const fn wire_refusal(refusal: &mount::Refusal) -> Refusal {
    match refusal {
        mount::Refusal::TooLarge { .. } => Refusal::TooLarge,
        mount::Refusal::NoSpace => Refusal::NoSpace,
        mount::Refusal::NameUsed => Refusal::NameUsed,
        mount::Refusal::NotAsked => Refusal::NotAsked,
        mount::Refusal::BadName => Refusal::BadName,
        mount::Refusal::Closing => Refusal::Closing,
        mount::Refusal::Io(_) => Refusal::StorageFailed,
    }
}
