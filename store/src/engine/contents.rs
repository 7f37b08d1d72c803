//! Which slots may hold keys, and which may hold collections: a flush of everything touches no other slot, and a plain SET in a slot
//! without collections need not look for what it replaces. What is staged has marks of its own: they become those of the living with it.

use std::sync::atomic::{AtomicU8, Ordering};

use sluice_topology::Slot;

use super::{Home, families::Family, home::PerHome, raw::Database};

/// Keys of whatever kind.
pub(crate) const KEYS: u8 = 1;
/// Keys that have subkeys.
pub(crate) const COLLECTIONS: u8 = 2;
/// By so much the marks of what is staged are shifted.
const STAGED: u32 = 4;
const LIVE: u8 = (1 << STAGED) - 1;

/// Marks of every slot of every database. A mark may stand where nothing is; it never lacks where something is.
pub(crate) struct Contents(PerHome<AtomicU8>);

impl Contents {
    /// Marks what is held, of whatever generation, in every one of those databases: one seek a family and marked slot. Behind damage
    /// everything is marked: the reads that meet it will say so.
    pub(crate) fn load(database: &Database, databases: impl Iterator<Item = u8>) -> Self {
        let contents = Self(PerHome::new());
        let databases: Vec<u8> = databases.collect();
        let mark = |slot, marks| databases.iter().for_each(|database| contents.mark(Home { database: *database, slot }, marks));
        for family in Family::USER {
            let marks = marks_of(family) | marks_of(family) << STAGED;
            let mut iterator = database.db().raw_iterator_cf(database.family(family));
            let mut next = Slot::new(0);
            while let Some(from) = next {
                iterator.seek(from.get().to_be_bytes());
                if iterator.status().is_err() {
                    Slot::all().skip(from.index()).for_each(|slot| mark(slot, marks));
                    break;
                }
                // The engine's own keys are behind those of the last slot.
                let found = iterator.key().and_then(|key| Slot::new(u16::from_be_bytes(*key.first_chunk::<2>()?)));
                next = found.and_then(|slot| {
                    mark(slot, marks);
                    Slot::new(slot.get() + 1)
                });
            }
        }
        contents
    }

    /// Something is about to be written there.
    pub(crate) fn mark(&self, home: impl Into<Home>, marks: u8) {
        let home = home.into();
        let stands = self.0.get(home).unwrap_or_else(|| &self.0.open(home.database, |_| AtomicU8::new(0))[home.slot.index()]);
        // Looked at first: the line is shared by every thread that writes.
        if stands.load(Ordering::SeqCst) & marks != marks {
            stands.fetch_or(marks, Ordering::SeqCst);
        }
    }

    /// Two places are about to exchange what they hold.
    pub(crate) fn join(&self, one: Home, other: Home) {
        let marks = [one, other].map(|home| self.0.get(home).map_or(0, |marks| marks.load(Ordering::SeqCst)));
        self.mark(one, marks[1]);
        self.mark(other, marks[0]);
    }

    /// Something is about to be staged there.
    pub(crate) fn mark_staged(&self, slot: Slot, marks: u8) {
        self.mark(slot, marks << STAGED);
    }

    /// The live generation is empty, and nobody writes there now.
    pub(crate) fn clear(&self, home: Home) {
        if let Some(marks) = self.0.get(home) {
            marks.fetch_and(!LIVE, Ordering::SeqCst);
        }
    }

    /// What was staged is about to be the live generation, of which nothing stays. `others` are staged beside it.
    pub(crate) fn activate(&self, home: Home, others: bool) {
        if let Some(marks) = self.0.get(home) {
            let after = |stands: u8| Some(stands >> STAGED | if others { stands & !LIVE } else { 0 });
            let _ = marks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, after);
        }
    }

    /// Nothing is staged there any more.
    pub(crate) fn clear_staged(&self, home: Home) {
        if let Some(marks) = self.0.get(home) {
            marks.fetch_and(LIVE, Ordering::SeqCst);
        }
    }

    /// What the live generation may hold.
    pub(crate) fn live(&self, home: Home) -> u8 {
        self.0.get(home).map_or(0, |stands| stands.load(Ordering::SeqCst) & LIVE)
    }

    /// What may be staged there.
    pub(crate) fn staged(&self, home: Home) -> u8 {
        self.0.get(home).map_or(0, |stands| stands.load(Ordering::SeqCst) >> STAGED)
    }

    /// Whether all of those marks stand.
    pub(crate) fn may_hold(&self, home: impl Into<Home>, marks: u8) -> bool {
        self.0.get(home.into()).is_some_and(|stands| stands.load(Ordering::SeqCst) & marks == marks)
    }
}

/// The marks that a key in that family makes.
pub(crate) fn marks_of(family: Family) -> u8 {
    if family == Family::Meta { KEYS } else { KEYS | COLLECTIONS }
}
