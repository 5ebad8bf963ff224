//! Ways to write one file: in odd blocks, piece by piece, through mappings, slowly.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Rig, both, installed, on};
use crate::fixture::content::noise;
use crate::fixture::process::Process;

/// Writes a file through a shared mapping. Its arguments are the path, and `after` to write the second half when no
/// descriptor is left.
const MAPPED: &str = r#"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
    const size_t half = 100000;
    int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, 2 * half)) return 1;
    char *at = mmap(0, 2 * half, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return 2;
    memset(at, 'a', half);
    int after = argc > 2 && !strcmp(argv[2], "after");
    if (after && close(fd)) return 3;
    memset(at + half, 'b', half);
    if (munmap(at, 2 * half)) return 4;
    return after ? 0 : close(fd);
}
"#;

fn mapping_program(rig: &Rig) -> PathBuf {
    let source = rig.source("mapped.c", MAPPED);
    let program = std::env::temp_dir().join(format!("wormhole-mapped-{}-{}", std::process::id(), rig.mount));
    let mut gcc = Command::new(installed("gcc"));
    gcc.arg("-o").arg(&program).arg(source);
    Rig::well(gcc);
    program
}

#[test]
fn what_writes_in_pieces_sends_the_whole_once() {
    both(|rig| {
        rig.connect();
        let bytes = noise(1, 70_001);
        rig.source("source", &bytes);
        rig.sh("dd", "dd if=$HOME/source of=odd bs=999 2> /dev/null");
        rig.sh("dd", "dd if=$HOME/source of=synced bs=4097 conv=fsync 2> /dev/null");
        rig.sh("dd", "dd if=$HOME/source of=appended bs=7001 oflag=append 2> /dev/null");
        rig.sh("dd", "cp ~/source patched && dd if=$HOME/source of=patched bs=333 conv=notrunc 2> /dev/null");
        for name in ["odd", "synced", "appended", "patched"] {
            rig.sends(name, bytes.clone());
        }
        rig.sh(
            "dd",
            "printf 0123456789 > hole && printf x | dd of=hole seek=3 bs=1 conv=notrunc 2> /dev/null",
        );
        rig.sends("hole", "012x456789");
        rig.sh(
            "tee",
            "for n in 1 2 3; do echo $n; done | tee -a tee > /dev/null && echo 4 | tee -a tee > /dev/null",
        );
        rig.sends("tee", "1\n2\n3\n4\n");
        rig.sh("sh", "n=0; while [ $n -lt 50 ]; do echo $n >> loop; n=$((n+1)); done");
        rig.sends("loop", (0..50).map(|n| format!("{n}\n")).collect::<String>());
        rig.sh("seq", "for n in 1 2 3 4 5 6 7 8; do seq 1000 >> together & done; wait");
        let lines: String = (1..=1000).map(|n| format!("{n}\n")).collect();
        rig.sends("together", lines.repeat(8));
    });
}

#[test]
fn what_sets_the_size_sends_zeros() {
    both(|rig| {
        rig.connect();
        rig.sh("truncate", "truncate -s 100000 sparse");
        rig.sends("sparse", vec![0; 100_000]);
        rig.sh("truncate", "printf 0123456789 > shorter && truncate -s 4 shorter");
        rig.sends("shorter", "0123");
        rig.sh("truncate", "printf 0123456789 > longer && truncate -s +2 longer");
        rig.sends("longer", "0123456789\0\0");
        rig.sh("fallocate", "fallocate -l 70000 allocated");
        rig.sends("allocated", vec![0; 70_000]);
        rig.sh(
            "fallocate",
            "head -c 65536 /dev/zero | tr '\\0' x > punched && fallocate -p -o 4096 -l 8192 punched",
        );
        let mut punched = vec![b'x'; 65_536];
        punched[4096..4096 + 8192].fill(0);
        rig.sends("punched", punched);
        rig.sh("fallocate", "printf 0123456789 > kept && fallocate -n -l 70000 kept");
        rig.sends("kept", "0123456789");
    });
    both(|rig| {
        fs::write(rig.outbox("cut.txt"), "0123456789").unwrap();
        rig.sh("truncate", "truncate -s 4 cut.txt");
        rig.sends("cut.txt", "0123");
    });
}

#[test]
fn what_writes_through_a_mapping_sends_the_whole_once() {
    let halves = || [vec![b'a'; 100_000], vec![b'b'; 100_000]].concat();
    both(|rig| {
        rig.connect();
        let program = mapping_program(rig);
        rig.run(program.to_str().unwrap(), &["mapped"]);
        rig.sends("mapped", halves());
        // A real directory cannot tell when the last mapping ends: SEMANTICS.md says so.
        if rig.mount == "fuse" {
            rig.run(program.to_str().unwrap(), &["after", "after"]);
            rig.sends("after", halves());
        }
        fs::remove_file(program).unwrap();
        let script = r#"
import mmap
with open("python", "w+b") as file:
    file.truncate(300000)
    with mmap.mmap(file.fileno(), 300000) as mapped:
        for at in range(0, 300000, 3):
            mapped[at:at + 3] = b"xyz"
"#;
        rig.run("python3", &["-c", script]);
        rig.sends("python", b"xyz".repeat(100_000));
    });
}

#[test]
fn a_file_that_is_kept_open_goes_once_when_it_is_closed() {
    both(|rig| {
        rig.connect();
        // What pauses between two writes here is the user, not the test.
        let scripts = [
            "{ printf a; sleep 5; printf b; } > redirected",
            "exec 3> descriptor; printf a >&3; cp /dev/null other.tmp; rm other.tmp; sleep 5; printf b >&3",
            "(printf a; sleep 5; printf b) > inherited",
            "{ printf a; sleep 5; printf b; } > late.msg",
        ];
        let processes = scripts.map(|script| Process::spawn(rig.command("sh", &["-ec", script])));
        for mut process in processes {
            assert_eq!(process.finish().code, Some(0));
        }
        for name in ["redirected", "descriptor", "inherited"] {
            rig.sends(name, "ab");
        }
        rig.says("ab");
    });
}

#[test]
fn a_text_that_grows_is_sent_whole_each_time() {
    // A real directory may see only the last of quick writes to one name.
    on("fuse", |rig| {
        // Nobody takes them yet: they stay where they are.
        rig.sh("sh", "for n in 1 2 3; do echo $n >> grows.msg; done");
        for body in ["1\n", "1\n2\n", "1\n2\n3\n"] {
            rig.says(body);
        }
    });
}
