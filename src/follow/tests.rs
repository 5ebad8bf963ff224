//! Nothing is missed and nothing comes twice, however the bytes are cut and whenever the log is rotated.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::reader::{Place, Reader, Step, Which};
use super::*;

fn event(seq: u64) -> String {
    format!(r#"{{"type":"text","from":"peer","body":"x,\"seq\":9,","seq":{seq},"at":"t"}}"#)
}

fn seqs(follower: &mut Follower, bytes: &[u8]) -> Vec<u64> {
    let mut out = Vec::new();
    follower.feed(bytes, u64::MAX, |found| match found {
        Found::Event(line) => out.push(line.seq),
        Found::Foreign => out.push(0),
    });
    out
}

#[test]
fn a_line_is_read_as_it_stands() {
    let line = r#"{"type":"status","event":"closed","detail":"a\nb","exit":6,"new":[1],"seq":7,"at":"t"}"#;
    let read = Line::parse(line.as_bytes()).unwrap();
    assert_eq!((read.text.as_str(), read.seq, read.exit, read.detail.as_str()), (line, 7, Some(6), "a\nb"));
    assert!(read.is_last() && read.is_event());
    assert_eq!(line::number(line.as_bytes()), Some(7));
    assert_eq!(line::number(event(12).as_bytes()), Some(12));
    assert!(Line::parse(b"{}").is_none() && Line::parse(b"\xff").is_none());
    assert!(!Line::parse(br#"{"type":"text","from":"self","seq":1,"at":"t"}"#).unwrap().is_event());
}

#[test]
fn lines_come_once_whole_and_in_order_however_they_are_cut() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let text: String = (1..=40).map(|seq| event(seq) + "\n").collect();
    for _ in 0..200 {
        let mut follower = Follower::new(5);
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (part, later) = rest.split_at((1 + rng.next_u32() as usize % 300).min(rest.len()));
            out.extend(seqs(&mut follower, part));
            rest = later;
        }
        assert_eq!(out, (6..=40).collect::<Vec<u64>>());
    }
}

#[test]
fn what_is_no_event_is_told_and_passed_over() {
    let mut follower = Follower::new(0);
    let both = format!("hello\n\n{}\n{}\n{}\n", event(1), event(1), event(2));
    assert_eq!(seqs(&mut follower, both.as_bytes()), [0, 1, 2]);
    let long = "x".repeat(MAX_LINE + 1);
    assert!(seqs(&mut follower, long.as_bytes()).is_empty());
    assert_eq!(follower.held(), 0, "it is not kept");
    assert_eq!(seqs(&mut follower, format!("{long}\n{}\n{{\"half", event(3)).as_bytes()), [0, 3]);
    follower.restart();
    assert_eq!(seqs(&mut follower, format!("{}\n", event(4)).as_bytes()), [4]);
}

#[test]
fn what_was_missed_is_looked_for_where_it_is() {
    let plan = |last, log, old| {
        let Plan { transcript, old } = Plan::new(last, log, old);
        (transcript, old)
    };
    assert_eq!(plan(0, 1, None), (None, false));
    assert_eq!(plan(9, 10, Some(1)), (None, false));
    assert_eq!(plan(8, 10, Some(1)), (None, true));
    assert_eq!(plan(0, 10, Some(5)), (Some(5), true));
    // The copy is there, and the log is not emptied yet.
    assert_eq!(plan(0, 10, Some(10)), (Some(10), false));
    assert_eq!(plan(0, 10, None), (Some(10), false));
    assert_eq!(missing(3, 9, 10), None);
    assert_eq!(missing(3, 7, 10), Some(8..=9));
    assert_eq!(missing(8, 0, 10), Some(9..=9));
    assert_eq!(missing(9, 0, 10), None);
}

/// The files of a channel, and a writer that acts between any two steps of a reader.
#[derive(Default)]
struct Model {
    rng: Option<ChaCha8Rng>,
    /// Every file there ever was; an index is a handle.
    files: Vec<Vec<u8>>,
    log: usize,
    old: Option<usize>,
    transcript: usize,
    seq: u64,
    /// Events that were told.
    events: Vec<u64>,
    /// Bytes that are still to be written into the log.
    unwritten: Vec<u8>,
    /// The copy was made and the log is to be emptied.
    emptying: bool,
    left: usize,
    /// Bytes that the transcript takes.
    room: usize,
}

impl Model {
    fn new(seed: u64, room: usize) -> Self {
        let rng = Some(ChaCha8Rng::seed_from_u64(seed));
        let files = vec![Vec::new(), Vec::new()];
        Self { rng, files, transcript: 1, left: 400, room, ..Self::default() }
    }

    fn chance(&mut self, of: u32) -> bool {
        self.rng.as_mut().is_none_or(|rng| rng.next_u32() % of == 0)
    }

    /// The writer does something, or nothing.
    fn act(&mut self) {
        if self.left == 0 || self.chance(3) {
            return;
        }
        if self.emptying {
            self.emptying = false;
            self.files[self.log].clear();
            self.seq += 1;
            let line = format!(
                "{{\"type\":\"status\",\"event\":\"rotated\",\"detail\":\"d\",\"seq\":{},\"at\":\"t\"}}\n",
                self.seq
            );
            self.unwritten = line.into_bytes();
        } else if !self.unwritten.is_empty() {
            let count = if self.chance(4) { self.unwritten.len() / 2 } else { self.unwritten.len() };
            let part: Vec<u8> = self.unwritten.drain(..count).collect();
            self.files[self.log].extend(part);
        } else if self.chance(12) {
            let copy = self.files[self.log].clone();
            self.files.push(copy);
            self.old = Some(self.files.len() - 1);
            self.emptying = true;
        } else {
            self.left -= 1;
            self.seq += 1;
            let ours = self.chance(3);
            let line = if ours { event(self.seq).replace("peer", "self") } else { event(self.seq) } + "\n";
            if !ours {
                self.events.push(self.seq);
                self.unwritten = line.clone().into_bytes();
            }
            if self.files[self.transcript].len() < self.room {
                self.files[self.transcript].extend(line.as_bytes());
            }
        }
    }

    /// Nothing is under way any more.
    fn settle(&mut self) {
        self.left = self.left.max(1);
        while self.emptying || !self.unwritten.is_empty() {
            self.act();
        }
        self.left = 0;
    }
}

struct Watched(Rc<RefCell<Model>>);

impl Place for Watched {
    type File = usize;

    fn open(&mut self, which: Which) -> io::Result<Option<usize>> {
        let mut model = self.0.borrow_mut();
        model.act();
        Ok(match which {
            Which::Log => Some(model.log),
            Which::Old => model.old,
            Which::Transcript => Some(model.transcript),
        })
    }

    fn read(&mut self, file: &usize, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut model = self.0.borrow_mut();
        model.act();
        // Small pieces: rotations fall between any two of them.
        let most = if buffer.len() > 4096 { 200 } else { buffer.len() };
        let rest = model.files[*file].get(at as usize..).unwrap_or_default();
        let count = rest.len().min(most);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn is_replaced(&mut self, _: &usize) -> bool {
        false
    }
}

fn drain(reader: &mut Reader<Watched>, seen: &mut Vec<u64>, lost: &mut Vec<u64>) {
    let mut steps = VecDeque::new();
    while reader.step(&mut steps).unwrap() {}
    for step in steps {
        match step {
            // That of a rotation before the last is in no file any more, and tells nothing.
            Step::Event(line) if line.event == "rotated" => {}
            Step::Event(line) => seen.push(line.seq),
            Step::Missing(numbers) => lost.extend(numbers),
            Step::Foreign => panic!("half a line was read"),
        }
    }
}

/// A reader that comes and goes, beside a writer that rotates. What was seen, what was told to be lost, what there was.
fn run(seed: u64, room: usize) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
    let model = Rc::new(RefCell::new(Model::new(seed, room)));
    let (mut seen, mut lost) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(Watched(Rc::clone(&model)), 0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xffff);
    while model.borrow().left > 0 {
        drain(&mut reader, &mut seen, &mut lost);
        // The reader is busy elsewhere, or was killed and begins anew after what it has printed.
        for _ in 0..rng.next_u32() % 100 {
            model.borrow_mut().act();
        }
        if rng.next_u32().is_multiple_of(4) {
            reader = Reader::new(Watched(Rc::clone(&model)), seen.last().copied().unwrap_or(0));
        }
    }
    model.borrow_mut().settle();
    drain(&mut reader, &mut seen, &mut lost);
    let events = model.borrow().events.clone();
    (seen, lost, events)
}

#[test]
fn nothing_is_missed_and_nothing_comes_twice_whenever_the_log_is_rotated() {
    for seed in 0..300 {
        let (seen, lost, events) = run(seed, usize::MAX);
        assert!(seen.is_sorted_by(|a, b| a < b), "seed {seed}: {seen:?}");
        assert_eq!((seen, lost), (events, Vec::new()), "seed {seed}");
    }
}

#[test]
fn what_no_file_has_any_more_is_told() {
    let mut told = 0;
    for seed in 0..300 {
        let (seen, lost, events) = run(seed, 4000);
        assert!(seen.is_sorted_by(|a, b| a < b), "seed {seed}: {seen:?}");
        assert!(seen.iter().all(|seq| !lost.contains(seq)), "seed {seed}: {seen:?} {lost:?}");
        let known = |seq: &u64| seen.contains(seq) || lost.contains(seq);
        assert!(events.iter().all(known), "seed {seed}: {events:?} but {seen:?} {lost:?}");
        told += lost.len();
    }
    assert!(told > 0);
}
