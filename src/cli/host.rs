//! `agent-wormhole host`: makes a channel and keeps it open.
//!
//! Owns the check of what was typed. The channel itself is the driver's.

use std::net::{IpAddr, UdpSocket};

use super::args::{ChannelArgs, HostArgs, MountArg, SecretsArg};
use super::detach::{self, Ground};
use super::exit::{Exit, Failure};
use super::{output, settings};
use crate::channel::options::{End, HostLink, Lines, MountChoice, Options, Unread};
use crate::config::Settings;

/// Addresses of the documentation ranges: nothing is there, and nothing is sent to them. Asking which of our own
/// addresses would be used towards them finds the one that other machines see.
const OUTSIDE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

pub(super) fn run(mut args: HostArgs, ground: Ground) -> Result<Exit, Failure> {
    if let (true, Ground::Fore(typed)) = (args.channel.background.detach, &ground) {
        return detach::start("host", typed, None);
    }
    let quiet = args.channel.json;
    let settings = Settings::of_process()?;
    settings::fill(&mut args.channel, &settings)?;
    let link = link(&args, &settings)?;
    // A warning that follows the first event belongs to it.
    let up_at = if args.legacy { "legacy_code" } else { "channel" };
    let options = options(End::Host(link), args.channel, streams(ground, up_at)?)?;
    if !quiet && output::person_watches() {
        output::note("The next line holds the code. Give it to the other end, and to nobody else.");
    }
    super::start(options, quiet)
}

fn link(args: &HostArgs, settings: &Settings) -> Result<HostLink, Failure> {
    Ok(if args.direct {
        HostLink::Direct { port: args.port.unwrap_or(0), announce: own_address() }
    } else {
        let relay = settings.relay(&args.relay.clone().into())?;
        if args.legacy { HostLink::Legacy(relay) } else { HostLink::Relay(relay) }
    })
}

/// What `host` and `connect` have in common, checked.
pub(super) fn options(
    end: End,
    args: ChannelArgs,
    (lines, unread): (Lines, Unread),
) -> Result<Options, Failure> {
    let mount = match args.mount.unwrap_or(MountArg::Auto) {
        MountArg::Auto => MountChoice::Auto,
        MountArg::Fuse => MountChoice::Fuse,
        MountArg::Dir => MountChoice::Dir,
    };
    Ok(Options {
        end,
        dir: args.dir,
        mount,
        inbox_limit: args.inbox_limit,
        outbox_limit: args.outbox_limit,
        block_secrets: args.block_secrets,
        memory: args.memory,
        readable_secrets: args.secrets == SecretsArg::Readable,
        timeout: args.timeout,
        read_receipts: !args.no_read_receipts,
        runtime: super::runtime()?,
        cwd: super::cwd()?,
        lines,
        progress: None,
        unread: Some(unread),
        detached: args.background.detach,
    })
}

/// Where events go, and what tells that nobody reads them; in the background until the event of this word.
pub(super) fn streams(ground: Ground, up_at: &'static str) -> Result<(Lines, Unread), Failure> {
    Ok(match ground {
        Ground::Fore(_) => {
            let unread = || {
                output::until_unread();
                true
            };
            (Box::new(output::data), Box::new(unread))
        }
        Ground::Back(caller) => caller.streams(up_at).map_err(anyhow::Error::from)?,
    })
}

/// The address of this machine that others most likely reach; without any route only this machine itself does.
fn own_address() -> String {
    let towards = |outside: &str| -> Option<IpAddr> {
        let any = if outside.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).ok()?;
        // Connecting a datagram socket sends nothing: it only picks a route.
        socket.connect(outside).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    OUTSIDE
        .iter()
        .find_map(|outside| towards(outside))
        .map_or_else(|| "localhost".to_owned(), |ip| ip.to_string())
}
