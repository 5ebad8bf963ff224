//! Which relay is used, the token that it is shown, and the way to it.
//!
//! Owns what belongs together of these: a token is for the relay that it stands beside, a proxy is not for every host.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{ConfigError, Given, Key, Settings};
use crate::transport::relay::{Authorities, Endpoint, Proxy, Token, Way, spares};

/// The environment variable that is the relay's token.
pub const TOKEN_VARIABLE: &str = "AGENT_WORMHOLE_RELAY_TOKEN";
/// Longest token file that is read, in bytes: its first line counts.
const MAX_TOKEN_FILE: u64 = 64 * 1024;
/// Longest file of authorities that is read, in bytes: far more than a system's.
const MAX_AUTHORITIES_FILE: u64 = 4 * 1024 * 1024;
/// Longest URL in bytes.
const MAX_URL: usize = 2048;
/// In place of a proxy: none.
const NO_PROXY: &str = "none";

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
        /// What is between here and there.
        way: Box<Way>,
    },
}

/// What holds a token.
enum Held {
    /// A file, in its first line.
    File(PathBuf),
    /// The variable itself.
    Variable(Given),
}

/// What was typed of a relay.
#[derive(Debug, Clone, Default)]
pub struct Typed {
    /// `--relay`.
    pub relay: Option<String>,
    /// `--relay-token-file`.
    pub token_file: Option<PathBuf>,
    /// `--ca`.
    pub ca: Option<PathBuf>,
    /// `--proxy`.
    pub proxy: Option<String>,
}

impl Settings {
    /// The relay: what was typed, else the variable, else the file, else the local one.
    ///
    /// Its token: the same order. The one of the config file is for the relay of the config file only: another relay,
    /// which somebody may have asked us to use, does not get to see it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn relay(&self, typed: &Typed) -> Result<Relay, ConfigError> {
        let flag = typed.relay.as_ref().map(|url| Given { text: url.into(), from: "--relay".into() });
        let elsewhere = flag.or_else(|| self.in_variable(Key::Relay.variable()));
        let in_file = if elsewhere.is_some() { None } else { self.in_file(Key::RelayTokenFile) };
        let Some(given) = elsewhere.or_else(|| self.in_file(Key::Relay)) else {
            return match typed.needless() {
                Some(flag) => Err(ConfigError::NoRelay(flag)),
                None => Ok(Relay::Local),
            };
        };
        let (url, endpoint) = relay_url(&given.text.to_string_lossy(), &given.from)?;
        let token = self.token(typed, in_file)?;
        let way = Way { proxy: self.proxy(typed, &endpoint)?, authorities: self.authorities(typed)? };
        Ok(Relay::Url { url, token, way: Box::new(way) })
    }

    /// Where the relay is set; `None` where nobody names one.
    #[must_use]
    pub fn relay_from(&self, typed: &Typed) -> Option<String> {
        let flag = typed.relay.as_ref().map(|_| "--relay".to_owned());
        flag.or_else(|| self.given(Key::Relay).map(|given| given.from))
    }

    /// The file that the relay's token is read from, where it comes from one.
    #[must_use]
    pub fn token_file(&self, typed: &Typed) -> Option<PathBuf> {
        let elsewhere = typed.relay.is_some() || self.in_variable(Key::Relay.variable()).is_some();
        let in_file = if elsewhere { None } else { self.in_file(Key::RelayTokenFile) };
        match self.token_place(typed, in_file) {
            Some(Held::File(path)) => Some(path),
            Some(Held::Variable(_)) | None => None,
        }
    }

    fn token(&self, typed: &Typed, in_file: Option<Given>) -> Result<Option<Token>, ConfigError> {
        match self.token_place(typed, in_file) {
            Some(Held::File(path)) => token_of(&path).map(Some),
            Some(Held::Variable(token)) => {
                first_line(&token.text.to_string_lossy(), TOKEN_VARIABLE).map(Some)
            }
            None => Ok(None),
        }
    }

    fn token_place(&self, typed: &Typed, in_file: Option<Given>) -> Option<Held> {
        let file = |given: Given| Held::File(PathBuf::from(given.text));
        let named = typed.token_file.clone().map(Held::File);
        named
            .or_else(|| self.in_variable(Key::RelayTokenFile.variable()).map(file))
            .or_else(|| self.in_variable(TOKEN_VARIABLE).map(Held::Variable))
            .or_else(|| in_file.map(file))
    }

    /// The proxy: what was typed, else our variable, else those of other programs, else the file. `NO_PROXY` holds for all
    /// but what was typed, and this machine itself is never reached through one.
    fn proxy(&self, typed: &Typed, endpoint: &Endpoint) -> Result<Option<Proxy>, ConfigError> {
        let typed = typed.proxy.as_ref().map(|text| Given { text: text.into(), from: "--proxy".into() });
        let Some((host, secure)) = endpoint.host() else {
            return if typed.is_some_and(|given| given.text != NO_PROXY) {
                Err(ConfigError::Loopback)
            } else {
                Ok(None)
            };
        };
        if let Some(given) = typed {
            let proxy = read_proxy(&given)?;
            return if proxy.is_some() && spares("", host) { Err(ConfigError::Loopback) } else { Ok(proxy) };
        }
        if spares(&self.spared(), host) {
            return Ok(None);
        }
        let given = self.in_variable(Key::Proxy.variable());
        let given = given.or_else(|| self.usual_proxy(secure)).or_else(|| self.in_file(Key::Proxy));
        given.map_or(Ok(None), |given| read_proxy(&given))
    }

    fn authorities(&self, typed: &Typed) -> Result<Option<Authorities>, ConfigError> {
        let flag = typed.ca.as_ref().map(|path| Given { text: path.into(), from: "--ca".into() });
        let Some(Given { text, from }) = flag.or_else(|| self.given(Key::Ca)) else { return Ok(None) };
        let path = PathBuf::from(text);
        let mut pem = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_AUTHORITIES_FILE).read_to_end(&mut pem)) {
            Ok(_) => {}
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
        match Authorities::parse(&pem) {
            Ok(authorities) => Ok(Some(authorities)),
            Err(why) => Err(ConfigError::Authorities { path, from, why }),
        }
    }
}

impl Typed {
    /// A flag that the machine's own relay has no use for.
    fn needless(&self) -> Option<&'static str> {
        let proxy = self.proxy.as_ref().is_some_and(|proxy| proxy != NO_PROXY);
        let given = [
            (self.token_file.is_some(), "--relay-token-file"),
            (self.ca.is_some(), "--ca"),
            (proxy, "--proxy"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }
}

/// A proxy, unless it says that there is none.
fn read_proxy(given: &Given) -> Result<Option<Proxy>, ConfigError> {
    let text = given.text.to_string_lossy();
    if text == NO_PROXY {
        return Ok(None);
    }
    let wrong = |why| ConfigError::Proxy { from: given.from.clone(), why };
    Proxy::parse(&text, &given.from).map(Some).map_err(wrong)
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

fn relay_url(url: &str, from: &str) -> Result<(String, Endpoint), ConfigError> {
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
    let endpoint = url.parse::<Endpoint>().map_err(|error| wrong(error.to_string()))?;
    Ok((url.trim_end_matches('/').to_owned(), endpoint))
}
