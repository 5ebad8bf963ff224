//! Settings of a channel that were not typed: from the environment, or from the config file.
//!
//! Owns how each is read. Which place wins is `config`'s; what a relay needs is read there, too.

use clap::ValueEnum as _;

use super::args::{ChannelArgs, MountArg};
use super::exit::{Exit, Failure};
use super::quantity;
use crate::config::{Key, Settings};

/// Fills in what was not typed.
///
/// # Errors
/// A usage error, which names the place of a setting that cannot be.
pub(super) fn fill(args: &mut ChannelArgs, settings: &Settings) -> Result<(), Failure> {
    let mount =
        |text: &str| MountArg::from_str(text.trim(), false).map_err(|_| "write auto, fuse or dir".into());
    fill_one(&mut args.mount, settings, Key::Mount, mount)?;
    fill_one(&mut args.timeout, settings, Key::Timeout, quantity::duration)?;
    fill_one(&mut args.inbox_limit, settings, Key::InboxLimit, quantity::size)?;
    fill_one(&mut args.outbox_limit, settings, Key::OutboxLimit, quantity::size)?;
    fill_one(&mut args.memory, settings, Key::Memory, quantity::size)
}

fn fill_one<T>(
    typed: &mut Option<T>,
    settings: &Settings,
    key: Key,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<(), Failure> {
    if typed.is_none()
        && let Some(given) = settings.given(key)
    {
        let unusable = |why| Failure::new(Exit::Usage, format!("{} cannot be used: {why}", given.from));
        *typed = Some(read(&given.text.to_string_lossy()).map_err(unusable)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Args, Command};

    fn filled(line: &str, environment: &[(&str, &str)]) -> Result<ChannelArgs, Failure> {
        let Command::Host(mut host) = Args::try_parse_from(line.split(' ')).unwrap().command else {
            panic!()
        };
        let variable =
            |name| environment.iter().find(|(known, _)| *known == name).map(|(_, text)| text.into());
        fill(&mut host.channel, &Settings::of(variable, None).unwrap())?;
        Ok(host.channel)
    }

    const ALL: [(&str, &str); 5] = [
        ("AGENT_WORMHOLE_MOUNT", "dir"),
        ("AGENT_WORMHOLE_TIMEOUT", "90s"),
        ("AGENT_WORMHOLE_INBOX_LIMIT", "1k"),
        ("AGENT_WORMHOLE_OUTBOX_LIMIT", "2k"),
        ("AGENT_WORMHOLE_MEMORY", "3k"),
    ];

    #[test]
    fn what_was_not_typed_comes_from_the_environment() {
        let args = filled("agent-wormhole host", &ALL).unwrap();
        assert_eq!((args.mount, args.timeout), (Some(MountArg::Dir), Some(Duration::from_secs(90))));
        assert_eq!((args.inbox_limit, args.outbox_limit, args.memory), (Some(1024), Some(2048), Some(3072)));
    }

    #[test]
    fn what_was_typed_wins() {
        let line =
            "agent-wormhole host --mount auto --timeout 1s --inbox-limit 1 --outbox-limit 2 --memory 3";
        let args = filled(line, &ALL).unwrap();
        assert_eq!((args.mount, args.timeout), (Some(MountArg::Auto), Some(Duration::from_secs(1))));
        assert_eq!((args.inbox_limit, args.outbox_limit, args.memory), (Some(1), Some(2), Some(3)));
    }

    #[test]
    fn a_setting_that_cannot_be_is_a_usage_error_that_names_its_place() {
        for (name, _) in ALL {
            let failure = filled("agent-wormhole host", &[(name, "soon")]).unwrap_err();
            let why = failure.why.to_string();
            assert!(failure.exit == Exit::Usage && why.starts_with(name) && why.contains("write"), "{why}");
        }
    }
}
