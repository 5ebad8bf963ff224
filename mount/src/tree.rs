//! The names of a mounted channel: inodes, and which directory holds which under which name. Owns the shape of the
//! tree and nothing of its meaning: who may do what is the business of [`crate::files`].

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::blob::{Charge, Content};
use crate::files::Item;
use crate::secret::Secret;

/// Number of an inode. Never used twice within a mailbox.
pub type Ino = u64;

/// The channel's directory.
pub const ROOT: Ino = 1;
/// The first place in a directory; 1 and 2 are `.` and `..`.
const FIRST_COOKIE: u64 = 3;

/// Seconds since 1970, and nanoseconds (0 to 999,999,999).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanos: u32,
}

impl Time {
    /// The clock of the machine.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// As the standard library has it; `None` beyond what it can hold.
    #[must_use]
    pub fn system(self) -> Option<SystemTime> {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let at = if self.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(whole)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(whole)
        };
        at?.checked_add(Duration::from_nanos(u64::from(self.nanos)))
    }
}

impl From<SystemTime> for Time {
    fn from(at: SystemTime) -> Self {
        match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(error) => {
                let before = error.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { seconds: -seconds, nanos: 0 },
                    nanos => Self { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

/// Which rules hold for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// The channel's directory and its own files.
    Root,
    /// What was received.
    Inbox,
    /// What is sent.
    Outbox,
    /// Arrivals that are not complete, and what has left the outbox: for the bell alone.
    Hidden,
    /// Requests of `flush`.
    Flush,
}

/// The files of the channel that it writes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// `README.md` and `.gitignore`.
    Fixed,
    /// `status.json`.
    Status,
    /// `transcript.jsonl`.
    Transcript,
    /// `inbox/log.jsonl` and what it was before it was rotated.
    Log,
    /// `ctl`.
    Ctl,
    /// `receipt`.
    Receipt,
    /// A file in `.flush/`.
    Request,
    /// A file in `inbox/secrets/`: its bytes are in the vault, under the number that is its version.
    Secret,
}

/// A file with bytes.
#[derive(Debug)]
pub struct File {
    /// Its bytes. A clone is a snapshot.
    pub content: Arc<Content>,
    /// Its bytes instead of those, of a secret that is sent.
    pub secret: Option<Arc<Secret>>,
    /// `None` for a file of the owner or the peer.
    pub ours: Option<Ours>,
    /// It was changed since it was last complete.
    pub dirty: bool,
    /// How often it was complete: tells one content from the next.
    pub version: u64,
    /// It was made as `mkstemp` makes a file, and has that name still.
    pub temporary: bool,
    /// Open handles that wrote it.
    pub writing: u32,
}

impl File {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.secret.as_ref().map_or_else(|| self.content.len(), |secret| secret.len() as u64)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a directory holds, by name and in the order in which it came.
#[derive(Debug, Default)]
pub struct Children {
    by_name: HashMap<OsString, (Ino, u64)>,
    by_cookie: BTreeMap<u64, (OsString, Ino)>,
    last: u64,
    dirs: u32,
}

impl Children {
    /// What has a name.
    #[must_use]
    pub fn find(&self, name: &OsStr) -> Option<Ino> {
        self.by_name.get(name).map(|(ino, _)| *ino)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Everything after a place, in the order of places: a place stays what it is while others come and go.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &OsStr, Ino)> {
        self.by_cookie.range(cookie.saturating_add(1)..).map(|(cookie, (name, ino))| (*cookie, &**name, *ino))
    }

    fn add(&mut self, name: &OsStr, ino: Ino, is_dir: bool) {
        self.last = self.last.max(FIRST_COOKIE - 1) + 1;
        self.by_name.insert(name.to_owned(), (ino, self.last));
        self.by_cookie.insert(self.last, (name.to_owned(), ino));
        self.dirs += u32::from(is_dir);
    }

    fn take(&mut self, name: &OsStr, is_dir: bool) {
        if let Some((_, cookie)) = self.by_name.remove(name) {
            self.by_cookie.remove(&cookie);
            self.dirs -= u32::from(is_dir);
        }
    }
}

/// What a node is.
#[derive(Debug)]
pub enum Body {
    /// A directory.
    Dir(Children),
    /// A file.
    File(File),
    /// A symbolic link and where it leads.
    Link(OsString),
}

/// One inode.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub ino: Ino,
    /// Which directory holds it, and its name there; `None` for the root and for what was removed.
    pub place: Option<(Ino, OsString)>,
    /// Which rules hold.
    pub zone: Zone,
    /// What it is.
    pub body: Body,
    /// Permission bits: at most 0o777.
    pub mode: u16,
    /// Last access, as far as somebody set it: reading changes nothing.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// How many names of it the kernel remembers.
    pub lookups: u64,
    /// Open handles.
    pub handles: u32,
    /// What it counts besides its bytes.
    pub charge: Option<Charge>,
    /// The item that it came with, until it was read.
    pub item: Option<Box<Item>>,
}

impl Node {
    /// The directory's entries.
    #[must_use]
    pub const fn children(&self) -> Option<&Children> {
        match &self.body {
            Body::Dir(children) => Some(children),
            Body::File(_) | Body::Link(_) => None,
        }
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> Option<&File> {
        match &self.body {
            Body::File(file) => Some(file),
            Body::Dir(_) | Body::Link(_) => None,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::Dir(_) => 0,
            // `ctl` and `receipt` are empty whatever was written into them, and nobody is told how long a secret is.
            Body::File(file) => file.content.len(),
            Body::Link(target) => target.len() as u64,
        }
    }

    /// Names that it has: of a directory, as many as point to it.
    #[must_use]
    pub const fn links(&self) -> u32 {
        match &self.body {
            Body::Dir(children) => 2 + children.dirs,
            Body::File(_) | Body::Link(_) => self.place.is_some() as u32,
        }
    }
}

/// Every inode of a channel.
#[derive(Debug)]
pub struct Tree {
    nodes: HashMap<Ino, Node>,
    last: Ino,
    /// Bytes of what is gone: to free many takes long, and is left to whoever has the time.
    gone: Vec<Arc<Content>>,
}

impl Tree {
    /// A tree with an empty root.
    #[must_use]
    pub fn new() -> Self {
        let mut tree = Self { nodes: HashMap::new(), last: 0, gone: Vec::new() };
        let root = tree.make(Zone::Root, Body::Dir(Children::default()), 0o700);
        debug_assert_eq!(root, ROOT);
        tree
    }

    /// Makes a node that has no name yet. One that nothing refers to goes with [`Tree::sweep`].
    pub fn make(&mut self, zone: Zone, body: Body, mode: u16) -> Ino {
        self.last += 1;
        let now = Time::now();
        let node = Node {
            ino: self.last,
            place: None,
            zone,
            body,
            mode: mode & 0o777,
            atime: now,
            mtime: now,
            ctime: now,
            lookups: 0,
            handles: 0,
            charge: None,
            item: None,
        };
        self.nodes.insert(self.last, node);
        self.last
    }

    /// A node.
    #[must_use]
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// A node, to change it.
    pub fn node_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What has a name in a directory.
    #[must_use]
    pub fn child(&self, dir: Ino, name: &OsStr) -> Option<Ino> {
        self.nodes.get(&dir)?.children()?.find(name)
    }

    /// Gives a nameless node a name that is free.
    pub fn attach(&mut self, dir: Ino, name: &OsStr, ino: Ino) {
        let is_dir = self.nodes.get(&ino).is_some_and(Node::is_dir);
        let now = Time::now();
        let Some(parent) = self.nodes.get_mut(&dir) else { return };
        let zone = parent.zone;
        let Body::Dir(children) = &mut parent.body else { return };
        children.add(name, ino, is_dir);
        (parent.mtime, parent.ctime) = (now, now);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.place = Some((dir, name.to_owned()));
            node.ctime = now;
        }
        // What is in the root has its own zone from the start.
        if dir != ROOT {
            self.set_zone(ino, zone);
        }
    }

    /// Takes a name away and returns what had it; it stays for as long as somebody refers to it.
    pub fn detach(&mut self, dir: Ino, name: &OsStr) -> Option<Ino> {
        let ino = self.child(dir, name)?;
        let is_dir = self.nodes.get(&ino).is_some_and(Node::is_dir);
        let now = Time::now();
        let parent = self.nodes.get_mut(&dir)?;
        if let Body::Dir(children) = &mut parent.body {
            children.take(name, is_dir);
        }
        (parent.mtime, parent.ctime) = (now, now);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.place = None;
            node.ctime = now;
        }
        Some(ino)
    }

    /// The path of a node below a directory, with `/` between parts; `None` where it is not below it, or a part is not
    /// UTF-8.
    #[must_use]
    pub fn path(&self, below: Ino, ino: Ino) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = ino;
        while at != below {
            let (parent, name) = self.nodes.get(&at)?.place.as_ref()?;
            parts.push(name.to_str()?);
            at = *parent;
        }
        parts.reverse();
        Some(parts.join("/"))
    }

    /// How many directories there are between a node and the root.
    #[must_use]
    pub fn depth(&self, ino: Ino) -> usize {
        let parent = |at: &Ino| self.nodes.get(at)?.place.as_ref().map(|(parent, _)| *parent);
        std::iter::successors(parent(&ino), parent).count()
    }

    /// A node and everything below it, each directory before what is in it.
    #[must_use]
    pub fn subtree(&self, ino: Ino) -> Vec<Ino> {
        let mut found = vec![ino];
        let mut at = 0;
        while let Some(next) = found.get(at) {
            at += 1;
            let below = self.nodes.get(next).and_then(Node::children);
            let below: Vec<_> = below.into_iter().flat_map(|children| children.after(0)).collect();
            found.extend(below.into_iter().map(|(_, _, ino)| ino));
        }
        found
    }

    /// The kernel forgets so many names of a node.
    pub fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.sweep(ino);
    }

    /// Drops a node, and a nameless directory's content, where nothing refers to it any more.
    pub fn sweep(&mut self, ino: Ino) {
        let mut todo = vec![ino];
        while let Some(ino) = todo.pop() {
            let Some(node) = self.nodes.get(&ino) else { continue };
            if ino == ROOT || node.place.is_some() || node.lookups > 0 || node.handles > 0 {
                continue;
            }
            let Some(node) = self.nodes.remove(&ino) else { continue };
            for (_, _, child) in node.children().into_iter().flat_map(|children| children.after(0)) {
                if let Some(child) = self.nodes.get_mut(&child) {
                    child.place = None;
                }
                todo.push(child);
            }
            if let Body::File(file) = node.body {
                self.throw_away(file.content);
            }
        }
    }

    /// Nobody needs these bytes any more.
    pub fn throw_away(&mut self, content: Arc<Content>) {
        if !content.is_empty() {
            self.gone.push(content);
        }
    }

    /// Bytes that nobody needs: to free many takes long.
    pub fn take_gone(&mut self) -> Vec<Arc<Content>> {
        std::mem::take(&mut self.gone)
    }

    fn set_zone(&mut self, ino: Ino, zone: Zone) {
        if self.nodes.get(&ino).is_none_or(|node| node.zone == zone) {
            return;
        }
        for ino in self.subtree(ino) {
            if let Some(node) = self.nodes.get_mut(&ino) {
                node.zone = zone;
            }
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> Body {
        Body::Dir(Children::default())
    }

    fn link() -> Body {
        Body::Link("x".into())
    }

    fn put(tree: &mut Tree, parent: Ino, name: &str, body: Body) -> Ino {
        let ino = tree.make(Zone::Outbox, body, 0o755);
        tree.attach(parent, name.as_ref(), ino);
        ino
    }

    #[test]
    fn paths_follow_renames_and_links_are_counted() {
        let mut tree = Tree::new();
        let outbox = put(&mut tree, ROOT, "outbox", dir());
        let a = put(&mut tree, outbox, "a", dir());
        let b = put(&mut tree, a, "b", link());
        assert_eq!(tree.path(outbox, b).as_deref(), Some("a/b"));
        assert_eq!(tree.path(a, outbox), None);
        assert_eq!((tree.node(outbox).unwrap().links(), tree.depth(b)), (3, 3));
        assert_eq!(tree.detach(outbox, "a".as_ref()), Some(a));
        tree.attach(outbox, "c".as_ref(), a);
        assert_eq!(tree.path(outbox, b).as_deref(), Some("c/b"));
        assert_eq!(tree.child(outbox, "a".as_ref()), None);
    }

    #[test]
    fn places_in_a_directory_stay_while_others_come_and_go() {
        let mut tree = Tree::new();
        for name in ["a", "b", "c"] {
            put(&mut tree, ROOT, name, link());
        }
        let names = |tree: &Tree, after| -> Vec<(u64, String)> {
            let children = tree.node(ROOT).unwrap().children().unwrap();
            let names =
                children.after(after).map(|(cookie, name, _)| (cookie, name.to_str().unwrap().to_owned()));
            names.collect()
        };
        let (first, _) = names(&tree, 0)[0];
        tree.detach(ROOT, "a".as_ref());
        tree.detach(ROOT, "b".as_ref());
        put(&mut tree, ROOT, "d", link());
        let left: Vec<_> = names(&tree, first).into_iter().map(|(_, name)| name).collect();
        assert_eq!(left, ["c", "d"]);
        assert_eq!(names(&tree, u64::MAX), []);
    }

    #[test]
    fn what_is_removed_stays_until_nobody_refers_to_it() {
        let mut tree = Tree::new();
        let a = put(&mut tree, ROOT, "a", dir());
        let b = put(&mut tree, a, "b", link());
        tree.node_mut(b).unwrap().lookups = 2;
        tree.detach(ROOT, "a".as_ref());
        tree.sweep(a);
        assert!(tree.node(a).is_none());
        tree.forget(b, 1);
        assert!(tree.node(b).is_some());
        tree.forget(b, u64::MAX);
        assert_eq!(tree.len(), 1);
        tree.sweep(ROOT);
        assert_eq!(tree.len(), 1);
    }

    #[test]
    fn a_subtree_changes_its_zone_with_its_place() {
        let mut tree = Tree::new();
        let inbox = tree.make(Zone::Inbox, dir(), 0o700);
        tree.attach(ROOT, "inbox".as_ref(), inbox);
        let outbox = tree.make(Zone::Outbox, dir(), 0o700);
        tree.attach(ROOT, "outbox".as_ref(), outbox);
        let a = tree.make(Zone::Inbox, dir(), 0o700);
        tree.attach(inbox, "a".as_ref(), a);
        let b = tree.make(Zone::Inbox, link(), 0o700);
        tree.attach(a, "b".as_ref(), b);
        tree.detach(inbox, "a".as_ref());
        tree.attach(outbox, "a".as_ref(), a);
        assert_eq!(tree.node(b).unwrap().zone, Zone::Outbox);
        assert_eq!(tree.node(outbox).unwrap().zone, Zone::Outbox);
    }

    #[test]
    fn times_before_1970_are_whole_seconds_and_a_part_after_them() {
        for (seconds, nanos) in [(0, 0), (5, 7), (-1, 0), (-1, 500_000_000), (-2, 1)] {
            let time = Time { seconds, nanos };
            assert_eq!(Time::from(time.system().unwrap()), time);
        }
        assert!(Time { seconds: i64::MIN, nanos: 1 }.system().is_none() || cfg!(target_os = "linux"));
    }
}
