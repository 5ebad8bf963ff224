//! Who reads what was received: whether a reader counts, and whether it has read all of a file.
//!
//! Owns the list of programs that read everything by themselves, and the parts of a file that were read. Which files are
//! looked at is the business of [`crate::files`].

/// Longest file, in bytes, that its reader is seen reading byte for byte. The kernel reads ahead up to so much: of a longer
/// one no reader of its beginning gets all.
pub const READ_AHEAD: u64 = 1 << 20;
/// Most parts of a file that are known to be read, 16 bytes each. Who reads in more of them does not count.
const MAX_PARTS: usize = 64;

/// Programs that read what nobody asked them to: indexers, thumbnailers, scanners, backups. As the kernel names a process,
/// in at most 15 bytes.
const BY_THEMSELVES: &[&str] = &[
    "baloo_file",
    "baloo_file_extr",
    "borg",
    "clamd",
    "clamscan",
    "clamdscan",
    "ffmpegthumbnail",
    "freshclam",
    "gsd-thumbnailer",
    "localsearch-3",
    "localsearch-ext",
    "mds",
    "mds_stores",
    "mdworker",
    "mdworker_shared",
    "plocate",
    "recollindex",
    "restic",
    "tracker-extract",
    "tracker-miner-f",
    "tumblerd",
    "updatedb",
    "updatedb.mlocat",
    "updatedb.ploca",
    "zeitgeist-fts",
];

/// The parts of a file that were read.
#[derive(Debug, Default)]
pub struct Coverage {
    /// In order, none touching the next.
    parts: Vec<(u64, u64)>,
}

impl Coverage {
    /// A part was read, up to and without its end.
    pub fn add(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end);
        let mut apart = Vec::with_capacity(self.parts.len() + 1);
        for (from, to) in self.parts.drain(..) {
            if to < start || end < from {
                apart.push((from, to));
            } else {
                (start, end) = (start.min(from), end.max(to));
            }
        }
        if apart.len() < MAX_PARTS {
            let at = apart.partition_point(|(from, _)| *from < start);
            apart.insert(at, (start, end));
        }
        self.parts = apart;
    }

    /// Whether a file of so many bytes was read whole; an empty one is, once somebody has tried.
    #[must_use]
    pub fn is_whole(&self, size: u64) -> bool {
        self.parts.first().is_some_and(|(start, end)| *start == 0 && *end >= size)
    }
}

/// Whether who opens a file counts as its reader: not this program, not one that reads by itself, and not one of which
/// nothing can be known.
#[must_use]
pub fn counts(pid: u32) -> bool {
    name_of(pid).is_some_and(|(process, name)| {
        process != std::process::id() && !BY_THEMSELVES.contains(&name.as_str())
    })
}

/// The process that a thread is one of, and what it is called. The kernel tells who asks by its thread; who cannot be seen
/// from here (another container, another user's `hidepid`) is 0, or has no entry.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn name_of(thread: u32) -> Option<(u32, String)> {
    if thread == 0 {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some((process, name.trim_end_matches('\n').to_owned()))
}

/// Nothing is known there: nobody counts.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn name_of(_thread: u32) -> Option<(u32, String)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(parts: &[(u64, u64)], size: u64) -> bool {
        let mut coverage = Coverage::default();
        parts.iter().for_each(|(start, end)| coverage.add(*start, *end));
        coverage.is_whole(size)
    }

    #[test]
    fn a_file_is_read_when_no_byte_is_missing() {
        assert!(covered(&[(0, 10)], 10));
        assert!(covered(&[(5, 10), (0, 5)], 10) && covered(&[(0, 6), (4, 10)], 10));
        assert!(covered(&[(0, 1), (2, 3), (8, 10), (1, 9)], 10));
        assert!(!covered(&[(0, 9)], 10) && !covered(&[(1, 10)], 10) && !covered(&[(0, 4), (5, 10)], 10));
        assert!(covered(&[(0, 0)], 0) && !covered(&[], 0));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_reads_in_order_is_seen_all_the_same() {
        let mut coverage = Coverage::default();
        for n in 0..1000 {
            coverage.add(n * 10 + 5, n * 10 + 6);
        }
        assert_eq!(coverage.parts.len(), MAX_PARTS);
        for n in 0..1000 {
            coverage.add(n * 10, n * 10 + 10);
        }
        assert!(!coverage.is_whole(10_001));
        let mut coverage = Coverage::default();
        (0..1000).for_each(|n| coverage.add(n * 10, n * 10 + 10));
        assert!(coverage.is_whole(10_000) && coverage.parts.len() == 1);
    }

    #[test]
    fn names_are_as_the_kernel_has_them() {
        for name in BY_THEMSELVES {
            assert!(name.len() <= 15, "{name} is longer than the kernel knows");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_counts() {
        assert!(!counts(0) && !counts(u32::MAX) && !counts(std::process::id()));
        assert!(counts(1) || std::process::id() == 1);
    }
}
