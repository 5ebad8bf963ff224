//! Arrivals: written under a hidden name, complete or not there at all, and given their name by the bell.

use std::ffi::OsStr;
use std::sync::Arc;

use super::{FileError, Files, attr};
use crate::blob::Content;
use crate::inbox::candidates;
use crate::tree::{Body, Children, File, Ino, Time, Zone};

/// Something that is complete and has no name in the inbox yet.
#[derive(Debug)]
pub struct Staged {
    /// Its hidden name.
    pub name: String,
    ino: Ino,
}

impl Staged {
    pub(super) const fn ino(&self) -> Ino {
        self.ino
    }
}

impl Files {
    /// An empty content that counts against the inbox.
    #[must_use]
    pub fn incoming(&self) -> Content {
        Content::new(&self.store, &self.inbox_quota)
    }

    /// The limit of the inbox in bytes.
    #[must_use]
    pub fn inbox_limit(&self) -> u64 {
        self.inbox_quota.limit()
    }

    /// Whether so many bytes fit into the inbox now.
    #[must_use]
    pub fn inbox_takes(&self, bytes: u64) -> bool {
        self.inbox_quota.limit().saturating_sub(self.inbox_quota.used())
            >= bytes.saturating_add(super::NODE_COST)
    }

    /// Stages a complete file.
    ///
    /// # Errors
    /// [`FileError::NoSpace`].
    pub fn stage_file(
        &mut self,
        content: Content,
        executable: bool,
        mtime: Option<Time>,
    ) -> Result<Staged, FileError> {
        let file = File {
            content: Arc::new(content),
            secret: None,
            ours: None,
            dirty: false,
            version: 1,
            temporary: false,
            writing: 0,
        };
        self.stage(Body::File(file), if executable { 0o700 } else { 0o600 }, mtime)
    }

    /// Stages an empty directory.
    ///
    /// # Errors
    /// [`FileError::NoSpace`].
    pub fn stage_dir(&mut self, mtime: Option<Time>) -> Result<Staged, FileError> {
        self.stage(Body::Dir(Children::default()), 0o700, mtime)
    }

    /// Puts something staged into a staged directory, under the first of its names that is free there; makes the
    /// directories on the way. Returns the path that it has now, relative to that directory.
    ///
    /// # Errors
    /// [`FileError`]; what was staged is gone then.
    pub fn join(&mut self, group: &Staged, staged: Staged, parts: &[String]) -> Result<String, FileError> {
        let joined = self.enter(group.ino, parts).and_then(|(dir, way, last)| {
            let free = |name: &String| self.tree.child(dir, name.as_ref()).is_none();
            let name = candidates(last, 2).map(|(_, name)| name).find(free).ok_or(FileError::NameTooLong)?;
            self.tree.detach(self.places.incoming, staged.name.as_ref());
            self.tree.attach(dir, name.as_ref(), staged.ino);
            Ok(way + &name)
        });
        if joined.is_err() {
            self.unstage(&staged);
        }
        joined
    }

    /// Makes or enters the directories of a name below a staged directory.
    fn enter<'a>(&mut self, root: Ino, parts: &'a [String]) -> Result<(Ino, String, &'a str), FileError> {
        let (last, parents) = parts.split_last().ok_or(FileError::NameTooLong)?;
        let (mut dir, mut way) = (root, String::new());
        for part in parents {
            let (next, name) = self.enter_one(dir, part)?;
            way = format!("{way}{name}/");
            dir = next;
        }
        Ok((dir, way, last))
    }

    fn enter_one(&mut self, dir: Ino, part: &str) -> Result<(Ino, String), FileError> {
        for (_, name) in candidates(part, 2) {
            match self.tree.child(dir, name.as_ref()) {
                Some(found) if self.node(found)?.is_dir() => return Ok((found, name)),
                Some(_) => {}
                None => {
                    let made = self.make(Zone::Hidden, Body::Dir(Children::default()), 0o700)?;
                    self.tree.attach(dir, name.as_ref(), made);
                    return Ok((made, name));
                }
            }
        }
        Err(FileError::NameTooLong)
    }

    /// Makes or enters the directories of a name below a staged directory, and the last part, too. Returns its path.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn join_dir(
        &mut self,
        group: &Staged,
        parts: &[String],
        mtime: Option<Time>,
    ) -> Result<String, FileError> {
        let (dir, way, last) = self.enter(group.ino, parts)?;
        let (made, name) = self.enter_one(dir, last)?;
        if let (Some(node), Some(mtime)) = (self.tree.node_mut(made), mtime) {
            node.mtime = mtime;
        }
        Ok(way + &name)
    }

    /// The mtime of a staged directory, which adding to it has changed.
    pub fn stamp(&mut self, staged: &Staged, mtime: Option<Time>) {
        if let (Some(node), Some(mtime)) = (self.tree.node_mut(staged.ino), mtime) {
            node.mtime = mtime;
        }
    }

    /// Where in the inbox something is to get its name: for each directory on the way and for the last part the first
    /// name that is free or, for a directory, that is one. `number` of the last part, to begin the next search with.
    ///
    /// # Errors
    /// [`FileError::NameTooLong`] where too many names are taken.
    pub fn choose(&mut self, parts: &[String], is_dir: bool) -> Result<(Vec<String>, String), FileError> {
        let (last, parents) = parts.split_last().ok_or(FileError::NameTooLong)?;
        let mut dir = Some(self.places.inbox);
        let mut way = Vec::new();
        for part in parents {
            let (next, name) = self.choose_dir(dir, part)?;
            way.push(name);
            dir = next;
        }
        if is_dir {
            return Ok((way, self.choose_dir(dir, last)?.1));
        }
        let full = format!("{}/{last}", way.join("/"));
        let first = self.numbers.first(&full);
        let free = |name: &str| dir.is_none_or(|dir| self.tree.child(dir, OsStr::new(name)).is_none());
        let (number, name) =
            candidates(last, first).find(|(_, name)| free(name)).ok_or(FileError::NameTooLong)?;
        if number > 0 {
            self.numbers.used(&full, number);
        }
        Ok((way, name))
    }

    fn choose_dir(&self, dir: Option<Ino>, part: &str) -> Result<(Option<Ino>, String), FileError> {
        let Some(dir) = dir else { return Ok((None, part.to_owned())) };
        for (_, name) in candidates(part, 2) {
            match self.tree.child(dir, name.as_ref()) {
                None => return Ok((None, name)),
                Some(found) if self.node(found)?.is_dir() && !self.is_secrets(found) => {
                    return Ok((Some(found), name));
                }
                Some(_) => {}
            }
        }
        Err(FileError::NameTooLong)
    }

    /// The next number of a text.
    pub const fn next_text(&mut self) -> u32 {
        self.texts += 1;
        self.texts
    }

    /// Gives something staged its name where the bell cannot.
    ///
    /// # Errors
    /// [`FileError`]; it is gone then.
    pub fn place_without_bell(
        &mut self,
        staged: &Staged,
        way: &[String],
        name: &str,
    ) -> Result<(), FileError> {
        if self.tree.child(self.places.incoming, staged.name.as_ref()) != Some(staged.ino) {
            // The bell did it before it ended, and its owner took it out of the inbox since.
            return Ok(());
        }
        let placed = self.make_dirs_without_bell(way).and_then(|dir| {
            if self.tree.child(dir, name.as_ref()).is_some() {
                return Err(FileError::Taken);
            }
            self.tree.detach(self.places.incoming, staged.name.as_ref());
            self.tree.attach(dir, name.as_ref(), staged.ino);
            Ok(())
        });
        if placed.is_err() {
            self.unstage(staged);
        }
        placed
    }

    /// Makes directories in the inbox where the bell cannot.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn make_dirs_without_bell(&mut self, way: &[String]) -> Result<Ino, FileError> {
        let mut dir = self.places.inbox;
        for part in way {
            dir = match self.tree.child(dir, part.as_ref()) {
                Some(found) if self.node(found)?.is_dir() => found,
                Some(_) => return Err(FileError::Taken),
                None => {
                    let made = self.make(Zone::Inbox, Body::Dir(Children::default()), 0o700)?;
                    self.tree.attach(dir, part.as_ref(), made);
                    made
                }
            };
        }
        Ok(dir)
    }

    /// Sets the time of a directory in the inbox.
    pub fn stamp_inbox(&mut self, path: &[String], mtime: Time) {
        let mut dir = self.places.inbox;
        for part in path {
            let Some(next) = self.tree.child(dir, part.as_ref()) else { return };
            dir = next;
        }
        if let Some(node) = self.tree.node_mut(dir).filter(|node| node.is_dir()) {
            node.mtime = mtime;
        }
    }

    /// Whether something staged has its name.
    #[must_use]
    pub fn is_placed(&self, staged: &Staged) -> bool {
        let node = self.tree.node(staged.ino);
        node.is_some_and(|node| node.place.as_ref().is_some_and(|(dir, _)| *dir != self.places.incoming))
    }

    /// Drops something staged.
    pub fn unstage(&mut self, staged: &Staged) {
        if self.tree.detach(self.places.incoming, staged.name.as_ref()).is_some() {
            self.tree.sweep(staged.ino);
        }
    }

    fn stage(&mut self, body: Body, mode: u16, mtime: Option<Time>) -> Result<Staged, FileError> {
        let ino = self.make(Zone::Hidden, body, mode)?;
        self.staged += 1;
        let name = self.staged.to_string();
        self.tree.attach(self.places.incoming, name.as_ref(), ino);
        if let (Some(node), Some(mtime)) = (self.tree.node_mut(ino), mtime) {
            node.mtime = mtime;
        }
        debug_assert!(self.tree.node(ino).is_some_and(|node| attr(node).links > 0));
        Ok(Staged { name, ino })
    }
}
