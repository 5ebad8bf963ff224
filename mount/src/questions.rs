//! Which questions were asked on a channel and which were answered. A name is asked once for each direction, and answered
//! once, so that whoever waits for an answer gets that of its own question.
//!
//! Owns both directions, whatever the back end. Decides only: who writes a file, offers an item or saves one asks here.

use std::collections::HashMap;

use crate::special::{Special, is_name};
use crate::{Kind, Offer, Refusal};

/// Most questions of each direction in the life of a channel: about 130 bytes each with their names, so 17 MiB for both.
pub const MAX_QUESTIONS: usize = 1 << 16;

/// A question of this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Complete in the outbox, and not offered.
    Written,
    /// Offered.
    Offered,
    /// The peer has it.
    Asked,
    /// The peer's answer is here.
    Answered,
}

/// A question of the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theirs {
    /// It is in the inbox.
    Asked,
    /// An answer to it is complete in the outbox, and not offered.
    Written,
    /// An answer to it was offered.
    Offered,
    /// The peer has the answer.
    Answered,
}

/// Why something is not a question or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The name is none.
    #[error("{}", crate::special::BAD_NAME)]
    BadName,
    /// A question of this name was asked, or answered, before.
    #[error("its name was used before on this channel; choose another")]
    Used,
    /// An answer to what the other end did not ask.
    #[error("no question of this name was asked")]
    NotAsked,
    /// [`MAX_QUESTIONS`].
    #[error("{MAX_QUESTIONS} questions were asked on this channel; open a new one")]
    Full,
    /// No text, or too long.
    #[error("questions and answers are UTF-8 of at most 1 MiB; send it as a file, and name that in the text")]
    NoText,
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::BadName | Denied::NoText => Self::BadName,
            Denied::Used => Self::NameUsed,
            Denied::NotAsked => Self::NotAsked,
            Denied::Full => Self::NoSpace,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Questions {
    own: HashMap<Box<str>, Own>,
    theirs: HashMap<Box<str>, Theirs>,
}

impl Questions {
    /// Whether this side may write a question or an answer of a name now.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may_write(&self, what: Special, name: &str) -> Result<(), Denied> {
        if !is_name(name) {
            return Err(Denied::BadName);
        }
        match what {
            Special::Ask if self.own.contains_key(name) => Err(Denied::Used),
            Special::Ask if self.own.len() >= MAX_QUESTIONS => Err(Denied::Full),
            Special::Ask => Ok(()),
            Special::Answer => match self.theirs.get(name) {
                None => Err(Denied::NotAsked),
                Some(Theirs::Asked) => Ok(()),
                Some(Theirs::Written | Theirs::Offered | Theirs::Answered) => Err(Denied::Used),
            },
        }
    }

    /// One is complete in the outbox: nothing else gets its name, where it is free.
    pub fn written(&mut self, what: Special, name: &str) {
        if self.may_write(what, name).is_ok() {
            self.set(what, name, (Own::Written, Theirs::Written));
        }
    }

    /// What is offered from a path in the outbox: that of a question or an answer becomes one, and takes its name.
    ///
    /// # Errors
    /// [`Denied`]; then it is not to be offered.
    pub fn address(&mut self, offer: Offer) -> Result<Offer, Denied> {
        let Some((what, name)) = Special::of(&offer.name) else { return Ok(offer) };
        if offer.kind != Kind::Text {
            self.free(what, name);
            return Err(Denied::NoText);
        }
        let is_written = match what {
            Special::Ask => self.own.get(name) == Some(&Own::Written),
            Special::Answer => self.theirs.get(name) == Some(&Theirs::Written),
        };
        if !is_written {
            self.may_write(what, name)?;
        }
        self.set(what, name, (Own::Offered, Theirs::Offered));
        let name = name.to_owned();
        Ok(Offer { kind: what.kind(), name, executable: false, mtime: None, ..offer })
    }

    /// What was offered from a path in the outbox has ended. One that the peer does not have frees its name.
    pub fn ended(&mut self, path: &str, delivered: bool) {
        let Some((what, name)) = Special::of(path) else { return };
        let is_offered = match what {
            Special::Ask => self.own.get(name) == Some(&Own::Offered),
            Special::Answer => self.theirs.get(name) == Some(&Theirs::Offered),
        };
        match (is_offered, delivered) {
            (true, true) => self.set(what, name, (Own::Asked, Theirs::Answered)),
            (true, false) => self.free(what, name),
            // The answer may be here before the receipt of its question.
            (false, _) => {}
        }
    }

    /// Nothing is at a path in the outbox any more. What was offered from there keeps its name until that has ended.
    pub fn gone(&mut self, path: &str) {
        let Some((what, name)) = Special::of(path) else { return };
        let is_written = match what {
            Special::Ask => self.own.get(name) == Some(&Own::Written),
            Special::Answer => self.theirs.get(name) == Some(&Theirs::Written),
        };
        if is_written {
            self.free(what, name);
        }
    }

    /// Whether the peer may send a question or an answer of a name now.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may_arrive(&self, what: Special, name: &str) -> Result<(), Denied> {
        if !is_name(name) {
            return Err(Denied::BadName);
        }
        match what {
            Special::Ask if self.theirs.contains_key(name) => Err(Denied::Used),
            Special::Ask if self.theirs.len() >= MAX_QUESTIONS => Err(Denied::Full),
            Special::Ask => Ok(()),
            Special::Answer => match self.own.get(name) {
                // What was not offered cannot be known to the peer.
                None | Some(Own::Written) => Err(Denied::NotAsked),
                Some(Own::Offered | Own::Asked) => Ok(()),
                Some(Own::Answered) => Err(Denied::Used),
            },
        }
    }

    /// One of the peer's takes its name, before it is visible: whoever sees a question may answer it.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn arrive(&mut self, what: Special, name: &str) -> Result<(), Denied> {
        self.may_arrive(what, name)?;
        match what {
            Special::Ask => self.theirs.insert(name.into(), Theirs::Asked).map(drop),
            Special::Answer => self.own.insert(name.into(), Own::Answered).map(drop),
        };
        Ok(())
    }

    /// What had taken its name could not be made visible.
    pub fn not_arrived(&mut self, what: Special, name: &str) {
        match what {
            Special::Ask => self.theirs.remove(name).map(drop),
            Special::Answer => self.own.insert(name.into(), Own::Asked).map(drop),
        };
    }

    fn set(&mut self, what: Special, name: &str, (own, theirs): (Own, Theirs)) {
        match what {
            Special::Ask => self.own.insert(name.into(), own).map(drop),
            Special::Answer => self.theirs.insert(name.into(), theirs).map(drop),
        };
    }

    fn free(&mut self, what: Special, name: &str) {
        match what {
            Special::Ask => drop(self.own.remove(name)),
            Special::Answer => {
                if let Some(question) = self.theirs.get_mut(name) {
                    *question = Theirs::Asked;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, EntryId};

    fn offer(path: &str, kind: Kind) -> Offer {
        let (entry, name, content) = (EntryId(1), path.to_owned(), Content::None);
        Offer { entry, kind, name, size: None, executable: true, mtime: None, content }
    }

    fn asked(questions: &mut Questions, path: &str) -> Result<(), Denied> {
        questions.address(offer(path, Kind::Text)).map(drop)
    }

    #[test]
    fn a_name_is_asked_once_and_answered_once() {
        let mut here = Questions::default();
        here.written(Special::Ask, "x");
        assert_eq!(here.may_write(Special::Ask, "x"), Err(Denied::Used), "complete, and not offered yet");
        assert_eq!(here.may_arrive(Special::Answer, "x"), Err(Denied::NotAsked));
        let question = here.address(offer("ask/x", Kind::Text)).unwrap();
        assert_eq!((question.kind, &*question.name, question.executable), (Kind::Ask, "x", false));
        assert_eq!(asked(&mut here, "ask/x"), Err(Denied::Used), "written again");
        // The answer overtakes the receipt.
        here.arrive(Special::Answer, "x").unwrap();
        here.ended("ask/x", true);
        assert_eq!(here.arrive(Special::Answer, "x"), Err(Denied::Used));
        assert_eq!(here.may_write(Special::Ask, "x"), Err(Denied::Used));
    }

    #[test]
    fn each_direction_has_names_of_its_own() {
        let mut here = Questions::default();
        asked(&mut here, "ask/x").unwrap();
        assert_eq!(here.may_write(Special::Answer, "x"), Err(Denied::NotAsked));
        here.arrive(Special::Ask, "x").unwrap();
        assert_eq!(here.arrive(Special::Ask, "x"), Err(Denied::Used));
        asked(&mut here, "answer/x").unwrap();
        here.ended("answer/x", true);
        assert_eq!(asked(&mut here, "answer/x"), Err(Denied::Used));
        here.ended("ask/x", true);
        assert_eq!(here.may_arrive(Special::Answer, "x"), Ok(()), "its own question is not answered by that");
    }

    #[test]
    fn what_did_not_arrive_frees_its_name() {
        let mut here = Questions::default();
        for delivered in [false, true] {
            asked(&mut here, "ask/x").unwrap();
            here.gone("ask/x");
            assert_eq!(here.may_write(Special::Ask, "x"), Err(Denied::Used), "the peer may have it");
            here.ended("ask/x", delivered);
        }
        here.ended("ask/x", false);
        assert_eq!(here.may_write(Special::Ask, "x"), Err(Denied::Used));
        here.written(Special::Ask, "y");
        here.gone("ask/y");
        assert_eq!(here.may_write(Special::Ask, "y"), Ok(()));
        here.written(Special::Ask, "y");
        assert_eq!(here.address(offer("ask/y", Kind::File)).unwrap_err(), Denied::NoText);
        assert_eq!(here.may_write(Special::Ask, "y"), Ok(()));
        here.arrive(Special::Ask, "z").unwrap();
        asked(&mut here, "answer/z").unwrap();
        here.ended("answer/z", false);
        assert_eq!(here.may_write(Special::Answer, "z"), Ok(()), "it can be answered again");
        here.written(Special::Answer, "z");
        here.gone("answer/z");
        assert_eq!(here.may_write(Special::Answer, "z"), Ok(()));
    }

    #[test]
    fn what_could_not_be_saved_may_be_sent_again() {
        let mut here = Questions::default();
        here.arrive(Special::Ask, "x").unwrap();
        here.not_arrived(Special::Ask, "x");
        assert_eq!(here.may_write(Special::Answer, "x"), Err(Denied::NotAsked));
        here.arrive(Special::Ask, "x").unwrap();
        asked(&mut here, "ask/y").unwrap();
        here.arrive(Special::Answer, "y").unwrap();
        here.not_arrived(Special::Answer, "y");
        here.arrive(Special::Answer, "y").unwrap();
    }

    #[test]
    fn other_names_and_other_paths_are_none_of_its_business() {
        let mut here = Questions::default();
        for name in ["", "1", "a b", "../x"] {
            assert_eq!(here.may_write(Special::Ask, name), Err(Denied::BadName), "{name}");
            assert_eq!(here.arrive(Special::Ask, name), Err(Denied::BadName), "{name}");
        }
        for path in ["message", "dir/ask/x", "ask"] {
            let same = here.address(offer(path, Kind::File)).unwrap();
            assert_eq!((same.kind, &*same.name, same.executable), (Kind::File, path, true));
        }
        assert!(here.own.is_empty() && here.theirs.is_empty());
    }

    #[test]
    fn both_directions_are_bounded() {
        let mut here = Questions::default();
        for n in 0..MAX_QUESTIONS {
            here.arrive(Special::Ask, &format!("q{n}")).unwrap();
            asked(&mut here, &format!("ask/q{n}")).unwrap();
        }
        assert_eq!(here.arrive(Special::Ask, "more"), Err(Denied::Full));
        assert_eq!(asked(&mut here, "ask/more"), Err(Denied::Full));
        here.ended("ask/q0", false);
        asked(&mut here, "ask/more").unwrap();
    }
}
