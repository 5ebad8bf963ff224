//! The only file that prints: standard output is data, standard error is for people.
//!
//! Owns both streams, the bars and the log of the program itself. Decides nothing about what is said.
#![allow(clippy::print_stderr)]

/// Progress, for a person at a terminal.
pub(super) mod bars;

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;

use agent_wormhole_relay::cli::RelayArgs;
use agent_wormhole_relay::log;
use console::{Style, Term};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use super::exit::{Exit, Failure};
use crate::event::escape::visible;

/// The environment variable that asks for more of the program's own log, for example `debug`.
pub(super) const LOG_VARIABLE: &str = "AGENT_WORMHOLE_LOG";

/// Writes lines of data to standard output and hands them on at once. May block where the reader does not read.
///
/// # Errors
/// [`io::ErrorKind::BrokenPipe`] where nobody reads any more; never a panic.
pub fn data(lines: &str) -> io::Result<()> {
    // One buffer, one write: a line is never seen in halves.
    // It may hold the code.
    let mut whole = Zeroizing::new(String::with_capacity(lines.len() + 1));
    whole.push_str(lines);
    if !lines.ends_with('\n') {
        whole.push('\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(whole.as_bytes())?;
    out.flush()
}

/// A stream of another command's output that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Passes on what another command printed, at once.
///
/// # Errors
/// [`io::ErrorKind::BrokenPipe`] where nobody reads any more.
pub(super) fn pass(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Stream::Err => io::stderr().lock().write_all(bytes),
    }
}

/// Standard output takes no data.
pub(super) fn failed(error: io::Error) -> Failure {
    Failure::new(
        Exit::Internal,
        format!("the output cannot be written: {error}; make room for it, or send it elsewhere"),
    )
}

/// Blocks until nobody reads standard output any more: the reader of a pipe has gone, or a terminal was closed. Never
/// returns for a file.
pub fn until_unread() {
    until_hung_up(&io::stdout());
}

/// Blocks until nobody is at the other end of this.
pub(super) fn until_hung_up(stream: &impl AsFd) {
    loop {
        let mut watched = [rustix::event::PollFd::new(stream, rustix::event::PollFlags::empty())];
        match rustix::event::poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Tells a person something.
pub fn note(text: &str) {
    // Nobody reads it: there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a person watches standard error.
#[must_use]
pub fn person_watches() -> bool {
    io::stderr().is_terminal()
}

/// Whether a person reads standard output.
#[must_use]
pub(super) fn person_reads() -> bool {
    io::stdout().is_terminal()
}

/// How standard output is to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Columns of the terminal; `None` where it is none, and nothing is shortened.
    pub(super) width: Option<usize>,
    /// Whether there may be colours.
    pub(super) colour: bool,
}

/// What a text says by its colour, besides its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    Plain,
    /// It is as it should be.
    Good,
    /// It may need a look.
    Wary,
    /// It needs one.
    Bad,
    /// It matters less.
    Faint,
}

impl Look {
    /// The text in its tone.
    pub(super) fn paint(self, text: &str, tone: Tone) -> String {
        let style = Style::new().force_styling(self.colour);
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => style.green(),
            Tone::Wary => style.yellow(),
            Tone::Bad => style.red(),
            Tone::Faint => style.dim(),
        };
        style.apply_to(text).to_string()
    }
}

/// How standard output looks best: as wide as its terminal, and in colours where that takes them (`NO_COLOR`,
/// `TERM=dumb` and `CLICOLOR=0` say no). Elsewhere it is plain and whole.
#[must_use]
pub(super) fn look() -> Look {
    let term = Term::stdout();
    let width =
        term.is_term().then(|| term.size_checked()).flatten().map(|(_, columns)| usize::from(columns));
    Look { width: width.filter(|width| *width > 0), colour: term.is_term() && console::colors_enabled() }
}

/// Tells why a command failed, causes included. What it quotes may come from anywhere: no control reaches the terminal.
pub(super) fn failure(why: &anyhow::Error) {
    let mut text = why.to_string();
    for cause in why.chain().skip(1).map(ToString::to_string) {
        // Many a message has its cause inside, before it says what to do.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    let text: Vec<String> = text.lines().map(visible).collect();
    note(&format!("agent-wormhole: {}", text.join("\n")));
}

/// Shows a usage error on standard error, or the help that was asked for on standard output.
pub(super) fn usage(error: &clap::Error) {
    // As above.
    let _ = error.print();
}

/// Starts the program's own log on standard error: warnings, or what `AGENT_WORMHOLE_LOG` asks for.
pub fn start_log() {
    let filter =
        EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("agent_wormhole=warn"));
    // Words of a relay's operator are for a person at a terminal. What is captured may be read by a model.
    let notices = if person_watches() { "relay_notice=info" } else { "relay_notice=off" };
    let filter = match notices.parse() {
        Ok(notices) => filter.add_directive(notices),
        Err(_) => filter,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(person_watches())
        .with_target(false);
    // A second start in one process (tests) changes nothing.
    let _ = log.try_init();
}

/// Starts the log of a relay in the foreground: as its flags say, or what `AGENT_WORMHOLE_LOG` or `RUST_LOG` ask for.
pub fn start_relay_log(args: &RelayArgs) {
    let asked = [LOG_VARIABLE, "RUST_LOG"].into_iter().find_map(|variable| std::env::var(variable).ok());
    log::start(args.log_format, args.log_level, asked.as_deref(), person_watches(), io::stderr);
}
