//! agent-wormhole: end-to-end encrypted, ephemeral channels between agent sessions.
pub mod code;
pub mod crypto;
pub mod frame;
pub mod item;
pub mod session;
pub mod transport;
