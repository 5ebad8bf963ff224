//! The proof that both ends of a new direct connection hold the same channel (`src/PROTOCOL.md`, "Direct mode after a
//! drop").

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::ZeroizeOnDrop;

/// Bytes of a challenge and of a proof.
pub const PROOF_LEN: usize = 32;

/// The resume key `kr`. Not cloned, wiped on drop, prints nothing.
#[derive(ZeroizeOnDrop)]
pub struct ResumeKey([u8; 32]);

impl std::fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeKey(..)")
    }
}

impl ResumeKey {
    /// A key made of these bytes (32, from the key schedule).
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What the host answers: `HMAC-SHA256(kr, "host" ‖ cp ‖ ch)`.
    #[must_use]
    pub fn host_proof(&self, cp: &[u8; PROOF_LEN], ch: &[u8; PROOF_LEN]) -> [u8; PROOF_LEN] {
        self.mac(b"host", cp, ch).finalize().into_bytes().into()
    }

    /// What the peer answers: `HMAC-SHA256(kr, "peer" ‖ cp ‖ ch)`.
    #[must_use]
    pub fn peer_proof(&self, cp: &[u8; PROOF_LEN], ch: &[u8; PROOF_LEN]) -> [u8; PROOF_LEN] {
        self.mac(b"peer", cp, ch).finalize().into_bytes().into()
    }

    /// Whether `proof` is the host's, compared in constant time.
    #[must_use]
    pub fn host_proved(&self, cp: &[u8; PROOF_LEN], ch: &[u8; PROOF_LEN], proof: &[u8]) -> bool {
        self.mac(b"host", cp, ch).verify_slice(proof).is_ok()
    }

    /// Whether `proof` is the peer's, compared in constant time.
    #[must_use]
    pub fn peer_proved(&self, cp: &[u8; PROOF_LEN], ch: &[u8; PROOF_LEN], proof: &[u8]) -> bool {
        self.mac(b"peer", cp, ch).verify_slice(proof).is_ok()
    }

    fn mac(&self, who: &[u8], cp: &[u8; PROOF_LEN], ch: &[u8; PROOF_LEN]) -> Hmac<Sha256> {
        // HMAC takes a key of any length: 32 bytes cannot be refused.
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key length");
        mac.update(who);
        mac.update(cp);
        mac.update(ch);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_proves_only_itself() {
        let key = ResumeKey::new([7; 32]);
        let (cp, ch) = ([1; 32], [2; 32]);
        let host = key.host_proof(&cp, &ch);
        let peer = key.peer_proof(&cp, &ch);
        assert!(key.host_proved(&cp, &ch, &host));
        assert!(key.peer_proved(&cp, &ch, &peer));
        assert!(!key.host_proved(&cp, &ch, &peer));
        assert!(!key.peer_proved(&cp, &ch, &host));
        assert!(!key.host_proved(&ch, &cp, &host));
        assert!(!ResumeKey::new([8; 32]).host_proved(&cp, &ch, &host));
    }
}
