//! Settings of an engine, and what of them is RocksDB's.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use rocksdb::{DBRecoveryMode, LogLevel, Options};

use super::{
    super::{SyncPolicy, Tuning},
    Engine,
};

/// Settings of the engine. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// Whether writes go to the write-ahead log.
    pub wal: bool,
    /// When the log is made durable.
    pub sync: SyncPolicy,
    /// Block cache.
    pub block_cache_bytes: usize,
    /// Record cache; 0: none.
    pub record_cache_bytes: usize,
    /// Row cache; 0: none.
    pub row_cache_bytes: usize,
    /// Bytes of subkeys up to which a collection is stored in its key's record; 0: none is. What is there stays as it is until it is written to.
    pub packed_bytes_max: usize,
    /// One memtable.
    pub write_buffer_bytes: usize,
    /// All memtables together, before flushes begin.
    pub memtables_bytes: usize,
    /// Most write-ahead log kept before the oldest memtables are flushed.
    pub wal_bytes_max: u64,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
    /// Most files kept open.
    pub open_files_max: i32,
    /// RocksDB's own knobs.
    pub tuning: Tuning,
    /// Start from a damaged log with what is before the damage, instead of refusing.
    pub wal_point_in_time: bool,
    /// Where checkpoints are made; `None`: in the data directory.
    pub checkpoints_directory: Option<PathBuf>,
    /// How many checkpoints are kept; at least the newest is.
    pub checkpoints_kept: usize,
    /// Free space below which users' writes are refused; 0: never.
    pub disk_free_min: u64,
    /// Size of the file that is removed when the disk is nearly full; 0: none.
    pub reserve_bytes: u64,
}

impl EngineOptions {
    /// A small engine in that directory, with the log on: for tools and tests.
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            wal: true,
            sync: SyncPolicy::EverySecond,
            record_cache_bytes: 1 << 20,
            block_cache_bytes: 8 << 20,
            row_cache_bytes: 1 << 20,
            packed_bytes_max: 512,
            write_buffer_bytes: 1 << 20,
            memtables_bytes: 4 << 20,
            wal_bytes_max: 64 << 20,
            background_jobs: 2,
            open_files_max: 100,
            tuning: Tuning::default(),
            wal_point_in_time: false,
            checkpoints_directory: None,
            checkpoints_kept: 1,
            disk_free_min: 0,
            reserve_bytes: 0,
        }
    }

    /// Options of the whole database.
    pub(super) fn of_database(&self) -> Options {
        let mut db = Options::default();
        db.create_missing_column_families(true);
        // One flush, one version edit: with the WAL off a key's record and its fields come back together or not at all.
        db.set_atomic_flush(true);
        // Batches are large and sorted: one thread that goes on from the last key's place beats several that each look from the top.
        db.set_allow_concurrent_memtable_write(false);
        db.set_max_background_jobs(self.background_jobs);
        db.set_max_open_files(self.open_files_max);
        self.tuning.of_database(&mut db);
        db.set_bytes_per_sync(1 << 20);
        db.set_wal_bytes_per_sync(1 << 20);
        db.set_max_total_wal_size(self.wal_bytes_max);
        // A kill leaves a torn record at the tail and nothing else; damage anywhere else must be seen, not skipped.
        // After a power loss what was never synced may have holes in it: then somebody decides.
        db.set_wal_recovery_mode(if self.wal_point_in_time {
            DBRecoveryMode::PointInTime
        } else {
            DBRecoveryMode::TolerateCorruptedTailRecords
        });
        db.set_keep_log_file_num(5);
        db.set_max_log_file_size(8 << 20);
        db.set_log_level(LogLevel::Warn);
        db
    }
}

impl Engine {
    /// Bytes of subkeys up to which a collection is stored in its key's record.
    pub fn packed_bytes_max(&self) -> usize {
        self.packed_bytes_max.load(Ordering::Relaxed)
    }

    /// Changes that for what is written from now on.
    pub fn set_packed_bytes_max(&self, bytes: usize) {
        self.packed_bytes_max.store(bytes, Ordering::Relaxed);
    }
}
