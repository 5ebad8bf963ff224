//! How much may be under way: grants in both directions, bulk in flight, and the pace of a limited relay.
//!
//! Pure arithmetic on totals that only rise; takes the time as an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::frame::ChunkBuf;
use crate::item::{ItemHead, Lane};

/// Bytes of content in a chunk on an unlimited link: four such fit between a bulk record and the prompt one behind it
/// at half a gigabyte a second in 2 ms.
pub(super) const CHUNK: usize = 256 * 1024;
/// Bytes of content in a chunk where a relay counts messages: as much as a frame carries.
pub(super) const LIMITED_CHUNK: usize = 1024 * 1024;
/// What a chunk leaves of a link's longest frame for headers.
pub(super) const FRAME_MARGIN: usize = 64;
/// The receiver's bulk window in bytes: 0.5 GB/s over a 16 ms round trip.
pub(super) const BULK_WINDOW: u64 = 8 * 1024 * 1024;
/// The receiver's prompt window in bytes: two of the longest texts.
pub(super) const PROMPT_WINDOW: u64 = 2 * 1024 * 1024;
/// What both ends may send of each lane before they have heard a grant: the first short texts.
pub(super) const INITIAL_GRANT: u64 = 64 * 1024;
/// What each message that draws on a grant costs besides its content, so that a window bounds their number too
/// (8 MiB / 64 = 131,072 messages).
pub(super) const MESSAGE_COST: u64 = 64;
/// Of a relay's messages a minute, each lane takes this share at most: the prompt lane with what is answered, then bulk.
/// That is more than there is, as seldom both want all of theirs.
const SHARES: [(u64, u64); 2] = [(1, 2), (5, 6)];
/// A relay counts frames of at most this many bytes apart (`relay/README.md`, "Settings"): a receipt, a few words.
pub(super) const SMALL_FRAME: usize = 128;
/// Of the 600 of them that it passes on in a minute from each end, these are for records; states take theirs, too.
const SMALL_SHARE: (u64, u64) = (300, 1);
/// Bulk in flight is at most what was acknowledged within this time.
const FLIGHT_TIME: Duration = Duration::from_secs(1);

/// What a head draws on its lane's grant. Bulk heads are free but for members of a group: the number of the others
/// is bounded by receipts.
pub(super) fn head_cost(head: &ItemHead) -> u64 {
    if head.lane() == Lane::Bulk && head.group.is_none() {
        return 0;
    }
    // The name is kept as long as the content is, and may be longer.
    let inline = head.inline.as_ref().map_or(0, |bytes| bytes.len() as u64);
    MESSAGE_COST + head.name.len() as u64 + inline
}

/// What a chunk of `len` bytes draws on its lane's grant.
pub(super) const fn chunk_cost(len: usize) -> u64 {
    MESSAGE_COST + len as u64
}

/// The sender's side of a grant.
#[derive(Debug)]
pub(super) struct SendWindow {
    granted: u64,
    spent: u64,
}

impl SendWindow {
    pub(super) const fn new() -> Self {
        Self { granted: INITIAL_GRANT, spent: 0 }
    }

    /// Takes a grant; whether it rose.
    pub(super) const fn grant(&mut self, total: u64) -> bool {
        let rose = total > self.granted;
        if rose {
            self.granted = total;
        }
        rose
    }

    pub(super) const fn fits(&self, cost: u64) -> bool {
        cost <= self.granted.saturating_sub(self.spent)
    }

    pub(super) const fn spend(&mut self, cost: u64) {
        self.spent += cost;
    }
}

/// The receiver's side of a grant.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    size: u64,
    received: u64,
    freed: u64,
    /// The highest grant that was ever told; what comes beyond it is a fault.
    told: u64,
    received_when_told: u64,
}

impl ReceiveWindow {
    pub(super) const fn new(size: u64) -> Self {
        Self { size, received: 0, freed: 0, told: INITIAL_GRANT, received_when_told: 0 }
    }

    /// Takes what a message costs; `false` where it is beyond the grant.
    #[must_use]
    pub(super) const fn receive(&mut self, cost: u64) -> bool {
        self.received = self.received.saturating_add(cost);
        self.received <= self.told
    }

    pub(super) const fn free(&mut self, cost: u64) {
        self.freed += cost;
    }

    /// The grant to tell now.
    pub(super) const fn tell(&mut self) -> u64 {
        let grant = self.freed + self.size;
        if grant > self.told {
            self.told = grant;
        }
        self.received_when_told = self.received;
        self.told
    }

    /// Whether a quarter of the window was received or freed since a grant was told.
    pub(super) const fn worth_telling(&self) -> bool {
        let quarter = self.size / 4;
        self.received - self.received_when_told >= quarter
            || (self.freed + self.size).saturating_sub(self.told) >= quarter
    }
}

/// Bulk that is sealed and not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Flight {
    bytes: u64,
    acknowledged: VecDeque<(Instant, u64)>,
    acknowledged_bytes: u64,
}

impl Flight {
    pub(super) const fn sealed(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub(super) fn acknowledged(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if bytes > 0 {
            self.acknowledged.push_back((now, bytes));
            self.acknowledged_bytes += bytes;
        }
        self.forget(now);
    }

    /// Whether another chunk may fly, where two always may.
    pub(super) fn fits(&mut self, chunk: usize, now: Instant) -> bool {
        self.forget(now);
        self.bytes < self.acknowledged_bytes.max(2 * chunk as u64)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, bytes)) = self.acknowledged.front() {
            if now.saturating_duration_since(*at) <= FLIGHT_TIME {
                break;
            }
            self.acknowledged_bytes -= bytes;
            self.acknowledged.pop_front();
        }
    }
}

/// The pace of a lane's records on a relay that counts messages: a bucket of one minute's share.
#[derive(Debug)]
pub(super) struct Pace {
    /// Time between two records; zero is unlimited.
    interval: Duration,
    /// The bucket is full when this lies a minute back, empty when it is now.
    earliest: Option<Instant>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Pace {
    /// Those of both lanes.
    pub(super) fn both(messages_per_minute: u64) -> [Self; 2] {
        SHARES.map(|share| Self::new(messages_per_minute, share))
    }

    /// That of records in frames of at most [`SMALL_FRAME`], where messages are counted.
    pub(super) fn of_small(messages_per_minute: u64) -> Self {
        Self::new(messages_per_minute.min(1), SMALL_SHARE)
    }

    fn new(messages_per_minute: u64, (part, of): (u64, u64)) -> Self {
        let own = messages_per_minute.saturating_mul(part) / of;
        let interval = if messages_per_minute == 0 {
            Duration::ZERO
        } else {
            MINUTE / u32::try_from(own.max(1)).unwrap_or(u32::MAX)
        };
        Self { interval, earliest: None }
    }

    /// When the next record may leave; `None` is now.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.earliest.filter(|at| !self.interval.is_zero() && *at > now)
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if self.interval.is_zero() {
            return;
        }
        // Half a minute's share may leave in a burst: a relay that was joined lately has given part of its own away.
        let others = (MINUTE / 2).saturating_sub(self.interval);
        let full = now.checked_sub(others).unwrap_or(now);
        self.earliest = Some(self.earliest.map_or(full, |at| at.max(full)) + self.interval);
    }
}

/// Content of one item that waits to be sealed.
#[derive(Debug, Default)]
pub(super) struct Staging {
    chunks: VecDeque<(ChunkBuf, bool)>,
    bytes: usize,
}

impl Staging {
    pub(super) fn push(&mut self, chunk: ChunkBuf, last: bool) {
        self.bytes += chunk.len();
        self.chunks.push_back((chunk, last));
    }

    pub(super) fn front(&self) -> Option<&(ChunkBuf, bool)> {
        self.chunks.front()
    }

    pub(super) fn pop(&mut self) -> Option<(ChunkBuf, bool)> {
        let (chunk, last) = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some((chunk, last))
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Cuts what is longer than a chunk of `most` bytes.
    pub(super) fn limit(&mut self, most: usize) {
        let cut = |(chunk, last): (ChunkBuf, bool)| {
            let count = chunk.len().div_ceil(most.max(1));
            let mut pieces: Vec<_> = if count > 1 { chunk.pieces(most).collect() } else { vec![chunk] };
            let end = pieces.pop().map(|piece| (piece, last));
            pieces.into_iter().map(|piece| (piece, false)).chain(end)
        };
        self.chunks = std::mem::take(&mut self.chunks).into_iter().flat_map(cut).collect();
    }

    /// Drops everything; how many bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        self.chunks.clear();
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_never_falls_and_bounds_what_comes() {
        let mut send = SendWindow::new();
        assert!(send.fits(INITIAL_GRANT) && !send.fits(INITIAL_GRANT + 1));
        assert!(!send.grant(1), "a late, lower grant");
        assert!(send.grant(INITIAL_GRANT + 10));
        send.spend(INITIAL_GRANT);
        assert!(send.fits(10) && !send.fits(11));

        let mut receive = ReceiveWindow::new(1000);
        assert!(receive.receive(INITIAL_GRANT));
        assert!(!receive.receive(1), "beyond what was told");
    }

    #[test]
    fn a_quarter_received_or_freed_is_worth_telling() {
        let mut window = ReceiveWindow::new(1_000_000);
        assert_eq!(window.tell(), 1_000_000);
        assert!(window.receive(249_999) && !window.worth_telling());
        assert!(window.receive(1) && window.worth_telling());
        assert_eq!(window.tell(), 1_000_000);
        window.free(249_999);
        assert!(!window.worth_telling());
        window.free(1);
        assert!(window.worth_telling());
        assert_eq!(window.tell(), 1_250_000);
    }

    #[test]
    fn flight_is_what_was_acknowledged_in_a_second_and_two_chunks_at_least() {
        let now = Instant::now();
        let mut flight = Flight::default();
        flight.sealed(150);
        assert!(flight.fits(100, now), "under two chunks");
        flight.sealed(50);
        assert!(!flight.fits(100, now));
        flight.acknowledged(200, now);
        flight.sealed(199);
        assert!(flight.fits(50, now + FLIGHT_TIME), "200 were acknowledged");
        assert!(!flight.fits(50, now + FLIGHT_TIME + Duration::from_millis(1)), "and are forgotten");
    }

    #[test]
    fn bulk_takes_five_sixths_of_a_limited_relay() {
        let start = Instant::now() + MINUTE;
        let [_, mut pace] = Pace::both(60);
        let mut sent = 0;
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            while pace.next(now).is_none() {
                pace.sent(now);
                sent += 1;
            }
        }
        assert!((100..=130).contains(&sent), "{sent} in two minutes at 50 a minute");
        let [mut unlimited, _] = Pace::both(0);
        for _ in 0..10_000 {
            unlimited.sent(start);
        }
        assert_eq!(unlimited.next(start), None);
    }
}
