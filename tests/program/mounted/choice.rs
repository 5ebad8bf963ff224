//! Which back end a channel gets, where a mount is not to be had for one reason or another, and that it works.

use std::time::{Duration, Instant};

use super::guard::{Guard, is_mounted, until_gone};
use super::processes::until_none;
use super::user::{Device, NAMELESS, NOBODY, Place, Room, is_root};
use crate::fixture::world::Pair;

/// When a killed end's mount has to be gone.
const GONE: Duration = Duration::from_secs(1);
/// A `/dev` without the device.
pub const NO_DEVICE: &str = r#"mount -t tmpfs none "$1"; mkdir "$1/shm"
    for n in null zero random urandom; do : > "$1/$n"; mount --bind "/dev/$n" "$1/$n"; done
    mount --rbind /dev/shm "$1/shm"; mount --move "$1" /dev"#;
/// Something else where the device was.
const NULL_DEVICE: &str = "mount --bind /dev/null /dev/fuse";
/// All programs but those that mount for others.
const NO_HELPER: &str = r#"mount -t tmpfs none "$1"; mkdir "$1/all" "$1/some"
    mount --bind /usr/bin "$1/all"; ln -s "$1/all"/* "$1/some"
    rm "$1/some"/fusermount*; mount --bind "$1/some" /usr/bin"#;

const ROOT: Room = Room { setup: None, user: None, no_new_privs: false, path: None };
const USER: Room = Room { user: Some(NOBODY), ..ROOT };

/// Sends a text each way and closes, with this back end; returns the reason.
fn works(what: &str, room: Room, backend: &str) -> String {
    let place = Place::new(room);
    let _guard = Guard::new(&place.world);
    let host = place.host(&[]);
    let peer = place.connect(&host.code());
    let mut pair = Pair { host, peer, relay: None };
    pair.connected();
    let (channel, dir) = (pair.host.status("channel"), pair.host.dir.clone());
    assert_eq!(channel["backend"], backend, "{what}: {channel}");
    if room.setup.is_none() {
        assert_eq!(is_mounted(&dir), backend == "fuse", "{what}");
    }
    let reason = channel["detail"].as_str().unwrap_or_default().to_owned();
    for end in [&pair.host, &pair.peer] {
        place.sh(&format!("echo said > '{}'", end.outbox("message").display()));
    }
    for end in [&mut pair.host, &mut pair.peer] {
        let event = end.text("said\n");
        assert_eq!(place.read(event["saved_to"].as_str().unwrap().as_ref()), "said");
    }
    let state: serde_json::Value = serde_json::from_str(&place.read(&dir.join("status.json"))).unwrap();
    assert_eq!(
        (&state["backend"], state["backend_why"].as_str()),
        (&backend.into(), channel["detail"].as_str())
    );
    let ended = place.run(&["status", dir.to_str().unwrap()]);
    let line =
        ended.out.iter().find(|line| line.starts_with("mailbox")).unwrap_or_else(|| panic!("{ended:?}"));
    println!("{what}: {line}");
    assert!(line.contains(backend) && line.contains(&reason), "{ended:?}");
    for (end, after) in [(pair.host, "host"), (pair.peer, "peer")] {
        let ended = place.run(&["close", end.dir.to_str().unwrap()]);
        assert_eq!(ended.code, Some(0), "{what}, {after}: {ended:?}");
        end.finish().well();
    }
    until_none(&place.world, GONE);
    place.world.is_clean();
    reason
}

/// Falls back with this in the reason, and with `--mount fuse` ends with an error that has it, too.
fn falls_back(what: &str, room: Room, because: &str) {
    let reason = works(what, room, "dir");
    assert!(reason.contains(because), "{what}: {reason}");
    let place = Place::new(room);
    let _guard = Guard::new(&place.world);
    let ended = place.run(&["host", "--mount", "fuse"]);
    println!("{what}: exit {:?}, {}", ended.code, ended.err.trim());
    assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
    assert!(ended.err.contains("--mount dir"), "{what}: {ended:?}");
    assert_eq!(ended.err.matches(because).count(), reason.matches(because).count(), "{what}: {ended:?}");
    until_none(&place.world, GONE);
    place.world.is_clean();
}

#[test]
fn root_has_a_mount_and_without_the_device_a_directory() {
    if !is_root() {
        return;
    }
    assert_eq!(works("root", ROOT, "fuse"), "");
    assert_eq!(works("root under no_new_privs", Room { no_new_privs: true, ..ROOT }, "fuse"), "");
    falls_back("no device", Room { setup: Some(NO_DEVICE), ..ROOT }, "/dev/fuse");
    falls_back("something else as device", Room { setup: Some(NULL_DEVICE), ..ROOT }, "/dev/fuse");
}

#[test]
fn a_user_has_a_mount_where_the_machine_lets_him() {
    if !is_root() {
        return;
    }
    let device = Device::with_mode(0o666);
    assert_eq!(works("a user", USER, "fuse"), "");
    let helper = "fusermount3";
    falls_back("a user without fusermount3", Room { setup: Some(NO_HELPER), ..USER }, helper);
    falls_back(
        "a user without a search path",
        Room { path: Some("/nowhere"), setup: Some(NO_HELPER), ..USER },
        helper,
    );
    falls_back("a user under no_new_privs", Room { no_new_privs: true, ..USER }, helper);
    falls_back("a user without a name", Room { user: Some(NAMELESS), ..USER }, helper);
    drop(device);
    let _device = Device::with_mode(0o600);
    falls_back("a user who may not open the device", USER, "/dev/fuse");
}

#[test]
fn a_users_mount_goes_with_its_killed_owner() {
    if !is_root() {
        return;
    }
    let _device = Device::with_mode(0o666);
    for path in [None, Some("/nowhere")] {
        let place = Place::new(Room { path, ..USER });
        let _guard = Guard::new(&place.world);
        let host = place.host(&["--mount", "fuse"]);
        let dir = host.dir.clone();
        assert!(is_mounted(&dir));
        let from = Instant::now();
        host.kill();
        println!("a user's mount (search path {path:?}) was gone after {:?}", until_gone(&dir, from, GONE));
        until_none(&place.world, GONE);
        assert_eq!(place.run(&["status"]).code, Some(0));
        place.world.is_clean();
    }
}

#[test]
fn a_users_dead_mount_is_cleaned_up_by_his_next_command() {
    if !is_root() {
        return;
    }
    let _device = Device::with_mode(0o666);
    let place = Place::new(USER);
    let _guard = Guard::new(&place.world);
    let dir = super::kills::kill_both(place.host(&["--mount", "fuse"]));
    let ended = place.run(&["status"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!is_mounted(&dir) && !dir.exists(), "{ended:?}");
    until_none(&place.world, GONE);
    place.world.is_clean();
}
