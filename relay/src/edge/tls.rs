//! TLS by the relay itself.
//!
//! Owns the certificate and its key, and the handshake's terms: TLS 1.2 and 1.3, HTTP/1.1. Whoever holds a connection
//! when the certificate changes keeps it; the next handshake has the new one.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{Accept, TlsAcceptor};

use super::EdgeError;
use super::watched::{self, Watched};

/// The only protocol above TLS.
const ALPN: &[u8] = b"http/1.1";

/// What encrypts connections.
pub(crate) struct Tls {
    pair: Arc<Pair>,
    acceptor: TlsAcceptor,
}

/// Prints no key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads the pair.
    pub(super) fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, EdgeError> {
        let pair = Arc::new(Pair(Watched::new(vec![certificate, key], load)?));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| EdgeError::Pair(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(pair.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { pair, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Reads the pair again if it changed.
    pub(super) fn refresh(&self) {
        self.pair.0.refresh();
    }

    /// The handshake of one connection.
    pub fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, io: IO) -> Accept<IO> {
        self.acceptor.accept(io)
    }
}

/// The pair as it is now.
#[derive(Debug)]
struct Pair(Watched<Arc<CertifiedKey>>);

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current()))
    }
}

/// Reads a certificate and its key, which have to match.
fn load(paths: &[PathBuf]) -> Result<Arc<CertifiedKey>, EdgeError> {
    let [certificate, key] = paths else {
        return Err(EdgeError::Pair("one of them is missing".to_owned()));
    };
    let bad = |why: String| EdgeError::Certificate { path: certificate.clone(), why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&watched::read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad("no section of that kind".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_slice(&watched::read(key)?)
        .map_err(|error| EdgeError::Key { path: key.clone(), why: error.to_string() })?;
    CertifiedKey::from_der(chain, secret, &ring::default_provider())
        .map(Arc::new)
        .map_err(|error| EdgeError::Pair(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate that vouches for itself, and its key.
    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("parameters");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn write(place: &Path, certificate: &str, key: &str) -> (PathBuf, PathBuf) {
        let (certificate_path, key_path) = (place.join("cert.pem"), place.join("key.pem"));
        fs::write(&certificate_path, certificate).expect("written");
        fs::write(&key_path, key).expect("written");
        (certificate_path, key_path)
    }

    fn tls(place: &Path, certificate: &str, key: &str) -> Result<Tls, EdgeError> {
        let (certificate, key) = write(place, certificate, key);
        Tls::new(certificate, key)
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let place = tempfile::tempdir().expect("a directory");
        let ((certificate, key), (_, other)) = (pair("one.example"), pair("two.example"));
        let try_with = |certificate: &str, key: &str| tls(place.path(), certificate, key);
        assert!(try_with(&certificate, &key).is_ok());
        for (certificate, key, says) in [
            ("", key.as_str(), "cert.pem holds no certificate"),
            ("nonsense", &key, "cert.pem holds no certificate"),
            (&key, &key, "cert.pem holds no certificate"),
            (&certificate, "", "key.pem holds no private key"),
            (&certificate, &certificate, "key.pem holds no private key"),
            (&certificate, &other, "give the certificate and its own key"),
        ] {
            let error = try_with(certificate, key).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
        let error =
            Tls::new(place.path().join("x"), place.path().join("y")).expect_err("missing").to_string();
        assert!(error.contains("/x cannot be read") && error.contains("check the path"), "{error}");
    }

    #[test]
    fn half_of_a_new_pair_changes_nothing() {
        let place = tempfile::tempdir().expect("a directory");
        let ((certificate, key), (second, second_key)) = (pair("one.example"), pair("two.example"));
        let tls = tls(place.path(), &certificate, &key).expect("a pair");
        let now = || tls.pair.0.current().cert.clone();
        let first = now();
        write(place.path(), &second, &key);
        tls.refresh();
        assert_eq!(now(), first);
        write(place.path(), &second, &second_key);
        tls.refresh();
        assert_ne!(now(), first);
    }
}
