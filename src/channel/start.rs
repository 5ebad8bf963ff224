//! From options to a running channel, and from its end to nothing left behind.
//!
//! Owns the order in which things are made (link, place, mailbox, threads) and taken away again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::OutboxEvent;
use agent_wormhole_mount::secret::lock_vault;
use rand_core::OsRng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zeroize::Zeroizing;

use super::backend::{self, Chosen};
use super::driver::{Driver, Inputs, Notice, Parts};
use super::handover::server::Handing;
use super::journal::Journal;
use super::options::{End, HostLink, Lines, Options, PeerLink, Progress, Unread};
use super::reader::Reader;
use super::report::Report;
use super::store::Store;
use super::{ChannelError, Ending};
use crate::code::{Code, Nameplate};
use crate::config::Relay;
use crate::event::{
    ChannelEvent, ClosedEvent, Event, Hop, MAX_NAMES, Stamp, StatusEvent, TransportKind, Via,
};
use crate::rundir::{NewChannel, RuntimeDir};
use crate::session::{Role, Session};
use crate::transport::local::Local;
use crate::transport::relay::Endpoint;
use crate::transport::{Transport, TransportError, direct, relay};

/// A host waits this long for its peer where it was not told otherwise: the inactivity limit.
const PATIENCE: Duration = Duration::from_secs(3600);
/// A peer waits this long for the handshake: its own limits end it sooner.
const CONNECT_PATIENCE: Duration = Duration::from_secs(120);

/// After the end, the reader of standard output gets this long for what waits.
const LAST_READ: Duration = Duration::from_secs(5);

/// What whoever reads standard output has to know of a code that the relay is told.
const LEGACY_CODE: &str = "the relay can read this code and everything sent under it; use it only with a relay you trust \
                           with that; where the other end is not agent-wormhole 0.1, leave out --legacy";

/// A link on its way, and what it is for.
struct Linked {
    role: Role,
    code: Code,
    session: Session,
    transport: Transport,
    kind: TransportKind,
    /// The relay is told the code.
    legacy: bool,
    via: Option<Via>,
}

/// Runs a channel to its end.
///
/// # Errors
/// [`ChannelError`] where it could not even begin; what ends a channel that began is its [`Ending`].
pub fn run(options: Options) -> Result<Ending, ChannelError> {
    super::memory::keep_buffers();
    // One thread: frames pass between driver and transport without waking anybody.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ChannelError::Runtime)?;
    let ending = runtime.block_on(channel(options));
    // The local relay's and the reader's threads end with the process.
    runtime.shutdown_background();
    ending
}

async fn channel(mut options: Options) -> Result<Ending, ChannelError> {
    let (notice, mut notices) = signals(options.detached).map_err(ChannelError::Runtime)?;
    if let Some(until_unread) = options.unread.take() {
        watch(until_unread, notice.clone());
    }
    let patience = options.timeout.unwrap_or(match options.end {
        End::Host(_) => PATIENCE,
        End::Connect { .. } => CONNECT_PATIENCE,
    });
    let deadline = Instant::now().checked_add(patience);
    let address = options.end.address();
    let linked = match reach(&mut options, patience, &mut notices).await {
        Ok(linked) => linked,
        Err(ending) => return Ok(ending),
    };
    tracing::debug!(target: super::HOPS, hop = "linked");
    let place = options.runtime.register(&NewChannel {
        nameplate: linked.code.nameplate.as_str(),
        role: linked.role,
        dir: options.dir.as_deref(),
        cwd: &options.cwd,
        started: SystemTime::now(),
        transport: linked.kind,
    })?;
    let (outlet, outbox) = unbounded_channel();
    let chosen = backend::open(&options, &place, patience, outlet)?;
    tracing::debug!(target: super::HOPS, hop = "mounted");
    let (block_secrets, showing) = (options.block_secrets, (options.lines, options.progress, address));
    let Chosen { vault, mailbox, .. } = &chosen;
    let handing = Handing { vault, mailbox, notice: &notice, read_receipts: options.read_receipts };
    let counter = handing.start(&place.socket());
    let ending = within(linked, showing, (deadline, block_secrets), &chosen, outbox, (notice, notices)).await;
    drop(counter);
    lock_vault(&chosen.vault).close();
    if let Err(error) = chosen.mailbox.close() {
        tracing::warn!(%error, "the mailbox could not be removed whole; the next command tries again");
    }
    drop(place);
    ending
}

/// The channel between the making of its mailbox and the taking away.
async fn within(
    linked: Linked,
    (lines, progress, address): (Lines, Option<Progress>, String),
    (patience, block_secrets): (Option<Instant>, bool),
    chosen: &Chosen,
    outbox: UnboundedReceiver<OutboxEvent>,
    (notice, notices): (UnboundedSender<Notice>, UnboundedReceiver<Notice>),
) -> Result<Ending, ChannelError> {
    let Linked { role, code, session, transport, kind, legacy, via } = linked;
    let Chosen { mailbox, why, vault } = chosen;
    let journal = Journal::new(Arc::clone(mailbox), lines, move || notify(&notice, Notice::Unread))
        .map_err(ChannelError::Runtime)?;
    let journal = Arc::new(journal);
    journal.own(StatusEvent::Channel(ChannelEvent {
        code: (role == Role::Host).then(|| Zeroizing::new(code.secret.reveal().to_owned())),
        nameplate: code.nameplate.to_string(),
        mount: mailbox.path().to_string_lossy().into_owned(),
        backend: mailbox.backend().as_str().to_owned(),
        why: why.clone(),
        via,
    }));
    if legacy {
        journal.own(StatusEvent::LegacyCode(Some(LEGACY_CODE.into())));
    }
    let (done_in, done) = unbounded_channel();
    let (read_in, read) = unbounded_channel();
    let store = Store::start((mailbox, vault), &journal, &done_in).map_err(ChannelError::Runtime)?;
    let reader = Reader::start(read_in).map_err(ChannelError::Runtime)?;
    let (number, met) = (code.nameplate.as_str(), (kind, address));
    let report = Report::new(number, role, met, chosen, Arc::clone(&journal), progress);
    // From here on the session alone holds what is secret.
    drop(code);
    let (mailbox, vault) = (Arc::clone(mailbox), Arc::clone(vault));
    let parts =
        Parts { session, transport, mailbox, store, reader, kind, report, patience, block_secrets, vault };
    let mut driver = Driver::new(parts);
    let mut inputs = Inputs { outbox, done, read, notices };
    let ending = driver.run(&mut inputs).await;
    driver.part().await;
    Ok(finish(driver, &journal, ending).await)
}

/// Names what is not known to have arrived, in the last line and in the exit code.
pub(super) async fn finish(driver: Driver, journal: &Journal, ending: Ending) -> Ending {
    let Driver { store, mailbox, .. } = driver;
    store.settle().await;
    store.finish();
    // From here on nothing would be named: it is refused.
    mailbox.shut();
    let (undelivered, all) = mailbox.undelivered(MAX_NAMES);
    let more = all.saturating_sub(undelivered.len()) as u64;
    let ending = if all > 0 && ending.may_leave_undelivered() { Ending::Undelivered } else { ending };
    let closed = ClosedEvent {
        detail: ending.detail().map(str::to_owned),
        undelivered,
        undelivered_more: more,
        exit: ending.exit(),
    };
    journal.own(StatusEvent::Closed(closed));
    journal.finish(LAST_READ);
    ending
}

/// The link, unless it cannot be had, takes too long, or is not wanted any more.
async fn reach(
    options: &mut Options,
    patience: Duration,
    notices: &mut UnboundedReceiver<Notice>,
) -> Result<Linked, Ending> {
    let (status, ending) = tokio::select! {
        linked = link(options) => match linked {
            Ok(linked) => return Ok(linked),
            Err(error) => {
                let (hop, detail) = (error.hop(), Some(error.to_string()));
                (StatusEvent::ConnectionFailed { hop, detail }, Ending::Unreachable)
            }
        },
        Some(notice) = notices.recv() => {
            let ending = if notice == Notice::Interrupt { Ending::Interrupted } else { Ending::Done };
            let (detail, exit) = (ending.detail().map(str::to_owned), ending.exit());
            (StatusEvent::Closed(ClosedEvent { detail, exit, ..ClosedEvent::default() }), ending)
        }
        () = tokio::time::sleep(patience) => {
            let why = "the relay did not answer in time; check its address and the network, or give a longer --timeout";
            (StatusEvent::Timeout(Some(why.into())), Ending::Timeout)
        }
    };
    // There is no mailbox yet to write it into. Nobody reads it: the exit code says it, too.
    let _ = (options.lines)(&Event::Status(status).to_line(Stamp { seq: 1, at: SystemTime::now() }));
    Err(ending)
}

async fn link(options: &mut Options) -> Result<Linked, TransportError> {
    let end = std::mem::replace(&mut options.end, End::Host(HostLink::Relay(Relay::Local)));
    match end {
        End::Host(HostLink::Direct { port, announce }) => {
            let listener = direct::Listener::bind(port)?;
            let code = draw(&listener.port().to_string())?;
            let session = Session::new(Role::Host, &code.secret, &mut OsRng);
            let transport = listener.start(session.greeting());
            let via = Some(Via::Direct { host: announce });
            let (role, kind, legacy) = (Role::Host, TransportKind::Direct, false);
            Ok(Linked { role, code, session, transport, kind, legacy, via })
        }
        End::Host(HostLink::Relay(relay)) => {
            let (nameplate, transport) = relay::allocate(endpoint(&relay, &options.runtime)?).await?;
            let code = draw(&nameplate)?;
            let session = Session::new(Role::Host, &code.secret, &mut OsRng);
            let via = Some(match relay {
                Relay::Local => Via::Default,
                Relay::Url { url, .. } => Via::Relay { url },
            });
            let (role, kind, legacy) = (Role::Host, TransportKind::Relay, false);
            Ok(Linked { role, code, session, transport, kind, legacy, via })
        }
        End::Host(HostLink::Legacy(relay)) => {
            let code = Code::draw_legacy(&mut OsRng);
            let session = Session::new(Role::Host, &code.secret, &mut OsRng);
            let at = endpoint(&relay, &options.runtime)?;
            let transport = relay::meet(at, relay::Role::Host, code.secret.reveal()).await?;
            let url = match relay {
                Relay::Local => None,
                Relay::Url { url, .. } => Some(url),
            };
            let (role, kind, via) = (Role::Host, TransportKind::Relay, Some(Via::Legacy { url }));
            Ok(Linked { role, code, session, transport, kind, legacy: true, via })
        }
        End::Connect { code, link } => {
            let session = Session::new(Role::Peer, &code.secret, &mut OsRng);
            let legacy = matches!(link, PeerLink::Legacy(_));
            let (transport, kind) = match link {
                PeerLink::Direct { host } => {
                    let port = code.nameplate.port().ok_or_else(|| {
                        unusable("the number of a direct code is a port; ask for the code again")
                    })?;
                    (direct::dial(&host, port), TransportKind::Direct)
                }
                PeerLink::Relay(relay) => {
                    let endpoint = endpoint(&relay, &options.runtime)?;
                    (relay::join(endpoint, code.nameplate.as_str()).await?, TransportKind::Relay)
                }
                PeerLink::Legacy(relay) => {
                    let at = endpoint(&relay, &options.runtime)?;
                    let transport = relay::meet(at, relay::Role::Peer, code.secret.reveal()).await?;
                    (transport, TransportKind::Relay)
                }
            };
            Ok(Linked { role: Role::Peer, code, session, transport, kind, legacy, via: None })
        }
    }
}

fn draw(nameplate: &str) -> Result<Code, TransportError> {
    let nameplate = Nameplate::parse(nameplate).map_err(|_| {
        TransportError::Refused("the relay's answer holds no number; try another with --relay".into())
    })?;
    Ok(Code::draw(nameplate, &mut OsRng))
}

/// Where a relay is, and the way to it.
///
/// # Errors
/// [`TransportError::Unreachable`], where its URL is none.
pub fn endpoint(relay: &Relay, runtime: &RuntimeDir) -> Result<Endpoint, TransportError> {
    match relay {
        Relay::Local => Ok(Endpoint::local(Local::new(runtime.path()))),
        Relay::Url { url, token, way } => {
            let endpoint: Endpoint = url.parse().map_err(|error| unusable(&format!("{error}")))?;
            let endpoint = endpoint.by((**way).clone());
            Ok(match token {
                Some(token) => endpoint.with_token(token.clone()),
                None => endpoint,
            })
        }
    }
}

/// What was checked before and yet is not an address.
fn unusable(why: &str) -> TransportError {
    TransportError::Unreachable { hop: Hop::Name, why: why.to_owned() }
}

/// Waits on a thread of its own, which ends with the process.
fn watch(until_unread: Unread, notice: UnboundedSender<Notice>) {
    let watching = std::thread::Builder::new().name("stdout".into()).spawn(move || {
        if until_unread() {
            notify(&notice, Notice::Unread);
        }
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "the end of standard output will be noticed late");
    }
}

/// Tells the driver; one that has ended needs to know nothing.
fn notify(notices: &UnboundedSender<Notice>, notice: Notice) {
    let _ = notices.send(notice);
}

/// Signals as notices; what is detached has no terminal that could hang up.
fn signals(detached: bool) -> std::io::Result<(UnboundedSender<Notice>, UnboundedReceiver<Notice>)> {
    let (sender, receiver) = unbounded_channel();
    for (kind, notice) in [
        (SignalKind::interrupt(), Notice::Interrupt),
        (SignalKind::terminate(), Notice::Stop),
        (SignalKind::hangup(), Notice::Stop),
    ] {
        let mut signal = signal(kind)?;
        let sender = sender.clone();
        let passed_over = detached && kind == SignalKind::hangup();
        let tell = move || passed_over || sender.send(notice).is_ok();
        tokio::spawn(async move { while signal.recv().await.is_some() && tell() {} });
    }
    Ok((sender, receiver))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::options::MountChoice;

    fn host(relay: &str) -> (Options, std::sync::mpsc::Receiver<String>, tempfile::TempDir) {
        let place = tempfile::tempdir().unwrap();
        let (told, lines) = std::sync::mpsc::channel();
        let options = Options {
            end: End::Host(HostLink::Relay(Relay::Url {
                url: relay.to_owned(),
                token: None,
                way: Box::default(),
            })),
            dir: None,
            mount: MountChoice::Dir,
            inbox_limit: None,
            outbox_limit: None,
            block_secrets: false,
            memory: None,
            readable_secrets: false,
            timeout: None,
            read_receipts: true,
            runtime: RuntimeDir::at(&place.path().join("run")).unwrap(),
            cwd: place.path().to_owned(),
            progress: None,
            lines: Box::new(move |line| told.send(line.to_owned()).map_err(std::io::Error::other)),
            unread: None,
            detached: false,
        };
        (options, lines, place)
    }

    /// A relay that takes connections and never says a word.
    async fn silent_relay() -> (tokio::net::TcpListener, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    #[tokio::test]
    async fn who_interrupts_the_first_attempt_does_not_wait_for_the_relay() {
        let (relay, url) = silent_relay().await;
        let (mut options, lines, _place) = host(&url);
        let (notice, mut notices) = unbounded_channel();
        let (ending, _connection) = tokio::join!(reach(&mut options, PATIENCE, &mut notices), async {
            let connection = relay.accept().await.unwrap();
            notice.send(Notice::Interrupt).unwrap();
            connection
        });
        assert_eq!(ending.err(), Some(Ending::Interrupted));
        assert!(lines.recv().unwrap().contains(r#""event":"closed","detail":"interrupted","exit":130"#));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_attempt_counts_against_the_timeout() {
        let (_relay, url) = silent_relay().await;
        let (mut options, lines, _place) = host(&url);
        let (_notice, mut notices) = unbounded_channel();
        let ending = reach(&mut options, Duration::from_secs(1), &mut notices).await;
        assert_eq!(ending.err(), Some(Ending::Timeout));
        assert!(lines.recv().unwrap().contains(r#""event":"timeout""#));
    }
}
