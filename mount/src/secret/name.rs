//! The names of secrets. Owns the type; the rule is that of all names in directories of ours ([`is_name`]), at both ends.

use std::fmt;

use crate::special::is_name;

/// A letter or `_`, then at most 63 of letters, digits, `_`, `.`, `-`: safe in every path, line and shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

/// Not a name for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a secret is a letter or _, then at most 63 letters, digits, _, . or -")]
pub struct BadSecretName;

impl SecretName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`BadSecretName`].
    pub fn parse(name: &str) -> Result<Self, BadSecretName> {
        if is_name(name) { Ok(Self(name.to_owned())) } else { Err(BadSecretName) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_everywhere() {
        let longest = format!("_{}", "x".repeat(63));
        for name in ["API_KEY", "a", "_", "id_rsa.pub", "k-1", &longest] {
            assert_eq!(SecretName::parse(name).unwrap().as_str(), name);
        }
        let long = format!("{longest}x");
        for name in [
            "",
            ".",
            "..",
            "1K",
            "-k",
            ".k",
            "a/b",
            "a b",
            "a\n",
            "a\0",
            "ключ",
            "k\u{202e}",
            "$(id)",
            "a=b",
            &long,
        ] {
            assert_eq!(SecretName::parse(name), Err(BadSecretName), "{name:?}");
        }
    }
}
