//! Reading slots in key order.

use std::ops::ControlFlow;

use rocksdb::ReadOptions;
use sluice_topology::Slot;

use super::{
    EngineError, Home, Overlay, Record,
    contents::COLLECTIONS,
    database::Engine,
    families::Family,
    layout::{PREFIX_LEN, prefix, prefix_end},
    merged::go_over,
};

/// A key met by a scan.
pub struct StoredKey<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Its record, expired or not.
    pub record: Record<'a>,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotUsage {
    /// Keys that have not expired.
    pub keys: u64,
    /// Of these, keys with an expiry.
    pub expiring: u64,
    /// Bytes of keys and values, before compression.
    pub bytes: u64,
}

impl Engine {
    /// Calls `each` for the keys of a slot, in order, from the first one after `after`; until `each` breaks or the slot ends.
    pub fn scan_slot(
        &self,
        home: impl Into<Home>,
        after: Option<&[u8]>,
        each: impl FnMut(StoredKey<'_>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.scan_slot_seen(home.into(), after, &Overlay::default(), each)
    }

    /// The same, with what a writer has gathered in the place of what is stored.
    pub fn scan_slot_seen(
        &self,
        home: Home,
        after: Option<&[u8]>,
        gathered: &Overlay,
        mut each: impl FnMut(StoredKey<'_>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let (slot, live) = (home.slot, self.live(home));
        let (mut from, to) = (prefix(slot, live).to_vec(), prefix_end(slot, live));
        if let Some(after) = after {
            from.extend_from_slice(after);
            // The next possible key: the same with a zero byte behind it.
            from.push(0);
        }
        let gathered = gathered.between(&from, &to);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to.to_vec());
        options.fill_cache(false);
        let iterator = self.database().db().raw_iterator_cf_opt(self.database().family(Family::Meta), options);
        let mut damage = None;
        go_over(iterator, PREFIX_LEN, false, &gathered, |key, value| match Record::decode(value) {
            Ok(record) => each(StoredKey { key, record }),
            Err(error) => {
                damage = Some(EngineError::Damaged(error.to_string()));
                ControlFlow::Break(())
            }
        })?;
        damage.map_or(Ok(()), Err)
    }

    /// The first slot from `from` on that holds a record in a database, or of which a writer has gathered one.
    pub fn next_slot_seen(&self, database: u8, from: Slot, gathered: &Overlay) -> Result<Option<Slot>, EngineError> {
        let stored = self.next_held_slot(database, from)?;
        Ok(stored.into_iter().chain(self.next_gathered_slot(database, from, gathered)).min())
    }

    /// The first slot from `from` on that holds a record in a database, expired or not: one seek a slot that is not empty.
    fn next_held_slot(&self, database: u8, from: Slot) -> Result<Option<Slot>, EngineError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut iterator = self.database().db().raw_iterator_cf_opt(self.database().family(Family::Meta), options);
        let live = |slot| self.live(Home { database, slot });
        let mut slot = from;
        loop {
            iterator.seek(prefix(slot, live(slot)));
            let Some(key) = iterator.key() else {
                iterator.status()?;
                return Ok(None);
            };
            let Some(found) = key.first_chunk::<2>().and_then(|bytes| Slot::new(u16::from_be_bytes(*bytes))) else {
                return Ok(None);
            };
            if key.starts_with(&prefix(found, live(found))) {
                return Ok(Some(found));
            }
            // A staged or dead generation: if it is below the live one, look there, else go on to the next slot.
            if found > slot && key < prefix(found, live(found)).as_slice() {
                slot = found;
            } else {
                match Slot::new(found.get() + 1) {
                    Some(next) => slot = next,
                    None => return Ok(None),
                }
            }
        }
    }

    /// Counts what a slot holds. Costs a scan of its keys.
    pub fn slot_usage(&self, home: impl Into<Home>, now_ms: u64) -> Result<SlotUsage, EngineError> {
        let home = home.into();
        let mut usage = SlotUsage::default();
        self.scan_slot(home, None, |entry| {
            if !entry.record.is_expired(now_ms) {
                usage.keys += 1;
                usage.expiring += u64::from(entry.record.expires_at_ms.is_some());
                usage.bytes += (entry.key.len() + entry.record.value.len()) as u64;
            }
            ControlFlow::Continue(())
        })?;
        if self.contents().may_hold(home, COLLECTIONS) {
            usage.bytes += self.subkey_bytes(home)?;
        }
        Ok(usage)
    }

    /// Bytes of subkeys and their values, those of collections included that are gone and not yet worked off.
    fn subkey_bytes(&self, home: Home) -> Result<u64, EngineError> {
        let (slot, live, mut bytes) = (home.slot, self.live(home), 0);
        for family in [Family::Data, Family::Score, Family::Stream] {
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(prefix_end(slot, live).to_vec());
            options.fill_cache(false);
            let mut iterator = self.database().db().raw_iterator_cf_opt(self.database().family(family), options);
            iterator.seek(prefix(slot, live));
            while let Some((key, value)) = iterator.item() {
                bytes += (key.len() - PREFIX_LEN + value.len()) as u64;
                iterator.next();
            }
            iterator.status()?;
        }
        Ok(bytes)
    }
}
