//! The channel's side of the socket: secrets to send come in, those that were received go out, once.
//!
//! Owns the socket and the threads behind it. A client that is slow, silent or wrong holds up nobody but itself: whoever has
//! not said what they want gives their place to the next.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use agent_wormhole_mount::Mailbox;
use agent_wormhole_mount::secret::{BadSecretName, Secret, SecretName, SharedVault, Vault, lock_vault};
use tokio::sync::mpsc::UnboundedSender;

use super::{BACK, MAX_NAMES, Timed, Verb, address, read_value, write_value};
use crate::channel::driver::Notice;

/// Most clients at once; each holds a thread, and at most as much locked memory as it was given.
const MAX_CLIENTS: usize = 16;
/// How long a command may take from getting its secrets to its start. Whoever says nothing until then has used them.
const START: Duration = Duration::from_secs(30);
/// After a client could not be accepted, the next is tried this much later.
const FAILED: Duration = Duration::from_millis(100);
/// The socket is for this user alone.
const MODE: u32 = 0o600;
/// What is said to whoever finds no place.
const CROWDED: &str = "too many commands ask at once; try again";

/// What the socket hands out and takes in.
pub(in crate::channel) struct Handing<'a> {
    pub(in crate::channel) vault: &'a SharedVault,
    pub(in crate::channel) mailbox: &'a Arc<dyn Mailbox>,
    /// The driver, which writes `status.json`.
    pub(in crate::channel) notice: &'a UnboundedSender<Notice>,
    /// Whether the peer is told that a secret was used.
    pub(in crate::channel) read_receipts: bool,
}

struct Desk {
    vault: SharedVault,
    mailbox: Arc<dyn Mailbox>,
    notice: UnboundedSender<Notice>,
    read_receipts: bool,
    clients: Mutex<Clients>,
    closed: AtomicBool,
}

/// Who is at the desk, in the order in which they came: at most [`MAX_CLIENTS`].
#[derive(Default)]
struct Clients {
    /// The number of the one that came last.
    last: u64,
    here: VecDeque<Client>,
}

struct Client {
    number: u64,
    stream: Arc<UnixStream>,
    /// It has said what it wants.
    heard: bool,
}

/// The socket. Dropped, it is gone.
pub(in crate::channel) struct Counter {
    desk: Arc<Desk>,
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.desk.closed.store(true, Ordering::Release);
        // It wakes the thread that accepts.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Handing<'_> {
    /// Binds the socket and serves it. Without one everything else works.
    pub(in crate::channel) fn start(self, path: &Path) -> Option<Counter> {
        let started = self.bind(path);
        if let Err(error) = &started {
            tracing::warn!(%error, "no socket for secrets can be had: `send --secret`, `run` and `unlock` will not work");
        }
        started.ok()
    }

    fn bind(self, path: &Path) -> io::Result<Counter> {
        let (bound, _dir) = address(path)?;
        let listener = UnixListener::bind(&bound)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        let desk = Arc::new(Desk {
            vault: Arc::clone(self.vault),
            mailbox: Arc::clone(self.mailbox),
            notice: self.notice.clone(),
            read_receipts: self.read_receipts,
            clients: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let (serving, accepting) = (Arc::clone(&desk), listener.try_clone()?);
        thread::Builder::new().name("secrets".into()).spawn(move || accept(&serving, &accepting))?;
        Ok(Counter { desk, listener, path: path.to_owned() })
    }
}

fn accept(desk: &Arc<Desk>, listener: &UnixListener) {
    for client in listener.incoming() {
        if desk.closed.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else {
            // Without a descriptor left, the next try fails like this one.
            thread::sleep(FAILED);
            continue;
        };
        let client = Arc::new(client);
        let Some(number) = desk.let_in(&client) else {
            // What it asked for is not even read.
            let _ = refuse(&client, CROWDED);
            continue;
        };
        let serving = Arc::clone(desk);
        let served = thread::Builder::new().name("secret".into()).spawn(move || {
            if let Err(error) = serving.serve(number, &client) {
                tracing::debug!(%error, "a client of the socket for secrets broke off");
            }
            serving.let_out(number);
        });
        if served.is_err() {
            desk.let_out(number);
        }
    }
}

impl Desk {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a client that has a place now. Where all are taken it is that of the first who has not said what it
    /// wants: a command says so at once.
    fn let_in(&self, stream: &Arc<UnixStream>) -> Option<u64> {
        let mut clients = self.clients();
        if clients.here.len() >= MAX_CLIENTS {
            let silent = clients.here.iter().position(|client| !client.heard)?;
            let silent = clients.here.remove(silent)?;
            // Its buffer is empty, so that nobody waits; and its thread ends with the stream.
            let _ = refuse(&silent.stream, CROWDED);
            let _ = silent.stream.shutdown(Shutdown::Both);
        }
        clients.last += 1;
        let number = clients.last;
        clients.here.push_back(Client { number, stream: Arc::clone(stream), heard: false });
        Some(number)
    }

    /// A client has said what it wants; `false` where its place was given to another.
    fn heard(&self, number: u64) -> bool {
        let mut clients = self.clients();
        let client = clients.here.iter_mut().find(|client| client.number == number);
        client.map(|client| client.heard = true).is_some()
    }

    fn let_out(&self, number: u64) {
        self.clients().here.retain(|client| client.number != number);
    }

    /// The vault without what has outlived its time: its timer may be late, as it stands still while the machine sleeps.
    fn vault(&self) -> MutexGuard<'_, Vault> {
        let mut vault = lock_vault(&self.vault);
        if vault.expire((Instant::now(), SystemTime::now())) {
            self.changed();
        }
        vault
    }

    fn serve(&self, number: u64, client: &UnixStream) -> io::Result<()> {
        // The directory keeps others out already; this holds where somebody opened it.
        if !is_own(client)? {
            return refuse(client, "this channel belongs to another user");
        }
        let mut reader = Timed::new(client);
        let (verb, names, value) = read(&mut reader)?;
        if !self.heard(number) {
            return Ok(());
        }
        let Some(names) = names else { return refuse(client, &BadSecretName.to_string()) };
        let done = match (verb, &names[..]) {
            (Verb::Take, _) => return self.hand_over(client, &names),
            (Verb::Has, _) => {
                let mut vault = self.vault();
                let lent = vault.take(&names).map_err(|error| error.to_string());
                lent.map(|lent| lent.iter().for_each(|lent| vault.back(lent.serial)))
            }
            (Verb::Put, [name]) => {
                self.mailbox.send_secret(name.clone(), value).map_err(|error| error.to_string())
            }
            (Verb::Unlock, [name]) => self.vault().unlock(name).map_err(|error| error.to_string()),
            (Verb::Put | Verb::Unlock, _) => Err("one secret at a time".to_owned()),
        };
        self.changed();
        match done {
            Ok(()) => Timed::new(client).write_all(&[0]),
            Err(why) => refuse(client, &why),
        }
    }

    /// Secrets go to a command, which says whether it could use them.
    fn hand_over(&self, client: &UnixStream, names: &[SecretName]) -> io::Result<()> {
        let taken = self.vault().take(names);
        let lent = match taken {
            Ok(lent) => lent,
            Err(error) => return refuse(client, &error.to_string()),
        };
        let given = (|| {
            let mut writer = Timed::new(client);
            writer.write_all(&[0])?;
            lent.iter().try_for_each(|lent| write_value(&mut writer, lent.secret.bytes()))
        })();
        let mut word = [0];
        let heard = given.and_then(|()| Timed::within(client, START).read_exact(&mut word));
        let mut vault = lock_vault(&self.vault);
        for lent in lent {
            // Whoever breaks off may have used them.
            if heard.is_ok() && word == [BACK] {
                vault.back(lent.serial);
                continue;
            }
            vault.used(lent.serial);
            // That it was used is known where the command said so.
            if heard.is_ok() && self.read_receipts {
                let _ = self.notice.send(Notice::Used(lent.id));
            }
        }
        drop(vault);
        self.changed();
        heard
    }

    fn changed(&self) {
        // The channel has ended: nobody needs to know.
        let _ = self.notice.send(Notice::Secrets);
    }
}

/// Whether a client runs as the user of this process.
fn is_own(client: &UnixStream) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_peercred(client)?.uid == rustix::process::geteuid())
}

fn refuse(client: &UnixStream, why: &str) -> io::Result<()> {
    let mut writer = Timed::new(client);
    let length = u16::try_from(why.len()).map_err(io::Error::other)?;
    writer.write_all(&[1])?;
    writer.write_all(&length.to_be_bytes())?;
    writer.write_all(why.as_bytes())
}

/// A request; its names are `None` where one of them is none.
fn read(reader: &mut Timed<'_>) -> io::Result<(Verb, Option<Vec<SecretName>>, Secret)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    let verb = Verb::ALL.into_iter().find(|verb| verb.byte() == head[0]).ok_or_else(invalid)?;
    let count = usize::from(head[1]);
    if count == 0 || count > MAX_NAMES {
        return Err(invalid());
    }
    let mut names = Some(Vec::new());
    for _ in 0..count {
        let mut length = [0];
        reader.read_exact(&mut length)?;
        let mut name = vec![0; length[0].into()];
        reader.read_exact(&mut name)?;
        let name = std::str::from_utf8(&name).ok().and_then(|name| SecretName::parse(name).ok());
        names = names.zip(name).map(|(mut names, name)| {
            names.push(name);
            names
        });
    }
    Ok((verb, names, read_value(reader)?))
}
