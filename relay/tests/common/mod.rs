//! A relay to talk to, and a client that talks to it in the words of `wire`.
#![allow(dead_code, reason = "each suite uses its part")]

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Once;

use agent_wormhole_relay::exchange::Exchange;
use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::rules::Source;
use agent_wormhole_relay::server::Server;
use agent_wormhole_relay::wire::{
    ClientMessage, ErrorCode, Id, Resume, Role, ServerMessage, Status, Welcome,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tracing_subscriber::EnvFilter;

/// Bytes between a client and the relay that nobody has read: what a kernel would buffer.
pub const PIPE: usize = 64 * 1024;

/// No limits but lengths: what a test about something else wants.
pub fn unlimited() -> Options {
    Options { channels_per_source: 0, failed_joins_per_minute: 0, ..Options::local() }
}

/// A relay on a free port.
pub struct Running {
    pub server: Server,
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start(options: Options) -> Self {
        let server = Server::new(options).expect("options");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let serving = server.clone();
        let task = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
        Self { server, address, stop, task }
    }

    pub async fn client(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.expect("a connection")).await
    }

    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("the server ends");
    }
}

/// A client of this source over a pipe in memory: no kernel, so paused time is exact.
pub async fn piped<E: Exchange>(server: &Server<E>, source: Source) -> Client {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    server.serve_connection(theirs, source);
    Client::over(ours).await
}

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One websocket.
pub struct Client {
    pub ws: WebSocketStream<Box<dyn Io>>,
}

/// What a client knows of its seat.
#[derive(Clone)]
pub struct Seat {
    pub role: Role,
    pub seat: Id,
    pub boot: Id,
    pub channel: Id,
    pub nameplate: String,
}

impl Seat {
    /// The resume by channel.
    pub fn claim(&self) -> ClientMessage {
        ClientMessage::Resume(Resume {
            role: self.role,
            seat: self.seat,
            channel: Some(self.channel),
            nameplate: None,
            boot: self.boot,
        })
    }

    /// The resume of a host that did not hear of a pairing.
    pub fn claim_nameplate(&self) -> ClientMessage {
        ClientMessage::Resume(Resume {
            role: Role::Host,
            seat: self.seat,
            channel: None,
            nameplate: Some(self.nameplate.clone()),
            boot: self.boot,
        })
    }
}

impl Client {
    pub async fn over(io: impl Io + 'static) -> Self {
        let io: Box<dyn Io> = Box::new(io);
        let (ws, _) = tokio_tungstenite::client_async("ws://relay/ws", io).await.expect("an upgrade");
        Self { ws }
    }

    pub async fn say(&mut self, message: ClientMessage) {
        self.text(&message.encode()).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.ws.send(Message::text(text)).await.expect("said");
    }

    pub async fn send(&mut self, frame: impl Into<Bytes>) {
        self.ws.send(Message::Binary(frame.into())).await.expect("sent");
    }

    /// The next message that is not a ping or pong.
    pub async fn next(&mut self) -> Message {
        loop {
            match self.ws.next().await.expect("not ended").expect("a message") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub async fn hear(&mut self) -> ServerMessage {
        match self.next().await {
            Message::Text(text) => ServerMessage::decode(&text).expect("a control message"),
            other => panic!("not a text: {other:?}"),
        }
    }

    pub async fn welcome(&mut self) -> Welcome {
        match self.hear().await {
            ServerMessage::Welcome(welcome) => welcome,
            other => panic!("not a welcome: {other:?}"),
        }
    }

    pub async fn status(&mut self) -> Status {
        match self.hear().await {
            ServerMessage::Status(status) => status,
            other => panic!("not a status: {other:?}"),
        }
    }

    pub async fn paired(&mut self) -> Id {
        match self.status().await {
            Status::Paired { channel, .. } => channel,
            other => panic!("not paired: {other:?}"),
        }
    }

    pub async fn refused(&mut self) -> (ErrorCode, String) {
        let refusal = match self.hear().await {
            ServerMessage::Error { code, message } => (code, message),
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(self.closed().await, 1008);
        refusal
    }

    pub async fn frame(&mut self) -> Bytes {
        match self.next().await {
            Message::Binary(frame) => frame,
            other => panic!("not a frame: {other:?}"),
        }
    }

    /// Nothing has come that was not read.
    pub fn is_quiet(&mut self) -> bool {
        self.ws.next().now_or_never().is_none()
    }

    /// The close code of a relay that closes.
    pub async fn closed(&mut self) -> u16 {
        match self.next().await {
            Message::Close(Some(close)) => close.code.into(),
            other => panic!("not closed: {other:?}"),
        }
    }

    pub async fn allocate(&mut self) -> Welcome {
        self.say(ClientMessage::Allocate).await;
        self.welcome().await
    }

    pub async fn join(&mut self, nameplate: &str) {
        self.say(ClientMessage::Join { nameplate: nameplate.to_owned() }).await;
    }
}

/// Pairs two fresh clients.
pub async fn pair(host: &mut Client, peer: &mut Client) -> (Seat, Seat) {
    let welcome = host.allocate().await;
    let nameplate = welcome.nameplate.expect("a nameplate");
    peer.join(&nameplate).await;
    let peer_welcome = peer.welcome().await;
    let channel = peer.paired().await;
    assert_eq!(host.paired().await, channel);
    let seat = |role, seat| Seat { role, seat, boot: welcome.boot, channel, nameplate: nameplate.clone() };
    (seat(Role::Host, welcome.seat), seat(Role::Peer, peer_welcome.seat))
}

thread_local! {
    /// What this thread logged.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of this thread, everything of it, without times, whose digits are anything. One subscriber serves all threads:
/// with one for each, `tracing` may miss lines while another one comes or goes.
#[derive(Clone, Copy)]
pub struct Log;

impl Log {
    /// Forgets what this thread logged so far.
    pub fn listen() -> Self {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new("trace")).without_time();
            log.with_ansi(false).with_writer(|| Self).init();
        });
        LOGGED.take();
        Self
    }

    pub fn text(self) -> String {
        LOGGED.with_borrow(|lines| String::from_utf8(lines.clone()).expect("text"))
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
