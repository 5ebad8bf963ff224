//! The channel's own files: what is in its directory from the start, the words for `ctl`, those who wait at `receipt`,
//! the requests of `flush`, the log.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Instant;

use super::{Attr, Caller, Change, FileError, Files, SetAttr, attr};
use crate::Ctl;
use crate::blob::Content;
use crate::handle::Fh;
use crate::tree::{Body, Ino, Ours, ROOT, Time, Zone};

/// What an agent reads that lands in the directory without context.
const README: &str = include_str!("../channel-readme.md");
/// Keeps a channel inside a work tree out of the repository and out of searches.
const GITIGNORE: &str = "*\n";
/// Where arrivals are before the bell gives them their name.
pub(super) const INCOMING: &str = ".incoming";
/// Where the bell takes directories that leave.
pub(super) const LEAVING: &str = ".leaving";
/// Where `flush` makes its requests.
pub const FLUSH_DIR: &str = ".flush";
/// The log, relative to the channel's directory.
pub const LOG_PATH: &str = "inbox/log.jsonl";
/// The state of the channel, relative to its directory.
pub const STATUS: &str = "status.json";
/// The log in its directory.
const LOG: &str = "log.jsonl";
/// What the log was before it was rotated.
const OLD_LOG: &str = "log.1.jsonl";
/// Most bytes of all of them, in bytes: the transcript ends at 64 MiB, the log is rotated at 16 MiB, and answers are 4 MiB.
pub(super) const MOST_OWN: u64 = 256 << 20;
/// Longest request name, and longest word for `ctl`, in bytes.
const MAX_WORD: usize = 64;

impl Files {
    pub(super) fn make_ours(&mut self) -> Result<(), FileError> {
        let mut make = |dir, name: &str, ours, mode, bytes: &str| -> Result<Ino, FileError> {
            let mut file = self.empty_file(&self.own_quota, Some(ours));
            Arc::make_mut(&mut file.content).write_at(0, bytes.as_bytes())?;
            let zone = if dir == ROOT { Zone::Root } else { Zone::Inbox };
            let ino = self.tree.make(zone, Body::File(file), mode);
            self.tree.attach(dir, name.as_ref(), ino);
            Ok(ino)
        };
        make(ROOT, "README.md", Ours::Fixed, 0o600, README)?;
        make(ROOT, ".gitignore", Ours::Fixed, 0o600, GITIGNORE)?;
        let status = make(ROOT, STATUS, Ours::Status, 0o600, "{}\n")?;
        let transcript = make(ROOT, "transcript.jsonl", Ours::Transcript, 0o600, "")?;
        make(ROOT, "ctl", Ours::Ctl, 0o600, "")?;
        let receipt = make(ROOT, "receipt", Ours::Receipt, 0o600, "")?;
        let places = &mut self.places;
        (places.status, places.transcript, places.receipt) = (status, transcript, receipt);
        self.renew_log();
        Ok(())
    }

    /// Makes the log anew where its owner removed it.
    pub fn renew_log(&mut self) {
        if self.tree.node(self.places.log).is_some_and(|log| log.place.is_some()) {
            return;
        }
        let (inbox, file) = (self.places.inbox, self.empty_file(&self.own_quota, Some(Ours::Log)));
        // Something else may have its name: what was sent under it has a number, so it is nobody's.
        if let Some(other) = self.tree.detach(inbox, LOG.as_ref()) {
            self.tree.sweep(other);
        }
        self.places.log = self.tree.make(Zone::Inbox, Body::File(file), 0o600);
        self.tree.attach(inbox, LOG.as_ref(), self.places.log);
    }

    /// A receipt of its own for each who looks it up: any number may wait, and none holds another's lock.
    pub(super) fn new_receipt(&mut self) -> Ino {
        let file = self.empty_file(&self.own_quota, Some(Ours::Receipt));
        self.tree.make(Zone::Root, Body::File(file), 0o600)
    }

    /// Whether a handle is one of `receipt`.
    #[must_use]
    pub fn is_receipt(&self, fh: Fh) -> bool {
        let ino = self.handles.find(fh).map(|handle| handle.ino);
        let file = ino.and_then(|ino| self.tree.node(ino)).and_then(|node| node.file());
        file.is_some_and(|file| file.ours == Some(Ours::Receipt))
    }

    /// Somebody waits at `receipt` for what is complete now.
    pub fn wait_at_receipt(&mut self, number: u64, now: Instant) {
        self.line.push(Change::Receipt(number), now);
    }

    /// `flush` makes a request.
    pub(super) fn new_request(&mut self, name: &OsStr) -> Result<Ino, FileError> {
        let token = name.to_str().filter(|token| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !token.is_empty() && token.len() <= MAX_WORD && token.bytes().all(plain)
        });
        let token = token.ok_or(FileError::Policy)?.to_owned();
        if self.closed {
            return Err(FileError::Closed);
        }
        if self.tree.child(self.places.flush, name).is_some() {
            return Err(FileError::Taken);
        }
        let file = self.empty_file(&self.own_quota, Some(Ours::Request));
        let ino = self.make(Zone::Flush, Body::File(file), 0o600)?;
        self.tree.attach(self.places.flush, name, ino);
        self.line.push(Change::Flush(token), Instant::now());
        Ok(ino)
    }

    pub(super) fn write_ours(
        &mut self,
        ino: Ino,
        ours: Ours,
        data: &[u8],
        caller: Caller,
        now: Instant,
    ) -> Result<(), FileError> {
        match (ours, caller) {
            (Ours::Ctl, _) => {
                let word = word(data).ok_or(FileError::Invalid)?;
                self.line.push(Change::Ctl(word), now);
                Ok(())
            }
            // Its owner removed it: the bell is to look again.
            (Ours::Log, Caller::Bell) if self.node(ino)?.place.is_none() => Err(FileError::Stale),
            (Ours::Log | Ours::Request, Caller::Bell) => self.append(ino, data),
            _ => Err(FileError::Policy),
        }
    }

    pub(super) fn set_ours(
        &mut self,
        ino: Ino,
        ours: Ours,
        set: SetAttr,
        caller: Caller,
    ) -> Result<Attr, FileError> {
        match (ours, caller, set.size) {
            (Ours::Log, Caller::Bell, Some(size)) => {
                Arc::make_mut(&mut self.file_mut(ino)?.content).set_len(size)?;
            }
            // It rings: who watches the file is told that it has another content.
            (Ours::Status, Caller::Bell, Some(_)) => {}
            // `echo close > ctl` truncates first; there is nothing to truncate. So does `touch`.
            (Ours::Ctl | Ours::Receipt, ..) => {}
            _ => return Err(FileError::Policy),
        }
        Ok(attr(self.node(ino)?))
    }

    /// Appends to a file of ours.
    fn append(&mut self, ino: Ino, data: &[u8]) -> Result<(), FileError> {
        let file = self.file_mut(ino)?;
        let content = Arc::make_mut(&mut file.content);
        content.write_at(content.len(), data)?;
        let node = self.node_mut(ino)?;
        node.mtime = Time::now();
        node.ctime = node.mtime;
        Ok(())
    }

    /// Appends to the log where the bell cannot.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn append_log(&mut self, line: &[u8]) -> Result<(), FileError> {
        self.renew_log();
        self.append(self.places.log, line)
    }

    /// Empties the log where the bell cannot.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn truncate_log(&mut self) -> Result<(), FileError> {
        self.renew_log();
        Ok(Arc::make_mut(&mut self.file_mut(self.places.log)?.content).set_len(0)?)
    }

    /// How many bytes the log has.
    #[must_use]
    pub fn log_len(&self) -> u64 {
        self.tree.node(self.places.log).map_or(0, |log| log.size())
    }

    /// How many handles of the log, of the old one and of answers somebody has open.
    #[must_use]
    pub fn readers(&self) -> usize {
        let old = self.tree.child(self.places.inbox, OLD_LOG.as_ref());
        let flushes = self.tree.node(self.places.flush).and_then(|node| node.children());
        let requests = flushes.into_iter().flat_map(|children| children.after(0)).map(|(_, _, ino)| ino);
        let all = [Some(self.places.log), old].into_iter().flatten().chain(requests);
        all.map(|ino| self.handles.of_others(ino)).sum()
    }

    /// Keeps what the log holds now as the old one.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn keep_old_log(&mut self) -> Result<(), FileError> {
        let content = self.node(self.places.log)?.file().map(|log| Arc::clone(&log.content));
        let content: Arc<Content> = content.ok_or(FileError::Io)?;
        let inbox = self.places.inbox;
        if let Some(old) = self.tree.detach(inbox, OLD_LOG.as_ref()) {
            self.tree.sweep(old);
        }
        let mut file = self.empty_file(&self.own_quota, Some(Ours::Log));
        file.content = content;
        let old = self.tree.make(Zone::Inbox, Body::File(file), 0o600);
        self.tree.attach(inbox, OLD_LOG.as_ref(), old);
        Ok(())
    }

    /// Appends to the transcript.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn append_transcript(&mut self, line: &[u8]) -> Result<(), FileError> {
        self.append(self.places.transcript, line)
    }

    /// Replaces `status.json`: who has it open reads on in what it was.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_status(&mut self, json: &[u8]) -> Result<(), FileError> {
        let mut content = Content::new(&self.store, &self.own_quota);
        content.write_at(0, json)?;
        let status = self.places.status;
        self.file_mut(status)?.content = Arc::new(content);
        let node = self.node_mut(status)?;
        node.mtime = Time::now();
        node.ctime = node.mtime;
        Ok(())
    }

    /// Writes an answer into a request where the bell cannot. One that was taken back needs none.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn answer(&mut self, token: &str, line: &[u8]) -> Result<(), FileError> {
        match self.tree.child(self.places.flush, token.as_ref()) {
            Some(ino) => self.append(ino, line),
            None => Ok(()),
        }
    }

    /// Requests that were not answered.
    #[must_use]
    pub fn unanswered(&self) -> Vec<String> {
        let flushes = self.tree.node(self.places.flush).and_then(|node| node.children());
        let requests = flushes.into_iter().flat_map(|children| children.after(0));
        let waits = requests.filter(|(_, _, ino)| self.tree.node(*ino).is_some_and(|node| node.size() == 0));
        waits.map(|(_, name, _)| name.to_string_lossy().into_owned()).collect()
    }
}

/// A word for `ctl`.
fn word(data: &[u8]) -> Option<Ctl> {
    if data.len() > MAX_WORD {
        return None;
    }
    let text = std::str::from_utf8(data).ok()?;
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["close"] => Some(Ctl::Close),
        ["close", "now"] => Some(Ctl::CloseNow),
        _ => None,
    }
}
