//! What the parts cost: sealing and opening, and two sessions passing a file in memory.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce};
use agent_wormhole::code::Code;
use agent_wormhole::frame::ChunkBuf;
use agent_wormhole::item::{ItemHead, ItemId, ItemKind, Lane};
use agent_wormhole::session::{Link, LinkLimits, Role, Session, SessionEvent};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand_core::OsRng;

fn seal(c: &mut Criterion) {
    let cipher = Aes256Gcm::new(&[7; 32].into());
    let mut group = c.benchmark_group("aes-256-gcm");
    for size in [64 * 1024, 256 * 1024, 1024 * 1024] {
        let mut buffer = vec![0x5a_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("seal {} KiB", size / 1024), |b| {
            b.iter(|| {
                let nonce = Nonce::<Aes256Gcm>::default();
                cipher.encrypt_inout_detached(&nonce, b"", InOutBuf::from(black_box(buffer.as_mut_slice())))
            });
        });
    }
    group.finish();
}

/// Two connected sessions.
struct Pair {
    ends: [Session; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let secret = || Code::parse("7-cross-clock-marble", false).expect("a code").secret;
        let ends = [Role::Host, Role::Peer].map(|role| Session::new(role, &secret(), &mut OsRng));
        let mut pair = Self { ends, now: Instant::now() };
        let limits =
            LinkLimits { max_frame: 1024 * 1024 + 64 * 1024, messages_per_minute: 0, relayed: false };
        for end in &mut pair.ends {
            end.handle_link(Link::Up { limits, greeted: false }, pair.now).expect("a link");
        }
        pair.settle();
        pair
    }

    /// Passes frames until none is left; takes whatever arrives.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..2 {
                while let Some(frame) = self.ends[from].poll_transmit(self.now) {
                    moved = true;
                    let frame = BytesMut::from(&frame[..]);
                    self.ends[1 - from].handle_frame(frame, self.now).expect("a good frame");
                }
                while let Some(event) = self.ends[from].poll_event() {
                    self.take(from, event);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn take(&mut self, end: usize, event: SessionEvent) {
        match event {
            SessionEvent::Head(incoming) if incoming.head.inline.is_some() => {
                self.ends[end].stored(incoming.id, Ok(()));
            }
            SessionEvent::Chunk { id, last: true, .. } => self.ends[end].stored(id, Ok(())),
            SessionEvent::Chunk { id, .. } => self.ends[end].accepted(id, u64::MAX),
            _ => {}
        }
    }

    fn file(&mut self, size: usize) -> ItemId {
        let head = ItemHead {
            kind: ItemKind::File,
            group: None,
            name: "file".into(),
            size: Some(size as u64),
            executable: false,
            mtime: None,
            inline: None,
        };
        self.ends[0].offer(head).expect("connected")
    }
}

fn sessions(c: &mut Criterion) {
    const FILE: usize = 64 * 1024 * 1024;
    let mut pair = Pair::new();
    let mut group = c.benchmark_group("two sessions in one thread");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(FILE as u64));
    group.bench_function("64 MiB file", |b| {
        b.iter(|| {
            let id = pair.file(FILE);
            pair.settle();
            let chunk = pair.ends[0].chunk_size();
            let mut pushed = 0;
            while pushed < FILE {
                while pair.ends[0].room(Lane::Bulk) >= chunk && pushed < FILE {
                    let buffer = match pair.ends[0].reclaim() {
                        Some(old) => ChunkBuf::recycled(old, chunk),
                        None => ChunkBuf::zeroed(chunk),
                    };
                    pushed += chunk;
                    pair.ends[0].push(id, buffer, pushed >= FILE);
                }
                pair.settle();
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("text of 100 bytes", |b| {
        b.iter(|| {
            let head = ItemHead {
                kind: ItemKind::Text,
                group: None,
                name: "message".into(),
                size: Some(100),
                executable: false,
                mtime: None,
                inline: Some(Bytes::from_static(&[b'x'; 100])),
            };
            pair.ends[0].offer(head);
            pair.settle();
        });
    });
    group.finish();
}

criterion_group!(parts, seal, sessions);
criterion_main!(parts);
