//! Keys: the PAKE, the key schedule, sealing, and the proof that resumes a direct link.
//!
//! Owns every call into a cryptographic crate. Does no I/O and draws no randomness it was not handed.

pub mod resume;
