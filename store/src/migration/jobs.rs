//! The jobs of this node as a source, running and recently ended.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use sluice_topology::{
    JobId, SlotRanges,
    admin::{MigrationState, MigrationStatus},
};
use tokio::sync::watch;

/// Ended jobs that are remembered.
const ENDED_MAX: usize = 64;

pub(super) struct Job {
    status: Mutex<MigrationStatus>,
    cancelled: AtomicBool,
    ended: watch::Sender<bool>,
}

impl Job {
    pub(super) fn new(status: MigrationStatus) -> Self {
        Self { status: Mutex::new(status), cancelled: AtomicBool::new(false), ended: watch::Sender::new(false) }
    }

    pub(super) fn status(&self) -> MigrationStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        self.update(|status| {
            status.state = state;
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

#[derive(Default)]
pub(super) struct Jobs(Mutex<Vec<Arc<Job>>>);

impl Jobs {
    /// Adds a job, unless a running one has some of its slots: then those.
    pub(super) fn add(&self, job: Arc<Job>) -> Result<(), SlotRanges> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = job.status().slots;
        let running = jobs.iter().map(|job| job.status()).filter(|status| status.state == MigrationState::Running);
        let busy: SlotRanges = running.flat_map(|status| status.slots.intersection(&slots).iter().collect::<Vec<_>>()).collect();
        if !busy.is_empty() {
            return Err(busy);
        }
        let ended = jobs.iter().filter(|job| job.status().state != MigrationState::Running).count();
        if ended >= ENDED_MAX
            && let Some(oldest) = jobs.iter().position(|job| job.status().state != MigrationState::Running)
        {
            jobs.remove(oldest);
        }
        jobs.push(job);
        Ok(())
    }

    /// Newest first.
    pub(super) fn all(&self) -> Vec<MigrationStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().map(|job| job.status()).collect()
    }

    /// Asks a running job to stop; false when there is none of that number.
    pub(super) fn cancel(&self, id: JobId) -> bool {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |job: &&Arc<Job>| job.status().job == id && job.status().state == MigrationState::Running;
        jobs.iter().find(running).is_some_and(|job| {
            job.cancelled.store(true, Ordering::SeqCst);
            true
        })
    }
}
