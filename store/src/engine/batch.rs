//! Writes gathered for one RocksDB batch, readable while they gather.
//!
//! A write costs no call into C++ until the whole is committed, a read finds what was written before it, and the change feed sees each
//! record. RocksDB gets the batch in the form of its write-ahead log (`write_batch.cc`, which never changes), sorted by key and each
//! key once: a memtable finds the place of a key from that of the key before it, and the batch is one moment anyhow.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    ops::Range,
    sync::LazyLock,
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
    /// One of the same key comes after it: known once the batch is settled.
    superseded: bool,
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
    pub(crate) fn writes(&self) -> impl Iterator<Item = Write<'_>> + Clone {
        self.writes_since(0)
    }

    /// Those after the first `len`.
    pub(crate) fn writes_since(&self, len: usize) -> impl Iterator<Item = Write<'_>> + Clone {
        self.entries.iter().skip(len).map(|entry| Write {
            family: entry.family,
            hash: entry.hash,
            key: &self.bytes[entry.key.clone()],
            value: entry.value.clone().map(|value| &self.bytes[value]),
        })
    }

    /// Nothing more is gathered: finds out which writes are the last of their keys.
    pub(crate) fn settle(&mut self) {
        for at in 0..self.entries.len() {
            let mut older = self.entries[at].before;
            while let Some(entry) = self.entries.get(older as usize) {
                let newer = &self.entries[at];
                // Those before this one of the same key were found from it.
                if entry.family == newer.family && self.bytes[entry.key.clone()] == self.bytes[newer.key.clone()] {
                    self.entries[older as usize].superseded = true;
                    break;
                }
                older = entry.before;
            }
        }
    }

    /// Of each key the last write; the batch is settled.
    pub(crate) fn last_writes(&self) -> impl Iterator<Item = Write<'_>> + Clone {
        self.writes().zip(&self.entries).filter(|(_, entry)| !entry.superseded).map(|(write, _)| write)
    }

    /// The gathered writes as RocksDB takes them: of each key the last, in the order of the keys; the batch is settled.
    pub(crate) fn for_rocksdb(&self) -> WriteBatch {
        let last = self.entries.iter().filter(|entry| !entry.superseded);
        let mut order: Vec<(u128, &Entry)> = Vec::with_capacity(self.entries.len());
        order.extend(last.map(|entry| (self.sort_key(entry), entry)));
        order.sort_unstable_by_key(|(first, _)| *first);
        order.chunk_by_mut(|(one, _), (other, _)| one == other).for_each(|alike| self.sort_alike(alike));
        let mut rep = Vec::with_capacity(HEADER_LEN + self.bytes.len() + 12 * order.len());
        rep.resize(HEADER_LEN, 0);
        for (_, entry) in &order {
            rep.push(if entry.value.is_some() { TAG_PUT } else { TAG_DELETE });
            varint(&mut rep, self.family_ids[entry.family as usize]);
            for part in [Some(&entry.key), entry.value.as_ref()].into_iter().flatten() {
                varint(&mut rep, part.len() as u32);
                rep.extend_from_slice(&self.bytes[part.clone()]);
            }
        }
        rep[8..HEADER_LEN].copy_from_slice(&(order.len() as u32).to_le_bytes());
        WriteBatch::from_data(&rep)
    }

    /// Sorts entries whose keys begin alike, as those of one collection do: by what comes behind the part that all of them share.
    fn sort_alike(&self, alike: &mut [(u128, &Entry)]) {
        let key = |entry: &Entry| &self.bytes[entry.key.clone()];
        let Some((_, first)) = alike.split_first().filter(|(_, others)| !others.is_empty()).map(|(first, _)| *first) else {
            return;
        };
        let shared_with_first = |entry: &Entry| key(first).iter().zip(key(entry)).take_while(|(one, other)| one == other).count();
        let shared = alike.iter().skip(1).map(|(_, entry)| shared_with_first(entry)).min().unwrap_or(0);
        for (behind, entry) in alike.iter_mut() {
            *behind = u128::from_be_bytes(first_bytes(&key(entry)[shared..]));
        }
        alike.sort_unstable_by(|(one, a), (other, b)| one.cmp(other).then_with(|| key(a).cmp(key(b))));
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
        u128::from_be_bytes(first_bytes(&self.bytes[entry.key.clone()])) >> 8 | (entry.family as u128) << 120
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
        self.entries.push(Entry { family, hash, key: key_at, value: value_at, before, superseded: false });
    }
}

/// The first bytes of a key; zeros behind a shorter one.
fn first_bytes(key: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    let length = key.len().min(16);
    first[..length].copy_from_slice(&key[..length]);
    first
}

fn varint(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Hash of a stored key, given as parts, the prefix being one: eight bytes at a time, as a key is hashed several times on its way. From another
/// beginning each run, so that nobody can make keys that collide. The same bytes in other parts have another hash.
pub(crate) fn hash(family: Family, key: &[&[u8]]) -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        (product >> 64) as u64 ^ product as u64
    };
    let seed = *SEED;
    key.iter().fold(seed.wrapping_add(family as u64), |hash, part| {
        let (words, rest) = part.as_chunks::<8>();
        let hash = words.iter().fold(hash, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        let rest = rest.iter().fold(part.len() as u64, |word, byte| word << 8 | u64::from(*byte));
        mix(hash, rest ^ seed.rotate_left(32))
    })
}

/// Whether a stored key is the one given as parts.
pub(crate) fn same(stored: &[u8], parts: &[&[u8]]) -> bool {
    let mut rest = stored;
    for part in parts {
        match rest.strip_prefix(*part) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Batch {
        /// For tests: families have made-up numbers.
        pub(crate) fn of_no_database() -> Self {
            Self { bytes: Vec::new(), entries: Vec::new(), newest: HashMap::default(), family_ids: [10, 11, 12, 13, 14] }
        }
    }

    /// Families, keys and values of a batch in RocksDB's form.
    fn decoded(batch: &WriteBatch) -> Vec<(u32, Vec<u8>, Option<Vec<u8>>)> {
        fn number(rest: &mut &[u8]) -> u32 {
            let (mut number, mut shift) = (0, 0);
            loop {
                let byte = rest[0];
                *rest = &rest[1..];
                number |= u32::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return number;
                }
            }
        }
        fn bytes(rest: &mut &[u8]) -> Vec<u8> {
            let length = number(rest) as usize;
            let (bytes, behind) = rest.split_at(length);
            *rest = behind;
            bytes.to_vec()
        }
        let (mut rest, mut found) = (&batch.data()[HEADER_LEN..], Vec::new());
        while let Some((tag, behind)) = rest.split_first() {
            rest = behind;
            let (family, key) = (number(&mut rest), bytes(&mut rest));
            found.push((family, key, (*tag == TAG_PUT).then(|| bytes(&mut rest))));
        }
        assert_eq!(batch.len(), found.len());
        found
    }

    fn family() -> impl Strategy<Value = Family> {
        prop::sample::select(Family::ALL.to_vec())
    }

    /// Keys that are short, or alike for long, or have zeros where others end.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        (
            prop::sample::select(vec!["", "p", "a-prefix-of-many", "a-prefix-of-many-keys-that-are-alike"]),
            prop::collection::vec(0u8..3, 0..4),
        )
            .prop_map(|(prefix, rest)| [prefix.as_bytes(), &rest].concat())
    }

    proptest! {
        #[test]
        fn rocksdb_gets_the_last_write_of_each_key_in_order(
            writes in prop::collection::vec((family(), key(), prop::option::of("[a-z]{0,3}")), 0..60), kept in 0usize..60
        ) {
            let mut batch = Batch::of_no_database();
            for (family, key, value) in &writes {
                match value {
                    Some(value) => batch.put(*family, &[key], &[value.as_bytes()]),
                    None => batch.delete(*family, &[key]),
                }
            }
            batch.truncate(kept);
            let mut expected = BTreeMap::new();
            for (family, key, value) in writes.iter().take(kept) {
                expected.insert((*family, key.clone()), value.clone().map(String::into_bytes));
            }
            batch.settle();
            let expected: Vec<_> =
                expected.into_iter().map(|((family, key), value)| (10 + family as u32, key, value)).collect();
            prop_assert_eq!(decoded(&batch.for_rocksdb()), expected);
            let mut last: Vec<_> = batch.last_writes().map(|write| (10 + write.family as u32, write.key.to_vec())).collect();
            last.sort();
            prop_assert!(last.iter().eq(decoded(&batch.for_rocksdb()).iter().map(|(family, key, _)| (*family, key.clone())).collect::<Vec<_>>().iter()));
        }
    }
}
