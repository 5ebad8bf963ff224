//! What nobody but the two ends learns: the words of the code, and what is said.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use crate::fixture::end::{Closed, End};
use crate::fixture::proxy::Proxy;
use crate::fixture::world::{Pair, Relay, World};

/// The variable that asks for more of a process's log.
const LOG: &str = "AGENT_WORMHOLE_LOG";
/// Stands in all that is said and in every name.
const MARK: &str = "only-for-the-other-end";
/// How often it stands in a file.
const TIMES: usize = 20_000;
/// Words of so many letters do not come about in noise.
const LETTERS: usize = 5;

/// Something that can be read, and where it was.
type Found = (String, Vec<u8>);

/// What became readable while a channel was used.
#[derive(Default)]
struct Readable {
    code: String,
    /// To the relay's operator: what it received and sent, with nothing between it and the frames, and its log.
    relay: Vec<Found>,
    /// On standard output after pairing, and in the logs, of both ends.
    said: Vec<Found>,
    /// To other users of the machine.
    machine: Vec<Found>,
    /// In the channel's directories and around them, and in `status`.
    place: Vec<Found>,
}

impl Readable {
    fn all(&self) -> impl Iterator<Item = &Found> {
        self.relay.iter().chain(&self.said).chain(&self.machine).chain(&self.place)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        words(&self.code)
    }
}

/// The parts of a code that are not its number.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split('-').filter(|part| !part.bytes().all(|b| b.is_ascii_digit()))
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn nowhere<'a>(needle: &[u8], what: &str, found: impl IntoIterator<Item = &'a Found>) {
    for (place, bytes) in found {
        assert!(!holds(bytes, needle), "{what} is in {place}: {}", String::from_utf8_lossy(bytes));
    }
}

/// The payloads of one direction of a websocket, without the masks under which a client hides its own.
fn payloads(stream: &[u8]) -> Vec<u8> {
    let head = stream.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut rest = &stream[head + 4..];
    let mut out = Vec::new();
    while let [_, second, after @ ..] = rest {
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        let begin = wide + if masked { 4 } else { 0 };
        // The last message may have been cut.
        let Some(payload) = after.get(begin..) else { break };
        let long = after[..wide].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let len = if wide == 0 { usize::from(second & 0x7f) } else { long };
        let (payload, next) = payload.split_at(len.min(payload.len()));
        let mask = if masked { &after[wide..begin] } else { &[0] };
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        rest = next;
    }
    out
}

/// Every file below a directory, with its name.
fn files(root: &Path) -> Vec<Found> {
    let mut open = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            // What is replaced meanwhile comes again under its name.
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            let name = path.display().to_string();
            found.push((format!("the name {name}"), name.clone().into_bytes()));
            if about.is_dir() {
                open.push(path);
            } else if about.is_file() {
                found.extend(fs::read(&path).ok().map(|bytes| (name, bytes)));
            }
        }
    }
    found
}

/// A host whose words come about nowhere by chance: not in `known`, which is what there is to read anyway.
fn host(world: &World, args: &[&str], level: &str, known: &Readable) -> End {
    loop {
        let mut command = world.command(&["host"]);
        command.args(args).current_dir(world.path("host")).env(LOG, level);
        let host = End::start(command);
        let code = host.code();
        let apart = |word: &str| {
            word.len() >= LETTERS && known.all().all(|(_, bytes)| !holds(bytes, word.as_bytes()))
        };
        if words(&code).all(apart) {
            return host;
        }
    }
}

/// Texts, files and a directory, in both directions.
fn talk(world: &World, pair: &mut Pair) {
    let project = world.path("home").join(format!("{MARK}-project"));
    fs::create_dir_all(&project).unwrap();
    fs::write(project.join(format!("{MARK}-member")), MARK).unwrap();
    for end in [&pair.host, &pair.peer] {
        end.put("message", MARK);
        end.put("long.msg", MARK.repeat(1000));
        end.put(&format!("{MARK}.txt"), MARK.repeat(TIMES));
        end.link(&project, &format!("{MARK}-project"));
    }
    for end in [&mut pair.host, &mut pair.peer] {
        end.text(MARK);
        end.until("the long text", |event| event["size"] == MARK.len() * 1000);
        end.item(&format!("{MARK}.txt"));
        end.item(&format!("{MARK}-project"));
    }
    // With their receipts everything is in the transcripts.
    world.flush(&pair.host);
    world.flush(&pair.peer);
}

/// Uses a channel through a relay and collects what can be read; of a legacy one all but what the relay is told.
fn use_channel(level: &str, known: &Readable, legacy: bool) -> Readable {
    let world = World::new();
    let mut relay = world.command(&[]);
    relay.env(LOG, level);
    let mut relay = Relay::start(relay);
    let proxy = Proxy::before(Arc::new(Mutex::new(relay.address)));
    proxy.remember();
    let url = proxy.url();
    let args = [&["--relay", &url][..], if legacy { &["--legacy"] } else { &[] }].concat();
    let host = host(&world, &args, level, known);
    let code = host.code();
    let mut connecting = world.connecting(&code, &args);
    connecting.env(LOG, level);
    let mut pair = Pair { host, peer: End::start(connecting), relay: None };
    pair.connected();
    let mut readable = Readable { code, ..Readable::default() };
    readable.machine.push(("/proc/mounts".into(), fs::read("/proc/mounts").unwrap()));
    for id in [pair.host.id(), pair.peer.id(), relay.process.id()] {
        for name in ["cmdline", "comm"] {
            let path = format!("/proc/{id}/{name}");
            let bytes = fs::read(&path).unwrap();
            readable.machine.push((path, bytes));
        }
    }
    talk(&world, &mut pair);
    for args in [&["status"][..], &["status", "--json"]] {
        let ended = world.run(args);
        readable.place.push((args.join(" "), format!("{ended:?}").into_bytes()));
    }
    readable.place.extend(files(&world.path("run")));
    let nameplate = pair.host.nameplate.clone();
    let (host, peer) = pair.close();
    said(&mut readable, "host", &host);
    said(&mut readable, "peer", &peer);
    relay.process.signal(rustix::process::Signal::TERM);
    readable.relay.push(("the relay's log".into(), format!("{:?}", relay.process.finish()).into_bytes()));
    let connections = proxy.memory();
    for (n, connection) in connections.iter().enumerate() {
        for (direction, bytes) in ["received", "sent"].iter().zip(connection) {
            readable.relay.push((format!("what the relay {direction} in connection {n}"), payloads(bytes)));
            readable.relay.push((format!("the same as it came ({direction}, {n})"), bytes.clone()));
        }
    }
    if legacy {
        let told = |(_, bytes): &Found| holds(bytes, readable.code.as_bytes());
        assert_eq!(readable.relay.iter().filter(|found| told(found)).count(), 2, "both ends told the relay");
        readable.relay.retain(|(place, _)| place == "the relay's log");
    } else {
        seen(&readable, &nameplate);
    }
    readable
}

fn said(readable: &mut Readable, who: &str, closed: &Closed) {
    for (n, event) in closed.events.iter().enumerate() {
        // The first line of a host is where the code belongs.
        if n > 0 || who == "peer" {
            readable.said.push((format!("standard output of the {who}"), event.to_string().into_bytes()));
        }
    }
    readable.said.push((format!("the log of the {who}"), closed.err.clone().into_bytes()));
}

/// Holds if the search would find something: the numbers at the relay, the content in the inbox.
fn seen(readable: &Readable, nameplate: &str) {
    let sum: usize = readable.relay.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(sum > 4 * TIMES * MARK.len(), "the file came through the relay: {sum}");
    for (direction, who) in [("sent", "a host"), ("received", "a peer")] {
        let number = format!(r#""nameplate":"{nameplate}""#);
        let told = readable.relay.iter().any(|(place, bytes)| {
            place.contains(&format!("relay {direction}")) && holds(bytes, number.as_bytes())
        });
        assert!(told, "the relay {direction} the number of {who}");
    }
    let stored = readable.place.iter().filter(|(_, bytes)| holds(bytes, MARK.as_bytes())).count();
    assert!(stored >= 10, "{stored} places");
}

#[test]
fn the_words_of_a_code_and_what_is_said_are_nowhere_but_with_the_two_ends() {
    let first = use_channel("info", &Readable::default(), false);
    // Nothing that is said is known to the relay, in a log, or to other users.
    let log = |found: &&Found| found.0.starts_with("the log");
    nowhere(MARK.as_bytes(), "what was said", first.relay.iter().chain(&first.machine));
    nowhere(MARK.as_bytes(), "what was said", first.said.iter().filter(log));
    // What there is to read without these words is known now: the next words are none of it by chance.
    let second = use_channel("trace", &first, false);
    let says = |found: &&Found| found.0 == "the relay's log" && holds(&found.1, b"DEBUG");
    assert_eq!(second.relay.iter().filter(says).count(), 1, "the log is one at all");
    for word in second.words() {
        nowhere(word.as_bytes(), "a word of the code", second.all());
    }
    nowhere(MARK.as_bytes(), "what was said", second.relay.iter().chain(&second.machine));
    let words = second.code.split_once('-').unwrap().1;
    for secret in [second.code.as_str(), words] {
        let hash = Sha256::digest(secret);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        nowhere(&hash, "the code's hash", second.all());
        nowhere(hex.as_bytes(), "the code's hash", second.all());
    }
    let masked = format!("{}*", second.code.split('-').next().unwrap());
    assert!(second.machine.iter().any(|(_, bytes)| holds(bytes, masked.as_bytes())), "the title is scrubbed");
}

#[test]
fn a_code_that_a_relay_is_told_is_in_no_log_and_nowhere_else() {
    let first = use_channel("info", &Readable::default(), true);
    let second = use_channel("trace", &first, true);
    let says = |found: &&Found| found.0 == "the relay's log" && holds(&found.1, b"DEBUG");
    assert_eq!(second.relay.iter().filter(says).count(), 1, "the log is one at all");
    for word in second.words() {
        nowhere(word.as_bytes(), "a word of the code", second.all());
    }
    // What the relay keeps of it, and what is simply a hash of it.
    for kept in [&b"agent-wormhole relay code\0"[..], b""] {
        let hash = Sha256::new().chain_update(kept).chain_update(&second.code).finalize();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        nowhere(&hash, "the code's hash", second.all());
        nowhere(hex.as_bytes(), "the code's hash", second.all());
    }
    let masked = "*".repeat(second.code.len());
    assert!(second.machine.iter().any(|(_, bytes)| holds(bytes, masked.as_bytes())), "the title is scrubbed");
}
