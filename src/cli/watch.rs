//! `agent-wormhole watch`: the events of a channel as they come.
//!
//! Owns how it ends. What an event is and where it is read is `follow`'s.

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::args::WatchArgs;
use super::exit::{Exit, Failure};
use super::output;
use crate::crypto::pake::Role;
use crate::follow::{Line, Next, Tail};
use crate::rundir::{Channel, RuntimeDir};

pub(super) fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    output::start_log();
    let channel = super::channel(&args.channel, args.role.map(Role::from))?;
    let runtime = RuntimeDir::open()?;
    let alive = || is_alive(&runtime, &channel);
    let mut tail = Tail::open(&channel.dir, args.since, &alive);
    let unread = Arc::new(AtomicBool::new(false));
    let (told, nudge) = (Arc::clone(&unread), tail.nudge());
    let reader = thread::Builder::new().name("stdout".into()).spawn(move || {
        output::until_unread();
        told.store(true, Ordering::Relaxed);
        // One that waits to be looked at is as good.
        let _ = nudge.try_send(());
    });
    if let Err(error) = reader {
        tracing::warn!(%error, "the end of standard output will be noticed late");
    }
    while !unread.load(Ordering::Relaxed) {
        match tail.next(None).map_err(|error| unreadable(&channel, &error))? {
            Next::Event(line) => {
                match output::data(&line.text) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                    printed => printed.map_err(output::failed)?,
                }
                if line.is_last() {
                    return Ok(ended(&line));
                }
            }
            Next::Foreign => foreign(),
            Next::Missing(numbers) => missing(&numbers),
            Next::Quiet => {}
            Next::Gone => return Err(gone(&channel)),
        }
    }
    // Whoever read it has enough.
    Ok(Exit::Done)
}

/// The exit code of the channel whose last line this is.
fn ended(last: &Line) -> Exit {
    match last.exit {
        Some(code) => Exit::of_code(code).unwrap_or(Exit::Internal),
        None => Exit::Done,
    }
}

/// Whether the owner of a channel lives. A list that cannot be read is no sign of death.
pub(super) fn is_alive(runtime: &RuntimeDir, channel: &Channel) -> bool {
    runtime.list().map_or(true, |channels| channels.contains(channel))
}

pub(super) fn gone(channel: &Channel) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!(
            "channel {} has ended and its last event cannot be read: its process ({}) was killed, or this one came too \
             late; host or connect again",
            channel.nameplate, channel.pid
        ),
    )
}

pub(super) fn unreadable(channel: &Channel, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Internal,
        format!("the events of the channel at {} cannot be read: {error}", channel.dir.display()),
    )
}

pub(super) fn foreign() {
    output::note(
        "agent-wormhole: somebody wrote a line into inbox/log.jsonl that is no event; it is left out",
    );
}

pub(super) fn missing(numbers: &RangeInclusive<u64>) {
    let (first, last) = (numbers.start(), numbers.end());
    output::note(&format!(
        "agent-wormhole: events with numbers from {first} to {last} are in no file any more, if there were any; what \
         arrived is in inbox/"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_as_its_channel_does() {
        for (exit, ends) in [
            (None, Exit::Done),
            (Some(0), Exit::Done),
            (Some(6), Exit::Undelivered),
            (Some(130), Exit::Interrupted),
            (Some(99), Exit::Internal),
        ] {
            assert_eq!(ended(&Line { exit, ..Line::default() }), ends, "{exit:?}");
        }
    }
}
