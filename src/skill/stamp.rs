//! What makes a file ours: the version that wrote it, and a digest that says whether it is as it was written.
//!
//! Owns the one line that an installed skill has and the skill of the repository has not. It stands in the metadata of its
//! head, which no model is shown. The digest finds changes by hand; it is no signature. Line ends do not count: version
//! control may turn them. Pure.

use sha2::{Digest as _, Sha256};

use super::TEXT;

/// Before the version, in the head of the text.
const VERSION: &str = "  version: \"";
/// Before the digest, in the head of an installed text.
const DIGEST: &str = "  digest: \"";
/// Bytes of the digest that are written: more than enough to notice a change.
const DIGEST_BYTES: usize = 8;
/// The end of a head.
const RULE: &str = "---";

/// What a file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The version that wrote it.
    pub version: String,
    /// Whether it is as it was written.
    pub intact: bool,
}

/// The skill as it is installed.
#[must_use]
pub fn stamped() -> String {
    stamp(TEXT)
}

/// A text with the digest of itself in its head. One without a version there is returned as it is.
pub(super) fn stamp(text: &str) -> String {
    let mut stamped = String::with_capacity(text.len() + 32);
    let mut done = false;
    for line in text.split_inclusive('\n') {
        stamped.push_str(line);
        if !done && line.starts_with(VERSION) {
            stamped.push_str(&format!("{DIGEST}{}\"\n", digest(text)));
            done = true;
        }
    }
    stamped
}

/// What a file that may be an installed skill says; `None` where it is none.
#[must_use]
pub fn read(text: &str) -> Option<Stamp> {
    let version = version(text)?;
    let mut said = None;
    let mut rest = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.strip_prefix(DIGEST) {
            Some(value) if said.is_none() => said = Some(value.trim_end().trim_end_matches('"')),
            _ => rest.push_str(line),
        }
    }
    Some(Stamp { version, intact: said? == digest(&rest) })
}

/// The version in the head of a text, of which the beginning is enough.
#[must_use]
pub fn version(text: &str) -> Option<String> {
    let mut lines = text.lines();
    lines.next().filter(|first| *first == RULE)?;
    let found = lines.take_while(|line| *line != RULE).find_map(|line| line.strip_prefix(VERSION))?;
    Some(found.trim_end_matches('"').to_owned())
}

/// The digest of a text, whatever its line ends.
pub(super) fn digest(text: &str) -> String {
    let digest = Sha256::digest(unix(text).as_bytes());
    digest.iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// A text with the line ends of this system.
pub(super) fn unix(text: &str) -> String {
    text.replace("\r\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_says_its_version_and_that_it_is_as_it_was_written() {
        let own = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(read(&stamped()), Some(Stamp { version: own, intact: true }));
        // Nothing but that line is added.
        assert_eq!(stamped().lines().count(), TEXT.lines().count() + 1);
        assert_eq!(read(TEXT), None);
    }

    #[test]
    fn any_change_is_noticed_and_other_line_ends_are_none() {
        let stamped = stamped();
        for changed in [
            stamped.replace("# agent-wormhole", "# agent-wormhole!"),
            format!("{stamped}\nmore\n"),
            stamped.replace("license: MIT", "license: none"),
            stamped.replacen(DIGEST, "  digest: \"0", 1),
        ] {
            assert!(!read(&changed).unwrap().intact);
        }
        assert!(read(&stamped.replace('\n', "\r\n")).unwrap().intact);
    }

    #[test]
    fn what_has_no_head_or_no_version_is_not_ours() {
        for text in
            ["", "hello", "---\nname: x\n---\n", "x\n---\n  version: \"1\"\n", "---\n---\n  version: \"1\"\n"]
        {
            assert_eq!((read(text), version(text)), (None, None), "{text}");
        }
    }
}
