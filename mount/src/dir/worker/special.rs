//! The directories of ours in an outbox that is a real directory: they stay, and what is in them is a question or an
//! answer, or is told to be none.

use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fs::FileType;

use super::{Worker, layout};
use crate::outbox::{Identity, Prepared, Sign, Ticket};
use crate::prepare::Taken;
use crate::questions::Questions;
use crate::special::{self, Special};
use crate::{EntryId, LeftOut, Offer, OutboxEvent, Outcome, beneath, ignore};

impl Worker {
    /// Whether such a directory is to be scanned; `None` where a path is neither one nor something in it that cannot be
    /// sent.
    pub(super) fn look_at_special(&mut self, name: &str, kind: FileType) -> Option<bool> {
        if Special::named(name).is_some() {
            if kind == FileType::Directory {
                return Some(true);
            }
            self.outbox.leave_out(name, special::TAKEN.into(), Instant::now());
            return Some(false);
        }
        let (_, rest) = Special::of(name).filter(|_| ignore::path(name).is_none())?;
        let reason = match kind {
            FileType::RegularFile if special::is_name(rest) => return None,
            FileType::RegularFile => special::BAD_NAME,
            _ => special::NO_FILE,
        };
        self.outbox.leave_out(name, reason.into(), Instant::now());
        Some(false)
    }

    /// Makes such a directory anew where it is not there any more.
    pub(super) fn keep_special(&mut self, path: &Path) {
        let Some(special) = path.to_str().and_then(Special::named) else { return };
        if let Err(error) = beneath::make_dir(&self.layout.outbox, special.as_str()) {
            // Something else has its name, which is told; when that goes, it is made.
            tracing::debug!(%error, "a directory of the outbox cannot be made anew");
            return;
        }
        if let Err(error) = self.watch.add(&self.layout.path.join(layout::OUTBOX).join(path)) {
            let reason = format!("changes in it are not noticed: {error}");
            self.emit(OutboxEvent::LeftOut(LeftOut { name: special.as_str().to_owned(), reason }));
        }
        self.scan(path.to_owned());
    }

    /// A question or an answer becomes one, or is told at once to be none: somebody may be waiting for it.
    pub(super) fn address(&mut self, ticket: &Ticket, (offer, identity): (Offer, Identity)) -> Taken {
        if self.takes_another_place(&ticket.path, identity) {
            let reason = self.tell_denied(&ticket.path, special::WRITTEN_OVER.to_owned());
            return Err(Prepared::Denied { identity, reason });
        }
        let addressed = self.questions().address(offer);
        addressed.map(|offer| (offer, identity)).map_err(|denied| {
            let reason = self.tell_denied(&ticket.path, denied.to_string());
            Prepared::Denied { identity, reason }
        })
    }

    /// Whether a question or an answer is at a path now that was written over another one, which was complete and could not
    /// be offered yet. Nobody could tell whose the answer is then: neither is sent, and that is told at once.
    pub(super) fn is_written_over(&mut self, name: &str, identity: Identity, sign: Sign) -> bool {
        if !self.takes_another_place(name, identity) {
            return false;
        }
        // Who is still writing it closes it.
        if sign == Sign::Complete || !self.snapshots.is_open(name) {
            let reason = self.tell_denied(name, special::WRITTEN_OVER.to_owned());
            self.outbox.deny(name, identity, reason, Instant::now());
        }
        true
    }

    fn takes_another_place(&self, path: &str, identity: Identity) -> bool {
        Special::of(path).is_some_and(|(what, name)| {
            // Of a name that was used before that is told.
            self.outbox.is_written_over(path, identity) && self.questions().may_write(what, name).is_ok()
        })
    }

    fn tell_denied(&mut self, path: &str, reason: String) -> String {
        self.emit(OutboxEvent::Denied(LeftOut { name: path.to_owned(), reason: reason.clone() }));
        reason
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was offered has ended; it may have been a question or an answer.
    pub(super) fn question_ended(&mut self, entry: EntryId, outcome: &Outcome) {
        if let Some(path) = self.outbox.path_of(entry) {
            self.questions().ended(path, outcome.is_delivered());
        }
    }
}
