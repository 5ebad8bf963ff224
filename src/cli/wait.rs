//! `agent-wormhole wait`: the first event that is wanted.
//!
//! Owns what fits `--for`, and when it cannot come any more. What an event is and where it is read is `follow`'s.

use std::fs::File;
use std::io::Read as _;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::args::WaitArgs;
use super::exit::{Exit, Failure};
use super::{output, watch};
use crate::crypto::pake::Role;
use crate::event::escape::visible;
use crate::event::state::{ChannelState, Phase};
use crate::follow::{Line, Next, Tail};
use crate::rundir::{Channel, RuntimeDir};

/// Longest `status.json` that is read, in bytes.
const MAX_STATE: u64 = 4 * 1024 * 1024;
/// A channel that answers has told by then, after the time was over, that nothing came.
const LATE: Duration = Duration::from_secs(1);

pub(super) fn run(args: &WaitArgs) -> Result<Exit, Failure> {
    output::start_log();
    let wanted = Wanted::of(args.wanted.as_deref());
    let channel = super::channel(&args.channel, args.role.map(Role::from))?;
    let runtime = RuntimeDir::open()?;
    let until = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let hung = hung(&channel, args.timeout.unwrap_or_default());
    let wait = Wait { wanted, channel, runtime, since: args.since, timeout: args.timeout, until };
    // A mount whose process is stopped answers nobody who reads in it, for as long as it is: not on this thread.
    let (reply, answer) = sync_channel(1);
    let reading = thread::Builder::new().name("events".into()).spawn(move || {
        // Nobody waits for it where it comes too late.
        let _ = reply.send(wait.run());
    });
    reading.map_err(|error| Failure::new(Exit::Internal, format!("no thread can be had: {error}")))?;
    match until {
        None => answer.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(until) => {
            answer.recv_timeout(until.saturating_duration_since(Instant::now()).saturating_add(LATE))
        }
    }
    .unwrap_or_else(|why| match why {
        RecvTimeoutError::Timeout => Err(hung),
        RecvTimeoutError::Disconnected => {
            Err(Failure::new(Exit::Internal, "the events could not be read to their end".to_owned()))
        }
    })
}

/// What is needed to wait.
struct Wait {
    wanted: Wanted,
    channel: Channel,
    runtime: RuntimeDir,
    since: u64,
    timeout: Option<Duration>,
    until: Option<Instant>,
}

impl Wait {
    fn run(&self) -> Result<Exit, Failure> {
        let Self { wanted, channel, runtime, until, .. } = self;
        let alive = || watch::is_alive(runtime, channel);
        let mut tail = Tail::open(&channel.dir, self.since, &alive);
        let mut refused = None;
        let mut over = false;
        loop {
            match tail.next(*until).map_err(|error| watch::unreadable(channel, &error))? {
                Next::Event(line) if wanted.is(&line) => {
                    output::data(&line.text).map_err(output::failed)?;
                    return Ok(Exit::Done);
                }
                Next::Event(line) if line.is_last() => {
                    return Err(refused.unwrap_or_else(|| closed(wanted, channel, "the channel is closed")));
                }
                Next::Event(line) if wanted.is_refused(&line) => refused = Some(refusal(&line)),
                Next::Event(line) => told_too_fast(&line),
                Next::Foreign => watch::foreign(),
                Next::Missing(numbers) => watch::missing(&numbers),
                Next::Gone => return Err(refused.unwrap_or_else(|| watch::gone(channel))),
                Next::Quiet => {
                    // It may have come under another number after that: only when all was read it decides.
                    if let Some(refused) = refused {
                        return Err(refused);
                    }
                    if over {
                        return Err(closed(wanted, channel, "the peer has closed the channel"));
                    }
                    if until.is_some_and(|until| Instant::now() >= until) {
                        return Err(late(wanted, self.timeout.unwrap_or_default()));
                    }
                    // What came until then is in the log already: it is read once more.
                    over = has_peer_closed(channel);
                    if over {
                        tail.look_again();
                    }
                }
            }
        }
    }
}

/// What is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Whatever the peer sends.
    Anything,
    /// A text.
    Text,
    /// A file or a directory.
    File,
    /// The peer.
    Connected,
    /// A file or directory of this name.
    Name(String),
}

impl Wanted {
    fn of(typed: Option<&str>) -> Self {
        match typed {
            None => Self::Anything,
            Some("text") => Self::Text,
            Some("file") => Self::File,
            Some("connected") => Self::Connected,
            Some(name) => {
                Self::Name(name.strip_prefix("./").unwrap_or(name).trim_end_matches('/').to_owned())
            }
        }
    }

    fn is(&self, line: &Line) -> bool {
        let is_text = line.kind == "text";
        let is_item = line.kind == "file" || line.kind == "dir";
        match self {
            Self::Anything => is_text || is_item,
            Self::Text => is_text,
            Self::File => is_item,
            Self::Connected => {
                line.kind == "status" && (line.event == "connected" || line.event == "reconnected")
            }
            Self::Name(name) => is_item && !name.is_empty() && (line.name == *name || line.sent_as == *name),
        }
    }

    /// Whether it is told that this does not come.
    fn is_refused(&self, line: &Line) -> bool {
        let Self::Name(name) = self else { return false };
        line.kind == "status" && line.event == "refused" && line.name == *name
    }

    fn shown(&self) -> String {
        match self {
            Self::Anything => "nothing from the peer".to_owned(),
            Self::Text => "no text".to_owned(),
            Self::File => "no file and no directory".to_owned(),
            Self::Connected => "no peer".to_owned(),
            Self::Name(name) => format!("no file or directory `{}`", visible(name)),
        }
    }
}

/// Whether the peer has closed, and all that it had sent is stored.
fn has_peer_closed(channel: &Channel) -> bool {
    let mut json = String::new();
    let read = File::open(channel.dir.join("status.json"))
        .and_then(|file| file.take(MAX_STATE).read_to_string(&mut json));
    let state = read.ok().and_then(|_| ChannelState::from_json(&json).ok());
    state.is_some_and(|state| state.state == Phase::PeerClosed && state.inbox.in_flight.is_empty())
}

fn closed(wanted: &Wanted, channel: &Channel, why: &str) -> Failure {
    let (shown, dir) = (wanted.shown(), channel.dir.display());
    let kept = if why.contains("peer") {
        format!("; what it sent is in {dir}/inbox until you close")
    } else {
        String::new()
    };
    Failure::new(Exit::Unreachable, format!("{shown} came, and nothing more can come: {why}{kept}"))
}

fn hung(channel: &Channel, timeout: Duration) -> Failure {
    Failure::new(
        Exit::Timeout,
        format!(
            "channel {} did not answer within {timeout:?}: process {pid} is stopped or hangs; `kill -CONT {pid}` lets it \
             go on",
            channel.nameplate,
            pid = channel.pid
        ),
    )
}

fn refusal(line: &Line) -> Failure {
    let by = if line.by == "self" { "this end" } else { "the peer" };
    let why = if line.detail.is_empty() { "no reason was given" } else { &line.detail };
    Failure::new(
        Exit::Undelivered,
        format!(
            "`{}` was refused by {by}: {why}; to wait for the next one, give --since {}",
            visible(&line.name),
            line.seq
        ),
    )
}

fn late(wanted: &Wanted, timeout: Duration) -> Failure {
    Failure::new(
        Exit::Timeout,
        format!("{} came within {timeout:?}; the same command waits on", wanted.shown()),
    )
}

/// What is counted only may be what is waited for.
fn told_too_fast(line: &Line) {
    if line.event == "burst" && line.kind == "status" {
        output::note(&format!(
            "agent-wormhole: {} events came too fast to be told; what they brought is in inbox/",
            line.count
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: &str, name: &str, sent_as: &str) -> Line {
        let [kind, name, sent_as] = [kind, name, sent_as].map(str::to_owned);
        Line { kind, name, sent_as, from: "peer".into(), ..Line::default() }
    }

    fn status(event: &str) -> Line {
        Line { kind: "status".into(), event: event.into(), ..Line::default() }
    }

    #[test]
    fn what_fits() {
        let (text, file, dir) =
            (item("text", "", ""), item("file", "report-2.pdf", "report.pdf"), item("dir", "src", ""));
        let fits = |typed| {
            let wanted = Wanted::of(typed);
            [&text, &file, &dir, &status("connected"), &status("reconnected"), &status("closed")]
                .map(|line| wanted.is(line))
        };
        assert_eq!(fits(None), [true, true, true, false, false, false]);
        assert_eq!(fits(Some("text")), [true, false, false, false, false, false]);
        assert_eq!(fits(Some("file")), [false, true, true, false, false, false]);
        assert_eq!(fits(Some("connected")), [false, false, false, true, true, false]);
        for name in ["report-2.pdf", "report.pdf", "./report.pdf"] {
            assert_eq!(fits(Some(name)), [false, true, false, false, false, false], "{name}");
        }
        for name in ["src", "src/", "./src/"] {
            assert_eq!(fits(Some(name)), [false, false, true, false, false, false], "{name}");
        }
        assert_eq!(fits(Some("./text")), [false; 6]);
        assert_eq!(fits(Some("")), [false; 6]);
    }

    #[test]
    fn a_refusal_ends_the_wait_for_that_name_only() {
        let line = Line {
            name: "a".into(),
            by: "self".into(),
            detail: "no room".into(),
            seq: 7,
            ..status("refused")
        };
        assert!(Wanted::of(Some("a")).is_refused(&line) && !Wanted::of(Some("b")).is_refused(&line));
        assert!(!Wanted::of(None).is_refused(&line) && !Wanted::of(Some("file")).is_refused(&line));
        let told = refusal(&line);
        assert_eq!(told.exit, Exit::Undelivered);
        let said = "`a` was refused by this end: no room; to wait for the next one, give --since 7";
        assert_eq!(told.why.to_string(), said);
    }
}
