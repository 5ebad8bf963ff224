//! `outbox/secrets/` and `inbox/secrets/` of a mount.

use std::io::Write as _;

use rustix::io::Errno;

use super::*;
use crate::fixture::watch;
use crate::fixture::world::Via;

/// What an operation failed with.
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

/// The digest of what a command gets.
fn used(world: &World, end: &End, name: &str) -> String {
    let ended = run(world, end, &["--secret", &format!("{name}=V")], "printf %s \"$V\" | sha256sum");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.out[0].split(' ').next().unwrap().to_owned()
}

#[test]
fn what_is_written_into_the_directory_is_sent_and_cannot_be_read_back() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "fuse");
    let (first, second) = (value(), value());
    let path = pair.host.outbox("secrets/API_KEY");
    let listed = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert_eq!(listed(&pair.host.outbox("")), 0, "an outbox without entries is delivered");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    assert_eq!(errno(fs::read(&path)), Errno::ACCESS);
    assert_eq!(path.metadata().unwrap().len(), 0, "nobody is told how long it is");
    drop(file);
    assert_eq!(errno(fs::read(&path)), Errno::ACCESS);
    arrived(&mut pair.peer, "API_KEY");
    watch::until("it to leave", &pair.host.outbox(""), || (!path.exists()).then_some(()));
    assert_eq!(used(&world, &pair.peer, "API_KEY"), digest(&first));
    // As agents save: under another name first.
    let temporary = pair.host.outbox("secrets/.TOKEN.tmp.123.ab");
    fs::write(&temporary, &second).unwrap();
    fs::rename(&temporary, pair.host.outbox("secrets/TOKEN")).unwrap();
    arrived(&mut pair.peer, "TOKEN");
    assert_eq!(used(&world, &pair.peer, "TOKEN"), digest(&second));
    // `echo` from a shell, appended to.
    world.sh(&pair.host.dir, "printf a > outbox/secrets/TWO; printf b >> outbox/secrets/TWO");
    world.flush(&pair.host);
    assert_eq!(used(&world, &pair.peer, "TWO"), digest("ab"));
    assert_eq!(listed(&pair.host.outbox("")), 0);
    pair.close();
}

#[test]
fn what_cannot_be_a_secret_is_refused_at_once() {
    let world = World::new();
    let pair = world.pair_on(Via::Local, "fuse");
    let dir = pair.host.outbox("secrets");
    for name in ["1K", "a b", "ключ", "$(id)", &"x".repeat(65)] {
        assert_eq!(errno(fs::write(dir.join(name), "x")), Errno::INVAL, "{name}");
    }
    let longest = vec![b'x'; 16 * 1024];
    let mut file = fs::File::create(dir.join(".k.tmp")).unwrap();
    file.write_all(&longest).unwrap();
    assert_eq!(errno(file.write_all(b"x")), Errno::FBIG);
    drop(file);
    fs::remove_file(dir.join(".k.tmp")).unwrap();
    fs::write(pair.host.outbox("plain.swp~"), "x").unwrap();
    assert_eq!(errno(fs::rename(pair.host.outbox("plain.swp~"), dir.join("K"))), Errno::XDEV);
    assert_eq!(errno(fs::hard_link(pair.host.outbox("plain.swp~"), dir.join("K"))), Errno::ACCESS);
    assert_eq!(errno(std::os::unix::fs::symlink("/etc/passwd", dir.join("K"))), Errno::ACCESS);
    assert_eq!(errno(fs::create_dir(dir.join("K"))), Errno::ACCESS);
    assert_eq!(errno(fs::remove_dir(&dir)), Errno::ACCESS);
    assert_eq!(errno(fs::rename(&dir, pair.host.outbox("other"))), Errno::ACCESS);
    fs::write(dir.join(".held"), "x").unwrap();
    assert_eq!(errno(fs::rename(dir.join(".held"), pair.host.outbox("held"))), Errno::ACCESS);
    fs::remove_file(dir.join(".held")).unwrap();
    fs::write(dir.join("EMPTY"), "").unwrap();
    let state = pair.host.until_state("why it is not sent", |state| {
        state["left_out"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "secrets/EMPTY"))
    });
    assert!(state.to_string().contains("it is empty"), "{state}");
    fs::remove_file(dir.join("EMPTY")).unwrap();
    fs::remove_file(pair.host.outbox("plain.swp~")).unwrap();
    pair.close();
}

#[test]
fn rm_takes_back_what_was_not_delivered() {
    let world = World::new();
    let host = world.host(&["--mount", "fuse"]);
    fs::write(host.outbox("secrets/GONE"), value()).unwrap();
    fs::write(host.outbox("secrets/KEPT"), value()).unwrap();
    fs::remove_file(host.outbox("secrets/GONE")).unwrap();
    let mut peer = world.connect(&host.code(), &["--mount", "fuse"]);
    arrived(&mut peer, "KEPT");
    assert!(peer.events.iter().all(|event| event["name"] != "GONE"));
    // Its owner may throw away what arrived, too.
    fs::remove_file(peer.inbox("secrets/KEPT")).unwrap();
    assert_eq!(until_gone(&peer)[0]["why"], "removed");
    let ended = run(&world, &peer, &["--secret", "KEPT"], "echo no");
    assert!(ended.err.contains("was removed"), "{ended:?}");
    host.ctl("close");
    peer.ctl("close");
    host.finish().well();
    peer.finish().well();
}

#[test]
fn an_arrived_secret_is_read_by_nobody_before_a_person_unlocks_it() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "fuse");
    let value = value();
    send(&world, &pair.host, "K", &value);
    arrived(&mut pair.peer, "K");
    let path = pair.peer.inbox("secrets/K");
    let dir = pair.peer.dir.to_str().unwrap();
    assert_eq!(fs::read_dir(pair.peer.inbox("secrets")).unwrap().count(), 1);
    assert_eq!((errno(fs::read(&path)), path.metadata().unwrap().len()), (Errno::ACCESS, 0));
    assert_eq!(errno(fs::write(&path, "x")), Errno::ACCESS);
    assert_eq!(errno(fs::rename(&path, pair.peer.outbox("K"))), Errno::ACCESS);
    assert_eq!(errno(fs::hard_link(&path, pair.peer.outbox("K"))), Errno::ACCESS);
    // No terminal, no unlocking.
    let refused = world.run(&["unlock", dir, "K"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("agent-wormhole run"), "{refused:?}");
    assert_eq!(errno(fs::read(&path)), Errno::ACCESS);
    let program = env!("CARGO_BIN_EXE_agent-wormhole");
    let typed = format!("{program} unlock {dir} K");
    let ended = Process::spawn(world.command_of("script", &["-qec", &typed, "/dev/null"])).finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), value);
    assert_eq!(path.metadata().unwrap().len(), 0);
    // Nothing of it may stay in the page cache.
    let map = "import mmap,os,sys\nf=os.open(sys.argv[1],os.O_RDONLY)\nm=mmap.mmap(f,64,mmap.MAP_PRIVATE,mmap.PROT_READ)\nm[0]";
    let mapped = Process::spawn(world.command_of("python3", &["-c", map, path.to_str().unwrap()])).finish();
    assert_ne!(mapped.code, Some(0), "{mapped:?}");
    assert_eq!(used(&world, &pair.peer, "K"), digest(&value));
    assert_eq!(errno(fs::read(&path)), Errno::NOENT);
    pair.close();
}

#[test]
fn a_receiver_may_choose_to_read_secrets_as_files() {
    let world = World::new();
    let host = world.host(&["--mount", "fuse"]);
    let mut peer = world.connect(&host.code(), &["--mount", "fuse", "--secrets", "readable"]);
    peer.status("connected");
    let value = value();
    fs::write(host.outbox("secrets/K"), &value).unwrap();
    arrived(&mut peer, "K");
    assert_eq!(fs::read_to_string(peer.inbox("secrets/K")).unwrap(), value);
    host.ctl("close");
    host.finish().well();
    peer.status("peer_closed");
    // What the peer sent stays until this end closes.
    assert_eq!(fs::read_to_string(peer.inbox("secrets/K")).unwrap(), value);
    peer.ctl("close");
    peer.finish().well();
}

/// The peer's files stay apart from the secrets, whatever they are called.
#[test]
fn no_file_of_the_peer_gets_between_the_secrets() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "fuse");
    let place = world.path("home").join("x");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("K"), "not a secret").unwrap();
    pair.host.link(&place, "secrets2");
    pair.peer.item("secrets2");
    assert_eq!(fs::read_dir(pair.peer.inbox("secrets")).unwrap().count(), 0);
    pair.close();
}
