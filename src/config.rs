//! Which relay is used, and the token that it is shown: what was typed, what the environment says, what the config file
//! says.
//!
//! Owns the order of the three and the shape of the file. Connects to nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::transport::relay::{Endpoint, Token};

/// The environment variable that names the relay.
pub const RELAY_VARIABLE: &str = "AGENT_WORMHOLE_RELAY_URL";
/// The environment variable that names the file of the relay's token.
pub const TOKEN_FILE_VARIABLE: &str = "AGENT_WORMHOLE_RELAY_TOKEN_FILE";
/// The environment variable that is the relay's token.
pub const TOKEN_VARIABLE: &str = "AGENT_WORMHOLE_RELAY_TOKEN";
/// Longest token file that is read, in bytes: its first line counts.
const MAX_TOKEN_FILE: u64 = 64 * 1024;
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
    #[error(
        "{} cannot be understood: {why}; it may hold two lines: relay = \"wss://relay.example.org\" and \
         relay-token-file = \"/path/to/token\"", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Not the token of a relay. It is not shown.
    #[error("{from} holds no token: its first line has to be visible ASCII characters without spaces")]
    Token {
        /// Where it stands.
        from: String,
    },
}

/// The relay of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relay {
    /// The one inside a channel process of this machine.
    Local,
    /// The one at this address.
    Url {
        /// The address, which reads as an [`Endpoint`].
        url: String,
        /// What it is shown, if it wants to see something.
        token: Option<Token>,
    },
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
    /// `--relay-token-file`.
    pub token_flag: Option<PathBuf>,
    /// [`TOKEN_FILE_VARIABLE`].
    pub token_file_variable: Option<OsString>,
    /// [`TOKEN_VARIABLE`].
    pub token_variable: Option<OsString>,
}

impl Outside {
    /// What the environment of this process says.
    #[must_use]
    pub fn of_process(flag: Option<String>, token_flag: Option<PathBuf>) -> Self {
        let home = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = home("XDG_CONFIG_HOME").or_else(|| home("HOME").map(|home| home.join(".config")));
        Self {
            flag,
            variable: std::env::var_os(RELAY_VARIABLE),
            file: base.map(|base| base.join("agent-wormhole/config.toml")),
            token_flag,
            token_file_variable: std::env::var_os(TOKEN_FILE_VARIABLE),
            token_variable: std::env::var_os(TOKEN_VARIABLE),
        }
    }

    /// The relay: the flag, else the variable, else the file, else the local one. An empty variable is none.
    ///
    /// Its token: the same order. The one of the config file is for the relay of the config file only: another relay, which
    /// somebody may have asked us to use, does not get to see it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn relay(&self) -> Result<Relay, ConfigError> {
        if let Some(url) = &self.flag {
            return self.with_token(relay_url(url, "--relay")?, None);
        }
        if let Some(url) = given(self.variable.as_ref()) {
            return self.with_token(relay_url(&url.to_string_lossy(), RELAY_VARIABLE)?, None);
        }
        let Some(path) = &self.file else { return Ok(Relay::Local) };
        let file = read(path)?;
        match file.relay {
            Some(url) => {
                let url = relay_url(&url, &format!("`relay` in {}", path.display()))?;
                self.with_token(url, file.relay_token_file.as_deref())
            }
            None => Ok(Relay::Local),
        }
    }

    /// The relay at this address with its token, if there is one.
    fn with_token(&self, url: String, in_file: Option<&Path>) -> Result<Relay, ConfigError> {
        let named = self.token_flag.as_deref().or(given(self.token_file_variable.as_ref()).map(Path::new));
        let token = match (named, given(self.token_variable.as_ref()), in_file) {
            (Some(path), _, _) | (None, None, Some(path)) => Some(token_of(path)?),
            (None, Some(token), _) => Some(first_line(&token.to_string_lossy(), TOKEN_VARIABLE)?),
            (None, None, None) => None,
        };
        Ok(Relay::Url { url, token })
    }
}

/// What a variable says, if it says anything.
fn given(variable: Option<&OsString>) -> Option<&OsString> {
    variable.filter(|value| !value.is_empty())
}

/// The config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    /// URL of the relay.
    relay: Option<String>,
    /// A file with its token.
    relay_token_file: Option<PathBuf>,
}

/// Reads a token file. A relay's own, with several tokens, will do.
fn token_of(path: &Path) -> Result<Token, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(MAX_TOKEN_FILE).read_to_string(&mut text))
        .map_err(unreadable)?;
    first_line(&text, &path.display().to_string())
}

fn first_line(text: &str, from: &str) -> Result<Token, ConfigError> {
    let line = text.lines().next().unwrap_or_default().trim();
    Token::parse(line).ok_or_else(|| ConfigError::Token { from: from.to_owned() })
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

fn relay_url(url: &str, from: &str) -> Result<String, ConfigError> {
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
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that is shown no token.
    fn open(url: &str) -> Relay {
        Relay::Url { url: url.to_owned(), token: None }
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_that_over_the_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("config.toml");
        std::fs::write(&file, "relay = \"wss://file.example\"\n").unwrap();
        let mut outside = Outside {
            flag: Some("wss://flag.example".into()),
            variable: Some("ws://variable.example:8080/ws".into()),
            file: Some(file),
            ..Outside::default()
        };
        assert_eq!(outside.relay().unwrap(), open("wss://flag.example"));
        outside.flag = None;
        assert_eq!(outside.relay().unwrap(), open("ws://variable.example:8080/ws"));
        outside.variable = Some("".into());
        assert_eq!(outside.relay().unwrap(), open("wss://file.example"));
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
        assert_eq!(relay("WSS://Relay.example/").unwrap(), open("wss://Relay.example"));
        assert_eq!(relay("ws://[::1]:9/x/").unwrap(), open("ws://[::1]:9/x"));
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

    #[test]
    fn a_token_is_shown_to_the_relay_that_it_is_meant_for() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (typed, named) = (write("typed", " typed \nsecond\n"), write("named", "named\n"));
        let own = write("own", "own");
        let text = format!("relay = \"wss://file.example\"\nrelay-token-file = {own:?}\n");
        let mut outside = Outside {
            file: Some(write("config.toml", &text)),
            token_flag: Some(typed),
            token_file_variable: Some(named.into()),
            token_variable: Some("variable".into()),
            ..Outside::default()
        };
        let shown = |outside: &Outside| match outside.relay().unwrap() {
            Relay::Url { token, .. } => token,
            Relay::Local => panic!("local"),
        };
        assert_eq!(shown(&outside), Token::parse("typed"));
        outside.token_flag = None;
        assert_eq!(shown(&outside), Token::parse("named"));
        outside.token_file_variable = Some("".into());
        assert_eq!(shown(&outside), Token::parse("variable"));
        outside.token_variable = None;
        assert_eq!(shown(&outside), Token::parse("own"));
        outside.flag = Some("wss://other.example".into());
        assert_eq!(shown(&outside), None, "another relay does not get what the config file's wants");
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        let outside = Outside {
            flag: Some("wss://flag.example".into()),
            token_flag: Some(path.clone()),
            ..Outside::default()
        };
        assert!(matches!(outside.relay(), Err(ConfigError::Unreadable { .. })));
        for text in ["", "\nsecret-token", "secret token", "secret\u{e9}"] {
            std::fs::write(&path, text).unwrap();
            let error = outside.relay().unwrap_err().to_string();
            assert!(error.contains("holds no token") && !error.contains("secret"), "{error}");
        }
    }
}
