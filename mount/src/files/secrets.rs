//! Secrets in a mounted channel: files in `outbox/secrets/` that are written and never read, and in `inbox/secrets/`
//! names of what is in the vault.
//!
//! Owns which operation is allowed there. The bytes are in memory of their own ([`crate::secret`]), in no content of the
//! mailbox.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{FileError, Files};
use crate::secret::{NoMemory, Secret, SecretName, SharedVault, lock_vault};
use crate::tree::{Body, Ino, Ours, Zone};

/// Most files in `outbox/secrets/`, temporary ones included: 4 MiB of locked memory.
const MOST_SENT: usize = 256;
/// The mode of what is in `inbox/secrets/`.
const MODE: u16 = 0o400;

impl Files {
    /// Takes the secrets that were received from here.
    pub fn use_vault(&mut self, vault: SharedVault) {
        self.vault = vault;
    }

    /// Puts a secret into `outbox/secrets/`, complete.
    ///
    /// # Errors
    /// [`FileError`]: `Invalid` where it is empty.
    pub fn send_secret(&mut self, name: &SecretName, secret: Secret, now: Instant) -> Result<(), FileError> {
        if secret.is_empty() {
            return Err(FileError::Invalid);
        }
        if self.closed {
            return Err(FileError::Closed);
        }
        let (dir, name) = (self.places.secrets_out, OsStr::new(name.as_str()));
        let mut file = self.empty_file(&self.outbox_quota, None);
        file.secret = Some(Arc::new(secret));
        if self.tree.child(dir, name).is_none() {
            self.has_room_for_secret()?;
        }
        let ino = self.make(Zone::Outbox, Body::File(file), 0o600)?;
        if let Some(old) = self.tree.detach(dir, name) {
            self.line.void(old);
            self.free(old);
        }
        self.tree.attach(dir, name, ino);
        self.complete(ino, now);
        Ok(())
    }

    /// Whether this is `inbox/secrets` or `outbox/secrets`.
    pub(super) fn is_secrets(&self, ino: Ino) -> bool {
        [self.places.secrets_in, self.places.secrets_out].contains(&ino)
    }

    /// Whether this is a secret that is sent.
    pub(super) fn is_secret(&self, ino: Ino) -> bool {
        self.tree.node(ino).and_then(|node| node.file()).is_some_and(|file| file.secret.is_some())
    }

    /// No directory, link or second name is made there.
    pub(super) fn takes_no_secret(&self, dir: Ino) -> Result<(), FileError> {
        if self.is_secrets(dir) { Err(FileError::Policy) } else { Ok(()) }
    }

    /// The bytes of a file that is made in a directory, where they are those of a secret.
    pub(super) fn new_secret(&self, dir: Ino, name: &OsStr) -> Result<Option<Arc<Secret>>, FileError> {
        if dir != self.places.secrets_out {
            return Ok(None);
        }
        check_name(name)?;
        self.has_room_for_secret()?;
        Ok(Some(Arc::new(Secret::empty())))
    }

    fn has_room_for_secret(&self) -> Result<(), FileError> {
        let children = self.tree.node(self.places.secrets_out).and_then(|node| node.children());
        let count = children.map_or(0, |children| children.after(0).count());
        if count < MOST_SENT { Ok(()) } else { Err(FileError::NoSpace) }
    }

    /// What was written elsewhere has been somewhere else than in the memory of a secret, and a secret is not to go there.
    pub(super) fn may_move_secret(&self, ino: Ino, (dir, name): (Ino, &OsStr)) -> Result<(), FileError> {
        match (self.is_secret(ino), dir == self.places.secrets_out) {
            (false, false) => Ok(()),
            (true, true) => check_name(name),
            (false, true) => Err(FileError::CrossDevice),
            (true, false) => Err(FileError::Policy),
        }
    }

    /// Whether a file may be opened for reading alone.
    pub(super) fn may_read(&self, ino: Ino) -> Result<(), FileError> {
        let Some(file) = self.node(ino)?.file() else { return Ok(()) };
        match file.ours {
            _ if file.secret.is_some() => Err(FileError::Policy),
            Some(Ours::Secret) => self.readable_secret(file.version).map(drop),
            _ => Ok(()),
        }
    }

    /// A secret that was received, where it may be read.
    pub(super) fn readable_secret(&self, serial: u64) -> Result<Arc<Secret>, FileError> {
        let now = (Instant::now(), SystemTime::now());
        lock_vault(&self.vault).readable(serial, now).ok_or(FileError::Policy)
    }

    /// Changes the bytes of a secret that is sent. What was offered of it stays what it was.
    pub(super) fn change_secret(
        &mut self,
        ino: Ino,
        how: impl FnOnce(&mut Secret) -> Result<bool, NoMemory>,
    ) -> Result<(), FileError> {
        let secret = self.file_mut(ino)?.secret.as_mut().ok_or(FileError::Invalid)?;
        if Arc::get_mut(secret).is_none() {
            *secret = Arc::new(Secret::copy_of(secret.bytes()).map_err(|_| FileError::NoSpace)?);
        }
        let secret = Arc::get_mut(secret).ok_or(FileError::Busy)?;
        let fits = how(secret).map_err(|_| FileError::NoSpace)?;
        self.changed(ino)?;
        if fits { Ok(()) } else { Err(FileError::TooLarge) }
    }

    /// Its owner removes what has a name in `inbox/secrets/`.
    pub(super) fn wipe(&self, ino: Ino) {
        let file = self.tree.node(ino).and_then(|node| node.file());
        if let Some(file) = file.filter(|file| file.ours == Some(Ours::Secret)) {
            lock_vault(&self.vault).remove(file.version);
        }
    }

    /// Gives every secret in the vault a name in `inbox/secrets/`, and takes the names of others away.
    pub(super) fn look_into_vault(&mut self) {
        let vault = Arc::clone(&self.vault);
        let vault = lock_vault(&vault);
        if vault.changes() == self.vault_seen {
            return;
        }
        self.vault_seen = vault.changes();
        let dir = self.places.secrets_in;
        let known = self.tree.node(dir).and_then(|node| node.children());
        let known: Vec<_> = known
            .into_iter()
            .flat_map(|children| children.after(0))
            .filter_map(|(_, name, ino)| Some((name.to_owned(), self.tree.node(ino)?.file()?.version)))
            .collect();
        let there: Vec<_> = vault.names().map(|(name, serial)| (name.as_str().into(), serial)).collect();
        for (name, _) in known.iter().filter(|known| !there.contains(known)) {
            if let Some(ino) = self.tree.detach(dir, name) {
                self.free(ino);
            }
        }
        for (name, serial) in there.iter().filter(|there| !known.contains(there)) {
            let mut file = self.empty_file(&self.own_quota, Some(Ours::Secret));
            file.version = *serial;
            let ino = self.tree.make(Zone::Inbox, Body::File(file), MODE);
            self.tree.attach(dir, name, ino);
        }
    }
}

/// A name in `outbox/secrets/`: that of a secret, or one with a dot in front that somebody writes it under first.
fn check_name(name: &OsStr) -> Result<(), FileError> {
    let name = name.to_str().ok_or(FileError::Invalid)?;
    if name.starts_with('.') || SecretName::parse(name).is_ok() { Ok(()) } else { Err(FileError::Invalid) }
}
