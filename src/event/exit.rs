//! How a command, and with it a channel, ends.
//!
//! Owns the exit codes: what a shell sees, and the `exit` of the event `closed`. Which error gets which is its caller's
//! business.

/// How a command ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Exit {
    /// Done; a channel: closed as asked.
    #[default]
    Done,
    /// Something failed on this machine.
    Internal,
    /// The command line is wrong, or holds a code that cannot be.
    Usage,
    /// The other end did not have the code, or somebody guessed.
    HandshakeFailed,
    /// The relay or the peer cannot be reached, or the channel is gone.
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
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Internal,
        Self::Usage,
        Self::HandshakeFailed,
        Self::Unreachable,
        Self::Timeout,
        Self::Undelivered,
        Self::Protocol,
        Self::Interrupted,
    ];

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

    /// The end with this number; `None` where a newer program has more of them.
    #[must_use]
    pub fn of_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| u64::from(exit.code()) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_the_readme() {
        let codes = Exit::ALL.map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 130]);
        for exit in Exit::ALL {
            assert_eq!(Exit::of_code(exit.code().into()), Some(exit));
        }
        assert_eq!(Exit::of_code(8), None);
    }
}
