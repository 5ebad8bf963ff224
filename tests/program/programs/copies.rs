//! What copies files and trees into the outbox.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{both, is_executable};
use crate::fixture::content::{noise, tree};

/// Files of the large tree.
const MANY: usize = 2000;
/// Files of the others.
const SOME: usize = 60;
/// What [`tree`] makes beside those: an empty file, a hidden one, a script.
const BESIDE: usize = 3;

#[test]
fn cp_of_two_thousand_files_sends_each_once() {
    both(|rig| {
        rig.connect();
        let source = rig.world.path("home/project");
        tree(&source, MANY);
        rig.sh("cp", "cp -r ~/project copied");
        rig.sends_tree("copied", &source, MANY + BESIDE, false);
    });
}

#[test]
fn what_copies_trees_sends_each_file_once() {
    both(|rig| {
        rig.connect();
        let source = rig.world.path("home/project");
        tree(&source, SOME);
        rig.sh("cp", "cp -a ~/project preserved");
        rig.sends_tree("preserved", &source, SOME + BESIDE, true);
        rig.sh("rsync", "rsync -a ~/project/ synced && rsync -a ~/project/ synced");
        rig.sends_tree("synced", &source, SOME + BESIDE, true);
        rig.sh("tar", "tar --format=pax -cf ~/project.tar -C ~ project && mkdir unpacked");
        rig.sh("tar", "tar xf ~/project.tar -C unpacked");
        rig.sends_tree("unpacked/project", &source, SOME + BESIDE, true);
    });
}

#[test]
fn git_clone_sends_the_work_tree_and_no_repository() {
    both(|rig| {
        rig.connect();
        let source = rig.world.path("home/project");
        tree(&source, SOME);
        fs::write(source.join(".gitignore"), "*.o\n").unwrap();
        // Git does not know empty directories.
        fs::remove_dir(source.join("empty/dir")).unwrap();
        let names = "-c user.name=a -c user.email=a@b";
        rig.sh("git", &format!("cd ~/project && git init -q && git add . && git {names} commit -qm all"));
        rig.sh("git", "git clone -q ~/project cloned");
        rig.sh("git", "git -C cloned status --porcelain > ~/status");
        assert_eq!(fs::read_to_string(rig.world.path("home/status")).unwrap(), "", "a clean work tree");
        fs::remove_dir_all(source.join(".git")).unwrap();
        rig.sends_tree("cloned", &source, SOME + BESIDE + 1, false);
        rig.leaves_out("cloned/.git");
    });
}

#[test]
fn what_copies_a_file_sends_it_once_with_mode_and_time() {
    both(|rig| {
        rig.connect();
        let bytes = noise(1, 70_000);
        let source = rig.source("source", &bytes);
        rig.sh("touch", "touch -d '2001-02-03 04:05:06.789' ~/source");
        // Another file system than that of a real outbox, where the machine has one.
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("moved"), &bytes).unwrap();
        rig.sh("mv", &format!("mv {}/moved moved", elsewhere.path().display()));
        rig.sh("cp", "cp -a ~/source preserved && cp ~/source copied && cp -p ~/source note.msg");
        rig.sh("install", "install -m 755 ~/source installed && install -p -m 644 ~/source plain");
        rig.sh("rsync", "rsync -a ~/source synced && rsync --inplace -a ~/source inplace");
        rig.sh("ln", "ln -s ~/source linked && ln preserved hard");
        for name in
            ["moved", "preserved", "copied", "note.msg", "installed", "plain", "synced", "inplace", "linked"]
        {
            rig.sends(name, bytes.clone());
        }
        rig.sends("hard", bytes);
        let times = |path| {
            let about = fs::metadata(path).unwrap();
            (about.mtime(), about.mtime_nsec())
        };
        for name in ["preserved", "plain", "synced", "inplace", "linked", "hard"] {
            assert_eq!(times(rig.arrived(name)), times(source.clone()), "{name}");
        }
        assert!(is_executable(&rig.arrived("installed")) && !is_executable(&rig.arrived("plain")));
        assert!(!is_executable(&rig.arrived("moved")));
    });
}
