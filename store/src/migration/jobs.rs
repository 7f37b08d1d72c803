//! The jobs of this node as a source, running and recently ended.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use sluice_topology::{
    JobId, NodeId, SlotRanges,
    admin::{MigrationState, MigrationStatus},
};
use tokio::sync::watch;

/// Ended jobs that are remembered.
const ENDED_MAX: usize = 64;

pub(super) struct Job {
    status: Mutex<MigrationStatus>,
    started: Instant,
    cancelled: AtomicBool,
    /// As of which change the target was sent the libraries of functions, and one more; 0: it was not.
    libraries: AtomicU64,
    ended: watch::Sender<bool>,
}

impl Job {
    pub(super) fn new(job: JobId, source: NodeId, target: NodeId, slots: SlotRanges) -> Self {
        let status = MigrationStatus::new(job, source, target, slots);
        let (status, started) = (Mutex::new(status), Instant::now());
        let (cancelled, libraries) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { status, started, cancelled, libraries, ended: watch::Sender::new(false) }
    }

    /// As of which change the target was sent the libraries of functions.
    pub(super) fn shared_libraries(&self) -> Option<u64> {
        self.libraries.load(Ordering::SeqCst).checked_sub(1)
    }

    /// The target was sent them as of that change.
    pub(super) fn note_shared_libraries(&self, change: u64) {
        self.libraries.fetch_max(change + 1, Ordering::SeqCst);
    }

    pub(super) fn status(&self) -> MigrationStatus {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if status.state == MigrationState::Running {
            status.in_time(self.started.elapsed());
        }
        status
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut MigrationStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn step(&self, step: &str) {
        self.update(|status| step.clone_into(&mut status.step));
    }

    pub(super) fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self, state: MigrationState) {
        let took = self.started.elapsed();
        self.update(|status| {
            status.in_time(took);
            (status.state, status.eta_ms) = (state, 0);
            "ended".clone_into(&mut status.step);
        });
        self.ended.send_replace(true);
    }

    pub(super) async fn wait(&self) -> MigrationStatus {
        // The sender is in this very object, so the wait ends only when the job has.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
        self.status()
    }
}

/// What all jobs of this node have done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys that were moved.
    pub keys: u64,
    /// Attempts for a unit.
    pub attempts: u64,
    /// Bytes that were put on links.
    pub bytes_sent: u64,
    /// Of these, bytes that were sent again.
    pub bytes_resent: u64,
}

impl Totals {
    fn with(self, job: &MigrationStatus) -> Self {
        Self {
            keys: self.keys + job.keys_done,
            attempts: self.attempts + job.attempts,
            bytes_sent: self.bytes_sent + job.bytes_sent,
            bytes_resent: self.bytes_resent + job.bytes_resent,
        }
    }
}

#[derive(Default)]
struct Known {
    /// Oldest first.
    jobs: Vec<Arc<Job>>,
    /// What those did that are remembered no more.
    forgotten: Totals,
}

#[derive(Default)]
pub(super) struct Jobs(Mutex<Known>);

impl Jobs {
    /// With jobs that the last run left.
    pub(super) fn left(jobs: impl Iterator<Item = Job>) -> Self {
        Self(Mutex::new(Known { jobs: jobs.map(Arc::new).collect(), forgotten: Totals::default() }))
    }

    /// Adds the job that `make` makes, unless a running one has some of its slots: then those.
    pub(super) fn begin<E>(
        &self,
        slots: &SlotRanges,
        make: impl FnOnce() -> Result<Job, E>,
    ) -> Result<Result<Arc<Job>, SlotRanges>, E> {
        let mut known = self.lock();
        let Known { jobs, forgotten } = &mut *known;
        let running = jobs.iter().map(|job| job.status()).filter(|status| status.state == MigrationState::Running);
        let busy: SlotRanges = running.flat_map(|status| status.slots.intersection(slots).iter().collect::<Vec<_>>()).collect();
        if !busy.is_empty() {
            return Ok(Err(busy));
        }
        let job = Arc::new(make()?);
        let ended = jobs.iter().filter(|job| job.status().state != MigrationState::Running).count();
        if ended >= ENDED_MAX
            && let Some(oldest) = jobs.iter().position(|job| job.status().state != MigrationState::Running)
        {
            *forgotten = forgotten.with(&jobs.remove(oldest).status());
        }
        jobs.push(job.clone());
        Ok(Ok(job))
    }

    /// The job of that number, if it is known still.
    pub(super) fn find(&self, id: JobId) -> Option<Arc<Job>> {
        self.lock().jobs.iter().find(|job| job.status().job == id).cloned()
    }

    /// Those that have not ended.
    pub(super) fn running(&self) -> Vec<Arc<Job>> {
        self.lock().jobs.iter().filter(|job| job.status().state == MigrationState::Running).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Newest first.
    pub(super) fn all(&self) -> Vec<MigrationStatus> {
        self.lock().jobs.iter().rev().map(|job| job.status()).collect()
    }

    /// What all of them have done.
    pub(super) fn totals(&self) -> Totals {
        let known = self.lock();
        known.jobs.iter().fold(known.forgotten, |totals, job| totals.with(&job.status()))
    }

    /// Asks a running job to stop; false when there is none of that number.
    pub(super) fn cancel(&self, id: JobId) -> bool {
        let known = self.lock();
        let running = |job: &&Arc<Job>| job.status().job == id && job.status().state == MigrationState::Running;
        known.jobs.iter().find(running).is_some_and(|job| {
            job.cancelled.store(true, Ordering::SeqCst);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_counted_on_when_its_job_is_forgotten() {
        let jobs = Jobs::default();
        let nodes = [NodeId::from_bytes([1; 20]), NodeId::from_bytes([2; 20])];
        for number in 1..=3 * ENDED_MAX as u64 {
            let made = || Ok::<_, ()>(Job::new(JobId(number), nodes[0], nodes[1], SlotRanges::full()));
            let job = jobs.begin(&SlotRanges::full(), made).unwrap().unwrap();
            job.update(|status| (status.keys_done, status.attempts, status.bytes_sent, status.bytes_resent) = (1, 2, 30, 4));
            job.end(MigrationState::Done);
            let expected = Totals { keys: number, attempts: 2 * number, bytes_sent: 30 * number, bytes_resent: 4 * number };
            assert_eq!(jobs.totals(), expected);
        }
        assert!(jobs.all().len() <= ENDED_MAX + 1);
    }
}
