//! The channel's event lines: numbered, timed, written to the log, the transcript and standard output, in one order.
//!
//! Owns the numbers, the rate limit on what a peer can make the log say, and the log's rotation. What a line looks
//! like is `event`'s business. Called from the store's threads; the driver never waits for it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::Mailbox;

use super::options::Lines;
use super::printer::Printer;
use crate::event::{Event, Sent, Stamp, StatusEvent};

/// The log is rotated beyond this many bytes, once it is quiet; beyond twice as many at once.
const MAX_LOG: u64 = 8 * 1024 * 1024;
/// A quiet log has had no line for this long: a reader has it all.
const SETTLED: Duration = Duration::from_secs(2);
/// The transcript takes no more beyond this many bytes: at 50 KB a second, the most that what a peer sends can cause in
/// the long run, it would fill a disk in a day.
const MAX_TRANSCRIPT: u64 = 64 * 1024 * 1024;
/// Events of the peer that may come at once: twice the files of a fair source tree.
const BURST: i64 = 8192;
/// Events of the peer that may come in a second, in the long run.
const BURST_REFILL: f64 = 100.0;
/// Events that answers, which are told whatever there is to spend, may leave as a debt: the next question waits for it, and
/// what the peer sent behind it, so at most two seconds.
const MAX_DEBT: i64 = 200;
/// Bytes of a line that count as one event: a longer line counts as several, so that bytes are bounded, too (4 MiB at
/// once, 50 KB a second).
const EVENT_BYTES: usize = 512;

/// What may still come of one kind of events before some are counted only: [`BURST`] at once.
struct Share {
    /// A long line may leave a debt.
    tokens: i64,
    refilled: Instant,
}

struct Inner {
    /// Of what the peer sends.
    theirs: Share,
    /// Of refusals of what this side sends. The peer may refuse all of that, and no more; and what else it says hides none.
    own: Share,
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
        let share = || Share { tokens: BURST, refilled: now };
        let inner = Inner {
            theirs: share(),
            own: share(),
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
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last line. Never waits.
    pub(super) fn last_seq(&self) -> u64 {
        self.seq.load(Ordering::Relaxed)
    }

    /// Writes an event of what the peer sends everywhere. Waits where standard output is not read, and holds up nobody but
    /// its caller.
    pub(super) fn event(&self, event: &Event) {
        self.tell(event, |inner| &mut inner.theirs);
    }

    /// The same of what this end says.
    pub(super) fn own(&self, status: StatusEvent) {
        self.tell(&Event::Status(status), |inner| &mut inner.own);
    }

    fn tell(&self, event: &Event, share: fn(&mut Inner) -> &mut Share) {
        self.printer.wait_for_room();
        let mut inner = self.lock();
        let counts = !matches!(event, Event::Status(status) if !matches!(status, StatusEvent::Refused(_)));
        // Whoever waits for an answer finds its line: there is one for each question that this side asked, and no more. So
        // does who waits for a question, which the peer may ask as often as it likes: it has waited itself.
        let always = !counts || matches!(event, Event::Answer(_) | Event::Ask(_));
        if !always && share(&mut inner).refill() <= 0 {
            inner.burst += 1;
            return;
        }
        self.rotate_if_due(&mut inner);
        // Nothing follows the last line.
        if counts || matches!(event, Event::Status(StatusEvent::Closed(_))) {
            self.tell_burst(&mut inner);
        }
        let bytes = self.write(&mut inner, event);
        if counts {
            share(&mut inner).spend(bytes);
        }
    }

    /// Whether a question of the peer's may be told: it is never left out, and whoever tells it waits for that.
    pub(super) fn may_ask(&self) -> bool {
        let mut inner = self.lock();
        inner.released || inner.theirs.refill() > 0
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
        if inner.burst > 0 && inner.theirs.refill() > 0 {
            inner.theirs.tokens -= 1;
            self.tell_burst(&mut inner);
        }
    }

    /// The channel ends: nobody waits for a reader of standard output or for the time of an event any more.
    pub(super) fn release(&self) {
        self.lock().released = true;
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

impl Share {
    /// What there is to spend now.
    fn refill(&mut self) -> i64 {
        let refill = self.refilled.elapsed().as_secs_f64() * BURST_REFILL;
        if refill >= 1.0 {
            self.tokens = BURST.min(self.tokens.saturating_add(refill as i64));
            self.refilled = Instant::now();
        }
        self.tokens
    }

    /// A line of so many bytes was written.
    fn spend(&mut self, bytes: usize) {
        let left = self.tokens - i64::try_from(bytes.div_ceil(EVENT_BYTES)).unwrap_or(BURST);
        self.tokens = left.max(-MAX_DEBT);
    }
}
