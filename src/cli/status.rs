//! `agent-wormhole status`: the channels of this machine.
//!
//! Owns what is shown of a channel, and the lines for programs; `table` and `sheet` own what people see. Reads the list of
//! channels and their `status.json`; starts in a few milliseconds, and waits for no channel that does not answer.

/// Everything about one channel.
mod sheet;
/// One line a channel.
mod table;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::StatusArgs;
use super::exit::{Exit, Failure};
use super::output::{self, Tone};
use crate::crypto::pake::Role;
use crate::event::escape;
use crate::event::state::{ChannelState, Flow, Phase};
use crate::rundir::Channel;

/// Longest `status.json` that is read, in bytes.
const MAX_STATE: u64 = 4 * 1024 * 1024;
/// A channel whose process is stopped or hangs does not answer for its mount: nobody waits longer than this for all.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let role = args.role.map(Role::from);
    let channels: Vec<Channel> = match &args.channel {
        Some(wanted) => vec![super::channel(wanted, role)?],
        None => super::runtime()?
            .list()?
            .into_iter()
            .filter(|channel| channel.alive && role.is_none_or(|role| role == channel.role))
            .collect(),
    };
    let rows = read(channels);
    let look = output::look();
    let text = match (args.json, rows.as_slice()) {
        (_, []) => {
            output::note("no channel is running here; start one with `agent-wormhole host`");
            return Ok(Exit::Done);
        }
        (true, rows) => rows
            .iter()
            .map(Row::line)
            .collect::<io::Result<Vec<String>>>()
            .map_err(output::failed)?
            .join("\n"),
        (false, [row]) if args.channel.is_some() => sheet::sheet(row, look),
        (false, rows) => table::table(rows, look),
    };
    output::data(&text).map_err(output::failed)?;
    Ok(Exit::Done)
}

/// What a channel is doing, as far as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Standing {
    /// As its `status.json` has it.
    Phase(Phase),
    /// Its process lives and does not answer.
    #[serde(serialize_with = "hangs")]
    Hangs,
}

fn hangs<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(HANGS)
}

/// The word for a channel that does not answer.
const HANGS: &str = "not_answering";

impl Standing {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Phase(phase) => phase.as_str(),
            Self::Hangs => HANGS,
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::Phase(Phase::Connected) => Tone::Good,
            Self::Phase(Phase::Reconnecting | Phase::PeerAway) => Tone::Wary,
            Self::Hangs => Tone::Bad,
            Self::Phase(Phase::PeerClosed | Phase::Closing) => Tone::Faint,
            Self::Phase(Phase::Starting | Phase::Waiting | Phase::Unknown) => Tone::Plain,
        }
    }
}

/// A channel and what it says about itself.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) nameplate: String,
    pub(super) role: &'static str,
    pub(super) state: Standing,
    transport: String,
    dir: PathBuf,
    pub(super) pid: u32,
    cwd: PathBuf,
    started: String,
    /// Its `status.json`; absent while it is not written yet, or cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ChannelState>,
}

impl Row {
    /// `told` is `None` where the channel did not answer.
    fn new(channel: Channel, told: Option<Option<ChannelState>>) -> Self {
        let Channel { nameplate, role, dir, pid, cwd, started, transport, socket: _, alive: _ } = channel;
        let role = role.as_str();
        let state = match &told {
            None => Standing::Hangs,
            Some(None) => Standing::Phase(Phase::Starting),
            Some(Some(status)) => Standing::Phase(status.state),
        };
        Self { nameplate, role, state, transport, dir, pid, cwd, started, status: told.flatten() }
    }

    fn line(&self) -> io::Result<String> {
        escape::to_line(self)
    }
}

/// Reads what each channel says, all at once: one that does not answer holds up nobody. Its thread ends with this
/// process.
pub(super) fn read(channels: Vec<Channel>) -> Vec<Row> {
    let (tell, told) = mpsc::channel();
    let mut states: Vec<Option<Option<ChannelState>>> = channels.iter().map(|_| None).collect();
    let mut open = 0;
    for (index, channel) in channels.iter().enumerate() {
        let (channel, tell) = (channel.clone(), tell.clone());
        let reading = move || {
            // Who asked may not wait any more.
            let _ = tell.send((index, state_of(&channel)));
        };
        open += usize::from(thread::Builder::new().name("status".into()).spawn(reading).is_ok());
    }
    let deadline = Instant::now() + PATIENCE;
    while open > 0
        && let Ok((index, state)) = told.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        open -= 1;
        if let Some(place) = states.get_mut(index) {
            *place = Some(state);
        }
    }
    channels.into_iter().zip(states).map(|(channel, told)| Row::new(channel, told)).collect()
}

/// What a channel says about itself; `None` where it has not said anything yet. Waits for a mount that does not answer.
pub(super) fn state_of(channel: &Channel) -> Option<ChannelState> {
    let mut json = String::new();
    File::open(channel.dir.join("status.json")).ok()?.take(MAX_STATE).read_to_string(&mut json).ok()?;
    ChannelState::from_json(&json).ok()
}

/// Items of one direction that are on the way.
const fn on_the_way(flow: &Flow) -> u64 {
    flow.in_flight.len() as u64 + flow.in_flight_more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::state::{InFlight, LeftOutState, PeerState, RefusalState};

    /// A channel in the middle of its work.
    pub(super) fn row() -> Row {
        Row {
            nameplate: "9471".into(),
            role: "host",
            state: Standing::Phase(Phase::Connected),
            transport: "relay".into(),
            dir: "/r/9471-host".into(),
            pid: 5,
            cwd: "/w".into(),
            started: "2026-03-01T12:00:00.250Z".into(),
            status: Some(ChannelState {
                state: Phase::Connected,
                address: "wss://relay.example.org".into(),
                backend: "dir".into(),
                backend_why: Some("no mount: there is no /dev/fuse".into()),
                at_rest: "plaintext in memory".into(),
                peer: Some(PeerState {
                    agent: "agent-wormhole/0.2.0".into(),
                    protocol: 2,
                    ..PeerState::default()
                }),
                outbox: Flow {
                    items: 3,
                    bytes: 2048,
                    refused: 1,
                    refusals: vec![RefusalState { name: "huge.iso".into(), reason: "no space".into() }],
                    rate: 512,
                    in_flight: vec![InFlight {
                        id: 4,
                        name: "a\u{1b}[2J".into(),
                        size: Some(4096),
                        done: 1024,
                        rate: 512,
                        remaining: Some(6),
                        waits: None,
                    }],
                    ..Flow::default()
                },
                left_out: vec![LeftOutState { name: "b~".into(), reason: "a backup copy".into() }],
                ..ChannelState::default()
            }),
        }
    }

    #[test]
    fn a_line_for_programs() {
        let line = row().line().unwrap();
        assert!(line.starts_with(
            r#"{"nameplate":"9471","role":"host","state":"connected","transport":"relay","dir":"/r/9471-host","pid":5"#
        ));
        assert!(!line.chars().any(escape::is_hidden));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["status"]["outbox"]["items"], 3);
        assert_eq!(value["status"]["outbox"]["in_flight"][0]["remaining"], 6);
        assert_eq!(value["status"]["outbox"]["refusals"][0]["reason"], "no space");
        let hanging = Row { state: Standing::Hangs, status: None, ..row() };
        let value: serde_json::Value = serde_json::from_str(&hanging.line().unwrap()).unwrap();
        assert_eq!(value["state"], "not_answering");
    }

    #[test]
    fn a_channel_that_does_not_answer_holds_up_nobody() {
        let place = tempfile::tempdir().unwrap();
        let channel = |name: &str| {
            let dir = place.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            Channel {
                socket: PathBuf::new(),
                nameplate: name.into(),
                role: Role::Host,
                dir,
                pid: 1,
                cwd: "/".into(),
                started: String::new(),
                transport: "relay".into(),
                alive: true,
            }
        };
        let (hanging, silent, answering) = (channel("1"), channel("2"), channel("3"));
        // Opening a FIFO that nobody writes into hangs, as a mount does whose process is stopped.
        rustix::fs::mkfifoat(rustix::fs::CWD, hanging.dir.join("status.json"), 0o600.into()).unwrap();
        let state = ChannelState { state: Phase::Waiting, ..ChannelState::default() };
        std::fs::write(answering.dir.join("status.json"), state.to_json().unwrap()).unwrap();
        let fifo = hanging.dir.join("status.json");
        let rows = read(vec![hanging, silent, answering]);
        let states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
        assert_eq!(states, ["not_answering", "starting", "waiting"]);
        // Lets its thread go.
        drop(std::fs::OpenOptions::new().write(true).open(fifo).unwrap());
    }
}
