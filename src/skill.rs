//! The skill: the text that teaches an agent this program, and where it is installed.
//!
//! Owns the one copy of the text (`skill/SKILL.md`), the places where agents look for it, and what is written there, found
//! there and taken away again. Writes nothing that it would not recognise later, and touches nothing that it did not write.
//! Prints nothing, and reads no environment but in [`Surroundings::from_env`].
//!
//! Whoever else may write into a home or a project while this runs is its owner: what is looked at here is not defended
//! against an owner's own races. What lies in a cloned repository is another's: there, nothing is written through a link.

/// The block in a project's `AGENTS.md`.
pub mod block;
/// Files on disk.
mod files;
/// Where agents look.
mod places;
/// What makes a file ours.
pub mod stamp;

use std::io;
use std::path::PathBuf;

use semver::Version;

pub use self::files::{Change, Done};
pub use self::places::{Harness, Scope, Surroundings, Target};

/// The skill as it stands in the repository, and in the plugin for Claude Code.
pub const TEXT: &str = include_str!("../skill/SKILL.md");

/// What is found where the skill is, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Missing,
    /// What this program would write.
    Current,
    /// What this program wrote in another version, or would write otherwise today.
    Old {
        /// The version that wrote it.
        version: String,
    },
    /// What a newer version of this program wrote; it is left alone.
    Newer {
        /// The version that wrote it.
        version: String,
    },
    /// Ours, and changed by hand since.
    Edited,
    /// A link of ours to a file that is gone.
    Dangling,
    /// Something that this program did not write.
    Foreign {
        /// What it is.
        what: String,
    },
}

impl State {
    /// Whether nothing is to be done for it.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        matches!(self, Self::Current | Self::Newer { .. })
    }
}

/// How the skill stands with one kind of agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which agents read it there.
    pub readers: Vec<Harness>,
    /// The file that they read.
    pub path: PathBuf,
    /// What is there.
    pub state: State,
}

/// The skill cannot be installed, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum SkillError {
    /// There is no home directory.
    #[error("there is no home directory to install into; set HOME, or use --project")]
    NoHome,
    /// Something else has the name.
    #[error(
        "{} is not from `agent-wormhole setup` ({what}): it is left as it is; move it away or remove it, and run this again",
        path.display()
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// It was changed since it was written.
    #[error(
        "{} was changed by hand since `agent-wormhole setup` wrote it: it is left as it is; keep what you need of the change \
         elsewhere, remove it, and run this again", path.display()
    )]
    Edited {
        /// Where.
        path: PathBuf,
    },
    /// A link lies on the way.
    #[error(
        "{} is a symbolic link, and nothing is written through it: put what it names in its place, or remove it, and run \
         this again", path.display()
    )]
    Link {
        /// Where.
        path: PathBuf,
    },
    /// A directory is needed where something else is.
    #[error("{} is no directory: move it away and run this again", path.display())]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// The file system does not let us.
    #[error("{} cannot be used: {source}; look at its owner, its permissions and the room there", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SkillError {
    /// Whether what is found there is to blame, rather than the machine.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}

/// How the skill stands with each kind of agent of this user, whether or not that agent is installed. A place that cannot be
/// looked at is [`State::Foreign`], with the reason.
///
/// # Errors
/// [`SkillError::NoHome`].
pub fn standing(around: &Surroundings) -> Result<Vec<Standing>, SkillError> {
    let stands = |target: Target| {
        let state = target.state().unwrap_or_else(|error| State::Foreign { what: error.to_string() });
        Standing { readers: target.readers, path: target.path, state }
    };
    Ok(around.targets(&Harness::OF_USER, Scope::User)?.into_iter().map(stands).collect())
}

/// Brings the copies that this program keeps for this user up to its own version: those that are there, older, and as they
/// were written. Cheap where there is nothing to do, and never a reason for a command to fail.
pub fn refresh(around: &Surroundings) {
    for place in around.kept() {
        if let Err(error) = files::refresh(&place) {
            tracing::debug!(%error, "a copy of the skill is not brought up to date");
        }
    }
}

/// This program's version.
fn own_version() -> Option<Version> {
    Version::parse(env!("CARGO_PKG_VERSION")).ok()
}

/// Whether a version is newer than this program's. One that cannot be read is not.
fn is_newer(version: &str) -> bool {
    Version::parse(version).ok() > own_version()
}

/// Whether a version is older than this program's. One that cannot be read is not, either.
fn is_older(version: &str) -> bool {
    Version::parse(version).is_ok_and(|version| Some(version) < own_version())
}

#[cfg(test)]
mod tests;
