//! The first line of a channel: where it is, and how the other end gets in.
//!
//! Owns who is told the code, and the command that the peer pastes. How a line is built is [`super`]'s.

use std::fmt;

use zeroize::Zeroizing;

use super::escape::shell_word;
use super::{Audience, Line};

/// Where a new channel is, and how the peer gets in.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelEvent {
    /// The code; in no line on disk. `None` on the side that was given it.
    pub code: Option<Zeroizing<String>>,
    /// The public part of the code, or the number of this machine that stands for a code without one.
    pub nameplate: String,
    /// The channel's directory, absolute.
    pub mount: String,
    /// Which back end it is: `fuse` or `dir`.
    pub backend: String,
    /// Why it is `dir`.
    pub why: Option<String>,
    /// How the peer reaches this host; `None` on the side that connects.
    pub via: Option<Via>,
}

/// Prints no code.
impl fmt::Debug for ChannelEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelEvent").field("nameplate", &self.nameplate).finish_non_exhaustive()
    }
}

impl ChannelEvent {
    pub(super) fn members(&self, line: &mut Line, audience: Audience) {
        let code = self.code.as_ref().filter(|_| audience == Audience::Starter);
        match code {
            Some(code) => line.text("code", code),
            None => line.text("nameplate", &self.nameplate),
        }
        // What its commands call a channel whose code has no number.
        if let (Some(_), Some(Via::Legacy { .. })) = (code, &self.via) {
            line.text("nameplate", &self.nameplate);
        }
        line.text("mount", &self.mount);
        if let (Some(code), Some(via)) = (code, &self.via) {
            line.text("connect", &via.connect_command(code));
        }
        line.text("backend", &self.backend);
        if let Some(why) = &self.why {
            line.text("detail", why);
        }
    }
}

/// How a peer reaches a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// Through the relay that it finds without being told.
    Default,
    /// Through this relay.
    Relay {
        /// Its URL.
        url: String,
    },
    /// Under a code that the relay is told.
    Legacy {
        /// The relay's URL, unless the peer finds it without being told.
        url: Option<String>,
    },
    /// Directly; the port is the nameplate.
    Direct {
        /// A name or an address of this machine.
        host: String,
    },
}

impl Via {
    /// The complete command for the peer to paste.
    #[must_use]
    pub fn connect_command(&self, code: &str) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Default => format!("agent-wormhole connect {code}"),
            Self::Relay { url } => format!("agent-wormhole connect {code} --relay {}", shell_word(url)),
            Self::Legacy { url: None } => format!("agent-wormhole connect {code} --legacy"),
            Self::Legacy { url: Some(url) } => {
                format!("agent-wormhole connect {code} --legacy --relay {}", shell_word(url))
            }
            Self::Direct { host } => {
                format!("agent-wormhole connect {}", shell_word(&format!("{code}@{host}")))
            }
        })
    }
}
