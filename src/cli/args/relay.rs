//! The flags of whoever uses a relay: which one, and the way to it.
//!
//! Owns their spelling and help. What they mean beside the environment and the config file is read in `config`.

use std::path::PathBuf;

use crate::config::Typed;

/// What `host` and `connect` are told of a relay.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RelayArgs {
    /// The relay, the same for both ends, such as wss://relay.example.org [env: AGENT_WORMHOLE_RELAY_URL] [default: this
    /// machine's own]
    #[arg(long, value_name = "URL")]
    pub relay: Option<String>,
    /// A file with the token of a relay that wants one [env: AGENT_WORMHOLE_RELAY_TOKEN_FILE] [default: no token]
    #[arg(long, value_name = "FILE")]
    pub relay_token_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities to trust beside the system's, for the relay and for an https:// proxy
    /// [env: AGENT_WORMHOLE_CA] [default: the system's alone]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The proxy that leads to the relay: http://, https:// or socks5://HOST:PORT, with USER:PASSWORD@ before HOST where it
    /// wants that; or none
    /// [env: AGENT_WORMHOLE_PROXY] [default: HTTPS_PROXY for wss://, HTTP_PROXY for ws://, else ALL_PROXY]
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
}

impl RelayArgs {
    /// Whether any of them was typed.
    pub(in crate::cli) const fn is_typed(&self) -> bool {
        self.relay.is_some() || self.relay_token_file.is_some() || self.ca.is_some() || self.proxy.is_some()
    }

    /// Arguments that hold a password.
    pub(super) fn secrets(&self) -> Vec<String> {
        let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.contains('@')) else { return Vec::new() };
        vec![proxy.clone(), format!("--proxy={proxy}")]
    }
}

impl From<RelayArgs> for Typed {
    fn from(args: RelayArgs) -> Self {
        let RelayArgs { relay, relay_token_file, ca, proxy } = args;
        Self { relay, token_file: relay_token_file, ca, proxy }
    }
}
