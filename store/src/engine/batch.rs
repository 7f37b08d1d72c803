//! Writes gathered for one RocksDB batch, readable while they gather.
//!
//! A write costs no call into C++ until the whole is committed, a read finds what was written before it, and the change feed sees each
//! record. RocksDB gets the batch in the form of its write-ahead log (`write_batch.cc`, which never changes), sorted by key and each
//! key once: a memtable finds the place of a key from that of the key before it, and the batch is one moment anyhow.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
};

use rocksdb::WriteBatch;

use super::{families::Family, raw::Database};

/// Sequence number (8) and count of records (4), little-endian.
const HEADER_LEN: usize = 12;
/// Record tags of RocksDB (`dbformat.h`).
const TAG_DELETE: u8 = 0x4;
const TAG_PUT: u8 = 0x5;
/// No earlier entry of the same hash.
const NONE: u32 = u32::MAX;

/// A gathered write.
struct Entry {
    family: Family,
    hash: u64,
    key: Range<usize>,
    /// `None`: a deletion.
    value: Option<Range<usize>>,
    /// The entry before it whose key has the same hash.
    before: u32,
}

/// What a batch holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered<T> {
    /// Nothing: what is in the database counts.
    Nothing,
    /// Its newest write is a deletion.
    Deleted,
    /// Its newest write is this.
    Put(T),
}

impl<T> Gathered<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Gathered<U> {
        match self {
            Self::Nothing => Gathered::Nothing,
            Self::Deleted => Gathered::Deleted,
            Self::Put(value) => Gathered::Put(change(value)),
        }
    }
}

/// A gathered write, as the change feed sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write<'a> {
    pub(crate) family: Family,
    /// [`hash`] of the key.
    pub(crate) hash: u64,
    /// Slot and generation included.
    pub(crate) key: &'a [u8],
    /// `None`: a deletion.
    pub(crate) value: Option<&'a [u8]>,
}

/// Keys are hashed already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// See the module's text.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    newest: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    family_ids: [u32; Family::ALL.len()],
}

impl Batch {
    pub(crate) fn new(database: &Database) -> Self {
        let family_ids = Family::ALL.map(|family| database.family_id(family));
        Self { bytes: Vec::new(), entries: Vec::new(), newest: HashMap::default(), family_ids }
    }

    /// Bytes gathered.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Records gathered.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gathers a write; key and value are the parts behind one another.
    pub(crate) fn put(&mut self, family: Family, key: &[&[u8]], value: &[&[u8]]) {
        let key_at = self.parts(key);
        let value_at = self.parts(value);
        self.note(family, key_at, Some(value_at), key);
    }

    /// Gathers a deletion.
    pub(crate) fn delete(&mut self, family: Family, key: &[&[u8]]) {
        let key_at = self.parts(key);
        self.note(family, key_at, None, key);
    }

    /// Forgets what was gathered after the first `len` records.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.entries.len() > len {
            let Some(entry) = self.entries.pop() else { return };
            match entry.before {
                NONE => self.newest.remove(&entry.hash),
                before => self.newest.insert(entry.hash, before),
            };
        }
        let end = self.entries.last().map_or(0, |entry| entry.value.as_ref().unwrap_or(&entry.key).end);
        self.bytes.truncate(end);
    }

    /// The newest gathered write of that key.
    pub(crate) fn get(&self, family: Family, key: &[&[u8]]) -> Gathered<&[u8]> {
        if self.entries.is_empty() {
            return Gathered::Nothing;
        }
        let mut next = self.newest.get(&hash(family, key)).copied().unwrap_or(NONE);
        while let Some(entry) = self.entries.get(next as usize) {
            if entry.family == family && same(&self.bytes[entry.key.clone()], key) {
                return entry.value.clone().map_or(Gathered::Deleted, |value| Gathered::Put(&self.bytes[value]));
            }
            next = entry.before;
        }
        Gathered::Nothing
    }

    /// Every gathered write, in order.
    pub(crate) fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        self.entries.iter().map(|entry| Write {
            family: entry.family,
            hash: entry.hash,
            key: &self.bytes[entry.key.clone()],
            value: entry.value.clone().map(|value| &self.bytes[value]),
        })
    }

    /// The gathered writes as RocksDB takes them: of each key the newest, in the order of the keys.
    pub(crate) fn for_rocksdb(&self) -> WriteBatch {
        let mut order: Vec<(u128, &Entry)> = self.entries.iter().map(|entry| (self.sort_key(entry), entry)).collect();
        let key = |entry: &Entry| &self.bytes[entry.key.clone()];
        // Stable: of equal keys the newest stays the last.
        order.sort_by(|(left, a), (right, b)| {
            left.cmp(right).then_with(|| a.family.cmp(&b.family).then_with(|| key(a).cmp(key(b))))
        });
        let mut rep = Vec::with_capacity(HEADER_LEN + self.bytes.len() + 12 * order.len());
        rep.resize(HEADER_LEN, 0);
        let mut count = 0u32;
        for (position, (_, entry)) in order.iter().enumerate() {
            let newer = order.get(position + 1).is_some_and(|(_, next)| next.family == entry.family && key(next) == key(entry));
            if newer {
                continue;
            }
            count += 1;
            rep.push(if entry.value.is_some() { TAG_PUT } else { TAG_DELETE });
            varint(&mut rep, self.family_ids[entry.family as usize]);
            for part in [Some(&entry.key), entry.value.as_ref()].into_iter().flatten() {
                varint(&mut rep, part.len() as u32);
                rep.extend_from_slice(&self.bytes[part.clone()]);
            }
        }
        rep[8..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        WriteBatch::from_data(&rep)
    }

    /// Forgets everything; keeps its memory unless that is much.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
        self.entries.clear();
        self.entries.shrink_to(1 << 14);
        self.newest.clear();
        self.newest.shrink_to(1 << 14);
    }

    /// Family and the first bytes of the key, which tell most keys apart.
    fn sort_key(&self, entry: &Entry) -> u128 {
        let key = &self.bytes[entry.key.clone()];
        let mut first = [0; 16];
        first[0] = entry.family as u8;
        let length = key.len().min(15);
        first[1..=length].copy_from_slice(&key[..length]);
        u128::from_be_bytes(first)
    }

    fn parts(&mut self, parts: &[&[u8]]) -> Range<usize> {
        let start = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        start..self.bytes.len()
    }

    fn note(&mut self, family: Family, key_at: Range<usize>, value_at: Option<Range<usize>>, key: &[&[u8]]) {
        let hash = hash(family, key);
        let before = self.newest.insert(hash, self.entries.len() as u32).unwrap_or(NONE);
        self.entries.push(Entry { family, hash, key: key_at, value: value_at, before });
    }
}

fn varint(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// FNV-1a of a stored key, given as parts. A batch is small, so keys made to collide cost their sender a short walk.
pub(crate) fn hash(family: Family, key: &[&[u8]]) -> u64 {
    let seed = 0xcbf2_9ce4_8422_2325 ^ family as u64;
    key.iter().copied().flatten().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn same(stored: &[u8], parts: &[&[u8]]) -> bool {
    let mut rest = stored;
    for part in parts {
        match rest.strip_prefix(*part) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}
