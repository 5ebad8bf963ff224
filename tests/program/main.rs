//! The whole program: real `agent-wormhole` processes, used as a user uses them.
//!
//! Each test has a world of its own (a temporary directory in memory where the machine has one), starts its ends and
//! relays there and knows of them what a user knows: files, lines of standard output, exit codes. Whatever a test does,
//! also when it fails, its processes are killed and its directory is removed. Every wait is for an event, and limited.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics
#![allow(clippy::print_stdout)] // the harness shows it where a test fails

mod channel;
mod closed;
mod codes;
mod commands;
mod credentials;
mod cuts;
mod day;
mod detach;
mod doctor;
mod examples;
mod fixture;
mod goodbye;
mod hostile;
mod local_relay;
mod mounted;
mod networks;
mod newcomer;
mod noticed;
mod order;
mod presence;
mod programs;
mod progress;
mod python;
mod python_relay;
mod questions;
mod readme;
mod second;
mod secrecy;
mod secrets;
mod setup;
mod sizes;
mod streams;
mod taken_back;
mod tools;
mod watch;
mod wss;
