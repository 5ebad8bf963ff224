//! Several addresses of one name, tried side by side (RFC 8305).
//!
//! Owns the order of the addresses and when each attempt begins. How one is made comes in as an argument.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};

/// An attempt has this head start before the next address is tried, too: longer than most answers take, short enough to
/// be no wait (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// One address gets this long to answer: long enough for two lost packets.
const ADDRESS_TIME: Duration = Duration::from_secs(4);
/// Most addresses that are tried: the last attempt begins within 4 s, and has its time before any limit above is over.
const MAX_ADDRESSES: usize = 16;

/// Every attempt failed: which address, and how.
pub(super) type Failures = Vec<(SocketAddr, io::ErrorKind)>;

/// The first connection that comes about; the other attempts are dropped. Without any address the failures are none.
///
/// # Errors
/// How each attempt failed, in the order in which they did.
pub(super) async fn first<T, F>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Failures>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = interleaved(addresses).into_iter().take(MAX_ADDRESSES).peekable();
    let mut running = FuturesUnordered::new();
    let mut failures = Failures::new();
    let mut start = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some((address, outcome)) = running.next() => match outcome {
                Ok(connection) => return Ok(connection),
                Err(kind) => {
                    failures.push((address, kind));
                    start = Instant::now();
                }
            },
            () = sleep_until(start), if waiting.peek().is_some() => {
                if let Some(address) = waiting.next() {
                    let limit = deadline.min(Instant::now() + ADDRESS_TIME);
                    let attempt = connect(address);
                    running.push(async move {
                        let outcome = timeout_at(limit, attempt).await;
                        (address, outcome.map_or(Err(io::ErrorKind::TimedOut), |done| done.map_err(|e| e.kind())))
                    });
                }
                start = Instant::now() + HEAD_START;
            }
            else => return Err(failures),
        }
    }
}

/// One address of each family in turn, the family of the first one first; within a family the resolver's order.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (mut preferred, mut others) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv6() == first.is_ipv6() { &mut preferred } else { &mut others };
        if !family.contains(address) {
            family.push(*address);
        }
    }
    let mut order = Vec::with_capacity(preferred.len() + others.len());
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    loop {
        let before = order.len();
        order.extend(preferred.next());
        order.extend(others.next());
        if order.len() == before {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn v4(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 443).into()
    }

    fn v6(last: u16) -> SocketAddr {
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 443).into()
    }

    /// What an address does: after so many milliseconds it answers, or refuses.
    type Plan<'a> = &'a [(SocketAddr, u64, Result<(), io::ErrorKind>)];

    /// The outcome, when it was there, and when which attempt began, in milliseconds.
    async fn raced(plan: Plan<'_>) -> (Result<SocketAddr, Failures>, u64, Vec<(SocketAddr, u64)>) {
        let begin = Instant::now();
        let now = || u64::try_from(begin.elapsed().as_millis()).unwrap();
        let begun = RefCell::new(Vec::new());
        let addresses: Vec<SocketAddr> = plan.iter().map(|(address, ..)| *address).collect();
        let outcome = first(&addresses, begin + Duration::from_secs(15), |address| {
            begun.borrow_mut().push((address, now()));
            let (_, after, outcome) = plan.iter().find(|(one, ..)| *one == address).unwrap();
            async move {
                tokio::time::sleep(Duration::from_millis(*after)).await;
                outcome.map(|()| address).map_err(io::Error::from)
            }
        })
        .await;
        (outcome, now(), begun.into_inner())
    }

    #[test]
    fn families_take_turns_and_nothing_is_tried_twice() {
        assert_eq!(
            interleaved(&[v6(1), v6(2), v6(3), v4(1), v6(1), v4(2)]),
            [v6(1), v4(1), v6(2), v4(2), v6(3)]
        );
        assert_eq!(interleaved(&[v4(1), v6(1), v4(2)]), [v4(1), v6(1), v4(2)]);
        assert_eq!(interleaved(&[]), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_answers_at_once_is_the_only_one_tried() {
        let plan = [(v6(1), 20, Ok(())), (v4(1), 20, Ok(()))];
        let (outcome, at, begun) = raced(&plan).await;
        assert_eq!((outcome, at, begun), (Ok(v6(1)), 20, vec![(v6(1), 0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let plan = [(v6(1), 60_000, Ok(())), (v6(2), 60_000, Ok(())), (v4(1), 20, Ok(()))];
        let (outcome, at, begun) = raced(&plan).await;
        assert_eq!((outcome, at, begun), (Ok(v4(1)), 270, vec![(v6(1), 0), (v4(1), 250)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_costs_no_time_at_all() {
        let refused = Err(io::ErrorKind::ConnectionRefused);
        let plan = [(v6(1), 5, refused), (v4(1), 5, refused), (v6(2), 5, Ok(()))];
        let (outcome, at, begun) = raced(&plan).await;
        assert_eq!((outcome, at, begun), (Ok(v6(2)), 15, vec![(v6(1), 0), (v4(1), 5), (v6(2), 10)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_may_still_win() {
        let plan = [(v6(1), 300, Ok(())), (v4(1), 200, Ok(()))];
        let (outcome, at, _) = raced(&plan).await;
        assert_eq!((outcome, at), (Ok(v6(1)), 300));
    }

    #[tokio::test(start_paused = true)]
    async fn every_failure_is_named_and_no_address_takes_longer_than_its_time() {
        let plan = [(v6(1), 60_000, Ok(())), (v4(1), 5, Err(io::ErrorKind::ConnectionRefused))];
        let (outcome, at, _) = raced(&plan).await;
        let failures = vec![(v4(1), io::ErrorKind::ConnectionRefused), (v6(1), io::ErrorKind::TimedOut)];
        assert_eq!((outcome, at), (Err(failures), 4000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_with_very_many_addresses_takes_no_longer_than_one_attempt_may() {
        let plan: Vec<_> = (0..1000).map(|n| (v6(n), 60_000, Ok(()))).collect();
        let (outcome, at, begun) = raced(&plan).await;
        assert_eq!((outcome.unwrap_err().len(), begun.len(), at), (16, 16, 15 * 250 + 4000));
    }
}
