//! agent-wormhole: end-to-end encrypted, ephemeral channels between agent sessions.
pub mod cli;
pub mod config;
pub mod crypto;
pub mod event;
pub mod rundir;
pub mod transport;
