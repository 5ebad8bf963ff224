//! The threads that read what this side sends: one for all files, and one for each stream that another process writes.
//!
//! Own open sources and trees. Read a chunk when asked for one, never on their own: the session's room is what asks. A
//! stream whose writer is slow holds up itself and nothing else. Its chunks are filled before they go, as those of a file
//! are: nothing of an item is visible before its end, so a half-filled chunk would reach nobody sooner.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use agent_wormhole_mount::{Hangup, LeftOut, Member, Source, SourceError, Tree};
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

/// The driver's side of the threads.
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

/// A stream on a thread of its own. Dropped, it ends, also where its writer is silent. The mailbox bounds how many there
/// are.
struct Stream {
    asks: Sender<ChunkBuf>,
    /// Taken by the drop.
    hangup: Option<Hangup>,
}

impl Stream {
    /// Starts the thread; without one it cannot be read.
    fn start(id: ItemId, mut file: File, hangup: Hangup, answers: UnboundedSender<Read>) -> Option<Self> {
        let (asks, queue) = channel();
        let thread = thread::Builder::new().name("outbox-stream".into());
        let work = move || {
            for buffer in &queue {
                let read = read(&mut file, buffer);
                let ended = !matches!(read, Ok((_, false)));
                if answers.send(answer(id, read)).is_err() || ended {
                    return;
                }
            }
        };
        thread.spawn(work).ok().map(|_| Self { asks, hangup: Some(hangup) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(hangup) = self.hangup.take() {
            hangup();
        }
    }
}

fn answer(id: ItemId, read: Result<(ChunkBuf, bool), SourceError>) -> Read {
    match read {
        Ok((chunk, last)) => Read::Chunk { id, chunk, last },
        Err(error) => Read::Failed { id, error },
    }
}

fn run(queue: &Receiver<Ask>, answers: &UnboundedSender<Read>) {
    let mut files: HashMap<ItemId, File> = HashMap::new();
    let mut trees: HashMap<ItemId, Box<dyn Tree>> = HashMap::new();
    let mut streams: HashMap<ItemId, Stream> = HashMap::new();
    while let Ok(ask) = queue.recv() {
        let answer = match ask {
            Ask::Open(id, source, size) => {
                let hangup = source.hangup();
                let file = File { source, size, read: 0 };
                let Some(hangup) = hangup else {
                    files.insert(id, file);
                    continue;
                };
                match Stream::start(id, file, hangup, answers.clone()) {
                    Some(stream) => {
                        streams.insert(id, stream);
                        continue;
                    }
                    None => Read::Failed { id, error: std::io::Error::other("no thread can be had").into() },
                }
            }
            Ask::OpenTree(id, tree) => {
                trees.insert(id, tree);
                continue;
            }
            Ask::Close(id) => {
                files.remove(&id);
                trees.remove(&id);
                streams.remove(&id);
                continue;
            }
            Ask::Chunk(id, buffer) => {
                if let Some(stream) = streams.get(&id) {
                    // One that has ended has answered.
                    let _ = stream.asks.send(buffer);
                    continue;
                }
                let Some(file) = files.get_mut(&id) else { continue };
                answer(id, read(file, buffer))
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A stream whose writer is the test.
    struct Slow {
        written: Arc<Mutex<Receiver<Vec<u8>>>>,
        hangup: Arc<Mutex<Option<Sender<Vec<u8>>>>>,
    }

    impl Source for Slow {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
            let bytes = self.written.lock().unwrap().recv().map_err(|_| SourceError::BrokenOff)?;
            buf[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }

        fn hangup(&self) -> Option<Hangup> {
            let hangup = Arc::clone(&self.hangup);
            Some(Box::new(move || drop(hangup.lock().unwrap().take())))
        }
    }

    /// A file of one letter.
    struct Quick(bool);

    impl Source for Quick {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
            if std::mem::replace(&mut self.0, true) || buf.is_empty() {
                return Ok(0);
            }
            buf[0] = b'q';
            Ok(1)
        }
    }

    fn slow() -> (Box<Slow>, impl Fn(&[u8])) {
        let (write, written) = channel();
        let hangup = Arc::new(Mutex::new(Some(write)));
        let write = Arc::clone(&hangup);
        let source = Slow { written: Arc::new(Mutex::new(written)), hangup };
        (Box::new(source), move |bytes: &[u8]| {
            write.lock().unwrap().as_ref().unwrap().send(bytes.to_vec()).unwrap();
        })
    }

    fn next(answers: &mut UnboundedReceiver<Read>) -> Read {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = async { tokio::time::timeout(Duration::from_secs(20), answers.recv()).await };
        runtime.block_on(answer).expect("an answer in time").unwrap()
    }

    #[test]
    fn a_stream_whose_writer_is_silent_holds_no_file_up_and_can_be_closed() {
        let (tell, mut answers) = unbounded_channel();
        let reader = Reader::start(tell).unwrap();
        let (silent, _write) = slow();
        let (stream, write) = slow();
        reader.ask(Ask::Open(ItemId(1), silent, None));
        reader.ask(Ask::Chunk(ItemId(1), ChunkBuf::zeroed(8)));
        reader.ask(Ask::Open(ItemId(2), Box::new(Quick(false)), Some(1)));
        reader.ask(Ask::Chunk(ItemId(2), ChunkBuf::zeroed(8)));
        assert!(matches!(next(&mut answers), Read::Chunk { id: ItemId(2), last: true, .. }));
        reader.ask(Ask::Open(ItemId(3), stream, None));
        reader.ask(Ask::Chunk(ItemId(3), ChunkBuf::zeroed(8)));
        write(b"abcd");
        write(b"");
        let Read::Chunk { id: ItemId(3), chunk, last: true } = next(&mut answers) else { panic!() };
        assert_eq!(chunk.content(), b"abcd");
        reader.ask(Ask::Close(ItemId(1)));
        assert!(matches!(next(&mut answers), Read::Failed { id: ItemId(1), error: SourceError::BrokenOff }));
    }

    #[test]
    fn the_end_of_the_reader_ends_its_streams() {
        let (tell, mut answers) = unbounded_channel();
        let reader = Reader::start(tell).unwrap();
        let (silent, _write) = slow();
        reader.ask(Ask::Open(ItemId(1), silent, None));
        reader.ask(Ask::Chunk(ItemId(1), ChunkBuf::zeroed(8)));
        drop(reader);
        assert!(matches!(next(&mut answers), Read::Failed { id: ItemId(1), .. }));
    }
}
