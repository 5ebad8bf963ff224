//! Events on their way to the driver.
//!
//! Owns the rule that a transport never waits for the driver inside another step: what the driver has no room for yet
//! is kept here, and sending it is one arm of the transport's `select!`.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{FRAME_QUEUE, TransportEvent};

/// Events in their order. Holds a handful at most: while it [waits](Self::waits) no frame is read.
#[derive(Debug)]
pub(super) struct Outbox {
    driver: mpsc::Sender<TransportEvent>,
    queue: VecDeque<TransportEvent>,
}

impl Outbox {
    /// Towards this driver.
    pub(super) const fn new(driver: mpsc::Sender<TransportEvent>) -> Self {
        Self { driver, queue: VecDeque::new() }
    }

    /// Tells the driver now or, if it has no room, when it has.
    pub(super) fn put(&mut self, event: TransportEvent) {
        if self.queue.is_empty() {
            match self.driver.try_send(event) {
                // A driver that is gone ends the transport through its control channel.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => self.queue.push_back(event),
            }
        } else {
            self.queue.push_back(event);
        }
    }

    /// Whether something is kept here.
    pub(super) fn waits(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Gives the driver what is kept here. With `taken` resolves only once the driver has taken every event: what it
    /// decided before it saw the last of them is in its control channel by then. May be dropped at any time: nothing is
    /// lost.
    pub(super) async fn flush(&mut self, taken: bool) {
        while !self.queue.is_empty() {
            match self.driver.reserve().await {
                Ok(room) => {
                    if let Some(event) = self.queue.pop_front() {
                        room.send(event);
                    }
                }
                Err(_) => self.queue.clear(),
            }
        }
        if taken {
            // All permits at once are all the room there is: nothing is left in the channel.
            let _ = self.driver.reserve_many(FRAME_QUEUE).await;
        }
    }
}
