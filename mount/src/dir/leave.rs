//! Entries leave the outbox: moved out with one rename, looked at once more, and only then removed.
//!
//! A writer may have opened the file just before it was moved: what it writes then would be lost. So everything rests
//! outside for a moment, where nobody can open it any more, and comes back if it changed or is being written.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use super::lease;
use super::worker::Order;
use crate::beneath;
use crate::outbox::{Leaving, Node, Stat};
use crate::removal;

/// How long an entry rests outside before it is removed: much longer than an open takes between finding the file and
/// having it.
const REST: Duration = Duration::from_millis(100);

/// An entry that was moved out.
#[derive(Debug)]
pub(super) struct Moved {
    /// Its name among those that rest.
    pub(super) hidden: String,
    /// What was delivered of it.
    pub(super) leaving: Leaving,
    since: Instant,
}

/// Moves entries out of the outbox, and removes them on a thread of its own.
pub(super) struct Leaver {
    outbox: OwnedFd,
    resting: OwnedFd,
    last: u64,
    sweeper: Option<(Sender<Moved>, JoinHandle<()>)>,
}

impl Leaver {
    /// What changed goes back to the mailbox's thread by `orders`.
    pub(super) fn new(outbox: OwnedFd, resting: OwnedFd, orders: Sender<Order>) -> io::Result<Self> {
        let (moved, arrivals) = channel();
        let sweeper = Sweeper { resting: resting.try_clone()?, orders };
        let thread =
            thread::Builder::new().name("mailbox-sweep".to_owned()).spawn(move || sweeper.run(&arrivals))?;
        Ok(Self { outbox, resting, last: 0, sweeper: Some((moved, thread)) })
    }

    /// Moves an entry out if it is what was delivered. `false` where it stays.
    pub(super) fn take(&mut self, leaving: Leaving) -> bool {
        let Some((_, expected)) = leaving.members.first() else { return false };
        let Ok((kind, identity)) = beneath::look(&self.outbox, &leaving.path) else { return false };
        if !is_same(kind, identity, *expected) {
            return false;
        }
        self.last += 1;
        let hidden = self.last.to_string();
        if rustix::fs::renameat(&self.outbox, &*leaving.path, &self.resting, &*hidden).is_err() {
            return false;
        }
        if let Some((moved, _)) = &self.sweeper {
            // Without a sweeper it goes with the directory.
            let _ = moved.send(Moved { hidden, leaving, since: Instant::now() });
        }
        true
    }

    /// Puts an entry back under its name, or where that is taken under the first of `others` that is free.
    pub(super) fn put_back(&self, moved: &Moved, others: impl Iterator<Item = String>) -> Option<String> {
        for name in std::iter::once(moved.leaving.path.to_string()).chain(others) {
            match beneath::rename_new(&self.resting, &*moved.hidden, &self.outbox, &*name) {
                Ok(()) => return Some(name),
                Err(rustix::io::Errno::EXIST) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        if let Some((moved, thread)) = self.sweeper.take() {
            drop(moved);
            let _ = thread.join();
        }
    }
}

/// The thread that removes.
struct Sweeper {
    resting: OwnedFd,
    orders: Sender<Order>,
}

impl Sweeper {
    fn run(&self, arrivals: &Receiver<Moved>) {
        let mut resting: VecDeque<Moved> = VecDeque::new();
        loop {
            let due = resting.front().map(|moved| moved.since + REST);
            let arrived = match due {
                None => arrivals.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => arrivals.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match arrived {
                Ok(moved) => resting.push_back(moved),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(moved) = resting.pop_front() {
                        self.finish(moved);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn finish(&self, moved: Moved) {
        if !self.is_unchanged(&moved) {
            let _ = self.orders.send(Order::Back(moved));
            return;
        }
        if let Err(error) = removal::remove(&self.resting, &moved.hidden) {
            tracing::debug!(%error, "a delivered entry cannot be removed; it goes with the channel");
        }
    }

    /// Whether everything is there as it was delivered, nothing more, and nobody is writing any of it.
    fn is_unchanged(&self, moved: &Moved) -> bool {
        let top = moved.leaving.path.len();
        let inside = |path: &Arc<str>| format!("{}{}", moved.hidden, &path[top..]);
        let expected: HashMap<String, Stat> =
            moved.leaving.members.iter().map(|(path, stat)| (inside(path), *stat)).collect();
        let mut todo = vec![moved.hidden.clone()];
        while let Some(path) = todo.pop() {
            let Some(stat) = expected.get(&path) else { return false };
            let Ok((kind, identity)) = beneath::look(&self.resting, &path) else { return false };
            if !is_same(kind, identity, *stat) {
                return false;
            }
            match stat.node {
                Node::Link => {}
                Node::File => {
                    let file = beneath::open_file(&self.resting, &path);
                    if file.is_ok_and(|file| lease::nobody_writes(file) == Some(false)) {
                        return false;
                    }
                }
                Node::Dir => {
                    let Ok(dir) = beneath::open_dir_at(&self.resting, &path) else { return false };
                    let Ok(names) = beneath::names(&dir) else { return false };
                    for name in names {
                        let Ok(name) = name.map(std::ffi::CString::into_string) else { return false };
                        let Ok(name) = name else { return false };
                        todo.push(format!("{path}/{name}"));
                    }
                }
            }
        }
        true
    }
}

fn is_same(kind: FileType, identity: crate::outbox::Identity, stat: Stat) -> bool {
    match stat.node {
        Node::File => kind == FileType::RegularFile && identity == stat.identity,
        Node::Link => kind == FileType::Symlink && identity == stat.identity,
        Node::Dir => kind == FileType::Directory && identity.inode == stat.identity.inode,
    }
}
