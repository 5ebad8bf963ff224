//! What crosses a channel: an item is a head and a run of chunks, and ends with one receipt.
//!
//! Owns the types that a head is made of and their bounds. Knows no records and no files.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use minicbor::{Decode, Encode};

/// Content up to this many bytes travels inside the head.
pub const MAX_INLINE: usize = 16 * 1024;
/// Longest secret in bytes: it always travels inside the head.
pub const MAX_SECRET: usize = MAX_INLINE;
/// Longest text, question or answer in bytes.
pub const MAX_TEXT: u64 = 1024 * 1024;
/// Longest name in bytes.
pub const MAX_NAME: usize = 4096;
/// Items of one direction that lack a receipt, at most.
pub const MAX_UNRECEIPTED: usize = 4096;
/// Bulk items of one direction that are begun and not ended, at most.
pub const MAX_OPEN_BULK: usize = 16;

/// An item's number: rises by one in order of commit, from 1, for each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ItemKind {
    /// UTF-8 for a reader.
    #[n(0)]
    Text,
    /// A file.
    #[n(1)]
    File,
    /// A directory without its content.
    #[n(2)]
    Dir,
    /// The root of a directory that becomes visible whole.
    #[n(3)]
    Group,
    /// Bytes that are kept in memory and shown to nobody but the command that they are for.
    #[n(4)]
    Secret,
    /// UTF-8: a question under a name that is used once.
    #[n(5)]
    Ask,
    /// UTF-8: the one answer to the question of that name.
    #[n(6)]
    Answer,
}

impl ItemKind {
    /// Whether its content is UTF-8 of at most [`MAX_TEXT`] bytes.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Ask | Self::Answer)
    }

    /// The directory in `outbox/` and in `inbox/` under which such items are told of.
    #[must_use]
    pub const fn directory(self) -> Option<&'static str> {
        match self {
            // A secret is known by its name alone: it is nowhere.
            Self::Text | Self::File | Self::Dir | Self::Group | Self::Secret => None,
            Self::Ask => Some("ask"),
            Self::Answer => Some("answer"),
        }
    }

    /// The name of such an item in `status.json` and where it is refused: relative to the mailbox's directory.
    #[must_use]
    pub fn shown(self, name: &str) -> Cow<'_, str> {
        match self.directory() {
            Some(directory) => format!("{directory}/{name}").into(),
            None => name.into(),
        }
    }

    /// What both ends have to know for such an item to be sent.
    #[must_use]
    pub const fn feature(self) -> Option<Feature> {
        match self {
            Self::Text | Self::File | Self::Dir | Self::Group => None,
            Self::Secret => Some(Feature::Secrets),
            Self::Ask | Self::Answer => Some(Feature::Questions),
        }
    }
}

/// What an end may know beside the first items of protocol 2. Each is a word in its version message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// [`ItemKind::Secret`].
    Secrets,
    /// [`ItemKind::Ask`] and [`ItemKind::Answer`].
    Questions,
    /// The message that an item was opened.
    Opened,
}

impl Feature {
    /// All that this version knows.
    pub const ALL: [Self; 3] = [Self::Secrets, Self::Questions, Self::Opened];

    /// Its word in the version message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Questions => "questions",
            Self::Opened => "opened",
        }
    }
}

/// Which queue an item travels in. Within a lane heads keep their order; between the lanes none is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Texts, questions and answers of any size, and whatever is inline: strictly one after another.
    Prompt,
    /// Everything else, chunks round robin.
    Bulk,
}

/// Everything about an item but its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemHead {
    /// What it is.
    pub kind: ItemKind,
    /// The group that it is a member of.
    pub group: Option<ItemId>,
    /// Relative path with `/` between components. Untrusted when it comes from a peer.
    pub name: String,
    /// Bytes, where known.
    pub size: Option<u64>,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Last modification, nanoseconds since 1970-01-01 UTC.
    pub mtime: Option<i64>,
    /// The content, where it is short and known at once ([`MAX_INLINE`]).
    pub inline: Option<Bytes>,
}

impl ItemHead {
    /// The lane it travels in.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self.kind {
            ItemKind::Text | ItemKind::Secret | ItemKind::Ask | ItemKind::Answer => Lane::Prompt,
            ItemKind::Group => Lane::Bulk,
            ItemKind::File | ItemKind::Dir if self.group.is_some() => Lane::Bulk,
            ItemKind::Dir => Lane::Prompt,
            ItemKind::File if self.inline.is_some() => Lane::Prompt,
            ItemKind::File => Lane::Bulk,
        }
    }

    /// Whether the head is all of it: nothing follows.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.kind, ItemKind::Dir) || self.inline.is_some()
    }
}

/// Why an item was not stored. A closed set: the other end prints its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// The sender took it back.
    #[n(0)]
    Cancelled,
    /// It changed while it was read.
    #[n(1)]
    Changed,
    /// It could not be read to its end.
    #[n(2)]
    Unreadable,
    /// Larger than the receiver takes.
    #[n(3)]
    TooLarge,
    /// The receiver has no room left.
    #[n(4)]
    NoSpace,
    /// A name that cannot be made safe.
    #[n(5)]
    BadName,
    /// The receiver's file system failed.
    #[n(6)]
    StorageFailed,
    /// The channel is closing.
    #[n(7)]
    Closing,
    /// More or fewer bytes came than the head said.
    #[n(8)]
    WrongSize,
    /// The peer's version cannot take such an item.
    #[n(9)]
    Unsupported,
    /// A text that is not UTF-8 or too long for a text.
    #[n(10)]
    BadText,
    /// A question or an answer under a name that was used before.
    #[n(11)]
    NameUsed,
    /// An answer to what was not asked.
    #[n(12)]
    NotAsked,
}

impl Refusal {
    /// In words for events and `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Changed => "it changed while it was read",
            Self::Unreadable => "it could not be read",
            Self::TooLarge => "it is larger than the other end takes",
            Self::NoSpace => "the other end has no room left",
            Self::BadName => "its name cannot be used at the other end",
            Self::StorageFailed => "the other end could not write it",
            Self::Closing => "the channel was closing",
            Self::WrongSize => "its size was not what was announced",
            Self::Unsupported => "the other end's version cannot take it",
            Self::BadText => "it is not a text of at most 1 MiB in UTF-8",
            Self::NameUsed => "its name was used before; choose another",
            Self::NotAsked => "no question of that name was asked",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: ItemKind, inline: bool, group: bool) -> ItemHead {
        ItemHead {
            kind,
            group: group.then_some(ItemId(1)),
            name: "n".into(),
            size: None,
            executable: false,
            mtime: None,
            inline: inline.then(Bytes::new),
        }
    }

    #[test]
    fn lanes_are_as_the_protocol_says() {
        use ItemKind::{Answer, Ask, Dir, File, Group, Secret, Text};
        for (kind, inline, group, lane) in [
            (Text, false, false, Lane::Prompt),
            (Text, true, false, Lane::Prompt),
            (File, true, false, Lane::Prompt),
            (File, false, false, Lane::Bulk),
            (File, true, true, Lane::Bulk),
            (Dir, false, false, Lane::Prompt),
            (Dir, false, true, Lane::Bulk),
            (Group, false, false, Lane::Bulk),
            (Secret, true, false, Lane::Prompt),
            (Ask, false, false, Lane::Prompt),
            (Answer, true, false, Lane::Prompt),
        ] {
            assert_eq!(head(kind, inline, group).lane(), lane, "{kind:?} {inline} {group}");
        }
    }
}
