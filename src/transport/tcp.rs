//! TCP connections to elsewhere.
//!
//! Owns dialling by name, the words for its failure, and the options that each connection of ours gets, direct or to a
//! relay. In which order the addresses of a name are tried is decided in `race`.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::race::{self, Failures};
use crate::event::Hop;

/// Bytes that wait in the kernel without being on their way: a prompt record waits behind no more than these. Less
/// would wake the writer more often than the throughput of one chunk needs.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Most addresses that a message names; the others are counted.
const MAX_NAMED: usize = 3;

/// Why nothing was reached: what follows "could not be reached:".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DialError {
    /// The resolver knows no address of it.
    #[error("no address is known for this name")]
    Unknown,
    /// The resolver did not answer.
    #[error("this machine's name service (DNS) does not answer")]
    Resolver,
    /// No address could be connected to.
    #[error("{}", Addresses(.0))]
    Addresses(Failures),
}

impl DialError {
    /// The step that failed.
    pub(super) const fn hop(&self) -> Hop {
        match self {
            Self::Unknown | Self::Resolver => Hop::Name,
            Self::Addresses(_) => Hop::Tcp,
        }
    }

    /// What to do about it, where a server was to be reached.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Unknown => "check its spelling",
            Self::Resolver => "check this machine's network, or write an address in place of the name",
            Self::Addresses(failures) => match failures.first().map(|(_, kind)| *kind) {
                Some(io::ErrorKind::ConnectionRefused) => "check the port, and that it is running there",
                Some(io::ErrorKind::TimedOut) => {
                    "check the address and port, and that no firewall is in between"
                }
                _ => "check the address, and this machine's network",
            },
        }
    }
}

/// Addresses and how each failed, in words.
struct Addresses<'a>(&'a Failures);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, kind)) in self.0.iter().take(MAX_NAMED).enumerate() {
            let how = match kind {
                io::ErrorKind::TimedOut => "no answer".to_owned(),
                kind => kind.to_string(),
            };
            write!(f, "{}{how} at {address}", if index > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(f, ", and at {more} more"),
        }
    }
}

/// Sets what every connection needs. A kernel that refuses loses speed, not correctness.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
    }
}

/// Connects to a name or address, trying the addresses of it side by side.
///
/// # Errors
/// [`DialError`], at the deadline at the latest.
pub(super) async fn dial(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, DialError> {
    connect(&resolve(host, port, deadline).await?, deadline).await
}

/// The addresses of a name, at least one; an address is its own.
///
/// # Errors
/// [`DialError::Unknown`] and [`DialError::Resolver`].
pub(super) async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|_| DialError::Resolver)?.map_err(|e| unresolved(&e))?.collect();
    if addresses.is_empty() { Err(DialError::Unknown) } else { Ok(addresses) }
}

/// Connects to one of these addresses.
///
/// # Errors
/// [`DialError::Addresses`].
pub(super) async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, DialError> {
    let stream = race::first(addresses, deadline, TcpStream::connect).await.map_err(DialError::Addresses)?;
    tune(&stream);
    Ok(stream)
}

/// Whether a name does not exist, or nobody could be asked: the standard library has only words for it, those of the C
/// library, and never sets another language.
fn unresolved(error: &io::Error) -> DialError {
    let text = error.to_string();
    let unasked = ["Temporary failure", "Try again"];
    if unasked.iter().any(|words| text.contains(words)) { DialError::Resolver } else { DialError::Unknown }
}

/// A host as the resolver takes it: an IPv6 address comes without its brackets.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failure_names_each_address_with_its_reason_and_what_to_do() {
        let address = |last: u8| SocketAddr::from(([192, 0, 2, last], 443));
        let failures = vec![
            (address(1), io::ErrorKind::TimedOut),
            (SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443)), io::ErrorKind::NetworkUnreachable),
        ];
        let error = DialError::Addresses(failures.clone());
        assert_eq!(error.to_string(), "no answer at 192.0.2.1:443, network unreachable at [2001:db8::1]:443");
        assert!(error.advice().contains("firewall"));
        let many = [failures.clone(), failures.clone(), failures].concat();
        assert!(DialError::Addresses(many).to_string().ends_with("443, and at 3 more"));
    }

    #[test]
    fn a_name_that_does_not_exist_is_not_a_name_that_nobody_could_be_asked_for() {
        let says = |text: &str| unresolved(&io::Error::other(text));
        let prefix = "failed to lookup address information: ";
        assert_eq!(says(&format!("{prefix}Name or service not known")), DialError::Unknown);
        assert_eq!(says(&format!("{prefix}Temporary failure in name resolution")), DialError::Resolver);
        assert_eq!(says(&format!("{prefix}Try again")), DialError::Resolver);
    }

    #[tokio::test]
    async fn a_refusal_names_the_address_and_its_step() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        drop(taken);
        let deadline = Instant::now() + Duration::from_secs(15);
        let error = dial("127.0.0.1", address.port(), deadline).await.unwrap_err();
        assert_eq!(error.hop(), Hop::Tcp);
        assert_eq!(error.to_string(), format!("connection refused at {address}"));
    }
}
