//! The order of what happens in a mounted outbox. `close` waits for FLUSH and never for RELEASE, which may come late
//! and out of order: so the FLUSH of a changed file takes a ticket, its place in the line, and its RELEASE redeems it.
//! Whatever else happens there stands in the same line. Owns the line; no clock, no I/O.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long something that is due waits for the RELEASE of an older ticket. Usually it is on its way; where a child
/// process holds the descriptor it may never come.
pub const RELEASE_WAIT: Duration = Duration::from_millis(50);

/// A place in the line.
#[derive(Debug)]
enum Place<T> {
    /// A ticket that was not redeemed yet, and whose it is.
    Held(u64),
    /// It may go as soon as everything before it has gone; since when.
    Due(T, Instant),
}

/// The line. `T` is what happened; files are known by their inode number.
#[derive(Debug)]
pub struct Tickets<T> {
    line: BTreeMap<u64, Place<T>>,
    /// The place of each file that holds a ticket; `None` once it has given up its place.
    holders: HashMap<u64, Option<u64>>,
    last: u64,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Self { line: BTreeMap::new(), holders: HashMap::new(), last: 0 }
    }
}

impl<T> Tickets<T> {
    /// A changed file was closed: it takes a place at the end of the line. An older ticket of it is void.
    pub fn take(&mut self, inode: u64) {
        self.void(inode);
        self.last += 1;
        self.line.insert(self.last, Place::Held(inode));
        self.holders.insert(inode, Some(self.last));
    }

    /// A file was changed again, or removed: its ticket says nothing any more.
    pub fn void(&mut self, inode: u64) {
        if let Some(Some(place)) = self.holders.remove(&inode) {
            self.line.remove(&place);
        }
    }

    /// Whether a file holds a ticket.
    #[must_use]
    pub fn holds(&self, inode: u64) -> bool {
        self.holders.contains_key(&inode)
    }

    /// Every file that holds a ticket, the oldest place first; those without a place last.
    #[must_use]
    pub fn holders(&self) -> Vec<u64> {
        let mut all: Vec<_> = self.holders.iter().map(|(inode, place)| (*place, *inode)).collect();
        all.sort_by_key(|(place, inode)| (place.unwrap_or(u64::MAX), *inode));
        all.into_iter().map(|(_, inode)| inode).collect()
    }

    /// A ticket is redeemed: what happened goes in its place, or at the end where it has none any more.
    pub fn redeem(&mut self, inode: u64, what: T, now: Instant) {
        match self.holders.remove(&inode) {
            Some(Some(place)) => {
                self.line.insert(place, Place::Due(what, now));
            }
            Some(None) | None => self.push(what, now),
        }
    }

    /// Something that needs no ticket happened.
    pub fn push(&mut self, what: T, now: Instant) {
        self.last += 1;
        self.line.insert(self.last, Place::Due(what, now));
    }

    /// What comes next; `None` until something happens or [`Tickets::deadline`].
    pub fn next(&mut self, now: Instant) -> Option<T> {
        let (place, since) = self.first_due()?;
        let held: Vec<u64> = self.line.range(..place).map(|(held, _)| *held).collect();
        if !held.is_empty() && now < since + RELEASE_WAIT {
            return None;
        }
        for place in held {
            if let Some(Place::Held(inode)) = self.line.remove(&place)
                && let Some(holder) = self.holders.get_mut(&inode)
            {
                *holder = None;
            }
        }
        match self.line.remove(&place) {
            Some(Place::Due(what, _)) => Some(what),
            Some(Place::Held(_)) | None => None,
        }
    }

    /// When [`Tickets::next`] has something to say although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.first_due().map(|(_, since)| since + RELEASE_WAIT)
    }

    fn first_due(&self) -> Option<(u64, Instant)> {
        self.line.iter().find_map(|(place, what)| match what {
            Place::Due(_, since) => Some((*place, *since)),
            Place::Held(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &mut Tickets<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| line.next(now)).collect()
    }

    #[test]
    fn the_order_is_that_of_the_closes_not_of_the_releases() {
        let (mut line, now) = (Tickets::default(), Instant::now());
        line.take(1);
        line.take(2);
        line.redeem(2, "second", now);
        line.push("a rename", now);
        assert_eq!(all(&mut line, now), [""; 0]);
        line.redeem(1, "first", now);
        assert_eq!(all(&mut line, now), ["first", "second", "a rename"]);
        assert_eq!(line.deadline(), None);
    }

    #[test]
    fn a_ticket_whose_release_does_not_come_gives_up_its_place_after_50_ms() {
        let (mut line, now) = (Tickets::default(), Instant::now());
        line.take(1);
        line.take(2);
        line.take(3);
        line.redeem(3, "third", now);
        assert_eq!(line.deadline(), Some(now + RELEASE_WAIT));
        assert_eq!(all(&mut line, now + RELEASE_WAIT - Duration::from_millis(1)), [""; 0]);
        assert_eq!(all(&mut line, now + RELEASE_WAIT), ["third"], "it waits once, not for each");
        assert!(line.holds(1) && line.holds(2));
        line.push("later", now);
        line.redeem(1, "first", now);
        assert_eq!(all(&mut line, now), ["later", "first"]);
        assert_eq!(line.holders(), [2]);
    }

    #[test]
    fn a_write_voids_a_ticket_and_the_next_close_takes_another() {
        let (mut line, now) = (Tickets::default(), Instant::now());
        line.take(1);
        line.take(2);
        line.void(1);
        line.redeem(2, "second", now);
        assert_eq!(all(&mut line, now), ["second"], "nobody is waited for");
        assert!(!line.holds(1));
        line.take(1);
        line.take(1);
        line.redeem(1, "first", now);
        assert_eq!(all(&mut line, now), ["first"], "the older ticket is void");
        assert!(line.line.is_empty() && line.holders.is_empty());
    }

    #[test]
    fn nothing_is_due_while_only_tickets_are_held() {
        let mut line = Tickets::<()>::default();
        line.take(1);
        assert_eq!((line.deadline(), line.next(Instant::now())), (None, None));
    }

    #[test]
    fn many_that_are_held_give_up_their_places_in_linear_time() {
        let (mut line, now) = (Tickets::default(), Instant::now());
        (0..300_000).for_each(|n| line.take(n));
        line.push("due", now);
        assert_eq!(all(&mut line, now + RELEASE_WAIT), ["due"]);
        assert!(line.holds(299_999) && line.line.is_empty());
        line.redeem(7, "late", now);
        assert_eq!(all(&mut line, now), ["late"]);
    }

    #[test]
    fn five_thousand_closes_come_out_in_their_order() {
        let (mut line, now) = (Tickets::default(), Instant::now());
        let mut out = Vec::new();
        for n in 0..5000u64 {
            line.take(n);
            // Every seventh release is late by three.
            if n % 7 != 0 {
                line.redeem(n, n, now);
            }
            if n >= 3 && (n - 3) % 7 == 0 {
                line.redeem(n - 3, n - 3, now);
            }
            out.extend(std::iter::from_fn(|| line.next(now)));
        }
        for n in line.holders() {
            line.redeem(n, n, now);
        }
        out.extend(std::iter::from_fn(|| line.next(now)));
        assert_eq!(out, (0..5000).collect::<Vec<_>>());
    }
}
