//! The table of settings. Names are Redis' where Redis has the thing, Kvrocks' where Kvrocks has it.

use std::{path::PathBuf, time::Duration};

use super::{
    conflicts, plan_memory,
    value::{Addresses, Bytes, DebugAllowed, OutputLimits, Renames, Value, WalRecovery},
};
use crate::{
    clients::Notify,
    engine::{Compression, SweepPace, SyncPolicy},
    memory::{DumpLimits, MemoryLimits, Watermarks},
    tls::{ClientAuth, TlsOptions},
    traces::{TraceOptions, check_endpoint},
};

/// One setting: how it is named, read and written.
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// What it means, with units.
    pub doc: &'static str,
    /// Never shown.
    pub secret: bool,
    /// May be changed while the node runs.
    pub live: bool,
    /// Sets it from its text form.
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
    /// Its text form.
    pub get: fn(&Settings) -> String,
}

macro_rules! settings {
    ($( $(#[$mark:ident])? $field:ident : $kind:ty = $default:expr, $name:literal, $doc:literal; )*) => {
        /// Every setting, typed.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $( #[doc = $doc] pub $field: $kind, )*
            /// The file they were read from.
            pub source: Option<PathBuf>,
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $( $field: $default, )* source: None }
            }
        }

        /// The table of all settings, in the order of the documentation.
        pub fn specs() -> &'static [Spec] {
            static SPECS: &[Spec] = &[ $( Spec {
                name: $name,
                doc: $doc,
                secret: settings!(@secret $($mark)?),
                live: settings!(@live $($mark)?),
                set: |settings, text| Value::changed(&settings.$field, text).map(|value| settings.$field = value),
                get: |settings| Value::render(&settings.$field),
            }, )* ];
            SPECS
        }
    };
    (@secret secret) => { true };
    (@secret $($other:ident)?) => { false };
    (@live live) => { true };
    (@live $($other:ident)?) => { false };
}

/// Settings' older names in Redis.
pub const ALIASES: [(&str, &str); 1] = [("lua-time-limit", "busy-reply-threshold")];

/// The setting of that name, in any case.
pub fn spec(name: &str) -> Option<&'static Spec> {
    let alias = ALIASES.iter().find(|(alias, _)| name.eq_ignore_ascii_case(alias));
    let name = alias.map_or(name, |(_, of)| of);
    specs().iter().find(|spec| spec.name.eq_ignore_ascii_case(name))
}

fn loopback() -> Addresses {
    Addresses(vec!["127.0.0.1".into(), "-::1".into()])
}

settings! {
    port: u16 = 6379, "port", "Port for clients; 0: none, as where tls-port is the one.";
    bind: Addresses = loopback(), "bind", "Addresses to listen on for clients; `*` is all of IPv4; a leading `-`: may be missing.";
    admin_port: u16 = 7379, "admin-port", "Port of the admin plane: HTTP /livez, /readyz, /metrics, and RESP for operator, peers and redis-cli.";
    admin_bind: Addresses = loopback(), "admin-bind", "Addresses of the admin plane.";
    dir: String = "./sluice-data".into(), "dir", "The data directory. Empty or made by Sluice, anything else is refused.";
    #[secret] requirepass: String = String::new(), "requirepass", "Password of clients; empty: none.";
    #[secret] admin_password: String = String::new(), "admin-password", "Password of the admin plane, also used between nodes; empty: the admin plane's commands are for loopback peers only.";
    protected_mode: bool = true, "protected-mode", "Without requirepass, serve loopback clients only.";
    tls_port: u16 = 0, "tls-port", "Port for clients that speak TLS (1.2 or 1.3); 0: none. In a cluster either this or port, as redirects name one.";
    tls_cert_file: String = String::new(), "tls-cert-file", "File with the node's certificate and those between it and an authority, in PEM. These files are read again when they change.";
    tls_key_file: String = String::new(), "tls-key-file", "File with its private key, in PEM, not encrypted.";
    tls_ca_cert_file: String = String::new(), "tls-ca-cert-file", "File with the certificates of the authorities that clients and peers are known by, in PEM.";
    tls_auth_clients: ClientAuth = ClientAuth::Yes, "tls-auth-clients", "Whether who connects by TLS, peers too, has to show a certificate of these authorities: yes, no or optional. It does not stand for a password.";
    tls_cluster: bool = false, "tls-cluster", "TLS on the admin plane and on links between nodes. /livez, /readyz and /metrics are answered without it as well.";
    tls_handshake_timeout_ms: u64 = 10_000, "tls-handshake-timeout-ms", "Milliseconds for a TLS handshake.";
    tls_reload_interval_ms: u64 = 5000, "tls-reload-interval-ms", "Milliseconds between looks at the certificate files; new connections get what is new in them.";
    #[live] maxclients: u32 = 10_000, "maxclients", "Most client connections at once.";
    #[live] timeout: u32 = 0, "timeout", "Seconds after which an idle client is disconnected; 0: never.";
    tcp_keepalive: u32 = 300, "tcp-keepalive", "Seconds between TCP keep-alive probes; 0: none.";
    tcp_backlog: u32 = 511, "tcp-backlog", "Connections the system holds before they are accepted.";
    io_threads: u32 = 0, "io-threads", "Threads that serve clients; 0: one a processor but one, which is left for flushes and compactions.";
    databases: u32 = 16, "databases", "Databases that SELECT chooses from, 1 to 256; in cluster mode there is number 0 alone.";
    cluster_enabled: bool = false, "cluster-enabled", "Be a node of a cluster.";
    cluster_peer_timeout_ms: u64 = 3000, "cluster-peer-timeout-ms", "Milliseconds a starting node waits for its peers' word on its slots.";
    #[live] link_sendbuf_limit: Bytes = Bytes(32 << 20), "cluster-link-sendbuf-limit", "Bytes of messages of channels (PUBLISH) that may wait for another node; past them the oldest are lost.";
    wal: bool = true, "wal", "Write-ahead log: yes, or no (then what is not flushed is lost by a crash). Changed at a restart.";
    #[live] sync: SyncPolicy = SyncPolicy::EverySecond, "sync", "When the write-ahead log is made durable: always, everysec or no.";
    #[live] flush_wait: bool = true, "flush-wait", "FLUSHMEMTABLE without ASYNC waits for its round.";
    #[live] expire_sweep_keys: u64 = 50_000, "expire-sweep-keys-per-second", "Most keys a second that the background looks at to delete what has expired; 0: only compactions and commands do.";
    #[live] expire_sweep_bytes: Bytes = Bytes(16 << 20), "expire-sweep-bytes-per-second", "Most bytes of keys and values a second that the background looks at for that.";
    #[live] memory_budget: Bytes = Bytes(0), "memory-budget", "Bytes for caches and memtables together; 0: six tenths of maxmemory or of the container's limit, without both a quarter of the machine.";
    #[live] maxmemory: Bytes = Bytes(0), "maxmemory", "Bytes the process may hold in all; 0: the container's limit. On the way there caches shrink, memtables are flushed, writers are slowed down, and at last writes are refused with OOM.";
    #[live] watermarks: Watermarks = Watermarks::default(), "maxmemory-watermarks", "Percents of maxmemory at which these four begin, in that order.";
    #[live] maxmemory_clients: Bytes = Bytes(0), "maxmemory-clients", "Bytes that requests and replies of all clients may hold together; past them the largest are ended. 0: a sixth of maxmemory.";
    #[live] profile_watermark: u32 = 0, "profile-watermark-percent", "Percent of maxmemory past which a heap profile is written into `profiles` in the data directory, once a crossing; allocations are sampled for that from the start. 0: none is.";
    #[live] record_cache: u32 = 10, "record-cache-percent", "Share of memory-budget for records that are read often, in percent, up to 50; 0: none.";
    #[live] row_cache: Bytes = Bytes(0), "rocksdb.row_cache_size", "Bytes of row cache; 0: none.";
    write_buffer: Bytes = Bytes(16 << 20), "rocksdb.write_buffer_size", "Bytes of one memtable: small ones stay near the processor, large ones are flushed and merged less often.";
    max_total_wal_size: Bytes = Bytes(512 << 20), "rocksdb.max_total_wal_size", "Bytes of write-ahead log after which the oldest memtables are flushed.";
    wal_recovery: WalRecovery = WalRecovery::TolerateCorruptedTail, "rocksdb.wal_recovery_mode", "A start with a damaged write-ahead log: tolerate_corrupted_tail refuses damage that is not a torn end; point_in_time keeps what is before the damage and loses what is behind it.";
    compression: Compression = Compression::Lz4, "rocksdb.compression", "Compression of tables: no, lz4 (zstd in the last level) or zstd.";
    block_size: Bytes = Bytes(16 << 10), "rocksdb.block_size", "Bytes of a block of a table, before compression.";
    target_file_size_base: Bytes = Bytes(64 << 20), "rocksdb.target_file_size_base", "Bytes of a table of the first level below level 0.";
    max_bytes_for_level_base: Bytes = Bytes(256 << 20), "rocksdb.max_bytes_for_level_base", "Bytes of the first level below level 0.";
    max_write_buffer_number: i32 = 4, "rocksdb.max_write_buffer_number", "Most memtables of a column family, those being flushed included.";
    l0_compaction_trigger: i32 = 8, "rocksdb.level0_file_num_compaction_trigger", "Tables in level 0 that begin a compaction.";
    l0_slowdown_trigger: i32 = 24, "rocksdb.level0_slowdown_writes_trigger", "Tables in level 0 from which writes are slowed down.";
    l0_stop_trigger: i32 = 40, "rocksdb.level0_stop_writes_trigger", "Tables in level 0 at which writes are held back.";
    max_io: Bytes = Bytes(0), "rocksdb.max_io_bytes_per_sec", "Bytes a second that flushes and compactions may write; 0: as many as the disk takes.";
    range_conversion: u32 = 0, "rocksdb.min_tombstones_for_range_conversion", "Deletions in a row that reads turn into a range tombstone; 0: none are. Not with a row cache.";
    statistics: bool = false, "rocksdb.statistics", "Count what RocksDB does in its tickers, for /metrics; they cost a little of each read and write.";
    atomic_flush: bool = true, "rocksdb.atomic_flush", "Flush all column families at once. Always yes: without, half a key could come back.";
    enable_pipelined_write: bool = false, "rocksdb.enable_pipelined_write", "Always no: not with an atomic flush.";
    unordered_write: bool = false, "rocksdb.unordered_write", "Always no: it breaks snapshots.";
    manual_wal_flush: bool = false, "rocksdb.manual_wal_flush", "Always no with wal yes: a kill would lose acknowledged writes.";
    max_open_files: i32 = 4096, "rocksdb.max_open_files", "Most files RocksDB keeps open; -1: all.";
    max_background_jobs: i32 = 4, "rocksdb.max_background_jobs", "Threads for flushes and compactions.";
    #[live] disk_free_min: Bytes = Bytes(256 << 20), "disk-free-min", "Bytes of free disk, beside what the memtables still have to write, below which writes are refused (MISCONF); deletions and reads go on. 0: never.";
    reserve_file_size: Bytes = Bytes(128 << 20), "reserve-file-size", "Bytes of a file in the data directory that is removed when the disk is nearly full, so that flushes and drops have room. 0: none.";
    checkpoint_dir: String = String::new(), "checkpoint-dir", "Where BGSAVE makes checkpoints; empty: `checkpoints` in the data directory. On another file system the files are copied.";
    #[live] checkpoints_kept: u32 = 2, "checkpoints-kept", "How many checkpoints are kept; older ones are removed.";
    #[live] packed_max: Bytes = Bytes(512), "collection-packed-max-bytes", "Bytes up to which the members of a hash, list, set or sorted set are stored in its key's record, up to 4kb: a change writes all of them, and one record alone. 0: none are. What is stored stays as it is until it is written to.";
    hll_sparse_max: Bytes = Bytes(3000), "hll-sparse-max-bytes", "Bytes up to which a HyperLogLog is stored as runs.";
    #[live] stream_node_max_entries: u32 = 100, "stream-node-max-entries", "Entries that a trim of a stream with `~` lets go together; without LIMIT at most a hundred times as many at once. 0: 100.";
    #[live] slowlog_log_slower_than: i64 = 10_000, "slowlog-log-slower-than", "Microseconds from which a command is kept for SLOWLOG; negative: none is.";
    #[live] slowlog_max_len: u32 = 128, "slowlog-max-len", "Commands kept for SLOWLOG.";
    #[live] latency_monitor_threshold: u64 = 0, "latency-monitor-threshold", "Milliseconds from which LATENCY remembers a command; 0: none.";
    #[live] latency_tracking: bool = false, "latency-tracking", "Keep histograms of how long each command takes, for LATENCY HISTOGRAM.";
    #[live] profile_size_max: Bytes = Bytes(64 << 20), "profile-size-max", "Longest heap profile, in bytes.";
    #[live] profiles_kept: u32 = 8, "profiles-kept", "Heap profiles kept in a directory that KPROFILE writes into; older ones are removed.";
    rename_command: Renames = Renames::default(), "rename-command", "A command and what it is called instead, \"\" for not at all; once for each. Not those that operator and peers use.";
    enable_debug_command: DebugAllowed = DebugAllowed::No, "enable-debug-command", "Who may use DEBUG on the clients' port: no, local (loopback peers) or yes.";
    key_size_max: Bytes = Bytes(64 << 10), "key-size-max", "Longest key, in bytes.";
    proto_max_bulk_len: Bytes = Bytes(512 << 20), "proto-max-bulk-len", "Longest argument of a request, in bytes.";
    request_args_max: u32 = 1 << 20, "request-args-max", "Most arguments of a request.";
    client_query_buffer_limit: Bytes = Bytes(1 << 30), "client-query-buffer-limit", "Longest request in all, and longest transaction, in bytes.";
    #[live] client_output_buffer_limit: OutputLimits = OutputLimits::default(), "client-output-buffer-limit", "Longest reply of a client (`normal`, or one size alone) that is built whole, and how much may wait for a subscriber (`pubsub`): class, hard limit, soft limit, seconds over the soft limit; 0: none. A client that does not take its replies within a minute is disconnected.";
    #[live] reply_stream_from: Bytes = Bytes(1 << 20), "reply-stream-from", "A reply with all of a hash, set, list, sorted set or stream that is longer than this is sent in pieces, as of one moment, while it is read; 0: none is.";
    reply_streams_max: u32 = 16, "reply-streams-max", "Most replies sent in pieces at once; each has up to 2 MB of pieces in memory.";
    #[live] reply_stream_timeout_ms: u64 = 30_000, "reply-stream-timeout-ms", "Milliseconds a client has for each 256 KB of a reply that is sent in pieces, before it is disconnected; and a reply for its turn where reply-streams-max are being sent.";
    #[live] notify: Notify = Notify::default(), "notify-keyspace-events", "Which events of keys are published: letters of Redis (K, E, g, $, l, s, h, z, x, e, t, m, n, d, A); empty: none.";
    #[live] command_memory_limit: Bytes = Bytes(512 << 20), "command-memory-limit", "Bytes that one command may hold, or gather to be written, where that grows with its keys: unions, intersections and differences, SORT, ZRANGESTORE, GEOSEARCHSTORE, COPY, MOVE, RENAME into another slot.";
    #[live] busy_reply_threshold: u64 = 5000, "busy-reply-threshold", "Milliseconds of a script after which other clients wait for it no longer, but are answered BUSY until it ends (also called lua-time-limit); 0: they wait.";
    #[live] script_time_limit: u64 = 60_000, "script-time-limit", "Milliseconds after which a script is ended; it has then changed nothing.";
    script_memory_limit: Bytes = Bytes(64 << 20), "script-memory-limit", "Bytes of memory that scripts may use in each thread that serves clients.";
    script_write_limit: Bytes = Bytes(64 << 20), "script-write-limit", "Bytes that one script may write, and publish.";
    #[live] park_timeout_ms: u64 = 15_000, "park-timeout-ms", "Milliseconds a command waits for a slot that is being switched, before TRYAGAIN.";
    migrate_unit_slots: u32 = 256, "migrate-unit-slots", "Most slots switched together.";
    migrate_unit_size: Bytes = Bytes(256 << 20), "migrate-unit-size", "Most bytes switched together, as compressed in files; a slot that holds more is switched alone.";
    #[live] migrate_units_at_once: u32 = 2, "migrate-units-at-once", "Units of one migration that are on their way at once.";
    #[live] migrate_rate: Bytes = Bytes(0), "migrate-rate", "Bytes a second that all migrations of this node send together; 0: as fast as it goes.";
    migrate_batch_size: Bytes = Bytes(4 << 20), "migrate-batch-size", "Most bytes of one batch of a migration; smaller ones, down to 1mb, are sent where the link is slow.";
    migrate_window_size: Bytes = Bytes(16 << 20), "migrate-window-size", "Bytes of batches that are sent and not yet acknowledged, a unit.";
    migrate_file_size: Bytes = Bytes(128 << 20), "migrate-file-size", "Bytes of a file that a target builds of what it is sent.";
    #[live] migrate_memory: Bytes = Bytes(0), "migrate-memory", "Bytes of batches that all migrations may hold in memory, as source and as target, and as many again of changed keys (units begun from then on); past them they wait. 0: a sixteenth of maxmemory each.";
    migrate_changes_size: Bytes = Bytes(64 << 20), "migrate-changes-size", "Bytes of keys that change while a unit is copied, remembered until they are sent; writers are slowed down as it fills.";
    migrate_resume_timeout_ms: u64 = 15_000, "migrate-resume-timeout-ms", "Milliseconds for a broken link of a migration to come back before its unit is begun anew.";
    migrate_clock_skew_max_ms: u64 = 60_000, "migrate-clock-skew-max-ms", "Milliseconds that the clocks of source and target may be apart.";
    migrate_timeout_ms: u64 = 10_000, "migrate-timeout-ms", "Milliseconds for one answer of another node: of a migration's peer, and to messages of channels.";
    migrate_switch_timeout_ms: u64 = 8000, "migrate-switch-timeout-ms", "Milliseconds writes of a unit may wait before its switch is undone and tried again.";
    migrate_attempts_max: u32 = 30, "migrate-attempts-max", "Attempts of a unit before its job fails.";
    migrate_backoff_ms_max: u64 = 5000, "migrate-backoff-ms-max", "Longest pause between attempts, in milliseconds.";
    otlp_endpoint: String = String::new(), "otlp-endpoint", "Where OpenTelemetry traces are sent, by OTLP over HTTP: a collector's address without its path, such as http://collector:4318; empty: there are no traces.";
    #[live] otlp_sample: u32 = 1000, "otlp-sample-per-million", "Of a million commands, how many get a span; what is rare (flush rounds, migrations, starts) always does.";
    otlp_service: String = "sluice-store".into(), "otlp-service-name", "What traces call the service.";
    otlp_headers_file: String = String::new(), "otlp-headers-file", "File of `name: value` lines sent to otlp-endpoint as headers, such as a token; empty: none.";
    otlp_queue: u32 = 2048, "otlp-queue-size", "Most spans that wait to be sent; further ones are dropped and counted.";
    otlp_timeout_ms: u64 = 5000, "otlp-timeout-ms", "Milliseconds for otlp-endpoint to take a batch of spans, before it is dropped.";
    #[live] loglevel: String = "info".into(), "loglevel", "error, warn, info, debug or trace.";
    log_format: String = "text".into(), "log-format", "text, or json.";
}

impl Settings {
    /// How fast the background looks for what has expired.
    pub fn sweep_pace(&self) -> SweepPace {
        SweepPace { keys_per_second: self.expire_sweep_keys, bytes_per_second: self.expire_sweep_bytes.0 }
    }

    /// What the process and its parts may hold.
    pub fn memory_limits(&self) -> MemoryLimits {
        let plan = plan_memory(self);
        MemoryLimits {
            limit: plan.limit,
            watermarks: self.watermarks,
            record_cache: plan.record_cache,
            block_cache: plan.block_cache,
            row_cache: plan.row_cache,
            memtables: plan.memtables,
            clients: plan.clients,
            profile_percent: self.profile_watermark,
            profiles: self.dump_limits(),
        }
    }

    /// What a node makes traces with, if it does.
    pub fn trace_options(&self, node: String) -> Option<TraceOptions> {
        let path = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
        (!self.otlp_endpoint.is_empty()).then(|| TraceOptions {
            endpoint: self.otlp_endpoint.clone(),
            headers: path(&self.otlp_headers_file),
            service: self.otlp_service.clone(),
            instance: node,
            commands_per_million: self.otlp_sample,
            queue: self.otlp_queue as usize,
            timeout: Duration::from_millis(self.otlp_timeout_ms),
        })
    }

    /// What TLS needs, if anything speaks it.
    pub fn tls_options(&self) -> Option<TlsOptions> {
        (self.tls_port != 0 || self.tls_cluster).then(|| TlsOptions {
            certificate: PathBuf::from(&self.tls_cert_file),
            key: PathBuf::from(&self.tls_key_file),
            authorities: (!self.tls_ca_cert_file.is_empty()).then(|| PathBuf::from(&self.tls_ca_cert_file)),
            clients: self.tls_auth_clients,
            handshake_timeout: Duration::from_millis(self.tls_handshake_timeout_ms),
            reload_interval: Duration::from_millis(self.tls_reload_interval_ms),
        })
    }

    /// The port that clients use.
    pub fn client_port(&self) -> u16 {
        if self.port == 0 { self.tls_port } else { self.port }
    }

    /// What heap profiles may take.
    pub fn dump_limits(&self) -> DumpLimits {
        DumpLimits { size_max: self.profile_size_max.0, kept: self.profiles_kept as usize, free_min: self.disk_free_min.0 }
    }

    /// Contradictions between settings, by name and with the way out.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(clash) = conflicts::find(self) {
            return Err(clash);
        }
        if !["error", "warn", "info", "debug", "trace"].contains(&self.loglevel.as_str()) {
            return Err(format!("loglevel is `{}`: it has to be error, warn, info, debug or trace", self.loglevel));
        }
        if !["text", "json"].contains(&self.log_format.as_str()) {
            return Err(format!("log-format is `{}`: it has to be text or json", self.log_format));
        }
        check_endpoint(&self.otlp_endpoint)?;
        let positive = [
            ("maxclients", u64::from(self.maxclients)),
            ("expire-sweep-bytes-per-second", self.expire_sweep_bytes.0),
            ("cluster-link-sendbuf-limit", self.link_sendbuf_limit.0),
            ("key-size-max", self.key_size_max.0),
            ("proto-max-bulk-len", self.proto_max_bulk_len.0),
            ("request-args-max", u64::from(self.request_args_max)),
            ("migrate-unit-slots", u64::from(self.migrate_unit_slots)),
            ("migrate-batch-size", self.migrate_batch_size.0),
            ("migrate-unit-size", self.migrate_unit_size.0),
            ("migrate-units-at-once", u64::from(self.migrate_units_at_once)),
            ("migrate-window-size", self.migrate_window_size.0),
            ("migrate-file-size", self.migrate_file_size.0),
            ("migrate-changes-size", self.migrate_changes_size.0),
            ("migrate-attempts-max", u64::from(self.migrate_attempts_max)),
            ("migrate-timeout-ms", self.migrate_timeout_ms),
            ("migrate-switch-timeout-ms", self.migrate_switch_timeout_ms),
            ("park-timeout-ms", self.park_timeout_ms),
            ("command-memory-limit", self.command_memory_limit.0),
            ("script-time-limit", self.script_time_limit),
            ("script-memory-limit", self.script_memory_limit.0),
            ("script-write-limit", self.script_write_limit.0),
            ("tls-handshake-timeout-ms", self.tls_handshake_timeout_ms),
            ("tls-reload-interval-ms", self.tls_reload_interval_ms),
            ("otlp-queue-size", u64::from(self.otlp_queue)),
            ("otlp-timeout-ms", self.otlp_timeout_ms),
            ("profile-size-max", self.profile_size_max.0),
            ("profiles-kept", u64::from(self.profiles_kept)),
            ("checkpoints-kept", u64::from(self.checkpoints_kept)),
            ("rocksdb.write_buffer_size", self.write_buffer.0),
            ("rocksdb.target_file_size_base", self.target_file_size_base.0),
            ("rocksdb.max_bytes_for_level_base", self.max_bytes_for_level_base.0),
            ("rocksdb.level0_file_num_compaction_trigger", self.l0_compaction_trigger.max(0) as u64),
        ];
        if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0: it has to be at least 1"));
        }
        if self.key_size_max.0 > 1 << 20 {
            return Err("key-size-max is over 1mb: keys are held in every index, keep them below".into());
        }
        if self.packed_max.0 > 4 << 10 {
            return Err("collection-packed-max-bytes is over 4kb: each change of a member would write that much".into());
        }
        if !(1024..=16 << 20).contains(&self.block_size.0) {
            return Err(format!("rocksdb.block_size is {}: it has to be 1kb to 16mb", self.block_size.0));
        }
        if self.max_write_buffer_number < 2 {
            return Err("rocksdb.max_write_buffer_number is below 2: writes would wait for every flush".into());
        }
        if !(1..=crate::engine::DATABASES_MAX as u32).contains(&self.databases) {
            return Err(format!("databases is {}: it has to be 1 to {}", self.databases, crate::engine::DATABASES_MAX));
        }
        if self.otlp_queue > 1 << 20 {
            return Err("otlp-queue-size is over 1048576: each span that waits takes about a kilobyte".into());
        }
        if self.otlp_sample > 1_000_000 {
            return Err("otlp-sample-per-million is over 1000000: that is every command".into());
        }
        if self.profile_watermark > 100 {
            return Err("profile-watermark-percent is over 100: it is a part of maxmemory".into());
        }
        if self.record_cache > 50 {
            return Err("record-cache-percent is over 50: blocks and memtables need the other half".into());
        }
        if self.max_background_jobs < 2 {
            return Err("rocksdb.max_background_jobs is below 2: flushes and compactions need one each".into());
        }
        Ok(())
    }
}
