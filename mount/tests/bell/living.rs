//! The process: what it has, what it ignores, and that there is another where it dies.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_wormhole_mount::bell::{Bell, BellError, Options};
use rustix::process::Signal;

use crate::stage::{LONG, Plain, SOURCE, Watched, is, next_pid, options, raw, states, targets};

#[test]
fn it_has_nothing_of_its_owner() {
    let inherited = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(inherited.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    let plain = Plain::new();
    rustix::io::fcntl_setfd(inherited.as_fd(), rustix::io::FdFlags::CLOEXEC).unwrap();
    let pid = plain.bell.pid();
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    assert_eq!(rustix::process::getsid(Some(raw(pid))).unwrap(), raw(pid));
    let targets = targets(pid);
    // Its socket as standard input and once more, two times /dev/null, and the root.
    assert_eq!(targets.len(), 5, "{targets:?}");
    assert_eq!(targets.iter().filter(|target| is(target, "/dev/null")).count(), 2);
    assert!(targets.iter().any(|target| is(target, plain.dir.path())));
    assert!(!targets.iter().any(|target| is(target, inherited.path())));
    let name = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(name.starts_with(b"agent-wormhole: bell\0"));
}

#[test]
fn signals_for_its_group_do_not_end_it() {
    let plain = Plain::new();
    let pid = plain.bell.pid();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::PIPE] {
        rustix::process::kill_process_group(raw(pid), signal).unwrap();
    }
    plain.bell.append("inbox/log.jsonl", b"alive\n").unwrap();
    assert_eq!(plain.bell.pid(), pid);
    assert_eq!(plain.read("inbox/log.jsonl"), "alive\n");
}

#[test]
fn a_killed_bell_is_reaped_and_another_knows_what_it_knew() {
    let plain = Plain::new();
    let first = plain.bell.pid();
    plain.bell.append("inbox/log.jsonl", b"1\n").unwrap();
    rustix::process::kill_process(raw(first), Signal::KILL).unwrap();
    // Without a call: the mount must have somebody who takes it away.
    let second = next_pid(&plain.bell, first);
    assert_eq!(states(&[first]), [None]);
    plain.bell.append("inbox/log.jsonl", b"2\n").unwrap();
    assert_eq!(plain.bell.pid(), second);
    // With a call at once, which nothing of was lost in.
    rustix::process::kill_process(raw(second), Signal::KILL).unwrap();
    Watched::new_or_gone(second);
    plain.bell.append("inbox/log.jsonl", b"3\n").unwrap();
    assert_eq!(plain.read("inbox/log.jsonl"), "1\n2\n3\n");
    assert_eq!(states(&[first, second]), [None, None]);
    let third = Watched::new(plain.bell.pid());
    plain.bell.detach().unwrap();
    third.wait();
    assert_eq!(states(&[third.1]), [None]);
}

#[test]
fn one_that_dies_again_and_again_is_given_up_for_a_while() {
    let plain = Plain::new();
    let mut pid = plain.bell.pid();
    for _ in 0..5 {
        rustix::process::kill_process(raw(pid), Signal::KILL).unwrap();
        pid = next_pid(&plain.bell, pid);
    }
    rustix::process::kill_process(raw(pid), Signal::KILL).unwrap();
    Watched::new_or_gone(pid);
    assert!(matches!(plain.bell.append("inbox/log.jsonl", b"x"), Err(BellError::Gone(_))));
    assert_eq!(plain.bell.pid(), 0);
    assert_eq!(states(&[pid]), [None]);
    plain.bell.detach().unwrap();
}

#[test]
fn a_silent_bell_is_replaced() {
    let plain = Plain::new();
    let pid = plain.bell.pid();
    rustix::process::kill_process(raw(pid), Signal::STOP).unwrap();
    let start = Instant::now();
    // More than a socket takes: writing waits, too.
    let long = vec![b'x'; 2 * 1024 * 1024];
    let done = plain.bell.append("inbox/log.jsonl", &long);
    assert!(
        matches!(&done, Err(BellError::Gone(error)) if error.kind() == std::io::ErrorKind::TimedOut),
        "{done:?}"
    );
    assert!((Duration::from_secs(5)..Duration::from_secs(8)).contains(&start.elapsed()));
    assert_ne!(plain.bell.pid(), pid);
    plain.bell.append("inbox/log.jsonl", b"x\n").unwrap();
    assert_eq!(plain.read("inbox/log.jsonl"), "x\n");
    assert_eq!(states(&[pid]), [None]);
}

#[test]
fn broken_frames_end_it() {
    let frames: [&[u8]; 7] = [
        &[0xff; 64],
        &[0; 4],
        &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 77],
        &[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0],
        // A frame that is longer than what comes.
        &[0, 0, 64, 0, 1],
        // An unlink of half a character.
        &[12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0xc3],
    ];
    for frame in frames {
        let (mut ours, its) = UnixStream::pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-wormhole-bell"));
        let mut child =
            command.stdin(Stdio::from(OwnedFd::from(its))).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        ours.write_all(frame).unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        ours.set_read_timeout(Some(LONG)).unwrap();
        let mut replies = Vec::new();
        // It may leave without having read it all.
        let _ = ours.read_to_end(&mut replies);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(1), ""), "{frame:?}");
        assert!(replies.is_empty());
    }
}

#[test]
fn without_a_bell_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for program in ["/nonexistent/bell", "/bin/true"] {
        let options = Options { program: program.into(), args: Vec::new(), arg0: None };
        assert!(Bell::start(options, dir.path().to_owned(), SOURCE.into()).is_err(), "{program}");
    }
    // The first thing that it is told does not fit.
    let long = "x".repeat(70_000);
    assert!(Bell::start(options(), dir.path().to_owned(), long).is_err());
}
