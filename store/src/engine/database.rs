//! Opening and closing; the engine as a whole.

mod counters;
mod options;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use rocksdb::{Options, ReadOptions};
use sluice_topology::{InstanceId, NodeId, Slot, admin::FlushReceipt};

use self::counters::Committed;
pub use self::{counters::Counters, options::EngineOptions};
use super::{
    Awaited, CacheUse, EngineError, Fault, FlushError, FlushWait, Generation, Home, Inside, Space, SyncPolicy,
    caches::Caches,
    checkpoint::Checkpoints,
    clock::{self, Clock},
    compaction::Compactions,
    contents::Contents,
    directory,
    disk::{self, Reserve},
    expiries::{Expiries, HearsExpired},
    feed::Feed,
    filter::Removable,
    flush::{self, FlushRounds},
    gate::Gate,
    health::{Health, Watcher},
    identity::{self, Identity},
    ingest::Incoming,
    ranks::Ranks,
    raw::Database,
    readers::{LongReader, Readers},
    reclaim::{MayWrite, ReclaimHeld, Reclaimer},
    record_cache::RecordCache,
    slot_table::SlotTable,
    stripes::Stripes,
    sync::Syncer,
    system::{self, SystemBatch, SystemKind},
    versions::Versions,
};

/// What a start found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The directory was empty.
    pub created: bool,
    /// The flush round found.
    pub recovered_round: u64,
    /// The last shutdown flushed and closed in order.
    pub clean_shutdown: bool,
}

/// An open storage engine.
pub struct Engine {
    // Threads first: they end before the database they use is closed.
    syncer: Syncer,
    rounds: FlushRounds,
    reclaimer: Reclaimer,
    watcher: Watcher,
    health: Arc<Health>,
    reserve: Arc<Reserve>,
    checkpoints: Checkpoints,
    compactions: Compactions,
    caches: Caches,
    database: Arc<Database>,
    gate: Arc<Gate>,
    readers: Readers,
    versions: Versions,
    table: Arc<SlotTable>,
    clock: Arc<Clock>,
    clock_floor_ms: AtomicU64,
    removable: Arc<Removable>,
    expiries: Expiries,
    stripes: Stripes,
    awaited: Awaited,
    contents: Arc<Contents>,
    records: RecordCache,
    feed: Feed,
    incoming: Incoming,
    ranks: Ranks,
    committed: Committed,
    packed_bytes_max: AtomicUsize,
    read_options: ReadOptions,
    /// Where RocksDB keeps its tickers, if it does.
    tickers: Option<Options>,
    identity: Mutex<Identity>,
    options: EngineOptions,
    start: Start,
}

impl Engine {
    /// Opens the data directory, or makes it when it is empty.
    pub fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let prepared = directory::prepare(&options.directory)?;
        let reserve = Arc::new(Reserve::find(&options.directory, options.reserve_bytes));
        // Replaying a log writes files: on a full disk the reserve is what there is for it.
        if disk::space(&options.directory).is_ok_and(|space| space.free < options.disk_free_min) {
            reserve.release();
        }
        let caches = Caches::new(&options);
        let clock = Arc::new(Clock::new());
        let removable = Arc::new(Removable::new(clock.clone()));
        let mut db_options = options.of_database();
        caches.install(&mut db_options);
        db_options.create_if_missing(prepared.empty);
        let database = Database::open(&prepared.database, &db_options, &options, &caches.block(), &removable)
            .map_err(|error| directory::explain(&options.directory, &prepared.database, error))?;
        if let Some((name, value)) = options.tuning.live() {
            database.set_everywhere(name, &value)?;
        }
        let database = Arc::new(database);
        let (identity, rows, created) = identity::load_or_create(&database)?;
        let marker = flush::recovered(&database, identity.instance)?;
        let closed = take_closed(&database)?;
        let start = Start { created, recovered_round: marker.round, clean_shutdown: closed.is_some() };
        let floor_ms = clock::noted(&database)?.max(marker.at_ms).max(closed.as_ref().map_or(0, |closed| closed.at_ms));
        clock.raise(floor_ms);
        let gate = Arc::new(Gate::new());
        let readers = Readers::default();
        let table = Arc::new(SlotTable::new(rows));
        removable.loaded(table.clone());
        let contents = Arc::new(Contents::load(&database, table.databases()));
        let health = Arc::new(Health::new(options.disk_free_min));
        let directory = options.directory.clone();
        let watcher = Watcher::start(health.clone(), database.clone(), directory, reserve.clone())?;
        Ok(Self {
            watcher,
            health,
            reserve,
            checkpoints: Checkpoints::find(
                &options.directory,
                options.checkpoints_directory.as_deref(),
                options.checkpoints_kept,
            ),
            compactions: Compactions::default(),
            caches,
            syncer: Syncer::start(database.clone(), options.sync)?,
            rounds: FlushRounds::start(database.clone(), clock.clone(), identity.instance, options.wal, marker.round)?,
            reclaimer: Reclaimer::start(
                database.clone(),
                gate.clone(),
                readers.clone(),
                removable.clone(),
                (&table, &contents),
                options.wal,
            )?,
            versions: Versions::open(database.clone())?,
            awaited: Awaited::new(),
            contents,
            table,
            clock_floor_ms: AtomicU64::new(floor_ms),
            clock,
            removable,
            expiries: closed.map_or_else(Expiries::unknown, |closed| closed.expiries),
            stripes: Stripes::new(),
            records: RecordCache::new(options.record_cache_bytes),
            feed: Feed::default(),
            incoming: Incoming::open(&options.directory)?,
            ranks: Ranks::default(),
            committed: Committed::default(),
            packed_bytes_max: AtomicUsize::new(options.packed_bytes_max),
            read_options: ReadOptions::default(),
            tickers: options.tuning.statistics.then_some(db_options),
            identity: Mutex::new(identity),
            start,
            database,
            gate,
            readers,
            options,
        })
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.identity().node
    }

    /// The database's id.
    pub fn instance(&self) -> InstanceId {
        self.identity().instance
    }

    /// Gives the node another id, durably. Whether that is allowed is for the cluster room to say.
    pub fn set_node_id(&self, node: NodeId) -> Result<(), EngineError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Identity { node, instance: identity.instance };
        system::write(&self.database, fresh.record())?;
        *identity = fresh;
        Ok(())
    }

    /// What this start found on disk.
    pub fn start(&self) -> Start {
        self.start
    }

    /// The settings it was opened with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Enters the gate: see [`super::gate`]. Every command does, before it looks at ownership or generations.
    pub fn enter(&self) -> Inside<'_> {
        self.gate.enter()
    }

    /// Unix time in milliseconds, as expiry is judged by it: it never goes back, whatever the system's clock does.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Begins the background work that writes to live slots: `may_write` is asked before each write, inside the gate. Before this call
    /// nothing is written.
    pub fn maintain(&self, may_write: impl Fn(Slot) -> MayWrite + Send + Sync + 'static) -> Result<(), EngineError> {
        self.reclaimer.start_collections(may_write)
    }

    /// Notes the time, so that the clock of the next start does not go below it; with the data's own durability.
    pub(super) fn note_time(&self) -> Result<(), EngineError> {
        let _inside = self.enter();
        self.admit_write(false)?;
        let now_ms = self.now_ms();
        clock::note(&self.database, now_ms, self.options.wal)?;
        self.clock_floor_ms.store(now_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until every command that entered before has left.
    pub fn drain(&self) {
        self.gate.drain();
    }

    /// Raises the clock of expiry to another node's: what has expired there has expired here. The next start knows it once the log is
    /// synced, in either mode.
    pub fn raise_clock(&self, floor_ms: u64) -> Result<(), EngineError> {
        if floor_ms > self.now_ms() {
            self.clock.raise(floor_ms);
            clock::note(&self.database, self.now_ms(), true)?;
        }
        Ok(())
    }

    /// Registers a reader that outlives a command, before it looks at any generation: what is live now is given back only after the
    /// guard is dropped. `what` names it in INFO.
    pub fn long_reader(&self, what: &'static str) -> LongReader {
        self.readers.register(what)
    }

    /// Holds back what gives the space of dead generations back, see [`ReclaimHeld`].
    pub fn hold_reclaim(&self) -> ReclaimHeld {
        self.reclaimer.hold()
    }

    /// What the long readers are that have not ended, the oldest first.
    pub fn long_readers(&self) -> Vec<&'static str> {
        self.readers.open()
    }

    /// The generation that commands of that place use.
    pub fn live(&self, home: impl Into<Home>) -> Generation {
        self.table.live(home)
    }

    /// Current sync policy.
    pub fn sync_policy(&self) -> SyncPolicy {
        self.syncer.policy()
    }

    /// Changes the sync policy.
    pub fn set_sync_policy(&self, policy: SyncPolicy) {
        self.syncer.set_policy(policy);
    }

    /// Makes everything up to that sequence number durable right here, if that is quick; false: wait for it instead.
    pub fn sync_here(&self, sequence: u64) -> bool {
        self.syncer.sync_here(sequence)
    }

    /// Whether everything up to that sequence number is known to be durable in the log.
    pub fn is_durable(&self, sequence: u64) -> bool {
        self.syncer.is_durable(sequence)
    }

    /// Waits until everything up to that sequence number is durable.
    pub async fn durable(&self, sequence: u64) -> Result<(), EngineError> {
        self.syncer.wait(sequence).await
    }

    /// Returns when an fsync has failed: the process must not go on.
    pub async fn sync_failed(&self) -> EngineError {
        self.syncer.failed().await
    }

    /// Joins the pending flush round, or starts one; see [`super::flush`].
    pub fn flush(&self, if_idle: bool) -> Result<FlushWait, FlushError> {
        self.rounds.request(if_idle)
    }

    /// A flush round, waited for on this thread.
    pub(super) fn flush_blocking(&self) -> Result<FlushReceipt, EngineError> {
        self.rounds.request(false).map_err(close_error)?.receipt_blocking().map_err(close_error)
    }

    /// Whether a write may begin, or why not; with `deletes_only`, one that gives space back. Looked at inside the gate.
    pub fn admit_write(&self, deletes_only: bool) -> Result<(), EngineError> {
        self.health.admit(deletes_only)
    }

    /// Whether the engine is being closed: even what gives space back is refused.
    pub fn closing(&self) -> bool {
        self.health.closing()
    }

    /// Why users' writes are refused right now, if they are.
    pub fn fault(&self) -> Option<Fault> {
        self.health.fault()
    }

    /// The last background error RocksDB reported since the start.
    pub fn last_background_error(&self) -> Option<String> {
        self.database.events().last_error()
    }

    /// Room of the disk under the data directory.
    pub fn disk(&self) -> Space {
        self.health.space()
    }

    /// Whether the reserve file is there.
    pub fn reserve_held(&self) -> bool {
        self.reserve.held()
    }

    /// Returns when only a new start of the process can take writes again, and would.
    pub async fn needs_restart(&self) -> EngineError {
        self.health.needs_restart().await
    }

    /// Takes no more writes, flushes, and leaves the marker of a clean shutdown. Reads go on until the process ends.
    pub fn close(&self) -> Result<(), EngineError> {
        self.health.close();
        self.checkpoints.finish();
        self.gate.drain();
        self.reclaimer.stop();
        let receipt = self.flush_blocking()?;
        let mut clean = SystemBatch::new();
        let at_ms = self.now_ms();
        clean.put(SystemKind::Clean, b"", [receipt.round.to_be_bytes(), at_ms.to_be_bytes()].concat());
        if self.expiries.any_known() {
            clean.put(SystemKind::Expiries, b"", self.expiries.encode());
        }
        system::write(&self.database, clean)?;
        self.rounds.stop();
        self.syncer.stop();
        self.watcher.stop();
        self.database.db().cancel_all_background_work(true);
        Ok(())
    }

    /// The caches and memtables against their capacities.
    pub fn cache_use(&self) -> CacheUse {
        self.caches.usage()
    }

    /// Changes the capacities of the caches, and what the memtables may hold. A record or row cache that was off at the start stays off.
    pub fn resize_caches(&self, record_bytes: usize, block_bytes: usize, row_bytes: usize, memtables_bytes: usize) {
        self.records.resize(record_bytes);
        self.caches.resize(block_bytes, row_bytes, memtables_bytes);
    }

    /// Changes the free space below which users' writes are refused.
    pub fn set_disk_free_min(&self, bytes: u64) {
        self.health.set_free_min(bytes);
    }

    /// Bytes of disk that stay free, as they are now.
    pub fn disk_free_min(&self) -> u64 {
        self.health.free_min()
    }

    /// Changes how many checkpoints are kept.
    pub fn set_checkpoints_kept(&self, kept: usize) {
        self.checkpoints.set_keep(kept);
    }

    /// Empties the caches of what nobody is reading right now.
    pub fn empty_caches(&self) {
        self.records.empty();
        self.caches.empty();
    }

    pub(super) fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    pub(super) fn compactions(&self) -> &Compactions {
        &self.compactions
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn table(&self) -> &SlotTable {
        &self.table
    }

    pub(super) fn stripes(&self) -> &Stripes {
        &self.stripes
    }

    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Says who hears of keys that are deleted because they have expired. Once.
    pub fn hear_expired(&self, hearer: Arc<dyn HearsExpired>) {
        self.expiries.set_hearer(hearer);
    }

    pub(super) fn expiries(&self) -> &Expiries {
        &self.expiries
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Keys that somebody waits for.
    pub fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(super) fn records(&self) -> &RecordCache {
        &self.records
    }

    pub(super) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    pub(super) fn block_cache(&self) -> rocksdb::Cache {
        self.caches.block()
    }

    pub(super) fn read_options(&self) -> &ReadOptions {
        &self.read_options
    }

    pub(super) fn reclaimer(&self) -> &Reclaimer {
        &self.reclaimer
    }

    fn identity(&self) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close_error(error: FlushError) -> EngineError {
    EngineError::Flush(error.to_string())
}

/// What a shutdown in order left.
struct Closed {
    /// The engine's time, Unix milliseconds.
    at_ms: u64,
    expiries: Expiries,
}

/// Reads and removes what a shutdown in order left: it speaks of the last shutdown only.
fn take_closed(database: &Database) -> Result<Option<Closed>, EngineError> {
    let Some(marker) = system::read_one(database, SystemKind::Clean, b"")? else { return Ok(None) };
    let expiries = match system::read_one(database, SystemKind::Expiries, b"")? {
        Some(bytes) => Expiries::decode(&bytes)?,
        None => Expiries::unknown(),
    };
    let mut batch = SystemBatch::new();
    batch.delete(SystemKind::Clean, b"");
    batch.delete(SystemKind::Expiries, b"");
    system::write(database, batch)?;
    // Markers had no time at first.
    let at_ms = marker.get(8..).and_then(|at| at.try_into().ok()).map_or(0, u64::from_be_bytes);
    Ok(Some(Closed { at_ms, expiries }))
}
