//! What a direct transport asks of the system beyond connecting.
//!
//! Owns listening, and the question what of a connection is still on its way; knows nothing of frames.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel keeps for us until they are accepted: a port scan or two beside the peer.
const BACKLOG: i32 = 64;

/// Listens on every address of this machine, over IPv6 and IPv4 at once; over IPv4 alone where IPv6 is absent.
/// Port 0 takes a free one.
pub(super) fn listen(port: u16) -> io::Result<TcpListener> {
    match open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Ok(listener) => Ok(listener),
        // The port is taken, or ours to use only as root: that is true of IPv4 as well, and worth saying.
        Err(e) if matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => Err(e),
        Err(_) => open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    }
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A host that comes back on its port is not kept out by the remains of its last connection.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Bytes that the other machine's kernel has not acknowledged yet. `None` where the system cannot tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code)] // neither rustix nor socket2 wraps SIOCOUTQ
pub(super) fn unacknowledged(stream: &TcpStream) -> Option<usize> {
    use std::os::fd::AsRawFd as _;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and SIOCOUTQ (the same number as TIOCOUTQ)
    // writes one int to the pointer, which is that of a live local.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { usize::try_from(bytes).ok() } else { None }
}

/// Bytes that the other machine's kernel has not acknowledged yet. `None`: this system cannot tell.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn unacknowledged(_stream: &TcpStream) -> Option<usize> {
    None
}
