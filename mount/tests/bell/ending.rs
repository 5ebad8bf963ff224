//! What becomes of the mount. All of these need root and `/dev/fuse`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent_wormhole_mount::bell::{Bell, Options};
use agent_wormhole_mount::mounts::{FSTYPE, abort, detach, find};
use rustix::process::Signal;

use crate::stage::{LONG, Place, SOURCE, Watched, next_pid, options, states};

/// Where the owner of [`an_owner`] mounts; whether it does is in [`MOUNTS`].
const PLACE: &str = "AGENT_WORMHOLE_TEST_PLACE";
/// See [`PLACE`].
const MOUNTS: &str = "AGENT_WORMHOLE_TEST_MOUNTS";

#[test]
fn mount_of_ours_is_found_and_detached() {
    let place = Place::new();
    assert_eq!(find(place.path(), SOURCE).unwrap(), None);
    let _device = place.fuse(SOURCE);
    let found = find(place.path(), SOURCE).unwrap().unwrap();
    assert_eq!(
        (found.path.as_path(), found.source.as_str(), found.fstype.as_str()),
        (place.path(), SOURCE, FSTYPE)
    );
    // Nothing here may ask the server, which never answers: the test would hang.
    assert!(detach(place.path(), SOURCE).unwrap());
    assert!(!detach(place.path(), SOURCE).unwrap());
    assert_eq!(place.count(), 0);
}

#[test]
fn mount_of_somebody_else_stays() {
    let place = Place::new();
    let _device = place.fuse("another");
    assert!(!detach(place.path(), SOURCE).unwrap());
    assert_eq!(place.count(), 1);

    let other_type = Place::new();
    let _other = other_type.fuse_as(SOURCE, "fuse.another");
    assert!(!detach(other_type.path(), SOURCE).unwrap());
    let plain = Place::new();
    let _plain = plain.fuse_as(SOURCE, "fuse");
    assert!(!detach(plain.path(), SOURCE).unwrap());
    assert_eq!((other_type.count(), plain.count()), (1, 1));

    // A tmpfs on top of ours is in the way; below ours it comes out untouched.
    let covered = Place::new();
    let _covered = covered.fuse(SOURCE);
    covered.tmpfs();
    assert!(!detach(covered.path(), SOURCE).unwrap());
    assert_eq!(covered.count(), 2);
    let below = Place::new();
    below.tmpfs();
    let _below = below.fuse(SOURCE);
    assert!(detach(below.path(), SOURCE).unwrap());
    assert!(!detach(below.path(), SOURCE).unwrap());
    assert_eq!(below.count(), 1);
}

#[test]
fn mount_is_detached_by_the_bell_on_request_and_on_drop() {
    for by_drop in [false, true] {
        let place = Place::new();
        let bell = Bell::start(options(), place.path().to_owned(), SOURCE.into()).unwrap();
        let _device = place.fuse(SOURCE);
        bell.mounted().unwrap();
        let watched = Watched::new(bell.pid());
        if by_drop {
            drop(bell)
        } else {
            bell.detach().unwrap()
        }
        assert_eq!(place.count(), 0);
        watched.wait();
        assert_eq!(states(&[watched.1]), [None]);
    }
}

#[test]
fn mount_is_detached_without_a_bell_that_answers() {
    let place = Place::new();
    let bell = Bell::start(options(), place.path().to_owned(), SOURCE.into()).unwrap();
    let _device = place.fuse(SOURCE);
    bell.mounted().unwrap();
    let watched = Watched::new(bell.pid());
    watched.kill(Signal::STOP);
    bell.detach().unwrap();
    assert_eq!(place.count(), 0);
    watched.wait();
    assert_eq!(states(&[watched.1]), [None]);
}

#[test]
fn mount_of_a_bell_that_waits_for_its_server_is_detached() {
    let place = Place::new();
    let bell = Bell::start(options(), place.path().to_owned(), SOURCE.into()).unwrap();
    let device = place.fuse(SOURCE);
    bell.mounted().unwrap();
    let first = bell.pid();
    // The server never answers: the bell is silent, and killed.
    assert!(matches!(bell.unlink("inbox/x"), Err(agent_wormhole_mount::bell::BellError::Gone(_))));
    assert_ne!(next_pid(&bell, first), first);
    bell.detach().unwrap();
    assert_eq!(place.count(), 0);
    drop(device);
}

/// The owner that other tests kill: holds a bell, and its mount where it is to, until it is killed.
#[test]
#[ignore = "a process of the other tests"]
fn an_owner() {
    let Some(path) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let bell = Bell::start(options(), path.clone(), SOURCE.into()).unwrap();
    let _device = std::env::var_os(MOUNTS).map(|_| {
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
        let data = std::ffi::CString::new(format!("fd={fd},rootmode=40000,user_id=0,group_id=0")).unwrap();
        rustix::mount::mount(SOURCE, &path, FSTYPE, rustix::mount::MountFlags::NODEV, data.as_c_str())
            .unwrap();
        bell.mounted().unwrap();
        device
    });
    println!("\nbell {}", bell.pid());
    let _ = std::io::stdin().read(&mut [0]);
}

struct Owner {
    child: Child,
    bell: Watched,
}

impl Owner {
    fn start(place: &Place, mounts: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "ending::an_owner", "--ignored", "--nocapture"]).env(PLACE, place.path());
        if mounts {
            command.env(MOUNTS, "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let pid = lines
            .map(|line| line.unwrap())
            .find_map(|line| line.strip_prefix("bell ").map(|pid| pid.parse().unwrap()))
            .expect("the owner says which bell it has");
        Self { child, bell: Watched::new(pid) }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn mount_of_a_killed_owner_goes_within_a_second_and_so_does_the_bell() {
    let place = Place::new();
    let mut owner = Owner::start(&place, true);
    assert_eq!(place.count(), 1);
    owner.kill();
    let took = place.wait_for_count(0);
    owner.bell.wait();
    assert!(took < Duration::from_secs(1), "{took:?}");
    eprintln!("detached {took:?} after the owner was reaped");
}

#[test]
fn mount_that_comes_just_after_its_owner_was_killed_goes_too() {
    let place = Place::new();
    let mut owner = Owner::start(&place, false);
    // A change of the table that is none of ours is passed over.
    place.tmpfs();
    owner.kill();
    let _device = place.fuse(SOURCE);
    place.wait_for_count(1);
    owner.bell.wait();
    assert_eq!(find(place.path(), SOURCE).unwrap(), None);
}

#[test]
fn mount_that_never_comes_is_not_waited_for_long() {
    let place = Place::new();
    let mut owner = Owner::start(&place, false);
    owner.kill();
    let start = std::time::Instant::now();
    owner.bell.wait();
    assert!(start.elapsed() < LONG / 4, "{:?}", start.elapsed());
}

#[test]
fn mount_of_an_owner_whose_bell_was_restarted_goes_as_well() {
    let place = Place::new();
    let mut owner = Owner::start(&place, true);
    owner.bell.kill(Signal::KILL);
    owner.bell.wait();
    // The owner starts another without being asked: it is the only child that it has.
    let children = format!("/proc/{0}/task", owner.child.id());
    let second = std::iter::repeat_with(|| {
        std::thread::yield_now();
        let tasks = std::fs::read_dir(&children).unwrap();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        lists.collect::<String>().split_whitespace().next().map(|pid| pid.parse::<u32>().unwrap())
    });
    let second = second.take(1_000_000).flatten().find(|pid| *pid != owner.bell.1).expect("another bell");
    let second = Watched::new(second);
    // It was told before it was started.
    owner.kill();
    place.wait_for_count(0);
    second.wait();
}

#[test]
fn mount_of_a_user_is_detached_by_fusermount() {
    const NOBODY: u32 = 65_534;
    let place = Place::new();
    for dir in [place.path(), place.path().parent().unwrap()] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Where the build lies may be closed to others.
    let program = place.path().parent().unwrap().join("bell");
    std::fs::copy(env!("CARGO_BIN_EXE_agent-wormhole-bell"), &program).unwrap();
    let args =
        [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into(), "--".into()];
    let mut args: Vec<_> = args.into_iter().map(Into::into).collect();
    args.push(program.into());
    let options = Options { program: "setpriv".into(), args, arg0: None };
    let bell = Bell::start(options, place.path().to_owned(), SOURCE.into())
        .expect("this test needs setpriv (util-linux)");
    let _device = place.fuse_for(SOURCE, NOBODY);
    bell.mounted().unwrap();
    bell.detach().expect("this test needs fusermount3, setuid root");
    assert_eq!(place.count(), 0);
}

#[test]
fn mount_is_aborted_or_there_is_no_control_file_system() {
    let place = Place::new();
    let device = place.fuse(SOURCE);
    let found = find(place.path(), SOURCE).unwrap().unwrap();
    let control = std::fs::exists("/sys/fs/fuse/connections").unwrap()
        && std::fs::read_dir("/sys/fs/fuse/connections").unwrap().next().is_some();
    match abort(found.device) {
        Ok(()) => {
            let error = (&device).read(&mut [0; 8192]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()));
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            assert!(!control, "the control file system is there");
        }
    }
    assert_eq!(abort((0, (1 << 20) - 1)).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(abort((0, 1 << 20)).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}
