//! Places for chunks in a file, each [`CHUNK`] bytes from the next.
//!
//! Owns which are free and how many bytes are occupied. A place that is given back is punched out of the file, so it
//! reads as zeros to whoever gets it next and occupies nothing until then.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::quota::Gauge;
use super::{CHUNK, pages};

/// What an area's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// The memfd.
    Memory,
    /// The unlinked file on disk.
    Disk,
}

/// A file of places.
pub(super) struct Area {
    kind: Where,
    file: File,
    /// Whether only sealed chunks may be written.
    sealed: bool,
    /// Bytes that places occupy.
    count: Gauge,
    numbers: Mutex<Numbers>,
}

/// Which places are taken: all below `next` that are not free.
#[derive(Debug, Default)]
struct Numbers {
    free: BTreeSet<u64>,
    next: u64,
}

impl Numbers {
    /// The lowest that is free.
    fn take(&mut self) -> u64 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give(&mut self, number: u64) {
        self.free.insert(number);
        while self.next > 0 && self.free.remove(&(self.next - 1)) {
            self.next -= 1;
        }
    }
}

impl Area {
    pub(super) fn new(kind: Where, file: File, sealed: bool, limit: u64) -> Arc<Self> {
        let numbers = Mutex::default();
        Arc::new(Self { kind, file, sealed, count: Gauge::new(limit), numbers })
    }

    pub(super) const fn limit(&self) -> u64 {
        self.count.limit()
    }

    pub(super) fn used(&self) -> u64 {
        self.count.used()
    }

    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// A place for so many bytes, which read as zeros where the area is not sealed; `None` where they are above the limit.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let bytes = pages(bytes);
        if !self.count.add(bytes as u64) {
            return None;
        }
        let number = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(Place { area: Arc::clone(self), number, bytes })
    }

    #[cfg(test)]
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

/// A place that is taken; dropping it gives it back.
pub(super) struct Place {
    area: Arc<Area>,
    number: u64,
    /// What it occupies, in whole pages.
    bytes: usize,
}

impl Place {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.area.sealed
    }

    pub(super) fn is_in_memory(&self) -> bool {
        self.area.kind == Where::Memory
    }

    #[cfg(test)]
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// What a seal over its first `len` bytes is bound to.
    pub(super) fn binding(&self, len: usize) -> [u8; 17] {
        let mut binding = [0; 17];
        binding[0] = match self.area.kind {
            Where::Memory => 0,
            Where::Disk => 1,
        };
        binding[1..9].copy_from_slice(&self.number.to_be_bytes());
        binding[9..].copy_from_slice(&(len as u64).to_be_bytes());
        binding
    }

    pub(super) fn read(&self, at: usize, buf: &mut [u8]) -> io::Result<()> {
        self.area.file.read_exact_at(buf, self.offset(at))
    }

    pub(super) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.area.file.write_all_at(bytes, self.offset(at))
    }

    /// Makes it occupy at least so many bytes; `false` where they are above the area's limit.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = pages(bytes).saturating_sub(self.bytes);
        let fits = self.area.count.add(more as u64);
        if fits {
            self.bytes += more;
        }
        fits
    }

    /// Makes everything from `len` on zeros that occupy nothing.
    pub(super) fn cut(&mut self, len: usize) -> io::Result<()> {
        if len < CHUNK {
            punch(&self.area.file, self.offset(len), (CHUNK - len) as u64)?;
        }
        let less = self.bytes.saturating_sub(pages(len));
        self.area.count.sub(less as u64);
        self.bytes -= less;
        Ok(())
    }

    const fn offset(&self, at: usize) -> u64 {
        self.number * CHUNK as u64 + at as u64
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let punched = punch(&self.area.file, self.offset(0), CHUNK as u64);
        // Sealed bytes may stay, they are never read again. Others may not: the place would not read as zeros, so it
        // stays taken, and counted.
        if punched.is_ok() || self.area.sealed {
            self.area.numbers.lock().unwrap_or_else(PoisonError::into_inner).give(self.number);
            self.area.count.sub(self.bytes as u64);
        }
    }
}

/// Makes a range zeros that occupy nothing.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};

    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::io::retry_on_intr(|| fallocate(file, flags, offset, len))?)
}

/// Every area is sealed where there is no memfd, and a sealed one can do without.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn punch(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken_and_free_ones_at_the_top_are_forgotten() {
        let mut numbers = Numbers::default();
        assert_eq!([0; 5].map(|_| numbers.take()), [0, 1, 2, 3, 4]);
        numbers.give(3);
        numbers.give(1);
        assert_eq!([0; 3].map(|_| numbers.take()), [1, 3, 5]);
        for number in [4, 5, 2, 0, 1, 3] {
            numbers.give(number);
        }
        assert!(numbers.free.is_empty() && numbers.next == 0, "{numbers:?}");
    }

    #[test]
    fn an_area_counts_pages_and_refuses_what_is_above_its_limit() {
        let area = Area::new(Where::Memory, tempfile::tempfile().unwrap(), false, 3 * 4096);
        let mut first = area.take(1).unwrap();
        let second = area.take(4097).unwrap();
        assert!(area.take(1).is_none() && !first.grow(4097) && first.grow(4096));
        assert_eq!(area.used(), 3 * 4096);
        drop(second);
        assert!(first.grow(4097));
        assert_eq!(area.used(), 2 * 4096);
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn what_is_cut_or_given_back_reads_as_zeros() {
        let area = Area::new(Where::Memory, tempfile::tempfile().unwrap(), false, u64::MAX);
        let mut place = area.take(CHUNK).unwrap();
        let mut bytes = vec![7; CHUNK];
        place.write(0, &bytes).unwrap();
        place.cut(5000).unwrap();
        assert_eq!((place.bytes(), area.used()), (8192, 8192));
        place.read(0, &mut bytes).unwrap();
        assert!(bytes[..5000].iter().all(|byte| *byte == 7) && bytes[5000..].iter().all(|byte| *byte == 0));
        drop(place);
        area.take(CHUNK).unwrap().read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; CHUNK]);
    }
}
