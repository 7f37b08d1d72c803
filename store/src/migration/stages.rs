//! For how long each stage of the pipeline waited for its neighbours: the one that hardly waits is the bottleneck.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Microseconds that one stage has waited since the start.
#[derive(Debug, Default)]
pub struct Waited(AtomicU64);

impl Waited {
    pub(super) fn add(&self, waited: Duration) {
        self.0.fetch_add(waited.as_micros() as u64, Ordering::Relaxed);
    }

    /// Counts how long `wait` takes, on this thread.
    pub(super) fn of<T>(&self, wait: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let outcome = wait();
        self.add(started.elapsed());
        outcome
    }

    /// Seconds.
    pub fn seconds(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// The stages of all migrations of a node since its start.
#[derive(Debug, Default)]
pub struct Stages {
    /// Source: reading waits for the sender to take what was read.
    pub reader: Waited,
    /// Source: sending waits for acknowledgements, the window being full.
    pub sender: Waited,
    /// Target: receiving waits for the builder to take what came.
    pub receiver: Waited,
    /// Target: building waits for something to come.
    pub builder: Waited,
}
