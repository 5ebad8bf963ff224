//! `agent-wormhole close`: writes a word into a channel's `ctl`.
//!
//! Owns nothing but that. Whoever runs the channel delivers what is left, closes and takes the directory away.

use agent_wormhole_mount::client;

use super::args::CloseArgs;
use super::exit::{Exit, Failure};
use crate::crypto::pake::Role;

pub(super) fn run(args: &CloseArgs) -> Result<Exit, Failure> {
    let channel = super::channel(&args.channel, args.role.map(Role::from))?;
    client::request_close(&channel.dir, args.now)?;
    Ok(Exit::Done)
}
