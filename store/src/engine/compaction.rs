//! Compaction on request: every family rewritten down to its last level, so that what is dead gives its space back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::{EngineError, database::Engine, families::Family};

/// Compactions on request.
#[derive(Default)]
pub(crate) struct Compactions {
    running: AtomicBool,
    completed: AtomicU64,
}

/// The right to run the one compaction. Dropped, the next may run.
pub struct Compaction<'e>(&'e Engine);

impl Drop for Compaction<'_> {
    fn drop(&mut self) {
        self.0.compactions().running.store(false, Ordering::SeqCst);
    }
}

impl Compaction<'_> {
    /// Compacts, blocking the thread. Reads and writes go on, and so do RocksDB's own compactions.
    pub fn run(self) {
        let database = self.0.database();
        for family in Family::ALL {
            let mut options = CompactOptions::default();
            options.set_exclusive_manual_compaction(false);
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            database.db().compact_range_cf_opt(database.family(family), None::<&[u8]>, None::<&[u8]>, &options);
        }
        self.0.compactions().completed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Takes the right to compact everything; `None` when that is being done already.
    pub fn begin_compaction(&self) -> Result<Option<Compaction<'_>>, EngineError> {
        if self.closing() {
            return Err(EngineError::Closed);
        }
        Ok((!self.compactions().running.swap(true, Ordering::SeqCst)).then_some(Compaction(self)))
    }

    /// Whether a compaction on request is running, and how many have ended since the start.
    pub fn compactions_on_request(&self) -> (bool, u64) {
        let compactions = self.compactions();
        (compactions.running.load(Ordering::SeqCst), compactions.completed.load(Ordering::Relaxed))
    }
}
