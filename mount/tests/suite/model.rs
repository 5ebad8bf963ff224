//! Random sequences of operations against a model of names and bytes: whatever was done on the way, what is there at
//! the end is what is offered, once, whole, under its last name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;

use agent_wormhole_mount::{OutboxEvent, ignore};

use crate::fixture::{Body, Fixture, drain, each};

/// Seeds of one run, for each back end.
const SEEDS: u64 = 40;
/// Operations of one seed.
const STEPS: usize = 60;
/// Few names, so that operations meet; some are not sent.
const NAMES: [&str; 8] = ["a", "b.txt", "c.tmp", "d/x", "d/y", "e~", "f.msg", "d/z.msg"];

/// xorshift64*: any sequence will do, and the same seed gives the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
    }
}

type Model = BTreeMap<&'static str, Vec<u8>>;

/// Does something. Returns the name of what was renamed to one that is not sent.
fn step(fixture: &Fixture, model: &mut Model, random: &mut Random, number: usize) -> Option<&'static str> {
    let (name, other) = (NAMES[random.below(NAMES.len())], NAMES[random.below(NAMES.len())]);
    let path = fixture.outbox(name);
    match random.below(6) {
        0 | 1 => {
            let content = format!("{number} ").repeat(1 + random.below(5)).into_bytes();
            fs::write(&path, &content).unwrap();
            model.insert(name, content);
        }
        2 => {
            let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            file.write_all(b"more").unwrap();
            model.entry(name).or_default().extend_from_slice(b"more");
        }
        3 => {
            let renamed = fs::rename(&path, fixture.outbox(other));
            assert_eq!(renamed.is_ok(), model.contains_key(name));
            if let Some(content) = model.remove(name) {
                model.insert(other, content);
                return ignore::path(other).map(|_| name);
            }
        }
        4 => {
            assert_eq!(fs::remove_file(&path).is_ok(), model.remove(name).is_some());
        }
        _ => {
            // Open for a moment while something else happens to its name.
            let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            let mut content = model.remove(name).unwrap_or_default();
            fs::rename(&path, fixture.outbox(other)).unwrap();
            file.write_all(b"held").unwrap();
            content.extend_from_slice(b"held");
            model.insert(other, content);
            return ignore::path(other).map(|_| name);
        }
    }
    None
}

/// What is offered in the end and not taken back: each name with its contents, in order.
fn offered(fixture: &Fixture) -> BTreeMap<String, Vec<Vec<u8>>> {
    fixture.mailbox.finish();
    let mut offers = BTreeMap::new();
    loop {
        match fixture.event() {
            OutboxEvent::Offer(offer) => {
                let Body::Bytes(bytes) = drain(offer.content) else { panic!("{} changed", offer.name) };
                offers.insert(offer.entry, (offer.name, bytes));
            }
            OutboxEvent::Withdraw { entry } => {
                offers.remove(&entry);
            }
            OutboxEvent::Idle => break,
            event => panic!("{event:?}"),
        }
    }
    let mut names: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, bytes) in offers.into_values() {
        names.entry(name).or_default().push(bytes);
    }
    names
}

#[test]
fn random_operations_end_in_what_a_model_says() {
    for seed in 1..=SEEDS {
        each(|fixture| {
            let (mut model, mut random) = (Model::new(), Random(seed * 0x9E37_79B9));
            fs::create_dir(fixture.outbox("d")).unwrap();
            let backed_up: BTreeSet<_> =
                (0..STEPS).filter_map(|number| step(fixture, &mut model, &mut random, number)).collect();
            let found: BTreeMap<_, _> =
                NAMES.iter().filter_map(|name| Some((*name, fs::read(fixture.outbox(name)).ok()?))).collect();
            assert_eq!(found, model, "seed {seed}");
            let mut offered = offered(fixture);
            for (name, content) in model.iter().filter(|(name, _)| ignore::path(name).is_none()) {
                let contents = offered.remove(*name).unwrap_or_default();
                // Each text was a message of its own; of a file there is one.
                let is_text = *name == "f.msg";
                assert_eq!(contents.last(), Some(content), "seed {seed}, {name}");
                assert!(is_text || contents.len() == 1, "seed {seed}, {name}: {contents:?}");
            }
            // A text that was complete once is a message, and a directory was empty; where each close is seen, what was
            // saved before it became a backup is sent all the same.
            offered.retain(|name, _| {
                let backed_up = fixture.name == "fuse" && backed_up.contains(name.as_str());
                name != "f.msg" && name != "d" && !backed_up
            });
            assert!(offered.is_empty(), "seed {seed}: {offered:?}");
        });
    }
    println!("{SEEDS} seeds of {STEPS} operations for each back end");
}
