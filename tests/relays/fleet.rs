//! Relay processes that share a Redis.
//!
//! Owns their start and their end, also when a test fails.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// One relay, killed when dropped.
pub struct Relay {
    child: Child,
    pub address: SocketAddr,
}

impl Relay {
    /// Without rates and counts: what is tested is not those.
    pub fn start(redis: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_agent-wormhole"))
            .args(["relay", "--listen", "127.0.0.1:0", "--redis", redis, "--messages-per-minute", "0"])
            .args(["--bytes-per-minute", "0", "--channels-per-source", "0", "--failed-joins-per-minute", "0"])
            .args(["--drain", "2s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.split("listening on ").nth(1)?.trim().parse().ok());
        // What it says later is read, so that it never waits to say it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("the relay listens") }
    }

    /// As a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As an upgrade would.
    pub fn ask_to_stop(&self) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    /// Whether it ended as it should.
    pub fn ended_well(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
