//! Keys: the PAKE, the key schedule, sealing, and the proof that resumes a direct link.
//!
//! Owns every call into a cryptographic crate. Does no I/O and draws no randomness it was not handed. Keys have a
//! direction in their type, are moved and never cloned, are wiped on drop and print nothing.

pub mod pake;
pub mod resume;
pub mod schedule;
pub mod seal;
