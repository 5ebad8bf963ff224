//! The store that many relays share, in Redis (7.0 or later; Valkey 7.2 or later).
//!
//! Owns the steps of the contract as one script each (`redis/lua/`), so that every step is whole whichever instance
//! takes it, and none is half done when an instance dies. Scripts may be asked twice: what was done is not done again, so
//! a reply that was lost with its connection is asked for on the next. The rules are those of `rules/`, written again
//! where they have to be judged in one step with what the other instances do; one contract suite holds both.
//!
//! All keys share one hash tag: a step touches the channel, the budget of all channels and the wake-ups of another
//! instance at once. On a Redis Cluster they are on one node, which the link finds. Does not know sockets.

mod hold;
mod link;
mod reply;
mod script;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::{OsRng, RngCore as _};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use self::hold::{Bells, Handed};
use self::link::{Answer, Ask, Link};
use self::reply::Reply;
use self::script::{Scripts, letter};
use super::{Bell, Caller, Due, Ended, Exchange, Pushed, Refusal, Seated, Usage};
use crate::options::Options;
use crate::rules::{CodeHash, Nameplate, SeatHash, Source, fresh_id};
use crate::wire::{ErrorCode, Id, Mood, Resume, Role};

pub use self::hold::Hold;
pub use self::link::RedisError;

/// A client that asks for a seat waits this long for a store that answers slowly; then it may try elsewhere.
const SEAT_WAIT: Duration = Duration::from_secs(5);
/// A socket that ends waits this long until the store knows it; after that the store is told in the background.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// Frames up to this length share the connection of the scripts; longer ones have another, so that no small one waits
/// behind them. Bytes.
const PROMPT: usize = 64 << 10;
/// A store without memory is asked again after this time.
const OOM_PAUSE: Duration = Duration::from_secs(1);
/// Channels that one sweep script looks at: about a millisecond of Redis.
const SWEPT: usize = 200;
/// Random numbers for a nameplate. At most a tenth is taken and a ninth retired: 24 misses in a row have odds below 2^-50.
const DRAWS: usize = 24;
/// Bits of a number that a script can reckon with.
const DRAW_BITS: u32 = 52;
/// Longer than any frame.
const ANY_LENGTH: u64 = 1 << DRAW_BITS;

/// The channels of all relays that share a Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    inner: Arc<Inner>,
    /// How long a client waits for a seat.
    wait: Duration,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    scripts: Scripts,
    bells: Arc<Bells>,
    /// As of the last sweep.
    usage: Mutex<Option<Usage>>,
}

/// What a seat is asked with.
struct Asking {
    /// As the client may resume with.
    seat: Id,
    bell: Arc<Bell>,
    source: Source,
    role: Role,
    /// Until when it waits. By the clock on the wall, not by the caller's.
    by: Instant,
}

impl Redis {
    /// The store at this URL (`redis://`, `rediss://` or `unix://`), under keys that begin with `{prefix}:`. A Redis that
    /// cannot be reached yet is waited for in the background.
    ///
    /// # Errors
    /// [`RedisError`] where the URL is none, or Redis refuses or is too old: waiting would not help.
    pub async fn open(url: &str, prefix: &str, options: &Options) -> Result<Self, RedisError> {
        let bells = Arc::<Bells>::default();
        let scripts = Scripts::new(options);
        let link = Link::open(url, prefix, scripts.keep(), bells.clone()).await?;
        let inner = Arc::new(Inner { link, scripts, bells, usage: Mutex::default() });
        Ok(Self { inner, wait: SEAT_WAIT })
    }

    /// Runs a seating script in a task of its own: a client that goes away does not leave the step half asked.
    async fn seated(
        &self,
        ask: impl Future<Output = Result<Seated<Hold>, Refusal>> + Send + 'static,
    ) -> Result<Seated<Hold>, Refusal> {
        if !self.inner.link.is_up() {
            return Err(Refusal::Away);
        }
        // What is asked too late is refused; a seat whose answer comes too late is given up when it is dropped.
        match timeout(self.wait, tokio::spawn(ask)).await {
            Ok(Ok(seated)) => seated,
            Ok(Err(_)) | Err(_) => Err(Refusal::Away),
        }
    }
}

impl Inner {
    /// Nothing panics while it is held.
    fn usage(&self) -> MutexGuard<'_, Option<Usage>> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a seat until the store has answered.
    async fn seat(
        self: &Arc<Self>,
        asking: Asking,
        now: Instant,
        script: &redis::Script,
        args: impl Fn(&Asking, &str, [Bytes; 2]) -> Vec<Bytes>,
        key: Option<String>,
    ) -> Result<(Hold, Reply), Refusal> {
        let number = self.bells.add(&asking.bell);
        loop {
            let live = self.link.live().await;
            let source = live.hashed(asking.source);
            let args = args(&asking, &source, [text(number), text(self.link.micros(asking.by))]);
            let ask = Ask { script, boot: &live.boot, now, args: &args, bulk: false };
            let reply = match self.link.ask(&live, ask).await {
                Answer::Reply(reply) => reply,
                Answer::NoMemory => {
                    self.bells.remove(number);
                    return Err(ErrorCode::Busy.into());
                }
                Answer::Again => continue,
            };
            self.bells.ring(&reply.rings);
            if let Some(refusal) = reply.refusal() {
                self.bells.remove(number);
                return Err(refusal);
            }
            let key = key.clone().unwrap_or_else(|| reply.text(1));
            let hold = Hold::new(key, asking.role, reply.number(0), live.boot, number, self);
            return Ok((hold, reply));
        }
    }

    /// One step of a hold, until the store has answered.
    async fn step(
        &self,
        hold: &Hold,
        now: Instant,
        script: &redis::Script,
        args: &[Bytes],
        bulk: bool,
    ) -> Result<Option<Reply>, Ended> {
        let mut all = vec![hold.key.clone().into(), letter(hold.role).into(), text(hold.epoch)];
        all.extend_from_slice(args);
        let ask = Ask { script, boot: &hold.boot, now, args: &all, bulk };
        loop {
            let live = self.link.live().await;
            match self.link.ask(&live, ask).await {
                Answer::Reply(reply) => {
                    self.bells.ring(&reply.rings);
                    return reply.ended().map_or(Ok(Some(reply)), Err);
                }
                Answer::NoMemory => return Ok(None),
                // Whoever was seated by an earlier memory has to resume.
                Answer::Again if live.boot != hold.boot => return Err(Ended::Forgot),
                Answer::Again => {}
            }
        }
    }

    /// Tells the store that a socket is gone, however long that takes.
    async fn part(&self, hold: &Hold, how: &'static str, scary: bool, written: usize, now: Instant) {
        let mut args = vec![Bytes::from(how), if scary { "scary".into() } else { Bytes::new() }];
        args.extend(hold.handed().settled(written));
        // Whatever the answer: the seat is not ours any more.
        let _ = self.step(hold, now, &self.scripts.leave, &args, false).await;
    }
}

/// Leaves a seat in a task of its own, and waits for that a while.
async fn part(mut hold: Hold, how: &'static str, scary: bool, written: usize, now: Instant) {
    let Some(inner) = hold.disarm() else { return };
    let parting = tokio::spawn(async move { inner.part(&hold, how, scary, written, now).await });
    let _ = timeout(LEAVE_WAIT, parting).await;
}

impl Exchange for Redis {
    type Hold = Hold;

    fn boot(&self) -> Id {
        self.inner.link.boot()
    }

    fn is_ready(&self) -> bool {
        self.inner.link.is_up()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn usage(&self) -> Option<Usage> {
        *self.inner.usage()
    }

    fn slot(&self, hold: &Hold) -> u64 {
        // The same at every instance, which no hasher of a process would be.
        let digest: [u8; 32] = Sha256::digest(hold.key.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    async fn allocate(&self, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        let (inner, by) = (self.inner.clone(), Instant::now() + self.wait);
        self.seated(async move {
            let key = fresh_id(&mut OsRng).to_string();
            let draws: Vec<_> = (0..DRAWS).map(|_| OsRng.next_u64() >> (64 - DRAW_BITS)).collect();
            let asking = Asking::new(caller, Role::Host, fresh_id(&mut OsRng), by);
            let seat = asking.seat;
            let named = key.clone();
            let args = move |asking: &Asking, source: &str, [number, by]: [Bytes; 2]| {
                let mut args =
                    vec![named.clone().into(), asking.hash(), source.to_owned().into(), number, by];
                args.extend(draws.iter().map(|draw| text(*draw)));
                args
            };
            let (hold, reply) = inner.seat(asking, now, &inner.scripts.allocate, args, Some(key)).await?;
            Ok(Seated { boot: hold.boot, hold, seat, nameplate: Nameplate::parse(&reply.text(1)) })
        })
        .await
    }

    async fn join(&self, nameplate: &str, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        let (inner, by) = (self.inner.clone(), Instant::now() + self.wait);
        let nameplate = Nameplate::parse(nameplate);
        self.seated(async move {
            let asking = Asking::new(caller, Role::Peer, fresh_id(&mut OsRng), by);
            let (seat, id) = (asking.seat, fresh_id(&mut OsRng).to_string());
            let digits = nameplate.map(|n| n.to_string()).unwrap_or_default();
            let args = move |asking: &Asking, source: &str, [number, by]: [Bytes; 2]| {
                vec![
                    digits.clone().into(),
                    asking.hash(),
                    source.to_owned().into(),
                    number,
                    id.clone().into(),
                    by,
                ]
            };
            let (hold, _) = inner.seat(asking, now, &inner.scripts.join, args, None).await?;
            Ok(Seated { boot: hold.boot, hold, seat, nameplate })
        })
        .await
    }

    async fn join_code(
        &self,
        code: &CodeHash,
        role: Role,
        caller: Caller,
        now: Instant,
    ) -> Result<Seated<Hold>, Refusal> {
        let (inner, by) = (self.inner.clone(), Instant::now() + self.wait);
        let code = code.to_hex();
        self.seated(async move {
            let asking = Asking::new(caller, role, fresh_id(&mut OsRng), by);
            let seat = asking.seat;
            let (id, key) = (fresh_id(&mut OsRng).to_string(), fresh_id(&mut OsRng).to_string());
            let args = move |asking: &Asking, source: &str, [number, by]: [Bytes; 2]| {
                vec![
                    code.clone().into(),
                    letter(role).into(),
                    asking.hash(),
                    source.to_owned().into(),
                    number,
                    id.clone().into(),
                    key.clone().into(),
                    by,
                ]
            };
            let (hold, _) = inner.seat(asking, now, &inner.scripts.code, args, None).await?;
            Ok(Seated { boot: hold.boot, hold, seat, nameplate: None })
        })
        .await
    }

    async fn resume(&self, claim: &Resume, caller: Caller, now: Instant) -> Result<Seated<Hold>, Refusal> {
        let nameplate = match (&claim.channel, &claim.nameplate, claim.role) {
            (Some(_), ..) => None,
            (None, Some(digits), Role::Host) => {
                Some(Nameplate::parse(digits).ok_or(ErrorCode::NameplateLost)?)
            }
            _ => return Err(ErrorCode::BadMessage.into()),
        };
        let (inner, by) = (self.inner.clone(), Instant::now() + self.wait);
        let claim = claim.clone();
        self.seated(async move {
            let asking = Asking::new(caller, claim.role, claim.seat, by);
            let fresh = fresh_id(&mut OsRng).to_string();
            let id = claim.channel.map(|id| id.to_string()).unwrap_or_default();
            let digits = nameplate.map(|n| n.to_string()).unwrap_or_default();
            let args = move |asking: &Asking, source: &str, [number, by]: [Bytes; 2]| {
                vec![
                    id.clone().into(),
                    digits.clone().into(),
                    letter(claim.role).into(),
                    claim.boot.to_string().into(),
                    asking.hash(),
                    source.to_owned().into(),
                    number,
                    fresh.clone().into(),
                    by,
                ]
            };
            let (hold, _) = inner.seat(asking, now, &inner.scripts.resume, args, None).await?;
            Ok(Seated { boot: hold.boot, hold, seat: claim.seat, nameplate })
        })
        .await
    }

    async fn release(&self, hold: &Hold, now: Instant) -> Result<bool, Ended> {
        let inner = &self.inner;
        let args = [text(hold.handed().ask())];
        let reply = inner.step(hold, now, &inner.scripts.release, &args, false).await?;
        hold.handed().forget();
        Ok(reply.is_some_and(|reply| reply.is_ok()))
    }

    async fn bye(&self, hold: Hold, mood: Mood, now: Instant) {
        part(hold, "left", mood == Mood::Scary, 0, now).await;
    }

    async fn leave(&self, hold: Hold, written: usize, now: Instant) {
        part(hold, "away", false, written, now).await;
    }

    async fn push(&self, hold: &Hold, frame: Bytes, now: Instant) -> Result<Pushed, Ended> {
        let inner = &self.inner;
        let turn = hold.handed().pushed + 1;
        let bulk = frame.len() > PROMPT;
        let args = [text(turn), frame.clone()];
        let Some(reply) = inner.step(hold, now, &inner.scripts.push, &args, bulk).await? else {
            inner.bells.ring_later(hold.number, OOM_PAUSE);
            return Ok(Pushed::Full(frame));
        };
        if reply.is_unpaired() {
            return Ok(Pushed::Unpaired);
        }
        if !reply.is_ok() {
            return Ok(Pushed::Full(frame));
        }
        hold.handed().pushed = turn;
        Ok(Pushed::Taken)
    }

    async fn pop(&self, hold: &Hold, mut written: usize, now: Instant) -> Result<Due, Ended> {
        let inner = &self.inner;
        let mut bulk = hold.handed().bulk;
        let turn = hold.handed().ask();
        loop {
            let longest = text(if bulk { ANY_LENGTH } else { PROMPT as u64 });
            let mut args = vec![text(hold.handed().after), longest, text(turn)];
            args.extend(hold.handed().settled(written));
            let Some(mut reply) = inner.step(hold, now, &inner.scripts.pop, &args, bulk).await? else {
                inner.bells.ring_later(hold.number, OOM_PAUSE);
                return Ok(Due::default());
            };
            let due = reply.due(&hold.boot, |at| inner.link.instant(at, now));
            let mut handed = hold.handed();
            let Handed { given, .. } = &mut *handed;
            given.drain(..written.min(given.len()));
            return Ok(match due {
                None => {
                    (bulk, written) = (true, 0);
                    continue;
                }
                Some((due, new)) => {
                    handed.bulk = due.frames.iter().any(|frame| frame.len() > PROMPT);
                    handed.give(new);
                    due
                }
            });
        }
    }

    async fn sweep(&self, now: Instant) {
        let inner = &self.inner;
        inner.link.beat().await;
        let args = [text(SWEPT)];
        while let Some(live) = inner.link.live_now() {
            let ask = Ask { script: &inner.scripts.sweep, boot: &live.boot, now, args: &args, bulk: false };
            let Answer::Reply(reply) = inner.link.ask(&live, ask).await else { return };
            inner.bells.ring(&reply.rings);
            if reply.is_ok() {
                let sum = |at| usize::try_from(reply.number(at)).unwrap_or(usize::MAX);
                *inner.usage() = Some(Usage { channels: sum(1), queued: sum(2) });
            }
            if !reply.is_ok() || reply.number(0) < SWEPT as u64 {
                return;
            }
        }
    }
}

impl Asking {
    fn new(caller: Caller, role: Role, seat: Id, by: Instant) -> Self {
        Self { seat, bell: caller.bell, source: caller.source, role, by }
    }

    /// What the store keeps of the seat.
    fn hash(&self) -> Bytes {
        SeatHash::of(&self.seat).to_hex().into()
    }
}

/// A number as an argument of a script.
fn text(number: impl ToString) -> Bytes {
    number.to_string().into()
}
