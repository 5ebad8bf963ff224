//! `agent-wormhole status`: the channels of this machine.
//!
//! Owns the table for people and the lines for programs. Reads the list of channels and their `status.json`; starts in
//! a few milliseconds.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use serde::Serialize;

use super::args::StatusArgs;
use super::exit::{Exit, Failure};
use super::{output, quantity};
use crate::crypto::pake::Role;
use crate::event::escape::{self, visible};
use crate::event::state::{ChannelState, Flow, Phase};
use crate::rundir::{Channel, find};

/// Longest `status.json` that is read, in bytes.
const MAX_STATE: u64 = 4 * 1024 * 1024;

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let role = args.role.map(Role::from);
    let listed = super::runtime()?.list()?;
    let channels: Vec<Channel> = match &args.channel {
        Some(wanted) => vec![find::find(&listed, wanted, role, &super::cwd()?)?],
        None => listed
            .into_iter()
            .filter(|channel| channel.alive && role.is_none_or(|role| role == channel.role))
            .collect(),
    };
    let rows: Vec<Row> = channels.into_iter().map(Row::read).collect();
    let text = match (args.json, rows.as_slice()) {
        (_, []) => {
            output::note("no channel is running here; start one with `agent-wormhole host`");
            return Ok(Exit::Done);
        }
        (true, rows) => {
            rows.iter().map(Row::line).collect::<io::Result<Vec<String>>>().map_err(printing)?.join("\n")
        }
        (false, [row]) if args.channel.is_some() => sheet(row),
        (false, rows) => table(rows),
    };
    output::data(&text).map_err(printing)?;
    Ok(Exit::Done)
}

fn printing(error: io::Error) -> Failure {
    Failure::new(Exit::Internal, format!("the output cannot be written: {error}"))
}

/// A channel and what it says about itself.
#[derive(Debug, Serialize)]
struct Row {
    nameplate: String,
    role: &'static str,
    state: Phase,
    transport: String,
    dir: PathBuf,
    pid: u32,
    cwd: PathBuf,
    started: String,
    /// Its `status.json`; absent while it is not written yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ChannelState>,
}

impl Row {
    fn read(channel: Channel) -> Self {
        let status = read_state(&channel);
        let Channel { nameplate, role, dir, pid, cwd, started, transport, alive: _ } = channel;
        let role = role.as_str();
        let state = status.as_ref().map_or(Phase::Starting, |status| status.state);
        Self { nameplate, role, state, transport, dir, pid, cwd, started, status }
    }

    fn line(&self) -> io::Result<String> {
        escape::to_line(self)
    }
}

fn read_state(channel: &Channel) -> Option<ChannelState> {
    let mut json = String::new();
    File::open(channel.dir.join("status.json")).ok()?.take(MAX_STATE).read_to_string(&mut json).ok()?;
    ChannelState::from_json(&json).ok()
}

/// One line a channel, columns aligned.
fn table(rows: &[Row]) -> String {
    let mut cells = vec![
        ["CHANNEL", "END", "STATE", "VIA", "DELIVERED", "ON THE WAY", "RECEIVED", "DIRECTORY"]
            .map(str::to_owned),
    ];
    for row in rows {
        let empty = ChannelState::default();
        let status = row.status.as_ref().unwrap_or(&empty);
        cells.push([
            row.nameplate.clone(),
            row.role.to_owned(),
            row.state.as_str().to_owned(),
            visible(&row.transport),
            status.outbox.items.to_string(),
            on_the_way(&status.outbox).to_string(),
            status.inbox.items.to_string(),
            visible(&row.dir.to_string_lossy()),
        ]);
    }
    let mut widths = [0; 8];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let aligned = |line: &[String; 8]| -> String {
        let padded: String =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        padded.trim_end().to_owned()
    };
    cells.iter().map(aligned).collect::<Vec<_>>().join("\n")
}

fn on_the_way(flow: &Flow) -> u64 {
    flow.in_flight.len() as u64 + flow.in_flight_more
}

/// Everything about one channel, a line each.
fn sheet(row: &Row) -> String {
    let mut out = vec![
        format!("channel    {} ({})", row.nameplate, row.role),
        format!("state      {}", row.state.as_str()),
        format!("directory  {}", visible(&row.dir.to_string_lossy())),
        format!(
            "started    {} by process {} in {}",
            row.started,
            row.pid,
            visible(&row.cwd.to_string_lossy())
        ),
        format!("transport  {}", visible(&row.transport)),
    ];
    let Some(status) = &row.status else { return out.join("\n") };
    let why = status.backend_why.as_ref().map(|why| format!(" ({})", visible(why))).unwrap_or_default();
    out.push(format!("mailbox    {}{why}, {}", visible(&status.backend), visible(&status.at_rest)));
    if let Some(peer) = &status.peer {
        out.push(format!("peer       {}, protocol {}", visible(&peer.agent), peer.protocol));
    }
    flow(&mut out, "sent      ", "delivered", &status.outbox);
    flow(&mut out, "received  ", "saved", &status.inbox);
    for left in &status.left_out {
        out.push(format!("left out   {}: {}", visible(&left.name), visible(&left.reason)));
    }
    if status.left_out_more > 0 {
        out.push(format!("left out   and {} more", status.left_out_more));
    }
    out.join("\n")
}

fn flow(out: &mut Vec<String>, title: &str, done: &str, flow: &Flow) {
    let bytes = quantity::shown(flow.bytes);
    let way = on_the_way(flow);
    out.push(format!("{title} {} {done} ({bytes}), {way} on the way, {} refused", flow.items, flow.refused));
    for item in &flow.in_flight {
        let of = item.size.map_or_else(String::new, |size| format!(" of {}", quantity::shown(size)));
        out.push(format!("           {}: {}{of}", visible(&item.name), quantity::shown(item.done)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::state::{InFlight, LeftOutState, PeerState};

    fn row() -> Row {
        Row {
            nameplate: "9471".into(),
            role: "host",
            state: Phase::Connected,
            transport: "relay".into(),
            dir: "/r/9471-host".into(),
            pid: 5,
            cwd: "/w".into(),
            started: "2026-03-01T12:00:00.250Z".into(),
            status: Some(ChannelState {
                state: Phase::Connected,
                backend: "dir".into(),
                at_rest: "plaintext in memory".into(),
                peer: Some(PeerState { agent: "agent-wormhole/0.2.0".into(), protocol: 2 }),
                outbox: Flow {
                    items: 3,
                    bytes: 2048,
                    in_flight: vec![InFlight {
                        id: 4,
                        name: "a\u{1b}[2J".into(),
                        size: Some(4096),
                        done: 1024,
                    }],
                    ..Flow::default()
                },
                left_out: vec![LeftOutState { name: "b~".into(), reason: "a backup copy".into() }],
                ..ChannelState::default()
            }),
        }
    }

    #[test]
    fn a_table_for_people() {
        let waiting =
            Row { nameplate: "12".into(), role: "peer", state: Phase::Starting, status: None, ..row() };
        assert_eq!(
            table(&[row(), waiting]),
            "CHANNEL  END   STATE      VIA    DELIVERED  ON THE WAY  RECEIVED  DIRECTORY\n\
             9471     host  connected  relay  3          1           0         /r/9471-host\n\
             12       peer  starting   relay  0          0           0         /r/9471-host"
        );
    }

    #[test]
    fn a_sheet_for_one_channel() {
        assert_eq!(
            sheet(&row()),
            "channel    9471 (host)\n\
             state      connected\n\
             directory  /r/9471-host\n\
             started    2026-03-01T12:00:00.250Z by process 5 in /w\n\
             transport  relay\n\
             mailbox    dir, plaintext in memory\n\
             peer       agent-wormhole/0.2.0, protocol 2\n\
             sent       3 delivered (2.0 KiB), 1 on the way, 0 refused\n           \
             a\\u001b[2J: 1.0 KiB of 4.0 KiB\n\
             received   0 saved (0 B), 0 on the way, 0 refused\n\
             left out   b~: a backup copy"
        );
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
    }
}
