//! Items in events: what arrived from the peer, and what this side sent.
//!
//! Owns their members and order. The line itself, its escaper and its bounds are those of the module above.

use super::{Line, Stamp};

/// A text that is in the inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextEvent {
    /// Its number among what the peer sent.
    pub id: u64,
    /// Bytes.
    pub size: u64,
    /// Absolute path.
    pub saved_to: String,
    /// The text; left out of the line where it is longer than [`MAX_BODY`](super::MAX_BODY).
    pub body: Option<String>,
    /// Names of items that the peer sent earlier and that are still on the way.
    pub pending: Vec<String>,
    /// How many more of them there are.
    pub pending_more: u64,
}

impl TextEvent {
    pub(super) fn to_line(&self, stamp: Stamp) -> String {
        let mut line = Line::from("text", "peer");
        line.number("id", self.id);
        line.number("size", self.size);
        line.text("saved_to", &self.saved_to);
        line.body(self.body.as_deref());
        line.names("pending", "pending_more", &self.pending, self.pending_more);
        line.end(stamp)
    }
}

/// A file that is in the inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileEvent {
    /// Its number among what the peer sent.
    pub id: u64,
    /// Name it was saved under, relative to `inbox/`.
    pub name: String,
    /// Name it was sent with, where that is another one.
    pub sent_as: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Absolute path.
    pub saved_to: String,
}

impl FileEvent {
    pub(super) fn to_line(&self, stamp: Stamp) -> String {
        let mut line = Line::from("file", "peer");
        line.number("id", self.id);
        line.text("name", &self.name);
        line.sent_as(self.sent_as.as_deref());
        line.number("size", self.size);
        line.text("saved_to", &self.saved_to);
        line.end(stamp)
    }
}

/// A directory that is in the inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirEvent {
    /// Its number among what the peer sent.
    pub id: u64,
    /// Name it was saved under, relative to `inbox/`.
    pub name: String,
    /// Name it was sent with, where that is another one.
    pub sent_as: Option<String>,
    /// Files in it, where it came as a whole.
    pub files: Option<u64>,
    /// Bytes in it, where it came as a whole.
    pub size: Option<u64>,
    /// Absolute path.
    pub saved_to: String,
}

impl DirEvent {
    pub(super) fn to_line(&self, stamp: Stamp) -> String {
        let mut line = Line::from("dir", "peer");
        line.number("id", self.id);
        line.text("name", &self.name);
        line.sent_as(self.sent_as.as_deref());
        line.maybe_number("files", self.files);
        line.maybe_number("size", self.size);
        line.text("saved_to", &self.saved_to);
        line.end(stamp)
    }
}

/// A question or an answer that is in the inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuestionEvent {
    /// Its number among what the peer sent; left out of the line where that is not known any more.
    pub id: Option<u64>,
    /// The question's name, the same for its answer.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Absolute path.
    pub saved_to: String,
    /// The text; left out of the line where it is longer than [`MAX_BODY`](super::MAX_BODY).
    pub body: Option<String>,
}

impl QuestionEvent {
    pub(super) fn to_line(&self, kind: &str, stamp: Stamp) -> String {
        let mut line = Line::from(kind, "peer");
        line.maybe_number("id", self.id);
        line.text("name", &self.name);
        line.number("size", self.size);
        line.text("saved_to", &self.saved_to);
        line.body(self.body.as_deref());
        line.end(stamp)
    }
}

/// A secret that waits in memory for `agent-wormhole run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEvent {
    /// Its number among what the peer sent.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// About how long it is.
    pub length: LengthClass,
    /// The number of the unused one of this name that it took the place of.
    pub replaces: Option<u64>,
}

impl SecretEvent {
    pub(super) fn to_line(&self, stamp: Stamp) -> String {
        let mut line = Line::from("secret", "peer");
        line.number("id", self.id);
        line.text("name", &self.name);
        line.text("length", self.length.as_str());
        line.maybe_number("replaces", self.replaces);
        line.end(stamp)
    }
}

/// About how long a secret is: enough to see that the wrong thing was sent, too little to help who guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthClass(&'static str);

impl LengthClass {
    /// The class of so many bytes, at most [`MAX_SECRET`](crate::item::MAX_SECRET).
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        Self(match bytes {
            0..=16 => "1-16",
            17..=64 => "17-64",
            65..=256 => "65-256",
            257..=1024 => "257-1024",
            1025..=4096 => "1025-4096",
            _ => "4097-16384",
        })
    }

    /// Its word in events and `status.json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Something this side sent: a line of `transcript.jsonl`, never of standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// A text.
    Text {
        /// Its number among what this side sent.
        id: u64,
        /// Bytes.
        size: u64,
        /// The text; left out of the line where it is longer than [`MAX_BODY`](super::MAX_BODY).
        body: Option<String>,
    },
    /// A file.
    File {
        /// Its number among what this side sent.
        id: u64,
        /// Name relative to `outbox/`.
        name: String,
        /// Bytes, where known.
        size: Option<u64>,
    },
    /// A directory.
    Dir {
        /// Its number among what this side sent.
        id: u64,
        /// Name relative to `outbox/`.
        name: String,
    },
    /// A secret: nothing of it but its name and about how long it is.
    Secret {
        /// Its number among what this side sent.
        id: u64,
        /// Its name.
        name: String,
        /// About how long it is.
        length: LengthClass,
    },
    /// A question.
    Ask(SentQuestion),
    /// An answer.
    Answer(SentQuestion),
}

/// A question or an answer that this side sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentQuestion {
    /// Its number among what this side sent.
    pub id: u64,
    /// The question's name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The text; left out of the line where it is longer than [`MAX_BODY`](super::MAX_BODY).
    pub body: Option<String>,
}

impl SentQuestion {
    fn to_line(&self, kind: &str, stamp: Stamp) -> String {
        let mut line = Line::from(kind, "self");
        line.number("id", self.id);
        line.text("name", &self.name);
        line.number("size", self.size);
        line.body(self.body.as_deref());
        line.end(stamp)
    }
}

impl Sent {
    /// The word of its event.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::File { .. } => "file",
            Self::Dir { .. } => "dir",
            Self::Secret { .. } => "secret",
            Self::Ask(_) => "ask",
            Self::Answer(_) => "answer",
        }
    }

    /// The line for `transcript.jsonl`, without its newline.
    #[must_use]
    pub fn to_line(&self, stamp: Stamp) -> String {
        match self {
            Self::Text { id, size, body } => {
                let mut line = Line::from("text", "self");
                line.number("id", *id);
                line.number("size", *size);
                line.body(body.as_deref());
                line.end(stamp)
            }
            Self::File { id, name, size } => {
                let mut line = Line::from("file", "self");
                line.number("id", *id);
                line.text("name", name);
                line.maybe_number("size", *size);
                line.end(stamp)
            }
            Self::Dir { id, name } => {
                let mut line = Line::from("dir", "self");
                line.number("id", *id);
                line.text("name", name);
                line.end(stamp)
            }
            Self::Secret { id, name, length } => {
                let mut line = Line::from("secret", "self");
                line.number("id", *id);
                line.text("name", name);
                line.text("length", length.as_str());
                line.end(stamp)
            }
            Self::Ask(question) => question.to_line("ask", stamp),
            Self::Answer(answer) => answer.to_line("answer", stamp),
        }
    }
}
