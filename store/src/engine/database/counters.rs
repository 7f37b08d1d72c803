//! Counters of an engine, for INFO and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::statistics::Ticker;

use super::{super::record_cache::RecordCacheUse, Engine};

#[derive(Default)]
pub(super) struct Committed {
    batches: AtomicU64,
    records: AtomicU64,
}

/// See [`Engine::counters`].
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// RocksDB's latest sequence number.
    pub latest_sequence: u64,
    /// Batches of commands' writes applied since the start.
    pub committed_batches: u64,
    /// Records in them.
    pub committed_records: u64,
    /// The record cache.
    pub record_cache: RecordCacheUse,
    /// Fsyncs of the WAL by the sync thread.
    pub wal_fsyncs: u64,
    /// Flush rounds completed since the start.
    pub flush_rounds_total: u64,
    /// The last flush round that completed.
    pub last_flush_round: u64,
    /// Callers waiting for a flush round.
    pub flush_waiters: u64,
    /// Dead generations not yet worked off.
    pub reclaim_pending: u64,
    /// Keys of dead generations removed since the start.
    pub reclaimed_keys: u64,
    /// Subkeys deleted of collections that are gone, since the start.
    pub reclaimed_subkeys: u64,
    /// Whether the subkeys of every collection that is gone are deleted.
    pub reclaim_collections_idle: bool,
    /// The latest time, Unix milliseconds, found or noted on disk for the clock of the next start, flush rounds excepted.
    pub clock_floor_ms: u64,
    /// Keys deleted because they had expired, since the start.
    pub expired_keys: u64,
    /// Records of expired strings that compactions left out, since the start: some of keys deleted already, or written anew.
    pub expired_compacted_keys: u64,
    /// Writes refused because of the disk.
    pub refused_writes: u64,
    /// Failed flushes, compactions and writes of RocksDB.
    pub background_errors: u64,
    /// How often RocksDB began to slow writes down.
    pub write_delays: u64,
    /// How often RocksDB began to hold writes back completely.
    pub write_stops: u64,
}

impl Engine {
    /// The sequence number of the newest record.
    pub fn latest_sequence(&self) -> u64 {
        self.database.db().latest_sequence_number()
    }

    /// RocksDB's own tickers that are not 0, by RocksDB's names; none unless it was told to keep them.
    pub fn tickers(&self) -> Vec<(&'static str, u64)> {
        let Some(options) = &self.tickers else { return Vec::new() };
        Ticker::iter().map(|ticker| (ticker.name(), options.get_ticker_count(*ticker))).filter(|(_, count)| *count > 0).collect()
    }

    /// Named counters of the engine, for INFO and metrics.
    pub fn counters(&self) -> Counters {
        Counters {
            latest_sequence: self.latest_sequence(),
            committed_batches: self.committed.batches.load(Ordering::Relaxed),
            committed_records: self.committed.records.load(Ordering::Relaxed),
            record_cache: self.records.usage(),
            wal_fsyncs: self.syncer.fsyncs(),
            flush_rounds_total: self.rounds.rounds_total(),
            last_flush_round: self.rounds.last_round(),
            flush_waiters: self.rounds.waiters(),
            reclaim_pending: self.reclaimer.pending() as u64,
            reclaimed_keys: self.reclaimer.reclaimed_keys(),
            reclaimed_subkeys: self.reclaimer.collections().0,
            reclaim_collections_idle: self.reclaimer.collections().1,
            clock_floor_ms: self.clock_floor_ms.load(Ordering::Relaxed),
            expired_keys: self.expiries.removed(),
            expired_compacted_keys: self.removable.expired_keys(),
            refused_writes: self.health.refusals(),
            background_errors: self.database.events().errors(),
            write_delays: self.database.events().stalls().0,
            write_stops: self.database.events().stalls().1,
        }
    }

    /// Counts a batch of commands' writes.
    pub(in crate::engine) fn note_commit(&self, records: usize) {
        self.committed.batches.fetch_add(1, Ordering::Relaxed);
        self.committed.records.fetch_add(records as u64, Ordering::Relaxed);
    }
}
