//! The blind relay: pairs two ends that hold the same nameplate and moves opaque frames between them.
//!
//! A connection passes the [`edge`], becomes a websocket in [`server`], says hello and lives in `socket`; what it may do is decided by
//! [`rules`], where its frames wait is an [`exchange`]. `wire` holds the messages that client and server share and is
//! all there is without the `server` feature.

#[cfg(feature = "server")]
mod carrier;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod edge;
#[cfg(feature = "server")]
pub mod exchange;
#[cfg(feature = "server")]
pub mod options;
#[cfg(feature = "server")]
mod places;
#[cfg(feature = "server")]
pub mod rules;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod socket;
#[cfg(feature = "server")]
mod websocket;
pub mod wire;
