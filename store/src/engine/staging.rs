//! Raw records of slots, as a migration copies them: read from live generations at one moment, written into staged ones.

use rocksdb::{Range, ReadOptions, WriteBatch, WriteOptions};
use sluice_topology::{Slot, SlotRanges};

use super::{
    ChangedKey, EngineError, Generation, Record,
    contents::marks_of,
    database::Engine,
    families::Family,
    layout::{PREFIX_LEN, behind_slot, encode_key, prefix, prefix_end, split_prefix},
    raw_batch,
};

/// The family of a raw record, by a byte that both ends of a migration agree on. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFamily(pub(super) Family);

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

/// Bytes that RocksDB reads ahead of a scan of whole slots.
const READ_AHEAD: usize = 2 << 20;

/// A record without its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Its family.
    pub family: RawFamily,
    /// Its slot.
    pub slot: Slot,
    /// Its key behind the prefix.
    pub key: &'a [u8],
    /// Its value as stored; `None`: there is none (any more).
    pub value: Option<&'a [u8]>,
}

impl Engine {
    /// Calls `each` for every record of those slots' live generations as of one moment: family by family, in the order of slots and
    /// keys, so that what is written down as it comes is sorted. Stops at the first error of `each`. The caller is a long reader.
    pub fn raw_records<E: From<EngineError>>(
        &self,
        slots: &SlotRanges,
        mut each: impl FnMut(RawRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let database = self.database();
        let snapshot = database.db().snapshot();
        let live: Vec<(Slot, Generation)> = slots.iter().map(|slot| (slot, self.live(slot))).collect();
        let Some((last, generation)) = live.last() else { return Ok(()) };
        let end = prefix_end(*last, *generation);
        for family in RawFamily::ALL {
            let held: Vec<_> = live.iter().filter(|(slot, _)| self.contents().may_hold(*slot, marks_of(family.0))).collect();
            if held.is_empty() {
                continue;
            }
            // One iterator for all of them, so that what is read ahead behind one slot is there for the next.
            let mut options = ReadOptions::default();
            options.set_snapshot(&snapshot);
            options.set_iterate_upper_bound(end.to_vec());
            options.fill_cache(false);
            options.set_readahead_size(READ_AHEAD);
            let mut iterator = database.db().raw_iterator_cf_opt(database.family(family.0), options);
            for (slot, live) in held {
                let (begin, end) = (prefix(*slot, *live), prefix_end(*slot, *live));
                // It may stand there already, or behind all of this slot.
                match iterator.key() {
                    Some(key) if key >= &end[..] => continue,
                    Some(key) if key >= &begin[..] => {}
                    _ => iterator.seek(begin),
                }
                while let Some((key, value)) = iterator.item().filter(|(key, _)| key.first_chunk() == Some(&begin)) {
                    each(RawRecord { family, slot: *slot, key: &key[PREFIX_LEN..], value: Some(value) })?;
                    iterator.next();
                }
                // Nothing is behind it, or it could not be read: the next seek would forget which.
                if !iterator.valid() {
                    iterator.status().map_err(EngineError::from)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with those keys as they are now, a key that is gone without a value. Stops at the first error of `each`.
    pub fn raw_now<E: From<EngineError>>(
        &self,
        keys: &[ChangedKey],
        mut each: impl FnMut(RawRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let database = self.database();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for key in keys {
            let (Some(family), Some(slot)) = (key.family(), key.slot()) else { continue };
            let value =
                database.db().get_pinned_cf_opt(database.family(family.0), key.stored(), &options).map_err(EngineError::from)?;
            each(RawRecord { family, slot, key: key.key(), value: value.as_deref() })?;
        }
        Ok(())
    }

    /// About how many bytes each of those slots has in files, from its live generation on, as compressed as they are. Reads indexes alone.
    pub fn approximate_bytes(&self, slots: &SlotRanges) -> Vec<(Slot, u64)> {
        let bounds: Vec<_> = slots
            .iter()
            .map(|slot| (self.live(slot), slot))
            // Not to the end of the generation: an index does not tell that from where the slot's last block begins.
            .map(|(live, slot)| (slot, prefix(slot, live), behind_slot(slot)))
            .collect();
        let mut sizes: Vec<(Slot, u64)> = bounds.iter().map(|(slot, ..)| (*slot, 0)).collect();
        for family in RawFamily::ALL {
            let held: Vec<usize> =
                (0..bounds.len()).filter(|at| self.contents().may_hold(bounds[*at].0, marks_of(family.0))).collect();
            let ranges: Vec<Range<'_>> = held.iter().map(|at| Range::new(&bounds[*at].1, &bounds[*at].2)).collect();
            if ranges.is_empty() {
                continue;
            }
            let found = self.database().db().get_approximate_sizes_cf(self.database().family(family.0), &ranges);
            held.iter().zip(found).for_each(|(at, bytes)| sizes[*at].1 += bytes);
        }
        sizes
    }

    /// Writes records as `fill` gives them to its argument, each with its staged generation, in one batch, through the write-ahead log in
    /// every mode. Not yet durable.
    pub fn put_staged<E: From<EngineError>>(
        &self,
        fill: impl FnOnce(&mut dyn FnMut(Generation, RawRecord<'_>) -> Result<(), E>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Inside the gate: what is aborted meanwhile is not given back under this write.
        let _inside = self.enter();
        self.admit_write(false)?;
        let (mut batch, mut stored) = (WriteBatch::default(), Vec::new());
        fill(&mut |generation, record| {
            encode_key(&mut stored, record.slot, generation, record.key);
            let family = self.database().family(record.family.0);
            match record.value {
                Some(value) => {
                    self.contents().mark_staged(record.slot, marks_of(record.family.0));
                    self.note_staged_expiry(&record);
                    batch.put_cf(family, &stored, value);
                }
                None => batch.delete_cf(family, &stored),
            }
            Ok(())
        })?;
        Ok(self.write_raw(batch)?)
    }

    /// Notes when what is staged expires, so that nobody has to look through all of it once it is live.
    pub(super) fn note_staged_expiry(&self, record: &RawRecord<'_>) {
        if let (Family::Meta, Some(value)) = (record.family.0, record.value) {
            let expires_at_ms = match Record::decode(value) {
                Ok(record) => record.expires_at_ms.into_iter().chain(record.members_expire_at_ms()).min(),
                // Whoever looks at it will say what is wrong with it.
                Err(_) => Some(0),
            };
            if let Some(at_ms) = expires_at_ms {
                self.expiries().note(record.slot, at_ms);
            }
        }
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
