//! RocksDB's own knobs, as the settings `rocksdb.*` name them. Which of them exclude each other is for the configuration to say.

use rocksdb::{BlockBasedOptions, DBCompressionType, Options, statistics::StatsLevel};

/// How tables are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4, and Zstandard in the last level.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Knobs of RocksDB. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Compression of tables.
    pub compression: Compression,
    /// A block of a table.
    pub block_bytes: usize,
    /// A table of the first level below L0.
    pub table_bytes: u64,
    /// The first level below L0.
    pub level_base_bytes: u64,
    /// Tables in L0 that begin a compaction.
    pub l0_compaction_trigger: i32,
    /// Tables in L0 from which writes are slowed down.
    pub l0_slowdown_trigger: i32,
    /// Tables in L0 at which writes are held back.
    pub l0_stop_trigger: i32,
    /// Memtables of one family, those being flushed included.
    pub memtables_max: i32,
    /// Bytes a second that flushes and compactions may write; 0: as many as the disk takes.
    pub io_bytes_per_second: u64,
    /// Deletions in a row that reads turn into a range tombstone; 0: none are. Never with a row cache.
    pub range_conversion_tombstones: u32,
    /// Whether RocksDB counts what it does: its tickers, without times.
    pub statistics: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            compression: Compression::Lz4,
            block_bytes: 16 << 10,
            table_bytes: 64 << 20,
            level_base_bytes: 256 << 20,
            l0_compaction_trigger: 4,
            l0_slowdown_trigger: 20,
            l0_stop_trigger: 36,
            memtables_max: 4,
            io_bytes_per_second: 0,
            range_conversion_tombstones: 0,
            statistics: false,
        }
    }
}

/// For the rate limiter to hand out its bytes, in microseconds.
const REFILL_US: i64 = 100_000;
/// One in so many of its grants goes to low priority first, so that it does not starve.
const FAIRNESS: i32 = 10;

impl Tuning {
    /// Sets what is of the whole database.
    pub(crate) fn of_database(&self, options: &mut Options) {
        if self.io_bytes_per_second > 0 {
            options.set_ratelimiter(i64::try_from(self.io_bytes_per_second).unwrap_or(i64::MAX), REFILL_US, FAIRNESS);
        }
        if self.statistics {
            options.enable_statistics();
            options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
        }
    }

    /// Sets what is of a family's tables.
    pub(crate) fn of_blocks(&self, blocks: &mut BlockBasedOptions) {
        blocks.set_block_size(self.block_bytes);
    }

    /// The compression of all levels, and of the last.
    pub(crate) fn compression_types(&self) -> (DBCompressionType, DBCompressionType) {
        match self.compression {
            Compression::None => (DBCompressionType::None, DBCompressionType::None),
            Compression::Lz4 => (DBCompressionType::Lz4, DBCompressionType::Zstd),
            Compression::Zstd => (DBCompressionType::Zstd, DBCompressionType::Zstd),
        }
    }

    /// Sets what is of a family.
    pub(crate) fn of_family(&self, options: &mut Options) {
        let (all, last) = self.compression_types();
        options.set_compression_type(all);
        options.set_bottommost_compression_type(last);
        options.set_target_file_size_base(self.table_bytes);
        options.set_max_bytes_for_level_base(self.level_base_bytes);
        options.set_level_zero_file_num_compaction_trigger(self.l0_compaction_trigger);
        options.set_level_zero_slowdown_writes_trigger(self.l0_slowdown_trigger);
        options.set_level_zero_stop_writes_trigger(self.l0_stop_trigger);
        options.set_max_write_buffer_number(self.memtables_max);
    }

    /// What only an open database takes, family by family.
    pub(crate) fn live(&self) -> Option<(&'static str, String)> {
        (self.range_conversion_tombstones > 0)
            .then(|| ("min_tombstones_for_range_conversion", self.range_conversion_tombstones.to_string()))
    }
}
