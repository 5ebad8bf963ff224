//! What can be typed after `wait`.
//!
//! Owns the flags and their help.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;

use super::{RoleArg, quantity};

/// After the flags of `wait --help`.
pub const AFTER: &str = "WHAT is one of these; without --for it is anything from the peer:
  text       a text
  file       a file or a directory
  connected  the peer is connected, or connected again
  ask        a question, and ask:NAME that of this name
  answer:NAME
             the answer to the question of this name
  secret     a secret, and secret:NAME that of this name
  NAME       a file or directory of this name in inbox/, or sent with it (`sent_as`);
             ./text, ./file, ./ask, ./secret and ./a:b are names, too

What came before is found, too: give --since the \"seq\" of the last event that you have seen.

Exit codes:
  0  it came; its event stands on standard output
  2  no such channel is running here
  4  it cannot come any more: the channel or the peer has closed, or its process was killed
  5  timeout
  6  NAME, the question, or the secret, was refused; the reason stands on standard error

Examples:
  agent-wormhole wait 9471 --for report.pdf --timeout 10m
  agent-wormhole wait 9471 --for answer:deploy --timeout 1h
  seq=0                                      # each event once, one after the other:
  while event=$(agent-wormhole wait 9471 --since $seq); do
    seq=$(echo \"$event\" | jq .seq); echo \"$event\"
  done";

/// `agent-wormhole wait`.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// The channel's number, code or directory
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// What to wait for: text, file, connected, ask, answer:NAME, secret, or the name of a file or directory [default: anything
    /// from the peer]
    #[arg(long = "for", value_name = "WHAT", value_parser = NonEmptyStringValueParser::new())]
    pub wanted: Option<String>,
    /// Only what comes after the event with this number [default: all since the channel was made]
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    pub since: u64,
    /// Give up after this long, such as 90s, 10m, 1h30m [default: when the channel ends]
    #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// Which end, where both are on this machine
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
}
