//! How secrets pass between a channel's process and the commands `send --secret`, `run` and `unlock`: through a Unix
//! socket of mode 0600 in the runtime directory, to processes of the same user alone.
//!
//! Owns the few words of that socket and the commands' side of it. Values go straight between the socket and the memory
//! of secrets.
//!
//! A request is `verb u8 | count u8 | count × (length u8, name) | length u32 | value`; the answer `0`, or `1 | length u16 |
//! text`. After the `0` to `Take` follow `length u32 | value` for each name, and then the command says `u` once
//! the secrets are used, or `b` where they are not.

/// The channel's side.
pub(super) mod server;

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_wormhole_mount::secret::{MAX_SECRET, Secret, SecretName};

/// Most names in a request.
pub const MAX_NAMES: usize = 64;
/// How long a request or an answer may take: it is at most 1 MiB, on one machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest path of a socket's address, with its end.
const MAX_ADDRESS: usize = 107;
/// The command has used the secrets.
const USED: u8 = b'u';
/// It has not: they wait on.
const BACK: u8 = b'b';

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// Send this secret to the peer.
    Put,
    /// Whether these are all here.
    Has,
    /// Hand these over.
    Take,
    /// Let this one be read as a file.
    Unlock,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Put, Self::Has, Self::Take, Self::Unlock];

    const fn byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Has => 2,
            Self::Take => 3,
            Self::Unlock => 4,
        }
    }
}

/// Why a secret was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The channel's process does not answer.
    #[error("the channel's process does not answer: {0}; look at `agent-wormhole status`")]
    NoAnswer(#[from] io::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Gives a channel a secret to send.
///
/// # Errors
/// [`HandoverError`].
pub fn put(socket: &Path, name: &SecretName, secret: &Secret) -> Result<(), HandoverError> {
    ask(socket, Verb::Put, std::slice::from_ref(name), secret.bytes()).map(drop)
}

/// Whether a channel holds all of these.
///
/// # Errors
/// [`HandoverError`].
pub fn has(socket: &Path, names: &[SecretName]) -> Result<(), HandoverError> {
    ask(socket, Verb::Has, names, &[]).map(drop)
}

/// Makes a secret readable as a file.
///
/// # Errors
/// [`HandoverError`].
pub fn unlock(socket: &Path, name: &SecretName) -> Result<(), HandoverError> {
    ask(socket, Verb::Unlock, std::slice::from_ref(name), &[]).map(drop)
}

/// Secrets that a channel has handed over. It counts them as used when this is dropped.
#[derive(Debug)]
pub struct Taken {
    /// In the order in which they were asked for.
    pub secrets: Vec<Secret>,
    stream: UnixStream,
}

/// Takes secrets: all of them, or none.
///
/// # Errors
/// [`HandoverError`].
pub fn take(socket: &Path, names: &[SecretName]) -> Result<Taken, HandoverError> {
    let stream = ask(socket, Verb::Take, names, &[])?;
    let mut reader = Timed::new(&stream);
    let mut secrets = Vec::new();
    for _ in names {
        secrets.push(read_value(&mut reader)?);
    }
    Ok(Taken { secrets, stream })
}

impl Taken {
    /// The command has them: the channel wipes its own.
    pub fn used(&mut self) {
        self.say(USED);
    }

    /// Nobody got them: they wait on.
    pub fn back(mut self) {
        self.say(BACK);
    }

    fn say(&mut self, word: u8) {
        // A channel that has ended has wiped them.
        let _ = self.stream.write_all(&[word]);
    }
}

fn ask(socket: &Path, verb: Verb, names: &[SecretName], value: &[u8]) -> Result<UnixStream, HandoverError> {
    let (address, _dir) = address(socket)?;
    let stream = UnixStream::connect(address)?;
    let mut writer = Timed::new(&stream);
    let mut head = vec![verb.byte(), u8::try_from(names.len()).map_err(io::Error::other)?];
    for name in names {
        // At most 64 bytes.
        head.push(u8::try_from(name.as_str().len()).map_err(io::Error::other)?);
        head.extend_from_slice(name.as_str().as_bytes());
    }
    let asked = writer.write_all(&head).and_then(|()| write_value(&mut writer, value));
    // Whoever is turned away has its answer, and may have had it before all was asked.
    if let Err(error) = asked
        && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    {
        return Err(error.into());
    }
    let mut reader = Timed::new(&stream);
    let mut status = [0];
    reader.read_exact(&mut status)?;
    if status == [0] {
        return Ok(stream);
    }
    let mut length = [0; 2];
    reader.read_exact(&mut length)?;
    let mut why = Vec::new();
    reader.take(u16::from_be_bytes(length).into()).read_to_end(&mut why)?;
    Err(HandoverError::Refused(String::from_utf8_lossy(&why).into_owned()))
}

fn write_value(writer: &mut impl Write, value: &[u8]) -> io::Result<()> {
    let length = u32::try_from(value.len()).map_err(io::Error::other)?;
    writer.write_all(&length.to_be_bytes())?;
    writer.write_all(value)
}

fn read_value(reader: &mut impl Read) -> io::Result<Secret> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length as usize > MAX_SECRET {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let secret = Secret::read_from(&mut reader.take(length.into()))?;
    secret.filter(|secret| secret.len() == length as usize).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// One end of the socket, with an end to the patience for all that passes.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Timed<'a> {
    fn new(stream: &'a UnixStream) -> Self {
        Self::within(stream, PATIENCE)
    }

    fn within(stream: &'a UnixStream, patience: Duration) -> Self {
        let now = Instant::now();
        Self { stream, until: now.checked_add(patience).unwrap_or(now) }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The path that a socket is bound and reached by: a long one goes through its directory's descriptor, which is to live
/// for as long.
fn address(socket: &Path) -> io::Result<(PathBuf, Option<std::fs::File>)> {
    if socket.as_os_str().as_bytes().len() <= MAX_ADDRESS {
        return Ok((socket.to_owned(), None));
    }
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = std::fs::File::open(dir)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&dir);
    Ok((PathBuf::from(format!("/proc/self/fd/{number}")).join(name), Some(dir)))
}
