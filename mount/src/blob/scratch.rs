//! Buffers of one chunk for what is opened or is going to be sealed.
//!
//! Owns their wiping: a buffer goes back as zeros, so no plaintext stays behind in memory that may be swapped.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize as _;

use super::CHUNK;

/// Most buffers that are kept for the next who needs one: 1 MiB.
const MAX_KEPT: usize = 16;

/// Buffers that nobody uses, all zeros.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Box<[u8]>>>);

impl Pool {
    pub(super) fn take(&self) -> Scratch<'_> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = kept.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
        Scratch { pool: self, buffer, used: 0 }
    }
}

/// A buffer of one chunk.
pub(super) struct Scratch<'a> {
    pool: &'a Pool,
    buffer: Box<[u8]>,
    /// What may not be zeros.
    used: usize,
}

impl Scratch<'_> {
    /// Its first bytes, zeros at first.
    pub(super) fn bytes(&mut self, len: usize) -> &mut [u8] {
        self.used = self.used.max(len);
        &mut self.buffer[..len]
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        // It is used again, so this is not optimised away.
        buffer[..self.used].fill(0);
        let mut kept = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT {
            kept.push(buffer);
        } else {
            drop(kept);
            buffer.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_as_zeros_and_few_are_kept() {
        let pool = Pool::default();
        pool.take().bytes(1000).fill(7);
        assert_eq!(pool.take().bytes(CHUNK), [0; CHUNK]);
        let many: Vec<_> = (0..MAX_KEPT + 3).map(|_| pool.take()).collect();
        drop(many);
        assert_eq!(pool.0.lock().unwrap().len(), MAX_KEPT);
    }
}
