//! Random operations against a model: what a file system is (names and bytes), and what an outbox is (each content that
//! somebody finished is told once, in order).

use std::collections::BTreeMap;

use super::*;

/// Seeds of one run.
const SEEDS: u64 = 300;
/// Operations of one seed.
const STEPS: usize = 120;
/// Few names, so that operations meet.
const NAMES: [&str; 6] = ["a", "b", "c", "message", "x.tmp", "d"];

/// xorshift64*: any sequence will do, and the same seed gives the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(word).unwrap() % bound
    }
}

/// What an open handle of the model knows.
struct Open {
    fh: Fh,
    /// The file; its name is found by it.
    file: u64,
}

/// A file of the model.
#[derive(Clone, Default)]
struct Modelled {
    bytes: Vec<u8>,
    dirty: bool,
}

#[derive(Default)]
struct Model {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Modelled>,
    open: Vec<Open>,
    last: u64,
}

impl Model {
    fn name_of(&self, file: u64) -> Option<&String> {
        self.names.iter().find(|(_, known)| **known == file).map(|(name, _)| name)
    }

    /// What is told when the last handle of a file ends.
    fn finish(&mut self, file: u64) -> Option<String> {
        let name = self.name_of(file).cloned();
        let is_open = self.open.iter().any(|open| open.file == file);
        let modelled = self.files.get_mut(&file)?;
        if is_open || !std::mem::take(&mut modelled.dirty) {
            return None;
        }
        Some(format!("{} = {}", name?, String::from_utf8_lossy(&modelled.bytes)))
    }
}

/// One random operation on both; returns what the model says is told by it.
fn step(rig: &mut Rig, model: &mut Model, random: &mut Random) -> Vec<String> {
    let name = NAMES[random.below(NAMES.len())];
    match random.below(7) {
        0 | 1 if model.open.len() < 4 => open(rig, model, random, name),
        2 | 3 if !model.open.is_empty() => write(rig, model, random),
        4 if !model.open.is_empty() => {
            let open = model.open.swap_remove(random.below(model.open.len()));
            rig.close(open.fh);
            return model.finish(open.file).into_iter().collect();
        }
        5 => return rename(rig, model, name, NAMES[random.below(NAMES.len())]),
        6 => {
            let removed = rig.unlink(name);
            if model.names.remove(name).is_none() {
                assert_eq!(removed, Err(FileError::Missing));
                return Vec::new();
            }
            removed.unwrap();
            return vec![format!("{name} gone")];
        }
        _ => {}
    }
    Vec::new()
}

/// Makes or opens a file for writing, which tells nothing.
fn open(rig: &mut Rig, model: &mut Model, random: &mut Random, name: &str) {
    let Some(file) = model.names.get(name).copied() else {
        model.last += 1;
        let file = model.last;
        model.names.insert(name.to_owned(), file);
        model.files.insert(file, Modelled { bytes: Vec::new(), dirty: true });
        model.open.push(Open { fh: rig.create(name), file });
        return;
    };
    // One writer at a time: what is told of two depends on which wrote first, which has its own tests.
    if model.open.iter().any(|open| open.file == file) {
        return;
    }
    let truncate = random.below(2) == 0;
    let fh = rig.open(&format!("outbox/{name}"), (true, false, truncate)).unwrap();
    if truncate {
        model.files.insert(file, Modelled { bytes: Vec::new(), dirty: true });
    }
    model.open.push(Open { fh, file });
}

/// Writes somewhere, which tells nothing.
fn write(rig: &mut Rig, model: &mut Model, random: &mut Random) {
    let open = &model.open[random.below(model.open.len())];
    let (offset, byte) = (random.below(40), b'a' + u8::try_from(random.below(26)).unwrap());
    let data = vec![byte; 1 + random.below(30)];
    rig.files.write(open.fh, (offset as u64, &data), false, Caller::User, rig.now).unwrap();
    let modelled = model.files.get_mut(&open.file).unwrap();
    let end = offset + data.len();
    if modelled.bytes.len() < end {
        modelled.bytes.resize(end, 0);
    }
    modelled.bytes[offset..end].copy_from_slice(&data);
    modelled.dirty = true;
}

fn rename(rig: &mut Rig, model: &mut Model, name: &str, to: &str) -> Vec<String> {
    let (outbox, now) = (rig.outbox(), rig.now);
    let renamed = rig.files.rename((outbox, name.as_ref()), (outbox, to.as_ref()), false, Caller::User, now);
    let Some(file) = model.names.get(name).copied() else {
        assert_eq!(renamed, Err(FileError::Missing));
        return Vec::new();
    };
    renamed.unwrap();
    if name == to {
        return Vec::new();
    }
    model.names.remove(name);
    model.names.insert(to.to_owned(), file);
    let modelled = &model.files[&file];
    let piece = if modelled.dirty {
        String::new()
    } else {
        format!("{to} = {}", String::from_utf8_lossy(&modelled.bytes))
    };
    vec![format!("{name} > {to}: {piece}")]
}

#[test]
fn random_operations_leave_the_names_and_bytes_that_a_model_has_and_tell_what_it_tells() {
    for seed in 1..=SEEDS {
        let (mut rig, mut model, mut random) = (rig(), Model::default(), Random(seed * 0x9E37_79B9));
        for number in 0..STEPS {
            let expected = step(&mut rig, &mut model, &mut random);
            let told: Vec<_> =
                rig.changes().into_iter().filter(|change| !change.ends_with(" touched")).collect();
            assert_eq!(told, expected, "seed {seed}, step {number}");
            let listed: BTreeMap<_, _> = rig
                .files
                .list(rig.outbox(), 0)
                .unwrap()
                .into_iter()
                .filter_map(|entry| {
                    // The directories of ours are none of the model's.
                    let file = rig.files.node(entry.entry.attr.ino).unwrap().file()?;
                    Some((entry.name.into_string().unwrap(), text(&file.content)))
                })
                .collect();
            let modelled: BTreeMap<_, _> = model
                .names
                .iter()
                .map(|(name, file)| {
                    (name.clone(), String::from_utf8_lossy(&model.files[file].bytes).into_owned())
                })
                .collect();
            assert_eq!(listed, modelled, "seed {seed}, step {number}");
        }
        for open in std::mem::take(&mut model.open) {
            rig.close(open.fh);
        }
        for name in NAMES {
            // Not all are there.
            let _ = rig.unlink(name);
        }
        rig.changes();
        rig.forget_all();
        assert_eq!(rig.files.outbox_quota.used(), 0, "seed {seed}: something is held");
    }
    println!("{SEEDS} seeds of {STEPS} operations");
}
