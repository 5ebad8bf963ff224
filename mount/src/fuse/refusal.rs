//! Why there can be no mount here, in words for a person.

use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::unix::fs::MetadataExt as _;

/// Where the kernel is asked for requests.
const DEVICE: &str = "/dev/fuse";
/// Its number on Linux, where it has had it from the beginning (Documentation/admin-guide/devices.txt).
#[cfg(target_os = "linux")]
const NUMBER: (u32, u32) = (10, 229);

/// Looks whether the device is there, is what it is called, and may be opened.
///
/// # Errors
/// The reason why not.
pub(crate) fn device() -> Result<(), String> {
    look(DEVICE)
}

fn look(path: &str) -> Result<(), String> {
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(|error| format!("{path} cannot be opened: {error}"))?;
    #[cfg(target_os = "linux")]
    {
        let about = file.metadata().map_err(|error| format!("{path} cannot be looked at: {error}"))?;
        if about.rdev() != rustix::fs::makedev(NUMBER.0, NUMBER.1) {
            return Err(format!("{path} is not the device of FUSE"));
        }
    }
    drop(file);
    Ok(())
}

/// Why it cannot be mounted, in one line, from what fuser says.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    match (error.kind(), line) {
        (io::ErrorKind::NotFound, _) => {
            "mounting needs root or fusermount3, which is not installed (Debian: apt install fuse3)"
                .to_owned()
        }
        // So it is, too, where it is not found and a directory of the search path may not be entered.
        (io::ErrorKind::PermissionDenied, _) if error.raw_os_error().is_some() => {
            format!(
                "mounting needs root or fusermount3, which cannot be run: {text} (Debian: apt install fuse3)"
            )
        }
        // With path, options and flags before what the kernel said.
        (_, Some(line)) if line.starts_with("Error calling mount()") => {
            format!("the kernel refuses it: {}", line.rsplit(": ").next().unwrap_or(line))
        }
        (_, Some(line)) => line.to_owned(),
        (_, None) => "mounting was refused without a reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_none_is_named() {
        assert_eq!(
            look("/nowhere/fuse").unwrap_err(),
            "/nowhere/fuse cannot be opened: No such file or directory (os error 2)"
        );
        #[cfg(target_os = "linux")]
        assert_eq!(look("/dev/null").unwrap_err(), "/dev/null is not the device of FUSE");
    }

    #[test]
    fn a_refusal_is_one_line_without_paths() {
        let fuser = r#"Error calling mount() at "/run/x/4511-host" with "fd=22,rootmode=40700" and flags=MsFlags(MS_NOSUID): EINVAL: Invalid argument"#;
        assert_eq!(reason(&io::Error::other(fuser)), "the kernel refuses it: Invalid argument");
        assert_eq!(
            reason(&io::Error::other("\nfusermount3: mount failed: Operation not permitted\n")),
            "fusermount3: mount failed: Operation not permitted"
        );
        assert_eq!(reason(&io::Error::other("")), "mounting was refused without a reason");
        assert!(reason(&io::ErrorKind::NotFound.into()).contains("apt install fuse3"));
        let denied = reason(&io::Error::from_raw_os_error(libc::EACCES));
        assert!(denied.contains("fusermount3, which cannot be run: Permission denied"), "{denied}");
    }
}
