//! How the program ends.
//!
//! Owns which error gets which exit code. The numbers are `event`'s: a channel tells its own in its last line.

use crate::config::ConfigError;
pub use crate::event::Exit;
use crate::rundir::RundirError;
use crate::rundir::find::FindError;

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
