//! Names: looking them up, making, moving and removing them, and listing directories.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Instant;

use super::{Caller, Change, Entry, FileError, Files, MAX_TARGET, entry};
use crate::blob::Content;
use crate::handle::{Fh, Handle};
use crate::name;
use crate::outbox::Sign;
use crate::tree::{Body, Children, Ino, Ours, ROOT, Zone};

/// Most entries of a directory that are listed at once.
const MOST_LISTED: usize = 512;

/// One entry of a directory.
#[derive(Debug)]
pub struct DirEntry {
    /// Its place: the next listing goes on after it.
    pub cookie: u64,
    /// Its name.
    pub name: OsString,
    /// What it is.
    pub entry: Entry,
}

impl Files {
    /// Finds a name. Each success counts as one lookup, to be taken back by [`Files::forget`].
    ///
    /// # Errors
    /// [`FileError::Missing`].
    pub fn lookup(&mut self, dir: Ino, name: &OsStr, caller: Caller) -> Result<Entry, FileError> {
        if name.len() > name::MAX_PART {
            return Err(FileError::NameTooLong);
        }
        self.look_into_vault();
        let found = self.tree.child(dir, name).ok_or(FileError::Missing)?;
        if self.node(found)?.zone == Zone::Hidden && caller != Caller::Bell {
            return Err(FileError::Missing);
        }
        let ino = if found == self.places.receipt { self.new_receipt() } else { found };
        self.remember(ino)
    }

    /// Counts a lookup that [`Files::list`] told without counting.
    pub fn count_lookup(&mut self, ino: Ino) {
        if let Some(node) = self.tree.node_mut(ino) {
            node.lookups += 1;
        }
    }

    /// What a directory holds after a place, without `.` and `..`: at most so many that it has to be asked again.
    ///
    /// # Errors
    /// [`FileError::NotADirectory`].
    pub fn list(&self, dir: Ino, after: u64) -> Result<Vec<DirEntry>, FileError> {
        let children = self.node(dir)?.children().ok_or(FileError::NotADirectory)?;
        let seen = children.after(after).filter_map(|(cookie, name, ino)| {
            let node = self.tree.node(ino).filter(|node| node.zone != Zone::Hidden)?;
            // `outbox/` is empty when everything is delivered.
            let ours = self.is_secrets(ino) || self.is_special(ino);
            if ours && node.children().is_some_and(Children::is_empty) {
                return None;
            }
            Some(DirEntry { cookie, name: name.to_owned(), entry: entry(node) })
        });
        Ok(seen.take(MOST_LISTED).collect())
    }

    /// The directory that holds a directory.
    #[must_use]
    pub fn parent(&self, dir: Ino) -> Ino {
        self.tree.node(dir).and_then(|node| node.place.as_ref()).map_or(ROOT, |(parent, _)| *parent)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn mkdir(&mut self, dir: Ino, name: &OsStr, mode: u16, caller: Caller) -> Result<Entry, FileError> {
        self.takes_no_secret(dir)?;
        self.must_be_file(dir)?;
        let zone = self.may_make(dir, name, caller)?;
        let ino = self.make(zone, Body::Dir(Children::default()), mode)?;
        self.tree.attach(dir, name, ino);
        self.made(ino);
        self.remember(ino)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn symlink(&mut self, dir: Ino, name: &OsStr, target: &OsStr) -> Result<Entry, FileError> {
        self.takes_no_secret(dir)?;
        self.must_be_file(dir)?;
        let zone = self.may_make(dir, name, Caller::User)?;
        if target.len() > MAX_TARGET {
            return Err(FileError::NameTooLong);
        }
        let ino = self.make(zone, Body::Link(target.to_owned()), 0o777)?;
        self.tree.attach(dir, name, ino);
        self.made(ino);
        self.remember(ino)
    }

    /// Makes a file that nobody has open.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn mknod(&mut self, dir: Ino, name: &OsStr, mode: u16, now: Instant) -> Result<Entry, FileError> {
        let ino = self.new_file(dir, name, mode, false)?;
        self.complete(ino, now);
        self.remember(ino)
    }

    /// Makes a file and opens it for writing. `temporary`: as `mkstemp` does it.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn create(
        &mut self,
        dir: Ino,
        name: &OsStr,
        mode: u16,
        temporary: bool,
        append: bool,
    ) -> Result<(Entry, Fh), FileError> {
        let ino = self.new_file(dir, name, mode, temporary)?;
        let file = self.file_mut(ino)?;
        file.temporary = temporary && file.ours.is_none();
        if file.ours.is_none() {
            (file.dirty, file.writing) = (true, 1);
        }
        let handle = Handle { ino, bell: false, write: true, append, wrote: true, fixed: None };
        let fh = self.handles.add(handle);
        self.node_mut(ino)?.handles += 1;
        Ok((self.remember(ino)?, fh))
    }

    /// A second file with the content of another: the outbox has no second names.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &OsStr, now: Instant) -> Result<Entry, FileError> {
        let node = self.node(ino)?;
        let (mode, mtime, zone) = (node.mode, node.mtime, node.zone);
        let file = node.file().ok_or(FileError::NotSendable)?;
        if file.ours.is_some() || file.secret.is_some() || !matches!(zone, Zone::Inbox | Zone::Outbox) {
            return Err(FileError::Policy);
        }
        self.takes_no_secret(dir)?;
        let mut content = Content::clone(&file.content);
        content.charge_on(&self.outbox_quota);
        let content = Arc::new(content);
        let made = self.new_file(dir, name, mode, false)?;
        self.file_mut(made)?.content = content;
        self.node_mut(made)?.mtime = mtime;
        self.complete(made, now);
        self.remember(made)
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn unlink(&mut self, dir: Ino, name: &OsStr, caller: Caller, now: Instant) -> Result<(), FileError> {
        let ino = self.tree.child(dir, name).ok_or(FileError::Missing)?;
        if self.node(ino)?.is_dir() {
            return Err(FileError::IsADirectory);
        }
        self.remove(dir, name, ino, caller, now)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn rmdir(&mut self, dir: Ino, name: &OsStr, caller: Caller, now: Instant) -> Result<(), FileError> {
        let ino = self.tree.child(dir, name).ok_or(FileError::Missing)?;
        let children = self.node(ino)?.children().ok_or(FileError::NotADirectory)?;
        if self.is_place(ino) {
            return Err(FileError::Policy);
        }
        if !children.is_empty() {
            return Err(FileError::NotEmpty);
        }
        self.remove(dir, name, ino, caller, now)
    }

    /// Renames. `no_replace`: EEXIST where the new name is taken.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn rename(
        &mut self,
        (from_dir, from_name): (Ino, &OsStr),
        (to_dir, to_name): (Ino, &OsStr),
        no_replace: bool,
        caller: Caller,
        now: Instant,
    ) -> Result<(), FileError> {
        let ino = self.tree.child(from_dir, from_name).ok_or(FileError::Missing)?;
        let target = self.tree.child(to_dir, to_name);
        self.may_move(ino, (to_dir, to_name), caller)?;
        if no_replace && target.is_some() {
            return Err(FileError::Taken);
        }
        if target == Some(ino) {
            return Ok(());
        }
        if let Some(target) = target {
            self.may_replace(ino, target)?;
            // What was closed under the new name, but not released yet, is a content of its own.
            let is_closed = self.line.holds(target);
            if is_closed {
                self.complete(target, now);
            }
            self.may_write_again(target, is_closed)?;
        }
        self.may_move_into(ino, to_dir, to_name)?;
        if self.tree.subtree(ino).contains(&to_dir) {
            return Err(FileError::Invalid);
        }
        let from = self.outbox_path(ino);
        let was_received = self.node(ino)?.zone == Zone::Inbox;
        if let Some(target) = target {
            self.tree.detach(to_dir, to_name);
            self.free(target);
        }
        self.tree.detach(from_dir, from_name);
        self.tree.attach(to_dir, to_name, ino);
        if was_received {
            self.charge_on_outbox(ino);
        }
        if caller == Caller::User {
            self.moved(ino, from, now);
        }
        Ok(())
    }

    /// What is written into something that was received counts where it is now.
    fn charge_on_outbox(&mut self, top: Ino) {
        let quota = Arc::clone(&self.outbox_quota);
        for ino in self.tree.subtree(top) {
            if let Ok(file) = self.file_mut(ino) {
                Arc::make_mut(&mut file.content).charge_on(&quota);
            }
        }
    }

    /// Something got a new name in the outbox.
    fn moved(&mut self, ino: Ino, from: Option<String>, now: Instant) {
        if let Ok(file) = self.file_mut(ino) {
            // A name of its own: it is what its owner wanted to save.
            file.temporary = false;
        }
        let Some(to) = self.outbox_path(ino) else { return };
        let is_dir = self.tree.node(ino).is_some_and(|node| node.is_dir());
        // Closed under the old name, its content follows it to the new one.
        if self.line.holds(ino) {
            self.complete_as(ino, from.as_deref(), now);
        }
        if self.tree.node(ino).and_then(|node| node.file()).is_some_and(|file| !file.dirty) {
            self.take_name(&to, ino);
        }
        let mut pieces = self.pieces(ino);
        for piece in pieces.iter_mut().filter(|piece| piece.target.is_some()) {
            piece.sign = Sign::Complete;
        }
        self.line.push(Change::Moved { from, to, is_dir, pieces }, now);
    }

    /// As [`Files::complete`], under the path that it was closed under.
    fn complete_as(&mut self, ino: Ino, path: Option<&str>, now: Instant) {
        let Ok(file) = self.file_mut(ino) else { return };
        file.dirty = false;
        file.version += 1;
        match (self.piece(ino), path) {
            (Some(mut piece), Some(path)) => {
                path.clone_into(&mut piece.path);
                self.line.redeem(ino, Change::Complete(piece), now);
            }
            _ => self.line.void(ino),
        }
    }

    fn remove(
        &mut self,
        dir: Ino,
        name: &OsStr,
        ino: Ino,
        caller: Caller,
        now: Instant,
    ) -> Result<(), FileError> {
        self.may_remove(ino, caller)?;
        let path = self.outbox_path(ino);
        self.wipe(ino);
        let request = (dir == self.places.flush).then(|| name.to_string_lossy().into_owned());
        self.tree.detach(dir, name);
        self.line.void(ino);
        if caller == Caller::User {
            self.line_removal(path, request, now);
        }
        self.free(ino);
        Ok(())
    }

    /// What has no name and no handle any more needs no bytes, whether the kernel has forgotten it or not.
    pub(super) fn free(&mut self, ino: Ino) {
        let Some(node) = self.tree.node_mut(ino).filter(|node| node.place.is_none() && node.handles == 0)
        else {
            return;
        };
        node.charge = None;
        if let Body::File(file) = &mut node.body {
            file.secret = None;
            let empty = Arc::new(file.content.emptied());
            let content = std::mem::replace(&mut file.content, empty);
            self.tree.throw_away(content);
        }
        self.tree.sweep(ino);
    }

    fn line_removal(&mut self, path: Option<String>, request: Option<String>, now: Instant) {
        if let Some(path) = path {
            self.line.push(Change::Gone(path), now);
        }
        if let Some(token) = request {
            self.line.push(Change::Forget(token), now);
        }
    }

    /// Whether something may be made there, and in which zone it is then.
    fn may_make(&self, dir: Ino, name: &OsStr, caller: Caller) -> Result<Zone, FileError> {
        let zone = self.node(dir)?.zone;
        if self.tree.child(dir, name).is_some() {
            return Err(FileError::Taken);
        }
        match (zone, caller) {
            (Zone::Outbox, Caller::User) => self.check_place(dir, name)?,
            (Zone::Inbox, Caller::Bell) => {}
            _ => return Err(FileError::Policy),
        }
        Ok(zone)
    }

    fn may_remove(&self, ino: Ino, caller: Caller) -> Result<(), FileError> {
        let node = self.node(ino)?;
        // The log is made anew with its next line.
        let may_go = |ours| matches!(ours, Ours::Request | Ours::Log | Ours::Secret);
        let is_fixed = node.file().is_some_and(|file| file.ours.is_some_and(|ours| !may_go(ours)));
        match (node.zone, caller) {
            _ if is_fixed || self.is_place(ino) => Err(FileError::Policy),
            (Zone::Outbox, Caller::Bell) => self.may_leave_now(ino),
            (Zone::Outbox | Zone::Inbox | Zone::Flush, _) | (Zone::Hidden, Caller::Bell) => Ok(()),
            (Zone::Hidden | Zone::Root, _) => Err(FileError::Policy),
        }
    }

    fn may_move(&self, ino: Ino, to: (Ino, &OsStr), caller: Caller) -> Result<(), FileError> {
        let node = self.node(ino)?;
        let is_ours = node.file().is_some_and(|file| file.ours.is_some());
        let zone = self.node(to.0)?.zone;
        match (node.zone, zone, caller) {
            _ if is_ours || self.is_place(ino) => Err(FileError::Policy),
            (Zone::Outbox | Zone::Inbox, Zone::Outbox, Caller::User) => {
                self.may_move_secret(ino, to)?;
                self.check_place(to.0, to.1)
            }
            (Zone::Hidden, Zone::Inbox, Caller::Bell) => Ok(()),
            (Zone::Outbox, Zone::Hidden, Caller::Bell) => self.may_leave_now(ino),
            _ => Err(FileError::Policy),
        }
    }

    fn may_replace(&self, ino: Ino, target: Ino) -> Result<(), FileError> {
        let (old, new) = (self.node(ino)?, self.node(target)?);
        if self.is_place(target) {
            return Err(FileError::Policy);
        }
        match (old.is_dir(), new.children()) {
            (true, Some(children)) if children.is_empty() => Ok(()),
            (true, Some(_)) => Err(FileError::NotEmpty),
            (true, None) => Err(FileError::NotADirectory),
            (false, Some(_)) => Err(FileError::IsADirectory),
            (false, None) => Ok(()),
        }
    }

    /// Whether this is one of the fixed directories.
    fn is_place(&self, ino: Ino) -> bool {
        let Self { places, .. } = self;
        [ROOT, places.inbox, places.outbox, places.incoming, places.leaving, places.flush].contains(&ino)
            || self.is_secrets(ino)
            || self.is_special(ino)
    }

    fn new_file(&mut self, dir: Ino, name: &OsStr, mode: u16, temporary: bool) -> Result<Ino, FileError> {
        if dir == self.places.flush {
            return self.new_request(name);
        }
        let zone = self.may_make(dir, name, Caller::User)?;
        self.may_name(dir, name, temporary)?;
        let mut file = self.empty_file(&self.outbox_quota, None);
        file.secret = self.new_secret(dir, name)?;
        let ino = self.make(zone, Body::File(file), mode)?;
        self.tree.attach(dir, name, ino);
        Ok(ino)
    }

    /// A directory or a link is complete from the start.
    fn made(&mut self, ino: Ino) {
        if let Some(piece) = self.piece(ino) {
            self.line.push(Change::Complete(piece), Instant::now());
        }
    }

    pub(super) fn remember(&mut self, ino: Ino) -> Result<Entry, FileError> {
        let node = self.node_mut(ino)?;
        node.lookups += 1;
        Ok(entry(node))
    }
}
