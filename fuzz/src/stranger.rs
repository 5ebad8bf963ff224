//! Somebody at the other end of a link who does not hold the code: nothing they send proves them, and what an end says
//! stays bounded.

use std::time::{Duration, Instant};

use agent_wormhole::code::Code;
use agent_wormhole::crypto::pake::Role;
use agent_wormhole::session::{Link, LinkLimits, Session, SessionEvent};
use bytes::BytesMut;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::Script;

/// Most frames that an end sends in a handshake for each thing that happens to it.
const MOST_FRAMES: usize = 8;

/// Any sequence of frames, links and time, to either end.
pub fn holds(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let role = if script.byte().is_multiple_of(2) { Role::Host } else { Role::Peer };
    let code = Code::parse("7-cross-clock-marble", false).expect("a code");
    let mut session = Session::new(role, &code.secret, &mut ChaCha8Rng::seed_from_u64(1));
    let mut now = Instant::now();
    let limits = LinkLimits { max_frame: 1_114_112, messages_per_minute: 0, relayed: false };
    let mut up = false;
    while !script.is_empty() {
        match script.byte() % 8 {
            0 => {
                let greeted = script.byte().is_multiple_of(2);
                let link = if up { Link::Down } else { Link::Up { limits, greeted } };
                up = !up;
                assert!(session.handle_link(link, now).is_ok());
            }
            1 => {
                now += Duration::from_secs(u64::from(script.byte()));
                session.handle_timeout(now);
            }
            2 => {
                // Its own words, which are no proof.
                let echo = session.greeting();
                let _ = session.handle_frame(BytesMut::from(&echo[..]), now);
            }
            _ => {
                let _ = session.handle_frame(BytesMut::from(script.bytes()), now);
            }
        }
        let frames = std::iter::from_fn(|| session.poll_transmit(now)).take(MOST_FRAMES + 1).count();
        assert!(frames <= MOST_FRAMES, "it babbles");
        while let Some(event) = session.poll_event() {
            let told = matches!(event, SessionEvent::Unproven(_) | SessionEvent::HandshakeFailed(_));
            assert!(told || matches!(event, SessionEvent::Idle), "{event:?}");
        }
    }
}
