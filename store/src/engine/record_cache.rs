//! The record cache: records of keys, and members of collections, that are read often, in front of RocksDB. A stored key of one family has
//! another hash than the same bytes in another: the family is where the hash begins.
//!
//! RocksDB's caches stand behind its memtables, and a look into those costs more than everything else of a read together; what is written
//! often is there. This one is asked first. It is never stale: a writer tells it of every record after its batch is applied and
//! before it is acknowledged, and a reader's fill counts only if no record of its shard was written since the reader began.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

const SHARDS: usize = 64;
/// Places a record may be at.
const WAYS: usize = 8;
/// Memory of a place and an allocation, besides the bytes in it.
const ENTRY_COST: usize = 64;
/// Bytes of a usual entry: how many places there are follows from it.
const ENTRY_TYPICAL: usize = 192;
/// Longest stored key and record together that are kept: longer ones cost more to copy than to find.
const ENTRY_LEN_MAX: usize = 8 << 10;

/// A record that was found.
#[derive(Clone)]
pub(crate) struct Cached {
    bytes: Arc<[u8]>,
    key_len: usize,
}

impl Cached {
    pub(crate) fn record(&self) -> &[u8] {
        &self.bytes[self.key_len..]
    }
}

/// What a reader that found nothing shows when it fills.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(u64);

#[derive(Default)]
struct Place {
    entry: Option<Cached>,
    used: bool,
}

struct Places {
    hashes: Vec<u64>,
    all: Vec<Place>,
    bytes: usize,
    hand: usize,
}

struct Shard {
    /// Raised by every write.
    writes: AtomicU64,
    /// Records in it, and fills under way: a writer that reads 0 has nothing to replace.
    held: AtomicUsize,
    places: Mutex<Places>,
}

/// See the module's text.
pub(crate) struct RecordCache {
    shards: Box<[Shard]>,
    sets: usize,
    shard_bytes_max: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// For INFO and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCacheUse {
    /// Most bytes it holds; 0: it is off.
    pub capacity: u64,
    /// Bytes it holds.
    pub used: u64,
    /// Reads that found their record in it.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
}

impl RecordCache {
    /// One of at most that many bytes; 0: it never holds anything.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shard_bytes_max = bytes_max / SHARDS;
        let sets = if bytes_max == 0 { 0 } else { (shard_bytes_max / (WAYS * ENTRY_TYPICAL)).max(1) };
        let shards = (0..SHARDS)
            .map(|_| Shard {
                writes: AtomicU64::new(0),
                held: AtomicUsize::new(0),
                places: Mutex::new(Places {
                    hashes: vec![0; sets * WAYS],
                    all: (0..sets * WAYS).map(|_| Place::default()).collect(),
                    bytes: 0,
                    hand: 0,
                }),
            })
            .collect();
        Self {
            shards,
            sets,
            shard_bytes_max: AtomicUsize::new(shard_bytes_max),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The record of a stored key, given as parts, or what to show when filling it in.
    pub(crate) fn get(&self, hash: u64, key: &[&[u8]]) -> Result<Cached, Ticket> {
        let shard = self.shard(hash);
        let ticket = Ticket(shard.writes.load(Ordering::SeqCst));
        if shard.held.load(Ordering::SeqCst) > 0 {
            let mut places = lock(&shard.places);
            if let Some(at) = self.find(&places, hash, key) {
                let place = &mut places.all[at];
                place.used = true;
                if let Some(cached) = place.entry.clone() {
                    drop(places);
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(cached);
                }
            }
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        Err(ticket)
    }

    /// Keeps a record that was read from the database after the ticket was given.
    pub(crate) fn fill(&self, hash: u64, key: &[&[u8]], record: &[u8], ticket: Ticket) {
        let key_len: usize = key.iter().map(|part| part.len()).sum();
        let length = key_len + record.len();
        if self.sets == 0 || length > ENTRY_LEN_MAX || length + ENTRY_COST > self.shard_bytes_max() {
            return;
        }
        let shard = self.shard(hash);
        // Counted before the look at `writes`: either a writer sees that there is something to replace, or this sees its write.
        shard.held.fetch_add(1, Ordering::SeqCst);
        let mut places = lock(&shard.places);
        if shard.writes.load(Ordering::SeqCst) != ticket.0 || self.find(&places, hash, key).is_some() {
            shard.held.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let bytes: Arc<[u8]> = key.iter().copied().chain([record]).flatten().copied().collect();
        let at = self.room(shard, &mut places, hash, length + ENTRY_COST);
        places.hashes[at] = hash;
        places.all[at] = Place { entry: Some(Cached { bytes, key_len }), used: false };
        places.bytes += length + ENTRY_COST;
    }

    /// A record was written (`None`: deleted), and is in the database by now.
    pub(crate) fn written(&self, hash: u64, key: &[u8], record: Option<&[u8]>) {
        let shard = self.shard(hash);
        shard.writes.fetch_add(1, Ordering::SeqCst);
        if shard.held.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut places = lock(&shard.places);
        let Some(at) = self.find(&places, hash, &[key]) else { return };
        // In its place, where it has the length that it had and nobody reads it.
        if let (Some(record), Some(cached)) = (record, &mut places.all[at].entry)
            && cached.bytes.len() == key.len() + record.len()
            && let Some(bytes) = Arc::get_mut(&mut cached.bytes)
        {
            bytes[key.len()..].copy_from_slice(record);
            places.all[at].used = true;
            return;
        }
        take_out(shard, &mut places, at);
        // What is read often and written often stays, as it is now.
        if let Some(record) = record.filter(|record| key.len() + record.len() <= ENTRY_LEN_MAX) {
            let bytes: Arc<[u8]> = [key, record].into_iter().flatten().copied().collect();
            places.bytes += bytes.len() + ENTRY_COST;
            places.all[at] = Place { entry: Some(Cached { bytes, key_len: key.len() }), used: true };
            places.hashes[at] = hash;
            shard.held.fetch_add(1, Ordering::SeqCst);
            self.shrink(shard, &mut places, self.shard_bytes_max());
        }
    }

    /// Lets it hold at most that many bytes from now on. One that was off at the start stays off.
    pub(crate) fn resize(&self, bytes_max: usize) {
        let shard_bytes_max = if self.sets == 0 { 0 } else { bytes_max / SHARDS };
        self.shard_bytes_max.store(shard_bytes_max, Ordering::Relaxed);
        for shard in &self.shards {
            self.shrink(shard, &mut lock(&shard.places), shard_bytes_max);
        }
    }

    fn shard_bytes_max(&self) -> usize {
        self.shard_bytes_max.load(Ordering::Relaxed)
    }

    /// Gives everything up.
    pub(crate) fn empty(&self) {
        for shard in &self.shards {
            self.shrink(shard, &mut lock(&shard.places), 0);
        }
    }

    pub(crate) fn usage(&self) -> RecordCacheUse {
        RecordCacheUse {
            capacity: (self.shard_bytes_max() * SHARDS) as u64,
            used: self.shards.iter().map(|shard| lock(&shard.places).bytes as u64).sum(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn shard(&self, hash: u64) -> &Shard {
        // The low bits of FNV are its best mixed ones; the set takes higher ones.
        &self.shards[hash as usize % SHARDS]
    }

    fn set(&self, hash: u64) -> usize {
        if self.sets == 0 { 0 } else { ((hash >> 8) ^ (hash >> 40)) as usize % self.sets * WAYS }
    }

    fn find(&self, places: &Places, hash: u64, key: &[&[u8]]) -> Option<usize> {
        let first = self.set(hash);
        let hashes = places.hashes.get(first..first + WAYS)?;
        let same = |at: &usize| {
            places.all[*at].entry.as_ref().is_some_and(|cached| {
                let mut rest = &cached.bytes[..cached.key_len];
                key.iter().all(|part| {
                    rest.strip_prefix(*part).is_some_and(|behind| {
                        rest = behind;
                        true
                    })
                }) && rest.is_empty()
            })
        };
        (0..WAYS).filter(|way| hashes[*way] == hash).map(|way| first + way).find(same)
    }

    /// A place in the key's set, empty, with that many bytes to spare in the shard.
    fn room(&self, shard: &Shard, places: &mut Places, hash: u64, cost: usize) -> usize {
        self.shrink(shard, places, self.shard_bytes_max().saturating_sub(cost));
        let first = self.set(hash);
        let ways = first..first + WAYS;
        if let Some(at) = ways.clone().find(|at| places.all[*at].entry.is_none()) {
            return at;
        }
        let at = ways.clone().find(|at| !places.all[*at].used).unwrap_or(first + (hash >> 60) as usize % WAYS);
        ways.for_each(|at| places.all[at].used = false);
        take_out(shard, places, at);
        at
    }

    /// Takes records out, those not used since the last round first, until at most that many bytes are left.
    fn shrink(&self, shard: &Shard, places: &mut Places, bytes_max: usize) {
        while places.bytes > bytes_max && self.sets > 0 {
            let at = places.hand;
            places.hand = (at + 1) % places.all.len();
            if !std::mem::take(&mut places.all[at].used) {
                take_out(shard, places, at);
            }
        }
    }
}

fn take_out(shard: &Shard, places: &mut Places, at: usize) {
    if let Some(cached) = places.all[at].entry.take() {
        places.bytes -= cached.bytes.len() + ENTRY_COST;
        shard.held.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn get(cache: &RecordCache, key: u64) -> Result<u64, Ticket> {
        let (high, low) = (&key.to_be_bytes()[..3], &key.to_be_bytes()[3..]);
        cache.get(hash(key), &[high, low]).map(|cached| u64::from_be_bytes(cached.record().try_into().unwrap()))
    }

    fn fill(cache: &RecordCache, key: u64, value: u64, ticket: Ticket) {
        cache.fill(hash(key), &[&key.to_be_bytes()], &value.to_be_bytes(), ticket);
    }

    #[test]
    fn what_was_filled_is_found_until_it_is_written() {
        let cache = RecordCache::new(1 << 20);
        let ticket = get(&cache, 1).err().unwrap();
        fill(&cache, 1, 10, ticket);
        assert_eq!(get(&cache, 1).ok(), Some(10));
        cache.written(hash(1), &1u64.to_be_bytes(), Some(&11u64.to_be_bytes()));
        assert_eq!(get(&cache, 1).ok(), Some(11));
        cache.written(hash(1), &1u64.to_be_bytes(), None);
        assert!(get(&cache, 1).is_err());
        assert_eq!((cache.usage().used, cache.usage().hits, cache.usage().misses), (0, 2, 2));
    }

    #[test]
    fn a_record_that_was_read_before_a_write_is_not_kept() {
        let cache = RecordCache::new(1 << 20);
        let ticket = get(&cache, 1).err().unwrap();
        cache.written(hash(1), &1u64.to_be_bytes(), Some(&11u64.to_be_bytes()));
        fill(&cache, 1, 10, ticket);
        assert!(get(&cache, 1).is_err());
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let cache = RecordCache::new(256 << 10);
        for key in 0..20_000 {
            if let Err(ticket) = get(&cache, key % 7000) {
                fill(&cache, key % 7000, key, ticket);
            }
            if key % 3 == 0 {
                cache.written(hash(key % 500), &(key % 500).to_be_bytes(), Some(&[0; 8]));
            }
        }
        let usage = cache.usage();
        assert!(usage.used <= usage.capacity && usage.used > usage.capacity / 4, "{usage:?}");
        cache.empty();
        assert_eq!(cache.usage().used, 0);
        assert!(cache.shards.iter().all(|shard| shard.held.load(Ordering::SeqCst) == 0));
        let off = RecordCache::new(0);
        let ticket = get(&off, 1).err().unwrap();
        fill(&off, 1, 1, ticket);
        assert!(get(&off, 1).is_err());
    }
}
