//! What `flush` waits for: the complete things of one moment, followed through offers, rewrites and renames.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::apart::name_of;
use crate::EntryId;

/// Most `flush` requests at once. Each may hold a name of every entry.
pub const MAX_FLUSHES: usize = 16;
/// Why something that a 0.1 peer was sent is not confirmed.
pub const NO_RECEIPTS: &str = "the peer's version gives no receipts";
/// Most names in one answer; how many there are in all is told, too.
pub const MAX_FAILED: usize = 100;

/// The answer to a `flush`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The request.
    pub token: String,
    /// Names that the peer has not stored, and why: at most [`MAX_FAILED`]. Empty where everything is stored.
    pub failed: Vec<(String, String)>,
    /// How many there are in all.
    pub failed_count: usize,
}

/// One thing that a barrier waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Member {
    /// What is at this path, not offered yet.
    Path(Arc<str>),
    /// This offer.
    Offer(EntryId),
}

/// How waiting for a member ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    /// The peer stored it, or its owner took it back.
    Settled,
    /// The peer did not: its name, and why.
    Failed(&'a str, &'a str),
    /// It goes on as something else.
    Becomes(&'a Member),
}

/// All waiting requests.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    waiting: Vec<(BTreeSet<Member>, Answer)>,
}

impl Barriers {
    /// Whether no more requests can be added.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_FLUSHES
    }

    /// Adds a request; `false` where there are too many.
    pub(super) fn add(&mut self, members: BTreeSet<Member>, answer: Answer) -> bool {
        let fits = !self.is_full();
        if fits {
            self.waiting.push((members, answer));
        }
        fits
    }

    /// Whether a request waits.
    pub(super) fn is_waiting(&self, token: &str) -> bool {
        self.waiting.iter().any(|(_, answer)| answer.token == token)
    }

    /// Drops a request whose asker is gone.
    pub(super) fn forget(&mut self, token: &str) {
        self.waiting.retain(|(_, answer)| answer.token != token);
    }

    /// A member came to its end, in every request that waits for it.
    pub(super) fn end(&mut self, member: &Member, end: End<'_>) {
        for (members, answer) in &mut self.waiting {
            if !members.remove(member) {
                continue;
            }
            match end {
                End::Settled => {}
                End::Failed(name, reason) => answer.fail(name, reason),
                End::Becomes(next) => {
                    members.insert(next.clone());
                }
            }
        }
    }

    /// Ends all requests; `fail` adds a member to its answer.
    pub(super) fn abandon(&mut self, fail: impl Fn(&Member, &mut Answer)) -> Vec<Answer> {
        let end = |(members, mut answer): (BTreeSet<Member>, Answer)| {
            members.iter().for_each(|member| fail(member, &mut answer));
            answer
        };
        self.waiting.drain(..).map(end).collect()
    }

    /// A request that waits for nothing any more.
    pub(super) fn next(&mut self) -> Option<Answer> {
        let at = self.waiting.iter().position(|(members, _)| members.is_empty())?;
        Some(self.waiting.swap_remove(at).1)
    }
}

impl Answer {
    /// An answer that nothing was added to.
    #[must_use]
    pub const fn new(token: String) -> Self {
        Self { token, failed: Vec::new(), failed_count: 0 }
    }

    /// Adds a name that the peer has not stored.
    pub fn fail(&mut self, name: &str, reason: &str) {
        self.failed_count += 1;
        if self.failed.len() < MAX_FAILED {
            self.failed.push((name_of(name).to_owned(), reason.to_owned()));
        }
    }
}
