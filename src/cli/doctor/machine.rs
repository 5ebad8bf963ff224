//! What this machine gives a channel: program, memory, files, notices of changes, disk, clock.
//!
//! Owns what is looked at and what it means. Each check is a look, which only reads, and a verdict, which only decides.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agent_wormhole_mount::{blob, inbox};
use jiff::Timestamp;
use rustix::process::{Resource, getrlimit};

use super::finding::Finding;
use crate::cli::quantity;

/// Descriptors that a channel with a mount, a relay of its own and a few transfers has open, twice over.
const LEAST_FILES: u64 = 256;
/// Bytes that a channel may lock at most: secrets of 16 KiB, a few at a time.
const LEAST_LOCKED: u64 = 256 * 1024;
/// An inbox that may not grow to this is of little use.
const LITTLE: u64 = 64 << 20;
/// A clock that is so far from a relay's is wrong, whatever the network did to the answer.
const SKEW: i64 = 30;
/// This version was not written before.
const WRITTEN: &str = "2026-01-01T00:00:00Z";
/// A file may be a day older than a clock that is right: it was made in another time zone and kept its local time.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Which program this is.
pub(super) fn program() -> Finding {
    let here = std::env::current_exe().map(|path| path.display().to_string());
    let mut detail = format!("agent-wormhole {} for {}", env!("CARGO_PKG_VERSION"), target());
    if cfg!(debug_assertions) {
        detail.push_str(", a debug build");
    }
    if let Ok(here) = &here {
        detail = format!("{detail}, {here}");
    }
    match in_search_path("agent-wormhole") {
        Some(found)
            if found.canonicalize().is_ok_and(|found| here.is_ok_and(|here| found != Path::new(&here))) =>
        {
            Finding::ok("program", format!("{detail}; `agent-wormhole` starts {}", found.display()))
        }
        _ => Finding::ok("program", detail),
    }
}

/// What it was built for.
fn target() -> String {
    let libc = if cfg!(target_env = "musl") {
        "-musl"
    } else if cfg!(target_env = "gnu") {
        "-gnu"
    } else {
        ""
    };
    format!("{}-{}{libc}", std::env::consts::ARCH, std::env::consts::OS)
}

/// A program as a shell finds it.
pub(super) fn in_search_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

/// What is known of memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Bytes that may be locked; `None` is any number.
    locked: Option<u64>,
    /// Memory may be written to a disk.
    swap: bool,
    /// Another process may read this one's, or a crash write it down.
    dumps: bool,
}

impl Memory {
    pub(super) fn look() -> Self {
        let dumps = getrlimit(Resource::Core).current != Some(0);
        #[cfg(target_os = "linux")]
        let dumps = dumps
            || !matches!(
                rustix::process::dumpable_behavior(),
                Ok(rustix::process::DumpableBehavior::NotDumpable)
            );
        let swap = blob::Options::detect().seal_memory;
        Self { locked: getrlimit(Resource::Memlock).current, swap, dumps }
    }

    pub(super) fn verdict(self) -> Finding {
        let locked = self.locked.map_or_else(|| "any amount".to_owned(), quantity::shown);
        let swap = if self.swap { "swap is on, so files of a mount are sealed in memory" } else { "no swap" };
        let cores = if self.dumps { "core dumps are possible" } else { "core dumps are off" };
        let detail = format!("{locked} may be locked, {swap}, {cores}");
        if self.dumps {
            return Finding::warn(
                "memory",
                detail,
                "a crash would write keys to a disk: run `ulimit -c 0` before agent-wormhole",
            );
        }
        if self.swap && self.locked.is_some_and(|locked| locked < LEAST_LOCKED) {
            let advice = format!(
                "secrets may reach the swap: raise the limit (`ulimit -l {}`, or memlock in limits.conf), or encrypt the swap",
                LEAST_LOCKED / 1024
            );
            return Finding::warn("memory", detail, advice);
        }
        Finding::ok("memory", detail)
    }
}

/// How many files a process may have open; `None` is any number.
pub(super) fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

pub(super) fn open_files_verdict(most: Option<u64>) -> Finding {
    let detail = most.map_or_else(
        || "a process may have any number open".to_owned(),
        |most| format!("a process may have {most} open"),
    );
    match most {
        Some(most) if most < LEAST_FILES => Finding::warn(
            "files",
            detail,
            "large directories may not go through: run `ulimit -n 1024` before agent-wormhole",
        ),
        _ => Finding::ok("files", detail),
    }
}

/// Whether this user may be told of changes in one directory more: a real directory lives on that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notices {
    /// What the system answers.
    tried: Result<(), rustix::io::Errno>,
    /// Most that may be watched, and most that watch, of one user.
    limits: [Option<u64>; 2],
}

impl Notices {
    /// Watches a directory, for a moment.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn look(dir: &Path) -> Self {
        use rustix::fs::inotify;
        let watch = || {
            let notices = inotify::init(inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(&notices, dir, inotify::WatchFlags::CREATE).map(drop)
        };
        let limit = |name: &str| {
            std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok()
        };
        Self { tried: watch(), limits: [limit("max_user_watches"), limit("max_user_instances")] }
    }

    /// Elsewhere nothing limits it.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn look(_: &Path) -> Self {
        Self { tried: Ok(()), limits: [None, None] }
    }

    /// `needed`: a channel here is a real directory.
    pub(super) fn verdict(self, needed: bool) -> Finding {
        let number =
            |limit: Option<u64>| limit.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
        let [watches, instances] = self.limits.map(number);
        let limits = format!("at most {watches} directories watched, by {instances} watchers");
        let Err(error) = self.tried else { return Finding::ok("inotify", limits) };
        let advice = match error {
            rustix::io::Errno::NOSPC => {
                "sysctl fs.inotify.max_user_watches=524288, or end a program that watches many directories"
            }
            rustix::io::Errno::MFILE => {
                "sysctl fs.inotify.max_user_instances=512, or end programs that watch directories"
            }
            _ => "ask whoever runs this machine: inotify is needed where a channel is a real directory",
        };
        let detail = format!("a directory cannot be watched: {error} ({limits})");
        if needed {
            Finding::fail("inotify", detail, advice)
        } else {
            Finding::warn("inotify", detail, advice)
        }
    }
}

/// The disk that takes what a mount has no room for in memory.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    /// Free bytes, or why that is not known.
    free: std::io::Result<u64>,
}

impl Disk {
    pub(super) fn look() -> Self {
        let dir = blob::default_spill_dir();
        let free = rustix::fs::statvfs(&dir);
        let free = free.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)).map_err(Into::into);
        Self { dir, free }
    }

    pub(super) fn verdict(&self) -> Finding {
        let dir = self.dir.display();
        let advice = "name a directory on a disk with room in TMPDIR";
        match &self.free {
            Err(error) => Finding::fail("disk", format!("{dir} cannot be measured: {error}"), advice),
            Ok(free) => {
                let (free, limit) = (quantity::shown(*free), inbox::default_limit(*free));
                let detail = format!("{free} free in {dir}: an inbox takes up to {}", quantity::shown(limit));
                if limit < LITTLE {
                    Finding::warn("disk", detail, advice)
                } else {
                    Finding::ok("disk", detail)
                }
            }
        }
    }
}

/// What is known of the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// What it says.
    pub(super) now: Timestamp,
    /// When the program's file was made.
    pub(super) made: Option<Timestamp>,
    /// A relay's clock and ours, at one moment.
    pub(super) relay: Option<(Timestamp, Timestamp)>,
}

impl Clock {
    pub(super) fn look(relay: Option<(Timestamp, Timestamp)>) -> Self {
        let made = std::env::current_exe().and_then(|path| path.metadata()?.modified()).ok();
        let made = made.and_then(|made| Timestamp::try_from(made).ok());
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { now, made, relay }
    }

    pub(super) fn verdict(self) -> Finding {
        let Self { now, made, relay } = self;
        let advice = "set the clock (`timedatectl set-ntp true`): times of events are wrong, and wss:// may refuse certificates";
        let shown = format!("{now:.0}");
        let written = WRITTEN.parse().ok();
        let earliest =
            [written, made.and_then(|made| made.checked_sub(DAY).ok())].into_iter().flatten().max();
        if let Some(earliest) = earliest.filter(|earliest| now < *earliest) {
            let detail = format!("{shown}, and this program was made after {earliest:.0}");
            return Finding::warn("clock", detail, advice);
        }
        let Some((there, here)) = relay else {
            return Finding::ok("clock", format!("{shown} (UTC); no relay's clock to compare it with"));
        };
        // A relay tells whole seconds, the rest of which are cut off.
        let ahead = here.as_second() - there.as_second();
        let detail = match ahead {
            -1..=1 => format!("{shown} (UTC), as the relay's"),
            2.. => format!("{shown} (UTC), {ahead} s ahead of the relay's"),
            _ => format!("{shown} (UTC), {} s behind the relay's", -ahead),
        };
        if ahead.abs() > SKEW { Finding::warn("clock", detail, advice) } else { Finding::ok("clock", detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn memory_that_may_reach_a_disk_is_told() {
        let fine = Memory { locked: Some(8 << 20), swap: true, dumps: false };
        assert_eq!(fine.verdict().state, State::Ok);
        assert_eq!(Memory { locked: None, swap: false, ..fine }.verdict().state, State::Ok);
        let little = Memory { locked: Some(64 << 10), ..fine };
        assert_eq!(little.verdict().state, State::Warn);
        assert_eq!(Memory { swap: false, ..little }.verdict().state, State::Ok);
        let dumps = Memory { dumps: true, ..fine }.verdict();
        assert!(dumps.state == State::Warn && dumps.advice.unwrap().contains("ulimit -c"));
    }

    #[test]
    fn few_open_files_are_told() {
        for (most, state) in [(None, State::Ok), (Some(1024), State::Ok), (Some(64), State::Warn)] {
            assert_eq!(open_files_verdict(most).state, state, "{most:?}");
        }
    }

    #[test]
    fn a_limit_of_inotify_that_is_used_up_is_named() {
        let limits = [Some(8192), Some(128)];
        let fine = Notices { tried: Ok(()), limits };
        assert_eq!(fine.verdict(true).state, State::Ok);
        for (error, word) in [
            (rustix::io::Errno::NOSPC, "max_user_watches"),
            (rustix::io::Errno::MFILE, "max_user_instances"),
            (rustix::io::Errno::NOSYS, "inotify"),
        ] {
            let notices = Notices { tried: Err(error), limits };
            assert_eq!(notices.verdict(false).state, State::Warn);
            let needed = notices.verdict(true);
            assert!(needed.state == State::Fail && needed.advice.unwrap().contains(word));
        }
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_told() {
        let disk = |free| Disk { dir: "/var/tmp".into(), free };
        assert_eq!(disk(Ok(100 << 30)).verdict().state, State::Ok);
        assert_eq!(disk(Ok(1 << 20)).verdict().state, State::Warn);
        assert_eq!(disk(Err(std::io::ErrorKind::NotFound.into())).verdict().state, State::Fail);
    }

    #[test]
    fn a_clock_is_compared_with_the_build_and_with_the_relay() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-26T01:00:00.9Z");
        let clock = Clock { now, made: Some(at("2026-11-01T00:00:00Z")), relay: None };
        assert_eq!(clock.verdict().state, State::Ok);
        let early = Clock { made: Some(at("2026-11-28T00:00:00Z")), ..clock };
        assert_eq!(early.verdict().state, State::Warn);
        let zone = Clock { made: Some(at("2026-11-26T12:00:00Z")), ..clock };
        assert_eq!(zone.verdict().state, State::Ok);
        let seventies = Clock { now: at("1970-01-01T00:00:00Z"), made: None, relay: None };
        assert_eq!(seventies.verdict().state, State::Warn);
        for (there, state, word) in [
            ("2026-11-26T01:00:00Z", State::Ok, "as the relay's"),
            ("2026-11-26T01:00:01Z", State::Ok, "as the relay's"),
            ("2026-11-26T00:59:50Z", State::Ok, "10 s ahead"),
            ("2026-11-26T00:50:00Z", State::Warn, "600 s ahead"),
            ("2026-11-26T02:00:00Z", State::Warn, "3600 s behind"),
        ] {
            let finding = Clock { relay: Some((at(there), now)), ..clock }.verdict();
            assert!(finding.state == state && finding.detail.contains(word), "{finding:?}");
        }
    }
}
