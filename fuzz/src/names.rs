//! A peer's name: whatever it is, it stands below `inbox/`, and can be shown.

use agent_wormhole::event::escape;
use agent_wormhole_mount::name::{MAX_DEPTH, MAX_PART, RESERVED, Root, SafeName, numbered};

use super::Script;

/// Any name, in either place.
pub fn holds(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let root = if script.byte().is_multiple_of(2) { Root::Inbox } else { Root::Group };
    let number = u32::from(script.byte());
    let name = String::from_utf8_lossy(script.rest()).into_owned();
    let Ok(safe) = SafeName::parse(&name, root) else { return };
    assert!((1..=MAX_DEPTH).contains(&safe.parts().len()));
    for part in safe.parts().iter().cloned().chain([numbered(safe.last(), number)]) {
        assert!((1..=MAX_PART).contains(&part.len()), "{part:?}");
        assert!(part != "." && part != ".." && !part.contains(['/', '\0']), "{part:?}");
        assert!(!part.chars().any(char::is_control), "{part:?}");
        assert_eq!(escape::visible(&part), part, "nothing in it is hidden");
        assert!(!part.eq_ignore_ascii_case(".git"), "{part:?}");
    }
    if root == Root::Inbox {
        let top = &safe.parts()[0];
        assert!(!top.starts_with('.') && !RESERVED.contains(&top.as_str()), "{top:?}");
    }
    // What is safe stays as it is.
    assert_eq!(SafeName::parse(&safe.to_string(), root).as_ref(), Ok(&safe));
}
