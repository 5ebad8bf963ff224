//! Names: what a peer calls an item becomes a type that cannot leave the inbox; what the owner calls a file in the
//! outbox becomes a key that can be sent. Owns the characters and lengths that a name may have. Touches no file.

use std::fmt;
use std::path::{Component, Path};

/// Longest part of a name, in bytes: what every common file system takes.
pub const MAX_PART: usize = 255;
/// Longest name with all its parts, in bytes: PATH_MAX of Linux.
pub const MAX_PATH: usize = 4096;
/// Most parts of a name. Every part is one directory handle while it is walked.
pub const MAX_DEPTH: usize = 64;
/// Names at the top of `inbox/` that are ours.
pub const RESERVED: [&str; 6] = ["log.jsonl", "log.1.jsonl", "messages", "ask", "answer", "secrets"];

/// What stands for a part of which nothing is left.
const UNNAMED: &str = "unnamed";
/// Longest extension, with its dot, that a number is put before; a longer one is no extension.
const MAX_EXTENSION: usize = 16;

/// Where the first part of a name will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Directly in `inbox/`: our own names are taken, and nothing is hidden from `ls`.
    Inbox,
    /// In a directory that came from the peer.
    Group,
}

/// A peer's name after it was made harmless: 1 to [`MAX_DEPTH`] parts, none of them empty, `.`, `..`, over
/// [`MAX_PART`] bytes, or with a character that is `/`, NUL, control, bidi or without width.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SafeName {
    parts: Vec<String>,
}

/// The name is longer or deeper than any file system takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name has more than {MAX_PATH} bytes or {MAX_DEPTH} parts")]
pub struct NameTooLong;

impl SafeName {
    /// Makes a peer's name safe. What cannot stand is replaced, never refused: `_` for a character, `__` for `..`.
    /// A part `.git` becomes `_git` (a repository from a peer runs code at the next `git status`); at the top of the
    /// inbox a leading dot becomes `_` and a name of ours gets a number.
    ///
    /// # Errors
    /// [`NameTooLong`] over [`MAX_PATH`] bytes or [`MAX_DEPTH`] parts.
    pub fn parse(peer: &str, root: Root) -> Result<Self, NameTooLong> {
        if peer.len() > MAX_PATH {
            return Err(NameTooLong);
        }
        let mut parts: Vec<String> = Vec::new();
        for raw in peer.split('/').filter(|raw| !raw.is_empty() && *raw != ".") {
            if parts.len() == MAX_DEPTH {
                return Err(NameTooLong);
            }
            let top = parts.is_empty() && root == Root::Inbox;
            parts.push(safe_part(raw, top));
        }
        if parts.is_empty() {
            parts.push(UNNAMED.to_owned());
        }
        Ok(Self { parts })
    }

    /// All parts, outermost first.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// The directories above the last part, outermost first.
    #[must_use]
    pub fn parents(&self) -> &[String] {
        &self.parts[..self.parts.len() - 1]
    }

    /// The last part.
    #[must_use]
    pub fn last(&self) -> &str {
        self.parts.last().map_or(UNNAMED, String::as_str)
    }
}

impl fmt::Display for SafeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join("/"))
    }
}

/// A part with a number before its extension: `report-2.pdf`, `a-2.tar.gz`, `.profile-2`. Never over [`MAX_PART`].
#[must_use]
pub fn numbered(part: &str, number: u32) -> String {
    let (stem, extension) = split_extension(part);
    let suffix = format!("-{number}");
    let stem = cut(stem, MAX_PART - suffix.len() - extension.len());
    format!("{stem}{suffix}{extension}")
}

/// The name of a path below `outbox/`, with `/` between parts.
///
/// # Errors
/// [`OwnNameError`] with an escaped name to print, where it cannot be sent.
pub fn own(path: &Path) -> Result<String, OwnNameError> {
    let mut name = String::new();
    let mut depth = 0;
    for part in path.components() {
        let Component::Normal(part) = part else { return Err(OwnNameError::Strange(escape(path))) };
        let Some(part) = part.to_str() else { return Err(OwnNameError::NotUtf8(escape(path))) };
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part);
        depth += 1;
    }
    if depth == 0 {
        Err(OwnNameError::Strange(String::new()))
    } else if depth > MAX_DEPTH || name.len() > MAX_PATH {
        Err(OwnNameError::TooLong(name))
    } else {
        Ok(name)
    }
}

/// Why a name in the outbox is not sent. Each holds the name, escaped for printing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnNameError {
    /// Not UTF-8: it would have to arrive under another name.
    #[error("its name is not UTF-8; rename it")]
    NotUtf8(String),
    /// Over [`MAX_PATH`] or [`MAX_DEPTH`].
    #[error("its path has more than {MAX_PATH} bytes or {MAX_DEPTH} parts; pack it with tar")]
    TooLong(String),
    /// Not a path below the outbox.
    #[error("its path does not lie in the outbox")]
    Strange(String),
}

impl OwnNameError {
    /// The name to print.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::NotUtf8(name) | Self::TooLong(name) | Self::Strange(name) => name,
        }
    }
}

/// A path as text: bytes that are not UTF-8 as `\xNN`.
#[must_use]
pub fn escape(path: &Path) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn safe_part(raw: &str, top: bool) -> String {
    if raw == ".." {
        return "__".to_owned();
    }
    let mut part: String = raw.chars().map(|c| if is_unsafe(c) { '_' } else { c }).collect();
    if (top && part.starts_with('.')) || is_git(&part) {
        part.replace_range(..1, "_");
    }
    let (stem, extension) = split_extension(&part);
    if part.len() > MAX_PART {
        part = format!("{}{extension}", cut(stem, MAX_PART - extension.len()));
    }
    // Case is folded: on a file system that ignores it `LOG.JSONL` is our log.
    if top && RESERVED.iter().any(|ours| ours.eq_ignore_ascii_case(&part)) {
        part = numbered(&part, 2);
    }
    part
}

/// `.git` in any case, also with the dots and spaces at its end that some file systems drop.
fn is_git(part: &str) -> bool {
    part.trim_end_matches(['.', ' ']).eq_ignore_ascii_case(".git")
}

/// Whether a character may not stand in a part: a separator, or one that hides or reorders what is printed.
fn is_unsafe(c: char) -> bool {
    c == '/' || c.is_control() || is_invisible(c)
}

/// Characters that are bidi controls, have no width, or end a line without being a control.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{13430}'..='\u{1345F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Splits before the extension; `.tar` stays with what compresses it. A dot at the front makes no extension.
fn split_extension(part: &str) -> (&str, &str) {
    let Some(dot) = part.rfind('.').filter(|dot| *dot > 0 && part.len() - dot <= MAX_EXTENSION) else {
        return (part, "");
    };
    let dot = match part[..dot].strip_suffix(".tar") {
        Some(stem) if !stem.is_empty() => stem.len(),
        _ => dot,
    };
    part.split_at(dot)
}

/// The longest beginning of at most `most` bytes that ends between characters.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(peer: &str) -> String {
        SafeName::parse(peer, Root::Inbox).unwrap().to_string()
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["report.pdf", "src/main.rs", "a b/ü/日本.txt", "dir/.env", "x.tar.gz", "a\\b", "CON"]
        {
            assert_eq!(inbox(name), name);
        }
    }

    #[test]
    fn hostile_names_become_harmless() {
        for (peer, safe) in [
            ("", "unnamed"),
            ("/", "unnamed"),
            (".", "unnamed"),
            ("./", "unnamed"),
            ("..", "__"),
            ("../../etc/passwd", "__/__/etc/passwd"),
            ("/etc/passwd", "etc/passwd"),
            ("a//b/./c", "a/b/c"),
            ("a/../b", "a/__/b"),
            ("a\0b", "a_b"),
            ("a\nb\u{1b}[31m", "a_b_[31m"),
            ("a\u{7f}\u{85}", "a__"),
            ("gpj.\u{202e}exe", "gpj._exe"),
            ("a\u{200b}b\u{feff}", "a_b_"),
            ("a\u{2028}b", "a_b"),
            (".bashrc", "_bashrc"),
            ("...", "_.."),
            ("log.jsonl", "log-2.jsonl"),
            ("Log.jsonl", "Log-2.jsonl"),
            // An owner may have removed what is in their place.
            ("secrets/KEY", "secrets-2/KEY"),
            ("Secrets", "Secrets-2"),
            ("log.1.jsonl", "log.1-2.jsonl"),
            ("messages", "messages-2"),
            ("messages/0001.txt", "messages-2/0001.txt"),
            ("./messages", "messages-2"),
            ("ask/x", "ask-2/x"),
            ("Answer", "Answer-2"),
            ("d/ask/x", "d/ask/x"),
            ("p/.git/config", "p/_git/config"),
            ("p/.GIT./hooks", "p/_GIT./hooks"),
            ("p/.gitignore", "p/.gitignore"),
            ("p/messages", "p/messages"),
        ] {
            assert_eq!(inbox(peer), safe, "{peer:?}");
        }
    }

    #[test]
    fn inside_a_group_only_our_own_names_are_free() {
        let name = |peer| SafeName::parse(peer, Root::Group).unwrap().to_string();
        assert_eq!(name(".env"), ".env");
        assert_eq!(name("messages/x"), "messages/x");
        assert_eq!(name(".git"), "_git");
        assert_eq!(name("../x"), "__/x");
    }

    #[test]
    fn a_cut_or_replaced_part_cannot_become_one_of_ours() {
        // What replaces a character must not build a reserved or special name.
        assert_eq!(inbox("\u{200b}git"), "_git");
        assert!(inbox(&format!("{}.pdf", "ä".repeat(300))).ends_with(".pdf"));
        assert!(inbox(&"ä".repeat(300)).len() <= MAX_PART);
    }

    #[test]
    fn length_and_depth_are_bounded() {
        assert_eq!(SafeName::parse(&"a".repeat(MAX_PATH + 1), Root::Inbox), Err(NameTooLong));
        assert!(SafeName::parse(&["a"; MAX_DEPTH].join("/"), Root::Inbox).is_ok());
        assert_eq!(SafeName::parse(&["a"; MAX_DEPTH + 1].join("/"), Root::Inbox), Err(NameTooLong));
    }

    #[test]
    fn a_number_stands_before_the_extension() {
        for (part, safe) in [
            ("report.pdf", "report-2.pdf"),
            ("a.tar.gz", "a-2.tar.gz"),
            (".tar.gz", ".tar-2.gz"),
            ("Makefile", "Makefile-2"),
            (".profile", ".profile-2"),
            ("a.", "a-2."),
            ("v1.this-is-no-extension-at-all", "v1.this-is-no-extension-at-all-2"),
        ] {
            assert_eq!(numbered(part, 2), safe);
        }
        let long = numbered(&format!("{}.txt", "ä".repeat(125)), 1000);
        assert!(long.len() <= MAX_PART && long.ends_with("-1000.txt"), "{long}");
    }

    #[cfg(unix)]
    #[test]
    fn own_names_are_utf8_and_not_too_deep() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        assert_eq!(own(Path::new("a/b.txt")), Ok("a/b.txt".to_owned()));
        let bad = Path::new(OsStr::from_bytes(b"a\xff.txt"));
        assert_eq!(own(bad), Err(OwnNameError::NotUtf8("a\\xff.txt".to_owned())));
        assert_eq!(own(bad).unwrap_err().name(), "a\\xff.txt");
        assert!(matches!(own(Path::new(&["d"; 65].join("/"))), Err(OwnNameError::TooLong(_))));
        assert!(matches!(own(Path::new("../x")), Err(OwnNameError::Strange(_))));
    }
}
