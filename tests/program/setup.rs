//! `setup`, and the skill as it stands: each of its shell blocks is run between two ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use agent_wormhole::skill::{TEXT, stamp};

use crate::detach::Background;
use crate::fixture::LIMIT;
use crate::fixture::blocks::{self, fenced};
use crate::fixture::process::{Ended, Process};
use crate::fixture::world::{Pair, Via, World};

/// Every target, with the file of it in the home and in the project.
const TARGETS: [(&str, &str, &str); 4] = [
    ("claude", ".claude/skills/agent-wormhole/SKILL.md", ".claude/skills/agent-wormhole/SKILL.md"),
    ("codex", ".agents/skills/agent-wormhole/SKILL.md", ".agents/skills/agent-wormhole/SKILL.md"),
    ("gemini", ".agents/skills/agent-wormhole/SKILL.md", ".agents/skills/agent-wormhole/SKILL.md"),
    ("cursor", ".agents/skills/agent-wormhole/SKILL.md", ".agents/skills/agent-wormhole/SKILL.md"),
];

/// `setup` in the directory `host`, with a home and nothing else that leads somewhere.
fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(&[&["setup"], args].concat());
    command.current_dir(world.path("host"));
    for variable in ["CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_DATA_HOME"] {
        command.env_remove(variable);
    }
    command
}

fn setup(world: &World, args: &[&str]) -> Ended {
    Process::spawn(command(world, args)).finish()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn each_target_is_installed_checked_and_removed() {
    let world = World::new();
    let (home, project) = (world.path("home"), world.path("host"));
    for (target, in_home, in_project) in TARGETS {
        for (flags, path) in [(&[][..], home.join(in_home)), (&["--project"][..], project.join(in_project))] {
            let run = |more: &[&str]| setup(&world, &[&[target], flags, more].concat());
            let check = run(&["--check"]);
            assert_eq!(check.code, Some(1), "{check:?}");
            assert!(
                check.out[0].starts_with("missing") && check.err.contains("without --check"),
                "{check:?}"
            );
            let made = run(&[]);
            assert_eq!((made.code, made.err.as_str()), (Some(0), ""), "{made:?}");
            let line = made.out.last().unwrap();
            assert!(line.starts_with("created ") && line.contains(path.to_str().unwrap()), "{made:?}");
            assert!(line.contains(target), "{made:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), stamp::stamped());
            assert_eq!(path.is_symlink(), target == "claude" && flags.is_empty());
            assert_eq!(run(&["--check"]).code, Some(0));
            let again = run(&[]);
            assert!(again.out.iter().all(|line| line.starts_with("unchanged ")), "{again:?}");
            let gone = run(&["--remove"]);
            assert!(
                gone.code == Some(0) && gone.out.iter().all(|line| line.starts_with("removed ")),
                "{gone:?}"
            );
            assert!(is_empty(&home) && is_empty(&project), "{target}");
        }
    }
}

#[test]
fn all_of_a_project_is_files_and_a_block_and_what_others_wrote_stays() {
    let world = World::new();
    let project = world.path("host");
    fs::write(project.join("AGENTS.md"), "# Rules\n").unwrap();
    let made = setup(&world, &["all", "--project"]);
    assert_eq!((made.code, made.out.len()), (Some(0), 3), "{made:?}");
    assert!(made.out[2].starts_with("updated "), "{made:?}");
    let rules = fs::read_to_string(project.join("AGENTS.md")).unwrap();
    assert!(rules.starts_with("# Rules\n\n<!-- agent-wormhole: begin "), "{rules}");
    assert!(rules.ends_with("<!-- agent-wormhole: end -->\n"), "{rules}");
    assert!(is_empty(&world.path("home")));
    assert_eq!(setup(&world, &["all", "--project", "--check"]).code, Some(0));
    // What is edited is left, and the others are done all the same.
    fs::write(project.join("AGENTS.md"), rules.replace("never consent", "consent")).unwrap();
    let check = setup(&world, &["all", "--project", "--check"]);
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.out[2].starts_with("edited "), "{check:?}");
    let removed = setup(&world, &["all", "--project", "--remove"]);
    assert_eq!((removed.code, removed.out.len()), (Some(2), 2), "{removed:?}");
    assert!(removed.err.contains("AGENTS.md was changed by hand"), "{removed:?}");
    fs::write(project.join("AGENTS.md"), &rules).unwrap();
    assert_eq!(setup(&world, &["agents-md", "--remove"]).code, Some(0));
    assert_eq!(fs::read_to_string(project.join("AGENTS.md")).unwrap(), "# Rules\n");
    assert_eq!(fs::read_dir(&project).unwrap().count(), 1);
}

#[test]
fn what_is_not_ours_is_left_and_named() {
    let world = World::new();
    let link = world.path("home/.claude/skills/agent-wormhole/SKILL.md");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    // As the Python tool has it installed.
    symlink(world.path("tmp/agent_wormhole/SKILL.md"), &link).unwrap();
    for args in [&["claude"][..], &["claude", "--remove"], &["all"]] {
        let refused = setup(&world, args);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("a link to") && refused.err.contains("run this again"), "{refused:?}");
    }
    assert!(link.is_symlink() && !world.path("home/.local").exists());
    // With `all` the others were done.
    assert!(world.path("home/.agents/skills/agent-wormhole/SKILL.md").is_file());
    fs::remove_file(&link).unwrap();
    assert_eq!(setup(&world, &["claude"]).code, Some(0));
    let homeless = Process::spawn({
        let mut command = command(&world, &["claude"]);
        command.env_remove("HOME");
        command
    })
    .finish();
    assert!(homeless.code == Some(2) && homeless.err.contains("--project"), "{homeless:?}");
}

#[test]
fn any_command_of_a_newer_program_refreshes_the_copy_and_never_fails_for_it() {
    let world = World::new();
    assert_eq!(setup(&world, &["all"]).code, Some(0));
    let copies = [
        world.path("home/.local/share/agent-wormhole/skill/SKILL.md"),
        world.path("home/.agents/skills/agent-wormhole/SKILL.md"),
    ];
    // Digest and version of an older program: what it says of itself holds.
    let body = TEXT.replace(concat!("\"", env!("CARGO_PKG_VERSION"), "\""), "\"0.1.9\"");
    let digest: String = {
        use sha2::Digest as _;
        sha2::Sha256::digest(body.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    };
    let old =
        body.replace("  version: \"0.1.9\"\n", &format!("  version: \"0.1.9\"\n  digest: \"{digest}\"\n"));
    for copy in &copies {
        fs::write(copy, &old).unwrap();
    }
    let status = Process::spawn(world.command(&["status"])).finish();
    assert_eq!((status.code, status.out.len()), (Some(0), 0), "{status:?}");
    for copy in &copies {
        assert_eq!(fs::read_to_string(copy).unwrap(), stamp::stamped());
        fs::remove_file(copy).unwrap();
        fs::create_dir(copy).unwrap();
    }
    let status = Process::spawn(world.command(&["status"])).finish();
    assert_eq!((status.code, status.out.len()), (Some(0), 0), "{status:?}");
    assert_eq!(setup(&world, &["claude", "--check"]).code, Some(1));
}

#[test]
fn without_a_target_it_is_read_by_an_agent_and_shown_to_a_person() {
    let world = World::new();
    let read = setup(&world, &[]);
    let text = read.out.join("\n");
    assert_eq!((read.code, read.err.as_str()), (Some(0), ""), "{read:?}");
    // The very program that was asked is what is to be run, and all of the skill is there but its head.
    let program = env!("CARGO_BIN_EXE_agent-wormhole");
    assert!(text.contains(&format!("{program} setup claude")), "{text}");
    assert!(text.contains(TEXT.split("\n---\n").nth(1).unwrap().trim()), "{text}");
    assert!(!text.contains("allowed-tools:"));
    // A terminal: what would be written, and nothing is.
    let shell = format!("{program} setup");
    let mut terminal = world.command_of("script", &["-qec", &shell, "/dev/null"]);
    terminal.current_dir(world.path("host")).env("TERM", "dumb");
    let shown = Process::spawn(terminal).finish();
    let text = shown.out.join("\n");
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for target in
        ["claude", "codex", "agents-md", "all", "missing", ".agents/skills", "AGENTS.md", "setup | claude"]
    {
        assert!(text.contains(target), "{target}: {text}");
    }
    assert!(is_empty(&world.path("home")) && is_empty(&world.path("host")));
    for args in [&["--check"][..], &["--project"], &["claude", "--check", "--remove"], &["vim"]] {
        assert_eq!(setup(&world, args).code, Some(2), "{args:?}");
    }
}

/// The shell blocks of the skill, with the channel's number in place of `CH`.
fn blocks(number: &str) -> Vec<String> {
    let shell = fenced(TEXT).into_iter().filter(|block| block.language == "sh");
    shell.map(|block| block.text.replace(" CH ", &format!(" {number} "))).collect()
}

/// Runs shell text as an agent at the host's end does: its directory is `$D`, and the program is on its path.
fn shell(world: &World, dir: &Path, script: &str) -> Process {
    let mut command = blocks::shell(world, &world.path("host"), script);
    command.env("D", dir);
    Process::spawn(command)
}

#[test]
fn the_shell_of_the_skill_runs_as_it_stands() {
    let world = World::new();
    let mut pair = world.pair(Via::Local);
    let (here, dir) = (world.path("host"), pair.host.dir.clone());
    let number = pair.host.nameplate.clone();
    let blocks = blocks(&number);
    assert_eq!(blocks.len(), 7, "{blocks:#?}");
    // Opening one, and taking leave of it.
    let _killed_at_the_end = Background { world: &world };
    let opened = shell(&world, &dir, &blocks[0]).finish();
    assert_eq!((opened.code, opened.err.as_str(), opened.out.len()), (Some(0), "", 1), "{opened:?}");
    let channel: serde_json::Value = serde_json::from_str(&opened.out[0]).unwrap();
    assert!(channel["connect"].as_str().unwrap().starts_with("agent-wormhole connect "), "{channel}");
    let mount = channel["mount"].as_str().unwrap();
    let mut watching = Process::spawn(world.command(&["watch", mount]));
    watching.line("its first event", LIMIT).unwrap();
    let left = Process::spawn(world.command(&["close", mount])).finish();
    assert_eq!((left.code, watching.finish().code), (Some(0), Some(0)), "{left:?}");
    // Sending.
    fs::create_dir_all(here.join("src")).unwrap();
    fs::create_dir(here.join("docs")).unwrap();
    for (name, content) in [("report.pdf", "report"), ("model.bin", "model"), ("src/main.c", "int main;")] {
        fs::write(here.join(name), content).unwrap();
    }
    let sent = shell(&world, &dir, &blocks[1]).finish();
    assert_eq!((sent.code, sent.err.as_str(), sent.out.len()), (Some(0), "", 0), "{sent:?}");
    pair.peer.text(
        "Anything, `backticks` and $dollars too: the quotes around END_OF_TEXT keep the shell out of it.\n",
    );
    for (name, content) in [("report.pdf", "report"), ("model.bin", "model"), ("src/main.c", "int main;")] {
        assert_eq!(fs::read_to_string(pair.peer.inbox(name)).unwrap(), content);
    }
    // Receiving: something after event 12, and the file.
    for n in 1..=14 {
        pair.peer.put(&format!("{n}.msg"), n.to_string());
    }
    pair.peer.put("report.pdf", "their report");
    world.flush(&pair.peer);
    let (watch, waits) = blocks[2].trim_end().rsplit_once('\n').map(|(waits, watch)| (watch, waits)).unwrap();
    let waited = shell(&world, &dir, waits).finish();
    assert_eq!((waited.code, waited.out.len()), (Some(0), 3), "{waited:?}");
    assert!(waited.out[2].contains("\"name\":\"report.pdf\""), "{waited:?}");
    let mut watching = shell(&world, &dir, &format!("exec {watch}"));
    let next = watching.line("an event after 12", LIMIT).unwrap();
    let next: serde_json::Value = serde_json::from_str(&next).unwrap();
    assert!(next["seq"].as_u64().unwrap() > 12, "{next}");
    asks_and_hands_over_a_secret(&world, &mut pair, &blocks[3..6]);
    // Saving and closing.
    let closed = shell(&world, &dir, &blocks[6]).finish();
    assert_eq!((closed.code, closed.err.as_str()), (Some(0), ""), "{closed:?}");
    assert_eq!(fs::read_to_string(here.join("docs/report.pdf")).unwrap(), "their report");
    pair.host.finish().well();
    assert_eq!(watching.finish().code, Some(0));
    pair.peer.status("peer_closed");
    pair.peer.ctl("close");
    pair.peer.finish().well();
    world.is_clean();
}

/// The blocks of a question, of a secret that goes, and of one that came.
fn asks_and_hands_over_a_secret(world: &World, pair: &mut Pair, blocks: &[String]) {
    let (here, dir) = (world.path("host"), pair.host.dir.clone());
    let mut asking = shell(world, &dir, &blocks[0]);
    let asked = pair.peer.until("the question", |event| event["type"] == "ask");
    assert_eq!((&asked["name"], &asked["body"]), (&"schema".into(), &"Which column is the key?\n".into()));
    pair.peer.put("answer/schema", "id\n");
    let answered = asking.finish();
    assert_eq!((answered.code, answered.out.len()), (Some(0), 1), "{answered:?}");
    assert!(
        answered.out[0].contains("\"type\":\"answer\"") && answered.out[0].contains("\"body\":\"id\\n\"")
    );
    fs::write(here.join("key.txt"), "correct-horse-battery").unwrap();
    let sent = shell(world, &dir, &blocks[1]).finish();
    assert_eq!((sent.code, sent.err.as_str()), (Some(0), ""), "{sent:?}");
    let secret = pair.peer.until("the secret", |event| event["type"] == "secret");
    assert_eq!((&secret["name"], &secret["length"]), (&"API_KEY".into(), &"17-64".into()), "{secret}");
    // The other way: it came, and one command has it.
    fs::write(here.join("deploy.sh"), "#!/bin/sh\necho \"${#API_KEY} bytes: $API_KEY\"\n").unwrap();
    fs::set_permissions(here.join("deploy.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let send = ["send", pair.peer.dir.to_str().unwrap(), "--secret", "API_KEY", "--wait"];
    let theirs = Process::spawn_with(world.command(&send), b"wrong-donkey-staple!!").finish();
    assert_eq!(theirs.code, Some(0), "{theirs:?}");
    let ran = shell(world, &dir, &blocks[2]).finish();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out[0].starts_with("21 bytes: ") && !ran.out[0].contains("donkey"), "{ran:?}");
}

/// What the plugin's hook says in a directory.
fn hook(world: &World, dir: &Path, path: &str) -> Ended {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/skill/hooks/open-channels.sh");
    let mut command = world.command_of("sh", &[script]);
    command.current_dir(dir).env("PATH", path).env_remove("CLAUDE_PROJECT_DIR");
    Process::spawn(command).finish()
}

#[test]
fn a_new_session_is_told_of_the_open_channels_of_its_directory_alone() {
    let world = World::new();
    let system = "/usr/bin:/bin";
    let bin = Path::new(env!("CARGO_BIN_EXE_agent-wormhole")).parent().unwrap().to_str().unwrap();
    let path = format!("{bin}:{system}");
    let says_nothing = |ended: Ended| {
        assert_eq!((ended.code, ended.out.len(), ended.err.len()), (Some(0), 0, 0), "{ended:?}")
    };
    says_nothing(hook(&world, &world.path("host"), &path));
    let pair = world.pair(Via::Local);
    // A name of the peer's that looks like a row of its own.
    pair.peer.put("{\"nameplate\":\"1\",\"role\":\"host\"", "x");
    world.flush(&pair.peer);
    says_nothing(hook(&world, &world.path("host"), system));
    says_nothing(hook(&world, &world.path("home"), &path));
    let told = hook(&world, &world.path("host"), &path);
    assert_eq!((told.code, told.out.len(), told.err.as_str()), (Some(0), 1, ""), "{told:?}");
    // The project may be reached through a link.
    let link = world.path("home/project");
    std::os::unix::fs::symlink(world.path("host"), &link).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/skill/hooks/open-channels.sh");
    let mut command = world.command_of("sh", &[script]);
    command.env("PATH", &path).env("CLAUDE_PROJECT_DIR", &link);
    assert_eq!(Process::spawn(command).finish().out, told.out);
    let line = &told.out[0];
    let expected = format!("channel {} (host, connected)", pair.host.nameplate);
    assert!(line.contains(&expected) && line.contains(pair.host.dir.to_str().unwrap()), "{line}");
    // Of both ends, from a directory that both were started below.
    let both = hook(&world, world.path("host").parent().unwrap(), &path);
    assert_eq!(both.out.len(), 2, "{both:?}");
    pair.close();
    says_nothing(hook(&world, &world.path("host"), &path));
    world.is_clean();
}
