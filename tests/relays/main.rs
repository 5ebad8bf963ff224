//! Several relays over one Redis, and what a large operator's days bring: relays that die, a Redis that is started again,
//! stands still or is cut off. The ends are real sessions on real connections; what they send has to arrive once, whole
//! and in order.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on panics, and prints its counts

mod balancer;
mod chaos;
mod fleet;
mod talker;
mod wire;

#[path = "../../relay/tests/common/redis_server.rs"]
mod redis_server;
