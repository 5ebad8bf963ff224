//! A relay that speaks TLS itself and is closed to those without its token.

use std::fs;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};

use crate::fixture::end::End;
use crate::fixture::process::unreached;
use crate::fixture::world::{Relay, World};

const TOKEN: &str = "a-token-that-nobody-guesses";

#[test]
fn a_closed_relay_is_entered_with_its_token() {
    let world = World::new();
    let [certificate, key, tokens, mine] =
        ["cert.pem", "key.pem", "tokens", "token"].map(|name| world.path("home").join(name));
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
    fs::write(&key, pair.serialize_pem()).unwrap();
    fs::write(&tokens, format!("{TOKEN}\nanother-one-for-later\n")).unwrap();
    fs::write(&mine, format!("{TOKEN}\n")).unwrap();
    let mut serve = world.command(&[]);
    serve.env("AGENT_WORMHOLE_RELAY_TLS_CERT", &certificate).env("AGENT_WORMHOLE_RELAY_TLS_KEY", &key);
    serve.env("AGENT_WORMHOLE_RELAY_TOKEN_FILE", &tokens);
    let relay = Relay::start(serve);
    let url = format!("wss://localhost:{}", relay.address.port());
    let trusting = |mut command: Command| {
        command.env("SSL_CERT_FILE", &certificate).env_remove("SSL_CERT_DIR");
        command
    };

    for args in [&["host", "--relay", &url][..], &["connect", "1-cross-clock-marble", "--relay", &url]] {
        let detail = unreached(trusting(world.command(args)));
        let told = format!("the relay at {url} wants a token; give it with --relay-token-file");
        assert_eq!(detail, told);
        let mut wrong = trusting(world.command(args));
        wrong.env("AGENT_WORMHOLE_RELAY_TOKEN", "not-this-one");
        let detail = unreached(wrong);
        assert!(detail.contains("another one than it was shown"), "{detail}");
        assert!(!detail.contains("not-this-one"), "{detail}");
    }

    let mut hosting = trusting(world.command(&["host", "--relay", &url]));
    hosting.args(["--relay-token-file".as_ref(), mine.as_os_str()]);
    let mut host = End::start(hosting);
    let connect = host.events[0]["connect"].as_str().unwrap().to_owned();
    assert!(!connect.contains(TOKEN) && connect.ends_with(&format!(" --relay {url}")), "{connect}");
    let mut connecting = trusting(world.connecting(&host.code(), &["--relay", &url]));
    connecting.env("AGENT_WORMHOLE_RELAY_TOKEN", TOKEN);
    let mut peer = End::start(connecting);
    for end in [&mut peer, &mut host] {
        assert_eq!(end.status("connected")["transport"], "relay");
    }
    peer.put("message", "let in\n");
    host.text("let in\n");
    host.ctl("close");
    host.finish().well();
    peer.status("peer_closed");
    peer.ctl("close");
    peer.finish().well();
}

#[test]
fn what_a_relay_cannot_start_with_is_a_usage_error() {
    let world = World::new();
    let short = world.path("home/tokens");
    fs::write(&short, "hunter2").unwrap();
    let relay = ["relay", "--listen", "127.0.0.1:0"];
    for (args, says) in [
        (["--tls-cert", "/nowhere"], "--tls-cert needs --tls-key"),
        (["--token-file", short.to_str().unwrap()], "openssl rand -hex 32"),
        (["--token-file", "/nowhere"], "/nowhere cannot be read"),
        (["--trusted-proxy", "10.0.0.0/99"], "192.0.2.0/24"),
        (["--deny", "example.org"], "192.0.2.0/24"),
        (["--max-connections", "0"], "allow at least one"),
    ] {
        let ended = world.run(&[&relay[..], &args[..]].concat());
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.err.contains(says) && !ended.err.contains("hunter2"), "{args:?}: {ended:?}");
    }
    let ended = world.run(&[&relay[..], &["--proxy-protocol"]].concat());
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("name the proxy with --trusted-proxy"), "{ended:?}");
}
