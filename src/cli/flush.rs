//! `agent-wormhole flush`: returns when the peer has stored everything.
//!
//! Owns how long is waited, what a person at a terminal sees meanwhile, and which exit code the answer gets. The mailbox
//! knows the answer.

use std::time::{Duration, Instant};

use agent_wormhole_mount::client::{self, FlushError, PostError};

use super::args::FlushArgs;
use super::exit::{Exit, Failure};
use super::output::{self, bars::Bars};
use super::status;
use crate::crypto::pake::Role;
use crate::rundir::{Channel, RuntimeDir};

/// Without `--timeout` the end of the channel ends the waiting: this is longer than one lives.
const UNTIL_IT_ENDS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(super) fn run(args: &FlushArgs) -> Result<Exit, Failure> {
    wait(&super::channel(&args.channel, args.role.map(Role::from))?, args.timeout)
}

/// Waits for the receipt of all that is in the outbox.
pub(super) fn wait(channel: &Channel, timeout: Option<Duration>) -> Result<Exit, Failure> {
    let now = Instant::now();
    let patience = timeout.unwrap_or(UNTIL_IT_ENDS);
    let deadline = now.checked_add(patience).unwrap_or(now + UNTIL_IT_ENDS);
    let runtime = RuntimeDir::open()?;
    // Without a thread for bars there are none.
    let bars = output::person_watches().then(Bars::on_terminal).and_then(Result::ok);
    let alive = || {
        if let Some((bars, state)) = bars.as_ref().zip(status::state_of(channel)) {
            bars.show(&state);
        }
        // A list that cannot be read is no sign of death: the answer, or its time, ends the waiting then.
        runtime.list().map_or(true, |channels| channels.contains(channel))
    };
    let flushed = client::flush(&channel.dir, deadline, &alive);
    if let Some(bars) = bars {
        bars.finish();
    }
    flushed?;
    Ok(Exit::Done)
}

impl From<PostError> for Failure {
    fn from(error: PostError) -> Self {
        let exit = match &error {
            PostError::NoChannel(_)
            | PostError::TooLong(_)
            | PostError::BadName { .. }
            | PostError::Taken(_)
            | PostError::Target { .. } => Exit::Usage,
            PostError::Io { .. } | PostError::Socket { .. } => Exit::Internal,
        };
        Self { exit, why: error.into() }
    }
}

impl From<FlushError> for Failure {
    fn from(error: FlushError) -> Self {
        let exit = match error {
            FlushError::Post(error) => return error.into(),
            FlushError::NotStored { .. } | FlushError::Ended => Exit::Undelivered,
            FlushError::Late(_) => Exit::Timeout,
        };
        Self { exit, why: error.into() }
    }
}
