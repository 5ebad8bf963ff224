//! What the tests are made with.

pub mod blocks;
pub mod content;
pub mod end;
pub mod gateway;
pub mod hostile;
pub mod network;
pub mod process;
pub mod proxy;
pub mod tls;
pub mod watch;
pub mod world;

use std::time::Duration;

/// How long a test waits for what must come. Never how long it waits for what must not.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The same for the transfer of a large file.
pub const LONG: Duration = Duration::from_secs(90);
