//! The record cache: records of keys, and members of collections, that are read often, in front of RocksDB. A stored key of one family has
//! another hash than the same bytes in another: the family is where the hash begins.
//!
//! RocksDB's caches stand behind its memtables, and a look into those costs more than everything else of a read together; what is written
//! often is there. This one is asked first. It is never stale: a writer tells it of every record after its batch is applied and
//! before it is acknowledged, and a reader's fill counts only if no record of its shard was written since the reader began.
//!
//! That there is no record is kept too. Who looks before it writes, as HSET and INCR do, looks again before the next write: so what it wrote
//! is in the cache from then on, and what is written unseen, as SET and LPUSH do, takes no room in it.
//!
//! What a look costs is waiting for memory: for a set of places, then for the entry. So whoever is going to look for many says so, and
//! they come near while it looks for the first.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{batch, raw};

/// A writer or a reader that fills in meets few others in one.
const SHARDS: usize = 64;
/// Places a record may be at.
const WAYS: usize = 8;
/// Memory of a place and an allocation, besides the bytes in it.
const ENTRY_COST: usize = 64;
/// Bytes of a usual entry: how many places there are follows from it.
const ENTRY_TYPICAL: usize = 192;
/// Longest stored key and record together that are kept: longer ones cost more to copy than to find.
const ENTRY_LEN_MAX: usize = 8 << 10;
/// How many are to be brought near at once: more would drive each other out.
pub(crate) const NEAR: usize = 32;

/// What was found of a record: a length, the key, the record.
#[derive(Clone)]
pub(crate) struct Cached(Arc<[u8]>);

impl Cached {
    const HEAD: usize = 2;
    /// In the length of the key: there is a record.
    const EXISTS: u16 = 1 << 15;

    fn new(key: &[&[u8]], record: Option<&[u8]>) -> Self {
        // At most `ENTRY_LEN_MAX`.
        let key_len = key.iter().map(|part| part.len()).sum::<usize>() as u16;
        let head = (key_len | if record.is_some() { Self::EXISTS } else { 0 }).to_le_bytes();
        let parts = [&head[..]].into_iter().chain(key.iter().copied()).chain(record);
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, parts.clone().map(<[u8]>::len).sum()).collect();
        if let Some(mut rest) = Arc::get_mut(&mut bytes) {
            for part in parts {
                let (place, behind) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                rest = behind;
            }
        }
        Self(bytes)
    }

    fn head(&self) -> u16 {
        u16::from_le_bytes([self.0[0], self.0[1]])
    }

    fn key(&self) -> &[u8] {
        &self.0[Self::HEAD..][..usize::from(self.head() & !Self::EXISTS)]
    }

    /// Whether there is one.
    pub(crate) fn exists(&self) -> bool {
        self.head() & Self::EXISTS > 0
    }

    /// The record; empty when there is none.
    pub(crate) fn record(&self) -> &[u8] {
        &self.0[Self::HEAD + self.key().len()..]
    }

    fn cost(&self) -> usize {
        cost(self.0.len() - Self::HEAD)
    }

    /// Puts a record in the place of one of the same length that nobody reads.
    fn replace(&mut self, record: &[u8]) -> bool {
        let start = Self::HEAD + self.key().len();
        let head = self.head() | Self::EXISTS;
        let Some(bytes) = Arc::get_mut(&mut self.0).filter(|bytes| bytes.len() == start + record.len()) else { return false };
        bytes[..Self::HEAD].copy_from_slice(&head.to_le_bytes());
        bytes[start..].copy_from_slice(record);
        true
    }
}

fn cost(length: usize) -> usize {
    length + ENTRY_COST
}

/// What a reader that found nothing shows when it fills.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(u64);

/// The places of one set: three lines of the processor's cache with its lock, of which a look needs two.
#[derive(Default)]
#[repr(align(64))]
struct Set(Mutex<Places>);

#[derive(Default)]
#[repr(C)]
struct Places {
    /// Parts of the hashes.
    tags: [u32; WAYS],
    entries: [Option<Cached>; WAYS],
    /// A bit a place: it was looked at since the last round.
    used: u8,
}

impl Places {
    fn find(&self, tag: u32, key: &[&[u8]]) -> Option<usize> {
        let same =
            |at: &usize| self.tags[*at] == tag && self.entries[*at].as_ref().is_some_and(|cached| batch::same(cached.key(), key));
        (0..WAYS).find(same)
    }
}

#[repr(align(64))]
struct Shard {
    /// Raised by every write.
    writes: AtomicU64,
    /// Records in it, and fills under way: a writer that reads 0 has nothing to replace.
    held: AtomicUsize,
    bytes: AtomicUsize,
    /// The set at which the next round goes on.
    hand: AtomicUsize,
    sets: Box<[Set]>,
}

impl Shard {
    fn keep(&self, places: &mut Places, at: usize, tag: u32, cached: Cached) {
        self.bytes.fetch_add(cached.cost(), Ordering::Relaxed);
        places.tags[at] = tag;
        places.entries[at] = Some(cached);
    }

    fn take_out(&self, places: &mut Places, at: usize) {
        if let Some(cached) = places.entries[at].take() {
            self.bytes.fetch_sub(cached.cost(), Ordering::Relaxed);
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
        places.used &= !(1 << at);
    }

    /// Takes records out, those not used since the last round first, until at most that many bytes are left.
    fn shrink(&self, bytes_max: usize) {
        while self.bytes.load(Ordering::Relaxed) > bytes_max && !self.sets.is_empty() {
            let mut places = lock(&self.sets[self.hand.fetch_add(1, Ordering::Relaxed) % self.sets.len()]);
            for at in 0..WAYS {
                if places.used & 1 << at == 0 && self.bytes.load(Ordering::Relaxed) > bytes_max {
                    self.take_out(&mut places, at);
                }
            }
            places.used = 0;
        }
    }
}

/// See the module's text.
pub(crate) struct RecordCache {
    shards: Box<[Shard]>,
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
    /// Reads that found in it their record, or that there is none.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
}

impl RecordCache {
    /// One of at most that many bytes; 0: it never holds anything.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shard_bytes_max = bytes_max / SHARDS;
        let sets = if bytes_max == 0 { 0 } else { (shard_bytes_max / (WAYS * ENTRY_TYPICAL)).max(1) };
        let shard = || Shard {
            writes: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            sets: (0..sets).map(|_| Set::default()).collect(),
        };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Self { shards, shard_bytes_max: AtomicUsize::new(shard_bytes_max), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Brings near what looks for records of these hashes will need.
    pub(crate) fn approach(&self, hashes: impl Iterator<Item = u64> + Clone) {
        let places = || hashes.clone().filter_map(|hash| self.place(hash));
        places().for_each(|(_, set, _)| raw::prefetch(set));
        places().for_each(|(_, set, tag)| {
            let places = lock(set);
            let entries = places.tags.iter().zip(&places.entries).filter(|(other, _)| **other == tag);
            entries.filter_map(|(_, cached)| cached.as_ref()).for_each(|cached| raw::prefetch(&*cached.0));
        });
    }

    /// What is known of the record of a stored key, given as parts; or what to show when filling it in.
    pub(crate) fn get(&self, hash: u64, key: &[&[u8]]) -> Result<Cached, Ticket> {
        let ticket = Ticket(self.shard(hash).writes.load(Ordering::SeqCst));
        if let Some((_, set, tag)) = self.place(hash) {
            let mut places = lock(set);
            if let Some(at) = places.find(tag, key) {
                places.used |= 1 << at;
                if let Some(cached) = places.entries[at].clone() {
                    drop(places);
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(cached);
                }
            }
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        Err(ticket)
    }

    /// Keeps a record that was read from the database after the ticket was given, or that there was none.
    pub(crate) fn fill(&self, hash: u64, key: &[&[u8]], record: Option<&[u8]>, ticket: Ticket) {
        let length = key.iter().copied().chain(record).map(<[u8]>::len).sum::<usize>();
        let (shard, most) = (self.shard(hash), self.shard_bytes_max());
        if shard.sets.is_empty() || length > ENTRY_LEN_MAX || cost(length) > most {
            return;
        }
        // Counted before the look at `writes`: either a writer sees that there is something to replace, or this sees its write.
        shard.held.fetch_add(1, Ordering::SeqCst);
        shard.shrink(most.saturating_sub(cost(length)));
        let (set, tag) = Self::set(shard, hash);
        let mut places = lock(set);
        if shard.writes.load(Ordering::SeqCst) != ticket.0 || places.find(tag, key).is_some() {
            shard.held.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let at = (0..WAYS).find(|at| places.entries[*at].is_none()).unwrap_or_else(|| {
            let unused = (0..WAYS).find(|at| places.used & 1 << at == 0).unwrap_or((hash >> 60) as usize % WAYS);
            places.used = 0;
            shard.take_out(&mut places, unused);
            unused
        });
        shard.keep(&mut places, at, tag, Cached::new(key, record));
    }

    /// A record was written (`None`: deleted), and is in the database by now.
    pub(crate) fn written(&self, hash: u64, key: &[u8], record: Option<&[u8]>) {
        self.shard(hash).writes.fetch_add(1, Ordering::SeqCst);
        let Some((shard, set, tag)) = self.place(hash) else { return };
        let mut places = lock(set);
        let Some(at) = places.find(tag, &[key]) else { return };
        let replaced = |cached: &mut Cached| record.is_some_and(|record| cached.replace(record));
        if places.entries[at].as_mut().is_some_and(replaced) {
            places.used |= 1 << at;
            return;
        }
        shard.take_out(&mut places, at);
        // What is read often and written often stays, as it is now.
        if let Some(record) = record.filter(|record| key.len() + record.len() <= ENTRY_LEN_MAX) {
            shard.held.fetch_add(1, Ordering::SeqCst);
            shard.keep(&mut places, at, tag, Cached::new(&[key], Some(record)));
            places.used |= 1 << at;
            drop(places);
            shard.shrink(self.shard_bytes_max());
        }
    }

    /// Lets it hold at most that many bytes from now on. One that was off at the start stays off.
    pub(crate) fn resize(&self, bytes_max: usize) {
        let most = if self.shards[0].sets.is_empty() { 0 } else { bytes_max / SHARDS };
        self.shard_bytes_max.store(most, Ordering::Relaxed);
        self.shards.iter().for_each(|shard| shard.shrink(most));
    }

    fn shard_bytes_max(&self) -> usize {
        self.shard_bytes_max.load(Ordering::Relaxed)
    }

    /// Gives everything up.
    pub(crate) fn empty(&self) {
        self.shards.iter().for_each(|shard| shard.shrink(0));
    }

    pub(crate) fn usage(&self) -> RecordCacheUse {
        RecordCacheUse {
            capacity: (self.shard_bytes_max() * SHARDS) as u64,
            used: self.shards.iter().map(|shard| shard.bytes.load(Ordering::Relaxed) as u64).sum(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn shard(&self, hash: u64) -> &Shard {
        // The low bits of FNV are its best mixed ones; the set takes higher ones.
        &self.shards[hash as usize % SHARDS]
    }

    fn set(shard: &Shard, hash: u64) -> (&Set, u32) {
        (&shard.sets[((hash >> 8) ^ (hash >> 40)) as usize % shard.sets.len()], (hash >> 16) as u32)
    }

    /// Where a record of that hash is, if the shard has any.
    fn place(&self, hash: u64) -> Option<(&Shard, &Set, u32)> {
        let shard = self.shard(hash);
        (shard.held.load(Ordering::SeqCst) > 0 && !shard.sets.is_empty()).then(|| {
            let (set, tag) = Self::set(shard, hash);
            (shard, set, tag)
        })
    }
}

fn lock(set: &Set) -> MutexGuard<'_, Places> {
    set.0.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn get(cache: &RecordCache, key: u64) -> Result<Option<u64>, Ticket> {
        let (high, low) = (&key.to_be_bytes()[..3], &key.to_be_bytes()[3..]);
        let value = |cached: Cached| cached.exists().then(|| u64::from_be_bytes(cached.record().try_into().unwrap()));
        cache.get(hash(key), &[high, low]).map(value)
    }

    fn fill(cache: &RecordCache, key: u64, value: Option<u64>, ticket: Ticket) {
        let value = value.map(u64::to_be_bytes);
        cache.fill(hash(key), &[&key.to_be_bytes()], value.as_ref().map(|value| &value[..]), ticket);
    }

    #[test]
    fn what_was_filled_is_found_until_it_is_written() {
        let cache = RecordCache::new(1 << 20);
        let ticket = get(&cache, 1).err().unwrap();
        fill(&cache, 1, Some(10), ticket);
        assert_eq!(get(&cache, 1).ok(), Some(Some(10)));
        cache.written(hash(1), &1u64.to_be_bytes(), Some(&11u64.to_be_bytes()));
        assert_eq!(get(&cache, 1).ok(), Some(Some(11)));
        cache.written(hash(1), &1u64.to_be_bytes(), None);
        assert!(get(&cache, 1).is_err());
        assert_eq!((cache.usage().used, cache.usage().hits, cache.usage().misses), (0, 2, 2));
    }

    #[test]
    fn a_record_that_was_read_before_a_write_is_not_kept() {
        let cache = RecordCache::new(1 << 20);
        let ticket = get(&cache, 1).err().unwrap();
        cache.written(hash(1), &1u64.to_be_bytes(), Some(&11u64.to_be_bytes()));
        fill(&cache, 1, Some(10), ticket);
        assert!(get(&cache, 1).is_err());
    }

    #[test]
    fn that_there_is_none_is_kept_until_there_is_one() {
        let cache = RecordCache::new(1 << 20);
        // The length of a value, and an empty one: neither is mistaken for none.
        for (key, record) in [(1u64, &[7; 8][..]), (2, &[])] {
            let ticket = get(&cache, key).err().unwrap();
            fill(&cache, key, None, ticket);
            assert_eq!(get(&cache, key).ok(), Some(None));
            cache.written(hash(key), &key.to_be_bytes(), Some(record));
            let found = cache.get(hash(key), &[&key.to_be_bytes()]).ok().unwrap();
            assert_eq!((found.exists(), found.record()), (true, record));
            cache.written(hash(key), &key.to_be_bytes(), None);
            assert!(get(&cache, key).is_err());
        }
        // What nobody asked for is not kept.
        cache.written(hash(3), &3u64.to_be_bytes(), Some(&[7; 8]));
        assert!(get(&cache, 3).is_err());
        assert_eq!(cache.usage().used, 0);
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let cache = RecordCache::new(256 << 10);
        for key in 0..20_000 {
            if let Err(ticket) = get(&cache, key % 7000) {
                fill(&cache, key % 7000, (key % 5 > 0).then_some(key), ticket);
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
        fill(&off, 1, Some(1), ticket);
        assert!(get(&off, 1).is_err());
    }
}
