//! What a flush waits for.

use super::*;

#[test]
fn flush_of_nothing_is_answered_at_once() {
    let mut rig = rig();
    assert!(rig.outbox.flush("t".to_owned(), &mut |_| false));
    assert_eq!(rig.run(), ["answer t []"]);
}

#[test]
fn flush_waits_for_what_settles_and_for_what_is_on_its_way() {
    let mut rig = rig();
    rig.write("message");
    rig.run();
    rig.write("a");
    rig.outbox.flush("t".to_owned(), &mut |_| false);
    rig.write("later");
    assert_eq!(rig.pass(500), ["offer a", "offer later"]);
    rig.deliver("message");
    assert_eq!(rig.pass(20), ["leave message (1)"]);
    rig.deliver("a");
    assert_eq!(rig.run(), ["answer t []"]);
}

#[test]
fn flush_follows_rewrites_and_renames_and_forgets_what_is_removed() {
    let mut rig = rig();
    rig.write("a");
    rig.write("b");
    rig.pass(500);
    rig.outbox.flush("t".to_owned(), &mut |_| false);
    rig.write("a");
    rig.rename("a", "c");
    rig.remove("b");
    rig.outcome("a", Outcome::Cancelled);
    rig.outcome("b", Outcome::Cancelled);
    assert_eq!(rig.pass(500), ["withdraw a", "withdraw b", "offer c"]);
    rig.deliver("c");
    assert_eq!(rig.run(), ["answer t []"]);
}

#[test]
fn flush_names_what_was_refused_and_what_nobody_can_confirm() {
    let mut rig = rig();
    rig.write("a");
    rig.write("b");
    rig.pass(500);
    rig.outcome("a", Outcome::Refused("too large".to_owned()));
    rig.outbox.flush("t".to_owned(), &mut |_| false);
    rig.outcome("b", Outcome::Sent);
    assert_eq!(
        rig.run(),
        [r#"answer t [("a", "too large"), ("b", "the peer's version gives no receipts")]"#]
    );
}

#[test]
fn flush_does_not_wait_for_what_is_being_written_nor_without_end() {
    let mut rig = rig();
    rig.put("open", Node::File, 3, Sign::Seen);
    assert!(rig.outbox.flush("t".to_owned(), &mut |path| path == "open"));
    assert_eq!(rig.run(), ["answer t []"]);
    rig.write("a");
    for n in 0..MAX_FLUSHES {
        assert!(rig.outbox.flush(n.to_string(), &mut |_| false));
    }
    assert!(!rig.outbox.flush("one too many".to_owned(), &mut |_| false));
    rig.outbox.forget_flush("3");
    assert!(rig.outbox.flush("again".to_owned(), &mut |_| false));
}

#[test]
fn flush_ends_with_names_when_the_channel_ends() {
    let mut rig = rig();
    rig.write("message");
    rig.run();
    rig.write("a");
    rig.outbox.flush("t".to_owned(), &mut |_| false);
    let answers = rig.outbox.abandon_flushes("closed");
    let closed = |name: &str| (name.to_owned(), "closed".to_owned());
    assert_eq!(answers[0].failed, [closed("a"), closed("message")]);
    assert_eq!(rig.run(), NOTHING);
}

#[test]
fn a_left_out_name_is_not_a_false_receipt() {
    let mut rig = rig();
    rig.write("a");
    rig.outbox.flush("t".to_owned(), &mut |_| false);
    rig.rename("a", "a~");
    assert_eq!(rig.run(), [r#"answer t [("a", "an editor's backup")]"#]);
}
