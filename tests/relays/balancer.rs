//! A load balancer before the relays: the one address that ends know.
//!
//! Owns which relay a connection goes to, which one it is cut off from, and the times at which connections came.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Relays that take connections, and when each connection came.
#[derive(Default)]
struct State {
    relays: Vec<SocketAddr>,
    came: Vec<Instant>,
    turn: usize,
}

/// A balancer on a free port.
pub struct Balancer {
    pub url: String,
    state: Arc<Mutex<State>>,
    /// How often the connections to a relay were ended.
    cut: watch::Sender<HashMap<SocketAddr, usize>>,
    task: JoinHandle<()>,
}

impl Balancer {
    pub async fn start(relays: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { relays, ..State::default() }));
        let (cut, cuts) = watch::channel(HashMap::new());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, shared.clone(), cuts.clone()));
            }
        });
        Self { url, state, cut, task }
    }

    /// Ends the connections to this relay.
    pub fn cut(&self, relay: SocketAddr) {
        self.cut.send_modify(|cut| *cut.entry(relay).or_default() += 1);
    }

    /// From here on it sends connections to these.
    pub fn send_to(&self, relays: Vec<SocketAddr>) {
        self.state.lock().unwrap().relays = relays;
    }

    /// When connections came.
    pub fn came(&self) -> Vec<Instant> {
        self.state.lock().unwrap().came.clone()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// To the next relay in turn that takes it.
async fn carry(
    mut client: TcpStream,
    state: Arc<Mutex<State>>,
    mut cuts: watch::Receiver<HashMap<SocketAddr, usize>>,
) {
    let relays = {
        let mut state = state.lock().unwrap();
        state.came.push(Instant::now());
        state.turn += 1;
        let mut relays = state.relays.clone();
        let turn = state.turn % relays.len().max(1);
        relays.rotate_left(turn);
        relays
    };
    for address in relays {
        let before = cuts.borrow().get(&address).copied();
        if let Ok(mut relay) = TcpStream::connect(address).await {
            let _ = client.set_nodelay(true);
            let _ = relay.set_nodelay(true);
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut relay) => {}
                _ = cuts.wait_for(|cut| cut.get(&address).copied() != before) => {}
            }
            return;
        }
    }
}
