//! The shape of the house: facts about the dependency graph and the source that CONTRIBUTING.md promises.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Longest source file in lines.
const MAX_LINES: usize = 600;
/// Crates of ciphers and key exchanges: none may be in the relay.
const CIPHERS: [&str; 4] = ["spake2", "aes-gcm", "aes", "chacha20poly1305"];
/// What the session may not touch: it decides, and everything else comes in as an argument.
const OUTSIDE_WORLD: [&str; 8] = [
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "crate::transport",
];
/// Calls that cannot fail, with what they say about it.
const CANNOT_FAIL: [(&str, &str); 3] = [
    ("src/crypto/resume.rs", "HMAC takes any key length"),
    // HKDF gives up to 255 outputs of its hash; a key is one.
    ("src/crypto/schedule.rs", "32 bytes can be expanded"),
    // AES-GCM takes 64 GiB at once; a frame has 10 MiB at most.
    ("src/crypto/seal.rs", "a frame is short enough"),
];
/// The rooms of the root crate, from the top down. A room may use only rooms of lower floors.
const FLOORS: [(&str, u8); 14] = [
    ("main", 5),
    ("cli", 4),
    ("channel", 3),
    ("session", 2),
    ("transport", 2),
    ("event", 2),
    ("rundir", 2),
    ("config", 2),
    ("follow", 2),
    ("skill", 2),
    ("crypto", 1),
    ("frame", 1),
    ("item", 1),
    ("code", 1),
];
/// Rooms that may use a room of their own floor: the list of channels writes the words of an event, and a relay's address
/// is read in one place. What fails on the way is named as an event names it, and what it says goes through the one escaper.
const SAME_FLOOR: [(&str, &str); 3] = [("rundir", "event"), ("config", "transport"), ("transport", "event")];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The dependency graph of this platform, from what is already here.
fn metadata() -> Metadata {
    let rustc = std::process::Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--offline", "--locked", "--filter-platform", host].map(String::from))
        .exec()
        .unwrap()
}

fn package<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    metadata.packages.iter().find(|package| package.name.as_str() == name).unwrap()
}

/// Names of everything that a package is built from, itself left out.
fn tree(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let mut open = vec![package(metadata, name).id.clone()];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == id).unwrap();
        for dependency in &node.deps {
            let built_in = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            let name = metadata[&dependency.pkg].name.to_string();
            if built_in && seen.insert(name) {
                open.push(dependency.pkg.clone());
            }
        }
    }
    seen
}

/// Every Rust file under a directory of the project.
fn sources(under: &str) -> Vec<PathBuf> {
    let mut open = vec![root().join(under)];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn all_sources() -> Vec<PathBuf> {
    ["src", "mount", "relay", "examples", "tests", "benches", "fuzz"].into_iter().flat_map(sources).collect()
}

/// Name relative to the project.
fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// The lines of code of a file, comments and unit tests left out.
fn code(path: &Path) -> Vec<String> {
    if path.file_stem().is_some_and(|stem| stem == "tests") || path.iter().any(|part| part == "tests") {
        return Vec::new();
    }
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect()
}

/// The room of a file of the root crate: `src/cli/args.rs` is in `cli`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Rooms that a file uses: `crate::room` anywhere, `agent_wormhole::room` in main.rs, `{…}` lists included.
fn used_rooms(path: &Path) -> BTreeSet<String> {
    let text = code(path).join("\n");
    let mut used = BTreeSet::new();
    for prefix in ["crate::", "agent_wormhole::"] {
        for (at, _) in text.match_indices(prefix) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &text[at + prefix.len()..];
            let word = |text: &str| -> String {
                text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
            };
            if let Some(list) = rest.strip_prefix('{') {
                used.extend(list.split('}').next().unwrap().split(',').map(word));
            } else {
                used.insert(word(rest));
            }
        }
    }
    used
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

#[test]
fn mount_and_relay_import_nothing_of_ours() {
    let metadata = metadata();
    for name in ["agent-wormhole-mount", "agent-wormhole-relay"] {
        for dependency in tree(&metadata, name) {
            assert!(!dependency.starts_with("agent-wormhole"), "{name} is built from {dependency}");
        }
    }
}

#[test]
fn the_relay_cannot_decrypt() {
    // That of TLS, below the websocket, is ring's: it has keys of its own and never sees ours.
    let tree = tree(&metadata(), "agent-wormhole-relay");
    for cipher in CIPHERS {
        assert!(!tree.contains(cipher), "the relay is built from {cipher}");
    }
}

#[test]
fn the_mount_has_no_cipher_of_the_wire_and_no_network() {
    let tree = tree(&metadata(), "agent-wormhole-mount");
    for name in ["spake2", "hkdf", "tokio", "tokio-tungstenite", "rustls", "socket2"] {
        assert!(!tree.contains(name), "the mount is built from {name}");
    }
}

#[test]
fn the_arrows_inside_the_root_point_down() {
    for path in sources("src") {
        let from = room(&path);
        if from == "lib" {
            continue;
        }
        let here = floor(&from).unwrap_or_else(|| panic!("{} is in no known room", name(&path)));
        for to in used_rooms(&path).iter().filter(|to| **to != from) {
            let Some(there) = floor(to) else { continue };
            let beside = SAME_FLOOR.contains(&(from.as_str(), to.as_str()));
            assert!(there < here || beside || here == 1 && there == 1, "{} uses crate::{to}", name(&path));
        }
    }
}

#[test]
fn the_session_does_no_io_and_reads_no_clock() {
    for path in sources("src").iter().filter(|path| room(path) == "session") {
        for line in code(path) {
            for outside in OUTSIDE_WORLD {
                assert!(!line.contains(outside), "{} touches {outside}: {line}", name(path));
            }
        }
    }
}

/// Files whose code names a crate.
fn files_with(crate_name: &str, under: &[&str]) -> Vec<String> {
    let uses = |path: &PathBuf| {
        code(path).iter().any(|line| {
            // Behind `::` it is a module of ours with the same name.
            let path = format!("{crate_name}::");
            let foreign = line.match_indices(&path).any(|(at, _)| !line[..at].ends_with("::"));
            foreign || line.contains(&format!("use {crate_name};"))
        })
    };
    under.iter().flat_map(|under| sources(under)).filter(uses).map(|path| name(&path)).collect()
}

#[test]
fn foreign_types_stay_in_one_place() {
    let fuser = files_with("fuser", &["src", "mount/src", "relay/src"]);
    assert!(fuser.iter().all(|file| file.starts_with("mount/src/fuse")), "{fuser:?}");
    let redis = files_with("redis", &["src", "mount/src", "relay/src"]);
    assert!(redis.iter().all(|file| file.starts_with("relay/src/exchange/redis")), "{redis:?}");
    let websocket = files_with("tokio_tungstenite", &["src", "mount/src"]);
    assert!(websocket.len() <= 1, "{websocket:?}");
    for name in ["hyper", "hyper_util", "tokio_socks"] {
        let proxy = files_with(name, &["src", "mount/src"]);
        assert_eq!(proxy, ["src/transport/relay/proxy.rs"], "{name}");
    }
}

#[test]
fn anyhow_is_for_the_command_line_only() {
    for file in files_with("anyhow", &["src", "mount/src", "relay/src"]) {
        let allowed = file.starts_with("src/cli/") || file == "src/cli.rs" || file == "relay/src/main.rs";
        assert!(allowed, "{file} uses anyhow");
    }
}

#[test]
fn one_file_prints() {
    // Spelled in halves, so that this file is not found.
    let printers = ["println", "print", "eprintln", "eprint", "dbg"].map(|word| format!("{word}!("));
    for path in ["src", "mount/src", "relay/src"].into_iter().flat_map(sources) {
        // The relay as a program of its own tells its operator where it listens.
        if ["src/cli/output.rs", "relay/src/main.rs"].contains(&name(&path).as_str()) {
            continue;
        }
        for line in code(&path) {
            for printer in &printers {
                let prints = line.contains(printer.as_str());
                assert!(!prints, "{} prints: {line}", name(&path));
            }
            let stream = line.contains("io::stdout(") || line.contains("io::stderr(");
            assert!(!stream, "{} opens a standard stream: {line}", name(&path));
        }
    }
}

#[test]
fn files_stay_small_and_are_named_after_what_they_own() {
    for path in all_sources() {
        let name = name(&path);
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines");
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let in_tests = name.starts_with("tests/") || name.contains("/tests/");
        assert!(in_tests || !["utils", "util", "helpers", "common", "misc"].contains(&stem), "{name}");
    }
}

#[test]
fn every_module_says_what_it_owns() {
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} opens without a comment", name(&path));
    }
}

#[test]
fn no_panic_on_purpose_outside_tests() {
    let words = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
    for path in ["src", "mount/src", "relay/src"].into_iter().flat_map(sources) {
        for line in code(&path) {
            for word in words {
                let excepted =
                    CANNOT_FAIL.iter().any(|(file, why)| name(&path) == *file && line.contains(why));
                assert!(excepted || !line.contains(word), "{} may panic: {line}", name(&path));
            }
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let mut reason = false;
    for line in section.lines() {
        let heading = line.starts_with("# ---");
        if line.starts_with('#') && !heading {
            reason = true;
        } else if line.trim().is_empty() || heading {
            reason = false;
        } else {
            // One reason may stand above a run of lines, or at the end of a line; ours need none.
            let ours = line.starts_with("agent-wormhole");
            assert!(reason || ours || line.contains(" # "), "without a reason: {line}");
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_named() {
    for path in ["src", "mount/src", "relay/src"].into_iter().flat_map(sources) {
        let text = fs::read_to_string(&path).unwrap();
        let blocks = code(&path).iter().filter(|line| line.contains("unsafe {")).count();
        let reasons = text.matches("SAFETY:").count();
        assert!(blocks <= reasons, "{}: {blocks} unsafe blocks, {reasons} reasons", name(&path));
    }
}
