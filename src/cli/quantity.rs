//! Durations and sizes as they are typed and shown.
//!
//! Owns both spellings: `1h30m`, `16GiB`. Knows no argument.

use std::time::Duration;

use jiff::fmt::friendly::SpanParser;

/// Units of a size and their bytes: a letter alone and `KiB` count in 1,024, `kB` in 1,000.
const UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
];

/// Reads a duration such as `90s`, `10m`, `1h30m`.
///
/// # Errors
/// What to type instead.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a duration such as 90s, 10m or 1h30m".to_owned();
    let duration = SpanParser::new().parse_unsigned_duration(text.trim()).map_err(|_| wrong())?;
    if duration.is_zero() { Err(wrong()) } else { Ok(duration) }
}

/// Reads a size such as `500MB`, `16GiB`, `4096`.
///
/// # Errors
/// What to type instead.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "write a size such as 500MB, 16GiB or 4096".to_owned();
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*factor).filter(|&size| size > 0).ok_or_else(wrong)
}

/// A size for a person: `17 B`, `2.0 KiB`, `1.5 GiB`.
pub(super) fn shown(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scaled = bytes as f64 / 1024.0;
    let names = ["KiB", "MiB", "GiB", "TiB"];
    while scaled >= 1024.0 && unit + 1 < names.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", names[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            (" 2 hours ", 7200),
            ("24h", 86400),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "10", "-5s", "0s", "5 parsecs", "1h30", "s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1k", 1024),
            ("500MB", 500_000_000),
            ("16GiB", 16 << 30),
            ("16 gib", 16 << 30),
            ("2T", 2 << 40),
            ("7B", 7),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "G", "1.5G", "-1", "5 apples", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (2048, "2.0 KiB"),
            (3 << 29, "1.5 GiB"),
            (1 << 60, "1048576.0 TiB"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }
}
