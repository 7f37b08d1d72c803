//! What RocksDB says of its memory and disk.

use super::{database::Engine, families::Family};

/// Figures of the storage. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Block cache in use, memtables charged to it included.
    pub block_cache_bytes: u64,
    /// Memtables, those being flushed included.
    pub memtable_bytes: u64,
    /// Index and filter blocks outside the cache.
    pub table_reader_bytes: u64,
    /// SST files that are live.
    pub sst_bytes: u64,
    /// RocksDB's estimate of the keys, dead ones not yet reclaimed included.
    pub keys_estimate: u64,
    /// Bytes that compactions still have to rewrite, estimated.
    pub pending_compaction_bytes: u64,
    /// Whether RocksDB holds writes back completely.
    pub write_stopped: bool,
    /// Bytes a second that RocksDB lets writers write while it slows them down; 0: it does not.
    pub delayed_write_rate: u64,
    /// Memtables that wait to be flushed, or are being flushed.
    pub immutable_memtables: u64,
    /// Families in which a compaction is due.
    pub compactions_due: u64,
    /// Compactions that are running.
    pub compactions_running: u64,
    /// Flushes that are running.
    pub flushes_running: u64,
    /// Files of each level, over all families.
    pub files_at_level: [u64; LEVELS],
}

/// Levels of the tree.
const LEVELS: usize = 7;

impl Engine {
    /// Figures of the storage, read now.
    pub fn storage(&self) -> Storage {
        let property = |family, name: &str| {
            let handle = self.database().family(family);
            self.database().db().property_int_value_cf(handle, name).ok().flatten().unwrap_or(0)
        };
        let sum = |name: &str| Family::ALL.into_iter().map(|family| property(family, name)).sum();
        Storage {
            block_cache_bytes: property(Family::Meta, "rocksdb.block-cache-usage"),
            memtable_bytes: sum("rocksdb.cur-size-all-mem-tables"),
            table_reader_bytes: sum("rocksdb.estimate-table-readers-mem"),
            sst_bytes: sum("rocksdb.live-sst-files-size"),
            keys_estimate: property(Family::Meta, "rocksdb.estimate-num-keys"),
            pending_compaction_bytes: sum("rocksdb.estimate-pending-compaction-bytes"),
            write_stopped: property(Family::Meta, "rocksdb.is-write-stopped") != 0,
            delayed_write_rate: property(Family::Meta, "rocksdb.actual-delayed-write-rate"),
            immutable_memtables: sum("rocksdb.num-immutable-mem-table"),
            compactions_due: sum("rocksdb.compaction-pending"),
            compactions_running: property(Family::Meta, "rocksdb.num-running-compactions"),
            flushes_running: property(Family::Meta, "rocksdb.num-running-flushes"),
            files_at_level: std::array::from_fn(|level| {
                let name = format!("rocksdb.num-files-at-level{level}");
                let files = |family| {
                    let found = self.database().db().property_value_cf(self.database().family(family), &name).ok().flatten();
                    found.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
                };
                Family::ALL.into_iter().map(files).sum()
            }),
        }
    }
}
