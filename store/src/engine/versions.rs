//! Key versions: numbers that tell one life of a collection from the next one under the same name. Unique for ever, not times.
//!
//! A block of them is reserved durably before any is used, so that after whatever crash counting goes on above all that were given out.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{
    EngineError,
    database::Engine,
    families::Family,
    layout::PREFIX_LEN,
    raw::Database,
    sealed::{Opened, Seal},
    system::{self, SystemBatch, SystemKind},
};

/// Versions reserved by one durable write.
const BLOCK: u64 = 1 << 16;

/// Where versions end: the eight bytes `ff` stand for reclaim records in their place.
const END: u64 = u64::MAX;

/// The counter of one engine.
pub(crate) struct Versions {
    database: Arc<Database>,
    /// The next one to give out.
    next: AtomicU64,
    /// The first one that is not reserved on disk.
    reserved: AtomicU64,
    reserving: Mutex<()>,
}

/// The record that reserves every version below `end`.
pub(crate) fn record(end: u64) -> SystemBatch {
    let mut batch = SystemBatch::new();
    batch.put(SystemKind::Versions, b"", encode(end));
    batch
}

pub(super) fn encode(end: u64) -> Vec<u8> {
    Seal::new().u64(end).finish()
}

pub(super) fn decode(bytes: &[u8]) -> Result<u64, EngineError> {
    let mut record = Opened::open("the record of the key versions", bytes)?;
    let end = record.u64()?;
    if end == 0 || !record.rest().is_empty() {
        return Err(EngineError::Damaged("the record of the key versions contradicts itself".into()));
    }
    Ok(end)
}

impl Versions {
    /// Goes on above the block that the last run had reserved.
    pub(crate) fn open(database: Arc<Database>) -> Result<Self, EngineError> {
        let first = match system::read_one(&database, SystemKind::Versions, b"")? {
            Some(bytes) => decode(&bytes)?,
            None if holds_versioned(&database)? => {
                return Err(EngineError::Damaged(
                    "the record of the key versions is missing, and there are keys with versions".into(),
                ));
            }
            // Made before there were versions: none was given out.
            None => 1,
        };
        Ok(Self { database, next: AtomicU64::new(first), reserved: AtomicU64::new(first), reserving: Mutex::new(()) })
    }

    /// A version that was never given out before. Without a lock inside a block; every 65536th waits for an fsync.
    pub(crate) fn next(&self) -> Result<u64, EngineError> {
        let version = self.next.fetch_add(1, Ordering::Relaxed);
        if version >= self.reserved.load(Ordering::Acquire) {
            // A failure leaves a hole: the number is given out to nobody.
            self.reserve_above(version)?;
        }
        Ok(version)
    }

    /// Every version given out so far is below this one.
    pub(crate) fn end(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Gives out only versions above that one from now on, durably.
    pub(crate) fn raise_above(&self, version: u64) -> Result<(), EngineError> {
        if self.end() <= version {
            self.reserve_above(version)?;
            self.next.fetch_max(version + 1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn reserve_above(&self, version: u64) -> Result<(), EngineError> {
        let _one_at_a_time = self.reserving.lock().unwrap_or_else(PoisonError::into_inner);
        if version < self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let end = version.checked_add(1 + BLOCK).filter(|end| *end < END).ok_or(EngineError::VersionsExhausted)?;
        system::write(&self.database, record(end))?;
        self.reserved.store(end, Ordering::Release);
        Ok(())
    }
}

/// Whether any key has a version: what is behind slot and generation outside of `meta` begins with one.
fn holds_versioned(database: &Database) -> Result<bool, EngineError> {
    for family in [Family::Data, Family::Score, Family::Stream] {
        let mut iterator = database.db().raw_iterator_cf(database.family(family));
        iterator.seek_to_first();
        if iterator.key().is_some_and(|key| key.len() > PREFIX_LEN) {
            return Ok(true);
        }
        iterator.status()?;
    }
    Ok(false)
}

impl Engine {
    /// A version for a new collection: never given out before, on this node or by the sources of slots that came here.
    pub fn next_version(&self) -> Result<u64, EngineError> {
        self.versions().next()
    }

    /// Every version this node has given out is below this one. What a target has to raise its own above when a slot arrives.
    pub fn versions_end(&self) -> u64 {
        self.versions().end()
    }

    /// Lets this node give out only versions above that one, durably on return.
    pub fn raise_versions_above(&self, version: u64) -> Result<(), EngineError> {
        self.versions().raise_above(version)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_record_round_trips_and_notices_damage(end in 1u64.., position in 0usize..13, bit in 0u8..8) {
            let mut bytes = encode(end);
            prop_assert_eq!(decode(&bytes).unwrap(), end);
            prop_assert!(decode(&bytes[..position]).is_err());
            bytes[position] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        assert_eq!(encode(0x0102), [1, 0, 0, 0, 0, 0, 0, 1, 2, 0x06, 0x67, 0x50, 0x80]);
        assert!(decode(&encode(0)).is_err(), "nothing reserved is no record");
    }
}
