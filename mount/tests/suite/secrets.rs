//! Secrets that are sent, on both back ends.

use agent_wormhole_mount::secret::{Secret, SecretName};
use agent_wormhole_mount::{Kind, OutboxEvent, Outcome, SecretNotSent};

use crate::fixture::{Body, Fixture, each, only};

fn send(fixture: &Fixture, name: &str, bytes: &[u8]) -> Result<(), SecretNotSent> {
    fixture.mailbox.send_secret(SecretName::parse(name).unwrap(), Secret::copy_of(bytes).unwrap())
}

#[test]
fn a_secret_is_offered_and_leaves_when_it_is_delivered() {
    each(|fixture| {
        send(fixture, "KEY", b"value").unwrap();
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["secrets/KEY".to_owned()], 1));
        let offer = fixture.offer();
        assert_eq!((offer.kind, offer.name.as_str()), (Kind::Secret, "KEY"));
        assert_eq!(offer.content, Body::Bytes(b"value".to_vec()));
        fixture.deliver(&offer);
        fixture.nothing_more();
        assert_eq!(fixture.mailbox.undelivered(9), (vec![], 0));
    });
}

#[test]
fn a_secret_sent_again_takes_back_the_one_before() {
    each(|fixture| {
        send(fixture, "KEY", b"wrong").unwrap();
        let wrong = fixture.offer();
        send(fixture, "KEY", b"right").unwrap();
        assert_eq!(fixture.withdrawn(), wrong.entry);
        let right = fixture.offer();
        assert_eq!(right.content, Body::Bytes(b"right".to_vec()));
        fixture.mailbox.settle(wrong.entry, Outcome::Cancelled);
        fixture.deliver(&right);
        fixture.nothing_more();
    });
}

#[test]
fn a_temporary_name_of_a_secret_is_left_out_until_it_has_its_last() {
    only("fuse", |fixture| {
        fixture.write("secrets/.KEY", "value");
        assert!(fixture.left_out("secrets/.KEY").contains("rename it"));
        std::fs::rename(fixture.outbox("secrets/.KEY"), fixture.outbox("secrets/KEY")).unwrap();
        match fixture.arrival().0 {
            OutboxEvent::Resolved { name } => assert_eq!(name, "secrets/.KEY"),
            event => panic!("the end of what was left out, not {event:?}"),
        }
        assert_eq!(fixture.offer().name, "KEY");
    });
}

#[test]
fn an_empty_secret_or_a_temporary_name_is_refused() {
    each(|fixture| {
        assert_eq!(send(fixture, "KEY", b""), Err(SecretNotSent::Empty));
        assert_eq!(send(fixture, "KEY.tmp", b"x"), Err(SecretNotSent::BadName));
        fixture.nothing_more();
    });
}

#[test]
fn in_a_real_directory_no_file_becomes_a_secret() {
    only("dir", |fixture| {
        let path = fixture.outbox("secrets");
        assert!(std::fs::write(path.join("KEY"), "value").is_err());
        fixture.nothing_more();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        fixture.write("secrets/KEY", "value");
        assert!(fixture.left_out("secrets").contains("--secret"));
        // What goes by the socket goes all the same.
        send(fixture, "KEY", b"value").unwrap();
        fixture.deliver(&fixture.offer());
        fixture.nothing_more();
    });
}
