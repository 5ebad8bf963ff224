//! The key schedule: from the SPAKE2 key to one key for each direction (`src/PROTOCOL.md`, "Keys").

use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::pake::{Role, SharedKey};
use super::resume::ResumeKey;
use super::seal::{LegacyOpener, LegacySealer, Opener, Sealer};

/// What both ends said, in the order that the salt takes it.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    /// The host's SPAKE2 message.
    pub host_spake: &'a [u8],
    /// The peer's SPAKE2 message.
    pub peer_spake: &'a [u8],
    /// The host's version message as opened.
    pub host_version: &'a [u8],
    /// The peer's version message as opened.
    pub peer_version: &'a [u8],
}

/// The 0.1 keys, which seal the version messages and everything towards a 0.1 peer.
#[must_use]
pub fn legacy(key: &SharedKey, role: Role) -> (LegacySealer, LegacyOpener) {
    let to_peer = cipher(key, None, b"host-to-peer");
    let to_host = cipher(key, None, b"peer-to-host");
    match role {
        Role::Host => (LegacySealer::new(to_peer), LegacyOpener::new(to_host)),
        Role::Peer => (LegacySealer::new(to_host), LegacyOpener::new(to_peer)),
    }
}

/// The protocol-2 keys, bound to all that was said.
#[must_use]
pub fn protocol2(key: &SharedKey, role: Role, transcript: &Transcript<'_>) -> (Sealer, Opener) {
    let mut hash = Sha256::new();
    for part in
        [transcript.host_spake, transcript.peer_spake, transcript.host_version, transcript.peer_version]
    {
        // Handshake frames are at most 16 KiB: the length fits.
        hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(part);
    }
    let salt: [u8; 32] = hash.finalize().into();
    let to_peer = cipher(key, Some(&salt), b"agent-wormhole/2 host-to-peer");
    let to_host = cipher(key, Some(&salt), b"agent-wormhole/2 peer-to-host");
    match role {
        Role::Host => (Sealer::new(to_peer), Opener::new(to_host)),
        Role::Peer => (Sealer::new(to_host), Opener::new(to_peer)),
    }
}

/// The key that resumes a direct link. It depends on the SPAKE2 messages alone: a peer that never saw the host's
/// version holds it too.
#[must_use]
pub fn resume(key: &SharedKey, host_spake: &[u8], peer_spake: &[u8]) -> ResumeKey {
    let salt: [u8; 32] = Sha256::new().chain_update(host_spake).chain_update(peer_spake).finalize().into();
    ResumeKey::new(*expand(key, Some(&salt), b"agent-wormhole/2 resume"))
}

fn cipher(key: &SharedKey, salt: Option<&[u8]>, info: &[u8]) -> Aes256Gcm {
    Aes256Gcm::new((&*expand(key, salt, info)).into())
}

fn expand(key: &SharedKey, salt: Option<&[u8]>, info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut okm = Zeroizing::new([0; 32]);
    // 32 bytes are far below HKDF's bound of 255 × 32.
    #[allow(clippy::expect_used)]
    Hkdf::<Sha256>::new(salt, key.as_bytes()).expand(info, okm.as_mut()).expect("32 bytes can be expanded");
    okm
}
