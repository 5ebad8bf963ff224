//! The one table of names that are not sent, each row with its reason and its examples. Owns nothing else: who meets
//! such a name reports it, so that nothing is left out in silence.

/// One row: which names, why, and examples for the test and for SEMANTICS.md.
#[derive(Debug)]
pub struct Row {
    /// The pattern as people write it.
    pub pattern: &'static str,
    /// Why it is not sent, in words for a person.
    pub reason: &'static str,
    /// Whether it holds at the top of the outbox only.
    pub top_only: bool,
    /// Decides for one part of a path.
    matches: fn(&str) -> bool,
    /// Names that match, and names that only look like it.
    pub examples: (&'static [&'static str], &'static [&'static str]),
}

/// Successors of vim's `4913` that are tried while the name is taken.
const VIM_PROBES: u32 = 16;

/// Every name that is not sent. `*.lock` is: lock files of package managers belong to a project.
pub const TABLE: &[Row] = &[
    Row {
        pattern: ".git",
        reason: "a repository from a peer runs code; send `git bundle create outbox/x.bundle --all`",
        top_only: false,
        matches: |name| name == ".git",
        examples: (&[".git"], &[".gitignore", "x.git", ".github", "git"]),
    },
    Row {
        pattern: ".*.sw?",
        reason: "an editor's swap file",
        top_only: false,
        matches: |name| {
            let Some(at) = name.rfind(".sw") else { return false };
            at > 1 && name.starts_with('.') && name[at + 3..].chars().count() == 1
        },
        examples: (&[".a.txt.swp", ".a.swo", ".x.swx"], &["a.swp", ".swp", ".a.swift"]),
    },
    Row {
        pattern: ".#*",
        reason: "an editor's lock",
        top_only: false,
        matches: |name| name.starts_with(".#"),
        examples: (&[".#a.txt"], &["#a", "a.#b"]),
    },
    Row {
        pattern: "._*",
        reason: "metadata of macOS",
        top_only: false,
        matches: |name| name.starts_with("._"),
        examples: (&["._a.txt"], &["_a", "a._b"]),
    },
    Row {
        pattern: ".DS_Store",
        reason: "metadata of macOS",
        top_only: false,
        matches: |name| name == ".DS_Store",
        examples: (&[".DS_Store"], &["DS_Store", ".DS_Store2"]),
    },
    Row {
        pattern: ".nfs*",
        reason: "a deleted file that is still open",
        top_only: false,
        matches: |name| name.starts_with(".nfs"),
        examples: (&[".nfs0000a1"], &["nfs0000"]),
    },
    Row {
        pattern: ".fuse_hidden*",
        reason: "a deleted file that is still open",
        top_only: false,
        matches: |name| name.starts_with(".fuse_hidden"),
        examples: (&[".fuse_hidden00012"], &["fuse_hidden1"]),
    },
    Row {
        pattern: ".goutputstream-*",
        reason: "a file that is still being saved",
        top_only: false,
        matches: |name| name.starts_with(".goutputstream-"),
        examples: (&[".goutputstream-A1B2C3"], &["goutputstream-1"]),
    },
    Row {
        pattern: ".~lock.*",
        reason: "an office program's lock",
        top_only: false,
        matches: |name| name.starts_with(".~lock."),
        examples: (&[".~lock.a.odt#"], &["~lock.a", ".~a"]),
    },
    Row {
        pattern: ".NAME.XXXXXX",
        reason: "a file that rsync is still writing",
        top_only: false,
        matches: is_rsync_temporary,
        examples: (
            &[".a.txt.Xy3kQ9", ".Makefile.a1b2C3"],
            &[".env.sample", ".x.backup", ".a.123456", "a.Xy3kQ9"],
        ),
    },
    Row {
        pattern: ".*",
        reason: "names at the top of outbox/ that begin with a dot are not sent; rename it or put it into a directory",
        top_only: true,
        matches: |name| name.starts_with('.'),
        examples: (&[".env", ".hidden", ".x"], &["a.b"]),
    },
    Row {
        pattern: "*~",
        reason: "an editor's backup",
        top_only: false,
        matches: |name| name.ends_with('~'),
        examples: (&["a.txt~", "~"], &["~a"]),
    },
    Row {
        pattern: "#*#",
        reason: "an editor's autosave",
        top_only: false,
        matches: |name| name.len() > 1 && name.starts_with('#') && name.ends_with('#'),
        examples: (&["#a.txt#", "##"], &["#", "#a", "a#"]),
    },
    Row {
        pattern: "*.tmp",
        reason: "a temporary name; rename it when it is complete",
        top_only: false,
        matches: |name| name.ends_with(".tmp"),
        examples: (&["a.tmp", "a.txt.tmp"], &["tmp", "a.tmp.txt", "a.tmpl"]),
    },
    Row {
        pattern: "*.tmp.<digits>.<hex or digits>",
        reason: "a temporary name; rename it when it is complete",
        top_only: false,
        matches: is_agent_temporary,
        examples: (
            &["a.md.tmp.4711.9f3ac2", "a.tmp.1.1700000000"],
            &["a.tmp.x.1", "a.tmp.1.xyz", "a.tmp.1."],
        ),
    },
    Row {
        pattern: "*.part",
        reason: "a download that is not complete",
        top_only: false,
        matches: |name| name.ends_with(".part"),
        examples: (&["a.iso.part"], &["part", "a.part1"]),
    },
    Row {
        pattern: "*.crdownload",
        reason: "a download that is not complete",
        top_only: false,
        matches: |name| name.ends_with(".crdownload"),
        examples: (&["a.zip.crdownload"], &["crdownload"]),
    },
    Row {
        pattern: "4913",
        reason: "vim tries with it whether it may write here",
        top_only: false,
        matches: is_vim_probe,
        examples: (&["4913", "5036", "5159"], &["4914", "04913", "491", "x4913"]),
    },
    Row {
        pattern: "*-journal",
        reason: "part of a database in use; send a backup of it",
        top_only: false,
        matches: |name| name.ends_with("-journal"),
        examples: (&["a.db-journal"], &["journal"]),
    },
    Row {
        pattern: "*-wal",
        reason: "part of a database in use; send a backup of it",
        top_only: false,
        matches: |name| name.ends_with("-wal"),
        examples: (&["a.db-wal"], &["wal", "a-wall"]),
    },
    Row {
        pattern: "*-shm",
        reason: "part of a database in use; send a backup of it",
        top_only: false,
        matches: |name| name.ends_with("-shm"),
        examples: (&["a.db-shm"], &["shm"]),
    },
];

/// Why one part of a path is not sent; `top` where it stands at the top of the outbox.
#[must_use]
pub fn part(name: &str, top: bool) -> Option<&'static str> {
    TABLE.iter().find(|row| (top || !row.top_only) && (row.matches)(name)).map(|row| row.reason)
}

/// Why a path relative to `outbox/` is not sent: the first of its parts that the table names.
#[must_use]
pub fn path(name: &str) -> Option<&'static str> {
    name.split('/').enumerate().find_map(|(depth, name)| part(name, depth == 0))
}

/// rsync's `.NAME.XXXXXX`: six letters and digits from mkstemp. One class alone (`.env.sample`, `.log.202401`) is a
/// name that a person chose; the one in a hundred of rsync's that looks so is renamed before it settles.
fn is_rsync_temporary(name: &str) -> bool {
    let Some((stem, random)) = name.rsplit_once('.') else { return false };
    if stem.len() < 2 || !stem.starts_with('.') || random.len() != 6 {
        return false;
    }
    let has = |class: fn(&u8) -> bool| usize::from(random.bytes().any(|byte| class(&byte)));
    random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && has(u8::is_ascii_lowercase) + has(u8::is_ascii_uppercase) + has(u8::is_ascii_digit) > 1
}

/// `name.tmp.<pid>.<hex>`, as agents save.
fn is_agent_temporary(name: &str) -> bool {
    let Some((rest, random)) = name.rsplit_once('.') else { return false };
    let Some((rest, pid)) = rest.rsplit_once('.') else { return false };
    let full = |text: &str, class: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|byte| class(&byte));
    rest.ends_with(".tmp") && full(pid, u8::is_ascii_digit) && full(random, u8::is_ascii_hexdigit)
}

/// `4913`, and while that is taken 123 more each time.
fn is_vim_probe(name: &str) -> bool {
    let number = name.parse::<u32>().ok().filter(|number| number.to_string() == name);
    number
        .and_then(|number| number.checked_sub(4913))
        .is_some_and(|off| off % 123 == 0 && off / 123 <= VIM_PROBES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_matches_its_examples_and_nothing_that_looks_like_them() {
        for row in TABLE {
            for name in row.examples.0 {
                assert!((row.matches)(name), "{} takes {name}", row.pattern);
                assert!(part(name, true).is_some(), "{name} at the top");
                assert_eq!(part(name, false).is_some(), !row.top_only, "{name} inside");
            }
            for name in row.examples.1 {
                assert!(!(row.matches)(name), "{} leaves {name}", row.pattern);
            }
        }
    }

    #[test]
    fn what_belongs_to_a_project_is_sent() {
        for name in
            ["Cargo.lock", "yarn.lock", "message", "a.msg", "x.log", "core", "a.swp", "#", "a.bak", "a.orig"]
        {
            assert_eq!(part(name, true), None, "{name}");
        }
        for name in [".env", ".gitignore", ".github", ".env.sample", ".config"] {
            assert_eq!(part(name, false), None, "{name}");
        }
    }

    #[test]
    fn a_path_is_left_out_for_any_of_its_parts() {
        assert!(path("p/.git/config").is_some());
        assert!(path("p/x.tmp/y").is_some());
        assert!(path(".x/y").is_some());
        assert_eq!(path("p/.x/y"), None);
    }
}
