//! Rate limits that delay and never drop.
//!
//! Owns the token bucket and how the two directions of a channel share theirs. Does not hold frames and sets no
//! timers: it answers *when*, the caller waits.

use std::time::{Duration, Instant};

use crate::wire::{Role, SMALL_FRAME};

/// Every rate is told for this span, and a full bucket holds this span's worth.
const MINUTE: Duration = Duration::from_secs(60);

/// A token bucket that holds one minute's worth.
///
/// Kept as the moment at which it would be full again, so nothing has to be refilled.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Tokens a minute; 0 is unlimited.
    per_minute: u64,
    /// When the bucket is full again; `None` is full since ever.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket of `per_minute` tokens; 0 never makes anybody wait.
    #[must_use]
    pub const fn new(per_minute: u64) -> Self {
        Self { per_minute, full_at: None }
    }

    /// When `cost` tokens can be drawn: `now` or later. What costs more than a full bucket holds waits for a full one.
    #[must_use]
    pub fn ready_at(&self, cost: u64, now: Instant) -> Instant {
        let Some(full_at) = self.full_at.filter(|at| self.per_minute > 0 && *at > now) else {
            return now;
        };
        let cost = self.span(cost).min(MINUTE);
        let missing = (full_at - now + cost).saturating_sub(MINUTE);
        now.checked_add(missing).unwrap_or(full_at)
    }

    /// Takes `cost` tokens, also those that are not there yet: the debt delays whoever comes next.
    pub fn draw(&mut self, cost: u64, now: Instant) {
        if self.per_minute > 0 {
            let from = self.full_at.map_or(now, |at| at.max(now));
            self.full_at = Some(from.checked_add(self.span(cost)).unwrap_or(from));
        }
    }

    /// Whether nothing has been drawn that is not refilled by `now`.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }

    /// How long `cost` tokens take to flow in.
    fn span(&self, cost: u64) -> Duration {
        let nanos = u128::from(cost) * MINUTE.as_nanos() / u128::from(self.per_minute.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The answer to a direction that wants to forward a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// Paid: forward it.
    Now,
    /// Ask again at this time.
    At(Instant),
    /// The other direction is first; ask again once it has drawn or left.
    Turn,
}

/// The rate of one channel: both directions draw on it in turn. A direction is named by its receiver.
#[derive(Debug, Clone)]
pub struct ChannelRate {
    /// Messages of more than [`SMALL_FRAME`] bytes, and small ones beyond their own bucket.
    messages: Bucket,
    /// Bytes of all frames.
    bytes: Bucket,
    /// Small frames, for each direction.
    small: [Bucket; 2],
    /// Directions that were told to wait.
    waiting: [bool; 2],
    /// Which of them is first.
    first: Option<Role>,
}

impl ChannelRate {
    /// Full buckets: messages and bytes a minute for the channel, small frames a minute for each seat. 0 is unlimited.
    #[must_use]
    pub const fn new(messages: u64, bytes: u64, small: u64) -> Self {
        Self {
            messages: Bucket::new(messages),
            bytes: Bucket::new(bytes),
            small: [Bucket::new(small), Bucket::new(small)],
            waiting: [false; 2],
            first: None,
        }
    }

    /// Pays for a frame of `len` bytes to `to`, or says when to ask again.
    ///
    /// A small frame within its own bucket waits for nobody: its bytes are drawn as a debt, so a receipt is not
    /// held up by the bulk that it acknowledges.
    pub fn draw(&mut self, to: Role, len: usize, now: Instant) -> Draw {
        let bytes = len as u64;
        let small = &mut self.small[to.index()];
        if len <= SMALL_FRAME && small.ready_at(1, now) <= now {
            small.draw(1, now);
            self.bytes.draw(bytes, now);
            self.stop_waiting(to);
            return Draw::Now;
        }
        if self.first == Some(to.other()) {
            self.waiting[to.index()] = true;
            return Draw::Turn;
        }
        let at = self.messages.ready_at(1, now).max(self.bytes.ready_at(bytes, now));
        if at > now {
            self.waiting[to.index()] = true;
            self.first = Some(to);
            return Draw::At(at);
        }
        self.messages.draw(1, now);
        self.bytes.draw(bytes, now);
        self.stop_waiting(to);
        Draw::Now
    }

    /// Whether the direction to `to` waits for its turn or for tokens.
    #[must_use]
    pub fn is_waiting(&self, to: Role) -> bool {
        self.waiting[to.index()]
    }

    /// The direction to `to` wants nothing any more (drawn, emptied, receiver away): the other one is first if it
    /// waits.
    pub fn stop_waiting(&mut self, to: Role) {
        self.waiting[to.index()] = false;
        if self.first != Some(to.other()) {
            self.first = self.waiting[to.other().index()].then_some(to.other());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_bucket_gives_a_minute_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60);
        for _ in 0..60 {
            assert_eq!(bucket.ready_at(1, start), start);
            bucket.draw(1, start);
        }
        assert_eq!(bucket.ready_at(1, start), start + secs(1));
        assert_eq!(bucket.ready_at(1, start + secs(1)), start + secs(1));
        assert!(!bucket.is_full(start + secs(59)));
        assert!(bucket.is_full(start + secs(60)));
    }

    #[test]
    fn more_than_a_bucket_holds_waits_for_a_full_one_and_leaves_a_debt() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100);
        assert_eq!(bucket.ready_at(250, start), start);
        bucket.draw(250, start);
        assert_eq!(bucket.ready_at(1, start), start + Duration::from_millis(90_600));
        assert_eq!(bucket.ready_at(250, start), start + secs(150));
    }

    #[test]
    fn zero_is_unlimited() {
        let now = Instant::now();
        let mut bucket = Bucket::new(0);
        bucket.draw(u64::MAX, now);
        assert_eq!(bucket.ready_at(u64::MAX, now), now);
    }

    #[test]
    fn fifty_mebibytes_a_minute_delay_the_fifty_first() {
        let now = Instant::now();
        let mut rate = ChannelRate::new(60, 50 * MIB as u64, 600);
        for _ in 0..50 {
            assert_eq!(rate.draw(Role::Peer, MIB, now), Draw::Now);
        }
        assert_eq!(rate.draw(Role::Peer, MIB, now), Draw::At(now + Duration::from_millis(1200)));
    }

    #[test]
    fn small_frames_cost_no_message_until_their_own_bucket_is_empty() {
        let now = Instant::now();
        let mut rate = ChannelRate::new(60, 0, 600);
        for _ in 0..660 {
            assert_eq!(rate.draw(Role::Host, SMALL_FRAME, now), Draw::Now);
        }
        assert!(matches!(rate.draw(Role::Host, SMALL_FRAME, now), Draw::At(_)));
        // The other seat has its own.
        assert_eq!(rate.draw(Role::Peer, SMALL_FRAME, now), Draw::Now);
    }

    #[test]
    fn two_directions_that_wait_draw_in_turn() {
        let mut now = Instant::now();
        let mut rate = ChannelRate::new(60, 0, 600);
        while rate.draw(Role::Host, 1000, now) == Draw::Now {}
        assert_eq!(rate.draw(Role::Peer, 1000, now), Draw::Turn);
        for _ in 0..5 {
            now += secs(1);
            assert_eq!(rate.draw(Role::Peer, 1000, now), Draw::Turn);
            assert_eq!(rate.draw(Role::Host, 1000, now), Draw::Now);
            assert_eq!(rate.draw(Role::Host, 1000, now), Draw::Turn);
            assert!(matches!(rate.draw(Role::Peer, 1000, now), Draw::At(_)));
            now += secs(1);
            assert_eq!(rate.draw(Role::Peer, 1000, now), Draw::Now);
            assert!(matches!(rate.draw(Role::Host, 1000, now), Draw::At(_)));
            assert_eq!(rate.draw(Role::Peer, 1000, now), Draw::Turn);
        }
    }

    #[test]
    fn a_direction_that_leaves_makes_the_other_first() {
        let now = Instant::now();
        let mut rate = ChannelRate::new(1, 0, 600);
        while rate.draw(Role::Host, 1000, now) == Draw::Now {}
        assert_eq!(rate.draw(Role::Peer, 1000, now), Draw::Turn);
        rate.stop_waiting(Role::Host);
        assert!(!rate.is_waiting(Role::Host) && rate.is_waiting(Role::Peer));
        assert!(matches!(rate.draw(Role::Peer, 1000, now), Draw::At(_)));
    }
}
