//! The memory of a secret: pages of its own that are locked, in no dump and in no forked child, and wiped.
//!
//! Owns the pages. Where the system locks none (`RLIMIT_MEMLOCK`), they are used all the same, and [`all_locked`] says so.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapMut;
use zeroize::Zeroize as _;

/// Longest secret in bytes.
pub const MAX_SECRET: usize = 16 * 1024;
/// What is mapped for a secret whose length is not known yet.
const MOST: usize = MAX_SECRET;

/// Whether some pages could not be locked.
static UNLOCKED: AtomicBool = AtomicBool::new(false);

/// Whether all memory of secrets that this process has had so far is locked: none of it can reach a swap device.
#[must_use]
pub fn all_locked() -> bool {
    !UNLOCKED.load(Ordering::Relaxed)
}

/// The system has no page for a secret.
#[derive(Debug, thiserror::Error)]
#[error("no memory for a secret can be had: {0}; close other channels")]
pub struct NoMemory(#[from] io::Error);

/// The bytes of a secret. Wiped when dropped; prints nothing.
pub struct Secret {
    /// As long as the secret at least; `None` where nothing was written yet.
    pages: Option<MmapMut>,
    len: usize,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// One without a byte.
    #[must_use]
    pub const fn empty() -> Self {
        Self { pages: None, len: 0 }
    }

    /// One with a copy of these bytes, at most [`MAX_SECRET`].
    ///
    /// # Errors
    /// [`NoMemory`], also where they are too many.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, NoMemory> {
        if bytes.len() > MAX_SECRET {
            return Err(NoMemory(io::ErrorKind::FileTooLarge.into()));
        }
        let mut secret = Self { pages: Some(pages(bytes.len().max(1))?), len: bytes.len() };
        if let Some(room) = secret.pages.as_mut().and_then(|pages| pages.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
        }
        Ok(secret)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.pages.as_ref().and_then(|pages| pages.get(..self.len)).unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes at an offset; what is between the end and it becomes zero. `false` where it would be too long.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, NoMemory> {
        let Some((start, end)) = usize::try_from(offset)
            .ok()
            .and_then(|start| Some((start, start.checked_add(bytes.len())?)))
            .filter(|(_, end)| *end <= MAX_SECRET)
        else {
            return Ok(false);
        };
        if let Some(room) = self.room(end)?.get_mut(start..end) {
            room.copy_from_slice(bytes);
        }
        self.len = self.len.max(end);
        Ok(true)
    }

    /// Shortens it, or lengthens it with zeros. `false` where it would be too long.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn set_len(&mut self, len: u64) -> Result<bool, NoMemory> {
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= MAX_SECRET) else {
            return Ok(false);
        };
        let old = self.len;
        // What is cut off is wiped: it would be there again where the secret grows.
        if let Some(cut) = self.room(len)?.get_mut(len..old.max(len)) {
            cut.zeroize();
        }
        self.len = len;
        Ok(true)
    }

    /// A reader from standard input, a socket or a pipe, straight into these pages. `None` where there is more than
    /// [`MAX_SECRET`].
    ///
    /// # Errors
    /// What the reader says.
    pub fn read_from(reader: &mut dyn io::Read) -> io::Result<Option<Self>> {
        let mut secret = Self { pages: Some(pages(MOST + 1).map_err(|NoMemory(error)| error)?), len: 0 };
        loop {
            let len = secret.len;
            let Some(room) = secret.pages.as_mut().and_then(|pages| pages.get_mut(len..=MOST)) else {
                return Ok(None);
            };
            if room.is_empty() {
                return Ok(None);
            }
            match reader.read(room) {
                Ok(0) => return Ok(Some(secret)),
                Ok(count) => secret.len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Pages for so many bytes, those of before included. Pages are made for the longest secret at once.
    fn room(&mut self, len: usize) -> Result<&mut [u8], NoMemory> {
        let has = self.pages.as_ref().map_or(0, |pages| pages.len());
        if len > has || self.pages.is_none() {
            let mut larger = pages(MOST)?;
            if let (Some(old), Some(new)) = (self.pages.as_ref(), larger.get_mut(..has)) {
                new.copy_from_slice(old);
            }
            if let Some(mut old) = self.pages.replace(larger) {
                old.zeroize();
            }
        }
        Ok(self.pages.as_deref_mut().unwrap_or_default())
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        if let Some(pages) = &mut self.pages {
            pages.zeroize();
        }
    }
}

/// Locked pages for so many bytes, all zero.
fn pages(len: usize) -> Result<MmapMut, NoMemory> {
    let pages = MmapMut::map_anon(len)?;
    if let Err(error) = pages.lock()
        && !UNLOCKED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(%error, "secrets cannot be locked in memory, and may be swapped out; raise `ulimit -l`");
    }
    #[cfg(target_os = "linux")]
    for advice in [memmap2::Advice::DontDump, memmap2::Advice::DontFork] {
        if let Err(error) = pages.advise(advice) {
            tracing::debug!(%error, ?advice, "the kernel does not know this advice");
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_and_too_much_is_not_taken() {
        let mut secret = Secret::empty();
        assert!(secret.is_empty() && secret.bytes().is_empty());
        assert!(secret.write_at(3, b"def").unwrap());
        assert!(secret.write_at(0, b"abc").unwrap());
        assert_eq!((secret.bytes(), secret.len()), (&b"abcdef"[..], 6));
        assert!(!secret.write_at(MAX_SECRET as u64, b"x").unwrap());
        assert!(!secret.write_at(u64::MAX, b"x").unwrap());
        assert!(secret.write_at(MAX_SECRET as u64 - 1, b"x").unwrap());
        assert_eq!(secret.len(), MAX_SECRET);
        assert!(secret.set_len(2).unwrap() && secret.set_len(4).unwrap());
        assert_eq!(secret.bytes(), b"ab\0\0", "what was cut off does not come back");
        assert!(!secret.set_len(MAX_SECRET as u64 + 1).unwrap());
    }

    #[test]
    fn a_copy_grows_as_an_empty_one_does() {
        let mut secret = Secret::copy_of(b"key").unwrap();
        assert!(secret.write_at(9000, b"!").unwrap());
        assert_eq!((&secret.bytes()[..3], secret.len()), (&b"key"[..], 9001));
        assert!(Secret::copy_of(&[0; MAX_SECRET + 1]).is_err());
        assert!(Secret::copy_of(b"").unwrap().is_empty());
    }

    #[test]
    fn a_stream_that_is_too_long_is_none() {
        let exactly = vec![7; MAX_SECRET];
        assert_eq!(Secret::read_from(&mut &exactly[..]).unwrap().unwrap().bytes(), exactly);
        assert!(Secret::read_from(&mut &vec![7; MAX_SECRET + 1][..]).unwrap().is_none());
        assert!(Secret::read_from(&mut &b""[..]).unwrap().unwrap().is_empty());
    }

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", Secret::copy_of(b"key").unwrap()), "Secret");
    }

    /// `VmFlags` of a mapping: locked, not dumped, not there in a child.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_pages_are_locked_and_in_no_dump() {
        let secret = Secret::copy_of(&[0x5a; 5000]).unwrap();
        let at = secret.bytes().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut flags = None;
        let mut inside = false;
        for line in maps.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((start, end)) = range.split_once('-')
                && let (Ok(start), Ok(end)) =
                    (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                inside = (start..end).contains(&at);
            }
            if inside && let Some(found) = line.strip_prefix("VmFlags:") {
                flags = Some(found.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
            }
        }
        let flags = flags.unwrap();
        for flag in ["dd", "dc"] {
            assert!(flags.iter().any(|found| found == flag), "{flag} in {flags:?}");
        }
        assert_eq!(all_locked(), flags.iter().any(|found| found == "lo"), "{flags:?}");
    }
}
