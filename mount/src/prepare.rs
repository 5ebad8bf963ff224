//! Tickets become offers on the mailbox's own thread, but for links: their targets may lie on a file system that is
//! slow or does not answer at all, and nothing else in the outbox waits for that. Owns the threads that wait.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::outbox::{Identity, Node, Prepared, Ticket};
use crate::source::OpenFile;
use crate::{Content, Kind, Offer, SourceError};

/// How long a link's target is waited for, so that what was written after it stays behind it. Nearly every open is a
/// thousand times faster.
const PATIENCE: Duration = Duration::from_millis(20);
/// Most targets that are waited for at once, each on a thread. Other links are tried again later.
const MAX_SLOW: usize = 16;

/// An offer and the content that was offered, or why there is none.
pub(crate) type Taken = Result<(Offer, Identity), Prepared>;
type Take = dyn Fn(&Ticket) -> Taken + Send + Sync;
type Late = dyn Fn(Ticket, Taken) + Send + Sync;

/// Makes offers, and does not wait for slow ones.
pub(crate) struct Preparer {
    take: Arc<Take>,
    /// Where late answers go. The threads share it: how many there are is how many are still waiting.
    late: Arc<Late>,
}

impl Preparer {
    /// `take` makes an offer of a ticket and may block. `late` gets an answer that took long, on another thread; the
    /// mailbox may have ended by then.
    pub(crate) fn new(
        take: impl Fn(&Ticket) -> Taken + Send + Sync + 'static,
        late: impl Fn(Ticket, Taken) + Send + Sync + 'static,
    ) -> Self {
        Self { take: Arc::new(take), late: Arc::new(late) }
    }

    /// The answer to a ticket; `None` where it comes later, to `late`.
    pub(crate) fn prepare(&self, ticket: &Ticket) -> Option<Taken> {
        if ticket.node != Node::Link {
            return Some((self.take)(ticket));
        }
        // Like something that changes: it is tried again, less and less often.
        let later = || Some(Err(Prepared::Changed(ticket.identity)));
        if Arc::strong_count(&self.late) > MAX_SLOW {
            return later();
        }
        // Without room: what nobody takes in time comes back to who sent it.
        let (reply, answer) = sync_channel(0);
        let (take, late, asked) = (Arc::clone(&self.take), Arc::clone(&self.late), ticket.clone());
        let opening = thread::Builder::new().name("mailbox-link".to_owned()).spawn(move || {
            if let Err(SendError(taken)) = reply.send(take(&asked)) {
                late(asked, taken);
            }
        });
        match opening {
            Ok(_) => answer.recv_timeout(PATIENCE).ok(),
            Err(_) => later(),
        }
    }
}

/// The offer of a file without its bytes.
pub(crate) fn file_offer(ticket: &Ticket, open: &OpenFile) -> Offer {
    Offer {
        entry: ticket.entry,
        kind: Kind::File,
        name: ticket.path.to_string(),
        size: Some(open.identity.size),
        executable: open.executable,
        mtime: open.mtime(),
        content: Content::None,
    }
}

/// What becomes of something that cannot be read.
pub(crate) fn unreadable(error: &io::Error) -> Prepared {
    Prepared::LeftOut(format!("it cannot be read: {error}"))
}

/// What becomes of something whose bytes could not be taken.
pub(crate) fn unstable(identity: Identity, error: SourceError) -> Prepared {
    match error {
        SourceError::Changed => Prepared::Changed(identity),
        SourceError::BrokenOff => Prepared::Gone,
        SourceError::Io(error) => unreadable(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use crate::EntryId;

    /// What holds slow targets back, the preparer, and its late answers.
    fn rig() -> (Sender<()>, Preparer, Receiver<(Ticket, Taken)>) {
        let (go, held) = channel();
        let held = Mutex::new(held);
        let take = move |ticket: &Ticket| {
            if &*ticket.path == "slow" {
                // Ends with the test.
                let _ = held.lock().unwrap().recv();
            }
            Err(Prepared::Gone)
        };
        let (answers, late) = channel();
        let answer = move |ticket, taken| drop(answers.send((ticket, taken)));
        (go, Preparer::new(take, answer), late)
    }

    fn ticket(id: u64, path: &str, node: Node) -> Ticket {
        let identity = Identity { inode: id, size: 1, mtime: (1, 1) };
        Ticket { entry: EntryId(id), path: path.into(), node, text: false, identity }
    }

    #[test]
    fn a_target_that_does_not_answer_holds_nothing_back() {
        let (go, preparer, late) = rig();
        assert!(preparer.prepare(&ticket(1, "slow", Node::Link)).is_none());
        assert!(matches!(preparer.prepare(&ticket(2, "a", Node::File)), Some(Err(Prepared::Gone))));
        // On a busy machine the other may be late, too.
        let quick = preparer.prepare(&ticket(3, "b", Node::Link));
        go.send(()).unwrap();
        for _ in 0..if quick.is_some() { 1 } else { 2 } {
            let (ticket, Err(Prepared::Gone)) = late.recv().unwrap() else { panic!("no answer") };
            assert!([EntryId(1), EntryId(3)].contains(&ticket.entry));
        }
    }

    #[test]
    fn only_so_many_targets_are_waited_for_at_once() {
        let (_go, preparer, _late) = rig();
        for id in 0..MAX_SLOW as u64 {
            assert!(preparer.prepare(&ticket(id, "slow", Node::Link)).is_none());
        }
        let more = ticket(99, "more", Node::Link);
        assert!(
            matches!(preparer.prepare(&more), Some(Err(Prepared::Changed(same))) if same == more.identity)
        );
    }
}
