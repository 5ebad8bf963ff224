//! `agent-wormhole send`: puts a text, links to files and directories, or a stream into a channel's outbox.
//!
//! Owns the reading of what is to be sent and the names that it gets. The mailbox does the rest.

mod piped;
mod secret;

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use agent_wormhole_mount::{MAX_TEXT, client};
use zeroize::Zeroizing;

use super::args::SendArgs;
use super::exit::{Exit, Failure};
use super::flush;
use crate::crypto::pake::Role;

pub(super) fn run(args: SendArgs) -> Result<Exit, Failure> {
    let SendArgs { channel, text, files, secret, name, wait, timeout, role } = args;
    if name.is_some() && files.len() > 1 && files.iter().all(|path| path.as_os_str() != "-") {
        let why = "--name names one file; send the others with a call of their own".to_owned();
        return Err(Failure::new(Exit::Usage, why));
    }
    if files.iter().any(|path| path.as_os_str() == "-") {
        return piped::run(&piped::Piped { channel, alone: files.len() == 1, name, wait, timeout, role });
    }
    let channel = super::channel(&channel, role.map(Role::from))?;
    if let Some(name) = secret {
        secret::send(&channel, &name)?;
        return if wait { flush::wait(&channel, timeout) } else { Ok(Exit::Done) };
    }
    // Everything is looked at before the first of several is sent.
    let links = files.into_iter().map(|path| link(path, name.as_deref())).collect::<Result<Vec<_>, _>>()?;
    for (n, (path, name)) in links.iter().enumerate() {
        client::check_link(path, name)?;
        client::check_free(&channel.dir, name)?;
        if links[..n].iter().any(|(_, other)| other == name) {
            let why =
                format!("two of them have the name {name:?}; send one of them alone, under another --name");
            return Err(Failure::new(Exit::Usage, why));
        }
    }
    if let Some(text) = text {
        client::post_text(&channel.dir, &body(text)?)?;
    }
    for (path, name) in &links {
        client::post_link(&channel.dir, path, name)?;
    }
    if wait { flush::wait(&channel, timeout) } else { Ok(Exit::Done) }
}

/// The text as it was typed, or standard input.
fn body(text: String) -> Result<Zeroizing<String>, Failure> {
    if text != "-" {
        return Ok(Zeroizing::new(text));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    // One byte more than is sent: what is too long is refused, not shortened.
    io::stdin().lock().take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Exit::Internal, format!("the text cannot be read from standard input: {error}; nothing was sent, give it as an argument or in a file"))
    })?;
    if bytes.len() as u64 > MAX_TEXT {
        let why = format!("standard input is longer than a text may be ({MAX_TEXT} bytes); send a file");
        return Err(Failure::new(Exit::Usage, why));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::new(
            Exit::Usage,
            "standard input is not a text in UTF-8; write it into a file and send that with --file"
                .to_owned(),
        )),
    }
}

/// What a path is sent under: the name that was given, or its last component.
fn link(path: PathBuf, name: Option<&str>) -> Result<(PathBuf, String), Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => own_name(&path)?,
    };
    Ok((path, name))
}

fn own_name(path: &Path) -> Result<String, Failure> {
    let cannot = |why: String| {
        Failure::new(
            Exit::Usage,
            format!("{} cannot be sent: {why}", path.display().to_string().escape_debug()),
        )
    };
    // `.`, `..` and `/` have no name of their own: the directory they mean may have one.
    let named = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().map_err(|error| cannot(error.to_string()))?,
    };
    let name = named.file_name().and_then(OsStr::to_str).map(str::to_owned);
    name.ok_or_else(|| cannot("its name is not UTF-8, or it has none; give it one with --name".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_sent_under_its_last_component() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("project");
        std::fs::create_dir(&dir).unwrap();
        for (path, name) in [
            (dir.clone(), "project"),
            (dir.join(""), "project"),
            (dir.join("."), "project"),
            (dir.join("..").join("project").join("..").join("project"), "project"),
            (PathBuf::from("a/b.txt"), "b.txt"),
        ] {
            assert_eq!(own_name(&path).unwrap(), name, "{}", path.display());
        }
        let (_, name) = link(dir, Some("other")).unwrap();
        assert_eq!(name, "other");
        for nameless in ["/", "missing/.."] {
            assert_eq!(own_name(Path::new(nameless)).unwrap_err().exit, Exit::Usage, "{nameless}");
        }
    }
}
