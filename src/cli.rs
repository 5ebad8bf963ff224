//! The command line: arguments in, an exit code out.
//!
//! Owns what a person or an agent types and reads. Decides nothing about a channel: `host` and `connect` hand over to
//! the driver, the other commands write a file into a mailbox or read one.

/// What can be typed.
pub mod args;
/// `agent-wormhole close`.
mod close;
/// `agent-wormhole completions`.
mod completions;
/// `agent-wormhole connect`.
pub mod connect;
/// `--detach`.
mod detach;
/// `agent-wormhole doctor`.
mod doctor;
/// Exit codes.
pub mod exit;
/// `agent-wormhole flush`.
mod flush;
/// `agent-wormhole host`.
pub mod host;
/// `agent-wormhole man`.
mod man;
/// The only file that prints.
pub mod output;
/// Progress in words.
mod progress;
/// Durations and sizes.
mod quantity;
/// `agent-wormhole relay`.
mod relay;
/// `agent-wormhole run`.
mod run;
/// `agent-wormhole send`.
mod send;
/// Settings of a channel that were not typed.
mod settings;
/// `agent-wormhole setup`.
mod setup;
/// `agent-wormhole status`.
mod status;
/// What is called otherwise elsewhere.
mod tips;
/// What other users and crash handlers see of this process.
mod title;
/// `agent-wormhole unlock`.
mod unlock;
/// `agent-wormhole wait`.
mod wait;
/// `agent-wormhole watch`.
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use agent_wormhole_mount::dir::OpenError;
use agent_wormhole_relay::config::{self, Parsed};
use anyhow::Context as _;
use zeroize::Zeroizing;

use self::args::{Args, Command};
use self::detach::{Ground, Typed};
use self::exit::{Exit, Failure};
use self::output::bars::Bars;
use crate::channel::{self, ChannelError};
use crate::crypto::pake::Role;
use crate::rundir::{Channel, RuntimeDir, find};
use crate::skill::{self, Surroundings};

/// Runs the command that was typed. A panic is an internal error, after the destructors have tidied up.
#[must_use]
pub fn run() -> ExitCode {
    if is_bell() {
        title::forbid_dumps();
        return agent_wormhole_mount::bell::run();
    }
    ExitCode::from(std::panic::catch_unwind(begin).unwrap_or(Exit::Internal.code()))
}

/// What was typed, here or by whoever started this in the background.
fn begin() -> u8 {
    if !detach::is_background() {
        let typed: Vec<OsString> = std::env::args_os().collect();
        return command(typed.clone(), Ground::Fore(Typed::new(typed)));
    }
    match detach::begin() {
        Ok((typed, caller)) => command(typed, Ground::Back(caller)),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> u8 {
    output::failure(&failure.why);
    failure.exit.code()
}

/// Whether this is the child of a mounted channel: no command for people, so it is in no help.
fn is_bell() -> bool {
    std::env::args_os().skip(1).eq(["bell"])
}

/// The exit code.
fn command(typed: Vec<OsString>, ground: Ground) -> u8 {
    let Parsed { program: args, settings } = match config::parse::<Args>(typed, Some("relay")) {
        Ok(parsed) => parsed,
        Err(error) => {
            let error = tips::with_tip(error);
            output::usage(&error);
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.code();
        }
    };
    title::hide(&Zeroizing::new(args.command.secrets()));
    title::forbid_dumps();
    refresh_skill();
    let done = match args.command {
        Command::Host(args) => host::run(args, ground),
        Command::Connect(args) => connect::run(args, ground),
        Command::Send(args) => send::run(args),
        Command::Flush(args) => flush::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Wait(args) => wait::run(&args),
        // It ends as its command does.
        Command::Run(args) => return run::run(args).unwrap_or_else(|failure| failed(&failure)),
        Command::Unlock(args) => unlock::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Close(args) => close::run(&args),
        Command::Relay(args) => relay::run(*args, settings),
        Command::Setup(args) => setup::run(&args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    done.map_or_else(|failure| failed(&failure), Exit::code)
}

/// An agent that reads the skill reads that of the program it has.
fn refresh_skill() {
    if let Ok(cwd) = std::env::current_dir() {
        skill::refresh(&Surroundings::from_env(&cwd));
    }
}

/// Hands a channel over to the driver, in the foreground, until it ends. A person at a terminal sees bars of what is on
/// the way, unless told not to.
fn start(mut options: channel::options::Options, quiet: bool) -> Result<Exit, Failure> {
    output::start_log();
    // Without a thread for bars there are none.
    let bars =
        (!quiet && output::person_watches()).then(Bars::on_terminal).and_then(Result::ok).map(Arc::new);
    if let Some(bars) = bars.clone() {
        let (mut lines, apart) = (options.lines, Arc::clone(&bars));
        options.lines = Box::new(move |line| apart.apart(|| lines(line)));
        options.progress = Some(Box::new(move |state| bars.show(state)));
    }
    let ran = channel::run(options);
    if let Some(bars) = bars {
        bars.finish();
    }
    let ending = ran.map_err(|error| match error {
        ChannelError::Place(error) => Failure::from(error),
        ChannelError::Mailbox(
            OpenError::NotEmpty(_) | OpenError::NotADirectory(_) | OpenError::NotOurs(_),
        ) => Failure::usage(error),
        ChannelError::Mailbox(OpenError::Io { .. }) | ChannelError::Mount(_) | ChannelError::Runtime(_) => {
            Failure { exit: Exit::Internal, why: error.into() }
        }
    })?;
    Ok(ending.exit())
}

/// The runtime directory, after what dead channels left has been swept.
fn runtime() -> Result<RuntimeDir, Failure> {
    let runtime = RuntimeDir::open()?;
    runtime.sweep();
    Ok(runtime)
}

/// The one channel that CHANNEL and `--role` mean.
fn channel(wanted: &str, role: Option<Role>) -> Result<Channel, Failure> {
    let runtime = runtime()?;
    let mut channels = runtime.list()?;
    channels.extend(runtime.ended());
    Ok(find::find(&channels, wanted, role, &cwd()?)?)
}

/// Where this was started, without links, as the list of channels has it.
fn cwd() -> Result<PathBuf, Failure> {
    let cwd =
        std::env::current_dir().context("the current directory cannot be read; cd into one that exists")?;
    Ok(cwd)
}
