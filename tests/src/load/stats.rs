//! Figures of one phase of the story: how many requests, how long, what failed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

/// Requests of the phase that runs now.
pub(super) struct Stats(Mutex<Phase>);

struct Phase {
    name: String,
    since: Instant,
    latencies_us: Vec<u32>,
    failures: BTreeMap<String, u64>,
}

/// Figures of a phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    phase: String,
    seconds: f64,
    requests: u64,
    /// Requests that failed after all of the client's retries.
    pub failed: u64,
    /// Those, by what the client said.
    pub failures: BTreeMap<String, u64>,
    p50_ms: f64,
    /// Of all requests, retries included, milliseconds.
    pub p99_ms: f64,
    /// The slowest one, milliseconds.
    pub longest_ms: f64,
}

/// Latencies kept of a phase; past them only the longest counts on.
const LATENCIES_MAX: usize = 4_000_000;

impl Stats {
    pub(super) fn new(name: &str) -> Self {
        Self(Mutex::new(Phase::new(name)))
    }

    /// Ends the phase and begins another.
    pub(super) fn next_phase(&self, name: &str) -> PhaseReport {
        let mut phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *phase, Phase::new(name)).report()
    }

    pub(super) fn report(&self) -> PhaseReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).report()
    }

    pub(super) fn succeeded(&self, took: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(took);
    }

    pub(super) fn failed(&self, took: Duration, error: &redis::RedisError) {
        let mut phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        phase.note(took);
        let text: String = error.to_string().chars().take(160).collect();
        *phase.failures.entry(text).or_default() += 1;
        eprintln!("failed in phase {:?}: {error}", phase.name);
    }
}

impl Phase {
    fn new(name: &str) -> Self {
        Self { name: name.into(), since: Instant::now(), latencies_us: Vec::new(), failures: BTreeMap::new() }
    }

    fn note(&mut self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.latencies_us.len() < LATENCIES_MAX {
            self.latencies_us.push(took);
        } else if let Some(last) = self.latencies_us.last_mut() {
            *last = took.max(*last);
        }
    }

    fn report(&self) -> PhaseReport {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = |part: f64| {
            let index = (sorted.len() as f64 * part) as usize;
            sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        PhaseReport {
            phase: self.name.clone(),
            seconds: self.since.elapsed().as_secs_f64(),
            requests: sorted.len() as u64,
            failed: self.failures.values().sum(),
            failures: self.failures.clone(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            longest_ms: at(1.0),
        }
    }
}
