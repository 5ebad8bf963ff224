//! Secrets on their way between the wire and the vault.
//!
//! Owns the copies that are made of them, and wipes those that are its own to wipe. Where they wait is the mailbox
//! crate's ([`agent_wormhole_mount::secret`]).

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use agent_wormhole_mount::secret::{MAX_WAITING, NotTaken, Secret, SharedVault, all_locked, lock_vault};
use bytes::Bytes;
use zeroize::Zeroize as _;

use super::report::utc;
use crate::event::state::{GoneSecretState, SecretState, SecretsState};
use crate::event::{LengthClass, SecretEvent};
use crate::item::{ItemId, Refusal};
use crate::session::Incoming;

/// A secret as the content of a head: without a copy, in its own memory.
struct Held(Arc<Secret>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The content of a secret that is sent.
pub(super) fn held(secret: Arc<Secret>) -> Bytes {
    Bytes::from_owner(Held(secret))
}

/// How many secrets are on their way into the vault: no more than it takes, so that they and those in it are within what
/// may be locked (`MAX_WAITING`).
#[derive(Debug, Default)]
pub(super) struct Places(Arc<()>);

/// One of the places, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _counted: Arc<()>,
}

impl Places {
    /// A place, where one is free.
    pub(super) fn take(&self) -> Option<Place> {
        // One of them is this.
        (Arc::strong_count(&self.0) <= MAX_WAITING).then(|| Place { _counted: Arc::clone(&self.0) })
    }
}

/// Takes the content out of the frame that a secret came in, and wipes it there.
pub(super) fn arrived(mut incoming: Incoming) -> (Incoming, Result<Secret, Refusal>) {
    let Some(content) = incoming.head.inline.take() else { return (incoming, Err(Refusal::WrongSize)) };
    let secret = Secret::copy_of(&content).map_err(|error| {
        tracing::warn!(%error, "a secret is refused");
        Refusal::NoSpace
    });
    match content.try_into_mut() {
        Ok(mut content) => content.zeroize(),
        // Other items of the same frame hold it; it is freed with them.
        Err(_) => tracing::debug!("the frame of a secret is not wiped, as it holds other items, too"),
    }
    (incoming, secret)
}

/// Puts a secret into the vault, and says what is told of it.
pub(super) fn keep(
    vault: &SharedVault,
    id: ItemId,
    name: &str,
    secret: Secret,
) -> Result<SecretEvent, Refusal> {
    let length = LengthClass::of(secret.len());
    let put = lock_vault(vault).put(id.0, name, secret, (Instant::now(), SystemTime::now()));
    match put {
        Ok(received) => {
            Ok(SecretEvent { id: id.0, name: name.to_owned(), length, replaces: received.replaced })
        }
        Err(NotTaken::BadName) => Err(Refusal::BadName),
        Err(NotTaken::BadSize) => Err(Refusal::WrongSize),
        Err(NotTaken::Full) => Err(Refusal::NoSpace),
    }
}

/// What `status.json` says of the vault: at most [`MAX_WAITING`] that wait.
pub(super) fn state(vault: &SharedVault) -> SecretsState {
    let vault = lock_vault(vault);
    let waiting = vault.waiting().take(MAX_WAITING).map(|waiting| SecretState {
        id: waiting.id,
        name: waiting.name.to_string(),
        length: LengthClass::of(waiting.len).as_str().to_owned(),
        expires: utc(waiting.until),
        readable: waiting.readable,
    });
    let gone = vault
        .gone()
        .map(|(name, gone)| GoneSecretState { name: name.to_string(), why: gone.as_str().to_owned() });
    let unlocked = "the memory of secrets could not be locked, and may be swapped out; raise `ulimit -l`";
    SecretsState {
        waiting: waiting.collect(),
        gone: gone.collect(),
        unlocked_memory: (!all_locked()).then(|| unlocked.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{ItemHead, ItemKind};

    fn incoming(inline: Option<Bytes>) -> Incoming {
        let head = ItemHead {
            kind: ItemKind::Secret,
            group: None,
            name: "K".into(),
            size: None,
            executable: false,
            mtime: None,
            inline,
        };
        Incoming { id: ItemId(1), head, pending: Vec::new(), pending_more: 0 }
    }

    #[test]
    fn a_secret_leaves_the_frame_that_it_came_in() {
        let frame = bytes::BytesMut::from(&b"head:value:tail"[..]).freeze();
        let content = frame.slice(5..10);
        drop(frame);
        let (incoming, secret) = arrived(incoming(Some(content)));
        assert_eq!(secret.unwrap().bytes(), b"value");
        assert!(incoming.head.inline.is_none());
        assert_eq!(arrived(super::tests::incoming(None)).1.err(), Some(Refusal::WrongSize));
    }

    #[test]
    fn what_is_sent_is_no_copy() {
        let secret = Arc::new(Secret::copy_of(b"value").unwrap());
        let bytes = held(Arc::clone(&secret));
        assert_eq!(bytes.as_ptr(), secret.bytes().as_ptr());
    }

    #[test]
    fn a_refusal_has_the_word_of_the_protocol_and_the_event_a_class() {
        let vault = SharedVault::default();
        let put =
            |name: &str, len: usize| keep(&vault, ItemId(3), name, Secret::copy_of(&vec![1; len]).unwrap());
        assert_eq!(put("K", 17).unwrap().length.as_str(), "17-64");
        assert_eq!(put("K", 1).unwrap().replaces, Some(3));
        assert_eq!(put("../K", 1).unwrap_err(), Refusal::BadName);
        assert_eq!(put("K", 0).unwrap_err(), Refusal::WrongSize);
        let state = state(&vault);
        assert_eq!((state.waiting.len(), state.waiting[0].length.as_str()), (1, "1-16"));
    }
}
