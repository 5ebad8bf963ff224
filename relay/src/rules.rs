//! What the relay decides: seats, nameplates, rates, room and expiry.
//!
//! Owns every rule of `PROTOCOL.md` that needs no I/O. Time is an argument and randomness is handed in, so each
//! rule is tested on virtual time. Knows nothing of sockets, stores or locks.

mod bucket;
mod code;
mod guesses;
mod nameplate;
mod room;
mod seat;
mod source;

use std::time::{Duration, Instant};

pub use bucket::{Bucket, ChannelRate, Draw};
pub use code::CodeHash;
pub use guesses::Guesses;
pub use nameplate::{Nameplate, Nameplates, RETIRED_FOR, RETIRED_MAX};
pub use room::{Ask, CODE_QUEUE, FRAME_OVERHEAD, QUEUE, Room, SOURCE_PARTS, STRAIGHT_PARTS, Verdict};
pub use seat::{SeatHash, fresh_id, tombstone};
pub use source::{Source, Sources};

/// An unclaimed nameplate whose host is away lives this long.
pub const UNCLAIMED_ABSENCE: Duration = Duration::from_secs(10 * 60);

/// Channels at a time, present or not: about 64 MiB of bookkeeping.
pub const MAX_CHANNELS: usize = 65_536;

/// Whether something last seen at `since` is over after `lifetime`.
#[must_use]
pub fn expired(since: Instant, lifetime: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) >= lifetime
}

/// A hash in hexadecimal digits.
fn hex(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
