//! Tokens: what a closed relay wants to see.
//!
//! Owns the file and the comparison. Tokens are kept as hashes, and what a client shows is hashed before it is compared:
//! how long that takes tells nothing of either.

use std::path::PathBuf;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::EdgeError;
use super::watched;

/// A token has at least this many characters: fewer can be guessed.
pub(super) const LEAST: usize = 16;
/// How the header begins, whatever its capitals (RFC 9110 section 11.1).
const SCHEME: &str = "bearer";

/// The tokens that let a client in: several while one takes the place of another.
#[derive(Debug)]
pub(super) struct Tokens {
    hashes: Vec<[u8; 32]>,
}

/// Reads a token file: one a line; empty lines are none.
pub(super) fn load(paths: &[PathBuf]) -> Result<Tokens, EdgeError> {
    let mut hashes = Vec::new();
    for path in paths {
        let bytes = watched::read(path)?;
        let before = hashes.len();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let token = line.trim_ascii();
            let fits = token.len() >= LEAST && token.iter().all(u8::is_ascii_graphic);
            match (token.is_empty(), fits) {
                (true, _) => {}
                (false, true) => hashes.push(Sha256::digest(token).into()),
                (false, false) => return Err(EdgeError::Token { path: path.clone(), line: number + 1 }),
            }
        }
        if hashes.len() == before {
            return Err(EdgeError::Token { path: path.clone(), line: 1 });
        }
    }
    Ok(Tokens { hashes })
}

impl Tokens {
    /// Whether a request shows one of them.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(shown) = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) else {
            return false;
        };
        let shown: [u8; 32] = Sha256::digest(shown).into();
        // All of them are compared, so that time does not tell which one it was.
        let any = self.hashes.iter().fold(Choice::from(0), |any, hash| any | hash.ct_eq(&shown));
        any.into()
    }
}

/// The token of `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    scheme.eq_ignore_ascii_case(SCHEME.as_bytes()).then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// Tokens of a file with this content.
    fn tokens(content: &str) -> Result<Tokens, EdgeError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        load(&[file.path().to_owned()])
    }

    fn admits(tokens: &Tokens, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        tokens.admit(&headers)
    }

    #[test]
    fn each_line_lets_in_and_nothing_else_does() {
        let tokens = tokens("  0123456789abcdef\r\n\nfedcba9876543210fedcba\n").expect("tokens");
        assert!(admits(&tokens, "Bearer 0123456789abcdef"));
        assert!(admits(&tokens, "bearer  fedcba9876543210fedcba"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer0123456789abcdef",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!admits(&tokens, wrong), "{wrong:?}");
        }
        assert!(!tokens.admit(&HeaderMap::new()));
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused_without_being_told() {
        for (content, bad) in [
            ("", 1),
            ("\n \n", 1),
            ("hunter2\n", 1),
            ("0123456789abcdef\nhunter2\n", 2),
            ("with a space in it\n", 1),
        ] {
            let error = tokens(content).expect_err("refused");
            assert!(matches!(error, EdgeError::Token { line, .. } if line == bad), "{content:?}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
