//! The byte stream under a relay's websocket: TCP, perhaps through a proxy, TLS over it, or a Unix socket.
//!
//! Owns connecting and when the last byte came, which the websocket above cannot tell while a long message arrives.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::event::Hop;
use crate::transport::tcp::{self, DialError};

use super::endpoint::{Endpoint, Place, Url};
use super::proxy::ProxyError;
use super::tls::{self, TlsError};

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for T {}

/// A connected byte stream.
#[derive(Debug)]
pub(super) struct Carrier {
    stream: Box<dyn Stream>,
    /// When the last byte came.
    heard: Instant,
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CarrierError {
    /// No connection to the relay.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No connection to it through the proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The relay's certificate, or TLS altogether.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket of this machine.
    #[error("{0}")]
    Socket(io::ErrorKind),
}

impl CarrierError {
    /// The step that failed.
    pub(super) const fn hop(&self) -> Hop {
        match self {
            Self::Dial(e) => e.hop(),
            Self::Proxy(_) => Hop::Proxy,
            Self::Tls(_) => Hop::Tls,
            Self::Socket(_) => Hop::Relay,
        }
    }

    /// What to do about it.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Dial(e) => format!("{}, or use another relay with --relay", e.advice()),
            Self::Proxy(e) => e.advice(),
            Self::Tls(e) => e.advice().to_owned(),
            Self::Socket(_) => {
                "check that it is running and that the socket is yours, or use another relay with --relay"
                    .to_owned()
            }
        }
    }
}

impl Carrier {
    /// Connects once.
    pub(super) async fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Self, CarrierError> {
        let socket = |e: io::Error| CarrierError::Socket(e.kind());
        let stream = match &endpoint.place {
            Place::Url(url) => reach(endpoint, url, deadline).await?,
            Place::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(socket)?),
            Place::Local(local) => Box::new(local.connect().await.map_err(socket)?),
        };
        Ok(Self { stream, heard: Instant::now() })
    }

    /// When the last byte came.
    pub(super) const fn heard(&self) -> Instant {
        self.heard
    }
}

async fn reach(endpoint: &Endpoint, url: &Url, deadline: Instant) -> Result<Box<dyn Stream>, CarrierError> {
    let stream: Box<dyn Stream> = match &endpoint.way.proxy {
        None => {
            let addresses = tcp::resolve(&url.host, url.port, deadline).await?;
            endpoint.passed(Hop::Name);
            let stream = tcp::connect(&addresses, deadline).await?;
            endpoint.passed(Hop::Tcp);
            Box::new(stream)
        }
        Some(proxy) => {
            let stream = proxy.lead(endpoint, url, deadline).await?;
            endpoint.passed(Hop::Proxy);
            stream
        }
    };
    if !url.secure {
        return Ok(stream);
    }
    let stream = tls::secure(endpoint.tls()?, &url.host, stream, deadline).await?;
    endpoint.passed(Hop::Tls);
    Ok(Box::new(stream))
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard = Instant::now();
        }
        read
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
