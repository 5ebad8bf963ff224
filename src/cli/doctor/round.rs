//! `doctor --loop`: a canary from one end to another on this machine, and back.
//!
//! Owns the order of its steps. The ends are real: processes of this program, with the mailbox, the encryption and the relay
//! that `host` and `connect` have here. What they do is timed as their logs tell it.

mod ends;
mod hops;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use agent_wormhole_mount::client;
use jiff::Timestamp;
use rand_core::{OsRng, RngCore as _};
use serde_json::Value;

use self::ends::Ends;
pub(super) use self::hops::Hop;
use self::hops::Mark;
use super::News;
use super::finding::Finding;
use crate::cli::args::{DoctorArgs, MountArg};
use crate::cli::exit::Exit;
use crate::crypto::pake::Role;
use crate::rundir::RuntimeDir;

/// Bytes of the file.
const FILE: usize = 1 << 20;
/// Random bytes of the text.
const WORD: usize = 16;
/// What to do about a canary that did not come back.
const ADVICE: &str = "run `agent-wormhole host` and `agent-wormhole connect CODE` with the same settings to see each end by itself, or \
                      AGENT_WORMHOLE_LOG=debug for more";

/// What the ends and the threads around them tell.
#[derive(Debug)]
pub(super) enum Told {
    /// An event of an end.
    Event(Role, Value),
    /// A step of an end.
    Mark(Mark),
    /// Another line of its standard error.
    Said(Role, String),
    /// One of its two streams is over.
    Silent(Role),
    /// What was done with files is done.
    Did(Result<Vec<u8>, String>),
    /// Nothing that matters.
    Nothing,
}

/// Why the canary did not come back.
#[derive(Debug)]
pub(super) enum Stop {
    /// The time is over.
    Late,
    /// Something went wrong.
    Failed { why: String, advice: String },
    /// Somebody interrupted.
    Interrupted,
    /// Standard output takes nothing.
    Output(io::Error),
}

impl Stop {
    fn failed(why: impl Into<String>) -> Self {
        let why: String = why.into();
        match why.rsplit_once("; ") {
            Some((why, advice)) => Self::Failed { why: why.to_owned(), advice: advice.to_owned() },
            None => Self::Failed { why, advice: ADVICE.to_owned() },
        }
    }
}

/// How the canary is sent.
pub(super) struct Plan<'a> {
    pub(super) runtime: &'a RuntimeDir,
    /// Flags of both ends.
    flags: Vec<OsString>,
    direct: bool,
    limit: Duration,
}

impl<'a> Plan<'a> {
    /// With the flags that were typed; what was not typed the ends read where it stands.
    pub(super) fn new(args: &DoctorArgs, runtime: &'a RuntimeDir, limit: Duration) -> Self {
        let mut flags: Vec<OsString> = vec!["--json".into(), "--timeout".into()];
        flags.push(format!("{}ms", limit.as_millis().max(1)).into());
        let relay = &args.relay;
        let mount = args.mount.map(|mount| match mount {
            MountArg::Auto => "auto",
            MountArg::Fuse => "fuse",
            MountArg::Dir => "dir",
        });
        for (flag, value) in [
            ("--mount", mount.map(OsString::from)),
            ("--relay", relay.relay.as_ref().map(OsString::from)),
            ("--relay-token-file", relay.relay_token_file.as_ref().map(OsString::from)),
            ("--ca", relay.ca.as_ref().map(OsString::from)),
            ("--proxy", relay.proxy.as_ref().map(OsString::from)),
        ] {
            flags.extend(value.into_iter().flat_map(|value| [OsString::from(flag), value]));
        }
        Self { runtime, flags, direct: args.direct, limit }
    }

    fn command(&self, word: &str, more: &[&str]) -> Vec<OsString> {
        let more = more.iter().map(OsString::from);
        std::iter::once(OsString::from(word)).chain(more).chain(self.flags.iter().cloned()).collect()
    }
}

/// Sends the canary; each step is told when it is done. What it comes to, and how the program ends with it.
///
/// # Errors
/// Where standard output takes nothing.
pub(super) fn run(
    plan: &Plan<'_>,
    news: (&Receiver<News>, Sender<News>),
    told: &mut dyn FnMut(&Hop) -> io::Result<()>,
) -> io::Result<(Finding, Exit)> {
    let from = Instant::now();
    let mut round = Round {
        ends: Ends::new(news, plan.runtime, from + plan.limit),
        plan,
        told,
        at: "host.link".to_owned(),
    };
    let done = round.go();
    let at = std::mem::take(&mut round.at);
    // Whoever still runs is ended here.
    drop(round);
    Ok(match done {
        Ok(()) => {
            let detail =
                "a text and a file of 1 MiB came through whole, both ways, and nothing is left behind";
            (Finding::ok("loop", detail).after(from.elapsed()), Exit::Done)
        }
        Err(Stop::Output(error)) => return Err(error),
        Err(Stop::Late) => {
            let why = format!("the canary stood at {at} when {:?} were over", plan.limit);
            (Finding::fail("loop", why, format!("give a longer --timeout; {ADVICE}")), Exit::Timeout)
        }
        Err(Stop::Failed { why, advice }) => {
            (Finding::fail("loop", format!("the canary came to {at}: {why}"), advice), Exit::Internal)
        }
        Err(Stop::Interrupted) => {
            let why = format!("interrupted; the canary stood at {at}");
            (Finding::fail("loop", why, "run it again"), Exit::Interrupted)
        }
    })
}

/// A canary on its way.
struct Round<'a, 'b> {
    ends: Ends<'a>,
    plan: &'b Plan<'b>,
    told: &'b mut dyn FnMut(&Hop) -> io::Result<()>,
    /// The step that is waited for.
    at: String,
}

impl Round<'_, '_> {
    fn go(&mut self) -> Result<(), Stop> {
        let direct: &[&str] = if self.plan.direct { &["--direct"] } else { &[] };
        let (host, _) = self.up(Role::Host, &self.plan.command("host", direct), None)?;
        let word = |event: &Value, name: &str| {
            event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let code = word(&host, "code");
        let at = if self.plan.direct { "@127.0.0.1" } else { "" };
        let input = format!("{code}{at}\n");
        let (peer, mounted) = self.up(Role::Peer, &self.plan.command("connect", &["-"]), Some(&input))?;
        self.at = "handshake".to_owned();
        let mut met = mounted;
        for end in [Role::Peer, Role::Host] {
            let connected = self.ends.event(end, |event| word(event, "event") == "connected")?;
            met = met.max(word(&connected, "at").parse().unwrap_or(met));
        }
        self.tell(mounted, met)?;
        let [host, peer] = [host, peer].map(|event| PathBuf::from(word(&event, "mount")));
        for (from, to, way) in [(Role::Host, &host, "to_peer"), (Role::Peer, &peer, "to_host")] {
            let mut noise = vec![0; FILE + WORD];
            OsRng
                .try_fill_bytes(&mut noise)
                .map_err(|error| Stop::failed(format!("no randomness: {error}")))?;
            let file = noise.split_off(WORD);
            let text: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
            self.send(
                (from, to),
                &format!("{way}.text"),
                "doctor.msg",
                format!("canary {text}\n").into_bytes(),
            )?;
            self.send((from, to), &format!("{way}.file"), "doctor.bin", file)?;
        }
        self.close(&host, &peer)
    }

    /// Starts an end; its first event, and when its directory was there.
    fn up(&mut self, end: Role, args: &[OsString], input: Option<&str>) -> Result<(Value, Timestamp), Stop> {
        self.at = format!("{}.link", end.as_str());
        let from = Timestamp::now();
        self.ends.start(end, args, input)?;
        let linked = self.ends.mark(end, "linked", None)?.at;
        self.tell(from, linked)?;
        self.at = format!("{}.mount", end.as_str());
        let mounted = self.ends.mark(end, "mounted", None)?.at;
        let channel =
            self.ends.event(end, |event| event.get("event").is_some_and(|word| word == "channel"))?;
        self.ends.dirs.extend(channel.get("mount").and_then(Value::as_str).map(PathBuf::from));
        self.tell(linked, mounted)?;
        Ok((channel, mounted))
    }

    /// Writes a file into the outbox of `from`, and follows it into the inbox of the other end and its receipt back.
    fn send(
        &mut self,
        (from, dir): (Role, &Path),
        way: &str,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Stop> {
        self.at = format!("{way}.settled");
        let path = dir.join("outbox").join(name);
        let written = bytes.clone();
        let written_at = Timestamp::now();
        let write = move || match fs::write(&path, written) {
            Ok(()) => Ok(Vec::new()),
            Err(error) => Err(format!("{} cannot be written: {error}", path.display())),
        };
        self.ends.act(write)?;
        let settled = self.ends.mark_after(from, "settled", written_at)?;
        self.tell(written_at, settled.at)?;
        let mut before = settled.at;
        for (end, hop) in [(from, "sent"), (from.other(), "stored"), (from, "receipt")] {
            self.at = format!("{way}.{hop}");
            let mark = self.ends.mark(end, hop, settled.item)?;
            self.tell(before, mark.at)?;
            before = mark.at;
        }
        self.at = format!("{way}.stored");
        let is = |event: &Value| {
            event.get("from").is_some_and(|from| from == "peer")
                && event.get("id").and_then(Value::as_u64) == settled.item
        };
        let event = self.ends.event(from.other(), is)?;
        let saved = PathBuf::from(event.get("saved_to").and_then(Value::as_str).unwrap_or_default());
        let read =
            move || fs::read(&saved).map_err(|error| format!("{} cannot be read: {error}", saved.display()));
        if self.ends.act(read)? == bytes {
            Ok(())
        } else {
            Err(Stop::failed(format!(
                "{name} arrived with other bytes than were sent; report this as a fault of agent-wormhole"
            )))
        }
    }

    /// Closes both ends, as a user does, and looks whether anything is left.
    fn close(&mut self, host: &Path, peer: &Path) -> Result<(), Stop> {
        self.at = "close".to_owned();
        let from = Timestamp::now();
        for (end, dir) in [(Role::Host, host), (Role::Peer, peer)] {
            if end == Role::Peer {
                let is = |event: &Value| event.get("event").is_some_and(|word| word == "peer_closed");
                self.ends.event(end, is)?;
            }
            let dir = dir.to_owned();
            let ask = move || {
                client::request_close(&dir, false).map(|()| Vec::new()).map_err(|error| error.to_string())
            };
            self.ends.act(ask)?;
        }
        for end in [Role::Host, Role::Peer] {
            if !self.ends.ended(end)? {
                return Err(Stop::failed(format!("the end `{}` closed with an error", end.as_str())));
            }
        }
        self.tell(from, Timestamp::now())?;
        self.at = "clean".to_owned();
        match self.ends.left().as_slice() {
            [] => Ok(()),
            left => Err(Stop::failed(format!("something is left: {}", left.join(", ")))),
        }
    }

    /// The step that was waited for is done.
    fn tell(&mut self, from: Timestamp, to: Timestamp) -> Result<(), Stop> {
        (self.told)(&Hop::between(self.at.clone(), from, to)).map_err(Stop::Output)
    }
}
