//! Files that may change while the relay runs.
//!
//! Owns when they are read again. What they hold that cannot be used does not replace what was read before.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::EdgeError;

/// Longest file that is read, in bytes: a chain of certificates has a few thousand.
const MAX_FILE: u64 = 1 << 20;

/// Reads what the files hold.
type Load<T> = fn(&[PathBuf]) -> Result<T, EdgeError>;

/// What the system tells of a file: another one after it was written or replaced, by a link as well.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// What some files hold.
#[derive(Debug)]
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    /// How the files were when they were read last.
    stamps: Mutex<Vec<Stamp>>,
    current: RwLock<Arc<T>>,
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    pub fn new(paths: Vec<PathBuf>, load: Load<T>) -> Result<Self, EdgeError> {
        // Before they are read: what changes meanwhile is seen next time.
        let stamps = Mutex::new(stamps(&paths));
        let current = RwLock::new(Arc::new(load(&paths)?));
        Ok(Self { paths, load, stamps, current })
    }

    /// What they held when they could be used last.
    pub fn current(&self) -> Arc<T> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads them again if they changed. What cannot be used is said once for each change.
    pub fn refresh(&self) {
        let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.paths);
        if *known == stamps {
            return;
        }
        *known = stamps;
        match (self.load)(&self.paths) {
            Ok(value) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                tracing::info!(file = %self.named(), "a file has changed and was read again");
            }
            Err(error) => {
                tracing::warn!(%error, "a file has changed and cannot be used; what it held before still holds");
            }
        }
    }

    /// The first of the files, for the log.
    fn named(&self) -> String {
        self.paths.first().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |meta: Metadata| {
        let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        (meta.dev(), meta.ino(), meta.len(), modified, changed)
    };
    paths.iter().map(|path| std::fs::metadata(path).ok().map(stamp)).collect()
}

/// Reads a whole file that is not absurdly long.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, EdgeError> {
    let unreadable = |source| EdgeError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(EdgeError::TooLong { path: path.to_owned(), max: MAX_FILE });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// How often the files were read.
    static LOADS: AtomicU32 = AtomicU32::new(0);

    fn load(paths: &[PathBuf]) -> Result<Vec<u8>, EdgeError> {
        LOADS.fetch_add(1, Ordering::Relaxed);
        read(&paths[0])
    }

    #[test]
    fn what_changed_is_read_once_and_what_is_bad_replaces_nothing() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("file");
        assert!(matches!(Watched::new(vec![path.clone()], load), Err(EdgeError::Unreadable { .. })));
        fs::write(&path, "one").expect("written");
        let watched = Watched::new(vec![path.clone()], load).expect("read");
        let loads = LOADS.load(Ordering::Relaxed);
        watched.refresh();
        assert_eq!(LOADS.load(Ordering::Relaxed), loads, "nothing has changed");
        // The same length, by a file that takes its place.
        fs::write(place.path().join("new"), "two").expect("written");
        fs::rename(place.path().join("new"), &path).expect("renamed");
        watched.refresh();
        watched.refresh();
        assert_eq!(*watched.current(), b"two");
        assert_eq!(LOADS.load(Ordering::Relaxed), loads + 1);
        fs::remove_file(&path).expect("removed");
        watched.refresh();
        watched.refresh();
        assert_eq!(*watched.current(), b"two");
        assert_eq!(LOADS.load(Ordering::Relaxed), loads + 2, "a failure is met once");
        fs::write(&path, vec![0; MAX_FILE as usize + 1]).expect("written");
        watched.refresh();
        assert_eq!(*watched.current(), b"two");
        fs::write(&path, "three").expect("written");
        watched.refresh();
        assert_eq!(*watched.current(), b"three");
    }
}
