//! The outbound check: plain bytes that look like a credential.
//!
//! Owns what is said of them, and what becomes of them where their owner asked that they do not leave. What they look
//! like is decided by [`credential`]; secrets pass by another door and are not looked at.

use agent_wormhole_mount::special::Special;
use agent_wormhole_mount::{Content, Kind, Member, Offer, Outcome, SourceError};

use super::Driver;
use crate::channel::credential;
use crate::channel::reader::Read;
use crate::event::{CredentialEvent, RefusedEvent, Side, StatusEvent};

/// What an offer looks like, where all of its bytes are at hand: texts, and small files.
fn resembled(content: &Content) -> Option<&'static str> {
    if let Content::Whole(bytes) = content { credential::resembled(bytes) } else { None }
}

impl Driver {
    /// Looks at what is about to be sent; it comes back where it may be.
    pub(super) fn screen(&mut self, offer: Offer) -> Option<Offer> {
        let looked_at = match offer.kind {
            Kind::Text | Kind::File | Kind::Ask | Kind::Answer => resembled(&offer.content),
            // Secrets pass by another door.
            Kind::Dir | Kind::Group | Kind::Secret => None,
        };
        let Some(what) = looked_at else { return Some(offer) };
        let name = match Special::for_kind(offer.kind) {
            Some(special) => format!("{}/{}", special.as_str(), offer.name),
            None => offer.name.clone(),
        };
        if !self.block_secrets {
            self.warn(name, what);
            return Some(offer);
        }
        let why = withheld(what);
        self.report.refused(&name, &why);
        let event = RefusedEvent { by: Side::Myself, id: None, name, detail: Some(why.clone()) };
        self.tell(StatusEvent::Refused(event));
        self.answer(offer.entry, Outcome::Refused(why));
        None
    }

    /// Looks at what was read of a directory that goes as a whole; what must not leave takes it back.
    pub(super) fn screen_member(&mut self, read: Read) -> Read {
        let Read::Member { id, member: Some(Member { name, content, .. }), .. } = &read else { return read };
        let Some(what) = resembled(content) else { return read };
        let (id, name) = (*id, self.sending.name_of_member(*id, name));
        if self.block_secrets {
            let why = format!("{name}: {}", withheld(what));
            let error = std::io::Error::new(std::io::ErrorKind::PermissionDenied, why);
            return Read::Failed { id, error: SourceError::Io(error) };
        }
        self.warn(name, what);
        read
    }

    fn warn(&mut self, name: String, what: &'static str) {
        self.report.credential(&name, what);
        let detail = format!(
            "it looks like {what} and was sent as plain content, which the peer's transcript keeps; make that key \
             invalid, and send the next one with: agent-wormhole send CHANNEL --secret NAME"
        );
        self.murmur(StatusEvent::Credential(CredentialEvent { name, detail }));
    }
}

fn withheld(what: &str) -> String {
    format!("it looks like {what} (--block-secrets); send it with: agent-wormhole send CHANNEL --secret NAME")
}
