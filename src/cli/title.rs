//! What other users and crash handlers see of this process: not the code.
//!
//! Owns the arguments as `ps` shows them and the ban on core dumps. Works on Linux through `/proc`; elsewhere only the
//! core dumps are forbidden, and `connect -` keeps the code out of the arguments.

use rustix::process::{Resource, Rlimit, setrlimit};
#[cfg(target_os = "linux")]
use zeroize::Zeroizing;

/// Overwrites these arguments where the kernel shows them to everybody. Leading digits stay: the nameplate is public.
/// Is to be called before [`forbid_dumps`], which closes `/proc/self/mem`.
pub(super) fn hide(secrets: &[String]) {
    if !secrets.is_empty()
        && let Err(error) = overwrite(secrets)
    {
        tracing::debug!(%error, "the code stays visible in the process list");
    }
}

/// No core dump and no debugger of another process sees keys.
pub(super) fn forbid_dumps() {
    // Best effort: where it is refused, it already was as strict, or a policy above us decides.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

#[cfg(target_os = "linux")]
fn overwrite(secrets: &[String]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;

    let start = arguments_start(&std::fs::read_to_string("/proc/self/stat")?)
        .ok_or(std::io::ErrorKind::InvalidData)?;
    let arguments = Zeroizing::new(std::fs::read("/proc/self/cmdline")?);
    // Our own memory through the kernel: needs no pointer into a place that Rust does not know.
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    for (offset, masked) in masked(&arguments, secrets) {
        memory.write_all_at(&masked, start + offset)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn overwrite(_: &[String]) -> std::io::Result<()> {
    Ok(())
}

/// Where the arguments are in memory: field 48 of `/proc/self/stat`. The second field is the program's name in
/// parentheses, and may hold anything.
#[cfg(target_os = "linux")]
fn arguments_start(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_ascii_whitespace().nth(48 - 3)?.parse().ok().filter(|&start| start != 0)
}

/// Offsets and new bytes of the arguments that are to be hidden.
#[cfg(target_os = "linux")]
fn masked(arguments: &[u8], secrets: &[String]) -> Vec<(u64, Vec<u8>)> {
    let mut offset = 0;
    let mut found = Vec::new();
    for argument in arguments.split(|&byte| byte == 0) {
        if secrets.iter().any(|secret| secret.as_bytes() == argument) {
            let digits = argument.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let mut masked = argument.to_vec();
            masked[digits..].fill(b'*');
            found.push((offset, masked));
        }
        offset += argument.len() as u64 + 1;
    }
    found
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_masked_and_nothing_else() {
        let arguments = b"agent-wormhole\0connect\x009471-cross-clock-marble\0--dir\0x\0";
        let secrets = ["9471-cross-clock-marble".to_owned()];
        assert_eq!(masked(arguments, &secrets), [(23, b"9471*******************".to_vec())]);
        assert_eq!(masked(arguments, &["9472-a".to_owned()]), []);
    }

    #[test]
    fn a_program_name_full_of_traps_does_not_mislead() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("1 (a) b) (c) {}", fields.join(" "));
        assert_eq!(arguments_start(&stat), Some(48));
        assert_eq!(arguments_start("1 (a) S 1"), None);
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(arguments_start(&own).is_some());
    }
}
