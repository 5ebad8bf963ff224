//! TLS towards a relay or a proxy: who is believed, and the words for what goes wrong.
//!
//! Owns the roots: those of this machine, and the authorities of `--ca`. Connects to nothing.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::event::escape::{shortened, visible};

use super::carrier::Stream;

/// Names of a certificate that a message shows.
const MAX_NAMES: usize = 3;
/// Longest foreign text in a message, in bytes.
const MAX_FOREIGN: usize = 100;

/// Authorities that are believed beside those of the system. At least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

/// Why a file holds no authorities, as what follows its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthoritiesError {
    /// No certificate is in it.
    #[error("holds no certificate")]
    Empty,
    /// What looks like one is none.
    #[error("holds a certificate that cannot be read")]
    Broken,
}

impl Authorities {
    /// Reads certificates in PEM; whatever else is between them does not matter.
    ///
    /// # Errors
    /// [`AuthoritiesError`]: where there is none, or one of them cannot be used.
    pub fn parse(pem: &[u8]) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        let mut authorities = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| AuthoritiesError::Broken)?;
            roots.add(certificate.clone()).map_err(|_| AuthoritiesError::Broken)?;
            authorities.push(certificate);
        }
        if authorities.is_empty() { Err(AuthoritiesError::Empty) } else { Ok(Self(authorities)) }
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

/// Why there is no TLS connection, in words about the server, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TlsError {
    /// This machine trusts nobody.
    #[error("this machine has no root certificates")]
    NoRoots,
    /// TLS itself cannot be set up here, or not for this name.
    #[error("TLS is not possible with this name")]
    Setup,
    /// Nobody whom we trust vouches for it.
    #[error("its certificate comes from an authority that this machine does not trust")]
    Issuer,
    /// It is for somebody else.
    #[error("its certificate is for another name{0}")]
    Name(String),
    /// It was valid once.
    #[error("its certificate has expired")]
    Expired,
    /// It will be valid.
    #[error("its certificate is not valid yet")]
    Early,
    /// Something else about it.
    #[error("its certificate was not accepted ({0})")]
    Certificate(String),
    /// It said no.
    #[error("it refused the TLS connection ({0})")]
    Refused(String),
    /// It says something else.
    #[error("what answers there does not speak TLS")]
    Foreign,
    /// It went away.
    #[error("the connection ended before TLS was set up")]
    Ended,
    /// It says nothing.
    #[error("no answer to the TLS greeting")]
    Silent,
}

impl TlsError {
    /// What to do about it.
    pub(super) const fn advice(&self) -> &'static str {
        match self {
            Self::NoRoots => {
                "install the package ca-certificates, or give the authority's certificate with --ca FILE"
            }
            Self::Issuer => "if that is a private authority, give its certificate with --ca FILE",
            Self::Setup | Self::Name(_) => "write the name that its certificate is for",
            Self::Expired => "check this machine's clock, or ask its operator to renew it",
            Self::Early => "check this machine's clock",
            Self::Certificate(_) | Self::Refused(_) => "ask its operator",
            Self::Foreign | Self::Ended => {
                "if it has no TLS, write ws:// in place of wss:// (http:// for a proxy)"
            }
            Self::Silent => "check that this port has TLS, and that no firewall is in between",
        }
    }
}

/// The client's side of TLS, with the system's root certificates and these.
pub(super) fn client(authorities: Option<&Authorities>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    // One certificate that cannot be read is no reason to do without the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(Authorities(certificates)) = authorities {
        roots.add_parsable_certificates(certificates.iter().cloned());
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Agrees on TLS with `host`, a name or an address without brackets.
pub(super) async fn secure(
    config: Arc<ClientConfig>,
    host: &str,
    stream: Box<dyn Stream>,
    deadline: Instant,
) -> Result<TlsStream<Box<dyn Stream>>, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Setup)?;
    match timeout_at(deadline, TlsConnector::from(config).connect(name, stream)).await {
        Ok(done) => done.map_err(|e| reason(&e)),
        Err(_) => Err(TlsError::Silent),
    }
}

/// Our words for the end of a greeting.
fn reason(error: &io::Error) -> TlsError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => certificate(why),
        Some(rustls::Error::AlertReceived(alert)) => TlsError::Refused(foreign(&format!("{alert:?}"))),
        Some(rustls::Error::PeerIncompatible(_)) => TlsError::Refused("it knows no TLS 1.2 or 1.3".into()),
        Some(_) => TlsError::Foreign,
        None => TlsError::Ended,
    }
}

fn certificate(why: &CertificateError) -> TlsError {
    match why {
        // Another authority of the same name, perhaps an earlier one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsError::Issuer,
        CertificateError::NotValidForName => TlsError::Name(String::new()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().take(MAX_NAMES).map(|name| plain(name)).collect();
            TlsError::Name(if names.is_empty() {
                String::new()
            } else {
                foreign(&format!(": {}", names.join(", ")))
            })
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsError::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsError::Early,
        CertificateError::Revoked => TlsError::Certificate("it was revoked".into()),
        other => TlsError::Certificate(foreign(&other.to_string())),
    }
}

/// A name of a certificate, which the library wraps: `DnsName("relay.example")`.
fn plain(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// A text of somebody else's, so that it can stand in a message.
fn foreign(text: &str) -> String {
    visible(&shortened(text, MAX_FOREIGN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An authority's certificate of the tests' own; nobody has its key.
    const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBbTCCAROgAwIBAgIUNtIrf04lJZ3EiHcsTTghzIf96OQwCgYIKoZIzj0EAwIw\n\
DDEKMAgGA1UEAwwBYTAeFw0yNjExMjUyMjI0MDJaFw0zNjExMjIyMjI0MDJaMAwx\n\
CjAIBgNVBAMMAWEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS4wf0Fw8oKYjF0\n\
ks3KMyAkNKdxZzI6tzhGC1y2hb2+eoFlDYi+m+5ZJwF8Lmnwe6PpuogFpgGQSmSw\n\
gQfHTI2Jo1MwUTAdBgNVHQ4EFgQUNSMnTbwwqyUdNvoxjndCOUpvkPMwHwYDVR0j\n\
BBgwFoAUNSMnTbwwqyUdNvoxjndCOUpvkPMwDwYDVR0TAQH/BAUwAwEB/zAKBggq\n\
hkjOPQQDAgNIADBFAiBwZDnVQSfbHMIrc1ROP7cSl/oSYCkRYV9qx+w2fKQvywIh\n\
APEva2utxFknlgRqTYkPiZmDQfM9kbY9rMf63SLllsNM\n\
-----END CERTIFICATE-----\n";

    #[test]
    fn a_file_may_hold_several_authorities_and_words_between_them() {
        let pem = format!("# ours\n{AUTHORITY}# theirs\r\n{AUTHORITY}");
        assert_eq!(Authorities::parse(pem.as_bytes()).unwrap().0.len(), 2);
    }

    #[test]
    fn what_holds_no_authority_is_refused() {
        let key = AUTHORITY.replace("CERTIFICATE", "PRIVATE KEY");
        for empty in ["", "hello", &key] {
            assert_eq!(Authorities::parse(empty.as_bytes()), Err(AuthoritiesError::Empty), "{empty}");
        }
        let half = &AUTHORITY[..AUTHORITY.len() / 2];
        let nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for broken in [half, nothing, &format!("{AUTHORITY}{nothing}")] {
            assert_eq!(Authorities::parse(broken.as_bytes()), Err(AuthoritiesError::Broken), "{broken}");
        }
    }

    #[test]
    fn names_of_a_certificate_are_shown_short_and_without_hidden_characters() {
        let shown = |presented: Vec<String>| {
            let expected = ServerName::try_from("relay.example").unwrap();
            certificate(&CertificateError::NotValidForNameContext { expected, presented }).to_string()
        };
        let named = shown(vec!["DnsName(\"other.example\")".into()]);
        assert_eq!(named, "its certificate is for another name: other.example");
        assert_eq!(shown(Vec::new()), "its certificate is for another name");
        let hostile = shown(vec![format!("DnsName(\"\u{202e}{}\")", "x".repeat(5000)); 50]);
        assert!(hostile.len() < 300 && !hostile.contains('\u{202e}'), "{hostile}");
    }

    #[test]
    fn each_fault_of_a_certificate_has_its_own_advice() {
        for (why, advice) in [
            (CertificateError::UnknownIssuer, "--ca"),
            (CertificateError::NotValidForName, "name"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::Revoked, "operator"),
        ] {
            assert!(certificate(&why).advice().contains(advice), "{why}");
        }
    }
}
