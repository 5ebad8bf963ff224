//! `/proc/self/mountinfo`: its lines, and which mount a path leads to.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::Mounted;

/// Longest table that is read, in bytes: 100,000 mounts (`fs.mount-max`) of 640.
const MAX_TABLE: u64 = 64 * 1024 * 1024;

/// A mount, and what it is mounted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number in this table.
    pub id: u32,
    /// The number of the mount that its path is in.
    pub parent: u32,
    /// What is told about it.
    pub mounted: Mounted,
}

/// The whole table.
pub(super) fn read() -> io::Result<Vec<Entry>> {
    let mut text = Vec::new();
    File::open("/proc/self/mountinfo")?.take(MAX_TABLE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_TABLE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(parse(&text))
}

/// The lines that are understood.
pub(super) fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD…] - TYPE SOURCE OPTIONS`
fn line(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = number(words.next()?)?;
    let parent = number(words.next()?)?;
    let device = words.next()?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    let (major, minor) = device.split_at_checked(colon)?;
    let device = (number(major)?, number(minor.get(1..)?)?);
    let path = PathBuf::from(OsString::from_vec(unescape(words.nth(1)?)));
    if !path.is_absolute() {
        return None;
    }
    words.find(|word| *word == b"-")?;
    // Neither is ever compared with a text that has a replacement character.
    let fstype = String::from_utf8_lossy(&unescape(words.next()?)).into_owned();
    let source = String::from_utf8_lossy(&unescape(words.next()?)).into_owned();
    let owner = words.next().and_then(owner);
    Some(Entry { id, parent, mounted: Mounted { path, source, fstype, device, owner } })
}

/// `user_id=` among the options of a FUSE mount.
fn owner(options: &[u8]) -> Option<u32> {
    options.split(|byte| *byte == b',').find_map(|option| number(option.strip_prefix(b"user_id=")?))
}

fn number(word: &[u8]) -> Option<u32> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Undoes `\040`: a backslash and three octal digits are one byte. Any other backslash is itself.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = if *byte == b'\\' { after.split_at_checked(3) } else { None };
        match escaped.and_then(|(digits, after)| Some((octal(digits)?, after))) {
            Some((byte, after)) => {
                plain.push(byte);
                rest = after;
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digit = |value: u8, digit: &u8| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    };
    digits.iter().try_fold(0, digit)
}

/// The mount whose root this path leads to: walked as the kernel does, from mount to mount, because a mount may be
/// hidden by another on top of it or on top of a directory above it.
pub(super) fn visible<'a>(entries: &'a [Entry], path: &Path) -> Option<&'a Entry> {
    let ids: HashSet<u32> = entries.iter().map(|entry| entry.id).collect();
    let on_the_way: Vec<_> = entries.iter().filter(|entry| path.starts_with(&entry.mounted.path)).collect();
    // The first is the one whose parent is outside of the table, or itself.
    let is_next = |here: Option<&Entry>, next: &Entry| match here {
        Some(here) => next.parent == here.id && next.id != here.id,
        None => next.parent == next.id || !ids.contains(&next.parent),
    };
    let mut here = None;
    let mut steps = 0;
    let mut prefixes: Vec<_> = path.ancestors().collect();
    prefixes.reverse();
    for prefix in prefixes {
        while let Some(next) =
            on_the_way.iter().find(|next| next.mounted.path == prefix && is_next(here, next))
        {
            here = Some(*next);
            steps += 1;
            // No table of the kernel goes in circles.
            if steps > on_the_way.len() {
                return None;
            }
        }
    }
    here.filter(|here| here.mounted.path == path)
}

/// Waits for the table to change.
pub(crate) struct Watch(File);

impl Watch {
    /// Changes count from here on.
    pub(crate) fn new() -> io::Result<Self> {
        File::open("/proc/self/mountinfo").map(Self)
    }

    /// Whether it changed since the last call, waiting for it until then.
    pub(crate) fn changed(&mut self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else { return false };
            match rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::PRI)], Some(&left)) {
                Err(Errno::INTR) => {}
                polled => return polled.is_ok_and(|ready| ready > 0),
            }
        }
    }
}
