//! Leaving: what the peer has goes out of the outbox, unless somebody changed or opened it meanwhile. The bell removes it
//! through the mount; the last look is at the moment when its request arrives.

use std::collections::HashMap;
use std::sync::Arc;

use super::{FileError, Files};
use crate::outbox::{Leaving, Node as Shape, Stat};
use crate::tree::Ino;

/// What may leave, as the outbox knows it.
#[derive(Debug)]
pub(super) struct Grant {
    ino: Ino,
    leaving: Leaving,
}

/// How the bell takes something out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By `unlink` of this path, relative to the channel's directory.
    Unlink(String),
    /// By a rename from the first to the second path, and removal of the second with everything in it.
    Rename(String, String),
    /// Nothing is there.
    None,
}

impl Files {
    /// Allows the bell to take something out. `None` where it is not as the outbox knows it, or in use.
    pub fn grant(&mut self, leaving: Leaving) -> Option<Way> {
        let ino = self.find(&leaving.path);
        let Some(ino) = ino else { return Some(Way::None) };
        let path = format!("outbox/{}", leaving.path);
        let is_dir = self.tree.node(ino).is_some_and(|node| node.is_dir());
        self.leave = Some(Grant { ino, leaving });
        if self.may_leave_now(ino).is_err() {
            self.leave = None;
            return None;
        }
        if !is_dir {
            return Some(Way::Unlink(path));
        }
        self.staged += 1;
        Some(Way::Rename(path, format!("{}/{}", super::ours::LEAVING, self.staged)))
    }

    /// The bell has done it, or could not: whatever was granted is not any more.
    pub fn revoke(&mut self) {
        self.leave = None;
    }

    /// Takes out what was granted where the bell cannot.
    pub fn leave_without_bell(&mut self) -> bool {
        let Some(Grant { ino, .. }) = &self.leave else { return false };
        let ino = *ino;
        if self.may_leave_now(ino).is_err() {
            return false;
        }
        let place = self.tree.node(ino).and_then(|node| node.place.clone());
        let Some((dir, name)) = place else { return false };
        self.tree.detach(dir, &name);
        self.let_go(ino);
        true
    }

    /// Whether this is what the bell is allowed to take out.
    pub(super) fn is_granted(&self, ino: Ino) -> bool {
        self.leave.as_ref().is_some_and(|grant| grant.ino == ino)
    }

    /// What was taken out by nobody but us takes no room any more, although the kernel may remember it for ever.
    fn let_go(&mut self, top: Ino) {
        for ino in self.tree.subtree(top).into_iter().rev() {
            if let Some((dir, name)) = self.tree.node(ino).and_then(|node| node.place.clone()) {
                self.tree.detach(dir, &name);
            }
            self.free(ino);
        }
    }

    /// Paths of what the bell moved out of the outbox, what is in a directory before it, and whether each is one.
    #[must_use]
    pub fn removal(&self, path: &str) -> Vec<(String, bool)> {
        let name = path.strip_prefix(super::ours::LEAVING).and_then(|name| name.strip_prefix('/'));
        let Some(top) = name.and_then(|name| self.tree.child(self.places.leaving, name.as_ref())) else {
            return Vec::new();
        };
        let full = |ino: &Ino| {
            let is_dir = self.tree.node(*ino)?.is_dir();
            Some((self.tree.path(crate::tree::ROOT, *ino)?, is_dir))
        };
        self.tree.subtree(top).iter().rev().filter_map(full).collect()
    }

    /// What the bell moved out of the outbox and could not remove.
    pub fn discard(&mut self, path: &str) {
        let Some(name) = path.strip_prefix(super::ours::LEAVING).and_then(|name| name.strip_prefix('/'))
        else {
            return;
        };
        if let Some(ino) = self.tree.detach(self.places.leaving, name.as_ref()) {
            self.let_go(ino);
        }
    }

    /// Whether what was granted is still as the outbox knows it, and nobody uses it.
    pub(super) fn may_leave_now(&self, ino: Ino) -> Result<(), FileError> {
        let Some(grant) = self.leave.as_ref().filter(|grant| grant.ino == ino) else {
            return Err(FileError::Policy);
        };
        let known: HashMap<&Arc<str>, &Stat> =
            grant.leaving.members.iter().map(|(path, stat)| (path, stat)).collect();
        let all = self.tree.subtree(ino);
        if all.len() != known.len() {
            return Err(FileError::Busy);
        }
        for ino in all {
            let node = self.node(ino)?;
            let dirty = node.file().is_some_and(|file| file.dirty);
            if node.handles > 0 || dirty || self.line.holds(ino) {
                return Err(FileError::Busy);
            }
            let piece = self.piece(ino).ok_or(FileError::Busy)?;
            let same = known.get(&Arc::from(piece.path)).is_some_and(|stat| match piece.stat.node {
                Shape::Dir => stat.node == Shape::Dir && stat.identity.inode == ino,
                Shape::File | Shape::Link => **stat == piece.stat,
            });
            if !same {
                return Err(FileError::Busy);
            }
        }
        Ok(())
    }
}
