//! The files themselves: what is found, written and taken away.
//!
//! Owns every touch of the file system. A file is replaced as a whole or not at all; what is not recognised as ours, or is ours
//! and was changed, is left and named. Whether a text is ours is [`stamp`]'s and [`block`]'s business.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use super::places::{Kind, Place, Target};
use super::{SkillError, State, block, is_newer, is_older, stamp};

/// Longest file that is read, in bytes. The skill has some ten thousand, an `AGENTS.md` seldom more.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// What is read of a copy to see its version: the head of the skill, several times over.
const MAX_HEAD: u64 = 4096;
/// Mode of a new file, before the user's mask.
const MODE: u32 = 0o666;
/// Before the random part of a name that a file has until it is whole.
const HIDDEN: &str = ".agent-wormhole-";

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Created,
    /// It was replaced, or a block in it.
    Updated,
    /// It is as it should be already.
    Unchanged,
    /// It was removed, or the block in it.
    Removed,
    /// There was nothing to remove.
    Absent,
}

impl Change {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Absent => "absent",
        }
    }
}

/// A file, and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What.
    pub change: Change,
    /// The file.
    pub path: PathBuf,
    /// What it leads to, where it is a link.
    pub link_to: Option<PathBuf>,
}

impl Done {
    fn new(change: Change, place: &Place) -> Self {
        Self { change, path: place.path(), link_to: None }
    }
}

impl Target {
    /// What is there.
    ///
    /// # Errors
    /// [`SkillError`] where that cannot be seen, or must not be followed.
    pub fn state(&self) -> Result<State, SkillError> {
        match &self.kind {
            Kind::File(place) => skill_state(place),
            Kind::Linked { link, copy } => Ok(match link_state(link, copy)? {
                State::Current => match skill_state(copy)? {
                    State::Missing => State::Dangling,
                    state => state,
                },
                state => state,
            }),
            Kind::Block(place) => Ok(block_state(&see_at(place)?)),
        }
    }

    /// Writes what is missing or old.
    ///
    /// # Errors
    /// [`SkillError`] where something that is not ours is in the way; it is left as it is.
    pub fn install(&self) -> Result<Vec<Done>, SkillError> {
        match &self.kind {
            Kind::File(place) => Ok(vec![install_skill(place)?]),
            Kind::Linked { link, copy } => {
                // Nothing is written for a link that cannot be made.
                let state = ours(link_state(link, copy)?, link)?;
                let kept = install_skill(copy)?;
                Ok(vec![kept, install_link(&state, link, copy)?])
            }
            Kind::Block(place) => Ok(vec![install_block(place)?]),
        }
    }

    /// Takes away what was written, and the directories above it that are empty then.
    ///
    /// # Errors
    /// [`SkillError`] where something is there that is not ours, or was changed; it is left as it is.
    pub fn remove(&self) -> Result<Vec<Done>, SkillError> {
        match &self.kind {
            Kind::File(place) => Ok(vec![remove_file(skill_state(place)?, place)?]),
            Kind::Linked { link, copy } => {
                // Both or neither.
                let kept = ours(skill_state(copy)?, copy)?;
                Ok(vec![remove_file(link_state(link, copy)?, link)?, remove_file(kept, copy)?])
            }
            Kind::Block(place) => Ok(vec![remove_block(place)?]),
        }
    }
}

/// Brings a kept copy up to this program's version where it is there, older, and as it was written.
pub(super) fn refresh(place: &Place) -> Result<(), SkillError> {
    let path = place.path();
    let Some(file) = open(&path)? else { return Ok(()) };
    let mut head = Vec::new();
    file.take(MAX_HEAD).read_to_end(&mut head).map_err(io_at(&path))?;
    let version = stamp::version(&String::from_utf8_lossy(&head));
    if version.is_some_and(|version| is_older(&version)) && matches!(skill_state(place)?, State::Old { .. }) {
        put(place, &stamp::stamped())?;
    }
    Ok(())
}

/// What is at a path.
enum Seen {
    Nothing,
    Text(String),
    Link(PathBuf),
    Other(&'static str),
}

impl Seen {
    fn foreign(what: impl Into<String>) -> State {
        State::Foreign { what: what.into() }
    }
}

/// What is at a place, its way included.
fn see_at(place: &Place) -> Result<Seen, SkillError> {
    if !way(place, false)? {
        return Ok(Seen::Nothing);
    }
    let path = place.path();
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Seen::Nothing),
        Err(error) => return Err(io_at(&path)(error)),
        Ok(found) if found.is_symlink() => {
            return Ok(Seen::Link(path.read_link().map_err(io_at(&path))?));
        }
        Ok(found) if found.is_dir() => return Ok(Seen::Other("a directory")),
        Ok(found) if !found.is_file() => return Ok(Seen::Other("no file")),
        Ok(_) => {}
    }
    let Some(file) = open(&path)? else { return Ok(Seen::Nothing) };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io_at(&path))?;
    if bytes.len() as u64 > MAX_FILE {
        return Ok(Seen::Other("a file of more than 4 MiB"));
    }
    Ok(String::from_utf8(bytes).map_or(Seen::Other("a file that is not UTF-8"), Seen::Text))
}

/// Opens a file that is one, and no link. Waits for no writer of a pipe.
fn open(path: &Path) -> Result<Option<File>, SkillError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at(path)(error)),
    }
}

/// Walks the directories of a place, and makes those that are missing if told to. Whether all are there.
fn way(place: &Place, make: bool) -> Result<bool, SkillError> {
    if make {
        fs::create_dir_all(&place.base).map_err(io_at(&place.base))?;
    }
    let mut at = place.base.clone();
    let Some(dirs) = place.rest.parent() else { return Ok(true) };
    for part in dirs.components().filter(|part| matches!(part, Component::Normal(_))) {
        at.push(part);
        match at.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => {
                let own = found.uid() == rustix::process::geteuid().as_raw();
                if place.strict || !own {
                    return Err(SkillError::Link { path: at });
                }
                if !at.is_dir() {
                    return Err(SkillError::NotADirectory { path: at });
                }
            }
            Ok(_) => return Err(SkillError::NotADirectory { path: at }),
            Err(error) if error.kind() == ErrorKind::NotFound && make => {
                fs::create_dir(&at).map_err(io_at(&at))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_at(&at)(error)),
        }
    }
    Ok(true)
}

fn skill_state(place: &Place) -> Result<State, SkillError> {
    Ok(match see_at(place)? {
        Seen::Nothing => State::Missing,
        Seen::Text(text) => text_state(&text),
        Seen::Link(to) => Seen::foreign(format!("a link to {}", to.display())),
        Seen::Other(what) => Seen::foreign(what),
    })
}

fn text_state(text: &str) -> State {
    match stamp::read(text) {
        None => Seen::foreign("another file"),
        Some(stamp) => stamp_state(stamp, stamp::unix(text) == stamp::stamped()),
    }
}

fn stamp_state(stamp: stamp::Stamp, current: bool) -> State {
    let version = stamp.version;
    match (stamp.intact, current) {
        (false, _) => State::Edited,
        (true, true) => State::Current,
        (true, false) if is_newer(&version) => State::Newer { version },
        (true, false) => State::Old { version },
    }
}

/// What is where the link should be. `Current` says nothing about what it leads to; a skill of ours in its place is to become
/// the link.
fn link_state(link: &Place, copy: &Place) -> Result<State, SkillError> {
    Ok(match see_at(link)? {
        Seen::Nothing => State::Missing,
        Seen::Link(to) if to == copy.path() => State::Current,
        Seen::Link(to) => Seen::foreign(format!("a link to {}", to.display())),
        Seen::Other(what) => Seen::foreign(what),
        Seen::Text(text) => match text_state(&text) {
            State::Current => State::Old { version: env!("CARGO_PKG_VERSION").to_owned() },
            state => state,
        },
    })
}

fn block_state(seen: &Seen) -> State {
    let text = match seen {
        Seen::Nothing => return State::Missing,
        Seen::Link(to) => return Seen::foreign(format!("a link to {}", to.display())),
        Seen::Other(what) => return Seen::foreign(*what),
        Seen::Text(text) => text,
    };
    match block::find(text) {
        block::Found::None => State::Missing,
        block::Found::Broken => State::Edited,
        block::Found::Block(stamp) => stamp_state(stamp, block::is_current(text)),
    }
}

/// A state that may be written over or taken away.
fn ours(state: State, place: &Place) -> Result<State, SkillError> {
    let path = place.path();
    match state {
        State::Foreign { what } => Err(SkillError::Foreign { path, what }),
        State::Edited => Err(SkillError::Edited { path }),
        state => Ok(state),
    }
}

fn install_skill(place: &Place) -> Result<Done, SkillError> {
    let change = match ours(skill_state(place)?, place)? {
        State::Current | State::Newer { .. } => return Ok(Done::new(Change::Unchanged, place)),
        State::Missing => Change::Created,
        _ => Change::Updated,
    };
    put(place, &stamp::stamped())?;
    Ok(Done::new(change, place))
}

fn install_link(state: &State, link: &Place, copy: &Place) -> Result<Done, SkillError> {
    let (path, to) = (link.path(), copy.path());
    let change = match state {
        State::Current => Change::Unchanged,
        State::Missing => Change::Created,
        _ => Change::Updated,
    };
    if change != Change::Unchanged {
        way(link, true)?;
        let made = tempfile::Builder::new()
            .prefix(HIDDEN)
            .make_in(parent(&path), |hidden| std::os::unix::fs::symlink(&to, hidden))
            .map_err(io_at(&path))?;
        made.into_temp_path().persist(&path).map_err(|error| io_at(&path)(error.error))?;
    }
    Ok(Done { change, path, link_to: Some(to) })
}

fn install_block(place: &Place) -> Result<Done, SkillError> {
    let seen = see_at(place)?;
    if matches!(seen, Seen::Link(_)) {
        return Err(SkillError::Link { path: place.path() });
    }
    let change = match (ours(block_state(&seen), place)?, &seen) {
        (State::Current | State::Newer { .. }, _) => return Ok(Done::new(Change::Unchanged, place)),
        (_, Seen::Nothing) => Change::Created,
        _ => Change::Updated,
    };
    let text = if let Seen::Text(text) = &seen { text.as_str() } else { "" };
    let with = block::put(text).ok_or(SkillError::Edited { path: place.path() })?;
    put(place, &with)?;
    Ok(Done::new(change, place))
}

/// Removes a file or a link that is ours.
fn remove_file(state: State, place: &Place) -> Result<Done, SkillError> {
    let path = place.path();
    if ours(state, place)? == State::Missing {
        return Ok(Done::new(Change::Absent, place));
    }
    fs::remove_file(&path).map_err(io_at(&path))?;
    prune(place);
    Ok(Done::new(Change::Removed, place))
}

fn remove_block(place: &Place) -> Result<Done, SkillError> {
    let seen = see_at(place)?;
    if ours(block_state(&seen), place)? == State::Missing {
        return Ok(Done::new(Change::Absent, place));
    }
    let path = place.path();
    let text = if let Seen::Text(text) = &seen { text.as_str() } else { "" };
    let without = block::take(text).ok_or(SkillError::Edited { path: path.clone() })?;
    if without.is_empty() {
        fs::remove_file(&path).map_err(io_at(&path))?;
    } else {
        put(place, &without)?;
    }
    Ok(Done::new(Change::Removed, place))
}

/// Replaces a file as a whole. One that was there keeps its permissions, and nothing more of its mode: it may be somebody
/// else's, and set-user-id on the new one would run their text as this user.
fn put(place: &Place, text: &str) -> Result<(), SkillError> {
    way(place, true)?;
    let path = place.path();
    let before = path.symlink_metadata().ok().map(|found| found.permissions().mode() & 0o777);
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(HIDDEN)
            .permissions(Permissions::from_mode(before.unwrap_or(MODE)))
            .tempfile_in(parent(&path))?;
        file.write_all(text.as_bytes())?;
        if let Some(mode) = before {
            // The mask has taken some of it.
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
        }
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(io_at(&path))
}

/// Removes the directories of a place that are empty. The first one that is not, or is a link, ends it.
fn prune(place: &Place) {
    let mut dir = place.rest.parent();
    while let Some(inside) = dir.filter(|inside| !inside.as_os_str().is_empty()) {
        if fs::remove_dir(place.base.join(inside)).is_err() {
            return;
        }
        dir = inside.parent();
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> SkillError {
    let path = path.to_owned();
    move |source| SkillError::Io { path, source }
}
