//! Changes of generations: drop, flush, stage, activate, abort. Each is one small durable write, whatever the slots hold.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;
use sluice_topology::Slot;

use super::{
    EngineError, Generation, Home,
    contents::KEYS,
    database::Engine,
    families::Family,
    slot_table::Change,
    system::{SystemBatch, SystemKind, dead_key, slot_row_key},
};

impl Engine {
    /// Allocates a generation in each of those slots that nobody can see, together with `records`.
    pub fn stage(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        records: impl FnOnce(&BTreeMap<Slot, Generation>) -> SystemBatch,
    ) -> Result<BTreeMap<Slot, Generation>, EngineError> {
        self.change(slots.into_iter().map(|slot| (slot.into(), Change::Stage)), records)
    }

    /// Makes staged generations live, together with `records`, in one durable write.
    pub fn activate(&self, staged: &BTreeMap<Slot, Generation>, records: SystemBatch) -> Result<(), EngineError> {
        let fresh =
            self.change(staged.iter().map(|(slot, generation)| ((*slot).into(), Change::Activate(*generation))), |_| records)?;
        // Which reclaim records came with them is not known: they are looked for. When something expires was noted as it came.
        self.reclaimer().activated(fresh.into_keys());
        Ok(())
    }

    /// Gives staged generations up, together with `records`.
    pub fn abort(&self, staged: &BTreeMap<Slot, Generation>, records: SystemBatch) -> Result<(), EngineError> {
        self.change(staged.iter().map(|(slot, generation)| ((*slot).into(), Change::Abort(*generation))), |_| records).map(drop)
    }

    /// Drops all that those slots hold, together with `records`.
    pub fn drop_slots(&self, slots: impl IntoIterator<Item = Slot>, records: SystemBatch) -> Result<(), EngineError> {
        self.change(slots.into_iter().map(|slot| (slot.into(), Change::Drop)), |_| records).map(drop)
    }

    /// Empties those slots of those databases as one change: no writer is inside while it happens, and none that `may` forbids. `may` is
    /// asked when writers are out, inside the gate; false changes nothing. Only slots that hold keys are touched. Blocks the thread,
    /// which must not be inside.
    pub fn flush_slots(
        &self,
        databases: &[u8],
        slots: impl Iterator<Item = Slot>,
        may: impl FnOnce() -> bool,
    ) -> Result<bool, EngineError> {
        let homes = slots.flat_map(|slot| databases.iter().map(move |database| Home { database: *database, slot }));
        self.exclusively(may, || {
            let held = homes.filter(|home| self.contents().may_hold(*home, KEYS)).map(|home| (home, Change::Drop));
            self.change(held, |_| SystemBatch::new()).map(drop)
        })
    }

    /// Exchanges what two databases hold, as one change, like [`Engine::flush_slots`].
    pub fn swap_databases(&self, one: u8, other: u8, may: impl FnOnce() -> bool) -> Result<bool, EngineError> {
        self.open_database(one)?;
        self.open_database(other)?;
        self.exclusively(may, || {
            if one == other {
                return Ok(());
            }
            let mut rows = self.table().rows();
            let (mut batch, mut system, mut changed) = (WriteBatch::default(), SystemBatch::new(), Vec::new());
            for slot in Slot::all() {
                let (left, right) = (Home { database: one, slot }, Home { database: other, slot });
                let (mut a, mut b) = (rows.row(left), rows.row(right));
                std::mem::swap(&mut a.live, &mut b.live);
                for (home, row) in [(left, a), (right, b)] {
                    system.put(SystemKind::SlotRow, &slot_row_key(home), row.encode());
                    changed.push((home, row));
                }
                self.contents().join(left, right);
            }
            system.append_to(&mut batch, *self.database().family(Family::System));
            self.database().write_durably(batch)?;
            self.table().publish(&mut rows, changed);
            Ok(())
        })
    }

    /// Gives a database its generations, unless it has them: one durable write in its life.
    pub fn open_database(&self, database: u8) -> Result<(), EngineError> {
        if self.table().rows().has(database) {
            return Ok(());
        }
        self.admit_write(false)?;
        let homes = Slot::all().map(|slot| Home { database, slot });
        self.change(homes.map(|home| (home, Change::Open)), |_| SystemBatch::new()).map(drop)
    }

    /// The databases that were ever opened.
    pub fn databases(&self) -> Vec<u8> {
        self.table().databases().collect()
    }

    /// Does something while no writer is inside.
    fn exclusively(
        &self,
        may: impl FnOnce() -> bool,
        change: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<bool, EngineError> {
        let _excluded = self.gate().exclude_writers();
        let _inside = self.enter();
        // On a full disk this is what gives space back: only the end of the process forbids it.
        if self.closing() {
            return Err(EngineError::Closed);
        }
        if !may() {
            return Ok(false);
        }
        change()?;
        Ok(true)
    }

    /// Applies changes: rows first on disk, then in sight; what died is handed to the reclaimer.
    fn change(
        &self,
        changes: impl Iterator<Item = (Home, Change)>,
        records: impl FnOnce(&BTreeMap<Slot, Generation>) -> SystemBatch,
    ) -> Result<BTreeMap<Slot, Generation>, EngineError> {
        let mut rows = self.table().rows();
        let (mut batch, mut system) = (WriteBatch::default(), SystemBatch::new());
        let (mut changed, mut fresh, mut dead) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut given: BTreeMap<Slot, Generation> = BTreeMap::new();
        for (home, change) in changes {
            let slot = home.slot;
            let mut row = rows.row(home);
            if change == Change::Open && rows.has(home.database) {
                continue;
            }
            // Another database of this slot may have been given one a moment ago.
            row.highest = row.highest.max(given.get(&slot).copied().unwrap_or(row.highest));
            let outcome = row.apply(slot, change)?;
            given.insert(slot, row.highest);
            system.put(SystemKind::SlotRow, &slot_row_key(home), row.encode());
            let marks = match change {
                Change::Abort(_) => self.contents().staged(home),
                _ => self.contents().live(home),
            };
            // One in which nothing ever was leaves nothing to give back.
            if let Some(generation) = outcome.dead.filter(|_| marks != 0) {
                system.put(SystemKind::Dead, &dead_key(slot, generation), Vec::new());
                dead.push((slot, generation, marks));
            }
            fresh.extend(outcome.fresh.map(|generation| (slot, generation)));
            changed.push((home, row, change));
        }
        let own = records(&fresh);
        if changed.is_empty() && own.is_empty() {
            return Ok(fresh);
        }
        let family = *self.database().family(Family::System);
        system.append_to(&mut batch, family);
        own.append_to(&mut batch, family);
        self.database().write_durably(batch)?;
        // Whoever follows the changes of a slot follows database 0.
        let live: Vec<(Slot, Generation)> = changed
            .iter()
            .filter(|(home, row, _)| home.database == 0 && row.live != rows.row(*home).live)
            .map(|(home, row, _)| (home.slot, row.live))
            .collect();
        for (home, row, change) in &changed {
            match change {
                Change::Drop => self.contents().clear(*home),
                Change::Activate(_) => self.contents().activate(*home, !row.staged.is_empty()),
                Change::Abort(_) if row.staged.is_empty() => self.contents().clear_staged(*home),
                Change::Abort(_) | Change::Stage | Change::Open => {}
            }
        }
        self.table().publish(&mut rows, changed.into_iter().map(|(home, row, _)| (home, row)).collect());
        self.feed().publish_generations(live.into_iter());
        drop(rows);
        self.reclaimer().add(dead);
        Ok(fresh)
    }
}
