//! Secrets of a real directory: they come from `agent-wormhole send --secret`, never from a file.
//!
//! Owns those that are on their way, under the paths that they would have in a mount, and what is told of somebody who
//! puts files there all the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::FileType;

use super::{Worker, find};
use crate::SecretNotSent;
use crate::outbox::{Identity, Node, Sign, Stat, Ticket};
use crate::prepare::Taken;
use crate::secret::{self, EXPLANATION, SECRETS, Secret, SecretName};

/// Most at once: 4 MiB of locked memory.
const MOST: usize = 256;
/// What is known of files at `outbox/secrets`. No path has a NUL: the secrets on their way are not below it.
const FILES: &str = "\0secrets";
/// Why they are not sent.
const NOT_SENT: &str = "no file below outbox/secrets is sent here, as it rests on a disk or in plain memory; remove it, and use \
                        `agent-wormhole send CHANNEL --secret NAME`";

/// The secrets that are on their way.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    by_path: BTreeMap<String, Arc<Secret>>,
    last: u64,
    is_shut: bool,
}

impl Secrets {
    pub(super) fn has(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Takes none any more.
    pub(super) const fn shut(&mut self) {
        self.is_shut = true;
    }
}

/// Whether a path relative to the outbox is where secrets would be.
pub(super) fn is_there(path: &Path) -> bool {
    path.starts_with(SECRETS)
}

impl Worker {
    pub(super) fn send_secret(&mut self, name: &SecretName, secret: Secret) -> Result<(), SecretNotSent> {
        if self.secrets.is_shut {
            return Err(SecretNotSent::Closing);
        }
        let path = format!("{SECRETS}/{name}");
        if self.secrets.by_path.len() >= MOST && !self.secrets.has(&path) {
            return Err(SecretNotSent::Full);
        }
        self.secrets.last += 1;
        // Nothing else has the inode 0: no disk knows it.
        let number = i64::try_from(self.secrets.last).unwrap_or(i64::MAX);
        let identity = Identity { inode: 0, size: secret.len() as u64, mtime: (number, 0) };
        let stat = Stat { node: Node::File, identity };
        self.secrets.by_path.insert(path.clone(), Arc::new(secret));
        if self.outbox.touch(&path, stat, Sign::Complete, Instant::now()) {
            return Ok(());
        }
        self.secrets.by_path.remove(&path);
        Err(SecretNotSent::Full)
    }

    pub(super) fn prepare_secret(&self, ticket: &Ticket) -> Option<Taken> {
        self.secrets.by_path.get(&*ticket.path).map(|secret| secret::offer(ticket, secret))
    }

    /// A secret has left; whether it was one.
    pub(super) fn forget_secret(&mut self, path: &str) -> bool {
        self.secrets.by_path.remove(path).is_some()
    }

    /// Nothing but the explanation belongs there.
    pub(super) fn look_at_secrets(&mut self) {
        let now = Instant::now();
        match find(&self.layout, Path::new(SECRETS)) {
            Ok((FileType::RegularFile, identity)) if identity.size == EXPLANATION.len() as u64 => {
                self.outbox.gone(FILES, now);
            }
            Ok(_) => self.outbox.leave_out(FILES, NOT_SENT.into(), now),
            Err(_) => self.outbox.gone(FILES, now),
        }
    }
}
