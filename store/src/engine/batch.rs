//! Writes gathered for one RocksDB batch, readable while they gather.
//!
//! The batch is kept in RocksDB's own form (`write_batch.cc`: the form of its write-ahead log, which never changes), so that a write costs
//! no call into C++ until the whole is committed, a read finds what was written before it, and the change feed sees each record.

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
    rep: Vec<u8>,
    entries: Vec<Entry>,
    newest: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    family_ids: [u32; Family::ALL.len()],
}

impl Batch {
    pub(crate) fn new(database: &Database) -> Self {
        let family_ids = Family::ALL.map(|family| database.family_id(family));
        Self { rep: vec![0; HEADER_LEN], entries: Vec::new(), newest: HashMap::default(), family_ids }
    }

    /// Bytes gathered.
    pub(crate) fn len_bytes(&self) -> usize {
        self.rep.len() - HEADER_LEN
    }

    /// Records gathered.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gathers a write; key and value are the parts behind one another.
    pub(crate) fn put(&mut self, family: Family, key: &[&[u8]], value: &[&[u8]]) {
        let key_at = self.begin(TAG_PUT, family, key);
        let value_at = self.parts(value);
        self.note(family, key_at, Some(value_at), key);
    }

    /// Gathers a deletion.
    pub(crate) fn delete(&mut self, family: Family, key: &[&[u8]]) {
        let key_at = self.begin(TAG_DELETE, family, key);
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
        let end = self.entries.last().map_or(HEADER_LEN, |entry| entry.value.as_ref().unwrap_or(&entry.key).end);
        self.rep.truncate(end);
    }

    /// The newest gathered write of that key.
    pub(crate) fn get(&self, family: Family, key: &[&[u8]]) -> Gathered<&[u8]> {
        if self.entries.is_empty() {
            return Gathered::Nothing;
        }
        let mut next = self.newest.get(&hash(family, key)).copied().unwrap_or(NONE);
        while let Some(entry) = self.entries.get(next as usize) {
            if entry.family == family && same(&self.rep[entry.key.clone()], key) {
                return entry.value.clone().map_or(Gathered::Deleted, |value| Gathered::Put(&self.rep[value]));
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
            key: &self.rep[entry.key.clone()],
            value: entry.value.clone().map(|value| &self.rep[value]),
        })
    }

    /// The gathered writes as RocksDB takes them.
    pub(crate) fn for_rocksdb(&mut self) -> WriteBatch {
        let count = self.entries.len() as u32;
        self.rep[8..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        WriteBatch::from_data(&self.rep)
    }

    /// Forgets everything; keeps its memory unless that is much.
    pub(crate) fn clear(&mut self) {
        self.rep.truncate(HEADER_LEN);
        self.rep.shrink_to(1 << 20);
        self.entries.clear();
        self.entries.shrink_to(1 << 14);
        self.newest.clear();
        self.newest.shrink_to(1 << 14);
    }

    fn begin(&mut self, tag: u8, family: Family, key: &[&[u8]]) -> Range<usize> {
        self.rep.push(tag);
        self.varint(self.family_ids[family as usize]);
        self.parts(key)
    }

    fn parts(&mut self, parts: &[&[u8]]) -> Range<usize> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.varint(length as u32);
        let start = self.rep.len();
        for part in parts {
            self.rep.extend_from_slice(part);
        }
        start..self.rep.len()
    }

    fn varint(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.rep.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.rep.push(number as u8);
    }

    fn note(&mut self, family: Family, key_at: Range<usize>, value_at: Option<Range<usize>>, key: &[&[u8]]) {
        let hash = hash(family, key);
        let before = self.newest.insert(hash, self.entries.len() as u32).unwrap_or(NONE);
        self.entries.push(Entry { family, hash, key: key_at, value: value_at, before });
    }
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
