//! The known answers of `tests/vectors/`, which a second implementation can check itself against.
//!
//! They were computed outside this project from `src/PROTOCOL.md`; here the code is checked against them. Where the
//! code's own version message is part of a key, the key is derived from what it sent, with the formula of the
//! specification and not with the code's.

// clippy.toml excuses test functions, but not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod example;
mod keys;
mod messages;
mod records;
mod sessions;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, Nonce, Tag};
use aes_gcm::{Aes256Gcm, KeyInit};
use agent_wormhole::code::{Code, CodeError};
use agent_wormhole::crypto::pake::Role;
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn handshake() -> Value {
    vectors(include_str!("../vectors/handshake.json"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.is_ascii() && digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Hexadecimal digits; `6e*9` among them is a byte nine times.
fn bytes(value: &Value) -> Vec<u8> {
    let mut all = Vec::new();
    for part in text(value).split_whitespace() {
        match part.split_once('*') {
            Some((byte, times)) => all.extend(unhex(byte).repeat(times.parse().unwrap())),
            None => all.extend(unhex(part)),
        }
    }
    all
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn role(name: &Value) -> Role {
    if text(name) == "host" { Role::Host } else { Role::Peer }
}

/// Which key a role seals with.
const fn direction(role: Role) -> &'static str {
    match role {
        Role::Host => "host_to_peer",
        Role::Peer => "peer_to_host",
    }
}

fn rng(end: &Value) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(array(&end["rng_seed"]))
}

fn code(known: &Value) -> Code {
    Code::parse(text(&known["code"]), false).unwrap()
}

// --- the specification's formulas, without the code's

fn expand(key: &[u8], salt: Option<&[u8]>, info: &str) -> [u8; 32] {
    let mut okm = [0; 32];
    Hkdf::<Sha256>::new(salt, key).expand(info.as_bytes(), &mut okm).unwrap();
    okm
}

fn salt(parts: [&[u8]; 4]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u32::try_from(part.len()).unwrap().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn nonce(kind: u32, number: u64) -> Nonce<Aes256Gcm> {
    let mut nonce = Nonce::<Aes256Gcm>::default();
    nonce[..4].copy_from_slice(&kind.to_be_bytes());
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn seal(key: &[u8; 32], nonce: &Nonce<Aes256Gcm>, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut sealed = plain.to_vec();
    let cipher = Aes256Gcm::new(key.into());
    let tag = cipher.encrypt_inout_detached(nonce, aad, InOutBuf::from(&mut sealed[..])).unwrap();
    sealed.extend_from_slice(&tag);
    sealed
}

fn open(key: &[u8; 32], nonce: &Nonce<Aes256Gcm>, aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (body, tag) = sealed.split_at(sealed.len() - 16);
    let (mut body, tag) = (body.to_vec(), Tag::<Aes256Gcm>::try_from(tag).unwrap());
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt_inout_detached(nonce, aad, InOutBuf::from(&mut body[..]), &tag).unwrap();
    body
}

fn record(key: &[u8; 32], kind: u8, number: u64, plain: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    record.extend_from_slice(&number.to_be_bytes());
    let sealed = seal(key, &nonce(kind.into(), number), &record, plain);
    record.extend_from_slice(&sealed);
    record
}

/// Kind, number and plaintext of a record.
fn opened(key: &[u8; 32], record: &[u8]) -> (u8, u64, Vec<u8>) {
    let number = u64::from_be_bytes(record[1..9].try_into().unwrap());
    let plain = open(key, &nonce(record[0].into(), number), &record[..9], &record[9..]);
    (record[0], number, plain)
}

// --- codes

#[test]
fn codes_are_read_or_refused() {
    for case in list(&vectors(include_str!("../vectors/codes.json"))["cases"]) {
        let typed = text(&case["typed"]);
        let any_words = case["any_words"].as_bool().unwrap_or(false);
        let outcome = Code::parse(typed, any_words).map(|code| code.secret.reveal().to_owned());
        let outcome = outcome.map_err(|error| match error {
            // Of three words without a number more is said.
            CodeError::Nameplate | CodeError::Wordy => "nameplate",
            CodeError::NotLegacy => "not legacy",
            CodeError::Count { .. } => "count",
            CodeError::UnknownWord { .. } => "unknown word",
            CodeError::TooLong => "too long",
        });
        match case.get("code") {
            Some(code) => assert_eq!(outcome.as_deref(), Ok(text(code)), "{typed:?}"),
            None => assert_eq!(outcome, Err(text(&case["error"])), "{typed:?}"),
        }
    }
}
