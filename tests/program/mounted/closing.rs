//! The end of a channel while somebody sits inside: all see it, and nothing stays.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::guard::{Guard, is_mounted, until_gone};
use super::processes::{Sitter, Tail, sync, until_none};
use crate::fixture::end::End;
use crate::fixture::world::{Via, World};

/// A process that ended left nothing after so long.
const GONE: Duration = Duration::from_secs(2);

/// Whoever sits in a directory that is gone is told so.
fn is_told(seen: &str) -> bool {
    ["Transport endpoint is not connected", "No such file or directory"]
        .iter()
        .any(|said| seen.contains(said))
}

/// Ends an end with somebody in each of its directories and two readers of its log.
fn ends(how: &str, end: impl FnOnce(&World, &End), code: i32) {
    let world = World::new();
    let _guard = Guard::new(&world);
    let mut pair = world.pair(Via::Direct);
    pair.peer.put("message", "before\n");
    pair.host.text("before\n");
    let host = pair.host;
    let dir = host.dir.clone();
    let mut sitters =
        ["", "inbox", "inbox/messages", "outbox"].map(|part| Sitter::new(&world, &dir.join(part)));
    for sitter in &mut sitters {
        assert!(!is_told(&sitter.look()));
    }
    let mut tails = [Tail::new(&world, &host), Tail::new(&world, &host)];
    let from = Instant::now();
    end(&world, &host);
    let closed = host.finish();
    let took = from.elapsed();
    let gone = until_gone(&dir, from, GONE + took);
    println!("{how}: it ended after {took:?}, its mount was gone after {gone:?}");
    assert_eq!((closed.code, &closed.last()["event"]), (Some(code), &"closed".into()), "{closed:?}");
    for tail in &mut tails {
        tail.until("closed");
    }
    for mut sitter in sitters {
        let seen = sitter.look();
        assert!(is_told(&seen), "{how}: {seen}");
        sitter.leave();
    }
    for tail in tails {
        tail.end();
    }
    pair.peer.status("peer_closed");
    pair.peer.ctl("close");
    pair.peer.finish().well();
    until_none(&world, GONE);
    world.is_clean();
}

#[test]
fn term_ends_it_with_a_shell_and_tails_inside() {
    ends("TERM", |_, end| end.signal(Signal::TERM), 0);
}

#[test]
fn int_ends_it_with_a_shell_and_tails_inside() {
    ends("INT", |_, end| end.signal(Signal::INT), 130);
}

#[test]
fn close_ends_it_with_a_shell_and_tails_inside() {
    let close = |world: &World, end: &End| {
        let ended = world.run(&["close", end.dir.to_str().unwrap()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };
    ends("close", close, 0);
    ends("ctl", |_, end| end.ctl("close"), 0);
}

#[test]
fn a_signal_ends_it_while_receipts_wait_and_a_file_is_open() {
    // What was not delivered is worth more than how it ended.
    for word in [Signal::TERM, Signal::INT] {
        let world = World::new();
        let _guard = Guard::new(&world);
        let host = world.host(&[]);
        let dir = host.dir.clone();
        host.put("never.msg", "nobody reads it\n");
        // A writer who is not done, and one who has mapped what he wrote.
        let open = "import mmap, sys, time\n\
                    f = open('open.bin', 'w+b'); f.write(b'x' * 100000); f.flush()\n\
                    m = mmap.mmap(f.fileno(), 0); m[0:1] = b'y'\n\
                    print('open', flush=True); sys.stdin.read()";
        let mut command = world.command_of("python3", &["-c", open]);
        command.current_dir(host.outbox(""));
        let (mut writer, input) = crate::fixture::process::Process::spawn_open(command);
        assert_eq!(writer.line("the writer", crate::fixture::LIMIT).as_deref(), Some("open"));
        let mut waiting = [sync(&world, &host), sync(&world, &host)];
        let from = Instant::now();
        host.signal(word);
        let closed = host.finish();
        println!("{word:?} with receipts: it ended after {:?}", from.elapsed());
        assert_eq!(closed.code, Some(6), "{closed:?}");
        for waiting in &mut waiting {
            let ended = waiting.finish();
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.err.contains("Transport endpoint is not connected"), "{ended:?}");
        }
        drop(input);
        writer.finish();
        assert!(!is_mounted(&dir) && !dir.exists());
        until_none(&world, GONE);
        world.is_clean();
    }
}
