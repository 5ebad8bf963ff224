//! The relay's own log: how lines look, how many there are, and what stands for an address in them.
//!
//! Owns the start of the log and the pseudonyms. Opens no stream: the program hands one in.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand_core::{OsRng, RngCore as _};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::rules::Source;

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;
/// Bytes of a pseudonym: enough that two sources of a day are not taken for each other.
const SHOWN: usize = 8;
/// Bytes of its key.
const KEY: usize = 32;
/// Whose lines the level is for. Other crates' are for `RUST_LOG`: what they say was not written with addresses in mind.
const TARGET: &str = env!("CARGO_CRATE_NAME");

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// How many lines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// None.
    Off,
    /// What the relay cannot do.
    Error,
    /// ... and what an operator should look at.
    Warn,
    /// ... and a line for each pairing, refusal and end.
    Info,
    /// ... and each decision.
    Debug,
    /// Everything.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Starts the log of this process on a stream; `asked` is a filter (such as `RUST_LOG`'s) that wins over the level. A
/// second start in one process changes nothing.
pub fn start<W>(format: LogFormat, level: LogLevel, asked: Option<&str>, colour: bool, stream: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let usual = || EnvFilter::new(format!("{TARGET}={level}"));
    let filter = asked.filter(|text| !text.is_empty()).and_then(|text| EnvFilter::try_new(text).ok());
    let log = tracing_subscriber::fmt().with_env_filter(filter.unwrap_or_else(usual)).with_target(false);
    // Otherwise a line that nobody reads any more becomes a panic of whoever wrote it.
    let log = log.with_writer(stream).log_internal_errors(false);
    let _ = match format {
        LogFormat::Human => log.with_ansi(colour).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
    };
}

/// What stands for addresses in a log: the same for the same source on one day of one process, and worth nothing to
/// whoever has the log only. The key never leaves the process.
#[derive(Default)]
pub(crate) struct Pseudonyms {
    key: Mutex<Key>,
}

/// The key of a day.
#[derive(Default)]
struct Key {
    /// Days since 1970; 0: none yet.
    day: u64,
    bytes: [u8; KEY],
}

/// Prints nothing: it is a key.
impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonyms(..)")
    }
}

impl Pseudonyms {
    /// What stands for this source today.
    pub fn of(&self, source: Source) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.on(source, since.as_secs() / DAY)
    }

    /// ... and on this day. Another day than the last one makes another key.
    fn on(&self, source: Source, day: u64) -> String {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if key.day != day {
            key.day = day;
            OsRng.fill_bytes(&mut key.bytes);
        }
        source.pseudonym(&key.bytes, SHOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_one_pseudonym_a_day() {
        let (one, other) = (Source::V4([192, 0, 2, 1]), Source::V4([192, 0, 2, 2]));
        let names = Pseudonyms::default();
        let today = names.on(one, 20_000);
        assert_eq!(today.len(), 2 * SHOWN);
        assert_eq!(names.on(one, 20_000), today);
        assert_ne!(names.on(other, 20_000), today);
        assert_ne!(names.on(one, 20_001), today);
        // The key of a day that is over is gone.
        assert_ne!(names.on(one, 20_000), today);
        assert_ne!(Pseudonyms::default().on(one, 20_000), today);
    }
}
