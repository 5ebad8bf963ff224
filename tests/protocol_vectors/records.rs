//! Records as they come: in order or not, altered, replayed, of the wrong direction. Proofs and versions, too.

use agent_wormhole::crypto::pake::Role;
use agent_wormhole::crypto::resume::ResumeKey;
use agent_wormhole::frame::{CloseReason, State};
use agent_wormhole::item::{ItemHead, ItemId, ItemKind, Refusal};
use agent_wormhole::session::SessionEvent;
use bytes::Bytes;
use serde_json::Value;

use crate::sessions::{Run, name_of_outcome};
use crate::{array, bytes, direction, handshake, list, nonce, opened, record, role, seal, text, vectors};

fn known() -> Value {
    vectors(include_str!("../vectors/records.json"))
}

/// The bytes of a step, sealed by these keys (host's first) where it is a record.
fn frame(step: &Value, keys: &[[u8; 32]; 2]) -> Vec<u8> {
    let Some(plain) = step.get("plaintext") else { return bytes(&step["frame"]) };
    let from = step.get("from").map_or(Role::Peer, role);
    let (kind, number) = (step["kind"].as_u64().unwrap() as u8, step["number"].as_u64().unwrap());
    let mut made = record(&keys[usize::from(from == Role::Peer)], kind, number, &bytes(plain));
    for (at, bits) in step["alter"].as_object().into_iter().flatten() {
        let at: isize = at.parse().unwrap();
        let at = if at < 0 { made.len().strict_sub(at.unsigned_abs()) } else { at.unsigned_abs() };
        made[at] ^= bits.as_u64().unwrap() as u8;
    }
    made
}

/// The states among what a session sends now.
fn states(run: &mut Run, key: &[u8; 32]) -> Vec<State> {
    run.tick();
    let frames: Vec<_> = std::iter::from_fn(|| run.frame()).collect();
    let opened = frames.iter().map(|frame| opened(key, frame)).filter(|(kind, ..)| *kind == 2);
    opened.map(|(_, _, plain)| State::decode(plain.into()).unwrap()).collect()
}

#[test]
fn records_are_what_the_vectors_say() {
    let keys = ["host_to_peer", "peer_to_host"].map(|way| array(&handshake()["keys"][way]));
    for step in list(&known()["cases"]).iter().flat_map(|case| list(&case["steps"])) {
        if let Some(record) = step.get("record") {
            assert_eq!(frame(step, &keys), bytes(record), "{step}");
        }
    }
}

#[test]
fn what_comes_is_taken_dropped_or_refused_by_name() {
    for case in list(&known()["cases"]) {
        let name = text(&case["name"]);
        let mut run = Run::new(Role::Host);
        let keys = run.connect();
        assert_eq!(states(&mut run, &keys[0]).len(), 1, "the first state");
        let mut outcome = Ok(());
        for step in list(&case["steps"]) {
            outcome = outcome.and(run.feed(&frame(step, &keys)));
        }
        assert_eq!(name_of_outcome(outcome), text(&case["outcome"]), "{name}");
        let mut sent = states(&mut run, &keys[0]);
        if outcome.is_ok() {
            let due = sent.first().map(|state| if state.again { "again" } else { "state" });
            assert_eq!(due, case["due"].as_str(), "{name}");
            // Whatever was due, it answers who asks.
            let mut ask = Vec::new();
            State { link: 1, echo: 1, ask: true, ..State::default() }.encode(&mut ask);
            run.feed(&record(&keys[1], 2, 1000, &ask)).unwrap();
            sent = states(&mut run, &keys[0]);
        }
        assert_eq!(sent.last().map(|state| state.next), case["next"].as_u64(), "{name}");
        let closed = std::iter::from_fn(|| run.event())
            .any(|e| matches!(e, SessionEvent::PeerClosed(CloseReason::Done)));
        assert_eq!(closed, name.contains("after close"), "{name}");
    }
}

#[test]
fn a_proof_proves_one_end_of_one_connection() {
    let resume = &handshake()["resume"];
    let (cp, ch) = (array(&resume["peer_challenge"]), array(&resume["host_challenge"]));
    let key = ResumeKey::new(array(&resume["key"]));
    for case in list(&known()["proofs"]) {
        let frame = bytes(&case["frame"]);
        let proves = match role(&case["from"]) {
            Role::Host => key.host_proved(&cp, &ch, &frame[34..]),
            Role::Peer => key.peer_proved(&cp, &ch, &frame[2..]),
        };
        assert_eq!(Value::from(proves), case["proves"], "{case}");
    }
}

/// A host that has judged the peer's version of a case.
fn judged(case: &Value) -> Run {
    let mut run = Run::new(Role::Host);
    let key = array(&run.known["legacy_keys"][direction(Role::Peer)]);
    let sealed = seal(&key, &nonce(0, 0), b"", &bytes(&case["plaintext"]));
    if let Some(known) = case.get("sealed") {
        assert_eq!(sealed, bytes(known), "{case}");
    }
    let spake = bytes(&run.known["peer"]["spake"]);
    run.feed(&spake).unwrap();
    run.feed(&sealed).unwrap();
    run
}

#[test]
fn versions_are_read_or_burn_the_code() {
    for case in list(&known()["versions"]) {
        assert_eq!(judged(case).verdict(), text(&case["verdict"]), "{case}");
    }
}

/// Whether a session offers an item of a kind to the other end, and does not refuse it at home.
fn offers(run: &mut Run, kind: ItemKind) -> bool {
    let head = ItemHead {
        kind,
        group: None,
        name: "name".into(),
        size: None,
        executable: false,
        mtime: None,
        inline: Some(Bytes::from_static(b"content")),
    };
    run.session.offer(head).unwrap();
    match run.event() {
        Some(SessionEvent::Receipt { refused: Some(Refusal::Unsupported), .. }) => false,
        None => true,
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn features_are_those_of_a_list_of_words() {
    for case in list(&known()["features"]) {
        let mut run = judged(case);
        assert_eq!(run.verdict(), "protocol 2", "{case}");
        run.tick();
        // Its version and its first state.
        assert_eq!(std::iter::from_fn(|| run.frame()).count(), 2, "{case}");
        run.session.opened(ItemId(1), 0);
        let opened = run.frame().is_some();
        let [secret, ask, answer] =
            [ItemKind::Secret, ItemKind::Ask, ItemKind::Answer].map(|kind| offers(&mut run, kind));
        assert_eq!(ask, answer, "{case}");
        let found = [("secrets", secret), ("questions", ask), ("opened", opened)];
        let found: Vec<&str> = found.into_iter().filter_map(|(word, is)| is.then_some(word)).collect();
        assert_eq!(case["features"], Value::from(found), "{case}");
    }
}
