//! The key exchange, the key schedule and sealing.

use agent_wormhole::crypto::pake::{Pake, Role};
use agent_wormhole::crypto::resume::ResumeKey;
use agent_wormhole::crypto::schedule::{self, Transcript};
use agent_wormhole::frame::RECORD_HEADER;
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{array, bytes, code, expand, handshake, list, rng, role, salt, text};

#[test]
fn one_password_and_two_scalars_give_these_messages() {
    let known = handshake();
    let password = text(&known["code"]).as_bytes();
    let mut wide = [0; 48];
    Hkdf::<Sha256>::new(None, password).expand(b"SPAKE2 pw", &mut wide).unwrap();
    assert_eq!(wide.to_vec(), bytes(&known["password_wide"]));
    for role in [Role::Host, Role::Peer] {
        let end = &known[role.as_str()];
        let (mut seed, mut scalar) = ([0; 32], [0; 64]);
        rng(end).fill_bytes(&mut seed);
        ChaCha20Rng::from_seed(seed).fill_bytes(&mut scalar);
        assert_eq!(scalar.to_vec(), bytes(&end["scalar_wide"]));
        let pake = Pake::new(role, &code(&known).secret, &mut rng(end));
        assert_eq!(pake.message().to_vec(), bytes(&end["spake"]));
    }
}

#[test]
fn the_shared_key_is_the_hash_of_the_transcript() {
    let known = handshake();
    let mut hash = Sha256::new();
    hash.update(Sha256::digest(text(&known["code"])));
    hash.update(Sha256::digest(b""));
    hash.update(Sha256::digest(b""));
    hash.update(&bytes(&known["host"]["spake"])[1..]);
    hash.update(&bytes(&known["peer"]["spake"])[1..]);
    hash.update(bytes(&known["shared_element"]));
    assert_eq!(hash.finalize().to_vec(), bytes(&known["shared_key"]));
}

#[test]
fn the_keys_follow_from_the_shared_key() {
    let known = handshake();
    let key = bytes(&known["shared_key"]);
    let (host, peer) = (bytes(&known["host"]["spake"]), bytes(&known["peer"]["spake"]));
    let versions = [text(&known["host"]["version"]).as_bytes(), text(&known["peer"]["version"]).as_bytes()];
    let salt = salt([&host, &peer, versions[0], versions[1]]);
    assert_eq!(salt.to_vec(), bytes(&known["salt"]));
    for (direction, info) in [("host_to_peer", "host-to-peer"), ("peer_to_host", "peer-to-host")] {
        assert_eq!(expand(&key, None, info).to_vec(), bytes(&known["legacy_keys"][direction]));
        let second = expand(&key, Some(&salt), &format!("agent-wormhole/2 {info}"));
        assert_eq!(second.to_vec(), bytes(&known["keys"][direction]));
    }
    let salt: [u8; 32] = Sha256::digest([host, peer].concat()).into();
    let resume = expand(&key, Some(&salt), "agent-wormhole/2 resume");
    assert_eq!(resume.to_vec(), bytes(&known["resume"]["key"]));
}

#[test]
fn the_code_seals_and_opens_what_the_vectors_say() {
    let known = handshake();
    let (host_spake, peer_spake) = (bytes(&known["host"]["spake"]), bytes(&known["peer"]["spake"]));
    let transcript = Transcript {
        host_spake: &host_spake,
        peer_spake: &peer_spake,
        host_version: text(&known["host"]["version"]).as_bytes(),
        peer_version: text(&known["peer"]["version"]).as_bytes(),
    };
    for own in [Role::Host, Role::Peer] {
        let end = &known[own.as_str()];
        let pake = Pake::new(own, &code(&known).secret, &mut rng(end));
        let key = pake.shared(&bytes(&known[own.other().as_str()]["spake"])).unwrap();
        let (mut sealer, _) = schedule::legacy(&key, own);
        let version = text(&end["version"]).as_bytes().to_vec();
        assert_eq!(sealer.seal(version), bytes(&end["sealed_version"]));
        let (sealer, opener) = schedule::protocol2(&key, own, &transcript);
        for case in list(&known["records"]) {
            let (kind, number) = (case["kind"].as_u64().unwrap() as u8, case["number"].as_u64().unwrap());
            let (plain, whole) = (bytes(&case["plaintext"]), bytes(&case["record"]));
            let (header, sealed) = whole.split_at(RECORD_HEADER);
            if role(&case["from"]) == own {
                let mut record = [header, &plain].concat();
                sealer.seal(kind, number, &mut record, RECORD_HEADER);
                assert_eq!(record, whole, "{}", case["name"]);
            } else {
                let mut sealed = sealed.to_vec();
                let len = opener.open(kind, number, header, &mut sealed).unwrap();
                assert_eq!(sealed[..len], plain, "{}", case["name"]);
            }
        }
        check_resume(&known["resume"], &schedule::resume(&key, &host_spake, &peer_spake));
    }
}

fn check_resume(known: &Value, key: &ResumeKey) {
    let (cp, ch) = (array(&known["peer_challenge"]), array(&known["host_challenge"]));
    let frames = [
        [b"R\x01", &cp[..]].concat(),
        [b"R\x02", &ch[..], &key.host_proof(&cp, &ch)].concat(),
        [b"R\x03", &key.peer_proof(&cp, &ch)[..]].concat(),
    ];
    for (frame, known) in frames.iter().zip(list(&known["frames"])) {
        assert_eq!(*frame, bytes(known));
    }
    let given = ResumeKey::new(array(&known["key"]));
    assert!(given.host_proved(&cp, &ch, &frames[1][34..]) && given.peer_proved(&cp, &ch, &frames[2][2..]));
}
