//! Changes of generations: drop, flush, stage, activate, abort. Each is one small durable write, whatever the slots hold.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;
use sluice_topology::Slot;

use super::{
    EngineError, Generation,
    database::Engine,
    families::Family,
    layout::{prefix, prefix_end},
    slot_table::Change,
    system::{SystemBatch, SystemKind, dead_key, durable, slot_row_key},
};

impl Engine {
    /// Allocates a generation in each of those slots that nobody can see, together with `records`.
    pub fn stage(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        records: impl FnOnce(&BTreeMap<Slot, Generation>) -> SystemBatch,
    ) -> Result<BTreeMap<Slot, Generation>, EngineError> {
        self.change(slots.into_iter().map(|slot| (slot, Change::Stage)), records)
    }

    /// Makes staged generations live, together with `records`, in one durable write.
    pub fn activate(&self, staged: &BTreeMap<Slot, Generation>, records: SystemBatch) -> Result<(), EngineError> {
        let fresh = self.change(staged.iter().map(|(slot, generation)| (*slot, Change::Activate(*generation))), |_| records)?;
        // What came with them is not known: it is looked for.
        fresh.keys().for_each(|slot| self.expiries().note(*slot, 0));
        self.reclaimer().activated(fresh.into_keys());
        Ok(())
    }

    /// Gives staged generations up, together with `records`.
    pub fn abort(&self, staged: &BTreeMap<Slot, Generation>, records: SystemBatch) -> Result<(), EngineError> {
        self.change(staged.iter().map(|(slot, generation)| (*slot, Change::Abort(*generation))), |_| records).map(drop)
    }

    /// Drops all that those slots hold, together with `records`.
    pub fn drop_slots(&self, slots: impl IntoIterator<Item = Slot>, records: SystemBatch) -> Result<(), EngineError> {
        self.change(slots.into_iter().map(|slot| (slot, Change::Drop)), |_| records).map(drop)
    }

    /// Empties those slots: no writer is inside while it happens. Only slots that hold keys are touched.
    pub fn flush_slots(&self, slots: impl Iterator<Item = Slot>) -> Result<(), EngineError> {
        let _stripes = self.stripes().lock_all();
        let mut held = Vec::new();
        for slot in slots {
            if self.holds_keys(slot)? {
                held.push(slot);
            }
        }
        self.drop_slots(held, SystemBatch::new())
    }

    /// Whether the slot's live generation holds any record, expired ones included.
    pub fn holds_keys(&self, slot: Slot) -> Result<bool, EngineError> {
        let live = self.live(slot);
        for family in Family::USER {
            let mut options = rocksdb::ReadOptions::default();
            options.set_iterate_upper_bound(prefix_end(slot, live).to_vec());
            let mut iterator = self.database().db().raw_iterator_cf_opt(self.database().family(family), options);
            iterator.seek(prefix(slot, live));
            iterator.status()?;
            if iterator.valid() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Applies changes: rows first on disk, then in sight; what died is handed to the reclaimer.
    fn change(
        &self,
        changes: impl Iterator<Item = (Slot, Change)>,
        records: impl FnOnce(&BTreeMap<Slot, Generation>) -> SystemBatch,
    ) -> Result<BTreeMap<Slot, Generation>, EngineError> {
        let mut rows = self.table().rows();
        let (mut batch, mut system) = (WriteBatch::default(), SystemBatch::new());
        let (mut changed, mut fresh, mut dead) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (slot, change) in changes {
            let mut row = rows[slot.index()].clone();
            let outcome = row.apply(slot, change)?;
            system.put(SystemKind::SlotRow, &slot_row_key(slot), row.encode());
            if let Some(generation) = outcome.dead {
                system.put(SystemKind::Dead, &dead_key(slot, generation), Vec::new());
                dead.push((slot, generation));
            }
            fresh.extend(outcome.fresh.map(|generation| (slot, generation)));
            changed.push((slot, row));
        }
        let family = *self.database().family(Family::System);
        system.append_to(&mut batch, family);
        records(&fresh).append_to(&mut batch, family);
        self.database().write(batch, &durable())?;
        for (slot, row) in changed {
            self.table().publish(&mut rows, slot, row);
        }
        drop(rows);
        self.reclaimer().add(dead);
        Ok(fresh)
    }
}
