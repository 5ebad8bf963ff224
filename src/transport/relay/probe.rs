//! A look at a relay: the way of a host up to its seat, step by step, and back.
//!
//! Owns what is known of the steps. They are those of every channel, taken by the same code; the seat is given up at once,
//! so that nothing stays at the relay.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_wormhole_relay::wire::{ClientMessage, Mood};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use crate::event::Hop;

use super::endpoint::{Endpoint, Place};
use super::{seat, seated};

/// What to do about a relay that leaves a step unanswered.
const LATE: &str =
    "try again with a longer --timeout, check this machine's network, or use another relay with --relay";

/// What was found out about a relay.
#[derive(Debug)]
pub struct Probe {
    /// The steps that this relay needs, in their order.
    pub needed: Vec<Hop>,
    /// Those that were taken.
    pub taken: Vec<Step>,
    /// Why it is of no use; `None` where it is.
    pub missed: Option<Missed>,
    /// Its clock and ours when it let us in, where it told.
    pub clocks: Option<(Timestamp, Timestamp)>,
}

/// A step that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub hop: Hop,
    /// How long it took.
    pub took: Duration,
}

/// The step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Which.
    pub hop: Hop,
    /// The relay wants a token, or another one.
    pub token: bool,
    /// How it failed.
    pub why: String,
    /// What to do.
    pub advice: String,
}

/// How far an attempt came.
#[derive(Debug, Default)]
pub(super) struct Steps(Mutex<Way>);

/// The steps of the last attempt.
#[derive(Debug, Default)]
struct Way {
    /// When the last of them was done.
    since: Option<Instant>,
    taken: Vec<Step>,
}

impl Steps {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the attempt before.
    pub(super) fn set_out(&self) {
        *self.way() = Way { since: Some(Instant::now()), taken: Vec::new() };
    }

    pub(super) fn passed(&self, hop: Hop) {
        let mut way = self.way();
        let now = Instant::now();
        let since = way.since.replace(now).unwrap_or(now);
        way.taken.push(Step { hop, took: now.saturating_duration_since(since) });
    }
}

/// Takes a nameplate as a host does, and gives it up. Ends within `limit`, and about two seconds for the goodbye.
pub async fn probe(endpoint: Endpoint, limit: Duration) -> Probe {
    let endpoint = endpoint.timed(Steps::default());
    let needed = needed(&endpoint);
    let outcome = timeout(limit, seated(&endpoint, &ClientMessage::Allocate)).await;
    let here = Timestamp::now();
    let mut taken = endpoint.steps().map(|steps| steps.way().taken.clone()).unwrap_or_default();
    // An address went through the resolver, too, which was no step.
    taken.retain(|step| needed.contains(&step.hop));
    let (missed, clocks) = match outcome {
        Ok(Ok((socket, welcome))) => {
            let clocks = socket.clock().map(|there| (there, here));
            socket.close([], ClientMessage::Bye { mood: Mood::Lonely }.encode()).await;
            let unusable = seat::limits(&welcome).map(drop).and(seat::nameplate(&welcome).map(drop)).err();
            let missed = unusable.map(|error| Missed {
                hop: error.hop(),
                token: false,
                why: error.to_string(),
                advice: "use another relay with --relay".to_owned(),
            });
            (missed, clocks)
        }
        Ok(Err(error)) => {
            let (why, advice) = error.words();
            (Some(Missed { hop: error.hop(), token: error.is_token(), why, advice }), None)
        }
        Err(_) => {
            let hop = next(&needed, &taken);
            let why = format!("no answer within {limit:?}");
            (Some(Missed { hop, token: false, why, advice: LATE.to_owned() }), None)
        }
    };
    endpoint.retire().await;
    Probe { needed, taken, missed, clocks }
}

/// The steps to a relay. A name that is an address has to be asked of nobody, and a proxy asks and connects itself.
fn needed(endpoint: &Endpoint) -> Vec<Hop> {
    let mut needed = Vec::new();
    if let Place::Url(url) = &endpoint.place {
        if endpoint.way.proxy.is_some() {
            needed.push(Hop::Proxy);
        } else {
            needed.extend(url.host.parse::<std::net::IpAddr>().is_err().then_some(Hop::Name));
            needed.push(Hop::Tcp);
        }
        needed.extend(url.secure.then_some(Hop::Tls));
    }
    needed.extend([Hop::Websocket, Hop::Relay]);
    needed
}

/// The first step that was not taken.
fn next(needed: &[Hop], taken: &[Step]) -> Hop {
    let open = |hop: &&Hop| taken.iter().all(|step| step.hop != **hop);
    needed.iter().find(open).copied().unwrap_or(Hop::Relay)
}

#[cfg(test)]
mod tests {
    use super::super::{Proxy, Way as Between};
    use super::*;

    fn steps(url: &str, proxy: bool) -> Vec<&'static str> {
        let proxy = proxy.then(|| Proxy::parse("http://p.test:1", "a test").unwrap());
        let endpoint = url.parse::<Endpoint>().unwrap().by(Between { proxy, authorities: None });
        needed(&endpoint).into_iter().map(Hop::as_str).collect()
    }

    #[test]
    fn each_relay_has_its_steps() {
        assert_eq!(steps("wss://relay.test", false), ["name", "tcp", "tls", "websocket", "relay"]);
        assert_eq!(steps("ws://192.0.2.1:1", false), ["tcp", "websocket", "relay"]);
        assert_eq!(steps("ws://[::1]:1", false), ["tcp", "websocket", "relay"]);
        assert_eq!(steps("wss://relay.test", true), ["proxy", "tls", "websocket", "relay"]);
        assert_eq!(steps("/run/relay.sock", false), ["websocket", "relay"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_attempt_begins_anew_and_the_step_that_is_missing_is_known() {
        let steps = Steps::default();
        steps.set_out();
        steps.passed(Hop::Name);
        steps.set_out();
        tokio::time::advance(Duration::from_millis(30)).await;
        steps.passed(Hop::Name);
        tokio::time::advance(Duration::from_millis(5)).await;
        steps.passed(Hop::Tcp);
        let taken = steps.way().taken.clone();
        let took: Vec<u128> = taken.iter().map(|step| step.took.as_millis()).collect();
        assert_eq!(took, [30, 5]);
        let needed = [Hop::Name, Hop::Tcp, Hop::Tls, Hop::Websocket, Hop::Relay];
        assert_eq!(next(&needed, &taken), Hop::Tls);
        assert_eq!(next(&needed, &[]), Hop::Name);
    }
}
