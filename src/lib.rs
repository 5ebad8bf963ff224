//! agent-wormhole: end-to-end encrypted, ephemeral channels between agent sessions.
pub mod channel;
pub mod cli;
pub mod code;
pub mod config;
pub mod crypto;
pub mod event;
pub mod follow;
pub mod frame;
pub mod item;
pub mod rundir;
pub mod session;
pub mod skill;
pub mod transport;
