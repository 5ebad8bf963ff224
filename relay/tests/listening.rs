//! Listeners and plain HTTP.

mod common;

use agent_wormhole_relay::cli::{self, RelayArgs};
use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::server::Server;
use clap::Parser;
use common::{Client, Running, pair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

/// The whole answer to one request.
async fn ask(relay: &Running, request: &str) -> String {
    let mut stream = TcpStream::connect(relay.address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer that ends");
    answer
}

#[tokio::test]
async fn health_and_readiness_are_plain_http() {
    let relay = Running::start(Options::default()).await;
    for (path, status) in [("/health", "200"), ("/ready", "200"), ("/", "404"), ("/ws", "426")] {
        let answer = ask(&relay, &format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    let answer = ask(&relay, "nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_unix_listener_serves_our_own_user() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("relay.sock");
    let server = Server::new(Options::local()).expect("options");
    let listener = UnixListener::bind(&path).expect("a socket");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = server.clone();
    let task = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
    let mut host = Client::over(UnixStream::connect(&path).await.expect("a connection")).await;
    let mut peer = Client::over(UnixStream::connect(&path).await.expect("a connection")).await;
    pair(&mut host, &mut peer).await;
    for n in 0..100_u8 {
        host.send(vec![n; 10_000]).await;
        assert_eq!(peer.frame().await, vec![n; 10_000]);
    }
    drop((host, peer, stop));
    task.await.expect("stopped");
    assert!(UnixStream::connect(&path).await.is_err(), "nobody listens any more");
}

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    relay: RelayArgs,
}

#[tokio::test]
async fn the_command_tells_its_address_and_stops_when_told() {
    let args = Program::parse_from(["relay", "--listen", "127.0.0.1:0"]).relay;
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        cli::run(args, |address| tell.send(address).expect("awaited"), async { drop(stopped.await) }).await
    });
    let address = told.await.expect("listening");
    let mut client = Client::over(TcpStream::connect(address).await.expect("a connection")).await;
    client.allocate().await;

    let taken = Program::parse_from(["relay", "--listen", &address.to_string()]).relay;
    let error = cli::run(taken, |_| {}, std::future::pending()).await.expect_err("the port is taken");
    assert!(error.to_string().contains("choose another with --listen"), "{error}");

    drop((client, stop));
    running.await.expect("no panic").expect("no error");
}
