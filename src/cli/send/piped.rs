//! `agent-wormhole send --file -`: standard input as one file, handed on as it comes.
//!
//! Owns what interrupts it and what it means for the exit code. The stream itself is the mailbox's client's.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agent_wormhole_mount::client::stream::{Sending, StreamError, post_stream};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::cli::args::RoleArg;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::crypto::pake::Role;
use crate::rundir::RuntimeDir;

/// What was typed.
pub(super) struct Piped {
    pub(super) channel: String,
    /// Whether nothing else is to be sent.
    pub(super) alone: bool,
    pub(super) name: Option<String>,
    pub(super) wait: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) role: Option<RoleArg>,
}

pub(super) fn run(piped: &Piped) -> Result<Exit, Failure> {
    let usage = |why: &str| Failure::new(Exit::Usage, why.to_owned());
    if !piped.alone {
        return Err(usage(
            "standard input (`-`) is sent alone; send the other files with a call of their own, and a file that is \
             called `-` as ./-",
        ));
    }
    let Some(name) = &piped.name else {
        return Err(usage(
            "standard input has no name; give it the one that the other end sees, with --name",
        ));
    };
    // A time that no clock reaches is none.
    let deadline = piped.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let channel = crate::cli::channel(&piped.channel, piped.role.map(Role::from))?;
    let runtime = RuntimeDir::open()?;
    let interrupt = interruption()
        .map_err(|error| Failure::new(Exit::Internal, format!("no signal can be waited for: {error}")))?;
    let stream = post_stream(&channel.dir, runtime.path(), name)?;
    let mut waiting = || {
        if output::person_watches() {
            output::note(
                "waiting until the channel takes it: the peer has not connected, or other things go first; \
                 Ctrl-C takes it back",
            );
        }
    };
    let sending = Sending { interrupt: interrupt.as_fd(), deadline, wait: piped.wait, waiting: &mut waiting };
    stream.send(&mut io::stdin().lock(), sending)?;
    Ok(Exit::Done)
}

/// Readable after SIGINT or SIGTERM. The handler itself makes it so: this process has one thread, and what was sent to it
/// before its input ended is handled before it can read that.
fn interruption() -> io::Result<UnixStream> {
    let (tell, told) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, tell.try_clone()?)?;
    }
    Ok(told)
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        let exit = match error {
            StreamError::Input(_) | StreamError::Io(_) => Exit::Internal,
            StreamError::Interrupted | StreamError::Left => Exit::Interrupted,
            StreamError::Late | StreamError::Unconfirmed => Exit::Timeout,
            StreamError::Cancelled | StreamError::Refused(_) | StreamError::Ended | StreamError::Unknown => {
                Exit::Undelivered
            }
        };
        Self { exit, why: error.into() }
    }
}
