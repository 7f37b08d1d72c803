//! INFO: the server's account of itself, in Redis' sections.

pub(super) mod memory;
mod times;

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use super::{CommandError, Context};
use crate::{clients::Subscription, engine::system_ms, node::Node, protocol::Request};

/// The version of Redis whose commands and replies are followed; clients choose features by it.
pub(super) const REDIS_VERSION: &str = "7.4.0";

/// A section's name, and what writes it.
type Section = (&'static str, fn(&Node) -> String);

const SECTIONS: [Section; 12] = [
    ("server", server),
    ("clients", clients),
    ("memory", memory::memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", times::replication),
    ("cpu", times::cpu),
    ("commandstats", times::commands),
    ("latencystats", times::latencies),
    ("errorstats", times::errors),
    ("cluster", cluster),
    ("keyspace", keyspace),
];

pub(super) fn info(cx: &mut Context<'_, '_>, request: &Request) -> Result<(), CommandError> {
    let wanted: Vec<Vec<u8>> = request[1..].iter().map(|word| word.to_ascii_lowercase()).collect();
    let asks = |names: &[&[u8]]| wanted.iter().any(|word| names.contains(&word.as_slice()));
    let (all, usual) = (asks(&[b"all", b"everything"]), wanted.is_empty() || asks(&[b"default"]));
    let mut text = String::new();
    for (name, section) in SECTIONS {
        // As in Redis, the figures of each command are given when they are asked for.
        let every = all || (usual && !matches!(name, "commandstats" | "latencystats"));
        if every || wanted.iter().any(|word| word == name.as_bytes()) {
            let separator = if text.is_empty() { "" } else { "\r\n" };
            let title = name[..1].to_ascii_uppercase() + &name[1..];
            let _ = write!(text, "{separator}# {title}\r\n{}", section(cx.node));
        }
    }
    cx.reply.verbatim(&text);
    Ok(())
}

fn lines(pairs: &[(&str, String)]) -> String {
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, "{name}:{value}\r\n");
        text
    })
}

fn server(node: &Node) -> String {
    let mode = if node.cluster.enabled() { "cluster" } else { "standalone" };
    let uptime = node.started.elapsed().as_secs();
    let mut text = lines(&[
        ("redis_version", REDIS_VERSION.into()),
        ("sluice_version", env!("CARGO_PKG_VERSION").into()),
        ("redis_mode", mode.into()),
        ("os", std::env::consts::OS.into()),
        ("arch_bits", usize::BITS.to_string()),
        ("process_id", std::process::id().to_string()),
        ("run_id", node.cluster.me().to_string()),
        ("tcp_port", node.settings.client_port().to_string()),
        ("admin_port", node.settings.admin_port.to_string()),
        ("server_time_usec", (system_ms() * 1000).to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
    ]);
    if let Some(tls) = &node.tls {
        text += &lines(&[
            ("tls_certificate_not_after", tls.not_after().to_string()),
            ("tls_handshakes_failed", tls.failed_handshakes().to_string()),
        ]);
    }
    text
}

fn clients(node: &Node) -> String {
    let all = node.clients.all();
    let watching = all.iter().filter(|client| client.watched.get() > 0).count();
    let subscribed = all.iter().filter(|client| client.subscription_counts().iter().any(|count| *count > 0)).count();
    lines(&[
        ("connected_clients", node.stats.connections.load(Relaxed).to_string()),
        ("blocked_clients", (node.blocked.count() as u64 + node.clients.pause.waiting()).to_string()),
        ("maxclients", node.live.maxclients().to_string()),
        ("watching_clients", watching.to_string()),
        ("pubsub_clients", subscribed.to_string()),
    ])
}

fn persistence(node: &Node) -> String {
    let (status, counters) = (node.persistence(), node.engine.counters());
    let (saves, compactions) = (node.engine.saves(), node.engine.compactions_on_request());
    let yes = |value: bool| if value { "yes".to_owned() } else { "no".to_owned() };
    lines(&[
        ("loading", "0".into()),
        ("rdb_changes_since_last_save", counters.committed_records.saturating_sub(saves.last_records).to_string()),
        ("rdb_bgsave_in_progress", u8::from(saves.running).to_string()),
        ("rdb_last_save_time", (saves.last_ms / 1000).to_string()),
        ("rdb_last_bgsave_status", if saves.failed { "err" } else { "ok" }.into()),
        ("rdb_last_bgsave_time_sec", saves.last_duration_ms.map_or("-1".into(), |ms| ms.div_ceil(1000).to_string())),
        // There is none: what a rewrite asks for, a flush does.
        ("aof_enabled", "0".into()),
        ("aof_rewrite_in_progress", "0".into()),
        ("aof_last_bgrewrite_status", "ok".into()),
        ("last_checkpoint", if saves.last_name.is_empty() { "none".into() } else { saves.last_name }),
        ("compact_in_progress", u8::from(compactions.0).to_string()),
        ("compacts_completed_total", compactions.1.to_string()),
        ("instance", node.engine.instance().to_string()),
        ("wal", yes(status.wal)),
        ("sync", node.engine.sync_policy().name().into()),
        ("wal_fsyncs_total", counters.wal_fsyncs.to_string()),
        ("wal_synced_acks_total", node.stats.synced_acks.load(Relaxed).to_string()),
        ("write_acks_total", node.stats.acks.load(Relaxed).to_string()),
        ("committed_batches_total", counters.committed_batches.to_string()),
        ("flush_rounds_total", counters.flush_rounds_total.to_string()),
        ("flush_waiters", counters.flush_waiters.to_string()),
        ("last_flush_round", status.last_flush_round.to_string()),
        ("recovered_round", status.recovered_round.to_string()),
        ("clean_shutdown", yes(status.clean_shutdown)),
        ("latest_sequence", status.latest_sequence.to_string()),
        ("storage_fault", node.engine.fault().map_or("none", |fault| fault.name()).into()),
        ("refused_writes_total", counters.refused_writes.to_string()),
        ("background_errors_total", counters.background_errors.to_string()),
        ("last_background_error", node.engine.last_background_error().unwrap_or_else(|| "none".into())),
        ("disk_free", node.engine.disk().free.to_string()),
        ("disk_total", node.engine.disk().total.to_string()),
        ("reserve_file", yes(node.engine.reserve_held())),
        ("reclaim_pending_generations", counters.reclaim_pending.to_string()),
        ("reclaim_pending_collections", yes(!counters.reclaim_collections_idle)),
        ("reclaimed_subkeys_total", counters.reclaimed_subkeys.to_string()),
        ("long_readers", node.engine.long_readers().join(",")),
        ("reclaimed_keys_total", counters.reclaimed_keys.to_string()),
    ])
}

fn stats(node: &Node) -> String {
    let stats = &node.stats;
    lines(&[
        ("total_connections_received", stats.connections_total.load(Relaxed).to_string()),
        ("total_commands_processed", super::calls().to_string()),
        ("rejected_connections", stats.connections_rejected.load(Relaxed).to_string()),
        ("total_error_replies", stats.errors.load(Relaxed).to_string()),
        ("expired_keys", node.engine.counters().expired_keys.to_string()),
        ("expired_compacted_keys", node.engine.counters().expired_compacted_keys.to_string()),
        ("expire_sweep_keys_looked_at", node.sweep.keys_looked_at().to_string()),
        ("pubsub_channels", node.clients.channels.count(Subscription::Channel).to_string()),
        ("pubsub_patterns", node.clients.channels.count(Subscription::Pattern).to_string()),
        ("pubsubshard_channels", node.clients.channels.count(Subscription::Shard).to_string()),
        ("client_output_buffer_limit_disconnections", node.clients.dropped.load(Relaxed).to_string()),
        ("slowlog_commands", node.clients.slow.len().to_string()),
        ("large_replies_total", stats.large_replies.load(Relaxed).to_string()),
        ("parked_commands_total", stats.parked.load(Relaxed).to_string()),
    ])
}

fn cluster(node: &Node) -> String {
    let messages = node.cluster.bus().totals();
    lines(&[
        ("cluster_enabled", u8::from(node.cluster.enabled()).to_string()),
        ("cluster_messages_sent", messages.sent.to_string()),
        ("cluster_messages_lost", messages.lost.to_string()),
        ("cluster_messages_received", messages.received.to_string()),
    ])
}

/// The number of keys is RocksDB's estimate, as counting them would cost a scan: DBSIZE counts. What expires is not known without one.
fn keyspace(node: &Node) -> String {
    match node.engine.storage().keys_estimate {
        0 => String::new(),
        keys => format!("db0:keys={keys}\r\n"),
    }
}
