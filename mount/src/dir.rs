//! The dir back end: a real directory of mode 0700, watched with `notify`.
//!
//! Owns the channel's directory from its making to its removal, one thread for the outbox, and one that removes what
//! was delivered. What it decides, it decides in [`crate::outbox`] and [`crate::inbox`].

mod inbox;
mod journal;
pub(crate) mod layout;
mod lease;
mod leave;
mod snapshot;
mod watch;
mod worker;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

pub use layout::at_rest;

pub use crate::place::OpenError;

use crate::secret::{Secret, SecretName};
use crate::{
    Backend, EntryId, Group, Incoming, Mailbox, Outcome, Outlet, Refusal, SecretNotSent, Sink, ignore,
};
use inbox::Inbox;
use journal::Journal;
use layout::Layout;
use worker::{Order, Worker};

/// Renames a path and never replaces: EEXIST where the new one is taken.
pub(crate) fn rename_new(old: &Path, new: &Path) -> Result<(), rustix::io::Errno> {
    crate::beneath::rename_new(rustix::fs::CWD, old, rustix::fs::CWD, new)
}

/// How a mailbox is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The channel's directory: made if it is missing, with the directories above it; taken if it is ours and empty.
    pub path: PathBuf,
    /// Most bytes that the inbox may hold. `None`: the free space of the disk less a reserve (a tenth of it, at most
    /// 1 GiB), and at most 16 GiB.
    pub inbox_limit: Option<u64>,
}

impl Options {
    /// A mailbox at a path, with the limits of the disk.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, inbox_limit: None }
    }
}

/// A channel's mailbox in a real directory. Dropping it is closing it.
pub struct DirMailbox {
    layout: Arc<Layout>,
    at_rest: &'static str,
    inbox: Arc<Inbox>,
    journal: Mutex<Journal>,
    orders: Sender<Order>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl DirMailbox {
    /// Makes the directory and begins to watch its outbox; `outlet` is called on the mailbox's own thread. No entry is
    /// offered before [`Mailbox::allow`].
    ///
    /// # Errors
    /// [`OpenError`]; then nothing is left of it.
    pub fn open(options: &Options, outlet: Outlet) -> Result<Self, OpenError> {
        let layout = Arc::new(Layout::create(&options.path)?);
        Self::start(&layout, options, outlet).map_err(|error| {
            // It is ours and empty.
            let _ = layout.remove();
            OpenError::io(&options.path, error)
        })
    }

    fn start(layout: &Arc<Layout>, options: &Options, outlet: Outlet) -> io::Result<Self> {
        let limit = match options.inbox_limit {
            Some(limit) => limit,
            None => layout.default_limit()?,
        };
        let journal = Journal::new(layout)?;
        let (orders, queue) = mpsc::channel();
        let questions = Arc::new(Mutex::default());
        let worker = Worker::new(Arc::clone(layout), Arc::clone(&questions), outlet, orders.clone())?;
        let thread = thread::Builder::new().name("mailbox".to_owned()).spawn(move || worker.run(&queue))?;
        Ok(Self {
            at_rest: at_rest(&layout.path)?,
            inbox: Arc::new(Inbox::new(Arc::clone(layout), limit, questions)),
            journal: Mutex::new(journal),
            orders,
            worker: Mutex::new(Some(thread)),
            layout: Arc::clone(layout),
        })
    }

    /// Gives an order to the thread. After its end there is nothing to be done any more.
    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DirMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirMailbox").field("path", &self.layout.path).finish_non_exhaustive()
    }
}

impl Mailbox for DirMailbox {
    fn path(&self) -> &Path {
        &self.layout.path
    }

    fn backend(&self) -> Backend {
        Backend::Dir
    }

    fn at_rest(&self) -> &str {
        self.at_rest
    }

    fn allow(&self, offers: usize) {
        self.order(Order::Allow(offers));
    }

    fn settle(&self, entry: EntryId, outcome: Outcome) {
        self.order(Order::Outcome(entry, outcome));
    }

    fn shut(&self) {
        self.order(Order::Shut);
    }

    fn undelivered(&self, most: usize) -> (Vec<String>, usize) {
        let (reply, answer) = mpsc::channel();
        self.order(Order::Undelivered(most, reply));
        answer.recv().unwrap_or_default()
    }

    fn send_secret(&self, name: SecretName, secret: Secret) -> Result<(), SecretNotSent> {
        if secret.is_empty() {
            return Err(SecretNotSent::Empty);
        }
        if ignore::path(name.as_str()).is_some() {
            return Err(SecretNotSent::BadName);
        }
        let (reply, answer) = mpsc::channel();
        self.order(Order::Secret(name, secret, reply));
        answer.recv().unwrap_or(Err(SecretNotSent::Closing))
    }

    fn finish(&self) {
        self.order(Order::Finish);
    }

    fn receive(&self, head: &Incoming<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.inbox.receive(head)
    }

    fn receive_group(&self, head: &Incoming<'_>) -> Result<Box<dyn Group>, Refusal> {
        self.inbox.receive_group(head)
    }

    fn append_log(&self, line: &str) -> io::Result<u64> {
        self.journal().append_log(line)
    }

    fn rotate_log(&self, first_line: &str) -> io::Result<()> {
        self.journal().rotate_log(first_line)
    }

    fn append_transcript(&self, line: &str) -> io::Result<()> {
        self.journal().append_transcript(line)
    }

    fn write_status(&self, json: &str) -> io::Result<()> {
        self.journal().write_status(json)
    }

    fn close(&self) -> io::Result<()> {
        self.inbox.close();
        let Some(thread) = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        self.order(Order::Stop);
        // The outlet runs on that thread and may be the one that closes.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
        self.layout.remove()
    }
}

impl Drop for DirMailbox {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the channel's directory cannot be removed");
        }
    }
}
