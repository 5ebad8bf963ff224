//! The peer's side of connecting: all addresses of a host, again and again once the channel is proven.
//!
//! Owns the attempts and the words for their failure.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::crypto::resume::ResumeKey;
use crate::transport::TransportError;
use crate::transport::backoff::{BLIP, Backoff};
use crate::transport::tcp::{self, DialError};

use super::link::Candidate;
use super::wire::split;
use super::{PROOF_TIME, proof};

/// One attempt, the name and all its addresses, takes this long at most.
const DIAL_TIME: Duration = Duration::from_secs(15);

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
    /// Where further attempts say why they do not succeed.
    reasons: mpsc::Sender<String>,
}

impl Dialer {
    /// Towards this host: a name, or an address with or without brackets.
    pub(super) fn new(host: &str, port: u16, reasons: mpsc::Sender<String>) -> Self {
        Self { target: Target { host: tcp::bare(host).to_owned(), port }, key: None, attempt: None, reasons }
    }

    /// From now on each connection proves this key, and attempts go on until one succeeds.
    pub(super) fn resume_with(&mut self, key: ResumeKey) {
        self.key = Some(Arc::new(key));
        self.attempt = None;
    }

    /// The next connection. May be dropped at any time: the attempt goes on when it is asked again.
    pub(super) async fn next(&mut self) -> Result<Candidate, TransportError> {
        let Self { target, key, attempt, reasons } = self;
        let going = attempt.get_or_insert_with(|| {
            let target = target.clone();
            match key.clone() {
                None => Box::pin(async move { target.first().await }),
                Some(key) => {
                    let reasons = reasons.clone();
                    Box::pin(async move { Ok(target.again(&key, &reasons).await) })
                }
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
        match self.dial().await {
            Ok(stream) => {
                let (reader, writer) = split(stream);
                Ok(Candidate { reader, writer, shown: Vec::new() })
            }
            Err(e) => Err(TransportError::Unreachable { hop: e.hop(), why: self.unreached(&e) }),
        }
    }

    /// What to tell a person.
    fn unreached(&self, e: &DialError) -> String {
        let Self { host, port } = self;
        let step = e.hop().as_str();
        let advice = match e {
            DialError::Unknown | DialError::Resolver => e.advice().to_owned(),
            DialError::Addresses(_) => format!(
                "check the address, that the channel is still being hosted there with --direct, and that no firewall \
                 blocks TCP port {port}"
            ),
        };
        format!("{host} port {port} could not be reached ({step}: {e}); {advice}")
    }

    async fn dial(&self) -> Result<TcpStream, DialError> {
        tcp::dial(&self.host, self.port, Instant::now() + DIAL_TIME).await
    }

    /// A further connection: attempts until one has proved itself. Why it takes so long goes to `reasons`, each reason
    /// once.
    async fn again(&self, key: &ResumeKey, reasons: &mpsc::Sender<String>) -> Candidate {
        let (start, mut backoff) = (Instant::now(), Backoff::new());
        let mut told = String::new();
        loop {
            backoff.wait().await;
            let stream = match self.dial().await {
                Ok(stream) => stream,
                Err(e) => {
                    let why = self.unreached(&e);
                    tracing::debug!(why, "the host could not be reached");
                    if why != told && start.elapsed() >= BLIP && reasons.try_send(why.clone()).is_ok() {
                        told = why;
                    }
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
}
