//! The bell with a real child: what it does below a directory, how it lives and dies, and what becomes of the mount.
//!
//! Mounts are real FUSE mounts whose server never answers; they need root and `/dev/fuse`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // a test that cannot go on panics

mod ending;
mod figures;
mod living;
mod stage;
mod working;
