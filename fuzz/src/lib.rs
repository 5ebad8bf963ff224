//! What must hold for any bytes: each module is one property, given bytes by a fuzzer (`targets/`) and, some thousand
//! at each run, by `tests/fuzzed.rs`. A property that does not hold panics.

pub mod keyed;
pub mod lines;
pub mod names;
pub mod plaintext;
pub mod relay;
pub mod stranger;

/// A property: panics where it does not hold.
pub type Holds = fn(&[u8]);

/// All properties with their names, which are those of the fuzzer's targets.
pub const PROPERTIES: [(&str, Holds); 6] = [
    ("plaintext", plaintext::holds),
    ("stranger", stranger::holds),
    ("keyed", keyed::holds),
    ("names", names::holds),
    ("lines", lines::holds),
    ("relay", relay::holds),
];

/// Bytes as decisions: past their end everything is zero.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Reads from the first byte on.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// The next bytes, as many of them as there are.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length of one byte, or 255 and two bytes, then so many bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            u8::MAX => u16::from_be_bytes([self.byte(), self.byte()]),
            short => u16::from(short),
        };
        self.take(usize::from(length))
    }

    /// [`Script::bytes`] as text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// All that is left.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}
