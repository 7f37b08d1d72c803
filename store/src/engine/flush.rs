//! Flush rounds: proof of durability on request.
//!
//! One round runs, at most one is pending, any number of callers wait. A caller joins the pending round, never the running one, so a
//! return always covers every write acknowledged before the call. Each round writes a marker (instance, round) with the data's own
//! durability and then flushes every family in one atomic flush: a restart that finds the marker has everything before it.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rocksdb::{WriteBatch, WriteOptions};
use sluice_topology::{InstanceId, admin::FlushReceipt};
use tokio::sync::oneshot;

use super::{
    EngineError,
    clock::{Clock, system_ms},
    families::Family,
    layout::OWN_PREFIX,
    raw::Database,
    sealed::{Opened, Seal},
    worker::Worker,
};
use crate::traces::{self, Steps};

/// How long a round waits for a write stall to clear before it flushes with the stall allowed.
const STALL_WAIT: Duration = Duration::from_secs(2);

/// Why a caller got no receipt.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum FlushError {
    /// The caller wanted no wait and a round is running.
    #[error("flush round {0} is running")]
    Running(u64),
    /// The flush itself failed.
    #[error("flush round {round} failed: {why}")]
    Failed {
        /// The round.
        round: u64,
        /// RocksDB's reason.
        why: String,
    },
    /// The engine is closed.
    #[error("the store is shutting down")]
    Closed,
}

type Outcome = Result<FlushReceipt, FlushError>;

/// A caller's place in a round. Dropping it detaches the caller; the round goes on.
pub struct FlushWait {
    /// The round that covers the caller's writes.
    pub round: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl FlushWait {
    /// Waits for the round.
    pub async fn receipt(self) -> Outcome {
        self.outcome.await.unwrap_or(Err(FlushError::Closed))
    }

    /// Waits for the round, blocking the thread.
    pub fn receipt_blocking(self) -> Outcome {
        self.outcome.blocking_recv().unwrap_or(Err(FlushError::Closed))
    }
}

#[derive(Default)]
struct State {
    running: Option<u64>,
    completed: u64,
    pending: Vec<oneshot::Sender<Outcome>>,
    wanted: bool,
    stop: bool,
}

struct Shared {
    database: Arc<Database>,
    clock: Arc<Clock>,
    instance: InstanceId,
    wal: bool,
    state: Mutex<State>,
    wake: Condvar,
    rounds_total: AtomicU64,
    waiters: AtomicU64,
}

/// The flush thread and its queue.
pub(crate) struct FlushRounds {
    shared: Arc<Shared>,
    worker: Worker,
}

impl FlushRounds {
    /// Starts the thread; rounds count on from the one that was recovered.
    pub(crate) fn start(
        database: Arc<Database>,
        clock: Arc<Clock>,
        instance: InstanceId,
        wal: bool,
        recovered: u64,
    ) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared {
            database,
            clock,
            instance,
            wal,
            state: Mutex::new(State { completed: recovered, ..State::default() }),
            wake: Condvar::new(),
            rounds_total: AtomicU64::new(0),
            waiters: AtomicU64::new(0),
        });
        let for_thread = shared.clone();
        let worker = Worker::spawn("flush", move || for_thread.run())?;
        Ok(Self { shared, worker })
    }

    /// Joins the pending round, or starts one. With `if_idle`, refuses when a round is running.
    pub(crate) fn request(&self, if_idle: bool) -> Result<FlushWait, FlushError> {
        let mut state = self.shared.lock();
        if state.stop {
            return Err(FlushError::Closed);
        }
        if let Some(round) = state.running.filter(|_| if_idle) {
            return Err(FlushError::Running(round));
        }
        let (sender, outcome) = oneshot::channel();
        state.pending.push(sender);
        state.wanted = true;
        let round = state.running.unwrap_or(state.completed) + 1;
        self.shared.wake.notify_one();
        Ok(FlushWait { round, outcome })
    }

    /// The last round that completed.
    pub(crate) fn last_round(&self) -> u64 {
        self.shared.lock().completed
    }

    /// Rounds completed since the start.
    pub(crate) fn rounds_total(&self) -> u64 {
        self.shared.rounds_total.load(Ordering::Relaxed)
    }

    /// Callers waiting right now.
    pub(crate) fn waiters(&self) -> u64 {
        self.shared.waiters.load(Ordering::Relaxed) + self.shared.lock().pending.len() as u64
    }

    /// Ends the thread once the pending round is done.
    pub(crate) fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        self.worker.join();
    }
}

impl Drop for FlushRounds {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let (round, callers) = {
                let mut state = self.lock();
                while !state.wanted && !state.stop {
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if !state.wanted {
                    return;
                }
                state.wanted = false;
                let round = state.completed + 1;
                state.running = Some(round);
                (round, std::mem::take(&mut state.pending))
            };
            self.waiters.store(callers.len() as u64, Ordering::Relaxed);
            let mut steps = Steps::of(traces::span("flush round"));
            let outcome = self.flush(round, callers.len() as u64, &mut steps);
            steps.judge(&outcome);
            drop(steps);
            self.waiters.store(0, Ordering::Relaxed);
            {
                let mut state = self.lock();
                state.running = None;
                // A failed round keeps its number: no receipt was given for it, and its marker, if it survives, claims no more
                // than what is before it.
                if outcome.is_ok() {
                    state.completed = round;
                    self.rounds_total.fetch_add(1, Ordering::Relaxed);
                }
            }
            for caller in callers {
                let _ = caller.send(outcome.clone());
            }
        }
    }

    fn flush(&self, round: u64, waiters: u64, steps: &mut Steps) -> Outcome {
        let started = Instant::now();
        let failed = |error: EngineError| {
            tracing::error!(round, %error, "flush round failed");
            FlushError::Failed { round, why: error.to_string() }
        };
        let bytes = self.database.memtable_bytes();
        for (name, number) in [("sluice.flush.round", round), ("sluice.flush.waiters", waiters), ("sluice.flush.bytes", bytes)] {
            steps.whole().count(name, number);
        }
        steps.next("marker");
        self.write_marker(round).map_err(failed)?;
        let sequence = self.database.db().latest_sequence_number();
        steps.next("wait for a stall");
        self.await_no_stall(started);
        steps.next("flush");
        self.database.flush_all(true).map_err(failed)?;
        let duration_ms = started.elapsed().as_millis() as u64;
        tracing::info!(round, sequence, bytes, duration_ms, waiters, "flush round completed");
        Ok(FlushReceipt { instance: self.instance, round, sequence, durable_at_ms: system_ms(), bytes, duration_ms, waiters })
    }

    /// Waits, bounded, until a flush would not make writers wait.
    fn await_no_stall(&self, started: Instant) {
        let meta = self.database.family(Family::Meta);
        let stalled = || {
            let property = |name: &str| self.database.db().property_int_value_cf(meta, name).ok().flatten().unwrap_or(0);
            property("rocksdb.is-write-stopped") != 0 || property("rocksdb.num-immutable-mem-table") >= 2
        };
        while stalled() && started.elapsed() < STALL_WAIT {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn write_marker(&self, round: u64) -> Result<(), EngineError> {
        let mut options = WriteOptions::default();
        options.disable_wal(!self.wal);
        let mut batch = WriteBatch::default();
        let marker = Marker { round, at_ms: self.clock.now_ms() };
        batch.put_cf(self.database.family(Family::Meta), marker_key(), marker.encode(self.instance));
        self.database.write(batch, &options)
    }
}

fn marker_key() -> Vec<u8> {
    [&OWN_PREFIX[..], b"flush-round"].concat()
}

/// The marker of the last flush round that a start found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The round; 0 when none was ever flushed.
    pub(crate) round: u64,
    /// The engine's time when it was written, Unix milliseconds.
    pub(crate) at_ms: u64,
}

impl Marker {
    pub(super) fn encode(self, instance: InstanceId) -> Vec<u8> {
        Seal::new().bytes(instance.as_bytes()).u64(self.round).u64(self.at_ms).finish()
    }
}

/// Reads the marker of the last flush round.
pub(crate) fn recovered(database: &Database, instance: InstanceId) -> Result<Marker, EngineError> {
    let Some(bytes) = database.db().get_cf(database.family(Family::Meta), marker_key())? else { return Ok(Marker::default()) };
    decode_marker(&bytes, instance)
}

pub(super) fn decode_marker(bytes: &[u8], instance: InstanceId) -> Result<Marker, EngineError> {
    let mut record = Opened::open("the flush marker", bytes)?;
    let found = InstanceId::from_bytes(record.array()?);
    if found != instance {
        return Err(EngineError::Damaged(format!("the flush marker is of instance {found}, the database is {instance}")));
    }
    let marker = Marker { round: record.u64()?, at_ms: record.u64()? };
    record.end()?;
    Ok(marker)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_marker_round_trips_and_belongs_to_one_instance(id in any::<[u8; 16]>(), round in any::<u64>(), at_ms in any::<u64>()) {
            let (marker, instance) = (Marker { round, at_ms }, InstanceId::from_bytes(id));
            let bytes = marker.encode(instance);
            prop_assert_eq!(decode_marker(&bytes, instance).unwrap(), marker);
            prop_assert!(decode_marker(&bytes[..bytes.len() - 1], instance).is_err());
            let mut other = id;
            other[0] ^= 1;
            prop_assert!(decode_marker(&bytes, InstanceId::from_bytes(other)).is_err());
        }
    }
}
