//! Subkeys of collections that are gone: a second thread works off their reclaim records.
//!
//! A collection that is deleted, replaced or has expired leaves a reclaim record in the batch that takes it away. Its subkeys are deleted
//! by ordinary deletions in the data's own WAL mode: with the log off, whatever a crash loses of the batch that took the collection away it
//! also loses of these, so that a collection that comes back is whole. The record goes with the last of them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rocksdb::{BottommostLevelCompaction, CompactOptions, ReadOptions, WriteBatch, WriteOptions};
use sluice_topology::Slot;

use super::{BATCH_PAUSE, ERROR_PAUSE};
use crate::engine::{
    EngineError, Generation, Home, Kind,
    families::Family,
    gate::Gate,
    layout::{reclaim_key, split_reclaim_key, subkey_prefix},
    raw::Database,
    readers::{Readers, Stamp},
    slot_table::SlotTable,
    worker::Worker,
};

/// Subkeys deleted in one batch.
const BATCH_KEYS: usize = 1000;
/// Collections told of and not yet looked at; of more than these the records are searched for instead.
const TOLD_MAX: usize = 1 << 16;
/// Collections that wait for a reader or a slot; more are forgotten, and their records searched for when those have gone.
const WAITING_MAX: usize = 1 << 16;
/// Records taken from one search before they are worked off.
const FOUND_MAX: usize = 1 << 12;
/// A collection with as many subkeys has its range compacted at once; what smaller ones leave is compacted when files are full of it.
const COMPACTED_KEYS: u64 = 1 << 15;
/// How long a slot that is not served here may take to be served, before what is in it is left to the next start.
const ARRIVAL_MAX: Duration = Duration::from_mins(2);
/// Before slots that were not to be written to are looked at again.
const PARKED_PAUSE: Duration = Duration::from_secs(1);

/// Whether background work may write to a slot now. Asked inside the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayWrite {
    /// Yes.
    Now,
    /// The slot is being switched.
    Later,
    /// The slot is not served here (yet): its generation is about to be dropped, or has just arrived.
    No,
}

type Permit = Box<dyn Fn(Slot) -> MayWrite + Send + Sync>;

/// A collection that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Discarded {
    slot: Slot,
    generation: Generation,
    version: u64,
}

#[derive(Default)]
struct Queue {
    told: VecDeque<Discarded>,
    /// Search from this slot on, all of them.
    search: Option<Slot>,
    /// Search in these.
    search_in: Vec<Slot>,
    /// Something of what was taken out of here is not done yet.
    busy: bool,
    stop: bool,
}

struct Shared {
    database: Arc<Database>,
    gate: Arc<Gate>,
    readers: Readers,
    table: Arc<SlotTable>,
    wal: bool,
    permit: OnceLock<Permit>,
    queue: Mutex<Queue>,
    wake: Condvar,
    subkeys: AtomicU64,
    /// Keys deleted since it last rested.
    unpaced: AtomicUsize,
}

/// The thread and its queue.
pub(crate) struct Collections {
    shared: Arc<Shared>,
    worker: OnceLock<Worker>,
}

/// How far a collection came.
enum Outcome {
    Done,
    Later,
    NotServed,
    Stopped,
}

/// A collection that cannot be worked off now: a long reader may still read it, or its slot is not to be written to.
struct Waiting {
    stamp: Stamp,
    /// Since when its slot was found not to be served here.
    not_served: Option<Instant>,
    discarded: Discarded,
}

/// Where collections of the kind that a reclaim record names have subkeys; of one that this version does not know, anywhere.
fn families_of(kind: &[u8]) -> &'static [Family] {
    match kind.first().and_then(|kind| Kind::from_byte(*kind)) {
        Some(Kind::List | Kind::Set) => &[Family::Data],
        Some(Kind::Hash | Kind::SortedSet) => &[Family::Data, Family::Score],
        Some(Kind::Stream) => &[Family::Data, Family::Stream],
        Some(Kind::String) | None => &[Family::Data, Family::Score, Family::Stream],
    }
}

impl Collections {
    pub(crate) fn new(database: Arc<Database>, gate: Arc<Gate>, readers: Readers, table: Arc<SlotTable>, wal: bool) -> Self {
        let shared = Arc::new(Shared {
            database,
            gate,
            readers,
            table,
            wal,
            permit: OnceLock::new(),
            queue: Mutex::new(Queue { search: Slot::new(0), ..Queue::default() }),
            wake: Condvar::new(),
            subkeys: AtomicU64::new(0),
            unpaced: AtomicUsize::new(0),
        });
        let waker = Arc::downgrade(&shared);
        shared.readers.on_end(move || {
            if let Some(shared) = waker.upgrade() {
                shared.tell(|_| ());
            }
        });
        Self { shared, worker: OnceLock::new() }
    }

    /// Begins to work, with what earlier runs left. Nothing is written before.
    pub(crate) fn start(&self, permit: Permit) -> Result<(), EngineError> {
        if self.shared.permit.set(permit).is_ok() {
            let shared = self.shared.clone();
            let _ = self.worker.set(Worker::spawn("reclaim-keys", move || shared.run())?);
        }
        Ok(())
    }

    /// Tells of a collection whose reclaim record was just applied. Cheap, and called from commits.
    pub(crate) fn discarded(&self, slot: Slot, generation: Generation, version: u64) {
        self.shared.tell(|queue| {
            if queue.told.len() < TOLD_MAX {
                queue.told.push_back(Discarded { slot, generation, version });
            } else {
                queue.search = Slot::new(0);
            }
        });
    }

    /// Slots whose live generation came from elsewhere: it may have brought reclaim records along.
    pub(crate) fn activated(&self, slots: impl Iterator<Item = Slot>) {
        self.shared.tell(|queue| queue.search_in.extend(slots));
    }

    /// Subkeys deleted since the start.
    pub(crate) fn subkeys(&self) -> u64 {
        self.shared.subkeys.load(Ordering::Relaxed)
    }

    /// Whether nothing is known that is left to do.
    pub(crate) fn idle(&self) -> bool {
        let queue = self.shared.lock();
        queue.told.is_empty() && queue.search.is_none() && queue.search_in.is_empty() && !queue.busy
    }

    pub(crate) fn stop(&self) {
        self.shared.tell(|queue| queue.stop = true);
        if let Some(worker) = self.worker.get() {
            worker.join();
        }
    }
}

impl Drop for Collections {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        change(&mut queue);
        drop(queue);
        self.wake.notify_one();
    }

    fn stopped(&self) -> bool {
        self.lock().stop
    }

    fn pause(&self, pause: Duration) {
        let queue = self.lock();
        if !queue.stop {
            let _ = self.wake.wait_timeout(queue, pause);
        }
    }

    fn run(&self) {
        let (mut waiting, mut forgot): (VecDeque<Waiting>, bool) = (VecDeque::new(), false);
        while let Some(fresh) = self.next(&waiting) {
            let fresh = match fresh {
                Ok(fresh) => fresh,
                Err(error) => {
                    tracing::warn!(%error, "reclaim records were not read; trying again");
                    self.lock().search = Slot::new(0);
                    self.pause(ERROR_PAUSE);
                    continue;
                }
            };
            // After they were told of: whoever comes from now on does not find them.
            let stamp = self.readers.stamp();
            self.gate.drain();
            if waiting.len() + fresh.len() > WAITING_MAX {
                forgot = true;
            } else {
                waiting.extend(fresh.into_iter().map(|discarded| Waiting { stamp, not_served: None, discarded }));
            }
            for _ in 0..waiting.len() {
                let Some(mut one) = waiting.pop_front() else { break };
                let free = self.readers.passed(one.stamp);
                match if free { self.work_off(one.discarded) } else { Ok(Outcome::Later) } {
                    Ok(Outcome::Done) => {}
                    Ok(Outcome::Later) => waiting.push_back(one),
                    Ok(Outcome::NotServed) => {
                        if one.not_served.get_or_insert_with(Instant::now).elapsed() < ARRIVAL_MAX {
                            waiting.push_back(one);
                        }
                    }
                    Ok(Outcome::Stopped) => return,
                    Err(error) => {
                        tracing::warn!(%error, slot = %one.discarded.slot, "a collection's subkeys were not reclaimed; trying again");
                        waiting.push_back(one);
                        self.pause(ERROR_PAUSE);
                    }
                }
            }
            if forgot && waiting.is_empty() {
                forgot = false;
                self.lock().search = Slot::new(0);
            }
        }
    }

    /// What is new, when there is anything, or something waits that may go on; `None`: the thread is to end.
    fn next(&self, waiting: &VecDeque<Waiting>) -> Option<Result<Vec<Discarded>, EngineError>> {
        let mut queue = self.lock();
        loop {
            if queue.stop {
                return None;
            }
            if !queue.told.is_empty() {
                queue.busy = true;
                return Some(Ok(queue.told.drain(..).collect()));
            }
            if let Some(slot) = queue.search_in.pop() {
                queue.busy = true;
                drop(queue);
                return Some(self.search(slot, 1).map(|(found, _)| found));
            }
            if let Some(from) = queue.search.take() {
                queue.busy = true;
                drop(queue);
                let found = self.search(from, Slot::all().len());
                return Some(found.map(|(found, next)| {
                    let mut queue = self.lock();
                    // Unless a search from the beginning was asked for meanwhile.
                    queue.search = queue.search.or(next);
                    found
                }));
            }
            if waiting.is_empty() {
                queue.busy = false;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            (queue, _) = self.wake.wait_timeout(queue, PARKED_PAUSE).unwrap_or_else(PoisonError::into_inner);
            if !queue.stop && queue.told.is_empty() {
                return Some(Ok(Vec::new()));
            }
        }
    }

    /// Reclaim records of live generations, in `slots` slots from `from` on: one seek a slot that holds subkeys. With it the slot to go
    /// on with, when enough were found before the end.
    fn search(&self, from: Slot, slots: usize) -> Result<(Vec<Discarded>, Option<Slot>), EngineError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut iterator = self.database.db().raw_iterator_cf_opt(self.database.family(Family::Data), options);
        let (mut found, mut next) = (Vec::new(), Some(from));
        let end = from.index() + slots;
        while let Some(slot) = next.filter(|slot| slot.index() < end) {
            if found.len() >= FOUND_MAX || self.stopped() {
                return Ok((found, Some(slot)));
            }
            for database in self.table.databases() {
                let generation = self.table.live(Home { database, slot });
                iterator.seek(reclaim_key(slot, generation, 0));
                while let Some(version) = iterator.key().and_then(|key| split_reclaim_key(key, slot, generation)) {
                    found.push(Discarded { slot, generation, version });
                    iterator.next();
                }
                iterator.status()?;
            }
            // The next slot that holds any subkey at all.
            let behind = Slot::new(slot.get() + 1);
            let reached = iterator.key().and_then(|key| Slot::new(u16::from_be_bytes(*key.first_chunk::<2>()?)));
            next = reached.and_then(|reached| Some(reached.max(behind?)));
        }
        Ok((found, None))
    }

    /// Deletes the subkeys of a collection, batch by batch, and with the last of them its record.
    fn work_off(&self, discarded: Discarded) -> Result<Outcome, EngineError> {
        let Discarded { slot, generation, version } = discarded;
        let (data, record) = (self.database.family(Family::Data), reclaim_key(slot, generation, version));
        let Some(kind) = self.database.db().get_pinned_cf(data, record)? else { return Ok(Outcome::Done) };
        let mut options = WriteOptions::default();
        options.disable_wal(!self.wal);
        let end = subkey_prefix(slot, generation, version + 1);
        let (mut batch, mut deleted) = (WriteBatch::default(), 0);
        for family in families_of(&kind) {
            let mut from = subkey_prefix(slot, generation, version).to_vec();
            while let Some(last) = self.gather(*family, &from, &end, &mut batch)? {
                let keys = batch.len() as u64;
                if let Some(outcome) = self.write(slot, generation, std::mem::take(&mut batch), &options)? {
                    return Ok(outcome);
                }
                self.subkeys.fetch_add(keys, Ordering::Relaxed);
                deleted += keys;
                if self.stopped() {
                    return Ok(Outcome::Stopped);
                }
                // From behind the last one: what was deleted is stepped over once, and not again for every batch.
                from = last;
                from.push(0);
            }
        }
        let keys = batch.len() as u64;
        batch.delete_cf(data, record);
        if let Some(outcome) = self.write(slot, generation, batch, &options)? {
            return Ok(outcome);
        }
        self.subkeys.fetch_add(keys, Ordering::Relaxed);
        if deleted + keys >= COMPACTED_KEYS {
            self.compact(slot, generation, version);
        }
        Ok(if self.stopped() { Outcome::Stopped } else { Outcome::Done })
    }

    /// Adds the next deletions to a batch. When it is full: the last key in it.
    fn gather(&self, family: Family, from: &[u8], end: &[u8], batch: &mut WriteBatch) -> Result<Option<Vec<u8>>, EngineError> {
        let handle = self.database.family(family);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        options.fill_cache(false);
        let mut iterator = self.database.db().raw_iterator_cf_opt(handle, options);
        iterator.seek(from);
        while let Some(key) = iterator.key() {
            batch.delete_cf(handle, key);
            if batch.len() >= BATCH_KEYS {
                return Ok(Some(key.to_vec()));
            }
            iterator.next();
        }
        iterator.status()?;
        Ok(None)
    }

    /// Writes where that is allowed right now: a slot that is parked is being copied, one that has left is another node's to change.
    /// `None`: written.
    fn write(
        &self,
        slot: Slot,
        generation: Generation,
        batch: WriteBatch,
        options: &WriteOptions,
    ) -> Result<Option<Outcome>, EngineError> {
        self.pace(batch.len());
        let _inside = self.gate.enter();
        if self.table.database_of(slot, generation).is_none() {
            // It has died, and its subkeys go with it.
            return Ok(Some(Outcome::Done));
        }
        match self.permit.get().map_or(MayWrite::Later, |permit| permit(slot)) {
            MayWrite::Now => {}
            MayWrite::Later => return Ok(Some(Outcome::Later)),
            MayWrite::No => return Ok(Some(Outcome::NotServed)),
        }
        self.database.db().write_opt(batch, options)?;
        Ok(None)
    }

    /// Rests after every [`BATCH_KEYS`] deletions, in however many batches they were.
    fn pace(&self, keys: usize) {
        if self.unpaced.fetch_add(keys, Ordering::Relaxed) + keys >= BATCH_KEYS {
            self.unpaced.store(0, Ordering::Relaxed);
            self.pause(BATCH_PAUSE);
        }
    }

    fn compact(&self, slot: Slot, generation: Generation, version: u64) {
        let started = Instant::now();
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        for family in [Family::Data, Family::Score, Family::Stream] {
            let (start, end) = (subkey_prefix(slot, generation, version), subkey_prefix(slot, generation, version + 1));
            self.database.db().compact_range_cf_opt(self.database.family(family), Some(start), Some(end), &options);
        }
        self.pause(started.elapsed());
    }
}
