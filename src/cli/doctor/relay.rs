//! The relay: which one, who set it, and each step of the way to it.
//!
//! Owns the words. The steps are taken by the code that every channel takes them with.

use std::time::Duration;

use super::finding::Finding;
use crate::channel;
use crate::config::Relay;
use crate::event::Hop;
use crate::rundir::RuntimeDir;
use crate::transport::local::Local;
use crate::transport::relay::{Missed, Probe, probe};

/// The check of the token, which is no step of its own in events.
const TOKEN: &str = "relay.token";
/// A step after one that failed.
const UNREACHED: &str = "not reached";

/// What was found out.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) probe: Probe,
    /// The process that served the machine's own relay before.
    owner: Option<u32>,
}

/// Takes a place at the relay and gives it up again.
///
/// # Errors
/// In words, where there is no way to begin.
pub(super) fn look(relay: &Relay, runtime: &RuntimeDir, limit: Duration) -> Result<Looked, String> {
    let endpoint = channel::endpoint(relay, runtime).map_err(|error| error.to_string())?;
    let owner = matches!(relay, Relay::Local).then(|| Local::new(runtime.path()).owner()).flatten();
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let threads = threads.map_err(|error| format!("the system gives no timer: {error}"))?;
    let probe = threads.block_on(probe(endpoint, limit));
    // A resolver that does not answer holds up nobody.
    threads.shutdown_background();
    Ok(Looked { probe, owner })
}

/// All about the relay; `from` is who set it.
pub(super) fn verdict(relay: &Relay, from: Option<&str>, looked: &Looked) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("relay", named(relay, from, looked.owner))];
    let Probe { needed, taken, missed, .. } = &looked.probe;
    let took = |hop: Hop| taken.iter().find(|step| step.hop == hop).map(|step| step.took);
    let (proxy, token) = match relay {
        Relay::Local => (None, false),
        Relay::Url { way, token, .. } => {
            (way.proxy.as_ref().map(crate::transport::relay::Proxy::named), token.is_some())
        }
    };
    for hop in [Hop::Name, Hop::Tcp, Hop::Proxy, Hop::Tls, Hop::Websocket, Hop::Relay] {
        if hop == Hop::Relay {
            findings.push(judge_token(token, missed.as_ref(), took(Hop::Relay).is_some()));
        }
        let check = check(hop);
        findings.push(match (took(hop), missed) {
            (_, Some(missed)) if missed.hop == hop && !missed.token => {
                Finding::fail(check, missed.why.as_str(), missed.advice.as_str())
            }
            (Some(took), _) => Finding::ok(check, well(hop, proxy)).after(took),
            (None, _) if needed.contains(&hop) => Finding::skip(check, UNREACHED),
            (None, _) => Finding::skip(check, needless(hop, relay, proxy.is_some())),
        });
    }
    findings
}

/// The findings where no relay is known, or it cannot be asked.
pub(super) fn unknown(why: &str) -> Vec<Finding> {
    vec![Finding::skip("relay", why)]
}

const fn check(hop: Hop) -> &'static str {
    match hop {
        Hop::Name => "relay.name",
        Hop::Tcp => "relay.tcp",
        Hop::Proxy => "relay.proxy",
        Hop::Tls => "relay.tls",
        Hop::Websocket => "relay.websocket",
        Hop::Relay | Hop::Peer => "relay.relay",
    }
}

fn named(relay: &Relay, from: Option<&str>, owner: Option<u32>) -> String {
    match (relay, owner) {
        (Relay::Url { url, .. }, _) => format!("{url}, set by {}", from.unwrap_or("nobody")),
        (Relay::Local, Some(owner)) => {
            format!("this machine's own, as no other is set; process {owner} serves it")
        }
        (Relay::Local, None) => {
            "this machine's own, as no other is set; nobody serves it now, and the first `host` will"
                .to_owned()
        }
    }
}

fn judge_token(shown: bool, missed: Option<&Missed>, seated: bool) -> Finding {
    match missed {
        Some(missed) if missed.token => Finding::fail(TOKEN, missed.why.as_str(), missed.advice.as_str()),
        _ if !seated => Finding::skip(TOKEN, UNREACHED),
        _ if shown => Finding::ok(TOKEN, "the relay took it, or wants none"),
        _ => Finding::skip(TOKEN, "none is set, and the relay wants none"),
    }
}

fn well(hop: Hop, proxy: Option<&str>) -> String {
    match hop {
        Hop::Name => "the name has an address".to_owned(),
        Hop::Tcp => "connected".to_owned(),
        Hop::Proxy => format!("{} leads there", proxy.unwrap_or("the proxy")),
        Hop::Tls => "the relay's certificate is trusted".to_owned(),
        Hop::Websocket => "a relay answers".to_owned(),
        Hop::Relay | Hop::Peer => "it gave a number for a channel, which it has back".to_owned(),
    }
}

/// Why a step is none here.
fn needless(hop: Hop, relay: &Relay, proxied: bool) -> &'static str {
    let Relay::Url { url, .. } = relay else { return "it is a socket of this machine" };
    match hop {
        _ if url.starts_with('/') => "it is a socket of this machine",
        Hop::Name | Hop::Tcp if proxied => "the proxy does it",
        Hop::Name => "an address is written in place of a name",
        Hop::Proxy => "no proxy is set for it",
        Hop::Tls => {
            "ws:// has none; what is sent is sealed all the same, and the number of a channel can be seen"
        }
        Hop::Tcp | Hop::Websocket | Hop::Relay | Hop::Peer => "not needed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use crate::transport::relay::{Step, Token};

    const ALL: [Hop; 5] = [Hop::Name, Hop::Tcp, Hop::Tls, Hop::Websocket, Hop::Relay];

    fn relay(url: &str, token: Option<&str>) -> Relay {
        Relay::Url { url: url.into(), token: token.and_then(Token::parse), way: Box::default() }
    }

    /// So many steps were taken, and the next one failed.
    fn came(steps: usize, token: bool) -> Looked {
        let taken =
            ALL[..steps].iter().map(|hop| Step { hop: *hop, took: Duration::from_millis(2) }).collect();
        let missed = ALL.get(steps).map(|hop| Missed {
            hop: *hop,
            token,
            why: "a reason".into(),
            advice: "a way out".into(),
        });
        Looked { probe: Probe { needed: ALL.to_vec(), taken, missed, clocks: None }, owner: None }
    }

    fn states(findings: &[Finding]) -> Vec<(&'static str, State)> {
        findings.iter().map(|finding| (finding.check, finding.state)).collect()
    }

    #[test]
    fn each_step_is_named_and_the_one_that_failed_says_why() {
        let findings = verdict(&relay("wss://r.test", None), Some("--relay"), &came(1, false));
        assert_eq!(
            states(&findings),
            [
                ("relay", State::Ok),
                ("relay.name", State::Ok),
                ("relay.tcp", State::Fail),
                ("relay.proxy", State::Skip),
                ("relay.tls", State::Skip),
                ("relay.websocket", State::Skip),
                ("relay.token", State::Skip),
                ("relay.relay", State::Skip),
            ]
        );
        assert_eq!(findings[0].detail, "wss://r.test, set by --relay");
        assert_eq!(findings[2].advice.as_deref(), Some("a way out"));
        assert_eq!(findings[4].detail, UNREACHED);
        let all = verdict(&relay("wss://r.test", Some("t")), Some("--relay"), &came(5, false));
        assert!(all.iter().all(|finding| finding.state == State::Ok || finding.check == "relay.proxy"));
        assert!(all.iter().filter(|finding| finding.took.is_some()).count() == 5);
    }

    #[test]
    fn a_token_that_is_not_taken_is_no_fault_of_another_step() {
        for token in [None, Some("wrong")] {
            let findings = verdict(&relay("wss://r.test", token), Some("--relay"), &came(4, true));
            assert_eq!(
                states(&findings)[5..],
                [("relay.websocket", State::Ok), ("relay.token", State::Fail), ("relay.relay", State::Skip),]
            );
        }
    }

    #[test]
    fn the_machines_own_relay_needs_no_network() {
        let taken = [Hop::Websocket, Hop::Relay].map(|hop| Step { hop, took: Duration::ZERO });
        let needed = vec![Hop::Websocket, Hop::Relay];
        let probe = Probe { needed, taken: taken.to_vec(), missed: None, clocks: None };
        let findings = verdict(&Relay::Local, None, &Looked { probe, owner: Some(7) });
        assert!(findings[0].detail.contains("process 7"));
        let skipped = findings.iter().filter(|finding| finding.state == State::Skip);
        assert!(skipped.clone().all(|finding| finding.detail.contains("socket") || finding.check == TOKEN));
        assert_eq!(skipped.count(), 5);
    }
}
