//! The steps of a way to the other end, as an event and an error name them.
//!
//! Owns their words. What failed at one, and what to do about it, is said by whoever took it.

/// A step on the way to the other end. Each is reached through those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Finding the addresses of a name.
    Name,
    /// Connecting to one of them.
    Tcp,
    /// Being led on by the proxy of this network.
    Proxy,
    /// Agreeing on TLS, and on who the relay is.
    Tls,
    /// Turning the connection into a websocket.
    Websocket,
    /// Being given a place by the relay, and keeping it.
    Relay,
    /// The other end itself.
    Peer,
}

impl Hop {
    /// Its word in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Websocket => "websocket",
            Self::Relay => "relay",
            Self::Peer => "peer",
        }
    }
}
