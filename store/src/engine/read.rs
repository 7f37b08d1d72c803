//! Point reads.

use super::{
    EngineError, Gathered, Home, Record, Subspace, Writer,
    batch::hash,
    database::Engine,
    families::Family,
    layout::{PREFIX_LEN, prefix, subkey_prefix},
    record_cache::{Cached, NEAR},
};
use std::ops::Deref;

use rocksdb::DBPinnableSlice;

/// Longest stored key that is built without an allocation.
const INLINE_KEY_LEN: usize = 256;

enum Bytes<'a> {
    /// In RocksDB's memory.
    Pinned(DBPinnableSlice<'a>),
    /// In the record cache.
    Cached(Cached),
    /// Where it was read before.
    Again(&'a [u8]),
    /// Gathered by a writer and not yet committed.
    Gathered(Vec<u8>),
}

impl Bytes<'_> {
    fn get(&self) -> &[u8] {
        match self {
            Self::Pinned(slice) => slice,
            Self::Cached(cached) => cached.record(),
            Self::Again(bytes) => bytes,
            Self::Gathered(copy) => copy,
        }
    }
}

/// A key's record as it was read.
pub struct Stored<'a>(Bytes<'a>);

impl<'a> Stored<'a> {
    pub(super) fn pinned(slice: DBPinnableSlice<'a>) -> Self {
        Self(Bytes::Pinned(slice))
    }
}

impl Stored<'_> {
    /// The record.
    pub fn record(&self) -> Result<Record<'_>, EngineError> {
        Record::decode(self.bytes()).map_err(|error| EngineError::Damaged(error.to_string()))
    }

    /// The same, borrowed.
    pub fn again(&self) -> Stored<'_> {
        Stored(Bytes::Again(self.bytes()))
    }

    fn bytes(&self) -> &[u8] {
        self.0.get()
    }
}

/// The value of a subkey as it was read.
pub struct StoredValue<'a>(Bytes<'a>);

impl<'a> StoredValue<'a> {
    pub(super) fn pinned(slice: DBPinnableSlice<'a>) -> Self {
        Self(Bytes::Pinned(slice))
    }
}

impl Deref for StoredValue<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.get()
    }
}

impl Writer {
    /// What was gathered for a key.
    pub fn gathered_record(&self, home: impl Into<Home>, key: &[u8]) -> Gathered<Stored<'static>> {
        self.pending(home.into(), key).map(|bytes| Stored(Bytes::Gathered(bytes.to_vec())))
    }
}

impl Engine {
    /// The record of a key in the live generation of its place, expired or not.
    pub fn get(&self, home: impl Into<Home>, key: &[u8]) -> Result<Option<Stored<'_>>, EngineError> {
        let home = home.into();
        let prefix = prefix(home.slot, self.live(home));
        let parts: [&[u8]; 2] = [&prefix, key];
        let hash = hash(Family::Meta, &parts);
        let ticket = match self.records().get(hash, &parts) {
            Ok(cached) => return Ok(cached.exists().then(|| Stored(Bytes::Cached(cached)))),
            Err(ticket) => ticket,
        };
        let found = with_key(&parts, |stored| {
            self.database().db().get_pinned_cf_opt(self.database().family(Family::Meta), stored, self.read_options())
        })?;
        self.records().fill(hash, &parts, found.as_deref(), ticket);
        Ok(found.map(|slice| Stored(Bytes::Pinned(slice))))
    }

    /// The value of a collection's subkey.
    pub fn get_subkey(&self, space: Subspace, subkey: &[u8]) -> Result<Option<StoredValue<'_>>, EngineError> {
        let begin = subkey_prefix(space.home.slot, self.live(space.home), space.version);
        let parts: [&[u8]; 2] = [&begin, subkey];
        let family = space.family.family();
        let read =
            |stored: &[u8]| self.database().db().get_pinned_cf_opt(self.database().family(family), stored, self.read_options());
        if !Writer::is_cached(family) {
            return Ok(with_key(&parts, read)?.map(|slice| StoredValue(Bytes::Pinned(slice))));
        }
        let hash = hash(family, &parts);
        let ticket = match self.records().get(hash, &parts) {
            Ok(cached) => return Ok(cached.exists().then(|| StoredValue(Bytes::Cached(cached)))),
            Err(ticket) => ticket,
        };
        let found = with_key(&parts, read)?;
        self.records().fill(hash, &parts, found.as_deref(), ticket);
        Ok(found.map(|slice| StoredValue(Bytes::Pinned(slice))))
    }

    /// Whether, and with which values, a collection has those subkeys, as of one moment, by one call into RocksDB.
    pub fn get_subkeys<'k>(
        &self,
        space: Subspace,
        subkeys: impl Iterator<Item = &'k [u8]>,
    ) -> Vec<Result<Option<DBPinnableSlice<'_>>, EngineError>> {
        let begin = subkey_prefix(space.home.slot, self.live(space.home), space.version);
        let stored: Vec<Vec<u8>> = subkeys.map(|subkey| [&begin, subkey].concat()).collect();
        let family = self.database().family(space.family.family());
        let found = self.database().db().batched_multi_get_cf_opt(family, &stored, false, self.read_options());
        found.into_iter().map(|one| Ok(one?)).collect()
    }

    /// The records of several keys, by one call into RocksDB for those that are not cached. Of keys that are to be `together`, the
    /// records are of one moment: they are read past the record cache, which is told of a batch record by record.
    pub fn get_many<'k>(
        &self,
        keys: impl Iterator<Item = (Home, &'k [u8], bool)>,
    ) -> Vec<Result<Option<Stored<'_>>, EngineError>> {
        let (mut found, mut wanted) = (Vec::with_capacity(64), Vec::with_capacity(64));
        let mut bytes = Vec::with_capacity(1024);
        let keys: Vec<([u8; PREFIX_LEN], &[u8], bool, u64)> = keys
            .map(|(home, key, together)| {
                let prefix = prefix(home.slot, self.live(home));
                (prefix, key, together, hash(Family::Meta, &[&prefix, key]))
            })
            .collect();
        for (at, (prefix, key, together, hash)) in keys.iter().enumerate() {
            if at % NEAR == 0 {
                self.records().approach(keys[at..].iter().take(NEAR).map(|(.., hash)| *hash));
            }
            let (parts, together, hash): ([&[u8]; 2], _, _) = ([prefix, key], *together, *hash);
            let ticket = match self.records().get(hash, &parts) {
                Ok(cached) if !together => {
                    found.push(Ok(cached.exists().then(|| Stored(Bytes::Cached(cached)))));
                    continue;
                }
                Ok(_) => None,
                Err(ticket) => Some(ticket),
            };
            let start = bytes.len();
            bytes.extend_from_slice(prefix);
            bytes.extend_from_slice(key);
            wanted.push((found.len(), start..bytes.len(), hash, ticket));
            found.push(Ok(None));
        }
        if wanted.is_empty() {
            return found;
        }
        let stored: Vec<&[u8]> = wanted.iter().map(|(_, range, ..)| &bytes[range.clone()]).collect();
        let meta = self.database().family(Family::Meta);
        let read = self.database().db().batched_multi_get_cf_opt(meta, stored, false, self.read_options());
        for ((at, range, hash, ticket), one) in wanted.into_iter().zip(read) {
            if let (Ok(found), Some(ticket)) = (&one, ticket) {
                self.records().fill(hash, &[&bytes[range]], found.as_deref(), ticket);
            }
            found[at] = one.map(|found| found.map(|slice| Stored(Bytes::Pinned(slice)))).map_err(EngineError::from);
        }
        found
    }
}

/// Calls `read` with a key made of parts, mostly without an allocation.
fn with_key<R>(parts: &[&[u8]], read: impl FnOnce(&[u8]) -> R) -> R {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    debug_assert!(length >= PREFIX_LEN);
    if length > INLINE_KEY_LEN {
        return read(&parts.concat());
    }
    let mut key = [0; INLINE_KEY_LEN];
    let mut end = 0;
    for part in parts {
        key[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    read(&key[..end])
}
