//! How the program ends.
//!
//! Owns the exit codes and which error gets which. Prints nothing.

use crate::config::ConfigError;
use crate::rundir::RundirError;
use crate::rundir::find::FindError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; a channel: closed as asked.
    Done,
    /// Something failed on this machine.
    Internal,
    /// The command line is wrong, or holds a code that cannot be.
    Usage,
    /// The other end did not have the code, or somebody guessed.
    HandshakeFailed,
    /// The relay or the peer cannot be reached.
    Unreachable,
    /// The time that was given is over.
    Timeout,
    /// Closed, and something is not known to have arrived. Wins over [`Exit::Protocol`].
    Undelivered,
    /// Ended by a protocol error or by tampering.
    Protocol,
    /// Interrupted.
    Interrupted,
}

impl Exit {
    /// The number a shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::HandshakeFailed => 3,
            Self::Unreachable => 4,
            Self::Timeout => 5,
            Self::Undelivered => 6,
            Self::Protocol => 7,
            Self::Interrupted => 130,
        }
    }
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What a person reads; says what to do next.
    pub why: anyhow::Error,
}

impl Failure {
    /// The command line is wrong.
    pub fn usage(why: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, why: why.into() }
    }

    /// A failure with a message of its own.
    #[must_use]
    pub fn new(exit: Exit, why: String) -> Self {
        Self { exit, why: anyhow::Error::msg(why) }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(why: anyhow::Error) -> Self {
        Self { exit: Exit::Internal, why }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        Self::usage(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<RundirError> for Failure {
    fn from(error: RundirError) -> Self {
        let exit = if error.is_usage() { Exit::Usage } else { Exit::Internal };
        Self { exit, why: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_the_readme() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Internal, 1),
            (Exit::Usage, 2),
            (Exit::HandshakeFailed, 3),
            (Exit::Unreachable, 4),
            (Exit::Timeout, 5),
            (Exit::Undelivered, 6),
            (Exit::Protocol, 7),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code);
        }
    }
}
