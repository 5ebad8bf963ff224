//! A channel as a mount: what the kernel, signals, kills and other users make of it.
//!
//! Nothing here hangs for good: whatever touches a mount is a process of its own, and a guard frees what hangs.

#![cfg(target_os = "linux")]

mod bell;
mod busy;
pub mod choice;
mod closing;
pub mod guard;
mod hidden;
pub mod kills;
pub mod processes;
mod receipts;
pub mod user;
