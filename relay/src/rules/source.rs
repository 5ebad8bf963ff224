//! Sources: who a limit counts for.
//!
//! Owns what one address may use: channels, queued bytes, failed joins. Never prints an address.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Bucket;

/// Sources that are remembered at once: about 32 MiB of entries. An entry lives while the source has a channel or a
/// queued byte (bounded by those) or for a minute after a failed join. Beyond this a *new* source's failed join is not
/// noted: whoever commands that many networks is not slowed by a limit for each.
const REMEMBERED: usize = 262_144;

/// Where a socket comes from, as far as limits go.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// This machine, by a Unix socket.
    Local,
    /// One IPv4 address.
    V4([u8; 4]),
    /// One IPv6 network of 64 bits.
    V6([u8; 8]),
}

/// Prints nothing: no log line carries an address.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source(..)")
    }
}

impl Source {
    /// What stands for it where its address must not: the first `bytes` bytes (32 at most) of its HMAC-SHA256 under this
    /// key, in hexadecimal digits.
    #[must_use]
    pub fn pseudonym(self, key: &[u8], bytes: usize) -> String {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
        match self {
            Self::Local => mac.update(b"local"),
            Self::V4(address) => mac.update(&address),
            Self::V6(network) => mac.update(&network),
        }
        let hash = mac.finalize().into_bytes();
        super::hex(hash.get(..bytes).unwrap_or(&hash))
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// What one source uses.
#[derive(Debug)]
struct Usage {
    /// Channels that it allocated and that live.
    channels: usize,
    /// Bytes that it sent and that are queued.
    held: usize,
    /// Failed joins.
    failures: Bucket,
}

/// What every source uses. 0 in a limit is unlimited.
#[derive(Debug)]
pub struct Sources {
    usage: HashMap<Source, Usage>,
    max_channels: usize,
    failures_per_minute: u64,
}

impl Sources {
    /// Nobody yet: channels for each source, failed joins a minute for each source.
    #[must_use]
    pub fn new(max_channels: usize, failures_per_minute: u64) -> Self {
        Self { usage: HashMap::new(), max_channels, failures_per_minute }
    }

    /// Counts one more channel. False (and not counted) if the source has all that it may have.
    #[must_use]
    pub fn add_channel(&mut self, source: Source) -> bool {
        let max = self.max_channels;
        let usage = self.usage_of(source);
        let fits = max == 0 || usage.channels < max;
        usage.channels += usize::from(fits);
        fits
    }

    /// A channel of this source ended.
    pub fn remove_channel(&mut self, source: Source) {
        if let Some(usage) = self.usage.get_mut(&source) {
            usage.channels = usage.channels.saturating_sub(1);
        }
    }

    /// Bytes of this source that are queued.
    #[must_use]
    pub fn held(&self, source: Source) -> usize {
        self.usage.get(&source).map_or(0, |usage| usage.held)
    }

    /// `bytes` more are queued.
    pub fn hold(&mut self, source: Source, bytes: usize) {
        self.usage_of(source).held += bytes;
    }

    /// `bytes` are not queued any more.
    pub fn free(&mut self, source: Source, bytes: usize) {
        if let Some(usage) = self.usage.get_mut(&source) {
            usage.held = usage.held.saturating_sub(bytes);
        }
    }

    /// Whether this source may try to join.
    #[must_use]
    pub fn may_join(&self, source: Source, now: Instant) -> bool {
        self.usage.get(&source).is_none_or(|usage| usage.failures.ready_at(1, now) <= now)
    }

    /// A join of this source failed.
    pub fn failed_join(&mut self, source: Source, now: Instant) {
        if self.usage.len() < REMEMBERED || self.usage.contains_key(&source) {
            self.usage_of(source).failures.draw(1, now);
        }
    }

    /// Forgets those who use nothing.
    pub fn sweep(&mut self, now: Instant) {
        self.usage.retain(|_, usage| usage.channels > 0 || usage.held > 0 || !usage.failures.is_full(now));
    }

    fn usage_of(&mut self, source: Source) -> &mut Usage {
        let failures = self.failures_per_minute;
        self.usage.entry(source).or_insert_with(|| Usage {
            channels: 0,
            held: 0,
            failures: Bucket::new(failures),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_source_is_an_address_of_v4_or_a_network_of_v6() {
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(format!("{:?}", source("192.0.2.1")), "Source(..)");
    }

    #[test]
    fn the_sixth_failed_join_of_a_minute_is_one_too_many() {
        let (now, one) = (Instant::now(), source("192.0.2.1"));
        let mut sources = Sources::new(0, 5);
        for _ in 0..5 {
            assert!(sources.may_join(one, now));
            sources.failed_join(one, now);
        }
        assert!(!sources.may_join(one, now));
        assert!(sources.may_join(source("192.0.2.2"), now));
        assert!(!sources.may_join(one, now + Duration::from_secs(11)));
        assert!(sources.may_join(one, now + Duration::from_secs(12)));
        sources.sweep(now + Duration::from_secs(59));
        assert_eq!(sources.usage.len(), 1);
        sources.sweep(now + Duration::from_secs(60));
        assert!(sources.usage.is_empty());
    }

    #[test]
    fn channels_for_each_source_are_counted() {
        let mut sources = Sources::new(2, 5);
        assert!(sources.add_channel(Source::Local) && sources.add_channel(Source::Local));
        assert!(!sources.add_channel(Source::Local));
        sources.remove_channel(Source::Local);
        assert!(sources.add_channel(Source::Local));
    }
}
