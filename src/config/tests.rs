//! Which place of a setting wins, and what is said about one that is wrong.

use std::path::Path;

use super::*;
use crate::transport::relay::{Proxy, Token};

/// A relay that is shown no token, without anything in between.
fn open(url: &str) -> Relay {
    Relay::Url { url: url.to_owned(), token: None, way: Box::default() }
}

/// Settings of an environment and of a config file with this text, if there is one.
fn settings(environment: &[(&str, &str)], file: Option<&str>) -> Result<Settings, ConfigError> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("config.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    at(environment, &path)
}

fn at(environment: &[(&str, &str)], file: &Path) -> Result<Settings, ConfigError> {
    let variable = |name| environment.iter().find(|(known, _)| *known == name).map(|(_, text)| text.into());
    Settings::of(variable, Some(file.to_owned()))
}

fn typed(relay: &str) -> Typed {
    Typed { relay: Some(relay.into()), ..Typed::default() }
}

/// The proxy towards a relay: where it is set, or nothing.
fn proxy(environment: &[(&str, &str)], file: Option<&str>, typed: &Typed) -> Option<Proxy> {
    match settings(environment, file).unwrap().relay(typed).unwrap() {
        Relay::Url { way, .. } => way.proxy,
        Relay::Local => panic!("local"),
    }
}

#[test]
fn the_flag_wins_over_the_variable_and_that_over_the_file() {
    let file = Some("relay = \"wss://file.example\"\ntimeout = \"1m\"\n");
    let variable =
        [("AGENT_WORMHOLE_RELAY_URL", "ws://variable.example:8080/ws"), ("AGENT_WORMHOLE_TIMEOUT", "2m")];
    let both = settings(&variable, file).unwrap();
    assert_eq!(both.relay(&typed("wss://flag.example")).unwrap(), open("wss://flag.example"));
    assert_eq!(both.relay(&Typed::default()).unwrap(), open("ws://variable.example:8080/ws"));
    let timeout = both.given(Key::Timeout).unwrap();
    assert_eq!((timeout.text.to_str(), &*timeout.from), (Some("2m"), "AGENT_WORMHOLE_TIMEOUT"));
    let empty = variable.map(|(name, _)| (name, ""));
    let file = settings(&empty, file).unwrap();
    assert_eq!(file.relay(&Typed::default()).unwrap(), open("wss://file.example"));
    let timeout = file.given(Key::Timeout).unwrap();
    assert_eq!(timeout.text, "1m");
    assert!(timeout.from.starts_with("`timeout` in /") && timeout.from.ends_with("config.toml"));
    let nothing = settings(&[], None).unwrap();
    assert_eq!(nothing.relay(&Typed::default()).unwrap(), Relay::Local);
    assert_eq!(nothing.given(Key::Timeout), None);
    assert_eq!(Settings::of(|_| None, None).unwrap().relay(&Typed::default()).unwrap(), Relay::Local);
}

#[test]
fn a_broken_file_is_named_with_the_way_out() {
    for text in ["relay = ", "relay = true", "relay = \"wss://x\"\n[table]\n"] {
        let error = settings(&[], Some(text)).unwrap_err().to_string();
        assert!(error.contains("config.toml"), "{error}");
    }
    let error =
        settings(&[], Some("relay = \"x\"")).unwrap().relay(&Typed::default()).unwrap_err().to_string();
    assert!(error.contains("config.toml") && error.contains("wss://relay.example.org"), "{error}");
    let place = tempfile::tempdir().unwrap();
    assert!(matches!(at(&[], place.path()), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn an_unknown_key_names_the_one_that_was_meant() {
    for (key, near) in [
        ("relya", "relay"),
        ("relay_token_file", "relay-token-file"),
        ("inbox_limit", "inbox-limit"),
        ("outboxlimit", "outbox-limit"),
        ("Timeout", "timeout"),
        ("memroy", "memory"),
        ("proxi", "proxy"),
    ] {
        let error = settings(&[], Some(&format!("{key} = \"5\""))).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(&format!("did you mean {near:?}")), "{error}");
    }
    let error = settings(&[], Some("\"\\u202e\" = 5")).unwrap_err().to_string();
    assert!(error.contains("the settings are relay, ") && !error.contains('\u{202e}'), "{error}");
}

#[test]
fn a_broken_file_does_not_show_a_password_that_is_in_it() {
    for text in
        ["proxy = \"http://u:hunter2@h\" x", "proxy = http://u:hunter2@h", "proxy = [\"u:hunter2@h\"]"]
    {
        let error = settings(&[], Some(text)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn only_websocket_urls_name_a_relay() {
    let relay = |url: &str| settings(&[], None).unwrap().relay(&typed(url));
    assert_eq!(relay("WSS://Relay.example/").unwrap(), open("wss://Relay.example"));
    assert_eq!(relay("ws://[::1]:9/x/").unwrap(), open("ws://[::1]:9/x"));
    for url in [
        "",
        "relay.example",
        "https://relay.example",
        "ws://",
        "ws:///x",
        "wss://:443",
        "wss://a b",
        "wss://u:p@h",
        "wss://h/#f",
        "wss://h/?q",
        "ws://h:0",
        "wss://a\u{1b}[2J",
        "wss://\u{fc}.example",
        &format!("wss://{}", "a".repeat(3000)),
    ] {
        assert!(matches!(relay(url), Err(ConfigError::Url { .. })), "{url:?}");
    }
}

#[test]
fn a_token_is_shown_to_the_relay_that_it_is_meant_for() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (flag, named) = (write("typed", " typed \nsecond\n"), write("named", "named\n"));
    let (own, named) = (write("own", "own"), named.to_str().unwrap());
    let file = write("config.toml", &format!("relay = \"wss://file.example\"\nrelay-token-file = {own:?}\n"));
    let shown = |environment: &[(&str, &str)], typed: &Typed| match at(environment, &file)
        .unwrap()
        .relay(typed)
        .unwrap()
    {
        Relay::Url { token, .. } => token,
        Relay::Local => panic!("local"),
    };
    let (by_file, itself) = (("AGENT_WORMHOLE_RELAY_TOKEN_FILE", named), (TOKEN_VARIABLE, "variable"));
    let by_flag = Typed { token_file: Some(flag), ..Typed::default() };
    assert_eq!(shown(&[by_file, itself], &by_flag), Token::parse("typed"));
    assert_eq!(shown(&[by_file, itself], &Typed::default()), Token::parse("named"));
    assert_eq!(shown(&[itself], &Typed::default()), Token::parse("variable"));
    assert_eq!(shown(&[], &Typed::default()), Token::parse("own"));
    let other = shown(&[], &typed("wss://other.example"));
    assert_eq!(other, None, "another relay does not get what the config file's wants");
}

#[test]
fn what_is_no_token_is_refused_and_not_shown() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("token");
    let typed = Typed { token_file: Some(path.clone()), ..typed("wss://flag.example") };
    let read = || settings(&[], None).unwrap().relay(&typed);
    assert!(matches!(read(), Err(ConfigError::Unreadable { .. })));
    for text in ["", "\nsecret-token", "secret token", "secret\u{e9}"] {
        std::fs::write(&path, text).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("holds no token") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_proxy_is_taken_from_the_nearest_place() {
    let named = |url: &str, from: &str| Some(Proxy::parse(url, from).unwrap());
    let file = Some("proxy = \"http://file:1\"");
    let wss = typed("wss://relay.example");
    let flag = Typed { proxy: Some("http://flag:1".into()), ..wss.clone() };
    let all: [(&str, &str); 5] = [
        ("AGENT_WORMHOLE_PROXY", "http://ours:1"),
        ("HTTPS_PROXY", "http://tls:1"),
        ("HTTP_PROXY", "http://plain:1"),
        ("ALL_PROXY", "http://all:1"),
        ("https_proxy", ""),
    ];
    assert_eq!(proxy(&all, file, &flag), named("http://flag:1", "--proxy"));
    assert_eq!(proxy(&all, file, &wss), named("http://ours:1", "AGENT_WORMHOLE_PROXY"));
    assert_eq!(proxy(&all[1..], file, &wss), named("http://tls:1", "HTTPS_PROXY"));
    let ws = typed("ws://relay.example");
    assert_eq!(proxy(&all[1..], file, &ws), named("http://plain:1", "HTTP_PROXY"));
    assert_eq!(proxy(&all[2..], file, &wss), named("http://all:1", "ALL_PROXY"));
    let cgi = [all[2], ("REQUEST_METHOD", "GET")];
    assert_eq!(proxy(&cgi, None, &ws), None, "that one is a header of somebody's request");
    let place = proxy(&[], file, &wss).unwrap();
    assert!(format!("{place:?}").contains("http://file:1, set by `proxy` in /"), "{place:?}");
    let none = Typed { proxy: Some("none".into()), ..wss.clone() };
    assert_eq!(proxy(&all, file, &none), None);
    assert_eq!(proxy(&[("AGENT_WORMHOLE_PROXY", "none"), all[1]], file, &wss), None);
}

#[test]
fn a_proxy_is_not_for_every_host() {
    let to = |relay: &str, spared: &str| {
        let environment = [("ALL_PROXY", "http://proxy.example:3128"), ("NO_PROXY", spared)];
        proxy(&environment, None, &typed(relay)).is_some()
    };
    for (relay, spared, proxied) in [
        ("wss://relay.example", "", true),
        ("wss://relay.example", "*", false),
        ("wss://relay.example", "other.example, relay.example", false),
        ("wss://a.relay.example", "relay.example", false),
        ("wss://a.relay.example", ".Relay.Example", false),
        ("wss://arelay.example", "relay.example", true),
        ("wss://192.0.2.7", "192.0.2.0/24", false),
        ("wss://192.0.3.7", "192.0.2.0/24", true),
        ("wss://[2001:db8::7]", "2001:db8::/32", false),
        ("wss://[2001:db8::7]", "2001:db8::7", false),
        ("wss://localhost", "", false),
        ("ws://relay.localhost:80", "", false),
        ("ws://127.9.9.9:80", "", false),
        ("ws://[::1]", "", false),
    ] {
        assert_eq!(to(relay, spared), proxied, "{relay} {spared}");
    }
    let flag = Typed { proxy: Some("http://h:1".into()), ..typed("wss://relay.example") };
    assert!(proxy(&[("NO_PROXY", "*")], None, &flag).is_some(), "what is typed is meant");
    for relay in ["ws://127.0.0.1:80", "/run/relay.sock"] {
        let flag = Typed { relay: Some(relay.into()), ..flag.clone() };
        assert!(matches!(settings(&[], None).unwrap().relay(&flag), Err(ConfigError::Loopback)), "{relay}");
    }
}

#[test]
fn what_is_no_proxy_is_an_error_that_shows_no_password() {
    for text in [
        "ftp://u:hunter2@h",
        "http://",
        "http://u:hunter2@",
        "http://u:hun ter2@h",
        "socks4://h",
        "http://h:x",
        "http://h:0",
        "http://u@x:hunter2@h",
    ] {
        for name in ["AGENT_WORMHOLE_PROXY", "HTTPS_PROXY"] {
            let error =
                settings(&[(name, text)], None).unwrap().relay(&typed("wss://r.example")).unwrap_err();
            let said = error.to_string();
            assert!(said.starts_with(name) && said.contains("http://HOST:PORT"), "{said}");
            assert!(!format!("{said} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}

#[test]
fn what_is_for_a_relay_elsewhere_needs_one() {
    for (typed, flag) in [
        (Typed { ca: Some("/x".into()), ..Typed::default() }, "--ca"),
        (Typed { proxy: Some("http://h".into()), ..Typed::default() }, "--proxy"),
        (Typed { token_file: Some("/x".into()), ..Typed::default() }, "--relay-token-file"),
    ] {
        let error = settings(&[], None).unwrap().relay(&typed).unwrap_err().to_string();
        assert!(error.starts_with(flag) && error.contains("--relay"), "{error}");
    }
    let without = Typed { proxy: Some("none".into()), ..Typed::default() };
    assert_eq!(settings(&[], None).unwrap().relay(&without).unwrap(), Relay::Local);
}

#[test]
fn a_file_of_authorities_that_holds_none_is_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("ca.pem");
    let text = path.to_str().unwrap();
    let by_flag = Typed { ca: Some(path.clone()), ..typed("wss://relay.example") };
    let read = || settings(&[], None).unwrap().relay(&by_flag);
    assert!(matches!(read(), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&path, "").unwrap();
    let by_variable = settings(&[("AGENT_WORMHOLE_CA", text)], None).unwrap();
    let by_file = settings(&[], Some(&format!("ca = {text:?}"))).unwrap();
    for (error, from) in [
        (read(), "--ca"),
        (by_variable.relay(&typed("wss://relay.example")), "AGENT_WORMHOLE_CA"),
        (by_file.relay(&typed("wss://relay.example")), "`ca` in "),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(from) && error.contains("PEM"), "{error}");
    }
}
