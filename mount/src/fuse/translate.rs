//! The kernel's words for ours, and ours for the kernel's.

use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, ReplyXattr};

use crate::error::{FileError, errno};
use crate::files::{Attr, Files, Kind};
use crate::tree::{Ino, Time};

/// The block size that is reported, in bytes: the buffer that `cp` and the C library choose.
const BLOCK: u32 = 256 * 1024;

/// What `stat` says, in the kernel's words.
pub(super) fn file_attr(attr: &Attr, (uid, gid): (u32, u32)) -> FileAttr {
    let at = |time: Time| time.system().unwrap_or(UNIX_EPOCH);
    FileAttr {
        ino: ino(attr.ino),
        size: attr.size,
        blocks: attr.allocated.div_ceil(512),
        atime: at(attr.atime),
        mtime: at(attr.mtime),
        ctime: at(attr.ctime),
        crtime: at(attr.ctime),
        kind: kind(attr.kind),
        perm: attr.mode,
        nlink: attr.links,
        uid,
        gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

pub(super) fn code(error: FileError) -> Errno {
    Errno::from_i32(errno(error).raw_os_error())
}

pub(super) fn ino(number: Ino) -> INodeNo {
    INodeNo(number)
}

/// fuser gives a time before 1970 as whole seconds before it, and then the nanoseconds before those; they are after.
pub(super) fn time(at: SystemTime) -> Time {
    match UNIX_EPOCH.duration_since(at) {
        Err(_) => Time::from(at),
        Ok(before) => Time {
            seconds: i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds),
            nanos: before.subsec_nanos(),
        },
    }
}

pub(super) const fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Link => FileType::Symlink,
    }
}

pub(super) fn is_writing(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}

/// The value of an attribute, or its length where no room was given.
pub(super) fn give(value: &[u8], size: u32, reply: ReplyXattr) {
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        reply.size(len);
    } else if len > size {
        reply.error(code(FileError::Range));
    } else {
        reply.data(value);
    }
}

/// `.` and `..` as far as they come after a place.
pub(super) fn dots(
    files: &Files,
    dir: Ino,
    after: u64,
) -> impl Iterator<Item = (u64, &'static str, Ino)> + use<> {
    [(1, ".", dir), (2, "..", files.parent(dir))].into_iter().filter(move |(cookie, ..)| *cookie > after)
}
