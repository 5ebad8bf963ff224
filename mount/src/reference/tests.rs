//! What a link may lead to, and that nobody asks the channel's own mount.

#![cfg(any(target_os = "linux", target_os = "android"))]

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;
use crate::beneath::device;
use crate::outbox::Node;
use crate::{EntryId, Member, Tree};

/// A project with a channel's directory in it, which is a real one, a tmpfs, or a FUSE mount whose server never answers.
struct Rig {
    own: Own,
    /// Held open, or the mount ends.
    _server: Option<File>,
    /// Taken off before the directory is removed.
    _mounts: Vec<Mounted>,
    home: tempfile::TempDir,
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&*self.0, UnmountFlags::DETACH);
    }
}

/// What asks a server that does not answer fails here instead of hanging.
fn timed<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(what()));
    told.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("the channel's own mount was asked"))
}

fn device_of(path: &Path) -> Option<u64> {
    let path = path.to_owned();
    Some(timed(move || device(CWD, path)).unwrap())
}

/// `None` where this process may not mount.
fn mounted(kind: &str, at: &Path, data: Option<&CStr>) -> Option<Mounted> {
    mount("agent-wormhole-test", at, kind, MountFlags::NOSUID | MountFlags::NODEV, data).ok()?;
    Some(Mounted(at.to_owned()))
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().canonicalize().unwrap().join("p/.wormhole");
    fs::create_dir_all(&path).unwrap();
    fs::write(home.path().join("p/a"), "hello").unwrap();
    (home, path)
}

fn fill(path: &Path) {
    fs::create_dir(path.join("outbox")).unwrap();
    fs::create_dir(path.join("inbox")).unwrap();
    fs::write(path.join("inbox/x"), "x").unwrap();
}

impl Rig {
    fn dir() -> Self {
        let (home, path) = home();
        fill(&path);
        let place = Some(place(&rustix::fs::stat(&path).unwrap()));
        Self {
            own: Own { path, device: None, place, streams: Arc::default() },
            _server: None,
            _mounts: Vec::new(),
            home,
        }
    }

    fn tmpfs() -> Option<Self> {
        let (home, path) = home();
        let mount = mounted("tmpfs", &path, None)?;
        fill(&path);
        let own = Own { device: device_of(&path), path, place: None, streams: Arc::default() };
        Some(Self { own, _server: None, _mounts: vec![mount], home })
    }

    fn silent() -> Option<Self> {
        let (home, path) = home();
        let server = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", server.as_raw_fd());
        let mount = mounted("fuse", &path, Some(CStr::from_bytes_with_nul(data.as_bytes()).unwrap()))?;
        let own = Own { device: device_of(&path), path, place: None, streams: Arc::default() };
        Some(Self { own, _server: Some(server), _mounts: vec![mount], home })
    }

    /// Every kind that can be had here.
    fn all() -> impl Iterator<Item = Self> {
        [Some(Self::dir()), Self::tmpfs(), Self::silent()].into_iter().flatten()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().canonicalize().unwrap().join(name)
    }

    fn link(&self, target: impl AsRef<Path>, name: &str) {
        symlink(target, self.path(name)).unwrap();
    }

    fn timed<T: Send + 'static>(&self, what: impl FnOnce(&Own) -> T + Send + 'static) -> T {
        let own = self.own.clone();
        timed(move || what(&own))
    }

    fn open(&self, target: impl AsRef<Path>) -> Result<Target, TargetError> {
        let target = target.as_ref().to_owned();
        self.timed(move |own| open(&target, own))
    }

    fn error(&self, target: impl AsRef<Path>) -> TargetError {
        match self.open(&target) {
            Ok(_) => panic!("{} was opened", target.as_ref().display()),
            Err(error) => error,
        }
    }

    fn is_own(&self, target: impl AsRef<Path>) {
        let error = self.error(&target);
        assert!(matches!(error, TargetError::Own), "{}: {error:?}", target.as_ref().display());
    }

    /// Whether a target is the file `p/a`.
    fn is_a(&self, target: impl AsRef<Path>) {
        match self.open(&target) {
            Ok(Target::File(mut open)) => assert_eq!(&open.whole(9).unwrap()[..], b"hello"),
            Ok(Target::Dir(_)) => panic!("{} is a directory", target.as_ref().display()),
            Ok(Target::Stream(_)) => panic!("{} is a stream", target.as_ref().display()),
            Err(error) => panic!("{}: {error:?}", target.as_ref().display()),
        }
    }

    fn is_dir(&self, target: impl AsRef<Path>, name: &str) {
        let Ok(Target::Dir(dir)) = self.open(target) else { panic!("no directory") };
        let found = place(&rustix::fs::fstat(dir).unwrap());
        assert_eq!(found, place(&rustix::fs::stat(self.path(name)).unwrap()));
    }

    fn offer(&self, target: impl AsRef<Path>) -> Taken {
        let target = target.as_ref().to_owned();
        self.timed(move |own| offer(&ticket(), &target, IDENTITY, own))
    }
}

const IDENTITY: Identity = Identity { inode: 7, size: 1, mtime: (1, 1) };

fn ticket() -> Ticket {
    Ticket { entry: EntryId(1), path: "name".into(), node: Node::Link, text: false, identity: IDENTITY }
}

fn members(tree: &mut dyn Tree) -> Vec<String> {
    let mut members = Vec::new();
    while let Some(Member { name, .. }) = tree.next().unwrap() {
        members.push(name);
    }
    members.sort();
    members
}

/// What the other tests stand on: whoever asks the silent mount anything waits.
#[test]
fn a_silent_mount_answers_nobody() {
    let Some(rig) = Rig::silent() else { return };
    let (tell, told) = mpsc::channel();
    let path = rig.own.path.clone();
    std::thread::spawn(move || tell.send(fs::metadata(path).is_err()));
    assert!(told.recv_timeout(Duration::from_millis(200)).is_err());
    // Its end frees them.
    drop(rig);
    assert!(told.recv_timeout(Duration::from_secs(10)).unwrap());
}

#[test]
fn relative_and_absolute_targets_are_found_from_every_kind_of_channel() {
    for rig in Rig::all() {
        rig.link("p", "q");
        rig.link(rig.path("q"), "r");
        for target in ["../../a", ".././../a", "../../../q/a", "../../../r/./a", "../inbox/../../a"] {
            rig.is_a(target);
        }
        rig.is_a(rig.path("p/a"));
        rig.is_a(rig.path("r/a"));
        rig.is_a(rig.path("q/../p//a"));
        // `ln -s "$PWD/../../a"` in the outbox.
        rig.is_a(rig.path("p/.wormhole/outbox/../../a"));
        rig.is_a(rig.path("p/./.wormhole/../a"));
        rig.is_dir("../..", "p");
        rig.is_dir("../../", "p");
        rig.is_dir("../../../q", "p");
        rig.is_dir(rig.path("r/."), "p");
        rig.is_dir("/../..", "../../../../../../..");
        assert!(matches!(rig.error("../../a/"), TargetError::Missing));
        assert!(matches!(rig.error("../../a/."), TargetError::Missing));
        assert!(matches!(rig.error("../../a/.."), TargetError::Missing));
    }
}

#[test]
fn what_leads_into_the_channel_is_its_own() {
    for rig in Rig::all() {
        rig.link("p", "q");
        rig.link(&rig.own.path, "into");
        rig.link("p/.wormhole/inbox", "inbox");
        fs::create_dir(rig.path("q/dir")).unwrap();
        rig.link("../../q/.wormhole", "p/dir/back");
        for target in ["x", ".", "..", "../inbox/x", "../..///../p/../p/.wormhole", "../../.wormhole/inbox/x"]
        {
            rig.is_own(target);
        }
        // Not known to be no link.
        rig.is_own("sub/../../../a");
        rig.is_own("../outbox/sub/../../../a");
        for target in ["p/.wormhole", "p/.wormhole/", "p/.wormhole/inbox/x", "p/./.wormhole/outbox/../inbox"]
        {
            rig.is_own(rig.path(target));
        }
        // Through a link outside, and through a directory above that is reached by a link.
        for target in ["into", "into/inbox/x", "inbox/x", "q/.wormhole/inbox/x", "q/dir/back", "into/../a"] {
            rig.is_own(rig.path(target));
        }
        rig.is_own("../../dir/back/inbox/x");
    }
}

#[test]
fn the_mount_is_known_by_its_device_wherever_it_is_seen() {
    let Some(mut rig) = Rig::tmpfs() else { return };
    fs::create_dir(rig.path("seen")).unwrap();
    let seen = rig.path("seen");
    rustix::mount::mount_bind(rig.own.path.join("inbox"), &seen).unwrap();
    rig._mounts.push(Mounted(seen));
    rig.is_own(rig.path("seen"));
    rig.is_own(rig.path("seen/x"));
    // Open elsewhere: a link of /proc leads there at once.
    let open = File::open(rig.own.path.join("inbox/x")).unwrap();
    rig.is_own(format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd()));
}

#[test]
fn nothing_circles_and_too_many_links_are_told() {
    let rig = Rig::dir();
    assert!(matches!(rig.error("../../nothing"), TargetError::Missing));
    assert!(matches!(rig.error("../../nothing/a"), TargetError::Missing));
    assert!(matches!(rig.error(""), TargetError::Missing));
    rig.link("nothing", "p/dangling");
    assert!(matches!(rig.error("../../dangling"), TargetError::Missing));
    rig.link("two", "p/one");
    rig.link("one", "p/two");
    rig.link("self/x", "p/self");
    assert!(matches!(rig.error("../../one"), TargetError::Loop));
    assert!(matches!(rig.error("../../self"), TargetError::Loop));
    rig.link("a", "p/1");
    for n in 2..=41 {
        rig.link((n - 1).to_string(), &format!("p/{n}"));
    }
    rig.is_a("../../40");
    assert!(matches!(rig.error("../../41"), TargetError::Loop));
    let long = "x".repeat(300);
    assert!(matches!(rig.error(format!("../../{long}")), TargetError::Io(_)));
}

#[test]
fn devices_fifos_and_sockets_are_neither_and_are_not_opened() {
    let rig = Rig::dir();
    rustix::fs::mkfifoat(CWD, rig.path("p/pipe"), Mode::RUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(rig.path("p/socket")).unwrap();
    for target in ["../../pipe", "../../socket", "/dev/null", "/dev/tty", "/dev/fuse"] {
        let error = rig.error(target);
        assert!(matches!(error, TargetError::Kind), "{target}: {error:?}");
    }
}

#[test]
fn links_of_proc_lead_where_the_kernel_says() {
    for rig in Rig::all() {
        let file = File::open(rig.path("p/a")).unwrap();
        let dir = File::open(rig.path("p")).unwrap();
        rig.is_a(format!("/proc/self/fd/{}", file.as_raw_fd()));
        rig.is_a(format!("/dev/fd/{}", file.as_raw_fd()));
        rig.is_a(format!("/proc/self/fd/{}/a", dir.as_raw_fd()));
        rig.is_a(format!("/proc/{}/root{}", std::process::id(), rig.path("p/a").display()));
        rig.is_own(format!("/proc/self/root{}", rig.own.path.join("inbox/x").display()));
        rig.is_own(format!("/proc/self/fd/{}/.wormhole/inbox", dir.as_raw_fd()));
        // Without a name.
        fs::remove_file(rig.path("p/a")).unwrap();
        rig.is_a(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let (pipe, _end) = std::io::pipe().unwrap();
        assert!(matches!(rig.error(format!("/proc/self/fd/{}", pipe.as_raw_fd())), TargetError::Kind));
    }
}

#[test]
fn a_link_that_somebody_else_made_where_everybody_may_is_not_followed() {
    use std::os::unix::fs::{PermissionsExt as _, lchown};

    let rig = Rig::dir();
    fs::create_dir(rig.path("tmp")).unwrap();
    fs::set_permissions(rig.path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    rig.link("../p/a", "tmp/link");
    rig.is_a(rig.path("tmp/link"));
    // As root only.
    if lchown(rig.path("tmp/link"), Some(12345), None).is_ok() {
        assert!(matches!(rig.error(rig.path("tmp/link")), TargetError::Io(_)));
    }
}

#[test]
fn a_file_is_offered_under_the_links_name() {
    for rig in Rig::all() {
        let (offer, identity) = rig.offer("../../a").unwrap();
        assert_eq!((offer.kind, offer.name.as_str(), offer.size), (Kind::File, "name", Some(5)));
        assert_eq!(identity, IDENTITY);
        assert!(matches!(offer.content, Content::Whole(bytes) if bytes == "hello"));
        fs::write(rig.path("p/big"), vec![1; 100_000]).unwrap();
        assert!(matches!(rig.offer("../../big").unwrap().0.content, Content::Stream(_)));
    }
}

#[test]
fn a_linked_directory_leaves_the_channel_in_it_out() {
    for rig in Rig::all() {
        for (target, found, own) in [
            ("../..", &["a"][..], ".wormhole"),
            ("../../..", &["p", "p/a"], "p/.wormhole"),
            ("../../../p/.", &["a"], ".wormhole"),
        ] {
            let (offer, _) = rig.offer(target).unwrap();
            assert_eq!((offer.kind, offer.size), (Kind::Group, None));
            let Content::Tree(mut tree) = offer.content else { panic!("no tree") };
            let (members, left_out) = rig.timed(move |_| (members(&mut *tree), tree.left_out()));
            assert_eq!(members, found);
            assert_eq!(left_out.len(), 1);
            assert_eq!(left_out[0].name, own);
            assert_eq!(left_out[0].reason, "it is this channel's own directory");
        }
    }
}

#[test]
fn what_is_not_offered_is_told_in_words() {
    for rig in Rig::all() {
        rig.link("circle", "p/circle");
        for (target, words) in [
            ("../../nothing", "the link's target does not exist"),
            ("../../circle", "the link leads in a circle"),
            ("..", "the link leads to this channel's own directory"),
            ("/dev/null", "the link's target is neither a file nor a directory"),
        ] {
            assert_eq!(rig.offer(target).unwrap_err(), Prepared::LeftOut(words.to_owned()));
        }
        let Err(Prepared::LeftOut(words)) = rig.offer("/proc/self/status") else { panic!("it was sent") };
        assert!(words.contains("does not tell its size"), "{words}");
    }
}
