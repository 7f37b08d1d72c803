//! The change feed: which raw records were changed, told to those who subscribed to their slots.
//!
//! A subscriber keeps the *set* of records that changed since it last took them, and no values: who takes a key reads its value afterwards,
//! and a change that comes later puts the key back. So a key that is written a thousand times costs one place and one read, order need
//! not be kept, and a subscriber that is slow costs memory by the keys that differ and not by the writes. Publishing never waits. Without
//! subscribers a commit pays one load of an atomic.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use sluice_topology::{Slot, SlotRanges};

use super::{
    Generation, RawFamily,
    batch::Batch,
    database::Engine,
    layout::{PREFIX_LEN, split_prefix},
};

/// What a remembered key costs besides its bytes: the box, and its share of the table.
const KEY_COST: usize = 48;

/// A raw record that was put or deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangedKey {
    // The family's byte, slot and generation, and the key: the set's own form, in the order of a scan.
    bytes: Box<[u8]>,
}

impl ChangedKey {
    /// Its family.
    pub fn family(&self) -> Option<RawFamily> {
        RawFamily::from_byte(*self.bytes.first()?)
    }

    /// Its slot.
    pub fn slot(&self) -> Option<Slot> {
        split_prefix(*self.stored().first_chunk()?).map(|(slot, _)| slot)
    }

    /// Its key behind slot and generation.
    pub fn key(&self) -> &[u8] {
        self.stored().get(PREFIX_LEN..).unwrap_or_default()
    }

    /// Its key as stored.
    pub(super) fn stored(&self) -> &[u8] {
        self.bytes.get(1..).unwrap_or_default()
    }

    fn cost(&self) -> usize {
        self.bytes.len() + KEY_COST
    }
}

/// Why a subscription is over: whoever copies has to begin anew.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FeedLost {
    /// More keys changed than are remembered.
    #[error("changes of more than {0} bytes of keys were waiting: they were forgotten, and the subscription ended")]
    Overflowed(usize),
    /// The slot was dropped, flushed, or taken over: what was copied is not what it holds.
    #[error("slot {0} was emptied, or replaced as a whole")]
    Replaced(Slot),
}

#[derive(Default)]
struct Waiting {
    keys: HashSet<Box<[u8]>>,
    bytes: usize,
    lost: Option<FeedLost>,
    scratch: Vec<u8>,
}

struct Subscriber {
    slots: Vec<bool>,
    bytes_max: usize,
    waiting: Mutex<Waiting>,
}

impl Subscriber {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, slot: Slot) -> bool {
        self.slots[slot.index()]
    }

    fn note(&self, batch: &Batch) {
        let mut waiting = None;
        for write in batch.writes() {
            let Some((slot, _)) = write.key.first_chunk().copied().and_then(split_prefix) else { continue };
            if !self.wants(slot) {
                continue;
            }
            let waiting = waiting.get_or_insert_with(|| self.waiting());
            if waiting.lost.is_some() {
                return;
            }
            let mut scratch = std::mem::take(&mut waiting.scratch);
            scratch.clear();
            scratch.push(RawFamily::of(write.family).to_byte());
            scratch.extend_from_slice(write.key);
            if !waiting.keys.contains(scratch.as_slice()) {
                waiting.bytes += scratch.len() + KEY_COST;
                waiting.keys.insert(scratch.as_slice().into());
            }
            waiting.scratch = scratch;
            if waiting.bytes > self.bytes_max {
                **waiting = Waiting { lost: Some(FeedLost::Overflowed(self.bytes_max)), ..Waiting::default() };
            }
        }
    }
}

/// The subscribers of an engine.
#[derive(Default)]
pub(crate) struct Feed {
    count: AtomicUsize,
    subscribers: RwLock<Vec<Arc<Subscriber>>>,
}

impl Feed {
    /// Tells subscribers of a batch that was just applied, under the stripes of its keys.
    pub(crate) fn publish(&self, batch: &Batch) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|subscriber| subscriber.note(batch));
    }

    /// Tells subscribers of slots whose live generation changed.
    pub(crate) fn publish_generations(&self, live: impl Iterator<Item = (Slot, Generation)> + Clone) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for subscriber in self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some((slot, _)) = live.clone().find(|(slot, _)| subscriber.wants(*slot)) {
                *subscriber.waiting() = Waiting { lost: Some(FeedLost::Replaced(slot)), ..Waiting::default() };
            }
        }
    }
}

/// A place in the change feed, given up when it is dropped.
pub struct Subscription {
    engine: Arc<Engine>,
    subscriber: Arc<Subscriber>,
}

impl Engine {
    /// Subscribes to the changes of slots; at most `bytes_max` of changed keys wait. On return every change that is not in a snapshot
    /// taken from now on will be heard. Blocks the thread until commands that began before have ended.
    pub fn subscribe(self: &Arc<Self>, slots: &SlotRanges, bytes_max: usize) -> Subscription {
        let mut wanted = vec![false; usize::from(sluice_topology::SLOT_COUNT)];
        slots.iter().for_each(|slot| wanted[slot.index()] = true);
        let subscriber = Arc::new(Subscriber { slots: wanted, bytes_max, waiting: Mutex::default() });
        self.feed().subscribers.write().unwrap_or_else(PoisonError::into_inner).push(subscriber.clone());
        self.feed().count.fetch_add(1, Ordering::SeqCst);
        // A writer that saw no subscriber is inside the gate: what it applies is in any snapshot taken after this.
        self.drain();
        Subscription { engine: self.clone(), subscriber }
    }
}

impl Engine {
    /// Bytes of changed keys that wait for subscribers, and how many may.
    pub fn feed_use(&self) -> (u64, u64) {
        let subscribers = self.feed().subscribers.read().unwrap_or_else(PoisonError::into_inner);
        subscribers.iter().fold((0, 0), |(waiting, limit), subscriber| {
            (waiting + subscriber.waiting().bytes as u64, limit + subscriber.bytes_max as u64)
        })
    }
}

impl Subscription {
    /// Takes every key that has changed since the last call, in the order of a scan. A value that is read after this call is at least as
    /// new as the change that was heard of; what changes later is heard of again.
    pub fn take(&self) -> Result<Vec<ChangedKey>, FeedLost> {
        let mut waiting = self.subscriber.waiting();
        if let Some(lost) = waiting.lost {
            return Err(lost);
        }
        let keys = std::mem::take(&mut waiting.keys);
        waiting.bytes = 0;
        drop(waiting);
        let mut keys: Vec<ChangedKey> = keys.into_iter().map(|bytes| ChangedKey { bytes }).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Puts keys back that were taken and not dealt with.
    pub fn put_back(&self, keys: Vec<ChangedKey>) {
        let mut waiting = self.subscriber.waiting();
        if waiting.lost.is_none() {
            for key in keys {
                let cost = key.cost();
                if waiting.keys.insert(key.bytes) {
                    waiting.bytes += cost;
                }
            }
        }
    }

    /// Bytes of keys that may wait.
    pub fn bytes_max(&self) -> usize {
        self.subscriber.bytes_max
    }

    /// Keys that wait, and their bytes.
    pub fn waiting(&self) -> Result<(usize, usize), FeedLost> {
        let waiting = self.subscriber.waiting();
        waiting.lost.map_or(Ok((waiting.keys.len(), waiting.bytes)), Err)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let feed = self.engine.feed();
        feed.subscribers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|subscriber| !Arc::ptr_eq(subscriber, &self.subscriber));
        feed.count.fetch_sub(1, Ordering::SeqCst);
    }
}
