//! The document and the code are one: `SEMANTICS.md` names tests that exist and every row of the table.

use std::fs;
use std::path::Path;

use agent_wormhole_mount::ignore::TABLE;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_row_names_a_test_that_exists() {
    let document = read("SEMANTICS.md");
    let units = [
        "src/name.rs",
        "src/ignore.rs",
        "src/inbox.rs",
        "src/outbox/tests.rs",
        "src/outbox/tests/mounted.rs",
        "src/prepare.rs",
        "src/questions.rs",
        "src/readers.rs",
        "src/reference/tests.rs",
        "src/stream/tests.rs",
        "src/dir/watch.rs",
        "src/dir/worker/tests.rs",
        "src/outbox/tickets.rs",
        "src/tree.rs",
        "src/files/tests.rs",
        "src/files/tests/leaving.rs",
        "src/files/tests/policy.rs",
        "src/files/tests/model.rs",
        "src/files/tests/secrets.rs",
        "src/secret/vault.rs",
        "src/secret/memory.rs",
        "src/mounted/receipts.rs",
        "src/blob/tests.rs",
    ]
    .map(read)
    .concat();
    let mut named = 0;
    for name in
        document.split('`').skip(1).step_by(2).filter(|name| name.contains("::") && *name != "module::test")
    {
        let (module, test) = name.split_once("::").unwrap();
        let source = match module {
            "tests" => units.clone(),
            module => read(&format!("tests/suite/{module}.rs")),
        };
        assert!(source.contains(&format!("fn {test}()")), "{name}");
        named += 1;
    }
    assert!(named > 50);
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let is_of_the_table = TABLE.iter().any(|entry| entry.reason == last);
        let is_head = ["test", "why"].contains(&last);
        assert!(is_head || is_of_the_table || last.starts_with('`') && last.contains("::"), "{row}");
    }
}

#[test]
fn every_name_that_is_not_sent_is_published() {
    let document = read("SEMANTICS.md");
    for row in TABLE {
        let place = if row.top_only { "top of `outbox/`" } else { "everywhere" };
        assert!(
            document.contains(&format!("| `{}` | {place} | {} |", row.pattern, row.reason)),
            "{}",
            row.pattern
        );
    }
}
