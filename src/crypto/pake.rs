//! SPAKE2 over Ed25519: from a code to a shared key (RFC 9382 in the form of `python-spake2`: empty identities, side
//! byte in front of the element).

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, RngCore, SeedableRng};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::code::Secret;

/// Bytes of a SPAKE2 message: the side byte and the element.
pub const MESSAGE_LEN: usize = 33;

/// Which side of the exchange this end is. The host is side A, the peer side B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Made the channel.
    Host,
    /// Was given the code.
    Peer,
}

impl Role {
    /// The word in the version message and in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Peer => "peer",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Peer,
            Self::Peer => Self::Host,
        }
    }
}

/// A SPAKE2 message that is not one. Not a guess: it says nothing about the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other end's first message is not a key exchange message")]
pub struct MalformedMessage;

/// The SPAKE2 key `K`. Not cloned, wiped on drop, prints nothing.
#[derive(ZeroizeOnDrop)]
pub struct SharedKey([u8; 32]);

impl SharedKey {
    /// The key's bytes, for the key schedule alone.
    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// One run of the exchange, with a scalar of its own.
///
/// The scalar's seed is kept so that the one message of this run can be judged against the confirmations of several
/// connections, one at a time, until one opens or burns the code.
pub struct Pake {
    role: Role,
    password: Zeroizing<Vec<u8>>,
    seed: Zeroizing<[u8; 32]>,
    message: [u8; MESSAGE_LEN],
}

impl Pake {
    /// Draws a scalar and makes this end's message.
    pub fn new(role: Role, secret: &Secret, rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        let password = Zeroizing::new(secret.password().to_vec());
        let mut pake = Self { role, password, seed, message: [0; MESSAGE_LEN] };
        let (_, message) = pake.start();
        pake.message.copy_from_slice(&message);
        pake
    }

    /// This end's message: the same bytes for the whole run.
    #[must_use]
    pub const fn message(&self) -> &[u8; MESSAGE_LEN] {
        &self.message
    }

    /// The key shared with the sender of `theirs`, if both hold the same code.
    ///
    /// # Errors
    /// [`MalformedMessage`] for a wrong length, a wrong side or no element of the group.
    pub fn shared(&self, theirs: &[u8]) -> Result<SharedKey, MalformedMessage> {
        let (state, _) = self.start();
        let mut key = state.finish(theirs).map_err(|_| MalformedMessage)?;
        let bytes = <[u8; 32]>::try_from(key.as_slice()).map_err(|_| MalformedMessage);
        key.zeroize();
        bytes.map(SharedKey)
    }

    fn start(&self) -> (Spake2<Ed25519Group>, Vec<u8>) {
        let rng = ChaCha20Rng::from_seed(*self.seed);
        let nobody = Identity::new(b"");
        let password = Password::new(self.password.as_slice());
        match self.role {
            Role::Host => Spake2::start_a_with_rng(&password, &nobody, &nobody, rng),
            Role::Peer => Spake2::start_b_with_rng(&password, &nobody, &nobody, rng),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Code;
    use rand_core::OsRng;

    fn pake(role: Role, code: &str) -> Pake {
        Pake::new(role, &Code::parse(code, false).unwrap().secret, &mut OsRng)
    }

    #[test]
    fn one_code_gives_one_key_and_another_code_another() {
        let host = pake(Role::Host, "1-abandon-ability-able");
        let peer = pake(Role::Peer, "1-abandon-ability-able");
        let stranger = pake(Role::Peer, "1-abandon-ability-about");
        let key = host.shared(peer.message()).unwrap();
        assert_eq!(key.as_bytes(), peer.shared(host.message()).unwrap().as_bytes());
        assert_eq!(key.as_bytes(), host.shared(peer.message()).unwrap().as_bytes(), "judged twice, equal");
        assert_ne!(
            host.shared(stranger.message()).unwrap().as_bytes(),
            stranger.shared(host.message()).unwrap().as_bytes()
        );
    }

    #[test]
    fn a_message_of_the_wrong_shape_is_refused() {
        let host = pake(Role::Host, "1-abandon-ability-able");
        let own = *host.message();
        assert!(host.shared(&own).is_err(), "reflected");
        assert!(host.shared(b"").is_err());
        assert!(host.shared(&[0x42; 34]).is_err());
        let refused = (0..64).filter(|y| {
            let mut message = [0; 33];
            (message[0], message[1]) = (0x42, *y);
            host.shared(&message).is_err()
        });
        assert!(refused.count() > 16, "about half of all y are no point of the curve");
    }
}
