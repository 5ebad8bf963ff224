//! The mount table as the tests see it, and the guard that frees what hangs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use agent_wormhole_mount::mounts::{self, Mounted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::UnmountFlags;

use crate::fixture::world::World;

/// After so long everything below the world is freed, and the test has failed.
const PATIENCE: Duration = Duration::from_secs(100);
/// Where connections are aborted.
const CONTROL: &str = "/sys/fs/fuse/connections";

/// What is mounted below a directory.
pub fn below(dir: &Path) -> Vec<Mounted> {
    mounts::list().unwrap().into_iter().filter(|found| found.path.starts_with(dir)).collect()
}

/// Whether something is mounted at a directory.
pub fn is_mounted(dir: &Path) -> bool {
    mounts::list().unwrap().iter().any(|found| found.path == dir)
}

/// Waits until nothing is mounted at a directory, and returns how long that took since `from`.
pub fn until_gone(dir: &Path, from: Instant, limit: Duration) -> Duration {
    // It becomes readable whenever the table has changed since it was read or polled.
    let table = File::open("/proc/self/mountinfo").unwrap();
    while is_mounted(dir) {
        let left = limit.checked_sub(from.elapsed());
        let left = left.unwrap_or_else(|| panic!("{} is mounted after {limit:?}", dir.display()));
        let left = Timespec::try_from(left).unwrap();
        let _ = poll(&mut [PollFd::new(&table, PollFlags::PRI)], Some(&left));
    }
    from.elapsed()
}

/// Frees whatever hangs in a mount of a world, when the test takes far too long or is over.
pub struct Guard {
    below: PathBuf,
    over: Option<Sender<()>>,
    watch: Option<JoinHandle<bool>>,
}

impl Guard {
    pub fn new(world: &World) -> Self {
        let dir = world.path("");
        let (over, end) = channel::<()>();
        let watched = dir.clone();
        let watch = thread::spawn(move || {
            let until = Instant::now() + PATIENCE;
            // A detached mount is in no table: its number is known from before.
            let mut seen = BTreeMap::new();
            loop {
                seen.extend(below(&watched).into_iter().map(|found| (found.device, found.path)));
                match end.recv_timeout(Duration::from_millis(200)) {
                    Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    _ => return false,
                }
            }
            control();
            println!("after {PATIENCE:?} everything below {} is freed", watched.display());
            let table = mounts::list().unwrap();
            // A number may be another's by now.
            let ours = |device: &(u32, u32)| {
                table.iter().all(|found| found.device != *device || found.path.starts_with(&watched))
            };
            for device in seen.keys().filter(|device| ours(device)) {
                let _ = mounts::abort(*device);
            }
            true
        });
        Self { below: dir, over: Some(over), watch: Some(watch) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.over.take();
        let fired = self.watch.take().is_some_and(|watch| watch.join().unwrap_or(true));
        let left = below(&self.below);
        if !left.is_empty() {
            control();
        }
        for found in &left {
            let _ = mounts::abort(found.device);
            let _ = rustix::mount::unmount(&found.path, UnmountFlags::DETACH);
        }
        if !thread::panicking() {
            assert!(!fired, "something hung");
            assert!(left.is_empty(), "still mounted: {left:?}");
        }
    }
}

/// Mounts the control file system where it is not, as far as this user may. Only where something hangs: the program must
/// do without.
fn control() {
    if !mounts::list().unwrap().iter().any(|found| found.path == Path::new(CONTROL)) {
        let _ = std::process::Command::new("mount").args(["-t", "fusectl", "fusectl", CONTROL]).output();
    }
}
