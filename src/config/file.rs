//! The config file: TOML, one setting a line.
//!
//! Owns its shape. What a setting means is read elsewhere.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use toml::Value;

use super::{ConfigError, Key};

/// Longest unknown key that a message shows, in characters.
const MAX_KEY: usize = 60;
/// A key that is at least so like another was meant to be that one (Jaro-Winkler, 0 to 1).
const NEAR: f64 = 0.8;

/// What the file says. One that is missing says nothing.
pub(super) fn read(path: &Path) -> Result<BTreeMap<Key, String>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    };
    let malformed = |why| ConfigError::Malformed { path: path.to_owned(), why };
    // The message alone: the library would show the line, and that may hold a password.
    let table: toml::Table = toml::from_str(&text).map_err(|error| malformed(error.message().to_owned()))?;
    let mut settings = BTreeMap::new();
    for (name, value) in table {
        let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) else {
            let near = near(&name);
            let key = name.chars().take(MAX_KEY).collect();
            return Err(ConfigError::Unknown { path: path.to_owned(), key, near });
        };
        let text = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            _ => return Err(malformed(format!("`{name}` has to be text in quotes"))),
        };
        settings.insert(key, text);
    }
    Ok(settings)
}

/// The setting that was meant, if it is written nearly so.
fn near(name: &str) -> Option<&'static str> {
    let written = name.to_ascii_lowercase().replace('_', "-");
    let like = |key: &Key| strsim::jaro_winkler(&written, key.name());
    let best = Key::ALL.into_iter().max_by(|a, b| like(a).total_cmp(&like(b)))?;
    (like(&best) >= NEAR).then(|| best.name())
}
