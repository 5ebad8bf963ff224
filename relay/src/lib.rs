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
pub mod config;
#[cfg(feature = "server")]
mod drain;
#[cfg(feature = "server")]
pub mod edge;
#[cfg(feature = "server")]
mod events;
#[cfg(feature = "server")]
pub mod exchange;
#[cfg(feature = "server")]
pub mod healthcheck;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
mod metrics;
#[cfg(feature = "server")]
mod monitor;
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
mod systemd;
#[cfg(feature = "server")]
mod websocket;
pub mod wire;
