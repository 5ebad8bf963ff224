//! From a complete file in `outbox/secrets/` to an offer. Owns which are not sent, and why.

use std::sync::Arc;

use super::{Secret, SecretName, below};
use crate::outbox::{Prepared, Ticket};
use crate::prepare::Taken;
use crate::{Content, Kind, Offer};

/// Why what is at a path below `outbox/secrets/` is not sent, as far as its name says.
pub(crate) fn not_sent(path: &str) -> Option<&'static str> {
    let name = below(path)?;
    SecretName::parse(name).is_err().then_some(
        "not the name of a secret: a letter or _, then at most 63 letters, digits, _, . or -; rename it",
    )
}

/// The offer of a secret.
pub(crate) fn offer(ticket: &Ticket, secret: &Arc<Secret>) -> Taken {
    let name = below(&ticket.path).ok_or(Prepared::Gone)?.to_owned();
    if secret.is_empty() {
        return Err(Prepared::LeftOut("it is empty: write the secret into it, or remove it".to_owned()));
    }
    let offer = Offer {
        entry: ticket.entry,
        kind: Kind::Secret,
        name,
        size: Some(secret.len() as u64),
        executable: false,
        mtime: None,
        content: Content::Secret(Arc::clone(secret)),
    };
    Ok((offer, ticket.identity))
}
