//! The channel's event lines: numbered, timed, written to the log, the transcript and standard output, in one order.
//!
//! Owns the numbers, the rate limit on what a peer can make the log say, and the log's rotation. What a line looks
//! like is `event`'s business. Called from the store's threads; the driver never waits for it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::Mailbox;

use super::options::Lines;
use super::printer::Printer;
use crate::event::{Event, Sent, Stamp, StatusEvent};

/// The log is rotated beyond this many bytes, once it is quiet; beyond twice as many at once.
const MAX_LOG: u64 = 8 * 1024 * 1024;
/// A quiet log has had no line for this long: a reader has it all.
const SETTLED: Duration = Duration::from_secs(2);
/// The transcript takes no more beyond this many bytes: at 50 KB a second, the most that a peer can cause in the long
/// run, it would fill a disk in a day.
const MAX_TRANSCRIPT: u64 = 64 * 1024 * 1024;
/// Events of the peer that may come at once: twice the files of a fair source tree.
const BURST: i64 = 8192;
/// Events of the peer that may come in a second, in the long run.
const BURST_REFILL: f64 = 100.0;
/// Events that answers, which are told whatever there is to spend, may leave as a debt: the next question waits for it, and
/// behind that all that is told on the same lane, so at most two seconds.
const MAX_DEBT: i64 = 200;
/// Bytes of a line that count as one event: a longer line counts as several, so that bytes are bounded, too (4 MiB at
/// once, 50 KB a second).
const EVENT_BYTES: usize = 512;

struct Inner {
    /// Events of the peer that may still come before some are counted only. A long line may leave a debt.
    tokens: i64,
    refilled: Instant,
    burst: u64,
    log_size: u64,
    transcript_size: u64,
    last_line: Instant,
    /// The channel ends: nobody waits any more.
    released: bool,
}

/// See the module.
pub(super) struct Journal {
    mailbox: Arc<dyn Mailbox>,
    printer: Printer,
    /// The number of the last line; changed under the lock, read without it.
    seq: AtomicU64,
    /// The mailbox did not take the last line.
    failing: AtomicBool,
    inner: Mutex<Inner>,
    /// Told when nobody waits any more.
    end: Condvar,
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
        let now = Instant::now();
        let inner = Inner {
            tokens: BURST,
            refilled: now,
            burst: 0,
            log_size: 0,
            transcript_size: 0,
            last_line: now,
            released: false,
        };
        Ok(Self {
            mailbox,
            printer: Printer::start(lines, unread)?,
            seq: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            inner: Mutex::new(inner),
            end: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last line. Never waits.
    pub(super) fn last_seq(&self) -> u64 {
        self.seq.load(Ordering::Relaxed)
    }

    /// Writes an event everywhere. Waits where standard output is not read, and holds up nobody but its caller.
    pub(super) fn event(&self, event: &Event) {
        self.printer.wait_for_room();
        let mut inner = self.lock();
        let by_peer = !matches!(event, Event::Status(status) if !matches!(status, StatusEvent::Refused(_)));
        match event {
            // Whoever waits for it finds its line: there is one for each question that this side asked, and no more.
            Event::Answer(_) => {}
            // So does who waits for a question, which the peer may ask as often as it likes: it waits itself.
            Event::Ask(_) => inner = self.wait_for_token(inner),
            Event::Status(_) | Event::Text(_) | Event::File(_) | Event::Dir(_) | Event::Secret(_) => {
                if by_peer && !inner.may_come() {
                    return;
                }
            }
        }
        self.rotate_if_due(&mut inner);
        // Nothing follows the last line.
        if by_peer || matches!(event, Event::Status(StatusEvent::Closed(_))) {
            self.tell_burst(&mut inner);
        }
        let bytes = self.write(&mut inner, event);
        if by_peer {
            let left = inner.tokens - i64::try_from(bytes.div_ceil(EVENT_BYTES)).unwrap_or(BURST);
            inner.tokens = left.max(-MAX_DEBT);
        }
    }

    /// Waits until one more event of the peer may be told.
    fn wait_for_token<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let (mut inner, each) = (inner, Duration::from_secs_f64(1.0 / BURST_REFILL));
        while inner.refill() <= 0 && !inner.released {
            inner = self.end.wait_timeout(inner, each).unwrap_or_else(PoisonError::into_inner).0;
        }
        inner
    }

    /// Writes what this side sent into the transcript.
    pub(super) fn sent(&self, sent: &Sent) {
        let mut inner = self.lock();
        let line = sent.to_line(self.stamp());
        self.transcribe(&mut inner, &line);
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
        if inner.burst > 0 && inner.refill() > 0 {
            inner.tokens -= 1;
            self.tell_burst(&mut inner);
        }
    }

    /// The channel ends: nobody waits for a reader of standard output or for the time of an event any more.
    pub(super) fn release(&self) {
        self.lock().released = true;
        self.end.notify_all();
        self.printer.release();
    }

    /// Ends standard output: its reader gets what is there, if it takes it in time.
    pub(super) fn finish(&self, patience: Duration) {
        if !self.printer.finish(patience) {
            tracing::warn!("nobody read the last events on standard output");
        }
    }

    /// Under the lock alone: lines stand in the order of their numbers.
    fn stamp(&self) -> Stamp {
        Stamp { seq: self.seq.fetch_add(1, Ordering::Relaxed) + 1, at: SystemTime::now() }
    }

    fn tell_burst(&self, inner: &mut Inner) {
        let count = std::mem::take(&mut inner.burst);
        if count > 0 {
            self.write(inner, &Event::Status(StatusEvent::Burst { count }));
        }
    }

    /// How long the line was.
    fn write(&self, inner: &mut Inner, event: &Event) -> usize {
        let stamp = self.stamp();
        let line = event.to_log_line(stamp);
        let logged = self.mailbox.append_log(&line);
        if let Ok(size) = logged {
            inner.log_size = size;
        }
        self.check(logged.map(drop));
        self.transcribe(inner, &line);
        inner.last_line = Instant::now();
        self.printer.print(event.to_line(stamp));
        line.len()
    }

    fn transcribe(&self, inner: &mut Inner, line: &str) {
        if inner.transcript_size > MAX_TRANSCRIPT {
            return;
        }
        inner.transcript_size += line.len() as u64 + 1;
        self.check(self.mailbox.append_transcript(line));
        if inner.transcript_size > MAX_TRANSCRIPT {
            let why = format!("transcript.jsonl ends here: it has {MAX_TRANSCRIPT} bytes");
            let last = Event::Status(StatusEvent::Error(Some(why))).to_log_line(self.stamp());
            self.check(self.mailbox.append_transcript(&last));
        }
    }

    fn rotate_if_due(&self, inner: &mut Inner) {
        let quiet = inner.last_line.elapsed() >= SETTLED;
        if inner.log_size <= MAX_LOG || !quiet && inner.log_size <= 2 * MAX_LOG {
            return;
        }
        let line = Event::Status(StatusEvent::Rotated).to_log_line(self.stamp());
        self.check(self.mailbox.rotate_log(&line));
        inner.log_size = line.len() as u64;
    }

    /// A log that cannot be written is no reason to lose an item: standard output still tells of it.
    fn check(&self, written: io::Result<()>) {
        let before = self.failing.swap(written.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (written, before) {
            tracing::warn!(%error, "events cannot be written into the mailbox");
        }
    }
}

impl Inner {
    /// What there is to spend now.
    fn refill(&mut self) -> i64 {
        let refill = self.refilled.elapsed().as_secs_f64() * BURST_REFILL;
        if refill >= 1.0 {
            self.tokens = BURST.min(self.tokens.saturating_add(refill as i64));
            self.refilled = Instant::now();
        }
        self.tokens
    }

    /// Whether an event of the peer may be told; else it is counted.
    fn may_come(&mut self) -> bool {
        let may = self.refill() > 0;
        self.burst += u64::from(!may);
        may
    }
}
