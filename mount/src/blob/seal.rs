//! AES-256-GCM over chunks at rest.
//!
//! Owns the key and its nonces. The key is made here, never leaves and is wiped on drop. The nonce is a 96-bit
//! big-endian counter that counts every seal, so none is used twice; it and the tag stay in memory, and so nothing that
//! was sealed before passes for what was sealed last.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, Nonce, Tag};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use rand_core::{OsRng, RngCore as _};
use zeroize::Zeroizing;

/// Most chunks that are sealed under the key: 2^40 chunks are at most 2^52 blocks of AES, which leaves a chance of 2^-25
/// to tell them from noise. A million seals in each second reach it after twelve days.
const MAX_SEALS: u64 = 1 << 40;

/// The key has sealed as much as it may; only a new process has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of this process has sealed as much as it may; open the channel again")]
pub struct Exhausted;

/// A chunk that is not what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored chunk was altered; what was in it is lost")]
pub struct Damaged;

impl From<Damaged> for io::Error {
    fn from(damaged: Damaged) -> Self {
        Self::new(io::ErrorKind::InvalidData, damaged)
    }
}

/// What opens one sealed chunk, besides the key.
pub(super) struct Seal {
    nonce: u64,
    tag: Tag<Aes256Gcm>,
}

/// The key of a store.
pub(super) struct Sealer {
    cipher: Aes256Gcm,
    /// The next nonce.
    next: AtomicU64,
}

impl Sealer {
    /// A key from the system's generator.
    pub(super) fn new() -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        OsRng.try_fill_bytes(&mut *key).map_err(|error| io::Error::other(error.to_string()))?;
        let cipher = Aes256Gcm::new_from_slice(&*key).map_err(io::Error::other)?;
        Ok(Self { cipher, next: AtomicU64::new(0) })
    }

    /// Seals in place, bound to `place`.
    pub(super) fn seal(&self, place: &[u8], bytes: &mut [u8]) -> io::Result<Seal> {
        let one_more = |next: u64| (next < MAX_SEALS).then_some(next + 1);
        let nonce = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| io::Error::other(Exhausted))?;
        let tag = self
            .cipher
            .encrypt_inout_detached(&wide(nonce), place, InOutBuf::from(bytes))
            .map_err(io::Error::other)?;
        Ok(Seal { nonce, tag })
    }

    /// Opens in place what was sealed with this seal and bound to the same `place`.
    pub(super) fn open(&self, seal: &Seal, place: &[u8], bytes: &mut [u8]) -> Result<(), Damaged> {
        self.cipher
            .decrypt_inout_detached(&wide(seal.nonce), place, InOutBuf::from(bytes), &seal.tag)
            .map_err(|_| Damaged)
    }
}

fn wide(number: u64) -> Nonce<Aes256Gcm> {
    let mut nonce = Nonce::<Aes256Gcm>::default();
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_opens_only_as_and_where_it_was_sealed() {
        let (sealer, other) = (Sealer::new().unwrap(), Sealer::new().unwrap());
        let mut sealed = *b"a chunk";
        let seal = sealer.seal(b"here", &mut sealed).unwrap();
        assert_ne!(&sealed, b"a chunk");
        let attempt = |sealer: &Sealer, seal: &Seal, place: &[u8], flip: Option<usize>| {
            let mut bytes = sealed;
            if let Some(at) = flip {
                bytes[at] ^= 1;
            }
            sealer.open(seal, place, &mut bytes).map(|()| bytes)
        };
        assert_eq!(attempt(&sealer, &seal, b"here", None), Ok(*b"a chunk"));
        assert_eq!(attempt(&sealer, &seal, b"there", None), Err(Damaged));
        assert_eq!(attempt(&other, &seal, b"here", None), Err(Damaged));
        for at in 0..sealed.len() {
            assert_eq!(attempt(&sealer, &seal, b"here", Some(at)), Err(Damaged));
        }
        let again = sealer.seal(b"here", &mut { *b"a chunk" }).unwrap();
        assert_eq!(attempt(&sealer, &again, b"here", None), Err(Damaged));
    }

    #[test]
    fn no_nonce_is_used_twice_and_the_last_one_is_an_error() {
        let sealer = Sealer::new().unwrap();
        let mut bytes = [0; 3];
        let first = sealer.seal(b"", &mut bytes).unwrap().nonce;
        assert_ne!(first, sealer.seal(b"", &mut bytes).unwrap().nonce);
        sealer.next.store(MAX_SEALS - 1, Ordering::Relaxed);
        assert_eq!(sealer.seal(b"", &mut bytes).unwrap().nonce, MAX_SEALS - 1);
        for _ in 0..3 {
            let error = sealer.seal(b"", &mut bytes).err().unwrap();
            assert!(error.get_ref().unwrap().is::<Exhausted>());
        }
        assert_eq!(sealer.next.load(Ordering::Relaxed), MAX_SEALS);
    }
}
