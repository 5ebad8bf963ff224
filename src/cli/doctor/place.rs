//! Where channels of this machine live: the runtime directory, and how a channel's directory is made.
//!
//! Owns what is looked at there and what it means. Whether there can be a mount is found out by making one.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::Mailbox as _;
use agent_wormhole_mount::mounted::{self, FuseMailbox};

use super::finding::Finding;
use super::machine;
use crate::channel::options::MountChoice;
use crate::cli::quantity;
use crate::crypto::pake::Role;
use crate::event::TransportKind;
use crate::rundir::{NewChannel, RuntimeDir};

/// Longest path of a Unix socket, in bytes: `sun_path` less the byte that ends it.
const MAX_SOCKET: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };
/// The longest name of a socket in the runtime directory.
const SOCKET: &str = "relay.sock";
/// File systems that are memory (`statfs(2)`): tmpfs and ramfs.
#[cfg(any(target_os = "linux", target_os = "android"))]
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Where the kernel is asked for requests.
const DEVICE: &str = "/dev/fuse";
/// What the trial mount is called in the list of channels. No relay gives this number.
const TRIAL: &str = "0";

/// What is known of the runtime directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    mode: u32,
    owner: u32,
    /// It is memory; `None` where that is not known.
    memory: Option<bool>,
    /// Free bytes.
    free: Option<u64>,
    /// `XDG_RUNTIME_DIR`, where it is set and was not used.
    passed_over: Option<PathBuf>,
    /// The machine's own relay is to be used, which has its socket here.
    relay: bool,
}

impl Directory {
    pub(super) fn look(runtime: &RuntimeDir, relay: bool) -> std::io::Result<Self> {
        let path = runtime.path().to_owned();
        let about = path.metadata()?;
        let disk = rustix::fs::statvfs(&path).ok();
        let wanted = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let inside = |wanted: &PathBuf| wanted.canonicalize().is_ok_and(|wanted| path.starts_with(wanted));
        let passed_over = wanted.filter(|wanted| !wanted.as_os_str().is_empty() && !inside(wanted));
        Ok(Self {
            mode: about.permissions().mode() & 0o7777,
            owner: about.uid(),
            memory: is_memory(&path),
            free: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            passed_over,
            relay,
            path,
        })
    }

    pub(super) fn verdict(&self) -> Finding {
        let Self { path, mode, owner, memory, free, passed_over, relay } = self;
        let kind = match memory {
            Some(true) => ", in memory",
            Some(false) => ", on disk",
            None => "",
        };
        let free = free.map(|free| format!(", {} free", quantity::shown(free))).unwrap_or_default();
        let mut detail = format!("{} (mode {mode:04o}, owner {owner}{kind}{free})", path.display());
        let length = path.as_os_str().len() + 1 + SOCKET.len();
        if length > MAX_SOCKET {
            detail = format!(
                "{detail}; a socket in it would have a path of {length} bytes, and {MAX_SOCKET} are possible"
            );
            let advice = "set XDG_RUNTIME_DIR to a directory of your own with a shorter path";
            let judged = if *relay { Finding::fail } else { Finding::warn };
            return judged("directory", detail.as_str(), advice);
        }
        if let Some(passed_over) = passed_over {
            let detail = format!("{detail}; XDG_RUNTIME_DIR ({}) is not used", passed_over.display());
            let advice = "make it an absolute path of a directory that belongs to you and that others cannot write into, or unset it";
            return Finding::warn("directory", detail, advice);
        }
        Finding::ok("directory", detail)
    }

    /// Where a real directory of a channel rests, in words.
    pub(super) const fn at_rest(&self) -> &'static str {
        match self.memory {
            Some(true) => "plaintext in memory",
            Some(false) | None => "plaintext on disk",
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_memory(path: &Path) -> Option<bool> {
    // The type is a number of 32 bits, and wider on some platforms.
    let kind = rustix::fs::statfs(path).ok()?.f_type as u64 & 0xffff_ffff;
    Some(IN_MEMORY.contains(&kind))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_memory(_: &Path) -> Option<bool> {
    None
}

/// What is known of mounts here.
#[derive(Debug)]
pub(super) struct Mounts {
    /// Whether the device may be opened, or why not.
    device: Result<(), String>,
    /// Whether there is something under its name at all.
    there: bool,
    /// Who mounts for users, where that is needed and there is one.
    helper: Option<PathBuf>,
    /// No helper is needed.
    root: bool,
    /// The trial, or why there was no mount. `None` where it was not made.
    trial: Option<Result<Trial, String>>,
}

/// A mount that was made and taken away.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// How long the mount took.
    took: Duration,
    /// The version of FUSE that the kernel speaks.
    kernel: Option<(u32, u32)>,
}

impl Mounts {
    /// Mounts and unmounts, unless `runtime` is missing.
    pub(super) fn look(runtime: Option<&RuntimeDir>, cwd: &Path) -> Self {
        Self {
            device: mounted::device(),
            there: Path::new(DEVICE).exists(),
            helper: machine::in_search_path("fusermount3"),
            root: rustix::process::geteuid().is_root(),
            trial: runtime.map(|runtime| trial(runtime, cwd)),
        }
    }

    /// Whether `host` makes a mount with this choice.
    pub(super) const fn has(&self) -> bool {
        matches!(self.trial, Some(Ok(_)))
    }

    pub(super) fn verdict(&self, choice: MountChoice, at_rest: &str) -> Finding {
        let who = match (self.root, &self.helper) {
            (true, _) => "root mounts directly".to_owned(),
            (false, Some(helper)) => format!("{} mounts for users", helper.display()),
            (false, None) => "there is no fusermount3 in PATH".to_owned(),
        };
        let trial = match &self.trial {
            _ if choice == MountChoice::Dir => {
                return Finding::ok(
                    "fuse",
                    format!("`host` takes a real directory (dir), as it was asked to; {at_rest}"),
                );
            }
            None => return Finding::skip("fuse", "no mount can be tried without a directory for it"),
            Some(trial) => trial,
        };
        let reason = match trial {
            Ok(Trial { took, kernel }) => {
                let kernel = kernel
                    .map(|(major, minor)| format!("the kernel speaks FUSE {major}.{minor}; "))
                    .unwrap_or_default();
                let detail = format!("`host` takes a mount (fuse): a trial went well; {kernel}{who}");
                return Finding::ok("fuse", detail).after(*took);
            }
            Err(reason) => reason,
        };
        let advice = self.advice();
        if choice == MountChoice::Fuse {
            return Finding::fail(
                "fuse",
                format!("no mount: {reason}"),
                format!("{advice}, or leave out --mount fuse"),
            );
        }
        let detail = format!("`host` takes a real directory (dir; {at_rest}): no mount: {reason}");
        Finding::warn("fuse", detail, format!("{advice}; --mount dir makes this no warning"))
    }

    fn advice(&self) -> &'static str {
        if self.device.is_err() && self.there {
            "for a mount, let this user open the device (root: chmod 666 /dev/fuse), in a container with --cap-add SYS_ADMIN"
        } else if self.device.is_err() {
            "for a mount, load the kernel's module (modprobe fuse) or give the container the device (--device /dev/fuse --cap-add SYS_ADMIN)"
        } else if !self.root && self.helper.is_none() {
            "for a mount, install fusermount3 (Debian: apt install fuse3)"
        } else {
            "for a mount, the system has to allow it: a container needs --cap-add SYS_ADMIN, and a user no_new_privs off and a name in /etc/passwd"
        }
    }
}

/// Mounts as a channel does, and takes it away again. It is listed meanwhile, so that the next command cleans up if this
/// process is killed just then.
fn trial(runtime: &RuntimeDir, cwd: &Path) -> Result<Trial, String> {
    // Without the device no more need be tried.
    mounted::device()?;
    let new = NewChannel {
        nameplate: TRIAL,
        role: Role::Host,
        dir: None,
        cwd,
        started: SystemTime::now(),
        transport: TransportKind::Relay,
    };
    let place = runtime.register(&new).map_err(|error| error.to_string())?;
    let from = Instant::now();
    let options = mounted::Options::new(place.dir().to_owned(), place.source(), mounted::own_bell());
    let mailbox = FuseMailbox::open(options, Box::new(|_| true)).map_err(|error| error.to_string())?;
    let took = from.elapsed();
    let kernel = mailbox.kernel();
    mailbox.close().map_err(|error| format!("the mount cannot be taken away: {error}"))?;
    Ok(Trial { took, kernel })
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn directory(path: &str) -> Directory {
        Directory {
            path: path.into(),
            mode: 0o700,
            owner: 1000,
            memory: Some(true),
            free: Some(1 << 30),
            passed_over: None,
            relay: true,
        }
    }

    #[test]
    fn a_directory_is_described() {
        let finding = directory("/run/user/1000/agent-wormhole").verdict();
        assert_eq!(
            (finding.state, finding.detail.as_str()),
            (State::Ok, "/run/user/1000/agent-wormhole (mode 0700, owner 1000, in memory, 1.0 GiB free)")
        );
    }

    #[test]
    fn a_path_too_long_for_a_socket_fails_where_a_socket_is_needed() {
        let long = directory(&format!("/{}", "x".repeat(100)));
        assert_eq!(long.verdict().state, State::Fail);
        assert_eq!(Directory { relay: false, ..long }.verdict().state, State::Warn);
        let fits = directory(&format!("/{}", "x".repeat(MAX_SOCKET - SOCKET.len() - 2)));
        assert_eq!(fits.verdict().state, State::Ok);
    }

    #[test]
    fn a_runtime_directory_that_is_not_used_is_told() {
        let passed_over = Some("/run/user/0".into());
        let finding = Directory { passed_over, ..directory("/dev/shm/agent-wormhole-1") }.verdict();
        assert!(finding.state == State::Warn && finding.detail.contains("/run/user/0"), "{finding:?}");
    }

    fn mounts(trial: Result<(), &str>) -> Mounts {
        let trial = trial
            .map(|()| Trial { took: Duration::from_millis(12), kernel: Some((7, 38)) })
            .map_err(str::to_owned);
        Mounts { device: Ok(()), there: true, helper: None, root: true, trial: Some(trial) }
    }

    #[test]
    fn what_host_takes_follows_the_trial_and_the_choice() {
        let (well, ill) = (mounts(Ok(())), mounts(Err("no such device")));
        for (mounts, choice, state, word) in [
            (&well, MountChoice::Auto, State::Ok, "FUSE 7.38"),
            (&well, MountChoice::Fuse, State::Ok, "(fuse)"),
            (&well, MountChoice::Dir, State::Ok, "(dir)"),
            (&ill, MountChoice::Auto, State::Warn, "no mount: no such device"),
            (&ill, MountChoice::Fuse, State::Fail, "no such device"),
            (&ill, MountChoice::Dir, State::Ok, "plaintext in memory"),
        ] {
            let finding = mounts.verdict(choice, "plaintext in memory");
            assert!(finding.state == state && finding.detail.contains(word), "{choice:?}: {finding:?}");
        }
        assert!(well.has() && !ill.has());
        let none = Mounts { trial: None, ..well };
        assert_eq!(none.verdict(MountChoice::Auto, "").state, State::Skip);
    }

    #[test]
    fn the_advice_follows_what_is_missing() {
        let missing = "a reason";
        for (mounts, word) in [
            (Mounts { device: Err("gone".into()), there: false, ..mounts(Err(missing)) }, "modprobe"),
            (Mounts { device: Err("denied".into()), ..mounts(Err(missing)) }, "chmod 666"),
            (Mounts { root: false, ..mounts(Err(missing)) }, "apt install fuse3"),
            (
                Mounts { root: false, helper: Some("/bin/fusermount3".into()), ..mounts(Err(missing)) },
                "no_new_privs",
            ),
        ] {
            let advice = mounts.verdict(MountChoice::Auto, "").advice.unwrap();
            assert!(advice.contains(word), "{advice}");
        }
    }
}
