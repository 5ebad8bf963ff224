//! Somebody who is not root, and rooms in which something is missing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fixture::end::End;
use crate::fixture::process::{Ended, Process};
use crate::fixture::world::World;

/// The user `nobody`.
pub const NOBODY: u32 = 65_534;
/// A user without a name, as in many containers.
pub const NAMELESS: u32 = 61_234;
/// Where the kernel is asked for requests.
const DEVICE: &str = "/dev/fuse";

/// Who changes the device alone does so.
static ALONE: Mutex<()> = Mutex::new(());

/// The device with another mode, until this is dropped.
pub struct Device {
    before: Permissions,
    _alone: MutexGuard<'static, ()>,
}

impl Device {
    pub fn with_mode(mode: u32) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = fs::metadata(DEVICE).unwrap().permissions();
        fs::set_permissions(DEVICE, Permissions::from_mode(mode)).unwrap();
        Self { before, _alone: alone }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        fs::set_permissions(DEVICE, self.before.clone()).unwrap();
    }
}

/// Whether these tests can be run at all: others can be tried by root only.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can be somebody else");
    }
    is_root
}

/// In which a program runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// Done as root in a mount namespace of its own before it is started; `$1` is a directory for it.
    pub setup: Option<&'static str>,
    /// Not as root, but as this user.
    pub user: Option<u32>,
    /// Under `no_new_privs`.
    pub no_new_privs: bool,
    /// The search path, where it is another one.
    pub path: Option<&'static str>,
}

/// A world that belongs to the user of its room.
pub struct Place {
    pub world: World,
    room: Room,
    program: PathBuf,
}

impl Place {
    pub fn new(room: Room) -> Self {
        let world = World::new();
        let program = world.path("home/agent-wormhole");
        // Not by this process: what another thread starts just then would have it open for writing, and it be busy.
        world.sh(&world.path("home"), &format!("cp '{}' .", env!("CARGO_BIN_EXE_agent-wormhole")));
        fs::create_dir(world.path("room")).unwrap();
        if let Some(user) = room.user {
            for part in ["", "run", "config", "home", "host", "peer", "tmp", "home/agent-wormhole"] {
                chown(world.path(part), Some(user), Some(user)).unwrap();
            }
        }
        Self { world, room, program }
    }

    /// A program in the room.
    pub fn command_of(&self, dir: &Path, args: &[&str]) -> Command {
        let mut whole = Vec::new();
        let room = self.world.path("room");
        let script = format!("{}\nshift; exec \"$@\"", self.room.setup.unwrap_or_default());
        if self.room.setup.is_some() {
            whole.extend(["unshare", "-m", "sh", "-ec", &script, "sh", room.to_str().unwrap()]);
        }
        let id = self.room.user.unwrap_or_default().to_string();
        if self.room.user.is_some() || self.room.no_new_privs {
            whole.push("setpriv");
        }
        if self.room.user.is_some() {
            whole.extend(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        if self.room.no_new_privs {
            whole.push("--no-new-privs");
        }
        let path = format!("PATH={}", self.room.path.unwrap_or_default());
        if self.room.path.is_some() {
            whole.extend(["env", &path]);
        }
        whole.extend(args);
        let mut command = self.world.command_of(whole[0], &whole[1..]);
        command.current_dir(dir).env("LC_ALL", "C");
        command
    }

    /// The program in the room, started in a directory of the world.
    pub fn command(&self, part: &str, args: &[&str]) -> Command {
        self.command_of(&self.world.path(part), &[&[self.program.to_str().unwrap()], args].concat())
    }

    pub fn host(&self, args: &[&str]) -> End {
        End::start(self.command("host", &[&["host"], args].concat()))
    }

    pub fn connect(&self, code: &str) -> End {
        End::start(self.command("peer", &["connect", code]))
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        Process::spawn(self.command("home", args)).finish()
    }

    /// Runs a shell script as the user and returns what it printed.
    pub fn sh(&self, script: &str) -> String {
        let ended =
            Process::spawn(self.command_of(&self.world.path("home"), &["/bin/sh", "-ec", script])).finish();
        assert_eq!(ended.code, Some(0), "{script}: {ended:?}");
        ended.out.join("\n")
    }

    /// What a file in a channel says.
    pub fn read(&self, path: &Path) -> String {
        self.sh(&format!("while IFS= read -r line; do printf '%s\\n' \"$line\"; done < '{}'", path.display()))
    }
}
