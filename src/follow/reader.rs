//! The way through the files of a channel: what was missed first, then the log, and on into the next one.
//!
//! Owns which file is read next and how a log that was emptied meanwhile is recognised. Reads through [`Place`], so that
//! every order of its steps and the writer's can be tried without a file.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;

use super::{Follower, Found, Line, MAX_LINE, Plan, line, missing};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// So many bytes of its first line tell a log from the next one: that begins with `rotated` and a number of its own.
const HEAD: usize = 512;

/// A file of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// `log.jsonl`.
    Log,
    /// `log.1.jsonl`.
    Old,
    /// `transcript.jsonl`.
    Transcript,
}

/// Where the files are.
pub(super) trait Place {
    /// An open file.
    type File;

    /// `None` where it is not there.
    fn open(&mut self, which: Which) -> io::Result<Option<Self::File>>;

    /// Reads what is there, at most the whole buffer; 0 at the end.
    fn read(&mut self, file: &Self::File, at: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Whether another file has the place of this log.
    fn is_replaced(&mut self, log: &Self::File) -> bool;
}

/// What reading has yielded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// An event.
    Event(Box<Line>),
    /// A line that is no event.
    Foreign,
    /// Events with these numbers are in no file any more, if there were any.
    Missing(RangeInclusive<u64>),
}

struct Log<F> {
    file: F,
    head: Vec<u8>,
    at: u64,
}

/// A file that is read before the log.
enum Behind<F> {
    /// Up to the number.
    Transcript { file: Option<F>, at: u64, below: u64 },
    /// To its end.
    Old { file: F, at: u64 },
    /// All with lower numbers was read.
    Begin(u64),
}

/// See the module.
pub(super) struct Reader<P: Place> {
    pub(super) place: P,
    follower: Follower,
    behind: VecDeque<Behind<P::File>>,
    log: Option<Log<P::File>>,
    /// Head of the log that was read before, and how far.
    before: Option<(Vec<u8>, u64)>,
    buffer: Vec<u8>,
}

impl<P: Place> Reader<P> {
    pub(super) fn new(place: P, since: u64) -> Self {
        let follower = Follower::new(since);
        Self { place, follower, behind: VecDeque::new(), log: None, before: None, buffer: vec![0; CHUNK] }
    }

    /// Reads a piece; `false` where there is nothing new.
    pub(super) fn step(&mut self, out: &mut VecDeque<Step>) -> io::Result<bool> {
        match self.behind.pop_front() {
            Some(behind) => {
                if let Some(rest) = self.catch_up(behind, out)? {
                    self.behind.push_front(rest);
                }
                Ok(true)
            }
            None => match self.log.take() {
                Some(log) => self.follow(log, out),
                None => self.arrive(),
            },
        }
    }

    /// Reads a piece of what was missed, and returns what is left of it.
    fn catch_up(
        &mut self,
        behind: Behind<P::File>,
        out: &mut VecDeque<Step>,
    ) -> io::Result<Option<Behind<P::File>>> {
        match behind {
            Behind::Transcript { file, at, below } => {
                let count = match &file {
                    Some(file) if self.follower.reached() < below => {
                        self.place.read(file, at, &mut self.buffer)?
                    }
                    _ => 0,
                };
                if count > 0 {
                    self.take(count, below, out);
                    return Ok(Some(Behind::Transcript { file, at: at + count as u64, below }));
                }
                let end = self.follower.reached();
                out.extend(missing(self.follower.last(), end, below).map(Step::Missing));
                self.follower.pass(below.saturating_sub(1));
            }
            Behind::Old { file, at } => {
                let count = self.place.read(&file, at, &mut self.buffer)?;
                if count > 0 {
                    self.take(count, u64::MAX, out);
                    return Ok(Some(Behind::Old { file, at: at + count as u64 }));
                }
            }
            Behind::Begin(first) => self.follower.pass(first.saturating_sub(1)),
        }
        self.follower.restart();
        Ok(None)
    }

    /// Reads a piece of the log.
    fn follow(&mut self, mut log: Log<P::File>, out: &mut VecDeque<Step>) -> io::Result<bool> {
        let count = self.place.read(&log.file, log.at, &mut self.buffer)?;
        // Afterwards: a log that has its head still was not emptied before.
        if !has_head(&mut self.place, &log.file, &log.head)?
            || count == 0 && self.place.is_replaced(&log.file)
        {
            let read = log.at.saturating_sub(self.follower.held() as u64);
            self.before = Some((log.head, read));
            self.follower.restart();
            return Ok(true);
        }
        self.take(count, u64::MAX, out);
        log.at += count as u64;
        self.log = Some(log);
        Ok(count > 0)
    }

    /// Begins with the log that is there now; `false` where there is none, or nothing in it yet.
    fn arrive(&mut self) -> io::Result<bool> {
        let Some(file) = self.place.open(Which::Log)? else { return Ok(false) };
        let Some(first) = first_line(&mut self.place, &file)? else { return Ok(false) };
        let old = self.place.open(Which::Old)?;
        let old_line = match &old {
            Some(old) => first_line(&mut self.place, old)?,
            None => None,
        };
        let head = head_of(&first);
        // The older log is the one before this one only if this one is still the same.
        if !has_head(&mut self.place, &file, &head)? {
            return Ok(true);
        }
        let before = self.before.take();
        // Somebody has written into it who is not its owner: what is in it is read as it stands.
        let number = line::number(&first).unwrap_or_else(|| self.follower.last().saturating_add(1));
        let is_before = |(before, _): &(Vec<u8>, u64)| {
            before != &head && old_line.as_ref().is_some_and(|line| head_of(line) == *before)
        };
        match (before.filter(is_before), old) {
            (Some((_, at)), Some(file)) => self.behind.push_back(Behind::Old { file, at }),
            (_, old) => {
                // A log that begins otherwise was begun because somebody took the one before away.
                let follows = Line::parse(&first).is_some_and(|line| line.event == "rotated");
                let old_number = old_line.filter(|_| follows).and_then(|line| line::number(&line));
                let plan = Plan::new(self.follower.last(), number, old_number);
                if let Some(below) = plan.transcript {
                    let file = self.place.open(Which::Transcript)?;
                    self.behind.push_back(Behind::Transcript { file, at: 0, below });
                }
                if let Some(file) = old.filter(|_| plan.old) {
                    self.behind.push_back(Behind::Old { file, at: 0 });
                }
            }
        }
        self.behind.push_back(Behind::Begin(number));
        self.log = Some(Log { file, head, at: 0 });
        Ok(true)
    }

    fn take(&mut self, count: usize, below: u64, out: &mut VecDeque<Step>) {
        let bytes = self.buffer.get(..count).unwrap_or_default();
        self.follower.feed(bytes, below, |found| {
            out.push_back(match found {
                Found::Event(line) => Step::Event(line),
                Found::Foreign => Step::Foreign,
            });
        });
    }
}

fn head_of(line: &[u8]) -> Vec<u8> {
    line.get(..HEAD).unwrap_or(line).to_vec()
}

fn has_head<P: Place>(place: &mut P, file: &P::File, head: &[u8]) -> io::Result<bool> {
    let mut now = [0; HEAD];
    let now = now.get_mut(..head.len()).unwrap_or_default();
    Ok(place.read(file, 0, now)? == head.len() && now == head)
}

/// The first line of a file, once it is whole.
fn first_line<P: Place>(place: &mut P, file: &P::File) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut buffer = vec![0; 4 * HEAD];
    while line.len() <= MAX_LINE {
        let count = place.read(file, line.len() as u64, &mut buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        if let Some(end) = read.iter().position(|&byte| byte == b'\n') {
            line.extend_from_slice(read.get(..=end).unwrap_or_default());
            return Ok(Some(line));
        }
        if count == 0 {
            return Ok(None);
        }
        line.extend_from_slice(read);
    }
    // No line of ours: what follows is read all the same.
    Ok(Some(line))
}
