//! The change feed: every committed change, in the order of each key, to those who subscribed to its slot.
//!
//! Publishing never waits: a subscriber that does not keep up loses its queue and is told so, and begins anew from a snapshot. Without
//! subscribers a commit pays one load of an atomic.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use sluice_topology::{Slot, SlotRanges};
use tokio::sync::Notify;

use super::{Generation, RawFamily, batch::Batch, database::Engine, layout::split_prefix};

/// A record that was put or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// Its family.
    pub family: RawFamily,
    /// Its slot.
    pub slot: Slot,
    /// Its generation: the one that was live.
    pub generation: Generation,
    /// Its key behind the prefix.
    pub key: &'a [u8],
    /// Its value as stored; `None`: it was deleted.
    pub value: Option<&'a [u8]>,
}

/// Changes that were committed together, as far as a subscriber asked for them.
#[derive(Debug, Default)]
pub struct ChangedBatch {
    /// Everything of this batch is visible from this sequence number on.
    pub sequence: u64,
    bytes: Vec<u8>,
    records: Vec<(RawFamily, Slot, Generation, Range<usize>, Option<Range<usize>>)>,
}

impl ChangedBatch {
    /// Its records, in the order in which they were written.
    pub fn records(&self) -> impl Iterator<Item = Changed<'_>> {
        self.records.iter().map(|(family, slot, generation, key, value)| Changed {
            family: *family,
            slot: *slot,
            generation: *generation,
            key: &self.bytes[key.clone()],
            value: value.clone().map(|value| &self.bytes[value]),
        })
    }

    fn push(&mut self, family: RawFamily, slot: Slot, generation: Generation, key: &[u8], value: Option<&[u8]>) {
        let mut append = |part: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(part);
            start..self.bytes.len()
        };
        let (key, value) = (append(key), value.map(append));
        self.records.push((family, slot, generation, key, value));
    }

    /// What it costs a queue.
    fn cost(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<(RawFamily, Slot, Generation, Range<usize>, Option<Range<usize>>)>()
    }
}

/// What a subscriber hears.
#[derive(Debug)]
pub enum FeedEvent {
    /// Records changed.
    Batch(ChangedBatch),
    /// A slot's live generation is another from here on: the slot was dropped, flushed, or taken over.
    Generation(Slot, Generation),
}

/// The subscriber did not keep up: changes were lost. It has to begin anew from a snapshot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("more than {0} bytes of changes were waiting: they were dropped, and the subscription with them")]
pub struct Overflowed(pub usize);

struct Queue {
    events: VecDeque<(FeedEvent, usize)>,
    bytes: usize,
    overflowed: bool,
}

struct Subscriber {
    slots: Vec<bool>,
    bytes_max: usize,
    queue: Mutex<Queue>,
    news: Notify,
}

impl Subscriber {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, slot: Slot) -> bool {
        self.slots[slot.index()]
    }

    fn push(&self, event: FeedEvent, cost: usize) {
        let mut queue = self.queue();
        if queue.overflowed {
            return;
        }
        queue.bytes += cost;
        if queue.bytes > self.bytes_max {
            queue.overflowed = true;
            queue.events = VecDeque::new();
        } else {
            queue.events.push_back((event, cost));
        }
        drop(queue);
        self.news.notify_one();
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
    pub(crate) fn publish(&self, sequence: u64, batch: &Batch) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for subscriber in self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut changed = ChangedBatch { sequence, ..ChangedBatch::default() };
            for write in batch.writes() {
                let Some((prefix, key)) = write.key.split_first_chunk() else { continue };
                if let Some((slot, generation)) = split_prefix(*prefix).filter(|(slot, _)| subscriber.wants(*slot)) {
                    changed.push(RawFamily::of(write.family), slot, generation, key, write.value);
                }
            }
            if !changed.records.is_empty() {
                let cost = changed.cost();
                subscriber.push(FeedEvent::Batch(changed), cost);
            }
        }
    }

    /// Tells subscribers of slots whose live generation changed.
    pub(crate) fn publish_generations(&self, live: impl Iterator<Item = (Slot, Generation)> + Clone) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for subscriber in self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            for (slot, generation) in live.clone().filter(|(slot, _)| subscriber.wants(*slot)) {
                subscriber.push(FeedEvent::Generation(slot, generation), size_of::<FeedEvent>());
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
    /// Subscribes to the changes of slots; at most `bytes_max` of them wait. On return every change that is not in a snapshot taken from
    /// now on will be heard. Blocks the thread until commands that began before have ended.
    pub fn subscribe(self: &Arc<Self>, slots: &SlotRanges, bytes_max: usize) -> Subscription {
        let mut wanted = vec![false; usize::from(sluice_topology::SLOT_COUNT)];
        slots.iter().for_each(|slot| wanted[slot.index()] = true);
        let queue = Mutex::new(Queue { events: VecDeque::new(), bytes: 0, overflowed: false });
        let subscriber = Arc::new(Subscriber { slots: wanted, bytes_max, queue, news: Notify::new() });
        self.feed().subscribers.write().unwrap_or_else(PoisonError::into_inner).push(subscriber.clone());
        self.feed().count.fetch_add(1, Ordering::SeqCst);
        // A writer that saw no subscriber is inside the gate: what it applies is in any snapshot taken after this.
        self.drain();
        Subscription { engine: self.clone(), subscriber }
    }
}

impl Subscription {
    /// The next event; waits for one.
    pub async fn next(&mut self) -> Result<FeedEvent, Overflowed> {
        let subscriber = self.subscriber.clone();
        loop {
            let news = subscriber.news.notified();
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            news.await;
        }
    }

    /// The next event if there is one by now.
    pub fn take(&mut self) -> Result<Option<FeedEvent>, Overflowed> {
        let mut queue = self.subscriber.queue();
        if queue.overflowed {
            return Err(Overflowed(self.subscriber.bytes_max));
        }
        Ok(queue.events.pop_front().map(|(event, cost)| {
            queue.bytes -= cost;
            event
        }))
    }

    /// Bytes of changes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.subscriber.queue().bytes
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
