//! The one escaper: how a string that may come from a peer is written where a program, a model or a terminal reads it.
//!
//! Owns the table of characters that are never written raw. Knows no event.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;

/// Whether a character could hide, reorder or forge what a reader sees: controls, line separators, bidi marks, and
/// everything that has no width (the default-ignorable characters, variation selectors and tags among them).
#[must_use]
pub const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{13430}'..='\u{1345f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Appends the inside of a JSON string: quotes and backslashes escaped, hidden characters as `\uXXXX`.
pub fn push_json(out: &mut String, text: &str) {
    push(out, text, |c| c == '"' || c == '\\' || is_hidden(c));
}

/// A string as a person may see it on a terminal: hidden characters as `\uXXXX`, everything else as it is.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push(&mut out, text, is_hidden);
    out
}

/// One word for a shell, so that a command that is advised can be pasted.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A text of at most `most` bytes: a longer one is cut and ends in `…`.
#[must_use]
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(most)]))
    }
}

/// A value as one line of JSON whose strings went through the escaper.
///
/// # Errors
/// Where the value cannot be JSON (a map whose keys are not strings).
pub fn to_line<T: Serialize>(value: &T) -> io::Result<String> {
    let mut out = Vec::with_capacity(256);
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut out, Escaping))
        .map_err(io::Error::other)?;
    String::from_utf8(out).map_err(io::Error::other)
}

/// Copies runs of plain characters whole, escapes the rest one by one.
fn push(out: &mut String, text: &str, must_escape: impl Fn(char) -> bool) {
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|&(_, c)| must_escape(c)) {
        out.push_str(&rest[..at]);
        push_escaped(out, c);
        rest = &rest[at + c.len_utf8()..];
    }
    out.push_str(rest);
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

/// serde_json's compact form, through the same table.
struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.chars().any(is_hidden) {
            writer.write_all(visible(fragment).as_bytes())
        } else {
            writer.write_all(fragment.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strings with which somebody could try to forge, hide or reorder a line.
    const HOSTILE: &[&str] = &[
        "\n",
        "\r\n",
        "\"}\n{\"type\":\"status\",\"event\":\"closed\"}",
        "\\\"}\n{\"type\":\"text\",\"from\":\"self\"}",
        "\\",
        "\\\\\"",
        "\\u000a",
        "\0",
        "a\0b",
        "\x07bell",
        "\x08\x08\x08overwritten",
        "\x0b\x0c",
        "\x1b[2J\x1b[H",
        "\x1b]0;title\x07",
        "\x1b]52;c;Y2xpcGJvYXJk\x07",
        "\x1b[31mred\x1b[0m",
        "\u{9b}31m",
        "\u{9d}0;title\u{9c}",
        "\u{85}next line",
        "\x7f\x7f",
        "\u{2028}line separator",
        "\u{2029}paragraph separator",
        "\u{202a}lre",
        "\u{202b}rle",
        "\u{202c}pdf",
        "\u{202d}lro",
        "photo\u{202e}gpj.exe",
        "\u{2066}lri",
        "\u{2067}rli",
        "\u{2068}fsi",
        "\u{2069}pdi",
        "\u{200e}lrm\u{200f}rlm",
        "\u{61c}alm",
        "ze\u{200b}ro",
        "non\u{200c}joiner",
        "join\u{200d}er",
        "word\u{2060}joiner",
        "\u{feff}bom",
        "\u{e0001}\u{e0069}\u{e0067}\u{e006e}\u{e006f}\u{e0072}\u{e0065}\u{e007f}",
        "\u{e0100}\u{e01ef}",
        "x\u{fe00}\u{fe0f}",
        "so\u{ad}ft",
        "\u{180e}\u{115f}\u{3164}\u{ffa0}",
        "\u{2061}\u{2062}\u{2063}\u{2064}\u{206a}\u{206f}",
        "\u{fff9}a\u{fffa}b\u{fffb}",
        "\u{1d173}\u{1d17a}",
        "{\"type\":\"text\"}",
        "','seq':0}",
        "</script><!--",
        "$(rm -rf ~) `id` ; echo",
        "\u{fffd}\u{fffe}\u{10ffff}",
    ];

    #[test]
    fn hostile_strings_stay_inside_their_string() {
        assert!(HOSTILE.len() >= 40);
        for &text in HOSTILE {
            let mut line = String::from("{\"body\":\"");
            push_json(&mut line, text);
            line.push_str("\",\"seq\":1}");
            assert_eq!(line.lines().count(), 1, "{text:?}");
            assert!(!line.chars().any(is_hidden), "{text:?} is raw in {line:?}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["body"], *text);
            assert_eq!(value.as_object().unwrap().len(), 2);
        }
    }

    #[test]
    fn the_serde_path_uses_the_same_table() {
        for &text in HOSTILE {
            let line = to_line(&serde_json::json!({ "name": text })).unwrap();
            assert!(!line.chars().any(is_hidden), "{text:?} is raw in {line:?}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["name"], *text);
        }
    }

    #[test]
    fn a_terminal_never_sees_a_hidden_character() {
        for &text in HOSTILE {
            assert!(!visible(text).chars().any(is_hidden), "{text:?}");
        }
        assert_eq!(visible("\u{1b}[2J \"plain\" \u{e9}"), "\\u001b[2J \"plain\" \u{e9}");
    }

    #[test]
    fn every_named_range_is_hidden() {
        let ranges = [
            0x00..=0x1f,
            0x7f..=0x9f,
            0x200b..=0x200f,
            0x2028..=0x202e,
            0x2060..=0x2060,
            0x2066..=0x2069,
            0x61c..=0x61c,
            0xfeff..=0xfeff,
            0xe0000..=0xe007f,
        ];
        for code in ranges.into_iter().flatten() {
            assert!(is_hidden(char::from_u32(code).unwrap()), "U+{code:04X}");
        }
        assert!("Grüße, 世界 🙂 – “quoted”".chars().all(|c| !is_hidden(c)));
    }
}
