//! The life of the process: bind, open, join, serve, and end in order.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, SystemTime},
};

use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    admin,
    data::{DataThreads, STACK_BYTES},
    listen,
};
use crate::{
    commands,
    commands::rename,
    config::{Settings, WalRecovery, plan_memory},
    engine::{Engine, EngineOptions, Tuning},
    node::Node,
    tls::Tls,
    traces::{self, Span, traces},
};

/// Threads of the admin plane.
const ADMIN_THREADS: usize = 2;

/// About what a span takes while it waits to be sent.
const SPAN_BYTES: usize = 1024;

/// For tasks that block to end, once everything is flushed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until a signal ends it. An error is what the process says last.
pub fn serve(settings: Settings) -> anyhow::Result<()> {
    let admin = runtime("admin", ADMIN_THREADS)?;
    let accept = runtime("accept", 1)?;
    let data = OnceLock::new();
    let outcome = admin.block_on(live(settings, &accept, &data));
    // Every task ends and lets go of the engine, whose threads end with it: nothing may use RocksDB while the process unloads it.
    accept.shutdown_timeout(END_TIMEOUT);
    if let Some(threads) = data.into_inner().and_then(Arc::into_inner) {
        threads.stop(END_TIMEOUT);
    }
    admin.shutdown_timeout(END_TIMEOUT);
    outcome
}

/// Threads that serve clients. What is left of the processors is RocksDB's, for flushes and compactions.
fn data_threads(settings: &Settings) -> usize {
    match settings.io_threads {
        0 => thread::available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1).max(1)),
        threads => threads as usize,
    }
}

fn runtime(name: &'static str, threads: usize) -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?)
}

async fn live(settings: Settings, accept: &Runtime, data: &OnceLock<Arc<DataThreads>>) -> anyhow::Result<()> {
    let mut ends = Ends::new()?;
    let begun = SystemTime::now();
    if !settings.rename_command.0.is_empty() {
        rename(&settings.rename_command.0).map_err(anyhow::Error::msg)?;
    }
    let tls = settings.tls_options().map(Tls::load).transpose()?.map(Arc::new);
    let listeners: Vec<(TcpListener, Option<Arc<Tls>>)> = {
        let _accept = accept.enter();
        let ports = [("port", settings.port, None), ("tls-port", settings.tls_port, tls.clone())];
        let mut listeners = Vec::new();
        for (what, port, tls) in ports.into_iter().filter(|(_, port, _)| *port != 0) {
            let bound = listen::bind(what, &settings.bind.0, port, settings.tcp_backlog)?;
            listeners.extend(bound.into_iter().map(|listener| (listener, tls.clone())));
        }
        listeners
    };
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().watch());
    }
    let slot: admin::Slot = Arc::new(OnceLock::new());
    let admin = admin::Plane::new(Arc::new(settings.clone()), slot.clone(), tls.clone().filter(|_| settings.tls_cluster));
    for listener in listen::bind("admin-port", &settings.admin_bind.0, settings.admin_port, settings.tcp_backlog)? {
        tokio::spawn(admin.clone().accept(listener));
    }
    let options = engine_options(&settings);
    let opening = tokio::task::spawn_blocking(move || Engine::open(options));
    let engine = tokio::select! {
        opened = opening => Arc::new(opened??),
        // Nothing was written yet that a kill could harm, and the recovery of a log cannot be cut short.
        () = ends.next() => std::process::exit(0),
    };
    let opened = SystemTime::now();
    let start = engine.start();
    let node = Arc::new(Node::new(settings, engine.clone(), tls)?);
    commands::open_libraries(&node)?;
    let _ = slot.set(node.clone());
    tracing::info!(
        node = %node.cluster.me(), instance = %engine.instance(), created = start.created, recovered_round = start.recovered_round,
        clean_shutdown = start.clean_shutdown, "storage is open"
    );
    let span = trace_start(&node, begun, opened)?;
    let joining = span.child("join");
    node.join().await?;
    drop(joining);
    tokio::spawn(node.clone().drop_unserved_shards());
    // One more for a slow script, which has a thread of its own.
    let scripts = node.settings.script_memory_limit.0 * (data_threads(&node.settings) as u64 + 1);
    node.memory.register("scripts", move || (commands::script_memory(), scripts));
    let threads = Arc::new(DataThreads::start(data_threads(&node.settings), &node)?);
    let _ = data.set(threads.clone());
    for (listener, tls) in listeners {
        accept.spawn(threads.clone().accept(listener, tls));
    }
    drop((threads, span));
    tracing::info!(
        port = node.settings.port,
        tls_port = node.settings.tls_port,
        admin_port = node.settings.admin_port,
        cluster = node.cluster.enabled(),
        "ready to accept connections"
    );
    tokio::select! {
        () = ends.next() => {}
        () = node.end_asked_for() => {}
        error = engine.sync_failed() => return Err(error.into()),
        error = engine.needs_restart() => return Err(error.into()),
    }
    tracing::info!("shutting down: taking no more writes, flushing");
    node.stop();
    let ending = traces::span("shutdown");
    let mut closing = tokio::task::spawn_blocking(move || {
        node.memory.stop();
        node.sweep.stop();
        engine.close()
    });
    loop {
        tokio::select! {
            closed = &mut closing => {
                closed??;
                drop(ending);
                if let Some(traces) = traces() {
                    tokio::task::spawn_blocking(|| traces.stop()).await?;
                }
                tracing::info!("everything is flushed; bye");
                return Ok(());
            }
            () = ends.next() => tracing::warn!("already shutting down; kill -9 would be safe with wal yes, and lose what is not flushed with wal no"),
        }
    }
}

/// Begins to make traces, if any are wanted: the first is of the start itself. It has their owner's name only now.
fn trace_start(node: &Node, begun: SystemTime, opened: SystemTime) -> anyhow::Result<Span> {
    let Some(options) = node.settings.trace_options(node.cluster.me().to_string()) else { return Ok(Span::none()) };
    let limit = (options.queue * SPAN_BYTES) as u64;
    traces::start(options)?;
    let Some(traces) = traces() else { return Ok(Span::none()) };
    node.memory.register("traces", move || (traces.counts().waiting * SPAN_BYTES as u64, limit));
    let (mut span, start) = (traces.span_since("start", begun), node.engine.start());
    span.child_between("open storage", begun, opened);
    span.set("sluice.created", start.created);
    span.set("sluice.clean_shutdown", start.clean_shutdown);
    span.count("sluice.recovered_round", start.recovered_round);
    Ok(span)
}

fn engine_options(settings: &Settings) -> EngineOptions {
    let plan = plan_memory(settings);
    EngineOptions {
        directory: settings.dir.clone().into(),
        wal: settings.wal,
        sync: settings.sync,
        block_cache_bytes: plan.block_cache as usize,
        record_cache_bytes: plan.record_cache as usize,
        row_cache_bytes: settings.row_cache.0 as usize,
        packed_bytes_max: settings.packed_max.0 as usize,
        write_buffer_bytes: plan.write_buffer as usize,
        memtables_bytes: plan.memtables as usize,
        wal_bytes_max: settings.max_total_wal_size.0,
        background_jobs: settings.max_background_jobs,
        open_files_max: settings.max_open_files,
        tuning: tuning(settings),
        wal_point_in_time: settings.wal_recovery == WalRecovery::PointInTime,
        checkpoints_directory: (!settings.checkpoint_dir.is_empty()).then(|| settings.checkpoint_dir.clone().into()),
        checkpoints_kept: settings.checkpoints_kept as usize,
        disk_free_min: settings.disk_free_min.0,
        reserve_bytes: settings.reserve_file_size.0,
    }
}

fn tuning(settings: &Settings) -> Tuning {
    Tuning {
        compression: settings.compression,
        block_bytes: settings.block_size.0 as usize,
        table_bytes: settings.target_file_size_base.0,
        level_base_bytes: settings.max_bytes_for_level_base.0,
        l0_compaction_trigger: settings.l0_compaction_trigger,
        l0_slowdown_trigger: settings.l0_slowdown_trigger,
        l0_stop_trigger: settings.l0_stop_trigger,
        memtables_max: settings.max_write_buffer_number,
        io_bytes_per_second: settings.max_io.0,
        range_conversion_tombstones: settings.range_conversion,
        statistics: settings.statistics,
    }
}

/// Signals that end the process.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
