//! The examples: each run as it stands, on a mounted and on a real directory, and nothing of it is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::detach::Background;
use crate::fixture::blocks::shell;
use crate::fixture::content::noise;
use crate::fixture::process::{Ended, Process};
use crate::fixture::watch;
use crate::fixture::world::{Via, World};
use crate::programs::node_modules;
use crate::python::interpreter;

/// How a channel's directory is made.
const MOUNTS: [&str; 2] = ["fuse", "dir"];
/// Most lines of an example that is to be read.
const MAX_LINES: usize = 60;
/// Longest that an example may take.
const MINUTE: Duration = Duration::from_secs(60);
/// What is run, or shown to a reader, in other ways: `day` runs the first, and here is the second with less to send; the third
/// measures relays.
const OTHERS: [&str; 3] = ["agents-day.sh", "demo.sh", "relay-load"];
/// The examples that are for reading.
const EXAMPLES: [&str; 6] = [
    "api-key.sh",
    "checksums.js",
    "ci-to-laptop.sh",
    "no-network.sh",
    "pair-programming.sh",
    "review_handoff.py",
];

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// Holds if it ended well, in time, and left nothing.
fn well(world: &World, name: &str, start: Instant, ended: &Ended) {
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{name}: {ended:?}");
    println!("{name}: {:?}", start.elapsed());
    assert!(start.elapsed() < MINUTE, "{name}: {:?}", start.elapsed());
    // Its channels may still be taking themselves away.
    let channels = world.runtime().join("channels");
    watch::until("the end of all channels", &channels, || {
        fs::read_dir(&channels).unwrap().next().is_none().then_some(())
    });
    world.is_clean();
    let left: Vec<_> = fs::read_dir(world.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{name} leaves {left:?}");
}

/// Runs a script as a user does, with both kinds of directory, and hands over what it prints.
fn script(name: &str, look: impl Fn(&[String])) {
    for mount in MOUNTS {
        println!("with {mount}");
        let world = World::new();
        let _killed_at_the_end = Background { world: &world };
        let start = Instant::now();
        let mut command = shell(&world, &world.path("home"), &format!("exec '{}'", example(name).display()));
        command.env("AGENT_WORMHOLE_MOUNT", mount);
        let ended = Process::spawn(command).finish();
        look(&ended.out);
        well(&world, name, start, &ended);
    }
}

/// Runs a watcher beside the peer's end, hands it files, and waits for what it sends back: (sent, answer, what is in it).
fn watcher(name: &str, command: impl Fn(&World) -> Command, files: &[(&str, &[u8], &str, &str)]) {
    for mount in MOUNTS {
        println!("with {mount}");
        let world = World::new();
        let start = Instant::now();
        let mut pair = world.pair_on(Via::Local, mount);
        // The first is there before the watcher is.
        pair.host.put(files[0].0, files[0].1);
        pair.peer.item(files[0].0);
        let mut watching = command(&world);
        watching.arg(example(name)).arg(&pair.peer.dir);
        let mut watching = Process::spawn(watching);
        for (sent, content, answer, said) in files {
            if *sent != files[0].0 {
                pair.host.put(sent, content);
            }
            pair.host.item(answer);
            let text = fs::read_to_string(pair.host.inbox(answer)).unwrap();
            assert!(text.contains(said), "{answer}: {text}");
        }
        // An end that closes right after an item has come may be gone before the receipt is: its sender then cannot know.
        world.flush(&pair.peer);
        // It ends because the other end does; its own end is closed by whoever opened it.
        pair.host.ctl("close");
        let ended = watching.finish();
        assert_eq!(ended.out.len(), files.len(), "each once: {ended:?}");
        pair.host.finish().well();
        pair.peer.ctl("close");
        pair.peer.finish().well();
        well(&world, name, start, &ended);
    }
}

#[test]
fn each_example_is_short_says_what_it_is_and_has_a_test() {
    let dir = example("");
    let mut names: Vec<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !OTHERS.contains(&name.as_str()) && name != "README.md");
    names.sort();
    assert_eq!(names, EXAMPLES);
    let list = fs::read_to_string(dir.join("README.md")).unwrap();
    for name in names {
        let text = fs::read_to_string(dir.join(&name)).unwrap();
        let lines = text.lines().count();
        assert!(lines < MAX_LINES, "{name} has {lines} lines");
        assert!(text.lines().nth(1).unwrap().starts_with(['#', '/', '"']), "{name} does not say what it is");
        assert!(text.lines().take(20).any(|line| line.contains(&name)), "{name} does not say how it is run");
        assert!(list.contains(&format!("[{name}]({name})")), "{name} is not in the list");
    }
    for name in OTHERS {
        assert!(list.contains(&format!("[{name}]({name}")), "{name} is not in the list");
    }
}

#[test]
fn pair_programming() {
    script("pair-programming.sh", |told| {
        let expected = [
            "author: the tester asks: Whom does it greet when nobody is named?",
            "author: the tester says: failed: it says 'Hello, !' when nobody is named",
            "author: the tester says: passed",
        ];
        assert_eq!(told, expected);
    });
}

#[test]
fn an_api_key_goes_to_one_command() {
    script("api-key.sh", |told| {
        let [event, deployed, again] = told else { panic!("{told:#?}") };
        assert!(event.starts_with("server: the event is {\"type\":\"secret\",\"from\":\"peer\""), "{event}");
        assert!(event.ends_with("\"name\":\"API_KEY\",\"length\":\"17-64\""), "{event}");
        assert_eq!(deployed, "deployed with a key of 27 characters: [secret API_KEY]");
        assert_eq!(again, "server: a second time ends with 4");
    });
}

#[test]
fn a_sandbox_without_network() {
    script("no-network.sh", |told| {
        let expected = ["interfaces in the sandbox: lo; routes: 0", "connect: 4", "the sandbox says: 5050"];
        assert_eq!(told, expected);
    });
}

#[test]
fn a_ci_job_hands_its_log_and_what_it_built_to_a_laptop() {
    script("ci-to-laptop.sh", |told| {
        let expected = [
            "the job succeeded",
            "its log: compiling part 1",
            "its log: compiling part 2",
            "its log: compiling part 3",
            "part-1",
            "part-2",
            "part-3",
        ];
        assert_eq!(told, expected);
    });
}

#[test]
fn a_review_hand_off_with_watchdog() {
    let files: [(&str, &[u8], &str, &str); 3] = [
        ("early.diff", b"+++ b/x\n+fine\n", "early.review.md", "1 lines added. Nothing to complain of."),
        ("late.diff", b"+spaces \n", "late.review.md", "- ends with spaces: `spaces`"),
        ("last.diff", b"-gone\n+\xff\n", "last.review.md", "1 lines added."),
    ];
    watcher("review_handoff.py", |world| world.command_of(interpreter().to_str().unwrap(), &[]), &files);
}

#[test]
fn checksums_with_chokidar() {
    let large = noise(5, 3_000_000);
    let sum = {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(&large);
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "  large.bin\n"
    };
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty\n";
    let files =
        [("large.bin", &large[..], "large.bin.sha256", sum.as_str()), ("empty", b"", "empty.sha256", empty)];
    let node = |world: &World| {
        let mut command = world.command_of("node", &[]);
        command.env("NODE_PATH", node_modules());
        command
    };
    watcher("checksums.js", node, &files);
}

#[test]
fn the_demo_with_less_to_send() {
    for mount in MOUNTS {
        let world = World::new();
        let start = Instant::now();
        let mut command = world.command_of("bash", &[example("demo.sh").to_str().unwrap()]);
        command.env("BIN", env!("CARGO_BIN_EXE_agent-wormhole")).env("MOUNT", mount);
        command.env("DEMO_BYTES", "8388608").env("DEMO_FILES", "60");
        let ended = Process::spawn(command).finish();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        println!("demo.sh with {mount}: {:?}", start.elapsed());
    }
}
