//! A relay behind TLS: `wss://`, with an authority of the test's own among the system's.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::process::unreached;
use crate::fixture::tls::{Authority, Tls};
use crate::fixture::world::World;

/// Whom the program trusts: a file of certificates in place of the system's.
const TRUST: &str = "SSL_CERT_FILE";

/// TLS in front of a relay, whose authority's certificate goes into `trust`.
fn before(relay: SocketAddr, trust: &Path) -> Tls {
    let authority = Authority::new();
    fs::write(trust, authority.pem()).unwrap();
    Tls::before(relay, "localhost", &authority)
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
    let tls = before(relay.address, &trust);
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
    let tls = before(relay.address, &trust);
    let _other = before(relay.address, &other);
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
