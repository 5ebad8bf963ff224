//! Direct TCP between the two ends.
//!
//! The host [binds](Listener::bind) a port, which is the nameplate of its code, and [starts](Listener::start) once it
//! knows its SPAKE2 message; the peer [dials](dial). Owns framing, the bounds on strangers, and what happens after a
//! drop (`src/PROTOCOL.md`, "Direct mode after a drop"); knows nothing of what a frame says.

mod dialer;
mod door;
mod link;
mod proof;
mod socket;
mod supervisor;
mod wire;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Transport, TransportError};
use crate::event::Hop;
use dialer::Dialer;
use door::{Door, Exam};
use supervisor::{Source, Supervisor};

/// A proven link without a single byte for this long is down; both ends send at least every 15 s.
const LINK_SILENCE: Duration = Duration::from_secs(30);
/// A connection that has not proved itself may be silent this long.
const UNPROVEN_SILENCE: Duration = Duration::from_secs(10);
/// The resume proof takes this long at most, on both sides.
const PROOF_TIME: Duration = Duration::from_secs(10);

/// A host's port, taken before its code is known.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Listener {
    /// Takes `port` on every address of this machine, IPv6 and IPv4; 0 takes a free one. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] where the port cannot be had.
    pub fn bind(port: u16) -> Result<Self, TransportError> {
        let bound = socket::listen(port).and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        match bound {
            Ok((port, listener)) => Ok(Self { listener, port }),
            Err(e) => Err(TransportError::Unreachable {
                hop: Hop::Tcp,
                why: match e.kind() {
                    io::ErrorKind::AddrInUse => {
                        format!("port {port} is in use by another program; choose another with --port")
                    }
                    io::ErrorKind::PermissionDenied => {
                        format!("this user may not listen on port {port}; choose one above 1023 with --port")
                    }
                    kind => format!("port {port} cannot be listened on ({kind}); choose another with --port"),
                },
            }),
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Answers whoever connects with `greeting`, the host's SPAKE2 message, from now on. Must be called within a tokio
    /// runtime, which runs the transport as a task.
    #[must_use]
    pub fn start(self, greeting: Bytes) -> Transport {
        // Nobody is dialled, and nothing is said of it.
        let (_, reasons) = mpsc::channel(1);
        run(Source::Door(Door::new(self.listener, Exam::Handshake(greeting))), reasons)
    }
}

/// Connects to `port` of `host`, a name or an address, trying all its addresses. Must be called within a tokio runtime,
/// which runs the transport as a task; how the first attempt ends is told as an event.
#[must_use]
pub fn dial(host: &str, port: u16) -> Transport {
    let (reason, reasons) = mpsc::channel(1);
    run(Source::Dialer(Dialer::new(host, port, reason)), reasons)
}

fn run(source: Source, reasons: mpsc::Receiver<String>) -> Transport {
    let (transport, ends) = Transport::pair();
    tokio::spawn(Supervisor::new(ends, source, reasons).run());
    transport
}
