//! The worked example of `src/PROTOCOL.md`: what it shows is what follows from what it shows.

use std::collections::BTreeMap;

use agent_wormhole::frame::{Messages, State};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use crate::{expand, handshake, nonce, record, salt, seal, text, unhex};

const DOCUMENT: &str = include_str!("../../src/PROTOCOL.md");

/// Its lines by their names. What goes on in the next line is set off by two spaces.
fn shown() -> BTreeMap<&'static str, String> {
    let (_, block) = DOCUMENT.split_once("```example\n").unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    let mut found: BTreeMap<_, String> = BTreeMap::new();
    let mut last = "";
    for line in block.lines() {
        match line.strip_prefix("  ") {
            Some(more) => found.get_mut(last).unwrap().push_str(more),
            None => {
                let (name, value) = line.split_once(": ").unwrap();
                assert_eq!(found.insert(name, value.to_owned()), None, "{name} stands there twice");
                last = name;
            }
        }
    }
    found
}

#[test]
fn the_keys_of_the_example_follow_from_its_password_and_messages() {
    let shown = shown();
    let hex = |name: &str| unhex(&shown[name]);
    let key = |name: &str| <[u8; 32]>::try_from(hex(name)).unwrap();
    // `x`, `y`, `w` and `Z` are computed by the second implementation, which is checked likewise.
    let known = handshake();
    let messages = ["host", "peer"].map(|role| hex(&format!("{role} SPAKE2")));
    assert_eq!(shown["password"], text(&known["code"]));
    for (role, message) in ["host", "peer"].iter().zip(&messages) {
        assert_eq!(*message, unhex(text(&known[role]["spake"])));
    }
    let mut wide = [0; 48];
    let password = shown["password"].as_bytes();
    Hkdf::<Sha256>::new(None, password).expand(b"SPAKE2 pw", &mut wide).unwrap();
    assert_eq!(wide.to_vec(), hex("w, 48 bytes"));
    let nobody = Sha256::digest(b"");
    let parts = [&Sha256::digest(password)[..], &nobody, &nobody, &messages[0][1..], &messages[1][1..]];
    let shared: [u8; 32] = Sha256::digest([&parts.concat()[..], &hex("Z")].concat()).into();
    assert_eq!(shared, key("K"));
    let versions = ["host", "peer"].map(|role| shown[format!("{role} version").as_str()].as_bytes());
    let salt = salt([&messages[0], &messages[1], versions[0], versions[1]]);
    assert_eq!(salt, key("S"));
    for (way, info, role) in [("host to peer", "host-to-peer", 0), ("peer to host", "peer-to-host", 1)] {
        let legacy = expand(&shared, None, info);
        assert_eq!(legacy, key(&format!("0.1 key, {way}")));
        let sealed = hex(&format!("{} version sealed", ["host", "peer"][role]));
        assert_eq!(seal(&legacy, &nonce(0, 0), b"", versions[role]), sealed);
        let second = expand(&shared, Some(&salt), &format!("agent-wormhole/2 {info}"));
        assert_eq!(second, key(&format!("key, {way}")));
    }
    let both = Sha256::digest(messages.concat());
    assert_eq!(expand(&shared, Some(&both), "agent-wormhole/2 resume"), key("kr"));
}

#[test]
fn the_records_of_the_example_are_its_messages_sealed() {
    let shown = shown();
    let mut records = 0;
    for (name, plain) in &shown {
        let Some(name) = name.strip_suffix(" plain") else { continue };
        let [role, kind, number] = name.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let way = if role == "host" { "key, host to peer" } else { "key, peer to host" };
        let key = unhex(&shown[way]).try_into().unwrap();
        let plain = unhex(plain);
        let mut again = Vec::new();
        if kind == "control" {
            State::decode(plain.clone().into()).unwrap().encode(&mut again);
        } else {
            Messages::new(plain.clone().into()).for_each(|message| message.unwrap().encode(&mut again));
        }
        assert_eq!(again, plain, "{name}");
        let kind = if kind == "control" { 2 } else { 1 };
        let sealed = record(&key, kind, number.parse().unwrap(), &plain);
        assert_eq!(sealed, unhex(&shown[format!("{name} record").as_str()]), "{name}");
        records += 1;
    }
    assert_eq!((records, shown.len()), (12, 19 + 2 * 12));
}
