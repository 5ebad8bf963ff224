//! What owner and bell say to each other: frames of commands one way, replies of a fixed length the other way.
//!
//! A frame is the length of what follows (u32), a number (u64), an operation (u8) and its fields; numbers are
//! little-endian, a text is its length (u16) and its bytes. A reply is the number of its command and an errno (i32).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Most bytes of one append: four of the longest texts, escaped.
pub(super) const MAX_APPEND: usize = 4 * 1024 * 1024;
/// Longest frame in bytes: an append and a path. Any other command is two paths at most.
pub(super) const MAX_FRAME: usize = MAX_APPEND + 2 * MAX_TEXT + 64;
/// Longest text in bytes.
const MAX_TEXT: usize = u16::MAX as usize;
/// Bytes of a reply.
pub(super) const REPLY: usize = 12;
/// Bytes of a frame before what its length counts.
pub(super) const HEAD: usize = 4;

/// What the bell is to do. Paths are relative to the mount's root, with `/` between components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Which mount is about to be made, and whether it is there by now.
    Hello { mounted: bool, mountpoint: &'a Path, source: &'a str },
    /// Makes a directory and those above it.
    MakeDirs { path: &'a str },
    /// Makes the directories above `to`, then renames, never onto something.
    Place { from: &'a str, to: &'a str },
    /// Renames, never onto something.
    Rename { from: &'a str, to: &'a str },
    /// Writes at the end of a file.
    Append { path: &'a str, bytes: &'a [u8] },
    /// Makes a file empty.
    Truncate { path: &'a str },
    /// Removes what is no directory.
    Unlink { path: &'a str },
    /// Removes an empty directory.
    Rmdir { path: &'a str },
    /// Removes a part of what is at a path; EAGAIN says that there is more.
    RemoveTree { path: &'a str },
    /// Detaches the mount, replies and ends.
    Detach,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
#[error("it is too long for a frame")]
pub(super) struct TooLong;

/// Replaces `frame` with a command's.
pub(super) fn encode(number: u64, command: Command<'_>, frame: &mut Vec<u8>) -> Result<(), TooLong> {
    frame.clear();
    frame.extend_from_slice(&[0; HEAD]);
    frame.extend_from_slice(&number.to_le_bytes());
    frame.push(operation(command));
    match command {
        Command::Hello { mounted, mountpoint, source } => {
            frame.push(u8::from(mounted));
            text(frame, mountpoint.as_os_str().as_bytes())?;
            text(frame, source.as_bytes())?;
        }
        Command::MakeDirs { path }
        | Command::Truncate { path }
        | Command::Unlink { path }
        | Command::Rmdir { path }
        | Command::RemoveTree { path } => text(frame, path.as_bytes())?,
        Command::Place { from, to } | Command::Rename { from, to } => {
            text(frame, from.as_bytes())?;
            text(frame, to.as_bytes())?;
        }
        Command::Append { path, bytes } => {
            text(frame, path.as_bytes())?;
            if bytes.len() > MAX_APPEND {
                return Err(TooLong);
            }
            frame.extend_from_slice(bytes);
        }
        Command::Detach => {}
    }
    let length = u32::try_from(frame.len() - HEAD).map_err(|_| TooLong)?;
    frame[..HEAD].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn text(frame: &mut Vec<u8>, text: &[u8]) -> Result<(), TooLong> {
    let length = u16::try_from(text.len()).map_err(|_| TooLong)?;
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(text);
    Ok(())
}

const fn operation(command: Command<'_>) -> u8 {
    match command {
        Command::Hello { .. } => 1,
        Command::MakeDirs { .. } => 2,
        Command::Place { .. } => 3,
        Command::Rename { .. } => 4,
        Command::Append { .. } => 5,
        Command::Truncate { .. } => 6,
        Command::Unlink { .. } => 7,
        Command::Rmdir { .. } => 8,
        Command::RemoveTree { .. } => 9,
        Command::Detach => 10,
    }
}

/// How long a frame is after its head; `None` where no frame is that long.
pub(super) fn length(head: [u8; HEAD]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(head)).ok().filter(|length| *length <= MAX_FRAME)
}

/// Reads a frame without its head: its number and its command. `None` where it is none, or more than one.
pub(super) fn decode(frame: &[u8]) -> Option<(u64, Command<'_>)> {
    let mut rest = Rest(frame);
    let number = u64::from_le_bytes(rest.array()?);
    let [operation] = rest.array()?;
    let command = match operation {
        1 => {
            let [mounted] = rest.array()?;
            let mountpoint = Path::new(OsStr::from_bytes(rest.text()?));
            Command::Hello { mounted: mounted != 0, mountpoint, source: rest.utf8()? }
        }
        2 => Command::MakeDirs { path: rest.utf8()? },
        3 => Command::Place { from: rest.utf8()?, to: rest.utf8()? },
        4 => Command::Rename { from: rest.utf8()?, to: rest.utf8()? },
        5 => Command::Append { path: rest.utf8()?, bytes: std::mem::take(&mut rest.0) },
        6 => Command::Truncate { path: rest.utf8()? },
        7 => Command::Unlink { path: rest.utf8()? },
        8 => Command::Rmdir { path: rest.utf8()? },
        9 => Command::RemoveTree { path: rest.utf8()? },
        10 => Command::Detach,
        _ => return None,
    };
    rest.0.is_empty().then_some((number, command))
}

/// What of a frame has not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_le_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(text)
    }

    fn utf8(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }
}

/// A reply: an errno, or 0.
pub(super) fn reply(number: u64, errno: i32) -> [u8; REPLY] {
    let mut reply = [0; REPLY];
    reply[..8].copy_from_slice(&number.to_le_bytes());
    reply[8..].copy_from_slice(&errno.to_le_bytes());
    reply
}

/// The number and the errno of a reply.
pub(super) fn read_reply(reply: [u8; REPLY]) -> (u64, i32) {
    let [a, b, c, d, e, f, g, h, errno @ ..] = reply;
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), i32::from_le_bytes(errno))
}

/// The components of a path, none of which leads anywhere but down. `None` where one does.
pub(super) fn components(path: &str) -> Option<impl DoubleEndedIterator<Item = &str>> {
    path.split('/').all(is_component).then(|| path.split('/'))
}

/// Whether this names one entry of a directory.
pub(super) fn is_component(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Command<'static>> {
        let path = "inbox/ä";
        vec![
            Command::Hello { mounted: true, mountpoint: Path::new("/m"), source: "s" },
            Command::Hello { mounted: false, mountpoint: Path::new(OsStr::from_bytes(b"/\xff")), source: "" },
            Command::MakeDirs { path },
            Command::Place { from: ".incoming/1", to: path },
            Command::Rename { from: path, to: "b" },
            Command::Append { path, bytes: b"\0line\n" },
            Command::Append { path, bytes: b"" },
            Command::Truncate { path },
            Command::Unlink { path },
            Command::Rmdir { path },
            Command::RemoveTree { path },
            Command::Detach,
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut frame = Vec::new();
        for command in all() {
            encode(7, command, &mut frame).unwrap();
            let head = *frame.first_chunk().unwrap();
            assert_eq!(length(head), Some(frame.len() - HEAD));
            assert_eq!(decode(&frame[HEAD..]), Some((7, command)));
        }
        assert_eq!(read_reply(reply(u64::MAX - 1, 17)), (u64::MAX - 1, 17));
    }

    #[test]
    fn a_broken_frame_is_none() {
        let mut frame = Vec::new();
        for command in all() {
            encode(7, command, &mut frame).unwrap();
            let whole = frame[HEAD..].to_vec();
            let is_append = matches!(command, Command::Append { .. });
            for end in 0..whole.len() {
                let cut = decode(&whole[..end]);
                assert!(cut.is_none() || is_append, "{command:?} cut at {end}");
            }
            for at in 0..whole.len() {
                for value in [0, 1, 11, 0x7f, 0xff] {
                    let mut changed = whole.clone();
                    changed[at] = value;
                    let _ = decode(&changed);
                }
            }
            let more = [whole, vec![0]].concat();
            assert!(decode(&more).is_none() || is_append, "{command:?}");
        }
        assert_eq!(length([0xff; HEAD]), None);
        let long = vec![0; MAX_APPEND + 1];
        assert!(encode(1, Command::Append { path: "a", bytes: &long }, &mut frame).is_err());
        assert!(encode(1, Command::Append { path: "a", bytes: &long[1..] }, &mut frame).is_ok());
        assert!(frame.len() - HEAD <= MAX_FRAME);
        assert!(encode(1, Command::Unlink { path: &"a".repeat(MAX_TEXT + 1) }, &mut frame).is_err());
    }

    #[test]
    fn a_component_leads_down() {
        for bad in ["", ".", "..", "a/b", "a\0"] {
            assert!(!is_component(bad), "{bad:?}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", "a/../b", "./a", "a\0b"] {
            assert!(components(bad).is_none(), "{bad:?}");
        }
        assert!(components("...").unwrap().eq(["..."]));
        assert!(components("a/.b/c d").unwrap().eq(["a", ".b", "c d"]));
    }
}
