//! Ends that have ended here while another one of their number lives: until that one ends, too, they are remembered.
//!
//! Owns these notes, so that a number means no other end than before as soon as the caller's own has ended. A note is the
//! entry of the end in the list, under a hidden name and without a lock. Knows nothing of what is meant (`find`).

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{Channel, Record, RuntimeDir, read_entry};

/// What the name of a note begins with. The number and the process follow.
const PREFIX: &str = ".ended-";

impl RuntimeDir {
    /// Ends that have ended, as long as another one of their number lives. To be read after
    /// [`list`](RuntimeDir::list): an end is noted here before it leaves that.
    #[must_use]
    pub fn ended(&self) -> Vec<Channel> {
        let records = notes(&self.channels()).filter_map(|path| Some(read_entry(&path)?.1));
        records.filter_map(|record| Channel::new(record, PathBuf::new(), false)).collect()
    }
}

/// Whether a file of the list is such a note.
pub(super) fn is_note(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

/// Notes the end that is about to leave the list, where another one of its number lives.
pub(super) fn note(entry: &Path, record: &Record) {
    let Some(channels) = entry.parent().filter(|channels| has_living(channels, &record.nameplate, entry))
    else {
        return;
    };
    let path = channels.join(format!("{PREFIX}{}-{}", record.nameplate, record.pid));
    let write = || -> io::Result<()> {
        let json = serde_json::to_vec(record)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&json)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "it is not remembered that this end was here");
    }
}

/// Forgets the ends of a number that nobody has any more.
pub(super) fn tidy(channels: &Path) {
    for path in notes(channels) {
        // Half-written by a process that was killed there: it names nothing.
        let nameplate = read_entry(&path).map(|(_, record)| record.nameplate);
        if !nameplate.is_some_and(|nameplate| has_living(channels, &nameplate, &path)) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Forgets the ends that were where this one begins, whichever role they had: the number means this one there.
pub(super) fn forget(channels: &Path, begun: &Record) {
    for path in notes(channels) {
        let same = |record: &Record| (&record.nameplate, &record.cwd) == (&begun.nameplate, &begun.cwd);
        if read_entry(&path).is_some_and(|(_, record)| same(&record)) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn notes(channels: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let names = fs::read_dir(channels).into_iter().flatten().flatten();
    names.map(|name| name.path()).filter(|path| is_note(path))
}

/// Whether an end of this number lives, other than that of one entry.
fn has_living(channels: &Path, nameplate: &str, but: &Path) -> bool {
    let names = fs::read_dir(channels).into_iter().flatten().flatten().map(|name| name.path());
    let mut others = names.filter(|path| path != but && path.extension().is_some_and(|kind| kind == "json"));
    others.any(|path| {
        read_entry(&path).is_some_and(|(file, record)| {
            record.nameplate == nameplate
                && rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
        })
    })
}
