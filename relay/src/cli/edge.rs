//! The flags of the relay's edge.
//!
//! Owns flags and their environment variables. What they mean is `edge`'s.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::edge::{EdgeOptions, network};

/// What an operator may say of TLS, proxies, networks and tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct EdgeArgs {
    /// Speak TLS with this certificate and its chain (PEM); read again when it changes
    #[arg(long, value_name = "FILE", env = "AGENT_WORMHOLE_RELAY_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", env = "AGENT_WORMHOLE_RELAY_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Believe proxies in this network about whom they speak for (X-Forwarded-For); may be repeated
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = network, value_delimiter = ',',
          env = "AGENT_WORMHOLE_RELAY_TRUSTED_PROXY")]
    pub trusted_proxies: Vec<IpNet>,
    /// Each connection of a trusted proxy begins with a PROXY protocol header, version 2
    #[arg(long, env = "AGENT_WORMHOLE_RELAY_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,
    /// Serve only clients of this network; may be repeated [default: all]
    #[arg(long, value_name = "CIDR", value_parser = network, value_delimiter = ',',
          env = "AGENT_WORMHOLE_RELAY_ALLOW")]
    pub allow: Vec<IpNet>,
    /// Do not serve clients of this network, also where they are allowed; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network, value_delimiter = ',',
          env = "AGENT_WORMHOLE_RELAY_DENY")]
    pub deny: Vec<IpNet>,
    /// Serve only clients that show a token of this file (one a line); read again when it changes
    #[arg(long, value_name = "FILE", env = "AGENT_WORMHOLE_RELAY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

impl EdgeArgs {
    /// What these arguments ask for.
    #[must_use]
    pub fn options(&self) -> EdgeOptions {
        EdgeOptions {
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            token_file: self.token_file.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            proxy_protocol: self.proxy_protocol,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
        }
    }
}
