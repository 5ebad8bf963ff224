//! The peer's side of connecting: all addresses of a host, again and again once the channel is proven.
//!
//! Owns the attempts and the words for their failure.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::crypto::resume::ResumeKey;
use crate::transport::TransportError;
use crate::transport::backoff::Backoff;

use super::link::Candidate;
use super::wire::split;
use super::{PROOF_TIME, proof};

/// One address gets this long to answer: long enough for two lost packets, short enough to go on to the next.
const ADDRESS_TIME: Duration = Duration::from_secs(4);

/// Where the host is.
#[derive(Debug, Clone)]
struct Target {
    host: String,
    port: u16,
}

type Attempt = Pin<Box<dyn Future<Output = Result<Candidate, TransportError>> + Send>>;

/// Dials the host whenever there is no link.
pub(super) struct Dialer {
    target: Target,
    /// What a connection after the first has to prove.
    key: Option<Arc<ResumeKey>>,
    /// The attempt that is going on.
    attempt: Option<Attempt>,
}

impl Dialer {
    /// Towards this host: a name, or an address with or without brackets.
    pub(super) fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Self { target: Target { host: bare.to_owned(), port }, key: None, attempt: None }
    }

    /// From now on each connection proves this key, and attempts go on until one succeeds.
    pub(super) fn resume_with(&mut self, key: ResumeKey) {
        self.key = Some(Arc::new(key));
        self.attempt = None;
    }

    /// The next connection. May be dropped at any time: the attempt goes on when it is asked again.
    pub(super) async fn next(&mut self) -> Result<Candidate, TransportError> {
        let Self { target, key, attempt } = self;
        let going = attempt.get_or_insert_with(|| {
            let target = target.clone();
            match key.clone() {
                None => Box::pin(async move { target.first().await }),
                Some(key) => Box::pin(async move { Ok(target.again(&key).await) }),
            }
        });
        let outcome = going.await;
        self.attempt = None;
        outcome
    }
}

impl Target {
    /// The first connection: one attempt.
    async fn first(&self) -> Result<Candidate, TransportError> {
        let Self { host, port } = self;
        match self.dial().await {
            Ok(stream) => {
                let (reader, writer) = split(stream);
                Ok(Candidate { reader, writer, shown: Vec::new() })
            }
            Err(e) => Err(TransportError::Unreachable(format!(
                "{host} port {port} could not be reached ({}); check the name, that the channel is still being hosted \
                 there with --direct, and that no firewall blocks TCP port {port}",
                reason(&e)
            ))),
        }
    }

    /// A further connection: attempts until one has proved itself.
    async fn again(&self, key: &ResumeKey) -> Candidate {
        let mut backoff = Backoff::new();
        loop {
            backoff.wait().await;
            let stream = match self.dial().await {
                Ok(stream) => stream,
                Err(e) => {
                    tracing::debug!(kind = ?e.kind(), "the host could not be reached");
                    continue;
                }
            };
            let (mut reader, mut writer) = split(stream);
            match timeout(PROOF_TIME, proof::present(key, &mut reader, &mut writer)).await {
                Ok(Some(())) => return Candidate { reader, writer, shown: Vec::new() },
                Ok(None) | Err(_) => tracing::debug!("what answered did not prove to be the host"),
            }
        }
    }

    /// Tries every address in turn.
    async fn dial(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let addrs: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::NotFound))?
            .collect();
        for addr in addrs {
            match timeout(ADDRESS_TIME, TcpStream::connect(addr)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => last = e,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

/// Our words for why an address was not reached.
fn reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "the name is not known".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        kind => kind.to_string(),
    }
}
