//! Codes that a relay is told: `word-word-word`, by clients of 0.1.5 and those that talk to them.
//!
//! Owns what such a code looks like and what is kept of it: a hash. The words themselves go no further than here. Does
//! not know who hosts under one.

use std::fmt;

use sha2::{Digest, Sha256};

/// Longest code in bytes: four times the longest that any known list of words makes.
const MAX_CODE: usize = 128;
/// Words in a code.
const WORDS: usize = 3;
/// Keeps the hash apart from any other hash of the same words.
const DOMAIN: &[u8] = b"agent-wormhole relay code\0";

/// The SHA-256 of a code, which is all that a store is given. Whoever has it can find the words by trying: it belongs
/// in no log, no metric and no answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeHash([u8; 32]);

/// Prints nothing: it stands for the secret of two ends.
impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeHash(..)")
    }
}

impl CodeHash {
    /// The hash of a client's code; `None` where it is not one: three words of `a` to `z`, joined by hyphens.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        let well_formed =
            code.len() <= MAX_CODE && code.split('-').count() == WORDS && code.split('-').all(is_word);
        well_formed.then(|| Self(Sha256::new().chain_update(DOMAIN).chain_update(code).finalize().into()))
    }

    /// As 64 hexadecimal digits, for a store outside this process.
    #[must_use]
    pub fn to_hex(&self) -> String {
        super::hex(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lower_case_words_and_nothing_else() {
        let long = "x".repeat(MAX_CODE - 4);
        for good in ["a-b-c", "acorn-amber-anvil", &format!("{long}-b-c")] {
            assert!(CodeHash::of(good).is_some(), "{good}");
        }
        let longer = format!("{long}x-b-c");
        for bad in [
            "", "a", "a-b", "a-b-c-d", "-b-c", "a--c", "a-b-", "A-b-c", "a-b-1", "a-b-é", "a b c", "a-b-c\n",
            &longer,
        ] {
            assert!(CodeHash::of(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn equal_codes_have_equal_hashes_that_print_nothing() {
        assert_eq!(CodeHash::of("acorn-amber-anvil"), CodeHash::of("acorn-amber-anvil"));
        assert_ne!(CodeHash::of("acorn-amber-anvil"), CodeHash::of("amber-acorn-anvil"));
        assert_eq!(format!("{:?}", CodeHash::of("a-b-c")), "Some(CodeHash(..))");
        let plain: [u8; 32] = Sha256::digest("a-b-c").into();
        assert_ne!(CodeHash::of("a-b-c"), Some(CodeHash(plain)));
    }
}
