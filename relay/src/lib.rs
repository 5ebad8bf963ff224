//! The blind relay: pairs two ends that hold the same nameplate and moves opaque frames between them.
pub mod wire;
