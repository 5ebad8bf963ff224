//! See `src/names.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_wormhole_fuzz::names::holds(bytes));
