//! The compaction filter: gives the space of what is explicitly dead back in passing.
//!
//! It removes keys of generations that were declared reclaimable, and expired strings of live ones; nothing else, and nothing at all
//! before the slot table is loaded. What it does not know it keeps. RocksDB's filters ignore snapshots, so whoever declares a generation
//! reclaimable has first waited for everyone who could read it (see [`super::reclaim`]).

use std::{
    collections::BTreeSet,
    ffi::CStr,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rocksdb::{
    CompactionDecision,
    compaction_filter::CompactionFilter,
    compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory},
};
use sluice_topology::Slot;

use super::{
    Generation, Record,
    clock::Clock,
    families::Family,
    layout::{PREFIX_LEN, prefix, split_prefix},
    slot_table::SlotTable,
};

type Prefix = [u8; PREFIX_LEN];

/// What filters may remove. Shared by the engine and RocksDB's compaction threads.
pub(crate) struct Removable {
    /// Absent while the engine opens: filters then keep everything.
    table: OnceLock<Arc<SlotTable>>,
    clock: Arc<Clock>,
    dead: RwLock<Arc<BTreeSet<Prefix>>>,
    dead_keys: AtomicU64,
    expired_keys: AtomicU64,
}

impl Removable {
    pub(crate) fn new(clock: Arc<Clock>) -> Self {
        let (dead_keys, expired_keys) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { table: OnceLock::new(), clock, dead: RwLock::default(), dead_keys, expired_keys }
    }

    /// The slot table is loaded and the clock has its floor: from now on filters remove.
    pub(crate) fn loaded(&self, table: Arc<SlotTable>) {
        let _ = self.table.set(table);
    }

    /// Declares generations reclaimable: their drop is durable and nobody can read them any more.
    pub(crate) fn declare(&self, dead: impl Iterator<Item = (Slot, Generation)>) {
        let mut set = self.dead.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut set).extend(dead.map(|(slot, generation)| prefix(slot, generation)));
    }

    /// Forgets generations of which nothing is left.
    pub(crate) fn forget(&self, gone: impl Iterator<Item = (Slot, Generation)>) {
        let mut set = self.dead.write().unwrap_or_else(PoisonError::into_inner);
        let set = Arc::make_mut(&mut set);
        for (slot, generation) in gone {
            set.remove(&prefix(slot, generation));
        }
    }

    /// Keys of dead generations that filters have removed since the start.
    pub(crate) fn dead_keys(&self) -> u64 {
        self.dead_keys.load(Ordering::Relaxed)
    }

    /// Expired strings that filters have removed since the start.
    pub(crate) fn expired_keys(&self) -> u64 {
        self.expired_keys.load(Ordering::Relaxed)
    }
}

/// Makes a filter for every compaction of one family.
pub(crate) struct Factory {
    pub(crate) family: Family,
    pub(crate) removable: Arc<Removable>,
}

impl CompactionFilterFactory for Factory {
    type Filter = Filter;

    fn create(&mut self, _: CompactionFilterContext) -> Filter {
        let dead = self.removable.dead.read().unwrap_or_else(PoisonError::into_inner).clone();
        let now_ms = self.removable.clock.now_ms();
        let removable = self.removable.clone();
        Filter { family: self.family, removable, dead, now_ms, last: None, dead_keys: 0, expired_keys: 0 }
    }

    fn name(&self) -> &CStr {
        c"sluice"
    }
}

/// What the keys of one generation may lose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    KeepAll,
    RemoveAll,
    RemoveExpired,
}

/// The filter of one compaction. It judges by what was dead and expired when the compaction began: both only grow.
pub(crate) struct Filter {
    family: Family,
    removable: Arc<Removable>,
    dead: Arc<BTreeSet<Prefix>>,
    now_ms: u64,
    /// Keys come in order: most share the prefix of the one before.
    last: Option<(Prefix, Verdict)>,
    dead_keys: u64,
    expired_keys: u64,
}

impl Filter {
    fn verdict(&self, at: Prefix) -> Verdict {
        let Some(table) = self.removable.table.get() else { return Verdict::KeepAll };
        let Some((slot, generation)) = split_prefix(at) else { return Verdict::KeepAll };
        let live = table.database_of(slot, generation).is_some();
        match self.dead.contains(&at) {
            // A live generation is never declared dead. Should it ever be, its keys are worth more than their space.
            true if live => Verdict::KeepAll,
            true => Verdict::RemoveAll,
            false if live && self.family == Family::Meta => Verdict::RemoveExpired,
            false => Verdict::KeepAll,
        }
    }

    /// Whether a record has expired and is all there is of its key. A collection with subkeys goes with its reclaim record, in a commit.
    fn expired(&self, record: &[u8]) -> bool {
        Record::decode(record).is_ok_and(|record| record.is_expired(self.now_ms) && record.discarded() == Ok(None))
    }
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        let Some(at) = key.first_chunk::<PREFIX_LEN>() else { return CompactionDecision::Keep };
        let verdict = match self.last {
            Some((last, verdict)) if last == *at => verdict,
            _ => self.verdict(*at),
        };
        self.last = Some((*at, verdict));
        match verdict {
            Verdict::RemoveAll => self.dead_keys += 1,
            Verdict::RemoveExpired if self.expired(value) => self.expired_keys += 1,
            Verdict::KeepAll | Verdict::RemoveExpired => return CompactionDecision::Keep,
        }
        CompactionDecision::Remove
    }

    fn name(&self) -> &CStr {
        c"sluice"
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.removable.dead_keys.fetch_add(self.dead_keys, Ordering::Relaxed);
        self.removable.expired_keys.fetch_add(self.expired_keys, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slot_table::{Rows, SlotRow};
    use std::collections::BTreeMap;

    const SLOT: u16 = 7;

    fn key(generation: u32, tail: &[u8]) -> Vec<u8> {
        [&prefix(Slot::new(SLOT).unwrap(), Generation(generation))[..], tail].concat()
    }

    fn table(live: u32, staged: &[u32]) -> Arc<SlotTable> {
        let mut rows: Vec<SlotRow> = Slot::all().map(|_| SlotRow::first()).collect();
        let staged = staged.iter().map(|generation| Generation(*generation)).collect();
        rows[usize::from(SLOT)] = SlotRow { live: Generation(live), highest: Generation(9), staged };
        Arc::new(SlotTable::new(Rows::new(BTreeMap::from([(0, rows)]))))
    }

    fn removes(removable: &Arc<Removable>, family: Family, key: &[u8], value: &[u8]) -> bool {
        let mut filter = Factory { family, removable: removable.clone() }
            .create(CompactionFilterContext { is_full_compaction: false, is_manual_compaction: false });
        matches!(filter.filter(0, key, value), CompactionDecision::Remove)
    }

    #[test]
    fn it_removes_what_is_declared_dead_or_an_expired_string_and_nothing_else() {
        let clock = Arc::new(Clock::new());
        let removable = Arc::new(Removable::new(clock.clone()));
        let slot = Slot::new(SLOT).unwrap();
        let (mut plain, mut expired, mut later) = (Vec::new(), Vec::new(), Vec::new());
        Record::string(b"v", None).encode(&mut plain);
        Record::string(b"v", Some(clock.now_ms() - 1)).encode(&mut expired);
        Record::string(b"v", Some(clock.now_ms() + 3_600_000)).encode(&mut later);
        // Generation 2 is dead, 4 is live, 5 staged, 3 unknown; 4 is declared dead as well, which nobody does.
        removable.declare([(slot, Generation(2)), (slot, Generation(4))].into_iter());
        for generation in 2..6 {
            for value in [&plain, &expired, &b""[..].to_vec()] {
                assert!(!removes(&removable, Family::Meta, &key(generation, b"k"), value), "before the table is loaded");
            }
        }
        removable.loaded(table(4, &[5]));
        let cases: [(Family, Vec<u8>, &[u8], bool); 14] = [
            (Family::Meta, key(2, b"k"), &plain, true),
            (Family::Data, key(2, b""), b"", true),
            (Family::Meta, key(3, b"k"), &expired, false),
            (Family::Meta, key(4, b"k"), &expired, false),
            (Family::Meta, key(5, b"k"), &expired, false),
            (Family::Data, key(5, b"k"), b"", false),
            (Family::Data, key(3, b"k"), b"", false),
            (Family::Meta, b"\xff\xffflush-round".to_vec(), &expired, false),
            (Family::Meta, b"\xff\xff".to_vec(), &expired, false),
            (Family::Meta, b"".to_vec(), &expired, false),
            (Family::Meta, [&[0, 8, 0, 0, 0, 1][..], b"k"].concat(), &expired, true),
            (Family::Meta, [&[0, 8, 0, 0, 0, 1][..], b"k"].concat(), &later, false),
            (Family::Meta, [&[0, 8, 0, 0, 0, 1][..], b"k"].concat(), &plain, false),
            (Family::Data, [&[0, 8, 0, 0, 0, 1][..], b"k"].concat(), &expired, false),
        ];
        for (family, key, value, expected) in cases {
            assert_eq!(removes(&removable, family, &key, value), expected, "{family:?} {key:?} {value:?}");
        }
        assert_eq!((removable.dead_keys(), removable.expired_keys()), (2, 1));
        removable.forget([(slot, Generation(2))].into_iter());
        assert!(!removes(&removable, Family::Meta, &key(2, b"k"), &plain));
    }

    #[test]
    fn a_record_that_is_damaged_is_kept() {
        let removable = Arc::new(Removable::new(Arc::new(Clock::new())));
        removable.loaded(table(1, &[]));
        for value in [&[1, 1, 1, 0, 0][..], &[2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1], &[1, 200, 1, 0, 0, 0, 0, 0, 0, 0, 1], b""] {
            assert!(!removes(&removable, Family::Meta, &key(1, b"k"), value), "{value:?}");
        }
    }
}
