//! The skill: whether the agents of this user have it, and in this version.
//!
//! Owns what is said of it. Where it is looked for is `skill`'s.

use std::path::Path;

use super::finding::Finding;
use crate::skill::{self, Harness, SkillError, Standing, State, Surroundings};

/// Looks at each place.
///
/// # Errors
/// [`SkillError`], where there is no home.
pub(super) fn look(cwd: &Path) -> Result<Vec<Standing>, SkillError> {
    skill::standing(&Surroundings::from_env(cwd))
}

/// What is there, and what is to be done for it. That no agent has it is nobody's fault: not everybody who has the program has
/// an agent.
pub(super) fn verdict(standing: &Result<Vec<Standing>, SkillError>) -> Finding {
    let Ok(all) = standing else { return Finding::skip("skill", "there is no home for one") };
    let there = || all.iter().filter(|standing| standing.state != State::Missing);
    if there().next().is_none() {
        return Finding::skip("skill", "no agent has it; `agent-wormhole setup all` installs it");
    }
    let readers =
        |standing: &Standing| standing.readers.iter().map(|reader| reader.as_str()).collect::<Vec<_>>();
    let words = |standing: &Standing| {
        let state = match &standing.state {
            State::Missing => "none".to_owned(),
            State::Current => "current".to_owned(),
            State::Old { version } => format!("of version {version}"),
            State::Newer { version } => format!("of the newer version {version}"),
            State::Edited => "changed by hand".to_owned(),
            State::Dangling => "a link to nothing".to_owned(),
            State::Foreign { what } => format!("not from `agent-wormhole setup` ({what})"),
        };
        format!("{}: {state}", readers(standing).join(", "))
    };
    let detail = all.iter().map(words).collect::<Vec<_>>().join("; ");
    let stale = there().filter(|standing| matches!(standing.state, State::Old { .. } | State::Dangling));
    let stale: Vec<&str> =
        stale.filter_map(|standing| standing.readers.first()).map(|one| Harness::as_str(*one)).collect();
    match stale.as_slice() {
        [] => Finding::ok("skill", detail),
        stale => {
            let commands: Vec<String> =
                stale.iter().map(|one| format!("agent-wormhole setup {one}")).collect();
            Finding::warn("skill", detail, commands.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding;
    use super::*;

    fn verdict_of(states: [State; 2]) -> Finding {
        let readers = [vec![Harness::Claude], vec![Harness::Codex, Harness::Gemini]];
        let all = readers.into_iter().zip(states);
        verdict(&Ok(all.map(|(readers, state)| Standing { readers, path: "/s".into(), state }).collect()))
    }

    #[test]
    fn a_skill_that_is_old_is_told_with_the_command_that_renews_it() {
        let old = State::Old { version: "0.1.9".into() };
        for (states, state, word) in [
            ([State::Missing, State::Missing], finding::State::Skip, "no agent has it"),
            ([State::Current, State::Missing], finding::State::Ok, "claude: current; codex, gemini: none"),
            ([State::Edited, State::Current], finding::State::Ok, "changed by hand"),
            ([State::Current, old], finding::State::Warn, "of version 0.1.9"),
            ([State::Dangling, State::Missing], finding::State::Warn, "a link to nothing"),
        ] {
            let finding = verdict_of(states);
            assert!(finding.state == state && finding.detail.contains(word), "{finding:?}");
        }
        let advice = verdict_of([State::Current, State::Dangling]).advice;
        assert_eq!(advice.as_deref(), Some("agent-wormhole setup codex"));
        assert_eq!(verdict(&Err(SkillError::NoHome)).state, finding::State::Skip);
    }
}
