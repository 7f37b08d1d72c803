//! The sweep: deletes what has expired though nobody asks for it, so that disk does not grow when nobody reads.
//!
//! A thread of its own, paced by keys and bytes a second, looks at slots in which something is due (see [`super::expiries`]), and at a slot
//! with little that had expired the more seldom. What it finds it deletes as any command would: inside the gate, under the key's stripe,
//! after looking again, in one commit; and only where the slot is served and not being switched.

use std::{
    cell::RefCell,
    ops::ControlFlow,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sluice_topology::{SLOT_COUNT, Slot};

use super::{EngineError, Home, MayWrite, Writer, database::Engine, worker::Worker};

/// Keys looked at inside the gate at once.
const PAGE_KEYS: u64 = 512;
/// Keys deleted in one commit.
const COMMIT_KEYS: usize = 64;
/// Slots looked at after one drain of the gate.
const GROUP_SLOTS: usize = 64;
/// How often it looks for slots that are due.
const TICK: Duration = Duration::from_millis(250);
/// How often the clock's time is noted while there is anything that expires.
const NOTE_EVERY_MS: u64 = 5000;
/// Before a slot that is not served here is looked at again.
const NOT_SERVED_REST_MS: u64 = 30_000;
/// A slot is left alone at least so long after it was looked at,
const REST_MIN_MS: u64 = 1000;
/// and at most so long.
const REST_MAX_MS: u64 = 600_000;

/// How fast a sweep may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepPace {
    /// Keys looked at a second; 0: it rests.
    pub keys_per_second: u64,
    /// Bytes of them a second.
    pub bytes_per_second: u64,
}

impl SweepPace {
    /// How long to rest after that much work.
    fn rest(self, keys: u64, bytes: u64) -> Duration {
        let seconds = |amount: u64, rate: u64| amount as f64 / rate.max(1) as f64;
        Duration::from_secs_f64(seconds(keys, self.keys_per_second).max(seconds(bytes, self.bytes_per_second)).min(10.0))
    }
}

/// How long a slot is left alone, in milliseconds, after so many of its keys were looked at and so many of them had expired: a
/// millisecond for each that was looked at to find one.
fn slot_rest_ms(keys: u64, expired: u64) -> u64 {
    (keys / (expired + 1)).clamp(REST_MIN_MS, REST_MAX_MS)
}

/// A running sweep. It ends when this is dropped.
pub struct Sweep {
    shared: Arc<Shared>,
    worker: Worker,
}

struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
    pace: Mutex<SweepPace>,
    looked_at: AtomicU64,
}

impl Sweep {
    /// Starts sweeping. `may_write` is asked before each commit, inside the gate; `sweep_members` takes members of a collection away.
    pub fn start(
        engine: Arc<Engine>,
        pace: SweepPace,
        may_write: impl Fn(Slot) -> MayWrite + Send + 'static,
        sweep_members: SweepMembers,
    ) -> Result<Self, EngineError> {
        let (stop, wake, looked_at) = (Mutex::new(false), Condvar::new(), AtomicU64::new(0));
        let shared = Arc::new(Shared { stop, wake, pace: Mutex::new(pace), looked_at });
        let sweeper =
            Sweeper { engine, may_write, sweep_members, shared: shared.clone(), not_before_ms: vec![0; usize::from(SLOT_COUNT)] };
        let worker = Worker::spawn("expire", move || sweeper.run())?;
        Ok(Self { shared, worker })
    }

    /// Keys looked at since the start.
    pub fn keys_looked_at(&self) -> u64 {
        self.shared.looked_at.load(Ordering::Relaxed)
    }

    /// Changes the pace.
    pub fn set_pace(&self, pace: SweepPace) {
        *self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// Ends it, and waits for the commit it is at.
    pub fn stop(&self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_one();
        self.worker.join();
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gathers the removal of up to so many members of a key's collection that have expired, inside the gate and with the key claimed. How
/// many they were, and when the next one expires.
pub type SweepMembers = Box<dyn Fn(&RefCell<Writer>, Home, &[u8], usize) -> Result<(usize, Option<u64>), EngineError> + Send>;

struct Sweeper<F> {
    engine: Arc<Engine>,
    may_write: F,
    sweep_members: SweepMembers,
    shared: Arc<Shared>,
    not_before_ms: Vec<u64>,
}

/// Why a slot was not looked at to its end.
enum Unfinished {
    /// It is being switched.
    NotNow,
    /// It is not served here (yet).
    NotServed,
    /// The sweep is to end.
    Stopped,
    /// Storage failed.
    Failed(EngineError),
}

impl From<EngineError> for Unfinished {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Closed => Self::Stopped,
            // The disk's fault is named where it is found, and passes for all slots at once.
            EngineError::Refused(_) => Self::NotNow,
            other => Self::Failed(other),
        }
    }
}

/// A page of a slot.
#[derive(Default)]
struct Page {
    keys: u64,
    bytes: u64,
    expired: Vec<Vec<u8>>,
    /// Keys of which members have expired.
    members: Vec<Vec<u8>>,
    /// The last key of a page that is not the slot's last one.
    last: Option<Vec<u8>>,
}

impl<F: Fn(Slot) -> MayWrite> Sweeper<F> {
    fn run(mut self) {
        let mut noted_ms = 0;
        while self.pause(TICK) {
            let now_ms = self.engine.now_ms();
            if self.engine.expiries().any() && now_ms >= noted_ms + NOTE_EVERY_MS {
                match self.engine.note_time() {
                    Ok(()) | Err(EngineError::Refused(_)) => {}
                    Err(EngineError::Closed) => return,
                    Err(error) => tracing::warn!(%error, "the time was not noted; it will be tried again"),
                }
                noted_ms = now_ms;
            }
            if self.pace().keys_per_second == 0 {
                continue;
            }
            let due: Vec<Slot> = Slot::all()
                .filter(|slot| self.not_before_ms[slot.index()] <= now_ms && self.engine.expiries().due(*slot, now_ms))
                .collect();
            for group in due.chunks(GROUP_SLOTS) {
                group.iter().for_each(|slot| self.engine.expiries().forget(*slot));
                self.engine.drain();
                for (position, slot) in group.iter().enumerate() {
                    let rest_ms = match self.slot(*slot) {
                        Ok(rest_ms) => rest_ms,
                        Err(unfinished) => {
                            // What it did not see is still there.
                            self.engine.expiries().note(*slot, 0);
                            match unfinished {
                                Unfinished::NotNow => REST_MIN_MS,
                                Unfinished::NotServed => NOT_SERVED_REST_MS,
                                Unfinished::Failed(error) => {
                                    tracing::warn!(%slot, %error, "a slot was not swept of what has expired; it will be tried again");
                                    REST_MAX_MS / 10
                                }
                                Unfinished::Stopped => {
                                    group[position..].iter().for_each(|slot| self.engine.expiries().note(*slot, 0));
                                    return;
                                }
                            }
                        }
                    };
                    self.not_before_ms[slot.index()] = self.engine.now_ms() + rest_ms;
                }
            }
        }
    }

    /// Deletes what has expired in a slot and notes when the next of it will; returns how long to leave it alone.
    fn slot(&self, slot: Slot) -> Result<u64, Unfinished> {
        let (mut keys, mut expired) = (0, 0);
        for database in self.engine.databases() {
            let (of_it, of_them) = self.place(Home { database, slot })?;
            keys += of_it;
            expired += of_them;
        }
        Ok(slot_rest_ms(keys, expired))
    }

    /// The same in one database; returns how many keys it looked at, and how many of them had expired.
    fn place(&self, home: Home) -> Result<(u64, u64), Unfinished> {
        let (mut after, mut keys, mut expired) = (None, 0, 0);
        loop {
            let started = Instant::now();
            let page = self.page(home, after.as_deref())?;
            keys += page.keys;
            for some in page.expired.chunks(COMMIT_KEYS) {
                expired += self.delete(home, some)?;
            }
            for key in &page.members {
                expired += self.members(home, key)?;
            }
            self.shared.looked_at.fetch_add(page.keys, Ordering::Relaxed);
            if page.keys > 0 && !self.pause(self.pace().rest(page.keys, page.bytes).saturating_sub(started.elapsed())) {
                return Err(Unfinished::Stopped);
            }
            match page.last {
                Some(last) => after = Some(last),
                None => return Ok((keys, expired)),
            }
        }
    }

    fn page(&self, home: Home, after: Option<&[u8]>) -> Result<Page, Unfinished> {
        let _inside = self.engine.enter();
        self.permitted(home.slot)?;
        let (now_ms, mut page) = (self.engine.now_ms(), Page::default());
        // A look into nothing would read what is behind it. Only where the slot is served: what is staged counts as soon as it is.
        if self.engine.contents().live(home) == 0 {
            return Ok(page);
        }
        self.engine.scan_slot(home, after, |entry| {
            page.keys += 1;
            page.bytes += (entry.key.len() + entry.record.value.len()) as u64;
            match entry.record.expires_at_ms {
                Some(_) if entry.record.is_expired(now_ms) => page.expired.push(entry.key.to_vec()),
                Some(at_ms) => self.engine.expiries().note(home.slot, at_ms),
                None => {}
            }
            match entry.record.members_expire_at_ms() {
                Some(at_ms) if at_ms <= now_ms => page.members.push(entry.key.to_vec()),
                Some(at_ms) => self.engine.expiries().note(home.slot, at_ms),
                None => {}
            }
            if page.keys < PAGE_KEYS {
                return ControlFlow::Continue(());
            }
            page.last = Some(entry.key.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(page)
    }

    /// Takes the members of a key away that have expired, batch by batch; returns 1 if there were any.
    fn members(&self, home: Home, key: &[u8]) -> Result<u64, Unfinished> {
        let (named, mut any) = (|| std::iter::once((home.slot, key)), false);
        let writer = RefCell::new(Writer::new(self.engine.clone()));
        loop {
            self.claim(&mut writer.borrow_mut(), home.slot, named)?;
            let (taken, next) = (self.sweep_members)(&writer, home, key, COMMIT_KEYS)?;
            let _ = writer.borrow_mut().commit()?;
            any |= taken > 0;
            if let Some(at_ms) = next {
                self.engine.expiries().note(home.slot, at_ms);
            }
            if taken < COMMIT_KEYS || !self.pause(self.pace().rest(taken as u64, 0)) {
                return Ok(u64::from(any));
            }
        }
    }

    /// Enters the gate with those keys claimed.
    fn claim<'k, K: Iterator<Item = (Slot, &'k [u8])>>(
        &self,
        writer: &mut Writer,
        slot: Slot,
        named: impl Fn() -> K,
    ) -> Result<(), Unfinished> {
        loop {
            writer.enter();
            self.permitted(slot)?;
            if writer.try_claim(named(), true)? {
                return Ok(());
            }
            // Nothing was gathered: this only lets go of what it has, before it waits for the rest.
            let _ = writer.commit()?;
            writer.claim(named(), &|| false);
        }
    }

    /// Deletes those of the keys that are there and have expired; returns how many.
    fn delete(&self, home: Home, keys: &[Vec<u8>]) -> Result<u64, Unfinished> {
        let named = || keys.iter().map(|key| (home.slot, key.as_slice()));
        let mut writer = Writer::new(self.engine.clone());
        self.claim(&mut writer, home.slot, named)?;
        let (now_ms, mut count) = (self.engine.now_ms(), 0);
        for (_, key) in named() {
            let Some(stored) = self.engine.get(home, key)? else { continue };
            let record = stored.record()?;
            if record.is_expired(now_ms) {
                let discarded = record.discarded().map_err(|error| EngineError::Damaged(error.to_string()))?;
                writer.delete(home, key, discarded);
                writer.note_expired(home, key);
                count += 1;
            }
        }
        let _ = writer.commit()?;
        Ok(count)
    }

    fn pace(&self) -> SweepPace {
        *self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permitted(&self, slot: Slot) -> Result<(), Unfinished> {
        match (self.may_write)(slot) {
            MayWrite::Now => Ok(()),
            MayWrite::Later => Err(Unfinished::NotNow),
            MayWrite::No => Err(Unfinished::NotServed),
        }
    }

    /// False when the sweep is to end.
    fn pause(&self, pause: Duration) -> bool {
        let stop = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let (stop, _) = self.shared.wake.wait_timeout_while(stop, pause, |stop| !*stop).unwrap_or_else(PoisonError::into_inner);
        !*stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_looked_at_the_more_seldom_the_less_of_it_expires() {
        for (keys, expired, rest_ms) in [
            (0, 0, 1000),
            (900, 0, 1000),
            (100_000, 100, 1000),
            (100_000, 1, 50_000),
            (100_000, 0, 100_000),
            (1 << 40, 1, 600_000),
        ] {
            assert_eq!(slot_rest_ms(keys, expired), rest_ms, "{expired} of {keys}");
        }
    }

    #[test]
    fn the_pace_is_the_slower_of_keys_and_bytes() {
        let pace = SweepPace { keys_per_second: 1000, bytes_per_second: 10_000 };
        assert_eq!(pace.rest(500, 100), Duration::from_millis(500));
        assert_eq!(pace.rest(500, 20_000), Duration::from_secs(2));
        assert_eq!(pace.rest(500, u64::MAX), Duration::from_secs(10));
    }
}
