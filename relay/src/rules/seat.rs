//! Seats: the credential that takes an end of a channel back.
//!
//! Owns how a seat is made, kept and compared: kept as a hash, compared in constant time. Does not know who sits.

use rand_core::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::wire::{ID_LEN, Id};

/// A fresh seat, channel id or boot id.
pub fn fresh_id(rng: &mut impl RngCore) -> Id {
    let mut bytes = [0; ID_LEN];
    rng.fill_bytes(&mut bytes);
    Id::new(bytes)
}

/// The SHA-256 of a seat: what the relay keeps of it.
#[derive(Clone, Copy)]
pub struct SeatHash([u8; 32]);

/// Prints nothing: it stands for a credential.
impl std::fmt::Debug for SeatHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeatHash(..)")
    }
}

impl SeatHash {
    /// The hash of this seat.
    #[must_use]
    pub fn of(seat: &Id) -> Self {
        Self(Sha256::digest(seat.as_bytes()).into())
    }

    /// As 64 hexadecimal digits, for a store outside this process.
    #[must_use]
    pub fn to_hex(&self) -> String {
        super::hex(&self.0)
    }

    /// Whether both are of the same seat, in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What is kept of a channel that must not rise again: the hash of its id.
#[must_use]
pub fn tombstone(channel: &Id) -> [u8; 32] {
    Sha256::digest(channel.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seat_matches_itself_only() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (one, two) = (fresh_id(&mut rng), fresh_id(&mut rng));
        assert!(SeatHash::of(&one).matches(&SeatHash::of(&one)));
        assert!(!SeatHash::of(&one).matches(&SeatHash::of(&two)));
    }
}
