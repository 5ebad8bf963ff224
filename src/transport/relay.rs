//! Through a relay: a websocket with a seat that outlives it.
//!
//! A host [allocates](allocate) a nameplate, a peer [joins](join) it; under a code that the relay may know, both [meet].
//! Owns the way there (proxy, TLS), the seat, reconnecting and the
//! relay's control messages; frames pass through unread. What a relay says is untrusted: its limits are clamped, its texts
//! never reach an event.

mod carrier;
mod endpoint;
mod probe;
mod proxy;
mod seat;
mod socket;
mod supervisor;
mod tls;

use std::time::Duration;

use agent_wormhole_relay::wire::{ClientMessage, ErrorCode, Welcome, Words};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::{Transport, TransportError};
use seat::{Name, Seat, SeatError};
use socket::Socket;
use supervisor::Supervisor;

pub use agent_wormhole_relay::wire::Role;
pub use endpoint::{Endpoint, EndpointError, Token, Way};
pub use probe::{Missed, Probe, Step, probe};
pub use proxy::{NoProxy, Proxy, spares};
pub use tls::{Authorities, AuthoritiesError};

/// The machine's own relay may be changing hands in the instant of the first attempt: it gets this long.
const LOCAL_PATIENCE: Duration = Duration::from_secs(2);

/// Takes a nameplate for a new channel. The transport, a task of this tokio runtime, is up once a peer has joined.
///
/// # Errors
/// [`TransportError::Unreachable`], [`TransportError::Refused`] or [`TransportError::FrameTooSmall`], with what to do.
pub async fn allocate(endpoint: Endpoint) -> Result<(String, Transport), TransportError> {
    let (socket, welcome) = first(&endpoint, &ClientMessage::Allocate).await?;
    let nameplate = seat::nameplate(&welcome)?;
    let seat = Seat::new(Role::Host, Name::Nameplate(nameplate.clone()), &welcome);
    let transport = start(endpoint, seat, socket, &welcome)?;
    Ok((nameplate, transport))
}

/// Takes the peer's seat at a nameplate. The transport is a task of this tokio runtime.
///
/// # Errors
/// [`TransportError::Unreachable`], [`TransportError::Refused`] or [`TransportError::FrameTooSmall`], with what to do.
pub async fn join(endpoint: Endpoint, nameplate: &str) -> Result<Transport, TransportError> {
    let hello = ClientMessage::Join { nameplate: nameplate.to_owned() };
    let (socket, welcome) = first(&endpoint, &hello).await?;
    let seat = Seat::new(Role::Peer, Name::Nameplate(nameplate.to_owned()), &welcome);
    start(endpoint, seat, socket, &welcome)
}

/// Takes either seat under a code, **which the relay is told**: so the Python tool 0.1.5 does it. The transport is a task
/// of this tokio runtime.
///
/// # Errors
/// [`TransportError::Unreachable`], [`TransportError::Refused`] or [`TransportError::FrameTooSmall`], with what to do.
pub async fn meet(endpoint: Endpoint, role: Role, code: &str) -> Result<Transport, TransportError> {
    let name = Name::Code(Words(code.to_owned()));
    let (socket, welcome) = first(&endpoint, &name.hello(role)).await?;
    start(endpoint, Seat::new(role, name, &welcome), socket, &welcome)
}

/// The first attempt, which a person waits for.
async fn first(endpoint: &Endpoint, hello: &ClientMessage) -> Result<(Socket, Welcome), TransportError> {
    seated(endpoint, hello).await.map_err(|e| e.told(endpoint))
}

/// Until there is a seat, or no hope of one.
async fn seated(endpoint: &Endpoint, hello: &ClientMessage) -> Result<(Socket, Welcome), SeatError> {
    let start = Instant::now();
    let mut backoff = Backoff::new();
    loop {
        let e = match seat::attempt(endpoint, hello).await {
            Ok(seated) => return Ok(seated),
            Err(e) => e,
        };
        let passing = match &e {
            // The host may be on its way to the relay's new owner.
            SeatError::Code(code) => *code == ErrorCode::UnableToJoin,
            SeatError::Open(_) | SeatError::Answer(_) | SeatError::Silent => true,
        };
        if !(endpoint.is_local() && passing && start.elapsed() < LOCAL_PATIENCE) {
            return Err(e);
        }
        backoff.wait().await;
    }
}

fn start(
    endpoint: Endpoint,
    seat: Seat,
    socket: Socket,
    welcome: &Welcome,
) -> Result<Transport, TransportError> {
    let limits = seat::limits(welcome)?;
    let (transport, ends) = Transport::pair();
    tokio::spawn(Supervisor::new(ends, endpoint, seat, limits, socket).run());
    Ok(transport)
}
