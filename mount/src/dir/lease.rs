//! Whether somebody is writing a file: a read lease (Linux) is granted only while nobody has it open for writing.

use std::os::fd::AsFd;

/// Whether nobody has this file, opened for reading only, open for writing. `None` where the platform or the file
/// system cannot say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn nobody_writes(file: impl AsFd) -> Option<bool> {
    use rustix::io::Errno;

    // While the lease is held, a writer's open makes the kernel send a signal to this process: SIGIO, which kills,
    // unless another is chosen. SIGURG is ignored where nobody asked for it.
    fcntl(&file, F_SETSIG, libc::SIGURG).ok()?;
    match fcntl(&file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            // It was proved; closing the file would release it, too.
            let _ = fcntl(&file, libc::F_SETLEASE, libc::F_UNLCK);
            Some(true)
        }
        Err(Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

/// Whether nobody has this file open for writing: unknown here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn nobody_writes(_file: impl AsFd) -> Option<bool> {
    None
}

/// Chooses the signal of a lease; the number of Linux' generic headers, which `libc` does not name.
#[cfg(any(target_os = "linux", target_os = "android"))]
const F_SETSIG: libc::c_int = 10;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code)]
fn fcntl(file: impl AsFd, command: libc::c_int, argument: libc::c_int) -> Result<(), rustix::io::Errno> {
    use std::os::fd::AsRawFd as _;

    // SAFETY: the descriptor is open for as long as `file` is borrowed, and both commands take an int by value: no
    // memory is read or written.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, argument) };
    if result == -1 {
        let error = std::io::Error::last_os_error();
        return Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL));
    }
    Ok(())
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};

    #[test]
    fn a_writer_is_seen_until_it_closes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(nobody_writes(&reader), Some(false));
        drop(writer);
        assert_eq!(nobody_writes(&reader), Some(true));
        let appender = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(nobody_writes(&reader), Some(false));
        drop(appender);
    }
}
