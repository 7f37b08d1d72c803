//! Giving back the space of dead generations: a background thread that forgets them when nothing is left.
//!
//! A generation is touched only once its drop is durable and every command and every long reader that began before the drop has ended.
//! Then its keys are explicitly dead: to the compaction filter, and to what [`group`] does.

mod collections;
mod group;
mod plan;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sluice_topology::Slot;

use collections::Collections;
pub use collections::MayWrite;

use super::{
    EngineError, Generation,
    contents::Contents,
    filter::Removable,
    gate::Gate,
    raw::Database,
    readers::{Readers, Stamp},
    slot_table::SlotTable,
    system::{self, SystemKind},
    worker::Worker,
};

/// Pause after each batch of deletions, so that deleting never takes more than a share of the disk from the living.
const BATCH_PAUSE: Duration = Duration::from_millis(2);
/// What a generation that an earlier run left may hold.
const ANY: u8 = u8::MAX;
/// Generations whose records are removed in one durable write.
const GROUP_GENERATIONS: usize = 256;
/// How long at most what is dead may wait for whoever holds the work back.
const HELD_MAX: Duration = Duration::from_mins(10);
/// Pause after an error, before it is tried again.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Queue {
    dead: VecDeque<Dead>,
    /// Something came, or a long reader has ended, since the queue was last looked at.
    changed: bool,
    /// How many hold the work back.
    held: usize,
    stop: bool,
}

/// A generation whose drop is durable, and when that was.
#[derive(Clone, Copy)]
struct Dead {
    slot: Slot,
    generation: Generation,
    /// What it may hold: see [`Contents`].
    marks: u8,
    stamp: Stamp,
    since: Instant,
}

/// Holds the work back while it lives, ten minutes at most: much of what dies one after another is given back for less at once, as whole
/// files, than piece by piece.
#[must_use]
pub struct ReclaimHeld(Arc<Shared>);

impl Drop for ReclaimHeld {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.held -= 1;
        queue.changed = true;
        drop(queue);
        self.0.wake.notify_one();
    }
}

struct Shared {
    database: Arc<Database>,
    gate: Arc<Gate>,
    readers: Readers,
    removable: Arc<Removable>,
    table: Arc<SlotTable>,
    contents: Arc<Contents>,
    queue: Mutex<Queue>,
    wake: Condvar,
    reclaimed_keys: AtomicU64,
}

/// The reclaiming thread and its queue.
pub(crate) struct Reclaimer {
    shared: Arc<Shared>,
    worker: Worker,
    collections: Collections,
}

impl Reclaimer {
    /// Starts with what earlier runs left.
    pub(crate) fn start(
        database: Arc<Database>,
        gate: Arc<Gate>,
        readers: Readers,
        removable: Arc<Removable>,
        (table, contents): (&Arc<SlotTable>, &Arc<Contents>),
        wal: bool,
    ) -> Result<Self, EngineError> {
        let stamp = readers.stamp();
        let mut left = VecDeque::new();
        for (key, _) in system::read_all(&database, SystemKind::Dead)? {
            let (slot, generation) = system::split_dead_key(&key)?;
            if table.in_use(slot, generation) {
                let number = generation.0;
                return Err(EngineError::Damaged(format!("generation {number} of slot {slot} is said to be dead and is in use")));
            }
            left.push_back(Dead { slot, generation, marks: ANY, stamp, since: Instant::now() });
        }
        let collections = Collections::new(database.clone(), gate.clone(), readers.clone(), table.clone(), wal);
        let shared = Arc::new(Shared {
            database,
            gate,
            readers,
            removable,
            table: table.clone(),
            contents: contents.clone(),
            queue: Mutex::new(Queue { dead: left, ..Queue::default() }),
            wake: Condvar::new(),
            reclaimed_keys: AtomicU64::new(0),
        });
        let waker = Arc::downgrade(&shared);
        shared.readers.on_end(move || {
            if let Some(shared) = waker.upgrade() {
                shared.lock().changed = true;
                shared.wake.notify_one();
            }
        });
        let for_thread = shared.clone();
        let worker = Worker::spawn("reclaim", move || for_thread.run())?;
        Ok(Self { shared, worker, collections })
    }

    /// Hands over generations whose drop is durable and in sight of whoever comes from now on, and what they may hold.
    pub(crate) fn add(&self, dead: Vec<(Slot, Generation, u8)>) {
        if !dead.is_empty() {
            let (stamp, since) = (self.shared.readers.stamp(), Instant::now());
            let dead = dead.into_iter().map(|(slot, generation, marks)| Dead { slot, generation, marks, stamp, since });
            let mut queue = self.shared.lock();
            queue.dead.extend(dead);
            queue.changed = true;
            drop(queue);
            self.shared.wake.notify_one();
        }
    }

    /// Holds the work on dead generations back.
    pub(crate) fn hold(&self) -> ReclaimHeld {
        self.shared.lock().held += 1;
        ReclaimHeld(self.shared.clone())
    }

    /// Begins to work off the reclaim records of collections, those that earlier runs left included.
    pub(crate) fn start_collections(&self, permit: impl Fn(Slot) -> MayWrite + Send + Sync + 'static) -> Result<(), EngineError> {
        self.collections.start(Box::new(permit))
    }

    /// Tells of a collection whose reclaim record was just applied.
    pub(crate) fn discarded(&self, slot: Slot, generation: Generation, version: u64) {
        self.collections.discarded(slot, generation, version);
    }

    /// Tells of slots whose live generation came from elsewhere.
    pub(crate) fn activated(&self, slots: impl Iterator<Item = Slot>) {
        self.collections.activated(slots);
    }

    /// Subkeys of collections that are gone, deleted since the start; and whether there is nothing more to do.
    pub(crate) fn collections(&self) -> (u64, bool) {
        (self.collections.subkeys(), self.collections.idle())
    }

    /// Generations still to be worked off.
    pub(crate) fn pending(&self) -> usize {
        self.shared.lock().dead.len()
    }

    /// Keys removed since the start, by whatever means.
    pub(crate) fn reclaimed_keys(&self) -> u64 {
        self.shared.reclaimed_keys.load(Ordering::Relaxed) + self.shared.removable.dead_keys()
    }

    /// Ends the thread; what is left is found again at the next start.
    pub(crate) fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        self.shared.database.end_manual_compactions();
        self.collections.stop();
        self.worker.join();
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.lock().stop
    }

    fn run(&self) {
        while let Some(dead) = self.next() {
            self.gate.drain();
            if let Err(error) = self.delete_runs(&dead) {
                // What it leaves is worked off all the same.
                tracing::warn!(%error, "files of dead generations were not deleted as a whole");
            }
            for group in dead.chunks(GROUP_GENERATIONS) {
                while let Err(error) = self.reclaim(group) {
                    tracing::warn!(%error, "dead generations were not reclaimed; trying again");
                    self.pause(ERROR_PAUSE);
                    if self.stopped() {
                        return;
                    }
                }
                let mut queue = self.lock();
                if queue.stop {
                    return;
                }
                queue.dead.drain(..group.len());
            }
        }
    }

    /// All that no long reader can see any more, taken together: one drain serves it all. Stamps rise along the queue, so it is the
    /// queue's front. `None`: the thread is to end.
    fn next(&self) -> Option<Vec<Dead>> {
        let mut queue = self.lock();
        loop {
            if queue.stop {
                return None;
            }
            queue.changed = false;
            let candidates: Vec<Dead> = queue.dead.iter().copied().collect();
            // Asked without the queue's lock: whoever ends a reader holds the registry's and takes the queue's.
            drop(queue);
            let free: Vec<Dead> = candidates.into_iter().take_while(|dead| self.readers.passed(dead.stamp)).collect();
            queue = self.lock();
            let patience = free.first().map(|dead| HELD_MAX.saturating_sub(dead.since.elapsed()));
            match patience {
                Some(left) if queue.held == 0 || left.is_zero() => return Some(free),
                Some(left) => {
                    let idle = |queue: &mut Queue| !queue.changed && !queue.stop;
                    (queue, _) = self.wake.wait_timeout_while(queue, left, idle).unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    while !queue.changed && !queue.stop {
                        queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        }
    }

    fn pause(&self, pause: Duration) {
        let queue = self.lock();
        if !queue.stop {
            let _ = self.wake.wait_timeout(queue, pause);
        }
    }
}
