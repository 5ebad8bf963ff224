//! One thread that reads the files that this side sends.
//!
//! Owns open sources and trees. Reads a chunk when asked for one, never on its own: the session's room is what asks.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use agent_wormhole_mount::{LeftOut, Member, Source, SourceError, Tree};
use tokio::sync::mpsc::UnboundedSender;

use crate::frame::ChunkBuf;
use crate::item::ItemId;

/// What the reader is asked.
pub(super) enum Ask {
    /// A file is to be read, of this many bytes where that is known.
    Open(ItemId, Box<dyn Source>, Option<u64>),
    /// A directory is to be walked.
    OpenTree(ItemId, Box<dyn Tree>),
    /// The next chunk, into this buffer.
    Chunk(ItemId, ChunkBuf),
    /// The next member.
    Member(ItemId),
    /// No more of it.
    Close(ItemId),
}

/// What the reader answers.
pub(super) enum Read {
    /// A chunk; `last` after the source was checked.
    Chunk {
        /// The item.
        id: ItemId,
        /// The content.
        chunk: ChunkBuf,
        /// Nothing follows.
        last: bool,
    },
    /// The next member of a tree, or its end.
    Member {
        /// The group.
        id: ItemId,
        /// `None` is the end.
        member: Option<Member>,
        /// What was met on the way and is not sent.
        left_out: Vec<LeftOut>,
    },
    /// It cannot be read to its end.
    Failed {
        /// The item.
        id: ItemId,
        /// Why.
        error: SourceError,
    },
}

struct File {
    source: Box<dyn Source>,
    size: Option<u64>,
    read: u64,
}

/// The driver's side of the thread.
pub(super) struct Reader {
    asks: Sender<Ask>,
}

impl Reader {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn start(answers: UnboundedSender<Read>) -> std::io::Result<Self> {
        let (asks, queue) = channel();
        thread::Builder::new().name("outbox-reader".into()).spawn(move || run(&queue, &answers))?;
        Ok(Self { asks })
    }

    /// Asks for something. Each [`Ask::Chunk`] and [`Ask::Member`] of an open item is answered once.
    pub(super) fn ask(&self, ask: Ask) {
        // A reader that panicked answers nothing: the item stays undelivered, which is the truth.
        let _ = self.asks.send(ask);
    }
}

fn run(queue: &Receiver<Ask>, answers: &UnboundedSender<Read>) {
    let mut files: HashMap<ItemId, File> = HashMap::new();
    let mut trees: HashMap<ItemId, Box<dyn Tree>> = HashMap::new();
    while let Ok(ask) = queue.recv() {
        let answer = match ask {
            Ask::Open(id, source, size) => {
                files.insert(id, File { source, size, read: 0 });
                continue;
            }
            Ask::OpenTree(id, tree) => {
                trees.insert(id, tree);
                continue;
            }
            Ask::Close(id) => {
                files.remove(&id);
                trees.remove(&id);
                continue;
            }
            Ask::Chunk(id, buffer) => {
                let Some(file) = files.get_mut(&id) else { continue };
                match read(file, buffer) {
                    Ok((chunk, last)) => Read::Chunk { id, chunk, last },
                    Err(error) => Read::Failed { id, error },
                }
            }
            Ask::Member(id) => {
                let Some(tree) = trees.get_mut(&id) else { continue };
                match tree.next() {
                    Ok(member) => Read::Member { id, member, left_out: tree.left_out() },
                    Err(error) => Read::Failed { id, error },
                }
            }
        };
        match &answer {
            Read::Chunk { id, last: true, .. } | Read::Failed { id, .. } => {
                files.remove(id);
                trees.remove(id);
            }
            Read::Member { id, member: None, .. } => {
                trees.remove(id);
            }
            Read::Chunk { .. } | Read::Member { .. } => {}
        }
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// Fills the buffer; whether the file ends with it.
fn read(file: &mut File, mut buffer: ChunkBuf) -> Result<(ChunkBuf, bool), SourceError> {
    let room = buffer.len();
    let mut filled = 0;
    let mut last = false;
    while filled < room && !last {
        let rest = buffer.content_mut().get_mut(filled..).unwrap_or_default();
        let n = file.source.read(rest)?;
        last = n == 0;
        filled += n;
    }
    buffer.truncate(filled);
    file.read += filled as u64;
    if !last && file.size == Some(file.read) {
        // All that was announced is here: the end is checked now, so that no empty chunk has to follow.
        if file.source.read(&mut [0])? != 0 {
            return Err(SourceError::Changed);
        }
        last = true;
    }
    if last && file.size.is_some_and(|size| size != file.read) {
        return Err(SourceError::Changed);
    }
    Ok((buffer, last))
}
