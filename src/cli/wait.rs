//! `agent-wormhole wait`: the first event that is wanted.
//!
//! Owns what fits `--for`, and when it cannot come any more. What an event is and where it is read is `follow`'s.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use agent_wormhole_mount::special;

use super::args::WaitArgs;
use super::exit::{Exit, Failure};
use super::{output, watch};
use crate::crypto::pake::Role;
use crate::event::escape::visible;
use crate::event::state::{ChannelState, Phase};
use crate::event::{Event, MAX_BODY, QuestionEvent, Stamp};
use crate::follow::{Line, Next, Tail};
use crate::item::ItemKind;
use crate::rundir::{Channel, RuntimeDir};

/// Longest `status.json` that is read, in bytes.
const MAX_STATE: u64 = 4 * 1024 * 1024;
/// A channel that answers has told by then, after the time was over, that nothing came.
const LATE: Duration = Duration::from_secs(1);

pub(super) fn run(args: &WaitArgs) -> Result<Exit, Failure> {
    output::start_log();
    let wanted = Wanted::of(args.wanted.as_deref()).map_err(|why| Failure::new(Exit::Usage, why))?;
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
        let mut read = (self.since, false);
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
                Next::Missing(numbers) => {
                    watch::missing(&numbers);
                    read = (*numbers.end(), true);
                }
                Next::Gone => return Err(refused.unwrap_or_else(|| watch::gone(channel))),
                Next::Quiet => {
                    if let (seq, true) = read
                        && let Some(line) = wanted.kept(&channel.dir, seq)
                    {
                        output::data(&line).map_err(output::failed)?;
                        return Ok(Exit::Done);
                    }
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
    /// A question of the peer's, of this name where there is one.
    Ask(Option<String>),
    /// The answer to the question of this name.
    Answer(String),
    /// A secret of the peer's, of this name where there is one.
    Secret(Option<String>),
    /// A file or directory of this name.
    Name(String),
}

impl Wanted {
    /// Reads what was typed, or says what is wrong with it.
    fn of(typed: Option<&str>) -> Result<Self, String> {
        let Some(typed) = typed else { return Ok(Self::Anything) };
        let question = |name: &str| {
            let usable = special::is_name(name).then(|| name.to_owned());
            usable.ok_or_else(|| {
                format!("`{}` is no name that one can have: {}", visible(name), special::BAD_NAME)
            })
        };
        match typed.split_once(':') {
            Some(("answer", name)) => return Ok(Self::Answer(question(name)?)),
            Some(("ask", name)) => return Ok(Self::Ask(Some(question(name)?))),
            Some(("secret", name)) => return Ok(Self::Secret(Some(question(name)?))),
            Some((word, _)) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                let (word, typed) = (visible(word), visible(typed));
                return Err(format!(
                    "`{word}:` is nothing that can be waited for, only `answer:`, `ask:` and `secret:` are; the file of this \
                     name is `./{typed}`"
                ));
            }
            _ => {}
        }
        Ok(match typed {
            "text" => Self::Text,
            "file" => Self::File,
            "connected" => Self::Connected,
            "ask" => Self::Ask(None),
            "secret" => Self::Secret(None),
            name => Self::Name(name.strip_prefix("./").unwrap_or(name).trim_end_matches('/').to_owned()),
        })
    }

    fn is(&self, line: &Line) -> bool {
        let is_text = line.kind == "text";
        let is_item = line.kind == "file" || line.kind == "dir";
        match self {
            Self::Anything => line.from == "peer" && line.kind != "status",
            Self::Text => is_text,
            Self::File => is_item,
            Self::Connected => {
                line.kind == "status" && (line.event == "connected" || line.event == "reconnected")
            }
            Self::Ask(name) => line.kind == "ask" && name.as_ref().is_none_or(|name| line.name == *name),
            Self::Answer(name) => line.kind == "answer" && line.name == *name,
            Self::Secret(name) => {
                line.kind == "secret" && name.as_ref().is_none_or(|name| line.name == *name)
            }
            Self::Name(name) => is_item && !name.is_empty() && (line.name == *name || line.sent_as == *name),
        }
    }

    /// Whether it is told that this does not come.
    fn is_refused(&self, line: &Line) -> bool {
        if line.kind != "status" || line.event != "refused" {
            return false;
        }
        let of_the_peer = line.by == "self" && line.id.is_some();
        match self {
            Self::Name(name) => line.name == *name,
            // The question was not taken there, or not sent from here; or its answer was not taken here.
            Self::Answer(name) => match line.name.split_once('/') {
                Some(("ask", refused)) => refused == name && !of_the_peer,
                Some(("answer", refused)) => refused == name && of_the_peer,
                _ => false,
            },
            Self::Ask(Some(name)) => of_the_peer && line.name.strip_prefix("ask/") == Some(name),
            Self::Secret(Some(name)) => of_the_peer && line.name == *name,
            Self::Anything
            | Self::Text
            | Self::File
            | Self::Connected
            | Self::Ask(None)
            | Self::Secret(None) => false,
        }
    }

    /// The event of a question or an answer whose line is in no log and no transcript any more, from what is in the inbox. It
    /// has the number of the last line that is missing; which one it had among what the peer sent nobody knows then, so
    /// there is no `id`.
    fn kept(&self, dir: &Path, seq: u64) -> Option<String> {
        let (kind, name) = match self {
            Self::Ask(Some(name)) => (ItemKind::Ask, name),
            Self::Answer(name) => (ItemKind::Answer, name),
            _ => return None,
        };
        let path = dir.join("inbox").join(&*kind.shown(name));
        let file = File::open(&path).ok()?;
        let about = file.metadata().ok()?;
        let (size, mut body) = (about.len(), String::new());
        if size <= MAX_BODY as u64 {
            file.take(size).read_to_string(&mut body).ok()?;
        }
        let saved_to = path.to_string_lossy().into_owned();
        let body = (size <= MAX_BODY as u64).then_some(body);
        let event = QuestionEvent { id: None, name: name.clone(), size, saved_to, body };
        let event = if kind == ItemKind::Ask { Event::Ask(event) } else { Event::Answer(event) };
        Some(event.to_log_line(Stamp { seq, at: about.modified().ok()? }))
    }

    fn shown(&self) -> String {
        match self {
            Self::Anything => "nothing from the peer".to_owned(),
            Self::Text => "no text".to_owned(),
            Self::File => "no file and no directory".to_owned(),
            Self::Connected => "no peer".to_owned(),
            Self::Ask(None) => "no question".to_owned(),
            Self::Ask(Some(name)) => format!("no question `{name}`"),
            Self::Answer(name) => format!("no answer to `{name}`"),
            Self::Secret(None) => "no secret".to_owned(),
            Self::Secret(Some(name)) => format!("no secret `{name}`"),
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
            let wanted = Wanted::of(typed).unwrap();
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
        let is_refused = |typed| Wanted::of(typed).unwrap().is_refused(&line);
        assert!(is_refused(Some("a")) && !is_refused(Some("b")));
        assert!(!is_refused(None) && !is_refused(Some("file")));
        let told = refusal(&line);
        assert_eq!(told.exit, Exit::Undelivered);
        let said = "`a` was refused by this end: no room; to wait for the next one, give --since 7";
        assert_eq!(told.why.to_string(), said);
    }

    #[test]
    fn what_can_be_said_of_questions() {
        let wanted = |typed| Wanted::of(Some(typed));
        assert_eq!(wanted("ask"), Ok(Wanted::Ask(None)));
        assert_eq!(wanted("ask:x.1"), Ok(Wanted::Ask(Some("x.1".into()))));
        assert_eq!(wanted("answer:x"), Ok(Wanted::Answer("x".into())));
        for name in ["./answer:x", "./ask", "12:30.log", "C:x", ":x", "./a:b"] {
            let plain = name.strip_prefix("./").unwrap_or(name);
            assert_eq!(wanted(name), Ok(Wanted::Name(plain.into())), "{name}");
        }
        for bad in ["answer:", "answer:1", "ask:a/b", "answers:x", "a:b"] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
        assert!(wanted("a:b").unwrap_err().ends_with("is `./a:b`"));
        let fits = |typed, line: &Line| wanted(typed).unwrap().is(line);
        let (ask, answer) = (item("ask", "x", ""), item("answer", "x", ""));
        assert!(fits("ask", &ask) && fits("ask:x", &ask) && !fits("ask:y", &ask) && !fits("answer:x", &ask));
        assert!(fits("answer:x", &answer) && !fits("answer:y", &answer) && !fits("ask", &answer));
        assert!(!fits("x", &answer) && !fits("file", &ask) && !fits("text", &ask));
        assert!(Wanted::Anything.is(&ask) && Wanted::Anything.is(&answer));
    }

    #[test]
    fn a_question_whose_line_is_gone_is_told_without_the_number_that_nobody_knows() {
        let place = tempfile::tempdir().unwrap();
        let inbox = place.path().join("inbox");
        for (zone, name, body) in
            [("ask", "q7", "may I?\n".to_owned()), ("answer", "x", "a".repeat(MAX_BODY + 1))]
        {
            std::fs::create_dir_all(inbox.join(zone)).unwrap();
            std::fs::write(inbox.join(zone).join(name), body).unwrap();
        }
        let kept = |typed| Wanted::of(Some(typed)).unwrap().kept(place.path(), 41);
        let line = kept("ask:q7").unwrap();
        let path = inbox.join("ask/q7");
        let begin = format!(
            r#"{{"type":"ask","from":"peer","name":"q7","size":7,"saved_to":"{}","body":"may I?\n","seq":41,"at":""#,
            path.display()
        );
        assert!(line.starts_with(&begin), "{line}");
        let long = kept("answer:x").unwrap();
        assert!(long.contains(r#""name":"x","size":1025,"#) && !long.contains("body"), "{long}");
        for other in ["ask:x", "answer:q7", "ask", "q7"] {
            assert_eq!(kept(other), None, "{other}");
        }
    }

    #[test]
    fn a_secret_is_waited_for_by_its_name_or_by_none() {
        let secret = item("secret", "API_KEY", "");
        let fits = |typed| Wanted::of(typed).unwrap().is(&secret);
        assert!(fits(None) && fits(Some("secret")) && fits(Some("secret:API_KEY")));
        assert!(
            !fits(Some("secret:OTHER"))
                && !fits(Some("API_KEY"))
                && !fits(Some("./secret"))
                && !fits(Some("file"))
        );
        let refused = Line { name: "API_KEY".into(), by: "self".into(), id: Some(1), ..status("refused") };
        assert!(Wanted::of(Some("secret:API_KEY")).unwrap().is_refused(&refused));
        assert!(!Wanted::of(Some("secret:OTHER")).unwrap().is_refused(&refused));
    }

    #[test]
    fn a_refused_question_ends_the_wait_for_its_answer_and_one_of_the_peers_does_not() {
        let refused = |name: &str, by: &str, id| {
            let (name, by) = (name.to_owned(), by.to_owned());
            Line { name, by, id, ..status("refused") }
        };
        let ends = |line: &Line| {
            ["answer:x", "ask:x", "x", "ask"].map(|typed| Wanted::of(Some(typed)).unwrap().is_refused(line))
        };
        assert_eq!(ends(&refused("ask/x", "peer", Some(1))), [true, false, false, false]);
        assert_eq!(ends(&refused("ask/x", "self", None)), [true, false, false, false]);
        assert_eq!(ends(&refused("answer/x", "self", Some(1))), [true, false, false, false]);
        assert_eq!(ends(&refused("ask/x", "self", Some(1))), [false, true, false, false]);
        assert_eq!(ends(&refused("answer/x", "peer", Some(1))), [false; 4]);
        assert_eq!(ends(&refused("x", "peer", Some(1))), [false, false, true, false]);
    }
}
