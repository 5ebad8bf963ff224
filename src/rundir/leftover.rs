//! What a dead channel left: recognising its directory, and removing it.
//!
//! Owns the decision what may be removed. Nothing is that our list does not name, that somebody put in its place, or
//! that does not look like a mailbox.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// What a mailbox has at its top, in the order in which it is looked for.
const LAYOUT: [&str; 2] = ["inbox", "outbox"];

/// Removes a channel's directory if it is still that: the inode that was listed, ours, mode 0700, and either empty or
/// laid out as a mailbox. Anything else is left alone, and that is no error. One that was there before the channel is
/// emptied instead, and gets back the mode that it had.
///
/// # Errors
/// Where it is to be removed and cannot be.
pub(super) fn remove(dir: &Path, inode: u64, mode_before: Option<u32>) -> io::Result<()> {
    let found = match dir.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let ours = found.is_dir()
        && found.ino() == inode
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o077 == 0;
    if !ours {
        return Ok(());
    }
    let is_mailbox =
        LAYOUT.iter().all(|part| dir.join(part).symlink_metadata().is_ok_and(|part| part.is_dir()));
    if let Some(mode) = mode_before {
        if is_mailbox {
            empty(dir)?;
        }
        return fs::set_permissions(dir, fs::Permissions::from_mode(mode));
    }
    if is_mailbox {
        return remove_all(dir);
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => done,
    }
}

/// Removes everything in a directory. What makes it a mailbox goes last: an attempt that fails can be repeated.
fn empty(dir: &Path) -> io::Result<()> {
    let mut parts = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    parts.sort_by_key(|path| path.file_name().is_some_and(|name| LAYOUT.iter().any(|part| name == *part)));
    for path in parts {
        if path.symlink_metadata()?.is_dir() { remove_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

/// Removes a directory and everything below it, also what its owner closed to himself: copies of read-only trees hold
/// such. Follows no link: what `outbox/` refers to stays.
fn remove_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(dir)?;
            fs::remove_dir_all(dir)
        }
        done => done,
    }
}

fn open_up(dir: &Path) -> io::Result<()> {
    let mut found = vec![dir.to_owned()];
    while let Some(dir) = found.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
    }
    Ok(())
}
