//! Which relay is used: what was typed, what the environment says, what the config file says.
//!
//! Owns the order of the three and the shape of the file. Connects to nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::transport::relay::Endpoint;

/// The environment variable that names the relay.
pub const RELAY_VARIABLE: &str = "AGENT_WORMHOLE_RELAY_URL";
/// Longest URL in bytes.
const MAX_URL: usize = 2048;

/// Why the configuration cannot be used. Every one is a usage error.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the URL of a relay.
    #[error("{from} does not name a relay: {why}; write it as wss://relay.example.org")]
    Url {
        /// Where it stands.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file is there and cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{} cannot be understood: {why}; it may hold one line: relay = \"wss://relay.example.org\"", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The relay of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relay {
    /// The one inside a channel process of this machine.
    Local,
    /// The one at this address, which reads as an [`Endpoint`].
    Url(String),
}

/// What the outside says, as arguments.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// `--relay`.
    pub flag: Option<String>,
    /// [`RELAY_VARIABLE`].
    pub variable: Option<OsString>,
    /// The config file, where there can be one.
    pub file: Option<PathBuf>,
}

impl Outside {
    /// What the environment of this process says.
    #[must_use]
    pub fn of_process(flag: Option<String>) -> Self {
        let home = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = home("XDG_CONFIG_HOME").or_else(|| home("HOME").map(|home| home.join(".config")));
        Self {
            flag,
            variable: std::env::var_os(RELAY_VARIABLE),
            file: base.map(|base| base.join("agent-wormhole/config.toml")),
        }
    }

    /// The relay: the flag, else the variable, else the file, else the local one. An empty variable is none.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn relay(&self) -> Result<Relay, ConfigError> {
        if let Some(url) = &self.flag {
            return relay_url(url, "--relay");
        }
        if let Some(url) = self.variable.as_ref().filter(|url| !url.is_empty()) {
            return relay_url(&url.to_string_lossy(), RELAY_VARIABLE);
        }
        let Some(path) = &self.file else { return Ok(Relay::Local) };
        match read(path)?.relay {
            Some(url) => relay_url(&url, &format!("`relay` in {}", path.display())),
            None => Ok(Relay::Local),
        }
    }
}

/// The config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    /// URL of the relay.
    relay: Option<String>,
}

fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ConfigFile::default()),
        Err(source) => return Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    };
    toml::from_str(&text).map_err(|error| {
        let why = error.message().to_owned();
        ConfigError::Malformed { path: path.to_owned(), why }
    })
}

fn relay_url(url: &str, from: &str) -> Result<Relay, ConfigError> {
    let wrong = |why| ConfigError::Url { from: from.to_owned(), why };
    let url = url.trim();
    if url.len() > MAX_URL {
        return Err(wrong(format!("it is longer than {MAX_URL} bytes")));
    }
    // A scheme is told apart without regard to capitals (RFC 3986 section 3.1).
    let url = match url.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None => url.to_owned(),
    };
    url.parse::<Endpoint>().map_err(|error| wrong(error.to_string()))?;
    Ok(Relay::Url(url.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_variable_and_that_over_the_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("config.toml");
        std::fs::write(&file, "relay = \"wss://file.example\"\n").unwrap();
        let mut outside = Outside {
            flag: Some("wss://flag.example".into()),
            variable: Some("ws://variable.example:8080/ws".into()),
            file: Some(file),
        };
        assert_eq!(outside.relay().unwrap(), Relay::Url("wss://flag.example".into()));
        outside.flag = None;
        assert_eq!(outside.relay().unwrap(), Relay::Url("ws://variable.example:8080/ws".into()));
        outside.variable = Some("".into());
        assert_eq!(outside.relay().unwrap(), Relay::Url("wss://file.example".into()));
        outside.file = Some(place.path().join("missing.toml"));
        assert_eq!(outside.relay().unwrap(), Relay::Local);
        outside.file = None;
        assert_eq!(outside.relay().unwrap(), Relay::Local);
    }

    #[test]
    fn a_broken_file_is_named_with_the_way_out() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("config.toml");
        for text in ["relay = ", "relya = \"wss://x\"", "relay = 5", "relay = \"x\""] {
            std::fs::write(&file, text).unwrap();
            let outside = Outside { file: Some(file.clone()), ..Outside::default() };
            let error = outside.relay().unwrap_err().to_string();
            assert!(error.contains("config.toml") && error.contains("wss://relay.example.org"), "{error}");
        }
        let outside = Outside { file: Some(place.path().to_owned()), ..Outside::default() };
        assert!(matches!(outside.relay(), Err(ConfigError::Unreadable { .. })));
    }

    #[test]
    fn only_websocket_urls_name_a_relay() {
        let relay = |url: &str| Outside { flag: Some(url.into()), ..Outside::default() }.relay();
        assert_eq!(relay("WSS://Relay.example/").unwrap(), Relay::Url("wss://Relay.example".into()));
        assert_eq!(relay("ws://[::1]:9/x/").unwrap(), Relay::Url("ws://[::1]:9/x".into()));
        let wrong = [
            "",
            "relay.example",
            "https://relay.example",
            "ws://",
            "ws:///x",
            "wss://:443",
            "wss://a b",
            "wss://u:p@h",
            "wss://h/#f",
            "wss://h/?q",
            "ws://h:0",
        ];
        for url in wrong {
            assert!(matches!(relay(url), Err(ConfigError::Url { .. })), "{url:?}");
        }
        assert!(matches!(relay("wss://a\u{1b}[2J"), Err(ConfigError::Url { .. })));
        assert!(matches!(relay(&format!("wss://{}", "a".repeat(MAX_URL))), Err(ConfigError::Url { .. })));
    }
}
