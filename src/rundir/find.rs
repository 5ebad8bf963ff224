//! Which channel is meant: `send 9471 …` from some directory.
//!
//! Owns the meaning of CHANNEL on the command line. Reads the list, decides, opens nothing.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Channel;
use crate::code::MAX_NAMEPLATE;
use crate::crypto::pake::Role;

/// Why no one channel is meant. Every one is a usage error.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// CHANNEL is neither a code, nor a nameplate, nor a path.
    #[error(
        "this is not a channel; give its code, its number (the digits before the words, or as `agent-wormhole status` has \
         it), or its directory"
    )]
    NotAChannel,
    /// No living channel has that number.
    #[error("no channel {wanted} is running here{}", existing(.running))]
    None {
        /// What was asked for, without words.
        wanted: String,
        /// What there is.
        running: Vec<Channel>,
    },
    /// The end that the caller's directory stands for has ended, and another one has its number.
    #[error("{}", has_ended(.ended, .living))]
    Ended {
        /// The end that was started where the caller stands.
        ended: Box<Channel>,
        /// Those that live.
        living: Vec<Channel>,
    },
    /// Several have it.
    #[error("several channels are meant; add --role host or --role peer, or give one of these directories instead:{}", paths(.dirs))]
    Several {
        /// Their directories.
        dirs: Vec<PathBuf>,
    },
}

fn existing(running: &[Channel]) -> String {
    if running.is_empty() {
        return "; no channel is: start one with `agent-wormhole host`".to_owned();
    }
    let mut out = String::from("; these are:");
    for channel in running {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n  {} {} {}", channel.nameplate, channel.role.as_str(), channel.dir.display());
    }
    out
}

fn has_ended(ended: &Channel, living: &[Channel]) -> String {
    let Channel { nameplate, role, dir, .. } = ended;
    let by_role = match living {
        [other] if other.role != *role => format!("add --role {}, or ", other.role.as_str()),
        _ => String::new(),
    };
    let mut out = format!(
        "the end of channel {nameplate} that was started in this directory has ended ({} {}); if another one is meant, \
         {by_role}give its directory:",
        role.as_str(),
        dir.display()
    );
    for other in living {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n  {} {}", other.role.as_str(), other.dir.display());
    }
    out
}

fn paths(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| format!("\n  {}", dir.display())).collect()
}

/// What CHANNEL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The public digits; whatever words followed them are forgotten here.
    Nameplate(String),
    /// A channel's directory.
    Dir(PathBuf),
}

impl Wanted {
    /// Reads CHANNEL: a code in any spelling, its nameplate, or a path (which holds a `/`).
    ///
    /// # Errors
    /// [`FindError::NotAChannel`].
    pub fn parse(channel: &str) -> Result<Self, FindError> {
        if channel.contains('/') {
            return Ok(Self::Dir(PathBuf::from(channel)));
        }
        let channel = channel.trim();
        let digits = channel.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > MAX_NAMEPLATE {
            return Err(FindError::NotAChannel);
        }
        Ok(Self::Nameplate(channel[..digits].to_owned()))
    }

    fn fits(&self, channel: &Channel, cwd: &Path) -> bool {
        match self {
            Self::Nameplate(nameplate) => channel.nameplate == *nameplate,
            Self::Dir(dir) => cwd.join(dir).canonicalize().is_ok_and(|dir| dir == channel.dir),
        }
    }
}

/// What was typed, less the words of a code.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nameplate(nameplate) => f.write_str(nameplate),
            Self::Dir(dir) => dir.display().fmt(f),
        }
    }
}

/// The one living channel of the list that is meant. With both ends on one machine it is the end in whose directory the
/// caller stands, else the one that was started where the caller stands; `role` decides before that. Where an end was started
/// there that has ended since, no other one is meant by its number.
///
/// # Errors
/// [`FindError`]: none, or several.
pub fn find(
    channels: &[Channel],
    channel: &str,
    role: Option<Role>,
    cwd: &Path,
) -> Result<Channel, FindError> {
    let wanted = Wanted::parse(channel)?;
    let has_role = |channel: &&Channel| role.is_none_or(|role| role == channel.role);
    let living = || channels.iter().filter(|channel| channel.alive);
    let fitting: Vec<&Channel> =
        living().filter(has_role).filter(|channel| wanted.fits(channel, cwd)).collect();
    let inside = fitting.iter().filter(|channel| cwd.starts_with(&channel.dir));
    let started_here = fitting.iter().filter(|channel| channel.cwd == cwd);
    if let Some(&one) = only(inside) {
        return Ok(one.clone());
    }
    let all = || fitting.iter().copied().cloned().collect();
    match only(fitting.iter()).or_else(|| only(started_here)) {
        Some(&one) => match ended_here(channels.iter().filter(has_role), &wanted, cwd) {
            Some(ended) => Err(FindError::Ended { ended: Box::new(ended.clone()), living: all() }),
            None => Ok(one.clone()),
        },
        None if fitting.is_empty() => {
            Err(FindError::None { wanted: wanted.to_string(), running: living().cloned().collect() })
        }
        None => Err(FindError::Several { dirs: fitting.iter().map(|channel| channel.dir.clone()).collect() }),
    }
}

/// The end of the number that is wanted which was started where the caller stands, and has ended.
fn ended_here<'a>(
    mut channels: impl Iterator<Item = &'a Channel>,
    wanted: &Wanted,
    cwd: &Path,
) -> Option<&'a Channel> {
    let Wanted::Nameplate(nameplate) = wanted else { return None };
    channels.find(|channel| !channel.alive && channel.nameplate == *nameplate && channel.cwd == cwd)
}

fn only<T>(mut of: impl Iterator<Item = T>) -> Option<T> {
    let first = of.next()?;
    of.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(nameplate: &str, role: Role, dir: &str, cwd: &str) -> Channel {
        Channel {
            socket: PathBuf::new(),
            nameplate: nameplate.into(),
            role,
            dir: dir.into(),
            pid: 1,
            cwd: cwd.into(),
            started: String::new(),
            transport: "relay".into(),
            alive: true,
        }
    }

    #[test]
    fn a_code_is_its_nameplate_in_any_spelling() {
        for text in [
            "9471",
            "9471-cross-clock-marble",
            " 9471 CROSS clock Marble ",
            "9471crossclockmarble",
            "9471-x@host",
        ] {
            assert_eq!(Wanted::parse(text), Ok(Wanted::Nameplate("9471".into())), "{text}");
        }
        for text in ["", "-", "cross-clock", "host", "-9471", "12345678901"] {
            assert_eq!(Wanted::parse(text), Err(FindError::NotAChannel), "{text}");
        }
        assert_eq!(Wanted::parse("./9471"), Ok(Wanted::Dir("./9471".into())));
    }

    #[test]
    fn the_end_started_here_is_meant() {
        let list = [
            channel("1", Role::Host, "/r/1-host", "/a"),
            channel("1", Role::Peer, "/r/1-peer", "/b"),
            channel("2", Role::Host, "/r/2-host", "/a"),
        ];
        let dir = |channel, role, cwd| {
            find(&list, channel, role, Path::new(cwd)).map(|found| found.dir.display().to_string())
        };
        assert_eq!(dir("1", None, "/a").unwrap(), "/r/1-host");
        assert_eq!(dir("1", None, "/b").unwrap(), "/r/1-peer");
        assert_eq!(dir("1", Some(Role::Peer), "/a").unwrap(), "/r/1-peer");
        assert_eq!(dir("1", None, "/r/1-peer/outbox").unwrap(), "/r/1-peer");
        assert_eq!(dir("2", None, "/c").unwrap(), "/r/2-host");
        assert_eq!(
            dir("1", None, "/c"),
            Err(FindError::Several { dirs: vec!["/r/1-host".into(), "/r/1-peer".into()] })
        );
        assert!(dir("1", None, "/c").unwrap_err().to_string().contains("\n  /r/1-peer"));
    }

    #[test]
    fn a_number_means_no_other_end_where_the_callers_own_has_ended() {
        let ended = |role, cwd| Channel { alive: false, ..channel("1", role, "/r/1-was", cwd) };
        let peer = channel("1", Role::Peer, "/r/1-peer", "/b");
        let list = [ended(Role::Host, "/a"), peer.clone()];
        let found = |list: &[Channel], channel, role, cwd| {
            find(list, channel, role, Path::new(cwd)).map(|found| found.dir.display().to_string())
        };
        let why = found(&list, "1-cross-clock-marble", None, "/a").unwrap_err();
        assert!(matches!(why, FindError::Ended { .. }), "{why:?}");
        assert_eq!(
            why.to_string(),
            "the end of channel 1 that was started in this directory has ended (host /r/1-was); if another one is meant, add \
             --role peer, or give its directory:\n  peer /r/1-peer"
        );
        // Where it is said, or the directory decides it.
        assert_eq!(found(&list, "1", Some(Role::Peer), "/a").unwrap(), "/r/1-peer");
        for cwd in ["/b", "/c", "/r/1-peer/outbox"] {
            assert_eq!(found(&list, "1", None, cwd).unwrap(), "/r/1-peer");
        }
        // Both were started there, and there it was `--role` that told them apart.
        let list = [ended(Role::Host, "/b"), peer.clone()];
        assert!(matches!(found(&list, "1", None, "/b"), Err(FindError::Ended { .. })));
        // Another channel of the same number and role.
        let list = [ended(Role::Peer, "/a"), peer];
        let why = found(&list, "1", Some(Role::Peer), "/a").unwrap_err().to_string();
        assert!(why.contains("meant, give its directory:\n  peer /r/1-peer"), "{why}");
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let dead = Channel { alive: false, ..channel("1", Role::Host, "/r/1-host", "/a") };
        let list = [dead, channel("2", Role::Host, "/r/2-host", "/a")];
        let error = find(&list, "1-cross-clock", None, Path::new("/a")).unwrap_err().to_string();
        assert_eq!(error, "no channel 1 is running here; these are:\n  2 host /r/2-host");
        let error = find(&[], "1", None, Path::new("/a")).unwrap_err().to_string();
        assert_eq!(
            error,
            "no channel 1 is running here; no channel is: start one with `agent-wormhole host`"
        );
    }

    #[test]
    fn a_directory_names_its_channel() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().canonicalize().unwrap();
        let list =
            [channel("1", Role::Host, dir.to_str().unwrap(), "/a"), channel("1", Role::Peer, "/r", "/a")];
        let found = find(&list, &format!("{}/", dir.display()), None, Path::new("/")).unwrap();
        assert_eq!(found.role, Role::Host);
        let found = find(&list, "./", None, &dir).unwrap();
        assert_eq!(found.role, Role::Host);
    }
}
