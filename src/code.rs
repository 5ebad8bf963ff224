//! The code that two people read to each other: `<nameplate>-<word>-<word>-<word>`.
//!
//! Owns parsing, near words and drawing. The [`Nameplate`] is public; the [`Secret`] never leaves this machine in any
//! form, does not print and is wiped when dropped (`src/PROTOCOL.md`, "Code").

use std::fmt;

use bip39::Language;
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize, Zeroizing};

/// Words in a code. 3 × 11 bits = 33 bits, with two online guesses at most.
pub const WORDS: usize = 3;
/// Longest nameplate in digits.
pub const MAX_NAMEPLATE: usize = 10;
/// A prefix of this many letters names a word of BIP-39 English.
const PREFIX: usize = 4;
/// Longest text that is looked at as a code, in bytes.
const MAX_CODE: usize = 256;
/// Longest code that a relay is told, in bytes.
const MAX_LEGACY_CODE: usize = 128;
/// Numbers of this machine alone: six digits.
const LOCAL: std::ops::Range<u32> = 100_000..1_000_000;
/// Near words named for each unknown one.
const NEAR: usize = 3;

/// The public half: digits that the relay gave out, or the port of a direct host. Beside a code that a relay is told it
/// is a number that only this machine knows the channel by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nameplate(String);

impl Nameplate {
    /// Reads one to ten digits.
    ///
    /// # Errors
    /// [`CodeError::Nameplate`].
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let digits =
            !text.is_empty() && text.len() <= MAX_NAMEPLATE && text.bytes().all(|b| b.is_ascii_digit());
        if digits { Ok(Self(text.to_owned())) } else { Err(CodeError::Nameplate) }
    }

    /// A number for a channel that has none of its own: drawn, so that it tells nothing, and longer than ports and most
    /// numbers that relays give out.
    fn local(rng: &mut impl RngCore) -> Self {
        Self((LOCAL.start + rng.next_u32() % (LOCAL.end - LOCAL.start)).to_string())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a TCP port, for a direct host.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.parse().ok().filter(|port| *port != 0)
    }
}

impl fmt::Display for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret half with the nameplate before it: the password of the key exchange. Neither prints nor serialises.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The whole normalised code: what SPAKE2 takes as its password.
    #[must_use]
    pub fn password(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text for the one line in which the host tells its owner the code.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A code, split into what may be told and what may not.
pub struct Code {
    /// What the relay learns.
    pub nameplate: Nameplate,
    /// What nobody but the two ends learns.
    pub secret: Secret,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-..)", self.nameplate)
    }
}

/// Why a text is not a code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// No digits in front, or too many.
    #[error("a code begins with a number, as in 9471-cross-clock-marble")]
    Nameplate,
    /// Not three words.
    #[error(
        "a code has a number and three words, as in 9471-cross-clock-marble; this one has {found} word(s)"
    )]
    Count {
        /// How many words it has.
        found: usize,
    },
    /// A word that is not in the list.
    #[error(
        "'{word}' is not a word of a code{}; nothing was sent, the code is still good (agent-wormhole 0.1 has words of its \
         own: for a code with @HOST from there add --any-words)",
        near_words(near)
    )]
    UnknownWord {
        /// What was typed.
        word: String,
        /// The nearest words of the list, nearest first.
        near: Vec<&'static str>,
    },
    /// Longer than any code.
    #[error("this is too long to be a code; it is a number and three words, as in 9471-cross-clock-marble")]
    TooLong,
    /// Three words without a number, where the relay is not to be told the code.
    #[error(
        "this code has no number: it is one of agent-wormhole 0.1, whose relay is told the code and can read all that is \
         sent under it; add --legacy if that relay may do that"
    )]
    Wordy,
    /// Not three plain words, where the relay is to be told the code.
    #[error(
        "with --legacy a code is three lower-case words and no number, as in acorn-amber-anvil; leave out --legacy for \
         any other code"
    )]
    NotLegacy,
}

fn near_words(near: &[&str]) -> String {
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(", ")) }
}

impl Code {
    /// Draws three words for a nameplate, independently and uniformly.
    pub fn draw(nameplate: Nameplate, rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(MAX_CODE));
        text.push_str(nameplate.as_str());
        draw_words(&mut text, rng);
        Self { nameplate, secret: Secret(text) }
    }

    /// Draws three words for a code without a number, which the relay is told.
    pub fn draw_legacy(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(MAX_CODE));
        draw_words(&mut text, rng);
        Self { nameplate: Nameplate::local(rng), secret: Secret(text) }
    }

    /// Reads a code without a number, which the relay is told: three words of any list, as they stand. `rng` gives the
    /// number that stands for it on this machine.
    ///
    /// # Errors
    /// [`CodeError::NotLegacy`], before anything is sent to anybody.
    pub fn parse_legacy(text: &str, rng: &mut impl RngCore) -> Result<Self, CodeError> {
        let text = text.trim();
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        let plain = text.split('-').count() == WORDS && text.split('-').all(is_word);
        if !plain || text.len() > MAX_LEGACY_CODE {
            return Err(CodeError::NotLegacy);
        }
        let secret = Secret(Zeroizing::new(text.to_owned()));
        Ok(Self { nameplate: Nameplate::local(rng), secret })
    }

    /// Reads a code as people type it: capitals, spaces, missing hyphens, words cut after four letters or more.
    ///
    /// With `any_words` (a code of the Python 0.1 tool) only the number and its hyphen are looked for, and the text is
    /// taken as it stands.
    ///
    /// # Errors
    /// [`CodeError`], before anything is sent to anybody.
    pub fn parse(text: &str, any_words: bool) -> Result<Self, CodeError> {
        let text = text.trim();
        if text.len() > MAX_CODE {
            return Err(CodeError::TooLong);
        }
        if is_wordy(text) {
            return Err(CodeError::Wordy);
        }
        if any_words {
            let (digits, words) = text.split_once('-').ok_or(CodeError::Nameplate)?;
            let nameplate = Nameplate::parse(digits)?;
            if words.is_empty() {
                return Err(CodeError::Count { found: 0 });
            }
            return Ok(Self { nameplate, secret: Secret(Zeroizing::new(text.to_owned())) });
        }
        let lower = Zeroizing::new(text.to_lowercase());
        let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = lower.split_at(digits);
        let nameplate = Nameplate::parse(digits)?;
        let parts: Vec<&str> = rest.split(is_separator).filter(|p| !p.is_empty()).collect();
        let words = resolve(&parts)?;
        let mut normal = Zeroizing::new(String::with_capacity(MAX_CODE));
        normal.push_str(nameplate.as_str());
        for word in words {
            normal.push('-');
            normal.push_str(word);
        }
        Ok(Self { nameplate, secret: Secret(normal) })
    }
}

/// Appends three words, independently and uniformly, with hyphens between them and to what is there.
fn draw_words(text: &mut String, rng: &mut (impl CryptoRng + RngCore)) {
    let list = Language::English.word_list();
    for _ in 0..WORDS {
        if !text.is_empty() {
            text.push('-');
        }
        // 2,048 divides 2^32: the remainder is uniform.
        let mut draw = rng.next_u32();
        text.push_str(list[draw as usize % list.len()]);
        draw.zeroize();
    }
}

/// Three words and nothing else, however they are joined.
fn is_wordy(text: &str) -> bool {
    let mut parts = text.split(is_separator).filter(|part| !part.is_empty());
    let all_words = parts.clone().all(|part| part.bytes().all(|b| b.is_ascii_alphabetic()));
    all_words && parts.by_ref().count() == WORDS
}

/// What people write between words.
fn is_separator(c: char) -> bool {
    c == '-' || c == '_' || c == '.' || c.is_whitespace()
}

/// The three words that these parts mean.
fn resolve(parts: &[&str]) -> Result<[&'static str; WORDS], CodeError> {
    if let [a, b, c] = parts {
        return Ok([word(a)?, word(b)?, word(c)?]);
    }
    let joined = Zeroizing::new(parts.concat());
    let mut found = run_together(&joined, WORDS);
    match (found.len(), found.pop()) {
        (1, Some(words)) => words.try_into().map_err(|_| CodeError::Count { found: parts.len() }),
        _ => Err(CodeError::Count { found: parts.len() }),
    }
}

/// All ways to read `text` as `count` whole words without anything between them.
fn run_together(text: &str, count: usize) -> Vec<Vec<&'static str>> {
    if count == 0 {
        return if text.is_empty() { vec![Vec::new()] } else { Vec::new() };
    }
    let mut ways = Vec::new();
    for &word in Language::English.word_list() {
        let Some(rest) = text.strip_prefix(word) else { continue };
        for mut way in run_together(rest, count - 1) {
            way.insert(0, word);
            ways.push(way);
        }
    }
    ways
}

/// An exact word wins, else the word that a prefix of four letters or more begins.
fn word(typed: &str) -> Result<&'static str, CodeError> {
    let list = Language::English.word_list();
    if let Some(exact) = list.iter().find(|w| **w == typed) {
        return Ok(exact);
    }
    let prefix =
        (typed.chars().count() >= PREFIX).then(|| list.iter().find(|w| w.starts_with(typed))).flatten();
    prefix.copied().ok_or_else(|| CodeError::UnknownWord { word: typed.to_owned(), near: nearest(typed) })
}

/// The nearest words of the list by edit distance, at most three edits away.
fn nearest(typed: &str) -> Vec<&'static str> {
    let mut near: Vec<(usize, &'static str)> = Language::English
        .word_list()
        .iter()
        .map(|w| (strsim::osa_distance(typed, w), *w))
        .filter(|(distance, w)| *distance <= 3 && *distance < w.len())
        .collect();
    near.sort_by_key(|(distance, w)| {
        (*distance, usize::from(w.as_bytes().first() != typed.as_bytes().first()))
    });
    near.truncate(NEAR);
    near.into_iter().map(|(_, w)| w).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    fn parsed(text: &str) -> Result<String, CodeError> {
        Code::parse(text, false).map(|code| code.secret.reveal().to_owned())
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let normal = "9471-cross-clock-marble";
        for text in [
            normal,
            " 9471-cross-clock-marble\n",
            "9471 Cross Clock MARBLE",
            "9471cross clock-marble",
            "9471-cros-cloc-marb",
            "9471-crossclockmarble",
            "9471crossclockmarble",
            "9471_cross.clock  marbl",
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(normal), "{text:?}");
        }
    }

    #[test]
    fn an_exact_word_wins_over_a_longer_one() {
        // "arch" is a word of its own; "arctic" begins otherwise; "car" begins "carbon", "card", "cargo".
        assert_eq!(parsed("1-arch-car-add").as_deref(), Ok("1-arch-car-add"));
    }

    #[test]
    fn a_mistyped_word_is_named_with_its_neighbours() {
        let Err(CodeError::UnknownWord { word, near }) = parsed("9471-cross-clokc-marble") else {
            panic!("must be refused")
        };
        assert_eq!(word, "clokc");
        assert_eq!(near.first(), Some(&"clock"));
        assert!(parsed("9471-cro-clock-marble").is_err(), "three letters are not enough");
        assert!(parsed("9471-clocks-clock-marble").is_err(), "longer than the word");
    }

    #[test]
    fn what_is_no_code_is_refused_with_its_reason() {
        assert_eq!(parsed("clock-marble"), Err(CodeError::Nameplate));
        for wordy in ["cross-clock-marble", "Cross clock_marble", "acorn-amber-anvil"] {
            assert_eq!(parsed(wordy), Err(CodeError::Wordy), "{wordy}");
        }
        assert_eq!(parsed(""), Err(CodeError::Nameplate));
        assert_eq!(parsed("12345678901-cross-clock-marble"), Err(CodeError::Nameplate));
        assert_eq!(parsed("9471-cross-clock"), Err(CodeError::Count { found: 2 }));
        assert_eq!(parsed("9471"), Err(CodeError::Count { found: 0 }));
        assert_eq!(parsed(&format!("1-{}", "x".repeat(300))), Err(CodeError::TooLong));
    }

    #[test]
    fn any_words_are_taken_as_they_stand() {
        let code = Code::parse("40123-acorn-AMBER-anvil", true).unwrap();
        assert_eq!(code.secret.password(), b"40123-acorn-AMBER-anvil");
        assert_eq!(code.nameplate.port(), Some(40123));
        assert!(Code::parse("acorn-amber-anvil", true).is_err());
    }

    #[test]
    fn a_drawn_code_reads_back_and_does_not_print() {
        for _ in 0..200 {
            let code = Code::draw(Nameplate::parse("4711").unwrap(), &mut OsRng);
            let text = code.secret.reveal().to_owned();
            assert_eq!(parsed(&text).as_deref(), Ok(text.as_str()));
            assert_eq!(format!("{code:?}"), "Code(4711-..)");
        }
    }

    #[test]
    fn a_code_for_the_relay_is_three_words_as_they_stand() {
        let code = Code::parse_legacy(" acorn-amber-anvil\n", &mut OsRng).unwrap();
        assert_eq!(code.secret.password(), b"acorn-amber-anvil");
        let number = code.nameplate.as_str();
        assert!(number.len() == 6 && !format!("{code:?}").contains("amber"), "{code:?}");
        let longest = format!("{}-b-c", "x".repeat(MAX_LEGACY_CODE - 4));
        assert!(Code::parse_legacy(&longest, &mut OsRng).is_ok());
        let longer = format!("x{longest}");
        for bad in [
            "",
            "a-b",
            "a-b-c-d",
            "Acorn-amber-anvil",
            "a b c",
            "9471-cross-clock-marble",
            "a-b-3",
            "a--c",
            &longer,
        ] {
            assert_eq!(Code::parse_legacy(bad, &mut OsRng).err(), Some(CodeError::NotLegacy), "{bad}");
        }
        for _ in 0..100 {
            let drawn = Code::draw_legacy(&mut OsRng);
            let text = drawn.secret.reveal();
            assert!(Code::parse_legacy(text, &mut OsRng).is_ok(), "{text}");
            assert_eq!(parsed(text), Err(CodeError::Wordy));
        }
    }

    #[test]
    fn four_letters_are_unique_in_the_list() {
        let list = Language::English.word_list();
        let mut prefixes: Vec<&str> = list.iter().map(|w| &w[..w.len().min(PREFIX)]).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(prefixes.len(), 2048);
    }
}
