//! The bell with a real child: what it does below a directory, how it lives and dies, and what becomes of the mount.
//!
//! Mounts are real FUSE mounts whose server never answers; they need root and `/dev/fuse`.
#![cfg(target_os = "linux")]

mod ending;
mod figures;
mod living;
mod stage;
mod working;
