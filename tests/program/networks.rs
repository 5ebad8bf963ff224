//! Networks as they are: proxies, private authorities, paths, IPv6. And what is said where one of them is not as it was
//! set: the step that failed, the way out, and never a password.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::fixture::content::noise;
use crate::fixture::end::End;
use crate::fixture::gateway::{Gateway, Manner};
use crate::fixture::process::{Process, failed};
use crate::fixture::tls::{Authority, Tls};
use crate::fixture::world::{Relay, World};

/// The relay's name, which no resolver knows: only a proxy leads there.
const NAME: &str = "relay.test";
/// A name that cannot be: a part of one has 63 letters at most, so no resolver is asked.
const NOWHERE: &str = "nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere.test";
/// Stands in every password.
const PASSWORD: &str = "hunter2";
/// `user:hunter2 and %` as HTTP wants to see it.
const SHOWN: &str = "Basic dXNlcjpodW50ZXIyIGFuZCAl";
/// The same in a URL.
const WRITTEN: &str = "user:hunter2%20and%20%25@";

/// A relay behind TLS under [`NAME`], and the file with its authority.
struct Behind {
    _relay: Relay,
    tls: Tls,
    ca: String,
}

impl Behind {
    fn of(world: &World) -> Self {
        let (relay, authority) = (world.relay(), Authority::new());
        let tls = Tls::before(relay.address, NAME, &authority);
        let ca = world.path("home/ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        Self { _relay: relay, tls, ca: ca.to_str().unwrap().to_owned() }
    }
}

fn with(mut command: Command, variables: &[(&str, &str)]) -> Command {
    command.envs(variables.iter().copied());
    command
}

/// Two connected ends with these arguments and variables.
fn pair(world: &World, args: &[&str], variables: &[(&str, &str)]) -> [End; 2] {
    let mut hosting = world.command(&["host"]);
    hosting.args(args).current_dir(world.path("host"));
    let mut host = End::start(with(hosting, variables));
    let mut peer = End::start(with(world.connecting(&host.code(), args), variables));
    for end in [&mut peer, &mut host] {
        assert_eq!(end.status("connected")["transport"], "relay");
    }
    [host, peer]
}

/// Sends both ways and closes. What both ends said.
fn used([mut host, mut peer]: [End; 2]) -> String {
    let bytes = noise(1, 300_000);
    host.put("model.bin", &bytes);
    peer.put("message", "through it\n");
    host.text("through it\n");
    peer.item("model.bin");
    assert!(fs::read(peer.inbox("model.bin")).unwrap() == bytes);
    host.ctl("close");
    let host = host.finish();
    host.well();
    peer.status("peer_closed");
    peer.ctl("close");
    let peer = peer.finish();
    peer.well();
    format!("{:?} {} {:?} {}", host.events, host.err, peer.events, peer.err)
}

/// The proxy of this manner, with a name for the relay.
fn proxy(manner: impl FnOnce(String, SocketAddr) -> Manner, port: u16, to: SocketAddr) -> Gateway {
    Gateway::start(manner(format!("{NAME}:{port}"), to))
}

#[test]
fn a_channel_goes_through_a_proxy_that_knows_its_users_to_a_relay_with_a_private_authority() {
    let world = World::new();
    let behind = Behind::of(&world);
    let gateway = proxy(|name, to| Manner::Credentials(name, to, SHOWN.into()), 443, behind.tls.address);
    let url = gateway.url("http", WRITTEN);
    let variables = [("HTTPS_PROXY", &*url), ("AGENT_WORMHOLE_LOG", "trace")];
    let relay = format!("wss://{NAME}");
    let mut ends = pair(&world, &["--relay", &relay, "--ca", &behind.ca], &variables);
    gateway.cut();
    for end in &mut ends {
        end.status("reconnecting");
        end.status("reconnected");
    }
    let said = used(ends);
    let asked = gateway.asked();
    assert!(asked.len() >= 4, "each end came, and came back: {asked:?}");
    let here = gateway.address.to_string();
    assert!(said.contains("the proxy leads to the relay") && said.contains(&here), "{said}");
    for secret in [PASSWORD, SHOWN, WRITTEN] {
        assert!(!said.contains(secret), "{secret} is said");
    }
}

#[test]
fn a_proxy_behind_tls_is_named_in_the_config_file_with_its_authority() {
    let world = World::new();
    let (relay, authority) = (world.relay(), Authority::new());
    let gateway = proxy(Manner::Lead, 80, relay.address);
    let tls = Tls::before(gateway.address, "localhost", &authority);
    let (ca, config) = (world.path("home/ca.pem"), world.path("config/agent-wormhole"));
    fs::write(&ca, format!("{}{}", Authority::new().pem(), authority.pem())).unwrap();
    fs::create_dir(&config).unwrap();
    let proxy = format!("https://{WRITTEN}localhost:{}", tls.address.port());
    let text = format!("relay = \"ws://{NAME}\"\nca = {ca:?}\nproxy = {proxy:?}\nmount = \"dir\"\n");
    fs::write(config.join("config.toml"), text).unwrap();
    let ends = pair(&world, &[], &[]);
    assert_eq!(ends[0].events[0]["backend"], "dir");
    assert!(!used(ends).contains(PASSWORD));
    assert!(gateway.asked().iter().all(|head| head.contains(SHOWN)), "{:?}", gateway.asked());
}

#[test]
fn a_socks_proxy_leads_to_the_relay_by_its_name() {
    let world = World::new();
    let behind = Behind::of(&world);
    let user = ["user", "hunter2 and %"];
    let gateway = proxy(|name, to| Manner::Socks(name, to, user), 443, behind.tls.address);
    let relay = format!("wss://{NAME}");
    let ca = [("AGENT_WORMHOLE_CA", &*behind.ca)];
    let url = gateway.url("socks5", WRITTEN);
    let ends = pair(&world, &["--relay", &relay, "--proxy", &url], &ca);
    for end in &ends {
        let line = fs::read(format!("/proc/{}/cmdline", end.id())).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains(PASSWORD) && line.contains("--proxy"), "{line}");
    }
    assert!(!used(ends).contains(PASSWORD));
    let args = ["host", "--relay", &relay, "--proxy"];
    let through = |url: &str| failed(with(world.command(&[&args[..], &[url]].concat()), &ca)).0;
    says(&through(&gateway.url("socks5h", "")), "proxy", &["wants a user", "--proxy"]);
    says(&through(&gateway.url("socks5", "u:hunter2@")), "proxy", &["does not accept"]);
    let refusing = Gateway::start(Manner::SocksRefusal(2));
    says(&through(&refusing.url("socks5", "")), "proxy", &["does not allow", "NO_PROXY"]);
    let refusing = Gateway::start(Manner::SocksRefusal(5));
    says(&through(&refusing.url("socks5", "")), "proxy", &["could not reach the relay", "refused"]);
}

/// Holds if an event names this step, says all of this, and no password.
fn says(event: &serde_json::Value, hop: &str, words: &[&str]) {
    assert_eq!(event["hop"], hop, "{event}");
    let detail = event["detail"].as_str().unwrap();
    for word in words {
        assert!(detail.contains(word), "{word:?} is not in {detail}");
    }
    assert!(!detail.contains(PASSWORD) && !detail.ends_with('…'), "{detail}");
}

#[test]
fn a_proxy_that_does_not_lead_on_is_the_step_that_failed() {
    let world = World::new();
    let relay = format!("wss://{NAME}");
    let through = |proxy: &str| {
        let command = world.command(&["connect", "1-cross-clock-marble", "--relay", &relay]);
        let (event, err) = failed(with(command, &[("https_proxy", proxy), ("AGENT_WORMHOLE_LOG", "trace")]));
        assert!(!err.contains(PASSWORD), "{err}");
        event
    };
    let manner = Manner::Credentials(format!("{NAME}:443"), ([127, 0, 0, 1], 9).into(), SHOWN.into());
    let strict = Gateway::start(manner);
    says(
        &through(&strict.url("http", "")),
        "proxy",
        &["wants a user", "USER:PASSWORD@", "https_proxy", &relay],
    );
    let here = strict.address.to_string();
    says(&through(&strict.url("http", "u:hunter2@")), "proxy", &["does not accept", "https_proxy", &here]);
    let answers = [
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", &["does not allow", "403", "NO_PROXY"][..]),
        (
            "HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n",
            &["could not reach the relay", "502", "--proxy none"],
        ),
        ("HTTP/1.1 200 OK\r\n\r\nand more", &["not such a proxy"]),
        ("SSH-2.0-OpenSSH_9.2\r\n", &["not such a proxy", "scheme"]),
        ("", &["without an answer", "scheme"]),
    ];
    for (answer, words) in answers {
        let gateway = Gateway::start(Manner::Say(answer));
        says(&through(&gateway.url("http", "u:hunter2@")), "proxy", words);
    }
    says(
        &through("http://u:hunter2@127.0.0.1:1"),
        "proxy",
        &["connection refused at 127.0.0.1:1", "--proxy none"],
    );
    says(
        &through(&format!("http://u:hunter2@{NOWHERE}")),
        "proxy",
        &[NOWHERE, ":80 ", "name", "--proxy none"],
    );
    // What speaks no TLS, and what is vouched for by nobody.
    says(&through(&strict.url("https", "u:hunter2@")), "proxy", &["TLS", "http://"]);
    let tls = Tls::before(strict.address, "localhost", &Authority::new());
    let url = format!("https://u:hunter2@localhost:{}", tls.address.port());
    says(&through(&url), "proxy", &["authority", "--ca FILE"]);
}

/// Arguments, variables, and what is said about one of them.
type Wrong<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn what_is_set_and_cannot_be_is_a_usage_error_without_a_password() {
    let world = World::new();
    let relay = format!("wss://{NAME}");
    let missing = world.path("home/missing.pem");
    let missing = missing.to_str().unwrap();
    let remote = ["host", "--relay", &relay];
    let cases: [Wrong; 8] = [
        (&["--ca", missing], &[], &[missing, "cannot be read"]),
        (&["--ca", "/dev/null"], &[], &["/dev/null", "--ca", "PEM"]),
        (&[], &[("AGENT_WORMHOLE_CA", "/dev/null")], &["/dev/null", "AGENT_WORMHOLE_CA", "PEM"]),
        (&["--proxy", "ftp://u:hunter2@h"], &[], &["--proxy", "http://HOST:PORT"]),
        (&[], &[("HTTPS_PROXY", "u:hunter2@h:x")], &["HTTPS_PROXY", "socks5://"]),
        (&[], &[("AGENT_WORMHOLE_TIMEOUT", "soon")], &["AGENT_WORMHOLE_TIMEOUT", "90s"]),
        (&[], &[("AGENT_WORMHOLE_MOUNT", "nfs")], &["AGENT_WORMHOLE_MOUNT", "auto, fuse or dir"]),
        (&["--timeout", "5s", "--mount", "dir", "--proxy"], &[], &["--proxy"]),
    ];
    for (args, variables, words) in cases {
        let ended = Process::spawn(with(world.command(&[&remote[..], args].concat()), variables)).finish();
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{ended:?}");
        assert!(words.iter().all(|word| ended.err.contains(word)), "{words:?} in {}", ended.err);
        assert!(!ended.err.contains(PASSWORD), "{}", ended.err);
    }
}

#[test]
fn no_proxy_and_this_machine_are_reached_without_one() {
    let world = World::new();
    let dead = "http://127.0.0.1:1";
    let args = ["host", "--relay", &format!("ws://{NOWHERE}")];
    let spared = [("ALL_PROXY", dead), ("NO_PROXY", "other.test, .test")];
    says(&failed(with(world.command(&args), &spared)).0, "name", &[NOWHERE, "spelling"]);
    let without = with(world.command(&[&args[..], &["--proxy", "none"]].concat()), &spared[..1]);
    says(&failed(without).0, "name", &[NOWHERE]);
    let relay = world.relay();
    used(pair(&world, &["--relay", &relay.url()], &[("HTTP_PROXY", dead), ("ALL_PROXY", dead)]));
}

#[test]
fn a_fault_of_tls_names_its_cause_and_the_way_out() {
    let world = World::new();
    let (relay, authority) = (world.relay(), Authority::new());
    let ca = world.path("home/ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let ca = ca.to_str().unwrap();
    let at = |url: &str| failed(world.command(&["host", "--relay", url, "--ca", ca])).0;
    let stranger = Tls::before(relay.address, "localhost", &Authority::new());
    says(&at(&stranger.url()), "tls", &["authority", "--ca FILE", &stranger.url()]);
    let other = Tls::before(relay.address, "other.test", &authority);
    says(&at(&other.url()), "tls", &["another name: other.test", "write the name"]);
    let expired = Tls::valid(relay.address, "localhost", &authority, [1990, 2000]);
    says(&at(&expired.url()), "tls", &["expired", "clock"]);
    let early = Tls::valid(relay.address, "localhost", &authority, [3990, 4000]);
    says(&at(&early.url()), "tls", &["not valid yet", "clock"]);
    let plain = format!("wss://localhost:{}", relay.address.port());
    says(&at(&plain), "tls", &["TLS", "ws://"]);
    let good = Tls::before(relay.address, "localhost", &authority);
    let swapped = good.url().replace("wss://", "ws://");
    says(&at(&swapped), "websocket", &["wss://"]);
}

#[test]
fn what_answers_and_is_no_relay_is_said() {
    let world = World::new();
    let at = |url: &str| failed(world.command(&["host", "--relay", url])).0;
    let moved = "HTTP/1.1 302 Found\r\nLocation: https://else.test/ws?words\r\nContent-Length: 0\r\n\r\n";
    let hidden = "HTTP/1.1 302 Found\r\nLocation: \u{9b}31m\u{202e}words\r\nContent-Length: 0\r\n\r\n";
    let answers = [
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", &["404", "path"][..]),
        (moved, &["302", "https://else.test", "own address"]),
        (hidden, &["302", "elsewhere", "own address"]),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", &["503", "later"]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &["not a relay", "200"]),
        ("SSH-2.0-OpenSSH_9.2\r\n", &["websocket", "wss://"]),
        ("", &["ended", "wss://"]),
    ];
    for (answer, words) in answers {
        let gateway = Gateway::start(Manner::Say(answer));
        let event = at(&gateway.url("ws", ""));
        says(&event, "websocket", words);
        let detail = event["detail"].as_str().unwrap();
        assert!(detail.len() < 500 && !detail.contains("words"), "{detail}");
    }
    says(&at("ws://127.0.0.1:1"), "tcp", &["connection refused at 127.0.0.1:1", "--relay"]);
    let nobody = world.command(&["connect", "40123-cross-clock-marble@localhost"]);
    let ended = Process::spawn(nobody).finish();
    let event: serde_json::Value = ended
        .out
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|event: &serde_json::Value| event["event"] == "connection_failed")
        .unwrap();
    says(&event, "tcp", &["localhost port 40123", "refused at 127.0.0.1:40123", "--direct"]);
}

#[test]
fn a_relay_is_found_under_a_path_and_by_ipv6() {
    let world = World::new();
    let relay = world.relay();
    let gateway = Gateway::start(Manner::Prefix("/team/wormhole", relay.address));
    for path in ["/team/wormhole", "/team/wormhole/", "/team/wormhole/ws"] {
        used(pair(&world, &["--relay", &format!("{}{path}", gateway.url("ws", ""))], &[]));
    }
    let wrong = failed(world.command(&["host", "--relay", &gateway.url("ws", "")])).0;
    says(&wrong, "websocket", &["404", "path"]);
    let mut listening = world.command(&["relay", "--listen", "[::1]:0"]);
    listening.args(["--messages-per-minute", "0"]);
    let mut process = Process::spawn(listening);
    let address = loop {
        if let Some((_, address)) = process.error_line().split_once("listening on ") {
            break address.trim().parse::<SocketAddr>().unwrap();
        }
    };
    assert!(address.is_ipv6(), "{address}");
    used(pair(&world, &["--relay", &format!("ws://{address}")], &[]));
}
