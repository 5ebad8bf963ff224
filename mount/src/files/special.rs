//! The directories of ours in a mounted outbox: which names can be made there, and which files can be written again.

use std::ffi::OsStr;

use super::{FileError, Files};
use crate::ignore;
use crate::questions::{Denied, Questions};
use crate::special::{self, Special};
use crate::tree::{Body, Children, Ino, Tree, Zone};

impl From<Denied> for FileError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::BadName | Denied::NoText => Self::Invalid,
            Denied::Used => Self::Taken,
            Denied::NotAsked => Self::Missing,
            Denied::Full => Self::NoSpace,
        }
    }
}

/// Makes the directories in `outbox/` and in `inbox/`; returns those of the outbox.
pub(super) fn make(tree: &mut Tree, inbox: Ino, outbox: Ino) -> [(Special, Ino); Special::ALL.len()] {
    let mut dir = |parent, special: Special, zone| {
        let ino = tree.make(zone, Body::Dir(Children::default()), 0o700);
        tree.attach(parent, special.as_str().as_ref(), ino);
        ino
    };
    Special::ALL.map(|special| {
        dir(inbox, special, Zone::Inbox);
        (special, dir(outbox, special, Zone::Outbox))
    })
}

impl Files {
    /// Which questions were asked and answered.
    pub const fn questions(&mut self) -> &mut Questions {
        &mut self.questions
    }

    /// Whether this is such a directory of the outbox.
    pub(super) fn is_special(&self, ino: Ino) -> bool {
        self.special(ino).is_some()
    }

    fn special(&self, dir: Ino) -> Option<Special> {
        self.places.special.iter().find(|(_, ino)| *ino == dir).map(|(special, _)| *special)
    }

    /// The directory of ours that something lies in, and its name; `None` where that is one of a name that is not sent.
    fn in_special(&self, dir: Ino, name: &OsStr) -> Result<Option<(Special, String)>, FileError> {
        let Some(special) = self.special(dir) else { return Ok(None) };
        let name = Self::check_part(name)?;
        // What editors and tools leave there is theirs: it is left out as everywhere.
        Ok(ignore::part(name, false).is_none().then(|| (special, name.to_owned())))
    }

    /// Only files can be made there.
    pub(super) fn must_be_file(&self, dir: Ino) -> Result<(), FileError> {
        if self.is_special(dir) { Err(FileError::Invalid) } else { Ok(()) }
    }

    /// Whether a file may get a name there. One as `mkstemp` makes it is about to be renamed.
    pub(super) fn may_name(&self, dir: Ino, name: &OsStr, temporary: bool) -> Result<(), FileError> {
        let Some((special, name)) = self.in_special(dir, name)? else { return Ok(()) };
        if temporary {
            return if special::is_name(&name) { Ok(()) } else { Err(FileError::Invalid) };
        }
        Ok(self.questions.may_write(special, &name)?)
    }

    /// Whether something may be moved to a name there.
    pub(super) fn may_move_into(&self, ino: Ino, dir: Ino, name: &OsStr) -> Result<(), FileError> {
        if self.is_special(dir) && self.node(ino)?.file().is_none() {
            return Err(FileError::Invalid);
        }
        self.may_name(dir, name, false)
    }

    /// Whether a file that is there may be written by one who opens it now: not while somebody else does, and not once it
    /// is complete, so that nobody changes what another one asked. `is_closed`: who wrote it has closed it, whether the kernel
    /// has released that or not.
    pub(super) fn may_write_again(&self, ino: Ino, is_closed: bool) -> Result<(), FileError> {
        let Some((dir, name)) = self.node(ino)?.place.clone() else { return Ok(()) };
        let Some((special, name)) = self.in_special(dir, &name)? else { return Ok(()) };
        if !is_closed && self.handles.writers(ino) > 0 {
            return Err(FileError::Taken);
        }
        match self.questions.may_write(special, &name) {
            // A temporary one under a name of its own, which is judged when it gets another.
            Err(Denied::NotAsked) => Ok(()),
            judged => Ok(judged?),
        }
    }

    /// A file is complete: what was asked or answered takes its name.
    pub(super) fn take_name(&mut self, path: &str, ino: Ino) {
        let Some((special, name)) = Special::of(path).filter(|_| ignore::path(path).is_none()) else {
            return;
        };
        // An empty one may be a name that its owner is about to write to.
        let is_said = |node: &crate::tree::Node| {
            node.file().is_some_and(|file| !file.temporary && !file.content.is_empty())
        };
        if self.tree.node(ino).is_some_and(is_said) {
            self.questions.written(special, name);
        }
    }

    /// Longest that a file may be.
    pub(super) fn longest(&self, ino: Ino) -> u64 {
        let dir = self.tree.node(ino).and_then(|node| node.place.as_ref()).map(|(dir, _)| *dir);
        if dir.is_some_and(|dir| self.is_special(dir)) { crate::MAX_TEXT } else { u64::MAX }
    }
}
