//! The byte stream below a websocket.
//!
//! Owns what the websocket's codec cannot do: counts bytes, so that silence is told from a long frame on its way; stops
//! reading at a limit in the middle of a message; reads much at once for a codec that keeps a small buffer, since ten
//! thousand of those are idle; and is not closed when the codec is dropped but comes home, so that a close that was sent
//! is not overtaken by a reset. Knows no frames.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Bytes read and dropped at once after a close.
const DRAIN: usize = 16 * 1024;
/// Bytes read at once.
pub(crate) const READ_AHEAD: usize = 64 * 1024;
/// Buffers that a thread keeps for the next connection that has something to read.
const SPARE: usize = 4;

/// What the carrier and whoever reads messages from it tell each other.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Bytes received since the connection was accepted.
    received: AtomicU64,
    /// How many of those were handed on.
    handed: AtomicU64,
    /// Bytes that were taken to be sent since then.
    sent: AtomicU64,
    /// Once this many were handed on, nothing more is.
    limit: AtomicU64,
    /// A close was sent: until then the client may answer it.
    farewell: OnceLock<Instant>,
}

impl Meter {
    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Lets this many more bytes in from here on, at least one read's worth. Whoever was told that the carrier
    /// [is full](Self::is_full) polls it again by itself: it wakes nobody.
    pub fn allow(&self, bytes: u64) {
        self.limit.store(self.handed.load(Ordering::Relaxed).saturating_add(bytes), Ordering::Relaxed);
    }

    /// Lets this many bytes in beyond what is allowed already.
    pub fn extend(&self, bytes: u64) {
        self.limit.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Nothing is read because of the limit.
    pub fn is_full(&self) -> bool {
        self.handed.load(Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed)
    }

    /// A close is being sent; the client has until `deadline` to take and answer it.
    pub fn farewell(&self, deadline: Instant) {
        // The first one counts.
        let _ = self.farewell.set(deadline);
    }
}

/// A connection that counts, stops and comes home.
#[derive(Debug)]
pub(crate) struct Carrier<IO> {
    /// There until it is dropped.
    io: Option<IO>,
    /// What was read and not handed on; nothing while the connection is idle.
    ahead: Option<Ahead>,
    meter: Arc<Meter>,
    home: Option<oneshot::Sender<IO>>,
}

/// Where a connection comes home to.
#[derive(Debug)]
pub(crate) struct Home<IO> {
    meter: Arc<Meter>,
    back: oneshot::Receiver<IO>,
}

impl<IO> Carrier<IO> {
    /// Wraps a connection; its bytes are not limited until somebody [allows](Meter::allow) a number of them.
    pub fn new(io: IO) -> (Self, Arc<Meter>, Home<IO>) {
        let (home, back) = oneshot::channel();
        let meter = Arc::new(Meter {
            received: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            farewell: OnceLock::new(),
        });
        let carrier = Self { io: Some(io), ahead: None, meter: meter.clone(), home: Some(home) };
        (carrier, meter.clone(), Home { meter, back })
    }

    fn io(&mut self) -> io::Result<Pin<&mut IO>>
    where
        IO: Unpin,
    {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<IO> Drop for Carrier<IO> {
    fn drop(&mut self) {
        if let (Some(io), Some(home)) = (self.io.take(), self.home.take()) {
            // Nobody is at home if the connection's task was dropped: then it closes here.
            drop(home.send(io));
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Home<IO> {
    /// Waits until nobody uses the connection any more. Then closes it: at once or, after a farewell, once the client
    /// has closed it, too, or its time is over.
    pub async fn close(self) {
        let Ok(mut io) = self.back.await else { return };
        if let Some(deadline) = self.meter.farewell.get() {
            // Who does not close in time is cut off.
            let _ = timeout_at(*deadline, drain(&mut io)).await;
        }
    }
}

/// Ends the sending direction, then reads and drops until the other side has ended, too.
async fn drain<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) {
    if io.shutdown().await.is_err() {
        return;
    }
    let mut dropped = vec![0; DRAIN];
    while io.read(&mut dropped).await.is_ok_and(|count| count > 0) {}
}

/// A buffer with bytes that nobody has taken yet.
#[derive(Debug)]
struct Ahead {
    buffer: Box<[u8]>,
    /// Where they are in it.
    from: usize,
    to: usize,
}

thread_local! {
    /// Buffers of connections of this thread that have nothing to read just now.
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

impl Ahead {
    /// An empty one.
    fn new() -> Self {
        let spare = SPARES.with_borrow_mut(Vec::pop);
        let buffer = spare.unwrap_or_else(|| vec![0; READ_AHEAD].into_boxed_slice());
        Self { buffer, from: 0, to: 0 }
    }

    /// Reads into it; how many bytes.
    fn poll_fill<IO: AsyncRead>(
        &mut self,
        io: Pin<&mut IO>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(&mut self.buffer);
        ready!(io.poll_read(cx, &mut buf))?;
        (self.from, self.to) = (0, buf.filled().len());
        Poll::Ready(Ok(self.to))
    }

    /// Hands on what fits; how many bytes.
    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let count = buf.remaining().min(self.to - self.from);
        buf.put_slice(&self.buffer[self.from..self.from + count]);
        self.from += count;
        count
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Another connection may use the buffer.
    fn spare(self) {
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE {
                spares.push(self.buffer);
            }
        });
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Carrier<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.is_full() {
            return Poll::Pending;
        }
        let mut ahead = self.ahead.take().unwrap_or_else(Ahead::new);
        if ahead.is_empty() {
            match ahead.poll_fill(self.io()?, cx) {
                Poll::Ready(Ok(count)) => {
                    self.meter.received.fetch_add(count as u64, Ordering::Relaxed);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ahead.spare();
                    return Poll::Pending;
                }
            }
        }
        let count = ahead.hand_on(buf);
        self.meter.handed.fetch_add(count as u64, Ordering::Relaxed);
        if ahead.is_empty() {
            ahead.spare();
        } else {
            self.ahead = Some(ahead);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Carrier<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.io()?.poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &sent {
            self.meter.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
        sent
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn nothing_is_read_beyond_the_limit() {
        let (mut client, io) = duplex(1000);
        let (mut carrier, meter, _home) = Carrier::new(io);
        client.write_all(&[7; 300]).await.expect("room");
        let mut some = [0; 100];
        meter.allow(150);
        carrier.read_exact(&mut some).await.expect("read");
        assert!(!meter.is_full());
        // A read that was begun below the limit is not cut.
        carrier.read_exact(&mut some).await.expect("read");
        assert!(meter.is_full() && carrier.read(&mut some).now_or_never().is_none());
        meter.extend(51);
        carrier.read_exact(&mut some).await.expect("read");
        assert_eq!(meter.received(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_farewell_the_client_has_its_time() {
        for (answers, takes) in [(true, 0), (false, 2)] {
            let (mut client, io) = duplex(10);
            let (carrier, meter, home) = Carrier::new(io);
            let start = Instant::now();
            meter.farewell(start + std::time::Duration::from_secs(2));
            drop(carrier);
            let leave = async {
                // More than the pipe holds: it is read and dropped.
                client.write_all(&[0; 100]).await.expect("drained");
                assert_eq!(client.read(&mut [0; 1]).await.expect("ended"), 0);
                if answers { None } else { Some(client) }
            };
            let ((), _client) = tokio::join!(home.close(), leave);
            assert_eq!(start.elapsed().as_secs(), takes);
        }
    }

    #[tokio::test]
    async fn without_a_farewell_it_closes_at_once() {
        let (mut client, io) = duplex(10);
        let (carrier, _, home) = Carrier::new(io);
        drop(carrier);
        home.close().await;
        assert!(client.write_all(b"x").await.is_err());
    }
}
