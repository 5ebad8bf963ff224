//! What the tests stand on: directories, mounts that go away whatever happens, and bells to watch.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_wormhole_mount::bell::{Bell, Options};
use agent_wormhole_mount::mounts::FSTYPE;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags};

/// Longer than anything takes here.
pub const LONG: Duration = Duration::from_secs(20);
/// The source of our mounts.
pub const SOURCE: &str = "agent-wormhole-bell-test";

pub fn options() -> Options {
    Options {
        program: env!("CARGO_BIN_EXE_agent-wormhole-bell").into(),
        args: Vec::new(),
        arg0: Some("agent-wormhole: bell".into()),
    }
}

/// A directory that is no mount, laid out as a mailbox, with a bell.
pub struct Plain {
    pub bell: Bell,
    pub dir: tempfile::TempDir,
}

impl Plain {
    pub fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    pub fn in_dir(dir: tempfile::TempDir) -> Self {
        for name in ["inbox", ".incoming", "outbox"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("inbox/log.jsonl"), "").unwrap();
        let bell = Bell::start(options(), dir.path().to_owned(), SOURCE.into()).unwrap();
        bell.mounted().unwrap();
        Self { bell, dir }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }
}

/// A directory to mount on, whose mounts are taken off it at the end.
pub struct Place(tempfile::TempDir, PathBuf);

impl Place {
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "tests of mounts need root: run them as root, or leave them out with --skip mount"
        );
        let dir = tempfile::tempdir().unwrap();
        // As it stands in the mount table, with a character that is escaped there.
        let path = dir.path().canonicalize().unwrap().join("a b");
        std::fs::create_dir(&path).unwrap();
        Self(dir, path)
    }

    pub fn path(&self) -> &Path {
        &self.1
    }

    /// A FUSE mount whose server never answers.
    pub fn fuse(&self, source: &str) -> File {
        self.fuse_as(source, FSTYPE)
    }

    pub fn fuse_as(&self, source: &str, fstype: &str) -> File {
        self.fuse_with(source, fstype, 0)
    }

    /// As root mounts for a user.
    pub fn fuse_for(&self, source: &str, user: u32) -> File {
        self.fuse_with(source, FSTYPE, user)
    }

    fn fuse_with(&self, source: &str, fstype: &str, user: u32) -> File {
        let device =
            OpenOptions::new().read(true).write(true).open("/dev/fuse").expect(
                "tests of mounts need /dev/fuse: load the module fuse, or give the container the device",
            );
        let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
        let data = format!("fd={fd},rootmode=40000,user_id={user},group_id={user}");
        self.mount(source, fstype, &data);
        device
    }

    pub fn tmpfs(&self) {
        self.mount("somebody-else", "tmpfs", "size=1m");
    }

    fn mount(&self, source: &str, fstype: &str, data: &str) {
        let data = std::ffi::CString::new(data).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(source, self.path(), fstype, flags, data.as_c_str())
            .expect("tests of mounts need CAP_SYS_ADMIN and a kernel with FUSE");
    }

    /// How many mounts are on it.
    pub fn count(&self) -> usize {
        let all = agent_wormhole_mount::mounts::list().unwrap();
        all.iter().filter(|mounted| mounted.path == self.path()).count()
    }

    /// Waits until so many are on it; how long that took.
    pub fn wait_for_count(&self, count: usize) -> Duration {
        let start = Instant::now();
        let table = File::open("/proc/self/mountinfo").unwrap();
        while self.count() != count {
            assert!(start.elapsed() < LONG, "{} mounts instead of {count}", self.count());
            wait(&table, PollFlags::PRI);
        }
        start.elapsed()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for _ in 0..8 {
            if rustix::mount::unmount(self.path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
                break;
            }
        }
        let _ = self.0.path();
    }
}

/// A process that is watched, and killed at the end where it is still there.
pub struct Watched(std::os::fd::OwnedFd, pub u32);

impl Watched {
    pub fn new(pid: u32) -> Self {
        Self(rustix::process::pidfd_open(raw(pid), PidfdFlags::empty()).unwrap(), pid)
    }

    /// Waits for the end of one that may be gone by now.
    pub fn new_or_gone(pid: u32) {
        if let Ok(fd) = rustix::process::pidfd_open(raw(pid), PidfdFlags::empty()) {
            assert!(wait(fd, PollFlags::IN), "process {pid} is still there");
        }
    }

    /// Waits for its end.
    pub fn wait(&self) {
        assert!(wait(&self.0, PollFlags::IN), "process {} is still there", self.1);
    }

    pub fn kill(&self, signal: rustix::process::Signal) {
        rustix::process::pidfd_send_signal(&self.0, signal).unwrap();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, rustix::process::Signal::KILL);
    }
}

pub fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Waits for an event; whether it came in time.
pub fn wait(fd: impl std::os::fd::AsFd, flags: PollFlags) -> bool {
    let until = Timespec::try_from(LONG).unwrap();
    rustix::event::poll(&mut [PollFd::new(&fd, flags)], Some(&until)).unwrap() > 0
}

/// The states of processes as `ps` prints them, `Z` for a zombie; `None` where there is none.
pub fn states(pids: &[u32]) -> Vec<Option<String>> {
    let state = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("State:"))?;
        Some(line.split_whitespace().nth(1)?.to_owned())
    };
    pids.iter().map(state).collect()
}

/// Waits, on its events, for a bell with another process than this one.
pub fn next_pid(bell: &Bell, before: u32) -> u32 {
    let start = Instant::now();
    loop {
        let pid = bell.pid();
        if pid != 0 && pid != before {
            return pid;
        }
        assert!(start.elapsed() < LONG, "no other bell");
        std::thread::yield_now();
    }
}

/// What the descriptors of a process lead to.
pub fn targets(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
}

pub fn is(path: &Path, name: impl AsRef<OsStr>) -> bool {
    path.as_os_str() == name.as_ref()
}
