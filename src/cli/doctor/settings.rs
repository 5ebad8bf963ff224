//! Settings: which there are, where they stand, and whether they can be used.
//!
//! Owns the check of all of them at once. Shows where each stands and never what it says: a proxy may have a password.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Parser as _;

use super::finding::Finding;
use crate::channel::options::MountChoice;
use crate::cli::args::{Args, Command, DoctorArgs, MountArg};
use crate::cli::exit::Failure;
use crate::cli::settings;
use crate::config::{Key, Relay, Settings, Typed};
use crate::event::escape::shell_word;

/// Bits of a mode with which others than the owner read a file.
const OTHERS_READ: u32 = 0o044;

/// What the settings come to.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) relay: Relay,
    /// Who set the relay.
    pub(super) from: Option<String>,
    pub(super) mount: MountChoice,
    /// What is to be known of them.
    pub(super) findings: Vec<Finding>,
}

/// Reads them as `host` does.
///
/// # Errors
/// The finding, where `host` would not begin.
pub(super) fn resolve(args: &DoctorArgs) -> Result<Resolved, Finding> {
    let failed = |failure: Failure| Finding::of_error("settings", &failure.why.to_string());
    let typed = Typed::from(args.relay.clone());
    let settings = Settings::of_process().map_err(|error| failed(error.into()))?;
    let relay = settings.relay(&typed).map_err(|error| failed(error.into()))?;
    let mount = mount(args.mount, &settings).map_err(failed)?;
    let mut findings = vec![Finding::ok("settings", described(&settings, exists(settings.path())))];
    if let Some(file) = settings.token_file(&typed) {
        findings.push(private("token", &file, mode(&file)));
    }
    let in_file = |given: &crate::config::Given| {
        given.from.contains("config.toml") && given.text.to_string_lossy().contains('@')
    };
    if settings.given(Key::Proxy).is_some_and(|given| in_file(&given)) {
        findings.push(private("password", settings.path(), mode(settings.path())));
    }
    Ok(Resolved { relay, from: settings.relay_from(&typed), mount, findings })
}

/// The back end that is asked for; every other setting of a channel is read, too.
fn mount(typed: Option<MountArg>, settings: &Settings) -> Result<MountChoice, Failure> {
    let host = Args::try_parse_from(["agent-wormhole", "host"]).map_err(anyhow::Error::from)?;
    let Command::Host(mut host) = host.command else {
        return Err(
            anyhow::Error::msg("`host` is not read as a command; this is a fault of the program").into()
        );
    };
    host.channel.mount = typed;
    settings::fill(&mut host.channel, settings)?;
    Ok(match host.channel.mount.unwrap_or(MountArg::Auto) {
        MountArg::Auto => MountChoice::Auto,
        MountArg::Fuse => MountChoice::Fuse,
        MountArg::Dir => MountChoice::Dir,
    })
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn mode(path: &Path) -> Option<u32> {
    path.metadata().ok().map(|about| about.permissions().mode())
}

fn described(settings: &Settings, exists: bool) -> String {
    let path = settings.path();
    let file = if path.as_os_str().is_empty() {
        "no place for a config file (neither HOME nor XDG_CONFIG_HOME is set)".to_owned()
    } else if exists {
        format!("{} is read", path.display())
    } else {
        format!("no {}", path.display())
    };
    let set = Key::ALL.into_iter().filter_map(|key| {
        let from = settings.given(key)?.from;
        Some(format!("{} from {}", key.name(), if from.starts_with('`') { "there" } else { &from }))
    });
    let set: Vec<String> = set.collect();
    if set.is_empty() { format!("{file}; nothing is set") } else { format!("{file}; {}", set.join(", ")) }
}

/// Whether only its owner reads a file that holds a secret.
fn private(check: &'static str, path: &Path, mode: Option<u32>) -> Finding {
    let what = if check == "token" { "the relay's token" } else { "a proxy's password" };
    let word = shell_word(&path.to_string_lossy());
    let path = path.display();
    match mode {
        Some(mode) if mode & OTHERS_READ != 0 => Finding::warn(
            check,
            format!("{path} holds {what}, and others may read it (mode {:04o})", mode & 0o7777),
            format!("chmod 600 {word}"),
        ),
        Some(mode) => Finding::ok(check, format!("{path} holds {what} (mode {:04o})", mode & 0o7777)),
        None => Finding::warn(check, format!("who may read {path} is not known"), format!("look at {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn where_each_setting_stands_is_told_and_not_what_it_says() {
        let set = |name: &str| match name {
            "AGENT_WORMHOLE_PROXY" => Some("http://u:hunter2@p".into()),
            "AGENT_WORMHOLE_MOUNT" => Some("dir".into()),
            _ => None,
        };
        let settings = Settings::of(set, None).unwrap();
        let described = described(&settings, false);
        assert!(
            described.ends_with("proxy from AGENT_WORMHOLE_PROXY, mount from AGENT_WORMHOLE_MOUNT"),
            "{described}"
        );
        assert!(!described.contains("hunter2"));
        assert_eq!(mount(None, &settings).unwrap(), MountChoice::Dir);
        assert_eq!(mount(Some(MountArg::Fuse), &settings).unwrap(), MountChoice::Fuse);
        let odd =
            Settings::of(|name| (name == "AGENT_WORMHOLE_MEMORY").then(|| "soon".into()), None).unwrap();
        assert!(mount(None, &odd).unwrap_err().why.to_string().contains("AGENT_WORMHOLE_MEMORY"));
    }

    #[test]
    fn a_secret_that_others_may_read_is_told() {
        for (mode, state) in [
            (Some(0o100_600), State::Ok),
            (Some(0o100_400), State::Ok),
            (Some(0o100_644), State::Warn),
            (Some(0o100_640), State::Warn),
            (None, State::Warn),
        ] {
            assert_eq!(private("token", Path::new("/t"), mode).state, state, "{mode:?}");
        }
        let advice = |path| private("token", Path::new(path), Some(0o644)).advice.unwrap();
        assert_eq!(advice("/t"), "chmod 600 /t");
        assert_eq!(advice("/my keys/$(word)"), "chmod 600 '/my keys/$(word)'");
    }
}
