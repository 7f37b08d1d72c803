//! The slot table: for every slot of every database its live generation, the highest it ever had, and those being staged.
//!
//! A row is kept for ever; a missing or damaged row refuses to start; generations only rise. Databases share the generations of a slot, so
//! that a generation belongs to one database; what is staged is of database 0. A database but 0 has rows once it was opened, all of them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use sluice_topology::{SLOT_COUNT, Slot};

use super::{
    EngineError, Generation, Home,
    home::PerHome,
    sealed::{Opened, Seal},
};

/// Most generations of one slot that may be staged at once.
const STAGED_MAX: usize = 16;

/// A slot's row, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotRow {
    pub(crate) live: Generation,
    pub(crate) highest: Generation,
    pub(crate) staged: Vec<Generation>,
}

/// A change of a slot's generations. Each is one small durable write, whatever the slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Allocate a generation that nobody can see yet.
    Stage,
    /// Make a staged generation the live one; the one that was live is dead.
    Activate(Generation),
    /// Give a staged generation up; it is dead.
    Abort(Generation),
    /// Make an empty generation the live one; the one that was live is dead.
    Drop,
    /// Make an empty generation the live one of a database that had none.
    Open,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The generation staged or made live, if one was.
    pub(crate) fresh: Option<Generation>,
    /// The generation that is dead from now on, if one is.
    pub(crate) dead: Option<Generation>,
}

impl SlotRow {
    pub(crate) fn first() -> Self {
        Self { live: Generation::FIRST, highest: Generation::FIRST, staged: Vec::new() }
    }

    /// Applies a change, or says why it cannot be. Pure: nothing is written here.
    pub(crate) fn apply(&mut self, slot: Slot, change: Change) -> Result<Changed, EngineError> {
        let unknown = |generation: Generation| {
            EngineError::Damaged(format!("slot {slot} has no staged generation {}, though its journal says so", generation.0))
        };
        match change {
            Change::Stage => {
                if self.staged.len() >= STAGED_MAX {
                    return Err(EngineError::TooManyStaged(slot.get()));
                }
                let fresh = self.raise(slot)?;
                self.staged.push(fresh);
                Ok(Changed { fresh: Some(fresh), dead: None })
            }
            Change::Activate(generation) => {
                let position = self.staged.iter().position(|g| *g == generation).ok_or_else(|| unknown(generation))?;
                self.staged.remove(position);
                let dead = std::mem::replace(&mut self.live, generation);
                Ok(Changed { fresh: Some(generation), dead: Some(dead) })
            }
            Change::Abort(generation) => {
                let position = self.staged.iter().position(|g| *g == generation).ok_or_else(|| unknown(generation))?;
                self.staged.remove(position);
                Ok(Changed { fresh: None, dead: Some(generation) })
            }
            Change::Drop => {
                let fresh = self.raise(slot)?;
                let dead = std::mem::replace(&mut self.live, fresh);
                Ok(Changed { fresh: Some(fresh), dead: Some(dead) })
            }
            Change::Open => {
                self.live = self.raise(slot)?;
                Ok(Changed { fresh: Some(self.live), dead: None })
            }
        }
    }

    fn raise(&mut self, slot: Slot) -> Result<Generation, EngineError> {
        self.highest = self.highest.next().ok_or(EngineError::GenerationsExhausted(slot.get()))?;
        Ok(self.highest)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let seal = Seal::new().u32(self.highest.0).u32(self.live.0).u8(self.staged.len() as u8);
        self.staged.iter().fold(seal, |seal, generation| seal.u32(generation.0)).finish()
    }

    pub(crate) fn decode(slot: Slot, bytes: &[u8]) -> Result<Self, EngineError> {
        let name = format!("the row of slot {slot}");
        let mut record = Opened::open(&name, bytes)?;
        let (highest, live, count) = (Generation(record.u32()?), Generation(record.u32()?), record.u8()?);
        let staged = (0..count).map(|_| record.u32().map(Generation)).collect::<Result<Vec<_>, _>>()?;
        let sound = record.rest().is_empty()
            && live.0 > 0
            && live <= highest
            && staged.iter().all(|generation| generation.0 > 0 && *generation <= highest && *generation != live);
        if sound { Ok(Self { live, highest, staged }) } else { Err(EngineError::Damaged(format!("{name} contradicts itself"))) }
    }
}

/// The rows, for whoever changes them.
pub(crate) struct Rows {
    databases: BTreeMap<u8, Vec<SlotRow>>,
    /// The highest generation of each slot, in whatever database.
    highest: Vec<Generation>,
}

impl Rows {
    /// Those of database 0, and whatever others have.
    pub(crate) fn new(databases: BTreeMap<u8, Vec<SlotRow>>) -> Self {
        debug_assert!(databases.values().all(|rows| rows.len() == usize::from(SLOT_COUNT)));
        let highest = |slot: Slot| databases.values().map(|rows| rows[slot.index()].highest).max();
        let highest = Slot::all().map(|slot| highest(slot).unwrap_or(Generation::FIRST)).collect();
        Self { databases, highest }
    }

    /// A copy of a row, to be changed: it goes on above what any database of the slot ever had.
    pub(crate) fn row(&self, home: Home) -> SlotRow {
        let highest = self.highest[home.slot.index()];
        match self.databases.get(&home.database) {
            Some(rows) => SlotRow { highest, ..rows[home.slot.index()].clone() },
            None => SlotRow { live: Generation(0), highest, staged: Vec::new() },
        }
    }

    /// Whether a database has rows.
    pub(crate) fn has(&self, database: u8) -> bool {
        self.databases.contains_key(&database)
    }

    /// Whether anything is staged in a slot.
    pub(crate) fn is_staged(&self, slot: Slot) -> bool {
        self.find(slot, |row| !row.staged.is_empty())
    }

    fn find(&self, slot: Slot, is: impl Fn(&SlotRow) -> bool) -> bool {
        self.databases.values().any(|rows| is(&rows[slot.index()]))
    }
}

/// The table in memory. Commands read live generations without a lock; changes are made one at a time, disk first.
pub(crate) struct SlotTable {
    live: PerHome<AtomicU32>,
    rows: Mutex<Rows>,
}

impl SlotTable {
    pub(crate) fn new(rows: Rows) -> Self {
        let live = PerHome::new();
        for (database, rows) in &rows.databases {
            live.open(*database, |slot| AtomicU32::new(rows[slot.index()].live.0));
        }
        Self { live, rows: Mutex::new(rows) }
    }

    /// The generation commands of that place use; 0, in which nothing ever is, in a database that was never opened.
    pub(crate) fn live(&self, home: impl Into<Home>) -> Generation {
        Generation(self.live.get(home.into()).map_or(0, |live| live.load(Ordering::SeqCst)))
    }

    /// The databases that were ever opened.
    pub(crate) fn databases(&self) -> impl Iterator<Item = u8> {
        self.live.open_databases()
    }

    /// The database in which a generation is the live one.
    pub(crate) fn database_of(&self, slot: Slot, generation: Generation) -> Option<u8> {
        self.databases().find(|database| self.live(Home { database: *database, slot }) == generation)
    }

    /// Whether the generation is live or staged.
    pub(crate) fn in_use(&self, slot: Slot, generation: Generation) -> bool {
        self.rows().find(slot, |row| row.live == generation || row.staged.contains(&generation))
    }

    /// Whether the generation is staged.
    pub(crate) fn is_staged(&self, slot: Slot, generation: Generation) -> bool {
        self.rows().find(slot, |row| row.staged.contains(&generation))
    }

    /// Takes the table for a change.
    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows rows that are already on disk to commands; a database that is new comes whole.
    pub(crate) fn publish(&self, rows: &mut MutexGuard<'_, Rows>, changed: Vec<(Home, SlotRow)>) {
        for (home, row) in changed {
            let highest = &mut rows.highest[home.slot.index()];
            *highest = row.highest.max(*highest);
            let empty =
                || Slot::all().map(|_| SlotRow { live: Generation(0), highest: Generation(0), staged: Vec::new() }).collect();
            self.live.open(home.database, |_| AtomicU32::new(0));
            if let Some(live) = self.live.get(home) {
                live.store(row.live.0, Ordering::SeqCst);
            }
            rows.databases.entry(home.database).or_insert_with(empty)[home.slot.index()] = row;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_round_trip_and_notice_damage(
            highest in 1u32.., live in 1u32.., staged in proptest::collection::btree_set(1u32.., 0..STAGED_MAX),
            position in 0usize..14, bit in 0u8..8
        ) {
            let live = Generation(live.min(highest));
            let staged: Vec<Generation> = staged.into_iter().map(|one| Generation(one.min(highest))).filter(|one| *one != live).collect();
            let row = SlotRow { live, highest: Generation(highest), staged };
            let bytes = row.encode();
            prop_assert_eq!(SlotRow::decode(slot(), &bytes).unwrap(), row);
            prop_assert!(SlotRow::decode(slot(), &bytes[..bytes.len() - 1]).is_err());
            let mut spoiled = bytes;
            spoiled[position] ^= 1 << bit;
            prop_assert!(SlotRow::decode(slot(), &spoiled).is_err());
        }
    }

    #[test]
    fn a_row_that_contradicts_itself_is_damage() {
        let rows = [(0, 5, vec![]), (6, 5, vec![]), (2, 5, vec![2]), (2, 5, vec![6]), (2, 5, vec![0])];
        for (live, highest, staged) in rows {
            let staged = staged.into_iter().map(Generation).collect();
            let row = SlotRow { live: Generation(live), highest: Generation(highest), staged };
            assert!(SlotRow::decode(slot(), &row.encode()).is_err(), "{row:?}");
        }
    }

    fn slot() -> Slot {
        Slot::new(7).unwrap()
    }

    #[test]
    fn generations_only_rise_and_the_dead_are_named() {
        let mut row = SlotRow::first();
        let g = |n| Some(Generation(n));
        let steps = [
            (Change::Stage, Changed { fresh: g(2), dead: None }),
            (Change::Stage, Changed { fresh: g(3), dead: None }),
            (Change::Abort(Generation(2)), Changed { fresh: None, dead: g(2) }),
            (Change::Drop, Changed { fresh: g(4), dead: g(1) }),
            (Change::Activate(Generation(3)), Changed { fresh: g(3), dead: g(4) }),
            (Change::Drop, Changed { fresh: g(5), dead: g(3) }),
        ];
        for (change, expected) in steps {
            assert_eq!(row.apply(slot(), change).unwrap(), expected, "{change:?}");
            assert_eq!(SlotRow::decode(slot(), &row.encode()).unwrap(), row);
        }
        assert!(row.apply(slot(), Change::Activate(Generation(2))).is_err());
        assert!(row.apply(slot(), Change::Abort(Generation(5))).is_err());
    }

    #[test]
    fn a_generation_never_wraps() {
        let mut row = SlotRow { live: Generation(u32::MAX), highest: Generation(u32::MAX), staged: vec![] };
        assert!(matches!(row.apply(slot(), Change::Drop), Err(EngineError::GenerationsExhausted(7))));
        assert!(matches!(row.apply(slot(), Change::Stage), Err(EngineError::GenerationsExhausted(7))));
        assert_eq!(row.live, Generation(u32::MAX));
    }

    #[test]
    fn staged_generations_are_bounded() {
        let mut row = SlotRow::first();
        for _ in 0..STAGED_MAX {
            row.apply(slot(), Change::Stage).unwrap();
        }
        assert!(row.apply(slot(), Change::Stage).is_err());
    }
}
