//! What was typed the way another tool has it, and what it is called here.
//!
//! Owns the table, for whoever comes from agent-wormhole 0.1, magic-wormhole or croc with the fingers' habits. Nothing of it
//! works under its foreign name: an error says what does. Pure.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// How a channel is made.
const HOST: &str = "`agent-wormhole host` makes a channel and prints its code";
/// How a channel is entered.
const CONNECT: &str = "`agent-wormhole connect CODE` enters a channel";
/// How something is received.
const RECEIVE: &str = "what arrives is in the channel's `inbox/`; `agent-wormhole wait CHANNEL` returns the next text or \
                       file, `agent-wormhole watch CHANNEL` prints all events";
/// How channels are listed.
const STATUS: &str = "`agent-wormhole status` lists the channels of this machine";
/// How a channel is left.
const CLOSE: &str = "`agent-wormhole close CHANNEL` delivers what is left and ends the channel";
/// How a question is asked.
const ASK: &str = "write the question into the channel's `outbox/ask/NAME`; `agent-wormhole wait CHANNEL --for answer:NAME` \
                   returns the answer";
/// How one is answered.
const ANSWER: &str =
    "a question is in the channel's `inbox/ask/NAME`; write the answer into `outbox/answer/NAME`";
/// How a shell learns the commands.
const COMPLETIONS: &str =
    "`agent-wormhole completions bash` (or zsh, fish, elvish, powershell) prints what a shell needs";
/// How a direct connection is made.
const DIRECT: &str =
    "leave it out: a code with @HOST connects directly, as in 40123-cross-clock-marble@laptop.local";

/// Foreign names of commands, and what to type.
const COMMANDS: [(&str, &str); 17] = [
    ("create", HOST),
    ("open", HOST),
    ("listen", HOST),
    ("join", CONNECT),
    ("receive", RECEIVE),
    ("recv", RECEIVE),
    ("read", RECEIVE),
    ("tail", RECEIVE),
    ("list", STATUS),
    ("ls", STATUS),
    ("channels", STATUS),
    ("stop", CLOSE),
    ("leave", CLOSE),
    ("disconnect", CLOSE),
    ("ask", ASK),
    ("answer", ANSWER),
    ("completion", COMPLETIONS),
];
/// Flags that no command has, or not the one that they were typed for.
const FLAGS: [(&str, &str); 4] = [
    ("--install-completion", COMPLETIONS),
    ("--show-completion", COMPLETIONS),
    ("--direct", DIRECT),
    ("--port", DIRECT),
];

/// The same error; where it is about a foreign name, with the tip in place of the names that only look alike.
#[must_use]
pub(super) fn with_tip(mut error: clap::Error) -> clap::Error {
    let tip = match error.kind() {
        ErrorKind::InvalidSubcommand => tip(&error, ContextKind::InvalidSubcommand, &COMMANDS),
        ErrorKind::UnknownArgument => tip(&error, ContextKind::InvalidArg, &FLAGS),
        _ => None,
    };
    if let Some(tip) = tip {
        // The usage is that of what looks alike.
        for alike in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::Usage] {
            error.remove(alike);
        }
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

fn tip(error: &clap::Error, about: ContextKind, table: &[(&str, &'static str)]) -> Option<&'static str> {
    let Some(ContextValue::String(typed)) = error.get(about) else { return None };
    table.iter().find(|(name, _)| name == typed).map(|(_, tip)| *tip)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::Args;
    use super::*;

    fn said(line: &str) -> String {
        with_tip(Args::try_parse_from(line.split(' ')).unwrap_err()).to_string()
    }

    #[test]
    fn a_foreign_name_is_answered_with_the_one_that_it_has_here() {
        for (name, tip) in COMMANDS {
            let said = said(&format!("agent-wormhole {name}"));
            assert!(said.contains(tip) && !said.contains("similar"), "{said}");
        }
        for line in ["agent-wormhole --install-completion", "agent-wormhole connect 1-a-b-c@h --direct"] {
            let said = said(line);
            assert!(said.contains("tip: ") && !said.contains("similar"), "{said}");
        }
    }

    #[test]
    fn a_slip_is_answered_with_what_looks_alike() {
        assert!(said("agent-wormhole hots").contains("a similar subcommand exists: 'host'"));
        assert!(said("agent-wormhole host --dierct").contains("a similar argument exists: '--direct'"));
        assert!(!said("agent-wormhole host --timeout").contains("leave it out"));
    }
}
