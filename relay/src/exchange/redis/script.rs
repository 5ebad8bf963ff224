//! The scripts, with the limits of this instance in them.
//!
//! Owns how a script is put together from its parts in `lua/` and a table of limits. Asks nobody.

use std::fmt::Write as _;
use std::time::Duration;

use redis::Script;

use crate::exchange::{POP_BYTES, POP_FRAMES, POP_FRAMES_BY_CODE, WOKEN_AT_ONCE};
use crate::options::Options;
use crate::rules::{
    CODE_QUEUE, FRAME_OVERHEAD, MAX_CHANNELS, QUEUE, RETIRED_FOR, RETIRED_MAX, STRAIGHT_PARTS,
    UNCLAIMED_ABSENCE,
};
use crate::wire::{Role, SMALL_FRAME};

/// Keys of what lives are kept this much longer than it can be idle: the sweep of any instance ends it first, and where
/// there is none for so long Redis forgets by itself.
const SPARE: Duration = Duration::from_secs(24 * 60 * 60);
/// Failed joins of a source that uses nothing else are remembered this long.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Wake-ups that an instance may have before it, about. Who misses one looks at the next ping.
const WAKES: usize = 16_384;

/// One script for each step of the contract.
#[derive(Debug)]
pub(super) struct Scripts {
    pub allocate: Script,
    pub join: Script,
    pub code: Script,
    pub resume: Script,
    pub release: Script,
    pub leave: Script,
    pub push: Script,
    pub pop: Script,
    pub sweep: Script,
    keep: Duration,
}

impl Scripts {
    pub fn new(options: &Options) -> Self {
        let keep = options.idle.max(UNCLAIMED_ABSENCE) + SPARE;
        let limits = limits(options, keep);
        // Without memory nothing new is taken; what frees some goes on.
        let taking = |parts: &[&str]| whole("#!lua", &limits, parts);
        let freeing = |parts: &[&str]| whole("#!lua flags=allow-oom", &limits, parts);
        let settle = include_str!("lua/settle.lua");
        Self {
            allocate: taking(&[include_str!("lua/allocate.lua")]),
            join: taking(&[include_str!("lua/join.lua")]),
            code: taking(&[include_str!("lua/code.lua")]),
            resume: freeing(&[include_str!("lua/resume.lua")]),
            release: freeing(&[include_str!("lua/release.lua")]),
            leave: freeing(&[settle, include_str!("lua/leave.lua")]),
            push: taking(&[include_str!("lua/push.lua")]),
            pop: freeing(&[settle, include_str!("lua/pop.lua")]),
            sweep: freeing(&[include_str!("lua/sweep.lua")]),
            keep,
        }
    }

    /// How long keys of what lives are kept.
    pub fn keep(&self) -> Duration {
        self.keep
    }
}

/// The script by which an instance comes and stays.
pub(super) fn enter() -> Script {
    Script::new(concat!("#!lua flags=allow-oom\n", include_str!("lua/enter.lua")))
}

/// How scripts name a role.
pub(super) const fn letter(role: Role) -> &'static str {
    match role {
        Role::Host => "h",
        Role::Peer => "p",
    }
}

fn whole(flags: &str, limits: &str, parts: &[&str]) -> Script {
    let body = parts.concat();
    Script::new(&[flags, "\n", limits, "\n", include_str!("lua/prelude.lua"), &body].concat())
}

/// The table `L`. Rates and counts of 0 are unlimited, as in [`Options`].
fn limits(options: &Options, keep: Duration) -> String {
    let rows: [(&str, u128); 25] = [
        ("messages", options.messages_per_minute.into()),
        ("bytes", options.bytes_per_minute.into()),
        ("small", options.small_per_minute.into()),
        ("small_frame", SMALL_FRAME as u128),
        ("idle", options.idle.as_micros()),
        ("unclaimed", UNCLAIMED_ABSENCE.as_micros()),
        ("channels", MAX_CHANNELS as u128),
        ("per_source", options.channels_per_source as u128),
        ("failed_joins", options.failed_joins_per_minute.into()),
        ("memory", options.memory as u128),
        ("share", options.memory_per_source as u128),
        ("queue", QUEUE as u128),
        ("code_queue", CODE_QUEUE as u128),
        ("overhead", FRAME_OVERHEAD as u128),
        ("straight_parts", STRAIGHT_PARTS as u128),
        ("pop_bytes", POP_BYTES as u128),
        ("pop_frames", POP_FRAMES as u128),
        ("pop_frames_by_code", POP_FRAMES_BY_CODE as u128),
        ("woken", WOKEN_AT_ONCE as u128),
        ("wakes", WAKES as u128),
        ("keep", keep.as_millis()),
        ("tombstone", options.idle.as_millis()),
        ("remembered", REMEMBERED.as_millis()),
        ("retired", RETIRED_MAX as u128),
        ("retired_for", RETIRED_FOR.as_micros()),
    ];
    let mut table = String::from("local L = {");
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = write!(table, " {name} = {value},");
    }
    table.push_str(" }");
    table
}
