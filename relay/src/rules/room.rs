//! Room: how much the queues may hold.
//!
//! Owns the memory rule: a bound for each direction, a budget for all of them, a share for each source. Pure: the
//! caller counts, this judges. What does not fit waits at its sender; nothing is ever dropped.

/// Bytes that a direction may hold, in general: protocol-2 ends keep their own window.
pub const QUEUE: usize = 2 << 20;
/// ... and where an end may be of 0.1.5, which has no window: it sends a file of its longest size in one frame, and more
/// after it.
pub const CODE_QUEUE: usize = 16 << 20;
/// What a queued frame costs beyond its bytes (its place in the queue, its allocation), so that empty frames are
/// bounded, too.
pub const FRAME_OVERHEAD: usize = 64;
/// One source may hold one part in this many of the budget.
pub const SOURCE_PARTS: usize = 8;
/// One part in this many of the budget is for frames that go straight to a present, writable socket.
pub const STRAIGHT_PARTS: usize = 4;

/// The bounds of one relay, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// All queues together.
    pub budget: usize,
    /// One source.
    pub share: usize,
}

/// A frame that asks to be held.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// What it costs, overhead included.
    pub cost: usize,
    /// What its direction holds already.
    pub queued: usize,
    /// What its direction may hold while there is room: [`QUEUE`] or [`CODE_QUEUE`].
    pub bound: usize,
    /// Whether its receiver is present and has nothing before it.
    pub straight: bool,
    /// What all queues hold.
    pub total: usize,
    /// What the sender's source holds.
    pub source: usize,
    /// Directions that hold anything.
    pub active: usize,
}

/// Whether it may be held, or what is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Fits,
    /// Its direction is full: wait until the receiver has taken something.
    Direction,
    /// The source's share or the budget is full: wait until anything has been taken.
    Memory,
}

impl Room {
    /// Judges one frame. An empty direction is never what is full.
    #[must_use]
    pub fn judge(&self, ask: &Ask) -> Verdict {
        if ask.queued > 0 && ask.queued + ask.cost > self.bound(ask) {
            return Verdict::Direction;
        }
        let budget = if ask.straight { self.budget } else { self.budget - self.budget / STRAIGHT_PARTS };
        if ask.total + ask.cost > budget || ask.source + ask.cost > self.share {
            return Verdict::Memory;
        }
        Verdict::Fits
    }

    /// The bound of one direction: above half of the budget the half is divided among the active ones.
    fn bound(&self, ask: &Ask) -> usize {
        let half = self.budget / 2;
        if ask.total > half { ask.bound.min(half / ask.active.max(1)) } else { ask.bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const ROOM: Room = Room { budget: 512 * MIB, share: 64 * MIB };
    const ASK: Ask =
        Ask { cost: MIB, queued: 0, bound: QUEUE, straight: false, total: 0, source: 0, active: 0 };

    #[test]
    fn a_direction_holds_two_mebibytes_or_one_frame() {
        assert_eq!(ROOM.judge(&ASK), Verdict::Fits);
        assert_eq!(ROOM.judge(&Ask { queued: MIB, ..ASK }), Verdict::Fits);
        assert_eq!(ROOM.judge(&Ask { queued: MIB + 1, ..ASK }), Verdict::Direction);
        assert_eq!(ROOM.judge(&Ask { cost: 10 * MIB, ..ASK }), Verdict::Fits);
        assert_eq!(ROOM.judge(&Ask { cost: 10 * MIB, queued: 1, ..ASK }), Verdict::Direction);
    }

    #[test]
    fn a_direction_of_a_channel_by_code_holds_sixteen() {
        let ask = Ask { bound: CODE_QUEUE, ..ASK };
        assert_eq!(ROOM.judge(&Ask { queued: 15 * MIB, ..ask }), Verdict::Fits);
        assert_eq!(ROOM.judge(&Ask { queued: 15 * MIB + 1, ..ask }), Verdict::Direction);
    }

    #[test]
    fn above_half_of_the_budget_the_bound_shrinks() {
        let crowded = Ask { cost: 1000, queued: 300_000, total: 257 * MIB, active: 1024, ..ASK };
        assert_eq!(ROOM.judge(&crowded), Verdict::Direction);
        assert_eq!(ROOM.judge(&Ask { total: 256 * MIB, ..crowded }), Verdict::Fits);
        assert_eq!(ROOM.judge(&Ask { queued: 0, ..crowded }), Verdict::Fits);
    }

    #[test]
    fn a_quarter_is_for_frames_that_go_straight_through() {
        let late = Ask { total: 384 * MIB, active: 1, ..ASK };
        assert_eq!(ROOM.judge(&late), Verdict::Memory);
        assert_eq!(ROOM.judge(&Ask { straight: true, ..late }), Verdict::Fits);
        assert_eq!(ROOM.judge(&Ask { straight: true, total: 512 * MIB, ..late }), Verdict::Memory);
    }

    #[test]
    fn a_source_holds_its_share_at_most() {
        assert_eq!(ROOM.judge(&Ask { source: 63 * MIB, ..ASK }), Verdict::Fits);
        assert_eq!(ROOM.judge(&Ask { source: 64 * MIB, ..ASK }), Verdict::Memory);
    }
}
