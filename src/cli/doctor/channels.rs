//! Channels of this machine: those that are open, and what dead ones left.
//!
//! Owns what is said of them. Sweeps as every command does, and touches nothing else.

use std::path::Path;

use agent_wormhole_mount::mounts::{self, Mounted};

use super::finding::Finding;
use crate::cli::status::{self, Row, Standing};
use crate::event::escape::shell_word;
use crate::rundir::{RundirError, RuntimeDir, Swept};

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// What dead owners left.
    swept: Vec<Swept>,
    /// Mounts of ours that no channel of the list has and no process serves.
    orphans: Vec<Mounted>,
    /// Channels whose owners live, less this process's own trial.
    open: Vec<Row>,
}

/// Sweeps and asks each channel.
///
/// # Errors
/// Where the list cannot be read.
pub(super) fn look(runtime: &RuntimeDir) -> Result<Found, RundirError> {
    let swept = runtime.sweep();
    let listed = runtime.list()?;
    let mounted = mounts::list().unwrap_or_default().into_iter();
    let is_listed = |found: &Mounted| listed.iter().any(|channel| channel.dir == found.path);
    let user = rustix::process::geteuid().as_raw();
    let orphans = mounted.filter(|found| is_orphan(found, user) && !is_listed(found)).collect();
    let ours = std::process::id();
    let open = listed.into_iter().filter(|channel| channel.alive && channel.pid != ours).collect();
    Ok(Found { swept, orphans, open: status::read(open) })
}

/// Whether a mount is one of ours whose process is gone, and this user's: another user may mount what looks like one, at a
/// path of their choice, and what is said of it would be their words.
fn is_orphan(found: &Mounted, user: u32) -> bool {
    found.fstype == mounts::FSTYPE && found.owner == Some(user) && is_dead(&found.source)
}

/// Whether the process that a mount is named after is gone: `agent-wormhole:NAMEPLATE-ROLE:PID`.
fn is_dead(source: &str) -> bool {
    let owner = source.rsplit(':').next().and_then(|pid| pid.parse::<u32>().ok());
    owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

impl Found {
    pub(super) fn verdict(&self) -> [Finding; 2] {
        [self.stale(), self.living()]
    }

    fn stale(&self) -> Finding {
        let (left, gone): (Vec<&Swept>, Vec<&Swept>) =
            self.swept.iter().partition(|swept| swept.left.is_some());
        let words = |swept: &&Swept| {
            let why = swept.left.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{} of process {}{why}", swept.dir.display(), swept.owner)
        };
        let removed = gone.iter().map(words).collect::<Vec<_>>().join(", ");
        let stuck =
            left.iter().map(words).chain(self.orphans.iter().map(|mount| mount.path.display().to_string()));
        let stuck: Vec<String> = stuck.collect();
        let paths = left
            .iter()
            .map(|swept| swept.dir.as_path())
            .chain(self.orphans.iter().map(|mount| mount.path.as_path()));
        let paths: Vec<String> = paths.map(|path| shell_word(&path.to_string_lossy())).collect();
        match (removed.as_str(), stuck.as_slice()) {
            ("", []) => Finding::ok("stale", "no channel that was killed has left anything"),
            (removed, []) => {
                Finding::ok("stale", format!("removed what was left of killed channels: {removed}"))
            }
            (_, stuck) => Finding::warn(
                "stale",
                format!("left of killed channels, and not removed: {}", stuck.join(", ")),
                format!(
                    "fusermount3 -uz {0} (root: umount -l {0}), then remove the directory",
                    paths.join(" ")
                ),
            ),
        }
    }

    fn living(&self) -> Finding {
        let words = |row: &Row| format!("{} {} {}", row.nameplate, row.role, row.state.as_str());
        let all = self.open.iter().map(words).collect::<Vec<_>>().join(", ");
        let hanging = self.open.iter().filter(|row| matches!(row.state, Standing::Hangs));
        let hanging: Vec<String> = hanging.map(|row| row.pid.to_string()).collect();
        match (all.as_str(), hanging.as_slice()) {
            ("", _) => Finding::ok("channels", "none is open"),
            (all, []) => Finding::ok("channels", all),
            (all, pids) => Finding::warn(
                "channels",
                all,
                format!("a process is stopped or hangs; `kill -CONT {}` lets it go on", pids.join(" ")),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn swept(left: Option<&str>) -> Swept {
        Swept { dir: "/r/1-host".into(), owner: 7, left: left.map(std::io::Error::other) }
    }

    #[test]
    fn what_was_left_is_told_with_its_owner_and_what_stays_with_the_way_out() {
        let found = |swept, orphans| Found { swept, orphans, open: Vec::new() };
        let [nothing, none] = found(Vec::new(), Vec::new()).verdict();
        assert_eq!((nothing.state, none.state), (State::Ok, State::Ok));
        let [gone, _] = found(vec![swept(None)], Vec::new()).verdict();
        assert!(gone.state == State::Ok && gone.detail.ends_with("/r/1-host of process 7"), "{gone:?}");
        let [stays, _] = found(vec![swept(Some("busy"))], Vec::new()).verdict();
        assert!(stays.state == State::Warn && stays.detail.contains("(busy)"), "{stays:?}");
        let orphan = Mounted {
            path: "/r/2-peer".into(),
            source: "agent-wormhole:2-peer:4000000000".into(),
            fstype: mounts::FSTYPE.into(),
            device: (0, 1),
            owner: Some(1000),
        };
        assert!(is_orphan(&orphan, 1000));
        assert!(!is_orphan(&orphan, 1001), "another user's");
        assert!(!is_orphan(&Mounted { owner: None, ..orphan.clone() }, 1000), "nobody knows whose");
        assert!(is_dead(&orphan.source));
        assert!(!is_dead(&format!("agent-wormhole:2-peer:{}", std::process::id())));
        assert!(!is_dead("sshfs"));
        let [orphaned, _] = found(Vec::new(), vec![orphan.clone()]).verdict();
        assert!(orphaned.advice.unwrap().contains("umount -l /r/2-peer)"));
        let odd = Mounted { path: "/r/it's; a $(word)".into(), ..orphan };
        let [orphaned, _] = found(Vec::new(), vec![odd]).verdict();
        assert!(orphaned.advice.unwrap().contains(r"umount -l '/r/it'\''s; a $(word)')"));
    }
}
