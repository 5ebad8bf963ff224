//! A relay behind TLS: `wss://`, with an authority of the test's own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::process::unreached;
use crate::fixture::world::World;

/// Whom the program trusts: a file of certificates in place of the system's.
const TRUST: &str = "SSL_CERT_FILE";

/// Terminates TLS in front of a relay. Dropped, all its connections end.
struct Tls {
    port: u16,
    _runtime: Runtime,
}

impl Tls {
    /// For `localhost`, in front of `relay`; the certificate of its authority goes into `trust`.
    fn before(relay: SocketAddr, trust: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(trust, authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), relay));
        Self { port, _runtime: runtime }
    }

    fn url(&self) -> String {
        format!("wss://localhost:{}", self.port)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, relay: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust us leaves here.
            let Ok(mut client) = acceptor.accept(stream).await else { return };
            let Ok(mut server) = TcpStream::connect(relay).await else { return };
            // Whichever side ends ends both.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

fn trusting(mut command: Command, trust: &Path) -> Command {
    command.env(TRUST, trust).env_remove("SSL_CERT_DIR");
    command
}

#[test]
fn a_relay_behind_tls_carries_a_channel() {
    let world = World::new();
    let relay = world.relay();
    let trust = world.path("home/trust.pem");
    let tls = Tls::before(relay.address, &trust);
    let hosting = trusting(world.command(&["host", "--relay", &tls.url()]), &trust);
    let mut host = End::start(hosting);
    let connect = host.events[0]["connect"].as_str().unwrap().to_owned();
    assert!(connect.ends_with(&format!(" --relay {}", tls.url())), "{connect}");
    let mut peer = End::start(trusting(world.connecting(&host.code(), &["--relay", &tls.url()]), &trust));
    for end in [&mut peer, &mut host] {
        assert_eq!(end.status("connected")["transport"], "relay");
    }
    let bytes = noise(1, 3_000_000);
    host.put("model.bin", &bytes);
    peer.put("message", "over TLS\n");
    host.text("over TLS\n");
    peer.item("model.bin");
    assert!(fs::read(peer.inbox("model.bin")).unwrap() == bytes);
    host.ctl("close");
    host.finish().well();
    peer.status("peer_closed");
    peer.ctl("close");
    peer.finish().well();
}

#[test]
fn a_relay_whose_certificate_is_not_trusted_is_not_used() {
    let world = World::new();
    let relay = world.relay();
    let (trust, other) = (world.path("home/trust.pem"), world.path("home/other.pem"));
    let tls = Tls::before(relay.address, &trust);
    let _other = Tls::before(relay.address, &other);
    let by_address = tls.url().replace("localhost", "127.0.0.1");
    for (url, trust) in [(tls.url(), &other), (by_address, &trust)] {
        for args in [&["host", "--relay", &url][..], &["connect", "1-cross-clock-marble", "--relay", &url]] {
            let detail = unreached(trusting(world.command(args), trust));
            assert!(detail.contains("certificate") && detail.contains(&url), "{detail}");
        }
    }
    // Nobody is trusted, and nobody speaks TLS.
    let empty = world.path("home/empty.pem");
    fs::write(&empty, "").unwrap();
    let detail = unreached(trusting(world.command(&["host", "--relay", &tls.url()]), &empty));
    assert!(detail.contains("root certificates"), "{detail}");
    let plain = format!("wss://localhost:{}", relay.address.port());
    let detail = unreached(trusting(world.command(&["host", "--relay", &plain]), &trust));
    assert!(detail.contains("TLS"), "{detail}");
}
