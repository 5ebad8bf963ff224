//! Codes that are wrong, mistyped or guessed, and strangers at the door.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use bip39::Language;

use crate::fixture::LIMIT;
use crate::fixture::content::noise;
use crate::fixture::process::{Ended, Process};
use crate::fixture::proxy::Proxy;
use crate::fixture::world::{Via, WAYS, World};

/// The same code but for its last word.
fn wrong(code: &str) -> String {
    let (rest, last) = code.rsplit_once('-').unwrap();
    let other = Language::English.word_list().iter().find(|word| **word != last).unwrap();
    format!("{rest}-{other}")
}

fn connect(world: &World, code: &str, args: &[&str]) -> Ended {
    Process::spawn(world.connecting(code, args)).finish()
}

#[test]
fn a_wrong_code_is_told_to_both_and_burns_the_code() {
    for via in WAYS {
        let world = World::new();
        let relay = (via == Via::Relay).then(|| world.relay());
        let url = relay.as_ref().map(|relay| relay.url());
        let relayed: Vec<&str> = url.iter().flat_map(|url| ["--relay", url]).collect();
        let at = if via == Via::Direct { "@127.0.0.1" } else { "" };
        let mut host = world.host(if via == Via::Direct { &["--direct"] } else { &relayed });
        let code = host.code();
        host.put("message", "for the right one only\n");
        let peer = connect(&world, &format!("{}{at}", wrong(&code)), &relayed);
        let failed = |line: &String| line.contains(r#""event":"handshake_failed""#);
        assert_eq!(
            (peer.code, peer.out.iter().filter(|line| failed(line)).count()),
            (Some(3), 1),
            "{peer:?}"
        );
        let told = host.status("handshake_failed");
        assert!(told["detail"].as_str().unwrap().contains("host a new channel"), "{told}");
        let host = host.finish();
        assert_eq!((host.code, &host.last()["event"]), (Some(3), &"closed".into()), "{host:?}");
        assert_eq!(host.statuses("connected"), 0);
        // The right code comes too late.
        let late = connect(&world, &format!("{code}{at}"), &relayed);
        assert_eq!(late.code, Some(4), "{via:?}: {late:?}");
        world.is_clean();
    }
}

#[test]
fn a_mistyped_word_is_caught_before_anything_is_sent() {
    let world = World::new();
    let relay = world.relay();
    let door = Proxy::before(Arc::new(Mutex::new(relay.address)));
    let mut host = world.host(&["--relay", &relay.url()]);
    let code = host.code();
    let (rest, last) = code.rsplit_once('-').unwrap();
    for (typed, near) in [("clokc", "clock"), ("marbel", "marble"), ("corss", "cross")] {
        let ended = connect(&world, &format!("{rest}-{typed}"), &["--relay", &door.url()]);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{ended:?}");
        assert!(ended.err.contains("did you mean") && ended.err.contains(near), "{ended:?}");
    }
    // Two words may well be three that were run together; these cannot.
    let (number, words) = code.split_once('-').unwrap();
    for typed in [format!("{number}-{last}"), format!("{code}-{last}-{last}"), words.to_owned()] {
        let ended = connect(&world, &typed, &["--relay", &door.url()]);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{ended:?}");
    }
    assert_eq!(door.accepted(), 0, "something was sent");
    // As people type: capitals, spaces, cut after four letters.
    let spelled = format!("{}-{}", rest.to_uppercase(), &last[..last.len().min(4)]).replace('-', " ");
    let mut peer = world.connect(&spelled, &["--relay", &door.url()]);
    peer.status("connected");
    host.status("connected");
    host.ctl("close");
    host.finish().well();
    peer.ctl("close");
    peer.finish().well();
}

#[test]
fn a_code_from_standard_input_connects() {
    let world = World::new();
    let host = world.host(&[]);
    let mut process =
        Process::spawn_with(world.connecting("-", &[]), format!("{}\n", host.code()).as_bytes());
    let channel: serde_json::Value = serde_json::from_str(&process.line("channel", LIMIT).unwrap()).unwrap();
    assert_eq!(channel["nameplate"], host.nameplate.as_str());
    while !process.line("connected", LIMIT).unwrap().contains(r#""event":"connected""#) {}
    host.ctl("close");
    host.finish().well();
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.finish().code, Some(0));
}

/// Reads until the other side ends the connection.
fn until_gone(mut stream: TcpStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        // A reset is an end, too.
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn strangers_at_a_direct_port_do_not_kill_the_channel() {
    let world = World::new();
    let mut host = world.host(&["--direct"]);
    let port: u16 = host.nameplate.parse().unwrap();
    let knock = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Silence, more of it than is waited for at once.
    let silent: Vec<TcpStream> = (0..20).map(|_| knock()).collect();
    // Bytes that are no frame, and an HTTP request.
    for garbage in [noise(1, 4096), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()] {
        let mut stranger = knock();
        // It may be closed while this is written.
        let _ = stranger.write_all(&garbage);
        until_gone(stranger);
    }
    // As long as a first message, and then nothing.
    for seed in 2..5 {
        let mut stranger = knock();
        stranger.write_all(&[&33_u32.to_be_bytes()[..], &noise(seed, 33)].concat()).unwrap();
        drop(stranger);
    }
    // As long as a first and a second message: the first is no key exchange message, so this is no guess.
    let mut stranger = knock();
    let second = [&60_u32.to_be_bytes()[..], &noise(9, 60)].concat();
    let first = [&33_u32.to_be_bytes()[..], b"X", &noise(8, 32)].concat();
    stranger.write_all(&[first, second].concat()).unwrap();
    let told = host.status("waiting");
    assert!(told["detail"].as_str().unwrap().contains("without the code"), "{told}");
    until_gone(stranger);
    let mut peer = world.connect(&format!("{}@127.0.0.1", host.code()), &[]);
    peer.status("connected");
    host.status("connected");
    // Now as well.
    let mut stranger = knock();
    let _ = stranger.write_all(&noise(6, 4096));
    until_gone(stranger);
    host.put("message", "still here\n");
    peer.text("still here\n");
    drop(silent);
    host.ctl("close");
    host.finish().well();
    peer.ctl("close");
    peer.finish().well();
}
