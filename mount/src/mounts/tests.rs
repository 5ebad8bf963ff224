//! The table's lines, hostile ones too, and what of it a path leads to.

use std::os::unix::ffi::OsStrExt as _;

use super::table::{Entry, parse, visible};
use super::*;

const TABLE: &str = "\
1 1 0:2 / / rw - rootfs rootfs rw
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 20 0:30 / /run/user/1000 rw,nosuid shared:7 master:2 propagate_from:1 - tmpfs tmpfs rw
31 30 0:1048575 / /run/user/1000/agent\\040w\\134x/9471-host rw - fuse.agent-wormhole agent-wormhole rw,fd=4,user_id=1000,group_id=100
";

fn paths(entries: &[Entry]) -> Vec<&Path> {
    entries.iter().map(|entry| entry.mounted.path.as_path()).collect()
}

fn found(table: &str, path: &str) -> Option<u32> {
    visible(&parse(table.as_bytes()), Path::new(path)).map(|entry| entry.id)
}

#[test]
fn a_line_is_read_with_its_escapes_undone() {
    let entries = parse(TABLE.as_bytes());
    assert_eq!(entries.len(), 4);
    let ours = &entries[3].mounted;
    assert_eq!(ours.path, Path::new("/run/user/1000/agent w\\x/9471-host"));
    assert_eq!((ours.fstype.as_str(), ours.source.as_str()), (FSTYPE, "agent-wormhole"));
    assert_eq!(ours.device, (0, 1_048_575));
    assert_eq!((ours.owner, entries[2].mounted.owner), (Some(1000), None));
    assert_eq!(found(TABLE, "/run/user/1000/agent w\\x/9471-host"), Some(31));
}

#[test]
fn hostile_lines_are_left_out_or_read_as_they_are() {
    for line in [
        "",
        " ",
        "1",
        "1 2 3:4",
        "1 2 3:4 / /a rw",
        "1 2 3:4 / /a rw -",
        "1 2 3:4 / /a rw - type",
        "1 2 3 / /a rw - type source",
        "1 2 3: / /a rw - type source",
        "1 2 : / /a rw - type source",
        "-1 2 3:4 / /a rw - type source",
        "1 99999999999 3:4 / /a rw - type source",
        "1 2 3:4 / a rw - type source",
        "1 2 3:4 /  rw - type source",
        "\0\u{ff}\\",
    ] {
        assert!(parse(line.as_bytes()).is_empty(), "{line:?}");
    }
    for (escaped, plain) in [
        (&b"/a\\"[..], &b"/a\\"[..]),
        (b"/a\\1", b"/a\\1"),
        (b"/a\\04", b"/a\\04"),
        (b"/a\\400", b"/a\\400"),
        (b"/a\\089", b"/a\\089"),
        (b"/a\\377\xfe", b"/a\xff\xfe"),
        (b"/a\\011\\012\\134040", b"/a\t\n\\040"),
    ] {
        let line = [b"1 2 3:4 / ", escaped, b" rw - type source rw"].concat();
        assert_eq!(parse(&line)[0].mounted.path.as_os_str().as_bytes(), plain);
    }
    // An empty source is one, and its neighbours are not taken for it.
    assert_eq!(parse(b"1 2 3:4 / /a rw - type  rw")[0].mounted.source, "");
    assert_eq!(parse(b"1 2 3:4 / /a rw - type \\043\xff rw")[0].mounted.source, "#\u{fffd}");
}

#[test]
fn the_topmost_mount_is_found_and_a_hidden_one_is_not() {
    // Stacked on one path, in any order of the lines.
    for table in [
        "20 1 8:1 / / rw - ext4 a rw\n40 20 0:4 / /m rw - tmpfs b rw\n41 40 0:5 / /m rw - tmpfs c rw",
        "41 40 0:5 / /m rw - tmpfs c rw\n40 20 0:4 / /m rw - tmpfs b rw\n20 1 8:1 / / rw - ext4 a rw",
    ] {
        assert_eq!(found(table, "/m"), Some(41));
        assert_eq!(found(table, "/m/"), Some(41));
        assert_eq!(found(table, "/"), Some(20));
        for path in ["/m/x", "/mm", "m", "", "/n/../m"] {
            assert_eq!(found(table, path), None, "{path}");
        }
    }
    // A mount over the directory above hides the one below; another there is a different one.
    let hidden =
        "20 1 8:1 / / rw - ext4 a rw\n40 20 0:4 / /m/n rw - x b rw\n41 20 0:5 / /m rw - tmpfs c rw\n";
    assert_eq!(found(hidden, "/m/n"), None);
    assert_eq!(found(&format!("{hidden}42 41 0:6 / /m/n rw - x b rw"), "/m/n"), Some(42));
    // In a root that is no mount itself nothing stands at `/`.
    assert_eq!(found("40 20 0:4 / /m rw - tmpfs b rw\n41 40 0:5 / /m/n rw - x c rw", "/m/n"), Some(41));
}

#[test]
fn a_table_that_goes_in_circles_ends() {
    let circle = "1 9 0:1 / / rw - a a rw\n2 1 0:1 / /m rw - a a rw\n3 2 0:1 / /m rw - a a rw\n2 3 0:1 / /m rw - a a rw";
    assert_eq!(found(circle, "/m"), None);
}

#[test]
fn the_table_of_this_process_has_its_root_or_something() {
    let all = list().unwrap();
    assert!(
        all.iter().any(|mounted| mounted.path == Path::new("/proc")),
        "{:?}",
        paths(&table::read().unwrap())
    );
    assert_eq!(find(Path::new("/proc"), "proc").unwrap(), None);
    assert!(!detach(Path::new("/proc"), "proc").unwrap());
    assert!(!detach(Path::new("/nonexistent"), "agent-wormhole").unwrap());
}

#[test]
fn a_connection_is_named_as_the_kernel_numbers_devices() {
    let name = |major, minor| super::connection::name((major, minor));
    assert_eq!(name(0, 47).as_deref(), Some("47"));
    assert_eq!(name(0, 1_048_575).as_deref(), Some("1048575"));
    assert_eq!(name(8, 1).as_deref(), Some("8388609"));
    assert_eq!(name(0, 1 << 20), None);
    assert_eq!(name(4096, 0), None);
    let dir = tempfile::tempdir().unwrap();
    let abort = |minor| super::connection::abort(dir.path(), (0, minor));
    assert_eq!(abort(47).unwrap_err().kind(), io::ErrorKind::NotFound);
    std::fs::create_dir(dir.path().join("47")).unwrap();
    std::fs::write(dir.path().join("47/abort"), "").unwrap();
    abort(47).unwrap();
    assert_eq!(std::fs::read(dir.path().join("47/abort")).unwrap(), b"1");
}
