//! `agent-wormhole connect`: enters a channel and keeps it open.
//!
//! Owns the check of what was typed. The channel itself is the driver's.

use std::io::{self, BufRead as _, Read as _};

use rand_core::OsRng;
use zeroize::Zeroizing;

use super::args::ConnectArgs;
use super::detach::{self, Ground};
use super::exit::{Exit, Failure};
use super::{host, settings};
use crate::channel::options::{End, PeerLink};
use crate::code::Code;
use crate::config::Settings;

/// Longest line that is read as a code from standard input, in bytes.
const MAX_LINE: u64 = 1024;

pub(super) fn run(mut args: ConnectArgs, ground: Ground) -> Result<Exit, Failure> {
    // A channel lives for hours: what was typed does not.
    let given = Zeroizing::new(args.code);
    let typed = match &ground {
        Ground::Back(caller) if is_input(&given) => caller.input.clone(),
        _ => typed_code(&given)?,
    };
    if let (true, Ground::Fore(all)) = (args.channel.background.detach, &ground) {
        let input = is_input(&given).then(|| typed.as_str());
        return detach::start("connect", all, input);
    }
    let settings = Settings::of_process()?;
    settings::fill(&mut args.channel, &settings)?;
    let (code, host) = split(&typed)?;
    let parsed =
        if args.legacy { Code::parse_legacy(code, &mut OsRng) } else { Code::parse(code, args.any_words) };
    let code = parsed.map_err(Failure::usage)?;
    let link = match host {
        Some(_) if args.legacy => {
            return Err(usage("a code for --legacy goes through a relay; leave out @HOST"));
        }
        Some(_) if args.relay.is_typed() => {
            return Err(usage(
                "a code with @HOST connects directly; leave out --relay, --relay-token-file, --ca and --proxy, or leave out @HOST",
            ));
        }
        Some(_) if code.nameplate.port().is_none() => {
            return Err(usage(
                "the number of a direct code is a port, at most 65535; ask for the code again",
            ));
        }
        Some(host) => PeerLink::Direct { host: host.to_owned() },
        None => {
            let relay = settings.relay(&args.relay.into())?;
            if args.legacy { PeerLink::Legacy(relay) } else { PeerLink::Relay(relay) }
        }
    };
    let quiet = args.channel.json;
    let streams = host::streams(ground, "connected")?;
    let options = host::options(End::Connect { code, link }, args.channel, streams)?;
    drop((typed, given));
    super::start(options, quiet)
}

/// The code as it was typed, in one argument or in several, or the first line of standard input.
fn typed_code(given: &[String]) -> Result<Zeroizing<String>, Failure> {
    if !is_input(given) {
        return Ok(Zeroizing::new(given.join(" ")));
    }
    let mut line = Zeroizing::new(String::with_capacity(MAX_LINE as usize));
    match io::stdin().lock().take(MAX_LINE).read_line(&mut line) {
        Ok(_) if line.trim().is_empty() => Err(usage(
            "no code on standard input; write it there, as in: agent-wormhole connect - < code.txt",
        )),
        Ok(_) => Ok(line),
        Err(error) => Err(Failure::new(
            Exit::Usage,
            format!(
                "the code cannot be read from standard input: {error}; write it there, as in: agent-wormhole connect - < code.txt"
            ),
        )),
    }
}

/// Whether the code is to be read from standard input.
fn is_input(given: &[String]) -> bool {
    given == ["-"]
}

/// The code, and the host of a direct connection: `CODE@HOST`, an IPv6 address with or without brackets.
fn split(typed: &str) -> Result<(&str, Option<&str>), Failure> {
    let typed = typed.trim();
    let Some((code, host)) = typed.rsplit_once('@') else { return Ok((typed, None)) };
    let host = host.trim();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let plain = |c: char| c.is_alphanumeric() || "-_.:%".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(usage(
            "after @ stands the host's name or address, as in 40123-cross-clock-marble@laptop.local",
        ));
    }
    Ok((code.trim(), Some(host)))
}

fn usage(why: &str) -> Failure {
    Failure::new(Exit::Usage, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_its_host() {
        for (typed, expected) in [
            ("1-a-b-c", ("1-a-b-c", None)),
            (" 1 a b c\n", ("1 a b c", None)),
            ("1-a-b-c@laptop.local", ("1-a-b-c", Some("laptop.local"))),
            ("1-a-b-c@10.0.0.1", ("1-a-b-c", Some("10.0.0.1"))),
            ("1-a-b-c @ [fe80::1%eth0]", ("1-a-b-c", Some("fe80::1%eth0"))),
            ("1-a-b-c@::1", ("1-a-b-c", Some("::1"))),
        ] {
            assert_eq!(split(typed).unwrap(), expected, "{typed}");
        }
        for typed in ["1-a-b-c@", "1-a-b-c@a b", "1-a-b-c@\u{1b}[2J", "1-a-b-c@x/y"] {
            assert_eq!(split(typed).unwrap_err().exit, Exit::Usage, "{typed:?}");
        }
    }

    #[test]
    fn a_code_in_several_arguments_is_one() {
        let given = ["9471", "cross", "clock", "marble"].map(str::to_owned);
        assert_eq!(*typed_code(&given).unwrap(), "9471 cross clock marble");
    }
}
