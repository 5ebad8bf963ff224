//! `--detach`.
//!
//! Owns the flag and its help.

/// `host --detach` and `connect --detach`.
#[derive(Debug, Default, clap::Args)]
pub struct DetachArgs {
    /// Return when the channel is up, after printing its first events; it goes on in the background, and `watch`,
    /// `status` and `close` find it
    #[arg(long)]
    pub detach: bool,
}
