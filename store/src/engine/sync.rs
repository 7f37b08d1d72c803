//! Durability of the write-ahead log: `always`, `everysec`, `no`.
//!
//! With `always`, a write is applied at once and its reply waits for a shared fsync. One thread syncs; it takes the sequence number
//! before it starts and releases every waiter up to it, so any number of writers share one fsync and there is no gather delay.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{EngineError, raw::Database, worker::Worker};

/// A sync that takes less than this, in nanoseconds, is quick.
const QUICK_NS: u64 = 300_000;

/// When the write-ahead log is made durable (`sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncPolicy {
    /// Before a write is acknowledged.
    Always,
    /// Once a second.
    EverySecond,
    /// When the operating system likes.
    No,
}

impl SyncPolicy {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }

    fn from_byte(byte: u8) -> Self {
        [Self::Always, Self::EverySecond, Self::No].into_iter().find(|policy| *policy as u8 == byte).unwrap_or(Self::Always)
    }
}

#[derive(Clone, Debug, Default)]
struct Durable {
    sequence: u64,
    /// How often the log could not be synced because RocksDB has failed to append to it.
    stalls: u64,
    failed: Option<Arc<str>>,
}

#[derive(Default)]
struct Wanted {
    now: bool,
    stop: bool,
}

/// Where syncing has come to. Whoever syncs holds it: one at a time.
#[derive(Default)]
struct Progress {
    synced: u64,
    errors_seen: u64,
}

/// How a sync ended.
#[derive(PartialEq, Eq)]
enum Synced {
    Durable,
    /// RocksDB has stopped; nothing was synced.
    Stalled,
    /// Nothing may be acknowledged any more.
    Failed,
}

struct Shared {
    database: Arc<Database>,
    progress: Mutex<Progress>,
    /// What a sync takes, in nanoseconds: a moving average.
    usual_ns: AtomicU64,
    wanted: Mutex<Wanted>,
    wake: Condvar,
    policy: AtomicU8,
    durable: watch::Sender<Durable>,
    fsyncs: AtomicU64,
}

/// The sync thread and those who wait for it.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    worker: Worker,
}

impl Syncer {
    pub(crate) fn start(database: Arc<Database>, policy: SyncPolicy) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared {
            database,
            progress: Mutex::default(),
            usual_ns: AtomicU64::new(u64::MAX),
            wanted: Mutex::default(),
            wake: Condvar::new(),
            policy: AtomicU8::new(policy as u8),
            durable: watch::Sender::new(Durable::default()),
            fsyncs: AtomicU64::new(0),
        });
        let for_thread = shared.clone();
        let worker = Worker::spawn("wal-sync", move || for_thread.run())?;
        Ok(Self { shared, worker })
    }

    pub(crate) fn policy(&self) -> SyncPolicy {
        SyncPolicy::from_byte(self.shared.policy.load(Ordering::Relaxed))
    }

    /// Changes the policy; writes acknowledged from now on follow it.
    pub(crate) fn set_policy(&self, policy: SyncPolicy) {
        self.shared.policy.store(policy as u8, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    /// How many fsyncs of the WAL this thread has done.
    pub(crate) fn fsyncs(&self) -> u64 {
        self.shared.fsyncs.load(Ordering::Relaxed)
    }

    /// Makes everything up to that sequence number durable on the caller's thread, if that is quick here and nobody syncs right now;
    /// false: the caller is to wait for the thread, and hears there what is wrong. For a caller that serves everybody: a wake of
    /// another thread and back costs more than a quick sync, a slow one would hold up its reads.
    pub(crate) fn sync_here(&self, sequence: u64) -> bool {
        if self.shared.usual_ns.load(Ordering::Relaxed) > QUICK_NS {
            return false;
        }
        let Ok(mut progress) = self.shared.progress.try_lock() else { return false };
        self.shared.sync(&mut progress, false) == Synced::Durable && progress.synced >= sequence
    }

    /// Whether everything up to that sequence number is known to be durable.
    pub(crate) fn is_durable(&self, sequence: u64) -> bool {
        self.shared.durable.borrow().sequence >= sequence
    }

    /// Waits until everything up to that sequence number is durable.
    pub(crate) async fn wait(&self, sequence: u64) -> Result<(), EngineError> {
        let mut durable = self.shared.durable.subscribe();
        let stalls = durable.borrow().stalls;
        let done = |state: &Durable| state.failed.is_some() || state.sequence >= sequence || state.stalls != stalls;
        if !done(&durable.borrow()) {
            self.shared.ask();
        }
        let state = durable.wait_for(done).await.map_err(|_| EngineError::Closed)?;
        match &state.failed {
            Some(why) => Err(EngineError::SyncFailed(why.to_string())),
            None if state.sequence < sequence => Err(EngineError::NotDurable),
            None => Ok(()),
        }
    }

    /// Returns when an fsync has failed: nothing may be acknowledged after that.
    pub(crate) async fn failed(&self) -> EngineError {
        let mut durable = self.shared.durable.subscribe();
        match durable.wait_for(|state| state.failed.is_some()).await {
            Ok(state) => EngineError::SyncFailed(state.failed.as_deref().unwrap_or("unknown").to_owned()),
            Err(_) => EngineError::Closed,
        }
    }

    /// Ends the thread after a last fsync.
    pub(crate) fn stop(&self) {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake.notify_one();
        self.worker.join();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn ask(&self) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).now = true;
        self.wake.notify_one();
    }

    fn run(&self) {
        loop {
            let stop = self.await_work();
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if self.sync(&mut progress, stop) == Synced::Failed || stop {
                return;
            }
        }
    }

    /// One sync of all that was written by now, if there is something, and the word of it to those who wait.
    fn sync(&self, progress: &mut Progress, anyhow: bool) -> Synced {
        if self.durable.borrow().failed.is_some() {
            return Synced::Failed;
        }
        let sequence = self.database.db().latest_sequence_number();
        // `sync no` leaves the log to the operating system, but for a caller that asked (a change from `always`) and the end.
        if sequence > progress.synced || anyhow {
            // RocksDB fails a sync of a log to which an append has failed (a full disk), and then resumes only after a new start: it
            // is left alone until it has resumed by itself. What was appended before is acknowledged to nobody who waits.
            let errors = self.database.events().errors();
            if errors != progress.errors_seen && self.database.stopped().is_some() {
                self.durable.send_modify(|durable| durable.stalls += 1);
                return Synced::Stalled;
            }
            progress.errors_seen = errors;
            let started = Instant::now();
            if let Err(error) = self.database.db().flush_wal(true) {
                tracing::error!(%error, "fsync of the write-ahead log failed");
                self.durable.send_modify(|durable| durable.failed = Some(error.to_string().into()));
                return Synced::Failed;
            }
            self.note_time(started.elapsed());
            self.fsyncs.fetch_add(1, Ordering::Relaxed);
            progress.synced = sequence;
        }
        self.durable.send_modify(|durable| durable.sequence = sequence);
        Synced::Durable
    }

    fn note_time(&self, took: Duration) {
        let took = took.as_nanos() as u64;
        let usual = match self.usual_ns.load(Ordering::Relaxed) {
            u64::MAX => took,
            usual => usual - usual / 8 + took / 8,
        };
        self.usual_ns.store(usual, Ordering::Relaxed);
    }

    /// Waits until somebody asks, a second has passed under `everysec`, or the end; true at the end.
    fn await_work(&self) -> bool {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if wanted.stop {
                return true;
            }
            if std::mem::take(&mut wanted.now) {
                return false;
            }
            let (next, pause) = self.wake.wait_timeout(wanted, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner);
            wanted = next;
            let every_second = self.policy.load(Ordering::Relaxed) == SyncPolicy::EverySecond as u8;
            if pause.timed_out() && every_second && !wanted.stop {
                return false;
            }
        }
    }
}
