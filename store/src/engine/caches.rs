//! The caches and what bounds the memtables: one budget, divided by the settings.
//!
//! Memtables of every family, `system` included, are charged to the block cache through the write buffer manager, so that both never
//! hold more than the block cache's capacity together; the manager flushes and never stalls writers. The row cache has its own
//! capacity, which the budget counts.

use std::sync::{Mutex, PoisonError};

use rocksdb::{Cache, Options, WriteBufferManager};

use super::database::EngineOptions;

/// Bytes in use and the most there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Capacity of the block cache.
    pub block_capacity: u64,
    /// Blocks, and the memtables charged to them.
    pub block_used: u64,
    /// Of these, what cannot be evicted now.
    pub block_pinned: u64,
    /// Capacity of the row cache; 0: there is none.
    pub row_capacity: u64,
    /// Rows.
    pub row_used: u64,
    /// Memtables of every family, as the write buffer manager counts them.
    pub memtables_used: u64,
    /// What the memtables may hold before flushes begin.
    pub memtables_limit: u64,
}

struct Sized {
    cache: Cache,
    capacity: usize,
}

impl Sized {
    fn new(capacity: usize) -> Self {
        Self { cache: Cache::new_lru_cache(capacity), capacity }
    }

    fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.cache.set_capacity(capacity);
    }
}

/// The caches of one engine.
pub(crate) struct Caches {
    block: Mutex<Sized>,
    row: Option<Mutex<Sized>>,
    memtables: WriteBufferManager,
}

impl Caches {
    pub(crate) fn new(options: &EngineOptions) -> Self {
        let block = Sized::new(options.block_cache_bytes);
        let memtables =
            WriteBufferManager::new_write_buffer_manager_with_cache(options.memtables_bytes, false, block.cache.clone());
        let row = (options.row_cache_bytes > 0).then(|| Mutex::new(Sized::new(options.row_cache_bytes)));
        Self { block: Mutex::new(block), row, memtables }
    }

    /// Has RocksDB use them.
    pub(crate) fn install(&self, options: &mut Options) {
        options.set_write_buffer_manager(&self.memtables);
        if let Some(row) = &self.row {
            options.set_row_cache(&lock(row).cache);
        }
    }

    /// The block cache.
    pub(crate) fn block(&self) -> Cache {
        lock(&self.block).cache.clone()
    }

    /// Changes the capacities, as far as there are caches of them.
    pub(crate) fn resize(&self, block: usize, row: usize, memtables: usize) {
        lock(&self.block).resize(block);
        if let Some(cache) = &self.row {
            lock(cache).resize(row);
        }
        self.memtables.set_buffer_size(memtables);
    }

    /// Gives up everything that nobody is reading right now.
    pub(crate) fn empty(&self) {
        for sized in [Some(&self.block), self.row.as_ref()].into_iter().flatten() {
            let mut sized = lock(sized);
            sized.cache.set_capacity(0);
            let capacity = sized.capacity;
            sized.cache.set_capacity(capacity);
        }
    }

    pub(crate) fn usage(&self) -> CacheUse {
        let block = lock(&self.block);
        let (row_capacity, row_used) = self.row.as_ref().map_or((0, 0), |row| {
            let row = lock(row);
            (row.capacity as u64, row.cache.get_usage() as u64)
        });
        CacheUse {
            block_capacity: block.capacity as u64,
            block_used: block.cache.get_usage() as u64,
            block_pinned: block.cache.get_pinned_usage() as u64,
            row_capacity,
            row_used,
            memtables_used: self.memtables.get_usage() as u64,
            memtables_limit: self.memtables.get_buffer_size() as u64,
        }
    }
}

fn lock(sized: &Mutex<Sized>) -> std::sync::MutexGuard<'_, Sized> {
    sized.lock().unwrap_or_else(PoisonError::into_inner)
}
