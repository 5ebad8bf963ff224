//! The byte stream under a relay's websocket: TCP, TLS over it, or a Unix socket.
//!
//! Owns connecting and when the last byte came, which the websocket above cannot tell while a long message arrives.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::transport::tcp;

use super::endpoint::{Place, Url};

/// A connected byte stream.
#[derive(Debug)]
pub(super) struct Carrier {
    stream: Kind,
    /// When the last byte came.
    heard: Instant,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarrierError {
    /// The system's word, in ours.
    #[error("{}", tcp::reason(*.0))]
    Io(io::ErrorKind),
    /// The relay's certificate, or TLS altogether.
    #[error("its certificate was not accepted, or it does not speak TLS")]
    Tls,
    /// This machine trusts nobody.
    #[error("this machine has no root certificates; install the package ca-certificates")]
    NoRoots,
}

impl From<io::Error> for CarrierError {
    fn from(e: io::Error) -> Self {
        Self::Io(e.kind())
    }
}

impl Carrier {
    /// Connects once.
    pub(super) async fn connect(place: &Place) -> Result<Self, CarrierError> {
        let stream = match place {
            Place::Url(url) => {
                let stream = tcp::dial(&url.host, url.port).await?;
                if url.secure { secure(url, stream).await? } else { Kind::Tcp(stream) }
            }
            Place::Unix(path) => Kind::Unix(UnixStream::connect(path).await?),
            Place::Local(local) => Kind::Unix(local.connect().await?),
        };
        Ok(Self { stream, heard: Instant::now() })
    }

    /// When the last byte came.
    pub(super) const fn heard(&self) -> Instant {
        self.heard
    }
}

async fn secure(url: &Url, stream: TcpStream) -> Result<Kind, CarrierError> {
    let name = ServerName::try_from(url.host.clone()).map_err(|_| CarrierError::Tls)?;
    let connector = TlsConnector::from(roots()?);
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Kind::Tls(Box::new(stream))),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(CarrierError::Tls),
        Err(e) => Err(e.into()),
    }
}

/// TLS with the system's root certificates, which are read once.
fn roots() -> Result<Arc<ClientConfig>, CarrierError> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let mut roots = RootCertStore::empty();
    // One certificate that cannot be read is no reason to do without the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(CarrierError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| CarrierError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.stream {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.heard = Instant::now();
        }
        read
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
