//! What may be said to a client.
//!
//! Owns the silence towards clients of 0.1.5, which take every text after their one answer for ciphertext. Says nothing
//! itself.

use crate::wire::{ServerMessage, Status, only_answer};

/// Which texts a seated client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// All of `PROTOCOL.md`.
    All,
    /// One: it is of 0.1.5, and waits for its answer.
    Once,
    /// None any more.
    Nothing,
}

impl Hearing {
    /// These statuses, as far as the client takes them.
    pub fn texts(&mut self, statuses: Vec<Status>) -> Vec<String> {
        match self {
            Self::All => statuses.into_iter().map(|s| ServerMessage::Status(s).encode()).collect(),
            Self::Once => {
                *self = Self::Nothing;
                vec![only_answer(statuses.iter().any(|status| matches!(status, Status::Paired { .. })))]
            }
            Self::Nothing => Vec::new(),
        }
    }
}
