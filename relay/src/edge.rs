//! The relay's edge: who gets in, and what their limits count for.
//!
//! Owns everything that is judged before any state is made: TLS, which proxies are believed about an address, lists of
//! networks, the token, and how many connections one source may have. Knows no websocket and no channel.

mod access;
mod proxies;
mod tls;
mod tokens;
mod visits;
mod watched;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::HeaderMap;
use ipnet::IpNet;
use tokio::io::AsyncRead;

pub use self::access::{Access, network};
pub use self::proxies::Proxies;
pub(crate) use self::tls::Tls;
use self::tokens::Tokens;
use self::visits::Visit;
pub(crate) use self::visits::Visits;
use self::watched::Watched;
use crate::rules::Source;

/// A client has this long for what comes before its request: the header of a proxy and the handshake of TLS.
pub(crate) const ARRIVAL: Duration = Duration::from_secs(10);

/// Where a connection was accepted from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// What its limits count for is settled, and no list is asked: a Unix socket of our own user, or a test's pipe.
    Settled(Source),
    /// The address at the other end of a TCP connection, which may be a proxy's.
    Address(IpAddr),
}

/// Prints nothing: no log line carries an address.
impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Origin(..)")
    }
}

impl Origin {
    /// What stands for it in the log: a proxy for whomever it speaks for.
    pub(crate) fn source(self) -> Source {
        match self {
            Self::Settled(source) => source,
            Self::Address(address) => address.into(),
        }
    }
}

impl From<Source> for Origin {
    fn from(source: Source) -> Self {
        Self::Settled(source)
    }
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

/// What an operator chose for the edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeOptions {
    /// PEM: the relay's certificate and the chain to its authority; none is plain TCP.
    pub tls_cert: Option<PathBuf>,
    /// PEM: the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Tokens, one a line; none is open to everybody.
    pub token_file: Option<PathBuf>,
    /// Proxies that are believed about whom they speak for.
    pub trusted_proxies: Vec<IpNet>,
    /// Each connection of such a proxy begins with a header of the PROXY protocol, version 2.
    pub proxy_protocol: bool,
    /// Networks that are served; none is all.
    pub allow: Vec<IpNet>,
    /// Networks that are not, also where they are allowed.
    pub deny: Vec<IpNet>,
}

/// Why a relay cannot start with these options.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// One half of a pair.
    #[error("{given} needs {missing}: TLS takes a certificate and its private key; give both or neither")]
    HalfPair {
        /// The flag that was given.
        given: &'static str,
        /// The one that was not.
        missing: &'static str,
    },
    /// Nobody would send the header.
    #[error("--proxy-protocol needs to know who sends its header; name the proxy with --trusted-proxy")]
    NoProxy,
    /// A file cannot be read.
    #[error("{} cannot be read: {source}; check the path and that the relay's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is longer than any of its kind.
    #[error("{} is longer than {max} bytes; is it the right file?", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// What is read at most, in bytes.
        max: u64,
    },
    /// There is no certificate in there.
    #[error(
        "{} holds no certificate ({why}); --tls-cert wants a PEM file with the certificate and its chain, the \
         relay's own first", path.display()
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// There is no private key in there.
    #[error(
        "{} holds no private key ({why}); --tls-key wants the PEM file of the certificate's key, without a \
         passphrase", path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// The two do not make a pair.
    #[error("--tls-cert and --tls-key cannot be used together ({0}); give the certificate and its own key")]
    Pair(String),
    /// There is no token in there.
    #[error(
        "line {line} of {} is no token: it wants at least {} characters, visible ASCII without spaces; \
         write one with: openssl rand -hex 32", path.display(), tokens::LEAST
    )]
    Token {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// Why a request is refused before anything is done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// Its address is not served.
    #[error("an address that is not served")]
    Address,
    /// It shows no token, or a wrong one.
    #[error("no token of this relay")]
    Token,
    /// Its source has all the connections that it may have.
    #[error("a source has all the connections that it may have")]
    Crowded,
}

/// The edge of one relay.
#[derive(Debug, Default)]
pub struct Edge {
    tls: Option<Tls>,
    tokens: Option<Watched<Tokens>>,
    proxies: Proxies,
    access: Access,
}

impl Edge {
    /// An edge as it was chosen. Reads the files.
    ///
    /// # Errors
    /// [`EdgeError`] says what is wrong and what to do.
    pub fn new(options: EdgeOptions) -> Result<Self, EdgeError> {
        let proxies = Proxies::new(options.trusted_proxies, options.proxy_protocol)?;
        let tls = match (options.tls_cert, options.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::new(certificate, key)?),
            (None, None) => None,
            (Some(_), None) => {
                return Err(EdgeError::HalfPair { given: "--tls-cert", missing: "--tls-key" });
            }
            (None, Some(_)) => {
                return Err(EdgeError::HalfPair { given: "--tls-key", missing: "--tls-cert" });
            }
        };
        let tokens = options.token_file.map(|path| Watched::new(vec![path], tokens::load)).transpose()?;
        Ok(Self { tls, tokens, proxies, access: Access::new(options.allow, options.deny) })
    }

    /// Reads again what changed on the disk. To be called every few seconds, from where files may be waited for.
    pub(crate) fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
        if let Some(tokens) = &self.tokens {
            tokens.refresh();
        }
    }

    /// Whether [`Edge::refresh`] has anything to do.
    pub(crate) const fn is_watching(&self) -> bool {
        self.tls.is_some() || self.tokens.is_some()
    }

    /// How connections are encrypted, if this relay does it.
    pub(crate) const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Whether a connection is worth being looked at: not from a network that is not served. A proxy is: it may speak
    /// for others.
    pub(crate) fn may_knock(&self, origin: Origin) -> bool {
        match origin {
            Origin::Settled(_) => true,
            Origin::Address(address) => self.proxies.is_trusted(address) || self.access.serves(address),
        }
    }

    /// Whom a connection comes from, after the header of its proxy, which is read off it.
    ///
    /// # Errors
    /// Where the header is missing or is none.
    pub(crate) async fn origin<IO>(&self, io: &mut IO, origin: Origin) -> io::Result<Origin>
    where
        IO: AsyncRead + Unpin,
    {
        match origin {
            Origin::Address(address) if self.proxies.sends_header(address) => {
                proxies::read_header(io).await.map(|told| told.map_or(origin, Origin::from))
            }
            Origin::Address(_) | Origin::Settled(_) => Ok(origin),
        }
    }

    /// Whether a request is served, and what its limits count for.
    fn judge(&self, origin: Origin, headers: &HeaderMap) -> Result<Source, Denied> {
        let source = match origin {
            Origin::Settled(source) => source,
            Origin::Address(address) => {
                let address = self.proxies.client(address, headers);
                if !self.access.serves(address) {
                    return Err(Denied::Address);
                }
                address.into()
            }
        };
        match &self.tokens {
            Some(tokens) if !tokens.current().admit(headers) => Err(Denied::Token),
            _ => Ok(source),
        }
    }
}

/// One connection at the edge.
#[derive(Debug)]
pub(crate) struct Guest {
    edge: Arc<Edge>,
    visits: Arc<Visits>,
    origin: Origin,
    /// What its limits count for, and its place among that source's connections; for as long as the connection lives.
    visit: OnceLock<Visit>,
}

impl Guest {
    /// A connection from there. Where only its request can tell whom it is from, its place is taken with
    /// [`Guest::admit`].
    ///
    /// # Errors
    /// [`Denied`] where its address is not served, or has all the connections that it may have.
    pub fn new(edge: Arc<Edge>, visits: Arc<Visits>, origin: Origin) -> Result<Self, Denied> {
        let visit = OnceLock::new();
        let known = match origin {
            Origin::Settled(source) => Some(source),
            Origin::Address(address) if edge.proxies.is_trusted(address) => None,
            Origin::Address(address) if edge.access.serves(address) => Some(address.into()),
            Origin::Address(_) => return Err(Denied::Address),
        };
        if let Some(source) = known {
            let place = visits.enter(source).ok_or(Denied::Crowded)?;
            // Just made: nothing is in there.
            let _ = visit.set(place);
        }
        Ok(Self { edge, visits, origin, visit })
    }

    /// What stands for it in the log while it is not admitted.
    pub fn source(&self) -> Source {
        self.origin.source()
    }

    /// Judges a request for a websocket: what its limits count for.
    ///
    /// # Errors
    /// [`Denied`] where it is not served.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Source, Denied> {
        let source = self.edge.judge(self.origin, headers)?;
        if let Some(visit) = self.visit.get() {
            return Ok(visit.source());
        }
        let visit = self.visits.enter(source).ok_or(Denied::Crowded)?;
        // A connection asks for one websocket, so nothing is in there yet.
        let _ = self.visit.set(visit);
        Ok(source)
    }
}
