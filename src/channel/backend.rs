//! Which back end a channel's directory gets, and why.
//!
//! Owns the choice alone: a mount where this machine allows one, a real directory elsewhere, what was asked for where
//! somebody asked.

use std::sync::Arc;
use std::time::Duration;

use agent_wormhole_mount::dir::{self, DirMailbox};
use agent_wormhole_mount::mounted::{self, FuseMailbox, MountError};
use agent_wormhole_mount::secret::{SharedVault, Vault};
use agent_wormhole_mount::{Guard, Mailbox, OutboxEvent};
use tokio::sync::mpsc::UnboundedSender;

use super::ChannelError;
use super::credential;
use super::options::{MountChoice, Options};
use crate::rundir::Registration;

/// A mailbox, and why it is not what would be better.
pub(super) struct Chosen {
    pub(super) mailbox: Arc<dyn Mailbox>,
    /// `None` where it is the best that there is.
    pub(super) why: Option<String>,
    /// The secrets that arrive.
    pub(super) vault: SharedVault,
}

/// Opens the mailbox of a channel. `patience` is the longest that a `sync receipt` waits.
///
/// # Errors
/// [`ChannelError`]; nothing is left behind then.
pub(super) fn open(
    options: &Options,
    place: &Registration,
    patience: Duration,
    outlet: UnboundedSender<OutboxEvent>,
) -> Result<Chosen, ChannelError> {
    let vault = SharedVault::new(Vault::new(options.readable_secrets).into());
    let why = match options.mount {
        MountChoice::Dir => "asked for with --mount dir".to_owned(),
        MountChoice::Auto | MountChoice::Fuse => {
            match mount(options, (place, &vault), patience, outlet.clone()) {
                Ok(mailbox) => return Ok(Chosen { mailbox: Arc::new(mailbox), why: None, vault }),
                Err(error) if options.mount == MountChoice::Fuse => return Err(ChannelError::Mount(error)),
                Err(error) => {
                    tracing::info!(%error, "no mount: a real directory instead");
                    format!("no mount: {error}")
                }
            }
        }
    };
    let how = dir::Options { path: place.dir().to_owned(), inbox_limit: options.inbox_limit };
    let outlet = Box::new(move |event| outlet.send(event).is_ok());
    Ok(Chosen { mailbox: Arc::new(DirMailbox::open(&how, outlet)?), why: Some(why), vault })
}

fn mount(
    options: &Options,
    (place, vault): (&Registration, &SharedVault),
    patience: Duration,
    outlet: UnboundedSender<OutboxEvent>,
) -> Result<FuseMailbox, MountError> {
    let plain = mounted::Options::new(place.dir().to_owned(), place.source(), mounted::own_bell());
    let how = mounted::Options {
        inbox_limit: options.inbox_limit,
        outbox_limit: options.outbox_limit,
        memory: options.memory.unwrap_or(plain.memory),
        receipt_wait: patience,
        guard: options.block_secrets.then(|| Guard::new(|bytes| credential::resembled(bytes).is_some())),
        vault: Arc::clone(vault),
        read_receipts: options.read_receipts,
        ..plain
    };
    FuseMailbox::open(how, Box::new(move |event| outlet.send(event).is_ok()))
}
