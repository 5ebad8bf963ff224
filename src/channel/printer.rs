//! Lines on their way to standard output, on a thread of their own.
//!
//! Owns the queue in front of a reader that may be slow, may never read, or may go away. Whoever waits for that reader
//! holds no lock that anybody else needs.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::options::Lines;

/// Lines that wait for a reader of standard output; then the peer's items wait.
const WAITING_LINES: usize = 1024;

#[derive(Default)]
struct Queue {
    /// The first of them may hold the code.
    lines: VecDeque<Zeroizing<String>>,
    /// Nobody waits for room any more: the channel ends, or the reader has gone.
    released: bool,
    /// No line follows.
    complete: bool,
    /// All that will be printed is printed.
    done: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(super) struct Printer {
    shared: Arc<Shared>,
}

impl Printer {
    /// Starts the thread; `unread` is told when nobody reads any more.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn start(lines: Lines, unread: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("events".into()).spawn(move || run(&theirs, lines, unread))?;
        Ok(Self { shared })
    }

    /// Waits until a line more may wait.
    pub(super) fn wait_for_room(&self) {
        let full = |queue: &mut Queue| queue.lines.len() >= WAITING_LINES && !queue.released;
        drop(self.shared.changed.wait_while(self.shared.lock(), full));
    }

    /// Takes a line, whether there is room or not.
    pub(super) fn print(&self, line: String) {
        self.shared.lock().lines.push_back(Zeroizing::new(line));
        self.shared.changed.notify_all();
    }

    /// From now on nobody waits for room.
    pub(super) fn release(&self) {
        self.shared.lock().released = true;
        self.shared.changed.notify_all();
    }

    /// Nothing more comes: waits until the reader has it all, at most for `patience`. `false`: it has not.
    pub(super) fn finish(&self, patience: Duration) -> bool {
        let mut queue = self.shared.lock();
        queue.complete = true;
        self.shared.changed.notify_all();
        let waited = self.shared.changed.wait_timeout_while(queue, patience, |queue| !queue.done);
        waited.unwrap_or_else(PoisonError::into_inner).0.done
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.shared.lock().complete = true;
        self.shared.changed.notify_all();
    }
}

fn run(shared: &Shared, mut lines: Lines, unread: impl FnOnce()) {
    let mut unread = Some(unread);
    let mut failing = false;
    loop {
        let idle = |queue: &mut Queue| queue.lines.is_empty() && !queue.complete;
        let waited = shared.changed.wait_while(shared.lock(), idle);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(line) = queue.lines.pop_front() else { break };
        drop(queue);
        shared.changed.notify_all();
        if unread.is_none() {
            continue;
        }
        match lines(&line) {
            Ok(()) => failing = false,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                shared.lock().released = true;
                shared.changed.notify_all();
                if let Some(unread) = unread.take() {
                    unread();
                }
            }
            // A full disk behind `> events.jsonl` is no reason to end the channel: the log has the line, too.
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "standard output does not take events; they are in inbox/log.jsonl");
                }
            }
        }
    }
    shared.lock().done = true;
    shared.changed.notify_all();
}
