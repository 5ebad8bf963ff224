//! The socket for secrets: who finds a place at it, and what is said to whoever does not.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::Mailbox;
use agent_wormhole_mount::secret::{Secret, SecretName, SharedVault, lock_vault};
use tokio::sync::mpsc::unbounded_channel;

use super::{Memory, Shared};
use crate::channel::handover::server::{Counter, Handing};
use crate::channel::handover::{self, HandoverError};

/// As many as have a place at once.
const PLACES: usize = 16;

struct Served {
    vault: SharedVault,
    socket: PathBuf,
    _counter: Counter,
    _place: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (vault, socket) = (SharedVault::default(), place.path().join("sock"));
        let mailbox: Arc<dyn Mailbox> = Arc::new(Shared(Arc::<Memory>::default()));
        let (notice, _) = unbounded_channel();
        let handing = Handing { vault: &vault, mailbox: &mailbox, notice: &notice, read_receipts: false };
        let counter = handing.start(&socket).unwrap();
        Self { vault, socket, _counter: counter, _place: place }
    }

    fn put(&self, name: &str, at: SystemTime) -> SecretName {
        let secret = Secret::copy_of(b"value").unwrap();
        lock_vault(&self.vault).put(1, name, secret, (Instant::now(), at)).unwrap();
        SecretName::parse(name).unwrap()
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }
}

fn refused(result: Result<(), HandoverError>) -> String {
    match result {
        Err(HandoverError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_says_nothing_or_half_of_it_gives_their_place_to_the_next() {
    let served = Served::new();
    let name = served.put("K", SystemTime::now());
    let silent: Vec<UnixStream> = (0..3 * PLACES).map(|_| served.connect()).collect();
    handover::has(&served.socket, std::slice::from_ref(&name)).unwrap();
    let half: Vec<UnixStream> = (0..3 * PLACES)
        .map(|_| {
            let mut client = served.connect();
            client.write_all(&[3, 1, 1]).unwrap();
            client
        })
        .collect();
    let taken = handover::take(&served.socket, std::slice::from_ref(&name)).unwrap();
    assert_eq!(taken.secrets[0].bytes(), b"value");
    taken.back();
    drop((silent, half));
}

#[test]
fn whoever_waits_for_its_command_keeps_its_place_and_the_next_is_told_so() {
    let served = Served::new();
    let names: Vec<SecretName> =
        (0..PLACES).map(|n| served.put(&format!("K{n}"), SystemTime::now())).collect();
    let holding: Vec<_> = names
        .iter()
        .map(|name| handover::take(&served.socket, std::slice::from_ref(name)).unwrap())
        .collect();
    for _ in 0..100 {
        let why = refused(handover::has(&served.socket, &names));
        assert!(why.contains("too many commands ask at once; try again"), "{why}");
    }
    assert!(holding.iter().all(|taken| taken.secrets[0].bytes() == b"value"));
}

#[test]
fn what_has_outlived_its_time_while_the_machine_slept_is_neither_told_of_nor_unlocked() {
    let served = Served::new();
    let late = SystemTime::now() - Duration::from_secs(601);
    let name = served.put("K", late);
    let why = refused(handover::unlock(&served.socket, &name));
    assert!(why.contains("was wiped ten minutes after it had arrived"), "{why}");
    let name = served.put("L", late);
    let why = refused(handover::has(&served.socket, &[name]));
    assert!(why.contains("was wiped ten minutes after it had arrived"), "{why}");
}
