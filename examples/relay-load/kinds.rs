//! The kinds of load.
//!
//! Owns what the clients do and what is counted of it; each ends after its time.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout_at};

use super::client::{Channel, End};
use super::figures;
use super::server::{Meter, Relay};

/// Channels that are opened at the same time.
const OPENED_AT_ONCE: usize = 64;
/// An idle relay is watched for this long: pings and looks are part of it.
const IDLE: Duration = Duration::from_secs(25);

/// What a load is put on.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub relays: &'a [Relay],
    /// Channels at a time.
    pub channels: u32,
    /// Bytes of a frame.
    pub size: u32,
    /// Join by a whole code.
    pub legacy: bool,
}

/// A code that nobody else uses meanwhile.
fn code(n: usize) -> String {
    let letters =
        |n: usize| n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect::<String>();
    format!("load-{}-{}", letters(std::process::id() as usize), letters(n))
}

impl Load<'_> {
    /// A channel whose ends are at different relays, if there are several.
    fn channel(&self, n: usize) -> impl Future<Output = Result<Channel, String>> + Send + use<> {
        let host_at = self.relays[n % self.relays.len()].url.clone();
        let peer_at = self.relays[(n + 1) % self.relays.len()].url.clone();
        let code = self.legacy.then(|| code(n));
        async move {
            match code {
                Some(code) => Channel::open_by_code(&host_at, &peer_at, &code).await,
                None => Channel::open(&host_at, &peer_at).await,
            }
        }
    }

    async fn open(&self) -> Result<Vec<Channel>, String> {
        let mut opening = JoinSet::new();
        let mut open = Vec::with_capacity(self.channels as usize);
        for n in 0..self.channels as usize {
            if opening.len() >= OPENED_AT_ONCE {
                open.extend(opening.join_next().await.transpose().map_err(|error| error.to_string())?);
            }
            opening.spawn(self.channel(n));
        }
        open.extend(opening.join_all().await);
        open.into_iter().collect()
    }

    /// Memory of channels that say nothing.
    pub async fn idle(&self) -> Result<String, String> {
        let (relays, count) = (self.relays, self.channels);
        let resident = || relays.iter().map(|relay| relay.usage().resident).sum::<u64>();
        let before = resident();
        let at = Instant::now();
        let channels = self.open().await?;
        let opened = at.elapsed();
        let after = resident();
        let meter = Meter::start(relays);
        // Pings are answered: the clients read.
        let mut reading = JoinSet::new();
        for channel in channels {
            reading.spawn(async move {
                let Channel { mut host, mut peer } = channel;
                tokio::join!(host.frame(), peer.frame())
            });
        }
        tokio::time::sleep(IDLE).await;
        let (wall, cpu) = meter.stop();
        if let Some(ended) = reading.try_join_next() {
            return Err(format!("a channel ended: {ended:?}"));
        }
        let sockets = u64::from(count) * 2;
        Ok(format!(
            "{sockets} sockets in {:.1} s; resident {} KiB before, {} KiB with them, {} KiB after {} s: {} bytes a \
         socket\n{:.1} % of a core while idle",
            opened.as_secs_f64(),
            before / 1024,
            after / 1024,
            resident() / 1024,
            IDLE.as_secs(),
            resident().saturating_sub(before) / sockets,
            cpu.as_secs_f64() / wall.as_secs_f64() * 100.0
        ))
    }

    /// Latency of one frame at a time: half of the way to and fro.
    pub async fn ping(&self, time: Duration) -> Result<String, String> {
        let (relays, size) = (self.relays, self.size);
        let channels = self.open().await?;
        let meter = Meter::start(relays);
        let deadline = tokio::time::Instant::now() + time;
        let mut pinging = JoinSet::new();
        for mut channel in channels {
            pinging.spawn(async move {
                let frame = Bytes::from(vec![7; size as usize]);
                let mut ways = Vec::new();
                while tokio::time::Instant::now() < deadline {
                    let at = Instant::now();
                    channel.host.send(frame.clone()).await?;
                    let there = channel.peer.frame().await?;
                    channel.peer.send(there).await?;
                    channel.host.frame().await?;
                    ways.push(at.elapsed() / 2);
                }
                Ok::<_, String>(ways)
            });
        }
        let ways = gather(pinging).await?;
        let (_, cpu) = meter.stop();
        Ok(format!("{}; {}", figures::latencies(ways.clone()), figures::each(cpu, 2 * ways.len())))
    }

    /// Latency of frames that come at a rate.
    pub async fn flow(&self, rate: u32, time: Duration) -> Result<String, String> {
        let (relays, size) = (self.relays, self.size);
        let channels = self.open().await?;
        let start = Instant::now();
        let meter = Meter::start(relays);
        let mut flowing = JoinSet::new();
        for channel in channels {
            flowing.spawn(async move {
                let Channel { mut host, mut peer } = channel;
                let total = (time.as_secs_f64() * f64::from(rate)) as usize;
                let sending = async {
                    let mut tick = interval(Duration::from_secs(1) / rate);
                    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
                    for _ in 0..total {
                        tick.tick().await;
                        host.send(stamped(size, start)).await?;
                    }
                    Ok::<_, String>(host)
                };
                let receiving = async {
                    let mut ways = Vec::with_capacity(total);
                    while ways.len() < total {
                        ways.push(age(&peer.frame().await?, start));
                    }
                    Ok::<_, String>(ways)
                };
                let (_host, ways) = tokio::try_join!(sending, receiving)?;
                Ok(ways)
            });
        }
        let ways = gather(flowing).await?;
        let (wall, cpu) = meter.stop();
        let (each, busy) = (figures::each(cpu, ways.len()), cpu.as_secs_f64() / wall.as_secs_f64() * 100.0);
        Ok(format!("{}; {each}; {busy:.0} % of a core", figures::latencies(ways)))
    }

    /// Bytes a second.
    pub async fn bulk(&self, time: Duration) -> Result<String, String> {
        let (relays, size) = (self.relays, self.size);
        let channels = self.open().await?;
        let meter = Meter::start(relays);
        let deadline = tokio::time::Instant::now() + time;
        let mut flowing = JoinSet::new();
        for channel in channels {
            flowing.spawn(async move {
                let Channel { mut host, mut peer } = channel;
                let frame = Bytes::from(vec![7; size as usize]);
                let mut frames = 0_usize;
                let (sending, receiving) = (pour(&mut host, &frame), count_frames(&mut peer, &mut frames));
                match timeout_at(deadline, async { tokio::try_join!(sending, receiving) }).await {
                    Ok(ended) => ended.map(|(never, _)| match never {}),
                    Err(_) => Ok(vec![Duration::ZERO; frames]),
                }
            });
        }
        let frames = gather(flowing).await?.len();
        let (wall, cpu) = meter.stop();
        let bytes = frames as f64 * f64::from(size);
        Ok(format!(
            "{:.0} MB/s in {frames} frames; {:.2} s of relay processor time a GB; {}",
            bytes / 1e6 / wall.as_secs_f64(),
            cpu.as_secs_f64() / (bytes / 1e9).max(f64::MIN_POSITIVE),
            figures::each(cpu, frames)
        ))
    }

    /// New channels at a rate, each left when it is paired.
    pub async fn storm(&self, rate: u32, time: Duration) -> Result<String, String> {
        let relays = self.relays;
        let meter = Meter::start(relays);
        let deadline = Instant::now() + time;
        let mut tick = interval(Duration::from_secs(1) / rate);
        let mut opening = JoinSet::new();
        let mut n = 0;
        while Instant::now() < deadline {
            tick.tick().await;
            n += 1;
            let opened = self.channel(n);
            opening.spawn(async move {
                let at = Instant::now();
                opened.await.map(|_| vec![at.elapsed()])
            });
        }
        let ways = gather(opening).await?;
        let (_, cpu) = meter.stop();
        let peak = relays.iter().map(|relay| relay.usage().resident).sum::<u64>() / (1 << 20);
        Ok(format!(
            "to be paired: {}; {:.0} µs of relay processor time a channel; {peak} MiB resident",
            figures::latencies(ways.clone()),
            cpu.as_secs_f64() * 1e6 / ways.len().max(1) as f64
        ))
    }
}

/// Sends as fast as it goes.
async fn pour(end: &mut End, frame: &Bytes) -> Result<Infallible, String> {
    loop {
        end.send(frame.clone()).await?;
    }
}

/// Counts what comes.
async fn count_frames(end: &mut End, frames: &mut usize) -> Result<Infallible, String> {
    loop {
        end.frame().await?;
        *frames += 1;
    }
}

async fn gather(mut tasks: JoinSet<Result<Vec<Duration>, String>>) -> Result<Vec<Duration>, String> {
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done.map_err(|error| error.to_string())??);
    }
    Ok(all)
}

/// A frame that says when it was made.
fn stamped(size: u32, start: Instant) -> Bytes {
    let mut frame = BytesMut::with_capacity(size as usize);
    frame.put_u64(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    frame.resize(size as usize, 7);
    frame.freeze()
}

/// How long ago that was.
fn age(frame: &Bytes, start: Instant) -> Duration {
    let made = frame.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    start.elapsed().saturating_sub(Duration::from_nanos(made))
}
