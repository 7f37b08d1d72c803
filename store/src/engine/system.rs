//! Records of the `system` family. Always written with a synced WAL; they may rely only on data that is already durable.

use sluice_topology::Slot;

use rocksdb::WriteBatch;

use super::{
    EngineError, Generation, Home,
    database::Engine,
    families::Family,
    raw::{Database, Handle},
};

/// What a system record is: the first byte of its key. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SystemKind {
    /// Node id, instance id.
    Identity = b'I',
    /// A row of the slot table: `database (u8) · slot (u16)`.
    SlotRow = b'S',
    /// A dead generation whose keys are still to be deleted: `database (u8) · slot (u16) · generation (u32)`.
    Dead = b'D',
    /// Left by a shutdown in order.
    Clean = b'C',
    /// Owner and epoch of a slot: `slot (u16)`.
    Ownership = b'O',
    /// The last topology document, without its slots, and the node's place in the cluster.
    Topology = b'T',
    /// A migration unit, at its source.
    MigrationSource = b'M',
    /// A migration unit, at its target.
    MigrationTarget = b'N',
    /// A migration job that has not ended: its number.
    MigrationJob = b'J',
    /// Counters of the migration journal.
    MigrationCounter = b'K',
    /// Left by a shutdown in order: when something in a slot expires.
    Expiries = b'E',
    /// A library of functions: its name, and its code as the value.
    Function = b'F',
    /// Key versions reserved: everything below it may have been given out.
    Versions = b'V',
}

/// Keys without their kind byte, and values.
pub type SystemRecords = Vec<(Vec<u8>, Vec<u8>)>;

/// Writes of system records, applied together or not at all.
#[derive(Default)]
pub struct SystemBatch(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl SystemBatch {
    /// Nothing to write.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record.
    pub fn put(&mut self, kind: SystemKind, key: &[u8], value: Vec<u8>) {
        self.0.push((system_key(kind, key), Some(value)));
    }

    /// Removes a record.
    pub fn delete(&mut self, kind: SystemKind, key: &[u8]) {
        self.0.push((system_key(kind, key), None));
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds another one's writes behind its own.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Adds its writes to a batch of the whole database.
    pub(super) fn append_to(self, batch: &mut WriteBatch, family: Handle) {
        for (key, value) in self.0 {
            match value {
                Some(value) => batch.put_cf(&family, key, value),
                None => batch.delete_cf(&family, key),
            }
        }
    }
}

fn system_key(kind: SystemKind, key: &[u8]) -> Vec<u8> {
    let mut full = vec![kind as u8];
    full.extend_from_slice(key);
    full
}

/// The key of a slot's row in a database.
pub(super) fn slot_row_key(home: Home) -> Vec<u8> {
    let [a, b] = home.slot.get().to_be_bytes();
    vec![home.database, a, b]
}

/// The place that such a key names.
pub(super) fn split_slot_row_key(key: &[u8]) -> Option<Home> {
    let [database, a, b] = key.try_into().ok()?;
    Some(Home { database, slot: Slot::new(u16::from_be_bytes([a, b]))? })
}

/// The key of a dead generation: of whatever database it was, no other of its slot has had it.
pub(super) fn dead_key(slot: Slot, generation: Generation) -> Vec<u8> {
    let mut key = slot_row_key(slot.into());
    key.extend_from_slice(&generation.0.to_be_bytes());
    key
}

/// The generation that such a key names.
pub(super) fn split_dead_key(key: &[u8]) -> Result<(Slot, Generation), EngineError> {
    let named = match key {
        [0, s0, s1, g0, g1, g2, g3] => {
            let generation = Generation(u32::from_be_bytes([*g0, *g1, *g2, *g3]));
            Slot::new(u16::from_be_bytes([*s0, *s1])).map(|slot| (slot, generation))
        }
        _ => None,
    };
    named.ok_or_else(|| EngineError::Damaged("the record of a dead generation has a key that names none".into()))
}

/// Every record of a kind.
pub(super) fn read_all(database: &Database, kind: SystemKind) -> Result<SystemRecords, EngineError> {
    let mut found = Vec::new();
    let mut iterator = database.db().raw_iterator_cf(database.family(Family::System));
    iterator.seek([kind as u8]);
    while let Some((key, value)) = iterator.item() {
        if key.first() != Some(&(kind as u8)) {
            break;
        }
        found.push((key[1..].to_vec(), value.to_vec()));
        iterator.next();
    }
    iterator.status()?;
    Ok(found)
}

/// One record, by its kind and key.
pub(super) fn read_one(database: &Database, kind: SystemKind, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    Ok(database.db().get_cf(database.family(Family::System), system_key(kind, key))?)
}

/// Writes records durably.
pub(super) fn write(database: &Database, records: SystemBatch) -> Result<(), EngineError> {
    let mut batch = WriteBatch::default();
    records.append_to(&mut batch, *database.family(Family::System));
    database.write_durably(batch)
}

impl Engine {
    /// Every system record of a kind.
    pub fn system_records(&self, kind: SystemKind) -> Result<SystemRecords, EngineError> {
        read_all(self.database(), kind)
    }

    /// One system record.
    pub fn system_record(&self, kind: SystemKind, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        read_one(self.database(), kind, key)
    }

    /// Writes system records; durable on return.
    pub fn write_system(&self, records: SystemBatch) -> Result<(), EngineError> {
        write(self.database(), records)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_of_dead_generations_round_trip(slot in 0u16..16384, generation in any::<u32>()) {
            let (slot, generation) = (Slot::new(slot).unwrap(), Generation(generation));
            let key = dead_key(slot, generation);
            prop_assert_eq!(split_dead_key(&key).unwrap(), (slot, generation));
            prop_assert!(key.starts_with(&slot_row_key(slot.into())));
            prop_assert!(split_dead_key(&key[..6]).is_err());
            prop_assert!(split_dead_key(&[&key[..], b"x"].concat()).is_err());
        }

        #[test]
        fn any_key_names_a_dead_generation_or_is_damage(key in proptest::collection::vec(any::<u8>(), 0..9)) {
            if let Ok((slot, generation)) = split_dead_key(&key) {
                prop_assert_eq!(dead_key(slot, generation), key);
            }
        }
    }
}
