//! Changes of generations: drop, flush, stage, activate, abort. Each is one small durable write, whatever the slots hold.

use std::collections::{BTreeMap, BTreeSet};

use rocksdb::WriteBatch;
use sluice_topology::Slot;

use super::{
    EngineError, Generation,
    contents::KEYS,
    database::Engine,
    families::Family,
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

    /// Empties those slots as one change: no writer is inside while it happens, and none that `may` forbids. `may` is asked when
    /// writers are out, inside the gate; false changes nothing. Only slots that hold keys are touched. Blocks the thread, which must
    /// not be inside.
    pub fn flush_slots(&self, slots: impl Iterator<Item = Slot>, may: impl FnOnce() -> bool) -> Result<bool, EngineError> {
        let _excluded = self.gate().exclude_writers();
        let _inside = self.enter();
        // On a full disk this is what gives space back: only the end of the process forbids it.
        if self.closing() {
            return Err(EngineError::Closed);
        }
        if !may() {
            return Ok(false);
        }
        let held: Vec<Slot> = slots.filter(|slot| self.contents().may_hold(*slot, KEYS)).collect();
        if !held.is_empty() {
            self.drop_slots(held, SystemBatch::new())?;
        }
        Ok(true)
    }

    /// Applies changes: rows first on disk, then in sight; what died is handed to the reclaimer.
    fn change(
        &self,
        changes: impl Iterator<Item = (Slot, Change)>,
        records: impl FnOnce(&BTreeMap<Slot, Generation>) -> SystemBatch,
    ) -> Result<BTreeMap<Slot, Generation>, EngineError> {
        let mut rows = self.table().rows();
        let (mut batch, mut system) = (WriteBatch::default(), SystemBatch::new());
        let (mut changed, mut fresh, mut dead, mut emptied) = (Vec::new(), BTreeMap::new(), Vec::new(), BTreeSet::new());
        for (slot, change) in changes {
            let mut row = rows[slot.index()].clone();
            let outcome = row.apply(slot, change)?;
            system.put(SystemKind::SlotRow, &slot_row_key(slot), row.encode());
            if let Some(generation) = outcome.dead {
                system.put(SystemKind::Dead, &dead_key(slot, generation), Vec::new());
                dead.push((slot, generation));
            }
            fresh.extend(outcome.fresh.map(|generation| (slot, generation)));
            // The fresh live generation is empty; what is staged beside it would not be.
            if change == Change::Drop && row.staged.is_empty() {
                emptied.insert(slot);
            }
            changed.push((slot, row));
        }
        let family = *self.database().family(Family::System);
        system.append_to(&mut batch, family);
        records(&fresh).append_to(&mut batch, family);
        self.database().write(batch, &durable())?;
        let live: Vec<(Slot, Generation)> = changed
            .iter()
            .filter(|(slot, row)| row.live != rows[slot.index()].live)
            .map(|(slot, row)| (*slot, row.live))
            .collect();
        for (slot, row) in changed {
            if emptied.contains(&slot) {
                self.contents().clear(slot);
            }
            self.table().publish(&mut rows, slot, row);
        }
        self.feed().publish_generations(live.into_iter());
        drop(rows);
        self.reclaimer().add(dead);
        Ok(fresh)
    }
}
