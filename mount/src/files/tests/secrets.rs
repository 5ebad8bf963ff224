//! The rules of `outbox/secrets/` and `inbox/secrets/`.

use std::time::SystemTime;

use super::*;
use crate::secret::{MAX_SECRET, Secret, SecretName};

fn secret(bytes: &[u8]) -> Secret {
    Secret::copy_of(bytes).unwrap()
}

/// Opens a new file in `outbox/secrets/`.
fn create(rig: &mut Rig, name: &str) -> Result<Fh, FileError> {
    let dir = rig.files.places.secrets_out;
    rig.files.create(dir, name.as_ref(), 0o644, false, false).map(|(_, fh)| fh)
}

/// Bytes of what was complete next, which is a secret.
fn complete(rig: &mut Rig) -> (String, Vec<u8>) {
    loop {
        match rig.files.next_change(rig.now).unwrap() {
            Change::Complete(piece) => {
                let snapshot = piece.snapshot.unwrap();
                assert!(snapshot.content.is_empty(), "nothing of it is in a content of the mailbox");
                return (piece.path, snapshot.secret.unwrap().bytes().to_vec());
            }
            Change::Touched(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_secret_is_written_into_memory_of_its_own_and_never_read_back() {
    let mut rig = rig();
    let fh = create(&mut rig, "KEY").unwrap();
    rig.files.write(fh, (0, b"value"), false, Caller::User, rig.now).unwrap();
    assert!(matches!(rig.files.bytes(fh), Err(FileError::Policy)));
    assert_eq!(rig.open("outbox/secrets/KEY", READING), Err(FileError::Policy));
    rig.close(fh);
    assert_eq!(complete(&mut rig), ("secrets/KEY".to_owned(), b"value".to_vec()));
    let ino = rig.at("outbox/secrets/KEY").unwrap();
    assert_eq!(rig.files.attr(ino).unwrap().size, 0, "nobody is told how long it is");
    // Written again it is another one; what was complete stays what it was.
    let fh = rig.open("outbox/secrets/KEY", TRUNCATING).unwrap();
    rig.files.write(fh, (0, b"other"), false, Caller::User, rig.now).unwrap();
    rig.close(fh);
    assert_eq!(complete(&mut rig).1, b"other");
}

#[test]
fn a_secret_that_is_too_long_or_has_a_wrong_name_is_refused_at_once() {
    let mut rig = rig();
    let fh = create(&mut rig, "KEY").unwrap();
    let long = vec![b'x'; MAX_SECRET];
    rig.files.write(fh, (0, &long), false, Caller::User, rig.now).unwrap();
    let more = rig.files.write(fh, (MAX_SECRET as u64, b"x"), false, Caller::User, rig.now);
    assert_eq!(more, Err(FileError::TooLarge));
    assert_eq!(rig.files.allocate(fh, (0, 10), (false, false)), Err(FileError::Unsupported));
    for name in ["1K", "a b", "ключ", "a\n"] {
        assert_eq!(create(&mut rig, name), Err(FileError::Invalid), "{name}");
    }
    assert!(create(&mut rig, ".KEY.tmp.12.ab").is_ok());
}

#[test]
fn nothing_but_a_secret_is_moved_or_linked_there_and_none_out_of_there() {
    let mut rig = rig();
    rig.put("plain", "x");
    let fh = create(&mut rig, "KEY").unwrap();
    rig.close(fh);
    let (outbox, secrets, now) = (rig.outbox(), rig.files.places.secrets_out, rig.now);
    let mut rename = |from: (Ino, &str), to: (Ino, &str)| {
        let (from, to) = ((from.0, from.1.as_ref()), (to.0, to.1.as_ref()));
        rig.files.rename(from, to, false, Caller::User, now)
    };
    assert_eq!(rename((outbox, "plain"), (secrets, "PLAIN")), Err(FileError::CrossDevice));
    assert_eq!(rename((secrets, "KEY"), (outbox, "key")), Err(FileError::Policy));
    assert_eq!(rename((secrets, "KEY"), (secrets, "1")), Err(FileError::Invalid));
    assert_eq!(rename((secrets, "KEY"), (secrets, "OTHER")), Ok(()));
    assert_eq!(rename((outbox, "secrets"), (outbox, "x")), Err(FileError::Policy));
    let (plain, key) = (rig.at("outbox/plain").unwrap(), rig.at("outbox/secrets/OTHER").unwrap());
    assert_eq!(rig.files.link(plain, secrets, "L".as_ref(), now).unwrap_err(), FileError::Policy);
    assert_eq!(rig.files.link(key, outbox, "l".as_ref(), now).unwrap_err(), FileError::Policy);
    assert_eq!(rig.files.symlink(secrets, "L".as_ref(), "x".as_ref()).unwrap_err(), FileError::Policy);
    let made = rig.files.mkdir(secrets, "D".as_ref(), 0o700, Caller::User);
    assert_eq!(made.unwrap_err(), FileError::Policy);
}

#[test]
fn the_directories_of_secrets_are_listed_while_something_is_in_them() {
    let mut rig = rig();
    let listed = |rig: &Rig| rig.files.list(rig.outbox(), 0).unwrap().len();
    assert_eq!(listed(&rig), 0);
    assert!(rig.files.lookup(rig.outbox(), "secrets".as_ref(), Caller::User).is_ok());
    let name = SecretName::parse("KEY").unwrap();
    rig.files.send_secret(&name, secret(b"value"), rig.now).unwrap();
    assert_eq!((listed(&rig), complete(&mut rig).1), (1, b"value".to_vec()));
    assert_eq!(rig.files.send_secret(&name, secret(b""), rig.now), Err(FileError::Invalid));
    rig.files.send_secret(&name, secret(b"other"), rig.now).unwrap();
    assert_eq!(complete(&mut rig).1, b"other");
}

#[test]
fn a_secret_that_arrived_has_a_name_and_is_read_once_it_is_unlocked() {
    let mut rig = rig();
    let vault = SharedVault::default();
    rig.files.use_vault(Arc::clone(&vault));
    let lock = || crate::secret::lock_vault(&vault);
    let put = |bytes| lock().put(1, "KEY", secret(bytes), (Instant::now(), SystemTime::now())).unwrap();
    put(b"value");
    let dir = rig.files.places.secrets_in;
    let look = |rig: &mut Rig| rig.files.lookup(dir, "KEY".as_ref(), Caller::User);
    let found = look(&mut rig).unwrap();
    assert_eq!((found.attr.size, found.attr.mode, found.ttl), (0, 0o400, Duration::ZERO));
    assert_eq!(rig.open("inbox/secrets/KEY", READING), Err(FileError::Policy));
    assert_eq!(rig.open("inbox/secrets/KEY", NOW), Err(FileError::Policy));
    let name = SecretName::parse("KEY").unwrap();
    lock().unlock(&name).unwrap();
    let fh = rig.open("inbox/secrets/KEY", READING).unwrap();
    let Bytes::Secret(bytes) = rig.files.bytes(fh).unwrap() else { panic!() };
    assert_eq!(bytes.bytes(), b"value");
    // Another one of its name is locked, and the old one is not read any more by whoever has it open.
    put(b"other");
    assert!(matches!(rig.files.bytes(fh), Err(FileError::Policy)));
    assert_ne!(look(&mut rig).unwrap().attr.ino, found.attr.ino);
    assert_eq!(rig.open("inbox/secrets/KEY", READING), Err(FileError::Policy));
    // Its owner throws it away.
    rig.files.unlink(dir, "KEY".as_ref(), Caller::User, rig.now).unwrap();
    assert_eq!(lock().waiting().count(), 0);
    assert_eq!(look(&mut rig).unwrap_err(), FileError::Missing);
}

#[test]
fn a_directory_of_the_peer_does_not_get_between_the_secrets() {
    let mut rig = rig();
    let parts = ["secrets".to_owned(), "KEY".to_owned()];
    let (way, name) = rig.files.choose(&parts, false).unwrap();
    assert_eq!((way, name.as_str()), (vec!["secrets-2".to_owned()], "KEY"));
}

#[test]
fn a_secret_takes_the_place_of_one_of_its_name_although_there_is_no_room_for_another() {
    let mut rig = rig();
    let mut send =
        |name: &str| rig.files.send_secret(&SecretName::parse(name).unwrap(), secret(b"value"), rig.now);
    let sent = (0..1000).take_while(|n| send(&format!("K{n}")).is_ok()).count();
    assert_eq!((sent, send("K256"), send("K0")), (256, Err(FileError::NoSpace), Ok(())));
}
