//! Starting, cancelling and listing jobs: what is asked for is checked whole before anything changes.

use std::sync::Arc;

use sluice_topology::{JobId, NodeId, SlotRanges, admin::MigrationStatus};

use super::{
    MigrationError, Migrations,
    jobs::{Job, Totals},
    journal::JobRecord,
};

/// Why a migration is not started. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Not in cluster mode, or before the first document.
    #[error("this node is not part of a cluster yet")]
    NoCluster,
    /// Before the peers were asked.
    #[error("this node has just started and is asking its peers for their word on its slots: try again in a moment")]
    Starting,
    /// No slots.
    #[error("no slots are named")]
    NoSlots,
    /// Slots of others.
    #[error("slots {0} are not this node's")]
    NotOwned(SlotRanges),
    /// To itself.
    #[error("node {0} is this node itself")]
    Itself(NodeId),
    /// To nobody.
    #[error("there is no node {0} in the topology")]
    UnknownTarget(NodeId),
    /// Slots of a running job.
    #[error("slots {0} are being moved already")]
    Busy(SlotRanges),
    /// No such job.
    #[error("there is no running job {0}")]
    UnknownJob(JobId),
    /// A step failed.
    #[error(transparent)]
    Failed(#[from] MigrationError),
}

/// A job that was started.
pub struct Started {
    /// Its number.
    pub id: JobId,
    job: Arc<Job>,
}

impl Started {
    /// Waits for its end.
    pub async fn ended(self) -> MigrationStatus {
        self.job.wait().await
    }
}

impl Migrations {
    /// Starts moving slots to another node.
    pub async fn migrate(self: &Arc<Self>, slots: SlotRanges, target: NodeId) -> Result<Started, MigrateError> {
        if !self.cluster.enabled() || self.cluster.known().cluster_id.is_none() {
            return Err(MigrateError::NoCluster);
        }
        // Asking ends with opening this node's slots, those included that a job would have parked meanwhile.
        if !self.cluster.confirmed() {
            return Err(MigrateError::Starting);
        }
        if slots.is_empty() {
            return Err(MigrateError::NoSlots);
        }
        if target == self.cluster.me() {
            return Err(MigrateError::Itself(target));
        }
        if self.cluster.node(target).is_none() {
            return Err(MigrateError::UnknownTarget(target));
        }
        let foreign = slots.difference(&self.cluster.owned());
        if !foreign.is_empty() {
            return Err(MigrateError::NotOwned(foreign));
        }
        let undecided = self.fenced().intersection(&slots);
        if !undecided.is_empty() {
            return Err(MigrateError::Busy(undecided));
        }
        let this = self.clone();
        let job = super::blocking(move || {
            let record = JobRecord { target, slots };
            this.jobs.begin(&record.slots, || {
                let id = this.journal.begin_job(&record)?;
                Ok(Job::new(id, this.cluster.me(), record.target, record.slots.clone()))
            })
        });
        let job = job.await?.map_err(MigrateError::Busy)?;
        let id = job.status().job;
        tokio::spawn(self.clone().run(job.clone()));
        Ok(Started { id, job })
    }

    /// Goes on with the jobs that the last run left: what of their slots is this node's still is to move, the rest has.
    pub(super) fn go_on(self: &Arc<Self>) {
        for job in self.jobs.running() {
            let left = job.status().slots.intersection(&self.cluster.owned());
            tracing::info!(job = %job.status().job, %left, "going on with a migration of the last run");
            tokio::spawn(self.clone().run(job));
        }
    }

    /// Cancels a job. Units that are switched stay switched; a unit whose switch is decided is brought to its end.
    pub fn cancel(&self, job: JobId) -> Result<(), MigrateError> {
        if self.jobs.cancel(job) { Ok(()) } else { Err(MigrateError::UnknownJob(job)) }
    }

    /// Jobs of this node as a source, newest first.
    pub fn jobs(&self) -> Vec<MigrationStatus> {
        self.jobs.all()
    }

    /// What all jobs of this node have done since its start.
    pub fn totals(&self) -> Totals {
        self.jobs.totals()
    }

    /// Slots that this node is taking over right now.
    pub fn importing(&self) -> SlotRanges {
        let imports: Vec<_> = self.imports().values().cloned().collect();
        imports
            .iter()
            .filter_map(|import| import.try_lock().ok().map(|import| import.slots_under_way()))
            .flat_map(|slots| slots.iter().collect::<Vec<_>>())
            .collect()
    }
}
