//! Reading one key, and committing the writes of one command as one atomic batch.

use std::sync::MutexGuard;

use rocksdb::{DBPinnableSlice, WriteBatch, WriteOptions};
use sluice_topology::Slot;

use super::{EngineError, Record, database::Engine, families::Family, layout::encode_key};

/// A key's record as it was read, without a copy of its bytes.
pub struct Stored<'a>(DBPinnableSlice<'a>);

impl Stored<'_> {
    /// The record.
    pub fn record(&self) -> Result<Record<'_>, EngineError> {
        Record::decode(&self.0).map_err(|error| EngineError::Damaged(error.to_string()))
    }
}

/// One key of a command's batch.
pub enum KeyWrite<'a> {
    /// The key gets this record.
    Put(Slot, &'a [u8], Record<'a>),
    /// The key is gone.
    Delete(Slot, &'a [u8]),
}

/// The stripes a writer holds.
#[must_use]
pub struct Locked<'a>(#[allow(dead_code, reason = "held, not read")] Vec<MutexGuard<'a, ()>>);

/// A batch that was applied. Its reply may have to wait until it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// Everything up to this sequence number has to be durable before the write is.
    pub sequence: u64,
}

impl Engine {
    /// The record of a key in the slot's live generation, expired or not.
    pub fn get(&self, slot: Slot, key: &[u8]) -> Result<Option<Stored<'_>>, EngineError> {
        let mut stored = Vec::with_capacity(6 + key.len());
        encode_key(&mut stored, slot, self.live(slot), key);
        Ok(self.database().db().get_pinned_cf(self.database().family(Family::Meta), stored)?.map(Stored))
    }

    /// Locks the stripes of those keys against other writers.
    pub fn lock(&self, keys: &[(Slot, &[u8])]) -> Locked<'_> {
        Locked(self.stripes().lock(keys))
    }

    /// Applies a command's writes as one batch. The caller is inside the gate and holds the stripes of every key.
    pub fn commit(&self, _locked: &Locked<'_>, writes: &[KeyWrite<'_>]) -> Result<Written, EngineError> {
        self.admit_write(writes.iter().all(|write| matches!(write, KeyWrite::Delete(..))))?;
        let meta = self.database().family(Family::Meta);
        let (mut batch, mut key_bytes, mut record_bytes) = (WriteBatch::default(), Vec::new(), Vec::new());
        for write in writes {
            match write {
                KeyWrite::Put(slot, key, record) => {
                    encode_key(&mut key_bytes, *slot, self.live(*slot), key);
                    record.encode(&mut record_bytes);
                    if let Some(at_ms) = record.expires_at_ms {
                        self.expiries().note(*slot, at_ms);
                    }
                    batch.put_cf(meta, &key_bytes, &record_bytes);
                }
                KeyWrite::Delete(slot, key) => {
                    encode_key(&mut key_bytes, *slot, self.live(*slot), key);
                    batch.delete_cf(meta, &key_bytes);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(!self.options().wal);
        self.database().write(batch, &options)?;
        Ok(Written { sequence: self.database().db().latest_sequence_number() })
    }
}
