//! The channel's event lines: numbered, timed, written to the log, the transcript and standard output, in one order.
//!
//! Owns the numbers, the rate limit on what a peer can make the log say, and the log's rotation. What a line looks
//! like is `event`'s business. Called from the store's threads; the driver never waits for it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::Mailbox;

use super::options::Lines;
use crate::event::{Event, Sent, Stamp, StatusEvent};

/// The log is rotated beyond this many bytes.
const MAX_LOG: u64 = 8 * 1024 * 1024;
/// The log is rotated this long after its last line, so that a reader has it.
const SETTLED: Duration = Duration::from_secs(2);
/// Events of the peer that may come at once: twice the files of a fair source tree.
const BURST: u32 = 8192;
/// Events of the peer that may come in a second, in the long run.
const BURST_REFILL: u32 = 100;
/// Lines that wait for a reader of standard output; then the peer's items wait.
const WAITING_LINES: usize = 1024;

struct Inner {
    seq: u64,
    /// Events of the peer that may still come before some are counted only.
    tokens: u32,
    refilled: Instant,
    burst: u64,
    log_size: u64,
    last_line: Instant,
    out: Option<SyncSender<String>>,
    printer: Option<JoinHandle<()>>,
}

/// See the module.
pub(super) struct Journal {
    mailbox: Arc<dyn Mailbox>,
    inner: Mutex<Inner>,
}

impl Journal {
    /// A journal whose lines go to `lines` too; `unread` is told when nobody reads those any more.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn new(
        mailbox: Arc<dyn Mailbox>,
        lines: Lines,
        unread: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (out, queue) = sync_channel(WAITING_LINES);
        let printer =
            std::thread::Builder::new().name("events".into()).spawn(move || print(lines, &queue, unread))?;
        let now = Instant::now();
        let inner = Inner {
            seq: 0,
            tokens: BURST,
            refilled: now,
            burst: 0,
            log_size: 0,
            last_line: now,
            out: Some(out),
            printer: Some(printer),
        };
        Ok(Self { mailbox, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last line.
    pub(super) fn last_seq(&self) -> u64 {
        self.lock().seq
    }

    /// Writes an event everywhere.
    pub(super) fn event(&self, event: &Event) {
        let mut inner = self.lock();
        let by_peer = !matches!(event, Event::Status(status) if !matches!(status, StatusEvent::Refused(_)));
        if by_peer && !inner.spend() {
            return;
        }
        self.rotate_if_due(&mut inner);
        if by_peer {
            self.tell_burst(&mut inner);
        }
        self.write(&mut inner, event);
    }

    /// Writes what this side sent into the transcript.
    pub(super) fn sent(&self, sent: &Sent) {
        let mut inner = self.lock();
        inner.seq += 1;
        let line = sent.to_line(Stamp { seq: inner.seq, at: SystemTime::now() });
        self.check(self.mailbox.append_transcript(&line));
    }

    /// Whether [`Journal::tick`] has something to wait for.
    pub(super) fn is_waiting(&self) -> bool {
        let inner = self.lock();
        inner.burst > 0 || inner.log_size > MAX_LOG
    }

    /// Does what time has come for.
    pub(super) fn tick(&self) {
        let mut inner = self.lock();
        self.rotate_if_due(&mut inner);
        if inner.burst > 0 && inner.spend() {
            self.tell_burst(&mut inner);
        }
    }

    /// Ends standard output: waits for its reader, at most as long as the reader takes for what is there.
    pub(super) fn finish(&self) {
        let printer = {
            let mut inner = self.lock();
            self.tell_burst(&mut inner);
            inner.out = None;
            inner.printer.take()
        };
        if let Some(printer) = printer {
            // A panic of the printer was reported by its own hook.
            let _ = printer.join();
        }
    }

    fn tell_burst(&self, inner: &mut Inner) {
        let count = std::mem::take(&mut inner.burst);
        if count > 0 {
            self.write(inner, &Event::Status(StatusEvent::Burst { count }));
        }
    }

    fn write(&self, inner: &mut Inner, event: &Event) {
        inner.seq += 1;
        let stamp = Stamp { seq: inner.seq, at: SystemTime::now() };
        let line = event.to_log_line(stamp);
        match self.mailbox.append_log(&line) {
            Ok(size) => inner.log_size = size,
            failed @ Err(_) => self.check(failed.map(drop)),
        }
        self.check(self.mailbox.append_transcript(&line));
        inner.last_line = Instant::now();
        if let Some(out) = &inner.out {
            // A printer that has ended has told the driver.
            let _ = out.send(event.to_line(stamp));
        }
    }

    fn rotate_if_due(&self, inner: &mut Inner) {
        if inner.log_size <= MAX_LOG || inner.last_line.elapsed() < SETTLED {
            return;
        }
        inner.seq += 1;
        let stamp = Stamp { seq: inner.seq, at: SystemTime::now() };
        let line = Event::Status(StatusEvent::Rotated).to_log_line(stamp);
        self.check(self.mailbox.rotate_log(&line));
        inner.log_size = line.len() as u64;
    }

    /// A log that cannot be written is no reason to lose an item: standard output still tells of it.
    fn check(&self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(%error, "an event could not be written into the mailbox");
        }
    }
}

impl Inner {
    /// Takes a token; without one the event is counted.
    fn spend(&mut self) -> bool {
        let refill = self.refilled.elapsed().as_secs_f64() * f64::from(BURST_REFILL);
        if refill >= 1.0 {
            self.tokens = BURST.min(self.tokens.saturating_add(refill as u32));
            self.refilled = Instant::now();
        }
        if self.tokens == 0 {
            self.burst += 1;
            return false;
        }
        self.tokens -= 1;
        true
    }
}

fn print(mut lines: Lines, queue: &Receiver<String>, unread: impl FnOnce()) {
    let mut unread = Some(unread);
    while let Ok(line) = queue.recv() {
        if unread.is_some()
            && lines(&line).is_err()
            && let Some(unread) = unread.take()
        {
            unread();
        }
    }
}
