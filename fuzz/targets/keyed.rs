//! See `src/keyed.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_wormhole_fuzz::keyed::holds(bytes));
