//! Secrets: from one end to one command at the other, and to nothing and nobody else.

mod evidence;
mod handing;
mod mounted;
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand_core::{OsRng, RngCore as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::fixture::end::End;
use crate::fixture::process::{Ended, Process};
use crate::fixture::world::World;

/// A value that comes about nowhere by chance: letters and digits, as a key has them.
fn value() -> String {
    let mut bytes = [0; 24];
    OsRng.fill_bytes(&mut bytes);
    format!("sk-{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// What `sha256sum` says of a value.
fn digest(value: &str) -> String {
    hex(&Sha256::digest(value))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The forms in which a value would be recognised.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![value.as_bytes().to_vec(), hex(value.as_bytes()).into_bytes()];
    forms.push(hex(value.as_bytes()).to_uppercase().into_bytes());
    for shift in 0..3 {
        let shifted = [&b"\0\0\0"[..shift], value.as_bytes()].concat();
        for encoded in [STANDARD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            forms.push(encoded.as_bytes()[4..shifted.len() * 8 / 6].to_vec());
        }
    }
    forms
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Sends a value with `send --secret` and waits until the peer has it.
fn send(world: &World, end: &End, name: &str, value: &str) {
    let command = world.command(&["send", end.dir.to_str().unwrap(), "--secret", name, "--wait"]);
    let ended = Process::spawn_with(command, value.as_bytes()).finish();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
}

/// The event that a secret of this name has arrived.
fn arrived(end: &mut End, name: &str) -> Value {
    end.until(name, |event| event["type"] == "secret" && event["name"] == name)
}

/// `agent-wormhole run` with a shell script.
fn run(world: &World, end: &End, args: &[&str], script: &str) -> Ended {
    let dir = end.dir.to_str().unwrap();
    world.run(&[&["run", dir], args, &["--", "sh", "-c", script]].concat())
}

/// Waits until nothing more waits in the vault, and gives what became of the last.
fn until_gone(end: &End) -> Value {
    let is_empty = |state: &Value| {
        state["secrets"]["waiting"].as_array().is_some_and(Vec::is_empty)
            && state["secrets"]["gone"].as_array().is_some_and(|gone| !gone.is_empty())
    };
    end.until_state("the secrets to be gone", is_empty)["secrets"]["gone"].clone()
}
