//! Editors, and what edits in place: a new file, one that waits to be sent, and one that the peer has already.

use std::fs;

use super::{Rig, both};

/// Types into a program on a terminal: its arguments are a list of what to wait for and what to type then, and the
/// program.
const TERMINAL: &str = r#"
import json, os, pty, select, sys, time
steps, *program = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(program[0], program)
end = time.monotonic() + 25
shown = b""
def read():
    global shown
    left = end - time.monotonic()
    if left <= 0 or not select.select([terminal], [], [], left)[0]:
        sys.exit("waited for too long; shown is %r" % shown)
    try:
        part = os.read(terminal, 65536)
    except OSError:
        part = b""
    shown += part
    return part
for wanted, keys in json.loads(steps):
    while wanted.encode() not in shown:
        if not read():
            sys.exit("ended before %r; shown is %r" % (wanted, shown))
    shown = b""
    os.write(terminal, keys.encode())
while read():
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

/// Vim in its silent mode, with backups also where the directory is a temporary one.
fn vim(rig: &Rig, name: &str, keys: &str) {
    let keys = format!("normal {keys}");
    rig.run("vim", &["-u", "NONE", "-N", "-es", "-c", "set backupskip=", "-c", &keys, "-c", "wq", name]);
}

fn emacs(rig: &Rig, name: &str, edit: &str) {
    let edit = format!(r#"(progn (find-file "{name}") {edit} (save-buffer))"#);
    rig.run("emacs", &["--batch", "-Q", "--eval", &edit]);
}

/// Types a line at the top of a file, saves it and leaves.
fn nano(rig: &Rig, options: &[&str], name: &str, line: &str) {
    super::installed("nano");
    let steps = serde_json::json!([
        ["GNU nano", format!("{line}\r\x0f")],
        ["File Name to Write", "\r"],
        ["Wrote", "\x18"],
    ]);
    let steps = steps.to_string();
    let args = [&["-c", TERMINAL, &steps, "nano", "-I"], options, &[name]].concat();
    rig.run("python3", &args);
}

#[test]
fn vim_saves_a_new_file_and_an_old_one() {
    both(|rig| {
        rig.connect();
        vim(rig, "new.txt", "iwritten by vim");
        rig.sends("new.txt", "written by vim\n");
        vim(rig, "note.msg", "isaid by vim");
        rig.says("said by vim\n");
    });
    both(|rig| {
        fs::write(rig.outbox("old.txt"), "old\n").unwrap();
        vim(rig, "old.txt", "Oabove");
        rig.sends("old.txt", "above\nold\n");
    });
}

#[test]
fn vim_with_backups_leaves_them_in_the_outbox() {
    both(|rig| {
        fs::write(rig.outbox("old.txt"), "old\n").unwrap();
        let set = "set backup backupskip= backupdir=. directory=.";
        rig.run("vim", &["-u", "NONE", "-N", "-es", "-c", set, "-c", "normal Oabove", "-c", "wq", "old.txt"]);
        rig.sends("old.txt", "above\nold\n");
        rig.leaves_out("old.txt~");
    });
}

#[test]
fn vim_saves_what_the_peer_has_already() {
    both(|rig| {
        fs::write(rig.outbox("twice.txt"), "old\n").unwrap();
        rig.arrived("twice.txt");
        // It leaves soon: who edits it has read it before.
        vim(rig, "twice.txt", "ggdGiold\rand more");
        rig.sends("twice.txt", "old\n");
        rig.sends("twice-2.txt", "old\nand more\n");
    });
}

#[test]
fn nano_saves_a_new_file_and_an_old_one() {
    both(|rig| {
        rig.connect();
        nano(rig, &[], "new.txt", "written by nano");
        // The line that was typed, and the one that the cursor was on.
        rig.sends("new.txt", "written by nano\n\n");
    });
    both(|rig| {
        fs::write(rig.outbox("old.txt"), "old\n").unwrap();
        nano(rig, &[], "old.txt", "above");
        rig.sends("old.txt", "above\nold\n");
        fs::write(rig.outbox("backed.txt"), "old\n").unwrap();
        nano(rig, &["-B"], "backed.txt", "above");
        rig.sends("backed.txt", "above\nold\n");
        rig.leaves_out("backed.txt~");
        // With a lock `.locked.txt.swp` while it is open.
        nano(rig, &["-G"], "locked.txt", "alone");
        rig.sends("locked.txt", "alone\n\n");
    });
}

#[test]
fn emacs_saves_a_new_file_and_an_old_one() {
    both(|rig| {
        rig.connect();
        emacs(rig, "new.txt", r#"(insert "written by emacs\n")"#);
        rig.sends("new.txt", "written by emacs\n");
        emacs(rig, "note.msg", r#"(insert "said by emacs\n")"#);
        rig.says("said by emacs\n");
    });
    both(|rig| {
        fs::write(rig.outbox("old.txt"), "old\n").unwrap();
        emacs(rig, "old.txt", r#"(insert "above\n")"#);
        rig.sends("old.txt", "above\nold\n");
        rig.leaves_out("old.txt~");
        fs::write(rig.outbox("copied.txt"), "old\n").unwrap();
        emacs(rig, "copied.txt", r#"(setq backup-by-copying t) (insert "above\n")"#);
        rig.sends("copied.txt", "above\nold\n");
        rig.leaves_out("copied.txt~");
        fs::write(rig.outbox("precious.txt"), "old\n").unwrap();
        emacs(rig, "precious.txt", r#"(setq file-precious-flag t make-backup-files nil) (insert "above\n")"#);
        rig.sends("precious.txt", "above\nold\n");
    });
}

#[test]
fn what_edits_in_place_sends_the_edited_file() {
    both(|rig| {
        rig.connect();
        rig.sh("sed", "printf 'one two\\n' > sed.txt && sed -i s/one/three/ sed.txt");
        rig.sends("sed.txt", "three two\n");
        rig.sh("perl", "printf 'one two\\n' > perl.txt && perl -i -pe s/two/four/ perl.txt");
        rig.sends("perl.txt", "one four\n");
    });
    both(|rig| {
        for name in ["sed.txt", "backed.txt", "perl.txt", "ed.txt"] {
            fs::write(rig.outbox(name), "one two\n").unwrap();
        }
        rig.sh("sed", "sed -i s/one/three/ sed.txt && sed -i s/two/four/ sed.txt");
        rig.sends("sed.txt", "three four\n");
        rig.sh("sed", "sed -i~ s/one/three/ backed.txt");
        rig.sends("backed.txt", "three two\n");
        rig.leaves_out("backed.txt~");
        rig.sh("perl", "perl -i -pe s/two/four/ perl.txt");
        rig.sends("perl.txt", "one four\n");
        rig.sh("vim", "printf 's/one/five/\\nwq\\n' | vim -u NONE -N -es ed.txt");
        rig.sends("ed.txt", "five two\n");
    });
}
