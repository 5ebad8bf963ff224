//! TCP connections to elsewhere.
//!
//! Owns dialling by name and the options that each connection of ours gets, direct or to a relay.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// One address gets this long to answer: long enough for two lost packets, short enough to go on to the next.
const ADDRESS_TIME: Duration = Duration::from_secs(4);
/// Bytes that wait in the kernel without being on their way: a prompt record waits behind no more than these. Less
/// would wake the writer more often than the throughput of one chunk needs.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// Sets what every connection needs. A kernel that refuses loses speed, not correctness.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
    }
}

/// Connects to a name or address, trying every address of it in turn. [`io::ErrorKind::NotFound`]: it has none.
pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let unknown = |_| io::Error::from(io::ErrorKind::NotFound);
    let addrs: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(unknown)?.collect();
    let mut last = io::ErrorKind::NotFound.into();
    for addr in addrs {
        match timeout(ADDRESS_TIME, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => {
                tune(&stream);
                return Ok(stream);
            }
            Ok(Err(e)) => last = e,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Our words for why nothing was reached.
pub(super) fn reason(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "the name is not known".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        kind => kind.to_string(),
    }
}

/// A host as the resolver takes it: an IPv6 address comes without its brackets.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}
