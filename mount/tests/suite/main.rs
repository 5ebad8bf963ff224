//! What each file operation in a channel's directory means, for every back end: see `mount/SEMANTICS.md`.

mod closing;
mod commands;
mod fixture;
mod leaving;
mod links;
mod receiving;
mod sending;
mod trees;
