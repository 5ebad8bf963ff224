//! Where a relay is.
//!
//! Owns the reading of a relay's address as a person writes it, and the way to a byte stream for it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::event::Hop;
use crate::event::escape::{shortened, visible};
use crate::transport::TransportError;
use crate::transport::local::Local;

use super::probe::Steps;
use super::proxy::Proxy;
use super::tls::{self, Authorities, TlsError};

/// Longest token in bytes: with the rest of the request it stays far below what a relay reads of one.
const MAX_TOKEN: usize = 4096;
/// Longest part of an address that a message shows, in bytes.
const MAX_NAMED: usize = 200;

/// A relay's address: `ws://host[:port][/prefix]`, `wss://…`, the absolute path of a Unix socket, or the relay that the
/// sessions of this machine share.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) place: Place,
    pub(super) token: Option<Token>,
    pub(super) way: Way,
    /// TLS as `way` wants it, made when it is needed first.
    tls: OnceLock<Arc<ClientConfig>>,
    /// How far an attempt came, where somebody wants to know.
    steps: Option<Steps>,
}

/// What is between here and a relay that is somewhere else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The proxy that leads there.
    pub proxy: Option<Proxy>,
    /// Who is believed beside the system's authorities.
    pub authorities: Option<Authorities>,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum Place {
    /// Over TCP.
    Url(Url),
    /// A Unix socket that somebody else serves.
    Unix(PathBuf),
    /// A Unix socket that one of the sessions here serves.
    Local(Local),
}

/// The parts of a relay's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// With TLS.
    pub(super) secure: bool,
    /// A name or an address, the latter without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `host[:port]` as it was written: what the relay is told.
    pub(super) authority: String,
    /// Path in front of `/ws`, without a slash at its end.
    pub(super) prefix: String,
}

/// What a relay that is closed to strangers wants to see. Prints nothing, and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Reads a token: visible ASCII characters, as a header of HTTP holds them. `None` where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Its characters.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// An address that cannot be a relay's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a URL of ours nor a path.
    #[error("a relay's address begins with ws://, wss:// or / and {0:?} does not")]
    Scheme(String),
    /// Not a host, or not a port from 1 to 65535.
    #[error("{0:?} names no host and port; write for example wss://relay.example.org or ws://10.0.0.5:4400")]
    Authority(String),
    /// Something a relay's address never has.
    #[error("a relay's address has no user, query, fragment or space: {0:?} has")]
    Extra(String),
    /// Letters that no name on the wire has.
    #[error("a relay's address is written in ASCII (a name in other letters as xn--…) and {0:?} is not")]
    Letters(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let place = if let Some(rest) = text.strip_prefix("ws://") {
            Place::Url(Url::parse(false, rest)?)
        } else if let Some(rest) = text.strip_prefix("wss://") {
            Place::Url(Url::parse(true, rest)?)
        } else if text.starts_with('/') {
            Place::Unix(PathBuf::from(text))
        } else {
            return Err(EndpointError::Scheme(shown(text)));
        };
        Ok(Self::at(place))
    }
}

impl Endpoint {
    /// The relay that the sessions of this machine share.
    #[must_use]
    pub const fn local(local: Local) -> Self {
        Self::at(Place::Local(local))
    }

    const fn at(place: Place) -> Self {
        let way = Way { proxy: None, authorities: None };
        Self { place, token: None, way, tls: OnceLock::new(), steps: None }
    }

    /// The same relay, reached in this way.
    #[must_use]
    pub fn by(self, way: Way) -> Self {
        Self { way, tls: OnceLock::new(), ..self }
    }

    /// The host of its URL, a name or an address without brackets, and whether TLS is spoken with it. A Unix socket has
    /// none.
    #[must_use]
    pub fn host(&self) -> Option<(&str, bool)> {
        match &self.place {
            Place::Url(url) => Some((&url.host, url.secure)),
            Place::Unix(_) | Place::Local(_) => None,
        }
    }

    /// TLS, to it or to its proxy.
    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = tls::client(self.way.authorities.as_ref())?;
        Ok(self.tls.get_or_init(|| config).clone())
    }

    /// The same relay, shown this token (`Authorization: Bearer`).
    #[must_use]
    pub fn with_token(self, token: Token) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Whether this machine's sessions serve it themselves.
    pub(super) const fn is_local(&self) -> bool {
        matches!(self.place, Place::Local(_))
    }

    /// This process needs the relay no longer: if it serves it, another takes over.
    pub(super) async fn retire(&self) {
        if let Place::Local(local) = &self.place {
            local.retire().await;
        }
    }

    /// The same relay, with a note of how far an attempt comes.
    pub(super) fn timed(self, steps: Steps) -> Self {
        Self { steps: Some(steps), ..self }
    }

    /// How far the last attempt came, where that is noted.
    pub(super) const fn steps(&self) -> Option<&Steps> {
        self.steps.as_ref()
    }

    /// An attempt begins.
    pub(super) fn set_out(&self) {
        if let Some(steps) = &self.steps {
            steps.set_out();
        }
    }

    /// The attempt has taken this step.
    pub(super) fn passed(&self, hop: Hop) {
        if let Some(steps) = &self.steps {
            steps.passed(hop);
        }
    }

    /// Where it is, for a person.
    fn named(&self) -> String {
        let named = match &self.place {
            Place::Url(url) => {
                format!("{}://{}{}", if url.secure { "wss" } else { "ws" }, url.authority, url.prefix)
            }
            Place::Unix(path) => path.display().to_string(),
            Place::Local(local) => local.dir().display().to_string(),
        };
        visible(&shortened(&named, MAX_NAMED))
    }

    /// What to tell a person whom the relay does not let in.
    pub(super) fn closed(&self, reason: &str) -> TransportError {
        TransportError::Refused(format!("the relay at {} {reason}", self.named()))
    }

    /// What to tell a person whose relay is not reached: the step that failed, how, and what to do.
    pub(super) fn unreachable(&self, hop: Hop, reason: &str, advice: &str) -> TransportError {
        let (named, step) = (self.named(), hop.as_str());
        let whose = if self.is_local() { "this machine's own relay in" } else { "the relay at" };
        let why = format!("{whose} {named} could not be reached ({step}: {reason}); {advice}");
        TransportError::Unreachable { hop, why }
    }
}

impl Url {
    fn parse(secure: bool, rest: &str) -> Result<Self, EndpointError> {
        if rest.contains(|c: char| "@?#\\".contains(c) || c.is_whitespace() || c.is_control()) {
            return Err(EndpointError::Extra(shown(rest)));
        }
        if !rest.is_ascii() {
            return Err(EndpointError::Letters(shown(rest)));
        }
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, path)| (a, path));
        let wrong = || EndpointError::Authority(authority.to_owned());
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside its brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let bare = crate::transport::tcp::bare(host);
        if bare.is_empty() || bare.contains(['[', ']']) || (bare.contains(':') && !bracketed) {
            return Err(wrong());
        }
        let port = match port {
            Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            None if secure => 443,
            None => 80,
        };
        let path = path.trim_end_matches('/');
        // Whoever writes the whole of it means the same.
        let path = path.strip_suffix("/ws").unwrap_or(if path == "ws" { "" } else { path });
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { secure, host: bare.to_owned(), port, authority: authority.to_owned(), prefix })
    }
}

/// What was written, so that it can stand in a message: what is before an `@` may be a password.
fn shown(text: &str) -> String {
    text.rsplit_once('@').map_or(text.to_owned(), |(_, rest)| format!("…@{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> (bool, String, u16, String) {
        match text.parse::<Endpoint>().unwrap().place {
            Place::Url(url) => (url.secure, url.host, url.port, url.prefix),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(url("ws://relay.example"), (false, "relay.example".into(), 80, String::new()));
        assert_eq!(url("wss://relay.example/"), (true, "relay.example".into(), 443, String::new()));
        assert_eq!(url("wss://a.b:8443/x/y/"), (true, "a.b".into(), 8443, "/x/y".into()));
        assert_eq!(url("wss://a.b/x/ws/"), (true, "a.b".into(), 443, "/x".into()));
        assert_eq!(url("ws://a.b/ws"), (false, "a.b".into(), 80, String::new()));
        assert_eq!(url("ws://[::1]:4400"), (false, "::1".into(), 4400, String::new()));
        assert_eq!(url("ws://[fe80::1]"), (false, "fe80::1".into(), 80, String::new()));
        let unix: Endpoint = "/run/relay.sock".parse().unwrap();
        assert!(matches!(unix.place, Place::Unix(path) if path.as_os_str() == "/run/relay.sock"));
    }

    #[test]
    fn others_are_refused() {
        for text in ["", "relay.example", "http://relay.example", "WS://x", "./relay.sock"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(EndpointError::Scheme(_))), "{text}");
        }
        for text in ["ws://", "ws://:80", "ws://a:0", "ws://a:65536", "ws://a:b", "ws://::1", "ws://[::1"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(EndpointError::Authority(_))), "{text}");
        }
        for text in ["ws://m\u{fc}nchen.example", "wss://a/\u{e9}"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(EndpointError::Letters(_))), "{text}");
        }
        for text in ["ws://user@host", "ws://a?b", "ws://a#b", "ws://a b", "ws://a\r\nX: y"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(EndpointError::Extra(_))), "{text}");
        }
        for text in ["ws://user:hunter2@host", "https://user:hunter2@host", "ws://user:hunter2@h\u{f6}st/a@b"]
        {
            assert!(!text.parse::<Endpoint>().unwrap_err().to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let endpoint: Endpoint = "ws://a".parse().unwrap();
        let token = Token::parse("hunter2").unwrap();
        assert!(!format!("{:?}", endpoint.with_token(token)).contains("hunter2"));
        for wrong in ["", "a b", "a\r\nX: y", "é", &"x".repeat(MAX_TOKEN + 1)] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }
}
