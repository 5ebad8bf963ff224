//! What leaves the outbox, and what must not.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

use crate::fixture::{each, only, until};

#[test]
fn a_delivered_file_leaves() {
    each(|fixture| {
        fixture.write("a.bin", "x");
        let offer = fixture.offer();
        assert_eq!(fixture.mailbox.undelivered(9), (vec!["a.bin".to_owned()], 1));
        fixture.deliver(&offer);
        fixture.until_gone("a.bin");
        // What left is not seen as removed by its owner.
        fixture.nothing_more();
    });
}

#[test]
fn a_file_that_somebody_is_writing_again_comes_back_and_goes_again() {
    each(|fixture| {
        fixture.write("message", "one\n");
        let offer = fixture.offer();
        let mut open = OpenOptions::new().read(true).append(true).open(fixture.outbox("message")).unwrap();
        fixture.deliver(&offer);
        // It may leave and come back: whoever has it open loses nothing.
        open.write_all(b"two\n").unwrap();
        drop(open);
        let offer = fixture.offer();
        assert_eq!((offer.name.as_str(), offer.size), ("message", Some(8)));
        fixture.deliver(&offer);
        fixture.until_gone("message");
    });
}

#[test]
fn a_text_in_the_place_of_one_that_comes_back_keeps_its_name() {
    only("dir", |fixture| {
        fixture.write("message", "one\n");
        let offer = fixture.offer();
        let mut open = OpenOptions::new().append(true).open(fixture.outbox("message")).unwrap();
        fixture.deliver(&offer);
        fixture.until_gone("message");
        fixture.write("message", "new\n");
        let new = fixture.offer();
        assert_eq!(new.size, Some(4));
        open.write_all(b"two\n").unwrap();
        drop(open);
        let back = fixture.offer();
        assert_eq!((back.name.as_str(), back.size), ("message-2.msg", Some(8)));
        fixture.deliver(&new);
        fixture.deliver(&back);
        fixture.until_gone("message");
        fixture.until_gone("message-2.msg");
    });
}

#[test]
fn a_file_whose_time_was_changed_after_the_offer_goes_again() {
    only("dir", |fixture| {
        fixture.write("a.bin", "x");
        let offer = fixture.offer();
        let file = fs::File::options().write(true).open(fixture.outbox("a.bin")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(5)).unwrap();
        drop(file);
        assert_eq!(fixture.withdrawn(), offer.entry);
        let again = fixture.offer();
        fixture.deliver(&again);
        fixture.until_gone("a.bin");
    });
}

#[test]
fn a_file_whose_time_was_changed_after_the_offer_stays_two_seconds_more() {
    only("fuse", |fixture| {
        fixture.write("a.bin", "x");
        let offer = fixture.offer();
        fixture.deliver(&offer);
        let file = fs::File::options().write(true).open(fixture.outbox("a.bin")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(5)).unwrap();
        drop(file);
        let changed = Instant::now();
        fixture.until_gone("a.bin");
        assert!(changed.elapsed() >= Duration::from_millis(1900), "{:?}", changed.elapsed());
        fixture.nothing_more();
    });
}

#[test]
fn what_somebody_has_open_does_not_leave() {
    only("fuse", |fixture| {
        fixture.write("message", "one\n");
        fixture.sh("mkdir d; echo x > d/a");
        let mut reader = fs::File::open(fixture.outbox("message")).unwrap();
        let inside = fs::File::open(fixture.outbox("d")).unwrap();
        for offer in fixture.offers(2) {
            fixture.deliver(&offer);
        }
        fixture.write("mark.bin", "x");
        let mark = fixture.offer();
        fixture.deliver(&mark);
        // It is due later than what is open.
        fixture.until_gone("mark.bin");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
        assert!(fixture.outbox("message").exists() && fixture.outbox("d/a").exists());
        drop((reader, inside));
        fixture.until_gone("message");
        fixture.until_gone("d");
    });
}

#[test]
fn a_reader_keeps_what_it_opened() {
    only("dir", |fixture| {
        fixture.write("message", "one\n");
        let offer = fixture.offer();
        let mut reader = fs::File::open(fixture.outbox("message")).unwrap();
        fixture.deliver(&offer);
        fixture.until_gone("message");
        let resting = fixture.channel().join(".leaving");
        until(&resting, || fs::read_dir(&resting).unwrap().next().is_none());
        let mut text = String::new();
        reader.rewind().unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
    });
}

#[test]
fn a_directory_leaves_whole() {
    each(|fixture| {
        fixture.sh("mkdir -p d/e; echo 1 > d/a; echo 2 > d/e/b");
        for offer in fixture.offers(2) {
            fixture.deliver(&offer);
        }
        fixture.until_gone("d");
        if fixture.name == "fuse" {
            return;
        }
        let resting = fixture.channel().join(".leaving");
        until(&resting, || fs::read_dir(&resting).unwrap().next().is_none());
    });
}
