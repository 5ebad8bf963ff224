//! The host's listener and the connections that have not shown yet who they are.
//!
//! Owns the bound on them, their time limits, and the order in which those that showed what they must are handed over.
//! A stranger costs one small task and one descriptor, and disturbs nobody else: a crowd from one address pushes out
//! its own, not the peer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::crypto::resume::ResumeKey;
use crate::transport::{MAX_VERSION_FRAME, SPAKE_FRAME};

use super::link::Candidate;
use super::wire::{Expect, split};
use super::{PROOF_TIME, UNPROVEN_SILENCE, proof};

/// Connections that have not proved themselves; the oldest of the largest crowd makes room for the next.
pub(super) const MAX_UNPROVEN: usize = 16;
/// Pause after a failed `accept` (no descriptors left): trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection has to show before it is a candidate.
#[derive(Debug, Clone)]
pub(super) enum Exam {
    /// It gets this SPAKE2 message and sends one of its own and a sealed version.
    Handshake(Bytes),
    /// It proves the resume key.
    Resume(Arc<ResumeKey>),
}

/// A connection under examination, or waiting to be taken.
#[derive(Debug)]
struct Unproven {
    serial: u64,
    from: Origin,
    task: AbortHandle,
}

/// Where a connection comes from: an IPv4 address, or the network (/64) that one site of IPv6 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin(u64);

impl Origin {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            // No network of the Internet has this prefix all zero, as the IPv4 addresses above have.
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        })
    }
}

/// The listener with everybody at it.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    exam: Exam,
    /// Running examinations, each with its serial.
    trials: JoinSet<(u64, Option<Candidate>)>,
    /// All that are here, oldest first, at most [`MAX_UNPROVEN`].
    unproven: VecDeque<Unproven>,
    /// Those of them that passed, in that order.
    passed: VecDeque<(u64, Candidate)>,
    /// Serial of the next connection.
    serial: u64,
}

impl Door {
    pub(super) fn new(listener: TcpListener, exam: Exam) -> Self {
        Self {
            listener,
            exam,
            trials: JoinSet::new(),
            unproven: VecDeque::new(),
            passed: VecDeque::new(),
            serial: 0,
        }
    }

    /// From now on this is what has to be shown. Everybody who is here leaves.
    pub(super) fn examine(&mut self, exam: Exam) {
        self.exam = exam;
        self.trials = JoinSet::new();
        self.unproven.clear();
        self.passed.clear();
    }

    /// Keeps the door; resolves with the next connection that passed if `take`, else never. May be dropped at any
    /// time: nothing is lost.
    pub(super) async fn next(&mut self, take: bool) -> Candidate {
        loop {
            if take && let Some((serial, candidate)) = self.passed.pop_front() {
                self.forget(serial);
                return candidate;
            }
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => self.admit(stream, Origin::of(from.ip())),
                    Err(e) => {
                        tracing::debug!(kind = ?e.kind(), "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = self.trials.join_next() => {
                    // An examination that was broken off has been forgotten already.
                    if let Ok((serial, outcome)) = ended {
                        self.note(serial, outcome);
                    }
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, from: Origin) {
        if self.unproven.len() >= MAX_UNPROVEN {
            self.make_room();
        }
        self.serial += 1;
        let (serial, exam) = (self.serial, self.exam.clone());
        let task = self.trials.spawn(async move { (serial, sit(exam, stream).await) });
        self.unproven.push_back(Unproven { serial, from, task });
    }

    /// The oldest connection leaves of those from where the most are.
    fn make_room(&mut self) {
        let origins: Vec<Origin> = self.unproven.iter().map(|unproven| unproven.from).collect();
        let Some(oldest) = superfluous(&origins).and_then(|index| self.unproven.remove(index)) else {
            return;
        };
        tracing::debug!("too many unproven connections: the oldest of the largest crowd goes");
        oldest.task.abort();
        self.passed.retain(|(serial, _)| *serial != oldest.serial);
    }

    fn note(&mut self, serial: u64, outcome: Option<Candidate>) {
        match outcome {
            Some(candidate) if self.unproven.iter().any(|u| u.serial == serial) => {
                self.passed.push_back((serial, candidate));
            }
            _ => self.forget(serial),
        }
    }

    fn forget(&mut self, serial: u64) {
        self.unproven.retain(|u| u.serial != serial);
    }
}

/// The first of those that are there most often.
fn superfluous(origins: &[Origin]) -> Option<usize> {
    let crowd = |from: &Origin| origins.iter().filter(|origin| *origin == from).count();
    // Of equals `max_by_key` takes the last: from the end on, that is the first.
    let found = origins.iter().enumerate().rev().max_by_key(|(_, from)| crowd(from));
    found.map(|(index, _)| index)
}

/// One examination. `None`: the connection is closed, and that is all it learns.
async fn sit(exam: Exam, stream: TcpStream) -> Option<Candidate> {
    let (mut reader, mut writer) = split(stream);
    match exam {
        Exam::Handshake(greeting) => {
            writer.push(greeting);
            timeout(UNPROVEN_SILENCE, writer.flush()).await.ok()?.ok()?;
            reader.allow_silence(Some(UNPROVEN_SILENCE));
            let spake = reader.next(Expect::Exactly(SPAKE_FRAME)).await.ok()?;
            let version = reader.next(Expect::UpTo(MAX_VERSION_FRAME)).await.ok()?;
            Some(Candidate { reader, writer, shown: vec![spake, version] })
        }
        Exam::Resume(key) => {
            timeout(PROOF_TIME, proof::admit(&key, &mut reader, &mut writer)).await.ok()??;
            Some(Candidate { reader, writer, shown: Vec::new() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(addresses: &[&str]) -> Vec<Origin> {
        addresses.iter().map(|address| Origin::of(address.parse().unwrap())).collect()
    }

    #[test]
    fn a_crowd_pushes_out_its_own_oldest() {
        let crowd = ["192.0.2.7", "192.0.2.9", "198.51.100.1", "192.0.2.9", "192.0.2.9"];
        assert_eq!(superfluous(&origins(&crowd)), Some(1));
        assert_eq!(superfluous(&origins(&crowd[..3])), Some(0), "nobody is a crowd: the oldest");
        assert_eq!(superfluous(&[]), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_crowd() {
        let sites = ["192.0.2.1", "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:1:ffff::2"];
        assert_eq!(superfluous(&origins(&sites)), Some(1));
        assert_eq!(origins(&["::ffff:192.0.2.1"]), origins(&["192.0.2.1"]));
    }
}
