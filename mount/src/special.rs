//! The directories of ours in `outbox/` and `inbox/`: what is written there is no file, but an item of another kind.
//!
//! Owns what they are called, which paths lie in them, and the rule for names there. Touches no file.

use crate::Kind;

/// Longest name in one of them, in bytes.
pub const MAX_NAME: usize = 64;

/// One of the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// Questions.
    Ask,
    /// Answers, each under the name of its question.
    Answer,
}

impl Special {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ask, Self::Answer];

    /// Its name in `outbox/` and in `inbox/`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Answer => "answer",
        }
    }

    /// What is written there.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Ask => Kind::Ask,
            Self::Answer => Kind::Answer,
        }
    }

    /// The directory that is for such items.
    #[must_use]
    pub const fn for_kind(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Ask => Some(Self::Ask),
            Kind::Answer => Some(Self::Answer),
            Kind::Text | Kind::File | Kind::Dir | Kind::Group | Kind::Secret => None,
        }
    }

    /// The directory of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|special| special.as_str() == name)
    }

    /// The directory that a path relative to `outbox/` lies in, and the rest of the path.
    #[must_use]
    pub fn of(path: &str) -> Option<(Self, &str)> {
        let (dir, rest) = path.split_once('/')?;
        Some((Self::named(dir)?, rest))
    }
}

/// Whether a name can stand in such a directory: a letter or `_`, then letters, digits, `_`, `.` and `-`. So it is the
/// name of a variable, too, where it is short of the last two, and needs no quotes in a shell.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && name.bytes().all(plain)
}

/// Why another name is not sent.
pub const BAD_NAME: &str =
    "a name there is a letter or `_`, then at most 63 letters, digits, `_`, `.` or `-`; rename it";
/// Why a directory, a link or a device there is not sent.
pub const NO_FILE: &str = "only files can be sent there; put it directly into outbox/";
/// Why a question or an answer is not sent that was written over another one.
pub const WRITTEN_OVER: &str = "it was written again before it could be sent, and nobody can tell whose the answer would be: neither is sent; \
     write each under a name of its own";
/// Why what has the name of such a directory is not sent.
pub const TAKEN: &str = "its name is that of a directory of the channel's own; rename it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_protocol() {
        for name in ["x", "_", "API_KEY", "build.42-b", "A"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for name in ["", "1", ".x", "-x", "a b", "a/b", "ä", "a\n", "a\0", "a:b", &long] {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name(&long[1..]));
    }

    #[test]
    fn a_path_lies_in_the_directory_that_it_begins_with() {
        assert_eq!(Special::of("ask/x"), Some((Special::Ask, "x")));
        assert_eq!(Special::of("answer/x/y"), Some((Special::Answer, "x/y")));
        for path in ["ask", "asks/x", "d/ask/x", ""] {
            assert_eq!(Special::of(path), None, "{path}");
        }
        for special in Special::ALL {
            assert_eq!(Special::named(special.as_str()), Some(special));
            assert_eq!(Special::for_kind(special.kind()), Some(special));
            assert!(
                crate::name::RESERVED.contains(&special.as_str()),
                "a peer's file must not take its place"
            );
        }
    }
}
