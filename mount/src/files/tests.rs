//! The rules of a mounted channel, without the kernel.

mod leaving;
mod model;
mod policy;
mod secrets;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::Ctl;
use crate::blob;
use crate::handle::Fh;
use crate::outbox::{Leaving, Sign, Stat};

const NOW: (bool, bool, bool) = (true, false, false);
const TRUNCATING: (bool, bool, bool) = (true, false, true);
const READING: (bool, bool, bool) = (false, false, false);

pub(super) struct Rig {
    pub(super) files: Files,
    pub(super) now: Instant,
}

pub(super) fn rig() -> Rig {
    limited(Limits { outbox: 64 << 20, inbox: 64 << 20 })
}

pub(super) fn limited(limits: Limits) -> Rig {
    let options = blob::Options { memory: 64 << 20, spill_dir: None, seal_memory: false };
    let store = Store::new(options).unwrap();
    Rig { files: Files::new(store, limits).unwrap(), now: Instant::now() }
}

impl Rig {
    pub(super) fn outbox(&self) -> Ino {
        self.files.places.outbox
    }

    /// What is at a path of the channel.
    pub(super) fn at(&self, path: &str) -> Option<Ino> {
        path.split('/').try_fold(ROOT, |dir, part| self.files.tree.child(dir, part.as_ref()))
    }

    pub(super) fn create(&mut self, name: &str) -> Fh {
        self.files.create(self.outbox(), name.as_ref(), 0o644, false, false).unwrap().1
    }

    pub(super) fn open(&mut self, path: &str, how: (bool, bool, bool)) -> Result<Fh, FileError> {
        let ino = self.at(path).ok_or(FileError::Missing)?;
        self.files.open(ino, how, Caller::User, self.now).map(|opened| opened.fh)
    }

    pub(super) fn write(&mut self, fh: Fh, bytes: &str) {
        let offset =
            self.files.handles.find(fh).map_or(0, |handle| self.files.attr(handle.ino).unwrap().size);
        self.files.write(fh, (offset, bytes.as_bytes()), false, Caller::User, self.now).unwrap();
    }

    fn flush(&mut self, fh: Fh) {
        self.files.flush(fh).unwrap();
    }

    fn release(&mut self, fh: Fh) {
        self.files.release(fh, self.now);
    }

    pub(super) fn close(&mut self, fh: Fh) {
        self.flush(fh);
        self.release(fh);
    }

    pub(super) fn put(&mut self, name: &str, bytes: &str) {
        let fh = self.create(name);
        self.write(fh, bytes);
        self.close(fh);
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        let (outbox, now) = (self.outbox(), self.now);
        self.files.rename((outbox, from.as_ref()), (outbox, to.as_ref()), false, Caller::User, now)
    }

    pub(super) fn unlink(&mut self, name: &str) -> Result<(), FileError> {
        self.files.unlink(self.outbox(), name.as_ref(), Caller::User, self.now)
    }

    /// The kernel forgets every name.
    pub(super) fn forget_all(&mut self) {
        for ino in self.files.tree.subtree(ROOT).into_iter().max().into_iter().flat_map(|last| 0..last + 1000)
        {
            self.files.forget(ino, u64::MAX);
        }
        drop(self.files.take_gone());
    }

    /// What happened, in words.
    pub(super) fn changes(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.files.next_change(self.now)).map(|change| told(&change)).collect()
    }
}

pub(super) fn text(content: &Content) -> String {
    let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
    assert_eq!(content.read_at(0, &mut bytes).unwrap(), bytes.len());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn told_piece(piece: &Piece) -> String {
    let held = if piece.sign == Sign::Held { " (held)" } else { "" };
    match (&piece.snapshot, &piece.target) {
        (Some(snapshot), _) => format!("{} = {}{held}", piece.path, text(&snapshot.content)),
        (None, Some(target)) => format!("{} -> {}", piece.path, target.display()),
        (None, None) => format!("{}/", piece.path),
    }
}

fn told(change: &Change) -> String {
    match change {
        Change::Complete(piece) => told_piece(piece),
        Change::Moved { from, to, pieces, .. } => {
            let pieces: Vec<_> = pieces.iter().map(told_piece).collect();
            format!("{} > {to}: {}", from.as_deref().unwrap_or("inbox"), pieces.join(", "))
        }
        Change::Gone(path) => format!("{path} gone"),
        Change::Touched(path) => format!("{path} touched"),
        Change::Flush(token) => format!("flush {token}"),
        Change::Forget(token) => format!("forget {token}"),
        Change::Receipt(number) => format!("receipt {number}"),
        Change::Opened(item) => format!("{item} opened"),
        Change::Ctl(Ctl::Close) => "close".to_owned(),
        Change::Ctl(Ctl::CloseNow) => "close now".to_owned(),
    }
}

#[test]
fn a_file_is_complete_with_its_last_close() {
    let mut rig = rig();
    let fh = rig.create("a");
    rig.write(fh, "one");
    assert!(rig.changes().is_empty());
    rig.flush(fh);
    assert!(rig.changes().is_empty(), "a descriptor may be left");
    rig.release(fh);
    assert_eq!(rig.changes(), ["a = one", "a touched"]);
    let fh = rig.open("outbox/a", READING).unwrap();
    rig.close(fh);
    let fh = rig.open("outbox/a", NOW).unwrap();
    rig.close(fh);
    assert_eq!(rig.changes(), ["a touched", "a touched"], "nothing was written");
}

#[test]
fn closes_keep_their_order_whatever_that_of_the_releases_is() {
    let mut rig = rig();
    let (first, second) = (rig.create("1"), rig.create("2"));
    rig.write(first, "one");
    rig.write(second, "two");
    rig.flush(first);
    rig.flush(second);
    rig.release(second);
    assert!(rig.changes().is_empty());
    rig.release(first);
    assert_eq!(rig.changes()[..2], ["1 = one", "2 = two"]);
}

#[test]
fn what_a_child_holds_open_gives_up_its_place_and_comes_when_it_ends() {
    let mut rig = rig();
    let held = rig.create("held");
    rig.write(held, "x");
    rig.flush(held);
    rig.put("b", "two");
    assert!(rig.changes().is_empty());
    rig.now += crate::outbox::tickets::RELEASE_WAIT;
    assert_eq!(rig.changes(), ["b = two", "b touched"]);
    rig.close(held);
    assert_eq!(rig.changes(), ["held = x", "held touched"]);
}

#[test]
fn two_descriptors_of_one_handle_complete_it_once() {
    let mut rig = rig();
    let fh = rig.create("a");
    // As a shell does it: the descriptor is copied, and the first one closed.
    rig.flush(fh);
    rig.write(fh, "one");
    rig.flush(fh);
    rig.write(fh, " two");
    rig.close(fh);
    assert_eq!(rig.changes(), ["a = one two", "a touched"]);
}

#[test]
fn writing_to_a_name_again_before_the_release_keeps_both_contents() {
    let mut rig = rig();
    let first = rig.create("message");
    rig.write(first, "one");
    rig.flush(first);
    let second = rig.open("outbox/message", TRUNCATING).unwrap();
    rig.release(first);
    rig.write(second, "two");
    rig.close(second);
    let contents: Vec<_> = rig.changes().into_iter().filter(|change| change.contains('=')).collect();
    assert_eq!(contents, ["message = one", "message = two"]);
}

#[test]
fn a_rename_onto_what_is_not_released_yet_keeps_both_contents() {
    let mut rig = rig();
    rig.put("new.tmp", "two");
    rig.changes();
    let first = rig.create("message");
    rig.write(first, "one");
    rig.flush(first);
    rig.rename("new.tmp", "message").unwrap();
    assert_eq!(rig.changes(), ["message = one", "new.tmp > message: message = two"]);
    rig.release(first);
    assert!(rig.changes().is_empty(), "it has no name any more");
}

#[test]
fn a_file_that_is_renamed_before_its_release_is_complete_under_both_names_in_turn() {
    let mut rig = rig();
    let fh = rig.create("a.tmp");
    rig.write(fh, "x");
    rig.flush(fh);
    rig.rename("a.tmp", "a").unwrap();
    rig.release(fh);
    assert_eq!(rig.changes(), ["a.tmp = x", "a.tmp > a: a = x", "a touched"]);
}

#[test]
fn what_is_removed_before_its_release_is_not_complete() {
    let mut rig = rig();
    let fh = rig.create("a");
    rig.write(fh, "x");
    rig.flush(fh);
    rig.unlink("a").unwrap();
    rig.write(fh, "y");
    rig.close(fh);
    assert_eq!(rig.changes(), ["a gone"]);
}

#[test]
fn what_mkstemp_makes_is_held_until_it_is_renamed_and_never_goes_empty() {
    let mut rig = rig();
    let outbox = rig.outbox();
    let (_, empty) = rig.files.create(outbox, "sedA".as_ref(), 0o600, true, false).unwrap();
    rig.close(empty);
    assert_eq!(rig.changes(), ["sedA touched"]);
    let (_, fh) = rig.files.create(outbox, "sedB".as_ref(), 0o600, true, false).unwrap();
    rig.write(fh, "x");
    rig.close(fh);
    assert_eq!(rig.changes(), ["sedB = x (held)", "sedB touched"]);
    rig.rename("sedB", "b").unwrap();
    rig.rename("sedA", "a").unwrap();
    assert_eq!(rig.changes(), ["sedB > b: b = x", "sedA > a: a = "]);
    let dir = rig.files.mkdir(outbox, "d".as_ref(), 0o755, Caller::User).unwrap().attr.ino;
    let (_, fh) = rig.files.create(dir, "sedC".as_ref(), 0o600, true, false).unwrap();
    rig.close(fh);
    rig.changes();
    rig.rename("d", "e").unwrap();
    assert_eq!(rig.changes(), ["d > e: e/"], "neither with its directory");
}

#[test]
fn a_store_into_a_mapping_after_the_close_counts() {
    let mut rig = rig();
    let fh = rig.create("a");
    rig.write(fh, "one");
    rig.flush(fh);
    rig.files.write(fh, (0, b"two"), true, Caller::User, rig.now).unwrap();
    rig.release(fh);
    assert_eq!(rig.changes(), ["a = two", "a touched"]);
}

#[test]
fn truncating_by_path_completes_unless_somebody_is_writing() {
    let mut rig = rig();
    rig.put("a", "one");
    rig.changes();
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let ino = rig.at("outbox/a").unwrap();
    rig.files.set_attr(ino, size(2), Caller::User, rig.now).unwrap();
    assert_eq!(rig.changes(), ["a = on", "a touched"]);
    let fh = rig.open("outbox/a", NOW).unwrap();
    rig.write(fh, "!");
    rig.files.set_attr(ino, size(1), Caller::User, rig.now).unwrap();
    assert_eq!(rig.changes(), ["a touched"]);
    rig.close(fh);
    assert_eq!(rig.changes()[0], "a = o");
}

#[test]
fn appends_go_to_the_end_and_a_snapshot_does_not_change() {
    let mut rig = rig();
    rig.put("a", "one");
    let before = rig.files.next_change(rig.now).unwrap();
    let ino = rig.at("outbox/a").unwrap();
    let fh = rig.files.open(ino, (true, true, false), Caller::User, rig.now).unwrap().fh;
    rig.files.write(fh, (0, b" two"), false, Caller::User, rig.now).unwrap();
    rig.close(fh);
    assert_eq!(told(&before), "a = one");
    assert!(rig.changes().contains(&"a = one two".to_owned()));
}

#[test]
fn a_tree_that_is_renamed_brings_what_is_complete_in_it() {
    let mut rig = rig();
    let outbox = rig.outbox();
    let dir = rig.files.mkdir(outbox, "d".as_ref(), 0o755, Caller::User).unwrap().attr.ino;
    let (_, open) = rig.files.create(dir, "open".as_ref(), 0o644, false, false).unwrap();
    rig.write(open, "x");
    rig.files.symlink(dir, "l".as_ref(), "target".as_ref()).unwrap();
    rig.rename("d", "e").unwrap();
    assert_eq!(rig.changes(), ["d/", "d/l -> target", "d > e: e/, e/l -> target"]);
    rig.close(open);
    assert_eq!(rig.changes(), ["e/open = x", "e/open touched"]);
}

#[test]
fn a_second_name_is_a_second_file() {
    let mut rig = rig();
    rig.put("a", "x");
    let (outbox, ino) = (rig.outbox(), rig.at("outbox/a").unwrap());
    let made = rig.files.link(ino, outbox, "b".as_ref(), rig.now).unwrap();
    assert_eq!((made.attr.links, made.attr.size), (1, 1));
    assert_eq!(rig.changes(), ["a = x", "a touched", "b = x"]);
    rig.unlink("a").unwrap();
    let fh = rig.open("outbox/b", NOW).unwrap();
    rig.write(fh, "y");
    rig.close(fh);
    assert_eq!(rig.changes()[..2], ["a gone", "b = xy"]);
}

/// Grants what is at a name at the top to leave.
fn grant(rig: &mut Rig, name: &str) -> Option<Way> {
    let ino = rig.at(&format!("outbox/{name}")).unwrap();
    let members = rig.files.pieces(ino);
    let members: Vec<(Arc<str>, Stat)> =
        members.into_iter().map(|piece| (piece.path.into(), piece.stat)).collect();
    rig.files.grant(Leaving { path: name.into(), members })
}

#[test]
fn the_bell_takes_out_what_was_granted_and_nothing_else() {
    let mut rig = rig();
    rig.put("a", "x");
    rig.put("b", "x");
    let outbox = rig.outbox();
    assert_eq!(grant(&mut rig, "a"), Some(Way::Unlink("outbox/a".into())));
    let unlink = |rig: &mut Rig, name: &str| rig.files.unlink(outbox, name.as_ref(), Caller::Bell, rig.now);
    assert_eq!(unlink(&mut rig, "b"), Err(FileError::Policy));
    let fh = rig.open("outbox/a", READING).unwrap();
    assert_eq!(unlink(&mut rig, "a"), Err(FileError::Busy), "somebody reads it");
    rig.release(fh);
    let ino = rig.at("outbox/a").unwrap();
    rig.files.lookup(outbox, "a".as_ref(), Caller::User).unwrap();
    rig.changes();
    unlink(&mut rig, "a").unwrap();
    assert!(rig.changes().is_empty(), "the outbox knows");
    // The kernel still knows the inode: it is told to look again, so nothing is written into what has left.
    assert_eq!(rig.files.open(ino, NOW, Caller::User, rig.now), Err(FileError::Stale));
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(rig.files.set_attr(ino, cut, Caller::User, rig.now), Err(FileError::Stale));
}

#[test]
fn what_changed_since_it_was_granted_stays() {
    let mut rig = rig();
    rig.put("a", "x");
    assert!(grant(&mut rig, "a").is_some());
    let fh = rig.open("outbox/a", NOW).unwrap();
    rig.write(fh, "y");
    rig.close(fh);
    let (outbox, now) = (rig.outbox(), rig.now);
    assert_eq!(rig.files.unlink(outbox, "a".as_ref(), Caller::Bell, now), Err(FileError::Busy));
    assert!(!rig.files.leave_without_bell());
    let dir = rig.files.mkdir(outbox, "d".as_ref(), 0o755, Caller::User).unwrap().attr.ino;
    let Some(Way::Rename(from, to)) = grant(&mut rig, "d") else { panic!("not granted") };
    assert_eq!(from, "outbox/d");
    let name = to.strip_prefix(".leaving/").unwrap();
    rig.files.mkdir(dir, "new".as_ref(), 0o755, Caller::User).unwrap();
    let leaving = rig.files.places.leaving;
    let leave = |rig: &mut Rig| {
        rig.files.rename((outbox, "d".as_ref()), (leaving, name.as_ref()), true, Caller::Bell, now)
    };
    assert_eq!(leave(&mut rig), Err(FileError::Busy));
    rig.files.rmdir(dir, "new".as_ref(), Caller::User, now).unwrap();
    leave(&mut rig).unwrap();
    assert_eq!(rig.files.removal(&to), [(to.clone(), true)]);
    rig.files.discard(&to);
    assert_eq!((rig.at("outbox/d"), rig.files.removal(&to)), (None, vec![]));
}

#[test]
fn words_for_ctl_are_checked_as_they_are_written() {
    let mut rig = rig();
    for (word, expected) in [
        ("close\n", Ok("close")),
        ("close  now", Ok("close now")),
        ("shut", Err(FileError::Invalid)),
        ("", Err(FileError::Invalid)),
        ("close now please", Err(FileError::Invalid)),
    ] {
        let fh = rig.open("ctl", TRUNCATING).unwrap();
        let written = rig.files.write(fh, (0, word.as_bytes()), false, Caller::User, rig.now);
        rig.close(fh);
        assert_eq!(written, expected.map(drop), "{word:?}");
        assert_eq!(rig.changes(), expected.into_iter().map(str::to_owned).collect::<Vec<_>>());
    }
    assert_eq!(rig.files.attr(rig.at("ctl").unwrap()).unwrap().size, 0);
}

#[test]
fn everybody_gets_a_receipt_of_his_own() {
    let mut rig = rig();
    let nodes = rig.files.tree.len();
    let mut look = || rig.files.lookup(ROOT, "receipt".as_ref(), Caller::User).unwrap();
    let (first, second) = (look(), look());
    assert_ne!(first.attr.ino, second.attr.ino);
    assert_eq!((first.ttl, first.attr.ttl), (Duration::ZERO, Duration::ZERO));
    let fh = rig.files.open(first.attr.ino, READING, Caller::User, rig.now).unwrap().fh;
    assert!(rig.files.is_receipt(fh));
    rig.files.release(fh, rig.now);
    rig.files.forget(first.attr.ino, 1);
    rig.files.forget(second.attr.ino, 1);
    assert_eq!(rig.files.tree.len(), nodes);
}

#[test]
fn a_closing_outbox_completes_what_was_closed_and_takes_nothing_new() {
    let mut rig = rig();
    let held = rig.create("held");
    rig.write(held, "x");
    rig.flush(held);
    let open = rig.create("open");
    rig.write(open, "y");
    rig.files.complete_all(rig.now);
    assert_eq!(rig.changes(), ["held = x"]);
    assert_eq!(rig.files.incomplete(), ["open"]);
    rig.files.close();
    let outbox = rig.outbox();
    let made = rig.files.create(outbox, "new".as_ref(), 0o644, false, false);
    assert_eq!(made.map(drop), Err(FileError::Closed));
    assert_eq!(rig.open("outbox/held", NOW), Err(FileError::Closed));
    assert!(rig.open("outbox/held", READING).is_ok());
    let written = rig.files.write(open, (1, b"z"), false, Caller::User, rig.now);
    assert_eq!(written, Err(FileError::Closed), "nobody would be told that it is not sent");
}

#[test]
fn a_full_budget_refuses_and_frees_with_what_is_removed() {
    let mut rig = limited(Limits { outbox: 256 << 10, inbox: 64 << 10 });
    let fh = rig.create("a");
    let bytes = vec![1; 128 << 10];
    rig.files.write(fh, (0, &bytes), false, Caller::User, rig.now).unwrap();
    let full = rig.files.write(fh, (128 << 10, &bytes), false, Caller::User, rig.now);
    assert_eq!(full, Err(FileError::NoSpace));
    let space = rig.files.space(rig.outbox());
    assert!(space.total == 256 << 10 && space.free < 128 << 10, "{space:?}");
    rig.close(fh);
    rig.unlink("a").unwrap();
    rig.changes();
    rig.forget_all();
    assert_eq!(rig.files.space(rig.outbox()).free, 256 << 10);
    assert_eq!(rig.files.space(rig.files.places.inbox).total, 64 << 10);
}
