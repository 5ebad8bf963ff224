//! Texts of clients to a relay and of a relay to its clients: read or refused, and what was read is written and read
//! again the same.

use agent_wormhole_relay::wire::{ClientMessage, MAX_CONTROL, ServerMessage};

/// Any text.
pub fn holds(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(message) = ClientMessage::decode(&text) {
        assert!(text.len() <= MAX_CONTROL);
        assert_eq!(ClientMessage::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = ServerMessage::decode(&text) {
        assert!(text.len() <= MAX_CONTROL);
        assert_eq!(ServerMessage::decode(&message.encode()), Ok(message));
    }
}
