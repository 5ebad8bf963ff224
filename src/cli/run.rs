//! `agent-wormhole run`: gives secrets that arrived to one command, and hides them in what it prints.
//!
//! Owns which channel is meant, how the command gets them and how it ends. The channel's process wipes its own as soon as
//! the command has started.

mod child;
mod mask;

use agent_wormhole_mount::secret::{Secret, SecretName};

use self::child::Given;
use super::args::RunArgs;
use super::exit::{Exit, Failure};
use crate::channel::handover::{self, HandoverError, MAX_NAMES};
use crate::crypto::pake::Role;
use crate::rundir::Channel;

/// A secret that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    name: SecretName,
    /// The variable that the command finds it in.
    variable: String,
}

/// The code that the command ended with.
pub(super) fn run(args: RunArgs) -> Result<u8, Failure> {
    let wanted = args.secrets.iter().map(|text| wanted(text)).collect::<Result<Vec<_>, _>>()?;
    for (n, one) in wanted.iter().enumerate() {
        if wanted.iter().take(n).any(|other| other.name == one.name || other.variable == one.variable) {
            return Err(usage(format!("{} is asked for twice; leave one out", one.name)));
        }
    }
    if wanted.len() > MAX_NAMES {
        return Err(usage(format!("{MAX_NAMES} secrets can be taken at once")));
    }
    let names: Vec<SecretName> = wanted.iter().map(|one| one.name.clone()).collect();
    let channel = match &args.channel {
        Some(channel) => super::channel(channel, args.role.map(Role::from))?,
        None => only(&names, args.role.map(Role::from))?,
    };
    let mut taken = handover::take(&channel.socket, &names)?;
    let given = wanted.into_iter().zip(std::mem::take(&mut taken.secrets));
    let given = given.map(|(one, secret)| Given { name: one.name, variable: one.variable, secret });
    let started = child::start(&args.command, given.collect(), args.fd);
    match started {
        Ok(child) => {
            taken.used();
            drop(taken);
            child.finish()
        }
        Err(failure) => {
            taken.back();
            match failure {
                child::NotStarted::Command { code, why } => {
                    super::output::failure(&why);
                    Ok(code)
                }
                child::NotStarted::Value(why) => Err(usage(why)),
            }
        }
    }
}

/// The name of a secret that was typed.
pub(super) fn name(text: &str) -> Result<SecretName, Failure> {
    SecretName::parse(text).map_err(Failure::usage)
}

fn usage(why: String) -> Failure {
    Failure::new(Exit::Usage, why)
}

/// `NAME`, or `NAME=ENV`.
fn wanted(text: &str) -> Result<Wanted, Failure> {
    let (of, variable) = text.split_once('=').unwrap_or((text, text));
    let name = name(of)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = variable.bytes().next().is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic());
    if !begins || !variable.bytes().all(plain) {
        return Err(usage(format!(
            "{} is no name for a variable; give one after an equals sign: --secret {name}=VARIABLE",
            variable.escape_debug()
        )));
    }
    Ok(Wanted { name, variable: variable.to_owned() })
}

/// The one channel of this machine that holds all of these.
fn only(names: &[SecretName], role: Option<Role>) -> Result<Channel, Failure> {
    let channels = super::runtime()?.list()?;
    let mut living: Vec<Channel> = channels.into_iter().filter(|channel| channel.alive).collect();
    living.retain(|channel| role.is_none_or(|role| role == channel.role));
    if let [one] = &living[..] {
        // What is wrong with it is said when they are taken.
        return Ok(one.clone());
    }
    let holding: Vec<&Channel> =
        living.iter().filter(|channel| handover::has(&channel.socket, names).is_ok()).collect();
    let named = |channels: &mut dyn Iterator<Item = &Channel>| -> String {
        channels
            .map(|one| format!("\n  {} {} {}", one.nameplate, one.role.as_str(), one.dir.display()))
            .collect()
    };
    match &holding[..] {
        [one] => Ok((*one).clone()),
        [] if living.is_empty() => {
            Err(usage("no channel is running here; start one with `agent-wormhole host`".to_owned()))
        }
        [] => Err(usage(format!(
            "none of the channels here holds all of these secrets; `agent-wormhole status CHANNEL` lists what waits:{}",
            named(&mut living.iter())
        ))),
        several => Err(usage(format!(
            "several channels hold these secrets; name one of them:{}",
            named(&mut several.iter().copied())
        ))),
    }
}

impl From<HandoverError> for Failure {
    fn from(error: HandoverError) -> Self {
        Self { exit: Exit::Unreachable, why: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_names_a_secret_and_a_variable() {
        let of = |text: &str| wanted(text).map(|one| (one.name.to_string(), one.variable));
        assert_eq!(of("API_KEY").unwrap(), ("API_KEY".into(), "API_KEY".into()));
        assert_eq!(of("id.pem=KEY_2").unwrap(), ("id.pem".into(), "KEY_2".into()));
        for wrong in ["", "=X", "A=", "A=1", "A=B C", "id.pem", "a-b", "A=B=C", "A/B=C"] {
            assert_eq!(of(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
        let why = of("id.pem").unwrap_err().why.to_string();
        assert!(why.contains("--secret id.pem=VARIABLE"), "{why}");
    }
}
