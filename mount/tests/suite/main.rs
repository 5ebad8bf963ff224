//! What each file operation in a channel's directory means, for every back end: see `mount/SEMANTICS.md`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "this is a test; what it prints is seen when it fails"
)]

mod closing;
mod commands;
mod fixture;
mod leaving;
mod links;
mod model;
mod operations;
mod presence;
mod questions;
mod receiving;
mod secrets;
mod semantics;
mod sending;
mod streams;
mod trees;
