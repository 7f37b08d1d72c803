//! Prometheus metrics of a node, read when they are asked for.

use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    commands,
    config::{plan_memory, process_memory},
    memory::{allocated, is_active},
    node::Node,
    traces::{Traces, traces},
};

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

/// Writes metrics, one call each.
struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.sized(name, help, None, value)
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.sized(name, help, Some(&Unit::Bytes), value)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(self.0.encode_descriptor(name, help, Some(&Unit::Seconds), metric.metric_type())?)
    }

    fn sized(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        metric.encode(self.0.encode_descriptor(name, help, unit, metric.metric_type())?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    /// A gauge for each value of a label.
    fn by<'v>(&mut self, name: &str, help: &str, label: &str, values: impl Iterator<Item = (&'v str, u64)>) -> fmt::Result {
        self.labelled(name, help, None, label, values)
    }

    fn labelled<'v>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (value, number) in values {
            let metric = ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX));
            metric.encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    /// A counter of seconds for each value of a label.
    fn seconds_counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'v str, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (value, seconds) in values {
            ConstCounter::new(seconds).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    /// A histogram for each command that was counted.
    fn latencies(&mut self, name: &str, help: &str) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for spec in commands::table() {
            let latency = &spec.calls.latency;
            let mut buckets: Vec<(f64, u64)> = latency.buckets().map(|(micros, count)| (micros as f64 / 1e6, count)).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            if count > 0 {
                // The last holds whatever took longer than the one before it.
                buckets.iter_mut().last().into_iter().for_each(|(bound, _)| *bound = f64::MAX);
                let sum = latency.micros() as f64 / 1e6;
                family.encode_family(&[("command", spec.name)])?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    /// A counter for each value of a label.
    fn counters<'v>(&mut self, name: &str, help: &str, label: &str, values: impl Iterator<Item = (&'v str, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, number) in values {
            ConstCounter::new(number).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (node, mut sheet) = (&*self.0, Sheet(encoder));
        server(node, &mut sheet)?;
        durability(node, &mut sheet)?;
        disk(node, &mut sheet)?;
        memory(node, &mut sheet)?;
        tables(node, &mut sheet)?;
        space(node, &mut sheet)?;
        cluster(node, &mut sheet)?;
        traces_sent(&mut sheet)
    }
}

fn server(node: &Node, sheet: &mut Sheet<'_>) -> fmt::Result {
    let stats = &node.stats;
    sheet.gauge("ready", "Whether clients may be sent here", u64::from(node.ready()))?;
    sheet.seconds("uptime", "Since the process began to serve", node.started.elapsed().as_secs_f64())?;
    sheet.gauge("clients", "Client connections open", stats.connections.load(Relaxed))?;
    sheet.gauge("clients_limit", "Most client connections at once", u64::from(node.live.maxclients()))?;
    sheet.counter("connections", "Client connections accepted", stats.connections_total.load(Relaxed))?;
    sheet.counter(
        "connections_rejected",
        "Connections turned away because of maxclients",
        stats.connections_rejected.load(Relaxed),
    )?;
    sheet.counter(
        "clients_dropped",
        "Clients ended because they did not take what they were sent",
        node.clients.dropped.load(Relaxed),
    )?;
    sheet.counter("commands", "Commands executed", commands::calls())?;
    let called = commands::table().map(|spec| (spec.name, spec.calls.get())).filter(|(_, calls)| *calls > 0);
    sheet.counters("command_calls", "Commands executed, by their names", "command", called)?;
    let times = commands::table().map(|spec| (spec.name, spec.calls.micros() / 1e6)).filter(|(_, seconds)| *seconds > 0.0);
    sheet.seconds_counters("command_time", "Time that commands took, by their names", "command", times)?;
    sheet.latencies("command_duration", "How long commands took, while latency-tracking is on")?;
    let errors = stats.error_codes();
    let codes = errors.iter().map(|(code, count)| (code.as_str(), *count));
    sheet.counters("errors", "Commands answered with an error, by its code", "code", codes)?;
    sheet.counter("slow_commands", "Commands that took slowlog-log-slower-than or longer", node.clients.slow.logged())?;
    sheet.counter("error_replies", "Commands answered with an error", stats.errors.load(Relaxed))?;
    sheet.counter("large_replies", "Replies that were sent in pieces", stats.large_replies.load(Relaxed))?;
    sheet.counter("parked_commands", "Commands that waited for a slot's switch", stats.parked.load(Relaxed))?;
    let Some(tls) = &node.tls else { return Ok(()) };
    sheet.counter(
        "tls_handshakes_failed",
        "TLS handshakes that failed, of clients and on the admin plane",
        tls.failed_handshakes(),
    )?;
    sheet.seconds("tls_certificate_expiry_timestamp", "When the certificate that is shown ends", tls.not_after() as f64)?;
    sheet.gauge("tls_reload_failed", "Whether changed certificate files could not be taken", u64::from(tls.reload_failed()))
}

fn traces_sent(sheet: &mut Sheet<'_>) -> fmt::Result {
    let Some(counts) = traces().map(Traces::counts) else { return Ok(()) };
    let outcomes = [("sent", counts.sent), ("dropped", counts.dropped), ("failed", counts.failed)];
    sheet.counters(
        "trace_spans",
        "Spans of traces: sent, dropped because too many waited, or failed because the collector did not take them",
        "outcome",
        outcomes.into_iter(),
    )?;
    sheet.gauge("trace_spans_waiting", "Spans that wait to be sent", counts.waiting)
}

fn durability(node: &Node, sheet: &mut Sheet<'_>) -> fmt::Result {
    let (stats, counters, start, saves) = (&node.stats, node.engine.counters(), node.engine.start(), node.engine.saves());
    sheet.counter("write_acks", "Replies sent that rest on changes", stats.acks.load(Relaxed))?;
    sheet.counter("wal_synced_acks", "Of these, those that waited for an fsync", stats.synced_acks.load(Relaxed))?;
    sheet.counter("wal_fsyncs", "Fsyncs of the write-ahead log", counters.wal_fsyncs)?;
    sheet.counter("committed_batches", "Batches of commands' writes applied", counters.committed_batches)?;
    sheet.counter("committed_records", "Records in these batches", counters.committed_records)?;
    sheet.gauge("latest_sequence", "Latest sequence number", counters.latest_sequence)?;
    sheet.counter("flush_rounds", "Flush rounds completed since the start", counters.flush_rounds_total)?;
    sheet.gauge("flush_round", "Last flush round that completed", counters.last_flush_round)?;
    sheet.gauge("flush_recovered_round", "Flush round that this start found", start.recovered_round)?;
    sheet.gauge("flush_waiters", "Callers waiting for a flush round", counters.flush_waiters)?;
    sheet.gauge("clean_shutdown", "Whether the last shutdown was in order", u64::from(start.clean_shutdown))?;
    sheet.gauge("checkpoint_in_progress", "Whether a checkpoint is being made", u64::from(saves.running))?;
    sheet.gauge("checkpoint_failed", "Whether the last attempt of a checkpoint failed", u64::from(saves.failed))?;
    sheet.seconds(
        "checkpoint_last_timestamp",
        "When the newest checkpoint was made; 0: there is none",
        saves.last_ms as f64 / 1000.0,
    )
}

fn disk(node: &Node, sheet: &mut Sheet<'_>) -> fmt::Result {
    let (disk, counters, fault) = (node.engine.disk(), node.engine.counters(), node.engine.fault());
    sheet.bytes("disk_free", "Free space of the disk under the data directory", disk.free)?;
    sheet.bytes("disk_size", "Size of that disk", disk.total)?;
    sheet.gauge("reserve_file", "Whether the reserve file is there", u64::from(node.engine.reserve_held()))?;
    let kinds = ["low_space", "no_space", "device", "damaged"];
    let now = fault.as_ref().map(crate::engine::Fault::name);
    let faults = kinds.into_iter().map(|kind| (kind, u64::from(now == Some(kind))));
    sheet.by("storage_fault", "Why writes are refused right now", "fault", faults)?;
    sheet.counter("refused_writes", "Writes refused because of the disk", counters.refused_writes)?;
    sheet.counter("background_errors", "Failed flushes, compactions and log writes", counters.background_errors)
}

fn memory(node: &Node, sheet: &mut Sheet<'_>) -> fmt::Result {
    let (caches, process, storage) = (node.engine.cache_use(), process_memory(), node.engine.storage());
    let (records, heap, owners) = (node.engine.counters().record_cache, allocated(), node.memory.owners());
    let (anonymous, peak) = node.memory.used();
    sheet.bytes("memory_resident", "Resident memory of the process", process.resident)?;
    sheet.bytes("memory_anonymous", "Of it, what no file stands behind: what memory_limit_bytes is about", anonymous)?;
    sheet.bytes("memory_anonymous_peak", "The most of that since the start", peak)?;
    sheet.bytes("memory_limit", "What the process may hold; 0: nobody has said", node.memory.limits().limit)?;
    sheet.bytes("memory_allocated", "In use, as the allocator counts it", heap.allocated)?;
    sheet.bytes("memory_allocator_active", "Pages of the allocator with something in use in them", heap.active)?;
    sheet.bytes(
        "memory_allocator_resident",
        "Pages of the allocator, those that wait to be given back included",
        heap.resident,
    )?;
    let used = owners.iter().map(|owner| (owner.name, owner.used));
    sheet.labelled("memory_owner", "What each owner of memory holds", Some(&Unit::Bytes), "owner", used)?;
    let limits = owners.iter().map(|owner| (owner.name, owner.limit));
    sheet.labelled("memory_owner_limit", "What it may hold; 0: no bound of its own", Some(&Unit::Bytes), "owner", limits)?;
    let pressure = node.memory.pressure();
    sheet.gauge(
        "memory_pressure",
        "What is done for want of memory: 0 nothing, 1 caches shrink, 2 memtables are flushed, 3 writers are slowed down, 4 writes are refused",
        pressure as u64,
    )?;
    let begun = node.memory.begun();
    let steps = begun.iter().skip(1).map(|(step, count)| (step.name(), *count));
    sheet.counters("memory_pressure_begun", "How often each of these was begun", "step", steps)?;
    sheet.counter("memory_refused_writes", "Writes refused for want of memory", node.memory.refused())?;
    sheet.counter(
        "memory_ended_clients",
        "Clients ended because all of them held too much together",
        node.memory.ended_clients(),
    )?;
    sheet.gauge(
        "memory_past_profile_watermark",
        "Whether memory is past profile-watermark-percent",
        u64::from(node.memory.past_profile_mark()),
    )?;
    sheet.counter("memory_watermark_profiles", "Heap profiles written at its crossings", node.memory.profiles_written())?;
    sheet.gauge("heap_profiling", "Whether allocations are sampled", u64::from(is_active().unwrap_or(false)))?;
    sheet.bytes("memory_budget", "Budget of caches and memtables", plan_memory(&node.live.current()).budget)?;
    sheet.bytes("record_cache", "Record cache in use", records.used)?;
    sheet.bytes("record_cache_capacity", "Capacity of the record cache", records.capacity)?;
    sheet.counter("record_cache_hits", "Records found in the record cache", records.hits)?;
    sheet.counter("record_cache_misses", "Records looked for and not found there", records.misses)?;
    sheet.bytes("block_cache", "Block cache in use, memtables included", caches.block_used)?;
    sheet.bytes("block_cache_pinned", "Of it, what cannot be evicted now", caches.block_pinned)?;
    sheet.bytes("block_cache_capacity", "Capacity of the block cache", caches.block_capacity)?;
    sheet.bytes("row_cache", "Row cache in use", caches.row_used)?;
    sheet.bytes("row_cache_capacity", "Capacity of the row cache", caches.row_capacity)?;
    sheet.bytes("memtables", "Memtables", caches.memtables_used)?;
    sheet.bytes("memtables_limit", "What the memtables may hold before flushes begin", caches.memtables_limit)?;
    sheet.bytes("table_readers", "Index and filter blocks outside the cache", storage.table_reader_bytes)
}

fn tables(node: &Node, sheet: &mut Sheet<'_>) -> fmt::Result {
    let (storage, counters) = (node.engine.storage(), node.engine.counters());
    sheet.bytes("sst_files", "Live tables", storage.sst_bytes)?;
    let levels = ["0", "1", "2", "3", "4", "5", "6"].into_iter().zip(storage.files_at_level);
    sheet.by("level_files", "Tables of a level", "level", levels)?;
    sheet.gauge("keys_estimate", "Keys, dead ones not yet reclaimed included, estimated", storage.keys_estimate)?;
    sheet.gauge("immutable_memtables", "Memtables that wait to be flushed", storage.immutable_memtables)?;
    sheet.gauge("flushes_running", "Flushes that are running", storage.flushes_running)?;
    sheet.gauge("compactions_running", "Compactions that are running", storage.compactions_running)?;
    sheet.gauge("compactions_due", "Families in which a compaction is due", storage.compactions_due)?;
    sheet.bytes("pending_compaction", "What compactions still have to rewrite, estimated", storage.pending_compaction_bytes)?;
    sheet.gauge("write_stopped", "Whether RocksDB holds writes back", u64::from(storage.write_stopped))?;
    sheet.bytes("write_delayed_rate", "A second, while RocksDB slows writes down; 0: it does not", storage.delayed_write_rate)?;
    let tickers = node.engine.tickers();
    let tickers = tickers.iter().map(|(name, count)| (*name, *count));
    sheet.counters("rocksdb_ticker", "RocksDB's own counters by its names, with rocksdb.statistics yes", "ticker", tickers)?;
    sheet.counter("write_delays", "How often RocksDB began to slow writes down", counters.write_delays)?;
    sheet.counter("write_stops", "How often RocksDB began to hold writes back", counters.write_stops)?;
    let (running, completed) = node.engine.compactions_on_request();
    sheet.gauge("compact_in_progress", "Whether COMPACT is running", u64::from(running))?;
    sheet.counter("compacts", "COMPACT commands completed", completed)
}

fn space(node: &Node, sheet: &mut Sheet<'_>) -> fmt::Result {
    let counters = node.engine.counters();
    sheet.counter("expired_keys", "Keys deleted because they had expired", counters.expired_keys)?;
    sheet.counter(
        "expired_compacted_keys",
        "Records of expired strings that compactions left out",
        counters.expired_compacted_keys,
    )?;
    sheet.counter("expire_sweep_keys", "Keys the background looked at for their expiry", node.sweep.keys_looked_at())?;
    sheet.gauge("reclaim_pending_generations", "Dead generations not yet reclaimed", counters.reclaim_pending)?;
    sheet.counter("reclaimed_keys", "Keys of dead generations deleted", counters.reclaimed_keys)?;
    sheet.counter("reclaimed_subkeys", "Subkeys deleted of collections that are gone", counters.reclaimed_subkeys)?;
    sheet.gauge("long_readers", "Readers that hold reclaiming back", node.engine.long_readers().len() as u64)
}

fn cluster(node: &Node, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.gauge("slots_owned", "Slots this node owns", node.cluster.owned().len() as u64)?;
    sheet.gauge("slots_fenced", "Slots this node owns and does not serve", node.cluster.fenced().len() as u64)?;
    sheet.gauge("topology_version", "Version of the last topology document", node.cluster.known().version.0)?;
    let messages = node.cluster.bus().totals();
    let outcomes = [("sent", messages.sent), ("lost", messages.lost), ("received", messages.received)];
    sheet.counters(
        "cluster_messages",
        "Messages of channels: acknowledged by another node or lost on the way to it, each once a node, and received from others",
        "outcome",
        outcomes.into_iter(),
    )?;
    let totals = node.migrations.totals();
    sheet.counter("migrated_keys", "Keys moved to other nodes", totals.keys)?;
    sheet.counter("migration_attempts", "Attempts to move a unit of slots", totals.attempts)?;
    sheet.counter("migration_sent_bytes", "Bytes that migrations put on their links", totals.bytes_sent)?;
    sheet.counter("migration_resent_bytes", "Of these, bytes sent again", totals.bytes_resent)?;
    let stages = node.migrations.stages();
    let waited =
        [("reader", &stages.reader), ("sender", &stages.sender), ("receiver", &stages.receiver), ("builder", &stages.builder)];
    sheet.seconds_counters(
        "migration_waited",
        "How long each stage of the migration pipeline waited for its neighbours",
        "stage",
        waited.into_iter().map(|(stage, waited)| (stage, waited.seconds())),
    )
}
