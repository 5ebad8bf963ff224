//! Settings: what was typed, what the environment says, what the config file says, in this order.
//!
//! Owns the keys, where each of them may stand and which place wins. What a relay needs is read here (`relay`), the rest by
//! whoever asks for it. Connects to nothing.

mod file;
mod relay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::transport::relay::{AuthoritiesError, NoProxy};

pub use relay::{Relay, TOKEN_VARIABLE, Typed};

/// Variables that other programs read, too, for `wss://` and then for `ws://`; the first that is set counts.
const PROXY_VARIABLES: [[&str; 4]; 2] = [
    ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
];
/// Variables with the hosts that no proxy is for.
const SPARED_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// Set where a web server runs a program for a client, who may then set [`CLIENTS_VARIABLE`].
const CGI_VARIABLE: &str = "REQUEST_METHOD";
/// Where [`CGI_VARIABLE`] is set, the header `Proxy` of a request.
const CLIENTS_VARIABLE: &str = "HTTP_PROXY";

/// A setting of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The relay's address.
    Relay,
    /// A file with its token.
    RelayTokenFile,
    /// A file of authorities that are believed beside the system's.
    Ca,
    /// The proxy that leads to the relay, or `none`.
    Proxy,
    /// How the directory is made.
    Mount,
    /// How long the other end may take to connect.
    Timeout,
    /// What the inbox may hold.
    InboxLimit,
    /// What the outbox may hold.
    OutboxLimit,
    /// What a mount keeps in memory.
    Memory,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Relay,
        Self::RelayTokenFile,
        Self::Ca,
        Self::Proxy,
        Self::Mount,
        Self::Timeout,
        Self::InboxLimit,
        Self::OutboxLimit,
        Self::Memory,
    ];

    /// Its name in the config file; behind `--` it is the flag.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::RelayTokenFile => "relay-token-file",
            Self::Ca => "ca",
            Self::Proxy => "proxy",
            Self::Mount => "mount",
            Self::Timeout => "timeout",
            Self::InboxLimit => "inbox-limit",
            Self::OutboxLimit => "outbox-limit",
            Self::Memory => "memory",
        }
    }

    /// Its environment variable.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Relay => "AGENT_WORMHOLE_RELAY_URL",
            Self::RelayTokenFile => "AGENT_WORMHOLE_RELAY_TOKEN_FILE",
            Self::Ca => "AGENT_WORMHOLE_CA",
            Self::Proxy => "AGENT_WORMHOLE_PROXY",
            Self::Mount => "AGENT_WORMHOLE_MOUNT",
            Self::Timeout => "AGENT_WORMHOLE_TIMEOUT",
            Self::InboxLimit => "AGENT_WORMHOLE_INBOX_LIMIT",
            Self::OutboxLimit => "AGENT_WORMHOLE_OUTBOX_LIMIT",
            Self::Memory => "AGENT_WORMHOLE_MEMORY",
        }
    }
}

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
    #[error("{} cannot be read: {source}; check the path and who may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error(
        "{} cannot be understood: {why}; write one setting a line, such as relay = \"wss://relay.example.org\"",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file holds a setting that there is not.
    #[error("{} holds {key:?}, which is no setting; {}", path.display(), near.map_or_else(
        || format!("the settings are {}", Key::ALL.map(Key::name).join(", ")),
        |near| format!("did you mean {near:?}?"),
    ))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What is in it.
        key: String,
        /// A setting that is written nearly so.
        near: Option<&'static str>,
    },
    /// Not the token of a relay. It is not shown.
    #[error("{from} holds no token: its first line has to be visible ASCII characters without spaces")]
    Token {
        /// Where it stands.
        from: String,
    },
    /// Not a file of authorities.
    #[error(
        "{} (set by {from}) {why}; it has to hold one or more certificates in PEM, -----BEGIN CERTIFICATE-----",
        path.display()
    )]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Who named it.
        from: String,
        /// What is wrong with it.
        why: AuthoritiesError,
    },
    /// Not a proxy. What stands there may hold a password and is not shown.
    #[error("{from} {why}")]
    Proxy {
        /// Where it stands.
        from: String,
        /// How it is written.
        why: NoProxy,
    },
    /// Something for the way to a relay, and there is no way.
    #[error("{0} is for a relay elsewhere; name that with --relay, or leave out {0}")]
    NoRelay(&'static str),
    /// A proxy towards this machine itself.
    #[error("no proxy leads to this machine itself, where --relay points; leave out --proxy")]
    Loopback,
}

/// A setting as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// What it says.
    pub text: OsString,
    /// Where it stands, for a person.
    pub from: String,
}

/// What the environment and the config file say.
#[derive(Debug, Default)]
pub struct Settings {
    /// What was set, and is not empty, of the environment.
    variables: BTreeMap<&'static str, OsString>,
    /// The config file, where there can be one.
    path: PathBuf,
    /// What it says.
    file: BTreeMap<Key, String>,
}

impl Settings {
    /// Those of this process.
    ///
    /// # Errors
    /// [`ConfigError`], where there is a config file that cannot be used.
    pub fn of_process() -> Result<Self, ConfigError> {
        let home = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = home("XDG_CONFIG_HOME").or_else(|| home("HOME").map(|home| home.join(".config")));
        Self::of(std::env::var_os, base.map(|base| base.join("agent-wormhole/config.toml")))
    }

    /// Those of an environment and a config file, which may be missing. An empty variable is none.
    ///
    /// # Errors
    /// [`ConfigError`], where the file cannot be used.
    pub fn of(
        environment: impl Fn(&'static str) -> Option<OsString>,
        file: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let names = Key::ALL.into_iter().map(Key::variable).chain(PROXY_VARIABLES.into_iter().flatten());
        let names = names.chain(SPARED_VARIABLES).chain([TOKEN_VARIABLE, CGI_VARIABLE]);
        let mut variables = BTreeMap::new();
        for name in names {
            if let Some(text) = environment(name).filter(|text| !text.is_empty()) {
                variables.insert(name, text);
            }
        }
        if variables.contains_key(CGI_VARIABLE) {
            variables.remove(CLIENTS_VARIABLE);
        }
        let path = file.unwrap_or_default();
        let file = if path.as_os_str().is_empty() { BTreeMap::new() } else { file::read(&path)? };
        Ok(Self { variables, path, file })
    }

    /// A setting: the variable, else the config file.
    #[must_use]
    pub fn given(&self, key: Key) -> Option<Given> {
        self.in_variable(key.variable()).or_else(|| self.in_file(key))
    }

    /// The config file, which may be missing; empty where this machine has no place for one.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn in_variable(&self, name: &'static str) -> Option<Given> {
        self.variables.get(name).map(|text| Given { text: text.clone(), from: name.to_owned() })
    }

    fn in_file(&self, key: Key) -> Option<Given> {
        let from = || format!("`{}` in {}", key.name(), self.path.display());
        self.file.get(&key).map(|text| Given { text: text.into(), from: from() })
    }

    /// What the variables of other programs say of proxies, for TLS or not.
    fn usual_proxy(&self, secure: bool) -> Option<Given> {
        let [tls, plain] = PROXY_VARIABLES;
        if secure { tls } else { plain }.into_iter().find_map(|name| self.in_variable(name))
    }

    /// Hosts that no proxy is for.
    fn spared(&self) -> String {
        let list = SPARED_VARIABLES.into_iter().find_map(|name| self.variables.get(name));
        list.map(OsString::as_os_str).map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
    }
}
