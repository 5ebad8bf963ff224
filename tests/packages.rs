//! What `make packages` builds, as far as it can be looked at without a release build: the metadata of all formats agree, the
//! files they name exist, the manual is one that `mandoc` reads, and the npm command hands over to the program.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The program as it is tested.
const PROGRAM: &str = env!("CARGO_BIN_EXE_agent-wormhole");
/// No command here takes this long.
const LONG: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn toml(path: &str) -> toml::Table {
    text(path).parse().unwrap()
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&text(path)).unwrap()
}

fn strings(value: &toml::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

/// Name, version, description, licence and keywords, as Cargo has them.
fn own() -> (&'static str, &'static str, &'static str, String, Vec<String>) {
    let cargo = toml("Cargo.toml");
    let licence = cargo["workspace"]["package"]["license"].as_str().unwrap().to_owned();
    let keywords = strings(&cargo["package"]["keywords"]).into_iter().map(str::to_owned).collect();
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    (name, version, env!("CARGO_PKG_DESCRIPTION"), licence, keywords)
}

#[test]
fn the_wheel_is_called_and_described_as_the_crate() {
    let (name, _, _, licence, keywords) = own();
    let python = toml("pyproject.toml");
    let project = &python["project"];
    assert_eq!(project["name"].as_str(), Some(name));
    // What is dynamic is read from Cargo.toml.
    assert_eq!(strings(&project["dynamic"]), ["version", "description"]);
    assert_eq!(project["license"].as_str(), Some(&*licence));
    assert_eq!(strings(&project["keywords"]), keywords);
    assert_eq!(python["tool"]["maturin"]["bindings"].as_str(), Some("bin"));
    for file in strings(&project["license-files"]).into_iter().chain(project["readme"].as_str()) {
        assert!(root().join(file).is_file(), "{file}");
    }
}

#[test]
fn the_npm_package_is_called_and_described_as_the_crate() {
    let (name, version, description, licence, keywords) = own();
    let npm = json("packaging/npm/package.json");
    assert_eq!((npm["name"].as_str(), npm["version"].as_str()), (Some(name), Some(version)));
    assert_eq!((npm["description"].as_str(), npm["license"].as_str()), (Some(description), Some(&*licence)));
    assert_eq!(npm["keywords"], serde_json::json!(keywords));
    let command = npm["bin"][name].as_str().unwrap();
    assert!(root().join("packaging/npm").join(command).is_file(), "{command}");
    // Nothing is run, and so nothing downloaded, when it is installed.
    assert!(npm.get("scripts").is_none());
    let plugin = json("skill/.claude-plugin/plugin.json");
    assert_eq!((plugin["name"].as_str(), plugin["version"].as_str()), (Some(name), Some(version)));
    assert_eq!(plugin["license"].as_str(), Some(&*licence));
}

#[test]
fn the_debian_package_is_this_version_and_its_files_exist() {
    let (name, version, ..) = own();
    let changelog = text("packaging/deb/changelog");
    assert!(changelog.starts_with(&format!("{name} ({version}-1) ")), "{changelog}");
    let cargo = toml("Cargo.toml");
    let deb = &cargo["package"]["metadata"]["deb"];
    assert!(changelog.contains(&format!("\n -- {}  ", deb["maintainer"].as_str().unwrap())), "{changelog}");
    let licence = text("LICENSE");
    let owner = licence.lines().find_map(|line| line.strip_prefix("Copyright (c) ")).unwrap();
    assert_eq!(deb["copyright"].as_str(), Some(owner));
    let build = text("packaging/build.sh");
    for asset in deb["assets"].as_array().unwrap() {
        let source = strings(asset)[0];
        match source.strip_prefix("target/release/packaging/") {
            Some(made) => {
                let stem = made.trim_end_matches("/*.1.gz");
                let stem = stem.strip_prefix("agent-wormhole.").unwrap_or(stem);
                assert!(build.contains(stem), "build.sh does not make {source}");
            }
            None => assert!(
                source == "target/release/agent-wormhole" || root().join(source).is_file(),
                "{source}"
            ),
        }
    }
}

#[test]
fn what_registries_show_has_no_link_into_this_repository() {
    let shown = text("packaging/README.md");
    assert!(
        !shown.contains("](") || shown.split("](").skip(1).all(|link| link.starts_with("https://")),
        "{shown}"
    );
    for line in shown.lines().filter(|line| line.starts_with("$ agent-wormhole ")) {
        let command = line.split_whitespace().nth(2).unwrap();
        let help = Command::new(PROGRAM).args([command, "--help"]).output().unwrap();
        assert!(help.status.success(), "{line}");
    }
}

#[test]
fn the_manual_is_one_that_mandoc_reads_without_a_complaint() {
    let place = tempfile::tempdir().unwrap();
    let wrote = Command::new(PROGRAM).args(["man", "--dir"]).arg(place.path()).output().unwrap();
    assert!(wrote.status.success(), "{wrote:?}");
    let mut pages: Vec<PathBuf> =
        fs::read_dir(place.path()).unwrap().map(|page| page.unwrap().path()).collect();
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        let name = page.file_stem().unwrap().to_str().unwrap();
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page).output();
        let lint = String::from_utf8(lint.expect("mandoc runs: make needs").stdout).unwrap();
        // A page has no date: the same source makes the same page. And where clap_mangen lists the values of a flag, it
        // breaks a line that is broken already, which changes nothing.
        let expected =
            |line: &str| line.contains("missing date") || line.contains("skipping paragraph macro: br");
        let complaints: Vec<&str> = lint.lines().filter(|line| !expected(line)).collect();
        assert_eq!(complaints, [""; 0], "{name}");
        let read = Command::new("mandoc").args(["-T", "ascii"]).arg(&page).output().unwrap();
        assert!(read.status.success() && !read.stdout.is_empty(), "{name}");
    }
}

#[test]
fn a_page_is_printed_and_one_that_there_is_not_names_those_that_there_are() {
    let man = |args: &[&str]| Command::new(PROGRAM).arg("man").args(args).output().unwrap();
    for (args, title) in [
        (&[][..], "AGENT-WORMHOLE"),
        (&["wait"], "AGENT-WORMHOLE-WAIT"),
        (&["relay", "healthcheck"], "AGENT-WORMHOLE-RELAY-HEALTHCHECK"),
    ] {
        let page = String::from_utf8(man(args).stdout).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let head = format!(".TH \"{title}\" \"1\" \"\" \"agent-wormhole {version}\" \"User Commands\"\n");
        assert!(page.starts_with(&head), "{args:?}: {page}");
    }
    let none = man(&["dance"]);
    assert_eq!(none.status.code(), Some(2));
    let why = String::from_utf8(none.stderr).unwrap();
    assert!(why.contains("relay-healthcheck") && why.contains("wait"), "{why}");
}

/// The npm packages as npm lays them out, with the program as it is tested.
struct Installed {
    place: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let command = place.path().join("node_modules/agent-wormhole/bin");
        fs::create_dir_all(&command).unwrap();
        let launcher = root().join("packaging/npm/bin/agent-wormhole.js");
        fs::copy(launcher, command.join("agent-wormhole.js")).unwrap();
        fs::create_dir(place.path().join("run")).unwrap();
        Self { place }
    }

    /// The package of this platform, too.
    fn with_program(self) -> Self {
        let cpu = if cfg!(target_arch = "x86_64") { "x64" } else { "arm64" };
        let program = self.place.path().join(format!("node_modules/@agent-wormhole/linux-{cpu}/bin"));
        fs::create_dir_all(&program).unwrap();
        std::os::unix::fs::symlink(PROGRAM, program.join("agent-wormhole")).unwrap();
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("node");
        command.arg(self.place.path().join("node_modules/agent-wormhole/bin/agent-wormhole.js")).args(args);
        command.current_dir(self.place.path()).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.place.path().join("run"));
        command.env("HOME", self.place.path()).env("XDG_CONFIG_HOME", self.place.path());
        command.env_remove("XDG_DATA_HOME").env_remove("AGENT_WORMHOLE_RELAY_URL");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

/// A process that ends with this, and everything that it has started with it.
struct Running {
    process: Child,
    done: Option<Sender<()>>,
    watch: Option<JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let process = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let group = Pid::from_child(&process);
        let (done, told) = channel::<()>();
        let watch = std::thread::spawn(move || {
            if told.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
        Self { process, done: Some(done), watch: Some(watch) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
        self.done.take();
        let _ = self.watch.take().map(JoinHandle::join);
    }
}

#[test]
fn the_npm_command_is_the_program_to_whoever_calls_it() {
    let installed = Installed::new().with_program();
    let version = installed.run(&["--version"]);
    assert_eq!(version.stdout, format!("agent-wormhole {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    let direct = Command::new(PROGRAM).args(["status", "a b"]).output().unwrap();
    let through = installed.run(&["status", "a b"]);
    assert_eq!(
        (through.status.code(), through.stdout, through.stderr),
        (Some(2), direct.stdout, direct.stderr)
    );
}

#[test]
fn a_signal_to_the_npm_command_ends_the_channel_as_one_to_the_program_does() {
    let installed = Installed::new().with_program();
    for (signal, exit) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        let mut host = Running::start(installed.command(&["host", "--mount", "dir", "--json"]));
        let mut events = BufReader::new(host.process.stdout.take().unwrap()).lines();
        let opened: serde_json::Value = serde_json::from_str(&events.next().unwrap().unwrap()).unwrap();
        let mailbox = PathBuf::from(opened["mount"].as_str().unwrap());
        assert!(mailbox.join("outbox").is_dir());
        kill_process(Pid::from_child(&host.process), signal).unwrap();
        let last = events.map(Result::unwrap).last().unwrap();
        assert!(last.contains("\"event\":\"closed\""), "{last}");
        assert_eq!(host.process.wait().unwrap().code(), Some(exit), "{signal:?}");
        assert!(!mailbox.exists(), "{signal:?}");
    }
}

#[test]
fn the_npm_command_without_the_program_says_what_to_do() {
    let output = Installed::new().run(&["host"]);
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{why}");
    assert!(why.contains("@agent-wormhole/linux-") && why.contains("--omit=optional"), "{why}");
}
