//! Moving slots to another node: the steps, their order and what survives a crash at each are in ARCHITECTURE.md ("A switch").
//!
//! Invariant: the source journals COMMITTED(n) before the target may make attempt n live, and from then on serves neither reads nor
//! writes of the unit; a target makes live only what its source says is committed.

mod brake;
mod buffers;
mod builder;
mod import;
mod jobs;
mod journal;
mod libraries;
mod link;
#[cfg(test)]
mod model;
mod pace;
mod resolve;
mod rules;
mod run;
mod source;
mod stages;
mod start;
mod wire;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sluice_topology::{NodeId, Slot, SlotRanges};
use tokio::sync::oneshot;

pub use import::{BeginRequest, Sent, SlotClaim};
pub use jobs::Totals;
pub use rules::Outcome;
pub use stages::{Stages, Waited};
pub use start::{MigrateError, Started};

use crate::{
    cluster::{Cluster, TopologyError},
    engine::{Engine, EngineError, FeedLost, RawRecord},
};
use buffers::Buffers;
use import::Import;
use jobs::{Job, Jobs};
use journal::Journal;
use pace::Pace;

/// Bytes of changed keys that a unit may remember however little memory there is.
const CHANGES_MIN: usize = 1 << 20;

/// Bounds of migrations, from the configuration.
#[derive(Clone, Debug)]
pub struct MigrationLimits {
    /// Most slots of a unit.
    pub unit_slots: usize,
    /// Most bytes of a unit; a slot that holds more is one of its own.
    pub unit_bytes: u64,
    /// Most bytes of a batch; smaller ones are sent where the link is slow.
    pub batch_bytes: usize,
    /// Bytes of batches that are sent and not yet acknowledged.
    pub window_bytes: usize,
    /// Bytes of a file that a target builds of a snapshot.
    pub file_bytes: u64,
    /// Bytes of changed keys that are remembered for a unit while it is copied.
    pub changes_bytes: usize,
    /// For a broken link to come back before its unit is staged afresh.
    pub resume_timeout: Duration,
    /// Most milliseconds that the clocks of source and target may be apart.
    pub clock_skew_max_ms: u64,
    /// Bytes a second over all jobs; 0: as fast as it goes.
    pub bytes_per_second: u64,
    /// Units of a job on their way at once.
    pub units_at_once: usize,
    /// For writes of a unit to wait before its attempt is undone.
    pub switch_timeout: Duration,
    /// Attempts of a unit before its job fails.
    pub attempts_max: u32,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
}

/// Why a step of a migration fails.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The peer was not reached, or refused.
    #[error(transparent)]
    Peer(#[from] sluice_topology::admin::AdminError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] EngineError),
    /// This node or its cluster does not allow it.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A batch or a message is not what it has to be.
    #[error("the migration's peer sent what it must not: {0}")]
    Wire(String),
    /// The target does not take the unit, and will not later.
    #[error("MIGRATEREFUSED {0}")]
    Refused(String),
    /// The slot has just left the node that it is to come back to.
    #[error("slot {0}: its last switch away from this node is not confirmed yet; try again in a moment")]
    Unconfirmed(Slot),
    /// The attempt is not known here (any more).
    #[error("attempt {0} is not under way on this node")]
    UnknownAttempt(u64),
    /// Writes waited as long as they may.
    #[error("the unit's last changes were not taken over within {0} ms; its writes go on and it is tried again")]
    SwitchTimeout(u64),
    /// The disk did not confirm the decision of a switch: whether it is made is known at the next start, and not before.
    #[error("attempt {0}: its decision was not confirmed by the disk; its slots stay closed until this node is restarted")]
    Undecided(u64),
    /// A library of functions was loaded, or is gone, just as a switch was to end.
    #[error("libraries of functions have changed: they go to the target first")]
    Libraries,
    /// Somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// What the slots hold changed in a way that a copy cannot follow.
    #[error("the copy begins anew: {0}")]
    Feed(#[from] FeedLost),
    /// A worker thread failed.
    #[error("a worker of the migration failed: {0}")]
    Worker(String),
}

/// An attempt's name: its source, and its number there.
pub type AttemptId = (NodeId, u64);

/// The migrations of one node, as source and as target.
pub struct Migrations {
    engine: Arc<Engine>,
    cluster: Arc<Cluster>,
    limits: MigrationLimits,
    pace: Pace,
    stages: Stages,
    buffers: Arc<Buffers>,
    journal: Journal,
    jobs: Jobs,
    /// Attempts that this node, as a source, is in the middle of.
    active: Mutex<HashSet<u64>>,
    /// Units this node takes over as a target.
    imports: Mutex<HashMap<AttemptId, Arc<tokio::sync::Mutex<Import>>>>,
    /// Slots whose switch is decided and not yet confirmed.
    undecided: Mutex<BTreeMap<u64, SlotRanges>>,
    /// How often this node's libraries of functions have changed; held while they do.
    libraries: Mutex<u64>,
}

impl Migrations {
    /// Reads the journal: attempts that were not decided are aborted, decided ones stay fenced until their target confirms them.
    pub fn open(engine: Arc<Engine>, cluster: Arc<Cluster>, limits: MigrationLimits) -> Result<Self, EngineError> {
        let journal = Journal::open(engine.clone())?;
        journal.abort_undecided()?;
        let undecided = journal.committed()?.into_iter().map(|(attempt, unit)| (attempt, unit.ranges())).collect();
        let imports = journal
            .imports()?
            .into_iter()
            .map(|(id, unit)| (id, Arc::new(tokio::sync::Mutex::new(Import::recovered(unit)))))
            .collect();
        let me = cluster.me();
        let left = journal.jobs()?.into_iter().map(|(id, job)| Job::new(id, me, job.target, job.slots));
        Ok(Self {
            jobs: Jobs::left(left),
            engine,
            cluster,
            pace: Pace::new(limits.bytes_per_second, limits.units_at_once),
            limits,
            stages: Stages::default(),
            buffers: Arc::default(),
            journal,
            active: Mutex::default(),
            imports: Mutex::new(imports),
            undecided: Mutex::new(undecided),
            libraries: Mutex::default(),
        })
    }

    /// Changes how fast migrations go from now on: bytes a second over all jobs (0: as fast as it goes), and units of a job at once.
    pub fn set_pace(&self, bytes_per_second: u64, units_at_once: usize) {
        self.pace.set(bytes_per_second, units_at_once);
    }

    /// Changes how many bytes of batches may be held, over all units; 0: without a bound but each unit's own.
    pub fn set_memory(&self, bytes: u64) {
        self.buffers.set_limit(bytes);
    }

    /// Bytes of batches held, and how many may be.
    pub fn memory(&self) -> (u64, u64) {
        self.buffers.account()
    }

    /// Bytes of changed keys that are remembered for a unit.
    fn changes_bytes(&self) -> usize {
        let (_, share) = self.buffers.account();
        let of_each = if share == 0 { usize::MAX } else { share as usize / self.pace.limits().1 };
        self.limits.changes_bytes.min(of_each.max(CHANGES_MIN))
    }

    /// For how long the stages of the pipeline have waited.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Slots whose switch was decided and not confirmed: nobody serves them here until it is.
    pub fn fenced(&self) -> SlotRanges {
        self.undecided().values().flat_map(SlotRanges::iter).collect()
    }

    fn active(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn undecided(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, SlotRanges>> {
        self.undecided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn imports(&self) -> std::sync::MutexGuard<'_, HashMap<AttemptId, Arc<tokio::sync::Mutex<Import>>>> {
        self.imports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn import(&self, id: AttemptId) -> Result<Arc<tokio::sync::Mutex<Import>>, MigrationError> {
        self.imports().get(&id).cloned().ok_or(MigrationError::UnknownAttempt(id.1))
    }
}

/// How much nicer than everybody else a thread is that copies a snapshot: what clients wait for goes first where processors are few.
const NICE: i32 = 10;

/// Bytes of records that are worked on before others are let in.
const TURN: usize = 32 << 10;
/// Where others always want the processor, work goes on for one in so many parts of the time that they had.
const SHARE: u32 = 8;

/// Lets others have the processor in the middle of long work, which a kernel may not do before milliseconds are over, nice as the
/// thread may be.
struct GivesWay {
    bytes: usize,
    not_before: Instant,
}

impl GivesWay {
    fn new() -> Self {
        Self { bytes: 0, not_before: Instant::now() }
    }

    /// So many bytes of a record were worked on.
    fn after(&mut self, record: &RawRecord<'_>) {
        self.bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
        if self.bytes < TURN {
            return;
        }
        self.bytes = 0;
        let asked = Instant::now();
        if asked >= self.not_before {
            std::thread::yield_now();
            let back = Instant::now();
            self.not_before = back + (back - asked) / SHARE;
        }
    }
}

/// Runs work that takes long and that no client waits for, on a thread of its own that leaves the processor to others.
fn behind_others<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, MigrationError> + Send + 'static,
) -> oneshot::Receiver<Result<T, MigrationError>> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        // Of Linux, for this thread alone. Without it the work is done all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        let _ = sender.send(work());
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(work) {
        // The receiver hears that there is nobody: its unit is tried again.
        tracing::warn!(%error, name, "a thread was not started");
    }
    receiver
}

/// See [`crate::fuzzing::codecs`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzzing(bytes: &[u8]) {
    wire::fuzzing(bytes);
    journal::fuzzing(bytes);
    import::fuzzing(bytes);
}

/// Runs work that blocks on storage away from the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MigrationError> + Send + 'static,
) -> Result<T, MigrationError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| MigrationError::Worker(error.to_string()))?
}
