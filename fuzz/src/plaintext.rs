//! The plaintext of a record: it is read or refused whole, and what was read is written and read again the same.

use agent_wormhole::frame::{Message, Messages, RecordHeader, State};
use bytes::Bytes;

/// Any plaintext of a data record or a control record.
pub fn holds(bytes: &[u8]) {
    if let Ok(header) = RecordHeader::decode(bytes) {
        assert!(bytes.starts_with(&header.encode()));
    }
    if let Ok(state) = State::decode(Bytes::copy_from_slice(bytes)) {
        let mut again = Vec::new();
        state.encode(&mut again);
        assert_eq!(State::decode(again.into()), Ok(state));
    }
    let read = |bytes: &[u8]| Messages::new(Bytes::copy_from_slice(bytes)).collect::<Vec<_>>();
    let messages = read(bytes);
    assert!(messages.iter().rev().skip(1).all(Result::is_ok), "nothing is read past an error");
    let good: Vec<Message> = messages.into_iter().flatten().collect();
    let mut again = Vec::new();
    good.iter().for_each(|message| message.encode(&mut again));
    assert_eq!(read(&again).into_iter().collect::<Result<Vec<_>, _>>(), Ok(good));
}
