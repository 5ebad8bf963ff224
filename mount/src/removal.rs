//! Takes away what is in a directory, below its handle: no link and nobody who renames leads it elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::beneath::{self, DIR_MODE};

/// How often it is tried while somebody writes into it.
const REMOVALS: usize = 16;

/// Removes what has a name in a directory and everything below it, also in directories that their owner closed.
pub(crate) fn remove(dir: impl AsFd, name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    while_written(|| remove_once(&dir, &name))
}

/// Removes everything in a directory, and then does `last`, which may fail while there is something in it.
pub(crate) fn clear(dir: impl AsFd, last: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    while_written(|| {
        clear_once(&dir)?;
        last()
    })
}

fn while_written(remove: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 1..REMOVALS {
        match remove() {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result,
        }
    }
    remove()
}

fn remove_once(dir: impl AsFd, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // A directory: one of the two, as the platform likes.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let below = match beneath::open_dir(&dir, name) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&dir, name, DIR_MODE, AtFlags::empty())?;
            beneath::open_dir(&dir, name)
        }
        opened => opened,
    }?;
    clear_once(&below)?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes all that can be; the first error of what cannot.
fn clear_once(dir: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fchmod(&dir, DIR_MODE)?;
    let errno = |error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    // All of them first: a directory that shrinks while it is read may hide some.
    let names: Vec<_> = beneath::names(&dir).and_then(Iterator::collect).map_err(errno)?;
    names.iter().map(|name| remove_once(&dir, name)).fold(Ok(()), Result::and)
}
