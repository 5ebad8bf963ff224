//! The properties of `fuzz/`, for the project's own vectors, for random bytes and for vectors that were bent: what a
//! fuzzer does for hours, for seconds, so that the properties are built and looked at in every run.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng as _};
use serde_json::Value;

/// Inputs of a property that makes an end of a channel for each.
const SESSIONS: u64 = 1_000;
/// Inputs of every other property.
const INPUTS: u64 = 10_000;
/// Longest random input.
const LONGEST: u32 = 600;

fn property(name: &str) -> fn(&[u8]) {
    properties::PROPERTIES.iter().find(|(known, _)| *known == name).unwrap().1
}

fn vectors(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every string in it, however deep.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(members) => members.values().for_each(|value| strings(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    for name in ["messages.json", "records.json", "handshake.json", "hostile_texts.json"] {
        strings(&vectors(name), &mut texts);
    }
    let bytes = texts.iter().filter_map(|text| from_hex(text));
    let seeds: Vec<_> = bytes.chain(texts.iter().map(|text| text.clone().into_bytes())).collect();
    assert!(seeds.len() > 300, "{} seeds", seeds.len());
    seeds
}

/// A seed with some bytes changed, left out, doubled or cut off.
fn bent(seed: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seed[..seed.len().min(2_000)].to_vec();
    for _ in 0..=rng.next_u32() % 4 {
        let at = rng.next_u32() as usize % bytes.len().max(1);
        match rng.next_u32() % 4 {
            _ if bytes.is_empty() => bytes.push(0),
            0 => bytes[at] = rng.next_u32().to_le_bytes()[0],
            1 => bytes.truncate(at),
            2 => bytes.insert(at, bytes[at]),
            _ => bytes[at] ^= 1 << (rng.next_u32() % 8),
        }
    }
    bytes
}

fn look_at(name: &str, inputs: u64) {
    let holds = property(name);
    let seeds = seeds();
    for number in 0..inputs {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let input = if number.is_multiple_of(2) {
            let mut bytes = vec![0; (rng.next_u32() % LONGEST) as usize];
            rng.fill_bytes(&mut bytes);
            bytes
        } else {
            bent(&seeds[rng.next_u32() as usize % seeds.len()], &mut rng)
        };
        let held = catch_unwind(|| holds(&input));
        assert!(held.is_ok(), "{name}, number {number}: {input:02x?}");
    }
}

#[test]
fn any_plaintext_is_read_or_refused_and_written_again_the_same() {
    seeds().iter().for_each(|seed| property("plaintext")(seed));
    look_at("plaintext", INPUTS);
}

#[test]
fn a_stranger_proves_nothing() {
    look_at("stranger", SESSIONS);
}

#[test]
fn a_peer_with_the_keys_is_held_to_the_rules() {
    look_at("keyed", SESSIONS);
}

#[test]
fn any_name_of_a_peer_stays_below_the_inbox() {
    look_at("names", INPUTS);
}

#[test]
fn any_word_of_a_peer_stays_in_its_member_of_the_line() {
    look_at("lines", INPUTS);
}

#[test]
fn any_text_at_a_relay_is_read_or_refused() {
    look_at("relay", INPUTS);
}

#[test]
fn each_property_has_its_target() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut targets: Vec<_> = fs::read_dir(fuzz.join("targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut names: Vec<_> = properties::PROPERTIES.map(|(name, _)| name.to_owned()).into();
    targets.sort();
    names.sort();
    assert_eq!(targets, names);
    for name in names {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
        let target = fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("agent_wormhole_fuzz::{name}::holds")), "{name}");
    }
}
