//! Secrets: their bytes, their names, and those that wait for whoever they were sent to.
//!
//! Owns the memory that they live in and nothing else that holds them. What is in it is never printed, cloned or put
//! into a file of the mailbox.

mod memory;
mod name;
mod offer;
mod vault;

pub use memory::{MAX_SECRET, NoMemory, Secret, all_locked};
pub use name::{BadSecretName, SecretName};
pub(crate) use offer::{not_sent, offer};
pub use vault::{
    Gone, LIFE, Lent, MAX_WAITING, NotHere, NotTaken, Received, Vault, Waiting, lock as lock_vault,
};

use std::sync::{Arc, Mutex};

/// The directory of secrets, in `inbox/` and in `outbox/`.
pub const SECRETS: &str = "secrets";
/// What stands in the files of that name where the directory is a real one.
pub const EXPLANATION: &str = "Secrets do not go through files here: send one with `agent-wormhole send CHANNEL --secret NAME < FILE`, use \
     one with `agent-wormhole run CHANNEL --secret NAME -- COMMAND`.\n";

/// The vault of a channel, as its threads share it.
pub type SharedVault = Arc<Mutex<Vault>>;

/// The name of a secret that a path relative to `outbox/` would be; `None` where the path is none below
/// [`SECRETS`].
#[must_use]
pub fn below(path: &str) -> Option<&str> {
    path.strip_prefix(SECRETS)?.strip_prefix('/')
}
