//! Who waits at `receipt`. A deferred answer watches its caller: the kernel is not told how to interrupt one, so a
//! caller with a signal would wait unkillably. Owns the answers that are not given yet, and the thread that looks after
//! their callers.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::FileError;

/// How often callers are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a caller in another pid namespace, which cannot be looked at, waits at most.
const UNSEEN: Duration = Duration::from_secs(5);
/// Where the kernel says after how many seconds it gives up on a request; 0 is never.
const REQUEST_TIMEOUT: &str = "/proc/sys/fs/fuse/max_request_timeout";

/// How an answer is given.
pub(crate) type Reply = Box<dyn FnOnce(Result<(), FileError>) + Send>;

/// One who waits.
struct Waiting {
    /// Thread of the caller; 0 where it cannot be seen.
    pid: u32,
    until: Instant,
    reply: Reply,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, Waiting>,
    last: u64,
    ended: bool,
}

/// See the module.
pub(crate) struct Receipts {
    state: Mutex<State>,
    changed: Condvar,
    longest: Duration,
}

impl Receipts {
    /// Starts the thread. Nobody waits longer than `longest`, nor than half of what the kernel allows.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(crate) fn start(longest: Duration) -> io::Result<Arc<Self>> {
        let kernel = fs::read_to_string(REQUEST_TIMEOUT).ok();
        let kernel = kernel.and_then(|seconds| seconds.trim().parse().ok()).filter(|seconds| *seconds > 0);
        let longest = kernel.map_or(longest, |seconds| longest.min(Duration::from_secs(seconds) / 2));
        let receipts = Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), longest });
        let watched = Arc::clone(&receipts);
        thread::Builder::new().name("receipts".to_owned()).spawn(move || watched.watch())?;
        Ok(receipts)
    }

    /// Somebody waits; returns its number. After [`Receipts::end`] it is answered at once.
    pub(crate) fn add(&self, pid: u32, reply: Reply) -> Option<u64> {
        let longest = if pid == 0 { UNSEEN.min(self.longest) } else { self.longest };
        let mut state = self.state();
        if state.ended {
            drop(state);
            reply(Err(FileError::Closed));
            return None;
        }
        state.last += 1;
        let number = state.last;
        let now = Instant::now();
        let until = now.checked_add(longest).unwrap_or(now);
        state.waiting.insert(number, Waiting { pid, until, reply });
        self.changed.notify_all();
        Some(number)
    }

    /// Answers one. Unknown numbers are ignored: somebody was quicker.
    pub(crate) fn answer(&self, number: u64, result: Result<(), FileError>) {
        let waiting = self.state().waiting.remove(&number);
        if let Some(waiting) = waiting {
            (waiting.reply)(result);
        }
    }

    /// Whether one still waits.
    pub(crate) fn is_waiting(&self, number: u64) -> bool {
        self.state().waiting.contains_key(&number)
    }

    /// Answers everybody who waits, and whoever comes later: the channel is closed.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        let all: Vec<_> = state.waiting.drain().collect();
        self.changed.notify_all();
        drop(state);
        for (_, waiting) in all {
            (waiting.reply)(Err(FileError::Closed));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.state();
        while !state.ended {
            if state.waiting.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            let over = |waiting: &Waiting| {
                if waiting.until <= now {
                    Some(FileError::TimedOut)
                } else if waiting.pid != 0 && is_interrupted(waiting.pid) {
                    Some(FileError::Interrupted)
                } else {
                    None
                }
            };
            let ends = state.waiting.iter().filter_map(|(number, waiting)| Some((*number, over(waiting)?)));
            for (number, error) in ends.collect::<Vec<_>>() {
                if let Some(waiting) = state.waiting.remove(&number) {
                    (waiting.reply)(Err(error));
                }
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Whether a thread is gone or has a signal that wants to be delivered.
fn is_interrupted(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => wants_signal(&status),
        Err(error) => error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH),
    }
}

/// The same, from the text of `/proc/PID/status` (proc_pid_status(5)).
fn wants_signal(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mask = |name: &str| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    if field("State:").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return true;
    }
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    pending & !mask("SigBlk:") & !mask("SigIgn:") != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::mpsc;

    fn reply() -> (Reply, mpsc::Receiver<Result<(), FileError>>) {
        let (told, result) = mpsc::channel();
        let reply = move |result| {
            let _ = told.send(result);
        };
        (Box::new(reply), result)
    }

    #[test]
    fn a_pending_signal_counts_unless_it_is_blocked_or_ignored() {
        let status = |pending: &str, shared: &str, blocked: &str, ignored: &str| {
            format!(
                "State:\tD (disk sleep)\nSigPnd:\t{pending}\nShdPnd:\t{shared}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\n"
            )
        };
        assert!(!wants_signal(&status("0", "0", "0", "0")));
        assert!(wants_signal(&status("0000000000000100", "0", "0", "0")));
        assert!(wants_signal(&status("0", "0000000000000002", "0", "0")));
        assert!(!wants_signal(&status("0", "2", "2", "0")));
        assert!(!wants_signal(&status("2", "0", "0", "2")));
        assert!(wants_signal("State:\tZ (zombie)\n"));
        assert!(!wants_signal("nonsense"));
    }

    #[test]
    fn everybody_is_answered_once() {
        let receipts = Receipts::start(Duration::from_secs(60)).unwrap();
        let ((first, first_result), (second, second_result)) = (reply(), reply());
        let number = receipts.add(std::process::id(), first).unwrap();
        receipts.add(0, second).unwrap();
        receipts.answer(number, Ok(()));
        receipts.answer(number, Err(FileError::Io));
        assert_eq!(first_result.recv().unwrap(), Ok(()));
        receipts.end();
        assert_eq!(second_result.recv().unwrap(), Err(FileError::Closed));
        let (late, late_result) = reply();
        assert_eq!(receipts.add(0, late), None);
        assert_eq!(late_result.recv().unwrap(), Err(FileError::Closed));
    }

    #[test]
    fn a_caller_that_is_gone_or_whose_time_is_over_is_answered() {
        let receipts = Receipts::start(Duration::from_millis(100)).unwrap();
        let (late, late_result) = reply();
        receipts.add(std::process::id(), late).unwrap();
        assert_eq!(late_result.recv().unwrap(), Err(FileError::TimedOut));
        receipts.end();
        let receipts = Receipts::start(Duration::from_secs(60)).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (gone, gone_result) = reply();
        receipts.add(child.id(), gone).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(gone_result.recv().unwrap(), Err(FileError::Interrupted));
        receipts.end();
    }
}
