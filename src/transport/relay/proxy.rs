//! The proxy of a network: how it is written, whom it is not for, and how it is asked to lead on. The only file that names
//! types of hyper and of the SOCKS crate.
//!
//! Owns the words for what a proxy does wrong. Which proxy is meant is decided by whoever reads the settings. A user and
//! a password are in no error and in no `Debug`.

use std::fmt;
use std::net::IpAddr;

use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_socks::tcp::Socks5Stream;
use zeroize::Zeroizing;

use crate::transport::tcp::{self, DialError};

use super::carrier::Stream;
use super::endpoint::{Endpoint, Url};
use super::tls::{self, TlsError};

/// Longest answer of a proxy that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// A proxy, and who named it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    language: Language,
    /// A name or an address, the latter without brackets.
    host: String,
    port: u16,
    /// `scheme://host:port`, for a person.
    named: String,
    /// Where it is set: `--proxy`, a variable, the config file.
    origin: String,
}

/// What it speaks, with what it is to believe.
#[derive(Clone, PartialEq, Eq)]
enum Language {
    /// HTTP, over TLS or not.
    Http { secure: bool, credentials: Option<HeaderValue> },
    /// SOCKS5.
    Socks(Option<(Zeroizing<String>, Zeroizing<String>)>),
}

/// What is no proxy, as what follows the place where it is set. The text itself may hold a password and is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "names no proxy: write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ before HOST where \
     it wants them (other characters than letters and digits as %XX), or `none`"
)]
pub struct NoProxy;

/// What a proxy did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} (set by {}): {fault}", .proxy.named, .proxy.origin)]
pub(super) struct ProxyError {
    proxy: Proxy,
    fault: Fault,
}

/// Why, in words about the proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    /// It cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS towards it.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It wants to know who we are.
    #[error("it wants a user and a password")]
    Unknown,
    /// It does not believe who we are.
    #[error("it does not accept the user and the password")]
    Credentials,
    /// It does not want to.
    #[error("it does not allow a connection to this relay{0}")]
    Forbidden(&'static str),
    /// It cannot.
    #[error("it could not reach the relay ({0})")]
    Beyond(String),
    /// It is none.
    #[error("what answers there is not such a proxy")]
    Foreign,
    /// It went away.
    #[error("it closed the connection without an answer")]
    Ended,
    /// It says nothing.
    #[error("it gave no answer")]
    Silent,
}

impl ProxyError {
    /// What to do about it.
    pub(super) fn advice(&self) -> String {
        let origin = &self.proxy.origin;
        let otherwise = "--proxy none does without it";
        match &self.fault {
            Fault::Dial(e) => format!("{}; {otherwise}", e.advice()),
            Fault::Tls(e) => format!("{}; {otherwise}", e.advice()),
            Fault::Unknown => format!("write USER:PASSWORD@ before its host in {origin}"),
            Fault::Credentials => {
                format!("check USER:PASSWORD@ in {origin}; %XX stands for a special character")
            }
            Fault::Forbidden(_) => {
                format!("ask whoever runs it; {otherwise}, and so does the relay's host in NO_PROXY")
            }
            Fault::Beyond(_) => {
                format!("check the relay's address, and that the relay is running; {otherwise}")
            }
            Fault::Foreign | Fault::Ended => {
                format!("check the scheme and the port in {origin}; {otherwise}")
            }
            Fault::Silent => format!("check that it works; {otherwise}"),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}, set by {})", self.named, self.origin)
    }
}

impl Proxy {
    /// `scheme://host:port`: where it is, without who is allowed to use it.
    #[must_use]
    pub fn named(&self) -> &str {
        &self.named
    }

    /// Reads `http://[USER:PASSWORD@]HOST:PORT` and its like; without a scheme it is HTTP. `origin` says where it stands.
    ///
    /// # Errors
    /// [`NoProxy`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, NoProxy> {
        // Of two, the library takes the first for the end of the password, and the rest of it for the host.
        if text.matches('@').count() > 1 {
            return Err(NoProxy);
        }
        let anywhere = Uri::from_static("http://relay.example");
        let read = Matcher::builder().all(text.trim()).build().intercept(&anywhere).ok_or(NoProxy)?;
        let uri = read.uri();
        let (language, usual) = match uri.scheme_str() {
            Some("http") => (http(&read, false), 80),
            Some("https") => (http(&read, true), 443),
            // Both leave the relay's name to the proxy.
            Some("socks5" | "socks5h") => (
                Language::Socks(
                    read.raw_auth()
                        .map(|(user, password)| (user.to_owned().into(), password.to_owned().into())),
                ),
                1080,
            ),
            _ => return Err(NoProxy),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(NoProxy)?;
        let behind = uri.authority().and_then(|authority| authority.as_str().strip_prefix(host));
        let port = match behind.and_then(|rest| rest.strip_prefix(':')) {
            None => usual,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(NoProxy)?,
        };
        let named = format!("{}://{host}:{port}", uri.scheme_str().unwrap_or("http"));
        let host = tcp::bare(host).to_owned();
        Ok(Self { language, host, port, named, origin: origin.to_owned() })
    }

    /// A connection to the relay.
    pub(super) async fn lead(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        deadline: Instant,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        let led = self.led(endpoint, url, deadline);
        let stream = match timeout_at(deadline, led).await {
            Ok(done) => done,
            Err(_) => Err(Fault::Silent),
        }
        .map_err(|fault| ProxyError { proxy: self.clone(), fault })?;
        tracing::info!(proxy = self.named, set_by = self.origin, "the proxy leads to the relay");
        Ok(stream)
    }

    async fn led(&self, endpoint: &Endpoint, url: &Url, deadline: Instant) -> Result<Box<dyn Stream>, Fault> {
        let stream = Box::new(tcp::dial(&self.host, self.port, deadline).await?);
        match &self.language {
            Language::Http { secure: false, credentials } => tunnel(stream, url, credentials.as_ref()).await,
            Language::Http { secure: true, credentials } => {
                let stream = tls::secure(endpoint.tls()?, &self.host, stream, deadline).await?;
                tunnel(Box::new(stream), url, credentials.as_ref()).await
            }
            Language::Socks(credentials) => {
                let target = (url.host.as_str(), url.port);
                let led = match credentials {
                    None => Socks5Stream::connect_with_socket(stream, target).await,
                    Some((user, password)) => {
                        Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
                    }
                };
                Ok(led.map_err(|e| socks_fault(&e, credentials.is_some()))?.into_inner())
            }
        }
    }
}

fn http(read: &Intercept, secure: bool) -> Language {
    Language::Http { secure, credentials: read.basic_auth().cloned() }
}

/// Whether no proxy is to be used towards this host, a name or an address without brackets: this machine itself never
/// needs one, and `list` is a `NO_PROXY` (names with what is below them, addresses, networks, `*`).
#[must_use]
pub fn spares(list: &str, host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let ours = match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    };
    let listed = || {
        let authority = if host.contains(':') { format!("[{host}]") } else { name.clone() };
        let uri = format!("http://{authority}").parse::<Uri>();
        let matcher = Matcher::builder().all("http://proxy.example").no(list).build();
        uri.is_ok_and(|uri| matcher.intercept(&uri).is_none())
    };
    ours || listed()
}

/// Asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6).
async fn tunnel(
    stream: Box<dyn Stream>,
    url: &Url,
    credentials: Option<&HeaderValue>,
) -> Result<Box<dyn Stream>, Fault> {
    let target = if url.host.contains(':') {
        format!("[{}]:{}", url.host, url.port)
    } else {
        format!("{}:{}", url.host, url.port)
    };
    let mut request = Request::builder().method(Method::CONNECT).uri(&target).header(HOST, &target);
    if let Some(credentials) = credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(String::new()).map_err(|_| Fault::Foreign)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| http_fault(&e))?;
    let mut connection = Box::pin(connection.without_shutdown());
    let mut sending = Box::pin(sender.send_request(request));
    // The connection's part is over before or after the answer is here; what fails is told as the answer.
    let mut over = None;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut sending => break answer.map_err(|e| http_fault(&e))?,
            parts = &mut connection, if over.is_none() => over = Some(parts),
        }
    };
    match answer.status().as_u16() {
        200..=299 => {}
        407 if credentials.is_none() => return Err(Fault::Unknown),
        407 => return Err(Fault::Credentials),
        403 => return Err(Fault::Forbidden(" (HTTP status 403)")),
        status => return Err(Fault::Beyond(format!("HTTP status {status}"))),
    }
    let parts = match over {
        Some(parts) => parts,
        None => connection.await,
    };
    let parts = parts.map_err(|e| http_fault(&e))?;
    // Behind a tunnel the client speaks first.
    if parts.read_buf.is_empty() { Ok(parts.io.into_inner()) } else { Err(Fault::Foreign) }
}

fn http_fault(error: &hyper::Error) -> Fault {
    if error.is_parse() { Fault::Foreign } else { Fault::Ended }
}

fn socks_fault(error: &tokio_socks::Error, shown: bool) -> Fault {
    use tokio_socks::Error;
    match error {
        Error::NoAcceptableAuthMethods | Error::PasswordAuthFailure(_) | Error::InvalidAuthValues(_)
            if shown =>
        {
            Fault::Credentials
        }
        Error::NoAcceptableAuthMethods => Fault::Unknown,
        Error::ConnectionNotAllowedByRuleset => Fault::Forbidden(""),
        Error::GeneralSocksServerFailure => Fault::Beyond("general failure".into()),
        Error::NetworkUnreachable => Fault::Beyond("network unreachable".into()),
        Error::HostUnreachable => Fault::Beyond("host unreachable".into()),
        Error::ConnectionRefused => Fault::Beyond("connection refused".into()),
        Error::TtlExpired => Fault::Beyond("no answer".into()),
        Error::Io(_) => Fault::Ended,
        _ => Fault::Foreign,
    }
}
