//! `agent-wormhole doctor`: whether a channel comes about on this machine, and what to do where it does not.
//!
//! Owns which checks there are, their order, and how long each may take. They run side by side: each looks through the code
//! that a channel goes through, and each is judged by a function that does nothing else. `round` sends the canary of
//! `--loop`.

/// Channels that are open, and what dead ones left.
mod channels;
/// What a check found.
mod finding;
/// What this machine gives a channel.
mod machine;
/// Where channels live, and how their directories are made.
mod place;
/// The relay, step by step.
mod relay;
/// A canary, there and back.
mod round;
/// Where settings stand.
mod settings;
/// Whether agents have the skill.
mod skill;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use self::finding::{Finding, Summary};
use self::machine::{Clock, Disk, Memory, Notices};
use self::place::{Directory, Mounts};
use self::settings::Resolved;
use super::args::DoctorArgs;
use super::exit::{Exit, Failure};
use super::output::{self, Look};
use crate::channel::options::MountChoice;
use crate::config::Relay;
use crate::rundir::{RundirError, RuntimeDir};

/// How long a check may take.
const CHECK: Duration = Duration::from_secs(10);
/// How long the canary may take.
const ROUND: Duration = Duration::from_secs(60);
/// What a check may take beyond its limit: a goodbye to the relay, and handing the machine's own relay over.
const GRACE: Duration = Duration::from_secs(7);
/// How long a mount that is tried may take to go where somebody interrupts.
const PARTING: Duration = Duration::from_secs(2);
/// Why a check that needs the runtime directory was not made.
const NO_DIRECTORY: &str = "it needs the directory above";
/// Why a check that needs the settings was not made.
const NO_SETTINGS: &str = "it needs the settings above";

/// What the threads of this command tell.
enum News {
    /// A check has looked.
    Looked(Looked),
    /// The canary.
    Round(round::Told),
    /// Somebody wants this to end.
    Interrupted,
}

/// What a check saw that may take its time.
enum Looked {
    Disk(Disk),
    Mounts(Mounts),
    Relay(Result<relay::Looked, String>),
    Channels(Result<channels::Found, RundirError>),
}

/// Everything that was seen; what is missing did not answer in time.
#[derive(Default)]
struct Seen {
    disk: Option<Disk>,
    mounts: Option<Mounts>,
    relay: Option<Result<relay::Looked, String>>,
    channels: Option<Result<channels::Found, RundirError>>,
}

impl Seen {
    fn note(&mut self, looked: Looked) {
        match looked {
            Looked::Disk(disk) => self.disk = Some(disk),
            Looked::Mounts(mounts) => self.mounts = Some(mounts),
            Looked::Relay(relay) => self.relay = Some(relay),
            Looked::Channels(channels) => self.channels = Some(channels),
        }
    }
}

pub(super) fn run(args: DoctorArgs) -> Result<Exit, Failure> {
    output::start_log();
    let (tell, news) = channel();
    interruptions(tell.clone()).map_err(anyhow::Error::from)?;
    let limit = args.timeout.unwrap_or(CHECK);
    let paper = Paper { json: args.json, look: output::look() };
    let resolved = settings::resolve(&args);
    let runtime = RuntimeDir::open();
    let asked = ask(&resolved, runtime.as_ref().ok(), args.direct, (limit, &tell));
    let Some(seen) = collect(&news, asked, limit) else { return Ok(Exit::Interrupted) };
    let mut findings = findings(resolved, &runtime, &seen, args.direct);
    for finding in &findings {
        paper.put(finding.line(), || finding.row(paper.look)).map_err(output::failed)?;
    }
    let mut exit = finding::exit(&findings);
    if args.round {
        let (finding, ended) = match &runtime {
            Ok(runtime) if exit == Exit::Done => {
                let plan = round::Plan::new(&args, runtime, args.timeout.unwrap_or(ROUND));
                let mut told = |hop: &round::Hop| paper.put(hop.line(), || hop.row());
                round::run(&plan, (&news, tell), &mut told).map_err(output::failed)?
            }
            _ => (Finding::skip("loop", "no canary is sent where a check has failed"), exit),
        };
        paper.put(finding.line(), || finding.row(paper.look)).map_err(output::failed)?;
        findings.push(finding);
        exit = ended;
    }
    let summary = Summary::of(&findings, exit);
    paper.put(summary.line(), || summary.row(paper.look)).map_err(output::failed)?;
    Ok(exit)
}

/// Where findings are written, and in which form.
struct Paper {
    json: bool,
    look: Look,
}

impl Paper {
    fn put(&self, line: io::Result<String>, row: impl FnOnce() -> String) -> io::Result<()> {
        output::data(&if self.json { line? } else { row() })
    }
}

/// Tells of each signal that ends a program.
fn interruptions(tell: Sender<News>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let _inside = runtime.enter();
        signals.push(signal(kind)?);
    }
    let listening = move || {
        runtime.block_on(async {
            let [Some(a), Some(b), Some(c)] = [signals.pop(), signals.pop(), signals.pop()] else { return };
            let (mut a, mut b, mut c) = (a, b, c);
            loop {
                tokio::select! {
                    _ = a.recv() => {}
                    _ = b.recv() => {}
                    _ = c.recv() => {}
                }
                if tell.send(News::Interrupted).is_err() {
                    return;
                }
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(listening).map(drop)
}

/// Starts what may take its time, each on a thread of its own; how many.
fn ask(
    resolved: &Result<Resolved, Finding>,
    runtime: Option<&RuntimeDir>,
    direct: bool,
    (limit, tell): (Duration, &Sender<News>),
) -> usize {
    let mut asked = 0;
    let mut start = |look: Box<dyn FnOnce() -> Looked + Send>| {
        let tell = tell.clone();
        let looking = move || {
            // Who asked may not wait any more.
            let _ = tell.send(News::Looked(look()));
        };
        asked += usize::from(thread::Builder::new().name("check".into()).spawn(looking).is_ok());
    };
    start(Box::new(|| Looked::Disk(Disk::look())));
    // A directory that was removed is no reason not to try a mount.
    let cwd = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let wanted =
        runtime.filter(|_| !matches!(resolved, Ok(Resolved { mount: MountChoice::Dir, .. }))).cloned();
    start(Box::new(move || Looked::Mounts(Mounts::look(wanted.as_ref(), &cwd))));
    if let Some(runtime) = runtime.cloned() {
        start(Box::new(move || Looked::Channels(channels::look(&runtime))));
    }
    if let (Some(runtime), Ok(Resolved { relay, .. }), false) = (runtime.cloned(), resolved, direct) {
        let relay = relay.clone();
        start(Box::new(move || Looked::Relay(relay::look(&relay, &runtime, limit))));
    }
    asked
}

/// What came in time; `None` where somebody interrupted. The mount that is tried is taken away before.
fn collect(news: &Receiver<News>, asked: usize, limit: Duration) -> Option<Seen> {
    let mut deadline = Instant::now() + limit + GRACE;
    let (mut seen, mut came, mut interrupted) = (Seen::default(), 0, false);
    while came < asked && !(interrupted && seen.mounts.is_some()) {
        match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(News::Looked(looked)) => {
                came += 1;
                seen.note(looked);
            }
            // Who interrupts twice does not want to wait.
            Ok(News::Interrupted) if interrupted => break,
            Ok(News::Interrupted) => {
                interrupted = true;
                deadline = deadline.min(Instant::now() + PARTING);
            }
            Ok(News::Round(_)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    (!interrupted).then_some(seen)
}

/// All findings, in their order.
fn findings(
    resolved: Result<Resolved, Finding>,
    runtime: &Result<RuntimeDir, RundirError>,
    seen: &Seen,
    direct: bool,
) -> Vec<Finding> {
    let late = |check| {
        Finding::fail(
            check,
            "no answer in time",
            "give a longer --timeout, or look what hangs on this machine",
        )
    };
    let mut findings = vec![machine::program()];
    let local = matches!(&resolved, Ok(Resolved { relay: Relay::Local, .. })) && !direct;
    let directory = runtime.as_ref().map(|runtime| Directory::look(runtime, local));
    let at_rest = directory.as_ref().map_or("plaintext on disk", |directory| {
        directory.as_ref().map_or("plaintext on disk", Directory::at_rest)
    });
    let choice = resolved.as_ref().map_or(MountChoice::Auto, |resolved| resolved.mount);
    let (of_settings, wanted) = match resolved {
        Ok(Resolved { relay, from, findings, .. }) => (findings, Some((relay, from))),
        Err(finding) => (vec![finding], None),
    };
    findings.extend(of_settings);
    findings.push(match &directory {
        Ok(Ok(directory)) => directory.verdict(),
        Ok(Err(error)) => {
            Finding::fail("directory", error.to_string(), "set XDG_RUNTIME_DIR to a directory of your own")
        }
        Err(error) => Finding::of_error("directory", &error.to_string()),
    });
    let fuse = seen.mounts.as_ref().map_or_else(|| late("fuse"), |mounts| mounts.verdict(choice, at_rest));
    let real = !seen.mounts.as_ref().is_some_and(Mounts::has);
    findings.extend([fuse, Memory::look().verdict(), machine::open_files_verdict(machine::open_files())]);
    findings.push(match runtime {
        Ok(runtime) => Notices::look(runtime.path()).verdict(real),
        Err(_) => Finding::skip("inotify", NO_DIRECTORY),
    });
    findings.push(seen.disk.as_ref().map_or_else(|| late("disk"), Disk::verdict));
    // The machine's own relay has no other clock.
    let elsewhere = seen.relay.as_ref().filter(|_| !local).and_then(|looked| looked.as_ref().ok());
    findings.push(Clock::look(elsewhere.and_then(|looked| looked.probe.clocks)).verdict());
    findings.extend(match (&wanted, &seen.relay, runtime) {
        _ if direct => relay::unknown("--direct needs none"),
        (None, ..) => relay::unknown(NO_SETTINGS),
        (_, None, Err(_)) => relay::unknown(NO_DIRECTORY),
        (_, None, Ok(_)) => vec![late("relay")],
        (Some((relay, from)), Some(Ok(looked)), _) => relay::verdict(relay, from.as_deref(), looked),
        (Some(_), Some(Err(error)), _) => vec![Finding::of_error("relay", error)],
    });
    match (&seen.channels, runtime) {
        (Some(Ok(found)), _) => findings.extend(found.verdict()),
        (Some(Err(error)), _) => findings.push(Finding::of_error("channels", &error.to_string())),
        (None, Ok(_)) => findings.push(late("channels")),
        (None, Err(_)) => {
            findings.extend(["stale", "channels"].map(|check| Finding::skip(check, NO_DIRECTORY)))
        }
    }
    let cwd = std::env::current_dir().unwrap_or_default();
    findings.push(skill::verdict(&skill::look(&cwd)));
    findings
}
