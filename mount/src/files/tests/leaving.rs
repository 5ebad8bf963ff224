//! What is taken out, given back, or already gone when it is looked for again.

use super::*;

fn used(rig: &Rig) -> u64 {
    rig.files.outbox_quota.used()
}

/// A directory with a directory with a file, all of it known to the kernel and read-only.
fn read_only_tree(rig: &mut Rig) -> Ino {
    let outbox = rig.outbox();
    let top = rig.files.mkdir(outbox, "d".as_ref(), 0o755, Caller::User).unwrap().attr.ino;
    let below = rig.files.mkdir(top, "e".as_ref(), 0o755, Caller::User).unwrap().attr.ino;
    let (_, fh) = rig.files.create(below, "f".as_ref(), 0o644, false, false).unwrap();
    rig.write(fh, &"x".repeat(200_000));
    rig.close(fh);
    for dir in [top, below] {
        let set = SetAttr { mode: Some(0o500), ..SetAttr::default() };
        rig.files.set_attr(dir, set, Caller::User, rig.now).unwrap();
    }
    drop(rig.changes());
    top
}

fn grant_tree(rig: &mut Rig, top: Ino) -> Way {
    let members = rig.files.pieces(top).into_iter().map(|piece| (piece.path.into(), piece.stat)).collect();
    rig.files.grant(Leaving { path: "d".into(), members }).unwrap()
}

#[test]
fn the_bell_may_move_and_empty_what_its_owner_made_read_only() {
    let mut rig = rig();
    let top = read_only_tree(&mut rig);
    let below = rig.at("outbox/d/e").unwrap();
    assert_eq!(rig.files.attr(top).unwrap().mode, 0o500);
    let Way::Rename(_, to) = grant_tree(&mut rig, top) else { panic!("no rename") };
    assert_eq!(rig.files.attr(top).unwrap().mode, 0o700);
    rig.files.revoke();
    assert_eq!(rig.files.attr(top).unwrap().mode, 0o500, "it stayed");
    assert!(matches!(grant_tree(&mut rig, top), Way::Rename(..)));
    let (outbox, leaving, now) = (rig.outbox(), rig.files.places.leaving, rig.now);
    let to = (leaving, to.strip_prefix(".leaving/").unwrap().as_ref());
    rig.files.rename((outbox, "d".as_ref()), to, true, Caller::Bell, now).unwrap();
    rig.files.revoke();
    assert_eq!([top, below].map(|dir| rig.files.attr(dir).unwrap().mode), [0o700; 2]);
}

#[test]
fn what_leaves_takes_no_room_although_the_kernel_remembers_it() {
    for by_the_bell in [false, true] {
        let mut rig = rig();
        let top = read_only_tree(&mut rig);
        assert!(used(&rig) > 200_000);
        let way = grant_tree(&mut rig, top);
        if let (true, Way::Rename(_, to)) = (by_the_bell, way) {
            let (outbox, leaving, now) = (rig.outbox(), rig.files.places.leaving, rig.now);
            let name = to.strip_prefix(".leaving/").unwrap();
            let new = (leaving, name.as_ref());
            rig.files.rename((outbox, "d".as_ref()), new, true, Caller::Bell, now).unwrap();
            rig.files.revoke();
            rig.files.discard(&to);
        } else {
            assert!(rig.files.leave_without_bell());
        }
        drop(rig.files.take_gone());
        assert_eq!(used(&rig), 0, "by the bell: {by_the_bell}");
        assert!(rig.files.attr(top).is_ok(), "the kernel knows it still");
    }
}

#[test]
fn a_directory_that_was_removed_while_it_was_open_takes_no_room() {
    let mut rig = rig();
    let (outbox, now) = (rig.outbox(), rig.now);
    let dir = rig.files.mkdir(outbox, "d".as_ref(), 0o755, Caller::User).unwrap().attr.ino;
    let fh = rig.files.open_dir(dir).unwrap();
    rig.files.rmdir(outbox, "d".as_ref(), Caller::User, now).unwrap();
    assert_eq!(used(&rig), NODE_COST);
    rig.files.release_dir(fh);
    assert_eq!(used(&rig), 0);
}

#[test]
fn what_its_owner_removed_before_a_dead_bell_was_noticed_does_not_come_back() {
    let mut rig = rig();
    let mut content = rig.files.incoming();
    content.write_at(0, b"theirs").unwrap();
    let staged = rig.files.stage_file(content, false, None).unwrap();
    let (incoming, inbox, now) = (rig.files.places.incoming, rig.files.places.inbox, rig.now);
    let from = (incoming, staged.name.as_ref());
    rig.files.rename(from, (inbox, "a".as_ref()), true, Caller::Bell, now).unwrap();
    rig.files.unlink(inbox, "a".as_ref(), Caller::User, now).unwrap();
    assert!(!rig.files.is_placed(&staged));
    rig.files.place_without_bell(&staged, &[], "a").unwrap();
    assert_eq!(rig.at("inbox/a"), None);
    let names: Vec<_> = rig.files.list(inbox, 0).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["messages", "ask", "answer", "log.jsonl"]);
}
