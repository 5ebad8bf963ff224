//! AES-256-GCM in place: records of protocol 2, frames of 0.1.
//!
//! Owns nonces: a protocol-2 nonce is `kind as u32 BE ‖ number as u64 BE`, a 0.1 nonce is a 96-bit big-endian counter
//! (NIST SP 800-38D). Which number comes next is the session's business; it never seals two records under one.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, Nonce, Tag};

/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

/// A record or frame that does not open: altered, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record does not open")]
pub struct OpenError;

fn nonce(kind: u8, number: u64) -> Nonce<Aes256Gcm> {
    let mut nonce = Nonce::<Aes256Gcm>::default();
    nonce[3] = kind;
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn seal(cipher: &Aes256Gcm, nonce: &Nonce<Aes256Gcm>, aad: &[u8], body: &mut [u8]) -> Tag<Aes256Gcm> {
    // A frame is at most 10 MiB, AES-GCM takes 64 GiB.
    #[allow(clippy::expect_used)]
    cipher.encrypt_inout_detached(nonce, aad, InOutBuf::from(body)).expect("a frame is short enough")
}

fn open(
    cipher: &Aes256Gcm,
    nonce: &Nonce<Aes256Gcm>,
    aad: &[u8],
    sealed: &mut [u8],
) -> Result<usize, OpenError> {
    let len = sealed.len().checked_sub(TAG_LEN).ok_or(OpenError)?;
    let (body, tag) = sealed.split_at_mut(len);
    let tag = Tag::<Aes256Gcm>::try_from(&*tag).map_err(|_| OpenError)?;
    cipher.decrypt_inout_detached(nonce, aad, InOutBuf::from(body), &tag).map_err(|_| OpenError)?;
    Ok(len)
}

/// Seals what this end sends.
pub struct Sealer(Aes256Gcm);

impl Sealer {
    pub(super) const fn new(cipher: Aes256Gcm) -> Self {
        Self(cipher)
    }

    /// Encrypts `record[header_len..]` in place, bound to the header, and appends the tag.
    pub fn seal(&self, kind: u8, number: u64, record: &mut Vec<u8>, header_len: usize) {
        let (header, body) = record.split_at_mut(header_len);
        let tag = seal(&self.0, &nonce(kind, number), header, body);
        record.extend_from_slice(&tag);
    }
}

/// Opens what the other end sent.
pub struct Opener(Aes256Gcm);

impl Opener {
    pub(super) const fn new(cipher: Aes256Gcm) -> Self {
        Self(cipher)
    }

    /// Decrypts `sealed` (ciphertext and tag) in place and returns the plaintext's length.
    ///
    /// # Errors
    /// [`OpenError`]; `sealed` is unusable then.
    pub fn open(&self, kind: u8, number: u64, header: &[u8], sealed: &mut [u8]) -> Result<usize, OpenError> {
        open(&self.0, &nonce(kind, number), header, sealed)
    }
}

/// Seals version messages, and everything towards a 0.1 peer.
pub struct LegacySealer {
    cipher: Aes256Gcm,
    counter: u64,
}

impl LegacySealer {
    pub(super) const fn new(cipher: Aes256Gcm) -> Self {
        Self { cipher, counter: 0 }
    }

    /// Encrypts in place under the next counter and appends the tag.
    #[must_use]
    pub fn seal(&mut self, mut plain: Vec<u8>) -> Vec<u8> {
        let tag = seal(&self.cipher, &nonce(0, self.counter), b"", &mut plain);
        self.counter += 1;
        plain.extend_from_slice(&tag);
        plain
    }
}

/// Opens version messages, and everything from a 0.1 peer.
pub struct LegacyOpener {
    cipher: Aes256Gcm,
    counter: u64,
}

impl LegacyOpener {
    pub(super) const fn new(cipher: Aes256Gcm) -> Self {
        Self { cipher, counter: 0 }
    }

    /// Decrypts in place under the next counter and returns the plaintext's length.
    ///
    /// # Errors
    /// [`OpenError`]; the counter stays, `sealed` is unusable.
    pub fn open(&mut self, sealed: &mut [u8]) -> Result<usize, OpenError> {
        let len = open(&self.cipher, &nonce(0, self.counter), b"", sealed)?;
        self.counter += 1;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_gcm::KeyInit;

    fn cipher(byte: u8) -> Aes256Gcm {
        Aes256Gcm::new(&[byte; 32].into())
    }

    #[test]
    fn a_record_opens_only_as_it_was_sealed() {
        let (sealer, opener) = (Sealer::new(cipher(1)), Opener::new(cipher(1)));
        let mut record = b"headerbody".to_vec();
        sealer.seal(1, 7, &mut record, 6);
        assert_eq!(record.len(), 10 + TAG_LEN);
        let attempt = |kind, number, header: &[u8], flip: Option<usize>| {
            let mut sealed = record[6..].to_vec();
            if let Some(at) = flip {
                sealed[at] ^= 1;
            }
            opener.open(kind, number, header, &mut sealed).map(|len| sealed[..len].to_vec())
        };
        assert_eq!(attempt(1, 7, b"header", None).as_deref(), Ok(&b"body"[..]));
        assert_eq!(attempt(2, 7, b"header", None), Err(OpenError));
        assert_eq!(attempt(1, 8, b"header", None), Err(OpenError));
        assert_eq!(attempt(1, 7, b"Header", None), Err(OpenError));
        for at in 0..4 + TAG_LEN {
            assert_eq!(attempt(1, 7, b"header", Some(at)), Err(OpenError));
        }
        assert_eq!(opener.open(1, 7, b"header", &mut [0; 15]), Err(OpenError));
    }

    #[test]
    fn legacy_counters_advance_together() {
        let (mut sealer, mut opener) = (LegacySealer::new(cipher(2)), LegacyOpener::new(cipher(2)));
        let mut first = sealer.seal(b"one".to_vec());
        let mut second = sealer.seal(b"two".to_vec());
        assert_eq!(opener.open(&mut second.clone()), Err(OpenError));
        assert_eq!(opener.open(&mut first).map(|n| first[..n].to_vec()).as_deref(), Ok(&b"one"[..]));
        assert_eq!(opener.open(&mut second).map(|n| second[..n].to_vec()).as_deref(), Ok(&b"two"[..]));
    }
}
