//! A session with a peer of 0.1: JSON envelopes, one frame each, no receipts, no resume.
//!
//! Owns the translation between items and envelopes (`src/PROTOCOL.md`, "With a 0.1 peer"). One item at a time is held
//! whole, because 0.1 sends and takes files whole.

use std::collections::{HashMap, VecDeque};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::json;

use super::handshake::Proven;
use super::window::CHUNK;
use super::{Incoming, LinkLimits, SessionError, SessionEvent};
use crate::crypto::seal::{LegacyOpener, LegacySealer, TAG_LEN};
use crate::frame::ChunkBuf;
use crate::item::{ItemHead, ItemId, ItemKind, Lane, Refusal};

/// Longest sealed envelope in bytes: what 0.1 takes.
const MAX_SEALED: usize = 10 * 1024 * 1024;
/// Longest sealed envelope in bytes through a relay: what the websocket client of 0.1 takes.
const MAX_RELAYED: usize = 1024 * 1024;
/// Longest file in bytes whose envelope may fit: base64 makes 4 bytes of 3.
const MAX_CONTENT: u64 = (MAX_SEALED / 4 * 3) as u64;
/// Longest name in bytes that 0.1 is given.
const MAX_NAME: usize = 200;
/// Names remembered to keep them unique; beyond that each gets its item's number.
const NAMES: usize = 4096;

struct Item {
    id: ItemId,
    head: ItemHead,
    content: Vec<u8>,
    whole: bool,
    begun: bool,
}

/// A session with a 0.1 peer.
pub(super) struct Legacy {
    sealer: LegacySealer,
    opener: LegacyOpener,
    handshake: VecDeque<Bytes>,
    queue: VecDeque<Item>,
    /// Handed to the socket and not drained yet.
    leaving: Option<ItemId>,
    last_out: u64,
    last_in: u64,
    /// Longest sealed envelope in bytes on this link.
    max_sealed: usize,
    /// Names that were sent, and the last number that made one of them unlike the others.
    names: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: Option<Lossy>,
    #[serde(default)]
    body: Option<Lossy>,
}

/// A JSON string in which lone surrogates, which Python writes, are U+FFFD.
struct Lossy(String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Lossy;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Lossy, E> {
                Ok(Lossy(text.to_owned()))
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(from_wtf8(bytes)))
            }
        }
        // As bytes, serde_json takes lone surrogates in their three-byte form.
        deserializer.deserialize_bytes(Visitor)
    }
}

fn from_wtf8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // A surrogate is three bytes, of which the first is reported with the second, the third alone.
        if chunk.invalid().first().is_some_and(|byte| *byte >= 0xc0) {
            text.push('\u{fffd}');
        }
    }
    text
}

impl Legacy {
    pub(super) fn new(proven: Proven) -> Self {
        let (sealer, opener) = proven.legacy;
        Self {
            sealer,
            opener,
            handshake: proven.unsent,
            queue: VecDeque::new(),
            leaving: None,
            last_out: 0,
            last_in: 0,
            max_sealed: match proven.limits {
                LinkLimits { relayed: false, .. } => MAX_SEALED,
                LinkLimits { relayed: true, max_frame, .. } => MAX_RELAYED.min(max_frame),
            },
            names: HashMap::new(),
        }
    }

    pub(super) fn offer(&mut self, head: ItemHead, events: &mut VecDeque<SessionEvent>) -> ItemId {
        self.last_out += 1;
        let id = ItemId(self.last_out);
        let refusal = match head.kind {
            ItemKind::Dir | ItemKind::Group | ItemKind::Secret | ItemKind::Ask | ItemKind::Answer => {
                Some(Refusal::Unsupported)
            }
            _ if head.group.is_some() => Some(Refusal::Unsupported),
            _ => head.size.filter(|size| *size > MAX_CONTENT).map(|_| Refusal::TooLarge),
        };
        if let Some(refusal) = refusal {
            events.push_back(SessionEvent::Receipt { id, refused: Some(refusal) });
            return id;
        }
        let content = head.inline.as_ref().map(|bytes| bytes.to_vec());
        let whole = content.is_some();
        self.queue.push_back(Item { id, head, content: content.unwrap_or_default(), whole, begun: false });
        self.begin(events);
        id
    }

    /// The first item in the queue is the only one whose content is read.
    fn begin(&mut self, events: &mut VecDeque<SessionEvent>) {
        if let Some(item) = self.queue.front_mut()
            && !item.whole
            && !std::mem::replace(&mut item.begun, true)
        {
            events.push_back(SessionEvent::Opened(item.id));
        }
    }

    pub(super) fn push(
        &mut self,
        id: ItemId,
        chunk: &ChunkBuf,
        last: bool,
        events: &mut VecDeque<SessionEvent>,
    ) {
        let Some(item) = self.queue.front_mut().filter(|item| item.id == id && !item.whole) else { return };
        if (item.content.len() + chunk.len()) as u64 > MAX_CONTENT {
            self.cancel(id, Refusal::TooLarge, events);
            return;
        }
        item.content.extend_from_slice(chunk.content());
        item.whole = last;
    }

    pub(super) fn cancel(&mut self, id: ItemId, reason: Refusal, events: &mut VecDeque<SessionEvent>) {
        let before = self.queue.len();
        self.queue.retain(|item| item.id != id);
        if self.queue.len() < before {
            events.push_back(SessionEvent::Receipt { id, refused: Some(reason) });
            self.begin(events);
        }
    }

    pub(super) fn handle_drained(&mut self, events: &mut VecDeque<SessionEvent>) {
        events.extend(self.leaving.take().map(SessionEvent::Sent));
    }

    pub(super) fn room(&self) -> usize {
        self.queue.front().map_or(0, |item| if item.whole { 0 } else { 4 * CHUNK })
    }

    pub(super) fn backlog(&self) -> usize {
        self.queue.len() + usize::from(self.leaving.is_some())
    }

    pub(super) fn poll_transmit(&mut self, events: &mut VecDeque<SessionEvent>) -> Option<Bytes> {
        if let Some(frame) = self.handshake.pop_front() {
            return Some(frame);
        }
        while self.leaving.is_none()
            && let Some(next) = self.next_whole()
        {
            let item = self.queue.remove(next)?;
            let id = item.id;
            let sealed = self.envelope(item);
            self.begin(events);
            match sealed {
                Ok(frame) => {
                    self.leaving = Some(id);
                    return Some(frame);
                }
                Err(reason) => events.push_back(SessionEvent::Receipt { id, refused: Some(reason) }),
            }
        }
        None
    }

    /// The next item that may leave: the first, or while that is a file which is still being read, perhaps as slowly as
    /// somebody writes it, what is short and has it all.
    fn next_whole(&self) -> Option<usize> {
        let first = self.queue.front()?;
        let next = if first.whole || first.head.lane() == Lane::Prompt {
            0
        } else {
            self.queue.iter().position(|item| item.head.lane() == Lane::Prompt)?
        };
        self.queue.get(next).filter(|item| item.whole).map(|_| next)
    }

    fn envelope(&mut self, item: Item) -> Result<Bytes, Refusal> {
        let json = if item.head.kind == ItemKind::Text {
            let body = String::from_utf8(item.content).map_err(|_| Refusal::BadText)?;
            json!({"type": "text", "body": body})
        } else {
            let name = self.unique(&safe_name(&item.head.name), item.id);
            let body = BASE64.encode(&item.content);
            json!({"type": "file", "name": name, "size": item.content.len(), "body": body})
        };
        let json = json.to_string().into_bytes();
        if json.len() > self.max_sealed.saturating_sub(TAG_LEN) {
            return Err(Refusal::TooLarge);
        }
        Ok(self.sealer.seal(json).into())
    }

    /// 0.1 writes over what has the same name.
    fn unique(&mut self, name: &str, id: ItemId) -> String {
        if self.names.len() >= NAMES {
            return numbered(name, id.0);
        }
        let count = self.names.get(name).copied().unwrap_or(0);
        let numbers = (count + 1).max(2)..;
        let (number, unused) = if self.names.contains_key(name) {
            let free = numbers.map(|number| (number, numbered(name, number)));
            free.into_iter().find(|(_, name)| !self.names.contains_key(name)).unwrap_or_default()
        } else {
            (1, name.to_owned())
        };
        self.names.insert(name.to_owned(), number);
        self.names.entry(unused.clone()).or_insert(1);
        unused
    }

    pub(super) fn handle_frame(
        &mut self,
        mut frame: BytesMut,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), SessionError> {
        let len = self.opener.open(&mut frame).map_err(|_| SessionError::Tampered)?;
        frame.truncate(len);
        self.last_in += 1;
        let id = ItemId(self.last_in);
        match read_envelope(&frame) {
            Ok((head, content)) => {
                let chunk = head.inline.is_none().then_some(content);
                let incoming = Incoming { id, head, pending: Vec::new(), pending_more: 0 };
                events.push_back(SessionEvent::Head(incoming));
                events.extend(chunk.map(|bytes| SessionEvent::Chunk { id, bytes, last: true }));
            }
            Err(why) => events.push_back(SessionEvent::Unreadable(why)),
        }
        Ok(())
    }
}

fn read_envelope(json: &[u8]) -> Result<(ItemHead, Bytes), &'static str> {
    let envelope: Envelope = serde_json::from_slice(json).map_err(|_| "a message was not a JSON envelope")?;
    let body = envelope.body.ok_or("a message had no body")?.0;
    let head = |kind, name: String, size, inline| ItemHead {
        kind,
        group: None,
        name,
        size: Some(size),
        executable: false,
        mtime: None,
        inline,
    };
    match envelope.kind.as_str() {
        "text" => {
            let bytes = Bytes::from(body);
            Ok((head(ItemKind::Text, String::new(), bytes.len() as u64, Some(bytes)), Bytes::new()))
        }
        "file" => {
            let name = envelope.name.ok_or("a file had no name")?.0;
            let content = BASE64.decode(body.as_bytes()).map_err(|_| "a file's body was not base64")?;
            Ok((head(ItemKind::File, name, content.len() as u64, None), content.into()))
        }
        _ => Err("a message was neither a text nor a file"),
    }
}

/// The last component, without what makes 0.1 fail.
fn safe_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    let safe = last.replace('\0', "_").replace("..", "__");
    let safe = cut(&safe, MAX_NAME);
    if safe.is_empty() || safe == "." { "file".to_owned() } else { safe.to_owned() }
}

/// The first `most` bytes, or a few less: whole characters.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// A number before the last dot, within the longest name.
fn numbered(name: &str, number: u64) -> String {
    let (stem, extension) = name.rfind('.').filter(|at| *at > 0).map_or((name, ""), |at| name.split_at(at));
    let number = format!("-{number}");
    // An extension that leaves no room for anything is none.
    let extension = cut(extension, MAX_NAME / 2);
    let stem = cut(stem, MAX_NAME - number.len() - extension.len());
    format!("{stem}{number}{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        let (head, _) = read_envelope(br#"{"type":"text","body":"a\ud800b\u00e9"}"#).unwrap();
        assert_eq!(head.inline.as_deref(), Some("a\u{fffd}b\u{e9}".as_bytes()));
    }

    #[test]
    fn names_are_what_python_can_save() {
        for (name, safe) in [
            ("a/b/report.pdf", "report.pdf"),
            ("..", "__"),
            ("a..b", "a__b"),
            ("...", "__."),
            ("x/", "file"),
            (".", "file"),
            ("nul\0l", "nul_l"),
        ] {
            assert_eq!(safe_name(name), safe);
        }
        assert!(safe_name(&"é".repeat(300)).len() <= MAX_NAME);
        assert_eq!(numbered("report.pdf", 2), "report-2.pdf");
        assert_eq!(numbered(".profile", 2), ".profile-2");
        for long in ["é".repeat(100), format!("a.{}", "b".repeat(198)), format!("{}.c", "b".repeat(198))] {
            assert!(numbered(&long, 12).len() <= MAX_NAME, "{long}");
        }
    }

    #[test]
    fn malformed_envelopes_are_named_not_fatal() {
        for json in [
            &b"not json"[..],
            b"{}",
            br#"{"type":"file","name":"x"}"#,
            br#"{"type":"file","body":"AAAA"}"#,
            br#"{"type":"file","name":"x","body":"***"}"#,
            br#"{"type":"file","name":"x","body":"QQ"}"#,
            br#"{"type":"file","name":"x","body":"QR=="}"#,
            br#"{"type":"text","body":"a","body":"a"}"#,
            br#"{"type":"dance","body":""}"#,
            br#"{"type":7,"body":""}"#,
            b"[1,2",
        ] {
            assert!(read_envelope(json).is_err());
        }
    }
}
