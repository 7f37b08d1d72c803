//! Raw records of a slot, as a migration copies them: read from a live generation, written into a staged one.

use rocksdb::{ReadOptions, WriteBatch, WriteOptions};
use sluice_topology::Slot;

use super::{
    EngineError, Generation,
    contents::{COLLECTIONS, KEYS},
    database::Engine,
    families::Family,
    layout::{PREFIX_LEN, encode_key, prefix, prefix_end, split_prefix},
    raw_batch,
};

/// The family of a raw record, by a byte that both ends of a migration agree on. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFamily(Family);

impl RawFamily {
    /// Every family that a migration copies.
    pub const ALL: [Self; 4] = [Self(Family::Meta), Self(Family::Data), Self(Family::Score), Self(Family::Stream)];

    /// The raw form of a family.
    pub(crate) fn of(family: Family) -> Self {
        Self(family)
    }

    /// Its byte on the wire.
    pub fn to_byte(self) -> u8 {
        match self.0 {
            Family::Meta => 0,
            Family::Data => 1,
            Family::Score => 2,
            Family::Stream => 3,
            Family::System => u8::MAX,
        }
    }

    /// The family of that byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.to_byte() == byte)
    }
}

/// A record without slot and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Its family.
    pub family: RawFamily,
    /// Its slot.
    pub slot: Slot,
    /// Its key behind the prefix.
    pub key: &'a [u8],
    /// Its value as stored.
    pub value: &'a [u8],
}

impl Engine {
    /// Calls `each` for every record of a slot's live generation, family by family in key order; stops at its first error.
    pub fn raw_records<E: From<EngineError>>(
        &self,
        slot: Slot,
        mut each: impl FnMut(RawRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let live = self.live(slot);
        for family in RawFamily::ALL {
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(prefix_end(slot, live).to_vec());
            options.fill_cache(false);
            let mut iterator = self.database().db().raw_iterator_cf_opt(self.database().family(family.0), options);
            iterator.seek(prefix(slot, live));
            while let Some((key, value)) = iterator.item() {
                each(RawRecord { family, slot, key: &key[PREFIX_LEN..], value })?;
                iterator.next();
            }
            iterator.status().map_err(EngineError::from)?;
        }
        Ok(())
    }

    /// Writes records into staged generations, in one batch, through the write-ahead log in every mode. Not yet durable.
    pub fn put_staged<'a>(&self, records: impl IntoIterator<Item = (Generation, RawRecord<'a>)>) -> Result<(), EngineError> {
        // Inside the gate: what is aborted meanwhile is not given back under this write.
        let _inside = self.enter();
        self.admit_write(false)?;
        let (mut batch, mut stored) = (WriteBatch::default(), Vec::new());
        for (generation, record) in records {
            encode_key(&mut stored, record.slot, generation, record.key);
            let marks = if record.family.0 == Family::Meta { KEYS } else { KEYS | COLLECTIONS };
            self.contents().mark(record.slot, marks);
            batch.put_cf(self.database().family(record.family.0), &stored, record.value);
        }
        self.write_raw(batch)
    }

    /// The one place where what came from outside is applied: a batch with anything in it but puts and deletions of single keys in
    /// staged generations is refused as a whole. The caller is inside the gate.
    fn write_raw(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let database = self.database();
        let family = |number| Family::USER.into_iter().find(|family| database.family_id(*family) == number);
        let staged = |prefix| split_prefix(prefix).is_some_and(|(slot, generation)| self.table().is_staged(slot, generation));
        raw_batch::check(batch.data(), family, staged)?;
        database.write(batch, &WriteOptions::default())
    }

    /// Makes everything in the write-ahead log durable, whatever the sync policy.
    pub fn sync_log(&self) -> Result<(), EngineError> {
        Ok(self.database().db().flush_wal(true)?)
    }
}
