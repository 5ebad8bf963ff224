//! Tickets become offers on the mailbox's own thread, but for links: their targets may lie on a file system that is
//! slow or does not answer at all, and nothing else in the outbox waits for that.

use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender, sync_channel};
use std::thread;
use std::time::Duration;

use super::snapshot::Taken;
use super::worker::Order;
use crate::outbox::{Node, Prepared, Ticket};

/// How long a link's target is waited for, so that what was written after it stays behind it. Nearly every open is a
/// thousand times faster.
const PATIENCE: Duration = Duration::from_millis(20);
/// Most targets that are waited for at once, each on a thread. Other links are tried again later.
const MAX_SLOW: usize = 16;

/// What makes an offer of a ticket; may block.
pub(super) type Take = dyn Fn(&Ticket) -> Taken + Send + Sync;

/// Makes offers, and does not wait for slow ones.
pub(super) struct Preparer {
    take: Arc<Take>,
    /// Where late answers go. The threads share it: how many there are is how many are still waiting.
    orders: Arc<Sender<Order>>,
}

impl Preparer {
    pub(super) fn new(take: Arc<Take>, orders: Sender<Order>) -> Self {
        Self { take, orders: Arc::new(orders) }
    }

    /// The answer to a ticket; `None` where it comes later, as an order.
    pub(super) fn prepare(&self, ticket: &Ticket) -> Option<Taken> {
        if ticket.node != Node::Link {
            return Some((self.take)(ticket));
        }
        // Like something that changes: it is tried again, less and less often.
        let later = || Some(Err(Prepared::Changed(ticket.identity)));
        if Arc::strong_count(&self.orders) > MAX_SLOW {
            return later();
        }
        // Without room: what nobody takes in time comes back to who sent it.
        let (reply, answer) = sync_channel(0);
        let (take, orders, asked) = (Arc::clone(&self.take), Arc::clone(&self.orders), ticket.clone());
        let opening = thread::Builder::new().name("mailbox-link".to_owned()).spawn(move || {
            if let Err(SendError(taken)) = reply.send(take(&asked)) {
                // The mailbox may have ended.
                let _ = orders.send(Order::Prepared(asked, taken));
            }
        });
        match opening {
            Ok(_) => answer.recv_timeout(PATIENCE).ok(),
            Err(_) => later(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use crate::EntryId;
    use crate::outbox::Identity;

    /// What holds slow targets back, the preparer, and its late answers.
    fn rig() -> (Sender<()>, Preparer, Receiver<Order>) {
        let (go, held) = channel();
        let held = Mutex::new(held);
        let take = move |ticket: &Ticket| {
            if &*ticket.path == "slow" {
                // Ends with the test.
                let _ = held.lock().unwrap().recv();
            }
            Err(Prepared::Gone)
        };
        let (orders, late) = channel();
        (go, Preparer::new(Arc::new(take), orders), late)
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
            let Order::Prepared(ticket, Err(Prepared::Gone)) = late.recv().unwrap() else {
                panic!("no answer")
            };
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
