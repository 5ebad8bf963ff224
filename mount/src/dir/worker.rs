//! The mailbox's own thread: takes signs and orders from one queue, looks at the outbox's paths, and does what the
//! state machine asks for. Nothing else reads or changes the state machine.

mod secrets;
/// The directories of ours in the outbox.
mod special;
#[cfg(test)]
mod tests;

use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::layout::{self, Layout};
use super::leave::{Leaver, Moved};
use super::snapshot::{self, Snapshots};
use super::watch::{self, Watch};
use crate::beneath;
use crate::outbox::{self, Action, Answer, MAX_ENTRIES, Node, Outbox, Prepared, Rules, Stat, Ticket};
use crate::prepare::{Preparer, Taken};
use crate::questions::Questions;
use crate::secret::{Secret, SecretName};
use crate::special::Special;
use crate::stream::Word;
use crate::{Content, Ctl, EntryId, LeftOut, OutboxEvent, Outcome, Outlet, SecretNotSent, ignore, name};

/// How long the new name of a moved file may take to arrive after the old one. The kernel tells both in one system
/// call; only a reader that comes in between sees them apart.
const RENAME_GAP: Duration = Duration::from_millis(2);
/// Most bytes of `ctl` that are read, and of a wrong word that is repeated.
const MAX_WORD: usize = 64;

/// What the mailbox's thread is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Something happened in the directory.
    Sign(watch::Sign),
    /// More offers are allowed.
    Allow(usize),
    /// What became of a ticket whose answer took long.
    Prepared(Ticket, Taken),
    /// An offer ended.
    Outcome(EntryId, Outcome),
    /// Send a secret; whether it goes.
    Secret(SecretName, Secret, Sender<Result<(), SecretNotSent>>),
    /// End settling.
    Finish,
    /// Take no secret any more.
    Shut,
    /// Who is still in the outbox.
    Undelivered(usize, Sender<(Vec<String>, usize)>),
    /// An entry changed while it left.
    Back(Moved),
    /// End.
    Stop,
}

/// Everything that the thread owns.
pub(super) struct Worker {
    layout: Arc<Layout>,
    outbox: Outbox,
    questions: Arc<Mutex<Questions>>,
    watch: Watch,
    snapshots: Arc<Snapshots>,
    preparer: Preparer,
    leaver: Leaver,
    /// `None` once nobody listens.
    outlet: Option<Outlet>,
    /// A path that was moved to where is not known yet, the number of its move, and when it counts as gone.
    moved_out: Option<(PathBuf, usize, Instant)>,
    /// Whether it was told that directories cannot be watched.
    unwatched: bool,
    /// The secrets that are sent, by the path that they would have.
    secrets: secrets::Secrets,
}

impl Worker {
    /// Starts to watch. Signs begin to gather at once, in the queue that `orders` feeds.
    pub(super) fn new(
        layout: Arc<Layout>,
        questions: Arc<Mutex<Questions>>,
        outlet: Outlet,
        orders: Sender<Order>,
    ) -> io::Result<Self> {
        let snapshots = Arc::new(Snapshots::new(&layout)?);
        let preparer = {
            let snapshots = Arc::clone(&snapshots);
            let late = orders.clone();
            Preparer::new(
                move |ticket| snapshots.take(ticket),
                // After the thread's end there is nothing to be done any more.
                move |ticket, taken| drop(late.send(Order::Prepared(ticket, taken))),
            )
        };
        let leaver = Leaver::new(layout.outbox.try_clone()?, layout.leaving.try_clone()?, orders.clone())?;
        let mut watch = Watch::new(orders)?;
        for name in [layout::OUTBOX, layout::CTL, layout::FLUSH] {
            watch.add(&layout.path.join(name))?;
        }
        for special in Special::ALL {
            watch.add(&layout.path.join(layout::OUTBOX).join(special.as_str()))?;
        }
        let outbox = Outbox::new(Rules::DIR);
        Ok(Self {
            layout,
            outbox,
            questions,
            watch,
            snapshots,
            preparer,
            leaver,
            outlet: Some(outlet),
            moved_out: None,
            unwatched: false,
            secrets: secrets::Secrets::default(),
        })
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            self.act();
            let gap = self.moved_out.as_ref().map(|(_, _, until)| *until);
            let order = match self.outbox.deadline().into_iter().chain(gap).min() {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match order {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {
                    if gap.is_some_and(|until| until <= Instant::now()) {
                        self.end_of_move();
                    }
                }
            }
        }
        self.end_flushes();
    }

    /// Answers every flush, also those whose sign did not arrive in time.
    fn end_flushes(&mut self) {
        let requests = beneath::open_dir(&self.layout.channel, layout::FLUSH).map_err(io::Error::from);
        for name in requests.and_then(beneath::names).into_iter().flatten().filter_map(Result::ok) {
            let path =
                self.layout.path.join(layout::FLUSH).join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let is_new = std::fs::symlink_metadata(&path).is_ok_and(|found| found.len() == 0);
            if let Some(token) =
                self.flush_token(&path).filter(|token| is_new && !self.outbox.is_flushing(token))
            {
                self.flush(token);
            }
        }
        while let Some(answer) = self.outbox.next_answer() {
            self.answer(&answer);
        }
        for answer in self.outbox.abandon_flushes("the channel closed before it was stored") {
            self.answer(&answer);
        }
        self.snapshots.streams().end();
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Sign(sign) => {
                self.watch.took(&sign);
                self.heed(sign);
            }
            Order::Allow(offers) => self.outbox.allow(offers),
            Order::Prepared(ticket, taken) => self.prepared(&ticket, taken),
            Order::Outcome(entry, outcome) => {
                let word = Word::from(&outcome);
                self.question_ended(entry, &outcome);
                self.outbox.outcome(entry, outcome, now);
                // Its name is free before its writer knows.
                self.act();
                self.snapshots.streams().tell(entry, &word);
            }
            Order::Secret(name, secret, reply) => {
                // Who asked may have given up.
                let _ = reply.send(self.send_secret(&name, secret));
            }
            Order::Finish => {
                // What was complete before must be known, whether its signs are here yet or not.
                self.scan_all();
                self.outbox.finish(Instant::now());
            }
            Order::Shut => self.secrets.shut(),
            Order::Undelivered(most, reply) => {
                self.scan_all();
                // Who asked may have given up.
                let _ = reply.send(self.outbox.undelivered(most));
            }
            Order::Back(moved) => self.put_back(&moved),
            Order::Stop => {}
        }
    }

    fn emit(&mut self, event: OutboxEvent) {
        if let Some(outlet) = &mut self.outlet
            && !outlet(event)
        {
            self.outlet = None;
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.outbox.next(Instant::now()) {
            match action {
                Action::Prepare(ticket) => {
                    let secret = self.prepare_secret(&ticket);
                    if let Some(taken) = secret.or_else(|| self.preparer.prepare(&ticket)) {
                        self.prepared(&ticket, taken);
                    }
                }
                Action::Withdraw(entry) => {
                    self.snapshots.streams().tell(entry, &Word::Cancelled);
                    self.emit(OutboxEvent::Withdraw { entry });
                }
                Action::LeftOut(left_out) => self.emit(OutboxEvent::LeftOut(left_out)),
                Action::Resolved(name) => self.emit(OutboxEvent::Resolved { name }),
                Action::Leave(leaving) => {
                    let path = Arc::clone(&leaving.path);
                    if self.forget_secret(&path) || self.leaver.take(leaving) {
                        self.outbox.left(&path, Instant::now());
                    } else {
                        self.outbox.stays(&path, Instant::now());
                        self.look(Path::new(&*path), outbox::Sign::Seen);
                    }
                }
                Action::Answer(answer) => self.answer(&answer),
                Action::Rescan => self.scan_all(),
                Action::Idle => self.emit(OutboxEvent::Idle),
            }
        }
    }

    fn prepared(&mut self, ticket: &Ticket, taken: Taken) {
        if !self.outbox.is_preparing(ticket) {
            // It was changed or removed meanwhile.
            return self.snapshots.streams().tell(ticket.entry, &Word::Cancelled);
        }
        let is_once = self.snapshots.streams().has(ticket.entry) || self.secrets.has(&ticket.path);
        let taken = taken.and_then(|taken| self.address(ticket, taken));
        let result = match taken {
            Ok((offer, identity)) => {
                let bytes = match &offer.content {
                    Content::Whole(bytes) if snapshot::is_fresh(identity) => Some(bytes.clone()),
                    _ => None,
                };
                self.emit(OutboxEvent::Offer(offer));
                // After it went: a text does not wait for this.
                Prepared::Offered { identity, mark: bytes.map(|bytes| snapshot::fingerprint(&bytes)) }
            }
            Err(why) => why,
        };
        self.outbox.prepared(ticket, result, Instant::now());
        if is_once {
            self.outbox.only_once(ticket.entry);
        }
    }

    /// A sign is a hint where to look. The paths of `ctl` and of flush requests have a meaning of their own.
    fn heed(&mut self, sign: watch::Sign) {
        use watch::Sign;
        if let Some((from, number, _)) = &self.moved_out {
            if let Sign::MovedIn(to, Some(cookie)) = &sign
                && cookie == number
            {
                let (from, to) = (from.clone(), to.clone());
                self.moved_out = None;
                return self.renamed(&from, &to);
            }
            self.end_of_move();
        }
        match sign {
            Sign::Seen(path) => self.met(&path, outbox::Sign::Seen),
            Sign::Closed(path) | Sign::MovedIn(path, _) => self.met(&path, outbox::Sign::Complete),
            Sign::MovedOut(path, Some(number)) => {
                self.moved_out = Some((path, number, Instant::now() + RENAME_GAP));
            }
            Sign::MovedOut(path, None) | Sign::Gone(path) => self.gone(&path),
            Sign::Overflow => self.scan_all(),
            Sign::Failed(error) => self.emit(OutboxEvent::Failed(error)),
        }
    }

    fn met(&mut self, path: &Path, sign: outbox::Sign) {
        if let Some(path) = self.in_outbox(path) {
            self.look(&path, sign);
        } else if let Some(token) = self.flush_token(path) {
            if sign == outbox::Sign::Seen {
                self.flush(token);
            }
        } else if path == self.layout.path.join(layout::CTL) {
            self.read_ctl();
        }
    }

    fn gone(&mut self, path: &Path) {
        if let Some(path) = self.in_outbox(path) {
            if secrets::is_there(&path) {
                return self.look_at_secrets();
            }
            let key = key(&path);
            let known = self.outbox.known(&key);
            let is_known = |(kind, identity)| known.is_some() && known == stat(kind, identity);
            let found = find(&self.layout, &path);
            if found.is_ok_and(is_known) {
                return;
            }
            self.outbox.gone(&key, Instant::now());
            if found.is_ok() {
                self.look(&path, outbox::Sign::Seen);
            }
            self.keep_special(&path);
        } else if let Some(token) = self.flush_token(path) {
            self.outbox.forget_flush(&token);
        } else if path == self.layout.path.join(layout::CTL) {
            self.read_ctl();
        }
    }

    fn renamed(&mut self, from: &Path, to: &Path) {
        match (self.in_outbox(from), self.in_outbox(to)) {
            (Some(from), Some(to)) if !secrets::is_there(&from) && !secrets::is_there(&to) => {
                self.outbox.renamed(&key(&from), &key(&to), Instant::now());
                self.look(&to, outbox::Sign::Complete);
                self.keep_special(&from);
            }
            _ => {
                self.gone(from);
                self.met(to, outbox::Sign::Complete);
            }
        }
    }

    /// The new name of what was moved did not arrive: it left what is watched.
    fn end_of_move(&mut self) {
        if let Some((path, _, _)) = self.moved_out.take() {
            self.gone(&path);
        }
    }

    /// Looks at a path relative to the outbox, and below it where it is a directory that is sent.
    fn look(&mut self, path: &Path, sign: outbox::Sign) {
        if let Some(dir) = self.look_at(path, sign) {
            self.scan(dir);
        }
    }

    /// Looks at one path; returns it where it is a directory to be scanned.
    fn look_at(&mut self, path: &Path, sign: outbox::Sign) -> Option<PathBuf> {
        let now = Instant::now();
        if secrets::is_there(path) {
            self.look_at_secrets();
            return None;
        }
        let name = match name::own(path) {
            Ok(name) => name,
            Err(error) => {
                self.outbox.leave_out(&key(path), error.to_string().into(), now);
                return None;
            }
        };
        let (kind, identity) = match find(&self.layout, path) {
            Ok(found) => found,
            Err(_) => {
                self.outbox.gone(&name, now);
                return None;
            }
        };
        if let Some(verdict) = self.look_at_special(&name, kind) {
            return verdict.then(|| path.to_owned());
        }
        if kind == FileType::Symlink && name.contains('/') && ignore::path(&name).is_none() {
            self.outbox.leave_out(&name, crate::reference::INSIDE.into(), now);
            return None;
        }
        let Some(stat) = stat(kind, identity) else {
            let reason = ignore::path(&name).unwrap_or("devices, FIFOs and sockets cannot be sent");
            self.outbox.leave_out(&name, reason.into(), now);
            return None;
        };
        if self.is_written_over(&name, stat.identity, sign) {
            return None;
        }
        if sign == outbox::Sign::Complete
            && let Some((offered, mark)) = self.outbox.mark(&name)
            && offered == identity
            && self.snapshots.fingerprint(&name).is_some_and(|now| now != mark)
        {
            self.outbox.doubt(&name);
        }
        let sent = self.outbox.touch(&name, stat, sign, now);
        (sent && stat.node == Node::Dir).then(|| path.to_owned())
    }

    /// Watches directories, each before it is read, so that nothing falls between.
    fn scan(&mut self, dir: PathBuf) {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            if let Err(error) = self.watch.add(&self.layout.path.join(layout::OUTBOX).join(&dir))
                && error.kind() != io::ErrorKind::NotFound
                && !std::mem::replace(&mut self.unwatched, true)
            {
                let reason = format!("changes in it are not noticed: {error}");
                self.emit(OutboxEvent::LeftOut(LeftOut { name: name::escape(&dir), reason }));
            }
            match self.members(&dir) {
                Ok(members) => {
                    todo.extend(members.iter().filter_map(|path| self.look_at(path, outbox::Sign::Seen)));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    let reason = format!("it cannot be read: {}", io::Error::from(error));
                    self.outbox.leave_out(&key(&dir), reason.into(), Instant::now());
                }
            }
        }
    }

    /// The paths in a directory, oldest first: texts that are found together go in the order they were written.
    fn members(&self, dir: &Path) -> Result<Vec<PathBuf>, Errno> {
        let opened = match dir.to_str() {
            Some("") => rustix::io::dup(&self.layout.outbox)?,
            Some(dir) => beneath::open_dir_at(&self.layout.outbox, dir)?,
            None => return Err(Errno::NOENT),
        };
        let names =
            beneath::names(&opened).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let mut found: Vec<_> = names
            .filter_map(Result::ok)
            .take(MAX_ENTRIES + 1)
            .map(|name| {
                let path = dir.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                let mtime = find(&self.layout, &path).map_or((0, 0), |(_, identity)| identity.mtime);
                (mtime, path)
            })
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// Looks at everything: what is there, and what is known and is not there any more.
    fn scan_all(&mut self) {
        self.scan(PathBuf::new());
        for path in self.outbox.paths() {
            let gone = !path.contains('\0')
                && !self.secrets.has(&path)
                && matches!(beneath::look(&self.layout.outbox, &path), Err(Errno::NOENT | Errno::NOTDIR));
            if gone {
                self.outbox.gone(&path, Instant::now());
            }
        }
    }

    fn put_back(&mut self, moved: &Moved) {
        let path = &moved.leaving.path;
        // `message-2` would be no text; `message-2.msg` is.
        let other = if &**path == "message" { "message.msg" } else { path };
        let others = (2..crate::inbox::MAX_TRIES).map(|number| name::numbered(other, number));
        let Some(name) = self.leaver.put_back(moved, others) else { return };
        if *name == **path {
            self.outbox.restored(&moved.leaving.members, Instant::now());
        }
        self.look(Path::new(&name), outbox::Sign::Complete);
    }

    fn flush(&mut self, token: String) {
        // What was complete before the request was made must be known, whatever became of its signs.
        self.scan_all();
        let snapshots = &self.snapshots;
        if !self.outbox.flush(token.clone(), &mut |path| snapshots.is_open(path)) {
            let mut answer = Answer::new(token);
            answer.fail("", "too many wait already; try again later");
            self.answer(&answer);
        }
    }

    /// Writes an answer into its request, with one write. Who asked may be gone.
    fn answer(&self, answer: &Answer) {
        let line = serde_json::json!({ "failed_count": answer.failed_count, "failed": answer.failed });
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = format!("{}/{}", layout::FLUSH, answer.token);
        if let Ok(file) = rustix::fs::openat(&self.layout.channel, path, flags, Mode::empty()) {
            let _ = std::fs::File::from(file).write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Takes the word in `ctl` and empties it; makes it anew where it was removed or replaced.
    fn read_ctl(&mut self) {
        let channel = &self.layout.channel;
        // Usually it is there. Whoever is quicker to make it gets its watch all the same.
        let _ = layout::write_new(channel, layout::CTL, "");
        // Before it is read: what is written later has a sign of its own.
        let _ = self.watch.add(&self.layout.path.join(layout::CTL));
        // For reading only: closing what was opened for writing is a sign, for which this would be read again.
        let Ok(file) = beneath::open_file(channel, layout::CTL) else { return };
        let mut bytes = Vec::new();
        let read = std::fs::File::from(file).take(MAX_WORD as u64).read_to_end(&mut bytes);
        if read.is_err() || bytes.is_empty() || layout::empty(channel, layout::CTL).is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        let words: Vec<_> = text.split_whitespace().collect();
        self.emit(match words[..] {
            ["close"] => OutboxEvent::Ctl(Ctl::Close),
            ["close", "now"] => OutboxEvent::Ctl(Ctl::CloseNow),
            _ => OutboxEvent::LeftOut(LeftOut {
                name: layout::CTL.to_owned(),
                reason: format!("{:?} is no word for it; write `close` or `close now`", words.join(" ")),
            }),
        });
    }

    fn in_outbox(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.layout.path).ok()?.strip_prefix(layout::OUTBOX).ok()?;
        (!below.as_os_str().is_empty()).then(|| below.to_owned())
    }

    fn flush_token(&self, path: &Path) -> Option<String> {
        let below = path.strip_prefix(&self.layout.path).ok()?.strip_prefix(layout::FLUSH).ok()?;
        let token = below.to_str()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (!token.is_empty() && token.len() <= MAX_WORD && token.bytes().all(plain)).then(|| token.to_owned())
    }
}

fn find(layout: &Layout, path: &Path) -> Result<(FileType, outbox::Identity), Errno> {
    let stat = rustix::fs::statat(&layout.outbox, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((FileType::from_raw_mode(stat.st_mode), beneath::identity(&stat)))
}

fn stat(kind: FileType, identity: outbox::Identity) -> Option<Stat> {
    let node = match kind {
        FileType::RegularFile => Node::File,
        FileType::Directory => Node::Dir,
        FileType::Symlink => Node::Link,
        _ => return None,
    };
    Some(Stat { node, identity })
}

/// What a path is known as. A name that cannot be sent gets a NUL, which no path has, so that it cannot be taken for
/// another.
fn key(path: &Path) -> String {
    name::own(path).unwrap_or_else(|error| {
        let escaped = error.name();
        match escaped.rsplit_once('/') {
            Some((parent, last)) => format!("{parent}/\0{last}"),
            None => format!("\0{escaped}"),
        }
    })
}
