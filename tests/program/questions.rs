//! Questions and answers between whole programs: many who ask share one channel, and each gets its own answer.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::fixture::LIMIT;
use crate::fixture::process::{Ended, Process};
use crate::fixture::world::{Via, World};

/// Who asks: each asks one question after the other and waits for its answer, as a subagent does.
const ASKERS: usize = 10;
/// Questions of each.
const ROUNDS: usize = 50;
/// The same in a real directory, where a question takes the longer way of a watcher.
const ROUNDS_DIR: usize = 10;

/// Asks `$3` questions as asker `$2` of the channel `$1`; holds if each gets its own answer.
const ASK: &str = r#"
n=0
while [ "$n" -lt "$3" ]; do
    name="asker-$2.$n"
    printf 'what is %s?' "$name" > "$1/outbox/ask/$name"
    line=$("$PROGRAM" wait "$1" --for "answer:$name" --timeout 50s)
    case "$line" in
        *'"type":"answer"'*"\"name\":\"$name\""*"\"body\":\"it is $name\""*) ;;
        *) echo "for $name came $line"; exit 1 ;;
    esac
    [ "$(cat "$1/inbox/answer/$name")" = "it is $name" ]
    n=$((n + 1))
done
"#;

/// Answers every question of the channel `$1`, one after the other, with what was asked.
const ANSWER: &str = r#"
"$PROGRAM" watch "$1" | while read -r line; do
    case "$line" in '{"type":"ask"'*) ;; *) continue ;; esac
    name=${line#*'"name":"'}
    name=${name%%'"'*}
    read -r asked < "$1/inbox/ask/$name" || true
    [ "$asked" = "what is $name?" ] || exit 1
    printf 'it is %s' "$name" > "$1/outbox/answer/$name.tmp"
    mv "$1/outbox/answer/$name.tmp" "$1/outbox/answer/$name"
done
"#;

fn shell(world: &World, script: &str, args: &[&str]) -> Process {
    let mut command = world.command_of("sh", &[&["-euc", script, "sh"], args].concat());
    command.env("PROGRAM", env!("CARGO_BIN_EXE_agent-wormhole"));
    Process::spawn(command)
}

fn wait(world: &World, dir: &Path, wanted: &str) -> Ended {
    world.run(&["wait", dir.to_str().unwrap(), "--for", wanted, "--timeout", "30s"])
}

fn share_a_channel(mount: &str, rounds: usize) {
    let world = World::new();
    let pair = world.pair_on(Via::Relay, mount);
    let (host, peer) = (pair.host.dir.to_str().unwrap(), pair.peer.dir.to_str().unwrap());
    // Both ends ask and answer, so that the same names go both ways.
    let mut answering = [shell(&world, ANSWER, &[host]), shell(&world, ANSWER, &[peer])];
    let rounds = (rounds / 2).to_string();
    let askers = |dir: &str| -> Vec<Process> {
        (0..ASKERS).map(|asker| shell(&world, ASK, &[dir, &asker.to_string(), &rounds])).collect()
    };
    for mut asker in askers(host).into_iter().chain(askers(peer)) {
        let ended = asker.finish();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    }
    pair.close();
    for answering in &mut answering {
        assert_eq!(answering.finish().code, Some(0));
    }
    world.is_clean();
}

#[test]
fn ten_subagents_share_one_mounted_channel_and_each_gets_its_own_answer() {
    share_a_channel("fuse", ROUNDS);
}

#[test]
fn ten_subagents_share_one_real_directory_and_each_gets_its_own_answer() {
    share_a_channel("dir", ROUNDS_DIR);
}

#[test]
fn a_question_and_its_answer_are_events_and_lines_of_the_transcript() {
    for mount in ["fuse", "dir"] {
        let world = World::new();
        let mut pair = world.pair_on(Via::Direct, mount);
        pair.host.put("ask/deploy", "may I\u{202e}?");
        let asked = pair.peer.until("the question", |event| event["type"] == "ask");
        let saved = pair.peer.inbox("ask/deploy");
        assert_eq!(
            (&asked["from"], &asked["name"], &asked["size"], &asked["body"], &asked["saved_to"]),
            (
                &"peer".into(),
                &"deploy".into(),
                &9.into(),
                &"may I\u{202e}?".into(),
                &saved.to_str().unwrap().into()
            )
        );
        let found = wait(&world, &pair.peer.dir, "ask");
        assert!(found.code == Some(0) && found.out[0].contains(r#""type":"ask""#), "{found:?}");
        assert_eq!(wait(&world, &pair.peer.dir, "ask:deploy").out, found.out);
        // Longer than an event: it is in the file.
        let long = "yes\n".repeat(100_000);
        pair.peer.put("answer/deploy", &long);
        let answered = wait(&world, &pair.host.dir, "answer:deploy");
        assert!(answered.code == Some(0) && !answered.out[0].contains("body"), "{answered:?}");
        assert_eq!(fs::read_to_string(pair.host.inbox("answer/deploy")).unwrap(), long);
        world.flush(&pair.peer);
        for (end, lines) in [
            (&pair.host, [r#"{"type":"ask","from":"self""#, r#"{"type":"answer","from":"peer""#]),
            (&pair.peer, [r#"{"type":"ask","from":"peer""#, r#"{"type":"answer","from":"self""#]),
        ] {
            let transcript = fs::read_to_string(end.dir.join("transcript.jsonl")).unwrap();
            for line in lines {
                assert_eq!(transcript.matches(line).count(), 1, "{line} in {transcript}");
            }
        }
        pair.close();
    }
}

#[test]
fn what_cannot_be_answered_any_more_ends_the_wait_for_it() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Direct, "dir");
    let dir = pair.host.dir.clone();
    pair.host.put("ask/x", b"\xff");
    let refused = wait(&world, &dir, "answer:x");
    assert_eq!((refused.code, refused.out.len()), (Some(6), 0), "{refused:?}");
    assert!(
        refused.err.contains("`ask/x` was refused by this end: questions and answers are UTF-8"),
        "{refused:?}"
    );
    pair.host.put("answer/never", "yes");
    let told = pair.host.until("a refusal", |event| event["name"] == "answer/never");
    assert_eq!((&told["event"], &told["by"]), (&"refused".into(), &"self".into()), "{told}");
    for (typed, says) in [("answers:x", "`answers:` is nothing"), ("answer:1", "no name that one can have")] {
        let wrong = wait(&world, &dir, typed);
        assert!(wrong.code == Some(2) && wrong.err.contains(says), "{wrong:?}");
    }
    fs::remove_file(pair.host.outbox("ask/x")).unwrap();
    fs::remove_file(pair.host.outbox("answer/never")).unwrap();
    pair.peer.ctl("close");
    pair.host.status("peer_closed");
    let gone = wait(&world, &dir, "answer:y");
    assert!(gone.code == Some(4) && gone.err.contains("no answer to `y` came"), "{gone:?}");
    pair.host.ctl("close");
    pair.host.finish().well();
    pair.peer.finish().well();
}

#[test]
fn the_name_of_a_refused_question_can_be_asked_again() {
    let world = World::new();
    let mut host = world.host(&["--direct", "--mount", "fuse"]);
    let mut peer = world.connect(&format!("{}@127.0.0.1", host.code()), &["--inbox-limit", "8KiB"]);
    for end in [&mut host, &mut peer] {
        end.status("connected");
    }
    host.put("ask/x", "?".repeat(100_000));
    let refused = wait(&world, &host.dir, "answer:x");
    assert!(refused.code == Some(6) && refused.err.contains("by the peer"), "{refused:?}");
    host.put("ask/x", "short?");
    peer.until("the question", |event| event["type"] == "ask" && event["body"] == "short?");
    world.flush(&host);
    let again = fs::write(host.outbox("ask/x"), "?").unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    for mut end in [host, peer] {
        end.ctl("close");
        end.until_in(LIMIT, "the end", |event| event["event"] == "closed");
        end.finish().well();
    }
}
