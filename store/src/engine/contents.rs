//! Which slots may hold keys, and which may hold collections: a flush of everything touches no other slot, and a plain SET in a slot
//! without collections need not look for what it replaces.

use std::sync::atomic::{AtomicU8, Ordering};

use sluice_topology::{SLOT_COUNT, Slot};

use super::{families::Family, raw::Database};

/// Keys of whatever kind.
pub(crate) const KEYS: u8 = 1;
/// Keys that have subkeys.
pub(crate) const COLLECTIONS: u8 = 2;

/// Marks of every slot. A mark may stand where nothing is; it never lacks where something is.
pub(crate) struct Contents(Box<[AtomicU8]>);

impl Contents {
    /// Marks what the database holds, of whatever generation: one seek a family and marked slot. Behind damage everything is marked:
    /// the reads that meet it will say so.
    pub(crate) fn load(database: &Database) -> Self {
        let contents = Self((0..SLOT_COUNT).map(|_| AtomicU8::new(0)).collect());
        for family in Family::USER {
            let marks = if family == Family::Meta { KEYS } else { KEYS | COLLECTIONS };
            let mut iterator = database.db().raw_iterator_cf(database.family(family));
            let mut next = Slot::new(0);
            while let Some(from) = next {
                iterator.seek(from.get().to_be_bytes());
                if iterator.status().is_err() {
                    Slot::all().skip(from.index()).for_each(|slot| contents.mark(slot, marks));
                    break;
                }
                // The engine's own keys are behind those of the last slot.
                let found = iterator.key().and_then(|key| Slot::new(u16::from_be_bytes(*key.first_chunk::<2>()?)));
                next = found.and_then(|slot| {
                    contents.mark(slot, marks);
                    Slot::new(slot.get() + 1)
                });
            }
        }
        contents
    }

    /// Something is about to be written there.
    pub(crate) fn mark(&self, slot: Slot, marks: u8) {
        let stands = &self.0[slot.index()];
        // Looked at first: the line is shared by every thread that writes.
        if stands.load(Ordering::SeqCst) & marks != marks {
            stands.fetch_or(marks, Ordering::SeqCst);
        }
    }

    /// Nothing is there, and nobody writes there now.
    pub(crate) fn clear(&self, slot: Slot) {
        self.0[slot.index()].store(0, Ordering::SeqCst);
    }

    /// Whether all of those marks stand.
    pub(crate) fn may_hold(&self, slot: Slot, marks: u8) -> bool {
        self.0[slot.index()].load(Ordering::SeqCst) & marks == marks
    }
}
