//! A running node: what every command may use.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use sluice_topology::admin::{NodeStatus, PersistenceStatus};
use tokio::sync::{Notify, Semaphore};

use crate::{
    blocked::Blocked,
    clients::Clients,
    cluster::{Cluster, PeerAccess},
    config::{Live, Settings, plan_memory},
    engine::{Engine, EngineError, Home, MayWrite, Sweep, Writer},
    memory::Memory,
    migration::{MigrationLimits, Migrations},
    tls::Tls,
    types::{Keyspace, TypeError},
};

/// Codes of errors that are counted each by itself.
const ERROR_CODES_MAX: usize = 128;

/// Counters of the server, for INFO and metrics.
#[derive(Default)]
pub struct Stats {
    /// Client connections accepted.
    pub connections_total: AtomicU64,
    /// Client connections open.
    pub connections: AtomicU64,
    /// Connections turned away because of `maxclients`.
    pub connections_rejected: AtomicU64,
    /// Replies sent that rest on changes: acknowledged writes, and reads that saw one of the same turn.
    pub acks: AtomicU64,
    /// Of these, those that waited until their changes were synced.
    pub synced_acks: AtomicU64,
    /// Commands answered with an error.
    pub errors: AtomicU64,
    /// Of these, how many of each code; a bounded number of codes.
    error_codes: Mutex<BTreeMap<String, u64>>,
    /// Replies that were sent in pieces.
    pub large_replies: AtomicU64,
    /// Commands that waited for a slot's switch.
    pub parked: AtomicU64,
}

impl Stats {
    /// Counts an error by its code: the first word of its text.
    pub fn count_error(&self, text: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let code = text.split(' ').next().unwrap_or_default();
        let mut codes = self.error_codes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = codes.len() < ERROR_CODES_MAX;
        if let Some(count) = codes.get_mut(code) {
            *count += 1;
        } else if room {
            codes.insert(code.to_owned(), 1);
        }
    }

    /// How many errors there were of each code.
    pub fn error_codes(&self) -> Vec<(String, u64)> {
        let codes = self.error_codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.iter().map(|(code, count)| (code.clone(), *count)).collect()
    }

    /// Begins to count anew; what is open stays counted.
    pub fn reset(&self) {
        let counters = [&self.connections_total, &self.connections_rejected, &self.errors, &self.parked, &self.large_replies];
        counters.into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        self.error_codes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A running node.
pub struct Node {
    /// Its settings as they were at the start. Those that change while it runs are in `live`.
    pub settings: Settings,
    /// Its settings as they are now.
    pub live: Live,
    /// Its storage.
    pub engine: Arc<Engine>,
    /// Its view of the cluster.
    pub cluster: Arc<Cluster>,
    /// Its migrations.
    pub migrations: Arc<Migrations>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// Who of them waits for keys.
    pub blocked: Arc<Blocked>,
    /// The limit of its memory.
    pub memory: Memory,
    /// Its sweep of what has expired.
    pub sweep: Sweep,
    /// Places for replies that are sent in pieces.
    pub large_replies: Arc<Semaphore>,
    /// Its certificates, where anything speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Its counters.
    pub stats: Stats,
    /// When it started.
    pub started: Instant,
    stopping: AtomicBool,
    end: Notify,
}

impl Node {
    /// Builds a node on an open engine. Its slots are closed until [`Node::join`].
    pub fn new(settings: Settings, engine: Arc<Engine>, tls: Option<Arc<Tls>>) -> Result<Self, EngineError> {
        let password = Some(settings.admin_password.as_str()).filter(|password| !password.is_empty());
        let timeout = std::time::Duration::from_millis(settings.migrate_timeout_ms);
        let peers = PeerAccess { password: password.map(Arc::from), tls: tls.clone().filter(|_| settings.tls_cluster), timeout };
        let cluster = Arc::new(Cluster::open(engine.clone(), settings.cluster_enabled, peers)?);
        cluster.bus().set_limit(settings.link_sendbuf_limit.0);
        // Weakly: the engine's threads must not keep alive what keeps the engine.
        let view = Arc::downgrade(&cluster);
        let may_write = move |slot| view.upgrade().map_or(MayWrite::No, |cluster| cluster.may_write(slot));
        engine.maintain(may_write.clone())?;
        let keys = engine.clone();
        let sweep_members = move |writer: &RefCell<Writer>, home: Home, key: &[u8], most| {
            let keys = Keyspace::new(&keys, writer, home.database, keys.now_ms());
            keys.sweep_fields(key, most).map_err(|error| match error {
                TypeError::Storage(error) => error,
                other => EngineError::Damaged(other.to_string()),
            })
        };
        let sweep = Sweep::start(engine.clone(), settings.sweep_pace(), may_write, Box::new(sweep_members))?;
        let limits = MigrationLimits {
            unit_slots: settings.migrate_unit_slots as usize,
            unit_bytes: settings.migrate_unit_size.0,
            batch_bytes: settings.migrate_batch_size.0 as usize,
            window_bytes: settings.migrate_window_size.0 as usize,
            file_bytes: settings.migrate_file_size.0,
            changes_bytes: settings.migrate_changes_size.0 as usize,
            resume_timeout: std::time::Duration::from_millis(settings.migrate_resume_timeout_ms),
            clock_skew_max_ms: settings.migrate_clock_skew_max_ms,
            bytes_per_second: settings.migrate_rate.0,
            units_at_once: settings.migrate_units_at_once as usize,
            switch_timeout: std::time::Duration::from_millis(settings.migrate_switch_timeout_ms),
            attempts_max: settings.migrate_attempts_max,
            backoff_max: std::time::Duration::from_millis(settings.migrate_backoff_ms_max.max(1)),
        };
        let migrations = Arc::new(Migrations::open(engine.clone(), cluster.clone(), limits)?);
        migrations.set_memory(plan_memory(&settings).migrations);
        let blocked = Arc::new(Blocked::new(engine.clone()));
        let clients = Arc::new(Clients::default());
        clients.set_notify(settings.notify);
        clients.slow.set(
            settings.slowlog_log_slower_than,
            settings.slowlog_max_len,
            settings.latency_monitor_threshold,
            settings.latency_tracking,
        );
        clients.set_limits(settings.client_output_buffer_limit.pubsub);
        engine.hear_expired(clients.clone());
        let profiles = PathBuf::from(&settings.dir).join("profiles");
        let memory = Memory::start(engine.clone(), clients.clone(), settings.memory_limits(), profiles);
        let memory = memory.map_err(|source| EngineError::Thread { name: "memory".into(), source })?;
        let moving = migrations.clone();
        memory.register("migrations", move || moving.memory());
        let publishing = cluster.clone();
        memory.register("messages", move || publishing.bus().memory());
        Ok(Self {
            memory,
            live: Live::new(settings.clone()),
            large_replies: Arc::new(Semaphore::new(settings.reply_streams_max.max(1) as usize)),
            settings,
            engine,
            cluster,
            migrations,
            blocked,
            clients,
            sweep,
            stats: Stats::default(),
            tls,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            end: Notify::new(),
        })
    }

    /// Asks the peers, then opens this node's slots and brings migrations of the last run to their end.
    pub async fn join(&self) -> Result<(), EngineError> {
        if self.cluster.enabled() {
            let limit = std::time::Duration::from_millis(self.settings.cluster_peer_timeout_ms);
            self.cluster.confirm(limit, &self.migrations.fenced()).await?;
            tokio::spawn(self.migrations.clone().resolve());
        }
        Ok(())
    }

    /// Ends subscriptions to shard channels as their slots leave, as long as the node lives.
    pub async fn drop_unserved_shards(self: Arc<Self>) {
        let mut changes = self.cluster.changes();
        while changes.changed().await.is_ok() {
            changes.borrow_and_update();
            self.clients.drop_unserved_shards(|slot| self.cluster.serves(slot));
        }
    }

    /// Whether clients may be sent here.
    pub fn ready(&self) -> bool {
        self.cluster.ready() && !self.stopping.load(Ordering::SeqCst)
    }

    /// Asks for the end of the process, in order.
    pub fn ask_for_end(&self) {
        self.end.notify_one();
    }

    /// Waits until somebody has asked for the end of the process.
    pub async fn end_asked_for(&self) {
        self.end.notified().await;
    }

    /// From now on not ready.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.end_slow_script();
        self.blocked.close();
    }

    /// Whether the process is ending.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Ends the script that everybody is told of; it has then changed nothing.
    pub fn end_slow_script(&self) {
        if let Some(script) = self.clients.pause.slow_script() {
            script.kill();
        }
    }

    /// The node's account of itself, for `CLUSTERX STATUS`.
    pub fn status(&self) -> NodeStatus {
        let known = self.cluster.known();
        NodeStatus {
            node_id: self.cluster.me(),
            instance: self.engine.instance(),
            cluster_id: known.cluster_id,
            leader_epoch: known.leader_epoch,
            topology_version: known.version,
            software_version: env!("CARGO_PKG_VERSION").into(),
            retired: self.cluster.retired(),
            ready: self.ready(),
            nodes: known.nodes.clone(),
            slots: self.cluster.slot_entries(),
            fenced: self.cluster.fenced(),
            persistence: self.persistence(),
            migrations: self.migrations.jobs(),
        }
    }

    /// Durability facts.
    pub fn persistence(&self) -> PersistenceStatus {
        let (start, counters) = (self.engine.start(), self.engine.counters());
        PersistenceStatus {
            wal: self.engine.options().wal,
            last_flush_round: counters.last_flush_round,
            recovered_round: start.recovered_round,
            clean_shutdown: start.clean_shutdown,
            latest_sequence: counters.latest_sequence,
        }
    }
}
