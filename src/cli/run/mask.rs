//! Hides secrets in a stream of output: in themselves, and as programs usually encode them.
//!
//! Owns which forms are looked for, and how they are found across the borders of what was read. Performs no I/O. What is
//! printed in pieces, compressed, encrypted or encoded in another way is not found.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Shorter secrets, lines and encodings are found by chance in what is none: of a shorter secret the exact form alone is
/// looked for.
const SHORTEST: usize = 8;
/// Columns after which `base64`, and `openssl base64`, break a line.
const COLUMNS: [usize; 2] = [76, 64];
/// What percent-encoding leaves plain besides letters and digits, and what it makes of a space: RFC 3986 and curl; Python's
/// `quote`; JavaScript's `encodeURIComponent`; Python's `quote_plus`; forms of the web.
const PERCENT: [(&[u8], &str); 5] =
    [(b"-._~", "%20"), (b"-._~/", "%20"), (b"-._~!'()*", "%20"), (b"-._~", "+"), (b"-._*", "+")];

/// One form of a secret.
struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    /// Which label takes its place.
    label: usize,
}

/// All that is to be hidden.
#[derive(Default)]
pub(super) struct Mask {
    /// In the order of their bytes, none twice: a peer may have sent a secret of two thousand lines, and each place of the
    /// output is compared with few of them.
    patterns: Vec<Pattern>,
    labels: Vec<String>,
}

impl Mask {
    /// Hides each value under its name.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut mask = Self::default();
        for (name, value) in values {
            mask.add(name, value);
        }
        // Of the same bytes under two names the first name stays.
        mask.patterns.sort_by(|one, other| one.bytes.cmp(&other.bytes));
        mask.patterns.dedup_by(|later, first| later.bytes == first.bytes);
        mask
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        let label = self.labels.len();
        self.labels.push(format!("[secret {name}]"));
        // Programs drop the white space around what they read, such as the end of a line of another system.
        let plain = value.trim_ascii();
        if plain.is_empty() {
            return;
        }
        for whole in [value, plain] {
            self.pattern(label, whole.to_vec(), 1);
            if whole.len() >= SHORTEST {
                encodings(whole).into_iter().for_each(|form| self.pattern(label, form, SHORTEST));
            }
        }
        for line in value.split(|byte| *byte == b'\n') {
            self.pattern(label, line.strip_suffix(b"\r").unwrap_or(line).to_vec(), SHORTEST);
        }
    }

    fn pattern(&mut self, label: usize, bytes: Vec<u8>, shortest: usize) {
        let bytes = Zeroizing::new(bytes);
        if bytes.len() >= shortest {
            self.patterns.push(Pattern { bytes, label });
        }
    }

    /// What stands at the beginning of `rest`: byte by byte the patterns are left that agree so far.
    fn look(&self, rest: &[u8]) -> Look {
        let mut left = self.patterns.as_slice();
        let mut found = None;
        for depth in 0..=rest.len() {
            // One that ends here stands before those that go on.
            if let Some((first, others)) = left.split_first()
                && first.bytes.len() == depth
            {
                (found, left) = (Some((depth, first.label)), others);
            }
            let Some(byte) = rest.get(depth) else { break };
            if let [only] = left {
                if rest.starts_with(&only.bytes) {
                    return Look::Whole((only.bytes.len(), only.label));
                }
                if !only.bytes.starts_with(rest) {
                    left = &[];
                }
                break;
            }
            let from = left.partition_point(|pattern| pattern.bytes.get(depth) < Some(byte));
            let to = left.partition_point(|pattern| pattern.bytes.get(depth) <= Some(byte));
            left = left.get(from..to).unwrap_or_default();
            if left.is_empty() {
                break;
            }
        }
        // What is left is longer than the rest, and so than any that stands in it.
        if left.is_empty() { found.map_or(Look::Nothing, Look::Whole) } else { Look::Begun(found) }
    }
}

/// What stands somewhere: a length and a label.
enum Look {
    Nothing,
    Whole((usize, usize)),
    /// More may follow that makes it a longer one.
    Begun(Option<(usize, usize)>),
}

/// One stream, masked.
pub(super) struct Masker<'a> {
    mask: &'a Mask,
    /// What may be the beginning of something to be hidden.
    held: Zeroizing<Vec<u8>>,
    /// How many bytes at the beginning of that a label stands for already: values may overlap.
    hidden: usize,
    /// The last label.
    label: usize,
    /// First bytes of all that is looked for.
    first: [bool; 256],
}

impl<'a> Masker<'a> {
    pub(super) fn new(mask: &'a Mask) -> Self {
        let mut first = [false; 256];
        for byte in mask.patterns.iter().filter_map(|pattern| pattern.bytes.first()) {
            first[usize::from(*byte)] = true;
        }
        Self { mask, held: Zeroizing::default(), hidden: 0, label: 0, first }
    }

    /// Takes what was read, and gives what can be shown of it now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.take(false)
    }

    /// Nothing follows: gives the rest.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.take(true)
    }

    fn take(&mut self, last: bool) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::with_capacity(held.len());
        let (mut at, mut hidden) = (0, self.hidden);
        while let Some((byte, rest)) = held.get(at..).and_then(|rest| Some((*rest.first()?, rest))) {
            let look = if self.first[usize::from(byte)] { self.mask.look(rest) } else { Look::Nothing };
            match look {
                Look::Begun(_) if !last => break,
                Look::Whole((length, label)) | Look::Begun(Some((length, label))) => {
                    // One that begins inside of another one, and goes on behind it, is hidden to its end.
                    if at + length > hidden {
                        if at >= hidden || label != self.label {
                            let label = self.mask.labels.get(label).map_or("", String::as_str);
                            out.extend_from_slice(label.as_bytes());
                        }
                        (self.label, hidden) = (label, at + length);
                    }
                }
                Look::Nothing | Look::Begun(None) if at >= hidden => out.push(byte),
                Look::Nothing | Look::Begun(None) => {}
            }
            at += 1;
        }
        self.hidden = hidden.saturating_sub(at);
        self.held = Zeroizing::new(held.get(at..).unwrap_or_default().to_vec());
        out
    }
}

/// How programs usually write a value that is not plain.
fn encodings(value: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool, before: &str| -> Vec<u8> {
        let one =
            |byte: &u8| if upper { format!("{before}{byte:02X}") } else { format!("{before}{byte:02x}") };
        value.iter().map(one).collect::<String>().into_bytes()
    };
    let mut forms = vec![hex(false, ""), hex(true, ""), hex(false, "%"), hex(true, "%")];
    for (plain, space) in PERCENT {
        forms.extend([false, true].map(|upper| percent(value, upper, plain, space)));
    }
    if let Ok(text) = std::str::from_utf8(value)
        && let Ok(json) = serde_json::to_string(text)
    {
        let json = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or_default();
        for flags in 0..8 {
            forms.push(escaped(json, [flags & 1 > 0, flags & 2 > 0, flags & 4 > 0]).into_bytes());
        }
    }
    for shift in 0..3 {
        let shifted = [&b"\0\0\0"[..shift], value].concat();
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            // The first characters depend on what stands before the value, the last one on what follows.
            let begin = (shift * 8).div_ceil(6);
            let end = shifted.len() * 8 / 6;
            let inner = encoded.as_bytes().get(begin..end).unwrap_or_default();
            if shift == 0 {
                forms.extend(COLUMNS.map(|columns| inner.chunks(columns).collect::<Vec<_>>().join(&b'\n')));
            }
            forms.push(inner.to_vec());
        }
    }
    forms
}

/// JSON, inside of its quotes, as some write more of it with a backslash than they must: slashes, what is not ASCII, and what
/// means something in HTML.
fn escaped(json: &str, [slash, ascii, html]: [bool; 3]) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '/' if slash => out.push_str("\\/"),
            c if (ascii && !c.is_ascii()) || (html && "<>&".contains(c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// As in a URL or a form: what is not `plain` there is `%XX`.
fn percent(value: &[u8], upper: bool, plain: &[u8], space: &str) -> Vec<u8> {
    let one = |byte: &u8| match byte {
        b' ' => space.to_owned(),
        byte if byte.is_ascii_alphanumeric() || plain.contains(byte) => char::from(*byte).to_string(),
        byte if upper => format!("%{byte:02X}"),
        byte => format!("%{byte:02x}"),
    };
    value.iter().map(one).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{RngCore as _, SeedableRng as _};

    use super::*;

    fn mask(value: &[u8]) -> Mask {
        Mask::of([("K", value)])
    }

    /// What becomes of pieces.
    fn masked(mask: &Mask, pieces: &[&[u8]]) -> Vec<u8> {
        let mut masker = Masker::new(mask);
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| masker.push(piece)).collect();
        out.extend(masker.finish());
        out
    }

    fn text(mask: &Mask, whole: &str) -> String {
        String::from_utf8(masked(mask, &[whole.as_bytes()])).unwrap()
    }

    #[test]
    fn a_value_and_its_encodings_are_hidden() {
        let value = "hunter2/\"üñ\" & Co + 1";
        let mask = mask(value.as_bytes());
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [
            value.to_owned(),
            hex.to_uppercase(),
            hex,
            serde_json::to_string(value).unwrap().trim_matches('"').to_owned(),
            "hunter2%2F%22%C3%BC%C3%B1%22%20%26%20Co%20%2B%201".to_owned(),
        ] {
            let shown = text(&mask, &format!("before {form} after"));
            assert_eq!(shown, "before [secret K] after", "{form}");
        }
    }

    /// As Python, Go, PHP, JavaScript and a browser's form write it.
    #[test]
    fn what_programs_escape_beyond_need_or_leave_plain_is_hidden() {
        let mask = mask("pä/ss w*rd<&>!".as_bytes());
        for form in [
            r"p\u00e4/ss w*rd<&>!",
            r"pä/ss w*rd\u003c\u0026\u003e!",
            r"p\u00e4\/ss w*rd<&>!",
            r"p\u00e4\/ss w*rd\u003c\u0026\u003e!",
            "p%C3%A4/ss%20w%2Ard%3C%26%3E%21",
            "p%C3%A4%2Fss%20w*rd%3C%26%3E!",
            "p%C3%A4%2Fss+w%2Ard%3C%26%3E%21",
            "p%C3%A4%2Fss+w*rd%3C%26%3E%21",
        ] {
            assert_eq!(text(&mask, &format!("before {form} after")), "before [secret K] after", "{form}");
        }
    }

    #[test]
    fn of_values_that_overlap_nothing_is_shown() {
        let both = Mask::of([("PIN", &b"1234"[..]), ("KEY", b"4567890abcdef")]);
        for pieces in [&[&b"<1234567890abcdef>"[..]][..], &[b"<123", b"456", b"7890abcde", b"f>"]] {
            assert_eq!(masked(&both, pieces), b"<[secret PIN][secret KEY]>");
        }
        assert_eq!(text(&both, "<12345>"), "<[secret PIN]5>");
        let repeated = mask(b"ab-secret-ab");
        assert_eq!(text(&repeated, "<ab-secret-ab-secret-ab>"), "<[secret K]>");
        assert_eq!(text(&repeated, "<ab-secret-abab-secret-ab>"), "<[secret K][secret K]>");
    }

    #[test]
    fn base64_is_hidden_wherever_it_begins() {
        let value = b"a-key-of-some-length-0123456789";
        let mask = mask(value);
        for before in ["", "u", "us", "user", "user:"] {
            for after in ["", "\n", "@host"] {
                let whole = [before.as_bytes(), value, after.as_bytes()].concat();
                for encoded in [STANDARD_NO_PAD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                    let shown = text(&mask, &encoded);
                    assert!(shown.contains("[secret K]"), "{before:?} {after:?}: {shown}");
                    // A character at either side may hold a few bits of it.
                    let left = shown.replace("[secret K]", "");
                    assert!(left.len() <= encoded.len() - value.len() * 8 / 6 + 2, "{left}");
                }
            }
        }
    }

    #[test]
    fn wrapped_base64_and_single_lines_are_hidden() {
        let long = [b"0123456789abcdef".repeat(12), b"\nshort\nanother line of it".to_vec()].concat();
        let mask = mask(&long);
        let encoded = STANDARD_NO_PAD.encode(&long);
        for columns in COLUMNS {
            let lines: Vec<_> = encoded.as_bytes().chunks(columns).collect();
            let shown = masked(&mask, &[&lines.join(&b'\n')]);
            assert!(shown.starts_with(b"[secret K]") && shown.len() < 14, "{shown:?}");
        }
        assert_eq!(text(&mask, "> another line of it\nshort\n"), "> [secret K]\nshort\n");
    }

    #[test]
    fn of_a_short_value_the_exact_form_alone_is_hidden() {
        let mask = mask(b"1234");
        assert_eq!(text(&mask, "pin 1234 is 31323334"), "pin [secret K] is 31323334");
        assert_eq!(masked(&Mask::default(), &[b"all of it"]), b"all of it");
    }

    #[test]
    fn a_value_is_hidden_without_the_white_space_around_it_too() {
        for value in [&b"1234\r"[..], b"1234\n", b" 1234 ", b"1234\r\n\r"] {
            assert_eq!(text(&mask(value), "pin 1234."), "pin [secret K].", "{value:?}");
        }
        let encoded = STANDARD_NO_PAD.encode("a-key-of-some-length");
        // The last character holds bits of what follows.
        assert_eq!(
            text(&mask(b"a-key-of-some-length\r"), &encoded),
            format!("[secret K]{}", encoded.get(26..).unwrap())
        );
        assert_eq!(text(&mask(b"\n"), "a\nb\n"), "a\nb\n", "no secret, but the end of every line");
    }

    /// What is found is what comparing with every pattern finds.
    #[test]
    fn the_search_finds_what_comparing_with_all_finds() {
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let mut word = |longest: usize| -> Vec<u8> {
            let length = 1 + rng.next_u32() as usize % longest;
            (0..length).map(|_| b"abc"[rng.next_u32() as usize % 3]).collect()
        };
        for _ in 0..300 {
            let values: Vec<(String, Vec<u8>)> = (0..9).map(|n| (n.to_string(), word(12))).collect();
            let mask = Mask::of(values.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
            let all = || mask.patterns.iter();
            for _ in 0..30 {
                let rest = word(14);
                let here = all().filter(|pattern| rest.starts_with(&pattern.bytes));
                let longest = here.max_by_key(|pattern| pattern.bytes.len());
                let longest = longest.map(|pattern| (pattern.bytes.len(), pattern.label));
                let begun =
                    all().any(|pattern| pattern.bytes.len() > rest.len() && pattern.bytes.starts_with(&rest));
                let (found, more) = match mask.look(&rest) {
                    Look::Nothing => (None, false),
                    Look::Whole(found) => (Some(found), false),
                    Look::Begun(found) => (found, true),
                };
                assert_eq!((found, more), (longest, begun), "{rest:?} in {values:?}");
            }
        }
    }

    #[test]
    fn nothing_is_held_back_that_cannot_be_the_beginning() {
        let mask = mask(b"secret-value");
        let mut masker = Masker::new(&mask);
        assert_eq!(masker.push(b"Password: "), b"Password: ");
        assert_eq!(masker.push(b"a secr"), b"a ");
        assert_eq!(masker.push(b"etary"), b"secretary");
        assert_eq!(masker.push(b" secret-valu"), b" ");
        assert_eq!(masker.push(b"e!"), b"[secret K]!");
        assert_eq!(masker.push(b"s"), b"");
        assert_eq!(masker.finish(), b"s");
    }

    #[test]
    fn the_longest_wins_and_values_inside_each_other_are_hidden() {
        let mask = Mask::of([("SHORT", &b"token"[..]), ("LONG", b"token-of-the-other")]);
        assert_eq!(
            text(&mask, "token-of-the-other token-of token"),
            "[secret LONG] [secret SHORT]-of [secret SHORT]"
        );
    }

    /// However the output is cut, it is the same, and the value is not in it.
    #[test]
    fn no_cut_lets_a_value_through() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut below = |bound: usize| rng.next_u32() as usize % bound;
        for round in 0..300 {
            // Of few letters: it repeats itself, and is begun again and again.
            let value: Vec<u8> = (0..1 + below(24)).map(|_| b"ab\n"[below(3)]).collect();
            let value = if value.iter().all(|byte| *byte == b'\n') { b"ab".to_vec() } else { value };
            let mut whole = Vec::new();
            for _ in 0..below(40) {
                match below(4) {
                    0 => whole.extend_from_slice(&value),
                    1 => whole.extend_from_slice(STANDARD_NO_PAD.encode(&value).as_bytes()),
                    _ => whole.push(b"ab\nx"[below(4)]),
                }
            }
            let mask = mask(&value);
            let at_once = masked(&mask, &[&whole]);
            let mut pieces = Vec::new();
            let mut rest = &whole[..];
            while !rest.is_empty() {
                let (piece, next) = rest.split_at((1 + below(6)).min(rest.len()));
                pieces.push(piece);
                rest = next;
            }
            assert_eq!(masked(&mask, &pieces), at_once, "round {round}");
            let shown = String::from_utf8_lossy(&at_once).replace("[secret K]", "\0");
            let hidden = !shown.as_bytes().windows(value.len()).any(|window| window == value);
            assert!(hidden, "round {round}: {value:?} in {shown:?}");
        }
    }
}
