//! Where bytes rest: the contents of files in chunks, in memory up to a limit and sealed on disk above it.
//!
//! Owns the places of chunks, the key that seals them and the limits of the zones. Knows no names, no modes and no
//! kernel: a file system holds one [`Content`] for each file and keeps writers of the same content apart (`&mut`).
//!
//! Memory is one memfd. What does not fit goes to one unlinked file, every chunk sealed with AES-256-GCM under a key
//! that exists only in this process: nothing on the disk can be read once it has ended. Where swap is on, the chunks in
//! the memfd are sealed too. A chunk that was altered, moved or put back in an older state is
//! [`io::ErrorKind::InvalidData`], never other bytes.

mod content;
mod quota;
mod scratch;
mod seal;
mod slots;
#[cfg(test)]
mod tests;

pub use content::{Content, Reading};
pub use quota::{Charge, Full, Quota};
pub use seal::{Damaged, Exhausted};

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Access;
use rustix::io::Errno;

use scratch::Pool;
use seal::Sealer;
use slots::{Area, Place, Where};

/// Bytes of a chunk, which is placed, shared and sealed as one.
pub const CHUNK: usize = 64 * 1024;
/// Most bytes in memory unless told otherwise: 256 MiB.
pub const DEFAULT_MEMORY: u64 = 256 * 1024 * 1024;
/// Longest content in bytes: 8 TiB, holes included.
pub const MAX_LEN: u64 = 1 << 43;
/// What a chunk occupies is counted in pages of so many bytes.
const PAGE: usize = 4096;

/// How a [`Store`] keeps its bytes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most bytes in memory.
    pub memory: u64,
    /// Where the file for the rest is made; `None` is `$TMPDIR` if set, else `/var/tmp` if it can be written, else the
    /// system's directory for temporary files.
    pub spill_dir: Option<PathBuf>,
    /// Whether chunks in memory are sealed too.
    pub seal_memory: bool,
}

impl Options {
    /// [`DEFAULT_MEMORY`], sealed where swap is on.
    #[must_use]
    pub fn detect() -> Self {
        let seal_memory = match std::fs::read_to_string("/proc/swaps") {
            Ok(table) => has_swap(&table),
            // Not there: no such platform. There and not readable: swap may be on.
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        Self { memory: DEFAULT_MEMORY, spill_dir: None, seal_memory }
    }
}

/// Whether the table of `/proc/swaps` has a line below its heading.
fn has_swap(table: &str) -> bool {
    table.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// Memory, the file for the rest, and the key. Shared by every [`Content`] in it.
pub struct Store {
    memory: Arc<Area>,
    /// Made when it is first needed.
    spill: Mutex<Option<Arc<Area>>>,
    spill_dir: PathBuf,
    sealer: Sealer,
    pool: Pool,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store with a key of its own.
    ///
    /// # Errors
    /// Where the system gives no memory file or no randomness.
    pub fn new(options: Options) -> io::Result<Arc<Self>> {
        let spill_dir = options.spill_dir.unwrap_or_else(default_spill_dir);
        let (file, on_disk) = memory_file(&spill_dir)?;
        let sealed = options.seal_memory || on_disk;
        Ok(Arc::new(Self {
            memory: Area::new(Where::Memory, file, sealed, options.memory),
            spill: Mutex::new(None),
            spill_dir,
            sealer: Sealer::new()?,
            pool: Pool::default(),
        }))
    }

    /// Where bytes rest, in words for `status`.
    #[must_use]
    pub fn at_rest(&self) -> &'static str {
        match (self.memory.limit(), self.memory.is_sealed()) {
            _ if !HAS_MEMFD => "sealed on disk",
            (0, _) => "sealed on disk",
            (DEFAULT_MEMORY, false) => "in memory; above 256 MiB sealed on disk",
            (DEFAULT_MEMORY, true) => "sealed in memory (swap is on); above 256 MiB sealed on disk",
            (_, false) => "in memory; above its limit sealed on disk",
            (_, true) => "sealed in memory (swap is on); above its limit sealed on disk",
        }
    }

    /// Bytes that chunks occupy in memory, in whole pages; never above [`Options::memory`].
    #[must_use]
    pub fn in_memory(&self) -> u64 {
        self.memory.used()
    }

    /// Bytes that chunks occupy in the file on disk, in whole pages.
    #[must_use]
    pub fn spilled(&self) -> u64 {
        self.spill.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |area| area.used())
    }

    /// Where the file for what does not fit into memory is made.
    #[must_use]
    pub fn spill_dir(&self) -> &Path {
        &self.spill_dir
    }

    /// A place for so many bytes, in memory where they fit.
    fn take(&self, bytes: usize) -> io::Result<Place> {
        if let Some(place) = self.memory.take(bytes) {
            return Ok(place);
        }
        self.spill()?.take(bytes).ok_or_else(|| io::ErrorKind::StorageFull.into())
    }

    fn spill(&self) -> io::Result<Arc<Area>> {
        let mut spill = self.spill.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(area) = &*spill {
            return Ok(Arc::clone(area));
        }
        let area = Area::new(Where::Disk, tempfile::tempfile_in(&self.spill_dir)?, true, u64::MAX);
        Ok(Arc::clone(spill.insert(area)))
    }
}

/// Where a store's file is that is too large for memory, unless somebody says: `$TMPDIR`, else `/var/tmp`, else the
/// system's directory for temporary files.
#[must_use]
pub fn default_spill_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()) {
        return dir.into();
    }
    let usual = Path::new("/var/tmp");
    if rustix::fs::access(usual, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        return usual.into();
    }
    std::env::temp_dir()
}

/// Whether the platform has files that are memory and nothing else.
const HAS_MEMFD: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The file for chunks in memory, and whether it is on disk all the same.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn memory_file(_spill_dir: &Path) -> io::Result<(File, bool)> {
    use rustix::fs::{MemfdFlags, memfd_create};

    let name = "agent-wormhole";
    // Kernels before 6.3 do not know the second flag, later ones may insist on it.
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(name, MemfdFlags::CLOEXEC))?;
    Ok((file.into(), false))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn memory_file(spill_dir: &Path) -> io::Result<(File, bool)> {
    Ok((tempfile::tempfile_in(spill_dir)?, true))
}

/// Why a content cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Over the limit of its zone.
    #[error("no space is left for it")]
    Full,
    /// Longer than [`MAX_LEN`].
    #[error("it would be longer than {MAX_LEN} bytes")]
    TooLarge,
    /// The system said no, or a sealed chunk does not open.
    #[error("it cannot be stored: {0}")]
    Io(#[from] io::Error),
}

impl From<Full> for BlobError {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

impl BlobError {
    /// What a system call answers: `ENOSPC`, `EFBIG` or `EIO`.
    #[must_use]
    pub fn errno(&self) -> i32 {
        let errno = match self {
            Self::Full => Errno::NOSPC,
            Self::TooLarge => Errno::FBIG,
            Self::Io(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::NOSPC,
                _ => Errno::IO,
            },
        };
        errno.raw_os_error()
    }
}

/// Bytes in whole pages.
const fn pages(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE)
}
