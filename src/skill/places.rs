//! Where agents look for a skill.
//!
//! Owns the list of agents and the path of each. Claude Code has a directory of its own; Codex, Gemini CLI and Cursor all read
//! `.agents/skills/`, of the home and of a project, and that one is used for the three: Gemini CLI warns at each start where it
//! finds a skill in two of its places. Codex reads the home's whatever `CODEX_HOME` says, and skips a `SKILL.md` that is
//! a link. What lies at a path is [`super::files`]' business.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::SkillError;

/// Directory of the skill where skills are: its name, as an agent's rules want it.
const NAME: &str = "agent-wormhole";
/// The file in it.
const FILE: &str = "SKILL.md";
/// The project's file for every agent.
const AGENTS_MD: &str = "AGENTS.md";

/// A kind of agent, or what several kinds read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harness {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Cursor.
    Cursor,
    /// Whoever reads a project's `AGENTS.md`.
    AgentsMd,
}

impl Harness {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Claude, Self::Codex, Self::Gemini, Self::Cursor, Self::AgentsMd];

    /// Those that read something in a home.
    pub const OF_USER: [Self; 4] = [Self::Claude, Self::Codex, Self::Gemini, Self::Cursor];

    /// Its word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Cursor => "cursor",
            Self::AgentsMd => "agents-md",
        }
    }
}

/// For whom the skill is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This user, in every project.
    User,
    /// Whoever works in this project.
    Project,
}

/// What decides where things are: the environment, handed in.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The home directory.
    home: Option<PathBuf>,
    /// What Claude Code uses in place of `~/.claude`.
    claude: Option<PathBuf>,
    /// What is used in place of `~/.local/share`.
    data: Option<PathBuf>,
    /// The project: where this was started.
    project: PathBuf,
}

impl Surroundings {
    /// Those of this process, with the directory that it was started in.
    #[must_use]
    pub fn from_env(project: &Path) -> Self {
        Self::of(project, |name| std::env::var_os(name))
    }

    /// The same with variables that are handed in. One that is no absolute path is none.
    #[must_use]
    pub fn of(project: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            home: path("HOME"),
            claude: path("CLAUDE_CONFIG_DIR"),
            data: path("XDG_DATA_HOME"),
            project: project.to_owned(),
        }
    }

    /// The places of these agents, each once: some are read by several. `AGENTS.md` is a project's in either scope.
    ///
    /// # Errors
    /// [`SkillError::NoHome`] where one is needed and there is none.
    pub fn targets(&self, harnesses: &[Harness], scope: Scope) -> Result<Vec<Target>, SkillError> {
        let mut targets = Vec::<Target>::new();
        for harness in harnesses {
            let target = self.target(*harness, scope)?;
            if targets.iter().all(|known| known.path != target.path) {
                targets.push(target);
            }
        }
        Ok(targets)
    }

    fn target(&self, harness: Harness, scope: Scope) -> Result<Target, SkillError> {
        let (readers, kind) = match (harness, scope) {
            (Harness::AgentsMd, _) => (vec![harness], Kind::Block(self.in_project(AGENTS_MD.into()))),
            (Harness::Claude, Scope::User) => {
                (vec![harness], Kind::Linked { link: self.claude()?, copy: self.copy()? })
            }
            (Harness::Claude, Scope::Project) => {
                (vec![harness], Kind::File(self.in_project(skills(Path::new(".claude")))))
            }
            (Harness::Codex | Harness::Gemini | Harness::Cursor, Scope::User) => {
                (SHARERS.to_vec(), Kind::File(self.shared()?))
            }
            (Harness::Codex | Harness::Gemini | Harness::Cursor, Scope::Project) => {
                (SHARERS.to_vec(), Kind::File(self.in_project(skills(Path::new(".agents")))))
            }
        };
        let path = match &kind {
            Kind::Linked { link: place, .. } | Kind::File(place) | Kind::Block(place) => place.path(),
        };
        Ok(Target { readers, path, kind })
    }

    /// The copies that every run of this program keeps at its own version.
    pub(super) fn kept(&self) -> Vec<Place> {
        [self.copy(), self.shared()].into_iter().flatten().collect()
    }

    /// What the link for Claude Code leads to.
    fn copy(&self) -> Result<Place, SkillError> {
        let inside = |data: &Path| data.join(NAME).join("skill").join(FILE);
        Ok(match &self.data {
            Some(data) => Place { base: data.clone(), rest: inside(Path::new("")), strict: false },
            None => self.in_home(inside(Path::new(".local/share")))?,
        })
    }

    fn claude(&self) -> Result<Place, SkillError> {
        Ok(match &self.claude {
            Some(claude) => Place { base: claude.clone(), rest: skills(Path::new("")), strict: false },
            None => self.in_home(skills(Path::new(".claude")))?,
        })
    }

    fn shared(&self) -> Result<Place, SkillError> {
        self.in_home(skills(Path::new(".agents")))
    }

    fn in_home(&self, rest: PathBuf) -> Result<Place, SkillError> {
        let base = self.home.clone().ok_or(SkillError::NoHome)?;
        Ok(Place { base, rest, strict: false })
    }

    fn in_project(&self, rest: PathBuf) -> Place {
        Place { base: self.project.clone(), rest, strict: true }
    }
}

/// Who reads `.agents/skills/`.
const SHARERS: [Harness; 3] = [Harness::Codex, Harness::Gemini, Harness::Cursor];

/// The skill's file in a directory that has skills.
fn skills(inside: &Path) -> PathBuf {
    inside.join("skills").join(NAME).join(FILE)
}

/// A file that agents read, and how it is made.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which agents read it.
    pub readers: Vec<Harness>,
    /// The file.
    pub path: PathBuf,
    /// How it is made.
    pub(super) kind: Kind,
}

/// How a file is made.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// A link to a copy that this program keeps at its own version.
    Linked {
        /// What the agent reads.
        link: Place,
        /// What it leads to.
        copy: Place,
    },
    /// A file of its own.
    File(Place),
    /// A block in a file of others.
    Block(Place),
}

/// A path, and how far up it is ours.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What is never removed, and which links lead here is its owner's business.
    pub(super) base: PathBuf,
    /// The rest: directories that are made where they are missing, and the file.
    pub(super) rest: PathBuf,
    /// Whether nobody's link may lie on that rest; else the user's own may.
    pub(super) strict: bool,
}

impl Place {
    /// The whole path.
    pub(super) fn path(&self) -> PathBuf {
        self.base.join(&self.rest)
    }
}
