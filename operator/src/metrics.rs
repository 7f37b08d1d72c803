//! Counters of the operator, in Prometheus' text format.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Which controller, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// The controller.
    pub controller: &'static str,
    /// `ok` or `error`.
    pub result: &'static str,
}

/// Which controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabels {
    /// The controller.
    pub controller: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    durations: Family<ControllerLabels, Histogram>,
    leading: Gauge,
    /// Writes to the Kubernetes API by the controllers: a steady operator makes none.
    pub api_writes: Counter,
    /// Flushes that returned a receipt.
    pub flushes: Counter,
    /// Pods deleted by rolling restarts.
    pub restarts: Counter,
    /// Rolls that were halted.
    pub halts: Counter,
    /// Migration jobs started.
    pub migration_jobs: Counter,
    /// Topology documents written down.
    pub documents: Counter,
    /// Objects that could not be read as their kind.
    pub invalid_objects: Counter,
    /// Longest pause of writes at a switch, over all migrations, in milliseconds.
    pub longest_pause_ms: Gauge<i64>,
}

/// From 5 ms to 40 s.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 14))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at 0.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sluice_operator");
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles by controller and result", Family::clone(&reconciles));
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        registry.register("reconcile_duration_seconds", "Time a reconcile took", Family::clone(&durations));
        let leading = Gauge::default();
        registry.register("leading", "1 while this process is the leader", leading.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let api_writes = counter("api_writes", "Writes to the Kubernetes API");
        let flushes = counter("flushes", "Flushes that returned a receipt");
        let restarts = counter("pod_restarts", "Pods deleted by rolling restarts");
        let halts = counter("rollout_halts", "Rolling restarts that were halted");
        let migration_jobs = counter("migration_jobs", "Migration jobs started");
        let documents = counter("topology_documents", "Topology documents written down");
        let invalid_objects = counter("invalid_objects", "Objects that could not be read as their kind");
        let longest_pause_ms = Gauge::default();
        registry.register("migration_longest_pause_ms", "Longest pause of writes at a switch seen", longest_pause_ms.clone());
        Self {
            registry,
            reconciles,
            durations,
            leading,
            api_writes,
            flushes,
            restarts,
            halts,
            migration_jobs,
            documents,
            invalid_objects,
            longest_pause_ms,
        }
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, controller: &'static str, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.reconciles.get_or_create(&ReconcileLabels { controller, result }).inc();
        self.durations.get_or_create(&ControllerLabels { controller }).observe(took.as_secs_f64());
    }

    /// Says whether this process leads.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// The text a scrape gets.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
