//! Symbolic links in the outbox.

use std::fs;
use std::os::unix::fs::symlink;

use agent_wormhole_mount::{Content, Kind, OutboxEvent, Outcome};

use crate::fixture::{Body, each, read};

#[test]
fn a_link_sends_its_target_under_its_own_name() {
    each(|fixture| {
        fs::write(fixture.home("model.bin"), vec![7; 100_000]).unwrap();
        symlink(fixture.home("model.bin"), fixture.outbox("my model")).unwrap();
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.name.as_str(), offer.size), (Kind::File, "my model", Some(100_000)));
        assert_eq!(offer.content, Body::Bytes(vec![7; 100_000]));
        fixture.deliver(&offer);
        fixture.until_gone("my model");
        assert!(fixture.home("model.bin").exists());
    });
}

#[test]
fn a_linked_text_is_a_file() {
    each(|fixture| {
        fs::write(fixture.home("note"), "hi").unwrap();
        symlink("../../note", fixture.outbox("message")).unwrap();
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.content), (Kind::File, Body::Bytes(b"hi".to_vec())));
    });
}

#[test]
fn a_linked_directory_is_a_group_without_litter_links_and_the_channel_itself() {
    each(|fixture| {
        fixture.sh(
            "mkdir -p ../../p/d/e ../../p/.git; cd ../../p; echo 1 > a; echo 2 > d/.env; echo 3 > d/x.tmp;
            echo 4 > .git/config; ln -s a link; mkfifo d/pipe",
        );
        symlink(fixture.home("p"), fixture.outbox("p")).unwrap();
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.name.as_str()), (Kind::Group, "p"));
        let file = |name: &str, bytes: &[u8]| (name.to_owned(), true, bytes.to_vec());
        let dir = |name: &str| (name.to_owned(), false, Vec::new());
        let members = vec![file("a", b"1\n"), dir("d"), file("d/.env", b"2\n"), dir("d/e")];
        let left_out = [".git", "d/pipe", "d/x.tmp", "link"].map(str::to_owned).to_vec();
        assert_eq!(offer.content, Body::Tree(members, left_out));
        fixture.deliver(&offer);
        fixture.until_gone("p");
        assert!(fixture.home("p/a").exists());

        symlink(fixture.home.path(), fixture.outbox("home")).unwrap();
        let Body::Tree(members, left_out) = fixture.offer().content else { panic!("no group") };
        assert!(members.iter().any(|(name, ..)| name == "p/a"));
        assert!(members.iter().all(|(name, ..)| !name.starts_with("channel")));
        assert!(left_out.contains(&"channel".to_owned()));
    });
}

#[test]
fn links_that_lead_nowhere_are_told() {
    each(|fixture| {
        symlink("../../nowhere", fixture.outbox("dangling")).unwrap();
        symlink(fixture.home("circle"), fixture.home("circle")).unwrap();
        symlink(fixture.home("circle"), fixture.outbox("circle")).unwrap();
        symlink("/dev/null", fixture.outbox("null")).unwrap();
        symlink("/proc/self/status", fixture.outbox("process")).unwrap();
        symlink("..", fixture.outbox("channel")).unwrap();
        symlink("x", fixture.outbox(".#lock")).unwrap();
        assert!(fixture.left_out("dangling").contains("does not exist"));
        assert!(fixture.left_out("circle").contains("circle"));
        assert!(fixture.left_out("null").contains("neither"));
        assert!(fixture.left_out("process").contains("does not tell its size"));
        assert!(fixture.left_out("channel").contains("own directory"));
        assert!(fixture.left_out(".#lock").contains("lock"));
        fixture.nothing_more();
        assert_eq!(fixture.mailbox.undelivered(9).1, 0);
    });
}

#[test]
fn a_target_that_changes_while_it_is_read_is_offered_again() {
    each(|fixture| {
        fs::write(fixture.home("big"), vec![1; 100_000]).unwrap();
        symlink(fixture.home("big"), fixture.outbox("big")).unwrap();
        let OutboxEvent::Offer(offer) = fixture.event() else { panic!("no offer") };
        let Content::Stream(source) = offer.content else { panic!("it is large") };
        fs::write(fixture.home("big"), vec![1; 100_001]).unwrap();
        assert!(read(source).is_err());
        fixture.mailbox.settle(offer.entry, Outcome::Changed);
        assert_eq!(fixture.offer().size, Some(100_001));
    });
}

#[test]
fn a_link_that_ln_replaces_is_never_offered_under_its_temporary_name() {
    each(|fixture| {
        fs::write(fixture.home("a"), "one").unwrap();
        fs::write(fixture.home("b"), "two").unwrap();
        fixture.sh("ln -s ../../a x");
        let first = fixture.offer();
        fixture.sh("ln -sf ../../b x");
        assert_eq!(fixture.withdrawn(), first.entry);
        let second = fixture.offer();
        assert_eq!((second.name.as_str(), second.content), ("x", Body::Bytes(b"two".to_vec())));
        fixture.nothing_more();
    });
}

#[test]
fn rm_of_a_link_cancels_and_a_new_link_sends_again() {
    each(|fixture| {
        fs::write(fixture.home("a"), "x").unwrap();
        symlink(fixture.home("a"), fixture.outbox("a")).unwrap();
        let offer = fixture.offer();
        fs::remove_file(fixture.outbox("a")).unwrap();
        assert_eq!(fixture.withdrawn(), offer.entry);
        symlink(fixture.home("a"), fixture.outbox("a")).unwrap();
        assert_eq!(fixture.offer().name, "a");
    });
}
