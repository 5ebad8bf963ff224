//! What a channel is started with: the checked form of what was typed.
//!
//! Owns the shape only. `host` and `connect` fill it in; the driver reads it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::code::Code;
use crate::config::Relay;
use crate::event::state::ChannelState;
use crate::rundir::RuntimeDir;

/// Takes each event line (without its newline). May block where nobody reads; [`io::ErrorKind::BrokenPipe`] means that
/// nobody ever will, and ends the channel.
pub type Lines = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// Is shown the state each time that it is written, at most five times a second. Must not block.
pub type Progress = Box<dyn FnMut(&ChannelState) + Send>;
/// Blocks until nobody reads standard output any more, on a thread of its own. `true` ends the channel; `false`: nobody
/// is to read it any more.
pub type Unread = Box<dyn FnOnce() -> bool + Send>;

/// Everything a channel needs to know before it starts.
pub struct Options {
    /// Which end this is, and how it reaches the other.
    pub end: End,
    /// The channel's directory; `None` is the default place.
    pub dir: Option<PathBuf>,
    /// Which back end the directory is to have.
    pub mount: MountChoice,
    /// What the inbox may hold, in bytes; `None` is what the disk has, less a reserve.
    pub inbox_limit: Option<u64>,
    /// The same for the outbox, where it is a mount.
    pub outbox_limit: Option<u64>,
    /// What a mount keeps in memory before it seals and spills, in bytes; `None` is 256 MiB.
    pub memory: Option<u64>,
    /// What looks like a credential is not sent as plain content.
    pub block_secrets: bool,
    /// Secrets that arrive can be read as files.
    pub readable_secrets: bool,
    /// How long the other end may take to connect; `None` is the inactivity limit.
    pub timeout: Option<Duration>,
    /// Whether the other end is told what its owner here has read, where that can be seen.
    pub read_receipts: bool,
    /// Where channels of this machine are listed, and the local relay lives.
    pub runtime: RuntimeDir,
    /// Where this was started.
    pub cwd: PathBuf,
    /// Standard output.
    pub lines: Lines,
    /// Whoever shows progress.
    pub progress: Option<Progress>,
    /// Waits for the end of the reader of `lines`.
    pub unread: Option<Unread>,
    /// It runs in the background: no terminal and no shell ends it with SIGHUP.
    pub detached: bool,
}

/// Prints no code.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("end", &self.end).field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// An end of a channel.
#[derive(Debug)]
pub enum End {
    /// Makes the channel.
    Host(HostLink),
    /// Was given the code.
    Connect {
        /// The code that was given.
        code: Code,
        /// How to reach the host.
        link: PeerLink,
    },
}

impl End {
    /// Where this end meets the other, in words: the relay's address, or that of a direct connection.
    #[must_use]
    pub fn address(&self) -> String {
        let of = |relay: &Relay| match relay {
            Relay::Local => "inside a channel of this machine".to_owned(),
            Relay::Url { url, way, .. } => match &way.proxy {
                Some(proxy) => format!("{url} through {}", proxy.named()),
                None => url.clone(),
            },
        };
        match self {
            Self::Host(HostLink::Relay(relay) | HostLink::Legacy(relay)) => of(relay),
            Self::Host(HostLink::Direct { announce, .. }) => announce.clone(),
            Self::Connect { link: PeerLink::Relay(relay) | PeerLink::Legacy(relay), .. } => of(relay),
            Self::Connect { link: PeerLink::Direct { host }, .. } => host.clone(),
        }
    }
}

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostLink {
    /// Through a relay.
    Relay(Relay),
    /// Through a relay that is told the code.
    Legacy(Relay),
    /// Directly.
    Direct {
        /// The port to listen on; 0 is a free one.
        port: u16,
        /// The address of this machine that the peer is told.
        announce: String,
    },
}

/// How a peer reaches the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerLink {
    /// Through a relay.
    Relay(Relay),
    /// Through a relay that is told the code.
    Legacy(Relay),
    /// Directly; the port is the nameplate.
    Direct {
        /// Name or address of the host.
        host: String,
    },
}

/// `--mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountChoice {
    /// The best that this machine has.
    Auto,
    /// A mount, or nothing.
    Fuse,
    /// A real directory.
    Dir,
}
