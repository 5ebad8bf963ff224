//! Bytes and attributes: opening, reading, writing, closing, truncating.

use std::sync::Arc;
use std::time::Instant;

use super::{Attr, Caller, Change, FileError, Files, attr};
use crate::blob::Content;
use crate::handle::{Fh, Handle};
use crate::outbox::is_text_name;
use crate::secret::Secret;
use crate::tree::{Body, Ino, Ours, Time, Zone};
use crate::{MAX_TEXT, MAX_WHOLE};

/// A handle, and how the kernel is to treat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub fh: Fh,
    /// What the kernel has cached of the file stays true; else it asks for every byte.
    pub cached: bool,
}

/// Where the bytes of a READ are.
#[derive(Debug)]
pub enum Bytes {
    /// To be read from this content, without holding anything.
    Content(Arc<Content>),
    /// In the vault: a secret that may be read.
    Secret(Arc<Secret>),
    /// There are none.
    None,
}

/// What `utimensat` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The clock of the machine.
    Now,
    /// This.
    At(Time),
}

/// What is to be changed. Owners are accepted and forgotten, as are the set-id and sticky bits.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Times>,
    /// Last modification.
    pub mtime: Option<Times>,
    /// The handle that it came through.
    pub fh: Option<Fh>,
}

impl Files {
    /// Opens a file. `truncate`: and empties it.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(
        &mut self,
        ino: Ino,
        (write, append, truncate): (bool, bool, bool),
        caller: Caller,
        now: Instant,
    ) -> Result<Opened, FileError> {
        let node = self.node(ino)?;
        let zone = node.zone;
        let Body::File(file) = &node.body else {
            return Err(if node.is_dir() { FileError::IsADirectory } else { FileError::Invalid });
        };
        let ours = file.ours;
        if node.place.is_none() && node.handles == 0 && ours != Some(Ours::Receipt) {
            return Err(FileError::Stale);
        }
        if write || truncate {
            self.may_write(ino, zone, ours, caller)?;
        } else {
            self.may_read(ino)?;
        }
        let changes = (write || truncate) && zone == Zone::Outbox;
        let is_closed = self.line.holds(ino);
        if changes && is_closed {
            self.complete(ino, now);
        }
        if changes {
            self.may_write_again(ino, is_closed)?;
        }
        if changes && truncate {
            self.set_len(ino, 0)?;
        }
        // A reader of what is replaced as a whole sees one whole.
        let fixed = match (zone, ours) {
            (Zone::Inbox, None) | (_, Some(Ours::Status | Ours::Fixed)) => {
                self.node(ino)?.file().map(|file| Arc::clone(&file.content))
            }
            _ => None,
        };
        let wrote = changes && truncate;
        if wrote {
            self.file_mut(ino)?.writing += 1;
        }
        self.node_mut(ino)?.handles += 1;
        let fh = self.handles.add(Handle { ino, bell: caller == Caller::Bell, write, append, wrote, fixed });
        Ok(Opened { fh, cached: zone == Zone::Inbox && ours.is_none() || ours == Some(Ours::Fixed) })
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// [`FileError::NotADirectory`].
    pub fn open_dir(&mut self, ino: Ino) -> Result<Fh, FileError> {
        self.look_into_vault();
        let node = self.node_mut(ino)?;
        if !node.is_dir() {
            return Err(FileError::NotADirectory);
        }
        node.handles += 1;
        Ok(self.handles.add(Handle {
            ino,
            bell: false,
            write: false,
            append: false,
            wrote: false,
            fixed: None,
        }))
    }

    /// What a READ reads from.
    ///
    /// # Errors
    /// [`FileError::BadHandle`].
    pub fn bytes(&self, fh: Fh) -> Result<Bytes, FileError> {
        let handle = self.handles.find(fh).ok_or(FileError::BadHandle)?;
        if let Some(fixed) = &handle.fixed {
            return Ok(Bytes::Content(Arc::clone(fixed)));
        }
        let file = self.node(handle.ino)?.file().ok_or(FileError::IsADirectory)?;
        if file.secret.is_some() {
            return Err(FileError::Policy);
        }
        Ok(match file.ours {
            Some(Ours::Ctl | Ours::Receipt) => Bytes::None,
            Some(Ours::Secret) => Bytes::Secret(self.readable_secret(file.version)?),
            _ => Bytes::Content(Arc::clone(&file.content)),
        })
    }

    /// Writes. `mapped`: from the page cache, under whatever handle the kernel found.
    ///
    /// # Errors
    /// [`FileError`]; what could not be written is not there.
    pub fn write(
        &mut self,
        fh: Fh,
        (offset, data): (u64, &[u8]),
        mapped: bool,
        caller: Caller,
        now: Instant,
    ) -> Result<(), FileError> {
        let handle = self.handles.find(fh).ok_or(FileError::BadHandle)?;
        let (ino, append, wrote) = (handle.ino, handle.append, handle.wrote);
        if !handle.write && !mapped {
            return Err(FileError::BadHandle);
        }
        let node = self.node(ino)?;
        let (zone, ours) = (node.zone, node.file().and_then(|file| file.ours));
        if let Some(ours) = ours {
            return self.write_ours(ino, ours, data, caller, now);
        }
        if zone != Zone::Outbox {
            return Err(FileError::Policy);
        }
        if self.closed {
            return Err(FileError::Closed);
        }
        let end = self.node(ino)?.file().map_or(0, crate::tree::File::len);
        let offset = if append && !mapped { end } else { offset };
        if offset.saturating_add(data.len() as u64) > self.longest(ino) {
            return Err(FileError::TooLarge);
        }
        if self.is_secret(ino) {
            self.change_secret(ino, |secret| secret.write_at(offset, data))?;
        } else {
            self.change(ino, |content| content.write_at(offset, data))?;
        }
        if !wrote && !mapped {
            if let Some(handle) = self.handles.find_mut(fh) {
                handle.wrote = true;
            }
            self.file_mut(ino)?.writing += 1;
        }
        Ok(())
    }

    /// A descriptor of a handle was closed: a changed file takes its place in the line.
    ///
    /// # Errors
    /// [`FileError::BadHandle`]; [`FileError::Policy`] where the guard forbids what was written: it stays, and takes its
    /// place all the same.
    pub fn flush(&mut self, fh: Fh) -> Result<(), FileError> {
        let handle = self.handles.find(fh).ok_or(FileError::BadHandle)?;
        let (ino, write) = (handle.ino, handle.write);
        let is_dirty = self.node(ino)?.file().is_some_and(|file| file.dirty);
        if write && is_dirty {
            self.line.take(ino);
            if self.is_forbidden(ino)? {
                return Err(FileError::Policy);
            }
        }
        Ok(())
    }

    fn is_forbidden(&self, ino: Ino) -> Result<bool, FileError> {
        let (Some(guard), Some(file)) = (&self.guard, self.node(ino)?.file()) else { return Ok(false) };
        let Some(path) = self.outbox_path(ino) else { return Ok(false) };
        let most = if is_text_name(&path) { MAX_TEXT } else { MAX_WHOLE };
        let size = file.content.len();
        if size > most {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        file.content.read_at(0, &mut bytes).map_err(|_| FileError::Io)?;
        Ok(guard.forbids(&bytes))
    }

    /// A handle ends. The last one that wrote a file completes it.
    pub fn release(&mut self, fh: Fh, now: Instant) {
        let Some(handle) = self.handles.remove(fh) else { return };
        let ino = handle.ino;
        self.reads_no_more(fh);
        if let Some(node) = self.tree.node_mut(ino) {
            node.handles = node.handles.saturating_sub(1);
        }
        if let Ok(file) = self.file_mut(ino) {
            file.writing -= u32::from(handle.wrote && file.writing > 0);
            if handle.write && file.dirty && file.writing == 0 {
                self.complete(ino, now);
            }
        }
        let is_free = self.tree.node(ino).is_some_and(|node| node.handles == 0);
        if let Some(path) = self.outbox_path(ino).filter(|_| is_free) {
            self.line.push(Change::Touched(path), now);
        }
        self.free(ino);
    }

    /// A directory's handle ends.
    pub fn release_dir(&mut self, fh: Fh) {
        let Some(handle) = self.handles.remove(fh) else { return };
        if let Some(node) = self.tree.node_mut(handle.ino) {
            node.handles = node.handles.saturating_sub(1);
        }
        self.free(handle.ino);
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn set_attr(
        &mut self,
        ino: Ino,
        set: SetAttr,
        caller: Caller,
        now: Instant,
    ) -> Result<Attr, FileError> {
        let node = self.node(ino)?;
        let (zone, ours) = (node.zone, node.file().and_then(|file| file.ours));
        match (zone, ours) {
            (_, Some(ours)) => return self.set_ours(ino, ours, set, caller),
            (Zone::Outbox, None) => {}
            // `cp -a` of the channel's directories and the like: nothing is changed.
            (Zone::Root | Zone::Inbox | Zone::Hidden | Zone::Flush, None) => return Err(FileError::Policy),
        }
        if let Some(size) = set.size {
            self.truncate(ino, size, set.fh, now)?;
        }
        let changed = Time::now();
        let node = self.node_mut(ino)?;
        if let Some(mode) = set.mode {
            node.mode = mode & 0o777;
        }
        for (time, set) in [(&mut node.atime, set.atime), (&mut node.mtime, set.mtime)] {
            match set {
                Some(Times::Now) => *time = changed,
                Some(Times::At(at)) => *time = at,
                None => {}
            }
        }
        node.ctime = changed;
        let attr = attr(node);
        if let Some(path) = self.outbox_path(ino) {
            self.line.push(Change::Touched(path), now);
        }
        Ok(attr)
    }

    fn truncate(&mut self, ino: Ino, size: u64, fh: Option<Fh>, now: Instant) -> Result<(), FileError> {
        if self.node(ino)?.place.is_none() && fh.is_none() {
            return Err(FileError::Stale);
        }
        if self.closed {
            return Err(FileError::Closed);
        }
        let is_closed = self.line.holds(ino);
        if is_closed && fh.is_none() {
            self.complete(ino, now);
        }
        if size > self.longest(ino) {
            return Err(FileError::TooLarge);
        }
        if fh.is_none() {
            self.may_write_again(ino, is_closed)?;
        }
        self.set_len(ino, size)?;
        match fh {
            Some(fh) => {
                let Some(handle) = self.handles.find_mut(fh).filter(|handle| !handle.wrote) else {
                    return Ok(());
                };
                handle.wrote = true;
                self.file_mut(ino)?.writing += 1;
            }
            // By its path, and nobody has it open who would complete it.
            None if self.file_mut(ino)?.writing == 0 => self.complete(ino, now),
            None => {}
        }
        Ok(())
    }

    /// Allocates, zeroes or takes away a part of a file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn allocate(
        &mut self,
        fh: Fh,
        (offset, len): (u64, u64),
        (keep_size, punch): (bool, bool),
    ) -> Result<(), FileError> {
        let handle = self.handles.find(fh).ok_or(FileError::BadHandle)?;
        let (ino, wrote) = (handle.ino, handle.wrote);
        let node = self.node(ino)?;
        if !handle.write {
            return Err(FileError::BadHandle);
        }
        if node.zone != Zone::Outbox {
            return Err(FileError::Policy);
        }
        if self.is_secret(ino) {
            return Err(FileError::Unsupported);
        }
        if self.closed {
            return Err(FileError::Closed);
        }
        let end = offset.checked_add(len).ok_or(FileError::TooLarge)?;
        let size = node.size();
        self.change(ino, |content| {
            if punch {
                content.punch(offset, len.min(size.saturating_sub(offset)))?;
            }
            if keep_size || end <= size { Ok(()) } else { content.set_len(end) }
        })?;
        if !wrote {
            if let Some(handle) = self.handles.find_mut(fh) {
                handle.wrote = true;
            }
            self.file_mut(ino)?.writing += 1;
        }
        Ok(())
    }

    /// Where the next bytes (or the next hole) of a file are.
    ///
    /// # Errors
    /// [`FileError::NoOffset`] behind the end.
    pub fn seek(&self, fh: Fh, offset: u64, hole: bool) -> Result<u64, FileError> {
        match self.bytes(fh)? {
            Bytes::None | Bytes::Secret(_) => Err(FileError::NoOffset),
            Bytes::Content(content) => {
                let found = if hole { content.next_hole(offset) } else { content.next_data(offset) };
                found.ok_or(FileError::NoOffset)
            }
        }
    }

    /// Changes a file of the outbox: its ticket, if it has one, says nothing any more.
    fn change(
        &mut self,
        ino: Ino,
        how: impl FnOnce(&mut Content) -> Result<(), crate::blob::BlobError>,
    ) -> Result<(), FileError> {
        let file = self.file_mut(ino)?;
        let result = how(Arc::make_mut(&mut file.content));
        self.changed(ino)?;
        result.map_err(FileError::from)
    }

    /// The bytes of a file in the outbox are others.
    pub(super) fn changed(&mut self, ino: Ino) -> Result<(), FileError> {
        self.file_mut(ino)?.dirty = true;
        let at = Time::now();
        let node = self.node_mut(ino)?;
        (node.mtime, node.ctime) = (at, at);
        self.line.void(ino);
        Ok(())
    }

    fn set_len(&mut self, ino: Ino, len: u64) -> Result<(), FileError> {
        if self.is_secret(ino) {
            self.change_secret(ino, |secret| secret.set_len(len))
        } else {
            self.change(ino, |content| content.set_len(len))
        }
    }

    fn may_write(&self, ino: Ino, zone: Zone, ours: Option<Ours>, caller: Caller) -> Result<(), FileError> {
        match (zone, ours, caller) {
            (_, Some(Ours::Ctl | Ours::Request), _) | (_, Some(Ours::Log | Ours::Status), Caller::Bell) => {
                Ok(())
            }
            (Zone::Outbox, None, _) if self.closed => Err(FileError::Closed),
            // It left between the kernel's lookup and this: the kernel looks again, and makes it anew where asked.
            (Zone::Outbox, None, _) if self.node(ino)?.place.is_none() => Err(FileError::Stale),
            (Zone::Outbox, None, _) => Ok(()),
            _ => Err(FileError::Policy),
        }
    }
}
