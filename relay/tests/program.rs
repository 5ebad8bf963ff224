//! The relay as a process: signals, its service manager, its health, its log.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use agent_wormhole_relay::wire::{ErrorCode, Status};
use common::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

/// The program.
const RELAY: &str = env!("CARGO_BIN_EXE_agent-wormhole-relay");
/// Longest wait for a message to the service manager.
const PATIENCE: Duration = Duration::from_secs(30);

/// A relay, killed when dropped.
struct Relay {
    process: Child,
    log: BufReader<ChildStderr>,
    /// What it has said so far.
    said: String,
}

/// The program without anything of this environment that it would read.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("AGENT_WORMHOLE") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Relay {
    fn spawn(mut command: Command) -> Self {
        let mut process = command.spawn().expect("started");
        let log = BufReader::new(process.stderr.take().expect("piped"));
        Self { process, log, said: String::new() }
    }

    fn start(flags: &[&str]) -> Self {
        let mut command = command(RELAY);
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(flags);
        Self::spawn(command)
    }

    /// Reads the log up to the line with these words.
    fn line(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).expect("text") > 0, "ended without {words}: {}", self.said);
            self.said.push_str(&line);
            if line.contains(words) {
                return line;
            }
        }
    }

    /// The address in the line of the JSON log with these words.
    fn address(&mut self, words: &str) -> SocketAddr {
        let line: serde_json::Value = serde_json::from_str(&self.line(words)).expect("JSON");
        line["address"].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("signalled");
    }

    fn ended(&mut self) -> ExitStatus {
        self.log.read_to_string(&mut self.said).expect("text");
        self.process.wait().expect("ended")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first line of the answer to one question.
fn ask(mut stream: impl std::io::Read + std::io::Write, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n").as_bytes()).expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer that ends");
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Exit code, standard output and standard error of the program.
fn run(flags: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = command(RELAY);
    let output = command.args(flags).envs(environment.iter().copied()).output().expect("run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn tcp(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("a connection")
}

#[test]
fn the_environment_is_between_flags_and_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("relay.toml");
    std::fs::write(&path, "idle = 60\nmemory = \"64MiB\"\nmax-frame = \"1MiB\"\n").expect("written");
    let environment = [
        ("AGENT_WORMHOLE_RELAY_CONFIG", path.to_str().expect("text")),
        ("AGENT_WORMHOLE_RELAY_IDLE", "120"),
        ("AGENT_WORMHOLE_RELAY_MEMORY", "128MiB"),
    ];
    let (code, printed, error) = run(&["--memory", "256MiB", "--print-config"], &environment);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    for line in ["idle = 120 # environment", "memory = \"256MiB\" # flag", "max-frame = \"1MiB\" # file"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    std::fs::write(&path, "idle = \"soon\"").expect("written");
    let (code, _, error) = run(&["--print-config"], &environment[..1]);
    assert!(code == Some(2) && error.contains("`idle`: \"soon\" is refused"), "{error}");
}

#[test]
fn a_healthcheck_tells_by_its_exit_code() {
    let mut relay = Relay::start(&[]);
    let listen = relay.address("\"listening\"").to_string();
    // Where it listens comes from the same environment as the relay's.
    let environment = [("AGENT_WORMHOLE_RELAY_LISTEN", listen.as_str())];
    let (code, out, _) = run(&["healthcheck"], &environment);
    assert_eq!((code, out.as_str()), (Some(0), "HTTP/1.1 200 OK\n"));
    relay.signal(Signal::TERM);
    assert!(relay.ended().success(), "{}", relay.said);
    let (code, out, error) = run(&["healthcheck"], &environment);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("cannot be asked"), "{error}");
    let (code, _, error) = run(&["healthcheck", "--url", "https://relay/ready"], &[]);
    assert!(code == Some(1) && error.contains("is not http://HOST:PORT/PATH"), "{error}");
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_one_ends() {
    let mut relay = Relay::start(&["--drain", "1h", "--metrics-listen", "127.0.0.1:0"]);
    let operator = relay.address("listening for the operator");
    let listen = relay.address("\"listening\"");
    let stream = tokio::net::TcpStream::connect(listen).await.expect("a connection");
    let mut client = Client::over(stream).await;
    client.allocate().await;
    assert_eq!(ask(tcp(operator), "/ready"), "HTTP/1.1 200 OK");
    relay.signal(Signal::TERM);
    assert_eq!(client.status().await, Status::GoingAway);
    assert!(TcpStream::connect(listen).is_err(), "the listener is closed first");
    assert_eq!(ask(tcp(operator), "/ready"), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(ask(tcp(operator), "/health"), "HTTP/1.1 200 OK");
    relay.signal(Signal::INT);
    assert_eq!(relay.ended().code(), Some(1));
    assert!(relay.said.contains("ended at once by a second signal"), "{}", relay.said);
}

/// Makes a command that has this as descriptor 3, for the process that it becomes.
fn handing_over(socket: OwnedFd) -> Command {
    let mut command = command("/bin/sh");
    let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    command.args(["-c", script, "sh", RELAY, "--log-format", "json"]).stdin(Stdio::from(socket));
    command
}

/// The next message to the service manager.
fn told(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let length = manager.recv(&mut message).expect("a message in time");
    String::from_utf8_lossy(&message[..length]).trim().to_owned()
}

#[test]
fn the_service_manager_hands_a_socket_over_and_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("set");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut command = handing_over(listener.try_clone().expect("a second one").into());
    command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "100000");
    let mut relay = Relay::spawn(command);
    assert_eq!(told(&manager), "READY=1");
    assert_eq!(relay.address("\"listening\""), address);
    assert_eq!(ask(tcp(address), "/ready"), "HTTP/1.1 200 OK");
    for _ in 0..3 {
        assert_eq!(told(&manager), "WATCHDOG=1");
    }
    relay.signal(Signal::TERM);
    while told(&manager) != "STOPPING=1" {}
    assert!(relay.ended().success(), "{}", relay.said);
    // The manager's socket is still there: who comes now waits for the next process.
    let waiting = tcp(address);
    let mut next = Relay::spawn(handing_over(listener.into()));
    assert_eq!(ask(waiting, "/health"), "HTTP/1.1 200 OK");
    assert_eq!(next.address("\"listening\""), address);
}

#[test]
fn a_unix_socket_can_be_handed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("relay.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut relay = Relay::spawn(handing_over(listener.into()));
    assert!(relay.line("\"listening\"").contains("relay.sock"));
    assert_eq!(ask(UnixStream::connect(&path).expect("a connection"), "/ready"), "HTTP/1.1 200 OK");
}

#[test]
fn what_does_not_listen_is_named() {
    let (one, _other) = UnixStream::pair().expect("a pair");
    let mut relay = Relay::spawn(handing_over(one.into()));
    assert_eq!(relay.ended().code(), Some(1));
    assert!(
        relay.said.contains("cannot use a socket that was handed over: it does not listen"),
        "{}",
        relay.said
    );
}

#[tokio::test]
async fn no_address_of_a_client_is_in_the_log() {
    let mut command = command(RELAY);
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).env("RUST_LOG", "trace");
    let mut relay = Relay::spawn(command);
    let listen = relay.address("\"listening\"");
    let client = async |from: &str| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{from}:0").parse().expect("an address")).expect("bound");
        let stream = socket.connect(listen).await.expect("a connection");
        let port = stream.local_addr().expect("an address").port();
        (Client::over(stream).await, port)
    };
    let (mut host, one) = client("127.44.55.66").await;
    let nameplate = host.allocate().await.nameplate.expect("a nameplate");
    let (mut peer, two) = client("127.44.55.67").await;
    peer.join(&nameplate).await;
    peer.welcome().await;
    let channel = peer.paired().await.to_string();
    let (mut third, _) = client("127.44.55.67").await;
    third.join(&nameplate).await;
    assert_eq!(third.refused().await.0, ErrorCode::UnableToJoin);
    drop((host, peer, third));
    relay.signal(Signal::TERM);
    assert!(relay.ended().success(), "{}", relay.said);
    for line in relay.said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    assert!(relay.said.contains("a channel is paired"), "{}", relay.said);
    assert!(!relay.said.contains("127.44.55.6") && !relay.said.contains(&channel), "{}", relay.said);
    for number in [format!(":{one}"), format!(":{two}"), format!("\"{nameplate}\"")] {
        assert!(!relay.said.contains(&number), "{number} is in {}", relay.said);
    }
}
