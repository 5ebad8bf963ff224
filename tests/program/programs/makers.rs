//! What makes files of its own: compilers, interpreters, downloads, databases.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use super::{Rig, both, installed, is_executable, node_modules, on};
use crate::fixture::content::noise;
use crate::fixture::process::Process;

/// Serves a directory on a free port of loopback, and says which.
const SERVER: &str = r#"
import functools, http.server
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=".")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

fn python(rig: &Rig, script: &str) {
    rig.run("python3", &["-c", script]);
}

fn node(rig: &Rig, script: &str) {
    let mut command = rig.command("node", &["-e", script]);
    command.env("NODE_PATH", node_modules());
    Rig::well(command);
}

#[test]
fn gcc_sends_a_program_that_runs() {
    both(|rig| {
        rig.connect();
        let source =
            rig.source("hello.c", "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n");
        rig.run("gcc", &["-o", "hello", source.to_str().unwrap()]);
        let made = fs::read(rig.outbox("hello")).unwrap();
        rig.sends("hello", made);
        let arrived = rig.arrived("hello");
        assert!(is_executable(&arrived));
        let ended = Rig::well(Command::new(arrived));
        assert_eq!(ended.out, ["hello"]);
    });
}

#[test]
fn python_saves_with_a_temporary_file_and_a_rename() {
    both(|rig| {
        rig.connect();
        python(
            rig,
            r#"
import os, tempfile
for name, body in [("replaced.txt", "whole\n"), ("said.msg", "said\n")]:
    with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as file:
        file.write(body)
    os.replace(file.name, name)
with open("plain.txt", "w") as file:
    file.write("plain\n")
with tempfile.NamedTemporaryFile("w", dir=".") as file:
    file.write("nobody is to see this\n")
"#,
        );
        rig.sends("replaced.txt", "whole\n");
        rig.sends("plain.txt", "plain\n");
        rig.says("said\n");
    });
}

#[test]
fn a_temporary_file_that_keeps_its_name_goes_after_two_seconds() {
    // A real directory takes it for any other file.
    on("fuse", |rig| {
        rig.connect();
        python(
            rig,
            r#"
import os, tempfile
fd, name = tempfile.mkstemp(prefix="kept-", dir=".")
os.write(fd, b"kept\n")
os.close(fd)
fd, _ = tempfile.mkstemp(prefix="empty-", dir=".")
os.close(fd)
"#,
        );
        let names = || fs::read_dir(rig.outbox("")).unwrap().map(|entry| entry.unwrap().file_name());
        let find = |start: &str| {
            let found = names().map(|name| name.into_string().unwrap()).find(|name| name.starts_with(start));
            found.unwrap()
        };
        let (kept, empty) = (find("kept-"), find("empty-"));
        rig.arrived(&kept);
        rig.sends(&kept, "kept\n");
        fs::remove_file(rig.outbox(&empty)).unwrap();
    });
}

#[test]
fn node_saves_plainly_and_atomically() {
    both(|rig| {
        rig.connect();
        node(
            rig,
            r#"
const fs = require("fs"), atomic = require("write-file-atomic");
fs.writeFile("plain.json", "{}\n", error => { if (error) throw error; });
fs.writeFileSync("note.msg", "said by node\n");
atomic("atomic.json", "[]\n").then(() => atomic("atomic.json", "[1]\n"));
"#,
        );
        rig.sends("plain.json", "{}\n");
        rig.sends("atomic.json", "[1]\n");
        rig.says("said by node\n");
    });
}

#[test]
fn curl_keeps_the_time_of_what_it_downloads() {
    both(|rig| {
        rig.connect();
        let source = rig.source("page.bin", noise(3, 300_000));
        rig.sh("touch", "touch -d '2001-02-03 04:05:06' ~/page.bin");
        let mut server = rig.command("python3", &["-c", SERVER]);
        server.current_dir(rig.world.path("home"));
        let mut server = Process::spawn(server);
        let port = server.line("the port", crate::fixture::LIMIT).unwrap();
        rig.run("curl", &["-sS", "-R", "-o", "page.bin", &format!("http://127.0.0.1:{port}/page.bin")]);
        rig.run("curl", &["-sS", "-o", "plain.bin", &format!("http://127.0.0.1:{port}/page.bin")]);
        server.kill();
        rig.sends("page.bin", noise(3, 300_000));
        rig.sends("plain.bin", noise(3, 300_000));
        let arrived = rig.arrived("page.bin");
        assert_eq!(fs::metadata(arrived).unwrap().mtime(), fs::metadata(source).unwrap().mtime());
    });
}

#[test]
fn sqlite_makes_a_database_in_one_session() {
    both(|rig| {
        rig.connect();
        installed("sqlite3");
        let script = |mode: &str| {
            format!(
                "PRAGMA journal_mode={mode};
                 CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO notes (body) SELECT 'note ' || i FROM n;
                 UPDATE notes SET body = upper(body) WHERE id % 2 = 0;
                 DELETE FROM notes WHERE id > 400;"
            )
        };
        for (name, mode) in [("plain.db", "DELETE"), ("ahead.db", "WAL")] {
            rig.run("sqlite3", &[name, &script(mode)]);
            let made = fs::read(rig.outbox(name)).unwrap();
            rig.sends(name, made);
            let arrived = rig.arrived(name);
            // The inbox is read-only in a mount: a copy is what one works with.
            let copy = rig.world.path("home").join(name);
            fs::copy(arrived, &copy).unwrap();
            let asked = "SELECT count(*), sum(body = upper(body)) FROM notes; PRAGMA integrity_check;";
            let ended = rig.run("sqlite3", &[copy.to_str().unwrap(), asked]);
            assert_eq!(ended.out, ["400|200", "ok"], "{name}");
        }
    });
}
