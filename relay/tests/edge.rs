//! Who gets in and what their limits count for: TLS, proxies, networks, tokens, caps.

mod common;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_wormhole_relay::edge::{Edge, EdgeError, EdgeOptions, Origin, network};
use agent_wormhole_relay::options::Options;
use agent_wormhole_relay::server::{Listener, Server};
use agent_wormhole_relay::wire::ErrorCode;
use common::{Client, Io, PIPE, pair};
use futures_util::{FutureExt as _, StreamExt as _};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const PROXY: &str = "10.0.0.1";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The first bytes of a PROXY header, and the rest of one that speaks for 192.0.2.7.
const PROXY_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x67\x01\xbb";
/// The header of a proxy's health check.
const PROXY_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn server(options: Options, edge: EdgeOptions) -> Server {
    Server::new(options).expect("options").behind(Edge::new(edge).expect("an edge"))
}

fn behind_proxy() -> EdgeOptions {
    EdgeOptions { trusted_proxies: vec![network("10.0.0.0/8").expect("a network")], ..EdgeOptions::default() }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A connection from this address.
fn connect(server: &Server, from: &str) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    server.serve_connection(theirs, address(from));
    ours
}

/// Asks for a websocket with these headers; the status of an answer that is none, 0 where there is no answer.
async fn upgrade(io: impl Io + 'static, headers: &[(&'static str, &str)]) -> Result<Client, u16> {
    let mut request = "ws://relay/ws".into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().expect("a value"));
    }
    let io: Box<dyn Io> = Box::new(io);
    match tokio_tungstenite::client_async(request, io).await {
        Ok((ws, _)) => Ok(Client { ws }),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(_) => Err(0),
    }
}

/// The same through a proxy that speaks for `client`.
async fn through(server: &Server, client: &str) -> Result<Client, u16> {
    upgrade(connect(server, PROXY), &[("X-Forwarded-For", client)]).await
}

/// The status of the answer to a plain request; 0 where there is none.
async fn status(mut io: impl Io, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
    let mut answer = String::new();
    if io.write_all(request.as_bytes()).await.is_err() || io.read_to_string(&mut answer).await.is_err() {
        return 0;
    }
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Writes a certificate for `localhost` and its key; tells whom to trust.
fn certificate(place: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(place.join("cert.pem"), certificate.pem()).expect("written");
    fs::write(place.join("key.pem"), key.serialize_pem()).expect("written");
    CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("a certificate")
}

fn with_tls(place: &Path) -> EdgeOptions {
    EdgeOptions {
        tls_cert: Some(place.join("cert.pem")),
        tls_key: Some(place.join("key.pem")),
        ..EdgeOptions::default()
    }
}

/// The handshake of a client that trusts one certificate.
async fn handshake(
    io: DuplexStream,
    trusted: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<DuplexStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, io).await
}

#[tokio::test(start_paused = true)]
async fn tls_of_both_versions_is_spoken_and_nothing_else() {
    let place = tempfile::tempdir().expect("a directory");
    let trusted = certificate(place.path());
    let server = server(Options::default(), with_tls(place.path()));
    let mut clients = Vec::new();
    for version in [&TLS12, &TLS13] {
        let io = handshake(connect(&server, "192.0.2.1"), &trusted, version).await.expect("a handshake");
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        clients.push(upgrade(io, &[]).await.expect("an upgrade"));
    }
    let [host, peer] = &mut clients[..] else { panic!("two clients") };
    pair(host, peer).await;
    for n in 0..20_u8 {
        host.send(vec![n; 100_000]).await;
        assert_eq!(peer.frame().await, vec![n; 100_000]);
    }
    host.ws.close(None).await.expect("closing");
    while host.ws.next().await.is_some() {}
    let end = host.ws.get_mut().read(&mut [0; 1]).await;
    assert_eq!(end.ok(), Some(0), "TLS is ended as it should be, too");
    let start = Instant::now();
    assert_eq!(status(connect(&server, "192.0.2.1"), "/health").await, 0);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_ten_seconds_and_counts_as_a_connection() {
    let place = tempfile::tempdir().expect("a directory");
    certificate(place.path());
    let options = Options { max_connections: 1, ..Options::default() };
    let server = server(options, with_tls(place.path()));
    let start = Instant::now();
    let mut slow = connect(&server, "192.0.2.1");
    slow.write_all(b"\x16\x03\x01").await.expect("room");
    assert_eq!(status(connect(&server, "192.0.2.2"), "/health").await, 0, "there is no room for another");
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.expect("closed");
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// Connections that a test makes.
struct Pipes(Mutex<mpsc::Receiver<DuplexStream>>);

impl Listener for Pipes {
    type Io = DuplexStream;

    async fn accept_origin(&self) -> io::Result<(DuplexStream, Option<Origin>)> {
        match self.0.lock().await.recv().await {
            Some(io) => Ok((io, Some(address("192.0.2.1").into()))),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let place = tempfile::tempdir().expect("a directory");
    let first = certificate(place.path());
    let server = server(Options::default(), with_tls(place.path()));
    let (pipes, accepted) = mpsc::channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = server.clone();
    let task = tokio::spawn(async move {
        serving.serve(Pipes(Mutex::new(accepted)), async { drop(stopped.await) }).await;
    });
    let meet = async |trusted: &CertificateDer<'static>| {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        pipes.send(theirs).await.expect("accepted");
        handshake(ours, trusted, &TLS13).await
    };
    let mut host = upgrade(meet(&first).await.expect("a handshake"), &[]).await.expect("an upgrade");
    host.allocate().await;

    fs::write(place.path().join("cert.pem"), "broken").expect("written");
    tokio::time::sleep(Duration::from_secs(11)).await;
    drop(meet(&first).await.expect("the old one still holds"));

    let second = certificate(place.path());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(meet(&first).await.is_err());
    drop(meet(&second).await.expect("the new one"));
    assert!(matches!(host.ws.next().await, Some(Ok(Message::Ping(_)))), "who is connected stays");
    drop((stop, host));
    task.await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn limits_count_for_whom_a_trusted_proxy_speaks() {
    let options = Options { channels_per_source: 1, ..Options::default() };
    let server = server(options, behind_proxy());
    let mut one = through(&server, "192.0.2.1").await.expect("an upgrade");
    one.allocate().await;
    let mut other = through(&server, "203.0.113.5, 192.0.2.2").await.expect("an upgrade");
    other.allocate().await;
    let mut again = through(&server, "203.0.113.6, 192.0.2.2:9999, 10.0.0.9").await.expect("an upgrade");
    again.text(r#"{"action":"allocate"}"#).await;
    assert_eq!(again.refused().await.0, ErrorCode::TooManyChannels);

    // Who is no proxy speaks for itself, whatever it writes.
    let mut direct = upgrade(connect(&server, "198.51.100.1"), &[]).await.expect("an upgrade");
    direct.allocate().await;
    let lie = [("X-Forwarded-For", "203.0.113.77")];
    let mut liar = upgrade(connect(&server, "198.51.100.1"), &lie).await.expect("an upgrade");
    liar.text(r#"{"action":"allocate"}"#).await;
    assert_eq!(liar.refused().await.0, ErrorCode::TooManyChannels);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_header_tells_the_source_before_anything_else() {
    let place = tempfile::tempdir().expect("a directory");
    let trusted = certificate(place.path());
    let edge = EdgeOptions { proxy_protocol: true, ..behind_proxy() };
    let with_tls = EdgeOptions {
        proxy_protocol: true,
        trusted_proxies: edge.trusted_proxies.clone(),
        ..with_tls(place.path())
    };
    let options = || Options { channels_per_source: 1, ..Options::default() };
    let plain = server(options(), edge);
    let announced = async |server: &Server, header: &[u8]| {
        let mut io = connect(server, PROXY);
        io.write_all(header).await.expect("room");
        io
    };
    let io = announced(&plain, PROXY_HEADER).await;
    upgrade(io, &[]).await.expect("an upgrade").allocate().await;
    // The same source, also when it comes by itself, and another.
    let mut direct = upgrade(connect(&plain, "192.0.2.7"), &[]).await.expect("no header is wanted of it");
    direct.text(r#"{"action":"allocate"}"#).await;
    assert_eq!(direct.refused().await.0, ErrorCode::TooManyChannels);
    let mut other = PROXY_HEADER.to_vec();
    other[19] = 8;
    let io = announced(&plain, &other).await;
    upgrade(io, &[]).await.expect("an upgrade").allocate().await;
    assert_eq!(status(announced(&plain, PROXY_LOCAL).await, "/health").await, 200);

    let start = Instant::now();
    for refused in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"[..], b"GET /health HTTP/1.1\r\n"] {
        assert_eq!(status(announced(&plain, refused).await, "/health").await, 0);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut half = announced(&plain, &PROXY_HEADER[..20]).await;
    assert!(half.read_u8().await.is_err());
    assert_eq!(start.elapsed().as_secs(), 10);

    let secure = server(options(), with_tls);
    let io = announced(&secure, PROXY_HEADER).await;
    let io = handshake(io, &trusted, &TLS13).await.expect("a handshake behind the header");
    upgrade(io, &[]).await.expect("an upgrade").allocate().await;
}

#[tokio::test(start_paused = true)]
async fn networks_are_served_or_not_by_the_real_source() {
    let list = |text: &str| vec![network(text).expect("a network")];
    let edge = EdgeOptions { allow: list("192.0.2.0/24"), deny: list("192.0.2.66"), ..behind_proxy() };
    let server = server(Options::default(), edge);
    for (from, served) in [("192.0.2.1", true), ("192.0.2.66", false), ("198.51.100.1", false)] {
        let direct = upgrade(connect(&server, from), &[]).await;
        assert_eq!(direct.err(), (!served).then_some(0), "{from} is dropped unanswered");
        assert_eq!(through(&server, from).await.err(), (!served).then_some(403), "{from}");
    }
    assert_eq!(through(&server, "nonsense").await.err(), Some(403), "the proxy itself is not served");
    assert_eq!(status(connect(&server, PROXY), "/health").await, 200, "but may look whether all is well");
}

#[tokio::test(start_paused = true)]
async fn a_closed_relay_wants_a_token_before_anything_else() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("tokens");
    fs::write(&file, format!("{TOKEN}\n")).expect("written");
    let edge = EdgeOptions { token_file: Some(file), ..EdgeOptions::default() };
    let options = Options { channels_per_source: 1, ..Options::default() };
    let server = server(options, edge);
    let shown = format!("Bearer {TOKEN}");
    for wrong in ["Bearer", "Bearer 0123456789abcdef0123456789abcdee", TOKEN, &format!("Basic {TOKEN}")] {
        let io = connect(&server, "192.0.2.1");
        assert_eq!(upgrade(io, &[("Authorization", wrong)]).await.err(), Some(401), "{wrong}");
    }
    assert_eq!(upgrade(connect(&server, "192.0.2.1"), &[]).await.err(), Some(401));
    for path in ["/health", "/ready"] {
        assert_eq!(status(connect(&server, "192.0.2.1"), path).await, 200);
    }
    assert_eq!(status(connect(&server, "192.0.2.1"), "/ws").await, 401, "before it is asked what it wants");
    let with = [("Authorization", shown.as_str())];
    let mut host = upgrade(connect(&server, "192.0.2.1"), &with).await.expect("an upgrade");
    let mut peer = upgrade(connect(&server, "192.0.2.2"), &with).await.expect("an upgrade");
    pair(&mut host, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn one_source_has_its_connections_and_others_theirs() {
    let options = Options { connections_per_source: 2, ..Options::default() };
    let server = server(options, behind_proxy());
    let first = upgrade(connect(&server, "192.0.2.1"), &[]).await.expect("an upgrade");
    let mut second = through(&server, "192.0.2.1").await.expect("an upgrade");
    assert_eq!(upgrade(connect(&server, "192.0.2.1"), &[]).await.err(), Some(0));
    assert_eq!(through(&server, "192.0.2.1").await.err(), Some(429));
    let mut other = through(&server, "192.0.2.2").await.expect("another source");
    other.allocate().await;
    // Room comes back with the connection that had it.
    second.allocate().await;
    drop(first);
    let start = Instant::now();
    while through(&server, "192.0.2.1").await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(5), "room does not come back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_channels_have_both_their_ends_behind_one_address() {
    let server = server(Options::default(), EdgeOptions::default());
    let mut all = Vec::new();
    for _ in 0..100 {
        let mut ends = Vec::new();
        for _ in 0..2 {
            ends.push(upgrade(connect(&server, "192.0.2.1"), &[]).await.expect("an upgrade"));
        }
        let [host, peer] = &mut ends[..] else { panic!("two ends") };
        pair(host, peer).await;
        all.push(ends);
    }
    let mut one_more = upgrade(connect(&server, "192.0.2.1"), &[]).await.expect("an upgrade");
    one_more.text(r#"{"action":"allocate"}"#).await;
    assert_eq!(one_more.refused().await.0, ErrorCode::TooManyChannels);
    assert!(all.iter_mut().flatten().all(Client::is_quiet));
}

#[tokio::test]
async fn a_relay_that_stops_waits_for_no_handshake() {
    let place = tempfile::tempdir().expect("a directory");
    certificate(place.path());
    let server = server(Options::default(), with_tls(place.path()));
    let mut silent = connect(&server, "192.0.2.1");
    tokio::task::yield_now().await;
    server.stop().await;
    assert_eq!(silent.read(&mut [0; 1]).now_or_never().map(Result::ok), Some(Some(0)));
}

#[test]
fn what_cannot_start_says_what_to_do() {
    let place = tempfile::tempdir().expect("a directory");
    certificate(place.path());
    let short = place.path().join("tokens");
    fs::write(&short, "hunter2\n").expect("written");
    let error = |edge: EdgeOptions| Edge::new(edge).expect_err("refused");
    let half = EdgeOptions { tls_key: None, ..with_tls(place.path()) };
    assert!(matches!(error(half.clone()), EdgeError::HalfPair { .. }));
    let cases = [
        (half, "--tls-cert needs --tls-key"),
        (EdgeOptions { tls_cert: None, ..with_tls(place.path()) }, "--tls-key needs --tls-cert"),
        (
            EdgeOptions { proxy_protocol: true, ..EdgeOptions::default() },
            "name the proxy with --trusted-proxy",
        ),
        (EdgeOptions { token_file: Some(short), ..EdgeOptions::default() }, "openssl rand -hex 32"),
        (
            EdgeOptions { token_file: Some(place.path().join("none")), ..EdgeOptions::default() },
            "check the path",
        ),
    ];
    for (edge, says) in cases {
        let error = error(edge).to_string();
        assert!(error.contains(says), "{error}");
    }
}
