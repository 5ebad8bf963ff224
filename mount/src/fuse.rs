//! The kernel's side of a mounted channel: translates requests, delegates, and replies. With `fuse/session.rs` the only
//! file with types of fuser. Waits for nobody: what takes long is answered from another thread.
//!
//! Every path replies: a reply that is dropped answers EIO by itself.

mod open;
mod refusal;
mod session;
mod translate;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::error::FileError;
use crate::files::{Attr, Bytes, Caller, Entry, SetAttr, Times};
use crate::mounted::{Ask, Order, Shared};
pub(crate) use refusal::device;
pub(crate) use session::mount;
use session::{SlowRead, answer_read, answer_secret};
use translate::{code, dots, file_attr, give, ino, kind, time};

/// Largest WRITE in bytes.
const MAX_WRITE: u32 = 1 << 20;
/// Most requests in the background at once, such as readahead.
const MAX_BACKGROUND: u16 = 1024;
/// The unit of `statfs`, in bytes.
const UNIT: u32 = 4096;
/// The file keeps its size: fallocate(2).
const FALLOC_KEEP_SIZE: i32 = 1;
/// A part becomes a hole: fallocate(2).
const FALLOC_PUNCH_HOLE: i32 = 2;
/// A part becomes zero: fallocate(2).
const FALLOC_ZERO_RANGE: i32 = 16;
/// The attribute that says where a file in the outbox stands.
const STATE: &str = "user.wormhole.state";
/// The attribute that gives the number of its offer.
const ID: &str = "user.wormhole.id";

/// Answers the kernel.
struct Adapter {
    shared: Arc<Shared>,
    /// User and group that everything belongs to.
    owner: (u32, u32),
    /// The kernel lets files be mapped that it does not cache: the outbox is not cached then.
    direct: bool,
    /// What READs are answered from; requests come on one thread.
    buffer: Mutex<Vec<u8>>,
    slow: Sender<SlowRead>,
}

impl Adapter {
    fn caller(&self, request: &Request) -> Caller {
        self.shared.caller(request.pid())
    }

    fn attr(&self, attr: &Attr) -> FileAttr {
        file_attr(attr, self.owner)
    }

    fn entry(&self, made: Result<Entry, FileError>, reply: ReplyEntry) {
        match made {
            Ok(Entry { attr, ttl }) => {
                reply.entry_with_ttls(&attr.ttl, &ttl, &self.attr(&attr), Generation(0));
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn empty(done: Result<(), FileError>, reply: ReplyEmpty) {
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(code(error)),
        }
    }

    /// How the kernel is to treat what was opened.
    const fn open_flags(&self, cached: bool, of_the_outbox: bool) -> FopenFlags {
        if cached {
            FopenFlags::FOPEN_KEEP_CACHE
        } else if self.direct || !of_the_outbox {
            FopenFlags::FOPEN_DIRECT_IO
        } else {
            FopenFlags::empty()
        }
    }

    /// An attribute of a file in the outbox, from the thread that knows it.
    fn attribute(&self, inode: INodeNo, ask: Ask, size: u32, reply: ReplyXattr) {
        match self.shared.files().outbox_path(inode.0) {
            None => reply.error(code(FileError::NoAttribute)),
            Some(path) => {
                let answer = move |value: Option<String>| match value {
                    Some(value) => give(value.as_bytes(), size, reply),
                    None => reply.error(code(FileError::NoAttribute)),
                };
                self.shared.order(Order::Attribute(path, ask, Box::new(answer)));
            }
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each where the kernel has it.
        for wanted in [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // Set-id bits are never kept: nobody has to ask for them before each write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        self.direct = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
        let kernel = config.kernel_abi();
        self.shared.kernel.get_or_init(|| (kernel.0, kernel.1));
        // What it refuses it says, and keeps its own.
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        if let Err(most) = config.set_max_readahead(MAX_WRITE) {
            let _ = config.set_max_readahead(most);
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let caller = self.caller(request);
        let found = self.shared.files().lookup(parent.0, name, caller);
        self.entry(found, reply);
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        self.shared.with(|files| files.forget(inode.0, lookups));
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.shared.files().attr(inode.0);
        match found {
            Ok(attr) => reply.attr(&attr.ttl, &self.attr(&attr)),
            Err(error) => reply.error(code(error)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = |at: TimeOrNow| match at {
            TimeOrNow::Now => Times::Now,
            TimeOrNow::SpecificTime(at) => Times::At(time(at)),
        };
        let set = SetAttr {
            mode: mode.map(|mode| (mode & 0o777) as u16),
            size,
            atime: atime.map(times),
            mtime: mtime.map(times),
            fh: fh.map(|fh| fh.0),
        };
        let caller = self.caller(request);
        let set = self.shared.with(|files| files.set_attr(inode.0, set, caller, Instant::now()));
        match set {
            Ok(attr) => reply.attr(&attr.ttl, &self.attr(&attr)),
            Err(error) => reply.error(code(error)),
        }
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        let files = self.shared.files();
        match files.readlink(inode.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(code(error)),
        }
    }

    fn mknod(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let regular = mode & libc::S_IFMT == libc::S_IFREG;
        let made = if regular {
            let mode = (mode & 0o777) as u16;
            self.shared.with(|files| files.mknod(parent.0, name, mode, Instant::now()))
        } else {
            Err(FileError::NotSendable)
        };
        self.entry(made, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let caller = self.caller(request);
        let made = self.shared.with(|files| files.mkdir(parent.0, name, (mode & 0o777) as u16, caller));
        self.entry(made, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let caller = self.caller(request);
        Self::empty(self.shared.with(|files| files.unlink(parent.0, name, caller, Instant::now())), reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let caller = self.caller(request);
        Self::empty(self.shared.with(|files| files.rmdir(parent.0, name, caller, Instant::now())), reply);
    }

    fn symlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = self.shared.with(|files| files.symlink(parent.0, name, target.as_os_str()));
        self.entry(made, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let no_replace = flags == RenameFlags::RENAME_NOREPLACE;
        if !no_replace && !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let caller = self.caller(request);
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        let done = self.shared.with(|files| files.rename(from, to, no_replace, caller, Instant::now()));
        Self::empty(done, reply);
    }

    fn link(&self, _request: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.shared.with(|files| files.link(inode.0, parent.0, name, Instant::now())), reply);
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.opened(request, inode, flags, reply);
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mode = (mode & 0o777) as u16;
        let exclusive = flags & (libc::O_EXCL | libc::O_ACCMODE) == libc::O_EXCL | libc::O_RDWR;
        let (temporary, append) = (exclusive && mode == 0o600, flags & libc::O_APPEND != 0);
        let made = self.shared.with(|files| {
            let (entry, fh) = files.create(parent.0, name, mode, temporary, append)?;
            Ok::<_, FileError>((entry, fh, files.is_of_the_outbox(entry.attr.ino)))
        });
        match made {
            Ok((Entry { attr, ttl }, fh, of_the_outbox)) => {
                let flags = self.open_flags(false, of_the_outbox);
                reply.created(&ttl.min(attr.ttl), &self.attr(&attr), Generation(0), FileHandle(fh), flags);
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let found = self.shared.files().bytes(fh.0);
        let size = size.min(MAX_WRITE) as usize;
        self.saw(fh, offset, size);
        match found {
            Ok(Bytes::Content(content)) if content.is_in_memory_unsealed() => {
                let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
                answer_read(&content, offset, size, &mut buffer, reply);
            }
            Ok(Bytes::Content(content)) => {
                // Without that thread its reply is dropped, which answers EIO.
                let _ = self.slow.send(SlowRead { content, offset, size, reply });
            }
            Ok(Bytes::None) => reply.data(&[]),
            Ok(Bytes::Secret(secret)) => answer_secret(&secret, lock_owner.is_some(), (offset, size), reply),
            Err(error) => reply.error(code(error)),
        }
    }

    fn write(
        &self,
        request: &Request,
        _inode: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let caller = self.caller(request);
        let now = Instant::now();
        match self.shared.with(|files| files.write(fh.0, (offset, data), mapped, caller, now)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(code(error)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        Self::empty(self.shared.with(|files| files.flush(fh.0)), reply);
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.with(|files| files.release(fh.0, Instant::now()));
        reply.ok();
        self.shared.released();
    }

    fn fsync(&self, request: &Request, _inode: INodeNo, fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        if !self.shared.files().is_receipt(fh.0) {
            // Nothing is more durable than it is already.
            return reply.ok();
        }
        let answer = Box::new(move |result| Self::empty(result, reply));
        if let Some(number) = self.shared.receipts.add(request.pid(), answer) {
            self.shared.with(|files| files.wait_at_receipt(number, Instant::now()));
        }
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.shared.with(|files| files.open_dir(inode.0)) {
            Ok(fh) => reply.opened(FileHandle(fh), FopenFlags::empty()),
            Err(error) => reply.error(code(error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let files = self.shared.files();
        for (cookie, name, number) in dots(&files, inode.0, offset) {
            if reply.add(ino(number), cookie, FileType::Directory, name) {
                return reply.ok();
            }
        }
        match files.list(inode.0, offset) {
            Err(error) => reply.error(code(error)),
            Ok(entries) => {
                for found in entries {
                    let attr = &found.entry.attr;
                    if reply.add(ino(attr.ino), found.cookie, kind(attr.kind), &found.name) {
                        break;
                    }
                }
                reply.ok();
            }
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut files = self.shared.files();
        for (cookie, name, number) in dots(&files, inode.0, offset) {
            let Ok(attr) = files.attr(number) else { continue };
            // The kernel does not count these.
            if reply.add(ino(number), cookie, name, &Duration::ZERO, &self.attr(&attr), Generation(0)) {
                return reply.ok();
            }
        }
        match files.list(inode.0, offset) {
            Err(error) => reply.error(code(error)),
            Ok(entries) => {
                for found in entries {
                    let Entry { attr, ttl } = found.entry;
                    let ttl = ttl.min(attr.ttl);
                    let given = self.attr(&attr);
                    if reply.add(ino(attr.ino), found.cookie, &found.name, &ttl, &given, Generation(0)) {
                        break;
                    }
                    files.count_lookup(attr.ino);
                }
                reply.ok();
            }
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.with(|files| files.release_dir(fh.0));
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _inode: INodeNo, _fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        // Local: the kernel holds the directory's lock meanwhile.
        reply.ok();
    }

    fn statfs(&self, _request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let space = self.shared.files().space(inode.0);
        let (blocks, free) = (space.total / u64::from(UNIT), space.free / u64::from(UNIT));
        reply.statfs(
            blocks,
            free,
            free,
            space.nodes,
            space.free_nodes,
            UNIT,
            crate::name::MAX_PART as u32,
            UNIT,
        );
    }

    fn setxattr(
        &self,
        _request: &Request,
        _inode: INodeNo,
        name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let error = if name == STATE || name == ID { FileError::NotSendable } else { FileError::Unsupported };
        reply.error(code(error));
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match name.to_str() {
            Some(STATE) => self.attribute(inode, Ask::State, size, reply),
            Some(ID) => self.attribute(inode, Ask::Id, size, reply),
            // Access control lists.
            Some(name) if name.starts_with("system.") => reply.error(code(FileError::Unsupported)),
            _ => reply.error(code(FileError::NoAttribute)),
        }
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let sent = self.shared.files().outbox_path(inode.0).is_some();
        let names = if sent { format!("{STATE}\0{ID}\0") } else { String::new() };
        give(names.as_bytes(), size, reply);
    }

    fn removexattr(&self, _request: &Request, _inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let error = if name == STATE || name == ID { FileError::NotSendable } else { FileError::NoAttribute };
        reply.error(code(error));
    }

    fn access(&self, _request: &Request, _inode: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel decides by mode and owner.
        reply.ok();
    }

    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE) != 0 {
            return reply.error(code(FileError::Unsupported));
        }
        let how = (mode & FALLOC_KEEP_SIZE != 0, mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE) != 0);
        Self::empty(self.shared.with(|files| files.allocate(fh.0, (offset, length), how)), reply);
    }

    fn lseek(
        &self,
        _request: &Request,
        _inode: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let hole = match whence {
            libc::SEEK_DATA => false,
            libc::SEEK_HOLE => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.shared.files().seek(fh.0, offset, hole) {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(code(error)),
        }
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel copies by itself then, and does not ask again.
        reply.error(Errno::ENOSYS);
    }
}
