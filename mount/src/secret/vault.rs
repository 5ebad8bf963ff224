//! The secrets that were received and wait for the one command that they are for.
//!
//! Owns how many there may be, how long each stays and what ends it. Performs no I/O and has no clock: time comes as an
//! argument, and whoever shares it holds the lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{MAX_SECRET, Secret, SecretName};

/// Most secrets that wait at once. With 16 KiB each that is 4 MiB of locked memory, half of what Linux allows a process
/// by default.
pub const MAX_WAITING: usize = 256;
/// How long a secret waits: as long as an agent may take to come to it after its event (a long build, a question to a
/// person), and not as long as a session that was left open.
pub const LIFE: Duration = Duration::from_secs(600);
/// Most secrets of which it is remembered what became of them.
const MAX_GONE: usize = 100;

/// Why a secret is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// A command got it.
    Used,
    /// Nobody wanted it in time.
    Expired,
    /// Its owner removed it.
    Removed,
}

impl Gone {
    /// Its word in `status.json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }
}

/// Why a secret was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// Its name is none.
    BadName,
    /// It is empty or too long.
    BadSize,
    /// [`MAX_WAITING`] wait already.
    Full,
}

/// Why there is no secret of a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHere {
    /// None came under it.
    #[error("no secret {0} has arrived; `agent-wormhole status CHANNEL` lists those that wait")]
    Unknown(SecretName),
    /// It was used.
    #[error("the secret {0} was used already, and each is used once; ask for it again")]
    Used(SecretName),
    /// It waited too long.
    #[error("the secret {0} was wiped ten minutes after it had arrived; ask for it again")]
    Expired(SecretName),
    /// It was removed.
    #[error("the secret {0} was removed from inbox/secrets/; ask for it again")]
    Removed(SecretName),
    /// Another command is getting it.
    #[error("the secret {0} is being handed to another command; ask for it again where that needs it, too")]
    Lent(SecretName),
}

/// A secret was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The number of the unused one that it took the place of.
    pub replaced: Option<u64>,
}

/// What is told of a secret that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its item's number.
    pub id: u64,
    /// Its name.
    pub name: SecretName,
    /// How long it is.
    pub len: usize,
    /// When it goes.
    pub until: SystemTime,
    /// Whether it can be read as a file.
    pub readable: bool,
}

/// A secret on its way to a command.
#[derive(Debug)]
pub struct Lent {
    /// Which one, for [`Vault::used`] and [`Vault::back`].
    pub serial: u64,
    /// Its number among what the peer sent.
    pub id: u64,
    /// Its bytes.
    pub secret: Arc<Secret>,
}

#[derive(Debug)]
struct Kept {
    id: u64,
    serial: u64,
    secret: Arc<Secret>,
    came: Instant,
    until: SystemTime,
    readable: bool,
    lent: bool,
}

impl Kept {
    /// Whether its time is over, by the clock that stands still while the machine sleeps, or by the one that does not.
    fn is_late(&self, (now, wall): (Instant, SystemTime)) -> bool {
        now.saturating_duration_since(self.came) >= LIFE || wall >= self.until
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Vault {
    kept: BTreeMap<SecretName, Kept>,
    gone: VecDeque<(SecretName, Gone)>,
    last: u64,
    /// Every secret can be read as a file.
    readable: bool,
    /// Counts the changes of what there is.
    changes: u64,
    closed: bool,
}

/// The vault, whoever else uses it.
pub fn lock(vault: &Mutex<Vault>) -> MutexGuard<'_, Vault> {
    vault.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vault {
    /// An empty one. `readable`: every secret can be read as a file.
    #[must_use]
    pub fn new(readable: bool) -> Self {
        Self { readable, ..Self::default() }
    }

    /// A secret arrived. One of its name that was not used yet is wiped: the peer corrected it.
    ///
    /// # Errors
    /// [`NotTaken`]; it is wiped then.
    pub fn put(
        &mut self,
        id: u64,
        name: &str,
        secret: Secret,
        (now, at): (Instant, SystemTime),
    ) -> Result<Received, NotTaken> {
        let name = SecretName::parse(name).map_err(|_| NotTaken::BadName)?;
        if secret.is_empty() || secret.len() > MAX_SECRET {
            return Err(NotTaken::BadSize);
        }
        if self.closed || self.kept.len() >= MAX_WAITING && !self.kept.contains_key(&name) {
            return Err(NotTaken::Full);
        }
        self.last += 1;
        let kept = Kept {
            id,
            serial: self.last,
            secret: Arc::new(secret),
            came: now,
            until: at.checked_add(LIFE).unwrap_or(at),
            readable: self.readable,
            lent: false,
        };
        self.gone.retain(|(gone, _)| *gone != name);
        self.changes += 1;
        let replaced = self.kept.insert(name, kept).map(|old| old.id);
        Ok(Received { replaced })
    }

    /// Lends the secrets of these names to a command, all or none. [`Vault::used`] or [`Vault::back`] says what became
    /// of it.
    ///
    /// # Errors
    /// [`NotHere`] for the first that is not there.
    pub fn take(&mut self, names: &[SecretName]) -> Result<Vec<Lent>, NotHere> {
        for name in names {
            let kept = self.kept.get(name).ok_or_else(|| self.not_here(name))?;
            if kept.lent {
                return Err(NotHere::Lent(name.clone()));
            }
        }
        let mut lent = Vec::new();
        for name in names {
            if let Some(kept) = self.kept.get_mut(name) {
                kept.lent = true;
                lent.push(Lent { serial: kept.serial, id: kept.id, secret: Arc::clone(&kept.secret) });
            }
        }
        Ok(lent)
    }

    /// The command has it.
    pub fn used(&mut self, serial: u64) {
        self.end(serial, Gone::Used);
    }

    /// The command could not be started: the secret waits on.
    pub fn back(&mut self, serial: u64) {
        if let Some(kept) = self.kept.values_mut().find(|kept| kept.serial == serial) {
            kept.lent = false;
        }
    }

    /// Its owner removed it.
    pub fn remove(&mut self, serial: u64) {
        self.end(serial, Gone::Removed);
    }

    /// Lets a secret be read as a file for as long as it waits.
    ///
    /// # Errors
    /// [`NotHere`].
    pub fn unlock(&mut self, name: &SecretName) -> Result<(), NotHere> {
        match self.kept.get_mut(name) {
            Some(kept) => {
                kept.readable = true;
                self.changes += 1;
                Ok(())
            }
            None => Err(self.not_here(name)),
        }
    }

    /// Wipes those whose time is over; whether there were any.
    pub fn expire(&mut self, at: (Instant, SystemTime)) -> bool {
        let over = |kept: &Kept| !kept.lent && kept.is_late(at);
        let serials: Vec<u64> =
            self.kept.values().filter(|kept| over(kept)).map(|kept| kept.serial).collect();
        for serial in &serials {
            self.end(*serial, Gone::Expired);
        }
        !serials.is_empty()
    }

    /// When [`Vault::expire`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.kept.values().filter(|kept| !kept.lent);
        waiting.filter_map(|kept| kept.came.checked_add(LIFE)).min()
    }

    /// The channel ends: wipes everything, and takes nothing more.
    pub fn close(&mut self) {
        self.closed = true;
        self.changes += 1;
        self.kept.clear();
    }

    /// What is told of those that wait.
    pub fn waiting(&self) -> impl Iterator<Item = Waiting> {
        self.kept.iter().map(|(name, kept)| Waiting {
            id: kept.id,
            name: name.clone(),
            len: kept.secret.len(),
            until: kept.until,
            readable: kept.readable,
        })
    }

    /// Those that are not there any more, oldest first, and why.
    pub fn gone(&self) -> impl Iterator<Item = (&SecretName, Gone)> {
        self.gone.iter().map(|(name, gone)| (name, *gone))
    }

    /// Names and serial numbers of those that wait.
    pub fn names(&self) -> impl Iterator<Item = (&SecretName, u64)> {
        self.kept.iter().map(|(name, kept)| (name, kept.serial))
    }

    /// The bytes, where they can be read as a file. Not when their time is over, whether they were wiped yet or not.
    #[must_use]
    pub fn readable(&self, serial: u64, at: (Instant, SystemTime)) -> Option<Arc<Secret>> {
        let kept = self.kept.values().find(|kept| kept.serial == serial && kept.readable)?;
        (!kept.is_late(at)).then(|| Arc::clone(&kept.secret))
    }

    /// Counts the changes of what there is.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    fn end(&mut self, serial: u64, gone: Gone) {
        let found = self.kept.iter().find(|(_, kept)| kept.serial == serial);
        let Some(name) = found.map(|(name, _)| name.clone()) else { return };
        self.kept.remove(&name);
        self.changes += 1;
        self.gone.retain(|(other, _)| *other != name);
        self.gone.push_back((name, gone));
        if self.gone.len() > MAX_GONE {
            self.gone.pop_front();
        }
    }

    fn not_here(&self, name: &SecretName) -> NotHere {
        let name = name.clone();
        match self.gone.iter().find(|(gone, _)| *gone == name).map(|(_, why)| why) {
            Some(Gone::Used) => NotHere::Used(name),
            Some(Gone::Expired) => NotHere::Expired(name),
            Some(Gone::Removed) => NotHere::Removed(name),
            None => NotHere::Unknown(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> SecretName {
        SecretName::parse(name).unwrap()
    }

    fn put(vault: &mut Vault, id: u64, name: &str, bytes: &[u8], now: Instant) -> Result<Received, NotTaken> {
        vault.put(id, name, Secret::copy_of(bytes).unwrap(), (now, SystemTime::UNIX_EPOCH))
    }

    #[test]
    fn a_secret_is_used_once() {
        let now = Instant::now();
        let mut vault = Vault::new(false);
        put(&mut vault, 1, "K", b"v", now).unwrap();
        let lent = vault.take(&[name("K")]).unwrap();
        assert_eq!(lent[0].secret.bytes(), b"v");
        assert_eq!(vault.take(&[name("K")]).unwrap_err(), NotHere::Lent(name("K")));
        vault.back(lent[0].serial);
        let lent = vault.take(&[name("K")]).unwrap();
        vault.used(lent[0].serial);
        assert_eq!(vault.take(&[name("K")]).unwrap_err(), NotHere::Used(name("K")));
        assert_eq!(vault.waiting().count(), 0);
        assert_eq!(vault.gone().collect::<Vec<_>>(), [(&name("K"), Gone::Used)]);
        put(&mut vault, 2, "K", b"w", now).unwrap();
        assert_eq!(vault.take(&[name("K")]).unwrap()[0].secret.bytes(), b"w", "it may be sent again");
    }

    #[test]
    fn all_or_none_are_taken() {
        let mut vault = Vault::new(false);
        put(&mut vault, 1, "A", b"v", Instant::now()).unwrap();
        assert_eq!(vault.take(&[name("A"), name("B")]).unwrap_err(), NotHere::Unknown(name("B")));
        assert_eq!(vault.take(&[name("A")]).unwrap().len(), 1);
    }

    #[test]
    fn ten_minutes_after_its_arrival_a_secret_is_wiped() {
        let start = Instant::now();
        let mut vault = Vault::new(false);
        put(&mut vault, 1, "A", b"v", start).unwrap();
        put(&mut vault, 2, "B", b"v", start + Duration::from_secs(5)).unwrap();
        assert_eq!(vault.deadline(), Some(start + Duration::from_secs(600)));
        let at = |millis| (start + Duration::from_millis(millis), SystemTime::UNIX_EPOCH);
        assert!(!vault.expire(at(599_999)));
        assert!(vault.expire(at(600_000)));
        assert_eq!(vault.take(&[name("A")]).unwrap_err(), NotHere::Expired(name("A")));
        let lent = vault.take(&[name("B")]).unwrap();
        assert!(!vault.expire(at(9_999_000)), "a command is getting it");
        vault.back(lent[0].serial);
        assert!(vault.expire(at(9_999_000)));
        assert_eq!(vault.deadline(), None);
    }

    #[test]
    fn a_secret_does_not_outlive_ten_minutes_that_the_machine_slept() {
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut vault = Vault::new(false);
        put(&mut vault, 1, "A", b"v", start).unwrap();
        assert!(!vault.expire((start, wall + Duration::from_secs(599))));
        assert!(vault.expire((start, wall + Duration::from_secs(600))));
        assert_eq!(vault.take(&[name("A")]).unwrap_err(), NotHere::Expired(name("A")));
    }

    #[test]
    fn a_second_one_takes_the_place_of_one_that_was_not_used() {
        let now = Instant::now();
        let mut vault = Vault::new(false);
        assert_eq!(put(&mut vault, 1, "A", b"wrong", now), Ok(Received { replaced: None }));
        let lent = vault.take(&[name("A")]).unwrap();
        assert_eq!(put(&mut vault, 9, "A", b"right", now), Ok(Received { replaced: Some(1) }));
        vault.used(lent[0].serial);
        assert_eq!(vault.take(&[name("A")]).unwrap()[0].secret.bytes(), b"right", "only the old one is used");
    }

    #[test]
    fn what_the_peer_may_send_is_bounded() {
        let now = Instant::now();
        let mut vault = Vault::new(false);
        for n in 0..MAX_WAITING {
            put(&mut vault, n as u64, &format!("K{n}"), b"v", now).unwrap();
        }
        assert_eq!(put(&mut vault, 999, "L", b"v", now), Err(NotTaken::Full));
        assert!(put(&mut vault, 999, "K0", b"v", now).is_ok());
        assert_eq!(put(&mut vault, 999, "../K", b"v", now), Err(NotTaken::BadName));
        assert_eq!(put(&mut vault, 999, "K0", b"", now), Err(NotTaken::BadSize));
        for n in 0..MAX_WAITING {
            let lent = vault.take(&[name(&format!("K{n}"))]).unwrap();
            vault.used(lent[0].serial);
        }
        assert_eq!(vault.gone().count(), MAX_GONE);
        vault.close();
        assert_eq!(put(&mut vault, 1, "A", b"v", now), Err(NotTaken::Full));
    }

    #[test]
    fn nothing_is_readable_before_it_is_unlocked() {
        let mut vault = Vault::new(false);
        let start = Instant::now();
        let (now, wall) = ((start, SystemTime::UNIX_EPOCH), SystemTime::UNIX_EPOCH);
        put(&mut vault, 1, "A", b"v", start).unwrap();
        let serial = vault.names().next().unwrap().1;
        assert!(vault.readable(serial, now).is_none());
        vault.unlock(&name("A")).unwrap();
        assert_eq!(vault.readable(serial, now).unwrap().bytes(), b"v");
        assert!(vault.readable(serial, (start + LIFE, wall)).is_none(), "its time is over");
        assert!(vault.readable(serial, (start, wall + LIFE)).is_none(), "also where the machine slept");
        put(&mut vault, 2, "A", b"w", start).unwrap();
        assert!(
            vault.readable(vault.names().next().unwrap().1, now).is_none(),
            "another one is locked again"
        );
        let mut open = Vault::new(true);
        put(&mut open, 1, "A", b"v", start).unwrap();
        assert!(open.readable(open.names().next().unwrap().1, now).is_some());
    }
}
