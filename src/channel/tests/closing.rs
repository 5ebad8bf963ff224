//! How a channel ends, whatever happens at the same time.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Rig, text};
use crate::channel::Ending;
use crate::channel::driver::Notice;
use crate::event::StatusEvent;
use crate::frame::CloseReason;
use crate::transport::{TransportError, TransportEvent};

/// Runs the driver beside a script that tells it what happens.
macro_rules! play {
    ($rig:ident, $script:expr) => {{
        let Rig { mut driver, mut inputs, mut hands, journal } = $rig;
        let script = $script;
        let (ending, hands) = tokio::join!(driver.run(&mut inputs), async {
            script(&mut hands).await;
            hands
        });
        crate::channel::start::finish(driver, &journal, ending).await;
        (ending, hands)
    }};
}

fn quiet() -> Rig {
    Rig::new(Box::new(|_| Ok(())))
}

#[tokio::test]
async fn tampering_while_this_end_drains_is_reported() {
    let rig = quiet();
    let (ending, hands) = play!(rig, async |hands: &mut super::Hands| {
        let mut peer = hands.peer().await;
        // The mailbox never says that it is empty: the drain goes on.
        hands.notices.send(Notice::Stop).unwrap();
        peer.offer(text());
        let mut frame = bytes::BytesMut::from(&*peer.poll_transmit(Instant::now()).unwrap());
        let last = frame.len() - 1;
        frame[last] ^= 1;
        hands.tell(TransportEvent::Frame(frame)).await;
    });
    assert_eq!(ending, Ending::Protocol);
    assert!(hands.memory.log().contains(r#""event":"tampered""#));
}

#[tokio::test]
async fn a_close_that_crosses_the_peers_waits_for_nothing() {
    let rig = quiet();
    let start = Instant::now();
    let (ending, _) = play!(rig, async |hands: &mut super::Hands| {
        let mut peer = hands.peer().await;
        hands.notices.send(Notice::Stop).unwrap();
        peer.close(CloseReason::Done, Instant::now());
        hands.carry(&mut peer).await;
    });
    assert_eq!(ending, Ending::Done);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_fault_that_the_peer_reports_while_this_end_drains_decides_the_exit() {
    let rig = quiet();
    let (ending, hands) = play!(rig, async |hands: &mut super::Hands| {
        let mut peer = hands.peer().await;
        hands.notices.send(Notice::Stop).unwrap();
        peer.close(CloseReason::Tampered, Instant::now());
        hands.carry(&mut peer).await;
    });
    assert_eq!(ending, Ending::Protocol);
    assert!(hands.memory.log().contains(r#""event":"tampered""#));
}

#[tokio::test]
async fn what_comes_during_a_drain_does_not_wait_for_a_reader_of_standard_output() {
    let (lines, hold) = super::unread();
    let rig = Rig::new(lines);
    for _ in 0..2000 {
        rig.driver.store.tell(StatusEvent::PeerBack(None));
    }
    let (_, hands) = play!(rig, async |hands: &mut super::Hands| {
        while hands.memory.log.lock().unwrap().len() < 1024 {
            tokio::task::yield_now().await;
        }
        hands.peer().await;
        // The mailbox never says that it is empty: the drain goes on.
        hands.notices.send(Notice::Stop).unwrap();
        let start = Instant::now();
        while hands.memory.stored.load(Ordering::SeqCst) == 0 && start.elapsed() < Duration::from_secs(8) {
            tokio::task::yield_now().await;
        }
        assert_ne!(hands.memory.stored.load(Ordering::SeqCst), 0);
        hands.notices.send(Notice::Interrupt).unwrap();
        drop(hold);
    });
    assert!(hands.memory.log().contains(r#""event":"closed""#));
}

#[tokio::test]
async fn a_close_without_any_link_to_come_waits_for_nothing() {
    let rig = quiet();
    let start = Instant::now();
    play!(rig, async |hands: &mut super::Hands| {
        hands.peer().await;
        hands.notices.send(Notice::Stop).unwrap();
        hands.tell(TransportEvent::Down { why: "gone".into() }).await;
        hands.tell(TransportEvent::Failed(TransportError::NameplateLost)).await;
    });
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_inbox_of_a_gone_legacy_peer_is_kept_an_hour_and_not_for_ever() {
    let rig = quiet();
    let start = tokio::time::Instant::now();
    let (ending, hands) = play!(rig, async |hands: &mut super::Hands| {
        hands.legacy_peer().await;
        hands.tell(TransportEvent::Failed(TransportError::LegacyEnd)).await;
    });
    assert_eq!(ending, Ending::Timeout);
    assert!(start.elapsed() >= Duration::from_secs(3600));
    assert!(hands.memory.log().contains(r#""event":"timeout""#));
}

#[tokio::test]
async fn a_link_that_comes_after_the_peers_close_changes_nothing() {
    let rig = quiet();
    let (_, hands) = play!(rig, async |hands: &mut super::Hands| {
        let mut peer = hands.peer().await;
        peer.close(CloseReason::Done, Instant::now());
        hands.carry(&mut peer).await;
        hands.up(2).await;
        hands.notices.send(Notice::Stop).unwrap();
    });
    let log = hands.memory.log();
    assert!(log.contains(r#""event":"peer_closed""#));
    assert!(!log.contains(r#""event":"reconnected""#), "{log}");
}

#[tokio::test]
async fn a_transport_that_dies_ends_the_channel() {
    let rig = quiet();
    let Rig { mut driver, mut inputs, hands, journal } = rig;
    let (memory, notices, outbox) = (hands.memory, hands.notices, hands.outbox);
    drop(hands.ends);
    let ending = driver.run(&mut inputs).await;
    crate::channel::start::finish(driver, &journal, ending).await;
    assert_eq!(ending, Ending::Internal);
    assert!(memory.log().contains(r#""event":"error""#));
    drop((notices, outbox));
}
