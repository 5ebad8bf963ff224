//! Bad days.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::balancer::Balancer;
use crate::fleet::Relay;
use crate::redis_server::RedisServer;
use crate::talker::{self, Talker};
use crate::wire::Wire;

/// Ends that are still at it after the trouble is over have this long.
const AFTER: Duration = Duration::from_secs(90);
/// Relays.
const RELAYS: usize = 3;

/// A day: so many channels, each end with so many items, spread over the time that trouble lasts.
struct Day {
    channels: usize,
    items: usize,
    trouble: Duration,
}

/// Channels on a fleet, talking.
struct Running {
    relays: Vec<Relay>,
    redis: RedisServer,
    balancer: Balancer,
    talking: JoinSet<(usize, usize)>,
    day: Day,
}

impl Day {
    async fn begin(self, redis: RedisServer) -> Running {
        let ways = vec![redis.url(); RELAYS];
        self.begin_by(redis, &ways).await
    }

    /// With a relay for each of these ways to Redis.
    async fn begin_by(self, redis: RedisServer, ways: &[String]) -> Running {
        let relays: Vec<Relay> = ways.iter().map(|way| Relay::start(way)).collect();
        let balancer = Balancer::start(relays.iter().map(|relay| relay.address).collect()).await;
        let pace = self.trouble / u32::try_from(self.items).unwrap();
        let mut opening = JoinSet::new();
        for n in 0..self.channels {
            let url = balancer.url.clone();
            opening.spawn(async move { talker::channel(&url, n as u64, self.items, pace).await });
        }
        let limit = self.trouble + AFTER;
        let mut talking = JoinSet::new();
        for (host, peer) in opening.join_all().await {
            talking.spawn(Talker::talk(host, limit));
            talking.spawn(Talker::talk(peer, limit));
        }
        Running { relays, redis, balancer, talking, day: self }
    }
}

impl Running {
    /// Until everything has arrived; prints the counts.
    async fn end(mut self, trouble: &str) {
        let began = Instant::now();
        let (mut items, mut links) = (0, 0);
        while let Some(talked) = self.talking.join_next().await {
            let (came, had) = talked.unwrap();
            items += came;
            links += had;
        }
        let ends = 2 * self.day.channels;
        assert_eq!(items, ends * self.day.items);
        println!(
            "{} channels, {trouble}: {items} items arrived once and whole, {} of them files; {} reconnects; done {:.1} \
             s after the trouble",
            self.day.channels,
            ends * (self.day.items / 3),
            links - ends,
            began.elapsed().as_secs_f64()
        );
    }

    fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.relays.iter().map(|relay| relay.address).collect()
    }

    /// Kills one relay after the other, each at a random moment, and starts another in its place.
    async fn kill_relays(&mut self, seed: u64) -> usize {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let until = Instant::now() + self.day.trouble;
        let mut kills = 0;
        while Instant::now() < until {
            // Trouble comes when it comes.
            sleep(Duration::from_millis(u64::from(300 + rng.next_u32() % 2500))).await;
            let victim = rng.next_u32() as usize % self.relays.len();
            self.relays[victim].kill();
            kills += 1;
            sleep(Duration::from_millis(u64::from(rng.next_u32() % 1000))).await;
            self.relays[victim] = Relay::start(&self.redis.url());
            self.balancer.send_to(self.addresses());
        }
        kills
    }
}

async fn killed_relays(day: Day) {
    let mut running = day.begin(RedisServer::start()).await;
    let kills = running.kill_relays(4).await;
    running.end(&format!("{kills} relays killed and replaced")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_are_killed_lose_and_repeat_nothing() {
    killed_relays(Day { channels: 24, items: 12, trouble: Duration::from_secs(8) }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes; make soak"]
async fn two_minutes_of_killed_relays_lose_and_repeat_nothing() {
    killed_relays(Day { channels: 200, items: 60, trouble: Duration::from_secs(120) }).await;
}

/// A Redis that is started again three times.
async fn restarted(redis: RedisServer, what: &str) {
    let day = Day { channels: 12, items: 12, trouble: Duration::from_secs(6) };
    let mut running = day.begin(redis).await;
    for _ in 0..3 {
        sleep(Duration::from_millis(1500)).await;
        running.redis.kill();
        sleep(Duration::from_millis(500)).await;
        running.redis.start_again();
    }
    running.end(&format!("Redis started again three times, {what}")).await;
}

/// Without its memory: everybody resumes, and what was in it is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_memory_loses_and_repeats_nothing() {
    restarted(RedisServer::start(), "each time empty").await;
}

/// With a memory that is up to a second old.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_kept_its_files_loses_and_repeats_nothing() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    restarted(redis, "with its files").await;
}

/// One relay is cut off from Redis, its clients resume at others, and then it comes back with what it had in hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_cut_off_and_replaced_loses_and_repeats_nothing() {
    let day = Day { channels: 12, items: 12, trouble: Duration::from_secs(14) };
    let redis = RedisServer::start();
    let wire = Wire::to(redis.port()).await;
    let ways = [wire.url.clone(), redis.url(), redis.url()];
    let running = day.begin_by(redis, &ways).await;
    let all = running.addresses();
    for _ in 0..2 {
        wire.cut();
        // Its clients wait for it; then they are sent elsewhere, for longer than it waits for Redis.
        sleep(Duration::from_secs(1)).await;
        running.balancer.send_to(all[1..].to_vec());
        running.balancer.cut(all[0]);
        sleep(Duration::from_secs(6)).await;
        wire.mend();
        running.balancer.send_to(all.clone());
        all[1..].iter().for_each(|other| running.balancer.cut(*other));
        sleep(Duration::from_secs(1)).await;
    }
    running.end("one relay cut off from Redis twice, and replaced").await;
}

async fn still(day: Day, span: Duration) {
    let running = day.begin(RedisServer::start()).await;
    sleep(Duration::from_secs(2)).await;
    running.redis.freeze();
    sleep(span).await;
    running.redis.go_on();
    running.end(&format!("Redis silent for {} s", span.as_secs())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_silent_for_a_while_loses_and_repeats_nothing() {
    // Longer than a script may take, so that every connection to it is given up.
    still(Day { channels: 12, items: 12, trouble: Duration::from_secs(6) }, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute; make soak"]
async fn a_redis_that_is_silent_for_thirty_seconds_loses_and_repeats_nothing() {
    still(Day { channels: 50, items: 20, trouble: Duration::from_secs(20) }, Duration::from_secs(30)).await;
}

/// Upgrades: one relay after the other is asked to stop, and another takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn relays_that_are_upgraded_lose_and_repeat_nothing() {
    let day = Day { channels: 24, items: 12, trouble: Duration::from_secs(9) };
    let mut running = day.begin(RedisServer::start()).await;
    for n in 0..RELAYS {
        let fresh = Relay::start(&running.redis.url());
        let mut old = std::mem::replace(&mut running.relays[n], fresh);
        running.balancer.send_to(running.addresses());
        let (before, asked) = (running.balancer.came().len(), Instant::now());
        old.ask_to_stop();
        let old = tokio::task::spawn_blocking(move || assert!(old.ended_well()));
        old.await.unwrap();
        let came = running.balancer.came()[before..].to_vec();
        let mut slots = vec![0; 12];
        for at in came {
            let slot = (at - asked).as_millis() as usize / 250;
            slots[slot.min(11)] += 1;
        }
        println!("reconnects in each 250 ms of a drain of 2 s: {slots:?}");
    }
    running.end("three relays upgraded, one after the other").await;
}
