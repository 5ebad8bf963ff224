//! Contents against a model, and what is in the files of a store.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::*;
use crate::Source as _;

/// A generator of numbers (xorshift) that a failing test can be repeated with.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }

    /// An offset or length: often at or near the edge of a chunk or page, else anywhere.
    fn edge(&mut self, limit: usize) -> usize {
        let step = [CHUNK, PAGE][self.below(2)];
        let near = self.below(limit / step) * step + self.below(3);
        match self.below(3) {
            0 => self.below(limit),
            1 => near.saturating_sub(1),
            _ => near,
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let first = self.below(256);
        (0..len).map(|at| u8::try_from((first + at * 7 + at / 251) % 255 + 1).unwrap()).collect()
    }
}

fn store(memory: u64, seal_memory: bool) -> Arc<Store> {
    Store::new(Options { memory, spill_dir: Some(std::env::temp_dir()), seal_memory }).unwrap()
}

fn content(store: &Arc<Store>) -> Content {
    Content::new(store, &Quota::new(u64::MAX))
}

fn all(content: &Content) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(content.len()).unwrap() + 10];
    let count = content.read_at(0, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

fn spill_file(store: &Store) -> File {
    store.spill().unwrap().file().try_clone().unwrap()
}

fn raw(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A content and the bytes that it has to have.
type Pair = (Content, Vec<u8>);

/// What has to hold between any two operations.
fn check(store: &Store, quota: &Quota, pairs: &[Pair]) {
    let mut slots = BTreeMap::new();
    for (content, _) in pairs {
        let mut occupied = 0;
        for (index, chunk) in &content.chunks {
            let bytes = chunk.slot.place.bytes();
            slots.insert(Arc::as_ptr(&chunk.slot).addr(), bytes as u64);
            occupied += bytes as u64;
            assert!(0 < chunk.visible && chunk.visible <= chunk.slot.written && chunk.slot.written <= bytes);
            assert!(index * (CHUNK as u64) < content.len());
            assert!(chunk.slot.place.is_in_memory() || chunk.slot.seal.is_some());
        }
        assert_eq!(content.allocated(), occupied);
    }
    assert_eq!(quota.used(), slots.values().sum::<u64>());
    assert_eq!(quota.used(), store.in_memory() + store.spilled());
    assert!(store.in_memory() <= store.memory.limit());
}

/// One write; where it fails, some first pieces of it are there and the rest is as before.
fn write((content, model): &mut Pair, offset: usize, data: &[u8]) {
    let put = |model: &mut Vec<u8>, count: usize| {
        if count > 0 {
            model.resize(model.len().max(offset + count), 0);
            model[offset..offset + count].copy_from_slice(&data[..count]);
        }
    };
    match content.write_at(offset as u64, data) {
        Ok(()) => put(model, data.len()),
        Err(error) => {
            assert!(matches!(error, BlobError::Full), "{error:?}");
            let now = all(content);
            let first = CHUNK - offset % CHUNK;
            let mut counts = std::iter::once(0).chain((first..data.len()).step_by(CHUNK));
            *model = counts
                .find_map(|count| {
                    let mut model = model.clone();
                    put(&mut model, count);
                    (model == now).then_some(model)
                })
                .expect("a write that failed left something else");
        }
    }
}

/// One random operation on one of the pairs.
fn step(numbers: &mut Numbers, pairs: &mut Vec<Pair>, new: &dyn Fn() -> Content) {
    const SPAN: usize = 6 * CHUNK;
    let which = numbers.below(pairs.len());
    match numbers.below(12) {
        0..5 => {
            let (offset, len) = (numbers.edge(SPAN), [10, 5000, CHUNK, 3 * CHUNK][numbers.below(4)]);
            let data = if numbers.below(4) == 0 { len } else { numbers.below(len) };
            let data = numbers.bytes(data);
            write(&mut pairs[which], offset, &data);
        }
        5..7 => {
            let (len, (content, model)) = (numbers.edge(SPAN), &mut pairs[which]);
            content.set_len(len as u64).unwrap();
            model.resize(len, 0);
        }
        7..9 => {
            let (offset, len) = (numbers.edge(SPAN), numbers.edge(SPAN));
            let (content, model) = &mut pairs[which];
            let end = (offset + len).min(model.len());
            match content.punch(offset as u64, len as u64) {
                Ok(()) if offset < end => model[offset..end].fill(0),
                Ok(()) => {}
                // Any part of the range may be zeros now.
                Err(_) => {
                    let now = all(content);
                    for (at, (is, was)) in now.iter().zip(&*model).enumerate() {
                        assert!(is == was || (offset..end).contains(&at) && *is == 0);
                    }
                    assert_eq!(now.len(), model.len());
                    *model = now;
                }
            }
        }
        9 if pairs.len() < 5 => {
            let pair = if numbers.below(3) == 0 { (new(), Vec::new()) } else { pairs[which].clone() };
            pairs.push(pair);
        }
        10 if pairs.len() > 1 => drop(pairs.swap_remove(which)),
        _ => {
            let (offset, len) = (numbers.edge(SPAN), numbers.below(3 * CHUNK));
            let (content, model) = &pairs[which];
            let mut buf = vec![0xee; len];
            let count = content.read_at(offset as u64, &mut buf).unwrap();
            let end = (offset + len).min(model.len());
            assert_eq!(buf[..count], model[offset.min(end)..end]);
        }
    }
}

#[test]
fn contents_and_their_snapshots_are_what_a_plain_vector_is() {
    let chunk = CHUNK as u64;
    let small = 9 * chunk + 3 * PAGE as u64;
    for (seed, (memory, seal_memory, limit)) in [
        (u64::MAX, false, u64::MAX),
        (u64::MAX, false, small),
        (4 * chunk + PAGE as u64, false, u64::MAX),
        (4 * chunk + PAGE as u64, true, small),
        (u64::MAX, true, u64::MAX),
        (0, false, u64::MAX),
    ]
    .into_iter()
    .enumerate()
    {
        let (store, quota) = (store(memory, seal_memory), Quota::new(limit));
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 + seed as u64);
        let new = || Content::new(&store, &quota);
        let mut pairs = vec![(new(), Vec::new())];
        for _ in 0..2500 {
            step(&mut numbers, &mut pairs, &new);
            check(&store, &quota, &pairs);
            for (content, model) in &pairs {
                assert!(all(content) == *model, "configuration {seed}");
            }
        }
        drop(pairs);
        assert_eq!((quota.used(), store.in_memory(), store.spilled()), (0, 0, 0));
    }
}

#[test]
fn a_snapshot_is_read_while_the_content_is_written() {
    for memory in [u64::MAX, 2 * CHUNK as u64, 0] {
        let store = store(memory, false);
        let mut live = content(&store);
        live.write_at(0, &[1; 4 * CHUNK]).unwrap();
        std::thread::scope(|scope| {
            for round in 2..20 {
                let snapshot = live.clone();
                scope.spawn(move || {
                    let mut reading = Reading::new(snapshot);
                    let (mut buf, mut count) = ([0; 10_000], 0);
                    loop {
                        match reading.read(&mut buf).unwrap() {
                            0 => break,
                            some => {
                                assert!(buf[..some].iter().all(|byte| *byte == round - 1));
                                count += some;
                            }
                        }
                    }
                    assert_eq!(count, 4 * CHUNK);
                });
                for piece in 0..16 {
                    live.write_at(piece * CHUNK as u64 / 4, &[round; CHUNK / 4]).unwrap();
                }
            }
        });
        assert_eq!(live.allocated(), store.in_memory() + store.spilled());
    }
}

#[test]
fn plaintext_is_in_no_file_but_the_memory_that_is_not_sealed() {
    let pattern = b"a very secret line of some text";
    let find = |bytes: &[u8]| bytes.windows(pattern.len()).any(|window| window == pattern);
    let text = pattern.repeat(3 * CHUNK / pattern.len());
    for (memory, seal_memory) in [(u64::MAX, false), (u64::MAX, true), (CHUNK as u64, true), (0, false)] {
        let store = store(memory, seal_memory);
        let mut content = content(&store);
        content.write_at(0, &text).unwrap();
        content.write_at(2 * pattern.len() as u64, pattern).unwrap();
        let snapshot = content.clone();
        content.write_at(CHUNK as u64 + 5, pattern).unwrap();
        content.set_len(text.len() as u64 - 1000).unwrap();
        content.write_at(text.len() as u64 - 500, pattern).unwrap();
        let plain = memory == u64::MAX && !seal_memory && HAS_MEMFD;
        assert_eq!(find(&raw(store.memory.file())), plain);
        assert!(!find(&raw(&spill_file(&store))));
        assert_eq!(store.spilled() > 0, memory != u64::MAX);
        assert_eq!(snapshot.is_in_memory_unsealed(), plain);
        assert!(all(&snapshot).starts_with(pattern));
    }
}

fn is_damaged(content: &Content, offset: usize) -> bool {
    let whole = content.read_at(offset as u64, &mut [0; CHUNK]);
    let part = content.read_at(offset as u64 + 1, &mut [0; 7]);
    match (whole, part) {
        (Ok(_), Ok(_)) => false,
        (Err(whole), Err(part)) => {
            assert_eq!([whole.kind(), part.kind()], [io::ErrorKind::InvalidData; 2]);
            true
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chunk_that_was_altered_is_an_error_and_never_other_bytes() {
    for (memory, len) in [(0, 200), (0, CHUNK), (u64::MAX, 200), (u64::MAX, CHUNK)] {
        let store = store(memory, true);
        let mut content = content(&store);
        content.write_at(0, &vec![7; len]).unwrap();
        let file = if memory == 0 { spill_file(&store) } else { store.memory.file().try_clone().unwrap() };
        let good = raw(&file);
        for at in (0..len).step_by(if len < PAGE { 1 } else { 997 }) {
            file.write_all_at(&[good[at] ^ 1], at as u64).unwrap();
            assert!(is_damaged(&content, 0), "{at}");
            // A part of it cannot be written either: its rest is not known.
            let error = content.write_at(3, &[1]).unwrap_err();
            assert!(
                matches!(&error, BlobError::Io(e) if e.kind() == io::ErrorKind::InvalidData),
                "{error:?}"
            );
            assert_eq!(error.errno(), Errno::IO.raw_os_error());
            file.write_all_at(&good[at..=at], at as u64).unwrap();
            assert!(!is_damaged(&content, 0));
        }
        file.set_len(len as u64 - 1).unwrap();
        assert!(is_damaged(&content, 0));
        // What replaces all of it does not need it.
        content.write_at(0, &vec![8; len]).unwrap();
        assert!(!is_damaged(&content, 0));
    }
}

#[test]
fn a_chunk_that_was_moved_or_is_an_older_one_is_an_error() {
    let store = store(u64::MAX, true);
    let mut content = content(&store);
    content.write_at(0, &[7; 2 * CHUNK]).unwrap();
    let file = store.memory.file();
    let old = raw(file);
    let (first, second) = old.split_at(CHUNK);
    file.write_all_at(second, 0).unwrap();
    file.write_all_at(first, CHUNK as u64).unwrap();
    assert!(is_damaged(&content, 0) && is_damaged(&content, CHUNK));
    file.write_all_at(&old, 0).unwrap();
    assert!(!is_damaged(&content, 0) && !is_damaged(&content, CHUNK));
    content.write_at(0, &[7; 2 * CHUNK]).unwrap();
    assert!(raw(file) != old);
    file.write_all_at(&old, 0).unwrap();
    assert!(is_damaged(&content, 0) && is_damaged(&content, CHUNK));
}

#[test]
fn a_zone_that_is_full_keeps_what_is_in_it() {
    for memory in [u64::MAX, 0] {
        let (store, quota) = (store(memory, false), Quota::new(2 * CHUNK as u64));
        let mut content = Content::new(&store, &quota);
        content.write_at(0, &[1; 2 * CHUNK]).unwrap();
        let error = content.write_at(CHUNK as u64, &[2; CHUNK + 1]).unwrap_err();
        assert!(matches!(error, BlobError::Full) && error.errno() == Errno::NOSPC.raw_os_error());
        assert_eq!(all(&content), [[1; CHUNK], [2; CHUNK]].concat());
        // Writing over what is there needs no more, unless a snapshot has it.
        content.write_at(5, &[3; CHUNK]).unwrap();
        let snapshot = content.clone();
        assert!(matches!(content.write_at(5, &[4]), Err(BlobError::Full)));
        assert!(matches!(content.punch(5, 1), Err(BlobError::Full)));
        assert_eq!(all(&content), all(&snapshot));
        content.set_len(7).unwrap();
        assert_eq!(all(&content), [1, 1, 1, 1, 1, 3, 3]);
        drop(snapshot);
        content.write_at(7, &[5; CHUNK]).unwrap();
        assert_eq!(content.len(), 7 + CHUNK as u64);
    }
}

#[test]
fn few_bytes_cost_a_page_and_what_grows_moves_when_memory_is_full() {
    let (store, quota) = (store(3 * PAGE as u64, false), Quota::new(u64::MAX));
    let mut contents = [0; 3].map(|_| Content::new(&store, &quota));
    for content in &mut contents {
        content.write_at(0, &[1; 100]).unwrap();
    }
    assert_eq!((store.in_memory(), store.spilled()), (3 * PAGE as u64, 0));
    contents[0].write_at(100, &[2; PAGE]).unwrap();
    assert_eq!((store.in_memory(), store.spilled()), (2 * PAGE as u64, 2 * PAGE as u64));
    assert_eq!([0, 1].map(|at| contents[at].is_in_memory_unsealed()), [false, HAS_MEMFD]);
    assert_eq!(all(&contents[0]), [&[1; 100][..], &[2; PAGE]].concat());
    contents[1].set_len(0).unwrap();
    contents[2].set_len(0).unwrap();
    // Written again, it comes back.
    contents[0].write_at(0, &[3]).unwrap();
    assert_eq!((store.in_memory(), store.spilled(), quota.used()), (8192, 0, 8192));
}

#[test]
fn places_are_used_again_and_hold_no_blocks_while_they_are_free() {
    for memory in [u64::MAX, 0] {
        let store = store(memory, false);
        let file = if memory == 0 { spill_file(&store) } else { store.memory.file().try_clone().unwrap() };
        for _ in 0..5 {
            let mut contents: Vec<Content> = (0..4).map(|_| content(&store)).collect();
            for content in &mut contents {
                content.write_at(0, &[1; CHUNK]).unwrap();
            }
            contents.remove(2);
            contents.remove(0);
            let mut low = content(&store);
            low.write_at(0, &[1; CHUNK]).unwrap();
            assert_eq!(low.chunks[&0].slot.place.number(), 0);
            if memory != 0 && HAS_MEMFD {
                assert_eq!(file.metadata().unwrap().blocks() * 512, store.in_memory());
            }
        }
        assert_eq!(file.metadata().unwrap().len(), 4 * CHUNK as u64);
    }
}

#[test]
fn holes_cost_nothing_and_are_found() {
    let store = store(u64::MAX, false);
    let mut content = content(&store);
    let (chunk, far) = (CHUNK as u64, 10 << 40 >> 1);
    content.set_len(far).unwrap();
    assert_eq!((content.allocated(), content.next_data(0), content.next_hole(5)), (0, None, Some(5)));
    content.write_at(2 * chunk + 10, &[1; CHUNK]).unwrap();
    assert_eq!(content.next_data(3), Some(2 * chunk));
    assert_eq!(content.next_data(2 * chunk + 7), Some(2 * chunk + 7));
    assert_eq!(content.next_hole(2 * chunk), Some(4 * chunk));
    assert_eq!(
        (content.next_data(4 * chunk), content.next_hole(far), content.next_data(far)),
        (None, None, None)
    );
    content.write_at(far - 1, &[1]).unwrap();
    assert_eq!((content.next_data(4 * chunk), content.next_hole(far - 1)), (Some(far - chunk), Some(far)));
    content.punch(0, u64::MAX).unwrap();
    assert_eq!((content.len(), content.allocated(), store.in_memory()), (far, 0, 0));

    content.write_at(MAX_LEN - 1, &[1]).unwrap();
    for error in [
        content.write_at(MAX_LEN - 1, &[1; 2]),
        content.write_at(u64::MAX, &[1]),
        content.set_len(MAX_LEN + 1),
    ] {
        let error = error.unwrap_err();
        assert!(matches!(error, BlobError::TooLarge) && error.errno() == Errno::FBIG.raw_os_error());
    }
    assert_eq!(content.len(), MAX_LEN);
    content.write_at(u64::MAX, &[]).unwrap_err();
    content.write_at(0, &[]).unwrap();
    content.set_len(0).unwrap();
    assert!(content.is_empty() && content.read_at(0, &mut [0; 4]).unwrap() == 0);
}

#[test]
fn a_disk_that_cannot_be_used_is_an_error_and_what_is_in_memory_stays() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let options = Options { memory: CHUNK as u64, spill_dir: Some(gone.clone()), seal_memory: false };
    let store = Store::new(options).unwrap();
    assert_eq!(store.spill_dir(), gone);
    let mut content = content(&store);
    assert!(matches!(content.write_at(0, &[1; CHUNK + 1]), Err(BlobError::Io(_))));
    assert_eq!(all(&content), [1; CHUNK]);
    std::fs::create_dir(&gone).unwrap();
    content.write_at(CHUNK as u64, &[2; 10]).unwrap();
    assert_eq!(content.len(), CHUNK as u64 + 10);
    assert_eq!(std::fs::read_dir(&gone).unwrap().count(), 0);
}

#[test]
fn a_store_says_where_bytes_rest_and_nothing_of_its_key() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    let words = |memory, seal| store(memory, seal).at_rest();
    if HAS_MEMFD {
        assert_eq!(words(DEFAULT_MEMORY, false), "in memory; above 256 MiB sealed on disk");
        assert_eq!(
            words(DEFAULT_MEMORY, true),
            "sealed in memory (swap is on); above 256 MiB sealed on disk"
        );
    }
    assert_eq!(words(0, true), "sealed on disk");
    let store = store(0, false);
    let content = content(&store);
    shared(&store);
    shared(&content);
    assert_eq!(format!("{store:?} {content:?}"), "Store { .. } Content { len: 0, .. }");
    assert!(!has_swap("Filename Type Size Used Priority\n"));
    assert!(has_swap("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n"));
    assert_eq!(Options::detect().memory, DEFAULT_MEMORY);
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        assert_eq!(BlobError::from(io::Error::from(errno)).errno(), Errno::NOSPC.raw_os_error());
    }
}

/// `cargo test --release -p agent-wormhole-mount --lib blob -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn how_fast_a_content_is_written_and_read() {
    let piece = vec![7; 1 << 20];
    for (memory, seal_memory) in [(2 << 30, false), (2 << 30, true), (0, false)] {
        let store = store(memory, seal_memory);
        let mut content = content(&store);
        let rate = |start: std::time::Instant| 1024.0 / start.elapsed().as_secs_f64();
        let start = std::time::Instant::now();
        for at in 0..1024 {
            content.write_at(at << 20, &piece).unwrap();
        }
        let written = rate(start);
        let (start, mut buf) = (std::time::Instant::now(), vec![0; 1 << 20]);
        for at in 0..1024 {
            content.read_at(at << 20, &mut buf).unwrap();
        }
        let read = rate(start);
        let start = std::time::Instant::now();
        drop(content);
        let dropped = start.elapsed();
        println!(
            "{memory} {seal_memory}: written {written:.0} MiB/s, read {read:.0} MiB/s, dropped {dropped:?}"
        );
    }
}
