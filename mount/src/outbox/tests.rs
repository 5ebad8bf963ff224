//! The rules of sending and leaving on virtual time.

mod flushing;
mod mounted;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::*;

/// An outbox, a clock, and a file system as far as the outbox asks for it.
struct Rig {
    outbox: Outbox,
    now: Instant,
    stats: HashMap<String, Stat>,
    open: HashSet<String>,
    ids: HashMap<String, EntryId>,
    inode: u64,
}

fn rig() -> Rig {
    let mut outbox = Outbox::new(Rules::DIR);
    outbox.allow(1000);
    let now = Instant::now();
    Rig { outbox, now, stats: HashMap::new(), open: HashSet::new(), ids: HashMap::new(), inode: 0 }
}

impl Rig {
    fn stat(&mut self, path: &str, node: Node, size: u64) -> Stat {
        self.inode += 1;
        let mtime = (i64::try_from(self.inode).unwrap(), 0);
        let stat = Stat { node, identity: Identity { inode: self.inode, size, mtime } };
        self.stats.insert(path.to_owned(), stat);
        stat
    }

    fn put(&mut self, path: &str, node: Node, size: u64, sign: Sign) {
        let stat = self.stat(path, node, size);
        self.outbox.touch(path, stat, sign, self.now);
    }

    fn write(&mut self, path: &str) {
        self.put(path, Node::File, 5, Sign::Complete);
    }

    fn mkdir(&mut self, path: &str) {
        self.put(path, Node::Dir, 0, Sign::Seen);
    }

    fn remove(&mut self, path: &str) {
        self.stats.retain(|known, _| known != path && !known.starts_with(&format!("{path}/")));
        self.outbox.gone(path, self.now);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let stat = self.stats.remove(from).unwrap();
        self.outbox.renamed(from, to, self.now);
        self.stats.insert(to.to_owned(), stat);
        self.outbox.touch(to, stat, Sign::Complete, self.now);
    }

    fn outcome(&mut self, path: &str, outcome: Outcome) {
        self.outbox.outcome(self.ids[path], outcome, self.now);
    }

    fn deliver(&mut self, path: &str) {
        self.outcome(path, Outcome::Delivered);
    }

    /// Does what the outbox asks for now, and tells it in words.
    fn run(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(action) = self.outbox.next(self.now) {
            told.push(match action {
                Action::Prepare(ticket) => {
                    let path = ticket.path.to_string();
                    let result = match self.stats.get(&path) {
                        None => Prepared::Gone,
                        Some(_) if self.open.contains(&path) => Prepared::Open,
                        Some(stat) => Prepared::Offered { identity: stat.identity, mark: Some(7) },
                    };
                    let offered = matches!(result, Prepared::Offered { .. });
                    self.outbox.prepared(&ticket, result, self.now);
                    if !offered {
                        continue;
                    }
                    self.ids.insert(path.clone(), ticket.entry);
                    format!("{} {path}", if ticket.text { "text" } else { "offer" })
                }
                Action::Withdraw(id) => {
                    let path =
                        self.ids.iter().find(|(_, known)| **known == id).map(|(path, _)| path.as_str());
                    format!("withdraw {}", path.unwrap_or("earlier"))
                }
                Action::LeftOut(left_out) => format!("left out {}", left_out.name),
                Action::Resolved(name) => format!("resolved {name}"),
                Action::Leave(leaving) => {
                    self.outbox.left(&leaving.path, self.now);
                    format!("leave {} ({})", leaving.path, leaving.members.len())
                }
                Action::Answer(answer) => format!("answer {} {:?}", answer.token, answer.failed),
                Action::Rescan => "rescan".to_owned(),
                Action::Idle => "idle".to_owned(),
            });
        }
        told
    }

    /// Lets time pass to each deadline in turn, and tells what happened.
    fn pass(&mut self, millis: u64) -> Vec<String> {
        let end = self.now + Duration::from_millis(millis);
        let mut told = self.run();
        while let Some(at) = self.outbox.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            told.extend(self.run());
        }
        self.now = end;
        told
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_text_goes_at_once_and_leaves_when_delivered() {
    let mut rig = rig();
    rig.write("message");
    assert_eq!(rig.run(), ["text message"]);
    rig.deliver("message");
    assert_eq!(rig.pass(20), ["leave message (1)"]);
    assert_eq!(rig.outbox.undelivered(9).1, 0);
}

#[test]
fn texts_keep_the_order_of_their_closes_also_without_credit() {
    let mut rig = rig();
    rig.outbox.credit = 0;
    for n in [3, 1, 2] {
        rig.write(&format!("{n}.msg"));
    }
    rig.write("1.msg");
    assert_eq!(rig.run(), NOTHING);
    rig.outbox.allow(2);
    assert_eq!(rig.run(), ["text 3.msg", "text 2.msg"]);
    rig.outbox.allow(2);
    assert_eq!(rig.run(), ["text 1.msg"]);
}

#[test]
fn texts_and_small_files_that_wait_keep_their_order_and_go_before_bulk() {
    let mut rig = rig();
    rig.outbox.credit = 0;
    rig.put("big", Node::File, 1 << 20, Sign::Complete);
    rig.write("small");
    rig.write("1.msg");
    assert_eq!(rig.pass(1000), NOTHING);
    rig.outbox.allow(3);
    assert_eq!(rig.run(), ["offer small", "text 1.msg", "offer big"]);
}

#[test]
fn a_file_settles_and_every_close_starts_the_time_anew() {
    let mut rig = rig();
    rig.write("a.bin");
    assert_eq!(rig.pass(499), NOTHING);
    rig.write("a.bin");
    assert_eq!(rig.pass(499), NOTHING);
    assert_eq!(rig.pass(1), ["offer a.bin"]);
}

#[test]
fn only_the_last_name_of_a_settling_file_is_sent() {
    let mut rig = rig();
    rig.write("a");
    rig.rename("a", "b");
    rig.rename("b", "c");
    assert_eq!(rig.pass(5000), ["offer c"]);
}

#[test]
fn a_removed_settling_file_is_not_sent() {
    let mut rig = rig();
    rig.write("a");
    rig.remove("a");
    assert_eq!(rig.pass(5000), NOTHING);
    assert!(rig.outbox.entries.is_empty() && rig.outbox.timers.is_empty());
}

#[test]
fn empty_files_texts_and_directories_wait_two_seconds() {
    for (path, node) in [("a", Node::File), ("message", Node::File), ("d", Node::Dir)] {
        let mut rig = rig();
        rig.put(path, node, 0, Sign::Complete);
        assert_eq!(rig.pass(1999), NOTHING, "{path}");
        assert_eq!(rig.pass(1).len(), 1, "{path}");
    }
}

#[test]
fn a_directory_with_something_in_it_needs_no_offer() {
    let mut rig = rig();
    rig.mkdir("d");
    rig.mkdir("d/e");
    rig.mkdir("d/empty");
    rig.write("d/e/f");
    rig.put("d/empty/.x.swp", Node::File, 3, Sign::Complete);
    assert_eq!(rig.pass(5000), ["offer d/e/f", "left out d/empty/.x.swp", "offer d/empty"]);
}

#[test]
fn a_directory_that_was_emptied_before_anything_was_sent_is_sent_empty() {
    let mut rig = rig();
    rig.mkdir("d");
    rig.mkdir("d/e");
    rig.put("d/e/x", Node::File, 3, Sign::Seen);
    rig.open.insert("d/e/x".to_owned());
    assert_eq!(rig.pass(3000), NOTHING);
    rig.remove("d/e/x");
    assert_eq!(rig.pass(2000), ["offer d/e"]);
}

#[test]
fn a_written_file_withdraws_its_offer_and_goes_again() {
    let mut rig = rig();
    rig.write("a");
    assert_eq!(rig.pass(500), ["offer a"]);
    rig.write("a");
    assert_eq!(rig.run(), ["withdraw a"]);
    rig.outcome("a", Outcome::Cancelled);
    assert_eq!(rig.pass(500), ["offer a"]);
    rig.deliver("a");
    assert_eq!(rig.pass(2000), ["leave a (1)"]);
}

#[test]
fn an_earlier_content_that_was_delivered_after_all_does_not_take_the_new_one_away() {
    let mut rig = rig();
    rig.write("a");
    rig.pass(500);
    rig.write("a");
    rig.run();
    rig.deliver("a");
    assert_eq!(rig.pass(499), NOTHING);
    assert_eq!(rig.pass(1), ["offer a"]);
}

#[test]
fn a_text_that_is_written_again_is_another_message() {
    let mut rig = rig();
    rig.write("message");
    assert_eq!(rig.run(), ["text message"]);
    let first = rig.ids["message"];
    rig.write("message");
    assert_eq!(rig.run(), ["text message"]);
    assert_eq!(rig.outbox.undelivered(9).1, 2);
    rig.outbox.outcome(first, Outcome::Delivered, rig.now);
    assert_eq!(rig.run(), NOTHING);
    rig.deliver("message");
    assert_eq!(rig.pass(20), ["leave message (1)"]);
}

#[test]
fn rm_cancels_every_text_of_a_name() {
    let mut rig = rig();
    rig.write("message");
    rig.run();
    rig.write("message");
    rig.run();
    rig.remove("message");
    assert_eq!(rig.run().len(), 2);
    assert_eq!(rig.outbox.undelivered(9).1, 0);
}

#[test]
fn rm_of_a_directory_cancels_what_is_in_it() {
    let mut rig = rig();
    rig.mkdir("d");
    rig.write("d/a");
    rig.write("d/b");
    rig.write("dx");
    rig.pass(3000);
    rig.remove("d");
    assert_eq!(rig.run(), ["withdraw d/a", "withdraw d/b"]);
    assert_eq!(rig.outbox.undelivered(9), (vec!["dx".to_owned()], 1));
}

#[test]
fn an_unchanged_content_is_not_sent_twice() {
    let mut rig = rig();
    rig.write("a");
    rig.pass(500);
    let stat = rig.stats["a"];
    for sign in [Sign::Seen, Sign::Complete] {
        rig.outbox.touch("a", stat, sign, rig.now);
        assert_eq!(rig.pass(1000), NOTHING);
    }
    rig.deliver("a");
    rig.outbox.touch("a", stat, Sign::Complete, rig.now);
    assert_eq!(rig.pass(1999), NOTHING);
    assert_eq!(rig.pass(1), ["leave a (1)"]);
}

#[test]
fn a_rename_after_the_offer_cancels_it_and_sends_the_new_name() {
    let mut rig = rig();
    rig.write("a");
    rig.pass(500);
    rig.rename("a", "b");
    assert_eq!(rig.pass(500), ["withdraw a", "offer b"]);
}

#[test]
fn a_rename_onto_an_ignored_name_cancels_nothing() {
    let mut rig = rig();
    rig.write("f");
    rig.pass(500);
    rig.rename("f", "f~");
    assert_eq!(rig.pass(3000), ["left out f~"]);
    rig.deliver("f");
    assert_eq!(rig.pass(9000), NOTHING);
}

#[test]
fn a_refused_file_stays_until_it_is_written_again() {
    let mut rig = rig();
    rig.write("a");
    rig.pass(500);
    rig.outcome("a", Outcome::Refused("too large".to_owned()));
    let stat = rig.stats["a"];
    rig.outbox.touch("a", stat, Sign::Seen, rig.now);
    assert_eq!(rig.pass(100_000), NOTHING);
    assert_eq!(rig.outbox.undelivered(9).1, 1);
    rig.write("a");
    assert_eq!(rig.pass(500), ["offer a"]);
}

#[test]
fn what_changed_while_it_was_read_is_offered_again_less_and_less_often() {
    let mut rig = rig();
    rig.write("a");
    rig.pass(500);
    for wait in [500, 1000, 2000, 4000, 8000, 8000] {
        rig.outcome("a", Outcome::Changed);
        assert_eq!(rig.pass(wait - 1), NOTHING);
        assert_eq!(rig.pass(1), ["offer a"]);
    }
    rig.write("a");
    assert_eq!(rig.pass(500), ["withdraw a", "offer a"]);
}

#[test]
fn an_open_file_is_waited_for() {
    let mut rig = rig();
    rig.open.insert("log".to_owned());
    rig.put("log", Node::File, 10, Sign::Seen);
    assert_eq!(rig.pass(60_000), NOTHING);
    rig.open.clear();
    rig.write("log");
    assert_eq!(rig.pass(500), ["offer log"]);
}

#[test]
fn a_link_hardly_waits_and_leaves_when_delivered() {
    let mut rig = rig();
    rig.put("CuAb12Cd", Node::Link, 20, Sign::Seen);
    assert_eq!(rig.pass(19), NOTHING);
    rig.rename("CuAb12Cd", "model.bin");
    assert_eq!(rig.run(), ["offer model.bin"]);
    rig.deliver("model.bin");
    assert_eq!(rig.run(), ["leave model.bin (1)"]);
}

#[test]
fn a_file_stays_two_seconds_after_its_last_close() {
    let mut rig = rig();
    rig.write("a");
    rig.pass(500);
    rig.deliver("a");
    assert_eq!(rig.pass(1499), NOTHING);
    assert_eq!(rig.pass(1), ["leave a (1)"]);
}

#[test]
fn a_directory_leaves_whole_when_all_is_delivered_and_quiet() {
    let mut rig = rig();
    rig.mkdir("d");
    rig.write("d/a");
    rig.write("d/b");
    rig.pass(2000);
    rig.deliver("d/a");
    assert_eq!(rig.pass(60_000), NOTHING);
    rig.write("d/c");
    rig.deliver("d/b");
    assert_eq!(rig.pass(500), ["offer d/c"]);
    rig.deliver("d/c");
    assert_eq!(rig.pass(9499), NOTHING);
    assert_eq!(rig.pass(1), ["leave d (4)"]);
    assert!(rig.outbox.entries.is_empty());
}

#[test]
fn an_empty_directory_made_by_hand_stays_a_minute() {
    let mut rig = rig();
    rig.mkdir("d");
    assert_eq!(rig.pass(2000), ["offer d"]);
    rig.deliver("d");
    assert_eq!(rig.pass(57_999), NOTHING);
    assert_eq!(rig.pass(1), ["leave d (1)"]);
}

#[test]
fn a_directory_with_something_that_is_not_sent_stays() {
    let mut rig = rig();
    rig.mkdir("d");
    rig.write("d/a");
    rig.mkdir("d/.git");
    assert_eq!(rig.pass(2000), ["offer d/a", "left out d/.git"]);
    rig.deliver("d/a");
    assert_eq!(rig.pass(100_000), NOTHING);
    assert_eq!(rig.outbox.undelivered(9).1, 0);
    rig.remove("d/.git");
    assert_eq!(rig.pass(10_000), ["resolved d/.git", "leave d (2)"]);
}

#[test]
fn what_cannot_leave_is_tried_again_later() {
    let mut rig = rig();
    rig.write("message");
    rig.run();
    rig.deliver("message");
    rig.now += Duration::from_millis(20);
    assert!(matches!(rig.outbox.next(rig.now), Some(Action::Leave(_))));
    rig.outbox.stays("message", rig.now);
    assert_eq!(rig.pass(1999), NOTHING);
    assert_eq!(rig.pass(1), ["leave message (1)"]);
}

#[test]
fn what_came_back_is_not_sent_again_unless_it_changed() {
    let mut rig = rig();
    rig.mkdir("d");
    rig.write("d/a");
    rig.write("d/b");
    rig.pass(2000);
    rig.deliver("d/a");
    rig.deliver("d/b");
    let members: Vec<_> = rig.stats.iter().map(|(path, stat)| (Arc::from(path.as_str()), *stat)).collect();
    assert_eq!(rig.pass(20_000), ["leave d (3)"]);
    rig.outbox.restored(&members, rig.now);
    rig.write("d/b");
    assert_eq!(rig.pass(500), ["offer d/b"]);
    rig.deliver("d/b");
    assert_eq!(rig.pass(10_000), ["leave d (3)"]);
}

#[test]
fn ignored_names_are_reported_once_and_only_if_they_last() {
    let mut rig = rig();
    rig.write("a.txt.tmp");
    rig.rename("a.txt.tmp", "a.txt");
    rig.write(".hidden");
    assert_eq!(rig.pass(10_000), ["offer a.txt", "left out .hidden"]);
    rig.write(".hidden");
    assert_eq!(rig.pass(10_000), NOTHING);
}

#[test]
fn a_name_left_out_for_its_content_is_tried_again_when_it_changes() {
    let mut rig = rig();
    rig.write("a");
    let stat = rig.stats["a"];
    rig.now += Duration::from_millis(500);
    let Some(Action::Prepare(ticket)) = rig.outbox.next(rig.now) else { panic!("it is due") };
    rig.outbox.prepared(&ticket, Prepared::LeftOut("unreadable".to_owned()), rig.now);
    rig.outbox.touch("a", stat, Sign::Seen, rig.now);
    assert_eq!(rig.pass(5000), ["left out a"]);
    rig.write("a");
    assert_eq!(rig.pass(500), ["resolved a", "offer a"]);
}

#[test]
fn finish_offers_what_settles_and_then_says_so() {
    let mut rig = rig();
    rig.outbox.credit = 1;
    rig.write("a");
    rig.mkdir("d");
    rig.put("open", Node::File, 3, Sign::Seen);
    rig.open.insert("open".to_owned());
    rig.outbox.finish(rig.now);
    assert_eq!(rig.run(), ["offer a"]);
    rig.outbox.allow(5);
    assert_eq!(rig.run(), ["offer d", "idle"]);
    rig.outbox.finish(rig.now);
    assert_eq!(rig.run(), ["idle"]);
}

#[test]
fn entries_are_bounded_and_looked_for_again() {
    let mut rig = rig();
    rig.outbox.credit = 0;
    let stat = rig.stat("d/0", Node::File, 1);
    for n in 0..=MAX_ENTRIES {
        rig.outbox.touch(&format!("d/{n}"), stat, Sign::Complete, rig.now);
    }
    assert_eq!(rig.outbox.entries.len(), MAX_ENTRIES);
    assert_eq!(rig.run(), [format!("left out d/{MAX_ENTRIES}")]);
    rig.outbox.gone("d", rig.now);
    assert!(rig.outbox.entries.is_empty());
    for n in 0..2 {
        rig.outbox.touch(&n.to_string(), stat, Sign::Complete, rig.now);
    }
    rig.outbox.gone("0", rig.now);
    assert_eq!(rig.run(), [format!("resolved d/{MAX_ENTRIES}"), "rescan".to_owned()]);
}

#[test]
fn a_directory_with_more_than_can_be_known_stays_and_is_named() {
    let mut rig = rig();
    rig.mkdir("d");
    rig.write("d/sent");
    rig.pass(500);
    rig.deliver("d/sent");
    let stat = rig.stat("e", Node::File, 1);
    for n in 2..MAX_ENTRIES {
        rig.outbox.touch(&format!("e/{n}"), stat, Sign::Complete, rig.now);
        rig.outbox.set_state(&format!("e/{n}"), State::Delivered, rig.now);
    }
    rig.write("d/beyond");
    assert_eq!(rig.run(), ["left out d/beyond"]);
    assert!(rig.pass(20_000).is_empty(), "the directory left with what was never sent");
    assert_eq!(rig.outbox.undelivered(9), (vec!["d/beyond".to_owned()], 1));
    assert!(rig.outbox.flush("token".to_owned(), &mut |_| false));
    let answer = rig.outbox.next_answer().unwrap();
    assert_eq!((answer.failed_count, answer.failed[0].0.as_str()), (1, "d/beyond"));
    // There is room again: what was beyond is found, sent, and leaves with the rest.
    rig.outbox.gone("e", rig.now);
    assert_eq!(rig.run(), ["resolved d/beyond", "rescan"]);
    rig.write("d/beyond");
    rig.pass(500);
    rig.deliver("d/beyond");
    assert_eq!(rig.pass(10_000), ["leave d (3)"]);
    assert_eq!(rig.outbox.undelivered(9).1, 0);
}

#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut rig = rig();
    rig.mkdir("d");
    for n in 0..50 {
        rig.write(&format!("d/{n}"));
        rig.write(&format!("{n}.msg"));
    }
    rig.pass(3000);
    for path in rig.ids.keys().cloned().collect::<Vec<_>>() {
        rig.deliver(&path);
    }
    rig.pass(20_000);
    let outbox = &rig.outbox;
    assert!(outbox.entries.is_empty() && outbox.offers.is_empty() && outbox.timers.is_empty());
    assert!(outbox.ready.iter().all(BTreeMap::is_empty) && outbox.deadline().is_none());
    assert_eq!(outbox.unoffered, 0);
}

#[test]
fn another_content_under_the_same_identity_is_sent_when_it_is_told() {
    let mut rig = rig();
    rig.write("message");
    rig.run();
    let stat = rig.stats["message"];
    assert_eq!(rig.outbox.mark("message"), Some((stat.identity, 7)));
    rig.outbox.doubt("message");
    rig.outbox.touch("message", stat, Sign::Complete, rig.now);
    assert_eq!(rig.run(), ["text message"]);
}

#[test]
fn what_takes_long_to_open_holds_nothing_back_and_is_void_when_it_changed() {
    let mut rig = rig();
    rig.outbox.credit = 2;
    rig.put("slow", Node::Link, 20, Sign::Complete);
    let Some(Action::Prepare(first)) = rig.outbox.next(rig.now) else { panic!("it is due") };
    rig.write("a.msg");
    rig.write("b.msg");
    assert_eq!(rig.run(), ["text a.msg"]);
    assert_eq!(rig.outbox.undelivered(9).1, 3);
    // It changes before there is an answer: what it took is free, and its answer means nothing.
    rig.put("slow", Node::Link, 21, Sign::Complete);
    let identity = first.identity;
    rig.outbox.prepared(&first, Prepared::Offered { identity, mark: None }, rig.now);
    assert_eq!(rig.run(), ["text b.msg"]);
    rig.outbox.allow(1);
    let Some(Action::Prepare(second)) = rig.outbox.next(rig.now) else { panic!("it is due") };
    assert!(!rig.outbox.is_preparing(&first) && rig.outbox.is_preparing(&second));
    let identity = second.identity;
    rig.outbox.prepared(&second, Prepared::Offered { identity, mark: None }, rig.now);
    rig.outbox.outcome(second.entry, Outcome::Delivered, rig.now);
    assert_eq!(rig.run(), ["leave slow (1)"]);
    assert_eq!(rig.outbox.credit, 0);
}
