//! The mount table of this process: finding a mount of ours, and taking it away.
//!
//! Owns the reading of `/proc/self/mountinfo`, the decision whose a mount is, and the ways to end one. Never looks at a
//! mounted directory itself: a `stat` of a mount whose server is gone or busy may wait for ever.
//! Elsewhere than on Linux there is no such table: nothing is found, and nothing can be detached or aborted.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
pub(crate) use table::Watch;

/// Type of our mounts in the table. Mounted through `fusermount3`, it takes the option `subtype=agent-wormhole`.
pub const FSTYPE: &str = "fuse.agent-wormhole";

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where, absolute, without links.
    pub path: PathBuf,
    /// What is mounted: for ours, the name that the back end gave (`fsname`).
    pub source: String,
    /// File system type, with the subtype after a dot.
    pub fstype: String,
    /// Device number, major and minor.
    pub device: (u32, u32),
    /// The user that a FUSE mount belongs to, which the kernel knows; type and source are as anybody has written them.
    pub owner: Option<u32>,
}

/// Every mount that this process sees, in the order of the table. Lines that are not understood are left out.
///
/// # Errors
/// Where the table cannot be read, or is larger than any that the kernel allows by default.
pub fn list() -> io::Result<Vec<Mounted>> {
    #[cfg(target_os = "linux")]
    {
        Ok(table::read()?.into_iter().map(|entry| entry.mounted).collect())
    }
    #[cfg(not(target_os = "linux"))]
    {
        Ok(Vec::new())
    }
}

/// Our mount at exactly this path, which is absolute and without links: the topmost one there, and only if it has our
/// type and this source. One that another mount hides is not found.
///
/// # Errors
/// As [`list`].
pub fn find(path: &Path, source: &str) -> io::Result<Option<Mounted>> {
    #[cfg(target_os = "linux")]
    {
        let entries = table::read()?;
        let found = table::visible(&entries, path).map(|entry| &entry.mounted);
        Ok(found.filter(|found| found.fstype == FSTYPE && found.source == source).cloned())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (path, source);
        Ok(None)
    }
}

/// Detaches our mount at this path, if [`find`] finds one; whoever is inside keeps it until they leave. Whether
/// something was detached. Waits for no server; at most 5 s for `fusermount3`, which is used where the call itself is
/// not permitted.
///
/// Between look and call somebody may put another mount on top, who must then be this user or root in a directory
/// that only this user can enter.
///
/// # Errors
/// Where there is such a mount and it stays.
pub fn detach(path: &Path, source: &str) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        use rustix::mount::UnmountFlags;

        if find(path, source)?.is_none() {
            return Ok(false);
        }
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => helper::unmount(path).map(|()| true),
            // Somebody was faster.
            Err(_) if find(path, source)?.is_none() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (path, source);
        Ok(false)
    }
}

/// Ends the connection between the kernel and the server of a FUSE mount: every operation in it fails with ENOTCONN at
/// once, also those that wait.
///
/// # Errors
/// `NotFound` where the control file system is not mounted or there is no such connection, `Unsupported` elsewhere than
/// on Linux.
pub fn abort(device: (u32, u32)) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        connection::abort(Path::new("/sys/fs/fuse/connections"), device)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = device;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The program that unmounts for users who may not.
#[cfg(target_os = "linux")]
mod helper {
    use std::io;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec};

    /// Its names, in the order in which they are tried.
    const PROGRAMS: [&str; 6] = [
        "fusermount3",
        "/usr/bin/fusermount3",
        "/bin/fusermount3",
        "fusermount",
        "/usr/bin/fusermount",
        "/bin/fusermount",
    ];
    /// How long it may take. It takes 8 ms.
    const PATIENCE: Duration = Duration::from_secs(5);

    pub(super) fn unmount(path: &Path) -> io::Result<()> {
        for program in PROGRAMS {
            // It holds the other end until it ends.
            let (ours, its) = UnixStream::pair()?;
            let mut command = Command::new(program);
            command.args(["-u", "-z", "-q", "--"]).arg(path).current_dir("/");
            command.stdin(Stdio::null()).stdout(Stdio::from(std::os::fd::OwnedFd::from(its)));
            let child = command.stderr(Stdio::null()).spawn();
            drop(command);
            return match child {
                Ok(child) => wait(child, &ours),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error),
            };
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "fusermount3 is needed to unmount and is not installed"))
    }

    fn wait(mut child: Child, its_end: &UnixStream) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(its_end, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => {
                    child.kill()?;
                    child.wait()?;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("fusermount3 failed: {status}"))) }
    }
}

/// The control file system of FUSE.
#[cfg(target_os = "linux")]
mod connection {
    use std::fs::OpenOptions;
    use std::io::{self, Write as _};
    use std::path::Path;

    /// Bits of a minor number in the kernel's device number.
    const MINOR_BITS: u32 = 20;

    /// A connection's directory is named with the kernel's device number of its mount, in decimal. Not that of the C
    /// library, which splits large minors.
    pub(super) fn name((major, minor): (u32, u32)) -> Option<String> {
        let fits = major < 1 << (32 - MINOR_BITS) && minor < 1 << MINOR_BITS;
        fits.then(|| (major << MINOR_BITS | minor).to_string())
    }

    pub(super) fn abort(connections: &Path, device: (u32, u32)) -> io::Result<()> {
        let name = name(device).ok_or(io::ErrorKind::InvalidInput)?;
        OpenOptions::new().write(true).open(connections.join(name).join("abort"))?.write_all(b"1")
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
