//! The first message of a websocket: who wants which seat.
//!
//! Owns how long a client may take to say it, and how soon a failing one is answered. What a seat is, is the store's.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Ending;
use super::hearing::Hearing;
use crate::exchange::{Caller, Exchange, Refusal, Seated};
use crate::rules::{CodeHash, Nameplate, Source};
use crate::server::{Registered, Shared};
use crate::websocket::{Incoming, Websocket};
use crate::wire::{ClientMessage, ErrorCode, Role};

/// The first message has to come within this time.
const HELLO: Duration = Duration::from_secs(10);

/// A seat that somebody took.
pub(super) struct Taken<H> {
    /// Which end.
    pub role: Role,
    /// What may be said to it.
    pub hearing: Hearing,
    pub seated: Seated<H>,
}

/// Reads the first message and takes a seat.
pub(super) async fn take_seat<E: Exchange>(
    ws: &mut Websocket,
    source: Source,
    shared: &Shared<E>,
    registered: &Registered<'_, E>,
) -> Result<Taken<E::Hold>, Ending> {
    let first = listen(ws, shared, registered);
    let text = match timeout(HELLO, first).await.unwrap_or(Err(Ending::NoHello))? {
        Incoming::Text(text) => text,
        Incoming::Closed(code) => return Err(Ending::Closed(code)),
        Incoming::Frame(_) => return Err(Ending::Refused(ErrorCode::BadMessage)),
    };
    if shared.drain.is_begun() {
        return Err(Ending::Stopping);
    }
    let caller = Caller { source, bell: registered.bell.clone() };
    let now = Instant::now().into_std();
    let exchange = &shared.exchange;
    let mut hearing = Hearing::All;
    let (role, seated) = match ClientMessage::decode(&text) {
        Ok(ClientMessage::Allocate) => (Role::Host, exchange.allocate(caller, now).await?),
        Ok(ClientMessage::Join { nameplate }) => {
            let seated = exchange.join(&nameplate, caller, now).await;
            // As many have to wait as could be meant: how long it takes must not tell them apart.
            if matches!(seated, Err(Refusal::Code(ErrorCode::UnableToJoin) | Refusal::Crowded)) {
                keep_back(ws, &nameplate, shared, registered).await?;
            }
            let seated = seated?;
            shared.events.paired(source);
            (Role::Peer, seated)
        }
        Ok(ClientMessage::JoinCode(join)) => {
            hearing = if join.statuses { Hearing::All } else { Hearing::Once };
            let code = CodeHash::of(&join.code.0).filter(|_| shared.options.legacy_clients);
            let code = code.ok_or(Ending::Refused(ErrorCode::UnableToJoin))?;
            let seated = exchange.join_code(&code, join.role, caller, now).await?;
            if join.role == Role::Peer {
                shared.events.paired(source);
            }
            (join.role, seated)
        }
        Ok(ClientMessage::Resume(claim)) => (claim.role, exchange.resume(&claim, caller, now).await?),
        Ok(ClientMessage::Release | ClientMessage::Bye { .. }) | Err(_) => {
            return Err(Ending::Refused(ErrorCode::BadMessage));
        }
    };
    Ok(Taken { role, hearing, seated })
}

/// The next message of a client that has no seat, or the end.
async fn listen<E>(
    ws: &mut Websocket,
    shared: &Shared<E>,
    registered: &Registered<'_, E>,
) -> Result<Incoming, Ending> {
    poll_fn(|cx| {
        if registered.bell.poll_rung(cx).is_ready() && shared.drain.is_begun() {
            return Poll::Ready(Err(Ending::Stopping));
        }
        if let Poll::Ready(incoming) = ws.poll_incoming(cx) {
            return Poll::Ready(incoming.map_err(Ending::from));
        }
        if ws.is_writing() {
            // A pong at most. An error shows when reading.
            let _ = ws.poll_flush(cx);
        }
        Poll::Pending
    })
    .await
}

/// Waits before a failing join is answered, if many failed at its nameplate. The client is heard meanwhile, and what it
/// says changes nothing.
async fn keep_back<E>(
    ws: &mut Websocket,
    nameplate: &str,
    shared: &Shared<E>,
    registered: &Registered<'_, E>,
) -> Result<(), Ending> {
    // Who may fail without a limit may do so at once: the sessions of one machine.
    let Some(nameplate) = Nameplate::parse(nameplate).filter(|_| shared.options.failed_joins_per_minute > 0)
    else {
        return Ok(());
    };
    let now = Instant::now();
    let delay = shared.guesses().failed(nameplate, now.into_std());
    if delay.is_zero() {
        return Ok(());
    }
    let until = now + delay;
    loop {
        match timeout_at(until, listen(ws, shared, registered)).await {
            Err(_) => return Ok(()),
            Ok(Err(Ending::Stopping)) => return Err(Ending::Stopping),
            Ok(Ok(Incoming::Text(_) | Incoming::Frame(_))) => {}
            // How soon the end is noticed must not tell what the answer would have been.
            Ok(ended) => {
                sleep_until(until).await;
                return Err(ended.err().unwrap_or(Ending::Closed(None)));
            }
        }
    }
}
