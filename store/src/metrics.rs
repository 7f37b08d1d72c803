//! Prometheus metrics of a node, read when they are asked for.

use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::node::Node;

/// All metrics in Prometheus' text format.
pub fn render(node: Arc<Node>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sluice");
    registry.register_collector(Box::new(NodeCollector(node)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

struct NodeCollector(Arc<Node>);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let node = &self.0;
        let (stats, counters, storage) = (&node.stats, node.engine.counters(), node.engine.storage());
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: u64| {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let bytes = Some(&Unit::Bytes);
        gauge("ready", "Whether clients may be sent here", None, u64::from(node.ready()))?;
        gauge("clients", "Client connections open", None, stats.connections.load(Relaxed))?;
        gauge("slots_owned", "Slots this node owns", None, node.cluster.owned().len() as u64)?;
        gauge("slots_fenced", "Slots this node owns and does not serve", None, node.cluster.fenced().len() as u64)?;
        gauge("topology_version", "Version of the last topology document", None, node.cluster.known().version.0)?;
        gauge("flush_round", "Last flush round that completed", None, counters.last_flush_round)?;
        gauge("flush_recovered_round", "Flush round that this start found", None, node.engine.start().recovered_round)?;
        gauge("flush_waiters", "Callers waiting for a flush round", None, counters.flush_waiters)?;
        gauge("reclaim_pending_generations", "Dead generations not yet reclaimed", None, counters.reclaim_pending)?;
        gauge("block_cache", "Block cache in use, memtables included", bytes, storage.block_cache_bytes)?;
        gauge("memtables", "Memtables", bytes, storage.memtable_bytes)?;
        gauge("table_readers", "Index and filter blocks outside the cache", bytes, storage.table_reader_bytes)?;
        gauge("sst_files", "Live SST files", bytes, storage.sst_bytes)?;
        gauge("pending_compaction", "Bytes compactions still have to rewrite", bytes, storage.pending_compaction_bytes)?;
        gauge("write_stopped", "Whether RocksDB holds writes back", None, u64::from(storage.write_stopped))?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        counter("connections", "Client connections accepted", stats.connections_total.load(Relaxed))?;
        counter(
            "connections_rejected",
            "Connections turned away because of maxclients",
            stats.connections_rejected.load(Relaxed),
        )?;
        counter("commands", "Commands executed", stats.commands.load(Relaxed))?;
        counter("error_replies", "Commands answered with an error", stats.errors.load(Relaxed))?;
        counter("parked_commands", "Commands that waited for a slot's switch", stats.parked.load(Relaxed))?;
        counter("wal_fsyncs", "Fsyncs of the write-ahead log", counters.wal_fsyncs)?;
        counter("flush_rounds", "Flush rounds completed since the start", counters.flush_rounds_total)?;
        counter("reclaimed_keys", "Keys of dead generations removed", counters.reclaimed_keys)?;
        counter("reclaimed_subkeys", "Subkeys of collections that are gone, deleted", counters.reclaimed_subkeys)?;
        counter("expired_keys", "Keys deleted because they had expired", counters.expired_keys)?;
        counter(
            "expired_compacted_keys",
            "Records of expired strings that compactions left out",
            counters.expired_compacted_keys,
        )?;
        counter("expire_sweep_keys", "Keys that the sweep looked at", node.sweep.keys_looked_at())?;
        let jobs = node.migrations.jobs();
        counter("migrated_keys", "Keys moved by the jobs remembered", jobs.iter().map(|job| job.keys_done).sum())?;
        counter("migration_attempts", "Attempts of the jobs remembered", jobs.iter().map(|job| job.attempts).sum())?;
        Ok(())
    }
}
