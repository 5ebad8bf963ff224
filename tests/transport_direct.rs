//! The direct transport against real sockets on free ports: strangers at the host's door, resuming, both ends' limits.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::time::Duration;

use agent_wormhole::crypto::resume::ResumeKey;
use agent_wormhole::transport::direct::{Listener, dial};
use agent_wormhole::transport::{
    Control, Farewell, MAX_FRAME, MAX_LEGACY_FRAME, OutFrame, SPAKE_FRAME, Transport, TransportError,
    TransportEvent,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const GREETING: [u8; SPAKE_FRAME] = [0x41; SPAKE_FRAME];
const SPAKE: [u8; SPAKE_FRAME] = [0x42; SPAKE_FRAME];
const VERSION: &[u8] = b"a sealed version";
const KEY: [u8; 32] = [7; 32];

/// No test takes longer than this.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("the test took too long")
}

fn host() -> (u16, Transport) {
    let listener = Listener::bind(0).unwrap();
    (listener.port(), listener.start(Bytes::from_static(&GREETING)))
}

async fn event(transport: &mut Transport) -> TransportEvent {
    transport.events.recv().await.expect("the transport has ended")
}

async fn up(transport: &mut Transport) -> u64 {
    match event(transport).await {
        TransportEvent::Up { link, .. } => link,
        other => panic!("not up: {other:?}"),
    }
}

async fn down(transport: &mut Transport) {
    match event(transport).await {
        TransportEvent::Down { .. } => {}
        other => panic!("not down: {other:?}"),
    }
}

async fn frame(transport: &mut Transport) -> BytesMut {
    match event(transport).await {
        TransportEvent::Frame(bytes) => bytes,
        other => panic!("not a frame: {other:?}"),
    }
}

async fn send(transport: &Transport, link: u64, bytes: impl Into<Bytes>) {
    transport.frames.send(OutFrame { link, bytes: bytes.into() }).await.unwrap();
}

fn prove(transport: &Transport) {
    transport.control.send(Control::Proven(ResumeKey::new(KEY))).unwrap();
}

/// A client that knows nothing but frames.
struct Raw(TcpStream);

impl Raw {
    async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn write(&mut self, frame: &[u8]) {
        self.0.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).await.unwrap();
        self.0.write_all(frame).await.unwrap();
    }

    async fn read(&mut self) -> Vec<u8> {
        let mut frame = vec![0; self.0.read_u32().await.unwrap() as usize];
        self.0.read_exact(&mut frame).await.unwrap();
        frame
    }

    /// Nothing comes any more, whether as an end or as a reset.
    async fn gone(&mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{} bytes came", rest.len());
    }

    /// As an honest peer, up to its version.
    async fn shake(port: u16, version: &[u8]) -> Self {
        let mut raw = Self::connect(port).await;
        assert_eq!(raw.read().await, GREETING);
        raw.write(&SPAKE).await;
        raw.write(version).await;
        raw
    }

    /// As a peer that comes back, up to the host's proof.
    async fn challenge(port: u16) -> (Self, [u8; 32], [u8; 32]) {
        let mut raw = Self::connect(port).await;
        let cp = [9; 32];
        raw.write(&[b"R\x01".as_slice(), &cp].concat()).await;
        let answer = raw.read().await;
        assert_eq!(answer[..2], *b"R\x02");
        let ch: [u8; 32] = answer[2..34].try_into().unwrap();
        assert!(ResumeKey::new(KEY).host_proved(&cp, &ch, &answer[34..]));
        (raw, cp, ch)
    }

    async fn resume(port: u16) -> Self {
        let (mut raw, cp, ch) = Self::challenge(port).await;
        let proof = ResumeKey::new(KEY).peer_proof(&cp, &ch);
        raw.write(&[b"R\x03".as_slice(), &proof].concat()).await;
        raw
    }
}

/// The driver's view of a connection that showed both frames.
async fn candidate(transport: &mut Transport, version: &[u8]) -> u64 {
    let link = match event(transport).await {
        TransportEvent::Up { link, greeted: true, limits } => {
            assert_eq!((limits.max_frame, limits.messages_per_minute), (MAX_FRAME, 0));
            link
        }
        other => panic!("not up: {other:?}"),
    };
    assert_eq!(frame(transport).await, SPAKE[..]);
    assert_eq!(frame(transport).await, version);
    link
}

#[tokio::test]
async fn a_peer_is_greeted_and_handed_over_with_both_its_frames() {
    within(async {
        let (port, mut host) = host();
        let mut raw = Raw::shake(port, VERSION).await;
        let link = candidate(&mut host, VERSION).await;
        assert_eq!(link, 1);
        prove(&host);
        send(&host, link, &b"the host's version"[..]).await;
        assert_eq!(raw.read().await, b"the host's version");
        raw.write(b"a record").await;
        assert_eq!(frame(&mut host).await, b"a record"[..]);
    })
    .await;
}

#[tokio::test]
async fn strangers_do_not_disturb() {
    within(async {
        let (port, mut host) = host();
        drop(Raw::connect(port).await);
        let mut oversize = Raw::connect(port).await;
        assert_eq!(oversize.read().await, GREETING);
        oversize.0.write_all(&[0xff; 64]).await.unwrap();
        let mut web = Raw::connect(port).await;
        assert_eq!(web.read().await, GREETING);
        web.0.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut long_version = Raw::shake(port, &[0; 16 * 1024 + 1][..0]).await;
        assert_eq!(candidate(&mut host, b"").await, 1);
        host.control.send(Control::Release).unwrap();
        down(&mut host).await;
        long_version.gone().await;
        let mut slow = Raw::connect(port).await;
        slow.0.write_all(&[0, 0]).await.unwrap();
        oversize.gone().await;
        web.gone().await;
        let _honest = Raw::shake(port, VERSION).await;
        assert_eq!(candidate(&mut host, VERSION).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_too_long_is_refused_by_its_length() {
    within(async {
        let (port, mut host) = host();
        let mut raw = Raw::connect(port).await;
        assert_eq!(raw.read().await, GREETING);
        raw.write(&SPAKE).await;
        raw.0.write_all(&(16 * 1024 + 1_u32).to_be_bytes()).await.unwrap();
        raw.gone().await;
        let _longest = Raw::shake(port, &[1; 16 * 1024]).await;
        candidate(&mut host, &[1; 16 * 1024]).await;
    })
    .await;
}

#[tokio::test]
async fn the_oldest_unproven_connection_goes() {
    within(async {
        let (port, mut host) = host();
        let mut waiting = Vec::new();
        for _ in 0..17 {
            let mut raw = Raw::connect(port).await;
            assert_eq!(raw.read().await, GREETING);
            waiting.push(raw);
        }
        waiting[0].gone().await;
        for raw in &mut waiting[1..3] {
            raw.write(&SPAKE).await;
            raw.write(VERSION).await;
        }
        candidate(&mut host, VERSION).await;
    })
    .await;
}

#[tokio::test]
async fn a_released_candidate_makes_room_for_the_next() {
    within(async {
        let (port, mut host) = host();
        let mut first = Raw::shake(port, b"first").await;
        assert_eq!(candidate(&mut host, b"first").await, 1);
        let mut second = Raw::shake(port, b"second").await;
        host.control.send(Control::Release).unwrap();
        first.gone().await;
        down(&mut host).await;
        assert_eq!(candidate(&mut host, b"second").await, 2);
        let mut third = Raw::shake(port, b"third").await;
        prove(&host);
        third.gone().await;
        send(&host, 2, &b"yours"[..]).await;
        assert_eq!(second.read().await, b"yours");
    })
    .await;
}

#[tokio::test]
async fn a_decision_about_a_link_that_has_ended_does_not_hit_the_next() {
    within(async {
        let (port, mut host) = host();
        let first = Raw::shake(port, b"first").await;
        assert_eq!(candidate(&mut host, b"first").await, 1);
        let mut second = Raw::shake(port, b"second").await;
        drop(first);
        // The end is noticed while the driver decides.
        while host.events.is_empty() {
            tokio::task::yield_now().await;
        }
        host.control.send(Control::Release).unwrap();
        down(&mut host).await;
        assert_eq!(candidate(&mut host, b"second").await, 2);
        prove(&host);
        send(&host, 2, &b"yours"[..]).await;
        assert_eq!(second.read().await, b"yours");
    })
    .await;
}

/// Carries one connection after another until told to cut the present one.
async fn proxy(to: u16, mut cut: watch::Receiver<u32>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.changed() => {}
            }
        }
    });
    port
}

/// Both ends, past their handshake.
async fn pair(port: u16, host: &mut Transport) -> Transport {
    let mut peer = dial("localhost", port);
    match event(&mut peer).await {
        TransportEvent::Up { link: 1, greeted: false, .. } => {}
        other => panic!("not up: {other:?}"),
    }
    assert_eq!(frame(&mut peer).await, GREETING[..]);
    send(&peer, 1, &SPAKE[..]).await;
    send(&peer, 1, VERSION).await;
    candidate(host, VERSION).await;
    prove(host);
    send(host, 1, VERSION).await;
    assert_eq!(frame(&mut peer).await, VERSION);
    prove(&peer);
    peer
}

#[tokio::test]
async fn a_cut_link_comes_back() {
    within(async {
        let (port, mut host) = host();
        let (cut, cuts) = watch::channel(0);
        let mut peer = pair(proxy(port, cuts).await, &mut host).await;
        for round in 2..5 {
            cut.send(round).unwrap();
            down(&mut peer).await;
            down(&mut host).await;
            let (link, far) = (up(&mut peer).await, up(&mut host).await);
            assert_eq!((link, far), (u64::from(round), u64::from(round)));
            send(&peer, link, vec![1; 100]).await;
            send(&host, far, vec![2; 100]).await;
            assert_eq!(frame(&mut host).await, [1; 100][..]);
            assert_eq!(frame(&mut peer).await, [2; 100][..]);
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_right_proof_resumes() {
    within(async {
        let (port, mut host) = host();
        let mut peer = pair(port, &mut host).await;
        let (mut wrong, cp, ch) = Raw::challenge(port).await;
        let proof = ResumeKey::new(KEY).host_proof(&cp, &ch);
        wrong.write(&[b"R\x03".as_slice(), &proof].concat()).await;
        wrong.gone().await;
        for first in [&SPAKE[..], b"R\x02", b"R\x01short", b"", &[0; 200]] {
            let mut other = Raw::connect(port).await;
            other.write(first).await;
            other.gone().await;
        }
        // The link has not noticed anything.
        send(&peer, 1, &b"still here"[..]).await;
        assert_eq!(frame(&mut host).await, b"still here"[..]);
        send(&host, 1, &b"so am I"[..]).await;
        assert_eq!(frame(&mut peer).await, b"so am I"[..]);
    })
    .await;
}

#[tokio::test]
async fn a_proof_replaces_a_link_that_still_lives() {
    within(async {
        let (port, mut host) = host();
        let mut old = Raw::shake(port, VERSION).await;
        candidate(&mut host, VERSION).await;
        prove(&host);
        let mut new = Raw::resume(port).await;
        down(&mut host).await;
        assert_eq!(up(&mut host).await, 2);
        old.gone().await;
        send(&host, 1, &b"for the old link"[..]).await;
        send(&host, 2, &b"for the new link"[..]).await;
        assert_eq!(new.read().await, b"for the new link");
        new.write(b"heard").await;
        assert_eq!(frame(&mut host).await, b"heard"[..]);
    })
    .await;
}

#[tokio::test]
async fn large_frames_arrive_whole_in_both_directions() {
    within(async {
        let (port, mut host) = host();
        let mut peer = pair(port, &mut host).await;
        let sizes = [MAX_FRAME, 0, 1, 16 * 1024, MAX_FRAME - 1, 256 * 1024, 5, 65_536, MAX_FRAME, 16_385];
        let bodies = |side: u8| {
            sizes.map(|size| {
                Bytes::from((0..size).map(|n| (n / 7) as u8 ^ size as u8 ^ side).collect::<Vec<_>>())
            })
        };
        let (host_frames, peer_frames) = (host.frames.clone(), peer.frames.clone());
        let sending = |frames: tokio::sync::mpsc::Sender<OutFrame>, side| async move {
            for bytes in bodies(side) {
                frames.send(OutFrame { link: 1, bytes }).await.unwrap();
            }
        };
        let receiving = async |transport: &mut Transport, side| {
            for body in bodies(side) {
                assert!(frame(transport).await == body, "a frame of {} bytes", body.len());
            }
        };
        tokio::join!(
            sending(host_frames, 1),
            sending(peer_frames, 2),
            receiving(&mut host, 2),
            receiving(&mut peer, 1),
        );
    })
    .await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_link_only() {
    within(async {
        let (port, mut host) = host();
        let mut raw = Raw::shake(port, VERSION).await;
        candidate(&mut host, VERSION).await;
        prove(&host);
        raw.0.write_all(&u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes()).await.unwrap();
        down(&mut host).await;
        let _again = Raw::resume(port).await;
        assert_eq!(up(&mut host).await, 2);
    })
    .await;
}

#[tokio::test]
async fn an_old_peer_gets_large_frames_one_connection_and_no_silence() {
    within(async {
        let (port, mut host) = host();
        let mut raw = Raw::shake(port, VERSION).await;
        candidate(&mut host, VERSION).await;
        host.control.send(Control::ProvenLegacy).unwrap();
        let large = vec![3; MAX_LEGACY_FRAME];
        send(&host, 1, large.clone()).await;
        assert!(raw.read().await == large);
        assert!(matches!(event(&mut host).await, TransportEvent::Drained { link: 1, .. }));
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "nobody else is let in");
        raw.write(&large).await;
        raw.write(b"last words").await;
        drop(raw);
        assert!(frame(&mut host).await == large[..]);
        assert_eq!(frame(&mut host).await, b"last words"[..]);
        assert!(matches!(event(&mut host).await, TransportEvent::Failed(TransportError::LegacyEnd)));
        assert!(host.events.recv().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn nothing_is_drained_before_the_other_machine_has_it() {
    within(async {
        let (port, mut host) = host();
        let mut raw = Raw::shake(port, VERSION).await;
        candidate(&mut host, VERSION).await;
        // Far more than the buffers between the two hold.
        let large = vec![3; 64 * 1024 * 1024];
        host.control.send(Control::ProvenLegacy).unwrap();
        send(&host, 1, large.clone()).await;
        let early = tokio::time::timeout(Duration::from_millis(100), event(&mut host)).await;
        assert!(early.is_err(), "{early:?}");
        assert!(raw.read().await == large);
        assert!(matches!(event(&mut host).await, TransportEvent::Drained { link: 1, .. }));
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_not_there_is_said_in_words() {
    within(async {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let mut peer = dial("127.0.0.1", port);
        match event(&mut peer).await {
            TransportEvent::Failed(TransportError::Unreachable { why, .. }) => {
                assert!(why.contains("connection refused") && why.contains("firewall"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert!(peer.events.recv().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_in_words() {
    let first = Listener::bind(0).unwrap();
    let second = Listener::bind(first.port());
    assert!(matches!(second, Err(TransportError::Unreachable { why, .. }) if why.contains("--port")));
}

#[tokio::test]
async fn a_link_that_ends_before_the_proof_ends_the_peer() {
    within(async {
        let (port, host) = host();
        let mut peer = dial("127.0.0.1", port);
        assert_eq!(up(&mut peer).await, 1);
        assert_eq!(frame(&mut peer).await, GREETING[..]);
        drop(host);
        down(&mut peer).await;
        assert!(matches!(event(&mut peer).await, TransportEvent::Failed(TransportError::EndedEarly)));
    })
    .await;
}

#[tokio::test]
async fn a_host_that_stays_away_is_said_with_its_reason() {
    within(async {
        let (port, mut host) = host();
        let mut peer = pair(port, &mut host).await;
        drop(host);
        down(&mut peer).await;
        tokio::time::pause();
        match event(&mut peer).await {
            TransportEvent::Down { why } => assert!(why.contains("(tcp: connection refused at "), "{why}"),
            other => panic!("not down: {other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn silence_ends_a_proven_link_and_the_peer_dials_again() {
    let (port, mut host) = host();
    let mut peer = within(pair(port, &mut host)).await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(60), down(&mut peer)).await.unwrap();
    let silence = start.elapsed();
    assert!(silence >= Duration::from_secs(29) && silence <= Duration::from_secs(31), "{silence:?}");
    tokio::time::resume();
    assert_eq!(within(up(&mut peer)).await, 2);
}

#[tokio::test]
async fn a_silent_stranger_is_closed() {
    let (port, _host) = host();
    let mut raw = Raw::connect(port).await;
    assert_eq!(raw.read().await, GREETING);
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(60), raw.gone()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn what_waits_is_sent_before_the_end() {
    within(async {
        let (port, mut host) = host();
        let mut peer = pair(port, &mut host).await;
        for i in 0..4 {
            send(&host, 1, vec![i; 200_000]).await;
        }
        host.control.send(Control::Close(Farewell::Happy)).unwrap();
        for i in 0..4 {
            assert!(frame(&mut peer).await == [i; 200_000][..]);
        }
        down(&mut peer).await;
        assert!(host.events.recv().await.is_none());
    })
    .await;
}
