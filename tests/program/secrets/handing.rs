//! `send --secret` and `run`, which are the same on both back ends.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::fixture::world::Via;
use crate::mounted::processes;
use crate::mounted::user::{NOBODY, is_root};

/// Both back ends.
const MOUNTS: [&str; 2] = ["fuse", "dir"];

#[test]
fn a_secret_is_handed_to_one_command_and_used_once() {
    for mount in MOUNTS {
        let world = World::new();
        let mut pair = world.pair_on(Via::Local, mount);
        let value = value();
        // The line break that `echo` adds is part of no key.
        send(&world, &pair.host, "API_KEY", &format!("{value}\n"));
        let event = arrived(&mut pair.peer, "API_KEY");
        let members: Vec<&String> = event.as_object().unwrap().keys().collect();
        assert_eq!(members.len(), 7, "{members:?}");
        assert_eq!((&event["from"], &event["length"]), (&"peer".into(), &"17-64".into()), "{event}");
        let state =
            pair.peer.until_state("the secret", |state| state["secrets"]["waiting"][0]["name"] == "API_KEY");
        assert_eq!(state["secrets"]["waiting"][0]["length"], "17-64", "{state}");
        assert_eq!(state["inbox"]["bytes"], 0, "sums tell no length: {state}");
        let script = "printf %s \"$KEY\" | sha256sum; echo \"key: $KEY!\"; printf %s \"user:$KEY\" | base64 -w0; \
                      echo; echo \"<$KEY>\" >&2; exit 7";
        let ended = run(&world, &pair.peer, &["--secret", "API_KEY=KEY"], script);
        assert_eq!(ended.code, Some(7), "{ended:?}");
        assert_eq!(ended.out[0], format!("{}  -", digest(&value)), "{mount}");
        assert_eq!(ended.out[1], "key: [secret API_KEY]!");
        assert!(ended.out[2].contains("[secret API_KEY]") && ended.out[2].len() < 30, "{ended:?}");
        assert_eq!(ended.err, "<[secret API_KEY]>\n");
        assert_eq!(until_gone(&pair.peer)[0]["why"], "used");
        let again = run(&world, &pair.peer, &["--secret", "API_KEY"], "echo no");
        assert_eq!((again.code, again.out.len()), (Some(4), 0), "{again:?}");
        assert!(again.err.contains("was used already"), "{again:?}");
        pair.close();
        world.is_clean();
    }
}

#[test]
fn a_command_that_cannot_be_started_uses_nothing() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    let value = value();
    send(&world, &pair.host, "K", &value);
    arrived(&mut pair.peer, "K");
    let dir = pair.peer.dir.to_str().unwrap().to_owned();
    let missing = world.run(&["run", &dir, "--secret", "K", "--", "./no-such-command"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    assert!(missing.err.contains("the secret waits on"), "{missing:?}");
    let not_executable = world.run(&["run", &dir, "--secret", "K", "--", "/etc/passwd"]);
    assert_eq!(not_executable.code, Some(126), "{not_executable:?}");
    for (args, says) in [
        (&["--secret", "K", "--secret", "OTHER"][..], "no secret OTHER has arrived"),
        (&["--secret", "../K=K"], "the name of a secret"),
        (&["--secret", "K", "--secret", "K=L"], "asked for twice"),
    ] {
        let ended = run(&world, &pair.peer, args, "echo no");
        assert!(ended.err.contains(says) && ended.out.is_empty(), "{ended:?}");
    }
    // It is found without the channel's name, as one end alone holds it; so does the host not.
    let ended = world.run(&["run", "--secret", "K", "--", "sh", "-c", "printf %s \"$K\" | sha256sum"]);
    assert_eq!((ended.code, &ended.out[0]), (Some(0), &format!("{}  -", digest(&value))), "{ended:?}");
    let nobody = world.run(&["run", "--secret", "K", "--", "true"]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.err.contains("none of the channels"), "{nobody:?}");
    pair.close();
}

#[test]
fn a_descriptor_holds_the_whole_value_once() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    // As long as may be, with a NUL and a line break at its end.
    let mut long = format!("{}\0", value()).repeat(1000);
    long.truncate(16 * 1024 - 1);
    long.push('\n');
    send(&world, &pair.host, "BLOB", &long);
    arrived(&mut pair.peer, "BLOB");
    let refused = run(&world, &pair.peer, &["--secret", "BLOB"], "echo no");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--fd"), "{refused:?}");
    let script = "case $BLOB in /dev/fd/*) sha256sum < $BLOB; wc -c < $BLOB;; esac";
    let ended = run(&world, &pair.peer, &["--secret", "BLOB", "--fd"], script);
    assert_eq!(ended.out, [format!("{}  -", digest(&long)), "0".to_owned()], "{ended:?}");
    pair.close();
}

#[test]
fn what_is_no_secret_is_not_sent() {
    let world = World::new();
    let pair = world.pair_on(Via::Local, "dir");
    let dir = pair.host.dir.to_str().unwrap().to_owned();
    for (name, input, says) in [
        ("K", vec![b'x'; 16 * 1024 + 1], "longer than a secret may be"),
        ("K", Vec::new(), "standard input is empty"),
        ("a/b", b"x".to_vec(), "the name of a secret"),
        ("x.tmp", b"x".to_vec(), "temporary files"),
    ] {
        let file = world.path("home").join("input");
        fs::write(&file, &input).unwrap();
        let program = env!("CARGO_BIN_EXE_agent-wormhole");
        let script = format!("{program} send {dir} --secret {name} < {}", file.display());
        let ended = Process::spawn(world.command_of("sh", &["-c", &script])).finish();
        assert_ne!(ended.code, Some(0), "{name}");
        assert!(ended.err.contains(says), "{ended:?}");
    }
    pair.close();
}

#[test]
fn a_corrected_secret_takes_the_place_of_the_one_before() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    let (wrong, right) = (value(), value());
    send(&world, &pair.host, "K", &wrong);
    let first = arrived(&mut pair.peer, "K");
    send(&world, &pair.host, "K", &right);
    let second = pair.peer.until("another", |event| event["replaces"] == first["id"]);
    assert_eq!(second["name"], "K");
    let ended = run(&world, &pair.peer, &["--secret", "K"], "printf %s \"$K\" | sha256sum");
    assert_eq!(ended.out, [format!("{}  -", digest(&right))]);
    pair.close();
}

#[test]
fn signals_and_standard_input_reach_the_command() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    send(&world, &pair.host, "K", &value());
    arrived(&mut pair.peer, "K");
    let script = "trap 'echo caught; exit 5' TERM; read line; echo \"$line\"; while :; do read line || kill -STOP $$; done";
    let command =
        world.command(&["run", pair.peer.dir.to_str().unwrap(), "--secret", "K", "--", "sh", "-c", script]);
    let (mut process, mut input) = Process::spawn_open(command);
    std::io::Write::write_all(&mut input, b"hello\n").unwrap();
    assert_eq!(process.line("its line", crate::fixture::LIMIT).unwrap(), "hello");
    process.signal(rustix::process::Signal::TERM);
    // It may have ended already.
    let _ = std::io::Write::write_all(&mut input, b"\n");
    let ended = process.finish();
    assert_eq!((ended.code, ended.out), (Some(5), vec!["caught".to_owned()]), "{}", ended.err);
    send(&world, &pair.host, "L", &value());
    arrived(&mut pair.peer, "L");
    let ended = run(&world, &pair.peer, &["--secret", "L"], "kill -9 $$");
    assert_eq!(ended.code, Some(128 + 9), "{ended:?}");
    pair.close();
}

/// It can be pasted, and a transcript of it holds no word of a code.
#[test]
fn what_is_advised_instead_of_unlocking_is_a_command() {
    let world = World::new();
    for (typed, advised) in [
        ("9471-cross-clock-marble", "agent-wormhole run 9471 --secret K -- COMMAND"),
        ("./my $(id)/9471", "agent-wormhole run './my $(id)/9471' --secret K -- COMMAND"),
    ] {
        let ended = world.run(&["unlock", typed, "K"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(advised) && !ended.err.contains("marble"), "{ended:?}");
    }
}

#[test]
fn a_signal_that_was_ignored_before_is_ignored_by_the_command() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    send(&world, &pair.host, "K", &value());
    arrived(&mut pair.peer, "K");
    let run =
        [env!("CARGO_BIN_EXE_agent-wormhole"), "run", pair.peer.dir.to_str().unwrap(), "--secret", "K", "--"];
    // As behind `nohup`, and behind `&` of a script.
    let before = ["-c", "trap '' INT HUP; exec \"$@\"", "sh"];
    let command = ["sh", "-c", "kill -INT $$; kill -HUP $$; echo alive; kill -TERM $$"];
    let ended = Process::spawn(world.command_of("sh", &[&before[..], &run, &command].concat())).finish();
    assert_eq!((ended.code, &ended.out[..]), (Some(128 + 15), &["alive".to_owned()][..]), "{ended:?}");
    pair.close();
}

#[test]
fn a_signal_ends_the_wait_for_what_a_command_has_left_running() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    send(&world, &pair.host, "K", &value());
    arrived(&mut pair.peer, "K");
    let dir = pair.peer.dir.to_str().unwrap();
    let script = "tail -f /dev/null & echo $!; exit 3";
    let mut process = Process::spawn(world.command(&["run", dir, "--secret", "K", "--", "sh", "-c", script]));
    let left = process.line("the number of what is left", crate::fixture::LIMIT).unwrap();
    let left = Pid::from_raw(left.parse().unwrap()).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", process.id());
    processes::until("the end of the command", crate::fixture::LIMIT, || {
        fs::read_to_string(&children).unwrap().trim().is_empty()
    });
    assert!(!process.has_ended(), "what is left may still print");
    process.signal(Signal::TERM);
    let ended = process.finish();
    kill_process(left, Signal::KILL).unwrap();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    pair.close();
}

/// Three doors: the directory, the socket's mode, and the question who is behind it. The last one is tried alone.
#[test]
fn another_user_is_not_served() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    send(&world, &pair.host, "K", &value());
    arrived(&mut pair.peer, "K");
    let channels = world.runtime().join("channels");
    let socket = fs::read_dir(&channels).unwrap().map(|entry| entry.unwrap().path());
    let socket = socket
        .into_iter()
        .find(|path| path.ends_with("sock") || path.to_str().unwrap().ends_with("peer.sock"));
    let socket = socket.unwrap();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Who is refused at once may not have said all: that is no reason not to read the answer.
    let ask = r#"use IO::Socket::UNIX; $SIG{PIPE} = 'IGNORE'; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "no: $!\n";
                 $s->syswrite("\3\1\1K\0\0\0\0"); $s->shutdown(1); local $/; print <$s>, "\n";"#;
    let attempt = |user: Option<u32>| {
        let mut command = match user {
            Some(user) => {
                let id = user.to_string();
                world.command_of("setpriv", &["--reuid", &id, "--clear-groups", "perl", "-e", ask])
            }
            None => world.command_of("perl", &["-e", ask]),
        };
        command.arg(&socket).current_dir("/");
        Process::spawn(command).finish()
    };
    let refused = attempt(Some(NOBODY));
    assert!(refused.err.contains("no: Permission denied"), "{refused:?}");
    let mut opened: Vec<PathBuf> = channels.ancestors().take(4).map(Path::to_owned).collect();
    opened.push(socket.clone());
    let modes: Vec<_> = opened.iter().map(|path| path.metadata().unwrap().permissions()).collect();
    for path in &opened {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let refused = attempt(Some(NOBODY));
    for (path, mode) in opened.iter().zip(modes) {
        fs::set_permissions(path, mode).unwrap();
    }
    assert!(refused.out[0].contains("belongs to another user"), "{refused:?}");
    let served = attempt(None);
    assert!(served.out[0].contains("sk-"), "{served:?}");
    pair.close();
}

/// A client that says nothing, or nonsense, holds up nobody.
#[test]
fn slow_and_wrong_clients_hold_up_nobody() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    let channels = world.runtime().join("channels");
    let socket = channels.join(format!("{}-peer.sock", pair.peer.nameplate));
    let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for nonsense in [&b"\0"[..], &[9, 1, 1, b'K', 0, 0, 0, 0], &[1, 1, 1, b'K', 255, 255, 255, 255], &[3, 0]]
    {
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(nonsense).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // An end, with or without an answer.
        drop(client.read_to_end(&mut answer));
        assert!(answer.first() != Some(&0), "{nonsense:?}: {answer:?}");
    }
    let value = value();
    send(&world, &pair.host, "K", &value);
    arrived(&mut pair.peer, "K");
    let ended = run(&world, &pair.peer, &["--secret", "K"], "printf %s \"$K\" | sha256sum");
    assert_eq!(ended.out, [format!("{}  -", digest(&value))]);
    drop(silent);
    pair.close();
    assert!(!socket.exists());
}

#[test]
fn a_killed_end_leaves_no_socket_and_no_secret() {
    let world = World::new();
    let mut pair = world.pair_on(Via::Local, "dir");
    send(&world, &pair.host, "K", &value());
    arrived(&mut pair.peer, "K");
    pair.peer.kill();
    world.run(&["status"]);
    let left: Vec<_> = fs::read_dir(world.runtime().join("channels")).unwrap().collect();
    assert!(
        left.iter().all(|entry| !entry.as_ref().unwrap().file_name().to_str().unwrap().contains("peer")),
        "{left:?}"
    );
    pair.host.kill();
    world.run(&["status"]);
    world.is_clean();
}

#[test]
fn in_a_real_directory_no_file_is_a_secret() {
    let world = World::new();
    let pair = world.pair_on(Via::Local, "dir");
    let ended = Process::spawn({
        let mut command = world.command_of("sh", &["-c", "echo value > outbox/secrets/K"]);
        command.current_dir(&pair.host.dir);
        command
    })
    .finish();
    assert!(ended.code != Some(0) && ended.err.contains("outbox/secrets/K"), "{ended:?}");
    let written = fs::write(pair.host.outbox("secrets/K"), "value");
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::NotADirectory);
    for zone in ["inbox", "outbox"] {
        let text = fs::read_to_string(pair.host.dir.join(zone).join("secrets")).unwrap();
        assert!(text.contains("send CHANNEL --secret") && text.lines().count() == 1, "{text}");
    }
    fs::remove_file(pair.host.outbox("secrets")).unwrap();
    fs::create_dir(pair.host.outbox("secrets")).unwrap();
    pair.host.put("secrets/K", "value");
    let state =
        pair.host.until_state("why it is not sent", |state| state["left_out"][0]["name"] == "secrets");
    let why = state["left_out"][0]["reason"].as_str().unwrap();
    assert!(why.contains("send CHANNEL --secret"), "{why}");
    fs::remove_dir_all(pair.host.outbox("secrets")).unwrap();
    pair.close();
}
