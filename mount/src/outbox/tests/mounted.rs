//! What the FUSE back end, which sees every close, asks for beyond the other.

use super::*;

fn mounted() -> Rig {
    let mut rig = rig();
    rig.outbox = Outbox::new(Rules::FUSE);
    rig.outbox.allow(1000);
    rig
}

#[test]
fn a_mounted_outbox_has_times_of_its_own() {
    let mut rig = mounted();
    rig.write("a.bin");
    assert_eq!(rig.pass(199), NOTHING);
    assert_eq!(rig.pass(1), ["offer a.bin"]);
    rig.put("l", Node::Link, 0, Sign::Complete);
    assert_eq!(rig.run(), ["offer l"]);
    rig.put("made", Node::Link, 0, Sign::Seen);
    assert_eq!(rig.pass(19), NOTHING, "`ln -sf` renames it");
    assert_eq!(rig.pass(1), ["offer made"]);
    rig.put("mkstemp", Node::File, 5, Sign::Held);
    assert_eq!(rig.pass(1999), NOTHING);
    assert_eq!(rig.pass(1), ["offer mkstemp"]);
    rig.put("held", Node::File, 5, Sign::Held);
    rig.rename("held", "now.msg");
    assert_eq!(rig.run(), ["text now.msg"]);
    rig.deliver("now.msg");
    assert_eq!(rig.run(), ["leave now.msg (1)"], "a text stays for nothing");
}

#[test]
fn a_text_that_was_set_apart_keeps_its_place_and_its_name() {
    let mut rig = rig();
    rig.outbox = Outbox::new(Rules::FUSE);
    for round in 0..3 {
        rig.write("message");
        rig.write(&format!("{round}.msg"));
        assert!(rig.outbox.set_apart("message", rig.now).is_some());
        assert_eq!(rig.outbox.set_apart("message", rig.now), None, "it is not there any more");
    }
    rig.write("a.bin");
    assert_eq!(rig.outbox.set_apart("a.bin", rig.now), None, "a file has one content");
    assert_eq!(rig.outbox.undelivered(9).0.iter().filter(|name| *name == "message").count(), 3);
    assert!(rig.outbox.flush("f".to_owned(), &mut |_| false));
    rig.outbox.allow(1000);
    // The paths of the rig know only the last content of a name.
    let mut names = Vec::new();
    let mut ids = Vec::new();
    while let Some(action) = rig.outbox.next(rig.now) {
        let Action::Prepare(ticket) = action else { panic!("{action:?}") };
        names.push(name_of(&ticket.path).to_owned());
        ids.push(ticket.entry);
        let identity = ticket.identity;
        rig.outbox.prepared(&ticket, Prepared::Offered { identity, mark: None }, rig.now);
    }
    assert_eq!(names, ["message", "0.msg", "message", "1.msg", "message", "2.msg"]);
    for id in ids {
        rig.outbox.outcome(id, Outcome::Refused("no".to_owned()), rig.now);
    }
    rig.remove("a.bin");
    let Some(Action::Answer(answer)) = rig.outbox.next(rig.now) else { panic!("no answer") };
    assert_eq!(answer.failed.iter().filter(|(name, _)| name == "message").count(), 3);
}

#[test]
fn what_still_waits_is_no_message_yet_and_is_not_set_apart() {
    let mut rig = mounted();
    for (name, size, sign) in [("touched.msg", 0, Sign::Complete), ("mkstemp.msg", 5, Sign::Held)] {
        rig.put(name, Node::File, size, sign);
        assert_eq!(rig.outbox.set_apart(name, rig.now), None, "{name}");
        rig.write(name);
        assert_eq!(rig.pass(5000), [format!("text {name}")]);
    }
}

#[test]
fn a_text_that_was_set_apart_and_is_not_taken_leaves_nothing_behind() {
    for outcome in [Outcome::Refused("no".to_owned()), Outcome::Cancelled] {
        let mut rig = rig();
        rig.outbox = Outbox::new(Rules::FUSE);
        rig.write("message");
        let key = rig.outbox.set_apart("message", rig.now).unwrap();
        rig.outbox.allow(1);
        let Some(Action::Prepare(ticket)) = rig.outbox.next(rig.now) else { panic!("nothing is due") };
        let identity = ticket.identity;
        rig.outbox.prepared(&ticket, Prepared::Offered { identity, mark: None }, rig.now);
        rig.outbox.outcome(ticket.entry, outcome, rig.now);
        assert_eq!(rig.run(), [format!("leave {key} (1)")]);
        assert!(rig.outbox.flush("f".to_owned(), &mut |_| false));
        assert_eq!(rig.run(), ["answer f []"], "no later flush fails for it");
        assert_eq!(rig.outbox.undelivered(9).1, 0);
    }
}

#[test]
fn rm_cancels_the_texts_that_were_set_apart_too() {
    let mut rig = rig();
    rig.outbox = Outbox::new(Rules::FUSE);
    let mut keys = Vec::new();
    for _ in 0..3 {
        rig.write("message");
        keys.extend(rig.outbox.set_apart("message", rig.now));
    }
    rig.write("message.msg");
    rig.outbox.allow(1);
    let Some(Action::Prepare(ticket)) = rig.outbox.next(rig.now) else { panic!("nothing is due") };
    let identity = ticket.identity;
    rig.outbox.prepared(&ticket, Prepared::Offered { identity, mark: None }, rig.now);
    assert!(rig.outbox.flush("f".to_owned(), &mut |_| false));
    assert_eq!(rig.outbox.removed("message", rig.now), keys);
    assert_eq!(rig.run(), ["withdraw earlier"]);
    assert_eq!(rig.outbox.undelivered(9).0, ["message.msg"]);
    assert_eq!(rig.outbox.removed("message.msg", rig.now).len(), 0);
    assert_eq!(rig.run(), ["answer f []"]);
}

#[test]
fn a_change_of_an_attribute_lets_it_stay_longer() {
    let mut rig = mounted();
    rig.write("a.bin");
    assert_eq!(rig.pass(200), ["offer a.bin"]);
    rig.deliver("a.bin");
    assert_eq!(rig.pass(1700), NOTHING);
    rig.outbox.nudge("a.bin", rig.now);
    assert_eq!(rig.pass(1999), NOTHING);
    assert_eq!(rig.pass(1), ["leave a.bin (1)"]);
    assert_eq!(rig.outbox.standing("a.bin"), None);
}

#[test]
fn an_entry_says_where_it_stands() {
    let mut rig = mounted();
    let word = |rig: &Rig| rig.outbox.standing("a.bin").map(|(word, _)| word);
    assert_eq!(word(&rig), None);
    rig.write("a.bin");
    assert_eq!(rig.outbox.standing("a.bin"), Some(("queued", None)));
    rig.pass(200);
    assert_eq!(rig.outbox.standing("a.bin"), Some(("sending", Some(rig.ids["a.bin"]))));
    rig.outcome("a.bin", Outcome::Refused("no".to_owned()));
    assert_eq!(word(&rig), Some("refused"));
    rig.write("a.bin");
    rig.pass(200);
    rig.deliver("a.bin");
    assert_eq!(word(&rig), Some("delivered"));
    rig.write("a~");
    assert_eq!(rig.outbox.standing("a~"), None);
}

#[test]
fn what_was_reported_as_left_out_is_over_when_it_is_renamed_removed_or_written_again() {
    let mut rig = mounted();
    let leave_out = |rig: &mut Rig, name: &str| {
        rig.stat(name, Node::File, 5);
        rig.outbox.leave_out(name, "no".into(), rig.now);
    };
    leave_out(&mut rig, "secrets/.early");
    rig.rename("secrets/.early", "secrets/EARLY");
    assert_eq!(rig.pass(2000), ["offer secrets/EARLY"], "what was not reported is not taken back");
    for name in ["secrets/.KEY", "a.tmp", "again"] {
        leave_out(&mut rig, name);
    }
    assert_eq!(rig.pass(2000), ["left out secrets/.KEY", "left out a.tmp", "left out again"]);
    rig.rename("secrets/.KEY", "secrets/KEY");
    rig.remove("a.tmp");
    rig.write("again");
    let told = rig.pass(200);
    assert_eq!(told[..3], ["resolved secrets/.KEY", "resolved a.tmp", "resolved again"]);
    assert_eq!(told[3..], ["offer secrets/KEY", "offer again"]);
}
