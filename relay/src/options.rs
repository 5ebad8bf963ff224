//! What an operator chooses.
//!
//! Owns the defaults, which are the promise of the README. Does not parse: `cli` does.

use std::time::Duration;

use crate::rules;

/// Messages a minute for each channel.
pub const MESSAGES_PER_MINUTE: u64 = 60;
/// Bytes a minute for each channel.
pub const BYTES_PER_MINUTE: u64 = 50 << 20;
/// Frames of at most 128 bytes a minute for each seat that cost no message.
pub const SMALL_PER_MINUTE: u64 = 600;
/// Longest frame in bytes.
pub const MAX_FRAME: usize = 10 << 20;
/// How long a channel may be without a frame.
pub const IDLE: Duration = Duration::from_secs(60 * 60);
/// Channels for each source.
pub const CHANNELS_PER_SOURCE: usize = 100;
/// Failed joins a minute for each source.
pub const FAILED_JOINS_PER_MINUTE: u64 = 5;
/// Bytes that all queues hold together.
pub const MEMORY: usize = 512 << 20;
/// Connections at a time. Each has buffers beyond the memory of the queues: about 8 KiB at rest (more with TLS), two of 64
/// KiB while bytes wait, and three of 1 MiB + 128 KiB once it has moved frames of that length. Longer frames are bounded by
/// `places`.
pub const MAX_CONNECTIONS: usize = 4096;
/// Connections of one source at a time: the hundred channels that it may have with both ends behind its address, those
/// of as many that were allocated elsewhere, and some that come and go.
pub const CONNECTIONS_PER_SOURCE: usize = 512;
/// Over how long a relay that stops closes its sockets, if they can be resumed elsewhere.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Shortest `max_frame`: a client of protocol 2 needs 64 KiB.
pub const LEAST_MAX_FRAME: usize = 64 << 10;
/// How long a channel of the local relay may be without a frame.
const LOCAL_IDLE: Duration = Duration::from_secs(24 * 60 * 60);

/// The limits of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Messages a minute for each channel; 0 is unlimited.
    pub messages_per_minute: u64,
    /// Bytes a minute for each channel; 0 is unlimited.
    pub bytes_per_minute: u64,
    /// Small frames a minute for each seat that cost no message; 0 is unlimited.
    pub small_per_minute: u64,
    /// Longest frame in bytes.
    pub max_frame: usize,
    /// How long a channel may be without a frame.
    pub idle: Duration,
    /// Channels for each source; 0 is unlimited.
    pub channels_per_source: usize,
    /// Failed joins a minute for each source; 0 is unlimited.
    pub failed_joins_per_minute: u64,
    /// Bytes that all queues hold together.
    pub memory: usize,
    /// Bytes of those that the frames of one source may hold.
    pub memory_per_source: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections of one source at a time; 0 is unlimited.
    pub connections_per_source: usize,
    /// Over how long a relay that stops closes its sockets; `None`: [`DRAIN`] with a shared store, at once without.
    pub drain: Option<Duration>,
    /// Whether a client may tell its whole code, as those of 0.1.5 do.
    pub legacy_clients: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            messages_per_minute: MESSAGES_PER_MINUTE,
            bytes_per_minute: BYTES_PER_MINUTE,
            small_per_minute: SMALL_PER_MINUTE,
            max_frame: MAX_FRAME,
            idle: IDLE,
            channels_per_source: CHANNELS_PER_SOURCE,
            failed_joins_per_minute: FAILED_JOINS_PER_MINUTE,
            memory: MEMORY,
            memory_per_source: share(MEMORY, MAX_FRAME),
            max_connections: MAX_CONNECTIONS,
            connections_per_source: CONNECTIONS_PER_SOURCE,
            drain: None,
            legacy_clients: true,
        }
    }
}

/// Limits that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Clients need longer frames.
    #[error("a frame limit of {0} bytes is too short: clients need at least {LEAST_MAX_FRAME}")]
    FrameTooShort(usize),
    /// The longest frame could never be queued.
    #[error(
        "{memory} bytes of memory cannot hold a frame of {max_frame} bytes: allow at least twice the frame"
    )]
    MemoryTooSmall {
        /// The memory in bytes.
        memory: usize,
        /// The longest frame in bytes.
        max_frame: usize,
    },
    /// Channels would end at once.
    #[error("channels that may be idle for less than a second end at once")]
    NoIdle,
    /// Nobody would be served.
    #[error("a relay that may have no connection serves nobody; allow at least one")]
    NoConnections,
}

impl Options {
    /// The limits of the relay that one machine's sessions share: no rates, one source.
    #[must_use]
    pub fn local() -> Self {
        Self {
            messages_per_minute: 0,
            bytes_per_minute: 0,
            small_per_minute: 0,
            idle: LOCAL_IDLE,
            channels_per_source: 0,
            failed_joins_per_minute: 0,
            memory_per_source: MEMORY,
            connections_per_source: 0,
            ..Self::default()
        }
    }

    /// The same limits with another memory and frame length, in bytes; a source may hold an eighth of the memory, or
    /// one frame.
    #[must_use]
    pub fn with_memory(self, memory: usize, max_frame: usize) -> Self {
        Self { memory, max_frame, memory_per_source: share(memory, max_frame), ..self }
    }

    /// Whether a relay can run with them.
    ///
    /// # Errors
    /// [`OptionsError`] says which limit is wrong.
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.max_frame < LEAST_MAX_FRAME {
            return Err(OptionsError::FrameTooShort(self.max_frame));
        }
        if self.memory / 2 < self.max_frame || self.memory_per_source < self.max_frame + rules::FRAME_OVERHEAD
        {
            return Err(OptionsError::MemoryTooSmall { memory: self.memory, max_frame: self.max_frame });
        }
        if self.idle < Duration::from_secs(1) {
            return Err(OptionsError::NoIdle);
        }
        if self.max_connections == 0 {
            return Err(OptionsError::NoConnections);
        }
        Ok(())
    }
}

/// What one source may hold: an eighth, but always one frame.
const fn share(memory: usize, max_frame: usize) -> usize {
    let (eighth, frame) = (memory / rules::SOURCE_PARTS, max_frame + rules::FRAME_OVERHEAD);
    if eighth > frame { eighth } else { frame }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(Options::default().check(), Ok(()));
        assert_eq!(Options::local().check(), Ok(()));
        assert_eq!(Options::default().memory_per_source, MEMORY / 8);
    }

    #[test]
    fn contradictions_are_named() {
        let short = Options { max_frame: 1000, ..Options::default() };
        assert_eq!(short.check(), Err(OptionsError::FrameTooShort(1000)));
        let small = Options::default().with_memory(10 << 20, 10 << 20);
        assert!(matches!(small.check(), Err(OptionsError::MemoryTooSmall { .. })));
        let tight = Options::default().with_memory(20 << 20, 10 << 20);
        assert_eq!(tight.check(), Ok(()));
        assert_eq!(Options { idle: Duration::ZERO, ..tight.clone() }.check(), Err(OptionsError::NoIdle));
        assert_eq!(Options { max_connections: 0, ..tight }.check(), Err(OptionsError::NoConnections));
    }
}
