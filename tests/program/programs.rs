//! Real programs against a mounted channel: each file that one of them saves is one item with exactly its bytes, and
//! nothing else arrives. On a mounted directory and on a real one alike, except where a test says so.

mod copies;
mod editors;
mod hanging;
mod makers;
mod writers;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fixture::content::same_tree;
use crate::fixture::end::End;
use crate::fixture::process::{Ended, Process};
use crate::fixture::world::{Pair, World};

/// How a channel's directory is made.
const MOUNTS: [&str; 2] = ["fuse", "dir"];

/// What has to be in the peer's inbox in the end.
enum Expected {
    File { name: String, bytes: Vec<u8> },
    Tree { name: String, source: PathBuf, files: usize, times: bool },
}

/// A channel whose host's outbox programs work in.
pub struct Rig {
    pub world: World,
    pub mount: &'static str,
    host: End,
    /// `None` until it has connected.
    peer: Option<End>,
    expected: Vec<Expected>,
    texts: Vec<String>,
    left_out: Vec<String>,
}

/// Tries the same with both kinds of directory.
fn both(test: impl Fn(&mut Rig)) {
    for mount in MOUNTS {
        on(mount, &test);
    }
}

/// Tries it with one of them.
fn on(mount: &'static str, test: impl Fn(&mut Rig)) {
    println!("with --mount {mount}");
    let mut rig = Rig::new(mount);
    test(&mut rig);
    rig.finish();
}

/// The path of a program, which has to be there.
pub fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is not installed; run make needs"))
}

/// Where the packages of Node are, which have to be there.
pub fn node_modules() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules");
    let modules = std::env::var_os("AGENT_WORMHOLE_NODE").map_or(built, PathBuf::from);
    for package in ["chokidar", "write-file-atomic"] {
        let dir = modules.join(package);
        assert!(
            dir.is_dir(),
            "{} is missing; run make needs, or name another place in AGENT_WORMHOLE_NODE",
            dir.display()
        );
    }
    modules
}

impl Rig {
    fn new(mount: &'static str) -> Self {
        let world = World::new();
        let host = world.host(&["--mount", mount]);
        Self { world, mount, host, peer: None, expected: Vec::new(), texts: Vec::new(), left_out: Vec::new() }
    }

    /// Lets the peer connect. What is saved over something older before that replaces it: nobody has the older.
    fn connect(&mut self) -> &mut End {
        if self.peer.is_none() {
            let mut peer = self.world.connect(&self.host.code(), &["--mount", self.mount]);
            peer.status("connected");
            self.host.status("connected");
            self.peer = Some(peer);
        }
        self.peer.as_mut().unwrap()
    }

    fn outbox(&self, name: &str) -> PathBuf {
        self.host.outbox(name)
    }

    /// A file outside of the channel.
    fn source(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.world.path("home").join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The command of a program that starts in the outbox.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.world.command_of(installed(program).to_str().unwrap(), args);
        command.current_dir(self.outbox("")).env("TERM", "xterm");
        command
    }

    /// Runs a program in the outbox to its good end.
    fn run(&self, program: &str, args: &[&str]) -> Ended {
        Self::well(self.command(program, args))
    }

    fn well(command: Command) -> Ended {
        let what = format!("{command:?}");
        let ended = Process::spawn(command).finish();
        assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
        ended
    }

    /// Runs a script of the shell in the outbox, and of it this program.
    fn sh(&self, program: &str, script: &str) {
        installed(program);
        self.world.sh(&self.outbox(""), script);
    }

    /// One file has to arrive.
    fn sends(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.expected.push(Expected::File { name: name.to_owned(), bytes: bytes.into() });
    }

    /// So many files have to arrive, which make a tree.
    fn sends_tree(&mut self, name: &str, source: &Path, files: usize, times: bool) {
        let (name, source) = (name.to_owned(), source.to_owned());
        self.expected.push(Expected::Tree { name, source, files, times });
    }

    /// One text has to arrive, after those before.
    fn says(&mut self, body: &str) {
        self.texts.push(body.to_owned());
    }

    /// A name stays in the outbox and is told as left out.
    fn leaves_out(&mut self, name: &str) {
        self.left_out.push(name.to_owned());
    }

    /// Where a file arrives, once it has.
    fn arrived(&mut self, name: &str) -> PathBuf {
        let event = self.connect().item(name);
        PathBuf::from(event["saved_to"].as_str().unwrap())
    }

    /// Waits for all that is expected, holds if nothing else is in the outbox, closes from the host's side, which sends
    /// whatever else there is, and holds if exactly what is expected has arrived.
    fn finish(mut self) {
        self.connect();
        let mut peer = self.peer.take().unwrap();
        for expected in &self.expected {
            if let Expected::File { name, .. } = expected {
                peer.item(name);
            }
        }
        self.holds_nothing_else();
        let (expected, texts) = (self.expected, self.texts);
        let files = expected.iter().map(|expected| match expected {
            Expected::File { .. } => 1,
            Expected::Tree { files, .. } => *files,
        });
        let files: usize = files.sum();
        let pair = Pair { host: self.host, peer, relay: None };
        let closed = pair.delivered(|inbox| expected.iter().for_each(|expected| expected.holds(inbox)));
        let of = |kind: &str, member: &str| -> Vec<&str> {
            let events = closed.events.iter().filter(|event| event["type"] == kind);
            events.map(|event| event[member].as_str().unwrap()).collect()
        };
        assert_eq!(of("text", "body"), texts, "texts, in their order");
        let mut names = of("file", "name");
        assert!(
            names.len() == files,
            "{} files for {files}: {:?}",
            names.len(),
            &names[..names.len().min(50)]
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), files, "each name once");
        for expected in &expected {
            if let Expected::File { name, .. } = expected {
                assert!(names.contains(&name.as_str()), "{name} in {names:?}");
            }
        }
        // An empty directory of a tree is an item, too.
        let items = closed.count(|event| event["from"] == "peer" && event["type"] != "dir");
        assert_eq!(items, files + texts.len(), "{closed:?}");
    }

    /// Holds if the outbox has nothing but what is expected, and tells as left out what is to be left out.
    fn holds_nothing_else(&self) {
        let top = |name: &str| name.split('/').next().unwrap().to_owned();
        let mut known: Vec<String> = self.left_out.iter().map(|name| top(name)).collect();
        known.extend(self.expected.iter().map(|expected| match expected {
            Expected::File { name, .. } | Expected::Tree { name, .. } => top(name),
        }));
        for entry in fs::read_dir(self.outbox("")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if ["ask", "answer", "secrets"].contains(&&*name) {
                continue;
            }
            let is_text = name == "message" || name.ends_with(".msg");
            assert!(is_text || known.contains(&name), "{name} is litter, beside {known:?}");
        }
        let listed = |state: &Value| -> Vec<String> {
            let mut names: Vec<_> = state["left_out"].as_array().unwrap().iter().collect();
            names.sort_by_key(|entry| entry["name"].as_str());
            names.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
        };
        let mut left_out = self.left_out.clone();
        left_out.sort();
        let state = self.host.until_state("what is left out", |state| listed(state).len() >= left_out.len());
        assert_eq!(listed(&state), left_out, "{state}");
    }
}

impl Expected {
    fn holds(&self, inbox: &Path) {
        match self {
            Self::File { name, bytes } => {
                let arrived = fs::read(inbox.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(arrived == *bytes, "{name} has {} bytes for {}", arrived.len(), bytes.len());
            }
            Self::Tree { name, source, times, .. } => same_tree(source, &inbox.join(name), *times),
        }
    }
}

/// Whether its owner may run a file.
fn is_executable(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o100 != 0
}
