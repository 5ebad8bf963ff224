//! Why an operation in a mounted channel is refused, and the one table from that to an errno.

use rustix::io::Errno;

use crate::blob::BlobError;

/// Why an operation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Nothing has this name.
    #[error("there is nothing of this name")]
    Missing,
    /// Something has this name.
    #[error("the name is taken")]
    Taken,
    /// A directory was expected.
    #[error("it is no directory")]
    NotADirectory,
    /// It cannot be moved here: what it holds was somewhere else already.
    #[error("it cannot be moved here; copy it")]
    CrossDevice,
    /// No directory was expected.
    #[error("it is a directory")]
    IsADirectory,
    /// Something is in the directory.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The rules of the mailbox say no.
    #[error("the mailbox does not allow it here")]
    Policy,
    /// Devices, FIFOs and sockets.
    #[error("this cannot be sent")]
    NotSendable,
    /// A part over 255 bytes, or a path that cannot be sent.
    #[error("the name is too long")]
    NameTooLong,
    /// A name that cannot be sent, a word that is none, an argument without a meaning.
    #[error("it makes no sense")]
    Invalid,
    /// The channel is closing.
    #[error("the channel is closed")]
    Closed,
    /// The budget is used up.
    #[error("no space is left for it")]
    NoSpace,
    /// Longer than a file may be.
    #[error("it is too large")]
    TooLarge,
    /// It is in use.
    #[error("it is in use")]
    Busy,
    /// It has left since it was looked up.
    #[error("it is not there any more")]
    Stale,
    /// No such attribute, or nothing to seek to.
    #[error("there is none")]
    NoAttribute,
    /// An attribute is longer than the room for it.
    #[error("the buffer is too small")]
    Range,
    /// Behind the end of a file.
    #[error("there is nothing behind the end")]
    NoOffset,
    /// What the mailbox does not have.
    #[error("it is not supported")]
    Unsupported,
    /// A handle that is not open for this.
    #[error("the handle is not open for it")]
    BadHandle,
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// It took too long.
    #[error("not in time")]
    TimedOut,
    /// Bytes could not be read or written, or were not taken by the peer.
    #[error("input or output failed")]
    Io,
}

impl From<BlobError> for FileError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Full => Self::NoSpace,
            BlobError::TooLarge => Self::TooLarge,
            BlobError::Io(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace,
                _ => Self::Io,
            },
        }
    }
}

/// The errno of each refusal.
#[must_use]
pub const fn errno(error: FileError) -> Errno {
    match error {
        FileError::Missing => Errno::NOENT,
        FileError::Taken => Errno::EXIST,
        FileError::NotADirectory => Errno::NOTDIR,
        FileError::IsADirectory => Errno::ISDIR,
        FileError::CrossDevice => Errno::XDEV,
        FileError::NotEmpty => Errno::NOTEMPTY,
        FileError::Policy => Errno::ACCESS,
        FileError::NotSendable => Errno::PERM,
        FileError::NameTooLong => Errno::NAMETOOLONG,
        FileError::Invalid => Errno::INVAL,
        FileError::Closed => Errno::NOTCONN,
        FileError::NoSpace => Errno::NOSPC,
        FileError::TooLarge => Errno::FBIG,
        FileError::Busy => Errno::BUSY,
        FileError::Stale => Errno::STALE,
        // ENOATTR where it has a name of its own, which is the same number on Linux.
        FileError::NoAttribute => Errno::NODATA,
        FileError::Range => Errno::RANGE,
        FileError::NoOffset => Errno::NXIO,
        FileError::Unsupported => Errno::NOTSUP,
        FileError::BadHandle => Errno::BADF,
        FileError::Interrupted => Errno::INTR,
        FileError::TimedOut => Errno::TIMEDOUT,
        FileError::Io => Errno::IO,
    }
}
