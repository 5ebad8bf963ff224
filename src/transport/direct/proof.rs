//! The proof at the start of a connection that continues a channel (`src/PROTOCOL.md`, "Direct mode after a drop").
//!
//! Owns the three messages and their order. Nothing is answered before a first message that is one.

use bytes::{BufMut as _, Bytes, BytesMut};
use rand_core::{OsRng, RngCore};

use crate::crypto::resume::{PROOF_LEN, ResumeKey};

use super::wire::{Expect, Reader, Writer};

/// Longest frame of the proof in bytes.
const MAX_PROOF_FRAME: usize = 128;
/// First byte of each message.
const RESUME: u8 = b'R';
/// Second byte: the peer's challenge.
const CHALLENGE: u8 = 1;
/// Second byte: the host's challenge and proof.
const ANSWER: u8 = 2;
/// Second byte: the peer's proof.
const CONFIRM: u8 = 3;

/// The host's part. `None`: this is not our peer.
pub(super) async fn admit(key: &ResumeKey, reader: &mut Reader, writer: &mut Writer) -> Option<()> {
    let first = reader.next(Expect::UpTo(MAX_PROOF_FRAME)).await.ok()?;
    let [RESUME, CHALLENGE, cp @ ..] = first.as_ref() else { return None };
    let cp: &[u8; PROOF_LEN] = cp.try_into().ok()?;
    let ch = challenge()?;
    writer.push(message(ANSWER, &[&ch, &key.host_proof(cp, &ch)]));
    writer.flush().await.ok()?;
    let third = reader.next(Expect::UpTo(MAX_PROOF_FRAME)).await.ok()?;
    let [RESUME, CONFIRM, proof @ ..] = third.as_ref() else { return None };
    key.peer_proved(cp, &ch, proof).then_some(())
}

/// The peer's part. `None`: this is not our host.
pub(super) async fn present(key: &ResumeKey, reader: &mut Reader, writer: &mut Writer) -> Option<()> {
    let cp = challenge()?;
    writer.push(message(CHALLENGE, &[&cp]));
    writer.flush().await.ok()?;
    let second = reader.next(Expect::UpTo(MAX_PROOF_FRAME)).await.ok()?;
    let [RESUME, ANSWER, rest @ ..] = second.as_ref() else { return None };
    let (ch, proof) = rest.split_first_chunk::<PROOF_LEN>()?;
    if !key.host_proved(&cp, ch, proof) {
        return None;
    }
    writer.push(message(CONFIRM, &[&key.peer_proof(&cp, ch)]));
    writer.flush().await.ok()
}

/// A fresh challenge. `None` where the system has no randomness: then nothing can be proved.
fn challenge() -> Option<[u8; PROOF_LEN]> {
    let mut bytes = [0; PROOF_LEN];
    OsRng.try_fill_bytes(&mut bytes).ok()?;
    Some(bytes)
}

fn message(kind: u8, parts: &[&[u8; PROOF_LEN]]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(2 + PROOF_LEN * parts.len());
    bytes.put_u8(RESUME);
    bytes.put_u8(kind);
    for part in parts {
        bytes.put_slice(part.as_slice());
    }
    bytes.freeze()
}
