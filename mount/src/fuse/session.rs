//! From a directory to a mount that is answered: mounts it, and keeps the threads that read the kernel's requests and
//! that open seals. Knows no operation.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use fuser::{Config, Errno, MountOption, ReplyData, Session};

use super::{Adapter, refusal};
use crate::blob::Content;
use crate::mounted::{MountError, Order, Shared};
use crate::secret::Secret;

/// What a file system is called in the mount table after `fuse.`.
const SUBTYPE: &str = "subtype=agent-wormhole";

/// Mounts a channel's directory and answers the kernel on threads of its own, which tell the worker when they end. Who
/// gets the receiver learns it, too.
///
/// # Errors
/// [`MountError::Unavailable`] with the reason.
pub(crate) fn mount(path: &Path, source: &str, shared: &Arc<Shared>) -> Result<Receiver<()>, MountError> {
    let unavailable = |reason: String| MountError::Unavailable { reason };
    // Here it is known why.
    refusal::device().map_err(unavailable)?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.to_owned()),
        // Both for mount(2) and for fusermount3.
        MountOption::CUSTOM(SUBTYPE.to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    let (slow, reads) = mpsc::channel();
    let adapter = Adapter {
        shared: Arc::clone(shared),
        owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        direct: false,
        buffer: Mutex::new(Vec::new()),
        slow,
    };
    let session =
        Session::new(adapter, path, &config).map_err(|error| unavailable(refusal::reason(&error)))?;
    let thread = |name: &str| thread::Builder::new().name(name.to_owned());
    let no_thread = |error: io::Error| unavailable(format!("no thread can be had: {error}"));
    thread("mailbox-read").spawn(move || read_slowly(&reads)).map_err(no_thread)?;
    let running = session.spawn().map_err(no_thread)?;
    let (told, ended) = mpsc::channel();
    let orders = Arc::clone(shared);
    let watch = move || {
        let result = running.join();
        let error = result.err().unwrap_or_else(|| io::Error::other("the directory was unmounted"));
        // Nobody can be answered any more.
        orders.receipts.end();
        orders.order(Order::Unmounted(error));
        // Who closed the mailbox may not wait for this.
        let _ = told.send(());
    };
    thread("mailbox-fuse").spawn(watch).map_err(no_thread)?;
    Ok(ended)
}

/// A READ that has to open seals, and who wants it.
pub(super) struct SlowRead {
    pub(super) content: Arc<Content>,
    pub(super) offset: u64,
    pub(super) size: usize,
    pub(super) reply: ReplyData,
}

fn read_slowly(reads: &Receiver<SlowRead>) {
    let mut buffer = Vec::new();
    for SlowRead { content, offset, size, reply } in reads {
        answer_read(&content, offset, size, &mut buffer, reply);
    }
}

/// A READ of a secret, from its own memory. One that nobody owns is for the page cache (mmap, sendfile), where a secret must
/// not stay.
pub(super) fn answer_secret(secret: &Secret, owned: bool, (offset, size): (u64, usize), reply: ReplyData) {
    if !owned {
        return reply.error(Errno::EACCES);
    }
    let rest = usize::try_from(offset).ok().and_then(|offset| secret.bytes().get(offset..));
    let rest = rest.unwrap_or_default();
    reply.data(rest.get(..size).unwrap_or(rest));
}

pub(super) fn answer_read(
    content: &Content,
    offset: u64,
    size: usize,
    buffer: &mut Vec<u8>,
    reply: ReplyData,
) {
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    let room = buffer.get_mut(..size).unwrap_or_default();
    match content.read_at(offset, room) {
        Ok(count) => reply.data(room.get(..count).unwrap_or_default()),
        Err(error) => {
            tracing::warn!(%error, "bytes of the mailbox cannot be read");
            reply.error(Errno::EIO);
        }
    }
}
