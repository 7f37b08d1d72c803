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
}

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
        }
    }
}
