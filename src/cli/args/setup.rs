//! What can be typed after `setup`.
//!
//! Owns the targets, the flags and their help.

use clap::ValueEnum;

use crate::skill::Harness;

/// After the flags of `setup --help`.
pub const AFTER: &str = "\
Without TARGET and without a terminal it prints the skill for an agent to read: agent-wormhole setup | claude
Without TARGET on a terminal it shows what each one would write.

  claude      ~/.claude/skills/agent-wormhole/SKILL.md ($CLAUDE_CONFIG_DIR): a link to a copy under $XDG_DATA_HOME
  codex, gemini, cursor
              ~/.agents/skills/agent-wormhole/SKILL.md: one file, which all three read
  agents-md   a block in ./AGENTS.md that says where the skill can be read
  all         all of them; without --project not AGENTS.md

Any run of a newer agent-wormhole brings the files in the home up to its version; files of a project stay until the next
`setup --project`. What was not written by this command, or was changed since, is left and named.

Exit codes:
  0  done; --check: all is there and current
  1  --check: something is missing or old; or the files cannot be written
  2  something that is not from this command, or was changed by hand, is in the way; it says what to do

Examples:
  agent-wormhole setup claude
  agent-wormhole setup all --project && git add .claude .agents AGENTS.md
  agent-wormhole setup all --check
  agent-wormhole setup codex --remove";

/// `agent-wormhole setup`.
#[derive(Debug, clap::Args)]
pub struct SetupArgs {
    /// For which agent
    #[arg(value_enum, value_name = "TARGET")]
    pub target: Option<SetupTarget>,
    /// In the current directory, for everybody who works there, instead of the home
    #[arg(long, requires = "target")]
    pub project: bool,
    /// Write nothing, and say what is missing or old
    #[arg(long, requires = "target", conflicts_with = "remove")]
    pub check: bool,
    /// Take away what was written
    #[arg(long, requires = "target")]
    pub remove: bool,
}

/// Whom the skill is installed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SetupTarget {
    /// Claude Code
    Claude,
    /// Codex
    Codex,
    /// Gemini CLI
    Gemini,
    /// Cursor
    Cursor,
    /// Every agent that reads a project's AGENTS.md
    AgentsMd,
    /// All of them
    All,
}

impl SetupTarget {
    /// The agents that are meant. Of `all`, the project's AGENTS.md is for a project.
    #[must_use]
    pub fn harnesses(self, project: bool) -> Vec<Harness> {
        match self {
            Self::Claude => vec![Harness::Claude],
            Self::Codex => vec![Harness::Codex],
            Self::Gemini => vec![Harness::Gemini],
            Self::Cursor => vec![Harness::Cursor],
            Self::AgentsMd => vec![Harness::AgentsMd],
            Self::All if project => Harness::ALL.to_vec(),
            Self::All => Harness::OF_USER.to_vec(),
        }
    }
}
