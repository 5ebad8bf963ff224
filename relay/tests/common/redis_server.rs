//! A `redis-server` of a test's own.
#![allow(dead_code, reason = "each suite uses its part")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server on a free port, gone when dropped.
pub struct RedisServer {
    child: Child,
    port: u16,
    dir: TempDir,
    args: Vec<String>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more settings, as on its command line.
    pub fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        // Somebody may take the port between its choice and its use: then another one.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
            if let Some(child) = spawn(port, &dir, &args) {
                return Self { child, port, dir, args };
            }
        }
        panic!("redis-server does not start; run make needs");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }

    /// Starts it again, on the same port and in the same directory.
    pub fn start_again(&mut self) {
        self.child = spawn(self.port, &self.dir, &self.args).expect("redis-server starts again");
    }

    /// Stops it in its tracks: it answers nothing until it [goes on](Self::go_on).
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(done.expect("kill").success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Started and ready; `None` where it could not have the port.
fn spawn(port: u16, dir: &TempDir, args: &[String]) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir.path())
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is installed; run make needs");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    let mut lines = out.lines().map_while(Result::ok);
    let ready = lines.any(|line| line.contains("Ready to accept connections"));
    // What it says later is read, so that it never waits to say it.
    std::thread::spawn(move || lines.for_each(drop));
    if ready {
        return Some(child);
    }
    let _ = child.wait();
    None
}
