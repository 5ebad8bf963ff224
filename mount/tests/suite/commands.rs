//! What other processes do by files only: post, flush, close.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_wormhole_mount::client::{FlushError, PostError, flush, post_link, post_text, request_close};
use agent_wormhole_mount::{Ctl, Kind, MAX_TEXT, Outcome};

use crate::fixture::{Body, Fixture, LONG, each};

fn flush_now(fixture: &Fixture) -> Result<(), FlushError> {
    flush(&fixture.channel(), Instant::now() + LONG, &|| true)
}

#[test]
fn posted_texts_arrive_in_order() {
    each(|fixture| {
        let names: Vec<_> = (0..20).map(|n| post_text(&fixture.channel(), &n.to_string()).unwrap()).collect();
        assert!(names.is_sorted());
        for (n, name) in names.iter().enumerate() {
            let offer = fixture.offer();
            assert_eq!((offer.kind, &offer.name), (Kind::Text, name));
            assert_eq!(offer.content, Body::Bytes(n.to_string().into_bytes()));
        }
        fixture.nothing_more();
        let long = "a".repeat(usize::try_from(MAX_TEXT).unwrap() + 1);
        assert!(matches!(post_text(&fixture.channel(), &long), Err(PostError::TooLong(_))));
        assert!(matches!(post_text(fixture.home.path(), "x"), Err(PostError::NoChannel(_))));
    });
}

#[test]
fn posted_links_replace_links_and_nothing_else() {
    each(|fixture| {
        fs::write(fixture.home("a"), "one").unwrap();
        fs::write(fixture.home("b"), "two").unwrap();
        let post = |target: &str, name: &str| post_link(&fixture.channel(), &fixture.home(target), name);
        post("a", "x").unwrap();
        let first = fixture.offer();
        post("b", "x").unwrap();
        assert_eq!(fixture.withdrawn(), first.entry);
        assert_eq!(fixture.offer().content, Body::Bytes(b"two".to_vec()));
        fixture.write("taken.txt", "mine");
        assert!(matches!(post("a", "taken.txt"), Err(PostError::Taken(_))));
        assert_eq!(fs::read(fixture.outbox("taken.txt")).unwrap(), b"mine");
        for name in ["", ".", "..", "a/b", ".env", "a.tmp", ".git"] {
            assert!(matches!(post("a", name), Err(PostError::BadName { .. })), "{name}");
        }
        assert!(matches!(post("nothing", "y"), Err(PostError::Target { .. })));
        let hidden = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().to_str().unwrap().starts_with('.')
        };
        assert!(!fs::read_dir(fixture.outbox("")).unwrap().any(hidden));
    });
}

#[test]
fn close_is_a_word_for_ctl() {
    each(|fixture| {
        request_close(&fixture.channel(), false).unwrap();
        assert_eq!(fixture.ctl(), Ctl::Close);
        request_close(&fixture.channel(), true).unwrap();
        assert_eq!(fixture.ctl(), Ctl::CloseNow);
        assert!(matches!(request_close(Path::new("/nonexistent"), true), Err(PostError::NoChannel(_))));
    });
}

#[test]
fn flush_of_an_empty_outbox_returns() {
    each(|fixture| {
        flush_now(fixture).unwrap();
        assert_eq!(fs::read_dir(fixture.channel().join(".flush")).unwrap().count(), 0);
    });
}

#[test]
fn flush_waits_for_what_settles_until_the_peer_has_it() {
    each(|fixture| {
        let done = AtomicBool::new(false);
        fixture.write("message", "hi");
        fixture.write("a.bin", "x");
        fixture.sh("mkdir d; echo y > d/b");
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| {
                let result = flush_now(fixture);
                done.store(true, Ordering::SeqCst);
                result
            });
            for offer in fixture.offers(3) {
                assert!(!done.load(Ordering::SeqCst), "before {}", offer.name);
                fixture.deliver(&offer);
            }
            flushing.join().unwrap().unwrap();
        });
    });
}

#[test]
fn flush_names_what_was_not_stored() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| flush_now(fixture));
            let offer = fixture.offer();
            fixture.mailbox.settle(offer.entry, Outcome::Refused("too large".to_owned()));
            match flushing.join().unwrap() {
                Err(FlushError::NotStored { failed, count: 1 }) => {
                    assert_eq!(failed, [("a.bin".to_owned(), "too large".to_owned())]);
                }
                result => panic!("{result:?}"),
            }
        });
    });
}

#[test]
fn flush_ends_with_its_time() {
    each(|fixture| {
        fixture.write("message", "x");
        let result = flush(&fixture.channel(), Instant::now() + Duration::from_millis(50), &|| true);
        assert!(matches!(result, Err(FlushError::Late(names)) if names == ["message"]));
        assert_eq!(fs::read_dir(fixture.channel().join(".flush")).unwrap().count(), 0);
    });
}

#[test]
fn flush_ends_with_the_channel() {
    each(|fixture| {
        fixture.write("message", "x");
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| flush_now(fixture));
            let requests = fixture.channel().join(".flush");
            crate::fixture::until(&requests, || fs::read_dir(&requests).unwrap().count() == 1);
            fixture.mailbox.close().unwrap();
            match flushing.join().unwrap() {
                // The request may come too late to be seen: then nobody answers it.
                Err(FlushError::NotStored { failed, .. }) => assert_eq!(failed[0].0, "message"),
                result => panic!("{result:?}"),
            }
        });
    });
}

#[test]
fn flush_ends_when_the_mailbox_died() {
    let dead = tempfile::tempdir().unwrap();
    for name in ["outbox", ".flush"] {
        fs::create_dir(dead.path().join(name)).unwrap();
    }
    assert!(matches!(flush(dead.path(), Instant::now() + LONG, &|| false), Err(FlushError::Ended)));
}
